//! Another process takes the place of a running one, and nobody is refused meanwhile; and sockets that a service manager hands
//! over (decision 0022).

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use postern_servers::Redis;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use crate::support::{
    ANY_USER, Browser, DEADLINE, NO_PROVIDER, PUBLIC, Postern, Provider, Upstream, World, bounded, eventually,
    plain_client, signal, with_store,
};

/// Settings under which a second process can begin while the first one goes on.
pub(crate) fn in_memory(world: &World, config: &str) -> String {
    let file = format!("databroker_storage_connection_string: file://{}\n", world.path("store").display());
    config.replace("databroker_storage_type: file", "databroker_storage_type: memory").replace(&file, "")
}

/// A world with a route for everybody, its redirect listener, and a Postern in it.
async fn running(upstream: &Upstream) -> Result<(World, String, Postern)> {
    let world = World::new()?;
    let redirect = crate::support::free_port()?;
    let settings = format!("{NO_PROVIDER}http_redirect_addr: 127.0.0.1:{redirect}\n");
    let config = in_memory(&world, &world.config(&settings, &world.route("open", &upstream.url(), PUBLIC)));
    let postern = Postern::run(&world, &config).await?;
    Ok((world, config, postern))
}

/// Clients that ask without a pause until they are told to stop, and what became of them.
struct Clients {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    tasks: JoinSet<Result<()>>,
}

impl Clients {
    fn new() -> Self {
        Self { stop: Arc::default(), answered: Arc::default(), tasks: JoinSet::new() }
    }

