//! What an operator sees of the process itself, on an address of its own (`debug_address`, S-113): threads, memory, runtimes;
//! and with the flag `debug_admin_endpoints` its configuration, upstreams and store. Nothing can be changed there.

mod host;
mod profile;
mod threads;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Query, State};
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use postern_storage::Storage;
use prometheus::Registry;
use prometheus::proto::{Metric, MetricFamily, MetricType};
use serde_json::{Value, json};
use tokio::runtime::RuntimeMetrics;
use tokio::sync::{Mutex, watch};

use crate::config::Config;
use profile::Span;

/// A store that says nothing for so long does not answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// So many series of one kind are told at most.
const SERIES: usize = 1_000;

/// What is shown of the configuration in force.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    /// How many reloads it took.
    pub(crate) version: u64,
    /// All keys, with the values that hold; none unless the flag says so.
    pub(crate) dump: Option<Arc<str>>,
    /// Keys whose values stand there, and wait for a new process.
    pub(crate) waiting: Vec<&'static str>,
}

impl Shown {
    /// What is shown of this one.
    pub(crate) fn of(config: &Config, version: u64, waiting: Vec<&'static str>) -> Self {
        Self { version, dump: config.dump.clone(), waiting }
    }
}

/// Whatever can be asked.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    /// Where the listener is.
    pub(crate) address: SocketAddr,
    /// What holds now.
    pub(crate) shown: watch::Receiver<Shown>,
    /// The runtimes by the names of their threads.
    pub(crate) runtimes: Vec<(String, RuntimeMetrics)>,
    /// The store.
    pub(crate) storage: Storage,
    /// All figures.
    pub(crate) registry: Registry,
}

#[derive(Debug)]
struct Debug {
    process: Process,
    /// Held while a profile is taken.
    taking: Mutex<()>,
}

type Asked = State<Arc<Debug>>;

/// Everything that answers on the debug listener.
pub(crate) fn routes(process: Process) -> Router {
    let address = process.address;
    let admin = Router::new()
        .route("/", get(async || INDEX))
        .route("/config_dump", get(config_dump))
        .route("/version", get(async || Json(json!({ "postern": { "version": env!("CARGO_PKG_VERSION") } }))))
        .route("/state", get(state));
    let debug = Arc::new(Debug { process, taking: Mutex::new(()) });
    let admin = admin.layer(middleware::from_fn_with_state(Arc::clone(&debug), switched_on));
    Router::new()
        .route("/debug/pprof/", get(async || PROFILES))
        .route("/debug/pprof/profile", get(profile))
        .route("/debug/memory", get(async || told(threads::memory)))
        .route("/debug/runtime", get(runtime))
        .merge(admin)
        .with_state(debug)
        .layer(middleware::from_fn_with_state(address, host::meant))
        .layer(middleware::map_response(async |mut response: Response| {
            let fields = response.headers_mut();
            fields.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
            fields.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
            response
        }))
}

const PROFILES: &str = "/debug/pprof/profile?seconds=30   the processor time of each thread from now on, for `go tool pprof`\n\
                        /debug/memory                     memory and descriptors of the process\n\
                        /debug/runtime                    its threads, and the tasks of its runtimes\n";

const INDEX: &str = "/config_dump    all keys with the values that hold, without secrets\n\
                     /version        what runs\n\
                     /state          upstreams and the store\n\
                     /debug/pprof/   what is known of the process itself\n";

/// Lets nobody see more than figures unless the flag says so, and then only who is on this machine: nothing else proves here that
/// somebody is an administrator (S-113).
async fn switched_on(
    State(debug): Asked,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: axum::extract::Request,
    next: middleware::Next,
) -> Response {
    if !host::is_local(peer) {
        return (StatusCode::FORBIDDEN, "ask from the machine itself, by a loopback address\n").into_response();
    }
    if debug.process.shown.borrow().dump.is_some() {
        return next.run(request).await;
    }
    (StatusCode::NOT_FOUND, "write `runtime_flags: {debug_admin_endpoints: true}` to see this\n").into_response()
}

async fn config_dump(State(debug): Asked) -> Response {
    let Shown { version, dump, waiting } = debug.process.shown.borrow().clone();
    let fields = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::HeaderName::from_static("x-postern-version"), version.to_string()),
        (header::HeaderName::from_static("x-postern-waiting"), waiting.join(", ")),
    ];
    (fields, dump.map_or_else(String::new, |dump| dump.to_string())).into_response()
}

