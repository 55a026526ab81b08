//! The stores behind the faces: a handful of verbs over rows and sealed bytes. What is sealed in them, no backend knows.

mod breaker;
mod embedded;
mod memory;
mod place;
pub(crate) mod redis;
mod rows;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use postern_identity::{NEVER, Timestamp};

use crate::contact::Contact;
use crate::deposits::Deposit;
use crate::metrics::{Metrics, Operation};
use crate::record::{Key, Row};
use crate::{OpenError, StorageConfig, StorageError};

use breaker::Breaker;
use embedded::Embedded;
use memory::Memory;
pub use place::Place;
pub(crate) use place::{Page, Unread};
use redis::Redis;
use rows::Read;

/// A session, and the epoch of its owner, read at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) row: Row,
    /// Sessions of the owner that began before this are over.
    pub(crate) not_before: Option<i64>,
}

impl Stored {
    /// Whether it was ended before its time, by itself or with all of its owner's.
    pub(crate) fn is_revoked(&self) -> bool {
        self.row.revoked || self.not_before.is_some_and(|not_before| self.row.issued_at < not_before)
    }
}

/// One change, applied as a whole or not at all; each may be repeated.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    /// Saves a new session with its tokens.
    Create { handle: Key, row: Row, tokens: Vec<u8> },
    /// Replaces a session and its tokens if it still has that generation.
    /// `tell`: what policies look at has changed, so copies elsewhere are to be read again at once.
    /// `last`: the refresh is over with it, and so is the claim on it; it is refused if another process has claimed it meanwhile.
    Commit { handle: Key, expected: u64, row: Row, tokens: Vec<u8>, tell: bool, last: bool },
    /// Marks a session as ended at that time, and wipes its tokens and view.
    Revoke { handle: Key, at: i64 },
    /// The same without telling anybody: of a session whose end is known already.
    Mark { handle: Key, at: i64 },
    /// Ends the sessions of an owner, or of [`EVERYONE`](crate::record::EVERYONE), that began before that time. `lasts`: some of
    /// them have no end of their own, so this is never forgotten.
    RevokeOwner { owner: Key, not_before: i64, lasts: bool },
    /// Spends a single-use value.
    Spend { key: Key, until: i64 },
    /// Moves idle deadlines, forward only; and forgets sessions that were seen to be over at that time.
    Touch { touched: Vec<(Key, i64)>, over: Vec<(Key, i64)> },
    /// Moves the next try of a refresh from one time to another, if it still stands at the first.
    Postpone { handle: Key, from: i64, to: i64 },
    /// Forgets what ended before that time, at most so many.
    Sweep { before: i64, limit: usize },
}

/// What became of a [`Write`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// It holds.
    Applied,
    /// Somebody was earlier: the value is spent, the generation has moved.
    Refused,
    /// There is no such live session.
    Gone,
    /// That many records were forgotten.
    Swept(usize),
}

/// One change of what processes leave for each other; each may be repeated.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Leaves a sealed value until its end, if `holder` holds the name.
    Put { kind: Deposit, key: Key, sealed: Vec<u8>, until: i64, holder: String },
    /// Removes it, if `holder` holds the name.
    Remove { kind: Deposit, key: Key, holder: String },
    /// Holds a name for so long; unless `anew` only if it is held already.
    Claim { key: Key, mark: String, life: Duration, anew: bool },
    /// Holds it no longer.
    Release { key: Key, mark: String },
}

/// What is left under a name.
#[derive(Clone, Debug)]
pub(crate) enum Left {
    Nothing,
    /// It begins as what is known.
    Same,
    Sealed(Vec<u8>),
}

/// A store, and how long it may take.
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    kind: Kind,
    deadline: Duration,
    breaker: Arc<Breaker>,
    closed: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
}

#[derive(Clone, Debug)]
enum Kind {
    /// In this process, and for it alone.
    Local(Local),
    /// Shared with others.
    Redis(Arc<Redis>),
}

#[derive(Clone, Debug)]
enum Local {
    Memory(Arc<Memory>),
    Embedded(Arc<Embedded>),
    #[cfg(test)]
    Gated(Arc<gated::Gated>),
}

impl Local {
    async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&dyn Read) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        match self {
            Self::Memory(memory) => memory.read(|rows| look(rows)),
            Self::Embedded(file) => file.read(|rows| look(rows)).await,
            #[cfg(test)]
            Self::Gated(gated) => gated.pass().await.read(|rows| look(rows)),
        }
    }

    async fn write(&self, write: Write) -> Result<Done, StorageError> {
        match self {
            Self::Memory(memory) => memory.write(&write),
            Self::Embedded(file) => file.write(write).await,
            #[cfg(test)]
            Self::Gated(gated) => gated.pass().await.write(&write),
        }
    }
}

