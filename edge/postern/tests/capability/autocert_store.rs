//! Edges with folders of their own and one store: what one of them orders is everybody's, whoever is looked at by the authority,
//! whoever dies meanwhile, and whether the store is there or not (01 §1.5, decision 0024).

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use postern_servers::Redis;
use tokio::net::TcpListener;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::support::{
    Balancer, Behaviour, Browser, ISSUER, NO_PROVIDER, PUBLIC, Pebble, Postern, Responder, Upstream, World, eventually,
    free_port, free_ports, moved_to, plain_client, start_apart, with_store, within,
};

/// Several edges of one world behind one address, their store and their authority.
struct Office {
    world: World,
    redis: Redis,
    pebble: Pebble,
    balancer: Balancer,
    root: String,
    upstream: Upstream,
}

/// One of them.
struct Edge {
    postern: Postern,
    port: u16,
    config: String,
}

impl Office {
    async fn start(behaviour: Behaviour<'_>) -> Result<Self> {
        let (world, redis, upstream) =
            (World::new()?, Redis::start(&["--appendonly", "yes"]), Upstream::start().await?);
        let pebble = Pebble::start(&world, &Behaviour { ports: (world.port, 1), ..behaviour }).await?;
        let (root, balancer) = (pebble.root().await?, Balancer::start(world.port, []).await?);
        // Of all names of this world only `app` lacks one.
        let authenticate = format!("authenticate.{}", World::DOMAIN);
        world.issue(("certificate.pem", "key.pem"), &[authenticate])?;
        Ok(Self { world, redis, pebble, balancer, root, upstream })
    }

    /// The configuration of an edge with a folder of its own; `trusted` says whose word it takes for the authority.
    fn config(&self, name: &str, port: u16, trusted: &str) -> String {
        let (folder, ca) = (self.world.path("autocert"), self.world.path("ca.pem"));
        let settings = self.pebble.settings(&self.world);
        let settings = settings.replace(&folder.display().to_string(), &self.folder(name));
        let settings = settings.replace(&ca.display().to_string(), trusted);
        let settings = format!("{NO_PROVIDER}{settings}log_level: info\n");
        let text = self.world.config(&settings, &self.world.route("app", &self.upstream.url(), PUBLIC));
        let store = format!("redis://127.0.0.1:{}", self.redis.port());
        moved_to(port, &self.world, &with_store(&self.world, &text, &store))
    }

    fn folder(&self, name: &str) -> String {
        self.world.path(&format!("autocert-{name}")).display().to_string()
    }

    async fn edge(&self, name: &str) -> Result<Edge> {
        let port = free_ports(3)?;
        let config = self.config(name, port, &self.world.path("ca.pem").display().to_string());
        Ok(Edge { postern: start_apart(&self.world, name, &config, port + 1).await?, port, config })
    }

    /// One that everybody is led to already when it begins to order.
    async fn edge_in_front(&self, name: &str) -> Result<Edge> {
        let port = free_ports(3)?;
        self.balancer.lead_to([port]);
        let config = self.config(name, port, &self.world.path("ca.pem").display().to_string());
        Ok(Edge { postern: start_apart(&self.world, name, &config, port + 1).await?, port, config })
    }

    /// One that does not believe the authority, so that it never gets anything of it.
    async fn edge_that_cannot_order(&self, name: &str) -> Result<Edge> {
        let (port, stranger) = (free_ports(3)?, self.world.path("stranger.pem"));
        std::fs::write(&stranger, World::new()?.ca_pem())?;
        let config = self.config(name, port, &stranger.display().to_string());
        let edge = Edge { postern: start_apart(&self.world, name, &config, port + 1).await?, port, config };
        eventually("a line on the failure", async || edge.said("no certificate was issued"))
            .await
            .with_context(|| edge.postern.told())?;
        Ok(edge)
    }