async fn state(State(debug): Asked) -> Json<Value> {
    let Process { storage, registry, shown, .. } = &debug.process;
    let health = match tokio::time::timeout(PATIENCE, storage.health()).await {
        Ok(Ok(())) => json!({ "answers": true }),
        Ok(Err(error)) => json!({ "answers": false, "why": error.to_string() }),
        Err(_) => json!({ "answers": false, "why": "it says nothing" }),
    };
    let families = registry.gather();
    Json(json!({
        "configuration": shown.borrow().version,
        "store": health,
        "figures": { "upstreams": figures(&families, "edge_upstream_"), "store": figures(&families, "storage_") },
    }))
}

/// The counters and gauges of ours whose names begin so: for each name its series.
fn figures(families: &[MetricFamily], begin: &str) -> BTreeMap<String, Value> {
    let ours =
        |family: &&MetricFamily| family.name().strip_prefix("postern_").is_some_and(|name| name.starts_with(begin));
    let chosen = families.iter().filter(ours);
    let told = chosen.filter_map(|family| {
        let series = family.get_metric();
        let value: fn(&Metric) -> f64 = match family.get_field_type() {
            MetricType::COUNTER => |metric| metric.get_counter().get_value(),
            MetricType::GAUGE => |metric| metric.get_gauge().get_value(),
            MetricType::SUMMARY | MetricType::UNTYPED | MetricType::HISTOGRAM => return None,
        };
        let one = |metric: &Metric| {
            let labels = metric.get_label().iter().map(|label| (label.name().to_owned(), json!(label.value())));
            let mut told: serde_json::Map<_, _> = labels.collect();
            told.insert("value".to_owned(), json!(value(metric)));
            Value::Object(told)
        };
        let told: Vec<_> = series.iter().take(SERIES).map(one).collect();
        let left = series.len().saturating_sub(SERIES);
        (!told.is_empty()).then(|| (family.name().to_owned(), json!({ "series": told, "left_out": left })))
    });
    told.collect()
}

async fn runtime(State(debug): Asked) -> Response {
    let runtimes: Vec<_> = debug.process.runtimes.iter().map(|(name, runtime)| of_runtime(name, runtime)).collect();
    told(|| {
        Ok(
            json!({ "runtimes": runtimes, "threads": threads::all()?.iter().map(threads::Thread::as_json).collect::<Vec<_>>() }),
        )
    })
}

fn of_runtime(name: &str, runtime: &RuntimeMetrics) -> Value {
    let workers = 0..runtime.num_workers();
    let busy: Duration = workers.clone().map(|worker| runtime.worker_total_busy_duration(worker)).sum();
    let parked: u64 = workers.map(|worker| runtime.worker_park_count(worker)).sum();
    json!({
        "name": name,
        "workers": runtime.num_workers(),
        "tasks": runtime.num_alive_tasks(),
        "queued": runtime.global_queue_depth(),
        "busy_seconds": busy.as_secs_f64(),
        "parked": parked,
    })
}

/// What the system says of this process; elsewhere than on Linux it says nothing.
fn told(read: impl FnOnce() -> std::io::Result<Value>) -> Response {
    match read() {
        Ok(value) => Json(value).into_response(),
        Err(error) => (StatusCode::NOT_IMPLEMENTED, format!("the system does not tell: {error}\n")).into_response(),
    }
}

async fn profile(State(debug): Asked, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let span = match Span::of(query.get("seconds").map(String::as_str)) {
        Ok(span) => span,
        Err(why) => return (StatusCode::BAD_REQUEST, why).into_response(),
    };
    let Ok(_alone) = debug.taking.try_lock() else {
        let why = "a profile is being taken already: ask again once it is over\n";
        return (StatusCode::CONFLICT, why).into_response();
    };
    match profile::take(span).await {
        Ok(profile) => ([(header::CONTENT_TYPE, "application/octet-stream")], profile).into_response(),
        Err(error) => (StatusCode::NOT_IMPLEMENTED, format!("the system does not tell: {error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{IntGaugeVec, Opts};

    use super::*;

    #[test]
    fn of_very_many_series_some_are_told() {
        let registry = Registry::new();
        let gauge = IntGaugeVec::new(Opts::new("postern_edge_upstream_endpoints", "x"), &["route"]).unwrap();
        registry.register(Box::new(gauge.clone())).unwrap();
        for route in 0..SERIES + 7 {
            gauge.with_label_values(&[route.to_string()]).set(3);
        }
        let figures = figures(&registry.gather(), "edge_upstream_");
        let endpoints = &figures["postern_edge_upstream_endpoints"];
        assert_eq!(endpoints["series"].as_array().unwrap().len(), SERIES);
        assert_eq!((&endpoints["left_out"], &endpoints["series"][0]["value"]), (&json!(7), &json!(3.0)));
        assert!(super::figures(&registry.gather(), "storage_").is_empty());
    }
}
