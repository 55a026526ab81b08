//! What every resolver is given: where problems go, and how named files are read.

use std::path::Path;

use postern_edge::read_regular;

use super::access_tests::AccessTest;
use super::problem::{At, Problems};
use super::resolve::planned::Planned;
use super::{Code, Environment, WatchedFile};

/// The state of one load.
#[derive(Debug)]
pub(super) struct Context<'e> {
    pub(super) problems: Problems,
    pub(super) environment: &'e Environment,
    /// Errors on unknown keys are only warnings.
    pub(super) lenient: bool,
    /// Every file that the configuration names, readable or not.
    pub(super) watched: Vec<WatchedFile>,
    /// What was understood of keys that nothing acts on yet.
    pub(super) planned: Planned,
    /// What the file expects of itself.
    pub(super) tests: Vec<AccessTest>,
}

/// The largest file that a key may name (01 §1.5).
const MAX_FILE: u64 = 5 << 20;

impl Context<'_> {
    pub(super) fn fatal(&mut self, code: Code, at: &At, what: impl Into<String>, hint: impl Into<String>) {
        self.problems.fatal(code, at, what, hint);
    }

    pub(super) fn advise(&mut self, code: Code, at: &At, what: impl Into<String>, hint: impl Into<String>) {
        self.problems.advise(code, at, what, hint);
    }

    /// The content of the file that the key `at` names; it is watched from now on.
    pub(super) fn file(&mut self, at: &At, path: &str) -> Option<Vec<u8>> {
        let content = read_regular(Path::new(path), MAX_FILE);
        self.watched.push(WatchedFile::new(path, content.as_deref().ok(), MAX_FILE));
        match content {
            Ok(content) => Some(content),
            Err(error) => {
                let what = format!("the file {path} cannot be read: {error}");
                self.fatal(Code::ReferencedFile, at, what, "name a file that exists and that Postern may read");
                None
            }
        }
    }

    /// The same, as text.
    pub(super) fn text_file(&mut self, at: &At, path: &str) -> Option<String> {
        let content = self.file(at, path)?;
        let text = String::from_utf8(content).ok();
        if text.is_none() {
            let what = format!("the file {path} is not text");
            self.fatal(Code::ReferencedFile, at, what, "name a file that holds UTF-8 text");
        }
        text
    }
}
