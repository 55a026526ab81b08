//! Another process takes the place of this one, and nobody is refused meanwhile (decision 0022): it is started as this one was,
//! gets the listening sockets, and says when it serves; then this one drains. A service manager hands sockets over in the same
//! way (`LISTEN_FDS`, sd_listen_fds(3)).

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as Line;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping};
use listenfd::ListenFd;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postern_edge::Inherited;
use postern_storage::StorageConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::signal::unix::{self, SignalKind, signal};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{error, info, warn};

use crate::assemble::Running;
use crate::config::Environment;

/// A new process that does not serve after so long is ended, and this one goes on.
const PATIENCE: Duration = Duration::from_secs(30);
/// So long a new process waits at most until the service manager has been told whose word counts.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// What a process takes to end once it has drained, at most (`Running::drain`).
const AFTER_DRAIN: Duration = Duration::from_secs(7);
/// A process that was told to end is looked for so often until it is gone.
const GONE: Duration = Duration::from_millis(10);
/// Set for a process that is to take another's place: that one is at the other end of its standard input.
const SUCCEEDS: &str = "POSTERN_SUCCEEDS";
/// What it is set to: of a process that is the service manager's own, or of another.
const AS_MAIN: &str = "main";
const AS_ANY: &str = "stdin";
/// The first descriptor that is handed over (sd_listen_fds(3)).
const FIRST: i32 = 3;
/// What a new process says once it serves.
const SERVES: u8 = b'S';

/// What this process was given at its start.
#[derive(Debug, Default)]
pub(crate) struct Inheritance {
    sockets: Vec<TcpListener>,
    /// Descriptors that are no sockets of ours to listen on.
    strange: usize,
    /// Its line to the process whose place it takes.
    line: Option<OwnedFd>,
}

impl Inheritance {
    /// To be called before there is a second thread: what it takes it takes out of the environment, too.
    pub(crate) fn take(environment: &Environment) -> Self {
        let mut given = ListenFd::from_env();
        let taken: Vec<_> = (0..given.len()).map(|index| given.take_tcp_listener(index)).collect();
        let strange = taken.iter().filter(|taken| taken.is_err()).count();
        let sockets = taken.into_iter().flatten().flatten().collect();
        let line = environment.get(SUCCEEDS).and_then(|_| io::stdin().as_fd().try_clone_to_owned().ok());
        Self { sockets, strange, line }
    }

    /// The sockets, and whoever waits for this process.
    pub(crate) fn open(self) -> (Inherited, Option<Predecessor>) {
        if self.strange > 0 {
            warn!(count = self.strange, "what was handed to this process is in part no TCP socket, and is left alone");
        }
        let predecessor = self.line.map(|line| tokio_line(Line::from(line)).map(Predecessor)).transpose();
        let predecessor = predecessor.inspect_err(|error| warn!(%error, "there is no process before this one")).ok();
        (Inherited::of(self.sockets), predecessor.flatten())
    }
}

/// The process whose place this one takes.
#[derive(Debug)]
pub(crate) struct Predecessor(UnixStream);

impl Predecessor {
    /// Waits until it is there no more: whoever connects would be served by nobody.
    pub(crate) async fn is_gone(&self) {
        while self.0.readable().await.is_ok() {
            match self.0.try_read(&mut [0]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(1..) => {}
                Ok(0) | Err(_) => return,
            }
        }
    }

    /// Tells it that this process serves, and waits until it has told the service manager whose word counts from now on.
    pub(crate) async fn relieve(mut self) {
        let told = async {
            self.0.write_all(&[SERVES]).await?;
            self.0.read_to_end(&mut Vec::new()).await
        };
        if let Ok(Err(error)) = timeout(LAST_WORDS, told).await {
            warn!(%error, "the process before this one does not hear that it may end");
        }
    }
}

fn tokio_line(line: Line) -> io::Result<UnixStream> {
    line.set_nonblocking(true)?;
    UnixStream::from_std(line)
}

/// Waits for a reason to hand over, and does.
#[derive(Debug)]
pub(crate) struct Upgrades {
    signal: unix::Signal,
    under_way: Option<Successor>,
    manager: Watching,
}

/// What a service manager makes of the end of this process.
#[derive(Debug, Clone, Copy)]
struct Watching {
    /// This process is its service: with it the service ends, unless another one is named.
    is_main: bool,
    /// It listens.
    hears: bool,
}