impl Backend {
    /// Opens what the configuration names.
    pub(crate) fn open(
        config: StorageConfig,
        contact: &Arc<Contact>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        let (kind, deadline) = match config {
            StorageConfig::Memory => (Kind::Local(Local::Memory(Arc::new(Memory::new(MAX_MEMORY)))), DEADLINE),
            StorageConfig::File { path } => (Kind::Local(Local::Embedded(Arc::new(Embedded::open(&path)?))), DEADLINE),
            StorageConfig::Redis(config) => (
                Kind::Redis(Arc::new(Redis::open(&config, Arc::clone(contact), Arc::clone(&metrics))?)),
                config.operation.saturating_mul(STEPS),
            ),
        };
        Ok(Self { kind, deadline, breaker: Arc::default(), closed: Arc::default(), metrics })
    }

    /// A store in memory that answers only while its gate is open.
    #[cfg(test)]
    pub(crate) fn gated(deadline: Duration, metrics: Arc<Metrics>) -> (Self, Arc<gated::Gated>) {
        let gated = Arc::new(gated::Gated::default());
        let kind = Kind::Local(Local::Gated(Arc::clone(&gated)));
        (Self { kind, deadline, breaker: Arc::default(), closed: Arc::default(), metrics }, gated)
    }

    /// Lets go of whatever is held; answers nothing any more.
    pub(crate) async fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        match &self.kind {
            Kind::Local(Local::Embedded(file)) => file.close().await,
            Kind::Redis(redis) => redis.close().await,
            Kind::Local(_) => {}
        }
    }

    /// Whether it was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// The servers, if others share the store.
    pub(crate) const fn shared(&self) -> Option<&Arc<Redis>> {
        match &self.kind {
            Kind::Redis(redis) => Some(redis),
            Kind::Local(_) => None,
        }
    }

    /// The session of that handle.
    pub(crate) async fn session(&self, handle: &Key) -> Result<Option<Stored>, StorageError> {
        let key = *handle;
        self.within(Operation::Load, async {
            match &self.kind {
                Kind::Local(local) => local.read(move |rows| rows::session(rows, &key)).await,
                Kind::Redis(redis) => Box::pin(redis.session(&key)).await,
            }
        })
        .await
    }

    /// The session of that handle and its sealed tokens.
    pub(crate) async fn tokens(&self, handle: &Key) -> Result<Option<(Stored, Vec<u8>)>, StorageError> {
        let key = *handle;
        self.within(Operation::Tokens, async {
            match &self.kind {
                Kind::Local(local) => local.read(move |rows| rows::tokens(rows, &key)).await,
                Kind::Redis(redis) => Box::pin(redis.tokens(&key)).await,
            }
        })
        .await
    }

    /// The sessions of an owner, at most `limit`.
    pub(crate) async fn list(&self, owner: &Key, limit: usize) -> Result<Vec<(Key, Stored)>, StorageError> {
        let key = *owner;
        self.within(Operation::List, async {
            match &self.kind {
                Kind::Local(local) => local.read(move |rows| rows::list(rows, &key, limit)).await,
                Kind::Redis(redis) => Box::pin(redis.list(&key, limit)).await,
            }
        })
        .await
    }

    /// Some of all sessions, from a place on. Where servers share the store, some may be given twice, and one that moves from
    /// one to another meanwhile may be left out.
    pub(crate) async fn page(&self, after: Option<Place>, limit: usize) -> Result<Page, StorageError> {
        self.within(Operation::Page, async {
            match &self.kind {
                Kind::Local(local) => local.read(move |rows| rows::page(rows, after, limit)).await,
                Kind::Redis(redis) => Box::pin(redis.page(after, limit)).await,
            }
        })
        .await
    }

    /// Whether a place still means something.
    pub(crate) fn stands(&self, place: &Place) -> bool {
        match &self.kind {
            Kind::Local(_) => true,
            Kind::Redis(redis) => redis.stands(place),
        }
    }

    /// The time by the clock of the server that knows when all sessions are over; `ours` where that is this process.
    pub(crate) async fn time(&self, ours: Timestamp) -> Result<Timestamp, StorageError> {
        match &self.kind {
            Kind::Local(_) => Ok(ours),
            Kind::Redis(redis) => redis.time().await,
        }
    }

    /// Sessions of that owner that began before this are over; `None` if all of theirs were never ended. Of
    /// [`EVERYONE`](crate::record::EVERYONE): whosever they are.
    pub(crate) async fn not_before(&self, owner: &Key) -> Result<Option<i64>, StorageError> {
        let key = *owner;
        self.within(Operation::Load, async {
            match &self.kind {
                Kind::Local(local) => local.read(move |rows| rows::epoch(rows, &key)).await,
                Kind::Redis(redis) => Box::pin(redis.not_before(&key)).await,
            }
        })
        .await
    }

    /// Whose refresh is to be tried before that time, the earliest that come after `after`, at most `limit`: when that is, and
    /// whose.
    pub(crate) async fn due(
        &self,
        after: Option<(i64, Key)>,
        before: i64,
        limit: usize,
    ) -> Result<Vec<(i64, Key)>, StorageError> {
        self.within(Operation::Due, async {
            match &self.kind {
                Kind::Local(local) => local.read(move |rows| rows::due(rows, after.as_ref(), before, limit)).await,
                Kind::Redis(redis) => Box::pin(redis.due(after, before, limit)).await,
            }
        })
        .await
    }

    /// What processes have left under a name, unless it begins with `head`.
    pub(crate) async fn left(&self, kind: Deposit, key: &Key, head: &[u8]) -> Result<Left, StorageError> {
        self.within(Operation::Left, async {
            match &self.kind {
                Kind::Local(_) => Err(StorageError::unavailable(ALONE)),
                Kind::Redis(redis) => Box::pin(redis.left(kind, key, head)).await,
            }
        })
        .await
    }

    /// Applies a change of that.
    pub(crate) async fn leave(&self, change: Change) -> Result<Done, StorageError> {
        let operation = match &change {
            Change::Put { .. } | Change::Remove { .. } => Operation::Leave,
            Change::Claim { .. } | Change::Release { .. } => Operation::Claim,
        };
        self.within(operation, async {
            match &self.kind {
                Kind::Local(_) => Err(StorageError::unavailable(ALONE)),
                Kind::Redis(redis) => Box::pin(redis.leave(change)).await,
            }
        })
        .await
    }

    /// Applies a change; durable when it returns.
    pub(crate) async fn write(&self, write: Write) -> Result<Done, StorageError> {
        self.within(Operation::of(&write), async {
            match &self.kind {
                Kind::Local(local) => local.write(write).await,
                Kind::Redis(redis) => Box::pin(redis.write(write)).await,
            }
        })
        .await
    }

    async fn within<T>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        let timer = self.metrics.operation(operation);
        let outcome = if self.is_closed() {
            Err(StorageError::unavailable("it is closed"))
        } else {
            match &self.kind {
                Kind::Local(_) => self.guarded(call).await,
                // Its servers are watched one by one: a shard that hangs says nothing of the others.
                Kind::Redis(_) => self.in_time(call).await.unwrap_or_else(Err),
            }
        };
        timer.observe(outcome.is_ok());
        outcome
    }

    async fn guarded<T>(&self, call: impl Future<Output = Result<T, StorageError>>) -> Result<T, StorageError> {
        if !self.breaker.lets_pass(Instant::now()) {
            return Err(StorageError::unavailable("it does not answer"));
        }
        let answer = self.in_time(call).await;
        self.breaker.saw(answer.is_ok(), Instant::now());
        answer.unwrap_or_else(Err)
    }

    /// The answer, if there was one in time; else what is to be said instead.
    async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<Result<T, StorageError>, StorageError> {
        let answer = tokio::time::timeout(self.deadline, call).await;
        answer.map_err(|_| StorageError::unavailable("it took too long to answer"))
    }
}

