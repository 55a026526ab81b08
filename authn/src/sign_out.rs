//! Signing out: here first, in the store, then in the browser, then at the identity provider (02 §1.7, S-084, S-085).

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, StatusCode};
use postern_identity::{
    CookieAttributes, IdpId, Purpose, RandomError, Session, SessionHandle, SessionId, Timestamp, Tokens, cookies_named,
    delete_cookie, set_cookie, signed_url, verify_signed_url,
};
use postern_pages::{SignOutConfirm, SignedOut, SigningOut};
use postern_storage::{Sessions, StorageError};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use url::{Url, form_urlencoded};

use crate::AuthnConfig;
use crate::answer::Answer;
use crate::error::SignInError;
use crate::sealed;
use crate::server::Shared;
use crate::sign_in::{Rounds, authn_cookie, authn_cookie_attributes, cookie_here, may_return_to, session_here};
use crate::user::who;
use crate::visit::{Visit, at};

const PATH: &str = "/.pomerium/sign_out";
/// The form token of the confirmation page.
const TOKEN: &str = "pomerium_token";
const TOKEN_GOOD_FOR: Duration = Duration::from_secs(600);
/// What a route's host tells authn's host of the session that it ended.
const ENDED: &str = "pomerium_ended";
/// Where the user may sign in again afterwards; the name that the reference has for it.
const BACK: &str = "pomerium_redirect_uri";
const BACK_KEPT_FOR: Duration = Duration::from_secs(600);
/// A longer address is not worth to come back to; its application is.
const MAX_BACK: usize = 1_000;
/// A longer ID token is not passed on as a hint: it would not fit into an address.
const MAX_HINT: usize = 2_500;
/// A provider that is away does not keep anybody from signing out.
pub(crate) const PROVIDER_WAIT: Duration = Duration::from_secs(3);

/// `/.pomerium/sign_out`, on a route's host or on authn's.
pub(crate) async fn sign_out(shared: &Shared, visit: &Visit, body: &[u8]) -> Answer {
    match run(shared, visit, body).await {
        Ok((answer, outcome)) => {
            shared.metrics.signed_out(outcome);
            answer
        }
        Err(error) => {
            shared.metrics.signed_out(error.reason());
            error.show(visit, Some(PATH))
        }
    }
}

/// `/.pomerium/signed_out`: the provider sends the browser to this very address, so the way back waits in a cookie.
pub(crate) fn signed_out(visit: &Visit) -> Answer {
    let config = &visit.live.config;
    let back = if visit.is_authn() { kept_back(visit) } else { Some(visit.here("/")) };
    let page = Answer::page(StatusCode::OK, SignedOut { sign_in: back.as_ref().map(Url::as_str) }.html());
    page.cookie(delete_cookie(&back_cookie(config), &CookieAttributes::default()))
}

fn back_cookie(config: &AuthnConfig) -> String {
    format!("__Host-{}_back", config.cookie_name)
}

fn kept_back(visit: &Visit) -> Option<Url> {
    let name = back_cookie(&visit.live.config);
    let value = visit.cookie_fields().flat_map(|field| cookies_named(field, &name)).next()?;
    let text = URL_SAFE_NO_PAD.decode(value).ok()?;
    let back = Url::parse(std::str::from_utf8(&text).ok()?).ok()?;
    may_return_to(&visit.live.config, &back).then_some(back)
}

/// Where the user was, if that is of a route; at least the front door of the application.
fn asked_back(visit: &Visit) -> Option<Url> {
    let config = &visit.live.config;
    let asked = visit.param(BACK).filter(|text| text.len() <= MAX_BACK).and_then(|text| Url::parse(&text).ok());
    let asked = asked.filter(|back| may_return_to(config, back));
    asked.or_else(|| Some(visit.here("/")).filter(|front| may_return_to(config, front)))
}