    /// What an edge shows for `app`, if the authority has issued it.
    async fn shown(&self, edge: &Edge) -> Option<Vec<u8>> {
        self.balancer.lead_to([edge.port]);
        let mut browser = Browser::new(&self.root).ok()?;
        let visit = browser.visit(self.world.url("app", "/")).await.ok()?;
        assert_eq!(visit.status, 200);
        Some(self.world.shown("app").await.ok()?.to_vec())
    }

    /// The names in the store of that kind.
    fn stored(&self, kind: &str) -> Vec<String> {
        let names = self.redis.cli(&["--scan", "--pattern", &format!("a:{kind}:*")]);
        names.lines().filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }
}

impl Edge {
    async fn metric(&self, name: &str) -> Result<u64> {
        let url = format!("http://127.0.0.1:{}/metrics", self.port + 2);
        let text = plain_client()?.get(url).send().await?.text().await?;
        // One that has no series yet has counted nothing.
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or("0");
        Ok(line.rsplit(' ').next().unwrap_or_default().parse()?)
    }

    async fn orders(&self) -> Result<u64> {
        self.metric("postern_autocert_orders_total{outcome=\"ok\"}").await
    }

    fn said(&self, what: &str) -> Option<()> {
        let mut log = self.postern.log().into_iter();
        log.find(|line| line["message"].as_str().is_some_and(|message| message.starts_with(what))).map(drop)
    }
}

#[tokio::test]
async fn one_edge_orders_another_one_is_looked_at_and_both_serve_also_from_a_start_without_the_store() -> Result<()> {
    let mut office = Office::start(Behaviour::default()).await?;
    let other = office.edge_that_cannot_order("other").await?;
    // Whoever looks, looks at the one that does not order.
    office.balancer.lead_to([other.port]);
    let orderer = office.edge("orderer").await?;
    let shown = eventually("a certificate", async || office.shown(&other).await).await;
    let shown = shown.with_context(|| format!("{}\n{}", orderer.postern.told(), other.postern.told()))?;
    let same = async || (office.shown(&orderer).await? == shown).then_some(());
    eventually("the same at the one that ordered it", same).await.with_context(|| orderer.postern.told())?;
    assert_eq!((orderer.orders().await?, other.orders().await?), (1, 0));
    assert_eq!(other.metric("postern_autocert_taken_total").await?, 1);
    assert!(orderer.said("the authority looked in vain").is_none(), "{}", orderer.postern.told());

    // Nothing of it lies in the clear, and what is over is gone.
    for kind in ["c", "a"] {
        let names = office.stored(kind);
        assert_eq!(names.len(), 1, "{names:?}");
        let value = office.redis.cli(&["GET", &names.concat()]);
        for clear in ["PRIVATE", "CERTIFICATE", World::DOMAIN, "key_pkcs8", "http"] {
            assert!(!value.contains(clear) && !names.concat().contains(clear), "{names:?} {value}");
        }
    }
    eventually("the challenge is over", async || office.stored("o").is_empty().then_some(())).await?;
    eventually("the turn is over", async || office.stored("l").is_empty().then_some(())).await?;
    assert!(!orderer.postern.told().contains("PRIVATE KEY") && !other.postern.told().contains("PRIVATE KEY"));

    // Whoever is new serves it as soon as it is ready, without a folder that has it.
    let fresh = office.edge("new").await?;
    assert_eq!(office.shown(&fresh).await, Some(shown.clone()), "{}", fresh.postern.told());

    // Whoever starts while the store is away has what it once took.
    other.postern.kill().await?;
    office.redis.kill();
    let file = office.world.path("other.yaml");
    std::fs::write(&file, &other.config)?;
    let again = Postern::spawn(office.world.folder(), &["run", "--config", &file.display().to_string()])?;
    office.balancer.lead_to([other.port]);
    let served = async || (office.world.shown("app").await.ok()?.to_vec() == shown).then_some(());
    eventually("what it took before", served).await.with_context(|| again.told())?;
    Ok(())
}

