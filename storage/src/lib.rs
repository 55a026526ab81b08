//! Remembers: sessions, the tokens behind them, and which single-use values are spent.
//!
//! [`Storage::open`] gives the two faces that callers see. Authn, the one writer, holds [`Sessions`]. The edge holds a
//! [`SessionCache`]: a lock-free map in front of the store, filled by one load a session, emptied by revocations.
//! A store that does not answer is [`StorageError::Unavailable`], never "no session" (S-097, R-006).

mod config;
mod error;
mod sessions;

pub use config::StorageConfig;
pub use error::StorageError;
pub use sessions::{Lookup, Once, SessionSummary, Sessions};