    /// `ask` again and again.
    fn spawn<A>(&mut self, ask: impl Fn() -> A + Send + 'static)
    where
        A: Future<Output = Result<()>> + Send,
    {
        let (stop, answered) = (Arc::clone(&self.stop), Arc::clone(&self.answered));
        self.tasks.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                ask().await?;
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
    }

    /// Waits until so many more have been answered.
    async fn further(&self, count: usize) -> Result<()> {
        let goal = self.answered.load(Ordering::Relaxed) + count;
        eventually("further answers", async || (self.answered.load(Ordering::Relaxed) >= goal).then_some(())).await
    }

    async fn ended(mut self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(self.answered.load(Ordering::Relaxed))
    }
}

/// A client for one kind of connection, which tries nothing twice.
fn client(world: &World, http1: bool) -> Result<reqwest::Client> {
    let authority = reqwest::Certificate::from_pem(world.ca_pem().as_bytes())?;
    let here = (Ipv4Addr::LOCALHOST, world.port).into();
    let builder = reqwest::Client::builder().no_proxy().tls_certs_only([authority]).timeout(DEADLINE);
    let builder = builder.resolve(&format!("open.{}", World::DOMAIN), here).retry(reqwest::retry::never());
    Ok(if http1 { builder.http1_only() } else { builder }.build()?)
}

async fn good(client: &reqwest::Client, url: &str) -> Result<()> {
    let answer = client.get(url).send().await.with_context(|| format!("a request for {url}"))?;
    ensure!(answer.status() == StatusCode::OK, "{}", answer.status());
    answer.bytes().await.context("its body")?;
    Ok(())
}

/// The processes that have taken over so far, from what the log says.
fn successors(postern: &Postern) -> Vec<u64> {
    let taken = |line: &serde_json::Value| {
        let is = line.get("message")?.as_str()?.starts_with("another process serves in the place of this one");
        is.then(|| line.get("process")?.as_u64()).flatten()
    };
    postern.log().iter().filter_map(taken).collect()
}

/// Has another process take over, and waits until it has.
pub(crate) async fn upgraded(postern: &Postern, main: u64) -> Result<u64> {
    let before = successors(postern).len();
    signal("USR2", &main.to_string())?;
    let found = eventually("a successor", async || successors(postern).get(before).copied());
    found.await.with_context(|| postern.told())
}

/// Asks for an upgrade, and waits until the log says why there is none.
pub(crate) async fn refused(postern: &Postern, main: u64) -> Result<String> {
    let why = |line: &serde_json::Value| {
        let is = line.get("message")? == "no upgrade: this process goes on";
        is.then(|| Some(line.get("error")?.as_str()?.to_owned())).flatten()
    };
    signal("USR2", &main.to_string())?;
    let found = eventually("a refusal", async || postern.log().iter().find_map(why));
    found.await.with_context(|| postern.told())
}

#[tokio::test]
async fn an_upgrade_fails_no_request_whether_on_new_connections_or_on_those_that_are_kept() -> Result<()> {
    let upstream = Upstream::start().await?;
    let (world, _, mut postern) = running(&upstream).await?;
    let world = Arc::new(world);
    let mut clients = Clients::new();
    let (kept, multiplexed) = (client(&world, true)?, client(&world, false)?);
    let url = world.url("open", "/");
    for client in [kept.clone(), kept, multiplexed.clone(), multiplexed] {
        let url = url.clone();
        clients.spawn(move || {
            let (client, url) = (client.clone(), url.clone());
            async move { good(&client, &url).await }
        });
    }
    for _ in 0..2 {
        let world = Arc::clone(&world);
        clients.spawn(move || {
            let world = Arc::clone(&world);
            async move {
                let host = world.host("open");
                let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
                let answer = world.exchange("open", &request).await?;
                ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                Ok(())
            }
        });
    }
    let (probe, ready) = (plain_client()?, format!("http://127.0.0.1:{}/readyz", world.health));
    clients.spawn(move || {
        let (probe, ready) = (probe.clone(), ready.clone());
        async move { good(&probe, &ready).await }
    });
    clients.further(50).await?;
    let first = u64::from(postern.id());
    let next = upgraded(&postern, first).await?;
    ensure!(next != first);
    ensure!(postern.ended().await?.success());
    clients.further(50).await?;
    let answered = clients.ended().await.with_context(|| postern.told())?;
    ensure!(answered > 100);

    // Another upgrade of what was upgraded.
    let third = upgraded(&postern, next).await?;
    ensure!(third != next);
    good(&client(&world, true)?, &url).await
}

#[tokio::test]
async fn who_is_signed_in_stays_so_and_a_sign_in_that_was_begun_is_ended_by_the_new_process() -> Result<()> {
    let world = World::new()?;
    let (upstream, provider, redis) = (Upstream::start().await?, Provider::start(&world, None)?, Redis::start(&[]));
    let text = world.config(&provider.settings(), &world.route("app", &upstream.url(), ANY_USER));
    let text = with_store(&world, &text, &format!("redis://127.0.0.1:{}", redis.port()));
    let mut postern = Postern::run(&world, &text).await?;
    let (mut alice, mut bob) = (Browser::new(&world.ca_pem())?, Browser::new(&world.ca_pem())?);
    let url = world.url("app", "/");
    let form = alice.visit(&url).await?;
    let page = alice.submit(&form, "Sign in", &[("user", "alice")]).await?;
    ensure!(page.status == StatusCode::OK, "{page:?}\n{}", postern.told());
    let form = bob.visit(&url).await?;

    upgraded(&postern, postern.id().into()).await?;

    assert_eq!(alice.peek(&url).await?.status, StatusCode::OK, "{}", postern.told());
    let page = bob.submit(&form, "Sign in", &[("user", "bob")]).await?;
    assert_eq!(page.status, StatusCode::OK, "{page:?}\n{}", postern.told());
    assert!(postern.ended().await?.success());
    assert_eq!(alice.peek(&url).await?.status, StatusCode::OK);
    Ok(())
}

#[tokio::test]
async fn r_017_what_is_under_way_at_an_upgrade_is_finished_by_the_process_before() -> Result<()> {
    let upstream = Upstream::start().await?;
    let (world, _, postern) = running(&upstream).await?;
    let mut held = world.connect("open", &["http/1.1"]).await?;
    held.write_all(format!("GET /hold HTTP/1.1\r\nHost: {}\r\n\r\n", world.host("open")).as_bytes()).await?;
    eventually("the request at the upstream", async || (upstream.seen().len() == 1).then_some(())).await?;
    upgraded(&postern, postern.id().into()).await?;
    good(&client(&world, true)?, &world.url("open", "/")).await?;
    upstream.release();
    let mut answer = String::new();
    bounded(DEADLINE, "the rest of the answer", held.read_to_string(&mut answer)).await??;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("held, then let go"), "{answer}");
    Ok(())
}

