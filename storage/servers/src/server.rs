//! One `redis-server`.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::process::Process;

/// A server with a folder of its own.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    options: Vec<String>,
    folder: TempDir,
    process: Process,
}

/// A port of the loopback that nobody listens on just now, and which the system gives to nobody who does not name it: whoever asks
/// for any port, to listen or to connect, gets one above these.
#[must_use]
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let own = std::process::id().wrapping_mul(97);
    let port = || 10_240 + u16::try_from(own.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 9_000).unwrap();
    let mut ports = std::iter::repeat_with(port).take(9_000);
    ports.find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).unwrap()
}

/// How long a server may take to answer, on a machine that is busy.
const PATIENCE: Duration = Duration::from_mins(1);

impl Redis {
    /// Starts one that keeps nothing on disk; `options` are lines of its configuration, as words.
    #[must_use]
    pub fn start(options: &[&str]) -> Self {
        Self::start_at(free_port(), options)
    }

    /// The same, on a port.
    #[must_use]
    pub fn start_at(port: u16, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let process = spawn(port, &options, folder.path());
        let server = Self { port, options, folder, process };
        server.wait();
        server
    }

    /// Its port on the loopback.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Runs a command with `redis-cli`, and gives what it prints.
    #[must_use]
    pub fn cli(&self, command: &[&str]) -> String {
        cli(self.port, command)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.signal("KILL");
    }

    /// Stops it as a debugger would: it holds its connections and answers nothing.
    pub fn pause(&self) {
        self.process.signal("STOP");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.process.signal("CONT");
    }

    /// Starts it again, with what its folder holds.
    pub fn restart(&mut self) {
        self.kill();
        self.process = spawn(self.port, &self.options, self.folder.path());
        self.wait();
    }

    fn wait(&self) {
        let deadline = Instant::now() + PATIENCE;
        // With a password asked for it answers as well.
        while !["PONG", "NOAUTH"].iter().any(|answer| self.cli(&["PING"]).contains(answer)) {
            assert!(
                Instant::now() < deadline,
                "redis-server (package redis-server) does not answer on port {}",
                self.port
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Runs a command on a port with `redis-cli`.
pub(crate) fn cli(port: u16, command: &[&str]) -> String {
    let asked = Command::new("redis-cli").args(["-p", &port.to_string()]).args(command).output();
    let output = asked.unwrap_or_else(|error| panic!("redis-cli (package redis-tools): {error}"));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn spawn(port: u16, options: &[String], folder: &Path) -> Process {
    let (port, folder) = (port.to_string(), folder.display().to_string());
    let own = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--dir", &folder];
    Process::start(own.into_iter().chain(options.iter().map(String::as_str)))
}
