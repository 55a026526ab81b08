//! The store that edges share: what one of them has ordered, its staple, what authorities look at meanwhile, how orders went, the
//! account, and whose turn it is. Everything in it is sealed, and nothing is served of it that could not be of a folder.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use instant_acme::AccountCredentials;
use postern_edge::{ChallengesElsewhere, Staple};
use postern_identity::{NEVER, Timestamp};
use postern_storage::{Claim, Deposit, Deposits, Look, StorageError, Version};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tracing::warn;

use super::folder::{Failed, Held, apart};

/// A turn lasts so long unless it is prolonged: if its holder crashes, another process orders then.
const TURN: Duration = Duration::from_secs(30);
/// It is prolonged so often, a few times before it would be over.
const PROLONG: Duration = Duration::from_secs(8);
/// What was found of a challenge, or that there is none, is believed for so long: whoever asks, the store is asked no more often for
/// a name.
const BELIEVED: Duration = Duration::from_secs(1);
/// What answers a challenge, if nobody removes it, is left for so long: longer than an order takes.
const OPEN: Duration = Duration::from_secs(15 * 60);
/// Orders that failed are remembered for so long: longer than the longest pause.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// For an account, how often it is looked whether another process has got one.
const AGAIN: Duration = Duration::from_millis(500);

/// The store, and who issues what is in it.
#[derive(Clone)]
pub(super) struct Store {
    deposits: Deposits,
    directory: Arc<str>,
    runtime: Handle,
    /// Of names that somebody orders for, and of no other.
    looked: Arc<Mutex<HashMap<String, Arc<Mutex<Looked>>>>>,
}

/// What was found of the challenge of a name, and when it was looked for.
type Looked = Option<(Instant, Option<Arc<Open>>)>;

/// What answers a challenge.
#[derive(Deserialize, Serialize)]
struct Open {
    /// A key, and the certificate behind it.
    shown: String,
    token: String,
    said: String,
}

/// A certificate that was looked for.
#[derive(Debug)]
pub(super) enum Found {
    Nothing,
    /// The one that was known.
    Same,
    /// Another one; nothing that could be served, if it is `None`. Without a version it is to be left again: not everybody finds it
    /// who will look.
    Other(Option<Version>, Option<Held>),
}

