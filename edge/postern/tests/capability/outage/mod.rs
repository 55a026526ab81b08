//! What faults of the session store do to people, through running edges: whoever is signed in is served for the static window of
//! the route, nobody else ever is, nobody is sent to sign in or loses a cookie because of the store, and whoever signed out
//! stays out (S-084, R-006 to R-009; `docs/reference/sessions.md`).
//!
//! Two edges and an authn share a cluster, or servers that Sentinels watch. People ask both edges again and again while its
//! servers are killed, hang, cannot be reached and take each other's place, and one edge hangs; each answer is held against what
//! was promised for its time.

mod cluster;
mod people;
mod verdict;
mod watched;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use postern_servers::Bare;
use reqwest::StatusCode;
use serde_json::Value;
use tokio::task::{JoinHandle, block_in_place};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::{
    Browser, DEADLINE, Deployment, Keys, Pulse, Response, Upstream, World, bounded, eventually, within,
};
use people::{Asker, Leaver, Log, Record, Told, Who};
use verdict::{Fault, LEASE, Leaving, Reach, Story, UNCONFIRMED};

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
/// Within which everything is as before once a replica has taken over, or the servers are there again.
const RECOVERY: Duration = Duration::from_secs(10);
/// Within which whoever may be served no longer is told so.
const REFUSAL: Duration = Duration::from_secs(3);

