//! Metrics and health on addresses of their own, never on the public listener (S-113).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use postern_storage::Storage;
use prometheus::{Registry, TextEncoder};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A probe that takes longer than this has failed.
const PROBE: Duration = Duration::from_millis(80);

/// What this process can do at the moment. Never asks the identity provider.
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

    /// No new work, please: readiness goes false, liveness stays.
    pub(crate) fn set_draining(&self) {
        self.0.draining.store(true, Ordering::Release);
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

/// `/metrics` in Prometheus text form.
pub(crate) fn metrics_routes(registry: Registry) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(registry)
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

/// Serves `routes` until `shutdown`.
///
/// # Errors
/// If the listener breaks.
pub(crate) async fn serve(listener: TcpListener, routes: Router, shutdown: CancellationToken) -> std::io::Result<()> {
    axum::serve(listener, routes).with_graceful_shutdown(shutdown.cancelled_owned()).await
}
