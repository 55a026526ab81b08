//! Keeps sessions in step with their providers: new tokens before the old ones end, and with them what changed about the
//! user (S-075 to S-078).
//!
//! The store knows which session is due when. A session is taken by putting its next try off by [`LEASE`]: of all that see
//! it due one is heard, in this process or another, and if that one dies the session comes up again. Only a
//! provider that says no ends a session; whatever else goes wrong is tried again until the session's own end.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures_util::stream::{self, StreamExt as _};
use postern_identity::{IdpId, Session, SessionHandle, Timestamp, Tokens};
use postern_storage::{Committed, Due, Lookup, StorageError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::idp::{Believed, Granted, Idp, ProviderError, REFRESHES_AT_ONCE};
use crate::server::{Live, Shared};

/// More sessions of one look that cannot be read or claimed are worth a line in the log.
const FAILURES: usize = 3;
/// Sessions that are looked at and claimed at one time.
const SIDE_BY_SIDE: usize = 16;
/// How often the store is asked what is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longer than one refresh can take: 15 s to be ready, 10 s for the grant, 15 s for keys, [`SAVE_WITHIN`], 25 s for userinfo,
/// [`SAVE_WITHIN`] once more.
const LEASE: Duration = Duration::from_secs(120);
/// Nothing is asked with less than this left of the claim: whoever stood still since may not be alone any more.
const LEFT: Duration = Duration::from_secs(60);
/// A store that is away just after a grant is given this time to come back, for the sake of the new refresh token. With
/// the 10 s of the grant itself it fits into the 30 s of a drain.
const SAVE_WITHIN: Duration = Duration::from_secs(15);
/// Between two tries to save, at most.
const SAVE_GAP: Duration = Duration::from_secs(1);
/// How long an access token lives whose provider does not say, and how long one is thought to live at most: what changes
/// at the provider is seen within that time.
const ASSUMED_LIFE: Duration = Duration::from_secs(3600);
/// Never more often than this.
const MIN_GAP: Duration = Duration::from_secs(10);
/// How often a session whose record does not open is looked at again: it may never open.
const UNREADABLE_GAP: Duration = Duration::from_secs(3600);
/// One that waits for so long beyond its time waits no more: longer than any rest of a provider.
const FORGET: Duration = Duration::from_secs(600);
/// So many sessions are looked at in one go.
const AT_ONCE: usize = 128;
/// Between two tries that fail.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// When these tokens are to be refreshed: at 70 to 90 % of the access token's life, another point for each session; `None`
/// if they cannot be.
pub(crate) fn due_at(handle: &SessionHandle, tokens: &Tokens, now: Timestamp) -> Option<Timestamp> {
    tokens.refresh.as_ref()?;
    let life = tokens.access_expires_at.map_or(ASSUMED_LIFE, |end| end.since(now)).min(ASSUMED_LIFE);
    Some(now.plus(spread(handle, life, 70, 90).max(MIN_GAP)))
}

/// When to try again what has been due since then: twice as late each time.
fn retry_at(handle: &SessionHandle, due: Timestamp, now: Timestamp) -> Timestamp {
    now.plus(spread(handle, now.since(due).clamp(RETRY.0, RETRY.1), 80, 120))
}

/// A share of `time`, in percent, that differs from session to session and is the same for each: no herd, and no dice.
fn spread(handle: &SessionHandle, time: Duration, from: u32, to: u32) -> Duration {
    let [high, low, ..] = *handle.as_bytes();
    let share = from * 65_536 + (to - from) * u32::from(u16::from_be_bytes([high, low]));
    time.saturating_mul(share) / (100 * 65_536)
}

/// Refreshes what is due until `shutdown`, then finishes what it began: new tokens are saved, no more is asked.
pub(crate) async fn run(shared: Arc<Shared>, shutdown: CancellationToken) {
    let mut refresher = Refresher::new(shared, shutdown.clone());
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            _ = look.tick() => {}
            Some(ended) = refresher.underway.join_next() => refresher.note(ended),
        }
        refresher.begin_due(SystemTime::now().into()).await;
    }
    while let Some(ended) = refresher.underway.join_next().await {
        refresher.note(ended);
    }
}