#[tokio::test]
async fn a_renewal_is_ordered_once_and_shown_by_all() -> Result<()> {
    let office = Office::start(Behaviour { validity: Some(40), ..Behaviour::default() }).await?;
    let first = office.edge_in_front("one").await?;
    eventually("the first certificate", async || (office.stored("c").len() == 1).then_some(()))
        .await
        .with_context(|| first.postern.told())?;
    let edges = [first, office.edge("two").await?];
    let told = || edges.each_ref().map(|edge| edge.postern.told()).concat();
    let mut shown = [Vec::new(), Vec::new()];
    let twice = async || {
        for (edge, shown) in edges.iter().zip(&mut shown) {
            let now = office.shown(edge).await?;
            if shown.last() != Some(&now) {
                shown.push(now);
            }
        }
        shown.iter().all(|shown| shown.len() > 1).then_some(())
    };
    eventually("a second certificate everywhere", twice).await.with_context(told)?;
    assert_eq!(shown[0], shown[1], "each of them is everybody's: {}", told());
    assert_eq!(edges[0].orders().await? + edges[1].orders().await?, 2, "{}", told());
    Ok(())
}

#[tokio::test]
async fn one_edge_asks_for_a_staple_and_whoever_starts_later_shows_it_too() -> Result<()> {
    let mut responder = Responder::nowhere()?;
    let office = Office::start(Behaviour { responder: Some(responder.url()), ..Behaviour::default() }).await?;
    Responder::speak_for(&office.world, &office.pebble).await?;
    let first = office.edge_in_front("one").await?;
    let shown = eventually("a certificate", async || office.shown(&first).await).await;
    let shown = shown.with_context(|| first.postern.told())?;
    let (_, certificate) = X509Certificate::from_der(&shown)?;
    let serial = u64::from_str_radix(&certificate.tbs_certificate.serial.to_str_radix(16), 16)?;
    responder.begin(&office.world, ISSUER, &[(serial, true)], 60).await?;
    let stapled = async || office.world.stapled("app").await.ok().flatten();
    let staple = eventually("a staple", stapled).await.with_context(|| first.postern.told())?;
    eventually("it is left for others", async || (office.stored("s").len() == 1).then_some(())).await?;
    let value = office.redis.cli(&["GET", &office.stored("s").concat()]);
    assert!(!value.contains("Pebble"), "it is sealed: {value}");

    responder.end();
    let fresh = office.edge("new").await?;
    assert_eq!(office.shown(&fresh).await, Some(shown.clone()), "{}", fresh.postern.told());
    assert_eq!(stapled().await, Some(staple), "{}", fresh.postern.told());
    assert_eq!(fresh.metric("postern_autocert_staples_total").await?, 0, "it has asked nobody");
    Ok(())
}

#[tokio::test]
async fn another_edge_takes_over_from_one_that_was_killed_while_it_ordered() -> Result<()> {
    let office = Office::start(Behaviour::default()).await?;
    let nobody = TcpListener::bind("127.0.0.1:0").await?;
    office.balancer.lead_to([nobody.local_addr()?.port()]);
    let orderer = office.edge("orderer").await?;
    eventually("the authority looks, and waits", async || (!office.stored("o").is_empty()).then_some(()))
        .await
        .with_context(|| orderer.postern.told())?;
    orderer.postern.kill().await?;
    let killed = Instant::now();
    assert_eq!(office.stored("l").len(), 1, "its turn outlives it");
    let other = office.edge_in_front("other").await?;
    let served = within(Duration::from_secs(75), "a certificate", async || office.shown(&other).await).await;
    served.with_context(|| format!("{:?} {}", killed.elapsed(), other.postern.told()))?;
    assert_eq!(other.orders().await?, 1);
    assert!(other.said("there is an account at the authority").is_none(), "it is everybody's");
    Ok(())
}

