//! A file that the configuration was made from, and what it held then.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest;

/// A file whose change is a reason to load again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatchedFile {
    /// Which file.
    pub path: PathBuf,
    /// The SHA-256 of what was read; `None` if nothing could be.
    content: Option<[u8; 32]>,
}

impl WatchedFile {
    /// The file at `path`, of which `content` was read.
    pub(super) fn new(path: impl Into<PathBuf>, content: Option<&[u8]>) -> Self {
        Self { path: path.into(), content: content.and_then(hash) }
    }

    /// Whether the file now holds something else. Reads it: it blocks.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        now(&self.path) != self.content
    }
}

fn now(path: &Path) -> Option<[u8; 32]> {
    hash(&std::fs::read(path).ok()?)
}

fn hash(content: &[u8]) -> Option<[u8; 32]> {
    digest::digest(&digest::SHA256, content).as_ref().try_into().ok()
}