#[tokio::test]
async fn a_new_process_that_cannot_start_leaves_the_one_before_as_it_was() -> Result<()> {
    let upstream = Upstream::start().await?;
    let (world, config, mut postern) = running(&upstream).await?;
    let url = world.url("open", "/");
    world.write_config(&format!("{config}\ncookie_expire: soon\n"))?;
    let why = refused(&postern, postern.id().into()).await?;
    assert!(why.contains("the new process ended before it served (exit status: 1)"), "{why}");
    assert!(postern.is_alive());
    good(&client(&world, true)?, &url).await?;
    good(&plain_client()?, &format!("http://127.0.0.1:{}/readyz", world.health)).await?;
    postern.says("error[PST-").await.context("the new process says why")?;

    world.write_config(&config)?;
    upgraded(&postern, postern.id().into()).await?;
    good(&client(&world, true)?, &url).await?;
    assert!(postern.ended().await?.success());
    good(&client(&world, true)?, &url).await?;
    Ok(())
}

#[tokio::test]
async fn an_upgrade_is_refused_where_the_store_is_a_file_of_this_process() -> Result<()> {
    let upstream = Upstream::start().await?;
    let world = World::new()?;
    let config = world.config(NO_PROVIDER, &world.route("open", &upstream.url(), PUBLIC));
    let mut postern = Postern::run(&world, &config).await?;
    let why = refused(&postern, postern.id().into()).await?;
    assert!(why.contains("keep sessions in Redis (`databroker_storage_type: redis`)"), "{why}");
    assert!(postern.is_alive());
    good(&client(&world, true)?, &world.url("open", "/")).await
}

#[tokio::test]
async fn a_new_process_takes_no_connection_before_its_store_answers_and_ends_with_a_stop_of_the_one_before()
-> Result<()> {
    let upstream = Upstream::start().await?;
    let (world, _, mut postern) = running(&upstream).await?;
    let config = world.config(NO_PROVIDER, &world.route("open", &upstream.url(), PUBLIC));
    let nobody = crate::support::free_port()?;
    world.write_config(&with_store(&world, &config, &format!("redis://127.0.0.1:{nobody}")))?;
    postern.signal("USR2")?;
    postern.says("a new process was started").await?;
    // Its store is tried once it has bound what it was given.
    let tried = "a server of the store cannot be reached";
    let tries = eventually("its trouble", async || postern.stdout().contains(tried).then_some(()));
    tries.await.with_context(|| postern.told())?;
    let (client, ready) = (client(&world, true)?, format!("http://127.0.0.1:{}/readyz", world.health));
    for _ in 0..20 {
        good(&client, &world.url("open", "/")).await?;
        good(&plain_client()?, &ready).await?;
    }
    assert!(postern.is_alive());
    postern.signal("TERM")?;
    let finished = postern.finished().await?;
    assert!(finished.status.success(), "{}", finished.told());
    assert!(
        finished.stdout.contains("this process was told to stop, and the new one was ended"),
        "{}",
        finished.told()
    );
    Ok(())
}

#[tokio::test]
async fn sockets_that_were_handed_over_are_listened_on_and_the_others_closed() -> Result<()> {
    let upstream = Upstream::start().await?;
    let world = World::new()?;
    let config = world.config(NO_PROVIDER, &world.route("open", &upstream.url(), PUBLIC));
    let public = TcpListener::bind((Ipv4Addr::LOCALHOST, world.port))?;
    let health = TcpListener::bind((Ipv4Addr::LOCALHOST, world.health))?;
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let elsewhere = other.local_addr()?;
    let postern = Postern::run_on(&world, &config, vec![other, public, health]).await?;
    good(&client(&world, true)?, &world.url("open", "/")).await?;
    let line = format!("\"address\":\"{elsewhere}\"");
    let told = postern.stdout();
    let closed = told.lines().find(|told| told.contains(&line)).context("a word about the other")?;
    assert!(closed.contains("is closed: nothing in the configuration listens there"), "{closed}");
    let refused = tokio::net::TcpStream::connect(elsewhere).await;
    assert!(refused.is_err(), "nobody listens there any more");
    Ok(())
}
