//! `autocert`: certificates are ordered from a real authority, served, kept and renewed; and whatever goes wrong there stops
//! nothing that is served (01 §1.5).

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    Behaviour, Browser, NO_PROVIDER, PUBLIC, Pebble, Postern, Upstream, World, eventually, free_port, plain_client,
};

/// A configuration of this world without any certificate.
fn without_certificate(text: &str) -> String {
    let lines = text
        .lines()
        .filter(|line| !line.starts_with("certificate_file:") && !line.starts_with("certificate_key_file:"));
    lines.map(|line| format!("{line}\n")).collect()
}

/// The certificate that is served for a name, whoever vouches for it.
async fn shown(world: &World, name: &str) -> Result<CertificateDer<'static>> {
    world.shown(name).await
}

/// The status of a visit by a browser that trusts the authority alone.
async fn visit(world: &World, root: &str, name: &str) -> Result<u16> {
    Ok(Browser::new(root)?.visit(world.url(name, "/")).await?.status.as_u16())
}

/// Every file below a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

async fn metric(world: &World, name: &str) -> Result<f64> {
    let text = plain_client()?.get(format!("http://127.0.0.1:{}/metrics", world.metrics)).send().await?.text().await?;
    let line = text.lines().find(|line| line.starts_with(name)).with_context(|| format!("no {name}"))?;
    Ok(line.rsplit(' ').next().unwrap_or_default().parse()?)
}

#[tokio::test]
async fn each_host_without_a_certificate_gets_one_which_is_kept_for_the_next_start() -> Result<()> {
    let (world, upstream) = (World::new()?, Upstream::start().await?);
    let pebble = Pebble::start(&world, &Behaviour { ports: (world.port, 1), ..Behaviour::default() }).await?;
    let root = pebble.root().await?;
    let settings = format!("{NO_PROVIDER}{}", pebble.settings(&world));
    let routes = [world.route("one", &upstream.url(), PUBLIC), world.route("two", &upstream.url(), PUBLIC)].concat();
    let config = without_certificate(&world.config(&settings, &routes));
    let postern = Postern::run(&world, &config).await?;
    for name in ["one", "two"] {
        let served = async || (visit(&world, &root, name).await.ok()? == 200).then_some(());
        eventually("a certificate of the authority", served).await.with_context(|| postern.told())?;
    }
    eventually("the host where people sign in", async || {
        Browser::new(&root).ok()?.visit(world.url("authenticate", "/ping")).await.ok()
    })
    .await?;
    assert!((metric(&world, "postern_autocert_names_without_certificate").await?).abs() < f64::EPSILON);
    assert!((metric(&world, "postern_autocert_orders_total{outcome=\"ok\"}").await? - 3.0).abs() < f64::EPSILON);
    let kept = files(&world.path("autocert"))?;
    assert!(kept.iter().any(|path| path.ends_with(format!("one.{}.pem", World::DOMAIN))), "{kept:?}");
    assert!(kept.iter().any(|path| path.ends_with("account.json")), "{kept:?}");
    for path in &kept {
        assert_eq!(std::fs::metadata(path)?.permissions().mode() & 0o777, 0o600, "{}", path.display());
        let over = path.extension().is_some_and(|end| end == "challenge" || end == "answer");
        assert!(!over, "the challenge is over: {}", path.display());
    }
    let before = shown(&world, "one").await?;

    // The authority is gone, and so is the process: what it issued is served again from the first moment.
    postern.kill().await?;
    drop(pebble);
    let postern = Postern::run(&world, &config).await?;
    assert_eq!(shown(&world, "one").await?, before);
    assert_eq!(visit(&world, &root, "two").await?, 200);

    // A new route orders for itself alone, fails, and takes nothing away.
    world.write_config(&[config, world.route("three", &upstream.url(), PUBLIC)].concat())?;
    eventually("a line on the failure", async || {
        let mut log = postern.log().into_iter();
        log.find(|line| line["message"] == "no certificate was issued; what was served before is served on")
    })
    .await
    .with_context(|| postern.told())?;
    assert_eq!(shown(&world, "one").await?, before);
    assert!(!postern.told().contains("PRIVATE KEY"), "{}", postern.told());
    Ok(())
}

