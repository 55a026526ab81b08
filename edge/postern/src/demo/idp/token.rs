//! The token, revocation and userinfo endpoints.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postern_identity::{Timestamp, same};
use serde_json::{Value, json};

use super::state::{GrantError, Issued};
use super::tokens::{TOKEN_SECONDS, claims_of};
use super::users::User;
use super::{Client, Failure, Params, Shared, now};

/// An error of RFC 6749 §5.2.
#[derive(Debug)]
struct Refused {
    status: StatusCode,
    error: &'static str,
    why: &'static str,
}

/// `POST /token`.
pub(super) async fn exchange(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Form(form): Form<Vec<(String, String)>>,
) -> Result<Response, Failure> {
    let now = now();
    let params = match authenticated(form, &headers, &shared.client) {
        Ok(params) => params,
        Err(refused) => return Ok(refused.into_response()),
    };
    let outcome = match params.find("grant_type") {
        Some("authorization_code") => redeem(&shared, &params, now).await?,
        Some("refresh_token") => {
            let token = params.find("refresh_token").unwrap_or_default().to_owned();
            shared.change(move |memory| memory.refresh(&token, now)).await?
        }
        _ => return Ok(bad("unsupported_grant_type", "only authorization_code and refresh_token").into_response()),
    };
    match outcome {
        Ok(issued) => tokens(&shared, &issued, now),
        Err(GrantError::Invalid(why)) => Ok(bad("invalid_grant", why).into_response()),
        Err(GrantError::NoRandomness) => Err(Failure),
    }
}

/// `POST /revoke` (RFC 7009): any token of a family ends the family; an unknown one is no error.
pub(super) async fn revoke(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Form(form): Form<Vec<(String, String)>>,
) -> Result<Response, Failure> {
    let params = match authenticated(form, &headers, &shared.client) {
        Ok(params) => params,
        Err(refused) => return Ok(refused.into_response()),
    };
    let token = params.find("token").unwrap_or_default();
    let family = shared.signer.open_access(token).map_or_else(|| token.to_owned(), |access| access.family);
    shared.change(move |memory| memory.revoke(&family)).await?;
    Ok(StatusCode::OK.into_response())
}

/// `GET` and `POST /userinfo`.
pub(super) async fn userinfo(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let access = token.and_then(|token| shared.signer.open_access(token));
    let access = access.filter(|access| shared.look(|memory| memory.lives(&access.family, now())));
    match access.and_then(|access| User::find(&access.sub)) {
        Some(user) => Json(Value::Object(claims_of(user))).into_response(),
        None => {
            let challenge = [(header::WWW_AUTHENTICATE, "Bearer error=\"invalid_token\"")];
            (StatusCode::UNAUTHORIZED, challenge).into_response()
        }
    }
}

async fn redeem(shared: &Arc<Shared>, params: &Params, now: Timestamp) -> Result<Result<Issued, GrantError>, Failure> {
    let text = |name| params.find(name).unwrap_or_default().to_owned();
    let (code, uri, verifier) = (text("code"), text("redirect_uri"), text("code_verifier"));
    shared.change(move |memory| memory.redeem(&code, &uri, &verifier, now)).await
}

fn tokens(shared: &Shared, issued: &Issued, now: Timestamp) -> Result<Response, Failure> {
    let Some(user) = User::find(&issued.browser.user) else { return Err(Failure) };
    let access_token = shared.signer.access_token(issued, now)?;
    let id_token = shared.signer.id_token(user, issued, &access_token, now)?;
    let mut answer = json!({
        "token_type": "Bearer", "expires_in": TOKEN_SECONDS, "scope": issued.scope,
        "access_token": access_token, "id_token": id_token,
    });
    if let (Some(answer), Some(token)) = (answer.as_object_mut(), &issued.refresh_token) {
        answer.insert("refresh_token".to_owned(), json!(token));
    }
    Ok(Json(answer).into_response())
}

/// The parameters, if the client showed that it is itself: by Basic (RFC 6749 §2.3.1) or in the form, not both.
fn authenticated(form: Vec<(String, String)>, headers: &HeaderMap, client: &Client) -> Result<Params, Refused> {
    let params = Params::of(form).ok_or_else(|| bad("invalid_request", "a parameter came twice"))?;
    let in_form = params.find("client_id").zip(params.find("client_secret"));
    let shown = match (headers.get(header::AUTHORIZATION), in_form) {
        (Some(_), Some(_)) => return Err(bad("invalid_request", "the client authenticates in two ways")),
        (Some(value), None) => basic(value),
        (None, in_form) => in_form.map(|(id, secret)| (id.to_owned(), secret.to_owned())),
    };
    let known = shown.is_some_and(|(id, secret)| {
        same(id.as_bytes(), client.id.as_bytes()) & same(secret.as_bytes(), client.secret.expose().as_bytes())
    });
    let consistent = params.find("client_id").is_none_or(|id| id == client.id);
    if known && consistent {
        Ok(params)
    } else {
        let why = "client_id or client_secret is wrong";
        Err(Refused { status: StatusCode::UNAUTHORIZED, error: "invalid_client", why })
    }
}

fn basic(value: &HeaderValue) -> Option<(String, String)> {
    let text = STANDARD.decode(value.to_str().ok()?.strip_prefix("Basic ")?).ok()?;
    let text = String::from_utf8(text).ok()?;
    let (id, secret) = text.split_once(':')?;
    Some((form_decoded(id)?, form_decoded(secret)?))
}

/// Id and secret are form-encoded before they go into Basic.
fn form_decoded(part: &str) -> Option<String> {
    let pair = format!("part={part}");
    let mut pairs = url::form_urlencoded::parse(pair.as_bytes());
    let (_, value) = pairs.next()?;
    pairs.next().is_none().then(|| value.into_owned())
}

const fn bad(error: &'static str, why: &'static str) -> Refused {
    Refused { status: StatusCode::BAD_REQUEST, error, why }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = Json(json!({ "error": self.error, "error_description": self.why }));
        let challenge = (self.status == StatusCode::UNAUTHORIZED).then_some([(header::WWW_AUTHENTICATE, "Basic")]);
        (self.status, challenge, body).into_response()
    }
}
