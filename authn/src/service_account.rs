//! Service accounts for operators (02 §4.3): programs that ask as nobody who signs in. Each is a session of a kind of its own,
//! which no provider vouches for and nobody refreshes, and which ends at its time, or when an operator ends it.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use postern_identity::{
    Claims, IdpId, NEVER, RandomError, SERVICE_ACCOUNT, ServiceAccountToken, Session, SessionId, Timestamp, Tokens,
    User,
};
use postern_storage::StorageError;

use crate::Authn;
use crate::operator::LONGEST_WAIT;

/// Of one user there are no more: each is found, and ended, together with the others.
pub const MOST_SERVICE_ACCOUNTS: usize = 100;

/// Why there is no new service account.
#[derive(Debug, thiserror::Error)]
pub enum ServiceAccountError {
    /// The user has as many as there may be.
    #[error("this user has {MOST_SERVICE_ACCOUNTS} service accounts: delete one that is used no more")]
    TooMany,
    /// Those of the user were ended meanwhile.
    #[error("the service accounts of this user were ended at this very moment: try again")]
    Ended,
    /// There may be one all the same, whose token nobody has.
    #[error(transparent)]
    Store(#[from] StorageError),
    /// The system gives no randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

impl Authn {
    /// Makes a service account of that user, for so long; `None`: until it is ended. Gives it with its token, which is kept
    /// nowhere.
    ///
    /// # Errors
    /// [`ServiceAccountError`].
    pub async fn create_service_account(
        &self,
        user: User,
        life: Option<Duration>,
        now: Timestamp,
    ) -> Result<(Session, String), ServiceAccountError> {
        let sessions = &self.shared.sessions;
        // As a sign-in: what began before all sessions were ended is over.
        let begins = sessions.opens(now, LONGEST_WAIT).await?;
        tokio::time::sleep(begins.since(now)).await;
        if sessions.list(SERVICE_ACCOUNT, &user.id, begins).await?.len() >= MOST_SERVICE_ACCOUNTS {
            return Err(ServiceAccountError::TooMany);
        }
        if begins > now && sessions.are_ended(SERVICE_ACCOUNT, &user.id, now).await? {
            return Err(ServiceAccountError::Ended);
        }
        let (id, live) = (SessionId::generate()?, self.shared.live());
        let keyring = &live.config.keyring;
        let session = Session {
            handle: id.handle(keyring),
            user: User { issuer: SERVICE_ACCOUNT.to_owned(), ..user },
            claims: Claims::default(),
            idp: IdpId::service_account(),
            issued_at: begins,
            expires_at: life.map_or(NEVER, |life| begins.plus(life).min(NEVER)),
            idle: None,
            generation: 0,
        };
        sessions.create(&session, &Tokens::none()).await?;
        if sessions.are_ended(SERVICE_ACCOUNT, &session.user.id, begins).await? {
            // It is over already; an end of its own needs no other record to be seen.
            sessions.revoke(&session.handle).await?;
            return Err(ServiceAccountError::Ended);
        }
        let Session { user, expires_at, .. } = &session;
        let token = ServiceAccountToken::seal(keyring, &id, &user.id, begins, *expires_at);
        Ok((session, token))
    }

    /// Ends every service account of a user, at whatever provider that user is known, and gives how many there were.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`]; they may or may not have ended, so try again.
    pub async fn end_service_accounts(&self, user: &str, now: Timestamp) -> Result<usize, StorageError> {
        let (sessions, begun) = (&self.shared.sessions, Instant::now());
        let listed = sessions.list(SERVICE_ACCOUNT, user, now).await;
        // Those as well that are being created. Each that is there is marked too, and what is kept of it wiped.
        let before = now.plus(begun.elapsed()).plus(Duration::from_millis(1));
        sessions.revoke_user(SERVICE_ACCOUNT, user, before).await?;
        let listed = listed?;
        let ended = join_all(listed.iter().map(|account| sessions.revoke(&account.handle))).await;
        ended.into_iter().collect::<Result<(), _>>().map(|()| listed.len())
    }
}