/// Held while one process orders for a name. Whatever its holder leaves in the store after its time is refused.
#[derive(Debug)]
pub(super) struct Turn {
    claim: Option<Claim>,
    /// It is over by then, unless it is prolonged.
    until: tokio::time::Instant,
    store: Store,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            let deposits = self.store.deposits.clone();
            self.store.runtime.spawn(async move { deposits.release(claim).await });
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Store {
    /// For what the authority with that directory issues; inside of the runtime that is to wait for it.
    pub(super) fn new(deposits: Deposits, directory: &str) -> Self {
        Self { deposits, directory: directory.into(), runtime: Handle::current(), looked: Arc::default() }
    }

    /// The right to order for a name; `None`: another process has it.
    pub(super) async fn turn(&self, name: &str) -> Result<Option<Turn>, StorageError> {
        self.turn_of(&[&self.directory, name]).await
    }

    /// The right to ask the responder of a name, beside which it may be ordered for.
    pub(super) async fn turn_of_staple(&self, name: &str) -> Result<Option<Turn>, StorageError> {
        self.turn_of(&[&self.directory, name, STAPLE]).await
    }

    async fn turn_of(&self, name: &[&str]) -> Result<Option<Turn>, StorageError> {
        let until = tokio::time::Instant::now() + TURN;
        let claim = self.deposits.claim(name, TURN).await?;
        Ok(claim.map(|claim| Turn { claim: Some(claim), until, store: self.clone() }))
    }

    /// The OCSP response that was left for a name, if there is one.
    pub(super) async fn staple(&self, name: &str) -> Result<Option<Vec<u8>>, StorageError> {
        let found = self.deposits.find(Deposit::Staple, &[&self.directory, name, STAPLE], None).await?;
        let (Look::Found(_, response) | Look::Former(response)) = found else { return Ok(None) };
        Ok(Some(response.expose().clone()))
    }

    /// The certificate of a name, unless it is the one that is known, with its staple, if that is good.
    pub(super) async fn certificate(&self, name: &str, known: Option<&Version>) -> Result<Found, StorageError> {
        Ok(match self.deposits.find(Deposit::Certificate, &[&self.directory, name], known).await? {
            Look::Nothing => Found::Nothing,
            Look::Same => Found::Same,
            found @ (Look::Found(..) | Look::Former(_)) => {
                let (version, text) = match found {
                    Look::Found(version, text) => (Some(version), text),
                    Look::Former(text) => (None, text),
                    Look::Nothing | Look::Same => return Ok(Found::Nothing),
                };
                let held = std::str::from_utf8(text.expose()).ok().and_then(|text| Held::parse(name, text));
                if held.is_none() {
                    warn!(name, "what the store holds is no certificate of that name with its key: it is ordered anew");
                }
                // Without, one is asked for.
                let left = if held.is_some() { self.staple(name).await.ok().flatten() } else { None };
                let held = held.map(|held| match &left {
                    Some(response) => held.stapled(response, now()),
                    None => held,
                });
                Found::Other(version, held)
            }
        })
    }

    /// The orders for a name that have failed since one did not.
    pub(super) async fn failed(&self, name: &str) -> Result<Option<Failed>, StorageError> {
        let found = self.deposits.find(Deposit::Failures, &[&self.directory, name], None).await?;
        let (Look::Found(_, text) | Look::Former(text)) = found else { return Ok(None) };
        Ok(serde_json::from_slice(text.expose()).ok())
    }

    /// What is kept of the account, unless it is what is known.
    pub(super) async fn account(&self, known: Option<&Version>) -> Result<Look, StorageError> {
        self.deposits.find(Deposit::Account, &[&self.directory, ACCOUNT], known).await
    }

    /// The right to make or leave an account.
    pub(super) async fn turn_of_account(&self) -> Result<Option<Turn>, StorageError> {
        self.turn(ACCOUNT).await
    }

    /// The right to make an account, or else what is kept of the one that there is, unless that is `dead`.
    pub(super) async fn turn_for_account(&self, dead: Option<&str>) -> Result<Result<Turn, String>, StorageError> {
        loop {
            let turn = self.turn(ACCOUNT).await?;
            // Looked for in this order: who has let go of the turn has left the account. One that cannot be read is replaced.
            let kept = match self.account(None).await? {
                Look::Found(_, text) | Look::Former(text) => String::from_utf8(text.expose().clone()).ok(),
                Look::Nothing | Look::Same => None,
            };
            match (kept.filter(|text| is_live(text, dead)), turn) {
                (Some(account), _) => return Ok(Err(account)),
                (None, Some(turn)) => return Ok(Ok(turn)),
                (None, None) => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    fn open(&self, name: &str) -> Option<Arc<Open>> {
        let place = {
            let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(looked.entry(name.to_owned()).or_default())
        };
        // Those who ask for one name wait for one look.
        let mut looked = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, open)) = looked.as_ref().filter(|(at, _)| at.elapsed() < BELIEVED) {
            return open.clone();
        }
        // Of the moment before the look: what is left there later is not what was looked for.
        let at = Instant::now();
        let found = self.runtime.block_on(async {
            let name = [&*self.directory, name];
            self.deposits.find(Deposit::Challenge, &name, None).await.ok()
        });
        let open = match found {
            Some(Look::Found(_, text) | Look::Former(text)) => serde_json::from_slice(text.expose()).ok().map(Arc::new),
            _ => None,
        };
        *looked = Some((at, open.clone()));
        open
    }
}

/// Whether this is what is kept of an account, and not of the one that an authority does not know.
pub(super) fn is_live(text: &str, dead: Option<&str>) -> bool {
    let id = serde_json::from_str::<serde_json::Value>(text).ok();
    let id = id.as_ref().and_then(|kept| kept.get("id")?.as_str());
    serde_json::from_str::<AccountCredentials>(text).is_ok() && (dead.is_none() || id != dead)
}

/// No name in DNS: the turn and the place of the account.
const ACCOUNT: &str = "";
/// Behind the name of a host: the turn and the place of its staple.
const STAPLE: &str = "staple";

impl ChallengesElsewhere for Store {
    fn shown(&self, name: &str) -> Option<(Vec<u8>, Vec<u8>)> {
        let open = self.open(name)?;
        let (key, certificate) = apart(&open.shown)?;
        Some((certificate.as_bytes().to_vec(), key.as_bytes().to_vec()))
    }

    fn said(&self, name: &str, token: &str) -> Option<String> {
        let open = self.open(name).filter(|open| open.token == token)?;
        Some(open.said.clone())
    }
}

impl Turn {
    /// Does something for as long as nobody else has this turn; `None`: it was cut, since it might be another one's by now.
    pub(super) async fn hold<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.lost() => None,
        }
    }

