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
pub(crate) use self::name::{Name, parse_name};
pub(crate) use self::reject::Reject;
pub(crate) use self::source_ip::SourceIp;
pub(crate) use self::user::User;

/// One test of one fact.
#[derive(Clone, Debug)]
pub(crate) enum Criterion {
    Accept(Accept),
    Reject(Reject),
    AuthenticatedUser(AuthenticatedUser),
    User(User),
    Email(Email),
    Domain(Domain),
    Claim(Claim),
    Groups(Groups),
    HttpMethod(HttpMethod),
    HttpPath(HttpPath),
    SourceIp(SourceIp),
    CorsPreflight(CorsPreflight),
}

impl Criterion {
    /// Whether it holds, and why.
    pub(crate) fn evaluate(&self, facts: &Facts<'_>) -> RuleResult {
        match self {
            Self::Accept(accept) => accept.evaluate(),
            Self::Reject(reject) => reject.evaluate(),
            Self::AuthenticatedUser(authenticated) => authenticated.evaluate(facts),
            Self::User(user) => user.evaluate(facts),
            Self::Email(email) => email.evaluate(facts),
            Self::Domain(domain) => domain.evaluate(facts),
            Self::Claim(claim) => claim.evaluate(facts),
            Self::Groups(groups) => groups.evaluate(facts),
            Self::HttpMethod(method) => method.evaluate(facts),
            Self::HttpPath(path) => path.evaluate(facts),
            Self::SourceIp(source) => source.evaluate(facts),
            Self::CorsPreflight(preflight) => preflight.evaluate(facts),
        }
    }

    /// What it looks for, as a noun that follows "needs" or "denied by rule:".
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Accept(_) => "everybody".to_owned(),
            Self::Reject(_) => "nobody".to_owned(),
            Self::AuthenticatedUser(_) => "a signed-in user".to_owned(),
            Self::User(user) => user.words(),
            Self::Email(email) => email.words(),
            Self::Domain(domain) => domain.words(),
            Self::Claim(claim) => claim.words(),
            Self::Groups(groups) => groups.words(),
            Self::HttpMethod(method) => method.words(),
            Self::HttpPath(path) => path.words(),
            Self::SourceIp(source) => source.words(),
            Self::CorsPreflight(_) => "a CORS preflight request".to_owned(),
        }
    }

    /// As the policy language writes it: `email`, `claim/department`.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Claim(claim) => format!("claim/{}", claim.name()),
            Self::Accept(_) => Name::Accept.as_str().to_owned(),
            Self::Reject(_) => Name::Reject.as_str().to_owned(),
            Self::AuthenticatedUser(_) => Name::AuthenticatedUser.as_str().to_owned(),
            Self::User(_) => Name::User.as_str().to_owned(),
            Self::Email(_) => Name::Email.as_str().to_owned(),
            Self::Domain(_) => Name::Domain.as_str().to_owned(),
            Self::Groups(_) => Name::Groups.as_str().to_owned(),
            Self::HttpMethod(_) => Name::HttpMethod.as_str().to_owned(),
            Self::HttpPath(_) => Name::HttpPath.as_str().to_owned(),
            Self::SourceIp(_) => Name::SourceIp.as_str().to_owned(),
            Self::CorsPreflight(_) => Name::CorsPreflight.as_str().to_owned(),
        }
    }

    /// Whether it looks at the session.
    pub(crate) const fn needs_session(&self) -> bool {
        match self {
            Self::AuthenticatedUser(_)
            | Self::User(_)
            | Self::Email(_)
            | Self::Domain(_)
            | Self::Claim(_)
            | Self::Groups(_) => true,
            Self::Accept(_)
            | Self::Reject(_)
            | Self::HttpMethod(_)
            | Self::HttpPath(_)
            | Self::SourceIp(_)
            | Self::CorsPreflight(_) => false,
        }
    }

    /// What it comes to whatever the facts, if that is sure.
    pub(crate) const fn constant(&self) -> Option<bool> {
        match self {
            Self::Accept(_) => Some(true),
            Self::Reject(_) => Some(false),
            Self::AuthenticatedUser(_)
            | Self::User(_)
            | Self::Email(_)
            | Self::Domain(_)
            | Self::Claim(_)
            | Self::Groups(_)
            | Self::HttpMethod(_)
            | Self::HttpPath(_)
            | Self::SourceIp(_)
            | Self::CorsPreflight(_) => None,
        }
    }

    /// Whether it reads the e-mail address.
    pub(crate) const fn needs_email(&self) -> bool {
        matches!(self, Self::Email(_) | Self::Domain(_))
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
