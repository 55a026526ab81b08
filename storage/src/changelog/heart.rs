//! Signs of life, written by whoever writes sessions. They are what the lease of every edge lives on.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Changelog, Entry};
use crate::StorageError;
use crate::metrics::Metrics;
use crate::redis::{Command, Script};

/// KEYS turn; ARGV writer, how long a turn lasts in ms. Of many writers one has the turn, for as long as it goes on: 1 if it
/// is this one.
const TURN: &str = "\
local turn = redis.call('GET', KEYS[1])
if turn and turn ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1";

/// Writes heartbeats until told to stop. Each is written only after replicas have confirmed a write that came behind the one
/// before: a master that was cut off from its replicas falls silent.
pub(crate) async fn beat(log: Changelog, every: Duration, metrics: Arc<Metrics>, stop: CancellationToken) {
    let (script, lasts) = (Script::new(TURN), millis(every.saturating_mul(2)));
    let keys = [log.turn.clone()];
    let (mut holds, mut told) = (false, false);
    loop {
        let turn = Command::new("").arg(log.process.as_str()).arg(lasts);
        let beaten = async {
            let mine = log.router.script_durably(&script, &keys, turn).await?.number() == Some(1_i64);
            if mine {
                log.router.call_as_a_sign(&log.key, log.line(Entry::Heartbeat)).await?;
                metrics.heartbeats.inc();
            }
            Ok::<_, StorageError>(mine)
        };
        match beaten.await {
            Ok(mine) => (holds, told) = (mine, false),
            Err(error) if !told => {
                warn!(%error, "no heartbeat could be written: edges will serve what they know for a while, then refuse");
                told = true;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(every) => {}
        }
    }
    if holds {
        // Another writer may go on at once.
        let _ends_by_itself = log.router.call(&log.turn, Command::new("DEL").arg(log.turn.as_str())).await;
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
