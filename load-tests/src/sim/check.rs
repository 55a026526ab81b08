//! Whether the model is right: costs that were measured at one edge, and another load at three, predicted and seen.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::costs::{EdgeCosts, StoreCosts};
use super::lab::{Done, Lab, tell, turns};
use super::measure::{self, AT_ONCE, SETTLED, memory, spans};
use super::plan::{Work, store_micros};
use crate::drive::{Clients, Job};
use crate::edge::Edge;
use crate::memory::Numbers;
use crate::table::{Goal, Table, count};

/// Measures, predicts, measures again.
pub(super) async fn run(lab: Lab) -> Result<Table> {
    let (mut store, writer) = measure::store(&lab).await?;
    let people = lab.crowd(&writer).await?;
    let costs = measure::edge(&lab, &people, &mut store).await?;
    tell(&format!("at one edge: {}", serde_json::to_string(&(&costs, &store))?));

    tell("three edges: starting");
    let (early, people) = people.split_at(lab.size.early);
    let mut edges = Vec::new();
    for _ in 0..EDGES {
        edges.push(lab.edge(MAX_AGE).await?);
    }
    // Each person is sent to two of the three, to one as often as to the other.
    let of = |person: usize, time: usize, bytes: usize| {
        let place = (person + time % SPREAD) % EDGES;
        let (edge, somebody) = (edges.get(place)?, people.get(person)?);
        Some(Job { edge: place, request: edge.request(somebody, bytes).into(), fresh: false })
    };
    let mut clients = Clients::connect(edges.iter().map(Edge::dial).collect::<Result<_>>()?).await?;
    let rate = lab.size.rate * count(EDGES);
    // As at the one edge: what the first ones make an edge set aside is not a session's.
    let mut usual = Vec::new();
    for somebody in early {
        for (place, edge) in edges.iter().enumerate() {
            usual.push(Job { edge: place, request: edge.request(somebody, 0).into(), fresh: false });
        }
    }
    clients.ask(usual.clone(), AT_ONCE).await?;
    measure::grown(|| held(&edges)).await;
    let settled = turns(&usual, usual.len().min(spans(rate, SETTLED)));
    clients.ask(settled.clone(), rate).await?;

    tell("three edges: the first request of each of many people");
    let before = held(&edges);
    for time in 0..SPREAD {
        let rest = (lab.size.people..people.len()).filter_map(|person| of(person, time, 0)).collect();
        clients.ask(rest, AT_ONCE).await?;
    }
    clients.ask(settled, rate).await?;
    let grown = held(&edges) - before;
    let kept = count(people.len() - lab.size.people) * count(SPREAD);
    tell("three edges: the same of some, at their pace");
    let people = people.get(..lab.size.people).context("too few people")?;
    let all = (0..SPREAD).flat_map(|time| (0..people.len()).map(move |person| (person, time)));
    let arriving: Vec<Job> = all.filter_map(|(person, time)| of(person, time, 0)).collect();
    let arrival = Seen::of(&lab, &edges, &mut clients, &arriving, rate).await?;
    let first = count(arriving.len());

    tell("three edges: some of them ask again and again");
    let active = people.len() / 5;
    let mut numbers = Numbers(1);
    let mut any = |share: u32| {
        let mut job = of(numbers.below(active), numbers.below(SPREAD), BYTES)?;
        job.fresh = share > 0 && numbers.below(100) < usize::try_from(share).ok()?;
        Some(job)
    };
    let mut some = |span: f64, share| {
        let many = (0..).take_while(|number| f64::from(*number) < rate * span);
        many.filter_map(|_| any(share)).collect::<Vec<_>>()
    };
    let settling = some(f64::from(MAX_AGE), 0);
    clients.ask(settling, rate).await?;
    let steady = some(lab.size.span.as_secs_f64() * 2.0, FRESH);
    let seen = Seen::of(&lab, &edges, &mut clients, &steady, rate).await?;

    let (requests, seconds) = (count(steady.len()), seen.store.seconds);
    let again = Work::of(count(active), requests / seconds / count(active), count(SPREAD), f64::from(MAX_AGE)).again;
    let work = Work {
        requests: first + requests,
        kilobytes: requests * count(BYTES) / 1_024.0,
        handshakes: count(steady.iter().filter(|job| job.fresh).count()),
        first,
        again: again * seconds,
        assertions: 0.0,
    };
    writer.end().await;
    Ok(table(&costs, &store, &work, &[arrival, seen], (kept, grown)))
}

