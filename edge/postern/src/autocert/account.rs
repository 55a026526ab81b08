//! The account at the authority: the one that the folder holds, or a new one that is kept there.

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
#[error("there is no account at the authority: {0}")]
pub(super) struct NoAccount(String);

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
            return Err(NoAccount(format!("{why} ({} s ago)", when.elapsed().as_secs())));
        }
        match found_or_made(settings, folder, http).await {
            Ok(account) => {
                state.account = Some(account.clone());
                Ok(account)
            }
            Err(error) => {
                let why = crate::chain(&error);
                state.failed = Some((Instant::now(), why.clone()));
                Err(NoAccount(why))
            }
        }
    }
}

async fn found_or_made(settings: &Autocert, folder: Option<&Folder>, http: &Http) -> Result<Account, Error> {
    let kept = match folder {
        Some(folder) => folder.aside(Folder::account).await,
        None => Ok(None),
    };
    let kept =
        kept.inspect_err(|error| warn!(%error, "the account at the authority cannot be read: a new one is made"));
    if let Some(kept) = kept.ok().flatten() {
        match serde_json::from_str::<AccountCredentials>(&kept) {
            Ok(kept) => return Account::builder_with_http(Box::new(http.clone())).from_credentials(kept).await,
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
    let (account, credentials) = builder.create(&new, settings.directory.to_string(), elsewhere.as_ref()).await?;
    info!(authority = %settings.directory, account = account.id(), "there is an account at the authority");
    let text = serde_json::to_string(&credentials).unwrap_or_default();
    if let Some(folder) = folder
        && let Err(error) = folder.aside(move |folder| folder.keep_account(&text)).await
    {
        warn!(%error, "the account at the authority cannot be kept: the next start makes another one");
    }
    Ok(account)
}
