//! `PendingSignIn` and the provider's answer → `VerifiedCallback`.

use std::sync::Arc;

use postern_identity::{Secret, SignInRequest};
use postern_storage::Once;
use url::{Url, form_urlencoded};

use super::begin::send_to_idp;
use super::begins_anew_at;
use super::complete::complete;
use super::pending::{KEPT_FOR, PendingSignIn};
use crate::answer::Answer;
use crate::error::SignInError;
use crate::server::Shared;
use crate::visit::Visit;

/// What the provider sent through the browser, in a query or a form. Nothing in it is believed yet.
#[derive(Debug)]
pub(crate) struct AuthorizationAnswer {
    pub(crate) state: String,
    pub(crate) code: Option<Secret<String>>,
    pub(crate) issuer: Option<String>,
    pub(crate) error: Option<String>,
    pub(crate) description: Option<String>,
}

impl AuthorizationAnswer {
    /// `None` without a state, or if any parameter of ours comes twice.
    fn read(visit: &Visit, body: &[u8]) -> Option<Self> {
        let text = if visit.method == http::Method::POST { body } else { visit.url.query().unwrap_or("").as_bytes() };
        let mut answer = Self { state: String::new(), code: None, issuer: None, error: None, description: None };
        let (mut state, mut code) = (None, None);
        for (name, value) in form_urlencoded::parse(text) {
            let place = match name.as_ref() {
                "state" => &mut state,
                "code" => &mut code,
                "iss" => &mut answer.issuer,
                "error" => &mut answer.error,
                "error_description" => &mut answer.description,
                _ => continue,
            };
            if place.replace(value.into_owned()).is_some() {
                return None;
            }
        }
        answer.state = state.filter(|state| !state.is_empty())?;
        answer.code = code.filter(|code| !code.is_empty() && code.len() <= MAX_CODE).map(Secret::new);
        Some(answer)
    }
}

/// No provider's code is nearly as long.
const MAX_CODE: usize = 8 * 1024;

/// `/oauth2/callback`.
pub(crate) async fn callback(shared: &Shared, visit: &Visit, body: &[u8]) -> Answer {
    let Some(answer) = AuthorizationAnswer::read(visit, body) else {
        return astray(visit, &SignInError::Incomplete);
    };
    let Some(pending) = PendingSignIn::find(visit, &answer.state) else {
        shared.metrics.signed_in("unknown", SignInError::StateUnknown.reason());
        return astray(visit, &SignInError::StateUnknown);
    };
    let forget = pending.forget(&visit.live.config);
    let (idp, again) = (pending.request.idp.clone(), begins_anew_at(&pending.request).cloned());
    let outcome = take(shared, visit, pending, answer).await;
    let (answer, outcome) = match outcome {
        Ok(done) => done,
        Err(error) => (error.show(visit, again.as_ref().map(Url::as_str)), error.reason()),
    };
    shared.metrics.signed_in(idp.as_str(), outcome);
    answer.cookie(forget)
}

/// An answer to no sign-in that this browser knows: it may have begun another one, and else goes home.
fn astray(visit: &Visit, error: &SignInError) -> Answer {
    let other = PendingSignIn::newest(visit).map(|pending| pending.request.redirect_uri);
    error.show_astray(visit, other.as_ref().map(Url::as_str))
}

/// The state is spent before anything else happens, so also on failure, and once across all edges (S-053, S-055).
async fn take(
    shared: &Shared,
    visit: &Visit,
    pending: PendingSignIn,
    answer: AuthorizationAnswer,
) -> Result<(Answer, &'static str), SignInError> {
    let until = visit.now.plus(KEPT_FOR);
    if !shared.sessions.spend(Once::SignIn, answer.state.as_bytes(), visit.now, until).await? {
        return Err(SignInError::StateUsed);
    }
    let idp = Arc::clone(visit.live.idp(&pending.request.idp).ok_or(SignInError::UnknownIdp)?);
    if pending.is_too_old(visit.now) {
        let SignInRequest { restarted: false, .. } = pending.request else { return Err(SignInError::TooSlow) };
        let again = send_to_idp(visit, &idp, SignInRequest { restarted: true, ..pending.request }).await?;
        return Ok((again, "restarted"));
    }
    let is_of_idp = idp.answers_as(answer.issuer.as_deref()).await?;
    Ok((complete(shared, visit, &idp, pending.verify(answer, is_of_idp)?).await?, "ok"))
}
