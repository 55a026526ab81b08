//! One fault after the other, each on servers of its own, under load and with revocations: who notices, for how long, and
//! whether anything that was promised does not hold (docs/reference/sessions.md).

mod fault;
mod load;
mod revoking;
mod shards;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::installation::{Installation, on_cluster, on_watched};
use crate::table::{Table, millis, shown};

pub(crate) use fault::Fault;

use fault::{Happened, Servers, Stage};
use load::{Load, Record};
use revoking::{Revoked, Revoking};
use shards::Shards;

const COLUMNS: [&str; 12] = [
    "fault",
    "operations",
    "failed on other servers",
    "slowest there, ms",
    "failed on its own",
    "reads again, ms: first, all",
    "writes again, ms: first, all",
    "after",
    "revoked, at first refused",
    "heard by all, ms: median, most",
    "served too long, lost: revocations, refreshes",
    "verdict",
];

/// Rows, or all of them.
pub(crate) async fn run(rows: Vec<Fault>, quick: bool) -> Table {
    let rows = if rows.is_empty() { Fault::all() } else { rows };
    let mut table = Table::new(&COLUMNS);
    for fault in rows {
        eprintln!("{} …", fault.name());
        match row(fault, quick).await {
            Ok(seen) => {
                seen.tell();
                if seen.verdict() != KEPT {
                    table.fail();
                }
                table.row(seen.cells());
            }
            // What could not be seen through is no reason to trust it.
            Err(error) => {
                eprintln!("  {error:#}");
                table.fail();
            }
        }
    }
    table
}

/// What one row came to.
#[derive(Debug)]
struct Outcome {
    fault: Fault,
    happened: Happened,
    others: Vec<Record>,
    own: Vec<Record>,
    revoked: Revoked,
}

async fn row(fault: Fault, quick: bool) -> Result<Outcome> {
    let mut servers = tokio::task::block_in_place(|| fault.servers());
    let config = match &servers {
        Servers::Cluster(cluster) => on_cluster(cluster),
        Servers::Watched(watched) => on_watched(watched),
    };
    let installation = Installation::start(&config, if quick { 3 } else { 8 }).await?;
    let people = installation.sign_in(if quick { 300 } else { 600 }).await?;
    installation.know(&people).await?;
    let shards = tokio::task::block_in_place(|| Shards::sort(&servers, people))?;
    let stage = Stage::of(fault, &servers, quick);

    let load = Load::start(&installation.writer.sessions(), &shards);
    let spare = shards.spare.into_iter().filter(|(server, _)| stage.revokes_of.is_none_or(|only| only == *server));
    let revoking = Revoking::start(&installation, spare.map(|(_, person)| person).collect());
    tokio::time::sleep(BEFORE).await;
    let happened = tokio::task::block_in_place(|| fault.happen(&stage, &mut servers))?;
    tokio::time::sleep(AFTER).await;
    tokio::task::block_in_place(|| fault.aftermath(&stage, &servers));
    let records = load.stop(&installation.writer.sessions()).await;
    let revoked = revoking.stop(&installation).await?;
    let (own, others) = records.into_iter().partition(|record: &Record| stage.hits(record.server));
    installation.end().await;
    Ok(Outcome { fault, happened, others, own, revoked })
}

impl Outcome {
    fn cells(&self) -> Vec<String> {
        let failed = |records: &[Record]| records.iter().filter(|record| record.failed.is_some()).count();
        let slowest = self.others.iter().map(|record| record.took).max();
        let Happened { began, over, followed, what } = self.happened;
        let Revoked { sent, refused, ref heard, late, lost } = self.revoked;
        vec![
            self.fault.name(),
            (self.own.len() + self.others.len()).to_string(),
            if self.others.is_empty() { "–".to_owned() } else { failed(&self.others).to_string() },
            shown(slowest.map(millis), 0),
            failed(&self.own).to_string(),
            self.again(false),
            self.again(true),
            format!(
                "{what}, {:.1} s; replicas {} ms later",
                over.duration_since(began).as_secs_f64(),
                followed.duration_since(over).as_millis()
            ),
            format!("{sent}, {refused}"),
            format!("{}, {}", shown(heard.percentile(50), 1), shown(heard.most(), 0)),
            format!("{late}, {lost}, {}", self.lost().count()),
            self.verdict().to_owned(),
        ]
    }

    /// How long after the fault was over, or a replica had been promoted, one of its server's sessions could be read or, once a
    /// replica could confirm it, written again, and after when none failed any more; nothing if none failed.
    fn back(&self, writes: bool) -> Option<(Duration, Duration)> {
        let of_kind = || self.own.iter().filter(|record| record.writes == writes);
        let over = self.over(writes);
        let last = of_kind().filter(|record| record.failed.is_some()).map(Record::ended).max()?;
        let good = || of_kind().filter(|record| record.failed.is_none()).map(Record::ended);
        let first = good().filter(|ended| *ended >= over).min();
        let goes_on = good().any(|ended| ended > last);
        let since = |at: Instant| at.saturating_duration_since(over);
        Some((first.map_or(Duration::MAX, since), if goes_on { since(last) } else { Duration::MAX }))
    }

    /// From when on reads, or writes, are to be served again.
    const fn over(&self, writes: bool) -> Instant {
        if writes { self.happened.followed } else { self.happened.over }
    }

    fn again(&self, writes: bool) -> String {
        let shown =
            |back: Duration| if back == Duration::MAX { "never".to_owned() } else { back.as_millis().to_string() };
        self.back(writes).map_or_else(|| "–".to_owned(), |(first, all)| format!("{}, {}", shown(first), shown(all)))
    }

    /// What the store had acknowledged, and did not have any more.
    fn lost(&self) -> impl Iterator<Item = &Record> {
        self.own.iter().chain(&self.others).filter(|record| record.lost)
    }

    /// Says why operations on other servers failed, which none should, what was lost, and what failed too late.
    fn tell(&self) {
        let late = |record: &&Record| record.ended() > self.over(record.writes) + GOAL;
        let lost_or_late = self.own.iter().filter(|record| record.lost || late(record));
        let mut reasons = BTreeMap::new();
        for record in self.others.iter().chain(lost_or_late) {
            let Some(reason) = &record.failed else { continue };
            *reasons.entry((record.writes, reason)).or_insert(0) += 1;
        }
        for ((writes, reason), count) in reasons {
            eprintln!("  {count} {}: {reason}", if writes { "writes" } else { "reads" });
        }
    }

    fn verdict(&self) -> &'static str {
        let back: Vec<_> = [false, true].into_iter().filter_map(|writes| self.back(writes)).collect();
        let is_broken = self.others.iter().any(|record| record.failed.is_some())
            || self.lost().next().is_some()
            || self.revoked.late > 0
            || self.revoked.lost > 0
            || back.iter().any(|(first, all)| *first.max(all) == Duration::MAX);
        match back.iter().all(|(first, all)| *first.max(all) <= GOAL) {
            _ if is_broken => "BROKEN",
            true => KEPT,
            false => "kept, but later than 200 ms",
        }
    }
}

const KEPT: &str = "kept";

/// Waits for something that servers do by themselves.
fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result<Instant> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        anyhow::ensure!(Instant::now() < deadline, "not within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(Instant::now())
}

/// How long all is well before a fault, and how long it is looked at afterwards.
const BEFORE: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_secs(3);
/// Within which its own server's sessions are to be served again.
const GOAL: Duration = Duration::from_millis(200);
