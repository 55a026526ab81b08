//! The ticket: carries a session to a route's host. Sealed, good for a minute, used once, and only beside the cookie of
//! the browser that began.

use std::time::Duration;

use postern_identity::{
    FlowCookie, FlowHash, Keyring, Purpose, RandomError, SameSite, SessionCookie, SessionId, SignInRequest, Timestamp,
    random, set_cookie,
};
use postern_storage::{Lookup, Once};
use serde::{Deserialize, Serialize};
use tracing::debug;
use url::Url;

use super::{Rounds, cookie_here, may_return_to};
use crate::answer::Answer;
use crate::error::SignInError;
use crate::sealed;
use crate::server::Shared;
use crate::visit::{Visit, at};

const GOOD_FOR: Duration = Duration::from_secs(60);
const PARAMETER: &str = "pomerium_ticket";

/// A session on its way to a route's host.
#[derive(Debug)]
struct Ticket {
    id: [u8; 16],
    session: SessionId,
    flow: FlowHash,
    redirect_uri: Url,
    expires: Timestamp,
}

/// What is sealed. Fields are only ever added.
#[derive(Deserialize, Serialize)]
struct Sealed {
    id: [u8; 16],
    session: [u8; 32],
    flow: String,
    redirect_uri: String,
    expires: i64,
}

/// Sends the browser to the route's host with a ticket for this session.
pub(super) fn hand_over(visit: &Visit, request: &SignInRequest, session: SessionId) -> Result<Answer, SignInError> {
    let config = &visit.live.config;
    if !may_return_to(config, &request.redirect_uri) {
        return Err(SignInError::TargetRefused);
    }
    let ticket = Ticket {
        id: random()?,
        session,
        flow: request.flow,
        redirect_uri: request.redirect_uri.clone(),
        expires: visit.now.plus(GOOD_FOR),
    };
    let mut there = at(&request.redirect_uri, "/.pomerium/callback/");
    there.query_pairs_mut().append_pair(PARAMETER, &ticket.seal(&config.keyring)?);
    Ok(Rounds::of(visit).again(visit, &request.redirect_uri, Answer::redirect(&there)))
}

/// `/.pomerium/callback/` on a route's host: the ticket becomes the session cookie of that host.
pub(crate) async fn redeem(shared: &Shared, visit: &Visit) -> Answer {
    let keyring = &visit.live.config.keyring;
    let Some(ticket) = visit.param(PARAMETER).and_then(|text| Ticket::open(keyring, &visit.url, &text)) else {
        return SignInError::TicketUnreadable.show(visit, Some(visit.here("/").as_str()));
    };
    match take(shared, visit, &ticket).await {
        Ok(answer) => answer,
        Err(error) => error.show(visit, Some(ticket.redirect_uri.as_str())),
    }
}

/// A genuine ticket that cannot be used any more leads back to where it was for: there, who is signed in goes on, and
/// who is not begins anew.
async fn take(shared: &Shared, visit: &Visit, ticket: &Ticket) -> Result<Answer, SignInError> {
    let config = &visit.live.config;
    let start_again = |reason| {
        debug!(request.id = visit.request_id, postern.reason = reason, "ticket not honoured");
        Ok(Answer::redirect(&ticket.redirect_uri))
    };
    if visit.now >= ticket.expires {
        return start_again("ticket-expired");
    }
    let Some(flow) = flow_cookie(visit, &ticket.flow) else { return start_again("ticket-of-another-browser") };
    if !shared.sessions.spend(Once::Ticket, &ticket.id, visit.now, ticket.expires.plus(GOOD_FOR)).await? {
        return start_again("ticket-used");
    }
    // The store must know the session before the browser does, or the first request would send it round again.
    let session = match shared.sessions.load(&ticket.session.handle(&config.keyring), visit.now).await? {
        Lookup::Found(session) if !session.is_expired(visit.now) => session,
        Lookup::Found(_) | Lookup::Revoked | Lookup::Unknown => return start_again("ticket-without-session"),
    };
    let (cookie, scope) = cookie_here(visit);
    let value = SessionCookie::seal(&config.keyring, &scope, &ticket.session);
    let life = session.expires_at.since(visit.now);
    Ok(onward(visit, &ticket.redirect_uri)
        .cookie(set_cookie(&cookie, &value, &config.cookie, life))
        .cookie(FlowCookie::drop_named(&flow)))
}

/// The last step to the application. A `Strict` cookie does not travel along a chain of redirects that another site (the
/// provider) began, so there the browser begins a navigation of its own.
fn onward(visit: &Visit, target: &Url) -> Answer {
    match visit.live.config.cookie.same_site {
        SameSite::Strict => Answer::refresh(target),
        SameSite::Lax | SameSite::None => Answer::redirect(target),
    }
}

/// The name of the cookie of that sign-in, if this browser began it (S-054).
fn flow_cookie(visit: &Visit, flow: &FlowHash) -> Option<String> {
    let config = &visit.live.config;
    FlowCookie::find(&config.keyring, &config.cookie_name, flow, visit.cookie_fields())
}

impl Ticket {
    fn seal(&self, keyring: &Keyring) -> Result<String, RandomError> {
        let sealed = Sealed {
            id: self.id,
            session: *self.session.as_bytes(),
            flow: self.flow.encode(),
            redirect_uri: self.redirect_uri.as_str().to_owned(),
            expires: self.expires.as_millis(),
        };
        sealed::seal(keyring, Purpose::Ticket, &context(&self.redirect_uri), &sealed)
    }

    /// The ticket, if it is of this deployment and for this very host and port.
    fn open(keyring: &Keyring, here: &Url, text: &str) -> Option<Self> {
        let sealed: Sealed = sealed::open(keyring, Purpose::Ticket, &context(here), text)?;
        Some(Self {
            id: sealed.id,
            session: SessionId::from_bytes(sealed.session),
            flow: FlowHash::decode(&sealed.flow)?,
            redirect_uri: Url::parse(&sealed.redirect_uri).ok()?,
            expires: Timestamp::from_millis(sealed.expires),
        })
    }
}

fn context(url: &Url) -> String {
    url.origin().ascii_serialization()
}
