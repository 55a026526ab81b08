//! Criteria: one test of one fact each, with its reason.
//!
//! An identity criterion without a session is false with `user-unauthenticated`, whatever its operator asks for: an empty
//! value is no proof of anything, and nobody gets in for lack of an address.

mod accept;
mod authenticated_user;
mod claim;
mod client_certificate;
mod cors_preflight;
mod date;
mod day_of_week;
mod device;
mod domain;
mod email;
mod groups;
mod http_method;
mod http_path;
mod invalid_client_certificate;
mod mcp_tool;
mod name;
mod record;
mod reject;
mod source_ip;
mod ssh_ca;
mod ssh_publickey;
mod ssh_username;
mod ssh_username_matches_claim;
mod ssh_username_matches_email;
mod time_of_day;
mod user;

use crate::document::{Mistake, Node};
use crate::policy::Action;
use crate::{Facts, Person, Reason, Reasons, RuleResult, Samples, facts};

pub(crate) use self::accept::Accept;
pub(crate) use self::authenticated_user::AuthenticatedUser;
pub(crate) use self::claim::Claim;
pub(crate) use self::client_certificate::{ClientCertificate, KEYS as CLIENT_CERTIFICATE_KEYS};
pub(crate) use self::cors_preflight::CorsPreflight;
pub(crate) use self::date::Date;
pub(crate) use self::day_of_week::DayOfWeek;
pub(crate) use self::device::{Device, KEYS as DEVICE_KEYS};
pub(crate) use self::domain::Domain;
pub(crate) use self::email::Email;
pub(crate) use self::groups::Groups;
pub(crate) use self::http_method::HttpMethod;
pub(crate) use self::http_path::HttpPath;
pub(crate) use self::invalid_client_certificate::InvalidClientCertificate;
pub(crate) use self::mcp_tool::McpTool;
pub(crate) use self::name::parse_name;
pub(crate) use self::record::{KEYS as RECORD_KEYS, Record};
pub(crate) use self::reject::Reject;
pub(crate) use self::source_ip::SourceIp;
pub(crate) use self::ssh_ca::SshCa;
pub(crate) use self::ssh_publickey::SshPublickey;
pub(crate) use self::ssh_username::SshUsername;
pub(crate) use self::ssh_username_matches_claim::SshUsernameMatchesClaim;
pub(crate) use self::ssh_username_matches_email::SshUsernameMatchesEmail;
pub(crate) use self::time_of_day::{KEYS as TIME_OF_DAY_KEYS, TimeOfDay};
pub(crate) use self::user::User;

/// How documents are read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Dialect {
    /// As Pomerium: `email`, `claim` and `device` compare what nobody has, and so may let anybody in.
    pub(crate) fail_open_identity: bool,
}

/// Where a criterion stands in its policy. It matters where a fact is in doubt, since doubt never helps who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stand {
    /// What its rule does.
    pub(crate) action: Action,
    /// Its rule inverts what it comes to.
    pub(crate) inverted: bool,
}

/// What every criterion can do.
pub(crate) trait Test: Sized {
    /// Reads its data; `sub_path` is what followed the `/` of its name.
    fn parse(sub_path: &str, data: &Node, dialect: Dialect) -> Result<Self, Vec<Mistake>>;

    /// Whether it holds where it stands, before that inverts it, and why. Neither allocates nor locks.
    fn evaluate(&self, facts: &Facts<'_>, stand: Stand) -> RuleResult;

    /// What it looks for, as a noun that follows "needs" or "denied by rule:". Names no person: the refused read it.
    fn words(&self) -> String;

    /// What it compares with, for those who may read the policy; empty if with nothing.
    fn data(&self) -> String;

    /// What it looked at, for those who may see the request.
    fn saw(&self, facts: &Facts<'_>) -> String;

    /// Adds what it turns on. Nothing, if no request of somebody can be made to meet it.
    fn sample(&self, _: &mut Samples) {}

    /// Whether it looks at the session.
    const NEEDS_SESSION: bool = false;

    /// What it comes to whatever the facts, if that is sure.
    const CONSTANT: Option<bool> = None;

    /// What has to bring the facts that it looks at, if not every request has them.
    const CARRIER: Option<Carrier> = None;

    /// Whether it holds for who is signed in, on a request without its carrier.
    fn holds_idle(&self) -> bool {
        false
    }

    /// What followed the `/` of its name.
    fn sub_path(&self) -> &str {
        ""
    }
}

/// What brings facts that not every request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// Client certificates: a CA is configured for them.
    ClientCertificates,
    /// Enrolled devices.
    Devices,
    /// Model Context Protocol routes.
    Mcp,
    /// SSH routes.
    Ssh,
    /// External data sources.
    Records,
}

macro_rules! criteria {
    ($($kind:ident = $name:literal,)*) => {
        /// One test of one fact.
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) enum Criterion { $($kind($kind),)* }

        /// The criteria that a policy may use.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Name { $($kind,)* }

        impl Name {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$kind,)*];

            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }
        }

        impl Criterion {
            pub(crate) fn parse(
                name: Name,
                sub_path: &str,
                data: &Node,
                dialect: Dialect,
            ) -> Result<Self, Vec<Mistake>> {
                Ok(match name { $(Name::$kind => Self::$kind($kind::parse(sub_path, data, dialect)?),)* })
            }

            /// Whether it holds where it stands, before that inverts it, and why.
            pub(crate) fn evaluate(&self, facts: &Facts<'_>, stand: Stand) -> RuleResult {
                match self { $(Self::$kind(test) => test.evaluate(facts, stand),)* }
            }

            /// What it looks for, as a noun that follows "needs" or "denied by rule:".
            pub(crate) fn words(&self) -> String {
                match self { $(Self::$kind(test) => test.words(),)* }
            }

            /// What it compares with.
            pub(crate) fn data(&self) -> String {
                match self { $(Self::$kind(test) => test.data(),)* }
            }

            /// What it looked at.
            pub(crate) fn saw(&self, facts: &Facts<'_>) -> String {
                match self { $(Self::$kind(test) => test.saw(facts),)* }
            }

            /// Adds what it turns on.
            pub(crate) fn sample(&self, samples: &mut Samples) {
                match self { $(Self::$kind(test) => test.sample(samples),)* }
            }

            /// Which one it is.
            pub(crate) const fn kind(&self) -> Name {
                match self { $(Self::$kind(_) => Name::$kind,)* }
            }

            /// Whether it looks at the session.
            pub(crate) const fn needs_session(&self) -> bool {
                match self { $(Self::$kind(_) => $kind::NEEDS_SESSION,)* }
            }

            /// What it comes to whatever the facts, if that is sure.
            pub(crate) const fn constant(&self) -> Option<bool> {
                match self { $(Self::$kind(_) => $kind::CONSTANT,)* }
            }

            /// What has to bring its facts.
            pub(crate) const fn carrier(&self) -> Option<Carrier> {
                match self { $(Self::$kind(_) => $kind::CARRIER,)* }
            }

            /// Whether it holds on a request without its carrier.
            pub(crate) fn holds_idle(&self) -> bool {
                match self { $(Self::$kind(test) => test.holds_idle(),)* }
            }

            fn sub_path(&self) -> &str {
                match self { $(Self::$kind(test) => test.sub_path(),)* }
            }
        }
    };
}

