//! What can go wrong with a store.

use std::time::Duration;

/// The store gave no answer that can be trusted.
#[derive(Debug, thiserror::Error)]
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
