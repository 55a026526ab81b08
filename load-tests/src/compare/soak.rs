//! Hours of a working day in a short time: steady load, and beside it reloads, sign-ins, sign-outs and an application that comes
//! and goes. Nothing may fail that is not due to that, and nothing may grow.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::ask;
use super::cores::Cores;
use super::peer::{Binaries, Peer, STRANGER};
use super::site::{self, HOST, Site};
use super::steady::{Steady, steady};
use crate::table::{Goal, Table, count};

/// How long, and how much.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Soak {
    /// How long; what is held settles in a sixth of it, or in two minutes
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(6..))]
    minutes: u64,
    /// How much of what one core can take over HTTP/1.1, in per cent
    #[arg(long, value_name = "N", default_value_t = 70, value_parser = clap::value_parser!(u32).range(1..=90))]
    load: u32,
    /// The binary of Postern; built as a release if none is named
    #[arg(long, value_name = "FILE")]
    postern: Option<PathBuf>,
}

/// What a process holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    kilobytes: u64,
    files: usize,
    threads: usize,
    tasks: usize,
}

/// Runs it, and tells every ten seconds how it goes.
pub(crate) fn soak(options: &Soak) -> Result<Table> {
    let binaries = Binaries { postern: options.postern.clone().map_or_else(super::build, Ok)?, hop: None };
    let cores = Cores::take()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let _inside = runtime.enter();
    let site = Site::start(&cores)?;
    let peer = Peer::watched(&site, &cores, &binaries)?;
    peer.does_its_work()?;
    let most = ask::wrk(&peer, "/1k", 32, 5)?;
    ensure!(most.failed == 0, "{} requests failed before anything began", most.failed);
    let rate = u32::try_from(most.requests)? / u32::try_from(most.took.as_secs().max(1))? * options.load / 100;
    eprintln!("{rate} requests a second for {} minutes", options.minutes);
    let seen = Arc::new(Steady::default());
    let mut clients = steady(&peer, rate.max(1), &seen)?;
    let mut day = Day::begin(&peer, &site)?;
    let (began, span) = (Instant::now(), Duration::from_secs(60 * options.minutes));
    let mut held: Vec<(Duration, Held)> = Vec::new();
    while began.elapsed() < span {
        let turn = Instant::now();
        let now = match day.turn().and_then(|()| Held::by(&peer)) {
            Ok(now) => now,
            // What was seen until then is told all the same.
            Err(error) => {
                day.wrong.push(format!("{error:#}"));
                break;
            }
        };
        held.push((began.elapsed(), now));
        eprintln!(
            "{:>5} s: {} answered, {} failed, {} MB, {} files, {} threads, {} tasks",
            began.elapsed().as_secs(),
            seen.versions.iter().map(|version| version.answered.load(Ordering::Relaxed)).sum::<u64>(),
            seen.failures().len(),
            now.kilobytes / 1024,
            now.files,
            now.threads,
            now.tasks,
        );
        std::thread::sleep(TURN.saturating_sub(turn.elapsed()));
    }
    let due = f64::from(rate) / 2.0 * began.elapsed().as_secs_f64();
    seen.ended.store(true, Ordering::Relaxed);
    while let Some(client) = runtime.block_on(clients.join_next()) {
        day.wrong.extend(client.err().map(|error| format!("a client failed: {error}")));
    }
    Ok(table(&seen, due, &day, &held, span))
}

impl Held {
    fn by(peer: &Peer) -> Result<Self> {
        let (files, threads) = peer.processes.files_and_threads();
        Ok(Self { kilobytes: peer.processes.memory() / 1024, files, threads, tasks: peer.tasks()? })
    }
}

/// What goes on beside the load.
struct Day<'a> {
    peer: &'a Peer,
    site: &'a Site,
    flapping: std::net::SocketAddr,
    application: Option<super::cores::Processes>,
    turns: u32,
    sign_ins: u32,
    wrong: Vec<String>,
}

impl<'a> Day<'a> {
    fn begin(peer: &'a Peer, site: &'a Site) -> Result<Self> {
        Ok(Self { peer, site, flapping: site::free()?, application: None, turns: 0, sign_ins: 0, wrong: Vec::new() })
    }

