//! The face for what processes leave for each other in a store that they share: sealed values under names, each with an end, and
//! claims on names. Edges share in it the certificates that they order.

use std::sync::Arc;
use std::time::Duration;

use postern_identity::{Secret, SecretIndex, Timestamp};
use tracing::{debug, error};

use crate::backend::{Backend, Change, Done, Left};
use crate::mark::mark;
use crate::metrics::Metrics;
use crate::record::{Key, Seal};
use crate::{StorageError, clock};

/// What a value is, so that one kind never opens as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Deposit {
    /// A certificate with its key.
    Certificate,
    /// What an authority says of a certificate, to be shown with it.
    Staple,
    /// What is shown and said to an authority while it looks.
    Challenge,
    /// Orders that failed.
    Failures,
    /// An account at an authority, with its key.
    Account,
}

impl Deposit {
    /// In the names of the store; part of what a value is sealed with.
    pub(crate) const fn letter(self) -> char {
        match self {
            Self::Certificate => 'c',
            Self::Staple => 's',
            Self::Challenge => 'o',
            Self::Failures => 'f',
            Self::Account => 'a',
        }
    }
}

/// What tells one value of a name from another one; says nothing about them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(Vec<u8>);

/// What a look finds.
#[derive(Debug)]
pub enum Look {
    /// There is none.
    Nothing,
    /// The one that was known.
    Same,
    /// Another one than was known.
    Found(Version, Secret<Vec<u8>>),
    /// One that lies under the name of a former secret alone: whoever knows the new one alone does not find it until somebody leaves
    /// it again.
    Former(Secret<Vec<u8>>),
}

/// The right to change what is left under a name, for a time. Nobody else has it meanwhile: what its holder writes later is
/// refused.
#[derive(Debug)]
pub struct Claim {
    names: Vec<(SecretIndex, Key)>,
    mark: String,
}

/// Leaves and finds. Cheap to clone. Every call is bounded in time and may be repeated.
///
/// A name has parts, the same for all who mean the same. While a shared secret is replaced, each value is left under every name
/// that processes may look under, sealed by the secret that makes that name.
#[derive(Clone, Debug)]
pub struct Deposits {
    backend: Backend,
    seal: Seal,
    metrics: Arc<Metrics>,
}

impl Deposits {
    pub(crate) const fn new(backend: Backend, seal: Seal, metrics: Arc<Metrics>) -> Self {
        Self { backend, seal, metrics }
    }

    /// What is left under a name, unless it is the one that is known.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`].
    pub async fn find(&self, kind: Deposit, name: &[&str], known: Option<&Version>) -> Result<Look, StorageError> {
        let names = self.seal.deposit_names(name);
        let head = known.map(|Version(head)| head.as_slice()).unwrap_or_default();
        for (place, (_, key)) in names.iter().enumerate() {
            let sealed = match self.backend.left(kind, key, head).await? {
                Left::Nothing => continue,
                Left::Same => return Ok(Look::Same),
                Left::Sealed(sealed) => sealed,
            };
            let Some((until, value)) = self.seal.open_deposit((kind, key), &sealed) else {
                self.metrics.records_refused.inc();
                error!(?kind, "a record does not open under its own key: damaged, moved or forged");
                continue;
            };
            if until <= clock() {
                continue;
            }
            let value = Secret::new(value.to_vec());
            if place > 0 {
                return Ok(Look::Former(value));
            }
            let head = sealed.get(..HEAD).unwrap_or(&sealed).to_vec();
            return Ok(Look::Found(Version(head), value));
        }
        Ok(Look::Nothing)
    }

    /// Leaves a value under the name of a claim until its end, in the place of what was there. `false`: the claim is over.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`]; it may or may not be left.
    pub async fn put(
        &self,
        kind: Deposit,
        value: &[u8],
        until: Timestamp,
        claim: &Claim,
    ) -> Result<bool, StorageError> {
        for (secret, key) in &claim.names {
            let sealed = self.seal.deposit((kind, key), *secret, until, value)?;
            let holder = claim.mark.clone();
            let change = Change::Put { kind, key: *key, sealed, until: until.as_millis(), holder };
            if self.backend.leave(change).await? != Done::Applied {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes what is left under the name of a claim. `false`: the claim is over.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`]; it may or may not be removed.
    pub async fn remove(&self, kind: Deposit, claim: &Claim) -> Result<bool, StorageError> {
        for (_, key) in &claim.names {
            let change = Change::Remove { kind, key: *key, holder: claim.mark.clone() };
            if self.backend.leave(change).await? != Done::Applied {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Claims a name for that long; `None`: another process holds it.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`]; what was claimed of it is free again after that time.
    pub async fn claim(&self, name: &[&str], life: Duration) -> Result<Option<Claim>, StorageError> {
        let mut names = self.seal.deposit_names(name);
        // In one order for all: of two that share a secret, one is the first under its name.
        names.sort_unstable_by_key(|(_, key)| *key);
        let mut claim = Claim { names: Vec::new(), mark: mark()? };
        for (secret, key) in names {
            // Without an answer it may be ours.
            claim.names.push((secret, key));
            let claimed = self.backend.leave(Change::Claim { key, mark: claim.mark.clone(), life, anew: true }).await;
            if !matches!(claimed, Ok(Done::Applied)) {
                self.release(claim).await;
                return claimed.map(|_| None);
            }
        }
        Ok(Some(claim))
    }

    /// Holds a name for that long from now on. `false`: the claim is over.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`]; it may or may not be held for longer.
    pub async fn prolong(&self, claim: &Claim, life: Duration) -> Result<bool, StorageError> {
        for (_, key) in &claim.names {
            let change = Change::Claim { key: *key, mark: claim.mark.clone(), life, anew: false };
            if self.backend.leave(change).await? != Done::Applied {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Lets others claim the name at once. Without an answer they can once its time is over.
    pub async fn release(&self, claim: Claim) {
        for (_, key) in claim.names {
            if let Err(error) = self.backend.leave(Change::Release { key, mark: claim.mark.clone() }).await {
                debug!(%error, "a claim is over only after its time");
            }
        }
    }
}

/// So many bytes of a sealed value begin no other one: its nonce is among them.
const HEAD: usize = 32;
