//! What faults of the session store do to people, through running edges: whoever is signed in is served for the static window of
//! the route, nobody else ever is, nobody is sent to sign in or loses a cookie because of the store, and whoever signed out
//! stays out (S-084, R-006 to R-009; `docs/reference/sessions.md`).
//!
//! Two edges and an authn share a cluster. People ask both edges again and again while its servers are killed, hang and cannot
//! be reached, and one edge hangs; each answer is held against what was promised for its time.

mod people;
mod verdict;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use postern_servers::{Cluster, Member, Redis, Traffic};
use reqwest::StatusCode;
use serde_json::Value;
use tokio::task::{JoinHandle, block_in_place};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::{Browser, DEADLINE, Deployment, Keys, Response, Upstream, World, bounded, eventually, within};
use people::{Asker, Leaver, Log, Record, Told, Who};
use verdict::{Fault, LEASE, Leaving, Story, UNCONFIRMED};

/// A route, named by its host, and how long it serves what an edge knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    /// As long as by default.
    App,
    /// For a short while.
    Soon,
    /// Not at all.
    Strict,
    /// As long as by default, but only administrators.
    Ops,
}

impl Route {
    const ALL: [Self; 4] = [Self::App, Self::Soon, Self::Strict, Self::Ops];

    const fn name(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Soon => "soon",
            Self::Strict => "strict",
            Self::Ops => "ops",
        }
    }

    const fn window(self) -> Duration {
        match self {
            Self::App | Self::Ops => Duration::from_secs(30),
            Self::Soon => Duration::from_secs(3),
            Self::Strict => Duration::ZERO,
        }
    }

    /// Its lines in a configuration.
    fn lines(self, world: &World, upstream: &Upstream) -> String {
        let (window, identity) =
            (format!("session_static_window: {}s", self.window().as_secs()), "pass_identity_headers: true");
        let lines: &[&str] = match self {
            Self::App => &["allow_any_authenticated_user: true", identity],
            Self::Soon | Self::Strict => &["allow_any_authenticated_user: true", identity, &window],
            Self::Ops => &["policy: [{ allow: { and: [{ claim/groups: admins }] } }]"],
        };
        world.route(self.name(), &upstream.url(), lines)
    }
}

/// The first edge reads copies of sessions again all the time, so that it notices when their own server is away, and its copies
/// outgrow their age while the lease still lasts. The second one hears of changes through the changelog alone.
const LINES: [&str; 2] = ["session_max_age: 2s\n", "session_max_age: 10m\n"];
/// How soon members call each other dead, as `docs/guides/store.md` has it.
const NODE_TIMEOUT: Duration = Duration::from_secs(2);
/// The rest of what that page asks of a cluster.
const OPTIONS: [&str; 4] = ["--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0"];
/// What all changes are told in.
const CHANGELOG: &str = "{chg}log";
/// Within which everything is as before once a replica has taken over, or the servers are there again.
const RECOVERY: Duration = Duration::from_secs(10);

/// The deployment, its store, and everybody who asks.
struct Trial {
    deployment: Deployment,
    cluster: Cluster,
    /// The key of alice's session.
    alice: String,
    keys: Keys,
    log: Log,
    asking: Vec<(Who, Route, usize)>,
    stop: CancellationToken,
    tasks: TaskTracker,
    story: Story,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_084_r_006_to_r_009_faults_of_the_store_are_not_felt_for_a_while_and_let_nobody_in() -> Result<()> {
    let mut trial = Trial::begin().await?;
    trial.a_master_is_killed().await?;
    trial.a_master_hangs().await?;
    trial.nothing_can_be_reached().await?;
    trial.everything_is_started_again().await?;
    trial.an_edge_hangs().await?;
    trial.end().await
}

/// Everybody.
impl Trial {
    const ALICES: [Route; 3] = [Route::App, Route::Soon, Route::Strict];
    const CAROLS: [Route; 2] = [Route::App, Route::Strict];

