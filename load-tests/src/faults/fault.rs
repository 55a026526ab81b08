//! The faults themselves.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::ValueEnum;
use postern_servers::{Answer, Bare, Cluster, Member, Traffic, Watched};

use super::until;
use crate::installation::OPTIONS;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fault {
    /// `kill -9` of the master that has the changelog
    Kill,
    /// The same one hangs: it holds its connections and answers nothing
    Hang,
    /// Clients and its replica cannot reach it for 10 s
    Unreachable,
    /// No server can be reached for 10 s
    AllUnreachable,
    /// Every connection is reset, and new ones refused, for 10 s
    Reset,
    /// A master stalls for 2 s, which is not long enough to replace it
    Stall,
    /// A server takes 60 ms longer to answer
    Slow,
    /// A server does nothing for 300 ms, five times
    Stutter,
    /// Every connection is killed, five times
    ConnectionsKilled,
    /// An operator has a replica take over
    ManualFailover,
    /// Slots go to another master, and back
    Reshard,
    /// All servers are killed, and started after 3 s
    Restart,
    /// `kill -9` of a master that Sentinels watch
    SentinelKill,
    /// A master that Sentinels watch hangs
    SentinelHang,
    /// An operator has Sentinels replace a master that is well
    SentinelFailover,
    /// A master loses all other servers, clients reach both sides
    Parted,
    /// A master loses all other servers, and all clients are on its side and go on writing to it
    SplitBrain,
}

/// What the fault is done to.
#[derive(Debug)]
pub(super) enum Servers {
    Cluster(Cluster),
    Watched(Box<Watched>),
}

/// Who plays which part in a row.
#[derive(Debug)]
pub(super) struct Stage {
    quick: bool,
    /// Whose sessions may notice; all, if it is none.
    victim: Option<usize>,
    /// The master that has the changelog, and its replica.
    master: usize,
    replica: usize,
    /// Only sessions of this server are ended.
    pub(super) revokes_of: Option<usize>,
}

/// When it happened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Happened {
    pub(super) began: Instant,
    /// When the fault was over, or a replica had been promoted.
    pub(super) over: Instant,
    /// When replicas followed again whose connections had ended too: servers try once a second, and before that nothing can be
    /// confirmed.
    pub(super) followed: Instant,
    pub(super) what: &'static str,
}

impl Fault {
    pub(super) fn all() -> Vec<Self> {
        Self::value_variants().to_vec()
    }

    pub(super) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Servers for it alone. A stall must not last until they call each other dead.
    pub(super) fn servers(self) -> Servers {
        let node_timeout =
            if matches!(self, Self::Stall | Self::Stutter) { Duration::from_secs(5) } else { Duration::from_secs(2) };
        if matches!(self, Self::SentinelKill | Self::SentinelHang | Self::SentinelFailover) {
            Servers::Watched(Box::new(Watched::start(Duration::from_secs(2))))
        } else {
            Servers::Cluster(Cluster::start(node_timeout, &OPTIONS))
        }
    }

    /// Whether only one server is concerned.
    const fn is_of_one(self) -> bool {
        match self {
            Self::Kill | Self::Hang | Self::Unreachable | Self::Stall | Self::Slow | Self::Stutter | Self::Parted => {
                true
            }
            // Of these nobody is to notice anything but a pause.
            Self::ManualFailover | Self::Reshard => true,
            Self::AllUnreachable | Self::Reset | Self::ConnectionsKilled | Self::Restart => false,
            Self::SentinelKill | Self::SentinelHang | Self::SentinelFailover | Self::SplitBrain => false,
        }
    }

