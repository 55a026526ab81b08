//! What every process has to hear of: facts that deny, in one stream, with a heartbeat that says they all have arrived.
//!
//! A line carries the fact itself, not "drop your copy": so nothing that arrives late, neither a load under way nor a record
//! that a failover brought back, can outvote it. Pub/sub and client tracking are not used, because both lose messages in
//! silence. `docs/reference/sessions.md` says what is promised.

mod entry;
mod heart;
mod repair;
mod tail;

use std::time::{Duration, SystemTime};

use postern_identity::Timestamp;

use crate::StorageError;
use crate::redis::{Command, Router};

pub(crate) use entry::Entry;
pub(crate) use heart::beat;
pub(crate) use repair::{Mark, Repair};
pub(crate) use tail::{Tail, follow};

/// The stream.
#[derive(Clone, Debug)]
pub(crate) struct Changelog {
    router: Router,
    key: String,
    /// Whose turn it is to write heartbeats.
    turn: String,
    /// Before when all sessions are over.
    everyone: String,
    /// What this process calls itself there.
    process: String,
}

impl Changelog {
    /// That of the installation which has this prefix. All of it is on one server.
    pub(crate) fn new(router: Router, prefix: &str, process: String) -> Self {
        let name = |name| format!("{prefix}{{chg}}{name}");
        Self { router, key: name("log"), turn: name("turn"), everyone: name("everyone"), process }
    }

    /// Writes a line. When it returns, replicas have it, and every process that is connected hears of it.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`]; it may be written all the same, which does no harm.
    pub(crate) async fn append(&self, entry: Entry) -> Result<(), StorageError> {
        self.router.call_durably(&self.key, self.line(entry)).await.map(drop)
    }

    /// The name under which it is kept before when all sessions are over. It outlives the lines.
    pub(crate) fn everyone(&self) -> &str {
        &self.everyone
    }

    fn line(&self, entry: Entry) -> Command {
        let oldest = Timestamp::from(SystemTime::now()).minus(KEPT).as_millis().max(0);
        entry.write(Command::new("XADD").args([self.key.as_str(), "MINID", "~"]).arg(oldest).arg("*"))
    }
}

/// As long as tombstones live in every process ([`crate::invalidation`]).
pub(crate) const KEPT: Duration = Duration::from_secs(15 * 60);
