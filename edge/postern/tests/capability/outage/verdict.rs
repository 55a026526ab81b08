//! What was promised for the time of each answer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Route;
use super::people::{Record, Told, Who};

/// `session_lease`, which begins with the last heartbeat.
pub(super) const LEASE: Duration = Duration::from_millis(2_500);
/// For how long heartbeats may arrive that no replica confirms.
pub(super) const UNCONFIRMED: Duration = Duration::from_millis(500);

/// Which edges a fault may keep from what they need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    All,
    Edge(usize),
    /// It takes a moment at most, for which a lease and a copy are good.
    Nobody,
}

impl Reach {
    pub(super) fn is_to(self, edge: usize) -> bool {
        match self {
            Self::All => true,
            Self::Edge(own) => own == edge,
            Self::Nobody => false,
        }
    }
}

/// Something that went wrong.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) name: &'static str,
    pub(super) reach: Reach,
    pub(super) began: Instant,
    /// Until when what alice's session needs was surely away; `None` if it never was.
    pub(super) away_until: Option<Instant>,
    /// When all edges served alice everything again.
    pub(super) back: Instant,
    /// When those who signed out in the meantime were out.
    pub(super) settled: Option<Instant>,
}

/// Somebody signed out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaving {
    pub(super) who: Who,
    /// When she began to try.
    pub(super) tried: Instant,
    /// When she was told that it is done.
    pub(super) accepted: Instant,
}

/// Everything that happened.
#[derive(Debug, Default)]
pub(super) struct Story {
    pub(super) faults: Vec<Fault>,
    pub(super) leavings: Vec<Leaving>,
}

impl Story {
    /// The answers that were promised not to be: why, how many, and the first ones.
    pub(super) fn wrong(&self, records: &[Record]) -> Vec<String> {
        let mut wrong = BTreeMap::<_, Vec<_>>::new();
        for record in records {
            if let Some(why) = self.complaint(record, records) {
                wrong.entry(why).or_default().push(record);
            }
        }
        let told = |record: &&Record| format!("\n  {}: {record:?}", self.place(record));
        let some = |records: Vec<&Record>| records.iter().take(3).map(told).collect::<String>();
        wrong.into_iter().map(|(why, records)| format!("{why}, {} times:{}", records.len(), some(records))).collect()
    }

