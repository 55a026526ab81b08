//! The face that authn sees: the one writer of sessions.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use postern_identity::{IdpId, SERVICE_ACCOUNT, Session, SessionHandle, SessionId, Timestamp, Tokens};
use tokio_util::task::TaskTracker;
use tracing::error;

use crate::backend::{Backend, Done, Place, Stored, Write};
use crate::invalidation::{Fact, Invalidation, Owner};
use crate::metrics::Metrics;
use crate::record::{EVERYONE, Key, READS, Seal};
use crate::touch::{Seen, Touches};
use crate::{StorageError, clock};

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

impl Once {
    const fn name(self) -> &'static str {
        match self {
            Self::SignIn => "sign-in",
            Self::Ticket => "ticket",
        }
    }
}

/// What became of a [`Sessions::commit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// Saved; the session has this generation now.
    Saved(u64),
    /// Somebody else committed first: load the session again.
    Moved,
    /// The session has ended.
    Ended,
}

/// One line in a list of sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionSummary {
    /// The session.
    pub handle: SessionHandle,
    /// When it began.
    pub issued_at: Timestamp,
    /// When it ends at the latest.
    pub expires_at: Timestamp,
}

/// Some of all live sessions.
#[derive(Clone, Debug)]
pub struct Page {
    /// In no order.
    pub sessions: Vec<Session>,
    /// What could not be read: sessions by their names, or a server with all that it keeps.
    pub unread: Vec<(String, StorageError)>,
    /// Where the others are; `None`: these were the last.
    pub next: Option<Place>,
}

/// What was left of some sessions that had ended together with all others.
#[derive(Debug, Default)]
pub struct Leftovers {
    /// Those that were alive until then, each with its tokens if it had any.
    pub ended: Vec<(Session, Option<Tokens>)>,
    /// The tokens of those that may or may not be marked: who is not is found again.
    pub unsure: Vec<(IdpId, Tokens)>,
    /// Where the others are; `None`: these were the last. After a failure, where to try again; `None`: from the beginning.
    pub next: Option<Place>,
    /// Why some of these could not be cleared.
    pub failed: Option<StorageError>,
}

/// What became of one session that was to be cleared.
#[derive(Debug)]
enum Swept {
    /// It is marked, and was alive unless this is `None`.
    Clear(Option<(Session, Option<Tokens>)>),
    /// Its tokens, if they were read: it may or may not be marked.
    Failed(StorageError, Option<(IdpId, Tokens)>),
}

/// A refresh that is due, and a claim to try it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The session.
    pub handle: SessionHandle,
    /// When it is to be tried: then, or as soon afterwards as may be.
    pub next: Timestamp,
}

/// Reads and writes sessions. Cheap to clone. Every call is bounded in time and may be repeated: writes are idempotent.
/// A write that was begun is finished even if its caller goes away.
#[derive(Clone, Debug)]
pub struct Sessions {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    backend: Backend,
    seal: Seal,
    invalidation: Arc<Invalidation>,
    touches: Touches,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    runtime: tokio::runtime::Handle,
}

impl Sessions {
    pub(crate) fn new(
        (backend, seal): (Backend, Seal),
        invalidation: Arc<Invalidation>,
        touches: Touches,
        metrics: Arc<Metrics>,
        (tasks, runtime): (TaskTracker, tokio::runtime::Handle),
    ) -> Self {
        Self { inner: Arc::new(Inner { backend, seal, invalidation, touches, metrics, tasks, runtime }) }
    }

    /// Saves a new session and its tokens; durable when it returns. The [`SessionId`] itself is never written (S-081).
    ///
    /// # Errors
    /// [`StorageError::Unavailable`].
    pub async fn create(&self, session: &Session, tokens: &Tokens) -> Result<(), StorageError> {
        let seal = &self.inner.seal;
        let row = seal.row(session, session.generation, None)?;
        let sealed = seal.tokens(&session.handle, &row, tokens)?;
        let row = row.due_at(tokens.refresh_at);
        let write = Write::Create { handle: *session.handle.as_bytes(), row, tokens: sealed };
        self.write(write, Some(Fact::Created)).await.map(drop)
    }

