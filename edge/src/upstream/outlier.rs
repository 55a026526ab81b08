//! Endpoints that fail more than others are left out for a while: `outlier_detection` (01 §2.11).

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::balance::Members;
use super::member::{Member, State, Where};
use super::table;
use crate::route::{Consecutive, OutlierDetection};

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An answer with this status.
    Status(u16),
    /// No connection.
    Unreachable,
    /// No connection or no answer in time.
    Late,
    /// The connection broke, or what came was no answer.
    Broken,
}

impl Outcome {
    /// As a status, where what never became an answer is not counted apart.
    const fn status(self) -> u16 {
        match self {
            Self::Status(status) => status,
            Self::Unreachable => 503,
            Self::Late => 504,
            Self::Broken => 500,
        }
    }
}

/// Why an endpoint is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// `consecutive_5xx`.
    ServerErrors,
    /// `consecutive_gateway_failure`.
    GatewayFailures,
    /// `consecutive_local_origin_failure`.
    LocalFailures,
    /// `success_rate_*`.
    SuccessRate,
    /// `failure_percentage_*`.
    FailureShare,
}

impl Cause {
    /// For logs and metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::ServerErrors => "consecutive-5xx",
            Self::GatewayFailures => "consecutive-gateway-failure",
            Self::LocalFailures => "consecutive-local-origin-failure",
            Self::SuccessRate => "success-rate",
            Self::FailureShare => "failure-percentage",
        }
    }
}

/// What is seen of the answers of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Conduct {
    /// It is left out because of them.
    ejected: AtomicBool,
    /// In a row, so far.
    server_errors: AtomicU32,
    gateway_failures: AtomicU32,
    local_failures: AtomicU32,
    /// Since the last look: what became an answer, and what did not.
    answers: Tally,
    arrivals: Tally,
    sentence: Mutex<Sentence>,
}

/// Requests, and how many of them failed.
#[derive(Debug, Default)]
struct Tally {
    all: AtomicU32,
    failed: AtomicU32,
}

impl Tally {
    fn count(&self, failed: bool) {
        self.all.fetch_add(1, Ordering::Relaxed);
        if failed {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was counted, and begins anew.
    fn take(&self) -> (u32, u32) {
        let failed = self.failed.swap(0, Ordering::Relaxed);
        let all = self.all.swap(0, Ordering::Relaxed);
        (all, failed.min(all))
    }
}

/// For how long it is left out.
#[derive(Debug, Default)]
struct Sentence {
    until: Option<Instant>,
    /// Ejections that are not forgotten yet.
    times: u32,
}

impl Conduct {
    pub(super) fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    /// It is left out, or no more; gives whether that is new.
    fn set_ejected(&self, ejected: bool) -> bool {
        self.ejected.swap(ejected, Ordering::AcqRel) != ejected
    }

    /// Counts an outcome; gives why it should be left out, if it should.
    pub(super) fn note(&self, rules: &OutlierDetection, outcome: Outcome) -> Option<Cause> {
        let local = !matches!(outcome, Outcome::Status(_));
        self.arrivals.count(local && rules.split_local);
        if local && rules.split_local {
            return row(&self.local_failures, true, rules.local_failures).then_some(Cause::LocalFailures);
        }
        if rules.split_local {
            self.local_failures.store(0, Ordering::Relaxed);
        }
        let status = outcome.status();
        let failed = status >= 500;
        self.answers.count(failed);
        let gateway = row(&self.gateway_failures, matches!(status, 502..=504), rules.gateway_failures);
        let server = row(&self.server_errors, failed, rules.server_errors);
        match (gateway, server) {
            (_, true) => Some(Cause::ServerErrors),
            (true, false) => Some(Cause::GatewayFailures),
            (false, false) => None,
        }
    }
}

/// Whether this failure completes a row that is acted on.
fn row(count: &AtomicU32, failed: bool, rule: Consecutive) -> bool {
    if !failed {
        if count.load(Ordering::Relaxed) != 0 {
            count.store(0, Ordering::Relaxed);
        }
        return false;
    }
    let full = count.fetch_add(1, Ordering::Relaxed) + 1 >= rule.failures.max(1);
    if full {
        count.store(0, Ordering::Relaxed);
    }
    full && is_enforced(rule.enforced)
}

/// So many of a hundred times.
fn is_enforced(share: u32) -> bool {
    share >= 100 || table::drawn(100) < u64::from(share)
}

/// Leaves a member out, if not too many are already; gives whether that is new.
pub(super) fn eject(rules: &OutlierDetection, members: &Members, state: &State, cause: Cause) -> bool {
    // One at a time of all there are: it is rare, and the share is to be right.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    if state.is_ejected() {
        return false;
    }
    let out = members.list.iter().filter(|member| member.state.is_ejected()).count();
    let fits = (out + 1) * 100 <= rules.max_ejected as usize * members.list.len();
    let fits = fits || (rules.always_one && out == 0);
    if !fits {
        return false;
    }
    let mut sentence = state.conduct.sentence.lock().unwrap_or_else(PoisonError::into_inner);
    sentence.times = sentence.times.saturating_add(1);
    let longest = rules.max_ejection.max(rules.base_ejection);
    let jitter = u64::try_from(rules.ejection_jitter.as_millis()).unwrap_or(u64::MAX);
    let jitter =
        if jitter == 0 { Duration::ZERO } else { Duration::from_millis(table::drawn(jitter.saturating_add(1))) };
    let out_for = rules.base_ejection.saturating_mul(sentence.times).min(longest) + jitter;
    sentence.until = Some(Instant::now() + out_for);
    let new = state.conduct.set_ejected(true);
    tracing::debug!(cause = cause.as_str(), seconds = out_for.as_secs(), "an endpoint is left out");
    new
}

/// Takes back a member at once: it passed a health check.
pub(super) fn readmit(state: &State) -> bool {
    if !state.is_ejected() {
        return false;
    }
    let mut sentence = state.conduct.sentence.lock().unwrap_or_else(PoisonError::into_inner);
    sentence.until = None;
    state.conduct.set_ejected(false)
}

/// What is done once in each interval: takes back whose time is over, and compares the endpoints. Gives who was left out, and
/// why.
pub(super) fn look<'m>(rules: &OutlierDetection, members: &'m Members, now: Instant) -> Vec<(&'m Where, Cause)> {
    take_back(members, now);
    let tallies = |of: fn(&Conduct) -> &Tally| {
        let counted = members.list.iter().map(|member| (member, of(&member.state.conduct).take()));
        counted.collect::<Vec<_>>()
    };
    let (answers, arrivals) = (tallies(|conduct| &conduct.answers), tallies(|conduct| &conduct.arrivals));
    let (rate, share) = (rules.success_rate, rules.failure_share);
    let mut out = compared(rules, members, &answers, (rate.enforced, share.enforced));
    if rules.split_local {
        out.extend(compared(rules, members, &arrivals, (rate.enforced_local, share.enforced_local)));
    }
    out
}

