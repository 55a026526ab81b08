//! Ending sessions for an operator, the same way as at a sign-out: in the store first (S-084), then their tokens are taken back
//! at the provider, which nobody waits for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures_util::stream::{self, Stream, StreamExt as _};
use postern_identity::{IdpId, Session, SessionHandle, Timestamp, Tokens};
use postern_storage::{Lookup, StorageError};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::Authn;
use crate::server::Shared;
use crate::sign_out::{self, PROVIDER_WAIT};

/// How far the clearing is that follows the end of all sessions. They are over from the first on: what is cleared is what is
/// left of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clearing {
    /// How many sessions were found that had ended so.
    pub ended: u64,
    /// Whether there is more to do.
    pub stage: Stage,
    /// How many tokens of which providers were not taken back because those took too long: they are wiped here, and good there
    /// until they expire.
    pub untaken: Untaken,
}

/// Tokens that were not taken back, by provider.
type Untaken = BTreeMap<IdpId, usize>;

/// Whether there is more to clear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// All is done, or nothing was begun.
    #[default]
    Done,
    /// It is under way; `again`: all sessions were ended once more meanwhile.
    Working {
        /// From the beginning, once it is at the end.
        again: bool,
        /// What began before that time is over.
        before: Timestamp,
    },
    /// It was given up: the tokens of some stay sealed in the store until they expire.
    GivenUp(String),
}

/// Why all sessions have not ended, or may not have.
#[derive(Debug, thiserror::Error)]
pub enum EndAllError {
    /// Whoever goes by the one clock would end too few by the other, or those that are yet to begin. Nothing was done.
    #[error("the clock of this machine says {ours}, that of the session store {theirs}: set them right first")]
    Clocks {
        /// What this machine says.
        ours: Timestamp,
        /// What the store says.
        theirs: Timestamp,
    },
    /// They may or may not have ended, so try again.
    #[error(transparent)]
    Store(#[from] StorageError),
}

/// What became of a session that was to end.
#[derive(Clone, Debug)]
pub enum End {
    /// It has ended now; `None`: the store does not say what it was.
    Now(Option<Arc<Session>>),
    /// It had been ended before; by now everybody has been told.
    Before,
    /// There is none of that name, or it is over.
    Unknown,
}

/// A session of which tokens were left, and the tokens.
type Taken = (IdpId, Tokens);

impl Authn {
    /// The issuers that are configured, by the provider's id or by its issuer if one is named.
    #[must_use]
    pub fn issuers(&self, provider: Option<&str>) -> Vec<String> {
        let live = self.shared.live();
        let configs = live.config.idps.iter();
        let named = configs.filter(|idp| provider.is_none_or(|name| name == idp.id.as_str() || name == idp.issuer));
        let mut issuers: Vec<_> = named.map(|idp| idp.issuer.clone()).collect();
        issuers.sort_unstable();
        issuers.dedup();
        issuers
    }

    /// Ends one session, and gives what it was. One that is marked is ended once more: when that failed half-way, its mark
    /// was there and nobody had been told (S-084). If the store does not say whose it is, it ends all the same.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`]; it may or may not have ended, so try again.
    pub async fn end(&self, session: &SessionHandle, now: Timestamp) -> Result<End, StorageError> {
        let sessions = &self.shared.sessions;
        match sessions.load(session, now).await {
            Ok(Lookup::Found(known)) => {
                let tokens = sign_out::end(sessions, session).await?;
                self.take_back(tokens.map(|tokens| (known.idp.clone(), tokens)).into_iter().collect());
                Ok(End::Now(Some(known)))
            }
            Ok(Lookup::Revoked) => sessions.revoke(session).await.map(|()| End::Before),
            Ok(Lookup::Unknown) => Ok(End::Unknown),
            Err(error) => {
                warn!(%error, postern.session = %session, "whose session it is cannot be read; it is ended all the same");
                let was_there = sessions.revoke_if_there(session).await?;
                Ok(if was_there { End::Now(None) } else { End::Unknown })
            }
        }
    }

