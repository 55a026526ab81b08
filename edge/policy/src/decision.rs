//! The outcome of a policy, and why.

/// Why a criterion came out as it did (01 §3.4, 02 §7.2). The text of each is stable: logs, metrics and clients see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each variant is its own text, see `as_str`")]
pub enum Reason {
    Accept,
    Reject,
    ClaimOk,
    ClaimUnauthorized,
    ClientCertificateOk,
    ClientCertificateUnauthorized,
    ClientCertificateRequired,
    ValidClientCertificate,
    InvalidClientCertificate,
    CorsRequest,
    NonCorsRequest,
    DeviceOk,
    DeviceUnauthenticated,
    DeviceUnauthorized,
    DomainOk,
    DomainUnauthorized,
    EmailOk,
    EmailUnauthorized,
    GroupsOk,
    GroupsUnauthorized,
    HttpMethodOk,
    HttpMethodUnauthorized,
    HttpPathOk,
    HttpPathUnauthorized,
    SourceIpOk,
    SourceIpUnauthorized,
    UserOk,
    UserUnauthenticated,
    UserUnauthorized,
}

impl Reason {
    /// Every reason, in the order of its bit in [`Reasons`].
    pub const ALL: [Self; 29] = [
        Self::Accept,
        Self::Reject,
        Self::ClaimOk,
        Self::ClaimUnauthorized,
        Self::ClientCertificateOk,
        Self::ClientCertificateUnauthorized,
        Self::ClientCertificateRequired,
        Self::ValidClientCertificate,
        Self::InvalidClientCertificate,
        Self::CorsRequest,
        Self::NonCorsRequest,
        Self::DeviceOk,
        Self::DeviceUnauthenticated,
        Self::DeviceUnauthorized,
        Self::DomainOk,
        Self::DomainUnauthorized,
        Self::EmailOk,
        Self::EmailUnauthorized,
        Self::GroupsOk,
        Self::GroupsUnauthorized,
        Self::HttpMethodOk,
        Self::HttpMethodUnauthorized,
        Self::HttpPathOk,
        Self::HttpPathUnauthorized,
        Self::SourceIpOk,
        Self::SourceIpUnauthorized,
        Self::UserOk,
        Self::UserUnauthenticated,
        Self::UserUnauthorized,
    ];

    /// The stable text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Reject => "reject",
            Self::ClaimOk => "claim-ok",
            Self::ClaimUnauthorized => "claim-unauthorized",
            Self::ClientCertificateOk => "client-certificate-ok",
            Self::ClientCertificateUnauthorized => "client-certificate-unauthorized",
            Self::ClientCertificateRequired => "client-certificate-required",
            Self::ValidClientCertificate => "valid-client-certificate",
            Self::InvalidClientCertificate => "invalid-client-certificate",
            Self::CorsRequest => "cors-request",
            Self::NonCorsRequest => "non-cors-request",
            Self::DeviceOk => "device-ok",
            Self::DeviceUnauthenticated => "device-unauthenticated",
            Self::DeviceUnauthorized => "device-unauthorized",
            Self::DomainOk => "domain-ok",
            Self::DomainUnauthorized => "domain-unauthorized",
            Self::EmailOk => "email-ok",
            Self::EmailUnauthorized => "email-unauthorized",
            Self::GroupsOk => "groups-ok",
            Self::GroupsUnauthorized => "groups-unauthorized",
            Self::HttpMethodOk => "http-method-ok",
            Self::HttpMethodUnauthorized => "http-method-unauthorized",
            Self::HttpPathOk => "http-path-ok",
            Self::HttpPathUnauthorized => "http-path-unauthorized",
            Self::SourceIpOk => "source-ip-ok",
            Self::SourceIpUnauthorized => "source-ip-unauthorized",
            Self::UserOk => "user-ok",
            Self::UserUnauthenticated => "user-unauthenticated",
            Self::UserUnauthorized => "user-unauthorized",
        }
    }
}

/// A set of reasons; a word, no allocation.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Reasons(u64);

impl Reasons {
    /// No reason.
    pub const NONE: Self = Self(0);

    /// Just this one.
    #[must_use]
    pub const fn of(reason: Reason) -> Self {
        Self(1 << reason as u64)
    }

    /// Both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether `reason` is among them.
    #[must_use]
    pub const fn contains(self, reason: Reason) -> bool {
        self.0 & (1 << reason as u64) != 0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each reason, in the order of [`Reason::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Reason> {
        Reason::ALL.into_iter().filter(move |reason| self.contains(*reason))
    }
}

impl FromIterator<Reason> for Reasons {
    fn from_iter<I: IntoIterator<Item = Reason>>(reasons: I) -> Self {
        reasons.into_iter().fold(Self::NONE, |set, reason| set.and(Self::of(reason)))
    }
}

impl std::fmt::Debug for Reasons {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter().map(Reason::as_str)).finish()
    }
}

/// What the rules of one kind came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleResult {
    /// Whether they hold.
    pub value: bool,
    /// Why, or why not.
    pub reasons: Reasons,
}

/// Both halves of a policy, as evaluated (01 §3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evaluation {
    /// All `allow` rules, or-ed.
    pub allow: RuleResult,
    /// All `deny` rules, or-ed.
    pub deny: RuleResult,
}

/// What is to happen with the request (01 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Carry it.
    Allow,
    /// Nobody is signed in, and somebody must be.
    SignIn,
    /// A device must be enrolled first.
    EnrolDevice,
    /// A client certificate is missing or not valid: 495.
    ClientCertificate(Reasons),
    /// The device is not good enough: 450.
    DeviceUnauthorized(Reasons),
    /// No: 403.
    Deny(Reasons),
}

impl Evaluation {
    /// The decision of 01 §4.2: certificate, sign-in and device steps come before deny, deny before allow, and without an
    /// allow the answer is no (S-097, S-098).
    #[must_use]
    pub fn decision(&self) -> Decision {
        let (allow, deny) = (self.allow, self.deny);
        let either = allow.reasons.and(deny.reasons);
        let certificate = |reasons: Reasons| {
            reasons.contains(Reason::ClientCertificateRequired) || reasons.contains(Reason::InvalidClientCertificate)
        };
        let denied = |reasons: Reasons| {
            if reasons.contains(Reason::DeviceUnauthorized) {
                Decision::DeviceUnauthorized(reasons)
            } else if certificate(reasons) {
                Decision::ClientCertificate(reasons)
            } else {
                Decision::Deny(reasons)
            }
        };
        if certificate(deny.reasons) {
            Decision::ClientCertificate(deny.reasons)
        } else if either.contains(Reason::UserUnauthenticated) {
            Decision::SignIn
        } else if either.contains(Reason::DeviceUnauthenticated) {
            Decision::EnrolDevice
        } else if deny.value {
            denied(deny.reasons)
        } else if allow.value {
            Decision::Allow
        } else {
            denied(allow.reasons)
        }
    }
}
