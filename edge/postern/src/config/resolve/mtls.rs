//! Certificates of clients: `downstream_mtls`, and the authorities of single routes (01 §1.6).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use postern_edge::{ClientTrust, DownstreamMtls, NameKind, NamePattern, Revocations, Terms};
use postern_identity::Timestamp;

use super::planned::{either, one_of, regex};
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::keys::DOWNSTREAM_MTLS;
use crate::config::value::{Field, Spanned, quoted};
use crate::config::{At, Code};

/// What is asked of clients, as far as the top of the file says it.
#[derive(Debug)]
pub(super) struct Mtls {
    enforcement: Enforcement,
    revoked: Arc<Revocations>,
    names: Arc<[NamePattern]>,
    max_depth: Option<u32>,
    /// Who vouches for clients of routes that say nothing.
    global: Option<Arc<ClientTrust>>,
    /// Everybody who vouches for clients, by their PEM.
    all: BTreeMap<Vec<u8>, Arc<ClientTrust>>,
    asks: bool,
}

/// `max_verify_depth` unless written.
const DEPTH: u32 = 1;

/// What happens to a client without a certificate that is trusted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Enforcement {
    /// Policies decide.
    Policy,
    /// Policies decide, and each has a rule that denies.
    #[default]
    PolicyWithDefaultDeny,
    /// It is not even spoken to.
    RejectConnection,
}

const ENFORCEMENTS: [(&str, Enforcement); 3] = [
    ("policy_with_default_deny", Enforcement::PolicyWithDefaultDeny),
    ("policy", Enforcement::Policy),
    ("reject_connection", Enforcement::RejectConnection),
];

const KINDS: [(&str, NameKind); 5] = [
    ("dns", NameKind::Dns),
    ("email", NameKind::Email),
    ("ip_address", NameKind::IpAddress),
    ("uri", NameKind::Uri),
    ("user_principal_name", NameKind::UserPrincipalName),
];

/// The keys of a route with authorities of its own.
const OF_ROUTE: (&str, &str) = ("tls_downstream_client_ca", "tls_downstream_client_ca_file");

/// `plain`: TLS ends somewhere else, where nobody's certificate is seen.
pub(super) fn resolve(cx: &mut Context<'_>, settings: &Block<'_>, plain: bool) -> Mtls {
    let block = settings.inner(cx, "downstream_mtls", &DOWNSTREAM_MTLS);
    let mut mtls = Mtls {
        enforcement: Enforcement::default(),
        revoked: Arc::default(),
        names: Arc::default(),
        max_depth: Some(DEPTH),
        global: None,
        all: BTreeMap::new(),
        asks: routes_ask(settings),
    };
    if let Some(block) = &block {
        let ca = one_of(cx, block, "ca", "ca_file");
        let crl = one_of(cx, block, "crl", "crl_file");
        mtls.enforcement = block.choice(cx, "enforcement", "", &ENFORCEMENTS).unwrap_or_default();
        let names = block.find("match_subject_alt_names").map(Field::elements).unwrap_or_default();
        mtls.names = names.iter().filter_map(|name| pattern(cx, name)).collect();
        let depth: Option<u32> = block.number(cx, "max_verify_depth");
        mtls.max_depth = Some(depth.unwrap_or(DEPTH)).filter(|depth| *depth > 0);
        if let Some((at, pem)) = crl {
            mtls.revoked = revoked(cx, &at, &pem).unwrap_or_default();
        }
        mtls.asks |= ca.is_some();
        mtls.global = ca.and_then(|ca| mtls.trust(cx, ca));
        mtls.tell(cx, block, plain);
    }
    mtls
}

impl Mtls {
    /// Whether clients are asked for certificates at all.
    pub(super) const fn asks(&self) -> bool {
        self.asks
    }

    /// Whether every route denies whoever has no certificate that is valid there.
    pub(super) fn denies(&self) -> bool {
        self.asks && self.enforcement != Enforcement::Policy
    }

