//! The outcome of a policy, and why.

macro_rules! reasons {
    ($($reason:ident = $text:literal,)*) => {
        /// Why a criterion came out as it did (01 §3.4, 02 §7.2). The text of each is stable: logs, metrics and clients see it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "each variant is its own text, see `as_str`")]
        pub enum Reason { $($reason,)* }

        impl Reason {
            /// Every reason, in the order of its bit in [`Reasons`].
            pub const ALL: &'static [Self] = &[$(Self::$reason,)*];

            /// The stable text.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$reason => $text,)* }
            }
        }
    };
}

reasons! {
    Accept = "accept",
    Reject = "reject",
    ClaimOk = "claim-ok",
    ClaimUnauthorized = "claim-unauthorized",
    ClientCertificateOk = "client-certificate-ok",
    ClientCertificateUnauthorized = "client-certificate-unauthorized",
    ClientCertificateRequired = "client-certificate-required",
    ValidClientCertificate = "valid-client-certificate",
    InvalidClientCertificate = "invalid-client-certificate",
    CorsRequest = "cors-request",
    NonCorsRequest = "non-cors-request",
    DeviceOk = "device-ok",
    DeviceUnauthenticated = "device-unauthenticated",
    DeviceUnauthorized = "device-unauthorized",
    DomainOk = "domain-ok",
    DomainUnauthorized = "domain-unauthorized",
    EmailOk = "email-ok",
    EmailUnauthorized = "email-unauthorized",
    GroupsOk = "groups-ok",
    GroupsUnauthorized = "groups-unauthorized",
    HttpMethodOk = "http-method-ok",
    HttpMethodUnauthorized = "http-method-unauthorized",
    HttpPathOk = "http-path-ok",
    HttpPathUnauthorized = "http-path-unauthorized",
    SourceIpOk = "source-ip-ok",
    SourceIpUnauthorized = "source-ip-unauthorized",
    UserOk = "user-ok",
    UserUnauthenticated = "user-unauthenticated",
    UserUnauthorized = "user-unauthorized",
    DateOk = "date-ok",
    DateUnauthorized = "date-unauthorized",
    DayOfWeekOk = "day-of-week-ok",
    DayOfWeekUnauthorized = "day-of-week-unauthorized",
    McpNotAToolCall = "mcp-not-a-tool-call",
    McpToolMatch = "mcp-tool-match",
    McpToolNoMatch = "mcp-tool-no-match",
    RecordOk = "record-ok",
    RecordUnauthorized = "record-unauthorized",
    SshCaOk = "ssh-ca-ok",
    SshCaUnauthorized = "ssh-ca-unauthorized",
    SshPublickeyOk = "ssh-publickey-ok",
    SshPublickeyUnauthorized = "ssh-publickey-unauthorized",
    SshUsernameOk = "ssh-username-ok",
    SshUsernameUnauthorized = "ssh-username-unauthorized",
    TimeOfDayOk = "time-of-day-ok",
    TimeOfDayUnauthorized = "time-of-day-unauthorized",
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
        Reason::ALL.iter().copied().filter(move |reason| self.contains(*reason))
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

#[cfg(test)]
mod tests {
    use super::*;

    fn result(value: bool, reasons: &[Reason]) -> RuleResult {
        RuleResult { value, reasons: reasons.iter().copied().collect() }
    }

    /// The decision of these halves.
    fn decide(allow: (bool, &[Reason]), deny: (bool, &[Reason])) -> Decision {
        Evaluation { allow: result(allow.0, allow.1), deny: result(deny.0, deny.1) }.decision()
    }

    const PASSED: (bool, &[Reason]) = (true, &[Reason::Accept]);
    const NOTHING: (bool, &[Reason]) = (false, &[]);

    #[test]
    fn every_reason_has_a_bit_and_a_text_of_its_own() {
        for reason in Reason::ALL {
            assert_eq!(Reasons::of(*reason).iter().collect::<Vec<_>>(), [*reason]);
        }
        let texts: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(texts.len(), Reason::ALL.len());
    }

    #[test]
    fn a_certificate_that_is_wanted_by_a_deny_rule_comes_first() {
        for reason in [Reason::ClientCertificateRequired, Reason::InvalidClientCertificate] {
            let deny = [reason, Reason::UserUnauthenticated, Reason::DeviceUnauthorized];
            assert_eq!(decide(PASSED, (true, &deny)), Decision::ClientCertificate(deny.into_iter().collect()));
        }
        assert_eq!(decide(PASSED, (false, &[Reason::ValidClientCertificate])), Decision::Allow);
    }

    #[test]
    fn a_certificate_that_is_wanted_by_an_allow_rule_comes_after_sign_in() {
        let wanted = [Reason::ClientCertificateRequired];
        assert_eq!(decide((false, &wanted), NOTHING), Decision::ClientCertificate(Reasons::of(wanted[0])));
        let both = [Reason::ClientCertificateRequired, Reason::UserUnauthenticated];
        assert_eq!(decide((false, &both), NOTHING), Decision::SignIn);
    }

    #[test]
    fn sign_in_comes_before_a_device_and_both_before_deny_and_allow() {
        let (user, device) = (&[Reason::UserUnauthenticated][..], &[Reason::DeviceUnauthenticated][..]);
        let both = &[Reason::UserUnauthenticated, Reason::DeviceUnauthenticated][..];
        for (allow, deny) in
            [((false, both), NOTHING), ((false, device), (true, user)), ((true, user), (false, device))]
        {
            assert_eq!(decide(allow, deny), Decision::SignIn);
        }
        assert_eq!(decide((true, device), (true, &[Reason::HttpMethodOk])), Decision::EnrolDevice);
        assert_eq!(decide(PASSED, (false, device)), Decision::EnrolDevice);
    }

    #[test]
    fn s_098_a_true_deny_wins_and_gives_its_own_reasons() {
        let deny = Reasons::of(Reason::ClaimOk);
        assert_eq!(decide(PASSED, (true, &[Reason::ClaimOk])), Decision::Deny(deny));
        assert_eq!(decide((false, &[Reason::Reject]), (true, &[Reason::ClaimOk])), Decision::Deny(deny));
    }

    #[test]
    fn a_device_that_is_not_good_enough_has_an_answer_of_its_own() {
        let device = Reasons::of(Reason::DeviceUnauthorized);
        assert_eq!(decide((false, &[Reason::DeviceUnauthorized]), NOTHING), Decision::DeviceUnauthorized(device));
        assert_eq!(decide(PASSED, (true, &[Reason::DeviceUnauthorized])), Decision::DeviceUnauthorized(device));
    }

    #[test]
    fn s_097_without_an_allow_the_answer_is_no() {
        assert_eq!(decide(NOTHING, NOTHING), Decision::Deny(Reasons::NONE));
        let missing = Reasons::of(Reason::GroupsUnauthorized);
        assert_eq!(decide((false, &[Reason::GroupsUnauthorized]), NOTHING), Decision::Deny(missing));
        assert_eq!(decide(PASSED, (false, &[Reason::ClaimUnauthorized])), Decision::Allow);
    }
}
