//! The names in a client certificate, and patterns for them.

use std::net::{Ipv4Addr, Ipv6Addr};

use postern_policy::Certificate;
use regex::Regex;
use x509_parser::asn1_rs::{Any, FromDer as _, Oid, Utf8String, oid};
use x509_parser::prelude::{GeneralName, X509Certificate};

/// An entry of `match_subject_alt_names`: a name that will do.
#[derive(Debug, Clone)]
pub struct NamePattern {
    /// Which kind of name.
    pub kind: NameKind,
    /// What it must be; anchored at both ends.
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
    /// A user principal name (otherName 1.3.6.1.4.1.311.20.2.3, UTF-8).
    UserPrincipalName,
}

const UPN: Oid<'static> = oid!(1.3.6.1.4.1.311.20.2.3);

/// Every name of a leaf that there is a kind for.
pub(super) fn names(leaf: &[u8]) -> Vec<(NameKind, String)> {
    let Ok((_, certificate)) = X509Certificate::from_der(leaf) else { return Vec::new() };
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    alternatives.iter().flat_map(|names| &names.value.general_names).filter_map(name).collect()
}

fn name(name: &GeneralName<'_>) -> Option<(NameKind, String)> {
    match name {
        GeneralName::DNSName(name) => Some((NameKind::Dns, (*name).to_owned())),
        GeneralName::RFC822Name(name) => Some((NameKind::Email, (*name).to_owned())),
        GeneralName::URI(name) => Some((NameKind::Uri, (*name).to_owned())),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| (NameKind::IpAddress, address)),
        GeneralName::OtherName(kind, value) if *kind == UPN => {
            principal(value).map(|name| (NameKind::UserPrincipalName, name))
        }
        GeneralName::OtherName(..)
        | GeneralName::X400Address(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EDIPartyName(_)
        | GeneralName::RegisteredID(_)
        | GeneralName::Invalid(..) => None,
    }
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(bytes).to_string());
    }
    let address = Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?);
    Some(address.to_canonical().to_string())
}

/// `[0] EXPLICIT UTF8String`, and nothing behind it.
fn principal(value: &[u8]) -> Option<String> {
    let (rest, explicit) = Any::from_der(value).ok()?;
    let (behind, text) = Utf8String::from_der(explicit.data).ok()?;
    (rest.is_empty() && behind.is_empty()).then(|| text.string())
}

/// What policies see of a leaf; of one that cannot be read, its fingerprint.
pub(super) fn facts(leaf: &[u8]) -> Certificate {
    let spki_hash = match X509Certificate::from_der(leaf) {
        Ok((_, certificate)) => sha256(certificate.public_key().raw),
        Err(_) => [0; 32],
    };
    let mut facts = Certificate { fingerprint: sha256(leaf), spki_hash, ..Certificate::default() };
    for (kind, name) in names(leaf) {
        match kind {
            NameKind::Dns => facts.dns.push(name),
            NameKind::Email => facts.emails.push(name),
            NameKind::Uri => facts.uris.push(name),
            NameKind::IpAddress | NameKind::UserPrincipalName => {}
        }
    }
    facts
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    out.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
    out
}