#[tokio::test]
async fn while_the_store_is_away_nothing_is_ordered_and_what_it_lost_comes_back_to_it() -> Result<()> {
    let mut office = Office::start(Behaviour::default()).await?;
    let edge = office.edge_in_front("edge").await?;
    let shown = eventually("a certificate", async || office.shown(&edge).await).await;
    let shown = shown.with_context(|| edge.postern.told())?;
    office.redis.kill();
    let late = office.world.route("late", &office.upstream.url(), PUBLIC);
    std::fs::write(office.world.path("edge.yaml"), [edge.config.clone(), late].concat())?;
    eventually("a line on the store", async || edge.said("nothing is ordered yet"))
        .await
        .with_context(|| edge.postern.told())?;
    assert_eq!(office.shown(&edge).await, Some(shown.clone()));
    assert_eq!(edge.orders().await?, 1);

    office.redis.restart();
    // As if it had been lost.
    let _emptied = office.redis.cli(&["FLUSHALL"]);
    let both = async || (office.stored("c").len() == 2 && office.stored("a").len() == 1).then_some(());
    eventually("both in the store, and the account", both).await.with_context(|| edge.postern.told())?;
    assert_eq!(office.shown(&edge).await, Some(shown));
    assert_eq!(edge.orders().await?, 2, "{}", edge.postern.told());
    let made = edge.postern.told().matches("there is an account at the authority").count();
    assert_eq!(made, 1, "{}", edge.postern.told());
    Ok(())
}

#[tokio::test]
async fn what_another_authority_has_issued_is_left_to_nobody() -> Result<()> {
    let (office, nobody) = (Office::start(Behaviour::default()).await?, free_port()?);
    let edge = office.edge_in_front("edge").await?;
    let shown = eventually("a certificate", async || office.shown(&edge).await).await;
    let shown = shown.with_context(|| edge.postern.told())?;
    let line = |line: &str| match line.starts_with("autocert_ca:") {
        true => format!("autocert_ca: https://127.0.0.1:{nobody}/dir\n"),
        false => format!("{line}\n"),
    };
    std::fs::write(office.world.path("edge.yaml"), edge.config.lines().map(line).collect::<String>())?;
    eventually("a line on the failure", async || edge.said("no certificate was issued"))
        .await
        .with_context(|| edge.postern.told())?;
    assert_eq!(office.shown(&edge).await, Some(shown), "it is served");
    assert_eq!(office.stored("c").len(), 1, "nobody takes it for one of the new authority");
    Ok(())
}

#[tokio::test]
async fn r_004_strangers_who_ask_for_challenges_have_the_store_looked_into_once_a_second() -> Result<()> {
    let (office, redirect) = (Office::start(Behaviour::default()).await?, free_port()?);
    let port = free_ports(3)?;
    let config = office.config("edge", port, &office.world.path("ca.pem").display().to_string());
    let config = config.replace("log_level: info\n", &format!("http_redirect_addr: 127.0.0.1:{redirect}\n"));
    office.balancer.lead_to([port]);
    let edge = Edge { postern: start_apart(&office.world, "edge", &config, port + 1).await?, port, config };
    eventually("a certificate", async || office.shown(&edge).await).await.with_context(|| edge.postern.told())?;
    let looks = async || {
        let series = "postern_storage_operation_duration_seconds_count{backend=\"redis\",operation=\"left\"}";
        edge.metric(series).await
    };
    let (before, begun, client) = (looks().await?, Instant::now(), plain_client()?);
    for number in 0..300 {
        let url = format!("http://127.0.0.1:{redirect}/.well-known/acme-challenge/token-{number}");
        let host = format!("app.{}", World::DOMAIN);
        let answer = client.get(url).header("host", host).send().await?;
        assert_ne!(answer.status(), 200);
    }
    let (asked, seconds) = (looks().await? - before, begun.elapsed().as_secs() + 1);
    assert!(asked >= 1, "an edge that knows nothing of it looks");
    // Those for the one name, and those that look for news.
    assert!(asked <= 4 + seconds + seconds / 5, "{asked} in {seconds} s");
    Ok(())
}