/// Refreshes what is due at `now`.
pub(crate) async fn round(shared: Arc<Shared>, now: Timestamp) {
    let mut refresher = Refresher::new(shared, CancellationToken::new());
    refresher.begin_due(now).await;
    while let Some(ended) = refresher.underway.join_next().await {
        refresher.note(ended);
        refresher.begin_due(now).await;
    }
}

/// The sessions that this process refreshes now. A clock that jumps forward, as after the sleep of a machine, shows it claims of
/// its own as run out, and a refresh token must not be sent while it is on its way already.
#[derive(Debug, Default)]
pub(crate) struct Underway(Mutex<HashSet<SessionHandle>>);

impl Underway {
    fn sessions(&self) -> MutexGuard<'_, HashSet<SessionHandle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of them, until this is dropped.
struct Held {
    shared: Arc<Shared>,
    session: SessionHandle,
}

impl Held {
    /// `None` if it is one of them already.
    fn new(shared: &Arc<Shared>, session: SessionHandle) -> Option<Self> {
        let is_new = shared.underway.sessions().insert(session);
        is_new.then(|| Self { shared: Arc::clone(shared), session })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.underway.sessions().remove(&self.session);
    }
}

/// A session whose refresh has ended, and when it is to be tried again if it failed.
type Ended = (SessionHandle, Option<Timestamp>);

/// One way through everything that is due, in several looks: the sessions of a provider that has no place, and those that
/// cannot be read, are passed by, so that those of others have their turn, and nothing is written for them. It ends where
/// time stood when it began to pass by: what comes up meanwhile, however much, makes it no longer. Then it begins anew.
#[derive(Debug, Default)]
struct Pass {
    /// The last one that was passed by, and where the way ends.
    at: Option<(Due, Timestamp)>,
}

impl Pass {
    fn after(&self) -> Option<&Due> {
        self.at.as_ref().map(|(due, _)| due)
    }

    fn until(&self, now: Timestamp) -> Timestamp {
        self.at.map_or(now, |(_, until)| until.min(now))
    }

    /// Notes the last one that a look up to `until` passed by, and whether there was nothing more to see.
    fn went(&mut self, passed: Option<Due>, until: Timestamp, is_last: bool) {
        match passed {
            _ if is_last => self.at = None,
            Some(due) => self.at = Some((due, until)),
            None => {}
        }
    }
}

/// One look at what is due.
struct Look {
    shared: Arc<Shared>,
    live: Arc<Live>,
    shutdown: CancellationToken,
    /// Refreshes that may still be begun.
    room: Semaphore,
    now: Timestamp,
}

/// What became of a session that was looked at.
enum Found {
    /// It is to be refreshed; the place is at its provider, if that is configured.
    Claimed { claim: Due, held: Held, place: Option<OwnedSemaphorePermit> },
    /// Somebody was earlier, or it is over.
    Taken,
    /// The process ends.
    Left,
    /// Its provider has no place for it.
    NoPlace { idp: IdpId },
    /// The store did not answer.
    Failed { idp: Option<IdpId>, error: StorageError },
}

impl Look {
    async fn at(&self, at: usize, due: Due) -> (usize, Found) {
        let Ok(room) = self.room.acquire().await else { return (at, Found::Left) };
        // What is claimed now would be lost if the process ended before it is saved.
        if self.shutdown.is_cancelled() {
            return (at, Found::Left);
        }
        let found = self.claim(due).await;
        if matches!(found, Found::Claimed { .. }) {
            room.forget();
        }
        (at, found)
    }

