//! Certificates of clients: `downstream_mtls` (01 §1.6).

use regex::Regex;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

use super::{authorities, one_of, regex};
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::keys::DOWNSTREAM_MTLS;
use crate::config::value::{Field, Spanned, quoted};
use crate::config::{At, Code};

/// `downstream_mtls`.
#[derive(Debug, Clone)]
pub struct DownstreamMtls {
    /// `ca(_file)`: who vouches for clients, as PEM; none: nobody asks for a certificate.
    pub authorities: Option<Vec<u8>>,
    /// `crl(_file)`: what was taken back, as PEM.
    pub revoked: Option<Vec<u8>>,
    /// `enforcement`.
    pub enforcement: Enforcement,
    /// `match_subject_alt_names`: one of them must match; none: every name will do.
    pub names: Vec<NamePattern>,
    /// `max_verify_depth`; `None` is no limit.
    pub max_depth: Option<u32>,
}

impl Default for DownstreamMtls {
    fn default() -> Self {
        Self {
            authorities: None,
            revoked: None,
            enforcement: Enforcement::default(),
            names: Vec::new(),
            max_depth: Some(DEPTH),
        }
    }
}

/// `max_verify_depth` unless written.
const DEPTH: u32 = 1;

/// What happens to a client without a certificate that is trusted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Enforcement {
    /// Policies decide.
    Policy,
    /// Policies decide, and each has a rule that denies.
    #[default]
    PolicyWithDefaultDeny,
    /// It is not even spoken to.
    RejectConnection,
}

/// A name of a certificate that will do.
#[derive(Debug, Clone)]
pub struct NamePattern {
    /// Which kind of name.
    pub kind: NameKind,
    /// What it must be, from end to end.
    pub pattern: Regex,
}

/// The kinds of subject alternative name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameKind {
    /// A DNS name.
    Dns,
    /// An e-mail address.
    Email,
    /// An IP address in its canonical text.
    IpAddress,
    /// A URI.
    Uri,
    /// A user principal name (otherName 1.3.6.1.4.1.311.20.2.3).
    UserPrincipalName,
}

const KINDS: [(&str, NameKind); 5] = [
    ("dns", NameKind::Dns),
    ("email", NameKind::Email),
    ("ip_address", NameKind::IpAddress),
    ("uri", NameKind::Uri),
    ("user_principal_name", NameKind::UserPrincipalName),
];

pub(super) fn resolve(cx: &mut Context<'_>, settings: &Block<'_>) -> DownstreamMtls {
    let Some(block) = settings.inner(cx, "downstream_mtls", &DOWNSTREAM_MTLS) else { return DownstreamMtls::default() };
    let enforcements = [
        ("policy_with_default_deny", Enforcement::PolicyWithDefaultDeny),
        ("policy", Enforcement::Policy),
        ("reject_connection", Enforcement::RejectConnection),
    ];
    let ca = one_of(cx, &block, "ca", "ca_file");
    let crl = one_of(cx, &block, "crl", "crl_file");
    let names = block.find("match_subject_alt_names").map(Field::elements).unwrap_or_default();
    let depth: Option<u32> = block.number(cx, "max_verify_depth");
    DownstreamMtls {
        authorities: authorities(cx, ca),
        revoked: crl.and_then(|(at, pem)| revoked(cx, &at, pem)),
        enforcement: block.choice(cx, "enforcement", "", &enforcements).unwrap_or_default(),
        names: names.iter().filter_map(|name| pattern(cx, name)).collect(),
        max_depth: Some(depth.unwrap_or(DEPTH)).filter(|depth| *depth > 0),
    }
}

/// Lists of revoked certificates, every one of which can be read.
fn revoked(cx: &mut Context<'_>, at: &At, pem: Vec<u8>) -> Option<Vec<u8>> {
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
    let readable = |list: &CertificateRevocationListDer<'_>| {
        CertificateRevocationList::from_der(list.as_ref()).is_ok_and(|(rest, _)| rest.is_empty())
    };
    let after =
        String::from_utf8_lossy(&pem).rsplit("-----END X509 CRL-----").next().map(|rest| rest.trim().is_empty());
    if lists.is_ok_and(|lists| !lists.is_empty() && lists.iter().all(readable)) && after == Some(true) {
        return Some(pem);
    }
    let hint = "give PEM blocks of the kind `X509 CRL` and nothing else; `openssl crl -inform DER` converts others";
    cx.fatal(Code::BadCertificate, at, "there is something else than lists of revoked certificates here", hint);
    None
}

/// A map of one key, the kind of name, to an expression.
fn pattern(cx: &mut Context<'_>, field: &Field<'_>) -> Option<NamePattern> {
    let names: Vec<_> = KINDS.iter().map(|(name, _)| format!("`{name}`")).collect();
    let hint = format!("write `{{email: '.*@example\\.com'}}`; the kinds are {}", names.join(", "));
    let entries = field.entries().unwrap_or_default();
    let [(kind, value)] = entries.as_slice() else {
        cx.fatal(Code::WrongType, &field.at, "this must be a map of one kind of name to an expression", hint);
        return None;
    };
    let Some((_, known)) = KINDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(kind)) else {
        cx.fatal(Code::BadChoice, &value.key_at(), format!("{} is no kind of name", quoted(kind)), hint);
        return None;
    };
    let text = Spanned { value: value.text(cx)?, at: value.at.clone() };
    Some(NamePattern { kind: *known, pattern: regex(cx, &text, true)? })
}