    /// Looks a session up in the store itself, past every cache.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`].
    pub async fn load(&self, handle: &SessionHandle, now: Timestamp) -> Result<Lookup, StorageError> {
        let Some(stored) = self.readable(self.inner.backend.session(handle.as_bytes()).await?)? else {
            return Ok(Lookup::Unknown);
        };
        if stored.is_revoked() {
            return Ok(Lookup::Revoked);
        }
        let Some(session) = self.open(handle, &stored) else { return Ok(Lookup::Unknown) };
        if session.is_expired(now) {
            self.inner.touches.leave(Seen::Over { handle: *handle, at: now });
            return Ok(Lookup::Unknown);
        }
        if self.is_ended_by_its_user(&session, &stored).await? {
            return Ok(Lookup::Revoked);
        }
        Ok(Lookup::Found(Arc::new(session)))
    }

    /// The tokens of a live session.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`].
    pub async fn tokens(&self, handle: &SessionHandle) -> Result<Option<Tokens>, StorageError> {
        let Some((stored, sealed)) = self.inner.backend.tokens(handle.as_bytes()).await? else { return Ok(None) };
        let Some(stored) = self.readable(Some(stored))?.filter(|stored| !stored.is_revoked()) else { return Ok(None) };
        let Some(session) = self.open(handle, &stored) else { return Ok(None) };
        if self.is_ended_by_its_user(&session, &stored).await? {
            return Ok(None);
        }
        let tokens = self.inner.seal.open_tokens(handle, &stored.row, &sealed);
        if tokens.is_none() {
            self.refused(handle, "tokens");
        }
        Ok(tokens)
    }

    /// Replaces a session and its tokens if it still has that generation; the new one has the next. A claim on its refresh ends. Its idle end only
    /// moves forward. Of many callers with one generation exactly one is `Saved` (S-076).
    ///
    /// # Errors
    /// [`StorageError::Unavailable`]; it may or may not be saved: load the session to know.
    pub async fn commit(
        &self,
        handle: &SessionHandle,
        generation: u64,
        session: &Session,
        tokens: &Tokens,
    ) -> Result<Committed, StorageError> {
        self.replace((handle, generation), session, tokens, true).await
    }

