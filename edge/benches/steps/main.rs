//! What the steps cost that every request takes: `cargo bench -p postern-edge`.
//!
//! For each step, but those `through` the gate, the instructions that it executes, which are the same on every run; and the time on
//! this machine. Instructions are those of two runs under Valgrind, one of which has more to do: the difference is the work alone.
//!
//! `make budgets` holds the instructions of the unoptimised build, which the tests have anyway, against `budgets.txt`: one that
//! rose by more than a twentieth is an error. `make budgets ARGS=--set` writes the file anew.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_precision_loss,
    reason = "a program for people at a terminal; what goes wrong ends it"
)]

mod budgets;
mod decisions;
mod gate;
mod lookups;
mod whole;

use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use postern_edge::{CanonicalPath, PathConfig};

/// One step with different inputs; each turn takes the next of them.
struct Step {
    name: &'static str,
    turn: Box<dyn Fn(usize)>,
}

/// By name, made when asked for: tables are large.
type Made = (&'static str, fn() -> Box<dyn Fn(usize)>);

const STEPS: [Made; 13] = [
    ("find: 10 hosts", || lookups::hosts(10)),
    ("find: 10,000 hosts", || lookups::hosts(10_000)),
    ("find: 10,000 wildcard hosts", || lookups::wildcards(10_000)),
    ("find: 1,000 routes on one host", || lookups::paths(1000)),
    ("decide: 2 criteria", decisions::usual),
    ("decide: 5 rules, 20 criteria", decisions::large),
    ("decide: the same, refused", decisions::refused),
    ("path: plain", || path("/api/v1/teams/4711/members")),
    ("path: escapes and dots", || path("/api/./v1//teams/%34711/x/../caf%c3%a9")),
    ("host", lookups::host_parse),
    ("gate: admit who is signed in", gate::admit),
    ("gate: the head that goes up", gate::up),
    ("gate: the head that comes down", gate::down),
];

/// Too long for the unoptimised build under Valgrind, so that no budget holds them.
const WHOLE: [Made; 1] = [("request: HTTP/1.1, kept alive", whole::kept_alive)];

/// What differs between these is how far away memory is, which instructions do not tell: only the time is measured.
const FAR: [Made; 4] = [
    ("through: 1 session, 1 route", || gate::through(1, 1)),
    ("through: 100,000 sessions, 10 routes", || gate::through(100_000, 10)),
    ("through: 10,000 sessions, 10 routes", || gate::through(10_000, 10)),
    ("through: 10,000 sessions and routes", || gate::through(10_000, 10_000)),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    match (arguments.next().as_deref(), arguments.next(), arguments.next()) {
        (Some("--run"), Some(name), Some(turns)) => run(&step(&name), turns.parse().unwrap()),
        (Some("--budgets"), argument, None) => {
            return budgets::hold(argument.as_deref() == Some("--set"));
        }
        (only, _, _) => table(only.unwrap_or_default()),
    }
    ExitCode::SUCCESS
}

/// Prints a line for each step whose name contains `only`.
fn table(only: &str) {
    println!("{:<37} {:>12} {:>10} {:>10}", "", "instructions", "ns, least", "ns, median");
    for (name, _) in STEPS.iter().chain(&WHOLE).filter(|(name, _)| name.contains(only)) {
        let turns = if WHOLE.iter().any(|(own, _)| own == name) { 1_000 } else { 10_000 };
        let instructions =
            instructions(name, turns).map_or_else(|| "no valgrind".to_owned(), |count| format!("{count:.0}"));
        let (least, median) = times(&step(name), turns);
        println!("{name:<37} {instructions:>12} {least:>10.1} {median:>10.1}");
    }
    for (name, _) in FAR.iter().filter(|(name, _)| name.contains(only)) {
        let (least, median) = times(&step(name), 10_000);
        println!("{name:<37} {:>12} {least:>10.1} {median:>10.1}", "");
    }
}

fn step(name: &str) -> Step {
    let (name, make) = STEPS
        .iter()
        .chain(&WHOLE)
        .chain(&FAR)
        .find(|(own, _)| *own == name)
        .unwrap_or_else(|| panic!("there is no step {name}"));
    Step { name, turn: make() }
}

fn run(step: &Step, turns: usize) {
    (0..turns).for_each(|turn| (step.turn)(turn));
}

/// The least and the median time of a turn.
fn times(step: &Step, turns: u64) -> (f64, f64) {
    let turns = usize::try_from(turns).unwrap() * 2;
    run(step, turns);
    let mut times: Vec<f64> = (0..50)
        .map(|_| {
            let begun = Instant::now();
            run(step, turns);
            begun.elapsed().as_secs_f64() * 1e9 / turns as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let at = |index: usize| times.get(index).copied().unwrap_or_else(|| panic!("{} was not measured", step.name));
    (at(0), at(times.len() / 2))
}

/// The instructions of one of so many turns; `None` without Valgrind.
fn instructions(name: &str, turns: u64) -> Option<f64> {
    let more = counted(name, 3 * turns)?;
    let less = counted(name, turns)?;
    Some((more - less) as f64 / (2 * turns) as f64)
}

/// The instructions of this program with so many turns.
fn counted(name: &str, turns: u64) -> Option<u64> {
    let program = std::env::current_exe().unwrap();
    let ended = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(Path::new(&program))
        .args(["--run", name, &turns.to_string()])
        .stdout(Stdio::null())
        .output()
        .ok()?;
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{told}");
    let (_, count) =
        told.split_once("I   refs:").or_else(|| told.split_once("I refs:")).unwrap_or_else(|| panic!("{told}"));
    Some(count.lines().next()?.trim().replace(',', "").parse().unwrap())
}

fn path(raw: &'static str) -> Box<dyn Fn(usize)> {
    let rules = PathConfig::default();
    Box::new(move |_| {
        black_box(CanonicalPath::parse(black_box(raw.as_bytes()), &rules).unwrap());
    })
}