    /// Prolongs the turn for as long as it lets itself be prolonged.
    async fn lost(&self) {
        let Some(claim) = &self.claim else { return };
        let mut until = self.until;
        loop {
            tokio::time::sleep_until((tokio::time::Instant::now() + PROLONG).min(until)).await;
            let asked = tokio::time::Instant::now();
            match tokio::time::timeout_at(until, self.store.deposits.prolong(claim, TURN)).await {
                Ok(Ok(true)) => until = asked + TURN,
                Ok(Ok(false)) | Err(_) => return,
                Ok(Err(_)) if asked >= until => return,
                // A store that was away for a moment has forgotten nothing.
                Ok(Err(_)) => {}
            }
        }
    }

    /// Lets every process take a certificate. `false`: the turn is another one's.
    pub(super) async fn keep(&self, held: &Held) -> Result<bool, StorageError> {
        self.put(Deposit::Certificate, held.whole().expose(), held.until).await
    }

    /// Lets every process take an OCSP response, or none any more.
    pub(super) async fn keep_staple(&self, staple: Option<&Staple>) -> Result<bool, StorageError> {
        match staple {
            Some(staple) => self.put(Deposit::Staple, &staple.response, staple.until).await,
            None => self.remove(Deposit::Staple).await,
        }
    }

    /// Keeps in mind how orders went.
    pub(super) async fn note(&self, failed: Option<Failed>) -> Result<bool, StorageError> {
        let Some(failed) = failed else { return self.remove(Deposit::Failures).await };
        let text = serde_json::to_vec(&failed).unwrap_or_default();
        self.put(Deposit::Failures, &text, now().plus(REMEMBERED)).await
    }

    /// Keeps the account, for whoever orders.
    pub(super) async fn keep_account(&self, account: &str) -> Result<bool, StorageError> {
        self.put(Deposit::Account, account.as_bytes(), NEVER).await
    }

    /// Lets every process answer a challenge. When it returns, none of them believes any more that there is none.
    pub(super) async fn tell(&self, shown: String, (token, said): (&str, &str)) -> Result<bool, StorageError> {
        let open = Open { shown, token: token.to_owned(), said: said.to_owned() };
        let text = serde_json::to_vec(&open).unwrap_or_default();
        let told = self.put(Deposit::Challenge, &text, now().plus(OPEN)).await?;
        tokio::time::sleep(BELIEVED).await;
        Ok(told)
    }

    /// The challenge is over.
    pub(super) async fn untell(&self) -> Result<bool, StorageError> {
        self.remove(Deposit::Challenge).await
    }

    async fn put(&self, kind: Deposit, value: &[u8], until: Timestamp) -> Result<bool, StorageError> {
        let Some(claim) = &self.claim else { return Ok(false) };
        self.store.deposits.put(kind, value, until, claim).await
    }

    async fn remove(&self, kind: Deposit) -> Result<bool, StorageError> {
        let Some(claim) = &self.claim else { return Ok(false) };
        self.store.deposits.remove(kind, claim).await
    }
}

fn now() -> Timestamp {
    SystemTime::now().into()
}