    async fn claim(&self, due: Due) -> Found {
        let sessions = &self.shared.sessions;
        let Some(held) = Held::new(&self.shared, due.handle) else { return Found::Taken };
        let (idp, place) = match sessions.load(&due.handle, self.now).await {
            Ok(Lookup::Found(session)) => match self.live.idp(&session.idp).map(|idp| idp.place(self.now)) {
                Some(None) => return Found::NoPlace { idp: session.idp.clone() },
                Some(place) => (Some(session.idp.clone()), place),
                None => (Some(session.idp.clone()), None),
            },
            // What becomes of it is seen once it is claimed.
            Ok(Lookup::Revoked | Lookup::Unknown) => (None, None),
            Err(error) => return Found::Failed { idp: None, error },
        };
        match sessions.postpone(&due, self.now.plus(LEASE)).await {
            Ok(Some(claim)) => Found::Claimed { claim, held, place },
            Ok(None) => Found::Taken,
            Err(error) => Found::Failed { idp, error },
        }
    }
}

struct Refresher {
    shared: Arc<Shared>,
    shutdown: CancellationToken,
    underway: JoinSet<Ended>,
    /// Sessions that wait for another try, until then; those that were passed by, since then.
    overdue: HashMap<SessionHandle, Timestamp>,
    pass: Pass,
    store_answers: bool,
}

impl Refresher {
    fn new(shared: Arc<Shared>, shutdown: CancellationToken) -> Self {
        Self {
            shared,
            shutdown,
            underway: JoinSet::new(),
            overdue: HashMap::new(),
            pass: Pass::default(),
            store_answers: true,
        }
    }

    /// Begins as many of the refreshes that are due as there are places for.
    async fn begin_due(&mut self, now: Timestamp) {
        // Some waited for a session that has ended meanwhile.
        self.overdue.retain(|_, next| next.plus(FORGET) > now);
        self.shared.metrics.overdue(self.overdue.len());
        let live = self.shared.live();
        let begun = self.take(&live, now).await;
        if let Err(error) = &begun
            && self.store_answers
        {
            warn!(%error, "sessions that are due for a refresh cannot be read");
        }
        self.store_answers = begun.is_ok();
    }

    async fn take(&mut self, live: &Arc<Live>, now: Timestamp) -> Result<(), StorageError> {
        let places = REFRESHES_AT_ONCE.saturating_mul(live.idps().len());
        let room = places.saturating_sub(self.underway.len());
        // While nobody can be asked there is nothing to look for.
        if room == 0 || !live.idps().iter().any(|idp| idp.has_place(now)) {
            return Ok(());
        }
        let (begun, until) = (Instant::now(), self.pass.until(now));
        let seen = self.shared.sessions.due_after(self.pass.after(), until, AT_ONCE).await?;
        let look = Look {
            shared: Arc::clone(&self.shared),
            live: Arc::clone(live),
            shutdown: self.shutdown.clone(),
            room: Semaphore::new(room),
            now,
        };
        let looking = stream::iter(seen.iter().copied().enumerate()).map(|(at, due)| look.at(at, due));
        let mut looking = looking.buffer_unordered(SIDE_BY_SIDE);
        let (mut passed, mut left) = (Vec::new(), (0..seen.len()).collect::<BTreeSet<_>>());
        let (mut claimed, mut failed, mut trouble) = (0, 0, None);
        // Who waits for room once it is all taken has done nothing yet.
        while claimed < room
            && let Some((at, found)) = looking.next().await
        {
            left.remove(&at);
            match found {
                Found::Claimed { claim, held, place } => {
                    claimed += 1;
                    self.begin(Refresh {
                        shared: Arc::clone(&self.shared),
                        shutdown: self.shutdown.clone(),
                        _held: held,
                        _place: place,
                        claim,
                        now,
                        begun,
                    });
                }
                Found::Taken => {}
                Found::Left => drop(left.insert(at)),
                Found::NoPlace { idp } => {
                    passed.push(at);
                    self.pass_by(seen.get(at), idp.as_str(), "no-place", now);
                }
                // A part of the store may be away: those behind have been looked at, and this one comes up again.
                Found::Failed { idp, error } => {
                    passed.push(at);
                    let idp = idp.as_ref().map_or("unknown", IdpId::as_str);
                    self.pass_by(seen.get(at), idp, "store-unavailable", now);
                    (failed, trouble) = (failed + 1, Some(error));
                }
            }
        }
        let passed = passed.into_iter().filter(|at| left.first().is_none_or(|left| at < left)).max();
        self.pass.went(passed.and_then(|at| seen.get(at).copied()), until, seen.len() < AT_ONCE);
        trouble.filter(|_| failed > FAILURES).map_or(Ok(()), Err)
    }

