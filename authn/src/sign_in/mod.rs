//! The sign-in, one step in each file: begin, the provider's answer, its completion, the ticket to the route's host, and the way
//! through further hosts.

mod begin;
mod callback;
mod chain;
mod complete;
mod pending;
mod rounds;
mod ticket;

use postern_identity::{CookieAttributes, Recipient, SameSite, SessionId, SignInRequest};
use postern_storage::{Lookup, StorageError};
use url::Url;

pub(crate) use self::begin::begin;
pub(crate) use self::callback::callback;
pub(crate) use self::rounds::Rounds;
pub(crate) use self::ticket::{over_budget, redeem};

use crate::AuthnConfig;
use crate::server::Shared;
use crate::visit::Visit;

/// Longer addresses are no place to return to (03 §3.4).
const MAX_TARGET: usize = 8 * 1024;

/// Whether a browser may be sent there after a sign-in (03 §3.4, S-086).
pub(crate) fn may_return_to(config: &AuthnConfig, target: &Url) -> bool {
    let text = target.as_str();
    target.scheme() == "https"
        && target.username().is_empty()
        && target.password().is_none()
        && text.len() <= MAX_TARGET
        && !text.bytes().any(|byte| byte <= b' ' || byte == b'\\' || byte == 0x7f)
        && target.origin() != config.url.origin()
        && config.hosts.serves(target)
}

/// Whether a session may be handed to whom the request says, at the address that it says.
fn may_hand_over(config: &AuthnConfig, request: &SignInRequest) -> bool {
    match &request.recipient {
        Recipient::Browser(_) => may_return_to(config, &request.redirect_uri),
        Recipient::Program { door } => config.programs.allow(&request.redirect_uri) && may_return_to(config, door),
    }
}

/// Where a browser begins anew, if it is the browser that wanted the sign-in: for a program only the program can.
fn begins_anew_at(request: &SignInRequest) -> Option<&Url> {
    request.recipient.flow().map(|_| &request.redirect_uri)
}

/// The name of authn's own session cookie.
pub(crate) fn authn_cookie(config: &AuthnConfig) -> String {
    format!("{}_authenticate", config.cookie_name)
}

/// Authn's own session cookie never leaves its host, whatever `cookie_domain` says; and it must come along when an
/// application or the provider sends the browser here, so it is never `Strict`.
pub(crate) fn authn_cookie_attributes(config: &AuthnConfig) -> CookieAttributes {
    let same_site = match config.cookie.same_site {
        SameSite::Strict | SameSite::Lax => SameSite::Lax,
        SameSite::None => SameSite::None,
    };
    CookieAttributes { domain: None, same_site, http_only: true }
}

/// The cookie name and the scope of sessions on the host that was asked.
pub(crate) fn cookie_here(visit: &Visit) -> (String, String) {
    let config = &visit.live.config;
    if visit.is_authn() {
        (authn_cookie(config), visit.host().to_owned())
    } else {
        let scope = config.cookie.domain.clone().unwrap_or_else(|| visit.host().to_owned());
        (config.cookie_name.clone(), scope)
    }
}

/// The live session of the cookie on the host that was asked.
///
/// # Errors
/// If the store does not answer, nobody is signed out and nobody is signed in.
pub(crate) async fn session_here(
    shared: &Shared,
    visit: &Visit,
) -> Result<Option<(SessionId, std::sync::Arc<postern_identity::Session>)>, StorageError> {
    let (cookie, scope) = cookie_here(visit);
    let Some(id) = visit.session_id(&cookie, &scope) else { return Ok(None) };
    let found = shared.sessions.load(&id.handle(&visit.live.config.keyring), visit.now).await?;
    Ok(match found {
        Lookup::Found(session) if !session.is_expired(visit.now) => Some((id, session)),
        Lookup::Found(_) | Lookup::Revoked | Lookup::Unknown => None,
    })
}
