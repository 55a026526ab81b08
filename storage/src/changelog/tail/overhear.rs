//! What a replica of the changelog's server knows.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::{BLOCK_MS, DEADLINE, Progress, Tail, behind, facts, jitter};
use crate::config::Server;
use crate::invalidation::Fact;
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
        let (mut pause, mut is_told) = (AGAIN, false);
        // When one last told something.
        let mut heard = Instant::now();
        loop {
            let known = self.replicas();
            replicas = self.known(&progress).unwrap_or(replicas);
            if let Some(server) = replicas.get(usize::from(turn) % replicas.len().max(1)) {
                let before = heard;
                let Err(why) = self.listen(server, replicas.len() > 1, &progress, &mut heard).await;
                self.metrics.replica_heard.set(0);
                debug!(%server, why, "a replica is no longer heard");
                if heard != before {
                    pause = AGAIN;
                    if std::mem::take(&mut is_told) {
                        info!("a replica of the changelog's server was heard again");
                    }
                } else if heard.elapsed() > OUTAGE && !is_told {
                    warn!(%server, why, "no replica of the changelog's server can be heard: revocations come from that server alone");
                    is_told = true;
                }
            }
            turn = turn.wrapping_add(1);
            let is_read = progress.borrow().reading;
            let most = match heard.elapsed() {
                _ if is_read => SELDOM,
                silent if silent > OUTAGE => LATER,
                _ => AGAIN,
            };
            let rest = pause.min(most) + Duration::from_millis(u64::from(jitter()) % MORE_MS);
            pause = (pause * 2).min(SELDOM);
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                () = self.log.router.until(|_| self.replicas() != known) => pause = AGAIN,
                _turned = progress.wait_for(|progress| progress.reading != is_read) => pause = AGAIN,
            }
        }
    }

    fn replicas(&self) -> Option<Vec<Server>> {
        self.log.router.replicas(&self.log.key)
    }

    /// The owner's replicas, if the map is right about them. That there are none is right only while the owner is read: a master that
    /// is held to have failed is in no map, and one that just took over has none yet. Those of before are worth hearing then.
    fn known(&self, progress: &watch::Receiver<Progress>) -> Option<Vec<Server>> {
        self.replicas().filter(|replicas| !replicas.is_empty() || progress.borrow().reading)
    }

    /// Tells what a replica knows until something goes wrong, and says what. `others`: whether there are more to turn to. `heard` is
    /// set whenever it tells something.
    pub(super) async fn listen(
        &self,
        server: &Server,
        mut others: bool,
        progress: &watch::Receiver<Progress>,
        heard: &mut Instant,
    ) -> Result<Infallible, String> {
        let link = self.log.router.dial().link(server).await.map_err(|broken| broken.to_string())?;
        // A member of a cluster sends readers to its master unless they say this first; others do not know the word.
        let _either = link.call(&Command::new("READONLY"), tokio::time::Instant::now() + DEADLINE).await;
        let read = || progress.borrow().cursor.unwrap_or_default();
        // How far the replica is: as far as the owner until it tells a line, because there may be none to read again.
        let (mut position, mut reached, mut told) = (read().overlapping(), read(), Instant::now());
        loop {
            let within = if progress.borrow().reading { DEADLINE } else { IN_TIME };
            let lines = self.next(&link, position, BLOCK_MS, within).await?;
            // It can wait that a session has begun.
            facts(&lines).filter(|fact| *fact != Fact::Created).for_each(|fact| self.tell(fact));
            position = behind(&lines, position);
            if !lines.is_empty() {
                (reached, told) = (position, Instant::now());
                *heard = told;
                self.metrics.replica_heard.set(1);
            }
            let is_read = progress.borrow().reading;
            let known = self.known(progress);
            others = known.as_ref().map_or(others, |known| known.len() > 1);
            let patience = patience(self.contact.lease(), is_read.then(|| reached == read()), others);
            if patience.is_some_and(|patience| told.elapsed() > patience) {
                return Err("it tells nothing".to_owned());
            }
            let takes_over = !is_read && self.owner().as_ref() == Some(server);
            if known.is_some_and(|known| !known.contains(server)) && !takes_over {
                return Err("it is no replica of the owner any more".to_owned());
            }
        }
    }
}

/// How long a replica may be silent, `is_as_far` as the owner, if that is read: then it has nothing to tell. While the owner is not
/// read, a silent one may be about to take over, so it is left only for another, and after longer than that takes.
fn patience(lease: Option<Duration>, is_as_far: Option<bool>, others: bool) -> Option<Duration> {
    match is_as_far {
        Some(true) => None,
        Some(false) => lease,
        None => others.then_some(TAKEOVER),
    }
}

/// So long an answer may take while the owner is not read: it is due after [`BLOCK_MS`].
const IN_TIME: Duration = Duration::from_millis(500);
/// Longer than a replica mostly takes to take over.
const TAKEOVER: Duration = Duration::from_secs(15);
/// The first rest between two attempts, which each that comes to nothing doubles, and the longest one of a failover: a replica that
/// takes over may be told of an end at once.
const AGAIN: Duration = Duration::from_millis(50);
/// Up to so much is added, at random.
const MORE_MS: u64 = 30;
/// The longest rest where neither the owner is read nor a replica was heard for [`OUTAGE`].
const LATER: Duration = Duration::from_secs(1);
/// The longest rest while the owner is read.
const SELDOM: Duration = Duration::from_secs(25);
/// Longer than any failover takes.
const OUTAGE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_a_replica_may_be_silent() {
        let lease = Some(Duration::from_secs(2));
        for (is_as_far, others, expected) in [
            (Some(true), false, None),
            (Some(true), true, None),
            (Some(false), false, lease),
            (Some(false), true, lease),
            (None, false, None),
            (None, true, Some(TAKEOVER)),
        ] {
            assert_eq!(patience(lease, is_as_far, others), expected, "{is_as_far:?}, {others}");
        }
    }
}