    /// Does it, and waits until it is over.
    pub(super) fn happen(self, stage: &Stage, servers: &mut Servers) -> Result<Happened> {
        let long = Duration::from_secs(if stage.quick { 4 } else { 10 });
        let began = Instant::now();
        let over = |what, over| Ok(Happened { began, over, followed: over, what });
        let cluster = match servers {
            Servers::Cluster(cluster) => cluster,
            Servers::Watched(watched) => {
                if self == Self::SentinelKill {
                    watched.servers[0].kill();
                } else if self == Self::SentinelFailover {
                    let mut sentinel = Bare::connect(watched.sentinels()[0], Duration::from_secs(1))?;
                    sentinel.sure(&["SENTINEL", "FAILOVER", Watched::MASTER])?;
                } else {
                    watched.servers[0].pause();
                }
                return over("switch", switched(watched)?);
            }
        };
        let all = |cluster: &Cluster, traffic| cluster.members().iter().for_each(|member| member.relay.set(traffic));
        let replica = cluster.members()[stage.replica].server.port();
        match self {
            Self::Kill => {
                cluster.members_mut()[stage.master].server.kill();
                over("promotion", promoted(replica)?)
            }
            Self::Hang | Self::SentinelKill | Self::SentinelHang | Self::SentinelFailover => {
                cluster.members()[stage.master].server.pause();
                over("promotion", promoted(replica)?)
            }
            Self::Unreachable => {
                let relay = &cluster.members()[stage.master].relay;
                relay.set(Traffic::Held);
                sleep(long);
                relay.set(Traffic::Passes);
                over("heal", Instant::now())
            }
            Self::AllUnreachable | Self::Reset => {
                all(cluster, if self == Self::Reset { Traffic::Refused } else { Traffic::Held });
                sleep(long);
                all(cluster, Traffic::Passes);
                let over = Instant::now();
                Ok(Happened { began, over, followed: follow(cluster)?, what: "heal" })
            }
            Self::Stall => {
                let server = &cluster.members()[stage.master].server;
                server.pause();
                sleep(Duration::from_secs(2));
                server.resume();
                over("heal", Instant::now())
            }
            Self::Slow => {
                let relay = &cluster.members()[stage.master].relay;
                relay.set(Traffic::Late(Duration::from_millis(30)));
                sleep(long / 2);
                relay.set(Traffic::Passes);
                over("heal", Instant::now())
            }
            Self::Stutter => {
                let server = &cluster.members()[stage.master].server;
                for _ in 0..5 {
                    server.pause();
                    sleep(Duration::from_millis(300));
                    server.resume();
                    sleep(Duration::from_millis(700));
                }
                over("heal", Instant::now())
            }
            Self::ConnectionsKilled => {
                let mut bare = cluster.members().iter().map(Member::bare).collect::<Result<Vec<_>, _>>()?;
                for _ in 0..5 {
                    for server in &mut bare {
                        server.call(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])?;
                    }
                    sleep(Duration::from_millis(500));
                }
                over("last kill", Instant::now())
            }
            Self::ManualFailover => {
                cluster.members()[stage.replica].bare()?.call(&["CLUSTER", "FAILOVER"])?;
                over("promotion", promoted(replica)?)
            }
            Self::Reshard => {
                cluster.reshard(stage.master, if stage.quick { 100 } else { 500 });
                over("slots moved", Instant::now())
            }
            Self::Restart => {
                cluster.members_mut().iter_mut().for_each(|member| member.server.kill());
                sleep(Duration::from_secs(3));
                cluster.members_mut().iter_mut().for_each(|member| member.server.restart());
                let mut bare = cluster.members().iter().map(Member::bare).collect::<Result<Vec<_>, _>>()?;
                let well = |server: &mut Bare| {
                    let info = server.call(&["CLUSTER", "INFO"]);
                    info.is_ok_and(|info| info.text().contains("cluster_state:ok"))
                };
                over("agreed again", until("the cluster is well", || bare.iter_mut().all(well))?)
            }
            Self::Parted => {
                cluster.part(stage.master, true);
                let promoted = promoted(replica)?;
                over("promotion", promoted)
            }
            Self::SplitBrain => over("heal", split(cluster, stage)?),
        }
    }

    /// What comes later: a master that was replaced is back.
    pub(super) fn aftermath(self, stage: &Stage, servers: &Servers) {
        match (self, servers) {
            (Self::Hang, Servers::Cluster(cluster)) => cluster.members()[stage.master].server.resume(),
            (Self::SentinelHang, Servers::Watched(watched)) => watched.servers[0].resume(),
            (Self::Parted, Servers::Cluster(cluster)) => cluster.rejoin(stage.master),
            _ => return,
        }
        sleep(Duration::from_secs(2));
    }
}

