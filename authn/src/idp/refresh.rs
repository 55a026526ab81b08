//! The refresh grant: what the provider says of a session that it vouched for before (OpenID Connect Core 1.0 §12).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postern_identity::{Claims, Secret, Session, Timestamp, Tokens, User};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::fetch::FetchError;
use super::id_token::{IdToken, IdTokenError, Unverified};
use super::metadata::Metadata;
use super::oidc::{OidcClient, TokenAnswer};
use super::{Idp, ProviderError, claims, tokens};

/// Refreshes of one provider at once.
pub(crate) const REFRESHES_AT_ONCE: usize = 8;
/// So long a provider in trouble is asked for nothing new, at first and at most.
const REST: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// What surrounds the grant may wait for what others fetch, but not longer.
const MAX_WAIT: Duration = Duration::from_secs(15);
/// Claims that stay those of the sign-in.
const OF_THE_SIGN_IN: [&str; 4] = ["iss", "sub", "iat", "exp"];

/// New tokens, and what their ID token says.
#[derive(Debug)]
pub(crate) struct Granted {
    /// To be saved before anything else: the refresh token that they replace may be void already.
    pub(crate) tokens: Tokens,
    pub(crate) believed: Believed,
}

/// What to think of the ID token that came with a refresh.
#[derive(Debug)]
pub(crate) enum Believed {
    /// None came: what was known stays.
    Nothing,
    /// The session's claims, anew.
    Claims(Claims),
    /// What it says is not believed, and what was known stays.
    Doubted(ProviderError),
    /// It is of or for somebody else (S-075).
    Another(IdTokenError),
}

/// Where the refreshes of one provider take place: so many at once; and after one that met a provider in trouble none for a
/// while, longer each time, and then one at a time until one of them is answered. Those that wait cost the store nothing.
#[derive(Debug)]
pub(super) struct Refreshing {
    places: Arc<Semaphore>,
    trouble: Mutex<Trouble>,
}

/// What is known of a provider's trouble.
#[derive(Clone, Copy, Debug, Default)]
struct Trouble {
    /// Rests since the last answer.
    rests: u32,
    /// When the last one ends. A clock that goes back by more than a whole rest ends it too.
    until: Option<Timestamp>,
}

impl Trouble {
    fn rests_at(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| now < until && until.since(now) <= REST.1 * 2)
    }

    fn again(self, now: Timestamp) -> Self {
        // What was begun before the rest, and fails in it, says nothing new.
        if self.rests_at(now) {
            return self;
        }
        let wait = REST.0.saturating_mul(1 << self.rests.min(16)).min(REST.1);
        Self { rests: self.rests.saturating_add(1), until: Some(now.plus(wait)) }
    }
}

impl Refreshing {
    /// Places of its own, or those of the one `before`, which may still be at work there.
    pub(super) fn new(before: Option<&Self>) -> Self {
        let places = || Arc::new(Semaphore::new(REFRESHES_AT_ONCE));
        Self { places: before.map_or_else(places, |before| Arc::clone(&before.places)), trouble: Mutex::default() }
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_place(&self, now: Timestamp) -> bool {
        let (free, trouble) = (self.places.available_permits(), *self.trouble());
        match trouble.rests {
            0 => free > 0,
            _ => free == REFRESHES_AT_ONCE && !trouble.rests_at(now),
        }
    }

    fn note(&self, is_in_trouble: bool, now: Timestamp) {
        let mut trouble = self.trouble();
        *trouble = if is_in_trouble { trouble.again(now) } else { Trouble::default() };
    }
}

/// A provider whose token endpoint is known: nothing is waited for any more before a grant is sent.
#[derive(Debug)]
pub(crate) struct Ready<'i> {
    idp: &'i Idp,
    metadata: Arc<Metadata>,
}

impl Ready<'_> {
    /// Asks for new tokens of this session. From here on the refresh token may be void. Once `shutdown` says so, keys that are
    /// not here are waited for no longer: what came is to be saved, and to be doubted.
    ///
    /// # Errors
    /// [`ProviderError`]; of them only [`ProviderError::GrantRefused`] says that the session is over.
    pub(crate) async fn refresh(
        &self,
        session: &Session,
        held: &Tokens,
        now: Timestamp,
        shutdown: &CancellationToken,
    ) -> Result<Granted, ProviderError> {
        let Self { idp, metadata } = self;
        let token = held.refresh.as_ref().ok_or(ProviderError::ClientRefused)?;
        let client = OidcClient::new(&idp.config, metadata, &idp.redirect_uri)?;
        let answer = client.refresh(&idp.fetch, token).await?;
        let verified = tokio::select! {
            biased;
            verified = within(idp.verify(metadata, &answer, None, now)) => verified,
            () = shutdown.cancelled() => Err(FetchError::TimedOut.into()),
        };
        let believed = if answer.is_bearer() {
            believe(session, &answer, verified)
        } else {
            Believed::Doubted(ProviderError::TokenType)
        };
        Ok(Granted { tokens: renewed(held, tokens(&answer, now), &believed), believed })
    }
}

