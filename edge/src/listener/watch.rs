//! Looks at the certificates every few seconds: new files are served, old dates are told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use postern_identity::Timestamp;
use tokio::time::{MissedTickBehavior, interval};

use super::certificate::CertificateStore;
use crate::admit::Gate;
use crate::metrics::Metrics;
use crate::mtls::Due;

/// Keeps the certificates of a listener as their files are.
#[derive(Debug, Clone)]
pub(crate) struct CertificateWatch {
    store: Arc<CertificateStore>,
    gate: Arc<Gate>,
    metrics: Metrics,
    told: Arc<Mutex<Told>>,
}

/// Has the listener read its certificates at once; cheap to clone.
#[derive(Debug, Clone)]
pub struct CertificateReader(pub(crate) Option<CertificateWatch>);

impl CertificateReader {
    /// Reads them; it blocks for as long as the files take.
    pub fn read(&self) {
        if let Some(watch) = &self.0 {
            watch.look();
        }
    }
}

/// What the log already has, so that it gets each thing once.
#[derive(Debug, Default)]
struct Told {
    errors: Vec<String>,
    days: HashMap<String, i64>,
}

impl CertificateWatch {
    pub(crate) fn new(store: Arc<CertificateStore>, gate: Arc<Gate>, metrics: Metrics) -> Self {
        let watch = Self { store, gate, metrics, told: Arc::default() };
        watch.tell_expiry();
        watch
    }

    /// Looks until it is dropped.
    pub(crate) async fn run(self) {
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let watch = self.clone();
            // Reading files blocks; the runtime has threads for that.
            if tokio::task::spawn_blocking(move || watch.look()).await.is_err() {
                tracing::error!("looking at the certificates ended in a panic");
            }
        }
    }

    /// Looks once.
    pub(crate) fn look(&self) {
        let (changed, errors) = self.store.reload(&self.gate.snapshot().config.certificates);
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        if changed {
            self.count("ok");
            tracing::info!("certificates read again");
        }
        {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            for error in errors.iter().filter(|error| !told.errors.contains(error)) {
                self.count("error");
                tracing::error!(error, "certificate not taken, the old one stays in force");
            }
            told.errors = errors;
        }
        self.tell_expiry();
    }

    fn count(&self, outcome: &str) {
        self.metrics.0.certificate_reloads.with_label_values(&[outcome]).inc();
    }

    fn tell_expiry(&self) {
        let now = SystemTime::now().into();
        self.metrics.0.certificate_expiry.reset();
        for certificate in &self.store.current().certificates {
            let (seconds, key) = (certificate.not_after.as_secs() as f64, certificate.kind());
            let expiry = self.metrics.0.certificate_expiry.with_label_values(&[certificate.name.as_str(), key]);
            // Of two by the same name the one that expires first counts.
            if expiry.get() == 0.0 || seconds < expiry.get() {
                expiry.set(seconds);
            }
            let told = format!("{} {key} {}", certificate.name, certificate.origin);
            if let Some(days) = self.is_news(&told, threshold(certificate.not_after, now), certificate.not_after, now) {
                tracing::warn!(certificate = certificate.name, key, days, "certificate expires soon");
            }
        }
        self.metrics.0.revocations_due.reset();
        let snapshot = self.gate.snapshot();
        let trust = snapshot.config.downstream_mtls.everybody.as_deref();
        for (issuer, due) in trust.map(|trust| trust.revoked().due()).unwrap_or_default() {
            self.metrics.0.revocations_due.with_label_values(&[issuer]).set(due.at.as_secs() as f64);
            let Some(days) = self.is_news(&format!("revoked by {issuer}, due {}", due.at), late(due, now), due.at, now)
            else {
                continue;
            };
            if due.at < now {
                tracing::warn!(issuer, due = %due.at, "list of revoked certificates is out of date");
            } else {
                tracing::warn!(issuer, due = %due.at, days, "list of revoked certificates is out of date soon");
            }
        }
    }

    /// The days that are left, as each threshold is passed.
    fn is_news(&self, name: &str, threshold: Option<i64>, end: Timestamp, now: Timestamp) -> Option<u64> {
        let threshold = threshold?;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let before = told.days.insert(name.to_owned(), threshold);
        (before != Some(threshold)).then(|| end.since(now).as_secs() / DAY)
    }
}

/// The narrowest of the thresholds (in days) that `not_after` is within; 0 once it has expired.
fn threshold(not_after: Timestamp, now: Timestamp) -> Option<i64> {
    let left = not_after.as_secs() - now.as_secs();
    THRESHOLDS.into_iter().find(|days| left <= days * i64::from(DAY_SECONDS))
}

/// The same for a list: many live for a day, and are replaced within their last half as a rule. Those thresholds hold that are
/// no more than that.
fn late(due: &Due, now: Timestamp) -> Option<i64> {
    let threshold = threshold(due.at, now)?;
    (threshold * i64::from(DAY_SECONDS) <= due.life.max(0) / 2).then_some(threshold)
}

const LOOK: Duration = Duration::from_secs(5);
const THRESHOLDS: [i64; 5] = [0, 1, 7, 14, 30];
const DAY_SECONDS: i32 = 86_400;
const DAY: u64 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r_021_expiry_is_told_at_thirty_fourteen_seven_and_one_days() {
        let now = Timestamp::from_secs(1_000_000);
        let day = i64::from(DAY_SECONDS);
        let left = |seconds: i64| threshold(Timestamp::from_secs(1_000_000 + seconds), now);
        assert_eq!(left(31 * day), None);
        assert_eq!(left(30 * day), Some(30));
        assert_eq!(left(14 * day + 1), Some(30));
        assert_eq!(left(14 * day), Some(14));
        assert_eq!(left(7 * day), Some(7));
        assert_eq!(left(day), Some(1));
        assert_eq!(left(1), Some(1));
        assert_eq!(left(-1), Some(0));
    }

    #[test]
    fn that_a_list_of_revoked_certificates_is_due_is_told_as_early_as_its_life_lets_it_be_news() {
        let day = i64::from(DAY_SECONDS);
        let now = Timestamp::from_secs(1_000_000);
        let told =
            |life: i64, left: i64| late(&Due { at: Timestamp::from_secs(1_000_000 + left), life: life * day }, now);
        assert_eq!(told(90, 29 * day), Some(30));
        assert_eq!(told(30, 29 * day), None, "it was made yesterday");
        assert_eq!(told(30, 13 * day), Some(14));
        assert_eq!(told(7, 6 * day), None);
        assert_eq!(told(7, day), Some(1));
        assert_eq!(told(1, day / 2), None);
        assert_eq!(told(1, -1), Some(0));
    }
}