const EDGES: usize = 3;
/// Edges that a person is sent to.
const SPREAD: usize = 2;
/// Another one than where costs were measured.
const MAX_AGE: u32 = 6;
const BYTES: usize = 4 << 10;
/// Of a hundred requests so many come over a new connection.
const FRESH: u32 = 5;
/// Edges, and who signs people in.
const PROCESSES: usize = EDGES + 1;

/// What was predicted, and what was seen.
fn table(costs: &EdgeCosts, store: &StoreCosts, work: &Work, spans: &[Seen], (kept, grown): (f64, f64)) -> Table {
    let sum = |of: fn(&Seen) -> f64| spans.iter().map(of).sum::<f64>();
    let seconds = sum(|seen| seen.store.seconds);
    let masters = spans.first().map_or(0, |seen| seen.store.micros.len());
    let idle = count(EDGES) * seconds * costs.second_micros;
    let stored = store_micros(store, seconds, count(masters), count(PROCESSES), work.looks());
    let mut table = Table::of_goals();
    for (what, predicted, seen, unit) in [
        ("processor time of the edges", idle + work.micros(costs), sum(|seen| seen.micros), "ms"),
        ("looks at sessions in the store", work.looks() * 1e3, sum(|seen| seen.store.looks) * 1e3, ""),
        ("processor time of the masters", stored, sum(|seen| seen.store.all()), "ms"),
        ("memory that the edges took for sessions", kept * costs.session_bytes, grown, "KB"),
    ] {
        let off = (predicted / seen - 1.0) * 100.0;
        let text = format!("predicted {:.0} {unit}, seen {:.0} {unit}: {off:+.1} %", predicted / 1e3, seen / 1e3);
        let judged = Some(off.abs()).filter(|off| off.is_finite());
        table.goal(
            format!("{what}: % off"),
            text.replace("  ", " ").replace(" ,", ",").replace(" :", ":"),
            Goal::AtMost(25.0),
            true,
            judged,
        );
    }
    table
}

/// Bytes of all edges.
fn held(edges: &[Edge]) -> f64 {
    edges.iter().map(|edge| memory(&edge.processes)).sum()
}

/// What a span took.
struct Seen {
    /// Of the edges.
    micros: f64,
    store: Done,
}

impl Seen {
    async fn of(lab: &Lab, edges: &[Edge], clients: &mut Clients, jobs: &[Job], rate: f64) -> Result<Self> {
        let cpu = || edges.iter().map(|edge| edge.processes.cpu()).sum::<Duration>();
        let (before, moment) = (cpu(), lab.moment()?);
        clients.ask(jobs.to_vec(), rate).await.context("asking")?;
        let micros = (cpu() - before).as_secs_f64() * 1e6;
        Ok(Self { micros, store: lab.moment()?.since(&moment) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::costs::Costs;
    use super::*;

    #[test]
    fn what_is_off_by_more_than_a_quarter_misses_its_goal() {
        let costs = Costs::plain();
        let work = Work { requests: 1_000.0, first: 100.0, again: 50.0, ..Work::default() };
        // 3 edges, 10 s at rest and 1,000 requests: 60,000 + 50,000 + 10,000 + 2,000 µs.
        let seen = |micros| {
            let store = Done { seconds: 10.0, micros: vec![14_600.0, 11_600.0, 11_600.0], looks: 150.0 };
            let table = table(&costs.edge, &costs.store, &work, &[Seen { micros, store }], (100.0, 100_000.0));
            (table.has_failed(), table.to_string())
        };
        let (failed, told) = seen(122_000.0);
        assert!(!failed && told.contains("predicted 122 ms, seen 122 ms: +0.0 %"), "{told}");
        assert!(told.contains("predicted 150, seen 150: +0.0 %") && told.contains("predicted 100 KB"), "{told}");
        assert!(told.contains("processor time of the masters: % off | predicted 43 ms"), "{told}");
        assert!(seen(90_000.0).0, "36 % more than was seen");
        assert!(seen(200_000.0).0, "39 % less");
        assert!(!seen(150_000.0).0);
    }
}
