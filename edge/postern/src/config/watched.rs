//! A file that the configuration was made from, and what it held then.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use postern_edge::read_regular;

/// A file whose change is a reason to load again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatchedFile {
    /// Which file.
    pub path: PathBuf,
    /// The SHA-256 of what was read; `None` if nothing could be.
    content: Option<[u8; 32]>,
    /// More than so many bytes of it are never read.
    largest: u64,
}

impl WatchedFile {
    /// The file at `path`, of which `content` was read.
    pub(super) fn new(path: impl Into<PathBuf>, content: Option<&[u8]>, largest: u64) -> Self {
        Self { path: path.into(), content: content.and_then(hash), largest }
    }

    /// Whether the file now holds something else. Reads it: it blocks.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        match read_regular(&self.path, self.largest) {
            // A pipe gives what it holds only once: looking again would find something else.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => false,
            content => content.ok().and_then(|content| hash(&content)) != self.content,
        }
    }
}

/// The same as [`read_regular`], of a pipe too, and then it waits for whoever writes: the start has nothing else to do.
pub(super) fn read_any(path: &Path, largest: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    std::fs::File::open(path)?.take(largest.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > largest {
        let what = format!("it is larger than {} MiB", largest >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    Ok(content)
}

/// The SHA-256.
pub(super) fn hash(content: &[u8]) -> Option<[u8; 32]> {
    digest::digest(&digest::SHA256, content).as_ref().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_too_large_and_stays_so_has_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large");
        std::fs::write(&path, "12345").unwrap();
        assert!(read_regular(&path, 4).is_err());
        let watched = WatchedFile::new(&path, None, 4);
        assert!(!watched.has_changed());
        std::fs::write(&path, "1234").unwrap();
        assert!(watched.has_changed());
    }

    #[test]
    fn a_pipe_is_never_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let changed = WatchedFile::new(&pipe, Some(b"before"), 4).has_changed();
            tell.send((read_regular(&pipe, 4).is_err(), changed))
        });
        let told = told.recv_timeout(std::time::Duration::from_secs(20)).expect("it waits for a writer");
        assert_eq!(told, (true, false));
    }
}
