//! Refreshes by several processes while some are killed, and while the provider is away. That takes the real binary, edges,
//! browsers and a provider: the capability tests have them, and keep the long forms of their own tests for this.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::table::Table;

/// Runs them, and gives the rows that they tell.
pub(crate) fn run() -> Result<Table> {
    let test = ["test", "--locked", "-p", "postern", "--test", "capability", "--"];
    let long = ["--ignored", "--nocapture", "refresh::long"];
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(test.iter().chain(&long)).current_dir(env!("CARGO_MANIFEST_DIR")).stderr(Stdio::inherit());
    for variable in OF_THIS_CRATE {
        cargo.env_remove(variable);
    }
    let output = cargo.output().context("cargo")?;
    let (mut table, told) = (Table::new(&["what", "seen"]), String::from_utf8_lossy(&output.stdout));
    for line in told.lines() {
        match line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) {
            Some(row) => table.row(row.split(" | ").map(str::to_owned)),
            None => eprintln!("{line}"),
        }
    }
    if !output.status.success() {
        table.broken();
    }
    Ok(table)
}

/// What `cargo run` says of this crate: build scripts of libraries would take it for a change, and all would be built anew.
const OF_THIS_CRATE: [&str; 7] = [
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_LINKS",
    "CARGO_PKG_NAME",
    "CARGO_PKG_VERSION_MAJOR",
    "CARGO_PKG_VERSION_MINOR",
    "CARGO_PKG_VERSION_PATCH",
    "CARGO_PKG_VERSION_PRE",
];
