//! One server: its version, how it stands to others, how much it may forget, its clock, and how fast it answers.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use postern_identity::Timestamp;
use tokio::time::Instant;

use super::super::{Command, Link, Reply};
use crate::check::{Finding, Level, Report};
use crate::config::{RedisConfig, Server, Topology};

/// The oldest that has what the scripts use (docs/guides/store.md).
const OLDEST: (u32, u32) = (6, 2);
const PINGS: usize = 20;
/// A session takes two answers or three.
const SLOW: Duration = Duration::from_millis(50);
/// A replica that is so far behind confirms nothing in time.
const BEHIND: i64 = 2;
/// Facts are read again for 10 s, and ended records kept for 60.
const APART: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// What a failover may take has to fit into a static window.
const PATIENT_MS: u64 = 5_000;

/// The replicas of a master.
pub(super) async fn replicas(link: &Link, until: Instant) -> Vec<Server> {
    let reply = link.call(&Command::new("ROLE"), until).await.ok();
    let replica = |reply: &Reply| {
        let reply = reply.list()?;
        Some(Server { host: reply.first()?.text()?.to_owned(), port: reply.get(1)?.number()? })
    };
    let listed = reply.as_ref().and_then(|reply| reply.list()?.get(2)?.list());
    listed.unwrap_or_default().iter().filter_map(replica).collect()
}

/// Looks at everything.
pub(super) async fn look(config: &RedisConfig, server: &Server, link: &Link, report: &mut Report) {
    let looked = Looked { config, server, link };
    match looked.info().await {
        Some(info) => looked.standing(&info, report),
        None => report.add(Finding::unknown("version", server, "INFO is not answered")),
    }
    looked.settings(report).await;
    report.add(looked.clock().await);
    report.add(looked.latency().await);
}

struct Looked<'c> {
    config: &'c RedisConfig,
    server: &'c Server,
    link: &'c Link,
}

type Info = HashMap<String, String>;