#[tokio::test]
async fn r_021_what_was_issued_is_served_on_while_an_authority_that_was_changed_to_does_not_answer() -> Result<()> {
    let (world, upstream, nobody) = (World::new()?, Upstream::start().await?, free_port()?);
    let pebble = Pebble::start(&world, &Behaviour { ports: (world.port, 1), ..Behaviour::default() }).await?;
    let root = pebble.root().await?;
    let settings = format!("{NO_PROVIDER}{}", pebble.settings(&world));
    let config = without_certificate(&world.config(&settings, &world.route("app", &upstream.url(), PUBLIC)));
    let postern = Postern::run(&world, &config).await?;
    let served = async || (visit(&world, &root, "app").await.ok()? == 200).then_some(());
    eventually("a certificate", served).await.with_context(|| postern.told())?;
    let before = shown(&world, "app").await?;
    let other: String = config
        .lines()
        .map(|line| match line.starts_with("autocert_ca:") {
            true => format!("autocert_ca: https://127.0.0.1:{nobody}/dir\n"),
            false => format!("{line}\n"),
        })
        .collect();
    world.write_config(&other)?;
    eventually("a line on the failure", async || {
        let mut log = postern.log().into_iter();
        log.find(|line| line["message"] == "no certificate was issued; what was served before is served on")
    })
    .await
    .with_context(|| postern.told())?;
    assert_eq!(shown(&world, "app").await?, before);
    assert_eq!(visit(&world, &root, "app").await?, 200);
    Ok(())
}

#[tokio::test]
async fn to_start_again_is_no_way_around_the_pause_after_an_order_that_failed() -> Result<()> {
    let (world, upstream) = (World::new()?, Upstream::start().await?);
    // It looks where nobody is.
    let pebble = Pebble::start(&world, &Behaviour { ports: (1, 1), ..Behaviour::default() }).await?;
    let settings = format!("{NO_PROVIDER}{}", pebble.settings(&world));
    let config = without_certificate(&world.config(&settings, &world.route("app", &upstream.url(), PUBLIC)));
    let postern = Postern::run(&world, &config).await?;
    let failed = async || {
        let all = files(&world.path("autocert")).ok()?;
        (all.iter().filter(|path| path.extension().is_some_and(|end| end == "failed")).count() == 2).then_some(())
    };
    eventually("two names whose order failed", failed).await.with_context(|| postern.told())?;
    postern.kill().await?;
    let postern = Postern::run(&world, &config).await?;
    let waits = eventually("lines on the pause", async || {
        let message = "nothing is ordered yet: the last order has just failed";
        let lines = postern.log().into_iter().filter(|line| line["message"] == message).collect::<Vec<_>>();
        (lines.len() == 2).then_some(lines)
    });
    for line in waits.await.with_context(|| postern.told())? {
        assert!(line["again_in"].as_u64().is_some_and(|seconds| seconds <= 300), "{line}");
    }
    assert!(!postern.told().contains("no certificate was issued"), "{}", postern.told());
    Ok(())
}

