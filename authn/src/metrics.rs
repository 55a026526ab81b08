//! Every metric of authn, declared once. Labels come from the configuration and from closed sets.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// What authn counts.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    sign_ins: IntCounterVec,
    sign_outs: IntCounterVec,
    requests: IntCounterVec,
    idp_requests: HistogramVec,
    rate_limited: IntCounter,
    panics: IntCounter,
    in_flight: IntGauge,
    refreshes: IntCounterVec,
    overdue: IntGauge,
}

impl Metrics {
    /// Declares everything in `registry`.
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone())).map(|()| counter)
        };
        let single = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone())).map(|()| counter)
        };
        let buckets = vec![0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        let idp_requests = HistogramVec::new(
            HistogramOpts::new("postern_authn_idp_request_duration_seconds", "Calls to identity providers.")
                .buckets(buckets),
            &["idp", "operation", "outcome"],
        )?;
        registry.register(Box::new(idp_requests.clone()))?;
        let in_flight = IntGauge::new("postern_authn_requests_in_flight", "Requests that are being answered.")?;
        registry.register(Box::new(in_flight.clone()))?;
        let overdue = IntGauge::new(
            "postern_authn_refreshes_overdue",
            "Sessions that this process could not refresh, and that wait for another try.",
        )?;
        registry.register(Box::new(overdue.clone()))?;
        Ok(Self {
            in_flight,
            overdue,
            refreshes: counter(
                "postern_authn_refreshes_total",
                "Refreshes of sessions by provider and how they ended.",
                &["idp", "outcome"],
            )?,
            sign_ins: counter(
                "postern_authn_sign_ins_total",
                "Sign-ins by provider and how they ended.",
                &["idp", "outcome"],
            )?,
            sign_outs: counter("postern_authn_sign_outs_total", "Sign-outs by how they ended.", &["outcome"])?,
            requests: counter("postern_authn_requests_total", "Answers by page and status.", &["endpoint", "status"])?,
            idp_requests,
            rate_limited: single("postern_authn_rate_limited_total", "Requests refused by the rate limit.")?,
            panics: single("postern_authn_panics_total", "Requests that ended in a panic: a bug.")?,
        })
    }

    /// One sign-in ended.
    pub(crate) fn signed_in(&self, idp: &str, outcome: &str) {
        self.sign_ins.with_label_values(&[idp, outcome]).inc();
    }

    /// One refresh ended.
    pub(crate) fn refreshed(&self, idp: &str, outcome: &str) {
        self.refreshes.with_label_values(&[idp, outcome]).inc();
    }

    /// So many refreshes wait for another try.
    pub(crate) fn overdue(&self, sessions: usize) {
        self.overdue.set(i64::try_from(sessions).unwrap_or(i64::MAX));
    }

    /// One sign-out ended.
    pub(crate) fn signed_out(&self, outcome: &str) {
        self.sign_outs.with_label_values(&[outcome]).inc();
    }

    /// One request was answered.
    pub(crate) fn answered(&self, endpoint: &str, status: http::StatusCode) {
        self.requests.with_label_values(&[endpoint, status.as_str()]).inc();
    }

    /// One call to a provider ended.
    pub(crate) fn called_idp(&self, idp: &str, operation: &str, outcome: &str, took: Duration) {
        self.idp_requests.with_label_values(&[idp, operation, outcome]).observe(took.as_secs_f64());
    }

    /// One request was over its limit.
    pub(crate) fn limited(&self) {
        self.rate_limited.inc();
    }

    /// So many requests are being answered.
    pub(crate) fn in_flight(&self, requests: usize) {
        self.in_flight.set(i64::try_from(requests).unwrap_or(i64::MAX));
    }

    /// One request met a bug.
    pub(crate) fn panicked(&self) {
        self.panics.inc();
    }
}