impl Watching {
    fn of(environment: &Environment) -> Self {
        let is = |name, value: &str| environment.get(name).is_some_and(|found| found.expose() == value);
        // Who came by an upgrade is what its predecessor was: the manager was told.
        let is_main = is("SYSTEMD_EXEC_PID", &std::process::id().to_string()) || is(SUCCEEDS, AS_MAIN);
        Self { is_main, hears: environment.get("NOTIFY_SOCKET").is_some() }
    }

    /// Whether it would end a successor along with this process. `told`: whether the configuration lets it be told anything.
    const fn ends_all(self, told: bool) -> bool {
        self.is_main && !(self.hears && told)
    }
}

impl Upgrades {
    /// From now on SIGUSR2 is a reason.
    pub(crate) fn listen(environment: &Environment) -> io::Result<Self> {
        let manager = Watching::of(environment);
        Ok(Self { signal: signal(SignalKind::user_defined2())?, under_way: None, manager })
    }

    /// Gives the process that serves in the place of this one, once there is one. May be dropped and called again.
    pub(crate) async fn succeeded(&mut self, running: &Running) -> Successor {
        loop {
            tokio::select! {
                _ = self.signal.recv() => self.begin(running),
                serves = serves(&mut self.under_way) => match (self.under_way.take(), serves) {
                    (Some(successor), Ok(())) => return successor,
                    (_, Err(why)) => stays(&why),
                    (None, Ok(())) => {}
                },
            }
        }
    }

    fn begin(&mut self, running: &Running) {
        if self.under_way.is_some() {
            info!("an upgrade is under way already");
            return;
        }
        match possible(running, self.manager)
            .and_then(|()| Successor::start(running, self.manager).map_err(|error| error.to_string()))
        {
            Ok(successor) => {
                info!(process = successor.id(), "a new process was started; once it serves, this one ends");
                self.under_way = Some(successor);
            }
            Err(why) => stays(&why),
        }
    }

    /// This process ends for another reason: whoever was to take its place is told to end with it.
    pub(crate) fn give_up(&mut self) {
        if let Some(successor) = &mut self.under_way {
            successor.end(Failure::Unwanted);
        }
    }

    /// Waits until that one is gone, no longer than its own drain may take.
    pub(crate) async fn are_given_up(&mut self) {
        let Some(successor) = &mut self.under_way else { return };
        if let Err(why) = successor.serves().await {
            info!(reason = why, "no upgrade: this process ends");
        }
    }
}

impl Drop for Upgrades {
    /// A cut is one for both.
    fn drop(&mut self) {
        if let Some(successor) = &mut self.under_way {
            successor.kill();
        }
    }
}

fn stays(why: &str) {
    error!(error = why, "no upgrade: this process goes on");
}

/// Whether another process can take over, or why not.
fn possible(running: &Running, manager: Watching) -> Result<(), String> {
    if let StorageConfig::File { path } = &running.config().storage {
        return Err(format!(
            "the session store {} is open in this process alone, and a second one cannot share it: restart, or keep sessions in \
             Redis (`databroker_storage_type: redis`)",
            path.display()
        ));
    }
    if std::process::id() == 1 {
        return Err("this is process 1, with which its container ends: start a new container".to_owned());
    }
    if manager.ends_all(running.config().tells_manager) {
        let why = "the service manager cannot be told of the new process, and would end it with this one: write Type=notify into \
                   the unit, and do not set `health_check_systemd_disabled`";
        return Err(why.to_owned());
    }
    Ok(())
}

async fn serves(successor: &mut Option<Successor>) -> Result<(), String> {
    match successor {
        Some(successor) => successor.serves().await,
        None => std::future::pending().await,
    }
}

/// Why a new process does not take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    Ended,
    Late,
    Unwanted,
}

impl Failure {
    fn because(self, ended: Option<ExitStatus>) -> String {
        let ended = ended.map_or_else(String::new, |status| format!(" ({status})"));
        match self {
            Self::Ended => format!("the new process ended before it served{ended}; it has said why"),
            Self::Late => {
                format!("the new process did not serve within {} s, and was ended{ended}", PATIENCE.as_secs())
            }
            Self::Unwanted => format!("this process was told to stop, and the new one was ended{ended}"),
        }
    }
}

/// The process that is to take the place of this one.
#[derive(Debug)]
pub(crate) struct Successor {
    process: Child,
    line: UnixStream,
    until: Instant,
    /// It has so long to end.
    drain: Duration,
    /// Why it is to end, and when it is killed.
    failure: Option<(Failure, Instant)>,
}

