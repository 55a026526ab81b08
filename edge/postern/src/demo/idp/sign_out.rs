//! RP-initiated sign-out (OpenID Connect RP-Initiated Logout 1.0).

use std::sync::Arc;

use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use postern_pages::{SignOutConfirm, SignedOut};
use url::Url;

use super::{COOKIE, Failure, Params, Shared, cookie_in, is_own_form, now, page, refuse};

/// `GET /end_session`: at once with a good `id_token_hint`; without, a page asks first (§2).
pub(super) async fn begin(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, Failure> {
    let Some(params) = Params::of(query) else {
        return Ok(refuse(StatusCode::BAD_REQUEST, "A parameter came twice."));
    };
    match params.find("id_token_hint").and_then(|hint| shared.signer.open_hint(hint)) {
        Some(hint) => end(&shared, vec![hint.sid], &params).await,
        None => {
            let fields = ["post_logout_redirect_uri", "state", "client_id"];
            let fields: Vec<_> = fields.into_iter().filter_map(|name| Some((name, params.find(name)?))).collect();
            let nobody = sid_in(&headers, &shared).is_none();
            if nobody {
                return end(&shared, Vec::new(), &params).await;
            }
            let html = SignOutConfirm { who: None, action: "/end_session", fields: &fields, cancel: None }.html();
            Ok(page(StatusCode::OK, html))
        }
    }
}

/// `POST /end_session`: the answer to that page, or a client that posts its hint.
pub(super) async fn confirmed(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Form(form): Form<Vec<(String, String)>>,
) -> Result<Response, Failure> {
    let hinted = form.iter().any(|(name, _)| name == "id_token_hint");
    if hinted {
        return begin(State(shared), headers, Query(form)).await;
    }
    if !is_own_form(&headers, &shared) {
        return Ok(refuse(StatusCode::FORBIDDEN, "This form was sent by another site."));
    }
    let Some(params) = Params::of(form) else {
        return Ok(refuse(StatusCode::BAD_REQUEST, "A parameter came twice."));
    };
    let sids = sid_in(&headers, &shared).into_iter().collect();
    end(&shared, sids, &params).await
}

async fn end(shared: &Arc<Shared>, sids: Vec<String>, params: &Params) -> Result<Response, Failure> {
    shared.change(move |memory| sids.iter().for_each(|sid| memory.end(sid))).await?;
    let next = params.find("post_logout_redirect_uri").and_then(|uri| allowed(uri, shared));
    let mut response = match next {
        Some(mut uri) => {
            if let Some(state) = params.find("state") {
                uri.query_pairs_mut().append_pair("state", state);
            }
            (StatusCode::SEE_OTHER, [(header::LOCATION, uri.to_string())]).into_response()
        }
        None => page(StatusCode::OK, SignedOut { sign_in: None }.html()),
    };
    let gone = HeaderValue::try_from(format!("{COOKIE}=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0"))?;
    response.headers_mut().insert(header::SET_COOKIE, gone);
    Ok(response)
}

/// The address, if it belongs to the client.
fn allowed(uri: &str, shared: &Shared) -> Option<Url> {
    let uri = Url::parse(uri).ok()?;
    let own = uri.origin().ascii_serialization() == shared.client.origin;
    (own && uri.username().is_empty() && uri.password().is_none()).then_some(uri)
}

fn sid_in(headers: &HeaderMap, shared: &Shared) -> Option<String> {
    let cookie = cookie_in(headers)?;
    shared.look(|memory| memory.browser(cookie, now()).map(|browser| browser.sid.clone()))
}