impl Stage {
    pub(super) fn of(fault: Fault, servers: &Servers, quick: bool) -> Self {
        let (master, replica) = match servers {
            Servers::Cluster(cluster) => cluster.shard(CHANGELOG),
            Servers::Watched(_) => (0, 1),
        };
        let victim = fault.is_of_one().then_some(master);
        // Those that a master which is alone could say yes to, the changelog being its own.
        let revokes_of = matches!(fault, Fault::SplitBrain | Fault::Parted).then_some(master);
        Self { quick, victim, master, replica, revokes_of }
    }

    /// Whether sessions of this server may notice.
    pub(super) fn hits(&self, server: usize) -> bool {
        self.victim.is_none_or(|victim| victim == server)
    }
}

/// Waits until every replica follows its master.
fn follow(cluster: &Cluster) -> Result<Instant> {
    let mut bare = cluster.members().iter().map(Member::bare).collect::<Result<Vec<_>, _>>()?;
    until("every replica follows its master", || {
        bare.iter_mut().all(|server| {
            let info = server.call(&["INFO", "replication"]);
            info.is_ok_and(|info| !info.text().contains("master_link_status:down"))
        })
    })
}

/// Waits until a replica says that it is a master. Sentinels end its connections when they make it one.
fn promoted(port: u16) -> Result<Instant> {
    let mut bare = None;
    until("a replica is promoted", || {
        let connection = bare.take().map_or_else(|| Bare::connect(port, Duration::from_secs(1)), Ok);
        let Ok(mut connection) = connection else { return false };
        let Ok(role) = connection.call(&["ROLE"]) else { return false };
        bare = Some(connection);
        is(&role, "master")
    })
}

/// Waits until most Sentinels name the former replica.
fn switched(watched: &Watched) -> Result<Instant> {
    let mut sentinels = Vec::new();
    for port in watched.sentinels() {
        sentinels.push(Bare::connect(port, Duration::from_secs(1))?);
    }
    let port = watched.servers[1].port().to_string();
    until("the Sentinels name another master", || {
        let names = sentinels.iter_mut().filter_map(|sentinel| {
            let named = sentinel.call(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Watched::MASTER]).ok()?;
            Some(named.list().last()?.text() == port)
        });
        names.filter(|named| *named).count() >= 2
    })
}

fn is(role: &Answer, name: &str) -> bool {
    role.list().first().is_some_and(|role| role.text() == name)
}

/// The master of the changelog, all clients and one that writes without asking for a replica on one side, all other servers
/// on the other. Gives when both sides were one again.
fn split(cluster: &Cluster, stage: &Stage) -> Result<Instant> {
    let former = &cluster.members()[stage.master];
    let (mut writer, mut written) = (former.bare()?, Vec::new());
    let mut write = || -> Result<()> {
        let key = format!("{CHANGELOG}:{}", written.len());
        if writer.call(&["SET", &key, "1"])?.text() == "OK" {
            written.push(key);
        }
        Ok(())
    };
    cluster.part(stage.master, false);
    let mut replica = cluster.members()[stage.replica].bare()?;
    let began = Instant::now();
    let mut promoted = None;
    // For a second longer than the other side needs to promote a replica.
    while promoted.is_none_or(|promoted: Instant| promoted.elapsed() < Duration::from_secs(1)) {
        ensure!(began.elapsed() < Duration::from_secs(30), "no replica was promoted");
        // The former master stops by itself after a while.
        let _refused = write();
        let role = replica.call(&["ROLE"])?;
        if promoted.is_none() && is(&role, "master") {
            promoted = Some(Instant::now());
        }
        sleep(Duration::from_millis(2));
    }
    cluster.rejoin(stage.master);
    let healed = Instant::now();
    let mut former = former.bare()?;
    until("the former master follows its successor", || former.call(&["ROLE"]).is_ok_and(|role| is(&role, "slave")))?;
    let mut kept = 0;
    for key in &written {
        kept += usize::from(replica.call(&["EXISTS", key])? == Answer::Number(1));
    }
    ensure!(kept < written.len(), "it was no split brain: nothing was lost of what no replica confirmed");
    eprintln!(
        "  split brain: of {} writes that no replica confirmed {} were lost",
        written.len(),
        written.len() - kept
    );
    Ok(healed)
}

/// The key of the changelog without a prefix (`storage/src/changelog`).
const CHANGELOG: &str = "{chg}log";
