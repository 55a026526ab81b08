//! Whether a request costs more the more sessions there are: an edge whose store knows one session beside one whose store knows a
//! million, a tenth of which are in use, in rounds in which each has its turn.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use postern_servers::Redis;

use crate::compare::site::{self, HOST};
use crate::compare::{Cores, build, read_wrk};
use crate::drive::{Clients, Job};
use crate::edge::{Edge, Provider, application};
use crate::installation::{Installation, on_one};
use crate::people::Person;
use crate::table::{Goal, Seen, Table, shown};

/// How many, and how long.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Sessions that the store knows
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    known: usize,
    /// Of these are in use
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    active: usize,
    /// How often each has its turn
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// How long a turn is
    #[arg(long, value_name = "SECONDS", default_value_t = 3)]
    seconds: u64,
    /// A hundredth of the sessions
    #[arg(long)]
    quick: bool,
    /// The binary of Postern; built as a release if none is named
    #[arg(long, value_name = "FILE")]
    postern: Option<PathBuf>,
}

/// Measures, and tells what it is doing on the standard error.
pub(crate) fn run(options: &Options) -> Result<Table> {
    let part = if options.quick { 100 } else { 1 };
    let (known, active) = (options.known / part, options.active / part);
    ensure!(0 < active && active <= known, "--active is from 1 to as many as are --known");
    ensure!(options.rounds > 0 && options.seconds > 0, "--rounds and --seconds begin at 1");
    let binary = options.postern.clone().map_or_else(build, Ok)?;
    let cores = Cores::take()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let _inside = runtime.enter();
    let (provider, application) = (runtime.block_on(Provider::start())?, application()?);
    let stores = [Redis::start(&[]), Redis::start(&[])];
    let sign_in = |name: &str, store, known, active| {
        eprintln!("{name}: signing in");
        runtime.block_on(sign_in(store, &provider, known, active))
    };
    let side = |name: &str, store: &Redis, people, more| {
        let url = format!("redis://127.0.0.1:{}", store.port());
        let edge = Edge::start(cores.for_proxy(&binary), &url, &provider, application, more)?;
        let mut side = Side { name: name.to_owned(), edge, people, cookies: tempfile::tempdir()?, seen: Vec::new() };
        eprintln!("{name}: the first request of each");
        runtime.block_on(side.arrive(active))?;
        Ok::<_, anyhow::Error>(side)
    };
    let [one_store, many_store] = &stores;
    let many_name = format!("{known} sessions known, {active} in use");
    let alone = sign_in(ONE, one_store, 1, 1)?;
    let people = sign_in(&many_name, many_store, known, active)?;

    let mut one = side(ONE, one_store, alone, KEPT)?;
    let signed = Instant::now();
    let mut many = side(&many_name, many_store, people.clone(), KEPT)?;
    turns([&mut one, &mut many], options)?;
    ensure!(signed.elapsed() < SIGNED_ANEW, "assertions were signed anew meanwhile: fewer --rounds or --seconds");
    let (beside, seen) = (one.seen.split_off(0), many.seen.split_off(0));
    drop(many);

    let mut usual = side(USUAL, many_store, people, "")?;
    turns([&mut one, &mut usual], options)?;
    Ok(table(&[
        (ONE, &beside, &beside, Goal::None),
        (&many_name, &seen, &beside, Goal::AtMost(10.0)),
        (USUAL, &usual.seen, &one.seen, Goal::None),
    ]))
}

const ONE: &str = "one session";
const USUAL: &str = "the same, read again as usual";
/// Copies are kept for an hour, so that what is compared is the request and not what the store is asked beside it.
const KEPT: &str = "session_max_age: 1h\n";
/// So long after it was signed an assertion is signed anew with the next request; turns end before, for the same reason.
const SIGNED_ANEW: Duration = Duration::from_secs(120);

/// As many turns of both as there are rounds.
fn turns(mut sides: [&mut Side; 2], options: &Options) -> Result<()> {
    for round in 1..=options.rounds {
        for side in &mut sides {
            let (cpu, busy) = side.turn(options.seconds)?;
            let (name, rounds) = (&side.name, options.rounds);
            eprintln!("round {round} of {rounds}: {name}: {cpu:.1} µs a request, {busy:.0} % of a core");
        }
    }
    Ok(())
}

/// Has so many people sign in, and gives some of them.
async fn sign_in(store: &Redis, provider: &Provider, known: usize, active: usize) -> Result<Vec<Person>> {
    let writer = Installation::start(&on_one(store), 0).await?;
    let mut people = Vec::new();
    let mut left = known;
    while left > 0 {
        let next = left.min(AT_ONCE);
        let some = writer.sign_in_at(next, &provider.idp(), Person::small_tokens).await?;
        people.extend(some.into_iter().take(active - people.len()));
        left -= next;
    }
    writer.end().await;
    Ok(people)
}