criteria! {
    Accept = "accept",
    Reject = "reject",
    AuthenticatedUser = "authenticated_user",
    User = "user",
    Email = "email",
    Domain = "domain",
    Claim = "claim",
    Groups = "groups",
    HttpMethod = "http_method",
    HttpPath = "http_path",
    SourceIp = "source_ip",
    CorsPreflight = "cors_preflight",
    ClientCertificate = "client_certificate",
    InvalidClientCertificate = "invalid_client_certificate",
    Device = "device",
    McpTool = "mcp_tool",
    SshUsername = "ssh_username",
    SshUsernameMatchesEmail = "ssh_username_matches_email",
    SshUsernameMatchesClaim = "ssh_username_matches_claim",
    SshPublickey = "ssh_publickey",
    SshCa = "ssh_ca",
    Date = "date",
    DayOfWeek = "day_of_week",
    TimeOfDay = "time_of_day",
    Record = "record",
}

impl Criterion {
    /// As the policy language writes it: `email`, `claim/department`.
    pub(crate) fn name(&self) -> String {
        match self.sub_path() {
            "" => self.kind().as_str().to_owned(),
            sub_path => format!("{}/{sub_path}", self.kind().as_str()),
        }
    }

    /// Whether it reads the e-mail address.
    pub(crate) const fn needs_email(&self) -> bool {
        matches!(self.kind(), Name::Email | Name::Domain | Name::SshUsernameMatchesEmail)
    }
}

/// `value`, with the reason that goes with it.
const fn verdict(value: bool, ok: Reason, fail: Reason) -> RuleResult {
    RuleResult { value, reasons: Reasons::of(if value { ok } else { fail }) }
}

/// The verdict on the session, or `user-unauthenticated` without one.
fn of_person<'a>(facts: &Facts<'a>, judge: impl FnOnce(&Person<'a>) -> RuleResult) -> RuleResult {
    match &facts.person {
        Some(person) => judge(person),
        None => RuleResult { value: false, reasons: Reasons::of(Reason::UserUnauthenticated) },
    }
}

/// What a test comes to that holds for some addresses, and for somebody without one if `without`.
///
/// An address that is not verified is nobody's and may be anybody's: a rule is never met by it where that would let its subject
/// pass (S-069), and a `deny` rule is met by the address that it names as well as by the lack of one.
fn of_address(
    facts: &Facts<'_>,
    stand: Stand,
    without: impl FnOnce() -> bool,
    holds: impl FnOnce(&str) -> bool,
) -> bool {
    match (facts.email(), stand.action, stand.inverted) {
        (facts::Email::Address(address), _, _) => holds(address),
        (facts::Email::NoSession, _, _)
        | (facts::Email::Unverified(_), Action::Allow, false)
        | (facts::Email::Unverified(_), Action::Deny, true) => false,
        (facts::Email::Unverified(_), Action::Allow, true) => true,
        (facts::Email::Unverified(address), Action::Deny, false) => without() || holds(address),
    }
}

/// What is seen of a session, or that there is none.
fn seen_of_person<'a>(facts: &Facts<'a>, see: impl FnOnce(&Person<'a>) -> String) -> String {
    facts.person.as_ref().map_or_else(|| "no session".to_owned(), see)
}

/// A text, or what its absence is called.
fn seen(text: &str, none: &str) -> String {
    if text.is_empty() { none.to_owned() } else { text.to_owned() }
}
