//! The stores behind the faces: a handful of verbs over rows and sealed bytes. What is sealed in them, no backend knows.

mod breaker;
mod embedded;
mod memory;
mod rows;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::metrics::{Metrics, Operation};
use crate::record::{Key, Row};
use crate::{OpenError, StorageConfig, StorageError};

use breaker::Breaker;
use embedded::Embedded;
use memory::Memory;
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
    /// Saves a new session with its tokens, and what is known of its user.
    Create { handle: Key, row: Row, tokens: Vec<u8>, user: Vec<u8> },
    /// Replaces a session and its tokens if it still has that generation.
    Commit { handle: Key, expected: u64, row: Row, tokens: Vec<u8>, user: Vec<u8> },
    /// Marks a session as ended and wipes its tokens and view.
    Revoke { handle: Key },
    /// Ends the sessions of an owner that began before that time.
    RevokeOwner { owner: Key, not_before: i64 },
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
    Memory(Arc<Memory>),
    Embedded(Arc<Embedded>),
    #[cfg(test)]
    Gated(Arc<gated::Gated>),
}

impl Backend {
    /// Opens what the configuration names.
    pub(crate) fn open(config: StorageConfig, metrics: Arc<Metrics>) -> Result<Self, OpenError> {
        let kind = match config {
            StorageConfig::Memory => Kind::Memory(Arc::new(Memory::new(MAX_MEMORY))),
            StorageConfig::File { path } => Kind::Embedded(Arc::new(Embedded::open(&path)?)),
        };
        Ok(Self { kind, deadline: DEADLINE, breaker: Arc::default(), closed: Arc::default(), metrics })
    }

    /// A store in memory that answers only while its gate is open.
    #[cfg(test)]
    pub(crate) fn gated(deadline: Duration, metrics: Arc<Metrics>) -> (Self, Arc<gated::Gated>) {
        let gated = Arc::new(gated::Gated::default());
        let kind = Kind::Gated(Arc::clone(&gated));
        (Self { kind, deadline, breaker: Arc::default(), closed: Arc::default(), metrics }, gated)
    }

    /// Lets go of whatever is held; answers nothing any more.
    pub(crate) async fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        match &self.kind {
            Kind::Memory(_) => {}
            #[cfg(test)]
            Kind::Gated(_) => {}
            Kind::Embedded(file) => file.close().await,
        }
    }

    /// The session of that handle.
    pub(crate) async fn session(&self, handle: &Key) -> Result<Option<Stored>, StorageError> {
        let key = *handle;
        self.read(Operation::Load, move |rows| rows::session(rows, &key)).await
    }

    /// The session of that handle and its sealed tokens.
    pub(crate) async fn tokens(&self, handle: &Key) -> Result<Option<(Stored, Vec<u8>)>, StorageError> {
        let key = *handle;
        self.read(Operation::Tokens, move |rows| rows::tokens(rows, &key)).await
    }

    /// The sealed record of a user.
    pub(crate) async fn user(&self, owner: &Key) -> Result<Option<Vec<u8>>, StorageError> {
        let key = *owner;
        self.read(Operation::User, move |rows| rows::user(rows, &key)).await
    }

    /// The sessions of an owner, at most `limit`.
    pub(crate) async fn list(&self, owner: &Key, limit: usize) -> Result<Vec<(Key, Stored)>, StorageError> {
        let key = *owner;
        self.read(Operation::List, move |rows| rows::list(rows, &key, limit)).await
    }

    /// Whose refresh is to be tried before that time, the earliest that come after `after`, at most `limit`: when that is, and
    /// whose.
    pub(crate) async fn due(
        &self,
        after: Option<(i64, Key)>,
        before: i64,
        limit: usize,
    ) -> Result<Vec<(i64, Key)>, StorageError> {
        self.read(Operation::Due, move |rows| rows::due(rows, after.as_ref(), before, limit)).await
    }

    async fn read<T: Send + 'static>(
        &self,
        operation: Operation,
        look: impl FnOnce(&dyn Read) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        self.within(operation, async {
            match &self.kind {
                Kind::Memory(memory) => memory.read(|rows| look(rows)),
                Kind::Embedded(file) => file.read(|rows| look(rows)).await,
                #[cfg(test)]
                Kind::Gated(gated) => gated.pass().await.read(|rows| look(rows)),
            }
        })
        .await
    }

    /// Applies a change; durable when it returns.
    pub(crate) async fn write(&self, write: Write) -> Result<Done, StorageError> {
        self.within(Operation::of(&write), async {
            match &self.kind {
                Kind::Memory(memory) => memory.write(&write),
                Kind::Embedded(file) => file.write(write).await,
                #[cfg(test)]
                Kind::Gated(gated) => gated.pass().await.write(&write),
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
        let outcome = if self.closed.load(Ordering::SeqCst) {
            Err(StorageError::unavailable("it is closed"))
        } else if self.breaker.lets_pass(Instant::now()) {
            let answer = tokio::time::timeout(self.deadline, call).await;
            self.breaker.saw(answer.is_ok(), Instant::now());
            answer.unwrap_or_else(|_| Err(StorageError::unavailable("it took too long to answer")))
        } else {
            Err(StorageError::unavailable("it does not answer"))
        };
        timer.observe(outcome.is_ok());
        outcome
    }
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