    /// Alice, Bob and somebody without a session ask both edges from now on.
    async fn begin() -> Result<Self> {
        let cluster = block_in_place(|| Cluster::start(NODE_TIMEOUT, &OPTIONS));
        let servers: Vec<_> =
            cluster.members().iter().map(|member| format!("127.0.0.1:{}", member.announced())).collect();
        let routes = |world: &World, upstream: &Upstream| Route::ALL.map(|route| route.lines(world, upstream)).concat();
        let store = format!("redis+cluster://{}", servers.join(","));
        let deployment = Deployment::start(&store, 1, LINES, routes).await?;
        let mut nobody = Browser::over_http1(&deployment.world.ca_pem())?;
        let keys = Keys::at(&mut nobody, &deployment.world.url(Route::App.name(), "")).await?;
        // Who signs in or out does so at the first edge; the other one has to hear of it.
        deployment.balancer.lead_to(deployment.edges.first().map(|edge| edge.port));
        let (log, asking, stop, tasks) = (Log::default(), Vec::new(), CancellationToken::new(), TaskTracker::new());
        let mut trial =
            Self { deployment, cluster, alice: String::new(), keys, log, asking, stop, tasks, story: Story::default() };
        let bob = trial.signed_in(Who::Bob, &[Route::Ops]).await?;
        let (alice, session) = trial.alice().await?;
        trial.alice = session;
        trial.ask(Who::Alice, &Self::ALICES, &alice)?;
        trial.ask(Who::Bob, &[Route::Ops], &bob)?;
        trial.ask(Who::Nobody, &[Route::App, Route::Strict], &nobody)?;
        Ok(trial)
    }

    /// Alice, whose session is kept by another server than the changelog: each is to fail without the other.
    async fn alice(&self) -> Result<(Browser, String)> {
        for attempt in 0..30 {
            let mut browser = self.signed_in(Who::Alice, &Self::ALICES).await?;
            let path = format!("/whose/{attempt}");
            browser.peek(self.deployment.world.url(Route::App.name(), &path)).await?;
            let session = eventually("alice's session in the log", async || {
                let mut lines = self.deployment.edges.iter().flat_map(|edge| edge.postern.log());
                lines.find_map(|line| {
                    let session = line.get("session-id").filter(|_| line.get("path").is_some_and(|own| *own == path));
                    session.and_then(Value::as_str).map(str::to_owned)
                })
            });
            let session = format!("s:{{{}}}", session.await?);
            if self.shard(&session) != self.shard(CHANGELOG) {
                return Ok((browser, session));
            }
        }
        bail!("every session is kept where the changelog is")
    }

    /// A browser in which somebody is signed in at these routes.
    async fn signed_in(&self, who: Who, routes: &[Route]) -> Result<Browser> {
        // Where the machine is busy, the first connections to the servers may take longer than a sign-in may.
        let (mut browser, _) = eventually("a sign-in", async || {
            self.signs_in(who).await.ok().filter(|(_, page)| page.status == StatusCode::OK)
        })
        .await
        .with_context(|| self.deployment.told())?;
        for route in routes {
            browser.visit(self.deployment.world.url(route.name(), "/")).await?;
        }
        Ok(browser)
    }

    /// A browser in which somebody signs in, and what comes of it.
    async fn signs_in(&self, who: Who) -> Result<(Browser, Response)> {
        let mut browser = Browser::without_pool(&self.deployment.world.ca_pem())?;
        let page = browser.visit(self.deployment.world.url(Route::App.name(), "/")).await?;
        let page = browser.submit(&page, "Sign in", &[("user", who.user())]).await?;
        Ok((browser, page))
    }

    /// Somebody asks both edges for these routes, with the cookies of that browser.
    fn ask(&mut self, who: Who, routes: &[Route], browser: &Browser) -> Result<()> {
        for (edge, process) in self.deployment.edges.iter().enumerate() {
            for route in routes {
                let at = (edge, process.port);
                let asker = Asker::new(&self.deployment.world, (who, *route), at, (browser, &self.keys))?;
                self.tasks.spawn(asker.ask(self.log.clone(), self.stop.clone()));
                self.asking.push((who, *route, edge));
            }
        }
        Ok(())
    }