    fn complaint(&self, record: &Record, records: &[Record]) -> Option<&'static str> {
        let left = self.leavings.iter().find(|leaving| leaving.who == record.who);
        match (&record.told, record.who) {
            (Told::Wrong(_), _) => Some("no answer that is ever right"),
            (Told::Passed, Who::Bob | Who::Nobody) => Some("let in without a right to"),
            (Told::Passed, Who::Alice) if self.is_overdue(record) => Some("served without contact for too long"),
            (Told::Passed, Who::Carol(_)) if left.is_some_and(|left| comes_too_late(record, left, records)) => {
                Some("served although signed out")
            }
            (Told::Passed, Who::Alice | Who::Carol(_)) => None,
            (Told::SignIn, Who::Nobody) => None,
            (Told::SignIn, Who::Carol(_)) if left.is_some_and(|left| record.answered >= left.tried) => None,
            (Told::SignIn, _) => Some("sent to sign in although signed in"),
            (Told::Forbidden, Who::Bob) => None,
            (Told::Forbidden, _) => Some("forbidden"),
            (Told::Unavailable, Who::Nobody) => Some("whose session would the store know?"),
            // A session whose end has begun may be one that edges do not know any more.
            (Told::Unavailable, Who::Carol(_)) if left.is_some_and(|left| record.answered >= left.tried) => None,
            (Told::Unavailable, _) if !self.is_reached(record) && is_starved(record, records) => None,
            (Told::Unavailable, _) if self.during(record).next().is_none() => Some("refused although nothing is wrong"),
            (Told::Unavailable, _) if self.is_excused(record) || !is_known(record, records) => None,
            (Told::Unavailable, _) => Some("refused within the window"),
        }
    }

    /// Whether the window of the route was over before it was answered.
    fn is_excused(&self, record: &Record) -> bool {
        let mut noticed = self.during(record).filter(|fault| fault.reach.is_to(record.edge));
        noticed.any(|fault| record.answered >= fault.began + record.route.window())
    }

    /// Whether there was a fault that its edge may notice.
    fn is_reached(&self, record: &Record) -> bool {
        self.during(record).any(|fault| fault.reach.is_to(record.edge))
    }

    /// The faults that were not over for whoever asked.
    fn during(&self, record: &Record) -> impl Iterator<Item = &Fault> {
        let end = |fault: &Fault| fault.settled.filter(|_| record.who != Who::Alice).unwrap_or(fault.back);
        self.faults.iter().filter(move |fault| fault.began <= record.answered && record.sent <= end(fault))
    }

    /// Whether lease and window were over before it was sent, and the fault was not.
    fn is_overdue(&self, record: &Record) -> bool {
        let limit = LEASE + UNCONFIRMED + record.route.window();
        let lasts = |fault: &Fault| fault.away_until.is_some_and(|until| record.answered <= until);
        let mut noticed = self.faults.iter().filter(|fault| fault.reach.is_to(record.edge));
        noticed.any(|fault| record.sent >= fault.began + limit && lasts(fault))
    }

    /// The fault during or after which it was sent.
    fn place(&self, record: &Record) -> String {
        match self.faults.iter().rfind(|fault| fault.began <= record.sent) {
            Some(fault) => format!("{:?} after the beginning of {:?}", record.sent - fault.began, fault.name),
            None => "before all faults".to_owned(),
        }
    }

    /// What was seen of each fault, for people to read.
    pub(super) fn summary(&self, records: &[Record]) -> String {
        let mut text = String::new();
        for fault in &self.faults {
            let during = |record: &&Record| record.sent >= fault.began && record.answered <= fault.back;
            let slowest = records.iter().filter(during).map(|record| record.answered - record.sent).max();
            let away = fault.away_until.map(|until| until - fault.began);
            let (name, back) = (fault.name, fault.back - fault.began);
            text += &format!("{name}: away for {away:?}, all back after {back:?}, slowest answer {slowest:?}\n");
            for route in Route::ALL {
                let count = |told: &Told| {
                    let alike =
                        |record: &&Record| record.who == Who::Alice && record.route == route && record.told == *told;
                    records.iter().filter(during).filter(alike).count()
                };
                let (passed, unavailable) = (count(&Told::Passed), count(&Told::Unavailable));
                if passed + unavailable > 0 {
                    text += &format!("  alice at {route:?}: {passed} passed, {unavailable} unavailable\n");
                }
            }
        }
        for leaving in &self.leavings {
            let served = records.iter().filter(|record| record.who == leaving.who && record.told == Told::Passed);
            let late = served.map(|record| record.sent.saturating_duration_since(leaving.accepted)).max();
            let took = leaving.accepted - leaving.tried;
            text += &format!("{:?} was out after {took:?}, and served for {late:?} more\n", leaving.who);
        }
        text
    }
}

/// Whether its edge did not get on about that time: no store is asked about cookies that are nobody's, so that only a machine
/// which is too busy makes those answers late, and then heartbeats are late as well.
fn is_starved(record: &Record, records: &[Record]) -> bool {
    let late = |other: &Record| other.answered - other.sent > PACE;
    let about = |other: &Record| other.sent <= record.answered && record.sent <= other.answered + LEASE;
    records.iter().any(|other| other.who == Who::Nobody && other.edge == record.edge && late(other) && about(other))
}

/// Within which an edge answers that has the time.
const PACE: Duration = Duration::from_millis(500);

/// Whether the edge has read the session before: only then it can do without the store.
fn is_known(record: &Record, records: &[Record]) -> bool {
    let earlier =
        |other: &Record| other.answered <= record.sent && matches!(other.told, Told::Passed | Told::Forbidden);
    records.iter().any(|other| other.who == record.who && other.edge == record.edge && earlier(other))
}

/// Whether whoever signed out was served later than an edge may that has lost contact, or than one that has not.
fn comes_too_late(record: &Record, left: &Leaving, records: &[Record]) -> bool {
    // An edge that serves what it must not serve without contact has heard of everything that is older than the lease.
    let strict =
        |proof: &Record| proof.who == Who::Alice && proof.route.window().is_zero() && proof.edge == record.edge;
    let hears = |proof: &Record| strict(proof) && proof.told == Told::Passed && proof.sent >= left.accepted + LEASE;
    let limit = LEASE + UNCONFIRMED + record.route.window();
    record.sent >= left.accepted + limit || records.iter().any(|proof| hears(proof) && proof.answered <= record.sent)
}
