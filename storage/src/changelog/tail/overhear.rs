//! What a replica of the changelog's server knows.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::{BLOCK_MS, DEADLINE, Progress, Tail, WORKED, behind, jitter};
use crate::config::Server;
use crate::redis::Command;

impl Tail {
    /// Hears a replica of the owner all the time: what it knows denies already, whatever befalls the owner or the connection to it,
    /// and one that takes over is heard until it is read as the owner. It says nothing of contact, because nobody knows whether a
    /// replica has everything.
    pub(super) async fn overhear(&self, mut progress: watch::Receiver<Progress>) {
        if progress.wait_for(|progress| progress.has_read).await.is_err() {
            return;
        }
        // Not all processes begin with the same one, nor ask at the same moment.
        let mut turn = jitter();
        let mut replicas = Vec::new();
        let (mut heard, mut failures, mut is_told) = (Instant::now(), 0, false);
        loop {
            let now = self.log.router.replicas(&self.log.key);
            let is_read = progress.borrow().reading;
            // A master that is held to have failed is in no map, and neither are its replicas then; and one that has just taken over
            // has none. Those of before are worth hearing, for as long as that may last.
            if !now.is_empty() || is_read && heard.elapsed() > OUTAGE {
                replicas = now;
            }
            if let Some(server) = replicas.get(usize::from(turn) % replicas.len().max(1)) {
                let began = Instant::now();
                let Err(why) = self.listen(server, &progress).await;
                self.metrics.replica_heard.set(0);
                debug!(%server, why, "a replica is no longer heard");
                if began.elapsed() > WORKED {
                    (heard, failures) = (Instant::now(), 0);
                    if std::mem::take(&mut is_told) {
                        info!("a replica of the changelog's server was heard again");
                    }
                } else if heard.elapsed() > OUTAGE && !is_told {
                    warn!(%server, why, "no replica of the changelog's server can be heard: revocations come from that server alone");
                    is_told = true;
                }
            }
            turn = turn.wrapping_add(1);
            let rest = if is_read || heard.elapsed() > OUTAGE { AGAIN * 2_u32.pow(failures) } else { AGAIN };
            failures = DOUBLED.min(failures + 1);
            // Once the owner is not read any more, it is urgent.
            tokio::select! {
                () = tokio::time::sleep(rest + Duration::from_millis(u64::from(jitter()) % MORE_MS)) => {}
                _urgent = progress.wait_for(|progress| is_read && !progress.reading) => failures = 0,
            }
        }
    }

    /// Tells what a replica knows until something goes wrong, and says what.
    pub(super) async fn listen(
        &self,
        server: &Server,
        progress: &watch::Receiver<Progress>,
    ) -> Result<Infallible, String> {
        let link = self.log.router.dial().link(server).await.map_err(|broken| broken.to_string())?;
        // A member of a cluster sends readers to its master unless they say this first; others do not know the word.
        let _either = link.call(&Command::new("READONLY"), tokio::time::Instant::now() + DEADLINE).await;
        let read = || progress.borrow().cursor.unwrap_or_default();
        let mut position = read().overlapping();
        let (mut told, mut read_then) = (Instant::now(), read());
        loop {
            let within = if progress.borrow().reading { DEADLINE } else { IN_TIME };
            let lines = self.next(&link, position, BLOCK_MS, within).await?;
            self.metrics.replica_heard.set(1);
            self.tell_denials(&lines);
            position = behind(&lines, position);
            if !lines.is_empty() {
                (told, read_then) = (Instant::now(), read());
            }
            // One that is quiet as the owner is may have nobody to follow, and take over.
            if self.contact.lease().is_some_and(|lease| told.elapsed() > lease) && read() != read_then {
                return Err("it does not tell what the owner tells".to_owned());
            }
            let now = self.log.router.replicas(&self.log.key);
            let owns = || self.log.router.owner(&self.log.key).as_ref() == Some(server) && !progress.borrow().reading;
            if !now.is_empty() && !now.contains(server) && !owns() {
                return Err("it is no replica of the owner any more".to_owned());
            }
        }
    }
}

/// So long an answer may take while the owner is not read: it is due after [`BLOCK_MS`].
const IN_TIME: Duration = Duration::from_millis(500);
/// Between two attempts, and up to so much more. A replica that takes over may be told of an end at once.
const AGAIN: Duration = Duration::from_millis(50);
const MORE_MS: u64 = 30;
/// While there is no hurry it is doubled so often at most: to 25 s.
const DOUBLED: u32 = 9;
/// Longer than any failover takes.
const OUTAGE: Duration = Duration::from_secs(60);
