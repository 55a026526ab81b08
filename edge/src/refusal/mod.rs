//! Why a request was not carried, and how each kind of client is told (01 §4.2 to §4.4). The one place that turns a refusal
//! into bytes.

mod form;
mod render;
#[cfg(test)]
mod tests;

use std::time::Duration;

use http::StatusCode;
use pingora_http::RequestHeader;
use postern_identity::{IdpId, Timestamp};
use postern_policy::Reasons;

pub(crate) use form::{Form, may_redirect, streams_both_ways};

use crate::programmatic::ProgramRefusal;
use crate::route::Route;
use crate::{BadRequest, Request, Snapshot, Subject};

/// Why a request was not carried. Each cause has one status and one stable reason code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It could not be read in one way only.
    BadRequest(BadRequest),
    /// Another reading of its path leads to another route (S-022).
    AmbiguousPath,
    /// Its host belongs to another certificate than the connection was opened with (S-029).
    Misdirected,
    /// Nothing is there (S-031).
    NoRoute,
    /// An endpoint of ours does not take that method.
    Method {
        /// `Allow`.
        allow: &'static str,
    },
    /// A program is told of no address to sign in at.
    Program(ProgramRefusal),
    /// Nobody is signed in, and somebody must be.
    SignIn {
        /// Where to sign in.
        idp: IdpId,
    },
    /// The policy says no.
    Denied(Reasons),
    /// The policy wants a better device.
    Device(Reasons),
    /// The policy wants a valid client certificate.
    ClientCertificate(Reasons),
    /// The route's connections may not become what is asked for (S-009, S-037).
    Upgrade,
    /// The session that opened a stream is over (S-084).
    SessionEnded,
    /// Who asks cannot be found out just now.
    StoreUnavailable {
        /// When to ask again.
        retry_after: Duration,
    },
    /// The exchange failed on the way.
    Failed(Failure),
}

/// What can go wrong once a request was admitted, or before anything is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// No endpoint of the upstream can be used.
    NoEndpoint,
    /// No endpoint of the upstream is healthy, and those that are not may not be used.
    NoHealthyEndpoint,
    /// The upstream has as much to do as it is given.
    UpstreamOverflow,
    /// The endpoint could not be reached.
    Connect,
    /// The endpoint was not reached in time.
    ConnectTimeout,
    /// The endpoint did not answer in time.
    UpstreamTimeout,
    /// The answer could not be read in one way only, or broke off (S-013).
    UpstreamProtocol,
    /// The request body did not come in time.
    BodyTimeout,
    /// Too much at once.
    Overloaded,
    /// This process ends, and the time of its drain with it.
    Stopping,
    /// Another edge took this one for authn, which is not here.
    AuthnLoop,
    /// The route's expression makes no path of this one.
    PathRewrite,
    /// What the route makes the Host of is none.
    HostRewrite,
    /// A bug, or no randomness (S-115, S-120).
    Internal,
}

impl Failure {
    const fn status(self) -> StatusCode {
        match self {
            Self::Connect | Self::UpstreamProtocol => StatusCode::BAD_GATEWAY,
            Self::NoEndpoint | Self::NoHealthyEndpoint | Self::UpstreamOverflow | Self::Overloaded | Self::Stopping => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::ConnectTimeout | Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::AuthnLoop => StatusCode::LOOP_DETECTED,
            Self::PathRewrite | Self::HostRewrite | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    const fn reason(self) -> &'static str {
        match self {
            Self::NoEndpoint => "no-endpoint",
            Self::NoHealthyEndpoint => "no-healthy-endpoint",
            Self::UpstreamOverflow => "upstream-overflow",
            Self::Connect => "upstream-unreachable",
            Self::ConnectTimeout => "upstream-connect-timeout",
            Self::UpstreamTimeout => "upstream-timeout",
            Self::UpstreamProtocol => "upstream-protocol",
            Self::BodyTimeout => "body-timeout",
            Self::Overloaded => "overloaded",
            Self::Stopping => "stopping",
            Self::AuthnLoop => "authn-loop",
            Self::PathRewrite => "path-rewrite",
            Self::HostRewrite => "host-rewrite",
            Self::Internal => "internal-error",
        }
    }
}

impl Refusal {
    /// The status of the cause. A browser may be answered with a redirect instead, `/robots.txt` with 200.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(cause) => cause.status(),
            Self::AmbiguousPath => StatusCode::BAD_REQUEST,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::NoRoute | Self::Program(ProgramRefusal::Missing) => StatusCode::NOT_FOUND,
            Self::Program(ProgramRefusal::NotAllowed) => StatusCode::BAD_REQUEST,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::SignIn { .. } | Self::SessionEnded => StatusCode::UNAUTHORIZED,
            Self::Denied(_) | Self::Upgrade => StatusCode::FORBIDDEN,
            Self::Device(_) => custom(450),
            Self::ClientCertificate(_) => custom(495),
            Self::StoreUnavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed(failure) => failure.status(),
        }
    }

    /// The stable reason code, for answers, logs and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::BadRequest(cause) => cause.reason(),
            Self::AmbiguousPath => "ambiguous-path",
            Self::Misdirected => "misdirected",
            Self::NoRoute => "route-not-found",
            Self::Method { .. } => "method-not-allowed",
            Self::Program(ProgramRefusal::Missing) => "redirect-missing",
            Self::Program(ProgramRefusal::NotAllowed) => "redirect-not-allowed",
            Self::SignIn { .. } => "user-unauthenticated",
            Self::Denied(reasons) => reasons
                .iter()
                .find(|reason| reason.as_str().ends_with("-unauthorized"))
                .map_or("denied", postern_policy::Reason::as_str),
            Self::Device(_) => "device-unauthorized",
            Self::ClientCertificate(_) => "invalid-client-certificate",
            Self::Upgrade => "upgrade-not-allowed",
            Self::SessionEnded => "session-ended",
            Self::StoreUnavailable { .. } => "store-unavailable",
            Self::Failed(failure) => failure.reason(),
        }
    }
}

/// 450 and 495 have no name in the library.
fn custom(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::FORBIDDEN)
}

/// Everything that an answer of ours may speak of.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The configuration that this request sees.
    pub snapshot: &'a Snapshot,
    /// The head as it came.
    pub head: &'a RequestHeader,
    /// The request, if it could be read.
    pub request: Option<&'a Request>,
    /// The route, if one was found.
    pub route: Option<&'a Route>,
    /// Who asks, as far as was found out.
    pub subject: &'a Subject,
    /// Their device credentials.
    pub devices: &'a [postern_policy::Device<'a>],
    /// The certificate of the client, as the route takes it.
    pub certificate: postern_policy::ClientCertificate<'a>,
    /// It shows a credential that only programs show: never redirected.
    pub programmatic: bool,
    /// Our name for this request.
    pub request_id: &'a str,
    /// When it came.
    pub now: Timestamp,
}