fn take_back(members: &Members, now: Instant) {
    for member in &members.list {
        let mut sentence = member.state.conduct.sentence.lock().unwrap_or_else(PoisonError::into_inner);
        match sentence.until {
            Some(until) if now >= until => {
                sentence.until = None;
                member.state.conduct.forget_rows();
                member.state.conduct.set_ejected(false);
            }
            Some(_) => {}
            // Good conduct is rewarded: each quiet interval takes one time back.
            None => sentence.times = sentence.times.saturating_sub(1),
        }
    }
}

/// A member, its requests in an interval, and how many of them failed.
type Counted<'m> = (&'m Member, (u32, u32));

/// Compares the members by what was counted, and leaves out who falls behind.
fn compared<'m>(
    rules: &OutlierDetection,
    members: &Members,
    counted: &[Counted<'m>],
    (rate_enforced, share_enforced): (u32, u32),
) -> Vec<(&'m Where, Cause)> {
    let enough = |least: u32| {
        let busy = move |(member, (all, _)): &&Counted<'m>| *all >= least.max(1) && !member.state.is_ejected();
        counted.iter().filter(busy).copied().collect::<Vec<_>>()
    };
    let success = |(all, failed): (u32, u32)| f64::from(all - failed) * 100.0 / f64::from(all);
    let mut out = Vec::new();
    let mut judge = |judged: Vec<Counted<'m>>, enforced: u32, cause: Cause, fails: &dyn Fn(f64) -> bool| {
        for (member, tally) in judged {
            if fails(success(tally)) && is_enforced(enforced) && eject(rules, members, &member.state, cause) {
                out.push((&member.place, cause));
            }
        }
    };
    let rate = rules.success_rate;
    let judged = enough(rate.requests);
    if rate_enforced > 0 && !judged.is_empty() && judged.len() >= rate.hosts as usize {
        let count = f64::from(u32::try_from(judged.len()).unwrap_or(u32::MAX));
        let mean = judged.iter().map(|(_, tally)| success(*tally)).sum::<f64>() / count;
        let variance = judged.iter().map(|(_, tally)| (success(*tally) - mean).powi(2)).sum::<f64>() / count;
        let least = mean - variance.sqrt() * f64::from(rate.deviation) / 1000.0;
        judge(judged, rate_enforced, Cause::SuccessRate, &|success| success < least);
    }
    let share = rules.failure_share;
    let judged = enough(share.requests);
    if share_enforced > 0 && judged.len() >= share.hosts as usize {
        let threshold = f64::from(share.threshold);
        judge(judged, share_enforced, Cause::FailureShare, &|success| 100.0 - success >= threshold);
    }
    out
}

impl Conduct {
    /// Who comes back begins anew.
    fn forget_rows(&self) {
        for count in [&self.server_errors, &self.gateway_failures, &self.local_failures] {
            count.store(0, Ordering::Relaxed);
        }
    }
}
