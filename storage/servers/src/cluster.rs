//! A cluster: three masters, and a replica of each.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::{Redis, Relay, free_port};

/// Six servers that are one store. Each is reached through a relay, which can be told to misbehave: the members
/// themselves talk to each other directly.
#[derive(Debug)]
pub struct Cluster {
    members: Vec<Member>,
}

/// A server of a cluster.
#[derive(Debug)]
pub struct Member {
    /// The server.
    pub server: Redis,
    /// What stands before it for everybody but the other members.
    pub relay: Relay,
}

const MEMBERS: usize = 6;

impl Cluster {
    /// Starts one whose members call each other dead after `node_timeout`; `options` are for every member.
    #[must_use]
    pub fn start(node_timeout: Duration, options: &[&str]) -> Self {
        let members: Vec<_> = (0..MEMBERS).map(|_| Member::start(node_timeout, options)).collect();
        let addresses = members.iter().map(|member| format!("127.0.0.1:{}", member.server.port()));
        let created = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(addresses)
            .args(["--cluster-replicas", "1", "--cluster-yes"])
            .output()
            .unwrap_or_else(|error| panic!("redis-cli (package redis-tools): {error}"));
        assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stdout));
        let cluster = Self { members };
        cluster.until("every member knows of every other", |member| {
            let nodes = member.server.cli(&["CLUSTER", "NODES"]);
            let info = member.server.cli(&["CLUSTER", "INFO"]);
            nodes.matches("slave").count() == MEMBERS / 2 && info.contains("cluster_state:ok")
        });
        cluster.until("every replica follows its master", |member| {
            let info = member.server.cli(&["INFO", "replication"]);
            info.contains("master_link_status:up") || info.contains("connected_slaves:1")
        });
        cluster
    }

    /// The members, in no order that matters.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The same, to be killed and started again.
    pub fn members_mut(&mut self) -> &mut [Member] {
        &mut self.members
    }

    /// Which member is the master that owns the slot of `key`, in the eyes of a member that answers.
    #[must_use]
    pub fn owner(&self, key: &str) -> usize {
        let alive = self.members.iter().find(|member| member.server.cli(&["PING"]) == "PONG").unwrap();
        let slot: u32 = alive.server.cli(&["CLUSTER", "KEYSLOT", key]).parse().unwrap();
        let nodes = alive.server.cli(&["CLUSTER", "NODES"]);
        let owns = |line: &&str| {
            let healthy = line.contains("master") && !line.contains("fail");
            healthy && line.split(' ').skip(8).any(|word| holds(word, slot))
        };
        let line = nodes.lines().find(owns).unwrap_or_else(|| panic!("nobody owns slot {slot}: {nodes}"));
        let id = line.split(' ').next().unwrap();
        self.members.iter().position(|member| member.server.cli(&["CLUSTER", "MYID"]) == id).unwrap()
    }

    fn until(&self, what: &str, holds: impl Fn(&Member) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.members.iter().all(&holds) {
            assert!(Instant::now() < deadline, "not within 30 s: {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Member {
    fn start(node_timeout: Duration, options: &[&str]) -> Self {
        let (port, bus) = (free_port(), free_port());
        let relay = Relay::start(port);
        let (bus, announced) = (bus.to_string(), relay.port().to_string());
        let timeout = node_timeout.as_millis().to_string();
        let own = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", &timeout];
        let more = ["--cluster-announce-port", &announced, "--cluster-announce-ip", "127.0.0.1", "--appendonly", "yes"];
        let all: Vec<&str> = own.into_iter().chain(more).chain(options.iter().copied()).collect();
        Self { server: Redis::start_at(port, &all), relay }
    }
}

fn holds(range: &str, slot: u32) -> bool {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    matches!((first.parse::<u32>(), last.parse::<u32>()), (Ok(first), Ok(last)) if (first..=last).contains(&slot))
}