    /// A reload, which has to be in force soon; a sign-in, which has to work, and its sign-out, after which it must not; and the
    /// other application, there in every second turn.
    fn turn(&mut self) -> Result<()> {
        self.turns += 1;
        let turn = self.turns;
        self.application = match self.application.take() {
            Some(_ends_here) => None,
            None => Some(self.site.another("flapping", self.flapping)?),
        };
        let port = self.peer.address.port();
        self.peer.configure(
            self.site,
            &format!(
                "  - from: https://flapping.bench.localhost:{port}\n    to: http://{}\n    \
                 allow_public_unauthenticated_access: true\nset_response_headers: {{ X-Turn: '{turn}' }}\n",
                self.flapping
            ),
        )?;
        self.peer.processes.hang_up()?;
        let jar = self.site.file("soak.cookies");
        let cookie = self.peer.sign_in(&jar)?;
        self.sign_ins += 1;
        let (began, mark) = (Instant::now(), format!("x-turn: {turn}\r\n"));
        loop {
            let head = self.peer.shows(HOST, &cookie)?.to_ascii_lowercase();
            if !head.contains(" 200") {
                self.wrong.push(format!("turn {turn}, signed in: {head}"));
                break;
            }
            if head.contains(&mark) {
                break;
            }
            if began.elapsed() > SOON {
                self.wrong.push(format!("turn {turn}: the reload is not in force"));
                break;
            }
        }
        let expected = if self.application.is_some() { " 200" } else { " 50" };
        let head = self.peer.shows("flapping.bench.localhost", STRANGER)?;
        if !head.contains(expected) {
            self.wrong.push(format!("turn {turn}, the other application, expected{expected}: {head}"));
        }
        self.peer.sign_out(&jar)?;
        let head = self.peer.shows(HOST, &cookie)?;
        if head.contains(" 200") {
            self.wrong.push(format!("turn {turn}: signed out, and in"));
        }
        Ok(())
    }
}

fn table(seen: &Steady, due: f64, day: &Day<'_>, held: &[(Duration, Held)], span: Duration) -> Table {
    let mut table = Table::of_goals();
    let failures = seen.failures();
    for failure in failures.iter().take(5).chain(&day.wrong) {
        eprintln!("{failure}");
    }
    for version in &seen.versions {
        let (name, answered) = (version.name, count(version.answered.load(Ordering::Relaxed)));
        let longest = count(version.longest.load(Ordering::Relaxed));
        let less = (1.0 - answered / due) * 100.0;
        let what = format!("less answered over {name} than {due:.0} that were due, in %");
        table.goal(what, format!("{answered}: {less:.1} %"), Goal::AtMost(10.0), true, Some(less));
        let what = format!("the longest answer over {name}, in ms");
        table.goal(what, longest.to_string(), Goal::AtMost(LONG), true, (answered > 0.0).then_some(longest));
    }
    table.zero("requests of that load that failed".to_owned(), failures.len());
    let what = format!(
        "wrong in {} reloads, {} sign-ins and sign-outs, an application that came and went",
        day.turns, day.sign_ins
    );
    table.zero(what, day.wrong.len());
    // What a process takes in its first minutes it keeps; from then on, no more.
    let from = SETTLES.max(span / 6);
    let settled: Vec<_> = held.iter().filter(|(at, _)| *at >= from).map(|(_, held)| *held).collect();
    let (first, last) = settled.split_at(settled.len() / 2);
    let mut grown = |what: &str, of: fn(&Held) -> f64, most: f64| {
        let most_of = |held: &[Held]| held.iter().map(of).fold(0.0, f64::max);
        let (before, after) = (most_of(first), most_of(last));
        let per_cent = (after / before.max(1.0) - 1.0) * 100.0;
        let judged = if after <= before + 2.0 { 0.0 } else { per_cent };
        let text = format!("{before} at most, then {after}: {per_cent:+.1} %");
        table.goal(
            format!("{what}, in the halves of the time after {} s; more in %, but for two", from.as_secs()),
            text,
            Goal::AtMost(most),
            true,
            (before > 0.0 && after > 0.0).then_some(judged),
        );
    };
    grown("KB of memory", |held| count(held.kilobytes), 5.0);
    grown("files and sockets", |held| count(held.files), 10.0);
    grown("tasks", |held| count(held.tasks), 10.0);
    grown("threads", |held| count(held.threads), 10.0);
    table
}

const TURN: Duration = Duration::from_secs(10);
/// What is held has settled by then: an upstream connection of the configuration before waits for a minute.
const SETTLES: Duration = Duration::from_secs(120);
/// Until a reload has to be in force.
const SOON: Duration = Duration::from_secs(5);
/// What no answer may take, in milliseconds: who waits for so long beside sign-ins has waited for something that was lost.
const LONG: f64 = 5000.0;
