//! The demonstration's data folder: whose it is, and how its private files are read and written.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::DemoError;
use crate::private;

/// Says that a folder is ours, and keeps the ports.
const MARK: &str = "demo.json";
/// The provider's key.
pub(super) const IDP_KEY: &str = "idp-key.pem";
/// No file of the folder is larger.
const LARGEST: u64 = 4 << 20;

/// A data folder that is ours, and no other process's as long as this lives.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

/// What the mark holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The layout of the folder.
    pub(super) format: u32,
    /// Port of the provider: part of the issuer's name, so it stays.
    pub(super) idp_port: u16,
    /// Port of the sample application.
    pub(super) app_port: u16,
    /// Port of readiness.
    pub(super) health_port: u16,
    /// Port of metrics.
    pub(super) metrics_port: u16,
}

impl Mark {
    /// The only layout so far.
    const FORMAT: u32 = 1;

    /// Four ports from that number up.
    pub(super) fn from(first: u16) -> Self {
        let next = |by| first.saturating_add(by);
        let (app_port, health_port, metrics_port) = (next(1), next(2), next(3));
        Self { format: Self::FORMAT, idp_port: first, app_port, health_port, metrics_port }
    }
}

impl Folder {
    /// Opens the folder, or makes it. One that holds something else is left alone.
    pub(super) fn open(path: &Path) -> Result<Self, DemoError> {
        let failed = |source| DemoError::File { path: path.to_owned(), source };
        private::make_folder(path).map_err(failed)?;
        // Absolute, because the configuration names files in it and may be run from anywhere.
        let path = fs::canonicalize(path).map_err(failed)?;
        if path.to_str().is_none() {
            return Err(DemoError::Unwritable(path));
        }
        let mut entries = fs::read_dir(&path).map_err(failed)?;
        let empty = entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == LOCK));
        if !empty && !path.join(MARK).exists() {
            return Err(DemoError::Foreign(path));
        }
        let lock = lock(&path)?;
        Ok(Self { path, _lock: lock })
    }

    /// The file of that name.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What the mark says; `None` in a new folder.
    pub(super) fn mark(&self) -> Result<Option<Mark>, DemoError> {
        let path = self.file(MARK);
        let broken = || DemoError::Broken { path: path.clone(), what: "it is not what this version writes" };
        let Some(text) = read(&path)? else { return Ok(None) };
        let mark: Mark = serde_json::from_str(&text).map_err(|_| broken())?;
        if mark.format == Mark::FORMAT { Ok(Some(mark)) } else { Err(broken()) }
    }

    /// Writes the mark.
    pub(super) fn set_mark(&self, mark: Mark) -> Result<(), DemoError> {
        write(&self.file(MARK), &serde_json::to_string(&mark).unwrap_or_default())
    }

    /// The text of that file, made and written if it is not there.
    pub(super) fn keep(
        &self,
        name: &str,
        make: impl FnOnce() -> Result<String, DemoError>,
    ) -> Result<String, DemoError> {
        let path = self.file(name);
        if let Some(text) = read(&path)? {
            return Ok(text);
        }
        let text = make()?;
        write(&path, &text)?;
        Ok(text)
    }
}

const LOCK: &str = "lock";

/// One demonstration at a time in one folder: two would write each other's configuration.
fn lock(folder: &Path) -> Result<File, DemoError> {
    let path = folder.join(LOCK);
    let failed = |source| DemoError::File { path: path.clone(), source };
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(DemoError::InUse(folder.to_owned())),
        Err(fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// The text of a file; `None` if it is not there.
pub(super) fn read(path: &Path) -> Result<Option<String>, DemoError> {
    let failed = |source| DemoError::File { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes).map_err(failed)?;
    let broken = |_| DemoError::Broken { path: path.to_owned(), what: "it is not text" };
    String::from_utf8(bytes).map(Some).map_err(broken)
}

/// Writes a file that only its owner can read, whole or not at all.
pub(super) fn write(path: &Path, text: &str) -> Result<(), DemoError> {
    private::write(path, text.as_bytes()).map_err(|source| DemoError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_folder_with_something_else_in_it_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("thesis.txt"), "x").unwrap();
        assert!(matches!(Folder::open(home.path()), Err(DemoError::Foreign(_))));
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_broken_mark_is_named() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join(MARK), "{").unwrap();
        let folder = Folder::open(home.path()).unwrap();
        let error = folder.mark().unwrap_err().to_string();
        assert!(error.contains("demo.json") && error.contains("delete"), "{error}");
    }

    #[test]
    fn a_folder_serves_one_demonstration_at_a_time() {
        let home = tempfile::tempdir().unwrap();
        let first = Folder::open(&home.path().join("new/deep")).unwrap();
        assert!(matches!(Folder::open(first.path()), Err(DemoError::InUse(_))));
        let path = first.path().to_owned();
        drop(first);
        assert!(Folder::open(&path).is_ok());
    }

    #[test]
    fn what_is_kept_is_made_once_and_private() {
        let home = tempfile::tempdir().unwrap();
        let folder = Folder::open(&home.path().join("data")).unwrap();
        assert_eq!(folder.keep("secret", || Ok("one".into())).unwrap(), "one");
        assert_eq!(folder.keep("secret", || Ok("two".into())).unwrap(), "one");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder.file("secret")), mode(folder.path())), (0o600, 0o700));
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }
}
