//! Ending sessions. Who cannot be known beyond "an operator"; what and how many is in the log.

use std::time::{Duration, SystemTime};

use postern_authn::{Authn, Clearing, End, EndAllError, Stage};
use postern_identity::{IdpId, SERVICE_ACCOUNT, SessionHandle};
use postern_storage::StorageError;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::session::Which;

/// Where the end of one session is asked for.
pub(crate) const END: &str = "/operator/sessions/end";
/// Where that of all sessions of a user is.
pub(crate) const END_USER: &str = "/operator/sessions/end-user";
/// Where that of all sessions is.
pub(crate) const END_ALL: &str = "/operator/sessions/end-all";
/// Where it is asked how far the clearing after that is.
pub(crate) const CLEARING: &str = "/operator/sessions/clearing";
/// So long it is waited for news of the clearing.
const NEWS: Duration = Duration::from_secs(2);

/// What became of one session.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ended {
    /// It has ended now.
    Now,
    /// It had been ended before.
    Before,
    /// There is none of that name, or it is over.
    Unknown,
    /// The store does not confirm it.
    Unavailable(String),
}

/// Whose sessions are to end.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct OfUser {
    pub(crate) user: String,
    /// At this one; else at every issuer that is configured.
    pub(crate) issuer: Option<String>,
}

/// How many sessions of a user have ended.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum UserEnded {
    /// So many there were, of very many those that one list shows; `None`: they have ended, and could not be listed.
    Sessions(Option<usize>),
    /// The store does not confirm it.
    Unavailable(String),
}

/// All are meant.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Everybody {}

/// How far the clearing was when it was asked last.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) ended: u64,
}

/// Whether all sessions have ended.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cleared {
    /// They have; how far the clearing is.
    Ended(Cleaning),
    /// Nothing was done.
    Refused(String),
    /// The store does not confirm it.
    Unavailable(String),
}

/// How far the clearing is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Cleaning {
    /// So many sessions have been found that ended.
    pub(crate) ended: u64,
    /// There may be more.
    pub(crate) working: bool,
    /// Why it was given up.
    pub(crate) trouble: Option<String>,
}

impl Cleaning {
    /// The same when nobody tells any more how far it is.
    pub(crate) fn lost(self, why: String) -> Self {
        Self { working: false, trouble: Some(why), ..self }
    }
}

impl From<&Clearing> for Cleaning {
    fn from(clearing: &Clearing) -> Self {
        let (working, given_up) = match &clearing.stage {
            Stage::Done => (false, None),
            Stage::Working { .. } => (true, None),
            Stage::GivenUp(why) => (false, Some(why)),
        };
        let left = "tokens that are left stay sealed until they expire; run it again to clear them";
        let given_up = given_up.map(|why| format!("{why}: {left}"));
        let late = |(idp, count): (&IdpId, &usize)| {
            let idp = idp.as_str();
            format!("{idp}: it took too long to take {count} tokens back, which are good there until they expire")
        };
        let trouble: Vec<_> = given_up.into_iter().chain(clearing.untaken.iter().map(late)).collect();
        let trouble = (!working && !trouble.is_empty()).then(|| trouble.join("; "));
        Self { ended: clearing.ended, working, trouble }
    }
}

/// Ends one session.
pub(super) async fn end(authn: &Authn, which: Which) -> Ended {
    let now = SystemTime::now().into();
    let end = |name: SessionHandle| async move {
        Ok(match authn.end(&name, now).await? {
            End::Now(session) => {
                let user = session.as_ref().map(|session| session.user.id.as_str());
                let issuer = session.as_ref().map(|session| session.user.issuer.as_str());
                if let Some(account) = session.as_ref().filter(|session| session.is_service_account()) {
                    let name = account.user.name.as_deref();
                    info!(postern.service_account = %account.handle, user, name, "an operator deleted a service account");
                } else {
                    info!(postern.session = %name, user, issuer, sessions = 1, "an operator ended a session");
                }
                Some(Ended::Now)
            }
            End::Before => Some(Ended::Before),
            End::Unknown => None,
        })
    };
    match which.first(end).await {
        Ok(ended) => ended.unwrap_or(Ended::Unknown),
        Err(error) => Ended::Unavailable(unconfirmed("a session", &error)),
    }
}

/// Ends all sessions of a user, and the service accounts that ask as they do.
pub(super) async fn end_user(authn: &Authn, whose: OfUser) -> UserEnded {
    let OfUser { user, issuer } = whose;
    let issuers = issuer.map_or_else(|| authn.issuers(None), |issuer| vec![issuer]);
    // What cannot be ended keeps nothing else alive.
    let accounts = authn.end_service_accounts(&user, SystemTime::now().into()).await;
    match &accounts {
        Ok(0) => {}
        Ok(ended) => info!(user, service_accounts = ended, "an operator ended the service accounts of a user"),
        Err(error) => drop(unconfirmed("the service accounts of a user", error)),
    }
    let mut sessions = accounts.as_ref().ok().copied();
    for issuer in issuers.into_iter().filter(|issuer| issuer != SERVICE_ACCOUNT) {
        match authn.end_user(&issuer, &user, SystemTime::now().into()).await {
            Ok(ended) => {
                info!(user, issuer, sessions = ended, "an operator ended the sessions of a user");
                sessions = sessions.zip(ended).map(|(sessions, ended)| sessions + ended);
            }
            Err(error) => return UserEnded::Unavailable(unconfirmed("the sessions of a user", &error)),
        }
    }
    match accounts {
        Ok(_) => UserEnded::Sessions(sessions),
        Err(error) => UserEnded::Unavailable(error.to_string()),
    }
}

/// Ends all sessions. How many there were is known when the clearing is done.
pub(super) async fn end_all(authn: &Authn, Everybody {}: Everybody) -> Cleared {
    match authn.end_all(SystemTime::now().into()).await {
        Ok(()) => {
            info!("an operator ended all sessions");
            Cleared::Ended(Cleaning::from(&*authn.clearing().borrow()))
        }
        Err(error @ EndAllError::Clocks { .. }) => {
            warn!(%error, "an operator wanted to end all sessions, and nothing was done");
            Cleared::Refused(error.to_string())
        }
        Err(EndAllError::Store(error)) => Cleared::Unavailable(unconfirmed("all sessions", &error)),
    }
}

/// How far the clearing is, as soon as it is further than was seen, or a moment later.
pub(super) async fn clearing(authn: &Authn, seen: Seen) -> Cleaning {
    let mut clearing = authn.clearing();
    let news = |now: &Clearing| now.ended > seen.ended.saturating_add(STRIDE) || !Cleaning::from(now).working;
    drop(tokio::time::timeout(NEWS, clearing.wait_for(news)).await);
    Cleaning::from(&*authn.clearing().borrow())
}

/// It may hold all the same, so it belongs into the log.
fn unconfirmed(what: &'static str, error: &StorageError) -> String {
    warn!(what, %error, "an operator wanted to end sessions, and the store did not confirm it");
    error.to_string()
}

/// Less than that is no news.
const STRIDE: u64 = 10_000;