    /// The same in the middle of a refresh, whose claim stays with this process: what was granted is safe, and more is to come.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub async fn commit_first(
        &self,
        handle: &SessionHandle,
        generation: u64,
        session: &Session,
        tokens: &Tokens,
    ) -> Result<Committed, StorageError> {
        self.replace((handle, generation), session, tokens, false).await
    }

    async fn replace(
        &self,
        (handle, generation): (&SessionHandle, u64),
        session: &Session,
        tokens: &Tokens,
        last: bool,
    ) -> Result<Committed, StorageError> {
        let Some(stored) = self.readable(self.inner.backend.session(handle.as_bytes()).await?)? else {
            return Ok(Committed::Ended);
        };
        if stored.is_revoked() || session.handle != *handle {
            return Ok(Committed::Ended);
        }
        if stored.row.generation != generation {
            return Ok(Committed::Moved);
        }
        let (seal, next) = (&self.inner.seal, generation.saturating_add(1));
        let looks_like = |old: &Session| old.user == session.user && old.claims == session.claims;
        let tell = !seal.session(handle, &stored.row).is_some_and(|old| looks_like(&old));
        let row = seal.row(session, next, Some(&stored.row))?;
        let sealed = seal.tokens(handle, &row, tokens)?;
        let row = row.due_at(tokens.refresh_at);
        let write = Write::Commit { handle: *handle.as_bytes(), expected: generation, row, tokens: sealed, tell, last };
        Ok(match self.write(write, Some(Fact::Rewritten(*handle, next))).await? {
            Done::Applied | Done::Swept(_) => Committed::Saved(next),
            Done::Refused => Committed::Moved,
            Done::Gone => Committed::Ended,
        })
    }

    /// Ends a session: marks it, wipes its tokens, tells every cache. Done when it returns (S-084).
    ///
    /// # Errors
    /// [`StorageError::Unavailable`]; the session may or may not have ended, so try again.
    pub async fn revoke(&self, handle: &SessionHandle) -> Result<(), StorageError> {
        let write = Write::Revoke { handle: *handle.as_bytes(), at: clock().as_millis() };
        self.write(write, Some(Fact::Revoked(*handle))).await.map(drop)
    }

    /// The same for a name that may be of none, and may be no name at all: nobody is told of it unless there is such a session.
    /// `false`: there is none.
    ///
    /// # Errors
    /// As [`revoke`](Self::revoke).
    pub async fn revoke_if_there(&self, handle: &SessionHandle) -> Result<bool, StorageError> {
        if self.mark(*handle.as_bytes()).await? == Done::Gone {
            return Ok(false);
        }
        self.revoke(handle).await.map(|()| true)
    }

    async fn mark(&self, handle: Key) -> Result<Done, StorageError> {
        self.write(Write::Mark { handle, at: clock().as_millis() }, None).await
    }

    /// Ends every session of a user that began before `not_before`, those included that are being created (S-095). Of service
    /// accounts that is never forgotten, of people for longer than any session of theirs lasts.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`]; they may or may not have ended, so try again.
    pub async fn revoke_user(&self, issuer: &str, user: &str, not_before: Timestamp) -> Result<(), StorageError> {
        // By every name at once: one that cannot be written keeps no other one alive.
        let owners = self.inner.seal.owners(issuer, user);
        let lasts = issuer == SERVICE_ACCOUNT;
        let all = join_all(owners.into_iter().map(|owner| self.revoke_owner(owner, not_before, lasts))).await;
        all.into_iter().collect()
    }

    /// Ends every session of every user that began before `not_before`, by one fact. Their tokens stay sealed, and are never
    /// given out again, until [`clear`](Self::clear) wipes them or they expire.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`]; they may or may not have ended, so try again.
    pub async fn revoke_everyone(&self, not_before: Timestamp) -> Result<(), StorageError> {
        self.revoke_owner(EVERYONE, not_before, true).await
    }

    async fn revoke_owner(&self, owner: Key, not_before: Timestamp, lasts: bool) -> Result<(), StorageError> {
        let write = Write::RevokeOwner { owner, not_before: not_before.as_millis(), lasts };
        self.write(write, Some(Fact::OwnerRevoked(owner, not_before))).await.map(drop)
    }

    /// The live sessions of a user, newest first; of very many, some.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`].
    pub async fn list(&self, issuer: &str, user: &str, now: Timestamp) -> Result<Vec<SessionSummary>, StorageError> {
        let mut found = Vec::new();
        for owner in self.inner.seal.owners(issuer, user) {
            found.extend(self.inner.backend.list(&owner, LISTED).await?);
        }
        let mut live = Vec::new();
        for (key, stored) in found {
            let handle = SessionHandle::from_bytes(key);
            let Some(stored) = self.readable(Some(stored))?.filter(|stored| !stored.is_revoked()) else { continue };
            let Some(session) = self.open(&handle, &stored) else { continue };
            if !session.is_expired(now) {
                let Session { issued_at, expires_at, .. } = session;
                live.push(SessionSummary { handle, issued_at, expires_at });
            }
        }
        live.sort_by_key(|session| std::cmp::Reverse(session.issued_at));
        Ok(live)
    }

    /// Some of all live sessions, from a place on. Where servers share the store, a session may be on two pages, and one that
    /// moves from one to another meanwhile on none.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`]; also if the place means nothing any more: begin anew then.
    pub async fn page(&self, after: Option<Place>, now: Timestamp) -> Result<Page, StorageError> {
        let page = self.inner.backend.page(after, AT_A_TIME).await?;
        let mut sessions = Vec::new();
        let unread = page.unread.into_iter().map(|(key, error)| (SessionHandle::from_bytes(key).to_string(), error));
        let away = page.away.into_iter().map(|(server, error)| (format!("all that {server} keeps"), error));
        let mut unread: Vec<_> = unread.chain(away).collect();
        for (key, stored) in page.found {
            let handle = SessionHandle::from_bytes(key);
            match self.live(&handle, stored, now).await {
                Ok(session) => sessions.extend(session),
                Err(error) => unread.push((handle.to_string(), error)),
            }
        }
        Ok(Page { sessions, unread, next: page.next })
    }

    /// What was read, if it is a live session.
    async fn live(
        &self,
        handle: &SessionHandle,
        stored: Stored,
        now: Timestamp,
    ) -> Result<Option<Session>, StorageError> {
        let Some(stored) = self.readable(Some(stored))?.filter(|stored| !stored.is_revoked()) else { return Ok(None) };
        let Some(session) = self.open(handle, &stored).filter(|session| !session.is_expired(now)) else {
            return Ok(None);
        };
        Ok((!self.is_ended_by_its_user(&session, &stored).await?).then_some(session))
    }

    /// The time by the store's own clock, which the end of all sessions goes by; `ours` where the store is in this process.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`].
    pub async fn time(&self, ours: Timestamp) -> Result<Timestamp, StorageError> {
        self.inner.backend.time(ours).await
    }

    /// When a session may begin: at `now`, or up to so much later if the sessions of all were ended up to a later moment, by a
    /// clock that is ahead of ours or to be sure of that. One that began before would be over before it was used.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`], also if that is later still.
    pub async fn opens(&self, now: Timestamp, within: Duration) -> Result<Timestamp, StorageError> {
        let everyone = self.inner.backend.not_before(&EVERYONE).await?;
        let opens = everyone.map_or(now, |not_before| now.max(Timestamp::from_millis(not_before)));
        if opens.since(now) > within {
            return Err(StorageError::unavailable(format!(
                "all sessions are over until {opens}, by another clock than ours"
            )));
        }
        Ok(opens)
    }

    /// Whether a session of that user which had begun then would be over by now.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`].
    pub async fn are_ended(&self, issuer: &str, user: &str, began: Timestamp) -> Result<bool, StorageError> {
        for owner in self.inner.seal.owners(issuer, user) {
            let not_before = self.inner.backend.not_before(&owner).await?;
            if not_before.is_some_and(|not_before| began.as_millis() < not_before) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Marks the sessions of a page that ended with all others and wipes their tokens, after they were read. One that began
    /// before `before` all the same, by a clock that is ahead, is ended now.
    pub async fn clear(&self, after: Option<Place>, now: Timestamp, before: Timestamp) -> Leftovers {
        let page = match self.inner.backend.page(after, AT_A_TIME).await {
            Ok(page) => page,
            Err(error) => {
                let next = after.filter(|place| self.inner.backend.stands(place));
                return Leftovers { next, failed: Some(error), ..Leftovers::default() };
            }
        };
        let is_over = |stored: &Stored| stored.is_revoked() || stored.row.issued_at < before.as_millis();
        let over = page.found.into_iter().filter(|(_, stored)| !stored.row.revoked && is_over(stored));
        let clearing = stream::iter(over).map(|(key, stored)| self.clear_one(key, stored, now));
        let swept: Vec<_> = clearing.buffer_unordered(CLEARED_AT_ONCE).collect().await;
        let failed = page.unread.into_iter().map(|(_, error)| error).chain(page.away.map(|(_, error)| error)).next();
        let mut left = Leftovers { next: page.next, failed, ..Leftovers::default() };
        for one in swept {
            match one {
                Swept::Clear(ended) => left.ended.extend(ended),
                Swept::Failed(error, tokens) => {
                    left.unsure.extend(tokens);
                    left.failed = Some(error);
                }
            }
        }
        if left.failed.is_some() {
            left.next = after;
        }
        left
    }

    async fn clear_one(&self, key: Key, stored: Stored, now: Timestamp) -> Swept {
        let handle = SessionHandle::from_bytes(key);
        let session = self.open(&handle, &stored).filter(|session| !session.is_expired(now));
        let tokens = match &session {
            // What cannot be read is not wiped.
            Some(_) => match self.inner.backend.tokens(&key).await {
                Ok(found) => found.and_then(|(now, sealed)| self.inner.seal.open_tokens(&handle, &now.row, &sealed)),
                Err(error) => return Swept::Failed(error, None),
            },
            None => None,
        };
        let ended = if stored.is_revoked() { self.mark(key).await.map(drop) } else { self.revoke(&handle).await };
        match ended {
            Ok(()) => Swept::Clear(session.map(|session| (session, tokens))),
            Err(error) => Swept::Failed(error, session.zip(tokens).map(|(session, tokens)| (session.idp, tokens))),
        }
    }

    /// The refreshes that are due at `now`, earliest first, at most `limit`; some may be of sessions that are over.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`].
    pub async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<Due>, StorageError> {
        self.due_after(None, now, limit).await
    }

    /// The same, but for those up to `after`, itself included: who leaves some undone sees the rest this way.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`].
    pub async fn due_after(&self, after: Option<&Due>, now: Timestamp, limit: usize) -> Result<Vec<Due>, StorageError> {
        let after = after.map(|due| (due.next.as_millis(), *due.handle.as_bytes()));
        let due = self.inner.backend.due(after, now.as_millis().saturating_add(1), limit).await?;
        let claim = |(next, key)| Due { handle: SessionHandle::from_bytes(key), next: Timestamp::from_millis(next) };
        Ok(due.into_iter().map(claim).collect())
    }

    /// Puts a refresh off until `until`, and gives the claim that stands then. Of many callers with one claim exactly one
    /// is heard, so who postpones before trying tries alone until then; the next commit sets the time anew. `None` if
    /// somebody else was earlier, or the session is over.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`]; it may or may not be put off.
    pub async fn postpone(&self, due: &Due, until: Timestamp) -> Result<Option<Due>, StorageError> {
        let (from, to) = (due.next.as_millis(), until.as_millis());
        let write = Write::Postpone { handle: *due.handle.as_bytes(), from, to };
        let done = self.write(write, None).await?;
        Ok((done == Done::Applied).then_some(Due { next: until, ..*due }))
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
        // Kept at least for as long as clocks may differ, even if the caller's idea of its end is past.
        let until = until.max(now).as_millis();
        // While a secret is replaced, under every name: of two processes that share a secret, one is the first under its name.
        for key in self.inner.seal.once(kind.name(), value) {
            if self.write(Write::Spend { key, until }, None).await? != Done::Applied {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Leaves word that a session is in use, for the store to know soon. `false` if too many words wait.
    pub(crate) fn touch(&self, handle: SessionHandle, idle_until: Timestamp) -> bool {
        self.inner.touches.leave(Seen::Alive { handle, idle_until })
    }

    /// Leaves word that a session was seen to be over.
    pub(crate) fn over(&self, handle: SessionHandle, at: Timestamp) {
        self.inner.touches.leave(Seen::Over { handle, at });
    }

    /// Whose a session is, by the secret in force: who ends all sessions of an owner says so by every secret.
    pub(crate) fn owner_of(&self, session: &Session) -> Owner {
        Owner::of(&self.inner.seal.owner(&session.user.issuer, &session.user.id))
    }

    /// The name of a session in the store.
    pub(crate) fn handle_of(&self, id: &SessionId) -> SessionHandle {
        self.inner.seal.handle(id)
    }

    /// Runs a task that the store waits for when it closes.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.inner.tasks.spawn_on(task, &self.inner.runtime));
    }

    /// Writes, then makes the fact known, in a task of its own: a caller who goes away stops neither. A fact that denies is
    /// made known also if the store gave no answer, because then it may hold.
    async fn write(&self, write: Write, fact: Option<Fact>) -> Result<Done, StorageError> {
        let inner = Arc::clone(&self.inner);
        let task = async move {
            let done = inner.backend.write(write).await;
            if let Some(fact) = fact.filter(|fact| fact.denies() || matches!(done, Ok(Done::Applied))) {
                inner.invalidation.publish(fact);
            }
            done
        };
        self.inner
            .tasks
            .spawn_on(task, &self.inner.runtime)
            .await
            .unwrap_or_else(|_| Err(StorageError::unavailable("the store is shutting down")))
    }

    fn readable(&self, stored: Option<Stored>) -> Result<Option<Stored>, StorageError> {
        match stored {
            Some(stored) if stored.row.min_reader > READS => {
                Err(StorageError::unavailable("a record was written by a newer version"))
            }
            stored => Ok(stored),
        }
    }

    /// Whether it ended with all of its user's, where the store cannot see that: its owner's name in it is by a secret that is not
    /// known here any more, and so no end that is written here is by that name (S-095).
    async fn is_ended_by_its_user(&self, session: &Session, stored: &Stored) -> Result<bool, StorageError> {
        let Session { user, issued_at, .. } = session;
        if self.inner.seal.owners(&user.issuer, &user.id).contains(&stored.row.owner()) {
            return Ok(false);
        }
        self.are_ended(&user.issuer, &user.id, *issued_at).await
    }

    fn open(&self, handle: &SessionHandle, stored: &Stored) -> Option<Session> {
        let session = self.inner.seal.session(handle, &stored.row);
        if session.is_none() {
            self.refused(handle, "session");
        }
        session
    }

    fn refused(&self, handle: &SessionHandle, kind: &str) {
        self.inner.metrics.records_refused.inc();
        error!(%handle, kind, "a record does not open under its own key: damaged, moved or forged");
    }
}

/// Sessions that one list shows.
const LISTED: usize = 1_000;
/// Sessions that are read for one page; a server is held up by as many keys at most.
const AT_A_TIME: usize = 200;
const CLEARED_AT_ONCE: usize = 32;
