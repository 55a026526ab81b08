//! `SignInRequest` → `PendingSignIn` and the way to the provider; or straight back, for who is signed in already.

use std::sync::Arc;

use postern_identity::{SignInRequest, SignInRequestError};
use url::Url;

use super::pending::PendingSignIn;
use super::{Rounds, begins_anew_at, may_hand_over, session_here, ticket};
use crate::answer::Answer;
use crate::error::SignInError;
use crate::idp::Idp;
use crate::server::Shared;
use crate::visit::Visit;

/// `/.pomerium/sign_in`: the signature comes first, before the provider or the store is asked anything.
pub(crate) async fn begin(shared: &Shared, visit: &Visit) -> Answer {
    let (request, is_fresh) = match SignInRequest::from_url(&visit.live.config.keyring, &visit.url, visit.now) {
        Ok(request) => (request, true),
        Err(SignInRequestError::Expired(request)) => (*request, false),
        Err(SignInRequestError::NotSigned) => return SignInError::NotSigned.show(visit, None),
    };
    if !may_hand_over(&visit.live.config, &request) {
        return SignInError::TargetRefused.show(visit, None);
    }
    let again = begins_anew_at(&request).cloned();
    if !is_fresh {
        let Some(again) = again else { return SignInError::Outdated.show(visit, None) };
        // Genuine but old, such as a page that stood open over night: the edge makes a new one at once.
        return Rounds::of(visit).again(visit, (&again, 0), Answer::redirect(&again));
    }
    let idp = request.idp.clone();
    match go_on(shared, visit, request).await {
        Ok(answer) => answer,
        Err(error) => {
            shared.metrics.signed_in(idp.as_str(), error.reason());
            error.show(visit, again.as_ref().map(Url::as_str))
        }
    }
}

async fn go_on(shared: &Shared, visit: &Visit, request: SignInRequest) -> Result<Answer, SignInError> {
    let idp = Arc::clone(visit.live.idp(&request.idp).ok_or(SignInError::UnknownIdp)?);
    match session_here(shared, visit).await? {
        Some((id, session)) if session.idp == request.idp => ticket::hand_over(visit, &request, &id, &session),
        Some(_) | None => send_to_idp(visit, &idp, request).await,
    }
}

/// Sends the browser to the provider, and gives it the cookie that its answer must come back with.
pub(super) async fn send_to_idp(visit: &Visit, idp: &Idp, request: SignInRequest) -> Result<Answer, SignInError> {
    let pending = PendingSignIn::begin(request, visit.now)?;
    let there = idp.authorization_url(&pending.proof).await?;
    Ok(Answer::redirect(&there).cookies(pending.keep(visit, idp.answers_by_post())?))
}
