//! What the service manager hears of this process, if one listens at `NOTIFY_SOCKET` (sd_notify(3), 01 §1.3).

use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use crate::config::Environment;
use crate::verdict::Verdict;

/// The service manager.
#[derive(Debug)]
pub(crate) struct Manager {
    /// Where it listens, if it does.
    at: Option<String>,
    /// Not `health_check_systemd_disabled`.
    told: AtomicBool,
    _watchdog: Option<AbortOnDropHandle<()>>,
}

impl Manager {
    /// Begins to tell it that this process lives, if it wants to know.
    pub(crate) fn of(environment: &Environment, told: bool) -> Self {
        let at = environment.get("NOTIFY_SOCKET").map(|path| path.expose().clone());
        // Who was told once that this process lives would end it if no more was heard, whatever a reload says.
        let span = sd_notify::watchdog_enabled().filter(|_| told);
        let watchdog = span.zip(at.clone()).map(|(span, at)| AbortOnDropHandle::new(tokio::spawn(watch(span, at))));
        Self { at, told: AtomicBool::new(told), _watchdog: watchdog }
    }

    /// Connections are taken.
    pub(crate) async fn ready(&self, routes: usize) {
        self.tell_surely(&[NotifyState::Ready, NotifyState::Status(&format!("{routes} routes"))]).await;
    }

    /// Another configuration was loaded.
    pub(crate) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(error) => warn!(%error, "the service manager is not told of the reload"),
        }
    }

    /// What became of it. `told`: whether the configuration in force lets anything be told.
    pub(crate) fn reloaded(&self, verdict: &Verdict, told: bool) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(&verdict.sentence())]);
        self.told.store(told, Ordering::Relaxed);
    }

    /// No connection is taken any more.
    pub(crate) fn stopping(&self) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status("what is under way may finish")]);
    }

    /// Another process serves in the place of this one: from now on that one's word counts, and this one has said its last.
    pub(crate) async fn succeeded(self, process: u32) {
        let status = NotifyState::Status("a new process serves; the old one drains");
        self.tell_surely(&[NotifyState::MainPid(process), status]).await;
    }

    /// What it must not miss is said again while it does not read, for a moment.
    async fn tell_surely(&self, state: &[NotifyState<'_>]) {
        let Some(at) = self.at.as_ref().filter(|_| self.told.load(Ordering::Relaxed)) else { return };
        let words = words(state);
        let begun = Instant::now();
        while begun.elapsed() < AGAIN {
            match send(at, words.as_bytes()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(BETWEEN).await,
                Ok(()) => return,
                Err(_) => break,
            }
        }
        tell(at, state);
    }

    fn tell(&self, state: &[NotifyState<'_>]) {
        if let Some(at) = self.at.as_ref().filter(|_| self.told.load(Ordering::Relaxed)) {
            tell(at, state);
        }
    }
}

/// Twice in each span, since one word may come late.
async fn watch(span: Duration, at: String) {
    let mut due = interval((span / 2).max(SHORTEST));
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        tell(&at, &[NotifyState::Watchdog]);
    }
}

const SHORTEST: Duration = Duration::from_millis(10);
/// So long what it must not miss is said again.
const AGAIN: Duration = Duration::from_secs(2);
const BETWEEN: Duration = Duration::from_millis(50);

/// Whoever does not read is not waited for: this thread has others to serve.
fn tell(at: &str, state: &[NotifyState<'_>]) {
    if let Err(error) = send(at, words(state).as_bytes()) {
        warn!(%error, "the service manager does not hear");
    }
}

fn words(state: &[NotifyState<'_>]) -> String {
    state.iter().map(|word| format!("{word}\n")).collect()
}

fn send(at: &str, words: &[u8]) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    match at.strip_prefix('@') {
        #[cfg(target_os = "linux")]
        Some(name) => {
            use std::os::linux::net::SocketAddrExt as _;
            socket.send_to_addr(words, &std::os::unix::net::SocketAddr::from_abstract_name(name)?)?;
        }
        _ => {
            socket.send_to(words, at)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_manager_that_does_not_read_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let _silent = UnixDatagram::bind(&path).unwrap();
        let (at, words) = (path.to_str().unwrap(), [b'x'; 1024]);
        let error = (0..100_000).find_map(|_| send(at, &words).err()).expect("its queue has an end");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_service_manager_may_listen_at_an_abstract_address() {
        use std::os::linux::net::SocketAddrExt as _;
        let name = format!("postern-test-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let listens = UnixDatagram::bind_addr(&address).unwrap();
        send(&format!("@{name}"), b"READY=1\n").unwrap();
        let mut heard = [0; 64];
        let length = listens.recv(&mut heard).unwrap();
        assert_eq!(&heard[..length], b"READY=1\n");
    }
}
