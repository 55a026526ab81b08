//! What one of each thing costs here, measured: at the store without edges, at one edge, and at a process that signs in.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use tokio::time::sleep;

use super::authn;
use super::costs::{Costs, EdgeCosts, StoreCosts, route_bytes, stored_bytes};
use super::lab::{Done, Lab, Moment, each, tell, turns};
use crate::compare::Processes;
use crate::drive::{Clients, Job};
use crate::edge::Edge;
use crate::installation::{Installation, patiently};
use crate::people::Person;
use crate::table::count;

/// All of it.
pub(super) async fn all(lab: Lab) -> Result<Costs> {
    let (mut store, writer) = store(&lab).await?;
    let edge = edge(&lab, &lab.crowd(&writer).await?, &mut store).await?;
    let authn = authn::measure(&lab, &mut store).await?;
    writer.end().await;
    Ok(Costs { edge, authn, store })
}

/// Of the store but for looks and refreshes; and the process that went on writing.
pub(super) async fn store(lab: &Lab) -> Result<(StoreCosts, Installation)> {
    tell("the store: nobody");
    let alone = rest(lab).await?;
    let second_micros = alone.all() / alone.seconds / count(alone.micros.len());
    tell("the store: processes that only hear");
    let writer = lab.writer().await?;
    let listeners = lab.listeners(LISTENERS).await?;
    let heard = rest(lab).await?;
    let (first, others) = heard.micros.split_first().context("no master")?;
    let processes = count(LISTENERS + 1);
    let each = |micros: f64| (micros / heard.seconds - second_micros).max(0.0) / processes;
    let process_micros = each(others.iter().sum::<f64>() / count(others.len()));
    let mut costs = StoreCosts {
        second_micros,
        process_micros,
        listener_micros: each(*first).max(process_micros),
        authn_micros: 0.0,
        look_micros: 0.0,
        sign_in_micros: 0.0,
        refresh_micros: 0.0,
        end_micros: 0.0,
        wake_micros: 0.0,
        session_bytes: stored_bytes(),
    };
    tell("the store: sessions that are ended");
    let people = lab.sign_in(&writer, lab.size.ends * 2).await?;
    let (these, those) = people.split_at(lab.size.ends);
    let many = ends(lab, &writer, these, &costs, processes).await?;
    listeners.end().await;
    let few = ends(lab, &writer, those, &costs, 1.0).await?;
    costs.wake_micros = (many - few).max(0.0) / count(LISTENERS);
    costs.end_micros = (few - costs.wake_micros).max(0.0);
    tell("the store: sessions that begin");
    let before = lab.moment()?;
    lab.sign_in(&writer, lab.size.people).await?;
    let done = lab.moment()?.since(&before);
    costs.sign_in_micros = busy(&costs, &done, 1.0) / count(lab.size.people);
    Ok((costs, writer))
}

/// Processes that do nothing but hear of ends.
const LISTENERS: usize = 16;

/// What the masters do in a span in which nobody asks for anything.
async fn rest(lab: &Lab) -> Result<Done> {
    // Whatever was just begun is over then.
    sleep(SETTLED).await;
    let before = lab.moment()?;
    sleep(lab.size.span).await;
    Ok(lab.moment()?.since(&before))
}

pub(super) const SETTLED: Duration = Duration::from_secs(1);

/// µs of all masters for each session that is ended while so many processes hear of it.
async fn ends(lab: &Lab, writer: &Installation, people: &[Person], costs: &StoreCosts, processes: f64) -> Result<f64> {
    sleep(SETTLED).await;
    let before = lab.moment()?;
    for person in people {
        patiently(async || writer.writer.sessions().revoke(&person.session.handle).await.map(drop)).await?;
    }
    Ok(busy(costs, &lab.moment()?.since(&before), processes) / count(people.len()))
}

