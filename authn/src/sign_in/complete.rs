//! `VerifiedCallback` → `Vouched` → `Session` → `Ticket`.

use std::time::Duration;

use postern_identity::{RandomError, Session, SessionCookie, SessionId, random, set_cookie};
use tracing::info;

use super::pending::VerifiedCallback;
use super::{authn_cookie, authn_cookie_attributes, ticket};
use crate::answer::Answer;
use crate::error::SignInError;
use crate::idp::Idp;
use crate::operator::LONGEST_WAIT;
use crate::refresh;
use crate::server::Shared;
use crate::visit::Visit;

/// Redeems the code, saves the session that it stands for, and sends the browser on to the route's host.
pub(super) async fn complete(
    shared: &Shared,
    visit: &Visit,
    idp: &Idp,
    callback: VerifiedCallback,
) -> Result<Answer, SignInError> {
    let config = &visit.live.config;
    // Asked before the provider vouches: whoever ends all sessions after that ends this one too.
    let opens = shared.sessions.opens(visit.now, LONGEST_WAIT).await?;
    let begins = if opens > visit.now { opens.plus(share(HERD)?) } else { opens };
    tokio::time::sleep(begins.since(visit.now)).await;
    let mut vouched = idp.redeem(&callback.grant, begins).await?;
    // It begins later than it was asked for, which must not save it from an end of its user's sessions meanwhile (S-095).
    let user = &vouched.user;
    if begins > visit.now && shared.sessions.are_ended(&user.issuer, &user.id, visit.now).await? {
        return Err(SignInError::Ended);
    }
    // Always a fresh id: nothing that the browser brought is adopted (S-080).
    let id = SessionId::generate()?;
    let session = Session {
        handle: id.handle(&config.keyring),
        user: vouched.user,
        claims: vouched.claims,
        idp: idp.id().clone(),
        issued_at: begins,
        expires_at: begins.plus(config.session_lifetime),
        idle: None,
        generation: 0,
    };
    vouched.tokens.refresh_at = refresh::due_at(&session.handle, &vouched.tokens, begins);
    shared.sessions.create(&session, &vouched.tokens).await?;
    info!(request.id = visit.request_id, postern.idp = idp.id().as_str(), postern.session = %session.handle, "signed in");
    let value = SessionCookie::seal(&config.keyring, visit.host(), &id);
    let cookie = set_cookie(&authn_cookie(config), &value, &authn_cookie_attributes(config), config.session_lifetime);
    Ok(ticket::hand_over(visit, &callback.request, &id, &session)?.cookie(cookie))
}

/// Over so long those who wait for the same moment come to the provider, which has places for some at a time.
const HERD: Duration = Duration::from_secs(1);

/// A random share of that time.
fn share(time: Duration) -> Result<Duration, RandomError> {
    Ok(time.saturating_mul(u32::from(u16::from_be_bytes(random()?))) / u32::from(u16::MAX))
}
