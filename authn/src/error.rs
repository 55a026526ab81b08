//! What can go wrong, and how a person is told: a status, a plain sentence, a stable reason and the request id.

use std::time::Duration;

use http::StatusCode;
use postern_identity::RandomError;
use postern_pages::{ErrorPage, Links, Onward, SignInFailed, StartAgain};
use postern_storage::StorageError;
use tracing::{debug, warn};

use crate::answer::Answer;
use crate::idp::ProviderError;
use crate::visit::Visit;

/// Why authn cannot be made from a configuration.
#[derive(Debug, thiserror::Error)]
pub enum AuthnError {
    /// `certificate_authority` holds no certificate that can be read.
    #[error("a certificate of the certificate authority cannot be read")]
    Roots,
    /// The crypto library refuses our TLS settings.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    /// The HTTP client refuses our settings.
    #[error("the HTTP client cannot be set up")]
    Client(#[source] reqwest::Error),
    /// A metric of the same name is registered already.
    #[error("the metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
}

/// Why a sign-in does not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignInError {
    #[error("the sign-in address is not signed by this deployment")]
    NotSigned,
    #[error("the address to return to is not of a route")]
    TargetRefused,
    #[error("the sign-in address has expired, and is of a program")]
    Outdated,
    #[error("the identity provider is not configured")]
    UnknownIdp,
    #[error("the authorization answer is not complete")]
    Incomplete,
    #[error("this browser began no sign-in with that state")]
    StateUnknown,
    #[error("the state was used before")]
    StateUsed,
    #[error("the sign-in took too long, twice")]
    TooSlow,
    #[error("the authorization answer is of another issuer")]
    MixUp,
    /// The texts are from outside (S-074) and are shown, never logged.
    #[error("the provider refused to sign the user in")]
    Refused { error: String, description: Option<String> },
    /// By an operator, or by the user elsewhere.
    #[error("the sessions of the user were ended during the sign-in")]
    Ended,
    #[error("the ticket cannot be read")]
    TicketUnreadable,
    #[error(transparent)]
    Provider(#[from] ProviderError),
    #[error(transparent)]
    Store(#[from] StorageError),
    #[error(transparent)]
    Random(#[from] RandomError),
}

impl SignInError {
    /// The stable reason: in the page, the log and the metric.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::NotSigned => "sign-in-not-signed",
            Self::TargetRefused => "redirect-not-allowed",
            Self::Outdated => "sign-in-outdated",
            Self::UnknownIdp => "idp-not-configured",
            Self::Incomplete => "callback-incomplete",
            Self::StateUnknown => "state-unknown",
            Self::StateUsed => "state-used",
            Self::TooSlow => "sign-in-too-slow",
            Self::MixUp => "callback-issuer",
            Self::Refused { .. } => "idp-refused",
            Self::Ended => "sessions-ended",
            Self::TicketUnreadable => "ticket-unreadable",
            Self::Provider(error) => error.reason(),
            Self::Store(_) => "store-unavailable",
            Self::Random(_) => "no-randomness",
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::NotSigned
            | Self::TargetRefused
            | Self::Outdated
            | Self::Incomplete
            | Self::StateUnknown
            | Self::StateUsed
            | Self::TooSlow
            | Self::MixUp
            | Self::Ended
            | Self::TicketUnreadable => StatusCode::BAD_REQUEST,
            // 02 §1.4 D.
            Self::Refused { error, .. } if matches!(error.as_str(), "access_denied" | "unauthorized_client") => {
                StatusCode::UNAUTHORIZED
            }
            Self::Refused { .. } => StatusCode::BAD_REQUEST,
            Self::Provider(error) if error.is_temporary() => StatusCode::SERVICE_UNAVAILABLE,
            Self::Provider(_) => StatusCode::BAD_GATEWAY,
            Self::UnknownIdp | Self::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Random(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    const fn sentence(&self) -> &'static str {
        match self {
            Self::NotSigned => "This sign-in address was not made here, or was changed on its way.",
            Self::TargetRefused => {
                "The address to return to after the sign-in belongs to none of the applications here."
            }
            Self::Outdated => "This sign-in address is more than five minutes old. Let your program make another one.",
            Self::UnknownIdp => "The identity provider that this application wants is not set up.",
            Self::Incomplete => "The answer of the identity provider is not complete.",
            Self::StateUnknown => "This sign-in was begun in another browser, or so long ago that it is forgotten.",
            Self::StateUsed => "This sign-in was finished before. Each one works once.",
            Self::TooSlow => "The sign-in took longer than ten minutes.",
            Self::MixUp => "The answer comes from another identity provider than the one that was asked.",
            Self::Refused { .. } => "The identity provider did not sign you in.",
            Self::Ended => "All your sessions were ended while you signed in.",
            Self::TicketUnreadable => "This address cannot be used to sign in.",
            Self::Provider(ProviderError::Fetch(_)) => "The identity provider does not answer as it should.",
            Self::Provider(_) => "The identity provider gave an answer that cannot be trusted.",
            Self::Store(_) => "Sessions cannot be read or saved just now.",
            Self::Random(_) => "Something went wrong here.",
        }
    }

    /// Tells the person, and the operator; `again` begins a new sign-in.
    pub(crate) fn show(&self, visit: &Visit, again: Option<&str>) -> Answer {
        self.show_with(visit, again, again.map_or(Onward::Home(HOME), Onward::Wanted))
    }

    /// The same where nobody knows which sign-in it is about: `other` is where another one of this browser was to lead.
    pub(crate) fn show_astray(&self, visit: &Visit, other: Option<&str>) -> Answer {
        self.show_with(visit, None, other.map_or(Onward::Home(HOME), Onward::Other))
    }

    fn show_with(&self, visit: &Visit, again: Option<&str>, onward: Onward<'_>) -> Answer {
        self.log(visit);
        let (reference, sentence) = (visit.reference(self.reason()), self.sentence());
        let html = match self {
            Self::Refused { error, description } => SignInFailed {
                sentence,
                provider_error: Some(error),
                provider_description: description.as_deref(),
                reference,
                retry: again,
            }
            .html(),
            Self::Provider(_) | Self::MixUp => {
                SignInFailed { sentence, provider_error: None, provider_description: None, reference, retry: again }
                    .html()
            }
            Self::StateUnknown
            | Self::StateUsed
            | Self::TooSlow
            | Self::Outdated
            | Self::Incomplete
            | Self::Ended
            | Self::TicketUnreadable => StartAgain { sentence, reference, onward }.html(),
            Self::NotSigned | Self::TargetRefused | Self::UnknownIdp | Self::Store(_) | Self::Random(_) => ErrorPage {
                status: self.status().as_u16(),
                sentence,
                reference,
                who: None,
                unmet: &[],
                contact: None,
                links: Links { retry: again, ..Links::default() },
            }
            .html(),
        };
        let page = Answer::page(self.status(), html);
        match self.retry_after() {
            Some(wait) => page.retry_after(wait),
            None => page,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        if let Self::Store(StorageError::Unavailable { retry_after, .. }) = self {
            return Some(*retry_after);
        }
        (self.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(Duration::from_secs(5))
    }

    /// A 4xx is between the browser and us; the rest is for the operator.
    pub(crate) fn log(&self, visit: &Visit) {
        let (reason, id) = (self.reason(), visit.request_id.as_str());
        if self.status().is_client_error() {
            debug!(request.id = id, postern.reason = reason, "sign-in stopped");
        } else {
            warn!(request.id = id, postern.reason = reason, error = %Chain(self), "sign-in failed");
        }
    }
}

/// The person's own page, on whatever host.
const HOME: &str = "/.pomerium/";

/// An error and what caused it, in one line.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
