//! The profile that releases are optimised by (PGO): what a release counts that is put under every load of the comparison.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::peer::{Binaries, HOP, POSTERN, POSTERN_LOGGING, POSTERN_ROUTES};
use super::{BARE_HOP, Flag, Options, PROFILE, built, cargo, measure, root, site};
use crate::table::Table;

/// How long to count.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Profile {
    /// How long a turn of each load is
    #[arg(long, value_name = "SECONDS", default_value_t = 4)]
    seconds: u64,
}

/// Counts, and writes the profile anew.
pub(crate) fn profile(options: &Profile) -> Result<Table> {
    let merger = merger()?;
    let folder = root()?.join("target/profile");
    let raw = folder.join("raw");
    let counting = |what: &[&str]| {
        let mut cargo = cargo(what, &Flag::Generate(raw.clone()))?;
        cargo.arg("--target-dir").arg(&folder);
        built(&mut cargo)
    };
    // The hop is optimised by what it counts itself, so that what is above it is the gate.
    let binaries = Binaries { postern: counting(&["--bin", "postern"])?, hop: Some(counting(&BARE_HOP)?) };
    // Build scripts have counted too, and so have earlier runs, of other code.
    if raw.exists() {
        std::fs::remove_dir_all(&raw)?;
    }
    let loads = Options {
        scenarios: Vec::new(),
        rounds: 1,
        seconds: options.seconds,
        idle: 500,
        only: [POSTERN, POSTERN_LOGGING, POSTERN_ROUTES, HOP].map(str::to_owned).to_vec(),
        postern: None,
        hop: None,
        hold: false,
        out: None,
    };
    loads.check()?;
    // What they take while they count is nothing to be told.
    let (_, peers) = measure(&loads, &binaries)?;
    for peer in peers {
        let ended = peer.processes.end()?;
        ensure!(ended.success(), "{ended}: no counts were written");
    }
    let counts = std::fs::read_dir(&raw).context("nothing was counted")?;
    let counts = counts.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let profile = root()?.join(PROFILE);
    let mut merge = Command::new(merger);
    merge.args(["merge", "--sparse", "--output"]).arg(&profile).args(counts);
    site::output(merge)?;
    let mut table = Table::new(&["profile", "bytes"]);
    table.row([PROFILE.to_owned(), std::fs::metadata(profile)?.len().to_string()]);
    Ok(table)
}

/// `llvm-profdata` of this checkout's toolchain: it has to be of the same LLVM.
fn merger() -> Result<PathBuf> {
    let rustc = |arguments: &[&str]| {
        let mut rustc = Command::new("rustc");
        rustc.args(arguments).current_dir(root()?);
        site::output(rustc)
    };
    let told = rustc(&["--version", "--verbose"])?;
    let host = told.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc tells no host")?;
    let merger =
        PathBuf::from(rustc(&["--print", "sysroot"])?.trim()).join("lib/rustlib").join(host).join("bin/llvm-profdata");
    ensure!(merger.exists(), "{} is missing: run `rustup component add llvm-tools`", merger.display());
    Ok(merger)
}
