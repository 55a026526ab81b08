//! A new configuration takes over while requests run: whole, or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use reqwest::StatusCode;

use crate::support::{Browser, NO_PROVIDER, Postern, Provider, Upstream, World, eventually, plain_client};

/// A configuration whose one route answers `word`, in its body and in a header.
fn saying(world: &World, word: &str) -> String {
    let from = world.url("open", "");
    let route = format!(
        "  - from: {from}\n    response: {{ status: 200, body: {word} }}\n    allow_public_unauthenticated_access: true\n    \
         set_response_headers: {{ X-Word: {word} }}\n",
    );
    world.config(NO_PROVIDER, &route)
}

#[tokio::test]
async fn r_019_a_broken_file_changes_nothing_and_is_reported() -> Result<()> {
    let world = World::new()?;
    let postern = Postern::run(&world, &saying(&world, "first")).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    for broken in ["routes: [", "routes:\n  - from: nonsense\n", "address: 1\n"] {
        let before = reloads(&world, "applied").await?;
        let failed = reloads(&world, "refused").await?;
        world.write_config(&saying(&world, "never").replace("routes:\n", broken))?;
        eventually("the failure to be counted", async || {
            (reloads(&world, "refused").await.ok()? > failed).then_some(())
        })
        .await?;
        assert_eq!(browser.peek(world.url("open", "/")).await?.body.trim(), "first");
        assert_eq!(reloads(&world, "applied").await?, before);
    }
    assert!(postern.told().contains("stays in force"), "the log says so: {}", postern.told());

    world.write_config(&saying(&world, "second"))?;
    eventually("the mended file", async || {
        browser.peek(world.url("open", "/")).await.ok().filter(|page| page.body.trim() == "second")
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn r_020_every_request_sees_one_configuration_and_none_fails() -> Result<()> {
    let world = Arc::new(World::new()?);
    let postern = Postern::run(&world, &saying(&world, "word0")).await?;
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4).map(|_| tokio::spawn(ask(world.clone(), over.clone()))).collect();

    for round in 1..=15 {
        let word = format!("word{round}");
        world.write_config(&saying(&world, &word))?;
        let mut browser = Browser::new(&world.ca_pem())?;
        let seen = eventually(&word, async || {
            browser.peek(world.url("open", "/")).await.ok().filter(|page| page.body.trim() == word)
        });
        seen.await.with_context(|| postern.told())?;
    }
    over.store(true, Ordering::Relaxed);
    let mut asked = 0;
    for client in clients {
        asked += client.await??;
    }
    assert!(asked > 100, "only {asked} requests ran beside the reloads");
    Ok(())
}

/// Asks without pause on one connection until it is over; body and header must be of one configuration.
async fn ask(world: Arc<World>, over: Arc<AtomicBool>) -> Result<usize> {
    let mut browser = Browser::new(&world.ca_pem())?;
    let mut asked = 0;
    while !over.load(Ordering::Relaxed) {
        let page = browser.peek(world.url("open", "/")).await?;
        ensure!(page.status == StatusCode::OK, "{page:?}");
        ensure!(page.header("x-word") == page.body.trim(), "{page:?}");
        browser.trail.clear();
        asked += 1;
    }
    Ok(asked)
}

#[tokio::test]
async fn r_021_a_renewed_certificate_is_served_and_a_broken_one_is_not() -> Result<()> {
    let world = World::new()?;
    let _postern = Postern::run(&world, &saying(&world, "here")).await?;
    let first = served(&world).await?;

    let renewed = world.renew_certificate()?;
    eventually("the renewed certificate", async || served(&world).await.ok().filter(|served| *served == renewed))
        .await?;
    assert_ne!(first, renewed);

    let failures = reloads(&world, "refused").await?;
    std::fs::write(world.path("key.pem"), "not a key")?;
    eventually("the failure to be counted", async || (reloads(&world, "refused").await.ok()? > failures).then_some(()))
        .await?;
    assert_eq!(served(&world).await?, renewed);
    Ok(())
}

#[tokio::test]
async fn sighup_reads_the_file_again() -> Result<()> {
    let world = World::new()?;
    let postern = Postern::run(&world, &saying(&world, "first")).await?;
    let before = reloads(&world, "applied").await?;
    postern.signal("HUP")?;
    eventually("the reload to be counted", async || (reloads(&world, "applied").await.ok()? > before).then_some(()))
        .await?;
    Ok(())
}

#[tokio::test]
async fn r_019_secrets_that_change_in_the_file_sign_nobody_out_before_the_next_start() -> Result<()> {
    let world = World::new()?;
    let (upstream, provider) = (Upstream::start().await?, Provider::start(&world, Some("alice"))?);
    let route = world.route("app", &upstream.url(), &["allow_any_authenticated_user: true"]);
    let text = world.config(&provider.settings(), &route);
    let postern = Postern::run(&world, &text).await?;
    let mut early = Browser::new(&world.ca_pem())?;
    assert_eq!(early.visit(world.url("app", "/")).await?.status, StatusCode::OK);

    let before = reloads(&world, "applied").await?;
    let other = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";
    let secrets = |line: &str| match line.split_once("_secret: ") {
        Some((name @ ("shared" | "cookie"), _)) => format!("{name}_secret: {other}\n"),
        Some(_) | None => format!("{line}\n"),
    };
    world.write_config(&text.lines().map(secrets).collect::<String>())?;
    eventually("the reload to be counted", async || (reloads(&world, "applied").await.ok()? > before).then_some(()))
        .await?;
    assert!(postern.told().contains("takes effect only at the next start"), "{}", postern.told());
    assert_eq!(early.peek(world.url("app", "/")).await?.status, StatusCode::OK, "who is signed in stays so");
    let mut late = Browser::new(&world.ca_pem())?;
    assert_eq!(late.visit(world.url("app", "/")).await?.status, StatusCode::OK, "who comes now can sign in");
    Ok(())
}

/// The DER of the certificate that a client meets.
async fn served(world: &World) -> Result<Vec<u8>> {
    let stream = world.connect("open", &["http/1.1"]).await?;
    let (_, connection) = stream.get_ref();
    let certificate = connection.peer_certificates().and_then(|chain| chain.first()).context("no certificate")?;
    Ok(certificate.to_vec())
}

/// `postern_config_reloads_total` with this outcome.
async fn reloads(world: &World, outcome: &str) -> Result<u64> {
    let figures =
        plain_client()?.get(format!("http://127.0.0.1:{}/metrics", world.metrics)).send().await?.text().await?;
    let wanted = format!("postern_config_reloads_total{{outcome=\"{outcome}\"}} ");
    let value = figures.lines().find_map(|line| line.strip_prefix(&wanted)).unwrap_or("0");
    Ok(value.parse()?)
}
