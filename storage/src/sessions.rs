//! The face that authn sees: the one writer of sessions.

use std::sync::Arc;

use postern_identity::{Session, SessionHandle, SessionId, Timestamp, Tokens};

use crate::StorageError;

/// What the store says of a handle.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// A live session.
    Found(Arc<Session>),
    /// It was ended before its time.
    Revoked,
    /// There is none, or it has expired.
    Unknown,
}

/// What a single-use value is, so that one kind never spends another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Once {
    /// The `state` of a sign-in (S-053, S-055).
    SignIn,
    /// A ticket that carries a session to a route's host.
    Ticket,
}

/// One line in a list of sessions.
#[derive(Clone, Debug)]
pub struct SessionSummary {
    /// The session.
    pub handle: SessionHandle,
    /// When it began.
    pub issued_at: Timestamp,
    /// When it ends at the latest.
    pub expires_at: Timestamp,
}

/// Reads and writes sessions. Cheap to clone. Every call is bounded in time and may be repeated: writes are idempotent.
#[derive(Clone, Debug)]
pub struct Sessions {}

impl Sessions {
    /// Saves a new session and its tokens; durable when it returns. The id itself is never written (S-081).
    ///
    /// # Errors
    /// [`StorageError::Unavailable`].
    pub async fn create(&self, session: &Session, tokens: &Tokens) -> Result<(), StorageError> {
        unimplemented!("{session:?}{tokens:?}")
    }

    /// Looks a session up in the store itself, past every cache.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`].
    pub async fn load(&self, handle: &SessionHandle, now: Timestamp) -> Result<Lookup, StorageError> {
        unimplemented!("{handle:?}{now:?}")
    }

    /// The tokens of a live session.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`].
    pub async fn tokens(&self, handle: &SessionHandle) -> Result<Option<Tokens>, StorageError> {
        unimplemented!("{handle:?}")
    }

    /// Ends a session: marks it, wipes its tokens, tells every cache. Done when it returns (S-084).
    ///
    /// # Errors
    /// [`StorageError::Unavailable`]; the session may or may not have ended, so try again.
    pub async fn revoke(&self, handle: &SessionHandle) -> Result<(), StorageError> {
        unimplemented!("{handle:?}")
    }

    /// Ends every session of a user that began before `not_before`.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`].
    pub async fn revoke_user(&self, issuer: &str, user: &str, not_before: Timestamp) -> Result<(), StorageError> {
        unimplemented!("{issuer}{user}{not_before:?}")
    }

    /// The live sessions of a user, newest first.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`].
    pub async fn list(&self, issuer: &str, user: &str, now: Timestamp) -> Result<Vec<SessionSummary>, StorageError> {
        unimplemented!("{issuer}{user}{now:?}")
    }

    /// Spends a single-use value. `true` for exactly one caller, however many ask at once, until `until` (S-055).
    ///
    /// # Errors
    /// [`StorageError::Unavailable`]; treat the value as spent.
    pub async fn spend(
        &self,
        kind: Once,
        value: &[u8],
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StorageError> {
        unimplemented!("{kind:?}{value:?}{now:?}{until:?}")
    }
}

// The id is here for the documentation links of `create`.
const _: fn(SessionId) = |_| {};
