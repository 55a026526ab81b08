//! The profile that releases are optimised by (PGO): what a release counts that is put under every load of the comparison.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::peer::{Binaries, HOP, HOP_FIELDS, POSTERN, POSTERN_LOGGING, POSTERN_ROUTES};
use super::{HOP_PROGRAM, Options, POSTERN_PROGRAM, TELL, built, measure, root, site};
use crate::table::Table;

/// How long to count.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Profile {
    /// How long a turn of each load is
    #[arg(long, value_name = "SECONDS", default_value_t = 4)]
    seconds: u64,
}

/// What releases are optimised by.
const PROFILE: &str = "edge/postern/release.profdata";

/// Counts, and writes the profile anew.
pub(crate) fn profile(options: &Profile) -> Result<Table> {
    let loads = Options {
        scenarios: Vec::new(),
        rounds: 1,
        seconds: options.seconds,
        idle: 500,
        only: [POSTERN, POSTERN_LOGGING, POSTERN_ROUTES, HOP, HOP_FIELDS].map(str::to_owned).to_vec(),
        postern: None,
        hop: None,
        hold: false,
        out: None,
    };
    loads.check()?;
    let merger = merger()?;
    let folder = root()?.join("target/profile");
    let counts = folder.join("raw");
    let counting = |what: &str| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--release", "--locked"]).args(TELL.split(' ')).args(what.split(' '));
        cargo.arg("--target-dir").arg(&folder);
        cargo.env("CARGO_ENCODED_RUSTFLAGS", format!("-Cprofile-generate={}", counts.display()));
        built(cargo)
    };
    // The hop counts too: what Postern costs above it is then not the profile.
    let binaries = Binaries { postern: counting(POSTERN_PROGRAM)?, hop: Some(counting(HOP_PROGRAM)?) };
    // Build scripts have counted too, and so have earlier runs, of other code.
    if counts.exists() {
        std::fs::remove_dir_all(&counts)?;
    }
    // What they take while they count is nothing to be told.
    let (_, peers) = measure(&loads, &binaries)?;
    for peer in peers {
        let ended = peer.processes.end()?;
        ensure!(ended.success(), "{ended}: no counts were written");
    }
    let profile = root()?.join(PROFILE);
    let mut merge = Command::new(merger);
    merge.args(["merge", "--sparse", "--output"]).arg(&profile).arg(counts);
    site::output(merge).context("merging what was counted")?;
    let mut table = Table::new(&["profile", "bytes"]);
    table.row([PROFILE.to_owned(), std::fs::metadata(profile)?.len().to_string()]);
    Ok(table)
}

/// `llvm-profdata` of this checkout's toolchain: it has to be of the same LLVM.
fn merger() -> Result<PathBuf> {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir"]).current_dir(root()?);
    let merger = Path::new(site::output(rustc)?.trim()).with_file_name("bin").join("llvm-profdata");
    ensure!(merger.exists(), "{} is missing: run `rustup component add llvm-tools`", merger.display());
    Ok(merger)
}