    /// Leaves it to a later look, and counts it once.
    fn pass_by(&mut self, due: Option<&Due>, idp: &str, outcome: &str, now: Timestamp) {
        if let Some(due) = due
            && self.overdue.insert(due.handle, now).is_none()
        {
            self.shared.metrics.refreshed(idp, outcome);
        }
    }

    fn begin(&mut self, refresh: Refresh) {
        let live = self.shared.live();
        self.underway.spawn(async move { refresh.run(&live).await });
    }

    fn note(&mut self, ended: Result<Ended, JoinError>) {
        match ended {
            Ok((handle, Some(next))) => drop(self.overdue.insert(handle, next)),
            Ok((handle, None)) => drop(self.overdue.remove(&handle)),
            Err(bug) => {
                self.shared.metrics.panicked();
                error!(error = %bug, "a refresh ended in a panic");
            }
        }
        self.shared.metrics.overdue(self.overdue.len());
    }
}

/// How a refresh ended.
#[derive(Debug)]
enum Outcome {
    /// Tokens and claims are new.
    Refreshed,
    /// The tokens are new, the claims are those of before; they are asked for again soon.
    Partly(ProviderError),
    /// Nothing is new; it is tried again.
    Kept(Failure),
    /// The session is over, because of this.
    Ended(&'static str),
    /// Somebody else refreshed or ended the session.
    Overtaken,
    /// The tokens are new, and this process ends: another one asks for the claims.
    Interrupted,
    /// This process ends, and nothing was asked yet: another one begins anew.
    GivenBack,
}

/// Why a refresh did not come about.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Provider(#[from] ProviderError),
    #[error(transparent)]
    Store(#[from] StorageError),
    #[error("the identity provider is not configured")]
    UnknownIdp,
}

impl Failure {
    const fn reason(&self) -> &'static str {
        match self {
            Self::Provider(error) => error.reason(),
            Self::Store(_) => "store-unavailable",
            Self::UnknownIdp => "idp-not-configured",
        }
    }

    fn is_temporary(&self) -> bool {
        match self {
            Self::Provider(error) => error.is_temporary(),
            Self::Store(_) => true,
            Self::UnknownIdp => false,
        }
    }
}

/// One refresh, of the session that was claimed.
struct Refresh {
    shared: Arc<Shared>,
    shutdown: CancellationToken,
    _held: Held,
    /// At its provider; none if that is not configured.
    _place: Option<OwnedSemaphorePermit>,
    claim: Due,
    /// When it was claimed, by the clock and by the watch.
    now: Timestamp,
    begun: Instant,
}

/// Which of the two saves of a refresh.
#[derive(Clone, Copy, Debug)]
enum Part {
    /// The new tokens, at once: whoever loses them loses the session. The claim is kept.
    First,
    /// What the provider says of the user, and that the refresh is over.
    Last,
}

impl Refresh {
    fn now(&self) -> Timestamp {
        self.now.plus(self.begun.elapsed())
    }

