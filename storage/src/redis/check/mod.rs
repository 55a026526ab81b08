//! Looks at the servers of a configuration before anybody depends on them: one finding for each thing that has to hold.
//! Whatever is asked is asked of every server at once, and every wait is bounded. Nothing is written.

mod permissions;
mod server;

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::topology::{self, Map, View};
use super::{Command, Dial, Link};
use crate::check::{Finding, Level, Report};
use crate::config::{RedisConfig, Server, Topology};
use crate::redis::link::Mode;

/// Everything that can be found out.
pub(crate) async fn check(config: &RedisConfig, deposits: bool) -> Report {
    let mut report = Report::default();
    let tls = match config.tls.as_ref().map(|tls| tls.client_config().map(Arc::new)).transpose() {
        Ok(tls) => tls,
        Err(why) => {
            report.add(Finding::fail("TLS", None, why, "name PEM files that belong together"));
            return report;
        }
    };
    let expects = match &config.topology {
        Topology::Cluster(_) => Mode::Member,
        Topology::Single(_) | Topology::Sentinel { .. } => Mode::Alone,
    };
    let dial = Dial {
        expects,
        credentials: config.credentials.clone(),
        database: config.database,
        insecure: config.insecure,
        tls,
        within: config.connect,
    };
    report.add(encryption(config));
    let checked = Checked { config, deposits, dial };
    match &config.topology {
        Topology::Single(server) => checked.servers(&mut report, [server.clone()].into()).await,
        Topology::Sentinel { sentinels, master, credentials } => {
            let ask =
                Dial { expects: Mode::Sentinel, database: 0, credentials: credentials.clone(), ..checked.dial.clone() };
            checked.sentinels(&mut report, &ask, sentinels, master).await;
        }
        Topology::Cluster(seeds) => checked.cluster(&mut report, seeds).await,
    }
    report
}

struct Checked<'c> {
    config: &'c RedisConfig,
    deposits: bool,
    dial: Dial,
}

