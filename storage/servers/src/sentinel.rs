//! A master and its replica, watched by three Sentinels.

use std::time::Duration;

use tempfile::TempDir;

use crate::process::Process;
use crate::server::cli;
use crate::{Redis, TlsFiles, free_port, until};

/// Servers under watch. The master's name is [`Watched::MASTER`].
#[derive(Debug)]
pub struct Watched {
    /// The master at first, then its replica.
    pub servers: [Redis; 2],
    sentinels: Vec<Sentinel>,
}

#[derive(Debug)]
struct Sentinel {
    port: u16,
    announced: u16,
    _process: Process,
    _folder: TempDir,
}

impl Watched {
    /// What the Sentinels call the master.
    pub const MASTER: &str = "sessions";

    /// Starts them; the Sentinels call a master dead that is silent for `down_after`.
    #[must_use]
    pub fn start(down_after: Duration) -> Self {
        Self::with(down_after, None)
    }

    /// The same, who speak TLS to each other and to clients, who have to show a certificate.
    #[must_use]
    pub fn start_tls(down_after: Duration, files: &TlsFiles) -> Self {
        Self::with(down_after, Some(files))
    }

    fn with(down_after: Duration, files: Option<&TlsFiles>) -> Self {
        let server = |more: &[&str]| {
            let port = files.map(|files| (free_port(), files));
            let secure = port.map(|(port, files)| files.options_among_servers(port)).unwrap_or_default();
            let options: Vec<_> = secure.iter().map(String::as_str).chain(more.iter().copied()).collect();
            let server = Redis::start(&options);
            (port.map_or(server.port(), |(port, _)| port), server)
        };
        let (port, master) = server(&[]);
        let (_, replica) = server(&["--replicaof", "127.0.0.1", &port.to_string()]);
        until("the replica follows its master", || {
            replica.cli(&["INFO", "replication"]).contains("master_link_status:up")
        });
        let sentinels: Vec<_> = (0..3).map(|_| Sentinel::start(port, down_after, files)).collect();
        let watched = Self { servers: [master, replica], sentinels };
        until("the Sentinels know each other and the replica", || {
            watched.sentinels.iter().all(|sentinel| {
                let known = cli(sentinel.port, &["SENTINEL", "MASTER", Self::MASTER]);
                let after = |word: &str| known.lines().skip_while(|line| *line != word).nth(1);
                after("num-other-sentinels") == Some("2") && after("num-slaves") == Some("1")
            })
        });
        watched
    }

    /// The ports of the Sentinels, those for TLS if they speak it.
    #[must_use]
    pub fn sentinels(&self) -> Vec<u16> {
        self.sentinels.iter().map(|sentinel| sentinel.announced).collect()
    }

    /// The port of the master, as most Sentinels see it.
    #[must_use]
    pub fn master(&self) -> u16 {
        let asked = self.sentinels.iter().map(|sentinel| {
            let answer = cli(sentinel.port, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Self::MASTER]);
            answer.lines().nth(1).unwrap().parse::<u16>().unwrap()
        });
        let mut ports: Vec<_> = asked.collect();
        ports.sort_unstable();
        ports[ports.len() / 2]
    }
}

impl Sentinel {
    fn start(master: u16, down_after: Duration, files: Option<&TlsFiles>) -> Self {
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        let announced = files.map_or(port, |_| free_port());
        let secure = files.map(|files| files.options_among_servers(announced)).unwrap_or_default();
        let (name, down_after) = (Watched::MASTER, down_after.as_millis());
        let text = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor {name} 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds {name} {down_after}\nsentinel failover-timeout {name} 5000\n"
        );
        let file = folder.path().join("sentinel.conf");
        std::fs::write(&file, text).unwrap();
        let file = file.display().to_string();
        let process =
            Process::start([file.as_str(), "--sentinel"].into_iter().chain(secure.iter().map(String::as_str)));
        until("a Sentinel answers", || cli(port, &["PING"]) == "PONG");
        Self { port, announced, _process: process, _folder: folder }
    }
}
