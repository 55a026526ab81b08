//! Starts the real binary, waits until it is ready, listens to what it says, and ends it.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use command_fds::{CommandFdExt as _, FdMapping};

use super::{DEADLINE, Owned, World, eventually, output_within, signal};

/// A running `postern`.
#[derive(Debug)]
pub(crate) struct Postern {
    process: Owned,
    stdout: Heard,
    stderr: Heard,
}

/// A `postern` that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// All that it said.
    pub(crate) fn told(&self) -> String {
        [self.stdout.as_str(), self.stderr.as_str()].concat()
    }
}

impl Postern {
    /// `postern run` with this configuration in this world, as soon as it is ready.
    pub(crate) async fn run(world: &World, config: &str) -> Result<Self> {
        Self::run_with(world, config, &[]).await
    }

    /// The same, with these variables.
    pub(crate) async fn run_with(world: &World, config: &str, variables: &[(&str, &str)]) -> Result<Self> {
        let config = world.write_config(config)?;
        let mut command = command(world.folder(), &["run", "--config", &config.display().to_string()]);
        command.envs(variables.iter().copied());
        Self::begin(command)?.ready(world.health).await
    }

    /// The same, as the process that a service manager knows as its own, where it says so.
    pub(crate) async fn run_as_main(world: &World, config: &str, variables: &[(&str, &str)]) -> Result<Self> {
        let config = world.write_config(config)?;
        let postern = command(world.folder(), &["run", "--config", &config.display().to_string()]);
        let mut command = Command::new("sh");
        // Only the process itself knows its number.
        command
            .args(["-c", "SYSTEMD_EXEC_PID=$$ exec \"$0\" \"$@\""])
            .arg(postern.get_program())
            .args(postern.get_args());
        surround(&mut command, world.folder());
        command.envs(variables.iter().copied());
        Self::begin(command)?.ready(world.health).await
    }

    /// The same as [`Self::run`], and it may open so many files at most.
    pub(crate) async fn run_with_files(world: &World, config: &str, files: u32) -> Result<Self> {
        let config = world.write_config(config)?;
        let run = command(world.folder(), &["run", "--config", &config.display().to_string()]);
        let mut limited = Command::new("prlimit");
        limited.arg(format!("--nofile={files}")).arg(run.get_program()).args(run.get_args());
        surround(&mut limited, world.folder());
        Self::begin(limited)?.ready(world.health).await
    }