impl Checked<'_> {
    /// When a question that is asked now has to be answered.
    fn until(&self) -> Instant {
        Instant::now() + self.config.operation
    }

    async fn link(&self, dial: &Dial, server: &Server) -> Result<Link, Finding> {
        let linked = dial.link(server).await;
        linked.map_err(|broken| {
            Finding::fail("connection", Some(server), broken.to_string(), remedy(&broken.to_string()))
        })
    }

    /// Looks at each of these servers.
    async fn servers(&self, report: &mut Report, servers: BTreeSet<Server>) {
        let looking = servers.iter().map(async |server| {
            let mut found = Report::default();
            match self.link(&self.dial, server).await {
                Ok(link) => {
                    found.add(Finding::ok("connection", Some(server), "it answers".to_owned()));
                    server::look(self.config, server, &link, &mut found).await;
                    permissions::look((self.config, self.deposits), server, &link, &mut found).await;
                    link.give_up();
                }
                Err(finding) => found.add(finding),
            }
            found
        });
        for found in join_all(looking).await {
            report.extend(found);
        }
    }

    /// Asks all Sentinels for the master, and looks at it and its replicas.
    async fn sentinels(&self, report: &mut Report, ask: &Dial, sentinels: &[Server], master: &str) {
        let asking = sentinels.iter().map(async |sentinel| {
            let link = self.link(ask, sentinel).await?;
            let reply = link.call(&topology::ask_sentinel(master), self.until()).await;
            link.give_up();
            let named = reply.ok().and_then(|reply| topology::named_by_sentinel(&reply));
            named.ok_or_else(|| {
                let what = format!("it knows no master of the name {master}");
                Finding::fail("connection", Some(sentinel), what, "write the name that `sentinel monitor` has")
            })
        });
        let mut named = BTreeSet::new();
        let mut votes = Vec::new();
        for (sentinel, vote) in sentinels.iter().zip(join_all(asking).await) {
            match vote {
                Ok(server) => {
                    report.add(Finding::ok("connection", Some(sentinel), format!("it names {server}")));
                    votes.push(server.clone());
                    named.insert(server);
                }
                Err(finding) => report.add(finding),
            }
        }
        let chosen =
            named.iter().find(|server| votes.iter().filter(|vote| vote == server).count() * 2 > sentinels.len());
        let Some(chosen) = chosen else {
            let what = "not more than half of the Sentinels name one master".to_owned();
            report.add(Finding::fail(
                "master",
                None,
                what,
                "no session can be read until they do: look at the Sentinels",
            ));
            return;
        };
        report.add(Finding::ok("master", Some(chosen), format!("it is {master}")));
        let mut servers: BTreeSet<_> = [chosen.clone()].into();
        if let Ok(link) = self.dial.link(chosen).await {
            servers.extend(server::replicas(&link, self.until()).await);
            link.give_up();
        }
        self.servers(report, servers).await;
    }

    /// Asks every server that is named for the cluster, and looks at all of its members.
    async fn cluster(&self, report: &mut Report, seeds: &[Server]) {
        let asking = seeds.iter().map(async |seed| {
            let link = self.dial.link(seed).await.ok()?;
            let reply = link.call(&Command::new("CLUSTER").arg("NODES"), self.until()).await.ok()?;
            link.give_up();
            Some(View::read(reply.text()?, seed))
        });
        let views: Vec<_> = join_all(asking).await.into_iter().flatten().collect();
        let map = Map::agreed(&views);
        match map.unowned() {
            _ if views.is_empty() => {}
            0 => {
                let what = format!("all 16384 are owned, by {} masters", map.shards.len());
                report.add(Finding::ok("slots", None, what));
            }
            unowned => {
                let what = format!("{unowned} of 16384 belong to nobody");
                report.add(Finding::fail(
                    "slots",
                    None,
                    what,
                    "run `redis-cli --cluster fix`, or bring their master back",
                ));
            }
        }
        let mut servers: BTreeSet<_> = seeds.iter().cloned().collect();
        servers.extend(views.iter().flat_map(View::servers).cloned());
        for shard in &map.shards {
            let replicas = u32::try_from(shard.replicas.as_ref().map_or(0, Vec::len)).unwrap_or(u32::MAX);
            let (least, what) = (self.config.copies.max(1), format!("the master has {replicas}"));
            report.add(if replicas >= least {
                Finding::ok("replicas", Some(&shard.master), what)
            } else {
                let remedy = format!("give it {least}: what it alone has is lost with it, and nobody takes over");
                Finding::new(Level::Fail, "replicas", Some(&shard.master), what, Some(remedy))
            });
        }
        self.servers(report, servers).await;
    }
}

fn encryption(config: &RedisConfig) -> Finding {
    let servers = match &config.topology {
        Topology::Single(server) => std::slice::from_ref(server),
        Topology::Sentinel { sentinels, .. } => sentinels,
        Topology::Cluster(seeds) => seeds,
    };
    if config.tls.is_some() {
        Finding::ok("TLS", None, "on".to_owned())
    } else if servers.iter().all(Server::is_loopback) {
        Finding::ok("TLS", None, "off, on this machine".to_owned())
    } else {
        let remedy = "write `rediss…://`, unless the network is trusted like one machine";
        Finding::warn("TLS", None, "off: whoever is on the way sees names and changes records".to_owned(), remedy)
    }
}

/// What helps against an error of connecting.
fn remedy(why: &str) -> &'static str {
    let has = |words: &[&str]| words.iter().any(|word| why.contains(word));
    if has(&["WRONGPASS", "NOAUTH", "invalid password", "no password"]) {
        "correct the user and the password of the connection string, or the ACL of the server"
    } else if has(&["write `redis"]) {
        "correct the scheme of the connection string"
    } else if has(&["TLS", "ertificate", "tls"]) {
        "name its authority in `databroker_storage_ca_file`, and write `rediss…://` for TLS alone"
    } else if has(&["NOPERM"]) {
        "give the user what docs/guides/store.md lists"
    } else {
        "see that it runs, listens on that address, and can be reached from here"
    }
}