impl Idp {
    /// Whether a refresh may begin here at `now`.
    pub(crate) fn has_place(&self, now: Timestamp) -> bool {
        self.refreshing.has_place(now)
    }

    /// A place to refresh in, if there is one at `now`.
    pub(crate) fn place(&self, now: Timestamp) -> Option<OwnedSemaphorePermit> {
        if !self.has_place(now) {
            return None;
        }
        Arc::clone(&self.refreshing.places).try_acquire_owned().ok()
    }

    /// Notes how a refresh found the provider, so that one in trouble is left in peace.
    pub(crate) fn note(&self, asked: Result<(), &ProviderError>, now: Timestamp) {
        self.refreshing.note(asked.is_err_and(ProviderError::is_temporary), now);
    }

    /// What has to be known before a grant is sent. Nothing is lost if this is given up.
    ///
    /// # Errors
    /// [`ProviderError`].
    pub(crate) async fn ready(&self) -> Result<Ready<'_>, ProviderError> {
        let metadata = within(async { Ok(self.metadata().await?) }).await?;
        Ok(Ready { idp: self, metadata })
    }

    /// What the provider says of the user of a session now, by its new tokens.
    ///
    /// # Errors
    /// [`ProviderError`].
    pub(crate) async fn describe(&self, session: &Session, tokens: &Tokens) -> Result<User, ProviderError> {
        let metadata = within(async { Ok(self.metadata().await?) }).await?;
        let token = Unverified::parse(tokens.id_token.expose())?.verified_before();
        let subject = token.get("sub").and_then(Value::as_str).ok_or(IdTokenError::Subject)?;
        let userinfo = self.userinfo(&metadata, tokens.access.expose(), subject).await?;
        let user = claims::user(self.config.kind, &self.config.issuer, subject, &token, userinfo);
        let is_same = (&user.id, &user.issuer) == (&session.user.id, &session.user.issuer);
        if is_same { Ok(user) } else { Err(ProviderError::OtherSubject) }
    }
}

async fn within<T>(call: impl Future<Output = Result<T, ProviderError>>) -> Result<T, ProviderError> {
    tokio::time::timeout(MAX_WAIT, call).await.unwrap_or_else(|_| Err(FetchError::TimedOut.into()))
}

fn believe(session: &Session, answer: &TokenAnswer, verified: Result<IdToken, ProviderError>) -> Believed {
    match verified {
        _ if answer.raw_id_token().is_none() => Believed::Nothing,
        Ok(token) => speaks_of(session, &token),
        Err(ProviderError::Token(error)) if error.is_of_another() => Believed::Another(error),
        Err(error) => Believed::Doubted(error),
    }
}

/// The claims of a token whose issuer, subject and audience are those of the sign-in (S-075).
fn speaks_of(session: &Session, token: &IdToken) -> Believed {
    let (old, mut new) = (&session.claims, claims::session_claims(&token.claims));
    if old.find("iss") != new.find("iss") {
        return Believed::Another(IdTokenError::Issuer);
    }
    if old.find("sub") != new.find("sub") {
        return Believed::Another(IdTokenError::Subject);
    }
    if audience(old) != audience(&new) {
        return Believed::Another(IdTokenError::Audience);
    }
    for name in OF_THE_SIGN_IN {
        if let Some(values) = old.find(name) {
            new.set(name, values.to_vec());
        }
    }
    Believed::Claims(new)
}

/// In an order of its own: a list of audiences is a set.
fn audience(claims: &Claims) -> Vec<&str> {
    let mut all: Vec<&str> = claims.find("aud").unwrap_or_default().iter().filter_map(Value::as_str).collect();
    all.sort_unstable();
    all
}

/// The new tokens; of those that did not come, or are not believed, the old ones.
fn renewed(held: &Tokens, came: Tokens, believed: &Believed) -> Tokens {
    let id_token = if matches!(believed, Believed::Claims(_)) { came.id_token } else { held.id_token.clone() };
    let refresh = came.refresh.filter(|token: &Secret<String>| !token.expose().is_empty());
    Tokens { id_token, refresh: refresh.or_else(|| held.refresh.clone()), ..came }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r_012_a_provider_in_trouble_rests_longer_each_time_and_then_one_try_decides() {
        let (refreshing, mut now, mut rests) = (Refreshing::new(None), Timestamp::from_secs(1_000), Vec::new());
        for _ in 0..9 {
            refreshing.note(true, now);
            refreshing.note(true, now);
            let from = now;
            while !refreshing.has_place(now) {
                now = now.plus(Duration::from_secs(1));
            }
            rests.push(now.since(from).as_secs());
            let one = Arc::clone(&refreshing.places).try_acquire_owned().unwrap();
            assert!(!refreshing.has_place(now), "one at a time");
            drop(one);
        }
        assert_eq!(rests, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        refreshing.note(true, now);
        assert!(refreshing.has_place(Timestamp::from_secs(1)), "a clock that went back keeps nobody waiting");
        refreshing.note(false, now);
        let _one = Arc::clone(&refreshing.places).try_acquire_owned().unwrap();
        assert!(refreshing.has_place(now), "as before");
    }
}
