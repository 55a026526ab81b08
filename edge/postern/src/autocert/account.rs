//! The account at the authority: the one that the folder holds, or a new one that is kept there.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use instant_acme::{Account, AccountCredentials, Error, ExternalAccountKey, NewAccount};
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::folder::Folder;
use super::http::Http;
use crate::config::Autocert;

/// After a failure nobody asks for an account again for so long: there may be many names.
const REST: Duration = Duration::from_secs(60);

/// Gives the account to whoever orders.
#[derive(Debug, Default)]
pub(super) struct Accounts(Mutex<State>);

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
}

impl Accounts {
    /// The account, which is asked for once.
    pub(super) async fn account(
        &self,
        settings: &Autocert,
        folder: Option<&Folder>,
        http: &Http,
    ) -> Result<Account, NoAccount> {
        let mut state = self.0.lock().await;
        if let Some(account) = &state.account {
            return Ok(account.clone());
        }
        if let Some((when, why)) = state.failed.as_ref().filter(|(when, _)| when.elapsed() < REST) {
            return Err(NoAccount::Refused(format!("{why} ({} s ago)", when.elapsed().as_secs())));
        }
        match found_or_made(settings, folder, http).await {
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
        let mut state = self.0.lock().await;
        if state.account.as_ref().is_some_and(|known| known.id() == account.id()) {
            state.account = None;
        }
        let id = account.id().to_owned();
        if let Some(folder) = folder
            && let Err(error) = folder.aside(move |folder| folder.retire_account(&id)).await
        {
            warn!(%error, "an account that the authority does not know stays in the folder");
        }
    }
}

async fn found_or_made(settings: &Autocert, folder: Option<&Folder>, http: &Http) -> Result<Account, NoAccount> {
    let refused = |error: Error| NoAccount::Refused(crate::chain(&error));
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
    if let Some(kept) = kept.ok().flatten() {
        match serde_json::from_str::<AccountCredentials>(&kept) {
            Ok(kept) => {
                let known = Account::builder_with_http(Box::new(http.clone())).from_credentials(kept).await;
                return known.map_err(refused);
            }
            Err(_) => warn!("the account at the authority is not what was kept: a new one is made"),
        }
    }
    let contact: Vec<_> = settings.email.iter().map(|email| format!("mailto:{email}")).collect();
    let contact: Vec<_> = contact.iter().map(String::as_str).collect();
    // To switch `autocert` on is to agree, as in Pomerium.
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let elsewhere = settings.account.as_ref();
    let elsewhere = elsewhere.map(|one| ExternalAccountKey::new(one.key_id.clone(), one.mac_key.expose()));
    let builder = Account::builder_with_http(Box::new(http.clone()));
    let (account, credentials) =
        builder.create(&new, settings.directory.to_string(), elsewhere.as_ref()).await.map_err(refused)?;
    info!(authority = %settings.directory, account = account.id(), "there is an account at the authority");
    let text = serde_json::to_string(&credentials).unwrap_or_default();
    if let Some(folder) = folder
        && let Err(error) = folder.aside(move |folder| folder.keep_account(&text)).await
    {
        warn!(%error, "the account at the authority cannot be kept: the next start makes another one");
    }
    Ok(account)
}
