//! A cluster: three masters, and a replica of each.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use crate::{Bare, Redis, Relay, TlsFiles, free_port, until};

/// Six servers that are one store. Each is reached through a relay, which can be told to misbehave; the members reach each
/// other through relays as well, which only [`Cluster::part`] uses.
#[derive(Debug)]
pub struct Cluster {
    members: Vec<Member>,
}

/// A server of a cluster.
#[derive(Debug)]
pub struct Member {
    /// The server.
    pub server: Redis,
    /// What stands before it for clients, and for its replica.
    pub relay: Relay,
    /// What stands before it for the other members.
    bus: Relay,
    /// Where its own connections come from.
    address: Ipv4Addr,
    announced: u16,
}

const MEMBERS: u8 = 6;

impl Cluster {
    /// Starts one whose members call each other dead after `node_timeout`; `options` are for every member.
    #[must_use]
    pub fn start(node_timeout: Duration, options: &[&str]) -> Self {
        Self::form((1..=MEMBERS).map(|number| Member::start(number, node_timeout, options, true)).collect())
    }

    /// The same, but its clients and replicas reach the servers themselves: relays take time, which must not count where time
    /// is measured.
    #[must_use]
    pub fn start_plain(node_timeout: Duration, options: &[&str]) -> Self {
        Self::form((1..=MEMBERS).map(|number| Member::start(number, node_timeout, options, false)).collect())
    }

    /// The same, whose members speak TLS to each other and, on the ports that they announce, to clients, who have to show a
    /// certificate.
    #[must_use]
    pub fn start_tls(node_timeout: Duration, files: &TlsFiles) -> Self {
        let member = |number| {
            let port = free_port();
            let secure = ["--tls-cluster", "yes", "--cluster-announce-tls-port", &port.to_string()].map(str::to_owned);
            let options = [files.options_among_servers(port), secure.to_vec()].concat();
            let options: Vec<_> = options.iter().map(String::as_str).collect();
            Member { announced: port, ..Member::start(number, node_timeout, &options, false) }
        };
        Self::form((1..=MEMBERS).map(member).collect())
    }

    fn form(members: Vec<Member>) -> Self {
        let addresses = members.iter().map(|member| format!("127.0.0.1:{}", member.server.port()));
        let created = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(addresses)
            .args(["--cluster-replicas", "1", "--cluster-yes"])
            .output()
            .unwrap_or_else(|error| panic!("redis-cli (package redis-tools): {error}"));
        assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stdout));
        let cluster = Self { members };
        until_all(&cluster, "every member knows of every other", |member| {
            let nodes = member.server.cli(&["CLUSTER", "NODES"]);
            let info = member.server.cli(&["CLUSTER", "INFO"]);
            nodes.matches("slave").count() == usize::from(MEMBERS / 2) && info.contains("cluster_state:ok")
        });
        until_all(&cluster, "every replica follows its master", |member| {
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

    /// The servers that own `key`, or follow the one that does: the master, and its replica.
    #[must_use]
    pub fn shard(&self, key: &str) -> (usize, usize) {
        let master = self.owner(key);
        let port = self.members[master].announced();
        let follows = |member: &Member| member.server.cli(&["ROLE"]).lines().nth(2) == Some(&port.to_string());
        (master, self.members.iter().position(follows).unwrap())
    }

    /// Parts one member from all others, which then call it dead. Clients reach it as before; the others they reach only if
    /// `both_sides`.
    pub fn part(&self, member: usize, both_sides: bool) {
        self.hold(member, true);
        for other in self.others(member).filter(|_| !both_sides) {
            other.relay.hold(Ipv4Addr::LOCALHOST, true);
        }
    }

    /// Ends what [`part`](Self::part) began.
    pub fn rejoin(&self, member: usize) {
        self.hold(member, false);
        for other in self.others(member) {
            other.relay.hold(Ipv4Addr::LOCALHOST, false);
        }
    }

    fn others(&self, member: usize) -> impl Iterator<Item = &Member> {
        self.members.iter().enumerate().filter(move |(number, _)| *number != member).map(|(_, other)| other)
    }

    fn hold(&self, member: usize, held: bool) {
        let parted = &self.members[member];
        for other in self.others(member) {
            for (to, from) in [(other, parted), (parted, other)] {
                to.relay.hold(from.address, held);
                to.bus.hold(from.address, held);
            }
        }
    }
}

impl Member {
    fn start(number: u8, node_timeout: Duration, options: &[&str], relayed: bool) -> Self {
        let (port, bus_port) = (free_port(), free_port());
        let (relay, bus) = (Relay::start(port), Relay::start(bus_port));
        let address = Ipv4Addr::new(127, 0, 1, number);
        let announced = if relayed { relay.port() } else { port };
        let own = [
            ("--cluster-enabled", "yes".to_owned()),
            ("--cluster-port", bus_port.to_string()),
            ("--cluster-node-timeout", node_timeout.as_millis().to_string()),
            ("--cluster-announce-ip", "127.0.0.1".to_owned()),
            ("--cluster-announce-port", announced.to_string()),
            ("--cluster-announce-bus-port", bus.port().to_string()),
            ("--bind-source-addr", address.to_string()),
            // To a server that is protected only 127.0.0.1 is this machine.
            ("--protected-mode", "no".to_owned()),
            ("--appendonly", "yes".to_owned()),
        ];
        let own = own.iter().flat_map(|(key, value)| [*key, value.as_str()]);
        let all: Vec<&str> = own.chain(options.iter().copied()).collect();
        Self { server: Redis::start_at(port, &all), relay, bus, address, announced }
    }

    /// The port at which the cluster names it.
    #[must_use]
    pub const fn announced(&self) -> u16 {
        self.announced
    }

    /// A connection to the server itself, past its relay.
    ///
    /// # Errors
    /// Those of connecting.
    pub fn bare(&self) -> std::io::Result<Bare> {
        Bare::connect(self.server.port(), Duration::from_secs(1))
    }
}

fn until_all(cluster: &Cluster, what: &str, holds: impl Fn(&Member) -> bool) {
    until(what, || cluster.members.iter().all(&holds));
}

fn holds(range: &str, slot: u32) -> bool {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    matches!((first.parse::<u32>(), last.parse::<u32>()), (Ok(first), Ok(last)) if (first..=last).contains(&slot))
}