async fn run(shared: &Shared, visit: &Visit, body: &[u8]) -> Result<(Answer, &'static str), SignInError> {
    let id = id_here(visit);
    let ended = Ended::told_to(visit, id.as_ref());
    let is_meant = visit.is_same_origin() || ended.is_some() || has_token(visit, id.as_ref(), body);
    let session = match session_here(shared, visit).await {
        Ok(found) => found.map(|(_, session)| session),
        // It ends all the same, by the name that is made of its id.
        Err(error) if is_meant => {
            warn!(%error, request.id = visit.request_id, "whose session is to end cannot be read");
            None
        }
        Err(error) => return Err(error.into()),
    };
    let here = Here { id, session };
    if !is_meant {
        return Ok((confirmation(visit, &here), "asked"));
    }
    let ended = here.end(shared, visit).await?.or(ended);
    let next = if visit.is_authn() { after_authn(visit, ended).await } else { to_authn(visit, ended)? };
    Ok((go_on(visit, &next), "ok"))
}

/// Ends a session in the store, and gives its tokens, which are to be taken back.
pub(crate) async fn end(sessions: &Sessions, session: &SessionHandle) -> Result<Option<Tokens>, StorageError> {
    // They are wiped with the session, so they are read before; without them the session ends all the same.
    let tokens = sessions.tokens(session).await.ok().flatten();
    sessions.revoke(session).await?;
    Ok(tokens)
}

/// What the browser that asks holds on this host.
struct Here {
    /// From the cookie, whether the session lives or not.
    id: Option<SessionId>,
    /// The live one.
    session: Option<Arc<Session>>,
}

fn id_here(visit: &Visit) -> Option<SessionId> {
    let (cookie, scope) = cookie_here(visit);
    visit.session_id(&cookie, &scope)
}

impl Here {
    /// Ends the session in the store before anything is answered (S-084), whatever is known of it: one that is marked may be
    /// one whose end failed half-way, and of which nobody has been told.
    async fn end(&self, shared: &Shared, visit: &Visit) -> Result<Option<Ended>, StorageError> {
        let Some(id) = &self.id else { return Ok(None) };
        let tokens = end(&shared.sessions, &id.handle(&visit.live.config.keyring)).await?;
        let Some(session) = &self.session else { return Ok(None) };
        info!(request.id = visit.request_id, postern.session = %session.handle, "signed out");
        if let (Some(idp), Some(tokens)) = (visit.live.idp(&session.idp), &tokens) {
            // What it comes to is logged there; a provider that hangs holds nobody up.
            let _late = tokio::time::timeout(PROVIDER_WAIT, idp.take_back(tokens)).await;
        }
        let hint = tokens.map(|tokens| tokens.id_token.expose().clone());
        Ok(Some(Ended {
            session: session.handle,
            idp: session.idp.clone(),
            hint: hint.filter(|hint| !hint.is_empty() && hint.len() <= MAX_HINT),
        }))
    }
}

/// The session that was ended.
struct Ended {
    session: SessionHandle,
    idp: IdpId,
    /// Its ID token: the provider then need not ask who signs out.
    hint: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct SealedEnded {
    session: String,
    idp: String,
    hint: Option<String>,
}

impl Ended {
    fn seal(&self, visit: &Visit) -> Result<String, RandomError> {
        let sealed = SealedEnded {
            session: self.session.to_string(),
            idp: self.idp.as_str().to_owned(),
            hint: self.hint.clone(),
        };
        sealed::seal(&visit.live.config.keyring, Purpose::Form, ENDED, &sealed)
    }