    async fn run(self, live: &Live) -> Ended {
        let handle = self.claim.handle;
        match self.load().await {
            Ok(Some((session, tokens))) => {
                let outcome = match live.idp(&session.idp) {
                    Some(idp) => self.refresh(idp, &session, &tokens).await,
                    None => Err(Failure::UnknownIdp),
                };
                let outcome = outcome.unwrap_or_else(Outcome::Kept);
                self.tell(session.idp.as_str(), &outcome);
                (handle, self.next(&outcome, &tokens).await)
            }
            // It is over, and then this comes to nothing; or its record does not open here. Another node may have the key.
            Ok(None) => {
                if let Err(error) = self.shared.sessions.postpone(&self.claim, self.now().plus(UNREADABLE_GAP)).await {
                    debug!(postern.session = %handle, %error, "a session that cannot be read comes up again soon");
                }
                (handle, None)
            }
            // The claim runs out, and then it comes up again.
            Err(error) => {
                debug!(postern.session = %handle, %error, "a session that is due for a refresh cannot be read");
                (handle, Some(self.claim.next))
            }
        }
    }

    async fn load(&self) -> Result<Option<(Session, Tokens)>, StorageError> {
        let sessions = &self.shared.sessions;
        let Lookup::Found(session) = sessions.load(&self.claim.handle, self.now()).await? else { return Ok(None) };
        let tokens = sessions.tokens(&self.claim.handle).await?;
        Ok(tokens.map(|tokens| (Session::clone(&session), tokens)))
    }

    async fn refresh(&self, idp: &Idp, session: &Session, tokens: &Tokens) -> Result<Outcome, Failure> {
        let granted = match self.ask(idp, session, tokens).await {
            Ok(granted) => granted,
            Err(unasked) => return Ok(unasked),
        };
        idp.note(granted.as_ref().map(drop), self.now());
        let granted = match granted {
            Err(error @ ProviderError::GrantRefused) => return self.refused(session, error.reason()).await,
            granted => granted?,
        };
        let mut session = session.clone();
        let doubt = match granted.believed {
            Believed::Another(error) => {
                let ended = self.end(error.reason()).await;
                idp.take_back(&granted.tokens).await;
                return ended;
            }
            Believed::Claims(claims) => {
                session.claims = claims;
                None
            }
            Believed::Doubted(error) => Some(error),
            Believed::Nothing => None,
        };
        let mut tokens = granted.tokens;
        let due = due_at(&session.handle, &tokens, self.now());
        // Until the user is known anew; that the process ends here is one way that it may not come to that.
        tokens.refresh_at = due.map(|due| due.min(self.now().plus(spread(&session.handle, RETRY.1, 80, 120))));
        match self.save(&session, &tokens, Part::First).await? {
            Committed::Saved(generation) => session.generation = generation,
            // Who was earlier may hold the very same refresh token.
            Committed::Moved => return Ok(Outcome::Overtaken),
            Committed::Ended => {
                idp.take_back(&tokens).await;
                return Ok(Outcome::Overtaken);
            }
        }
        match doubt {
            Some(doubt) => Ok(Outcome::Partly(doubt)),
            None if self.shutdown.is_cancelled() => Ok(Outcome::Interrupted),
            None => self.describe(idp, session, Tokens { refresh_at: due, ..tokens }).await,
        }
    }

    /// New tokens, or what became of it before they were asked for.
    async fn ask(
        &self,
        idp: &Idp,
        session: &Session,
        tokens: &Tokens,
    ) -> Result<Result<Granted, ProviderError>, Outcome> {
        let ready = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => return Err(Outcome::GivenBack),
            ready = idp.ready() => ready,
        };
        match ready {
            // What made it ready may have come together with the end.
            Ok(_) if self.shutdown.is_cancelled() => Err(Outcome::GivenBack),
            Ok(_) if self.claim.next < Timestamp::from(SystemTime::now()).plus(LEFT) => Err(Outcome::Overtaken),
            Ok(ready) => Ok(ready.refresh(session, tokens, self.now(), &self.shutdown).await),
            Err(error) => Ok(Err(error)),
        }
    }

