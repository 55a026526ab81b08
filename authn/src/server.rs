//! Which page answers which path, and the bounds that hold for all of them.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use postern_identity::{EDGE_TOKEN_HEADER, IdpId, is_edge_token};
use postern_pages::{ErrorPage, Links};
use postern_storage::Sessions;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, warn};

use crate::answer::Answer;
use crate::idp::{Idp, Trust};
use crate::limit::Limit;
use crate::metrics::Metrics;
use crate::operator::Clearing;
use crate::refresh::Underway;
use crate::visit::Visit;
use crate::{AuthnConfig, AuthnError, sign_in, sign_out, user};

/// A body of ours is never larger (03 §2).
const MAX_BODY: usize = 64 * 1024;
/// A form of ours is small: it is here at once, or it does not come.
const MAX_BODY_TIME: Duration = Duration::from_secs(5);
/// The whole of one answer, calls to the provider included. Below the edge's 30 s for a first byte.
const MAX_TIME: Duration = Duration::from_secs(25);
/// Requests at once; more are sent away at once.
const MAX_REQUESTS: usize = 1024;

/// From one request to the end of the next one's head; longer than the edge keeps a connection that is idle.
const HEAD_WAIT: Duration = Duration::from_secs(90);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What every request shares.
#[derive(Debug)]
pub(crate) struct Shared {
    live: ArcSwap<Live>,
    pub(crate) sessions: Sessions,
    pub(crate) metrics: Metrics,
    pub(crate) underway: Underway,
    limit: Limit,
    places: Semaphore,
    /// What is being cleared for an operator who ended all sessions.
    pub(crate) clearing: watch::Sender<Clearing>,
    /// What is done for operators in the background.
    pub(crate) tasks: TaskTracker,
    /// The clearing stops.
    pub(crate) ending: CancellationToken,
}

/// One configuration in force; a reload makes another.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) config: AuthnConfig,
    idps: Vec<Arc<Idp>>,
}

impl Shared {
    pub(crate) fn new(
        config: AuthnConfig,
        sessions: Sessions,
        registry: &prometheus::Registry,
    ) -> Result<Self, AuthnError> {
        let metrics = Metrics::register(registry)?;
        Ok(Self {
            live: ArcSwap::from_pointee(Live::new(config, &metrics, None)?),
            sessions,
            metrics,
            underway: Underway::default(),
            limit: Limit::new(Instant::now()),
            places: Semaphore::new(MAX_REQUESTS),
            clearing: watch::Sender::default(),
            tasks: TaskTracker::new(),
            ending: CancellationToken::new(),
        })
    }

    /// The configuration in force.
    pub(crate) fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    pub(crate) fn reload(&self, config: AuthnConfig) -> Result<(), AuthnError> {
        let live = Live::new(config, &self.metrics, Some(&self.live()))?;
        self.live.store(Arc::new(live));
        Ok(())
    }
}

impl Live {
    /// A provider that is configured as before stays as it is, with its metadata, its keys and its places; but one that is
    /// seen by other roots, be they the system's or the operator's, keeps only its places.
    fn new(config: AuthnConfig, metrics: &Metrics, before: Option<&Self>) -> Result<Self, AuthnError> {
        let trust = Trust::new(config.extra_roots.as_deref())?;
        let idp = |idp: &crate::IdpConfig| {
            let old = before.and_then(|before| before.idp(&idp.id));
            match old.filter(|old| old.is_of(idp, &config.url, &trust)) {
                Some(known) => Ok(Arc::clone(known)),
                None => Idp::new(idp.clone(), &config.url, &trust, metrics.clone(), old.map(Arc::as_ref)).map(Arc::new),
            }
        };
        let idps = config.idps.iter().map(idp).collect::<Result<_, _>>()?;
        Ok(Self { config, idps })
    }

    /// Every provider.
    pub(crate) fn idps(&self) -> &[Arc<Idp>] {
        &self.idps
    }

    /// The provider of that id.
    pub(crate) fn idp(&self, id: &IdpId) -> Option<&Arc<Idp>> {
        self.idps.iter().find(|idp| idp.id() == id)
    }
}

