//! One server and the connections to it, each kept by a task that dials again whenever it is lost.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};

use super::durable::Durable;
use super::link::{self, Broken};
use super::{Command, Dial, Link, Reply};
use crate::config::Server;

/// A server.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) server: Server,
    common: Kept,
    durable: Durable,
    ends_with_it: DropGuard,
}

/// A connection that is kept.
#[derive(Debug)]
pub(super) struct Kept {
    link: watch::Receiver<Option<Link>>,
    /// Somebody wants it: dial.
    wanted: Arc<Notify>,
    /// Why there is none.
    trouble: Arc<Mutex<Option<String>>>,
}

impl Node {
    /// The server, connected to in the background.
    pub(super) fn new(server: Server, dial: &Dial) -> Self {
        let stop = CancellationToken::new();
        let keep = |stop: &CancellationToken| Kept::start(server.clone(), dial.clone(), stop.clone());
        let (common, durable) = (keep(&stop), keep(&stop));
        common.wanted.notify_one();
        let durable = Durable::start(durable, stop.clone());
        Self { common, durable, ends_with_it: stop.drop_guard(), server }
    }

    /// Ends both connections, with whatever waits for an answer there.
    pub(super) fn end(&self) {
        self.ends_with_it.token().cancel();
    }

    /// Sends commands in one piece; gives all answers.
    ///
    /// # Errors
    /// [`Broken`].
    pub(super) async fn call(&self, commands: &[Command], until: Instant) -> Result<Vec<Reply>, Broken> {
        let link = self.common.link(until).await?;
        match commands {
            [only] => Ok(vec![link.call(only, until).await?]),
            several => link.call_all(several, until).await,
        }
    }

    /// The same, of writes that `copies` replicas are to have; the last answer is that to `WAIT`, if there are to be any.
    ///
    /// # Errors
    /// [`Broken`].
    pub(super) async fn call_durably(
        &self,
        commands: Vec<Command>,
        copies: u32,
        until: Instant,
    ) -> Result<Vec<Reply>, Broken> {
        self.durable.call(commands, copies, until).await
    }

    /// Whether there is a connection now.
    pub(super) fn is_up(&self) -> bool {
        self.common.link.borrow().is_some()
    }

    /// Why there is no connection, if it is known.
    pub(super) fn trouble(&self) -> Option<String> {
        self.common.trouble()
    }
}

impl Kept {
    fn start(server: Server, dial: Dial, stop: CancellationToken) -> Self {
        let (tell, link) = watch::channel(None);
        let (wanted, trouble) = (Arc::new(Notify::new()), Arc::<Mutex<Option<String>>>::default());
        let (waits, notes) = (Arc::clone(&wanted), Arc::clone(&trouble));
        drop(tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = keep(&server, &dial, &tell, &waits, &notes) => {}
            }
            let last = tell.send_replace(None);
            if let Some(link) = last {
                link::close(link).await;
            }
        }));
        Self { link, wanted, trouble }
    }

    /// The connection, which is waited for for a moment if it is just being made: whoever waits longer should look whether
    /// another server took over.
    ///
    /// # Errors
    /// [`Broken`].
    pub(super) async fn link(&self, until: Instant) -> Result<Link, Broken> {
        if let Some(link) = &*self.link.borrow() {
            return Ok(link.clone());
        }
        self.wanted.notify_one();
        let mut link = self.link.clone();
        let patience = until.min(Instant::now() + PATIENCE);
        let found = tokio::time::timeout_at(patience, link.wait_for(Option::is_some)).await;
        let found = found.ok().and_then(|found| found.ok()?.clone());
        found.ok_or_else(|| Broken::Lost(self.trouble().unwrap_or_else(|| "not connected yet".to_owned())))
    }

    fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Dials, says so, waits for the end of the connection, and dials again.
async fn keep(
    server: &Server,
    dial: &Dial,
    tell: &watch::Sender<Option<Link>>,
    wanted: &Notify,
    trouble: &Mutex<Option<String>>,
) {
    let note = |what: Option<String>| *trouble.lock().unwrap_or_else(PoisonError::into_inner) = what;
    wanted.notified().await;
    let (mut pause, mut told) = (PAUSE, false);
    loop {
        let began = Instant::now();
        match dial.link(server).await {
            Ok(link) => {
                debug!(%server, "connected to the store");
                note(None);
                (pause, told) = (PAUSE, false);
                tell.send_replace(Some(link.clone()));
                link.ended().await;
                tell.send_replace(None);
                note(Some("the connection was lost".to_owned()));
                warn!(%server, "a connection to the store was lost");
                drop(tokio::spawn(link::close(link)));
            }
            Err(broken) => {
                if !told {
                    warn!(%server, %broken, "a server of the store cannot be reached; it is tried again and again");
                    told = true;
                }
                note(Some(broken.to_string()));
                // From the beginning of the attempt: one that waited for a silent server in vain has had its pause.
                let rest = jittered(pause).saturating_sub(began.elapsed());
                tokio::time::sleep(rest.max(jittered(SHORTEST_REST))).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Between half of it and all: many processes that lost one server must not come back to it in step.
fn jittered(pause: Duration) -> Duration {
    let some = postern_identity::random().map_or(u16::MAX, u16::from_be_bytes);
    pause / 2 + pause / 2 * u32::from(some) / u32::from(u16::MAX)
}

const PAUSE: Duration = Duration::from_millis(50);
/// A server that is back is found within it. Whoever is refused costs a server next to nothing.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// Whatever an attempt took.
const SHORTEST_REST: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_millis(150);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_never_longer_than_it_says_and_at_least_half_of_it() {
        for _ in 0..1_000 {
            let pause = jittered(LONGEST_PAUSE);
            assert!((LONGEST_PAUSE / 2..=LONGEST_PAUSE).contains(&pause), "{pause:?}");
        }
    }
}
