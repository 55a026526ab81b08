//! Criteria: one test of one fact each, with its reason.
//!
//! An identity criterion without a session is false with `user-unauthenticated`, whatever its operator asks for: an empty
//! value is no proof of anything, and nobody gets in for lack of an address.

mod accept;
mod authenticated_user;
mod claim;
mod cors_preflight;
mod domain;
mod email;
mod groups;
mod http_method;
mod http_path;
mod name;
mod reject;
mod source_ip;
mod user;

use postern_identity::Session;

use crate::document::{Mistake, Node};
use crate::{Facts, Reason, Reasons, RuleResult};

pub(crate) use self::accept::Accept;
pub(crate) use self::authenticated_user::AuthenticatedUser;
pub(crate) use self::claim::Claim;
pub(crate) use self::cors_preflight::CorsPreflight;
pub(crate) use self::domain::Domain;
pub(crate) use self::email::Email;
pub(crate) use self::groups::Groups;
pub(crate) use self::http_method::HttpMethod;
pub(crate) use self::http_path::HttpPath;
#[cfg(test)]
pub(crate) use self::name::NOT_YET;
pub(crate) use self::name::parse_name;
pub(crate) use self::reject::Reject;
pub(crate) use self::source_ip::SourceIp;
pub(crate) use self::user::User;

/// What every criterion can do.
pub(crate) trait Test: Sized {
    /// Reads its data; `sub_path` is what followed the `/` of its name.
    fn parse(sub_path: &str, data: &Node) -> Result<Self, Vec<Mistake>>;

    /// Whether it holds, and why. Neither allocates nor locks.
    fn evaluate(&self, facts: &Facts<'_>) -> RuleResult;

    /// What it looks for, as a noun that follows "needs" or "denied by rule:". Names no person: the refused read it.
    fn words(&self) -> String;

    /// What it compares with, for those who may read the policy; empty if with nothing.
    fn data(&self) -> String;

    /// What it looked at, for those who may see the request.
    fn saw(&self, facts: &Facts<'_>) -> String;

    /// Whether it looks at the session.
    const NEEDS_SESSION: bool = false;

    /// What it comes to whatever the facts, if that is sure.
    const CONSTANT: Option<bool> = None;

    /// What followed the `/` of its name.
    fn sub_path(&self) -> &str {
        ""
    }
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
            pub(crate) fn parse(name: Name, sub_path: &str, data: &Node) -> Result<Self, Vec<Mistake>> {
                Ok(match name { $(Name::$kind => Self::$kind($kind::parse(sub_path, data)?),)* })
            }

            /// Whether it holds, and why.
            pub(crate) fn evaluate(&self, facts: &Facts<'_>) -> RuleResult {
                match self { $(Self::$kind(test) => test.evaluate(facts),)* }
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
        matches!(self.kind(), Name::Email | Name::Domain)
    }
}

/// `value`, with the reason that goes with it.
const fn verdict(value: bool, ok: Reason, fail: Reason) -> RuleResult {
    RuleResult { value, reasons: Reasons::of(if value { ok } else { fail }) }
}

/// The verdict on the session, or `user-unauthenticated` without one.
fn of_session<'a>(facts: &Facts<'a>, judge: impl FnOnce(&'a Session) -> RuleResult) -> RuleResult {
    match facts.session {
        Some(session) => judge(session),
        None => RuleResult { value: false, reasons: Reasons::of(Reason::UserUnauthenticated) },
    }
}

/// What is seen of a session, or that there is none.
fn seen_of_session<'a>(facts: &Facts<'a>, see: impl FnOnce(&'a Session) -> String) -> String {
    facts.session.map_or_else(|| "no session".to_owned(), see)
}

/// A text, or what its absence is called.
fn seen(text: &str, none: &str) -> String {
    if text.is_empty() { none.to_owned() } else { text.to_owned() }
}
