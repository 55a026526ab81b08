//! What goes wrong with a cluster.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use postern_servers::{Bare, Cluster, Member, Redis, Relay, Traffic};
use reqwest::StatusCode;
use tokio::task::block_in_place;

use super::people::Who;
use super::verdict::{LEASE, Reach, UNCONFIRMED};
use super::{Route, Trial, promoted};
use crate::support::{DEADLINE, bounded, eventually};

/// How soon members call each other dead, as `docs/guides/store.md` has it.
const NODE_TIMEOUT: Duration = Duration::from_secs(2);
/// The same, where nobody is to be called dead.
const NEVER: Duration = Duration::from_mins(1);
/// The rest of what that page asks of a cluster.
const OPTIONS: [&str; 4] = ["--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0"];
/// What all changes are told in.
const CHANGELOG: &str = "{chg}log";
/// Not long enough to be called dead, nor for the lease to end that began with the last heartbeat.
const STALL: Duration = Duration::from_secs(2);
/// How much later a slow server hears and answers.
const LATE: Duration = Duration::from_millis(30);

impl Trial<Cluster> {
    /// On a cluster that is well. Alice's session is kept by another server than the changelog: each is to fail without the
    /// other.
    pub(super) async fn on_cluster() -> Result<Self> {
        let cluster = block_in_place(|| Cluster::start(NODE_TIMEOUT, &OPTIONS));
        let servers: Vec<_> =
            cluster.members().iter().map(|member| format!("127.0.0.1:{}", member.announced())).collect();
        let store = format!("redis+cluster://{}", servers.join(","));
        Self::begin(cluster, &store, |cluster, session| cluster.owner(session) != cluster.owner(CHANGELOG)).await
    }

    /// Its replica takes over.
    pub(super) async fn a_master_is_killed(&mut self) -> Result<()> {
        let (master, replica) = self.shard(CHANGELOG);
        let (began, late) = self.leavers().await?;
        self.server(master)?.kill();
        let leaving = tokio::spawn(late.leave());
        let away_until = promoted(self.member(replica)?.server.port()).await?;
        self.is_served_from_memory(Reach::All, began, Route::Strict).await?;
        self.recovers(("the changelog's master is killed", Reach::All), (began, Some(away_until)), leaving).await?;
        block_in_place(|| self.server(master).map(Redis::restart))?;
        self.is_whole().await
    }

    /// It holds its connections and answers nothing; the changelog is heard all the time, so only the first edge may notice.
    pub(super) async fn a_master_hangs(&mut self) -> Result<()> {
        let (master, replica) = self.shard(&self.alice);
        let (began, late) = self.leavers().await?;
        self.server(master)?.pause();
        let leaving = tokio::spawn(late.leave());
        let away_until = promoted(self.member(replica)?.server.port()).await?;
        let fault = ("the master with alice's session hangs", Reach::Edge(0));
        self.recovers(fault, (began, Some(away_until)), leaving).await?;
        self.server(master)?.resume();
        self.is_whole().await
    }

    /// Its packets are dropped, but other members reach it, so that nobody takes its place.
    pub(super) async fn a_master_cannot_be_reached(&mut self) -> Result<()> {
        let (master, _) = self.shard(CHANGELOG);
        let (began, late) = self.leavers().await?;
        self.relay(master)?.set(Traffic::Held);
        let leaving = tokio::spawn(late.leave());
        self.is_served_from_memory(Reach::All, began, Route::Strict).await?;
        let away_until = Instant::now();
        self.relay(master)?.set(Traffic::Passes);
        let fault = ("the changelog's master cannot be reached", Reach::All);
        self.recovers(fault, (began, Some(away_until)), leaving).await
    }

    /// Nobody takes its place.
    pub(super) async fn a_master_stalls(&mut self) -> Result<()> {
        self.call_dead_after(NEVER)?;
        let (master, _) = self.shard(CHANGELOG);
        let (began, late) = self.leavers().await?;
        self.server(master)?.pause();
        let leaving = tokio::spawn(late.leave());
        self.lasts(Instant::now(), STALL).await?;
        let away_until = Instant::now();
        self.server(master)?.resume();
        self.recovers(("the changelog's master stalls", Reach::All), (began, Some(away_until)), leaving).await?;
        self.call_dead_after(NODE_TIMEOUT)
    }

