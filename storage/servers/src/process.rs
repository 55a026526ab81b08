//! A server process that never outlives this one, however this one ends.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

/// A `redis-server`, and a shell that ends it as soon as nobody holds the other end of its standard input.
#[derive(Debug)]
pub(crate) struct Process {
    shell: Child,
    server: u32,
}

/// Starts the server, tells its number, waits for the end of the input, and ends the server.
const KEEPER: &str = r#""$@" </dev/null >/dev/null 2>&1 & echo $!; cat >/dev/null; kill -9 $! 2>/dev/null"#;

impl Process {
    pub(crate) fn start<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "keeper", "redis-server"]).args(arguments);
        let mut shell = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        Self { server: line.trim().parse().unwrap(), shell }
    }

    /// Sends a signal, if the process is still there.
    pub(crate) fn signal(&self, name: &str) {
        let sent =
            Command::new("kill").args([&format!("-{name}"), &self.server.to_string()]).stderr(Stdio::null()).status();
        let _over = sent.unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        self.shell.wait().unwrap();
    }
}