/// The deployment, its store, and everybody who asks.
struct Trial<S> {
    deployment: Deployment,
    servers: S,
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
async fn s_084_r_006_to_r_009_faults_of_a_cluster_are_not_felt_for_a_while_and_let_nobody_in() -> Result<()> {
    while_the_machine_runs(async || {
        let mut trial = Trial::on_cluster().await?;
        trial.a_master_is_killed().await?;
        trial.a_master_hangs().await?;
        trial.a_master_cannot_be_reached().await?;
        trial.a_master_stalls().await?;
        trial.a_master_is_slow().await?;
        trial.connections_are_killed().await?;
        trial.a_master_is_replaced().await?;
        trial.slots_are_moved().await?;
        trial.a_master_loses_the_others().await?;
        trial.nothing_can_be_reached().await?;
        trial.everything_is_refused().await?;
        trial.everything_is_started_again().await?;
        trial.an_edge_is_cut_off().await?;
        trial.an_edge_hangs().await?;
        trial.end().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_084_r_006_to_r_009_faults_of_servers_under_watch_are_not_felt_for_a_while_and_let_nobody_in() -> Result<()> {
    while_the_machine_runs(async || {
        let mut trial = Trial::on_watched().await?;
        trial.the_master_hangs().await?;
        trial.its_successor_is_killed().await?;
        trial.end().await
    })
    .await
}

/// A trial whose promises are of seconds. Where it fails and the machine itself stood still meanwhile, the trial was not fair:
/// it is held anew, twice at most.
#[expect(clippy::print_stderr, reason = "whoever waits wants to know why it takes longer")]
async fn while_the_machine_runs(trial: impl AsyncFn() -> Result<()>) -> Result<()> {
    for _ in 0..2 {
        let pulse = Pulse::start();
        match trial().await {
            Err(error) if pulse.longest_pause() > STANDSTILL => {
                eprintln!("the machine stood still for {:?}, so once more: {error:#}", pulse.longest_pause());
            }
            outcome => return outcome,
        }
    }
    trial().await
}

/// Longer than the processes of a trial keep each other waiting for a core.
const STANDSTILL: Duration = Duration::from_secs(1);

/// Everybody.
impl<S> Trial<S> {
    const ALICES: [Route; 3] = [Route::App, Route::Soon, Route::Strict];
    const CAROLS: [Route; 2] = [Route::App, Route::Strict];

    /// Alice, Bob and somebody whose cookies are nobody's ask both edges from now on. The store is named by a connection string;
    /// alice has a session that suits.
    async fn begin(servers: S, store: &str, suits: impl Fn(&S, &str) -> bool) -> Result<Self> {
        let routes = |world: &World, upstream: &Upstream| Route::ALL.map(|route| route.lines(world, upstream)).concat();
        let deployment = Deployment::start(store, 1, LINES, routes).await?;
        let mut nobody = Browser::over_http1(&deployment.world.ca_pem())?;
        let keys = Keys::at(&mut nobody, &deployment.world.url(Route::App.name(), "")).await?;
        // Who signs in or out does so at the first edge; the other one has to hear of it.
        deployment.balancer.lead_to(deployment.edges.first().map(|edge| edge.port));
        let (log, asking, stop, tasks) = (Log::default(), Vec::new(), CancellationToken::new(), TaskTracker::new());
        let mut trial =
            Self { deployment, servers, alice: String::new(), keys, log, asking, stop, tasks, story: Story::default() };
        let bob = trial.signed_in(Who::Bob, &[Route::Ops]).await?;
        let (alice, session) = trial.alice(suits).await?;
        trial.alice = session;
        trial.ask(Who::Alice, &Self::ALICES, &alice)?;
        trial.ask(Who::Bob, &[Route::Ops], &bob)?;
        nobody.cookies.clone_from(&alice.cookies);
        nobody.cookies.iter_mut().for_each(|cookie| cookie.value = forged(&cookie.value));
        trial.ask(Who::Nobody, &[Route::App, Route::Strict], &nobody)?;
        Ok(trial)
    }

    /// Alice, with a session that suits.
    async fn alice(&self, suits: impl Fn(&S, &str) -> bool) -> Result<(Browser, String)> {
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
            if block_in_place(|| suits(&self.servers, &session)) {
                return Ok((browser, session));
            }
        }
        bail!("no session of alice's suits")
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
        which: impl Fn(Who, Route, usize) -> bool,
    ) -> Result<()> {
        let heard = |(who, route, edge): &(Who, Route, usize), log: &[Record]| {
            let same = |record: &&Record| record.who == *who && record.route == *route && record.edge == *edge;
            log.iter()
                .rev()
                .take_while(|record| record.answered >= since)
                .filter(same)
                .any(|record| record.sent >= since && record.told == told)
        };
        let which: Vec<_> = self.asking.iter().filter(|(who, route, edge)| which(*who, *route, *edge)).collect();
        let all = async || self.log.with(|log| which.iter().all(|asker| heard(asker, log))).then_some(());
        within(limit, &format!("{told:?} of {which:?}"), all).await.with_context(|| {
            let wrong = self.log.with(|log| self.story.wrong(log)).join("\n");
            let said = self.deployment.told().lines().rev().take(40).collect::<Vec<_>>().join("\n");
            format!("wrong, if there is no fault under way:\n{wrong}\n{said}")
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
        let all_in = |who, _, _| matches!(who, Who::Alice) || who == early.who() || who == late.who();
        self.told(Told::Passed, (Instant::now(), DEADLINE), all_in).await?;
        let left = early.leave().await?;
        self.story.leavings.push(left);
        Ok((left.accepted, late))
    }

    /// Sees a fault to its end: everything is as before within the time that is promised for it, and who signed out is out.
    async fn recovers(
        &mut self,
        (name, reach): (&'static str, Reach),
        (began, away_until): (Instant, Option<Instant>),
        leaving: JoinHandle<Result<Leaving>>,
    ) -> Result<()> {
        let over = Instant::now();
        self.told(Told::Passed, (over, RECOVERY), |who, _, _| who == Who::Alice).await.context(name)?;
        let back = Instant::now();
        self.story.faults.push(Fault { name, reach, began, away_until, back, settled: None });
        let left = leaving.await??;
        let early = self.story.leavings.last().context("the first one to leave")?.who;
        self.story.leavings.push(left);
        let out = |who, _, _| who == early || who == left.who;
        self.told(Told::SignIn, (Instant::now(), DEADLINE), out).await.context(name)?;
        self.story.faults.last_mut().context("this fault")?.settled = Some(Instant::now());
        Ok(())
    }

    /// Until the edges that notice have refused what needs contact, or a shorter time without it, and serve what may be served
    /// for longer.
    async fn is_served_from_memory(&self, reach: Reach, began: Instant, refused: Route) -> Result<()> {
        let in_time = LEASE + UNCONFIRMED + refused.window() + REFUSAL;
        let alice = |at| move |who, route, edge| (who, route) == (Who::Alice, at) && reach.is_to(edge);
        self.told(Told::Unavailable, (began, in_time), alice(refused)).await?;
        self.told(Told::Passed, (Instant::now(), DEADLINE), alice(Route::App)).await
    }

    /// Until so much time has passed since then.
    async fn lasts(&self, began: Instant, longer_than: Duration) -> Result<()> {
        within(DEADLINE, "the end of a while", async || (began.elapsed() > longer_than).then_some(())).await
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

/// A cookie with another letter in it.
fn forged(value: &str) -> String {
    let letters = value.chars().enumerate();
    let other = |(at, letter)| match (at, letter) {
        (20, 'A') => 'B',
        (20, _) => 'A',
        (_, letter) => letter,
    };
    letters.map(other).collect()
}

/// Waits until a replica says that it is a master; gives when it last said that it is none.
async fn promoted(port: u16) -> Result<Instant> {
    // Sentinels end its connections when they make it one.
    let (mut bare, mut before) = (None, Instant::now());
    let takes_over = async || {
        let asked = Instant::now();
        let role = block_in_place(|| {
            let mut connection = bare.take().map_or_else(|| Bare::connect(port, PATIENCE), Ok)?;
            let role = connection.sure(&["ROLE"]);
            bare = Some(connection).filter(|_| role.is_ok());
            role
        });
        let role = role.ok()?;
        if role.list().first()?.text() == "master" {
            return Some(before);
        }
        before = asked;
        None
    };
    within(DEADLINE, "a replica to take over", takes_over).await
}

/// How long a server that is well may take to say what it is.
const PATIENCE: Duration = Duration::from_secs(1);