    /// For longer than the lease lasts; it is no reason to be refused anywhere.
    pub(super) async fn a_master_is_slow(&mut self) -> Result<()> {
        let (master, _) = self.shard(CHANGELOG);
        let (began, late) = self.leavers().await?;
        self.relay(master)?.set(Traffic::Late(LATE));
        let leaving = tokio::spawn(late.leave());
        self.lasts(began, LEASE + UNCONFIRMED).await?;
        self.recovers(("the changelog's master is slow", Reach::Nobody), (began, None), leaving).await?;
        self.relay(master)?.set(Traffic::Passes);
        Ok(())
    }

    /// Those of all clients to all servers; each heartbeat is good for longer than it takes to connect again.
    pub(super) async fn connections_are_killed(&mut self) -> Result<()> {
        let (began, late) = self.leavers().await?;
        let leaving = tokio::spawn(late.leave());
        self.everywhere(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])?;
        self.recovers(("all connections are killed", Reach::Nobody), (began, None), leaving).await
    }

    /// An operator has a replica take over.
    pub(super) async fn a_master_is_replaced(&mut self) -> Result<()> {
        let (_, replica) = self.shard(CHANGELOG);
        let (began, late) = self.leavers().await?;
        let leaving = tokio::spawn(late.leave());
        block_in_place(|| self.member(replica)?.bare()?.sure(&["CLUSTER", "FAILOVER"]).map_err(anyhow::Error::from))?;
        promoted(self.member(replica)?.server.port()).await?;
        self.recovers(("the changelog's master is replaced", Reach::Nobody), (began, None), leaving).await?;
        self.is_whole().await
    }

    /// Whatever the changelog's server has goes to another one and back, and then what alice's has.
    pub(super) async fn slots_are_moved(&mut self) -> Result<()> {
        let (began, late) = self.leavers().await?;
        let leaving = tokio::spawn(late.leave());
        for key in [CHANGELOG, &self.alice] {
            let (master, _) = self.shard(key);
            block_in_place(|| self.servers.reshard(master, usize::MAX));
        }
        self.recovers(("slots are moved", Reach::Nobody), (began, None), leaving).await
    }

    /// It and the others call each other dead; clients reach both sides.
    pub(super) async fn a_master_loses_the_others(&mut self) -> Result<()> {
        let (master, replica) = self.shard(CHANGELOG);
        let (began, late) = self.leavers().await?;
        self.servers.part(master, true);
        let leaving = tokio::spawn(late.leave());
        let away_until = promoted(self.member(replica)?.server.port()).await?;
        self.is_served_from_memory(Reach::All, began, Route::Strict).await?;
        let fault = ("the changelog's master loses the others", Reach::All);
        self.recovers(fault, (began, Some(away_until)), leaving).await?;
        self.servers.rejoin(master);
        self.is_whole().await
    }

    /// Packets are dropped, for longer than the short window lasts.
    pub(super) async fn nothing_can_be_reached(&mut self) -> Result<()> {
        let (began, late) = self.leavers().await?;
        self.all(Traffic::Held);
        let leaving = tokio::spawn(late.leave());
        self.is_served_from_memory(Reach::All, began, Route::Strict).await?;
        let (_, page) = self.signs_in(Who::Bob).await?;
        ensure!(page.status == StatusCode::SERVICE_UNAVAILABLE, "nobody can sign in now: {page:?}");
        self.is_served_from_memory(Reach::All, began, Route::Soon).await?;
        let away_until = Instant::now();
        self.all(Traffic::Passes);
        self.recovers(("no server can be reached", Reach::All), (began, Some(away_until)), leaving).await
    }

    /// Every connection is reset, and new ones are refused.
    pub(super) async fn everything_is_refused(&mut self) -> Result<()> {
        let (began, late) = self.leavers().await?;
        self.all(Traffic::Refused);
        let leaving = tokio::spawn(late.leave());
        self.is_served_from_memory(Reach::All, began, Route::Strict).await?;
        let away_until = Instant::now();
        self.all(Traffic::Passes);
        self.recovers(("all connections are refused", Reach::All), (began, Some(away_until)), leaving).await
    }

    /// What was said to be done is on disk.
    pub(super) async fn everything_is_started_again(&mut self) -> Result<()> {
        let (began, late) = self.leavers().await?;
        block_in_place(|| self.servers.members_mut().iter_mut().for_each(|member| member.server.kill()));
        let leaving = tokio::spawn(late.leave());
        self.is_served_from_memory(Reach::All, began, Route::Strict).await?;
        let away_until = Instant::now();
        block_in_place(|| self.servers.members_mut().iter_mut().for_each(|member| member.server.restart()));
        self.is_whole().await?;
        let fault = ("all servers are killed and started again", Reach::All);
        self.recovers(fault, (began, Some(away_until)), leaving).await
    }

    /// One edge cannot reach any server, while somebody signs out at the other one, which notices nothing.
    pub(super) async fn an_edge_is_cut_off(&mut self) -> Result<()> {
        let (began, late) = self.leavers().await?;
        let edge = self.deployment.edges.len() - 1;
        let process = self.deployment.edges.last().map(|edge| edge.postern.id());
        let hold = |process| self.servers.members().iter().for_each(|member| member.relay.hold_process(process));
        hold(process);
        let leaving = tokio::spawn(late.leave());
        self.is_served_from_memory(Reach::Edge(edge), began, Route::Strict).await?;
        self.is_served_from_memory(Reach::Edge(edge), began, Route::Soon).await?;
        let away_until = Instant::now();
        hold(None);
        self.recovers(("an edge reaches no server", Reach::Edge(edge)), (began, Some(away_until)), leaving).await
    }

    /// For longer than its lease lasts, while somebody signs out at the other one.
    pub(super) async fn an_edge_hangs(&mut self) -> Result<()> {
        let (began, late) = self.leavers().await?;
        let hung = self.deployment.edges.len() - 1;
        let edge = &self.deployment.edges.last().context("an edge")?.postern;
        edge.signal("STOP")?;
        let mut leaving = tokio::spawn(late.leave());
        let left = bounded(DEADLINE, "the end of a session at the other edge", &mut leaving).await???;
        self.lasts(left.accepted, LEASE + UNCONFIRMED).await?;
        edge.signal("CONT")?;
        self.recovers(("an edge hangs", Reach::Edge(hung)), (began, None), tokio::spawn(async move { Ok(left) })).await
    }

    /// Waits until the cluster is well, and every master has its replica.
    async fn is_whole(&self) -> Result<()> {
        let is_well = |member: &Member| {
            let mut bare = member.bare().ok()?;
            let state = bare.call(&["CLUSTER", "INFO"]).ok()?;
            let follows = bare.call(&["INFO", "replication"]).ok()?;
            let (is_up, is_followed) = ("master_link_status:up", "connected_slaves:1");
            let is_paired = follows.text().contains(is_up) || follows.text().contains(is_followed);
            (state.text().contains("cluster_state:ok") && is_paired).then_some(())
        };
        eventually("a cluster that is whole", async || {
            block_in_place(|| self.servers.members().iter().map(is_well).collect::<Option<()>>())
        })
        .await
    }

    fn call_dead_after(&self, limit: Duration) -> Result<()> {
        self.everywhere(&["CONFIG", "SET", "cluster-node-timeout", &limit.as_millis().to_string()])
    }

    /// Has every member run a command.
    fn everywhere(&self, command: &[&str]) -> Result<()> {
        block_in_place(|| {
            let mut members = self.servers.members().iter().map(Member::bare);
            members.try_for_each(|bare: std::io::Result<Bare>| bare?.sure(command).map(drop))
        })
        .with_context(|| format!("{command:?}"))
    }

    fn member(&self, member: usize) -> Result<&Member> {
        self.servers.members().get(member).context("a member")
    }

    fn relay(&self, member: usize) -> Result<&Relay> {
        Ok(&self.member(member)?.relay)
    }

    fn server(&mut self, member: usize) -> Result<&mut Redis> {
        Ok(&mut self.servers.members_mut().get_mut(member).context("a member")?.server)
    }

    /// The server that owns a key, and the one that follows it.
    fn shard(&self, key: &str) -> (usize, usize) {
        block_in_place(|| self.servers.shard(key))
    }

    fn all(&self, traffic: Traffic) {
        self.servers.members().iter().for_each(|member| member.relay.set(traffic));
    }
}