    /// The second half: what the provider says of the user now.
    async fn describe(&self, idp: &Idp, mut session: Session, tokens: Tokens) -> Result<Outcome, Failure> {
        let described = tokio::select! {
            biased;
            described = idp.describe(&session, &tokens) => described,
            () = self.shutdown.cancelled() => return Ok(Outcome::Interrupted),
        };
        session.user = match described {
            Ok(user) => user,
            Err(error @ ProviderError::OtherSubject) => {
                let ended = self.end(error.reason()).await;
                idp.take_back(&tokens).await;
                return ended;
            }
            Err(error) => return Ok(Outcome::Partly(error)),
        };
        match self.save(&session, &tokens, Part::Last).await? {
            Committed::Saved(_) => Ok(Outcome::Refreshed),
            Committed::Moved => Ok(Outcome::Overtaken),
            // Who ended it may have known only the tokens of before.
            Committed::Ended => {
                idp.take_back(&tokens).await;
                Ok(Outcome::Overtaken)
            }
        }
    }

    /// The provider said no. If the session has moved on meanwhile, that was about an older refresh token (S-076).
    async fn refused(&self, session: &Session, reason: &'static str) -> Result<Outcome, Failure> {
        match self.shared.sessions.load(&session.handle, self.now()).await? {
            Lookup::Found(found) if found.generation == session.generation => self.end(reason).await,
            Lookup::Found(_) | Lookup::Revoked | Lookup::Unknown => Ok(Outcome::Overtaken),
        }
    }

    async fn end(&self, reason: &'static str) -> Result<Outcome, Failure> {
        self.shared.sessions.revoke(&self.claim.handle).await?;
        Ok(Outcome::Ended(reason))
    }

    /// Saves, and is patient with the store: what is not saved now is lost.
    async fn save(&self, session: &Session, tokens: &Tokens, part: Part) -> Result<Committed, StorageError> {
        let Session { handle, generation, .. } = session;
        let sessions = &self.shared.sessions;
        let (begun, mut wait, mut is_repetition) = (Instant::now(), Duration::from_millis(100), false);
        loop {
            let saved = match part {
                Part::First => sessions.commit_first(handle, *generation, session, tokens).await,
                Part::Last => sessions.commit(handle, *generation, session, tokens).await,
            };
            match saved {
                // A try that got no answer was heard all the same: nobody else holds the claim.
                Ok(Committed::Moved) if is_repetition => {
                    return Ok(Committed::Saved(generation.saturating_add(1)));
                }
                Err(_) if begun.elapsed() + wait < SAVE_WITHIN => {
                    is_repetition = true;
                    tokio::time::sleep(wait).await;
                    wait = wait.saturating_mul(2).min(SAVE_GAP);
                }
                saved => return saved,
            }
        }
    }

    /// When a failed refresh is tried again; the claim is given back until then.
    async fn next(&self, outcome: &Outcome, held: &Tokens) -> Option<Timestamp> {
        match outcome {
            Outcome::Refreshed | Outcome::Ended(_) | Outcome::Overtaken | Outcome::Interrupted => None,
            Outcome::Partly(_) => Some(self.now().plus(RETRY.1)),
            Outcome::Kept(_) => {
                let next = retry_at(&self.claim.handle, held.refresh_at.unwrap_or(self.now), self.now());
                self.give_back(next).await
            }
            Outcome::GivenBack => self.give_back(self.now()).await,
        }
    }

    /// Gives the claim back, for anybody to take from `next` on. Where the store does not hear it, the claim runs out.
    async fn give_back(&self, next: Timestamp) -> Option<Timestamp> {
        match self.shared.sessions.postpone(&self.claim, next).await {
            Ok(claim) => claim.map(|claim| claim.next),
            Err(_) => Some(self.claim.next),
        }
    }

