//! A master and its replica, watched by three Sentinels.

use std::time::Duration;

use tempfile::TempDir;

use crate::process::Process;
use crate::server::cli;
use crate::{Redis, free_port, until};

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
    _process: Process,
    _folder: TempDir,
}

impl Watched {
    /// What the Sentinels call the master.
    pub const MASTER: &str = "sessions";

    /// Starts them; the Sentinels call a master dead that is silent for `down_after`.
    #[must_use]
    pub fn start(down_after: Duration) -> Self {
        let master = Redis::start(&[]);
        let port = master.port().to_string();
        let replica = Redis::start(&["--replicaof", "127.0.0.1", &port]);
        until("the replica follows its master", || {
            replica.cli(&["INFO", "replication"]).contains("master_link_status:up")
        });
        let sentinels: Vec<_> = (0..3).map(|_| Sentinel::start(master.port(), down_after)).collect();
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

    /// The ports of the Sentinels.
    #[must_use]
    pub fn sentinels(&self) -> Vec<u16> {
        self.sentinels.iter().map(|sentinel| sentinel.port).collect()
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
    fn start(master: u16, down_after: Duration) -> Self {
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        let (name, down_after) = (Watched::MASTER, down_after.as_millis());
        let text = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor {name} 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds {name} {down_after}\nsentinel failover-timeout {name} 5000\n"
        );
        let file = folder.path().join("sentinel.conf");
        std::fs::write(&file, text).unwrap();
        let process = Process::start([file.display().to_string().as_str(), "--sentinel"]);
        until("a Sentinel answers", || cli(port, &["PING"]) == "PONG");
        Self { port, _process: process, _folder: folder }
    }
}