    /// Ends every session of a user (S-095), those included that are being created; gives how many there were, `None` if they
    /// cannot be listed.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`]; they may or may not have ended, so try again.
    pub async fn end_user(&self, issuer: &str, user: &str, now: Timestamp) -> Result<Option<usize>, StorageError> {
        let (sessions, begun) = (&self.shared.sessions, Instant::now());
        let listed = sessions.list(issuer, user, now).await;
        if let Err(error) = &listed {
            warn!(%error, "the sessions of a user cannot be listed; they end all the same, and their tokens stay sealed");
        }
        let count = listed.as_ref().ok().map(Vec::len);
        let listed = listed.unwrap_or_default();
        let handles: Vec<_> = listed.iter().map(|line| line.handle).collect();
        let reading = stream::iter(handles).map(|handle| async move {
            match sessions.load(&handle, now).await {
                Ok(Lookup::Found(session)) => {
                    let tokens = sessions.tokens(&handle).await.ok().flatten();
                    tokens.map(|tokens| (session.idp.clone(), tokens))
                }
                Ok(Lookup::Revoked | Lookup::Unknown) | Err(_) => None,
            }
        });
        // The tokens are wiped with the sessions, so they are read before; that holds up nothing for long.
        let reading = reading.buffer_unordered(READ_AT_ONCE).filter_map(std::future::ready);
        let taken = gather(reading, READ_WITHIN).await;
        // What began in this very moment is over too.
        let before = now.plus(begun.elapsed()).plus(Duration::from_millis(1));
        sessions.revoke_user(issuer, user, before).await?;
        // The clock of whoever created these is ahead. One that cannot be ended keeps no other one alive.
        let mut ended = Ok(());
        for line in listed.iter().filter(|line| line.issued_at >= before) {
            ended = ended.and(sessions.revoke(&line.handle).await);
        }
        self.take_back(taken);
        ended.map(|()| count)
    }

    /// Ends every session of everybody, by one fact; they have ended when this returns. The time of it is by the store's own
    /// clock. What is left of them is cleared in the background, see [`clearing`](Self::clearing).
    ///
    /// # Errors
    /// [`EndAllError`].
    pub async fn end_all(&self, now: Timestamp) -> Result<(), EndAllError> {
        let (sessions, begun) = (&self.shared.sessions, Instant::now());
        let theirs = sessions.time(now).await?;
        let ours = now.plus(begun.elapsed());
        // The answer is from a moment between both.
        if theirs < now.minus(CLOCKS_MAY_DIFFER) || theirs > ours.plus(CLOCKS_MAY_DIFFER) {
            return Err(EndAllError::Clocks { ours, theirs });
        }
        let before = theirs.plus(CLOCKS_MAY_DIFFER);
        sessions.revoke_everyone(before).await?;
        let begins = self.shared.clearing.send_if_modified(|clearing| {
            let working = matches!(clearing.stage, Stage::Working { .. });
            if !working {
                *clearing = Clearing::default();
            }
            clearing.stage = Stage::Working { again: working, before };
            !working
        });
        if begins {
            drop(self.shared.tasks.spawn(clear(Arc::clone(&self.shared))));
        }
        Ok(())
    }

