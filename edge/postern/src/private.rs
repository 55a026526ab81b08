//! Files that only their owner can read, written whole or not at all.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use postern_identity::random;

/// Makes a folder that nobody else can look into, and those above it that are missing.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file that only its owner can read: whoever reads it sees the old content or the new one, never a part.
pub(crate) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let suffix = random().map_err(|_| io::Error::other("the system gives no randomness"))?;
    let new = path.with_added_extension(format!("{:016x}.new", u64::from_le_bytes(suffix)));
    let written = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&new, path));
    written.inspect_err(|_| {
        // What is left of it would make no difference to anybody.
        let _gone = fs::remove_file(&new);
    })
}
