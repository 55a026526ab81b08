//! Keeps sessions in step with their providers: new tokens before the old ones end, and with them what changed about the
//! user (S-075 to S-078).
//!
//! The store knows which session is due when. A session is taken by putting its next try off by [`LEASE`]: of all that see
//! it due one is heard, in this process or another, and if that one dies the session comes up again. Only a
//! provider that says no ends a session; whatever else goes wrong is tried again until the session's own end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use postern_identity::{Session, SessionHandle, Timestamp, Tokens};
use postern_storage::{Committed, Due, Lookup, StorageError};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::idp::{Believed, Granted, Idp, ProviderError, REFRESHES_AT_ONCE};
use crate::server::{Live, Shared};

/// So many claims may fail in one look before the rest is left to the next.
const FAILURES: usize = 3;
/// How often the store is asked what is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longer than one refresh can take: 15 s to be ready, 10 s for the grant, 15 s for keys, [`SAVE_WITHIN`], 25 s for userinfo,
/// [`SAVE_WITHIN`] once more.
const LEASE: Duration = Duration::from_secs(120);
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

/// A session whose refresh has ended, and when it is to be tried again if it failed.
type Ended = (SessionHandle, Option<Timestamp>);

struct Refresher {
    shared: Arc<Shared>,
    shutdown: CancellationToken,
    underway: JoinSet<Ended>,
    /// Sessions that wait for another try, until then; those that were passed by, since then.
    overdue: HashMap<SessionHandle, Timestamp>,
    /// The last one that was passed by because its provider had no place: the next look begins after it, so that the sessions
    /// of other providers have their turn, and nothing is written for it. After the end it begins anew.
    passed: Option<Due>,
    store_answers: bool,
}

impl Refresher {
    fn new(shared: Arc<Shared>, shutdown: CancellationToken) -> Self {
        Self { shared, shutdown, underway: JoinSet::new(), overdue: HashMap::new(), passed: None, store_answers: true }
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
        // While nobody can be asked there is nothing to look for.
        if self.underway.len() >= places || !live.idps().iter().any(|idp| idp.has_place(now)) {
            return Ok(());
        }
        let (begun, sessions) = (Instant::now(), self.shared.sessions.clone());
        let seen = sessions.due_after(self.passed.as_ref(), now, AT_ONCE).await?;
        let is_last = seen.len() < AT_ONCE;
        let mut failed = 0;
        for due in seen {
            // What is claimed now would be lost if the process ended before it is saved.
            if self.shutdown.is_cancelled() || self.underway.len() >= places {
                break;
            }
            // One that cannot be read holds up no other: what becomes of it is seen once it is claimed.
            let place = match sessions.load(&due.handle, now).await {
                Ok(Lookup::Found(session)) => live.idp(&session.idp).map(|idp| idp.place(now).ok_or(idp)),
                Ok(Lookup::Revoked | Lookup::Unknown) | Err(_) => None,
            };
            let place = match place {
                Some(Err(idp)) => {
                    self.pass_by(idp, &due, now);
                    continue;
                }
                Some(Ok(place)) => Some(place),
                None => None,
            };
            let claim = match sessions.postpone(&due, now.plus(LEASE)).await {
                Ok(Some(claim)) => claim,
                Ok(None) => continue,
                // A part of the store may be away: those behind are looked at, now or the next time.
                Err(error) => {
                    self.passed = Some(due);
                    failed += 1;
                    if failed > FAILURES {
                        return Err(error);
                    }
                    continue;
                }
            };
            self.begin(Refresh {
                shared: Arc::clone(&self.shared),
                shutdown: self.shutdown.clone(),
                _place: place,
                claim,
                now,
                begun,
            });
        }
        if is_last {
            self.passed = None;
        }
        Ok(())
    }

    /// Leaves it to a later look, and counts it once.
    fn pass_by(&mut self, idp: &Idp, due: &Due, now: Timestamp) {
        self.passed = Some(*due);
        if self.overdue.insert(due.handle, now).is_none() {
            self.shared.metrics.refreshed(idp.id().as_str(), "no-place");
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
    /// At its provider; none if that is not configured.
    _place: Option<OwnedSemaphorePermit>,
    claim: Due,
    /// When it was claimed, by the clock and by the watch.
    now: Timestamp,
    begun: Instant,
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
        let Some(granted) = self.ask(idp, session, tokens).await else { return Ok(Outcome::GivenBack) };
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
        match self.save(&session, &tokens).await? {
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

    /// New tokens, if this process does not end before they are asked for.
    async fn ask(&self, idp: &Idp, session: &Session, tokens: &Tokens) -> Option<Result<Granted, ProviderError>> {
        let ready = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => return None,
            ready = idp.ready() => ready,
        };
        match ready {
            // What made it ready may have come together with the end.
            Ok(_) if self.shutdown.is_cancelled() => None,
            Ok(ready) => Some(ready.refresh(session, tokens, self.now(), &self.shutdown).await),
            Err(error) => Some(Err(error)),
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
        match self.save(&session, &tokens).await? {
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
    async fn save(&self, session: &Session, tokens: &Tokens) -> Result<Committed, StorageError> {
        let (begun, mut wait, mut is_repetition) = (Instant::now(), Duration::from_millis(100), false);
        loop {
            match self.shared.sessions.commit(&session.handle, session.generation, session, tokens).await {
                // A try that got no answer was heard all the same: nobody else holds the claim.
                Ok(Committed::Moved) if is_repetition => {
                    return Ok(Committed::Saved(session.generation.saturating_add(1)));
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
