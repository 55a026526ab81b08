//! Every metric of the edge, declared once. Labels come from closed sets or from the configuration, never from the wire.

use std::sync::Arc;

use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// The edge's metrics; cheap to clone. Recording one never blocks.
#[derive(Debug, Clone)]
pub struct Metrics(pub(crate) Arc<Families>);

#[derive(Debug)]
pub(crate) struct Families {
    pub(crate) requests: IntCounterVec,
    pub(crate) duration: HistogramVec,
    pub(crate) decisions: IntCounterVec,
    pub(crate) refusals: IntCounterVec,
    pub(crate) dry_run_refusals: IntCounterVec,
    pub(crate) in_flight: IntGauge,
    pub(crate) connections: IntGauge,
    pub(crate) handshakes: IntGauge,
    pub(crate) connections_total: IntCounterVec,
    pub(crate) accept_errors: IntCounter,
    pub(crate) panics: IntCounter,
    pub(crate) tunnels: IntGauge,
    pub(crate) tunnel_bytes: IntCounterVec,
    pub(crate) datagrams_lost: IntCounterVec,
    pub(crate) upstream_connections: IntCounterVec,
    pub(crate) upstream_lookups: IntCounterVec,
    pub(crate) upstream_retries: IntCounterVec,
    pub(crate) upstream_overflows: IntCounterVec,
    pub(crate) upstream_ejections: IntCounterVec,
    pub(crate) upstream_endpoints: GaugeVec,
    pub(crate) upstream_health_checks: IntCounterVec,
    pub(crate) certificate_expiry: GaugeVec,
    pub(crate) revocations_due: GaugeVec,
    pub(crate) certificate_reloads: IntCounterVec,
    pub(crate) limit: GaugeVec,
}

impl Metrics {
    /// Declares every metric in `registry`.
    ///
    /// # Errors
    /// A name is already taken there.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let new = Registrar(registry);
        Ok(Self(Arc::new(Families {
            requests: new.counters("requests_total", "Requests that were answered.", &["route", "method", "status"])?,
            duration: new.histograms("request_duration_seconds", "Head received to response sent.", &["route"])?,
            decisions: new.counters(
                "decisions_total",
                "Outcomes of policies, with one line for each reason.",
                &["route", "decision", "reason"],
            )?,
            refusals: new.counters("refusals_total", "Requests that were not carried.", &["reason"])?,
            dry_run_refusals: new.counters(
                "dry_run_refusals_total",
                "Requests that passed and that rules with `enforce: false` would have refused.",
                &["route"],
            )?,
            in_flight: new.gauge("requests_in_flight", "Requests that have no complete response yet.")?,
            connections: new.gauge("connections", "Open downstream connections.")?,
            handshakes: new.gauge("handshakes", "TLS handshakes under way.")?,
            connections_total: new.counters(
                "connections_total",
                "Downstream connections, by how they began.",
                &["outcome"],
            )?,
            accept_errors: new.counter("accept_errors_total", "Failed calls of accept.")?,
            panics: new.counter("panics_total", "Requests that ended in a panic, each with its own request only.")?,
            tunnels: new.gauge("tunnels", "Open tunnels of TCP and UDP routes, and WebSockets over HTTP/2.")?,
            tunnel_bytes: new.counters(
                "tunnel_bytes_total",
                "Bytes that tunnels carried, counted at their end.",
                &["route", "direction"],
            )?,
            datagrams_lost: new.counters(
                "datagrams_lost_total",
                "Datagrams of UDP routes that could not be sent, or of which it was said that nobody is there.",
                &["route", "cause"],
            )?,
            upstream_connections: new.counters(
                "upstream_connections_total",
                "Connections used upstream.",
                &["outcome"],
            )?,
            upstream_lookups: new.counters("upstream_lookups_total", "Name look-ups of upstreams.", &["outcome"])?,
            upstream_retries: new.counters("upstream_retries_total", "Second attempts at an upstream.", &["outcome"])?,
            upstream_overflows: new.counters(
                "upstream_overflows_total",
                "Requests that were refused because their upstream has too much to do.",
                &["route", "limit"],
            )?,
            upstream_ejections: new.counters(
                "upstream_ejections_total",
                "Endpoints that were left out for a while because of their answers.",
                &["route", "cause"],
            )?,
            upstream_endpoints: new.gauges(
                "upstream_endpoints",
                "Endpoints of upstreams that are looked after: all, those that fail a health check, those that are left out.",
                &["route", "state"],
            )?,
            upstream_health_checks: new.counters(
                "upstream_health_checks_total",
                "Health checks of endpoints.",
                &["route", "outcome"],
            )?,
            certificate_expiry: new.gauges(
                "certificate_not_after_timestamp_seconds",
                "When each certificate expires, in seconds since the epoch.",
                &["name", "key"],
            )?,
            revocations_due: new.gauges(
                "revocations_due_timestamp_seconds",
                "When the next list of revoked certificates is due, by the name of whose it is, in seconds since the epoch.",
                &["issuer"],
            )?,
            certificate_reloads: new.counters(
                "certificate_reloads_total",
                "Readings of changed certificates.",
                &["outcome"],
            )?,
            limit: new.gauges("limit", "The bounds in force.", &["limit"])?,
        })))
    }
}

struct Registrar<'a>(&'a Registry);

impl Registrar<'_> {
    fn declare<M: prometheus::core::Collector + Clone + 'static>(&self, metric: M) -> Result<M, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.declare(IntCounter::with_opts(options(name, help))?)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.declare(IntCounterVec::new(options(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.declare(IntGauge::with_opts(options(name, help))?)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, prometheus::Error> {
        self.declare(GaugeVec::new(options(name, help), labels)?)
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec, prometheus::Error> {
        let buckets = vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
        let histogram = HistogramOpts::from(options(name, help)).buckets(buckets);
        self.declare(HistogramVec::new(histogram, labels)?)
    }
}

fn options(name: &str, help: &str) -> Opts {
    Opts::new(format!("postern_edge_{name}"), help)
}

/// A gauge that is raised for as long as this lives.
#[derive(Debug)]
pub(crate) struct Raised(IntGauge);

impl Raised {
    pub(crate) fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        self.0.dec();
    }
}