    /// Waits until all of these who ask have been told that, of what they asked since then.
    async fn told(
        &self,
        told: Told,
        (since, limit): (Instant, Duration),
        which: impl Fn(Who, Route) -> bool,
    ) -> Result<()> {
        let heard = |(who, route, edge): &(Who, Route, usize), log: &[Record]| {
            let same = |record: &&Record| record.who == *who && record.route == *route && record.edge == *edge;
            log.iter()
                .rev()
                .take_while(|record| record.answered >= since)
                .filter(same)
                .any(|record| record.sent >= since && record.told == told)
        };
        let which: Vec<_> = self.asking.iter().filter(|(who, route, _)| which(*who, *route)).collect();
        let all = async || self.log.with(|log| which.iter().all(|asker| heard(asker, log))).then_some(());
        within(limit, &format!("{told:?} of {which:?}"), all).await.with_context(|| {
            let wrong = self.log.with(|log| self.story.wrong(log)).join("\n");
            let said = self.deployment.told().lines().rev().take(40).collect::<Vec<_>>().join("\n");
            format!("{wrong}\n{said}")
        })
    }

    /// Two of Carol's sessions come; the first one has just been ended when this returns.
    async fn leavers(&mut self) -> Result<(Instant, Leaver)> {
        let mut leavers = Vec::new();
        for _ in 0..2 {
            let who = Who::Carol(self.asking.len());
            let mut browser = self.signed_in(who, &Self::CAROLS).await?;
            self.ask(who, &Self::CAROLS, &browser)?;
            let url = self.deployment.world.url(Route::App.name(), "/.pomerium/sign_out");
            let question = eventually("the question whether to sign out", async || {
                browser.visit(&url).await.ok().filter(|page| page.form("Sign out").is_ok())
            });
            let question = question.await?;
            leavers.push(Leaver::new(who, browser, &question)?);
        }
        let (late, early) = (leavers.pop().context("two leave")?, leavers.pop().context("two leave")?);
        let all_in = |who, _| matches!(who, Who::Alice) || who == early.who() || who == late.who();
        self.told(Told::Passed, (Instant::now(), DEADLINE), all_in).await?;
        let left = early.leave().await?;
        self.story.leavings.push(left);
        Ok((left.accepted, late))
    }

    /// Sees a fault to its end: everything is as before within the time that is promised for it, and who signed out is out.
    async fn recovers(
        &mut self,
        (name, edge): (&'static str, Option<usize>),
        (began, away_until): (Instant, Option<Instant>),
        leaving: JoinHandle<Result<Leaving>>,
    ) -> Result<()> {
        let over = Instant::now();
        self.told(Told::Passed, (over, RECOVERY), |who, _| who == Who::Alice).await.context(name)?;
        let back = Instant::now();
        self.story.faults.push(Fault { name, edge, began, away_until, back, settled: None });
        let left = leaving.await??;
        let early = self.story.leavings.last().context("the first one to leave")?.who;
        self.story.leavings.push(left);
        let out = |who, _| who == early || who == left.who;
        self.told(Told::SignIn, (Instant::now(), DEADLINE), out).await.context(name)?;
        self.story.faults.last_mut().context("this fault")?.settled = Some(Instant::now());
        Ok(())
    }

    /// Every answer was one that was promised.
    #[expect(clippy::print_stdout, reason = "what was seen is worth reading when somebody asks for it")]
    async fn end(self) -> Result<()> {
        self.stop.cancel();
        self.tasks.close();
        bounded(DEADLINE, "the last answers", self.tasks.wait()).await?;
        let records = self.log.with(std::mem::take);
        println!("{} answers\n{}", records.len(), self.story.summary(&records));
        let wrong = self.story.wrong(&records);
        ensure!(wrong.is_empty(), "of {} answers: {}", records.len(), wrong.join("\n"));
        let reached = self.deployment.upstream.seen();
        let others =
            reached.iter().filter(|asked| ["/bob/", "/nobody/"].iter().any(|who| asked.target.starts_with(who)));
        ensure!(others.count() == 0, "who may not has reached the upstream");
        Ok(())
    }
}

/// What goes wrong.
impl Trial {
    /// Its replica takes over.
    async fn a_master_is_killed(&mut self) -> Result<()> {
        let (master, replica) = self.shard(CHANGELOG);
        let (began, late) = self.leavers().await?;
        self.server(master)?.kill();
        let leaving = tokio::spawn(late.leave());
        let away_until = self.promoted(replica).await?;
        self.recovers(("the changelog's master is killed", None), (began, Some(away_until)), leaving).await?;
        block_in_place(|| self.server(master).map(Redis::restart))?;
        self.is_whole().await
    }