    /// The same on these sockets, which it is handed as a service manager does.
    pub(crate) async fn run_on(world: &World, config: &str, sockets: Vec<TcpListener>) -> Result<Self> {
        let config = world.write_config(config)?;
        let postern = command(world.folder(), &["run", "--config", &config.display().to_string()]);
        let mut command = Command::new("sh");
        // Only the process itself knows its number.
        command.args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\""]).arg(postern.get_program()).args(postern.get_args());
        command.env_clear().env("HOME", world.folder()).env("PATH", "/usr/bin:/bin").current_dir(world.folder());
        command.env("LISTEN_FDS", sockets.len().to_string());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mapping = |(child_fd, socket): (i32, TcpListener)| FdMapping { parent_fd: socket.into(), child_fd };
        command.fd_mappings((3..).zip(sockets).map(mapping).collect())?;
        Self::begin(command)?.ready(world.health).await
    }

    /// Any command line, in the background.
    pub(crate) fn spawn(home: &Path, arguments: &[&str]) -> Result<Self> {
        Self::begin(command(home, arguments))
    }

    fn begin(mut command: Command) -> Result<Self> {
        let mut process = command.process_group(0).spawn().map(Owned).context("starting postern")?;
        let (stdout, stderr) = (Heard::of(process.0.stdout.take()), Heard::of(process.0.stderr.take()));
        Ok(Self { process, stdout, stderr })
    }

    /// Any command line, to its end.
    pub(crate) fn once(home: &Path, arguments: &[&str]) -> Result<Finished> {
        let output = output_within(DEADLINE, &format!("postern {}", arguments.join(" ")), command(home, arguments))?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Finished { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) })
    }

    /// Waits for `/readyz`; fails at once if the process ends instead.
    pub(crate) async fn ready(mut self, health: u16) -> Result<Self> {
        let url = format!("http://127.0.0.1:{health}/readyz");
        let client = plain_client()?;
        let ready = eventually("/readyz", async || match self.process.0.try_wait() {
            Ok(None) => client.get(&url).send().await.is_ok_and(|answer| answer.status() == 200).then_some(true),
            Ok(Some(_)) | Err(_) => Some(false),
        });
        if ready.await.with_context(|| self.told())? {
            return Ok(self);
        }
        bail!("postern ended instead of serving\n{}", self.told())
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.0.id()
    }

    /// Sends it a signal, by name without `SIG`.
    pub(crate) fn signal(&self, name: &str) -> Result<()> {
        signal(name, &self.id().to_string())
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.process.0.try_wait(), Ok(None))
    }

    /// Waits for its end, whatever it has started.
    pub(crate) async fn ended(&mut self) -> Result<ExitStatus> {
        let status = eventually("the end of postern", async || self.process.0.try_wait().ok().flatten());
        status.await.with_context(|| self.told())
    }

    /// Waits for its end.
    pub(crate) async fn finished(mut self) -> Result<Finished> {
        let status = self.ended().await?;
        let heard = (&self.stdout, &self.stderr);
        eventually("its last words", async || (heard.0.is_over() && heard.1.is_over()).then_some(())).await?;
        Ok(Finished { status, stdout: self.stdout.text(), stderr: self.stderr.text() })
    }

    /// Ends it without warning, as a power cut would.
    pub(crate) async fn kill(mut self) -> Result<Finished> {
        self.process.0.kill()?;
        self.finished().await
    }

    /// All it has said so far.
    pub(crate) fn told(&self) -> String {
        format!("{}\n{}", self.stdout.text(), self.stderr.text())
    }

    /// Waits until it has said this: what it does may be seen before its words have come through the pipe.
    pub(crate) async fn says(&self, words: &str) -> Result<()> {
        let said = eventually(words, async || self.told().contains(words).then_some(()));
        said.await.with_context(|| self.told())
    }

    /// Its standard output so far.
    pub(crate) fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Its log so far: every line that is JSON.
    pub(crate) fn log(&self) -> Vec<serde_json::Value> {
        self.stdout().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The line with this message that belongs to a request, as soon as it is there.
    pub(crate) async fn line(&self, message: &str, request: &str) -> Result<serde_json::Value> {
        let is = |line: &serde_json::Value, name: &str, value: &str| line.get(name).is_some_and(|found| found == value);
        let what = format!("a line {message:?} of request {request}");
        let found = eventually(&what, async || {
            self.log().into_iter().find(|line| is(line, "message", message) && is(line, "request-id", request))
        });
        found.await.with_context(|| self.told())
    }

    /// The processor time that it has taken.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id()))?;
        // Its own name, which may have spaces, ends with a parenthesis; ticks are hundredths of a second.
        let fields = stat.rsplit(") ").next().context("its state")?.split(' ').skip(11).take(2);
        let ticks = fields.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Its resident memory in bytes.
    pub(crate) fn memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kilobytes * 1024)
    }
}

/// A client without TLS, proxies or redirects, for health and metrics. Whatever takes a port that was free a moment ago and
/// does not answer is not waited for.
pub(crate) fn plain_client() -> Result<reqwest::Client> {
    super::world::install_crypto();
    Ok(reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(DEADLINE).build()?)
}

fn command(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
    command.args(arguments);
    surround(&mut command, home);
    command
}

fn surround(command: &mut Command, home: &Path) {
    // The environment overrides the file (01 §1.1): a test has none but what it names.
    command.env_clear().env("HOME", home).env("PATH", "/usr/bin:/bin").env("RUST_BACKTRACE", "1").current_dir(home);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
}

/// What came out of one of its streams.
#[derive(Debug, Clone)]
struct Heard(Arc<Mutex<(String, bool)>>);

impl Heard {
    fn of(stream: Option<impl Read + Send + 'static>) -> Self {
        let heard = Self(Arc::default());
        let writer = heard.clone();
        std::thread::spawn(move || {
            for line in stream.into_iter().flat_map(|stream| BufReader::new(stream).lines()).map_while(Result::ok) {
                writer.with(|(text, _)| *text += &(line + "\n"));
            }
            writer.with(|(_, over)| *over = true);
        });
        heard
    }

    fn with<T>(&self, act: impl FnOnce(&mut (String, bool)) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn text(&self) -> String {
        self.with(|(text, _)| text.clone())
    }

    fn is_over(&self) -> bool {
        self.with(|(_, over)| *over)
    }
}