/// What the masters did beside that so many processes were connected.
pub(super) fn busy(costs: &StoreCosts, done: &Done, processes: f64) -> f64 {
    let idle = super::plan::store_micros(costs, done.seconds, count(done.micros.len()), processes, 0.0);
    (done.all() - idle).max(0.0)
}

/// Of an edge; and of a look at the store.
pub(super) async fn edge(lab: &Lab, people: &[Person], store: &mut StoreCosts) -> Result<EdgeCosts> {
    let size = lab.size;
    tell("an edge: nobody asks");
    let edge = lab.edge(MAX_AGE).await?;
    let idle = Watch::start(lab, &edge)?;
    sleep(size.span.max(Duration::from_secs(5))).await;
    let idle = idle.stop(lab, &edge)?;
    let mut costs = EdgeCosts {
        second_micros: idle.micros / idle.store.seconds,
        start_bytes: memory(&edge.processes),
        request_micros: 0.0,
        kilobyte_micros: 0.0,
        handshake_micros: 0.0,
        first_micros: 0.0,
        again_micros: 0.0,
        assertion_micros: assertion()?,
        route_bytes: route_bytes(),
        session_bytes: 0.0,
        connection_bytes: 0.0,
    };
    let mut clients = Clients::connect(vec![edge.dial()?]).await?;
    let (early, others) = people.split_at(size.early);
    let (others, kept) = others.split_at(size.people);
    let usual = early.get(..USUAL).context("too few people")?;
    let of = |bytes: usize, seconds: Duration| turns(&each(&edge, usual, bytes), spans(size.rate, seconds));

    tell("an edge: sessions of many people");
    // What the first ones make an edge set aside, and many at one time, is not a session's.
    clients.ask(each(&edge, early, 0), AT_ONCE).await?;
    grown(|| memory(&edge.processes)).await;
    // What was freed is given back while requests go on.
    clients.ask(of(0, SETTLED), size.rate).await?;
    let before = memory(&edge.processes);
    let watch = Watch::start(lab, &edge)?;
    // Servers of the store are there for all edges: busier than one edge makes them, they have less to do for each look.
    clients.ask(each(&edge, kept, 0), size.rate * STORE_RATE).await?;
    let took = watch.stop(lab, &edge)?;
    store.look_micros = busy(store, &took.store, 2.0) / took.store.looks.max(1.0);
    clients.ask(of(0, SETTLED), size.rate).await?;
    costs.session_bytes = ((memory(&edge.processes) - before) / count(kept.len())).max(0.0);
    costs.start_bytes = costs.start_bytes.max(before - count(early.len()) * costs.session_bytes);

    tell("an edge: requests");
    let (took, requests) = load(lab, &edge, &mut clients, of(0, size.span), &costs).await?;
    costs.request_micros = took.micros / requests;

    tell("an edge: the first request of each of many people");
    let (took, requests) = load(lab, &edge, &mut clients, each(&edge, others, 0), &costs).await?;
    costs.first_micros = beyond(&took, requests, &costs);
    ensure!(took.store.looks >= requests, "{} looks at the sessions of {requests} people", took.store.looks);

    tell("an edge: copies that become old");
    let few = others.get(..spans(size.rate, Duration::from_millis(500)).min(others.len())).unwrap_or_default();
    let again = turns(&each(&edge, few, 0), spans(size.rate, size.span));
    clients.ask(again.clone(), size.rate).await?;
    let (took, requests) = load(lab, &edge, &mut clients, again, &costs).await?;
    ensure!(took.store.looks > 0.0, "no copy was read again");
    costs.again_micros = beyond(&took, requests, &costs) * requests / took.store.looks;

    tell("an edge: connections that rest");
    let (dial, mut buffer, mut resting) = (edge.dial()?, Vec::new(), Vec::new());
    let request = edge.request(usual.first().context("nobody")?, 0);
    let before = memory(&edge.processes);
    for _ in 0..RESTING {
        let mut stream = dial.connect().await?;
        dial.exchange(&request, &mut stream, &mut buffer).await?;
        resting.push(stream);
    }
    costs.connection_bytes = ((memory(&edge.processes) - before) / count(RESTING)).max(0.0);

    tell("an edge: answers of 64 KB");
    let (took, requests) = load(lab, &edge, &mut clients, of(64 << 10, size.span), &costs).await?;
    costs.kilobyte_micros = beyond(&took, requests, &costs) / 64.0;

    tell("an edge: new connections");
    let fresh = of(0, size.span).into_iter().step_by(4).map(|job| Job { fresh: true, ..job }).collect();
    let (took, requests) = load(lab, &edge, &mut clients, fresh, &costs).await?;
    costs.handshake_micros = beyond(&took, requests, &costs);
    Ok(costs)
}

