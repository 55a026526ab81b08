//! Looks at a store before anybody depends on it: what holds, what does not, and what to do about it.

use std::path::Path;

use crate::config::{Server, StorageConfig};
use crate::redis;

/// How good a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// It cannot be seen by who asks.
    Unknown,
    /// It works, and something may be lost one day.
    Warn,
    /// Postern cannot rely on it.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How good it is.
    pub level: Level,
    /// What was looked at.
    pub about: &'static str,
    /// Where; `None`: the store as a whole.
    pub server: Option<Server>,
    /// What was found.
    pub what: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Finding {
    pub(crate) fn new(
        level: Level,
        about: &'static str,
        server: Option<&Server>,
        what: String,
        remedy: Option<String>,
    ) -> Self {
        Self { level, about, server: server.cloned(), what, remedy }
    }

    pub(crate) fn ok(about: &'static str, server: Option<&Server>, what: String) -> Self {
        Self::new(Level::Ok, about, server, what, None)
    }

    pub(crate) fn unknown(about: &'static str, server: &Server, what: &str) -> Self {
        Self::new(Level::Unknown, about, Some(server), what.to_owned(), None)
    }

    pub(crate) fn warn(about: &'static str, server: Option<&Server>, what: String, remedy: &str) -> Self {
        Self::new(Level::Warn, about, server, what, Some(remedy.to_owned()))
    }

    pub(crate) fn fail(about: &'static str, server: Option<&Server>, what: String, remedy: &str) -> Self {
        Self::new(Level::Fail, about, server, what, Some(remedy.to_owned()))
    }
}

/// Everything that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order in which it was looked at.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing stands in the way.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.findings.iter().all(|finding| finding.level < Level::Fail)
    }

    pub(crate) fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.findings.extend(other.findings);
    }
}

/// Looks at the store that a configuration names, without opening it: a Postern that runs with it is not in the way.
/// `deposits`: processes leave something for each other in it, too.
pub async fn check(config: &StorageConfig, deposits: bool) -> Report {
    match config {
        StorageConfig::Memory => {
            let what = "in the memory of one process: a restart ends every session".to_owned();
            let remedy = "set `databroker_storage_type` to `file`, or to `redis` for several processes";
            Report { findings: vec![Finding::warn("persistence", None, what, remedy)] }
        }
        StorageConfig::File { path } => Report { findings: vec![file(path)] },
        StorageConfig::Redis(config) => redis::check(config, deposits).await,
    }
}

fn file(path: &Path) -> Finding {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => {
            let what =
                format!("{shown}, {} KiB: each write is on disk when it counts; for one process", found.len() / 1024);
            Finding::ok("file", None, what)
        }
        Ok(_) => Finding::fail("file", None, format!("{shown} is no file"), "name a file"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Finding::ok("file", None, format!("{shown} is not there yet: the first start makes it"))
        }
        Err(error) => Finding::fail("file", None, format!("{shown}: {error}"), "let the user of Postern use it"),
    }
}
