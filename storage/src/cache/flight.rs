//! One load for all who wait for the same session. It runs in a task of its own: whoever gives up waiting stops nobody.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, MutexGuard, PoisonError};

use postern_identity::{SessionId, Timestamp};
use tokio::sync::watch;

use super::{Loaded, SessionCache, is_same};
use crate::StorageError;

/// A session id as a key.
#[derive(Clone, Debug)]
pub(super) struct Id(SessionId);

impl PartialEq for Id {
    fn eq(&self, other: &Self) -> bool {
        is_same(&self.0, &other.0)
    }
}

impl Eq for Id {}

impl Hash for Id {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Random as it is.
        state.write(self.0.as_bytes().first_chunk::<8>().map_or(&[], <[u8; 8]>::as_slice));
    }
}

type Outcome<X> = Option<Result<Loaded<X>, StorageError>>;

/// A load under way.
#[derive(Debug)]
pub(super) struct Flight<X> {
    outcome: watch::Receiver<Outcome<X>>,
    /// The facts that were known when it began.
    facts: u64,
}

/// Boards the flight for this session, or starts one; the future is its outcome.
pub(super) fn join<X: Default + Send + Sync + 'static>(
    cache: &Arc<SessionCache<X>>,
    id: &SessionId,
    now: Timestamp,
) -> Result<impl Future<Output = Result<Loaded<X>, StorageError>> + use<X>, StorageError> {
    let mut outcome = board(cache, id, now)?;
    Ok(async move {
        let lost = || StorageError::unavailable("a load ended without an answer");
        let landed = outcome.wait_for(Option::is_some).await.map_err(|_| lost())?.clone();
        landed.unwrap_or_else(|| Err(lost()))
    })
}

/// Starts a flight that nobody waits for, unless there is one or too many are under way.
pub(super) fn refresh<X: Default + Send + Sync + 'static>(
    cache: &Arc<SessionCache<X>>,
    id: &SessionId,
    now: Timestamp,
) {
    drop(board(cache, id, now));
}

fn board<X: Default + Send + Sync + 'static>(
    cache: &Arc<SessionCache<X>>,
    id: &SessionId,
    now: Timestamp,
) -> Result<watch::Receiver<Outcome<X>>, StorageError> {
    let (key, facts) = (Id(id.clone()), cache.invalidation.facts());
    let mut flights = flights(cache);
    if let Some(flight) = flights.get(&key).filter(|flight| flight.facts == facts) {
        return Ok(flight.outcome.clone());
    }
    if flights.len() >= cache.config.max_waiting {
        return Err(StorageError::unavailable("too many sessions are being loaded"));
    }
    let (announce, outcome) = watch::channel(None);
    flights.insert(key.clone(), Flight { outcome: outcome.clone(), facts });
    drop(flights);
    let flying = Flying { cache: Arc::clone(cache), id: key, announce };
    cache.sessions.spawn(fly(flying, now));
    Ok(outcome)
}

async fn fly<X: Default + Send + Sync + 'static>(flying: Flying<X>, now: Timestamp) {
    // Bounded by the store's own deadline, which must be seen to pass for the breaker to open; who waits has a shorter one.
    let loaded = flying.cache.fetch(&flying.id.0, now).await;
    flying.announce.send_replace(Some(loaded));
}

/// Takes its flight off the board when it ends, however it ends.
struct Flying<X: Default + Send + Sync + 'static> {
    cache: Arc<SessionCache<X>>,
    id: Id,
    announce: watch::Sender<Outcome<X>>,
}

impl<X: Default + Send + Sync + 'static> Drop for Flying<X> {
    fn drop(&mut self) {
        let mut flights = flights(&self.cache);
        if flights.get(&self.id).is_some_and(|flight| self.announce.subscribe().same_channel(&flight.outcome)) {
            flights.remove(&self.id);
        }
    }
}

fn flights<X: Send + Sync + 'static>(
    cache: &SessionCache<X>,
) -> MutexGuard<'_, std::collections::HashMap<Id, Flight<X>>> {
    cache.flights.lock().unwrap_or_else(PoisonError::into_inner)
}