#[tokio::test]
async fn an_authority_that_has_forgotten_the_account_is_asked_for_another_one() -> Result<()> {
    let (world, upstream) = (World::new()?, Upstream::start().await?);
    let behaviour = Behaviour { ports: (world.port, 1), ..Behaviour::default() };
    let pebble = Pebble::start(&world, &behaviour).await?;
    let (root, settings) = (pebble.root().await?, format!("{NO_PROVIDER}{}", pebble.settings(&world)));
    let config = without_certificate(&world.config(&settings, &world.route("one", &upstream.url(), PUBLIC)));
    let postern = Postern::run(&world, &config).await?;
    let served = async || (visit(&world, &root, "one").await.ok()? == 200).then_some(());
    eventually("a certificate", served).await.with_context(|| postern.told())?;
    let pebble = pebble.begin_anew(&world, &behaviour).await?;
    let root = pebble.root().await?;
    world.write_config(&[config, world.route("two", &upstream.url(), PUBLIC)].concat())?;
    let served = async || (visit(&world, &root, "two").await.ok()? == 200).then_some(());
    eventually("a certificate by another account", served).await.with_context(|| postern.told())?;
    let kept = files(&world.path("autocert"))?;
    for name in ["account.json", "account.json.unknown"] {
        assert!(kept.iter().any(|path| path.ends_with(name)), "{name}: {kept:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_certificate_is_renewed_while_it_is_served() -> Result<()> {
    let (world, upstream) = (World::new()?, Upstream::start().await?);
    let behaviour = Behaviour { ports: (world.port, 1), validity: Some(30), ..Behaviour::default() };
    let pebble = Pebble::start(&world, &behaviour).await?;
    let root = pebble.root().await?;
    let settings = format!("{NO_PROVIDER}{}", pebble.settings(&world));
    let config = without_certificate(&world.config(&settings, &world.route("app", &upstream.url(), PUBLIC)));
    let postern = Postern::run(&world, &config).await?;
    eventually("a certificate", async || visit(&world, &root, "app").await.ok())
        .await
        .with_context(|| postern.told())?;
    let first = shown(&world, "app").await?;
    eventually("another certificate", async || {
        assert_eq!(visit(&world, &root, "app").await.expect("a good certificate all the time"), 200);
        (shown(&world, "app").await.ok()? != first).then_some(())
    })
    .await
    .with_context(|| postern.told())?;
    Ok(())
}

#[tokio::test]
async fn where_tls_does_not_lead_here_plain_http_is_looked_at_by_an_account_from_elsewhere() -> Result<()> {
    const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let (world, upstream, redirect) = (World::new()?, Upstream::start().await?, free_port()?);
    let behaviour = Behaviour { ports: (1, redirect), accounts: [("kid-1", KEY)].into(), ..Behaviour::default() };
    let pebble = Pebble::start(&world, &behaviour).await?;
    let root = pebble.root().await?;
    let account = format!("autocert_eab_key_id: kid-1\nautocert_eab_mac_key: {KEY}\n");
    let settings =
        format!("{NO_PROVIDER}{}{account}http_redirect_addr: 127.0.0.1:{redirect}\n", pebble.settings(&world));
    let config = without_certificate(&world.config(&settings, &world.route("app", &upstream.url(), PUBLIC)));
    let postern = Postern::run(&world, &config).await?;
    let served = async || (visit(&world, &root, "app").await.ok()? == 200).then_some(());
    eventually("a certificate", served).await.with_context(|| postern.told())?;
    Ok(())
}

#[tokio::test]
async fn while_the_authority_is_away_a_certificate_of_our_own_is_served_and_the_log_says_what_to_do() -> Result<()> {
    let (world, upstream, nobody) = (World::new()?, Upstream::start().await?, free_port()?);
    let settings = format!(
        "{NO_PROVIDER}autocert: true\nautocert_ca: https://127.0.0.1:{nobody}/dir\nautocert_dir: {}\n",
        world.path("autocert").display()
    );
    let config = without_certificate(&world.config(&settings, &world.route("app", &upstream.url(), PUBLIC)));
    let postern = Postern::run(&world, &config).await?;
    let failed = eventually("a line on the failure", async || {
        postern.log().into_iter().find(|line| line["hint"].as_str().is_some_and(|hint| hint.contains("autocert_ca")))
    });
    let failed = failed.await.with_context(|| postern.told())?;
    assert!(failed["error"].as_str().is_some_and(|error| error.contains("no account")), "{failed}");
    assert!(failed["again_in"].as_u64().is_some_and(|seconds| seconds >= 300), "{failed}");
    shown(&world, "app").await.context("a certificate of our own")?;
    assert!((metric(&world, "postern_autocert_names_without_certificate").await? - 2.0).abs() < f64::EPSILON);
    let mut stream = world.unverified("app").await?;
    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", world.host("app"));
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    let _unclean = stream.read_to_string(&mut answer).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    Ok(())
}
