//! The account at the authority: the one that the store or the folder holds, or a new one that is kept there.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use instant_acme::{Account, AccountCredentials, Error, ExternalAccountKey, NewAccount};
use postern_identity::Secret;
use postern_storage::{Look, StorageError, Version};
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::folder::Folder;
use super::http::Http;
use super::store::{self, Store};
use crate::config::Autocert;

/// After a failure nobody asks for an account again for so long: there may be many names.
const REST: Duration = Duration::from_secs(60);

/// Gives the account to whoever orders.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    state: Mutex<State>,
    /// What was last found of it in the store, or is to be left there.
    shared: Mutex<Shared>,
}

/// What is kept of an account, whoever made it.
#[derive(Debug, Default)]
struct Shared {
    version: Option<Version>,
    text: Option<Secret<String>>,
    /// The authority does not know that one any more.
    dead: Option<String>,
}

#[derive(Default)]
struct State {
    account: Option<Account>,
    failed: Option<(Instant, String)>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("known", &self.account.is_some()).finish_non_exhaustive()
    }
}

/// There is no account to order with.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAccount {
    /// The authority gives none.
    #[error("there is no account at the authority: {0}")]
    Refused(String),
    /// There may well be one in the folder, which hangs.
    #[error("the folder of certificates: {0}")]
    Folder(std::io::Error),
    /// There may well be one in the store, which does not answer.
    #[error(transparent)]
    Store(#[from] StorageError),
    /// Another process may be making one.
    #[error("another process asks for the account at the authority")]
    Elsewhere,
}

/// Where accounts are kept: the store, if there is one that is shared, and a copy in the folder; else the folder.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept<'k> {
    pub(super) folder: Option<&'k Folder>,
    pub(super) store: Option<&'k Store>,
}

impl Accounts {
    /// The account, which is asked for once.
    pub(super) async fn account(
        &self,
        settings: &Autocert,
        places: Kept<'_>,
        http: &Http,
    ) -> Result<Account, NoAccount> {
        let mut state = self.state.lock().await;
        if let Some(account) = &state.account {
            return Ok(account.clone());
        }
        if let Some((when, why)) = state.failed.as_ref().filter(|(when, _)| when.elapsed() < REST) {
            return Err(NoAccount::Refused(format!("{why} ({} s ago)", when.elapsed().as_secs())));
        }
        match self.found_or_made(settings, places, http).await {
            Ok(account) => {
                state.account = Some(account.clone());
                Ok(account)
            }
            Err(error) => {
                if let NoAccount::Refused(why) = &error {
                    state.failed = Some((Instant::now(), why.clone()));
                }
                Err(error)
            }
        }
    }

    /// The authority does not know this account: who orders next finds or makes another one.
    pub(super) async fn forget(&self, account: &Account, folder: Option<&Folder>) {
        let mut state = self.state.lock().await;
        if state.account.as_ref().is_some_and(|known| known.id() == account.id()) {
            state.account = None;
        }
        let id = account.id().to_owned();
        // In the store another one takes its place.
        *self.shared.lock().await = Shared { dead: Some(id.clone()), ..Shared::default() };
        if let Some(folder) = folder
            && let Err(error) = folder.aside(move |folder| folder.retire_account(&id)).await
        {
            warn!(%error, "an account that the authority does not know stays in the folder");
        }
    }

    /// Looks for the account in the store, and keeps a copy of it; leaves it there again where it is gone, or where those who
    /// know the new secret alone would not find it.
    pub(super) async fn look(&self, store: &Store, folder: Option<&Folder>) -> Result<(), StorageError> {
        let mut shared = self.shared.lock().await;
        let (version, text) = match store.account(shared.version.as_ref()).await? {
            Look::Same => return Ok(()),
            Look::Found(version, text) => (Some(version), Some(text)),
            Look::Former(text) => (None, Some(text)),
            Look::Nothing => (None, None),
        };
        let text = text.and_then(|text| String::from_utf8(text.expose().clone()).ok());
        let dead = shared.dead.clone();
        if let Some(text) = text.filter(|text| store::is_live(text, dead.as_deref())) {
            if shared.text.as_ref().is_none_or(|known| *known.expose() != text) {
                copy(&text, folder).await;
            }
            shared.text = Some(Secret::new(text));
            if version.is_some() {
                shared.version = version;
                return Ok(());
            }
        } else if shared.text.is_none()
            && let Some(folder) = folder
        {
            let kept = folder.aside(Folder::account).await.ok().flatten();
            shared.text = kept.filter(|text| store::is_live(text, dead.as_deref())).map(Secret::new);
        }
        let Some(text) = &shared.text else { return Ok(()) };
        if let Some(turn) = store.turn_of_account().await? {
            // Somebody may have been earlier.
            let is_there = matches!(store.account(None).await?, Look::Found(_, kept)
                if std::str::from_utf8(kept.expose()).is_ok_and(|kept| store::is_live(kept, dead.as_deref())));
            if !is_there {
                turn.keep_account(text.expose()).await?;
            }
        }
        Ok(())
    }

