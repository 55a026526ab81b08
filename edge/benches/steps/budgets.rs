//! What each step may take: so many instructions of the unoptimised build, of which a change may add a twentieth at most.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::ExitCode;

use crate::{STEPS, instructions};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/steps/budgets.txt");
/// Few, since unoptimised code under Valgrind is slow; enough for what is done before them to be lost among them.
const TURNS: u64 = 1_500;

/// Counts each step and holds it against the file; with `set` the file is written anew.
pub(crate) fn hold(set: bool) -> ExitCode {
    let text = fs::read_to_string(FILE).unwrap_or_default();
    let budgets: BTreeMap<_, _> = text.lines().filter_map(|line| line.rsplit_once(" = ")).collect();
    let (mut written, mut over) = (HEAD.to_owned(), Vec::new());
    for (name, _) in STEPS {
        let count = instructions(name, TURNS).unwrap_or_else(|| panic!("this needs valgrind")).round();
        let _infallible = writeln!(written, "{name} = {count}");
        let budget: Option<f64> = budgets.get(name).and_then(|budget| budget.parse().ok());
        let change = budget.map(|budget| (count / budget - 1.0) * 100.0);
        println!("{name:<34} {count:>8} {}", change.map_or("no budget".to_owned(), |change| format!("{change:+.1} %")));
        if change.is_none_or(|change| change > MOST) {
            over.push(name);
        }
    }
    if set {
        fs::write(FILE, written).unwrap();
    } else if !cfg!(target_arch = "x86_64") {
        println!("the budgets are those of x86_64: nothing is held to them here");
    } else if !over.is_empty() {
        println!("over their budgets by more than {MOST} %: {}", over.join("; "));
        println!("what is worth it is set with: make budgets ARGS=--set");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// How many per cent more are let pass.
const MOST: f64 = 5.0;
const HEAD: &str =
    "# Instructions of each step in the unoptimised build. Set by `make budgets ARGS=--set`, held by `make budgets`.\n";
