//! Facts for unit tests, and what a single criterion makes of them.

use std::net::{IpAddr, Ipv4Addr};

use postern_identity::{Claims, CompactSession, IdpId, Session, SessionHandle, Timestamp, User};

use crate::document::read;
use crate::{Certificate, ClientCertificate, Device, Facts, Mcp, Policy, Reason, RuleResult, Ssh, ppl};

/// The world's clock: 2023-11-14T22:13:20Z.
pub(crate) const NOW: i64 = 1_700_000_000;

pub(crate) struct World<'w> {
    session: Option<(Session, CompactSession)>,
    certificate: ClientCertificate<'w>,
    devices: &'w [Device<'w>],
    mcp: Mcp<'w>,
    ssh: Ssh<'w>,
    now: i64,
    method: &'static str,
    path: &'static str,
    source: IpAddr,
    cors_preflight: bool,
}

impl Default for World<'_> {
    fn default() -> Self {
        Self {
            session: None,
            certificate: ClientCertificate::NONE,
            devices: &[],
            mcp: Mcp::None,
            ssh: Ssh::NONE,
            now: NOW,
            method: "GET",
            path: "/",
            source: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)),
            cors_preflight: false,
        }
    }
}

impl<'w> World<'w> {
    pub(crate) fn signed_in() -> Self {
        let session = Session {
            handle: SessionHandle::from_bytes([0; 32]),
            user: User { id: "u1".to_owned(), issuer: "https://idp.example".to_owned(), ..User::default() },
            claims: Claims::default(),
            idp: IdpId::new("test"),
            issued_at: Timestamp::from_secs(0),
            expires_at: Timestamp::from_secs(1),
            idle: None,
            generation: 0,
        };
        Self { session: Some((session.clone(), CompactSession::from(&session))), ..Self::default() }
    }

    fn with_session(mut self, change: impl FnOnce(&mut Session)) -> Self {
        let (session, compact) = self.session.as_mut().expect("a session");
        change(session);
        *compact = CompactSession::from(&*session);
        self
    }

    pub(crate) fn user(self, id: &str) -> Self {
        self.with_session(|session| id.clone_into(&mut session.user.id))
    }

    pub(crate) fn email(self, address: &str) -> Self {
        self.with_session(|session| session.user.email = Some(address.to_owned()))
    }

    pub(crate) fn email_verified(self, verified: Option<bool>) -> Self {
        self.with_session(|session| session.user.email_verified = verified)
    }

    pub(crate) fn session_claims(self, claims: &serde_json::Value) -> Self {
        self.with_session(|session| session.claims = Claims::flatten(claims.as_object().expect("an object")))
    }

    pub(crate) fn user_claims(self, claims: &serde_json::Value) -> Self {
        self.with_session(|session| session.user.claims = Claims::flatten(claims.as_object().expect("an object")))
    }

    pub(crate) fn method(self, method: &'static str) -> Self {
        Self { method, ..self }
    }

    pub(crate) fn path(self, path: &'static str) -> Self {
        Self { path, ..self }
    }

    pub(crate) fn source(self, source: &str) -> Self {
        Self { source: source.parse().expect("an address"), ..self }
    }

    pub(crate) fn cors_preflight(self) -> Self {
        Self { method: "OPTIONS", cors_preflight: true, ..self }
    }

    pub(crate) fn certificate(self, leaf: Option<&'w Certificate>, valid: bool) -> Self {
        Self { certificate: ClientCertificate { leaf, valid }, ..self }
    }

    pub(crate) fn devices(self, devices: &'w [Device<'w>]) -> Self {
        Self { devices, ..self }
    }

    pub(crate) fn mcp(self, mcp: Mcp<'w>) -> Self {
        Self { mcp, ..self }
    }

    pub(crate) fn ssh(self, ssh: Ssh<'w>) -> Self {
        Self { ssh, ..self }
    }

    pub(crate) fn at(self, now: i64) -> Self {
        Self { now, ..self }
    }

    pub(crate) fn facts(&self) -> Facts<'_> {
        Facts {
            person: self.session.as_ref().map(|(_, compact)| compact.into()),
            cors_preflight: self.cors_preflight,
            client_certificate: self.certificate,
            devices: self.devices,
            mcp: self.mcp,
            ssh: self.ssh,
            ..Facts::anonymous(self.method, self.path, self.source, Timestamp::from_secs(self.now))
        }
    }

    /// What one criterion, written as `name: data`, comes to.
    pub(crate) fn judge(&self, criterion: &str) -> RuleResult {
        policy(&format!("allow: {{and: [{{{criterion}}}]}}")).evaluate(&self.facts()).allow
    }

    #[track_caller]
    pub(crate) fn assert(&self, criterion: &str, value: bool, reason: &str) {
        let result = self.judge(criterion);
        let reasons: Vec<_> = result.reasons.iter().map(Reason::as_str).collect();
        assert_eq!((result.value, reasons), (value, vec![reason]), "{criterion}");
    }
}

/// The policy of that text.
pub(crate) fn policy(text: &str) -> Policy {
    Policy::new(Vec::new(), ppl::parse(&read(text).expect(text)).expect(text))
}
