//! An upstream that says what it was asked: headers as JSON, bodies of any size both ways, a WebSocket that echoes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use axum::body::{Body, Bytes};
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, Request, State};
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::{any, get};
use axum::{Json, Router};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// A running upstream; it ends with its owner.
#[derive(Debug)]
pub(crate) struct Upstream {
    address: SocketAddr,
    state: Shared,
    server: JoinHandle<()>,
}

/// One request as the upstream got it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Asked {
    /// The value of that header, if it came exactly once.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
        values.next().filter(|_| values.next().is_none())
    }
}

type Shared = Arc<Inner>;

#[derive(Debug)]
struct Inner {
    seen: Mutex<Vec<Asked>>,
    /// Closed until the owner lets go what is held.
    gate: Semaphore,
}

impl Upstream {
    /// Starts one on a port of its own.
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let state = Arc::new(Inner { seen: Mutex::default(), gate: Semaphore::new(0) });
        let address = listener.local_addr()?;
        let routes = Router::new()
            .route("/download", get(download))
            .route("/upload", any(upload))
            .route("/hold", any(hold))
            .route("/say", any(say))
            .route("/socket", any(async |upgrade: WebSocketUpgrade| upgrade.on_upgrade(echo_frames)))
            .fallback(echo)
            .layer(axum::middleware::from_fn_with_state(state.clone(), note))
            .with_state(state.clone());
        let server = tokio::spawn(async move {
            let _ended = axum::serve(listener, routes).await;
        });
        Ok(Self { address, state, server })
    }

    /// What to write after `to:`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request so far.
    pub(crate) fn seen(&self) -> Vec<Asked> {
        self.state.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets `/hold` answer: those that wait there, and all to come.
    pub(crate) fn release(&self) {
        self.state.gate.close();
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn note(State(state): State<Shared>, request: Request, next: Next) -> Response {
    state.seen.lock().unwrap_or_else(PoisonError::into_inner).push(asked(&request));
    next.run(request).await
}

fn asked(request: &Request) -> Asked {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = request.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    Asked { method: request.method().to_string(), target: request.uri().to_string(), headers }
}

/// Answers when it is let go.
async fn hold(State(state): State<Shared>) -> &'static str {
    let _closed = state.gate.acquire().await;
    "held, then let go"
}

/// Says the fields that the query asks for.
async fn say(Query(fields): Query<Vec<(String, String)>>) -> Response {
    let answer = fields.into_iter().fold(Response::builder(), |answer, (name, value)| answer.header(name, value));
    answer.body(Body::empty()).unwrap_or_default()
}

async fn echo(request: Request) -> Json<Asked> {
    Json(asked(&request))
}

#[derive(Deserialize)]
struct Size {
    bytes: u64,
}

/// So many zero bytes, in pieces.
async fn download(Query(Size { bytes }): Query<Size>) -> Body {
    const PIECE: Bytes = Bytes::from_static(&[0; 64 * 1024]);
    let pieces = stream::unfold(bytes, async |left| {
        let piece = PIECE.slice(..usize::try_from(left).unwrap_or(usize::MAX).min(PIECE.len()));
        (!piece.is_empty()).then(|| (Ok::<_, std::io::Error>(piece.clone()), left - piece.len() as u64))
    });
    Body::from_stream(pieces)
}

/// How many bytes came.
async fn upload(request: Request) -> String {
    let mut body = request.into_body().into_data_stream();
    let mut total = 0;
    while let Some(Ok(piece)) = body.next().await {
        total += piece.len();
    }
    total.to_string()
}

async fn echo_frames(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        let answered = match message {
            Message::Text(_) | Message::Binary(_) => socket.send(message).await,
            Message::Ping(_) | Message::Pong(_) => Ok(()),
            Message::Close(_) => return,
        };
        if answered.is_err() {
            return;
        }
    }
}
