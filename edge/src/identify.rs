//! A credential becomes a subject: the cache first, the store on a miss (step 5 of the path).

use std::sync::Arc;

use postern_identity::{SessionId, Subject, Timestamp};
use postern_storage::{Cached, Entry, Loaded, SessionCache, StorageError};

use crate::AssertionSlot;

/// Sessions near the request, each with the assertions that were made of it.
pub type Sessions = Arc<SessionCache<AssertionSlot>>;

/// A session and what the edge keeps beside it.
pub(crate) type Known = Arc<Entry<AssertionSlot>>;

/// The live session of an id, if there is one (S-090). Only a miss leaves the process.
pub(crate) async fn live_session(
    sessions: &Sessions,
    id: &SessionId,
    now: Timestamp,
) -> Result<Option<Known>, StorageError> {
    let known = match sessions.get(id, now) {
        Cached::Hit(entry) => Some(entry),
        Cached::Unknown | Cached::Revoked => None,
        Cached::Miss => match sessions.load(id, now).await? {
            Loaded::Found(entry) => Some(entry),
            Loaded::Unknown | Loaded::Revoked => None,
        },
    };
    Ok(known.filter(|entry| now < entry.session.expires_at))
}

/// On whose behalf a request comes whose session is `known`.
pub(crate) fn subject(known: Option<&Known>) -> Subject {
    known.map_or(Subject::Anonymous, |entry| Subject::User(Arc::clone(&entry.session)))
}
