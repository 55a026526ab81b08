//! What processes leave for each other.

use super::{Redis, forget_at};
use crate::StorageError;
use crate::backend::{Change, Done, Left};
use crate::deposits::Deposit;
use crate::record::Key;
use crate::redis::{Command, Reply};

impl Redis {
    /// Whole, unless it begins with `head`.
    pub(crate) async fn left(&self, kind: Deposit, key: &Key, head: &[u8]) -> Result<Left, StorageError> {
        let names = [self.keys.deposit(kind, key)];
        let reply = self.router.script(&self.scripts.left, &names, Command::new("").arg(head)).await?;
        Ok(match reply {
            Reply::Bytes(sealed) => Left::Sealed(sealed.to_vec()),
            Reply::Number(_) => Left::Same,
            Reply::Nil | Reply::List(_) | Reply::Error(_) => Left::Nothing,
        })
    }

    pub(crate) async fn leave(&self, change: Change) -> Result<Done, StorageError> {
        let none = Command::new("");
        let (script, names, arguments) = match change {
            Change::Put { kind, key, sealed, until, holder } => {
                let arguments = none.arg(bytes::Bytes::from(sealed)).arg(forget_at(until));
                let names = vec![self.keys.deposit(kind, &key), self.keys.claim(&key)];
                (&self.scripts.put, names, arguments.arg(holder))
            }
            Change::Remove { kind, key, holder } => {
                let names = vec![self.keys.deposit(kind, &key), self.keys.claim(&key)];
                (&self.scripts.remove, names, none.arg(holder))
            }
            Change::Claim { key, mark, life, anew } => {
                let life = u64::try_from(life.as_millis()).unwrap_or(u64::MAX).max(1);
                let arguments = none.arg(mark).arg(life).arg(if anew { "anew" } else { "" });
                (&self.scripts.claim, vec![self.keys.claim(&key)], arguments)
            }
            Change::Release { key, mark } => (&self.scripts.release, vec![self.keys.claim(&key)], none.arg(mark)),
        };
        let done = self.router.script_durably(script, &names, arguments).await?;
        Ok(if done.number() == Some(1_i64) { Done::Applied } else { Done::Refused })
    }
}