/// People who ask again and again.
const USUAL: usize = 8;
const RESTING: usize = 500;
/// How much more the store is asked than one edge usually asks it.
const STORE_RATE: f64 = 3.0;
/// A rate at which all are due at once.
pub(super) const AT_ONCE: f64 = 1e9;
/// Short, so that copies become old while somebody waits for it.
const MAX_AGE: u32 = 4;

/// How many are asked for in a span.
pub(super) fn spans(rate: f64, span: Duration) -> usize {
    let whole = Duration::from_secs_f64(rate * span.as_secs_f64()).as_secs();
    usize::try_from(whole).unwrap_or(usize::MAX)
}

/// Asks, and gives what it took of the edge beyond its seconds; and how many requests there were.
async fn load(lab: &Lab, edge: &Edge, clients: &mut Clients, jobs: Vec<Job>, costs: &EdgeCosts) -> Result<(Took, f64)> {
    let (requests, watch) = (count(jobs.len()), Watch::start(lab, edge)?);
    clients.ask(jobs, lab.size.rate).await?;
    let mut took = watch.stop(lab, edge)?;
    took.micros = (took.micros - took.store.seconds * costs.second_micros).max(0.0);
    Ok((took, requests))
}

/// What each request took beyond a plain one.
fn beyond(took: &Took, requests: f64, costs: &EdgeCosts) -> f64 {
    (took.micros / requests - costs.request_micros).max(0.0)
}

/// An edge and the store from a moment on.
struct Watch {
    cpu: Duration,
    store: Moment,
}

/// What they did.
struct Took {
    micros: f64,
    store: Done,
}

impl Watch {
    fn start(lab: &Lab, edge: &Edge) -> Result<Self> {
        let store = lab.moment()?;
        Ok(Self { cpu: edge.processes.cpu(), store })
    }

    fn stop(self, lab: &Lab, edge: &Edge) -> Result<Took> {
        let micros = (edge.processes.cpu() - self.cpu).as_secs_f64() * 1e6;
        Ok(Took { micros, store: lab.moment()?.since(&self.store) })
    }
}

/// Until the system has moved what there is into large pages, which it does a piece at a time, or for a minute.
pub(super) async fn grown(held: impl Fn() -> f64) {
    let mut before = held();
    for _ in 0..5 {
        sleep(MOVED).await;
        let now = held();
        if now < before * 1.01 {
            return;
        }
        before = now;
    }
}

/// The system looks for pages to move every ten seconds (`khugepaged/scan_sleep_millisecs`).
const MOVED: Duration = Duration::from_secs(11);

/// Bytes of a process.
pub(super) fn memory(processes: &Processes) -> f64 {
    count(processes.memory() / 1_024) * 1_024.0
}

/// µs of a signature such as an assertion has. What is written around it is small beside that.
fn assertion() -> Result<f64> {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok().context("no key can be made")?;
    let claims = [b'x'; 500];
    let began = Instant::now();
    for _ in 0..SIGNATURES {
        std::hint::black_box(key.sign(&random, &claims).ok().context("nothing can be signed")?);
    }
    Ok(began.elapsed().as_secs_f64() * 1e6 / f64::from(SIGNATURES))
}

const SIGNATURES: u32 = 5_000;