    /// Ends the clearing where it is, and returns when all tokens that were read have been taken back.
    pub async fn finish(&self) {
        self.shared.ending.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// How far the clearing is.
    #[must_use]
    pub fn clearing(&self) -> watch::Receiver<Clearing> {
        self.shared.clearing.subscribe()
    }

    fn take_back(&self, taken: Vec<Taken>) {
        let shared = Arc::clone(&self.shared);
        drop(self.shared.tasks.spawn(async move { take_back(&shared, taken, Untaken::default()).await }));
    }
}

/// What it comes to is logged where it is done; a provider that hangs holds up nothing for long, and is not asked for more.
async fn take_back(shared: &Shared, taken: Vec<Taken>, untaken: Untaken) -> Untaken {
    let (live, untaken) = (shared.live(), Mutex::new(untaken));
    let late = |idp: &IdpId| {
        let mut untaken = untaken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = untaken.entry(idp.clone()).or_default();
        *count += 1;
        *count
    };
    let taking = stream::iter(taken).for_each_concurrent(TAKEN_BACK_AT_ONCE, async |(id, tokens)| {
        let Some(idp) = live.idp(&id) else { return };
        if untaken.lock().unwrap_or_else(PoisonError::into_inner).get(&id).is_some_and(|late| *late >= LATE) {
            late(&id);
        } else if tokio::time::timeout(PROVIDER_WAIT, idp.take_back(&tokens)).await.is_err() && late(&id) == LATE {
            warn!(postern.idp = id.as_str(), "it takes too long to take tokens back: it is not asked for more of them");
        }
    });
    taking.await;
    untaken.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// What comes in time.
async fn gather<T>(items: impl Stream<Item = T>, within: Duration) -> Vec<T> {
    let mut gathered = Vec::new();
    let gathering = items.for_each(|item| {
        gathered.push(item);
        std::future::ready(())
    });
    let _late = tokio::time::timeout(within, gathering).await;
    gathered
}

/// Goes through all sessions, wipes what is left of those that have ended, and takes their tokens back.
async fn clear(shared: Arc<Shared>) {
    let (mut place, mut failures) = (None, 0);
    loop {
        if shared.ending.is_cancelled() {
            return give_up(&shared, "this process ends");
        }
        let before = match shared.clearing.borrow().stage {
            Stage::Working { before, .. } => before,
            Stage::Done | Stage::GivenUp(_) => return,
        };
        let left = shared.sessions.clear(place, SystemTime::now().into(), before).await;
        place = left.next;
        let ended = u64::try_from(left.ended.len()).unwrap_or(u64::MAX);
        shared.clearing.send_modify(|clearing| clearing.ended = clearing.ended.saturating_add(ended));
        let taken = left.ended.into_iter().filter_map(|(session, tokens)| Some((session.idp, tokens?)));
        let taken = taken.chain(left.unsure).collect();
        let before = shared.clearing.borrow().untaken.clone();
        let untaken = take_back(&shared, taken, before).await;
        shared.clearing.send_modify(|clearing| clearing.untaken = untaken);
        match left.failed {
            // It goes on where it was; what was done is not found again.
            Some(error) if failures < FAILURES => {
                warn!(%error, "what is left of ended sessions cannot be cleared now; it is tried again");
                failures += 1;
                let _ending = tokio::time::timeout(PAUSE, shared.ending.cancelled()).await;
                continue;
            }
            Some(error) => return give_up(&shared, &error.to_string()),
            None if place.is_some() => continue,
            None => failures = 0,
        }
        let mut over = false;
        shared.clearing.send_modify(|clearing| {
            let again = match clearing.stage {
                Stage::Working { again: true, before } => Some(before),
                Stage::Working { again: false, .. } | Stage::Done | Stage::GivenUp(_) => None,
            };
            over = again.is_none();
            clearing.stage = again.map_or(Stage::Done, |before| Stage::Working { again: false, before });
        });
        if over {
            let ended = shared.clearing.borrow().ended;
            info!(sessions = ended, "what was left of ended sessions is cleared");
            return;
        }
    }
}

fn give_up(shared: &Shared, why: &str) {
    warn!(why, "what is left of ended sessions could not be cleared: it stays sealed until it expires");
    shared.clearing.send_modify(|clearing| clearing.stage = Stage::GivenUp(why.to_owned()));
}

/// How far the clock of this process may be from the store's where all sessions are to end, and that of whoever creates
/// sessions meanwhile. A session that began later by less than this may have begun before, and is ended with the others.
const CLOCKS_MAY_DIFFER: Duration = Duration::from_secs(1);
/// So long a session waits after the end of all: so far the clocks of those who end sessions and of those who begin them may
/// differ, both ways.
pub(crate) const LONGEST_WAIT: Duration = CLOCKS_MAY_DIFFER.saturating_mul(3);
const READ_AT_ONCE: usize = 32;
/// Revoking must not wait longer for tokens.
const READ_WITHIN: Duration = Duration::from_secs(1);
/// No flood for the provider.
const TAKEN_BACK_AT_ONCE: usize = 8;
/// A provider that took too long so often is not asked again.
const LATE: usize = TAKEN_BACK_AT_ONCE;
const FAILURES: u32 = 30;
const PAUSE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_one_slow_read_holds_up_is_not_lost() {
        let items = stream::iter([1, 2]).chain(stream::pending());
        assert_eq!(gather(items, Duration::from_millis(10)).await, [1, 2]);
    }
}
