//! What became of a reload, in the same words for the log and for who asked for it.

use std::fmt::Write as _;

use serde_json::json;
use tracing::{error, info, warn};

use crate::config::{Colour, Problems, Severity};

/// What a reload came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The new configuration is in force.
    Applied,
    /// No file holds anything else than before.
    Unchanged,
    /// The configuration has errors.
    Refused,
    /// It has none of its own, and still cannot be put in force: why not.
    Unfit(String),
}

/// What became of one reload.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// What it came to.
    pub outcome: Outcome,
    /// The version of the configuration that is in force now; 0 is the one of the start.
    pub version: u64,
    /// How many routes that has.
    pub routes: usize,
    /// Keys that have changed and are taken only at the next start.
    pub needs_restart: Vec<&'static str>,
    /// Everything that was found in the configuration, advice included.
    pub problems: Problems,
}

impl Verdict {
    /// Whether what the files hold is what is in force, as far as it can be without a restart.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        matches!(self.outcome, Outcome::Applied | Outcome::Unchanged)
    }

    /// `applied`, `unchanged` or `refused`.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self.outcome {
            Outcome::Applied => "applied",
            Outcome::Unchanged => "unchanged",
            Outcome::Refused | Outcome::Unfit(_) => "refused",
        }
    }

    /// The verdict in one sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let version = self.version;
        match &self.outcome {
            Outcome::Applied => format!("applied: version {version} is in force, with {} routes", self.routes),
            Outcome::Unchanged => format!("nothing has changed: version {version} stays in force"),
            Outcome::Refused => format!("refused: the configuration has errors; version {version} stays in force"),
            Outcome::Unfit(why) => format!("refused: {why}; version {version} stays in force"),
        }
    }

    /// For people: every problem, what waits for a restart, the verdict.
    #[must_use]
    pub fn to_human(&self) -> String {
        let mut out = String::new();
        if self.problems.iter().next().is_some() {
            out += &self.problems.to_human(Colour::Plain);
            out.push('\n');
        }
        for key in &self.needs_restart {
            // Writing to a string cannot fail.
            let _infallible = writeln!(out, "`{key}` {WAITS}");
        }
        out += &self.sentence();
        out.push('\n');
        out
    }

    /// For programs (`docs/reference/cli.md`).
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        json!({
            "verdict": self.word(),
            "version": self.version,
            "routes": self.routes,
            "needs_restart": self.needs_restart,
            "message": self.sentence(),
            "check": self.problems.to_json(),
        })
    }

    /// For the log: one line for each problem and each key that waits, then the verdict.
    pub fn log(&self) {
        problems(&self.problems);
        for key in &self.needs_restart {
            warn!(key, "`{key}` {WAITS}");
        }
        let (version, routes) = (self.version, self.routes);
        if self.is_good() {
            info!(version, routes, verdict = self.word(), "{}", self.sentence());
        } else {
            error!(version, routes, verdict = self.word(), "{}", self.sentence());
        }
    }
}

const WAITS: &str = "has changed, and takes effect only at the next start";

/// Logs every problem that is told, one line each.
fn problems(problems: &Problems) {
    for problem in problems {
        let (code, key, hint) = (problem.code, problem.at.key.as_str(), problem.hint.as_str());
        let (line, column) = (problem.at.place.line, problem.at.place.column);
        match problem.severity {
            Severity::Fatal => error!(%code, key, line, column, hint, "{}", problem.what),
            Severity::Advisory => warn!(%code, key, line, column, hint, "{}", problem.what),
        }
    }
    let [fatal, advisory] = [Severity::Fatal, Severity::Advisory].map(|severity| problems.untold(severity));
    if fatal + advisory > 0 {
        warn!(fatal, advisory, "there are more problems than these");
    }
}
