//! Asks endpoints how they are: `health_checks` (01 §2.11). Each check of each endpoint is a task of its own, which ends with
//! the configuration or with the endpoint; what it has found out stays with the endpoint.

mod probe;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use self::probe::{Failure, Prober};
use super::member::{Member, Vitals};
use super::tend::Tended;
use super::{outlier, table};
use crate::route::HealthCheck;

/// One check of one endpoint.
pub(super) struct Checking {
    pub(super) tended: Arc<Tended>,
    pub(super) member: Member,
    /// Which of the route's checks.
    pub(super) index: usize,
}

/// What a check has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Nothing.
    Same,
    /// The endpoint is in again.
    In,
    /// It is out.
    Out,
}

impl Checking {
    /// Asks until nobody wants to know any more.
    pub(super) async fn run(self) {
        let Some(check) = self.tended.balancer.balancing.health_checks.get(self.index) else { return };
        let prober = Prober::new(Arc::clone(&self.tended), &self.member, check);
        let Some(mut prober) = prober else { return };
        self.rest(self.first(check)).await;
        loop {
            let asked = timeout(check.timeout.max(SHORTEST), prober.ask()).await;
            let outcome = asked.unwrap_or_else(|_| Err(Failure::of("no answer in time")));
            let turn = self.take(check, &outcome);
            self.tell(check, &outcome, turn);
            self.rest(self.next(check, turn)).await;
        }
    }

    fn vitals<T>(&self, look: impl FnOnce(&mut Vitals) -> T) -> T {
        self.member.state.health.vitals(self.index, look)
    }

    /// When the first time is: after some jitter, or when it was due under the configuration before.
    fn first(&self, check: &HealthCheck) -> Instant {
        let last = self.vitals(|vitals| vitals.last);
        match last {
            Some(last) => last + self.interval(check, Turn::Same),
            None => Instant::now() + jitter(check.initial_jitter),
        }
    }

    fn next(&self, check: &HealthCheck, turn: Turn) -> Instant {
        let interval = self.interval(check, turn);
        let share = interval.mul_f64(f64::from(check.jitter_percent) / 100.0);
        Instant::now() + interval + jitter(check.interval_jitter) + jitter(share)
    }

    /// How long until it is asked again.
    fn interval(&self, check: &HealthCheck, turn: Turn) -> Duration {
        let healthy = !self.member.state.health.fails(self.bit());
        let unhealthy = check.unhealthy_interval.unwrap_or(check.interval);
        let interval = match turn {
            _ if !self.tended.balancer.is_used() => {
                let usual = check.no_traffic_interval;
                if healthy { check.no_traffic_healthy_interval.unwrap_or(usual) } else { usual }
            }
            Turn::In => check.healthy_edge_interval.unwrap_or(check.interval),
            Turn::Out => check.unhealthy_edge_interval.unwrap_or(unhealthy),
            Turn::Same if healthy => check.interval,
            Turn::Same => unhealthy,
        };
        interval.max(SHORTEST)
    }

    /// Rests until then, or until the first request comes.
    async fn rest(&self, until: Instant) {
        let balancer = &self.tended.balancer;
        let idle = !balancer.is_used() && self.vitals(|vitals| vitals.last.is_some());
        if !idle {
            return sleep_until(until).await;
        }
        let used = async {
            loop {
                let mut changed = std::pin::pin!(balancer.changed.notified());
                changed.as_mut().enable();
                if balancer.is_used() {
                    return;
                }
                changed.await;
            }
        };
        tokio::select! {
            () = sleep_until(until) => {}
            () = used => {}
        }
    }

    const fn bit(&self) -> u32 {
        1 << self.index
    }

    /// Takes what came of it into account.
    fn take(&self, check: &HealthCheck, outcome: &Result<(), Failure>) -> Turn {
        let state = &self.member.state;
        let out = state.health.fails(self.bit());
        let turn = self.vitals(|vitals| {
            // The first time decides alone.
            let first = vitals.last.replace(Instant::now()).is_none();
            match outcome {
                Ok(()) => {
                    (vitals.passed, vitals.failed) = (vitals.passed.saturating_add(1), 0);
                    let enough = first || vitals.passed >= check.healthy_threshold;
                    if out && enough { Turn::In } else { Turn::Same }
                }
                Err(failure) => {
                    (vitals.passed, vitals.failed) = (0, vitals.failed.saturating_add(1));
                    let enough = first || failure.at_once || vitals.failed >= check.unhealthy_threshold;
                    if !out && enough { Turn::Out } else { Turn::Same }
                }
            }
        });
        match turn {
            Turn::In => state.health.set(self.bit(), false),
            Turn::Out => state.health.set(self.bit(), true),
            Turn::Same => {}
        }
        let rules = self.tended.balancer.balancing.outliers.as_ref();
        let readmits = outcome.is_ok() && rules.is_some_and(|rules| rules.healthy_readmits);
        if (readmits && outlier::readmit(state)) || turn != Turn::Same {
            self.tended.take_stock();
        }
        turn
    }

    fn tell(&self, check: &HealthCheck, outcome: &Result<(), Failure>, turn: Turn) {
        let (route, address) = (&*self.tended.balancer.route, &self.member.place);
        let word = if outcome.is_ok() { "passed" } else { "failed" };
        self.tended.metrics.0.upstream_health_checks.with_label_values(&[route, word]).inc();
        match (outcome, turn) {
            (_, Turn::In) => {
                tracing::info!(postern.route = route, upstream.address = %address, "an endpoint is healthy again");
            }
            (Err(failure), Turn::Out) => {
                let why = &*failure.why;
                tracing::warn!(postern.route = route, upstream.address = %address, why, "an endpoint is unhealthy");
            }
            (Err(failure), _) if check.log_failures => {
                let why = &*failure.why;
                tracing::warn!(postern.route = route, upstream.address = %address, why, "a health check failed");
            }
            (Ok(()), _) if check.log_successes => {
                tracing::info!(postern.route = route, upstream.address = %address, "a health check passed");
            }
            _ => {}
        }
    }
}

/// Nobody is asked more often, and nobody has less time.
const SHORTEST: Duration = Duration::from_millis(10);

/// Some part of that.
fn jitter(most: Duration) -> Duration {
    let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
    if most == 0 { Duration::ZERO } else { Duration::from_micros(table::drawn(most)) }
}

#[cfg(test)]
mod tests;
