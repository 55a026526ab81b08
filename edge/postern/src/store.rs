//! `postern store check`: whether the store of a configuration is what Postern depends on. Nothing has to run for it.

use std::fmt::Write as _;

use postern_storage::{Finding, Level, Report};
use serde_json::{Value, json};

use crate::ask::{self, Failed, Page};
use crate::cli::{self, Exit, OfStore};
use crate::config::Colour;
use crate::run;

/// Looks, and says what was found.
#[must_use]
pub(crate) fn store(asked: &OfStore) -> Exit {
    let OfStore::Check(asked) = asked;
    ask::answered(check(asked))
}

fn check(asked: &cli::CheckStore) -> Result<Exit, Failed> {
    let loaded = ask::load(asked.config.as_deref(), asked.lenient)?;
    let runtime = run::control_runtime().map_err(|_| Failed::Told)?;
    let report = runtime.block_on(postern_storage::check(&loaded.config.storage, loaded.config.autocert.is_some()));
    ask::print(asked.format, |colour| to_human(&report, colour), || to_json(&report));
    Ok(if report.is_good() { Exit::Ok } else { Exit::Problem })
}

const fn word(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok",
        Level::Unknown => "unknown",
        Level::Warn => "warn",
        Level::Fail => "fail",
    }
}

fn at(finding: &Finding) -> String {
    finding.server.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string)
}

fn to_human(report: &Report, colour: Colour) -> String {
    let page = Page(colour);
    let row = |finding: &Finding| {
        let level = match finding.level {
            Level::Ok => page.green(word(finding.level)),
            Level::Unknown => word(finding.level).to_owned(),
            Level::Warn => page.bold(word(finding.level)),
            Level::Fail => page.red(word(finding.level)),
        };
        let remedy = finding.remedy.as_ref().map(|remedy| format!(": {remedy}")).unwrap_or_default();
        vec![level, at(finding), finding.about.to_owned(), ask::clean(&format!("{}{remedy}", finding.what))]
    };
    let rows: Vec<_> = report.findings.iter().map(row).collect();
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _infallible = page.columns(&mut out, &rows);
    let count = |level| report.findings.iter().filter(|finding| finding.level == level).count();
    let (warn, fail) = (count(Level::Warn), count(Level::Fail));
    let _infallible = writeln!(out, "{} looked at, {warn} to think about, {fail} to mend", report.findings.len());
    out
}

fn to_json(report: &Report) -> Value {
    let finding = |finding: &Finding| {
        json!({
            "level": word(finding.level),
            "about": finding.about,
            "server": finding.server.as_ref().map(ToString::to_string),
            "what": finding.what,
            "remedy": finding.remedy,
        })
    };
    json!({ "good": report.is_good(), "findings": report.findings.iter().map(finding).collect::<Vec<_>>() })
}
