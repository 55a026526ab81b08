//! A small OpenID provider, for the demonstration alone: no password, four people, loopback only.
//!
//! It is real where it faces its client: discovery, code with PKCE, rotating refresh tokens, userinfo, revocation and
//! sign-out, with strict checks of client and redirect_uri. It cannot be started outside [`demo`](super): its
//! constructor takes a [`DemoOnly`], which only that module makes, and a listener on a loopback address.

mod authorize;
mod sign_out;
mod state;
mod token;
mod tokens;
pub(super) mod users;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use postern_identity::{Secret, Timestamp};
use postern_pages::{Reference, SignInFailed};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{DemoError, DemoOnly, folder};
use state::Memory;
use tokens::Signer;

/// What the provider is made from.
#[derive(Debug)]
pub(super) struct Settings {
    /// Its key: P-256, PKCS#8 PEM.
    pub(super) key: Secret<String>,
    /// Where it writes down what it remembers.
    pub(super) memory: PathBuf,
    /// Its one client.
    pub(super) client: Client,
}

/// The one client.
#[derive(Debug)]
pub(super) struct Client {
    /// `client_id`.
    pub(super) id: String,
    /// `client_secret`.
    pub(super) secret: Secret<String>,
    /// The one `redirect_uri`.
    pub(super) redirect_uri: String,
    /// The origin where a browser may be sent after sign-out.
    pub(super) origin: String,
}

/// The provider, ready to serve.
#[derive(Debug)]
pub(super) struct Idp {
    listener: TcpListener,
    shared: Arc<Shared>,
}

/// What handlers share.
#[derive(Debug)]
struct Shared {
    /// `host:port`: the one name that it answers to.
    authority: String,
    client: Client,
    signer: Signer,
    memory: Mutex<Memory>,
    path: PathBuf,
}

impl Idp {
    /// A provider at `listener`, which has to be bound to a loopback address.
    pub(super) fn new(_only: &DemoOnly, listener: TcpListener, settings: Settings) -> Result<Self, DemoError> {
        let address = listener.local_addr().map_err(DemoError::Listen)?;
        if !address.ip().is_loopback() {
            return Err(DemoError::NotLoopback(address));
        }
        let Settings { key, memory: path, client } = settings;
        let signer = Signer::new(key.expose(), format!("http://{address}"), client.id.clone()).map_err(|_| {
            DemoError::Broken { path: path.with_file_name(folder::IDP_KEY), what: "it holds no P-256 key" }
        })?;
        let memory = folder::read(&path)?.map_or(Ok(Memory::default()), |text| {
            serde_json::from_str(&text)
                .map_err(|_| DemoError::Broken { path: path.clone(), what: "it is not readable" })
        })?;
        let memory = Mutex::new(memory);
        let shared = Arc::new(Shared { authority: address.to_string(), client, signer, memory, path });
        Ok(Self { listener, shared })
    }

    /// Serves until `shutdown`.
    pub(super) async fn serve(self, shutdown: CancellationToken) -> std::io::Result<()> {
        axum::serve(self.listener, router(self.shared)).with_graceful_shutdown(shutdown.cancelled_owned()).await
    }
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/.well-known/openid-configuration", get(discovery))
        .route("/keys", get(keys))
        .route("/authorize", get(authorize::show).post(authorize::choose))
        .route("/token", axum::routing::post(token::exchange))
        .route("/revoke", axum::routing::post(token::revoke))
        .route("/userinfo", get(token::userinfo).post(token::userinfo))
        .route("/end_session", get(sign_out::begin).post(sign_out::confirmed))
        .layer(DefaultBodyLimit::max(64 * 1024))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&shared), own_name_only))
        .with_state(shared)
}

/// Answers to its own name alone, so that no other site can point a name of its own at it (DNS rebinding).
async fn own_name_only(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).map(HeaderValue::as_bytes);
    if host != Some(shared.authority.as_bytes()) {
        return (StatusCode::MISDIRECTED_REQUEST, "not the name of this provider\n").into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn discovery(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let issuer = shared.signer.issuer();
    Json(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "userinfo_endpoint": format!("{issuer}/userinfo"),
        "revocation_endpoint": format!("{issuer}/revoke"),
        "end_session_endpoint": format!("{issuer}/end_session"),
        "jwks_uri": format!("{issuer}/keys"),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "revocation_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "scopes_supported": ["openid", "profile", "email", "groups", "offline_access"],
        "prompt_values_supported": ["none", "login", "select_account", "consent"],
        "claims_supported": ["sub", "name", "given_name", "family_name", "preferred_username", "email",
            "email_verified", "groups", "auth_time", "nonce", "sid", "at_hash"],
        "authorization_response_iss_parameter_supported": true,
        "request_uri_parameter_supported": false,
    }))
}

async fn keys(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(shared.signer.key_set().clone())
}

impl Shared {
    /// Looks at what is remembered.
    fn look<R>(&self, look: impl FnOnce(&Memory) -> R) -> R {
        look(&self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes what is remembered, and writes it down before it gives the outcome.
    async fn change<R: Send + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Memory) -> R + Send + 'static,
    ) -> Result<R, Failure> {
        let shared = Arc::clone(self);
        let written = tokio::task::spawn_blocking(move || {
            let mut memory = shared.memory.lock().unwrap_or_else(PoisonError::into_inner);
            let outcome = change(&mut memory);
            let text = serde_json::to_string(&*memory).map_err(|_| Failure)?;
            folder::write(&shared.path, &text).map_err(|_| Failure)?;
            Ok(outcome)
        });
        written.await.map_err(|_| Failure)?
    }
}

/// The provider cannot do its work: no randomness, no disk. Shown as 500, without details.
#[derive(Debug)]
struct Failure;

impl<E: std::error::Error> From<E> for Failure {
    fn from(_: E) -> Self {
        Self
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, "the demo provider cannot write its state\n").into_response()
    }
}

/// Parameters of a query or a form, each at most once (RFC 6749 §3.1).
#[derive(Debug)]
struct Params(Vec<(String, String)>);

impl Params {
    /// The parameters; `None` if one is there twice. Empty ones count as absent.
    fn of(pairs: Vec<(String, String)>) -> Option<Self> {
        let mut names: Vec<_> = pairs.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        (names.len() == pairs.len()).then(|| Self(pairs.into_iter().filter(|(_, value)| !value.is_empty()).collect()))
    }

    fn find(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The name of the provider's own session cookie. Cookies know no ports: the name has to be unmistakable.
const COOKIE: &str = "postern_demo_idp";

fn cookie_in(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(';')).find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

/// Whether a form was sent by a page of our own, as far as the browser tells. Programs tell nothing.
fn is_own_form(headers: &HeaderMap, shared: &Shared) -> bool {
    let origin = headers.get(header::ORIGIN).map(HeaderValue::as_bytes);
    origin.is_none_or(|origin| origin == shared.signer.issuer().as_bytes())
}

/// A page of the provider.
fn page(status: StatusCode, html: String) -> Response {
    let policy = HeaderValue::from_static(postern_pages::demo::CHOOSE_ACCOUNT_CSP);
    (status, [(header::CONTENT_SECURITY_POLICY, policy)], Html(html)).into_response()
}

/// The page of a request that goes no further, and never back to where it came from.
fn refuse(status: StatusCode, sentence: &str) -> Response {
    let reference = Reference { request_id: "", reason: "demo-idp-refused", route: "", time: "" };
    let html =
        SignInFailed { sentence, provider_error: None, provider_description: None, reference, retry: None }.html();
    page(status, html)
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

#[cfg(test)]
mod tests;
