//! What a policy may look at; borrowed, nothing is copied to decide.

use std::net::IpAddr;

use postern_identity::{CompactSession, Timestamp};

/// Everything that is known about one request when it is decided (01 §3.3).
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Who has the live session; `None` for anonymous requests.
    pub person: Option<Person<'a>>,
    /// The request method, as sent.
    pub method: &'a str,
    /// The canonical path, percent-decoded, without query; empty if it is not valid UTF-8 once decoded.
    pub path: &'a str,
    /// The trusted client address.
    pub source: IpAddr,
    /// `OPTIONS` with non-empty `Origin` and `Access-Control-Request-Method` (S-035).
    pub cors_preflight: bool,
    /// The client certificate of the connection.
    pub client_certificate: ClientCertificate<'a>,
    /// The device credentials of the session, in the order in which they were made.
    pub devices: &'a [Device<'a>],
    /// What a Model Context Protocol request asks for.
    pub mcp: Mcp<'a>,
    /// Who an SSH connection wants to be, and with which key.
    pub ssh: Ssh<'a>,
    /// What external sources hold about this request.
    pub records: &'a [Record<'a>],
    /// The time of the decision.
    pub now: Timestamp,
}

impl<'a> Facts<'a> {
    /// A plain request of somebody who is not signed in.
    #[must_use]
    pub const fn anonymous(method: &'a str, path: &'a str, source: IpAddr, now: Timestamp) -> Self {
        Self {
            person: None,
            method,
            path,
            source,
            cors_preflight: false,
            client_certificate: ClientCertificate::NONE,
            devices: &[],
            mcp: Mcp::None,
            ssh: Ssh::NONE,
            records: &[],
            now,
        }
    }

    /// The subject's e-mail as e-mail rules see it.
    #[must_use]
    pub fn email(&self) -> Email<'a> {
        self.person.as_ref().map_or(Email::NoSession, |person| person.email)
    }
}

/// Who has a session, and what most criteria look at, read once.
#[derive(Clone, Copy, Debug)]
pub struct Person<'a> {
    /// All that is said of them.
    pub(crate) session: &'a CompactSession,
    /// What the identity provider calls `sub`.
    pub(crate) user_id: &'a str,
    pub(crate) email: Email<'a>,
    /// What stands between the first and the second `@` of the address.
    pub(crate) domain: Option<&'a str>,
}

impl<'a> From<&'a CompactSession> for Person<'a> {
    fn from(session: &'a CompactSession) -> Self {
        let address = session.email().unwrap_or_default();
        let unverified = session.email_verified == Some(false);
        Self {
            session,
            user_id: session.user_id(),
            email: if unverified { Email::Unverified(address) } else { Email::Address(address) },
            domain: domain_of(address),
        }
    }
}

fn domain_of(address: &str) -> Option<&str> {
    // Addresses are short: a byte after the other takes a fifth of the instructions of a search for a character.
    let at = |text: &str| text.bytes().position(|byte| byte == b'@');
    let domain = address.get(at(address)? + 1..)?;
    domain.get(..at(domain).unwrap_or(domain.len()))
}

/// The e-mail of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Email<'a> {
    /// There is nobody.
    NoSession,
    /// An address of which the provider says that it is not verified: it helps nobody to pass (S-069).
    Unverified(&'a str),
    /// The address; empty if the provider gave none.
    Address(&'a str),
}

/// The client certificate of a connection, and the verdict on it (01 §1.6).
#[derive(Clone, Copy, Debug)]
pub struct ClientCertificate<'a> {
    /// The presented leaf, trusted or not.
    pub leaf: Option<&'a Certificate>,
    /// The verdict of CA, CRL, SAN and depth checks; `true` when no CA applies.
    pub valid: bool,
}

impl ClientCertificate<'_> {
    /// No certificate, and none wanted.
    pub const NONE: Self = Self { leaf: None, valid: true };
}

/// A certificate as policies see it; read once, when the connection is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// SHA-256 of the whole certificate.
    pub fingerprint: [u8; 32],
    /// SHA-256 of its subject public key info.
    pub spki_hash: [u8; 32],
    /// Its DNS subject alternative names.
    pub dns: Vec<String>,
    /// Its e-mail subject alternative names.
    pub emails: Vec<String>,
    /// Its URI subject alternative names.
    pub uris: Vec<String>,
}

/// A device credential of a session.
#[derive(Clone, Copy, Debug)]
pub struct Device<'a> {
    /// `any`, `enclave_only`.
    pub kind: &'a str,
    /// The id of the credential.
    pub id: &'a str,
    /// How far the device got.
    pub enrolment: Enrolment,
}

/// A [`Device`] that owns its texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRecord {
    /// `any`, `enclave_only`.
    pub kind: String,
    /// The id of the credential.
    pub id: String,
    /// How far the device got.
    pub enrolment: Enrolment,
}

impl DeviceRecord {
    /// The same, as policies look at it.
    #[must_use]
    pub fn facts(&self) -> Device<'_> {
        Device { kind: &self.kind, id: &self.id, enrolment: self.enrolment }
    }
}

/// How far a device got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enrolment {
    /// The record of the credential is gone: as if there were no credential.
    NoCredential,
    /// The credential has no enrolment.
    None,
    /// Enrolled, and approved by nobody.
    Unapproved,
    /// Enrolled, and approved.
    Approved,
}

/// What a Model Context Protocol request asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mcp<'a> {
    /// It is no such request.
    #[default]
    None,
    /// A method other than `tools/call`.
    Method(&'a str),
    /// `tools/call` of that tool.
    ToolCall(&'a str),
}

/// Who an SSH connection wants to be.
#[derive(Clone, Copy, Debug)]
pub struct Ssh<'a> {
    /// The user name; empty if this is no SSH connection.
    pub username: &'a str,
    /// The public key that was proven, in its wire form (RFC 4253 §6.6); of a certificate, the key in it.
    pub key: Option<&'a [u8]>,
    /// The certificate that was shown with the key, its signature checked.
    pub certificate: Option<SshCertificate<'a>>,
}

impl Ssh<'_> {
    /// No SSH connection.
    pub const NONE: Self = Self { username: "", key: None, certificate: None };
}

/// An SSH user certificate whose signature holds.
#[derive(Clone, Copy, Debug)]
pub struct SshCertificate<'a> {
    /// The key that signed it, in its wire form.
    pub authority: &'a [u8],
    /// The user names that it is for. Without any it is for nobody here.
    pub principals: &'a [&'a str],
    /// When it begins to count.
    pub valid_after: Timestamp,
    /// When it ends to count.
    pub valid_before: Timestamp,
}

/// A record of an external data source that belongs to this request.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its type.
    pub kind: &'a str,
    /// Its fields.
    pub fields: &'a serde_json::Map<String, serde_json::Value>,
}
