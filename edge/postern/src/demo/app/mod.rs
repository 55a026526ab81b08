//! The sample application: it has no sign-in of its own and shows whom the edge says that it serves.

mod verify;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use postern_pages::Who;
use postern_pages::demo::{APPLICATION_CSP, Application, Caller};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{DemoError, DemoOnly, hosts};
use verify::{Identity, Verifier};

const ASSERTION: &str = "x-pomerium-jwt-assertion";
/// A WebSocket that says nothing for this long is closed.
const SILENCE: Duration = Duration::from_secs(600);
/// The longest message that comes back.
const LONGEST: usize = 64 * 1024;

/// The application, ready to serve.
#[derive(Debug)]
pub(super) struct App {
    listener: TcpListener,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    verifier: Verifier,
    port: u16,
    shutdown: CancellationToken,
}

impl App {
    /// An application behind the edge at `port`, at `listener`, which has to be bound to a loopback address.
    pub(super) fn new(_only: &DemoOnly, listener: TcpListener, port: u16, authority: &str) -> Result<Self, DemoError> {
        let address = listener.local_addr().map_err(DemoError::Listen)?;
        if !address.ip().is_loopback() {
            return Err(DemoError::NotLoopback(address));
        }
        let verifier = Verifier::new(port, authority)?;
        Ok(Self { listener, shared: Arc::new(Shared { verifier, port, shutdown: CancellationToken::new() }) })
    }

    /// Serves until `shutdown`.
    pub(super) async fn serve(self, shutdown: CancellationToken) -> std::io::Result<()> {
        let streams = self.shared.shutdown.clone();
        let router = Router::new()
            .route("/", get(show))
            .route("/json", get(tell))
            .route("/ws", any(echo))
            .with_state(self.shared);
        let stopped = async move {
            shutdown.cancelled().await;
            streams.cancel();
        };
        axum::serve(self.listener, router).with_graceful_shutdown(stopped).await
    }
}

/// The host that was asked for, without its port.
fn host_of(headers: &HeaderMap) -> &str {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    host.split(':').next().unwrap_or_default()
}

async fn identify(shared: &Shared, headers: &HeaderMap) -> Result<Identity, &'static str> {
    let assertion = headers.get(ASSERTION).ok_or("there is no assertion: the request came around the door")?;
    let assertion = assertion.to_str().map_err(|_| "the assertion is not a JWT")?;
    shared.verifier.verify(assertion, host_of(headers)).await
}

async fn show(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let identity = identify(&shared, &headers).await;
    let groups: Vec<&str> = identity.iter().flat_map(|one| &one.groups).map(String::as_str).collect();
    let caller = match &identity {
        Err(problem) => Caller::Unverified(problem),
        Ok(identity) if identity.sub.is_empty() => Caller::Anonymous,
        Ok(identity) => Caller::Verified { who: who(identity), groups: &groups },
    };
    let told = told(&headers);
    let told: Vec<(&str, &str)> = told.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let links = links(shared.port);
    let links: Vec<(&str, &str)> = links.iter().map(|(label, link)| (*label, link.as_str())).collect();
    let host = host_of(&headers);
    let echo = host.strip_suffix(".localhost") == Some(hosts::WS);
    let html = Application { host, caller, headers: &told, links: &links, echo }.html();
    ([(header::CONTENT_SECURITY_POLICY, APPLICATION_CSP), (header::CACHE_CONTROL, "no-store")], Html(html))
        .into_response()
}

fn who(identity: &Identity) -> Who<'_> {
    let email = Some(identity.email.as_str()).filter(|email| !email.is_empty());
    match identity.name.as_str() {
        "" => Who { name: email.unwrap_or(&identity.sub), email: None, email_unverified: false },
        name => Who { name, email, email_unverified: false },
    }
}

/// For programs.
async fn tell(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Json<Value> {
    let identity = identify(&shared, &headers).await;
    let told: serde_json::Map<_, _> =
        told(&headers).into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    Json(json!({
        "host": host_of(&headers),
        "verified": identity.is_ok(),
        "problem": identity.as_ref().err(),
        "identity": identity.as_ref().ok().filter(|identity| !identity.sub.is_empty()),
        "headers": told,
    }))
}

/// The headers that came, ours first, then in order of name; several of one name joined.
fn told(headers: &HeaderMap) -> Vec<(&str, String)> {
    let mut names: Vec<_> = headers.keys().map(header::HeaderName::as_str).collect();
    names.sort_unstable_by_key(|name| (!name.starts_with("x-pomerium-"), *name));
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let joined = |name: &str| headers.get_all(name).iter().map(text).collect::<Vec<_>>().join(", ");
    names.into_iter().map(|name| (name, joined(name))).collect()
}

fn links(port: u16) -> Vec<(&'static str, String)> {
    let at = |host: &str| format!("https://{host}.localhost:{port}/");
    vec![
        ("Administrators", at(hosts::ADMIN)),
        ("Engineering", at(hosts::ENGINEERING)),
        ("WebSocket", at(hosts::WS)),
        ("Public", at(hosts::PUBLIC)),
        ("Your session", "/.pomerium/".to_owned()),
        ("Sign out", "/.pomerium/sign_out".to_owned()),
    ]
}

async fn echo(State(shared): State<Arc<Shared>>, upgrade: WebSocketUpgrade) -> Response {
    let shutdown = shared.shutdown.clone();
    upgrade.max_message_size(LONGEST).on_upgrade(move |socket| async move {
        tokio::select! {
            () = answer(socket) => {}
            () = shutdown.cancelled() => {}
        }
    })
}

/// Sends back what comes, until the other end is gone or silent.
async fn answer(mut socket: WebSocket) {
    while let Ok(Some(Ok(message))) = tokio::time::timeout(SILENCE, socket.recv()).await {
        let back = match message {
            Message::Text(_) | Message::Binary(_) => message,
            Message::Ping(_) | Message::Pong(_) => continue,
            Message::Close(_) => return,
        };
        if tokio::time::timeout(SILENCE, socket.send(back)).await.is_ok_and(|sent| sent.is_ok()) {
            continue;
        }
        return;
    }
}