/// Serves until `shutdown`, then ends what is in flight.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new().fallback(receive).with_state(shared);
    let connections = TaskTracker::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(converse(stream, router.clone(), shutdown.clone()))),
                Err(error) => {
                    // Such as too many open files: it passes, and does not spin.
                    warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    connections.close();
    connections.wait().await;
    Ok(())
}

/// One connection, to its end: a peer that sends no request in time is cut off.
async fn converse(stream: TcpStream, router: Router, shutdown: CancellationToken) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection ended");
    }
}

/// Everything that holds for every request: it came through an edge, has a place, ends in time, and a bug in it is its
/// own. It runs to its end although the browser may leave, so that no sign-in stops half-way.
async fn receive(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let live = shared.live();
    let (head, body) = request.into_parts();
    if !is_from_edge(&live, &head.headers) {
        debug!(reason = "edge-token-missing", "request refused");
        return (StatusCode::FORBIDDEN, "").into_response();
    }
    let metrics = shared.metrics.clone();
    let task = tokio::spawn(async move {
        let Ok(place) = shared.places.try_acquire() else {
            return (StatusCode::SERVICE_UNAVAILABLE, [(http::header::RETRY_AFTER, "1")], "").into_response();
        };
        shared.metrics.in_flight(MAX_REQUESTS.saturating_sub(shared.places.available_permits()));
        let answer = tokio::time::timeout(MAX_TIME, answer(&shared, live, head, body)).await;
        drop(place);
        shared.metrics.in_flight(MAX_REQUESTS.saturating_sub(shared.places.available_permits()));
        match answer {
            Ok(answer) => answer.into_response(),
            Err(_) => (StatusCode::SERVICE_UNAVAILABLE, [(http::header::RETRY_AFTER, "5")], "").into_response(),
        }
    });
    match task.await {
        Ok(response) => response,
        Err(bug) => {
            metrics.panicked();
            error!(error = %bug, "request ended in a panic");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn is_from_edge(live: &Live, headers: &HeaderMap) -> bool {
    let mut tokens = headers.get_all(EDGE_TOKEN_HEADER).iter();
    let first = tokens.next().is_some_and(|token| is_edge_token(&live.config.keyring, token.as_bytes()));
    first && tokens.next().is_none()
}

async fn answer(shared: &Shared, live: Arc<Live>, head: Parts, body: Body) -> Answer {
    // The one look at the clock that a request gets.
    let Some(visit) = Visit::read(live, head, SystemTime::now().into()) else {
        return Answer::page(StatusCode::BAD_REQUEST, String::new());
    };
    let endpoint = Endpoint::of(&visit);
    // Counted before a byte of the body is waited for: who sends slowly holds a place all the while.
    let answer = if endpoint.is_limited() && shared.limit.take(visit.client, Instant::now()).is_err() {
        shared.metrics.limited();
        let on_the_way = if endpoint == Endpoint::TicketCallback { sign_in::over_budget(&visit) } else { None };
        on_the_way.unwrap_or_else(|| refusal(&visit, StatusCode::TOO_MANY_REQUESTS).retry_after(Duration::from_secs(1)))
    } else {
        match endpoint.read(body).await {
            Ok(body) => endpoint.answer(shared, &visit, &body).await,
            Err(status) => refusal(&visit, status),
        }
    };
    shared.metrics.answered(endpoint.name(), answer.status());
    answer
}

/// A page of authn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    SignIn,
    IdpCallback,
    TicketCallback,
    SignOut,
    SignedOut,
    Home,
    ToHome,
    Nothing,
    /// Something is there for these methods.
    WrongMethod(&'static str),
}

impl Endpoint {
    /// Every path of authn. What is not here is not there.
    fn of(visit: &Visit) -> Self {
        let here = if visit.is_authn() {
            Self::on_authn(visit.url.path())
        } else if visit.live.config.hosts.serves(&visit.url) {
            Self::on_a_route(visit.url.path())
        } else {
            Self::Nothing
        };
        let methods = here.methods();
        let is_allowed = methods.is_empty() || methods.split(", ").any(|method| visit.method == method);
        if is_allowed { here } else { Self::WrongMethod(methods) }
    }

    /// What may be done with it, as `Allow` lists it (RFC 9110 §10.2.1); empty where there is nothing.
    const fn methods(self) -> &'static str {
        match self {
            Self::IdpCallback | Self::SignOut => "GET, POST",
            Self::SignIn | Self::TicketCallback => "GET",
            Self::SignedOut | Self::Home | Self::ToHome => "GET, HEAD",
            Self::Nothing | Self::WrongMethod(_) => "",
        }
    }

    fn on_authn(path: &str) -> Self {
        match path {
            "/oauth2/callback" => Self::IdpCallback,
            "/.pomerium/sign_in" => Self::SignIn,
            "/.pomerium/signed_out" => Self::SignedOut,
            "/" => Self::ToHome,
            other => Self::on_a_route(other),
        }
    }

    fn on_a_route(path: &str) -> Self {
        match path {
            "/.pomerium/callback/" | "/.pomerium/callback" => Self::TicketCallback,
            "/.pomerium/sign_out" => Self::SignOut,
            "/.pomerium/signed_out" => Self::SignedOut,
            "/.pomerium/" => Self::Home,
            "/.pomerium" => Self::ToHome,
            _ => Self::Nothing,
        }
    }

    /// The form, where there can be one; elsewhere nothing is waited for.
    async fn read(self, body: Body) -> Result<Bytes, StatusCode> {
        if !matches!(self, Self::IdpCallback | Self::SignOut) {
            return Ok(Bytes::new());
        }
        match tokio::time::timeout(MAX_BODY_TIME, to_bytes(body, MAX_BODY)).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(_)) => Err(StatusCode::PAYLOAD_TOO_LARGE),
            Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
        }
    }

    const fn is_limited(self) -> bool {
        matches!(self, Self::SignIn | Self::IdpCallback | Self::TicketCallback | Self::SignOut)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::SignIn => "sign_in",
            Self::IdpCallback => "idp_callback",
            Self::TicketCallback => "ticket_callback",
            Self::SignOut => "sign_out",
            Self::SignedOut => "signed_out",
            Self::Home | Self::ToHome => "home",
            Self::Nothing | Self::WrongMethod(_) => "none",
        }
    }

    async fn answer(self, shared: &Shared, visit: &Visit, body: &Bytes) -> Answer {
        match self {
            Self::SignIn => sign_in::begin(shared, visit).await,
            Self::IdpCallback => sign_in::callback(shared, visit, body).await,
            Self::TicketCallback => sign_in::redeem(shared, visit).await,
            Self::SignOut => sign_out::sign_out(shared, visit, body).await,
            Self::SignedOut => sign_out::signed_out(visit),
            Self::Home => user::home(shared, visit).await,
            Self::ToHome => Answer::redirect_to_path("/.pomerium/"),
            Self::Nothing => refusal(visit, StatusCode::NOT_FOUND),
            Self::WrongMethod(methods) => refusal(visit, StatusCode::METHOD_NOT_ALLOWED).allow(methods),
        }
    }
}

/// The page of a refusal that needs no explanation.
pub(crate) fn refusal(visit: &Visit, status: StatusCode) -> Answer {
    let (reason, sentence) = match status {
        StatusCode::NOT_FOUND => ("not-found", "There is no such page."),
        StatusCode::METHOD_NOT_ALLOWED => ("method-not-allowed", "This page cannot be used in that way."),
        StatusCode::REQUEST_TIMEOUT => ("body-too-slow", "The form took too long to arrive."),
        StatusCode::PAYLOAD_TOO_LARGE => ("body-too-large", "The form is too large."),
        StatusCode::TOO_MANY_REQUESTS => {
            ("rate-limited", "There were too many tries from your network. Wait a moment.")
        }
        StatusCode::FORBIDDEN => ("not-for-scripts", "This page is shown to people only."),
        _ => ("refused", "The request was refused."),
    };
    let page = ErrorPage {
        status: status.as_u16(),
        sentence,
        reference: visit.reference(reason),
        who: None,
        unmet: &[],
        contact: None,
        links: Links::default(),
    };
    Answer::page(status, page.html())
}
