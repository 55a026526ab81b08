//! The side of the process: who may ask, how many at once, and for how long.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use postern_authn::Authn;
use postern_identity::Keyring;
use postern_storage::Sessions;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::proof::{FIELD, Guard, Target, Unproven, is_proof};
use super::{accounts, endings, list, session};
use crate::admin::is_local_program;

/// So many are answered at once; more are told to come again.
const AT_ONCE: usize = 8;
/// A question has no more bytes.
const MOST: usize = 16 * 1024;
/// Refusals are told of so often at most.
const WARN_EVERY: Duration = Duration::from_secs(10);
/// So long it may take to read a question, and so long to answer it.
const PATIENCE: Duration = Duration::from_secs(5);

/// What answers operators.
#[derive(Debug)]
pub(crate) struct Face {
    /// None where no `shared_secret` is configured: then nobody can prove anything.
    guard: Option<Guard>,
    sessions: Sessions,
    /// None where this process is an edge alone.
    authn: Option<Arc<Authn>>,
    places: Semaphore,
    /// When it was last told of somebody who proved nothing.
    warned: Mutex<Option<Instant>>,
}

impl Face {
    /// Answers whoever holds the secret of this keyring, if it was configured and not drawn by this process.
    pub(crate) fn new(keyring: Option<Arc<Keyring>>, sessions: Sessions, authn: Option<Arc<Authn>>) -> Self {
        let (guard, places) = (keyring.map(Guard::new), Semaphore::new(AT_ONCE));
        Self { guard, sessions, authn, places, warned: Mutex::default() }
    }

    /// Tells the log of somebody who proved nothing, now and then: whoever they are, they do not fill it.
    fn warn(&self, error: Unproven) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            *warned = Some(Instant::now());
            warn!(%error, "somebody on this machine asked what only operators may");
        }
    }

    /// The answer to a question that is proven, and a refusal of every other one.
    pub(super) async fn answer<Q: DeserializeOwned, A: Serialize, F: Future<Output = A>>(
        &self,
        peer: SocketAddr,
        request: Request,
        answer: impl FnOnce(Q) -> F,
    ) -> Response {
        if !is_local_program(peer, request.headers(), &FIELD) {
            return refuse(StatusCode::FORBIDDEN, "only a program on the same machine may ask");
        }
        let Some(guard) = &self.guard else {
            return refuse(
                StatusCode::FORBIDDEN,
                "this Postern has no `shared_secret` in its configuration that could prove who asks",
            );
        };
        if request.headers().get(&FIELD).and_then(|field| field.to_str().ok()).is_none_or(|field| !is_proof(field)) {
            return unproven(Unproven::Missing);
        }
        let Ok(_place) = self.places.try_acquire() else {
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "too many ask at once");
        };
        let (parts, body) = request.into_parts();
        let Ok(Ok(body)) = tokio::time::timeout(PATIENCE, to_bytes(body, MOST)).await else {
            return refuse(StatusCode::BAD_REQUEST, "the question did not come in time, or is too long");
        };
        let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
        let target = Target { method: parts.method.as_str(), path };
        let mut fields = parts.headers.get_all(&FIELD).iter();
        let field = fields.next().filter(|_| fields.next().is_none()).and_then(|value| value.to_str().ok());
        let (asker, question) = match guard.check(target, field, &body, SystemTime::now().into()) {
            Ok(proven) => proven,
            Err(error) => {
                self.warn(error);
                return unproven(error);
            }
        };
        let Ok(question) = serde_json::from_slice(&question) else {
            return refuse(
                StatusCode::BAD_REQUEST,
                "the question is not understood: is the command of another version?",
            );
        };
        info!(%peer, path = parts.uri.path(), "an operator asked");
        let Ok(answer) = tokio::time::timeout(PATIENCE, answer(question)).await else {
            return refuse(StatusCode::SERVICE_UNAVAILABLE, "there is no answer in time");
        };
        match serde_json::to_vec(&answer).ok().and_then(|answer| guard.seal(asker, &answer).ok()) {
            Some(sealed) => ([(header::CONTENT_TYPE, "application/octet-stream")], Body::from(sealed)).into_response(),
            None => refuse(StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be written"),
        }
    }

    /// The same, of what authn knows and does.
    async fn of_authn<Q: DeserializeOwned, A: Serialize, F: Future<Output = A>>(
        &self,
        peer: SocketAddr,
        request: Request,
        answer: impl FnOnce(Arc<Authn>, Q) -> F,
    ) -> Response {
        let Some(authn) = self.authn.clone() else {
            return refuse(
                StatusCode::NOT_FOUND,
                "this process is an edge alone: ask one with `services: authenticate`",
            );
        };
        self.answer(peer, request, |question| answer(authn, question)).await
    }
}

fn refuse(status: StatusCode, why: &'static str) -> Response {
    (status, format!("{why}\n")).into_response()
}

fn unproven(error: Unproven) -> Response {
    match error {
        Unproven::Age => refuse(StatusCode::FORBIDDEN, "the proof is too old, or the clocks differ"),
        Unproven::TooMany => refuse(StatusCode::SERVICE_UNAVAILABLE, "too much was asked in a short time"),
        Unproven::Missing | Unproven::Wrong | Unproven::Used => {
            refuse(StatusCode::FORBIDDEN, "the request does not prove that it comes from who holds the `shared_secret`")
        }
    }
}

/// Everything under `/operator/`.
pub(crate) fn routes(face: Face) -> Router {
    Router::new()
        .route(session::SESSION, post(session))
        .route(list::LIST, post(list))
        .route(endings::END, post(end))
        .route(endings::END_USER, post(end_user))
        .route(endings::END_ALL, post(end_all))
        .route(endings::CLEARING, post(clearing))
        .route(accounts::CREATE, post(create))
        .with_state(Arc::new(face))
}

type Asked = (State<Arc<Face>>, ConnectInfo<SocketAddr>);

async fn session((State(face), ConnectInfo(peer)): Asked, request: Request) -> Response {
    face.answer(peer, request, |which| session::find(&face.sessions, which)).await
}

async fn list((State(face), ConnectInfo(peer)): Asked, request: Request) -> Response {
    let sessions = &face.sessions;
    face.of_authn(peer, request, |authn, wanted| async move { list::find(sessions, &authn, wanted).await }).await
}

async fn end((State(face), ConnectInfo(peer)): Asked, request: Request) -> Response {
    face.of_authn(peer, request, |authn, which| whole(async move { endings::end(&authn, which).await })).await
}

async fn end_user((State(face), ConnectInfo(peer)): Asked, request: Request) -> Response {
    face.of_authn(peer, request, |authn, whose| whole(async move { endings::end_user(&authn, whose).await })).await
}

async fn end_all((State(face), ConnectInfo(peer)): Asked, request: Request) -> Response {
    face.of_authn(peer, request, |authn, all| whole(async move { endings::end_all(&authn, all).await })).await
}

async fn create((State(face), ConnectInfo(peer)): Asked, request: Request) -> Response {
    face.of_authn(peer, request, |authn, wanted| whole(async move { accounts::create(&authn, wanted).await })).await
}

/// Goes on to its end even if nobody waits for it any more; `None` if there was none.
async fn whole<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Option<T> {
    tokio::spawn(work).await.ok()
}

async fn clearing((State(face), ConnectInfo(peer)): Asked, request: Request) -> Response {
    face.of_authn(peer, request, |authn, seen| async move { endings::clearing(&authn, seen).await }).await
}