/// So that not all of them are held here.
const AT_ONCE: usize = 10_000;

/// An edge, and who uses it.
struct Side {
    name: String,
    edge: Edge,
    people: Vec<Person>,
    cookies: tempfile::TempDir,
    /// µs of processor time a request, in each round.
    seen: Vec<f64>,
}

impl Side {
    /// Each of them asks once. Of heads that differ there are as many as said, however few people there are: so that what wrk
    /// has to do, and what it takes of the caches that it shares with the edge, is the same.
    async fn arrive(&mut self, heads: usize) -> Result<()> {
        self.edge.is_ready().await?;
        let mut clients = Clients::connect(vec![self.edge.dial()?]).await?;
        for people in self.people.chunks(AT_ONCE) {
            let job = |person| Job { edge: 0, request: self.edge.request(person, BYTES).into(), fresh: false };
            clients.ask(people.iter().map(job).collect(), AS_FAST_AS_CAN_BE).await?;
        }
        let sealed: Vec<_> = self.people.iter().map(Edge::cookie).collect();
        let heads = sealed.iter().cycle().take(heads).enumerate();
        let cookies: String = heads.map(|(at, cookie)| format!("{cookie}; head={at:07}\n")).collect();
        fs::write(self.file("cookies"), cookies)?;
        fs::write(self.file("each.lua"), script(&self.file("cookies")))?;
        Ok(())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.cookies.path().join(name)
    }

    /// As many requests as one core can ask, each of somebody: µs of processor time for one, and how busy its core was.
    fn turn(&mut self, seconds: u64) -> Result<(f64, f64)> {
        let before = self.edge.processes.cpu();
        let mut wrk = Command::new("wrk");
        wrk.args(["--threads", "1", "--latency", "--connections", "32", "--duration", &format!("{seconds}s")]);
        wrk.args(["--header", &format!("Host: {HOST}:{}", self.edge.address().port())]);
        wrk.arg("--script").arg(self.file("each.lua")).arg(format!("https://{}/{BYTES}", self.edge.address()));
        let asked = read_wrk(&site::output(wrk)?)?;
        let (requests, failed) = (u32::try_from(asked.requests)?, asked.failed);
        ensure!(requests > 0 && failed == 0, "{}: {failed} of {requests} requests failed", self.name);
        let cpu = self.edge.processes.cpu() - before;
        let each = cpu.as_secs_f64() * 1e6 / f64::from(requests);
        self.seen.push(each);
        Ok((each, cpu.as_secs_f64() / asked.took.as_secs_f64() * 100.0))
    }
}

const BYTES: usize = 1_024;
const AS_FAST_AS_CAN_BE: f64 = 1e9;

/// For wrk: another of these cookies with each request.
fn script(cookies: &Path) -> String {
    format!(
        "local cookies = {{}}\nfor cookie in io.lines({cookies:?}) do cookies[#cookies + 1] = cookie end\n\
         request = function()\n  wrk.headers[\"Cookie\"] = cookies[math.random(#cookies)]\n  return wrk.format()\nend\n"
    )
}

/// What was seen in each round, and what of one session in the same rounds.
type Row<'r> = (&'r str, &'r [f64], &'r [f64], Goal);

fn table(rows: &[Row<'_>]) -> Table {
    let mut table = Table::of_goals();
    for (name, seen, one, goal) in rows {
        let all: Seen = seen.iter().copied().collect();
        let more: Seen = seen.iter().zip(*one).map(|(own, one)| (own / one - 1.0) * 100.0).collect();
        let [least, median, most] = [0, 50, 100].map(|part| shown(more.percentile(part), 1));
        let text = format!("{} µs a request, {median} % more; {least} to {most}", shown(all.percentile(50), 1));
        table.goal(format!("{name}: median over rounds; least to most"), text, *goal, true, more.percentile(50));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_is_told_where_the_cookies_are() {
        let script = script(Path::new("/tmp/a b/cookies"));
        assert!(script.contains("io.lines(\"/tmp/a b/cookies\")"), "{script}");
    }

    #[test]
    fn many_sessions_may_cost_a_tenth_more_in_the_same_round() {
        let judged = |many: [f64; 3]| {
            let table = table(&[("many", &many, &[10.0, 20.0, 10.0], Goal::AtMost(10.0))]);
            (table.has_failed(), table.to_string())
        };
        let (failed, told) = judged([10.9, 21.8, 19.0]);
        let row = "| 19.0 µs a request, 9.0 % more; 9.0 to 90.0 | 10 at most | met |";
        assert!(!failed && told.contains(row), "{told}");
        assert!(judged([10.9, 22.2, 11.2]).0, "11 % more");
    }
}
