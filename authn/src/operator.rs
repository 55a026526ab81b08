//! Ending sessions for an operator, the same way as at a sign-out: in the store first (S-084), then their tokens are taken back
//! at the provider, which nobody waits for.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::stream::{self, StreamExt as _};
use postern_identity::{IdpId, SessionHandle, Timestamp, Tokens};
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
}

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
    },
    /// It was given up: the tokens of some stay sealed in the store until they expire.
    GivenUp(String),
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

    /// Ends one session, and gives what it was.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`]; it may or may not have ended, so try again.
    pub async fn end(&self, session: &SessionHandle, now: Timestamp) -> Result<Lookup, StorageError> {
        let found = self.shared.sessions.load(session, now).await?;
        if let Lookup::Found(known) = &found {
            let tokens = sign_out::end(&self.shared.sessions, session).await?;
            self.take_back(tokens.map(|tokens| (known.idp.clone(), tokens)).into_iter().collect());
        }
        Ok(found)
    }

    /// Ends every session of a user (S-095), those included that are being created; gives how many there were.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`]; they may or may not have ended, so try again.
    pub async fn end_user(&self, issuer: &str, user: &str, now: Timestamp) -> Result<usize, StorageError> {
        let sessions = &self.shared.sessions;
        let listed = sessions.list(issuer, user, now).await?;
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
        let reading = reading.buffer_unordered(READ_AT_ONCE).filter_map(std::future::ready).collect::<Vec<Taken>>();
        let taken = tokio::time::timeout(READ_WITHIN, reading).await.unwrap_or_default();
        // What began in this very moment is over too.
        let before = now.plus(Duration::from_millis(1));
        sessions.revoke_user(issuer, user, before).await?;
        // The clock of whoever created these is ahead.
        for line in listed.iter().filter(|line| line.issued_at >= before) {
            sessions.revoke(&line.handle).await?;
        }
        self.take_back(taken);
        Ok(listed.len())
    }

    /// Ends every session of everybody, by one fact; they have ended when this returns. What is left of them is cleared in
    /// the background, see [`clearing`](Self::clearing).
    ///
    /// # Errors
    /// [`StorageError::Unavailable`]; they may or may not have ended, so try again.
    pub async fn end_all(&self, now: Timestamp) -> Result<(), StorageError> {
        self.shared.sessions.revoke_everyone(now.plus(Duration::from_millis(1))).await?;
        let begins = self.shared.clearing.send_if_modified(|clearing| {
            let working = matches!(clearing.stage, Stage::Working { .. });
            let ended = if working { clearing.ended } else { 0 };
            *clearing = Clearing { ended, stage: Stage::Working { again: working } };
            !working
        });
        if begins {
            drop(tokio::spawn(clear(Arc::clone(&self.shared))));
        }
        Ok(())
    }

    /// How far the clearing is.
    #[must_use]
    pub fn clearing(&self) -> watch::Receiver<Clearing> {
        self.shared.clearing.subscribe()
    }

    fn take_back(&self, taken: Vec<Taken>) {
        let shared = Arc::clone(&self.shared);
        drop(tokio::spawn(async move { take_back(&shared, taken).await }));
    }
}

/// What it comes to is logged where it is done; a provider that hangs holds up nothing for long.
async fn take_back(shared: &Shared, taken: Vec<Taken>) {
    let live = shared.live();
    let taking = stream::iter(taken).for_each_concurrent(TAKEN_BACK_AT_ONCE, async |(idp, tokens)| {
        if let Some(idp) = live.idp(&idp) {
            let _late = tokio::time::timeout(PROVIDER_WAIT, idp.take_back(&tokens)).await;
        }
    });
    taking.await;
}

/// Goes through all sessions, wipes what is left of those that have ended, and takes their tokens back.
async fn clear(shared: Arc<Shared>) {
    let (mut place, mut failures, mut provider_answers) = (None, 0, true);
    loop {
        match shared.sessions.clear(place, SystemTime::now().into()).await {
            Ok(left) => {
                (place, failures) = (left.next, 0);
                let ended = u64::try_from(left.ended.len()).unwrap_or(u64::MAX);
                shared.clearing.send_modify(|clearing| clearing.ended = clearing.ended.saturating_add(ended));
                let taken = left.ended.into_iter().filter_map(|(session, tokens)| Some((session.idp, tokens?)));
                let taken: Vec<_> = taken.collect();
                if provider_answers && !taken.is_empty() {
                    let taking = tokio::time::timeout(TAKEN_BACK_WITHIN, take_back(&shared, taken)).await;
                    provider_answers = taking.is_ok();
                }
            }
            // It was all idempotent: begin anew, the servers may have changed.
            Err(error) if failures < FAILURES => {
                warn!(%error, "what is left of ended sessions cannot be cleared now; it is tried again");
                (place, failures) = (None, failures + 1);
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(error) => {
                warn!(%error, "what is left of ended sessions could not be cleared: it stays sealed until it expires");
                shared.clearing.send_modify(|clearing| clearing.stage = Stage::GivenUp(error.to_string()));
                return;
            }
        }
        if place.is_some() {
            continue;
        }
        let mut over = false;
        shared.clearing.send_modify(|clearing| {
            over = clearing.stage != Stage::Working { again: true };
            clearing.stage = if over { Stage::Done } else { Stage::Working { again: false } };
        });
        if over {
            let ended = shared.clearing.borrow().ended;
            info!(sessions = ended, "what was left of ended sessions is cleared");
            return;
        }
    }
}

const READ_AT_ONCE: usize = 32;
/// Revoking must not wait longer for tokens.
const READ_WITHIN: Duration = Duration::from_secs(1);
/// No flood for the provider.
const TAKEN_BACK_AT_ONCE: usize = 8;
/// For the sessions of one page; a provider that takes longer is not asked again by this clearing.
const TAKEN_BACK_WITHIN: Duration = Duration::from_secs(60);
const FAILURES: u32 = 30;
const PAUSE: Duration = Duration::from_secs(2);