    /// Who vouches for clients of a route.
    pub(super) fn of_route(&mut self, cx: &mut Context<'_>, route: &Block<'_>) -> Option<Arc<ClientTrust>> {
        match either(cx, route, OF_ROUTE.0, OF_ROUTE.1) {
            Some(own) => self.trust(cx, own),
            None => self.global.clone(),
        }
    }

    /// What the listener asks, once every route was seen.
    pub(super) fn listener(&self) -> DownstreamMtls {
        let reject = self.enforcement == Enforcement::RejectConnection;
        let everybody = ClientTrust::new(self.all.keys().map(Vec::as_slice), self.terms(reject)).ok();
        DownstreamMtls { everybody: everybody.map(Arc::new), reject }
    }

    fn trust(&mut self, cx: &mut Context<'_>, (at, pem): (At, Vec<u8>)) -> Option<Arc<ClientTrust>> {
        if let Some(known) = self.all.get(&pem) {
            return Some(Arc::clone(known));
        }
        match ClientTrust::new([pem.as_slice()], self.terms(false)) {
            Ok(trust) => {
                if trust.pinned() > 0 {
                    let what = format!(
                        "{} of these certificates may not sign others: it vouches for itself alone",
                        trust.pinned()
                    );
                    let hint = "name the certificate of who signed it, if others by the same are meant too";
                    cx.advise(Code::BadCertificate, &at, what, hint);
                }
                let trust = Arc::new(trust);
                self.all.insert(pem, Arc::clone(&trust));
                Some(trust)
            }
            Err(error) => {
                cx.fatal(Code::BadCertificate, &at, error.to_string(), "give one or more PEM certificates");
                None
            }
        }
    }

    fn terms(&self, fresh_lists: bool) -> Terms {
        let (revoked, names) = (Arc::clone(&self.revoked), Arc::clone(&self.names));
        Terms { revoked, names, max_depth: self.max_depth, fresh_lists }
    }

    /// Tells of what can be meant by nobody.
    fn tell(&self, cx: &mut Context<'_>, block: &Block<'_>, plain: bool) {
        if !self.asks {
            let hint = "write `ca_file`: who vouches for clients";
            cx.advise(Code::NoEffect, &block.at, "without an authority no client is asked for a certificate", hint);
        } else if plain {
            let what = "nobody can show a certificate here: with `insecure_server` TLS ends somewhere else";
            cx.advise(Code::Conflict, &block.at, what, "end TLS here, or check certificates where it ends");
        }
    }
}

/// Whether some route has authorities of its own.
fn routes_ask(settings: &Block<'_>) -> bool {
    let written = |field: &Field<'_>| {
        let entries = field.entries().unwrap_or_default();
        let is_one = |key: &str| [OF_ROUTE.0, OF_ROUTE.1].iter().any(|own| key.eq_ignore_ascii_case(own));
        entries.iter().any(|(key, value)| is_one(key) && value.node.as_text().is_some_and(|text| !text.is_empty()))
    };
    let lists = ["policy", "routes"].iter().filter_map(|list| settings.find(list));
    lists.flat_map(Field::elements).any(|route| written(&route))
}

/// Lists of revoked certificates; one that is out of date is told of.
fn revoked(cx: &mut Context<'_>, at: &At, pem: &[u8]) -> Option<Arc<Revocations>> {
    let Ok(read) = Revocations::read(pem) else {
        let hint = "give PEM blocks of the kind `X509 CRL` and nothing else; `openssl crl -inform DER` converts others";
        cx.fatal(Code::BadCertificate, at, "there is something else than lists of revoked certificates here", hint);
        return None;
    };
    let now = Timestamp::from(SystemTime::now());
    for (issuer, due) in read.due().iter().filter(|(_, due)| due.at < now) {
        let what = format!("the list of revoked certificates of {} is out of date since {}", quoted(issuer), due.at);
        cx.advise(Code::BadCertificate, at, what, "fetch a new one; what was revoked since is not on this one");
    }
    Some(Arc::new(read))
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