    /// What a route's host told, if the address is signed and speaks of the very session that this browser has here: a
    /// signed address of somebody else signs nobody out.
    fn told_to(visit: &Visit, here: Option<&SessionId>) -> Option<Self> {
        let keyring = &visit.live.config.keyring;
        verify_signed_url(keyring, &visit.url, visit.now).ok().filter(|()| visit.is_authn())?;
        let told: SealedEnded = sealed::open(keyring, Purpose::Form, ENDED, visit.param(ENDED)?)?;
        let session =
            SessionHandle::parse(&told.session).filter(|told| here.map(|id| id.handle(keyring)) == Some(*told))?;
        Some(Self { session, idp: IdpId::new(told.idp), hint: told.hint })
    }
}

/// From a route's host to authn's, which ends the rest.
fn to_authn(visit: &Visit, ended: Option<Ended>) -> Result<Url, RandomError> {
    let config = &visit.live.config;
    let mut there = at(&config.url, PATH);
    if let Some(ended) = ended {
        there.query_pairs_mut().append_pair(ENDED, &ended.seal(visit)?);
    }
    if let Some(back) = asked_back(visit) {
        there.query_pairs_mut().append_pair(BACK, back.as_str());
    }
    Ok(signed_url(&config.keyring, there, visit.now))
}

/// From authn's host to the provider, if it has a place for that, and to the one place after it that is configured.
async fn after_authn(visit: &Visit, ended: Option<Ended>) -> Url {
    let config = &visit.live.config;
    let last = config.sign_out_redirect.clone().unwrap_or_else(|| visit.here("/.pomerium/signed_out"));
    let Some(ended) = ended else { return last };
    let Some(idp) = visit.live.idp(&ended.idp) else { return last };
    let at_provider = tokio::time::timeout(PROVIDER_WAIT, idp.end_session_url(ended.hint.as_deref(), &last)).await;
    at_provider.ok().flatten().unwrap_or(last)
}

/// A form is answered with a page that moves on by itself: the policy of the page that held the form would stop a redirect.
fn go_on(visit: &Visit, next: &Url) -> Answer {
    let config = &visit.live.config;
    let answer = if visit.method == Method::POST {
        Answer::page(StatusCode::OK, SigningOut { next: next.as_str() }.html())
    } else {
        Answer::redirect(next)
    };
    if !visit.is_authn() {
        return answer.cookie(delete_cookie(&config.cookie_name, &config.cookie));
    }
    let keep = |back: &Url| {
        let value = URL_SAFE_NO_PAD.encode(back.as_str());
        set_cookie(&back_cookie(config), &value, &CookieAttributes::default(), BACK_KEPT_FOR)
    };
    answer
        .cookie(delete_cookie(&authn_cookie(config), &authn_cookie_attributes(config)))
        .cookie(Rounds::forget(config))
        .cookies(asked_back(visit).as_ref().map(keep))
}

fn confirmation(visit: &Visit, here: &Here) -> Answer {
    let token = here.id.as_ref().map(|id| token(visit, id, visit.now.plus(TOKEN_GOOD_FOR)));
    let fields: Vec<_> = token.iter().map(|token| (TOKEN, token.as_str())).collect();
    let page = SignOutConfirm {
        who: here.session.as_ref().map(|session| who(&session.user)),
        action: PATH,
        fields: &fields,
        cancel: Some(if visit.is_authn() { "/.pomerium/" } else { "/" }),
    };
    Answer::page(StatusCode::OK, page.html())
}

/// Ties the form to this host and to what this browser holds here, until then. Who holds nothing gets none: it would be
/// good for everybody whose cookies stay behind when another site posts the form.
fn token(visit: &Visit, here: &SessionId, until: Timestamp) -> String {
    let until = until.as_secs().to_string();
    let origin = visit.url.origin().ascii_serialization();
    let parts = [PATH.as_bytes(), origin.as_bytes(), here.as_bytes(), until.as_bytes()];
    format!("{until}.{}", URL_SAFE_NO_PAD.encode(visit.live.config.keyring.mac(Purpose::Form, &parts)))
}

fn has_token(visit: &Visit, here: Option<&SessionId>, body: &[u8]) -> bool {
    let Some(here) = here else { return false };
    let sent = form_urlencoded::parse(body).find(|(name, _)| name == TOKEN).map(|(_, value)| value.into_owned());
    let until = |sent: &str| sent.split_once('.').and_then(|(until, _)| until.parse().ok()).map(Timestamp::from_secs);
    visit.method == Method::POST
        && sent.is_some_and(|sent| {
            until(&sent).is_some_and(|until| {
                visit.now <= until && postern_identity::same(token(visit, here, until).as_bytes(), sent.as_bytes())
            })
        })
}