impl Successor {
    /// Starts it as this process was started, with all listening sockets.
    fn start(running: &Running, manager: Watching) -> io::Result<Self> {
        let listening = running.listening()?;
        let (ours, theirs) = Line::pair()?;
        let mut arguments = std::env::args_os();
        let program = arguments.next().ok_or_else(|| io::Error::other("this process does not know its own name"))?;
        let mut command = Command::new(&program);
        let succeeds = if manager.is_main { AS_MAIN } else { AS_ANY };
        command.args(arguments).stdin(OwnedFd::from(theirs)).env(SUCCEEDS, succeeds);
        command.env("LISTEN_FDS", listening.len().to_string());
        // The first two would name this process, and the names are those of what a service manager handed over.
        command.env_remove("LISTEN_PID").env_remove("WATCHDOG_PID").env_remove("LISTEN_FDNAMES");
        command.env_remove("LISTEN_FDS_FIRST_FD");
        let mapping = |(child_fd, socket): (i32, TcpListener)| FdMapping { parent_fd: socket.into(), child_fd };
        command.fd_mappings((FIRST..).zip(listening).map(mapping).collect()).map_err(io::Error::other)?;
        let named = |error| io::Error::other(format!("{} cannot be started: {error}", program.display()));
        let process = command.spawn().map_err(named)?;
        let drain = running.config().edge.timeouts.drain + AFTER_DRAIN;
        Ok(Self { process, line: tokio_line(ours)?, until: Instant::now() + PATIENCE, drain, failure: None })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits until it serves, or has ended: then why. May be dropped and called again.
    async fn serves(&mut self) -> Result<(), String> {
        let (failure, killed) = match self.failure {
            Some(failure) => failure,
            None => match timeout_at(self.until, self.line.read_u8()).await {
                Ok(Ok(SERVES)) => return Ok(()),
                Ok(Ok(_) | Err(_)) => self.end(Failure::Ended),
                Err(_) => self.end(Failure::Late),
            },
        };
        loop {
            match self.process.try_wait() {
                Ok(None) if Instant::now() < killed => sleep(GONE).await,
                Ok(None) => {
                    self.kill();
                    sleep(GONE).await;
                }
                ended => return Err(failure.because(ended.ok().flatten())),
            }
        }
    }

    /// Has it end, if it has not ended by itself: what it has accepted already is not cut.
    fn end(&mut self, failure: Failure) -> (Failure, Instant) {
        // Its number is its own until it has been waited for.
        if let (Ok(None), Ok(id)) = (self.process.try_wait(), i32::try_from(self.id())) {
            let _gone = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
        *self.failure.insert((failure, Instant::now() + self.drain))
    }

    fn kill(&mut self) {
        let _gone = self.process.kill();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::Stdio;

    use super::*;

    /// A process that does that on SIGTERM, and is to be gone after so long.
    fn successor(on_term: &str, drain: Duration) -> Successor {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("trap '{on_term}' TERM; echo; read line")]);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        let (ours, theirs) = Line::pair().unwrap();
        drop(theirs);
        Successor { process, line: tokio_line(ours).unwrap(), until: Instant::now() + PATIENCE, drain, failure: None }
    }

    #[tokio::test]
    async fn r_017_a_new_process_that_is_not_wanted_any_more_ends_by_itself() {
        let mut successor = successor("exit 7", PATIENCE);
        successor.end(Failure::Unwanted);
        let ended = timeout(PATIENCE, successor.serves()).await.unwrap();
        assert_eq!(ended.unwrap_err(), "this process was told to stop, and the new one was ended (exit status: 7)");
    }

    #[tokio::test]
    async fn r_017_one_that_does_not_end_within_a_drain_is_killed() {
        let mut successor = successor("", Duration::from_millis(20));
        successor.end(Failure::Late);
        let ended = timeout(PATIENCE, successor.serves()).await.unwrap().unwrap_err();
        assert!(ended.contains("was ended (signal: 9"), "{ended}");
    }

    #[test]
    fn who_came_by_an_upgrade_is_to_the_service_manager_what_its_predecessor_was() {
        let ends_all = |variables: &[(&str, &str)]| {
            Watching::of(&Environment::of(variables.iter().copied()).unwrap()).ends_all(false)
        };
        let own = std::process::id().to_string();
        assert!(ends_all(&[("SYSTEMD_EXEC_PID", &own)]));
        assert!(ends_all(&[("SYSTEMD_EXEC_PID", "1"), (SUCCEEDS, AS_MAIN)]));
        assert!(!ends_all(&[("SYSTEMD_EXEC_PID", "1"), (SUCCEEDS, AS_ANY)]));
        assert!(!ends_all(&[("SYSTEMD_EXEC_PID", "1")]));
    }
}
