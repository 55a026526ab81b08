//! A credential becomes a subject: the cache first, the store on a miss (step 5 of the path).

use std::sync::Arc;
use std::time::{Duration, Instant};

use postern_identity::{CompactSession, Session, SessionId, Timestamp};
use postern_storage::{Cached, Entry, Loaded, Moment, SessionCache, StorageError};

use crate::AssertionSlot;
use crate::credential::Credential;

/// Sessions near the request, each with the assertions that were made of it.
pub type Sessions = Arc<SessionCache<AssertionSlot>>;

/// A session and what the edge keeps beside it.
pub(crate) type Known = Arc<Entry<AssertionSlot>>;

/// The subject of a request: nobody in particular, or the user of a live session.
#[derive(Clone, Debug)]
pub enum Subject {
    /// No credential, or none that leads to a live session.
    Anonymous,
    /// The user of this session, which exists, is not expired and belongs to the route's identity provider, or is a service account.
    User(Arc<Entry<AssertionSlot>>),
}

impl Subject {
    /// The session, if there is one.
    #[must_use]
    pub fn session(&self) -> Option<&CompactSession> {
        self.known().map(|entry| &entry.session)
    }

    /// The same with what is kept beside it.
    pub(crate) const fn known(&self) -> Option<&Known> {
        match self {
            Self::Anonymous => None,
            Self::User(known) => Some(known),
        }
    }
}

impl From<Option<Known>> for Subject {
    fn from(known: Option<Known>) -> Self {
        known.map_or(Self::Anonymous, Self::User)
    }
}

/// Who knows whose a credential is.
pub(crate) trait Identify: Sync {
    /// Told of a session that may be asked for in a moment, before anything vouches for its id.
    fn expect(&self, _id: &[u8; 32]) {}

    /// Told of the credential whose session is asked for in a moment.
    fn prefetch(&self, _credential: &Credential) {}

    /// The live session that it names, if there is one (S-090). `window`: how long what is known here may be believed while
    /// revocations by others are not heard of.
    fn session(
        &self,
        credential: &Credential,
        now: Timestamp,
        window: Duration,
    ) -> impl Future<Output = Result<Option<Known>, StorageError>> + Send;
}

/// The sessions that this edge has, as far as they may be believed at that time.
pub(crate) struct Near<'a> {
    pub(crate) sessions: &'a Sessions,
    pub(crate) steady: Instant,
}

impl Identify for Near<'_> {
    #[inline]
    fn expect(&self, id: &[u8; 32]) {
        self.sessions.expect(id);
    }

    #[inline]
    fn prefetch(&self, credential: &Credential) {
        credential.shown.iter().for_each(|shown| self.sessions.prefetch(shown.id()));
    }

    async fn session(
        &self,
        credential: &Credential,
        now: Timestamp,
        window: Duration,
    ) -> Result<Option<Known>, StorageError> {
        let Some(shown) = &credential.shown else { return Ok(None) };
        let known = live_session(self.sessions, shown.id(), Moment { now, steady: self.steady }, window).await?;
        known.iter().for_each(|entry| entry.extra.prefetch());
        Ok(known.filter(|entry| entry.session.is_service_account() == shown.is_service_account()))
    }
}

/// Somebody who is known beforehand, or nobody: every credential is theirs.
pub(crate) struct Given(Option<Known>);

impl Given {
    pub(crate) fn of(session: Option<&Session>, now: Timestamp) -> Self {
        Self(session.map(|session| Arc::new(Entry::alone(session, now))))
    }
}

impl Identify for Given {
    async fn session(&self, _: &Credential, now: Timestamp, _: Duration) -> Result<Option<Known>, StorageError> {
        Ok(self.0.clone().filter(|entry| !entry.is_expired(now)))
    }
}

/// Only a miss leaves the process.
async fn live_session(
    sessions: &Sessions,
    id: &SessionId,
    at: Moment,
    window: Duration,
) -> Result<Option<Known>, StorageError> {
    let now = at.now;
    let known = match sessions.get(id, at, window) {
        Cached::Hit(entry) | Cached::Static(entry) => Some(entry),
        Cached::Unknown | Cached::Revoked => None,
        Cached::Unavailable => return Err(StorageError::cut_off()),
        // Apart: most requests have their session near, and need no room for this.
        Cached::Miss => match Box::pin(sessions.load(id, now, window)).await? {
            Loaded::Found(entry) | Loaded::Static(entry) => Some(entry),
            Loaded::Unknown | Loaded::Revoked => None,
        },
    };
    Ok(known.filter(|entry| now < entry.session.expires_at))
}
