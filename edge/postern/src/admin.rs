//! Metrics, health and reload on addresses of their own, never on the public listener (S-113).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::{Listener, ListenerExt as _};
use postern_storage::Storage;
use prometheus::{Registry, TextEncoder};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::config::BasicAuth;
use crate::reload::Asker;

/// A probe that takes longer than this has failed (R-031).
const PROBE: Duration = Duration::from_millis(80);

/// What this process can do at the moment. Never asks the identity provider (R-031).
#[derive(Clone, Debug)]
pub(crate) struct Health(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    storage: Storage,
    serving: AtomicBool,
    draining: AtomicBool,
}

impl Health {
    /// Nothing serves yet.
    #[must_use]
    pub(crate) fn new(storage: Storage) -> Self {
        Self(Arc::new(Inner { storage, serving: AtomicBool::new(false), draining: AtomicBool::new(false) }))
    }

    /// The listeners are up.
    pub(crate) fn set_serving(&self) {
        self.0.serving.store(true, Ordering::Release);
    }

    /// No new work, please: readiness goes false, liveness stays (R-017).
    pub(crate) fn set_draining(&self) {
        self.0.draining.store(true, Ordering::Release);
    }

    /// Waits until the store answers.
    pub(crate) async fn storage_is_there(&self) {
        while !self.storage_answers().await {
            tokio::time::sleep(PROBE).await;
        }
    }

    async fn storage_answers(&self) -> bool {
        matches!(tokio::time::timeout(PROBE, self.0.storage.health()).await, Ok(Ok(())))
    }

    async fn checks(&self) -> Checks {
        Checks {
            serving: self.0.serving.load(Ordering::Acquire),
            draining: self.0.draining.load(Ordering::Acquire),
            storage: self.storage_answers().await,
        }
    }
}

struct Checks {
    serving: bool,
    draining: bool,
    storage: bool,
}

impl Checks {
    const fn ready(&self) -> bool {
        self.serving && !self.draining && self.storage
    }

    fn as_json(&self) -> serde_json::Value {
        let status = |good: bool| if good { "running" } else { "not-running" };
        let serving = if self.draining { "terminating" } else { status(self.serving) };
        json!({
            "status": if self.ready() { "ready" } else { "not-ready" },
            "checks": { "proxy.service": serving, "authenticate.service": serving, "storage.backend": status(self.storage) },
        })
    }
}

/// `/status`, `/startupz`, `/readyz`, `/healthz` and `/livez` (02 §7.5).
pub(crate) fn health_routes(health: Health) -> Router {
    Router::new()
        .route("/healthz", get(async || "OK"))
        .route("/livez", get(async || "OK"))
        .route("/startupz", get(async |State(health): State<Health>| verdict(health.checks().await.serving)))
        .route("/readyz", get(async |State(health): State<Health>| verdict(health.checks().await.ready())))
        .route("/status", get(async |State(health): State<Health>| axum::Json(health.checks().await.as_json())))
        .with_state(health)
}

fn verdict(good: bool) -> Response {
    if good { "OK".into_response() } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response() }
}

/// `/metrics` in Prometheus text form, for whoever shows the right user and password, if some are wanted.
pub(crate) fn metrics_routes(registry: Registry, auth: Option<BasicAuth>) -> Router {
    let routes = Router::new().route("/metrics", get(metrics)).with_state(registry);
    match auth {
        Some(auth) => routes.layer(middleware::from_fn_with_state(Arc::new(auth), authorized)),
        None => routes,
    }
}

