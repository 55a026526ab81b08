//! Every metric of the store. What the request path counts is looked up once, here, and is one atomic addition there.

use std::sync::Arc;
use std::time::Instant;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::backend::Write;
use crate::contact::Contact;

/// What a backend was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Load,
    Tokens,
    List,
    Page,
    Due,
    Create,
    Commit,
    Revoke,
    Mark,
    RevokeUser,
    Spend,
    Touch,
    Postpone,
    Sweep,
    Left,
    Leave,
    Claim,
}

const OPERATIONS: [(Operation, &str); 17] = [
    (Operation::Load, "load"),
    (Operation::Tokens, "tokens"),
    (Operation::List, "list"),
    (Operation::Page, "page"),
    (Operation::Due, "due"),
    (Operation::Create, "create"),
    (Operation::Commit, "commit"),
    (Operation::Revoke, "revoke"),
    (Operation::Mark, "mark"),
    (Operation::RevokeUser, "revoke_user"),
    (Operation::Spend, "spend"),
    (Operation::Touch, "touch"),
    (Operation::Postpone, "postpone"),
    (Operation::Sweep, "sweep"),
    (Operation::Left, "left"),
    (Operation::Leave, "leave"),
    (Operation::Claim, "claim"),
];

impl Operation {
    pub(crate) const fn of(write: &Write) -> Self {
        match write {
            Write::Create { .. } => Self::Create,
            Write::Commit { .. } => Self::Commit,
            Write::Revoke { .. } => Self::Revoke,
            Write::Mark { .. } => Self::Mark,
            Write::RevokeOwner { .. } => Self::RevokeUser,
            Write::Spend { .. } => Self::Spend,
            Write::Touch { .. } => Self::Touch,
            Write::Postpone { .. } => Self::Postpone,
            Write::Sweep { .. } => Self::Sweep,
        }
    }
}

/// The counters of one store.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) hits: IntCounter,
    pub(crate) unknown: IntCounter,
    pub(crate) revoked: IntCounter,
    pub(crate) misses: IntCounter,
    pub(crate) statics: IntCounter,
    pub(crate) cut_off: IntCounter,
    pub(crate) entries: IntGauge,
    pub(crate) resets: IntCounter,
    pub(crate) replica_heard: IntGauge,
    pub(crate) touches_dropped: IntCounter,
    pub(crate) records_refused: IntCounter,
    pub(crate) contact_lost: IntGauge,
    pub(crate) facts_heard: IntCounter,
    pub(crate) heartbeats: IntCounter,
    pub(crate) repairs: IntCounter,
    pub(crate) repairs_dropped: IntCounter,
    pub(crate) repairs_waiting: IntGauge,
    pub(crate) static_sessions: IntCounter,
    pub(crate) capacity: IntGauge,
    pub(crate) loads_refused: IntCounter,
    pub(crate) topology_changes: IntCounter,
    /// Too few replicas had it.
    pub(crate) unconfirmed: IntCounter,
    /// The server does not say.
    pub(crate) wait_refused: IntCounter,
    pub(crate) common: Lane,
    pub(crate) durable: Lane,
    operations: Vec<(Histogram, IntCounter)>,
}