    /// It holds its connections and answers nothing; the changelog is heard all the time, so only the first edge may notice.
    async fn a_master_hangs(&mut self) -> Result<()> {
        let (master, replica) = self.shard(&self.alice);
        let (began, late) = self.leavers().await?;
        self.server(master)?.pause();
        let leaving = tokio::spawn(late.leave());
        let away_until = self.promoted(replica).await?;
        self.recovers(("the master with alice's session hangs", Some(0)), (began, Some(away_until)), leaving).await?;
        self.server(master)?.resume();
        self.is_whole().await
    }

    /// Packets are dropped, for longer than the short window lasts.
    async fn nothing_can_be_reached(&mut self) -> Result<()> {
        let (began, late) = self.leavers().await?;
        self.all(Traffic::Held);
        let leaving = tokio::spawn(late.leave());
        self.is_served_from_memory(began, Route::Strict).await?;
        let (_, page) = self.signs_in(Who::Bob).await?;
        ensure!(page.status == StatusCode::SERVICE_UNAVAILABLE, "nobody can sign in now: {page:?}");
        self.is_served_from_memory(began, Route::Soon).await?;
        let away_until = Instant::now();
        self.all(Traffic::Passes);
        self.recovers(("no server can be reached", None), (began, Some(away_until)), leaving).await
    }

    /// What was said to be done is on disk.
    async fn everything_is_started_again(&mut self) -> Result<()> {
        let (began, late) = self.leavers().await?;
        block_in_place(|| self.cluster.members_mut().iter_mut().for_each(|member| member.server.kill()));
        let leaving = tokio::spawn(late.leave());
        self.is_served_from_memory(began, Route::Strict).await?;
        let away_until = Instant::now();
        block_in_place(|| self.cluster.members_mut().iter_mut().for_each(|member| member.server.restart()));
        self.is_whole().await?;
        self.recovers(("all servers are killed and started again", None), (began, Some(away_until)), leaving).await
    }

    /// For longer than its lease lasts, while somebody signs out at the other one.
    async fn an_edge_hangs(&mut self) -> Result<()> {
        let (began, late) = self.leavers().await?;
        let hung = self.deployment.edges.len() - 1;
        let edge = &self.deployment.edges.last().context("an edge")?.postern;
        edge.signal("STOP")?;
        let mut leaving = tokio::spawn(late.leave());
        let left = bounded(DEADLINE, "the end of a session at the other edge", &mut leaving).await???;
        let longer = async || (left.accepted.elapsed() > LEASE + UNCONFIRMED).then_some(());
        within(DEADLINE, "the end of the lease", longer).await?;
        edge.signal("CONT")?;
        self.recovers(("an edge hangs", Some(hung)), (began, None), tokio::spawn(async move { Ok(left) })).await
    }

    /// Until both edges refuse what needs contact, or a shorter time without it, and serve what may be served for longer.
    async fn is_served_from_memory(&self, began: Instant, refused: Route) -> Result<()> {
        self.told(Told::Unavailable, (began, DEADLINE), |who, route| (who, route) == (Who::Alice, refused)).await?;
        self.told(Told::Passed, (Instant::now(), DEADLINE), |who, route| (who, route) == (Who::Alice, Route::App)).await
    }

    /// Waits until a replica says that it is a master; gives when it last said that it is none.
    async fn promoted(&self, replica: usize) -> Result<Instant> {
        let replica = self.cluster.members().get(replica).context("a replica")?;
        let (mut bare, mut before) = (block_in_place(|| replica.bare())?, Instant::now());
        let takes_over = async || {
            let asked = Instant::now();
            let role = block_in_place(|| bare.call(&["ROLE"])).ok()?;
            if role.list().first()?.text() == "master" {
                return Some(before);
            }
            before = asked;
            None
        };
        within(DEADLINE, "a replica to take over", takes_over).await
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
            block_in_place(|| self.cluster.members().iter().map(is_well).collect::<Option<()>>())
        })
        .await
    }

    fn server(&mut self, member: usize) -> Result<&mut Redis> {
        Ok(&mut self.cluster.members_mut().get_mut(member).context("a member")?.server)
    }

    /// The server that owns a key, and the one that follows it.
    fn shard(&self, key: &str) -> (usize, usize) {
        block_in_place(|| self.cluster.shard(key))
    }

    fn all(&self, traffic: Traffic) {
        self.cluster.members().iter().for_each(|member| member.relay.set(traffic));
    }
}