async fn authorized(State(auth): State<Arc<BasicAuth>>, request: Request, next: Next) -> Response {
    if auth.admits(request.headers().get(header::AUTHORIZATION)) {
        return next.run(request).await;
    }
    let challenge = [(header::WWW_AUTHENTICATE, r#"Basic realm="metrics", charset="UTF-8""#)];
    (StatusCode::UNAUTHORIZED, challenge, "a user and a password are wanted\n").into_response()
}

async fn metrics(State(registry): State<Registry>) -> Response {
    match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// `/reload`: loads the configuration again and tells what became of it. It is for programs on this machine alone (S-113): the
/// address may be open to probes from elsewhere.
pub(crate) fn reload_routes(askers: mpsc::Sender<Asker>) -> Router {
    Router::new().route("/reload", post(reload)).with_state(askers)
}

async fn reload(
    State(askers): State<mpsc::Sender<Asker>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    if !is_local_program(peer, &headers, &ASKS) {
        let why = "only a program on the same machine may ask for a reload: `postern reload`\n";
        return (StatusCode::FORBIDDEN, why).into_response();
    }
    let (asker, verdict) = oneshot::channel();
    if askers.try_send(asker).is_err() {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many wait for a reload, or Postern ends\n").into_response();
    }
    let Ok(verdict) = verdict.await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "Postern ends, or could not load\n").into_response();
    };
    let status = if verdict.is_good() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    if headers.get(header::ACCEPT).is_some_and(|accept| accept == "application/json") {
        return (status, axum::Json(verdict.to_json())).into_response();
    }
    (status, verdict.to_human()).into_response()
}

/// What `postern reload` says with every question. No page of a browser can, unless we let it.
pub(crate) const ASKS: HeaderName = HeaderName::from_static("x-postern-reload");

/// Browsers name an origin with every POST and send no field of ours, a name that leads to the loopback by trickery stands in
/// `Host`, and proxies say for whom they ask; what is left on the loopback, with the field `ours`, is a program.
pub(crate) fn is_local_program(peer: SocketAddr, headers: &HeaderMap, ours: &HeaderName) -> bool {
    let for_others =
        [header::ORIGIN, header::FORWARDED, header::VIA].into_iter().any(|name| headers.contains_key(name))
            || headers
                .keys()
                .any(|name| name.as_str().starts_with("x-forwarded-") || name.as_str().starts_with("sec-fetch-"));
    peer.ip().to_canonical().is_loopback() && headers.contains_key(ours) && is_local_host(headers) && !for_others
}

/// Whether the one `Host` is an address or `localhost`: nobody else's name.
fn is_local_host(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).into_iter();
    let (Some(host), None) = (hosts.next().and_then(|host| host.to_str().ok()), hosts.next()) else { return false };
    let name = if host.ends_with(']') { host } else { host.rsplit_once(':').map_or(host, |(name, _)| name) };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

/// When an admin address is served no more.
#[derive(Clone, Debug)]
pub(crate) struct Until {
    /// This process ends.
    pub(crate) end: CancellationToken,
    /// Another process has the address: nothing is accepted any more, and connections have a moment for what is on its way.
    pub(crate) left: CancellationToken,
}

/// So long connections last once another process has the address.
const LEAVING: Duration = Duration::from_secs(1);

/// Serves `routes` for as long as that.
///
/// # Errors
/// If the listener breaks.
pub(crate) async fn serve(listener: TcpListener, routes: Router, until: Until) -> std::io::Result<()> {
    let (listener, left) = (Leaving { listener, left: until.left.clone() }, until.left.clone());
    let routes = routes.layer(middleware::map_response(move |mut response: Response| {
        if left.is_cancelled() {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        std::future::ready(response)
    }));
    let over = async move {
        tokio::select! {
            () = until.end.cancelled() => {}
            () = async { until.left.cancelled().await; tokio::time::sleep(LEAVING).await } => {}
        }
    };
    let routes = routes.into_make_service_with_connect_info::<SocketAddr>();
    // Nothing is done to a connection; but so its peer is told of.
    axum::serve(listener.tap_io(|_| {}), routes).with_graceful_shutdown(over).await
}

/// A listener that accepts nothing any more once another process has its address.
struct Leaving {
    listener: TcpListener,
    left: CancellationToken,
}

impl Listener for Leaving {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        tokio::select! {
            biased;
            () = self.left.cancelled() => std::future::pending().await,
            accepted = Listener::accept(&mut self.listener) => accepted,
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s_113_only_a_program_on_this_machine_may_ask_for_a_reload() {
        let asks = |peer: &str, host: &'static str, name: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert("x-postern-reload", "1".parse().unwrap());
            headers.insert(header::HOST, host.parse().unwrap());
            headers.extend(name.map(|name| (name.parse::<HeaderName>().unwrap(), "x".parse().unwrap())));
            (peer.parse().unwrap(), headers)
        };
        let may = |(peer, headers): (SocketAddr, HeaderMap)| is_local_program(peer, &headers, &ASKS);
        for peer in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            for host in ["127.0.0.1:28080", "localhost", "LOCALHOST:1", "[::1]:28080", "[::1]", "10.0.0.1:1"] {
                assert!(may(asks(peer, host, None)), "{peer} {host}");
            }
            assert!(may(asks(peer, "localhost", Some("accept"))), "{peer}");
            for name in ["origin", "forwarded", "via", "x-forwarded-for", "x-forwarded-host", "sec-fetch-site"] {
                assert!(!may(asks(peer, "localhost", Some(name))), "{peer} {name}");
            }
            for host in
                ["evil.example.com", "evil.example.com:28080", "localhost.evil.example", "", ":1", "127.0.0.1.nip.io"]
            {
                assert!(!may(asks(peer, host, None)), "{peer} {host}");
            }
            let (peer, mut headers) = asks(peer, "localhost", None);
            headers.append(header::HOST, "localhost".parse().unwrap());
            assert!(!is_local_program(peer, &headers, &ASKS), "two hosts");
            headers.remove(header::HOST);
            assert!(!is_local_program(peer, &headers, &ASKS), "no host");
            headers.insert(header::HOST, "localhost".parse().unwrap());
            headers.remove("x-postern-reload");
            assert!(!is_local_program(peer, &headers, &ASKS), "no field of ours");
        }
        for peer in ["10.0.0.1:1", "[2001:db8::1]:1", "[::ffff:10.0.0.1]:1", "0.0.0.0:1"] {
            assert!(!may(asks(peer, "localhost", None)), "{peer}");
        }
    }
}