    async fn found_or_made(
        &self,
        settings: &Autocert,
        Kept { folder, store }: Kept<'_>,
        http: &Http,
    ) -> Result<Account, NoAccount> {
        let dead = self.shared.lock().await.dead.clone();
        let dead = dead.as_deref();
        let Some(store) = store else { return Ok(of_folder_or_made(settings, (folder, dead), http).await?.0) };
        let turn = match store.turn_for_account(dead).await? {
            Ok(turn) => turn,
            Err(text) => return known(&text, http).await,
        };
        let work = Box::pin(of_folder_or_made(settings, (folder, dead), http));
        let (account, text) = turn.hold(work).await.unwrap_or(Err(NoAccount::Elsewhere))?;
        // Whoever looks next leaves it there if that fails now: there is one, and no second one is made.
        let left = turn.keep_account(&text).await;
        if !matches!(left, Ok(true)) {
            warn!("other processes do not know of the account yet");
        }
        let mut shared = self.shared.lock().await;
        (shared.version, shared.text) = (None, Some(Secret::new(text)));
        Ok(account)
    }
}

/// Keeps it in the folder.
async fn copy(text: &str, folder: Option<&Folder>) {
    let copy = text.to_owned();
    if let Some(folder) = folder
        && let Err(error) = folder.aside(move |folder| folder.keep_account(&copy)).await
    {
        warn!(%error, "the account at the authority cannot be kept in the folder: the next start may make another one");
    }
}

async fn known(text: &str, http: &Http) -> Result<Account, NoAccount> {
    let kept: AccountCredentials =
        serde_json::from_str(text).map_err(|_| NoAccount::Refused("it is not what was kept".to_owned()))?;
    let known = Account::builder_with_http(Box::new(http.clone())).from_credentials(kept).await;
    known.map_err(|error| refused(&error))
}

fn refused(error: &Error) -> NoAccount {
    NoAccount::Refused(crate::chain(error))
}

/// The account and what is kept of it; not the one that the authority does not know any more.
async fn of_folder_or_made(
    settings: &Autocert,
    (folder, dead): (Option<&Folder>, Option<&str>),
    http: &Http,
) -> Result<(Account, String), NoAccount> {
    let kept = match folder {
        Some(folder) => folder.aside(Folder::account).await,
        None => Ok(None),
    };
    let kept = match kept {
        Err(error) if error.kind() == ErrorKind::TimedOut => return Err(NoAccount::Folder(error)),
        kept => {
            kept.inspect_err(|error| warn!(%error, "the account at the authority cannot be read: a new one is made"))
        }
    };
    if let Some(text) = kept.ok().flatten() {
        if store::is_live(&text, dead) {
            return Ok((known(&text, http).await?, text));
        }
        warn!("the account at the authority is not what was kept: a new one is made");
    }
    let contact: Vec<_> = settings.email.iter().map(|email| format!("mailto:{email}")).collect();
    let contact: Vec<_> = contact.iter().map(String::as_str).collect();
    // To switch `autocert` on is to agree, as in Pomerium.
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let elsewhere = settings.account.as_ref();
    let elsewhere = elsewhere.map(|one| ExternalAccountKey::new(one.key_id.clone(), one.mac_key.expose()));
    let builder = Account::builder_with_http(Box::new(http.clone()));
    let made = builder.create(&new, settings.directory.to_string(), elsewhere.as_ref()).await;
    let (account, credentials) = made.map_err(|error| refused(&error))?;
    info!(authority = %settings.directory, account = account.id(), "there is an account at the authority");
    let text = serde_json::to_string(&credentials).unwrap_or_default();
    copy(&text, folder).await;
    Ok((account, text))
}
