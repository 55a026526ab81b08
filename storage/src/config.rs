//! Where sessions are kept, already valid.

use std::path::PathBuf;

/// Which backend, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageConfig {
    /// In this process: a restart signs everybody out.
    Memory,
    /// One file on disk, owned by this process alone (`databroker_storage_type: file`).
    File {
        /// The file; its folder is created if missing.
        path: PathBuf,
    },
}

impl StorageConfig {
    /// The name of the backend in metrics.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::File { .. } => "file",
        }
    }
}