    /// One counter and one line. A provider that is away would fill the log, once for each session: it has its metrics.
    fn tell(&self, idp: &str, outcome: &Outcome) {
        let session = self.claim.handle;
        let (name, error): (_, Option<(&dyn std::error::Error, bool)>) = match outcome {
            Outcome::Refreshed => ("ok", None),
            Outcome::Overtaken => ("overtaken", None),
            Outcome::Interrupted => ("interrupted", None),
            Outcome::GivenBack => ("given-back", None),
            Outcome::Ended(reason) => {
                info!(postern.session = %session, postern.idp = idp, postern.reason = reason, "session ended by its provider");
                (*reason, None)
            }
            Outcome::Partly(error) => (error.reason(), Some((error, error.is_temporary()))),
            Outcome::Kept(error) => (error.reason(), Some((error, error.is_temporary()))),
        };
        match error {
            Some((error, true)) => debug!(postern.session = %session, postern.idp = idp, %error, "refresh put off"),
            Some((error, false)) => warn!(postern.session = %session, postern.idp = idp, %error, "refresh failed"),
            None => {}
        }
        self.shared.metrics.refreshed(idp, name);
    }
}

#[cfg(test)]
mod tests {
    use postern_identity::Secret;

    use super::*;

    fn handle(first: u8) -> SessionHandle {
        SessionHandle::from_bytes([first; 32])
    }

    fn tokens(life: Option<Duration>, refresh: bool) -> Tokens {
        let secret = || Secret::new(String::new());
        Tokens {
            access: secret(),
            access_expires_at: life.map(|life| Timestamp::from_secs(0).plus(life)),
            refresh: refresh.then(secret),
            id_token: secret(),
            refresh_at: None,
        }
    }

    #[test]
    fn a_session_is_due_between_70_and_90_percent_of_its_access_tokens_life_and_each_at_its_own_time() {
        let now = Timestamp::from_secs(0);
        let at = |first, life| due_at(&handle(first), &tokens(life, true), now).unwrap().as_millis();
        let life = Some(Duration::from_secs(1000));
        assert_eq!((at(0, life), at(255, life)), (700_000, 899_996));
        assert!((799_000..802_000).contains(&at(128, life)));
        assert_eq!(at(0, Some(Duration::from_secs(3))), 10_000, "not too often");
        assert_eq!(at(0, Some(Duration::from_secs(86_400))), 2_520_000, "not too seldom");
        assert_eq!(at(0, None), 2_520_000);
        assert_eq!(due_at(&handle(0), &tokens(life, false), now), None, "no refresh token");
    }

    #[test]
    fn r_012_a_way_through_what_is_due_ends_although_more_and_more_comes_up() {
        let (at, due) = (Timestamp::from_secs, |secs| Due { handle: handle(0), next: Timestamp::from_secs(secs) });
        let mut pass = Pass::default();
        assert_eq!((pass.after(), pass.until(at(100))), (None, at(100)));
        pass.went(Some(due(10)), pass.until(at(100)), false);
        assert_eq!((pass.after(), pass.until(at(200))), (Some(&due(10)), at(100)), "what came up since is not its own");
        pass.went(None, pass.until(at(200)), false);
        pass.went(Some(due(90)), pass.until(at(300)), false);
        assert_eq!((pass.after(), pass.until(at(300))), (Some(&due(90)), at(100)));
        assert_eq!(pass.until(at(50)), at(50), "a clock that went back");
        pass.went(Some(due(99)), pass.until(at(300)), true);
        assert_eq!((pass.after(), pass.until(at(300))), (None, at(300)), "it begins anew");
    }

    #[test]
    fn r_012_tries_that_fail_come_at_longer_and_longer_intervals_up_to_a_bound() {
        let (due, mut now, mut waits) = (Timestamp::from_secs(0), Timestamp::from_secs(0), Vec::new());
        for _ in 0..12 {
            let next = retry_at(&handle(128), due, now);
            waits.push(next.since(now).as_secs());
            now = next;
        }
        assert_eq!(waits.first(), Some(&5));
        assert!(waits.is_sorted() && waits.last() == Some(&300), "{waits:?}");
    }
}
