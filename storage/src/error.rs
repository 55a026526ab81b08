//! What can go wrong with a store.

use std::path::PathBuf;
use std::time::Duration;

use postern_identity::RandomError;

/// The store gave no answer that can be trusted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StorageError {
    /// It cannot be reached, is too slow, or refuses: answer 503 with this `Retry-After`; nobody is signed out.
    #[error("the session store is unavailable: {reason}")]
    Unavailable {
        /// What happened, for the log.
        reason: String,
        /// When it makes sense to ask again.
        retry_after: Duration,
    },
}

impl StorageError {
    /// Nothing has been heard of revocations for too long.
    #[must_use]
    pub fn cut_off() -> Self {
        Self::unavailable("nothing has been heard of revocations for too long")
    }

    pub(crate) fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into(), retry_after: RETRY_AFTER }
    }
}

impl From<RandomError> for StorageError {
    fn from(error: RandomError) -> Self {
        Self::unavailable(error.to_string())
    }
}

/// Long enough that clients do not hammer a store that is coming back, short enough that people wait for it.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Why a store could not be opened. Each is for the operator, at start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process owns the file.
    #[error("the store {path} is in use by another process: stop it, or give this one a file of its own")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A newer Postern wrote the file in a form that this one cannot read.
    #[error(
        "the store {path} was written by a newer version (format {found}, this one reads up to {known}): start that version"
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The format in the file.
        found: u32,
        /// The newest format that this version reads.
        known: u32,
    },
    /// The file is no store, or is damaged.
    #[error("{path} is not a session store or is damaged ({reason}): move it away to start with an empty one")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the database said.
        reason: String,
    },
    /// The file or its folder cannot be used.
    #[error("cannot use the store {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The certificates or the key for the servers of the store cannot be used.
    #[error("TLS to the store cannot be set up: {reason}")]
    Tls {
        /// What is wrong with them.
        reason: String,
    },
    /// The operating system gave no randomness (S-120).
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The metrics are already in that registry: one registry takes one store.
    #[error("cannot register the metrics of the store")]
    Metrics(#[from] prometheus::Error),
    /// The background work needs a runtime: open the store inside of one.
    #[error("the store must be opened inside of a tokio runtime")]
    NoRuntime,
}
