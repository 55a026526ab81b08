//! What a request costs in Postern and in other proxies of the same machine, in rounds in which each has its turn.
//!
//! The proxies are held on one core, and who asks and who answers on another. Processor time counts: it hardly depends on what
//! else the machine does, unlike requests a second. Before anything is measured every proxy has to show that it does its work.

mod ask;
mod cores;
mod peer;
mod profile;
mod report;
mod scenario;
pub(crate) mod site;
mod soak;
mod steady;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::table::Table;
pub(crate) use ask::{Dial, Stream, read_wrk};
pub(crate) use cores::{Cores, Processes};
use peer::{Binaries, HOP, HOP_FIELDS, Peer, is_wanted};
pub(crate) use peer::{host, sign_in};
pub(crate) use profile::{Profile, profile};
use report::Report;
use scenario::Scenario;
use site::Site;
pub(crate) use soak::{Soak, soak};

/// What to compare, and how long.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Which; all of them if none is named
    #[arg(value_enum, value_name = "SCENARIO")]
    scenarios: Vec<Scenario>,
    /// How often each has its turn
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// How long a turn is
    #[arg(long, value_name = "SECONDS", default_value_t = 3)]
    seconds: u64,
    /// How many connections do nothing, where that is looked at; haproxy is set up for 6,000
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    idle: usize,
    /// Only proxies of these names, as the table has them
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// The binary of Postern; built as a release if none is named
    #[arg(long, value_name = "FILE")]
    postern: Option<PathBuf>,
    /// The hop of Pingora, example `hop` of postern-edge; built beside Postern if neither is named
    #[arg(long, value_name = "FILE")]
    hop: Option<PathBuf>,
    /// Measure nothing: say where everybody listens and what is shown there, and wait for the end of the standard input
    #[arg(long)]
    hold: bool,
    /// A folder for the figures: compare.json, compare.md, compare.svg
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

/// Measures, and tells what it is doing on the standard error.
pub(crate) fn run(options: &Options) -> Result<Table> {
    options.check()?;
    let hop = match (&options.hop, &options.postern) {
        (None, None) if [HOP, HOP_FIELDS].iter().any(|hop| is_wanted(hop, &options.only)) => {
            Some(release(HOP_PROGRAM)?)
        }
        (named, _) => named.clone(),
    };
    let binaries = Binaries { postern: options.postern.clone().map_or_else(build, Ok)?, hop };
    Ok(measure(options, &binaries)?.0)
}

impl Options {
    fn check(&self) -> Result<()> {
        ensure!(self.rounds > 0 && self.seconds > 0, "--rounds and --seconds begin at 1");
        ensure!((1..=12_000).contains(&self.idle), "--idle is from 1 to 12000: more would want more files than 20,000");
        Ok(())
    }
}

/// All rounds; gives the proxies too, which still run.
fn measure(options: &Options, binaries: &Binaries) -> Result<(Table, Vec<Peer>)> {
    let cores = Cores::take()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _inside = runtime.enter();
    let site = Site::start(&cores)?;
    let (peers, skipped) = Peer::start_all(&site, &cores, binaries, &options.only)?;
    for (name, why) in &skipped {
        eprintln!("{name}: left out, {why}");
    }
    let mut report = Report::new(&peers, skipped);
    for peer in &peers {
        peer.does_its_work().with_context(|| format!("{} does not do its work", peer.name()))?;
        eprintln!("{}: does its work", peer.name());
    }
    if options.hold {
        return Ok((hold(&peers), peers));
    }
    let wanted = |scenario: &Scenario| options.scenarios.is_empty() || options.scenarios.contains(scenario);
    let scenarios: Vec<_> = Scenario::all().into_iter().filter(wanted).collect();
    for (at, scenario) in scenarios.iter().enumerate() {
        let rounds = scenario.rounds(options.rounds);
        for round in 1..=rounds {
            for peer in &peers {
                if !scenario.suits(peer) {
                    continue;
                }
                eprintln!("[{}/{}] {scenario}, round {round} of {rounds}: {}", at + 1, scenarios.len(), peer.name());
                let sample = runtime.block_on(scenario.measure(peer, &site, options.seconds, options.idle));
                let sample = sample.with_context(|| format!("{scenario} of {}", peer.name()))?;
                report.add(*scenario, peer.name(), sample);
            }
        }
    }
    if let Some(folder) = &options.out {
        report.write(folder)?;
    }
    Ok((report.table(), peers))
}

/// Leaves them to somebody else, such as a profiler.
fn hold(peers: &[Peer]) -> Table {
    let mut table = Table::new(&["proxy", "process", "address", "cookie"]);
    for peer in peers {
        let process = peer.processes.id().to_string();
        table.row([peer.name().to_owned(), process, peer.url("/1k"), peer.cookie.clone()]);
    }
    eprintln!("{table}");
    let _either_way_it_is_over = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    table
}

/// A release of this checkout.
pub(crate) fn build() -> Result<PathBuf> {
    release(POSTERN_PROGRAM)
}

/// What Cargo calls them.
const POSTERN_PROGRAM: &str = "--bin postern";
const HOP_PROGRAM: &str = "--package postern-edge --example hop";

/// What has Cargo tell where it puts what it builds.
const TELL: &str = "--message-format json-render-diagnostics";

/// The root of this checkout.
fn root() -> Result<PathBuf> {
    Ok(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?)
}

/// One program as it is released.
fn release(what: &str) -> Result<PathBuf> {
    let mut make = Command::new("make");
    make.args(["--no-print-directory", "release", &format!("ARGS={TELL} {what}")]);
    built(make)
}

/// What Cargo tells whom it runs of its package. The build of ring looks at it, and another value builds all anew that uses it.
const OF_THIS_PACKAGE: [&str; 7] = [
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_LINKS",
    "CARGO_PKG_NAME",
    "CARGO_PKG_VERSION_MAJOR",
    "CARGO_PKG_VERSION_MINOR",
    "CARGO_PKG_VERSION_PATCH",
    "CARGO_PKG_VERSION_PRE",
];

/// Builds, and gives the program.
fn built(mut builder: Command) -> Result<PathBuf> {
    eprintln!("{builder:?}; the first time takes some minutes");
    for name in OF_THIS_PACKAGE {
        builder.env_remove(name);
    }
    let output = builder.current_dir(root()?).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("running {builder:?}"))?;
    ensure!(output.status.success(), "{builder:?} failed");
    let artifacts = String::from_utf8_lossy(&output.stdout);
    let binary = artifacts
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|artifact| artifact.get("executable")?.as_str().map(PathBuf::from))
        .next_back();
    binary.context("cargo names no binary")
}