/// Nobody asks for that: see `Storage::deposits`.
const ALONE: &str = "no other process shares it";
/// Operations that a verb about one session makes one after the other, at most, on servers.
const STEPS: u32 = 5;
/// A user with more sessions than this is no person; the epoch ends the others just as well.
const MARKED_AT_ONCE: usize = 1000;
/// Longer than any browser keeps a cookie (400 days, RFC 6265bis §5.5), so than any session of a person. So long an end is
/// remembered: by then nothing brings a record back from before it, and one that is not there is as good as one that has ended.
const END_LIFE_MS: i64 = 401 * 24 * 3600 * 1000;

/// When that of an owner may be forgotten. One that `lasts` never is: sessions that have no end of their own may have lost the mark
/// of theirs.
const fn epoch_ends(not_before: i64, lasts: bool) -> i64 {
    if lasts { NEVER.as_millis() } else { not_before.saturating_add(END_LIFE_MS) }
}
/// An operation that takes longer is as good as none.
const DEADLINE: Duration = Duration::from_millis(500);
/// About half a million sessions.
const MAX_MEMORY: usize = 1 << 30;

#[cfg(test)]
pub(crate) mod gated {
    //! A store that hangs when it is told to.

    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::watch;

    use super::{MAX_MEMORY, Memory};

    #[derive(Debug)]
    pub(crate) struct Gated {
        memory: Memory,
        open: watch::Sender<bool>,
        asked: AtomicUsize,
    }

    impl Default for Gated {
        fn default() -> Self {
            Self { memory: Memory::new(MAX_MEMORY), open: watch::channel(true).0, asked: AtomicUsize::new(0) }
        }
    }

    impl Gated {
        pub(crate) fn hang(&self, hang: bool) {
            self.open.send_replace(!hang);
        }

        /// How many operations have reached it.
        pub(crate) fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }

        pub(super) async fn pass(&self) -> &Memory {
            self.asked.fetch_add(1, Ordering::SeqCst);
            self.open.subscribe().wait_for(|open| *open).await.unwrap();
            &self.memory
        }
    }
}