/// Commands to servers that have places of their own.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) in_flight: IntGauge,
    pub(crate) refused: IntCounter,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry, backend: &str) -> Result<Self, prometheus::Error> {
        let lookups = IntCounterVec::new(
            Opts::new("postern_storage_cache_lookups_total", "Look-ups in the session cache, by what they found."),
            &["outcome"],
        )?;
        let durations = HistogramVec::new(
            HistogramOpts::new("postern_storage_operation_duration_seconds", "How long the store took to answer.")
                .buckets(BUCKETS.to_vec()),
            &["backend", "operation"],
        )?;
        let failures = IntCounterVec::new(
            Opts::new("postern_storage_operation_failures_total", "Questions that the store did not answer."),
            &["backend", "operation"],
        )?;
        registry.register(Box::new(lookups.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        registry.register(Box::new(failures.clone()))?;
        let in_flight = IntGaugeVec::new(
            Opts::new("postern_storage_commands_in_flight", "Commands to servers of the store that are under way."),
            &["lane"],
        )?;
        let refused = IntCounterVec::new(
            Opts::new(
                "postern_storage_commands_refused_total",
                "Commands that found no place: too many were under way.",
            ),
            &["lane"],
        )?;
        let unconfirmed = IntCounterVec::new(
            Opts::new(
                "postern_storage_unconfirmed_total",
                "Times that replicas did not confirm what must not be lost.",
            ),
            &["reason"],
        )?;
        registry.register(Box::new(in_flight.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        registry.register(Box::new(unconfirmed.clone()))?;
        let lane = |name: &str| Lane {
            in_flight: in_flight.with_label_values(&[name]),
            refused: refused.with_label_values(&[name]),
        };
        let counter = |name: &str, help: &str| registered(registry, IntCounter::new(name, help)?);
        let gauge = |name: &str, help: &str| registered(registry, IntGauge::new(name, help)?);
        Ok(Self {
            hits: lookups.with_label_values(&["hit"]),
            unknown: lookups.with_label_values(&["unknown"]),
            revoked: lookups.with_label_values(&["revoked"]),
            misses: lookups.with_label_values(&["miss"]),
            statics: lookups.with_label_values(&["static"]),
            cut_off: lookups.with_label_values(&["unavailable"]),
            entries: registered(
                registry,
                IntGauge::new("postern_storage_cache_entries", "Sessions in the cache, at its last sweep.")?,
            )?,
            replica_heard: registered(
                registry,
                IntGauge::new(
                    "postern_storage_changelog_replica_heard",
                    "Whether a replica of the changelog's server is heard.",
                )?,
            )?,
            resets: registered(
                registry,
                IntCounter::new("postern_storage_cache_resets_total", "Times that the whole cache was dropped.")?,
            )?,
            touches_dropped: registered(
                registry,
                IntCounter::new(
                    "postern_storage_touches_dropped_total",
                    "Last-seen times that were not written because too many waited.",
                )?,
            )?,
            records_refused: registered(
                registry,
                IntCounter::new(
                    "postern_storage_records_refused_total",
                    "Records that did not open under their own key: damaged, moved or forged.",
                )?,
            )?,
            contact_lost: registered(
                registry,
                IntGauge::new(
                    "postern_storage_contact_lost_seconds",
                    "For how long the lease on revocations by others has been over; 0 while it holds.",
                )?,
            )?,
            facts_heard: counter("postern_storage_changelog_facts_total", "Revocations and refreshes heard of.")?,
            heartbeats: counter("postern_storage_heartbeats_total", "Heartbeats that this process wrote.")?,
            repairs: counter(
                "postern_storage_repairs_total",
                "Revocations that had to be repeated in a record, after a crash or a failover.",
            )?,
            repairs_dropped: counter(
                "postern_storage_repairs_dropped_total",
                "Revocations whose records could not be looked at again.",
            )?,
            repairs_waiting: gauge(
                "postern_storage_repairs_waiting",
                "Revocations whose records are still to be looked at.",
            )?,
            static_sessions: counter(
                "postern_storage_static_sessions_total",
                "Sessions that were served from a copy while nothing was heard, each once in an outage.",
            )?,
            capacity: gauge("postern_storage_cache_capacity", "Sessions that the cache keeps at most.")?,
            loads_refused: counter(
                "postern_storage_loads_refused_total",
                "Requests that could not wait for a session because too many did.",
            )?,
            topology_changes: counter(
                "postern_storage_topology_changes_total",
                "Times that other servers, or other parts of the store for them, were found.",
            )?,
            unconfirmed: unconfirmed.with_label_values(&["replicas"]),
            wait_refused: unconfirmed.with_label_values(&["refused"]),
            common: lane("common"),
            durable: lane("durable"),
            operations: OPERATIONS
                .iter()
                .map(|(_, name)| {
                    let labels = [backend, *name];
                    (durations.with_label_values(&labels), failures.with_label_values(&labels))
                })
                .collect(),
        })
    }

    pub(crate) fn operation(&self, operation: Operation) -> Timer<'_> {
        Timer { started: Instant::now(), series: self.operations.get(operation as usize) }
    }
}

/// What is known of the changelog, told when it is asked for.
pub(crate) fn watch(registry: &Registry, contact: &Arc<Contact>) -> Result<(), prometheus::Error> {
    let (heard, left) = (Arc::clone(contact), Arc::clone(contact));
    registry.register(Box::new(Live {
        gauge: Gauge::new("postern_storage_changelog_lag_seconds", "How long ago everything written had been heard.")?,
        read: Box::new(move || heard.heard_ago().as_secs_f64()),
    }))?;
    registry.register(Box::new(Live {
        gauge: Gauge::new(
            "postern_storage_lease_left_seconds",
            "For how long the lease still holds; 0 once it is over.",
        )?,
        read: Box::new(move || left.lease_left().as_secs_f64()),
    }))
}

/// A gauge that is read when it is asked for.
struct Live {
    gauge: Gauge,
    read: Box<dyn Fn() -> f64 + Send + Sync>,
}

impl Collector for Live {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gauge.set((self.read)());
        self.gauge.collect()
    }
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// One operation under way.
#[derive(Debug)]
pub(crate) struct Timer<'m> {
    started: Instant,
    series: Option<&'m (Histogram, IntCounter)>,
}

impl Timer<'_> {
    pub(crate) fn observe(self, answered: bool) {
        let Some((duration, failures)) = self.series else { return };
        duration.observe(self.started.elapsed().as_secs_f64());
        if !answered {
            failures.inc();
        }
    }
}

/// From a look into memory to the deadline.
const BUCKETS: [f64; 10] = [0.000_01, 0.000_05, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.25, 0.5];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_finds_its_own_series() {
        for (index, (operation, _)) in OPERATIONS.iter().enumerate() {
            assert_eq!(*operation as usize, index);
        }
    }
}