impl Looked<'_> {
    async fn ask(&self, command: Command) -> Option<Reply> {
        match self.link.call(&command, Instant::now() + self.config.operation).await {
            Ok(Reply::Error(_)) | Err(_) => None,
            Ok(reply) => Some(reply),
        }
    }

    async fn info(&self) -> Option<Info> {
        let reply = self.ask(Command::new("INFO")).await?;
        let lines = reply.text()?.lines().filter_map(|line| line.split_once(':'));
        Some(lines.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
    }

    fn ok(&self, about: &'static str, what: impl Into<String>) -> Finding {
        Finding::ok(about, Some(self.server), what.into())
    }

    fn warn(&self, about: &'static str, what: impl Into<String>, remedy: &str) -> Finding {
        Finding::warn(about, Some(self.server), what.into(), remedy)
    }

    fn fail(&self, about: &'static str, what: impl Into<String>, remedy: &str) -> Finding {
        Finding::fail(about, Some(self.server), what.into(), remedy)
    }

    /// What `INFO` tells.
    fn standing(&self, info: &Info, report: &mut Report) {
        let text = |name: &str| info.get(name).map(String::as_str).unwrap_or_default();
        report.add(self.version(text("redis_version"), info.get("valkey_version")));
        match text("role") {
            "slave" if matches!(self.config.topology, Topology::Single(_)) => {
                report.add(self.fail("role", "it is a replica, which takes no writes", "name its master"));
            }
            "slave" => report.add(self.follower(text("master_link_status"), text("master_last_io_seconds_ago"))),
            _ => self.master(info, report),
        }
        report.add(self.eviction(text("maxmemory_policy"), text("maxmemory")));
        report.add(match text("aof_enabled") {
            "1" => self.ok("persistence", "each write goes to a file"),
            "0" => self.warn("persistence", "what was written last is lost with the process", "set `appendonly yes`"),
            _ => Finding::unknown("persistence", self.server, "the server does not say"),
        });
    }

    fn version(&self, redis: &str, valkey: Option<&String>) -> Finding {
        if let Some(valkey) = valkey {
            return self.ok("version", format!("Valkey {valkey}"));
        }
        let mut numbers = redis.split('.').map_while(|number| number.parse().ok());
        let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if found >= OLDEST {
            self.ok("version", format!("Redis {redis}"))
        } else {
            self.fail("version", format!("Redis {redis}"), "run Redis 6.2 or later, or Valkey")
        }
    }

    fn follower(&self, link: &str, silent: &str) -> Finding {
        if link == "up" {
            self.ok("replication", format!("it follows its master, heard {silent} s ago"))
        } else {
            self.warn("replication", "it does not hear its master", "see whether the two reach each other")
        }
    }

    fn master(&self, info: &Info, report: &mut Report) {
        let replicas = info.iter().filter(|(name, _)| is_replica(name)).map(|(_, line)| line);
        let mut count = 0_u32;
        for line in replicas {
            count += 1;
            report.add(self.replica(line));
        }
        let is_cluster = matches!(self.config.topology, Topology::Cluster(_));
        if self.config.copies > 0 && !is_cluster {
            report.add(if count >= self.config.copies {
                self.ok("replicas", format!("the master has {count}"))
            } else {
                let remedy = "give it one: what it alone has is lost with it";
                let what =
                    format!("the master has {count}, and {} are to have what must not be lost", self.config.copies);
                match self.config.topology {
                    Topology::Single(_) => self.warn("replicas", what, remedy),
                    Topology::Sentinel { .. } | Topology::Cluster(_) => self.fail("replicas", what, remedy),
                }
            });
        }
        let fenced = info.contains_key("min_slaves_good_slaves");
        if fenced && count < 2 {
            let remedy =
                "set `min-replicas-to-write 0`, or give it a second replica: one that takes over has none of its own";
            report.add(self.warn("min-replicas-to-write", "set, and the master has fewer than two replicas", remedy));
        }
    }

    /// `ip=10.0.0.2,port=6379,state=online,offset=14,lag=0`
    fn replica(&self, line: &str) -> Finding {
        let field = |name: &str| {
            let mut pairs = line.split(',').filter_map(|pair| pair.split_once('='));
            pairs.find(|(own, _)| *own == name).map(|(_, value)| value).unwrap_or_default()
        };
        let (who, state, lag) = (format!("{}:{}", field("ip"), field("port")), field("state"), field("lag"));
        let lag: i64 = lag.parse().unwrap_or(i64::MAX);
        if state == "online" && lag <= BEHIND {
            self.ok("replication", format!("{who} follows, {lag} s behind"))
        } else {
            let what = format!("{who} is {state}, last heard {lag} s ago");
            self.warn("replication", what, "writes that must not be lost wait for it: see what holds it up")
        }
    }

    fn eviction(&self, policy: &str, most: &str) -> Finding {
        let remedy =
            "set `maxmemory-policy noeviction`: a store that evicts signs people out and forgets who was signed out";
        match policy {
            "" => Finding::unknown("maxmemory-policy", self.server, "the server does not say"),
            "noeviction" => self.ok("maxmemory-policy", policy),
            _ if most == "0" => self.warn("maxmemory-policy", format!("{policy}, without a bound so far"), remedy),
            _ => self.fail("maxmemory-policy", policy, remedy),
        }
    }

    /// What only `CONFIG GET` tells, which Postern's own user need not be allowed.
    async fn settings(&self, report: &mut Report) {
        if !matches!(self.config.topology, Topology::Cluster(_)) {
            return;
        }
        let (coverage, timeout) = ("cluster-require-full-coverage", "cluster-node-timeout");
        report.add(match self.setting(coverage).await.as_deref() {
            None => Finding::unknown(coverage, self.server, "the user may not read the server's settings"),
            Some("no") => self.ok(coverage, "no"),
            Some(other) => {
                let remedy = "set it to `no`: else every server refuses everything while one master is away";
                self.warn(coverage, other, remedy)
            }
        });
        report.add(match self.setting(timeout).await.and_then(|text| text.parse::<u64>().ok()) {
            None => Finding::unknown(timeout, self.server, "the user may not read the server's settings"),
            Some(millis @ ..=PATIENT_MS) => self.ok(timeout, format!("{millis} ms")),
            Some(millis) => {
                let remedy = "set it to 2000: until then nobody takes over from a master that died";
                self.warn(timeout, format!("{millis} ms"), remedy)
            }
        });
    }

    async fn setting(&self, name: &'static str) -> Option<String> {
        let reply = self.ask(Command::new("CONFIG").arg("GET").arg(name)).await?;
        Some(reply.list()?.get(1)?.text()?.to_owned())
    }

    async fn clock(&self) -> Finding {
        let (asked, before) = (Instant::now(), Timestamp::from(SystemTime::now()));
        let told = self.ask(Command::new("TIME")).await;
        let told = told.as_ref().and_then(|reply| match reply.list()? {
            [seconds, micros] => Some(seconds.number::<i64>()?.saturating_mul(1_000) + micros.number::<i64>()? / 1_000),
            _ => None,
        });
        let Some(told) = told else {
            return Finding::unknown("clock", self.server, "the user may not ask for the time");
        };
        // It was read about half-way.
        let ours = before.plus(asked.elapsed() / 2).as_millis();
        let apart = Duration::from_millis(ours.abs_diff(told));
        let what = format!("{} ms from ours", apart.as_millis());
        let remedy = "let both be set by NTP";
        match apart {
            apart if apart > APART.1 => self.fail("clock", what, remedy),
            apart if apart > APART.0 => self.warn("clock", what, remedy),
            _ => self.ok("clock", what),
        }
    }

    async fn latency(&self) -> Finding {
        let mut times = Vec::with_capacity(PINGS);
        for _ in 0..PINGS {
            let asked = Instant::now();
            if self.ask(Command::new("PING")).await.is_none() {
                let what = format!("no answer within {} ms", self.config.operation.as_millis());
                return self.fail("latency", what, "see what holds the server or the network up");
            }
            times.push(asked.elapsed());
        }
        times.sort_unstable();
        let at = |place: usize| times.get(place).copied().unwrap_or_default();
        let (median, most) = (at(PINGS / 2), at(PINGS - 1));
        let millis = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
        let what = format!("median {} ms, at most {} ms, of {PINGS}", millis(median), millis(most));
        if median > SLOW {
            self.warn("latency", what, "put it nearer: each sign-in takes about ten answers")
        } else {
            Finding::new(Level::Ok, "latency", Some(self.server), what, None)
        }
    }
}

/// `slave0`, and not `slave_read_only`.
fn is_replica(name: &str) -> bool {
    name.strip_prefix("slave").is_some_and(|number| !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit()))
}
