//! A new configuration takes over while requests run: whole, or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use reqwest::StatusCode;

use crate::support::{Browser, NO_PROVIDER, PUBLIC, Postern, Provider, Upstream, World, eventually, plain_client};

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
    postern.says("stays in force").await?;

    world.write_config(&saying(&world, "second"))?;
    eventually("the mended file", async || {
        browser.peek(world.url("open", "/")).await.ok().filter(|page| page.body.trim() == "second")
    })
    .await?;
    Ok(())
}

/// How often, from the environment; the full measure of a release build is 1,000 reloads of 10,000 routes.
#[expect(clippy::disallowed_methods, reason = "how much is asked of a test is no setting of the product")]
fn measure(variable: &str, usual: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[tokio::test]
async fn r_020_every_request_sees_one_configuration_none_fails_and_memory_does_not_grow() -> Result<()> {
    let (reloads, routes) = (measure("POSTERN_TEST_RELOADS", 20), measure("POSTERN_TEST_ROUTES", 500));
    let world = Arc::new(World::new()?);
    let others: String = (0..routes)
        .map(|number| {
            let from = world.url(&format!("other{number}"), "");
            format!(
                "  - from: {from}\n    prefix: /p{number}/\n    to: http://127.0.0.1:9\n    \
                 policy: [{{ allow: {{ and: [{{ domain: example.com }}, {{ claim/groups: team{number} }}] }} }}]\n"
            )
        })
        .collect();
    let text = |word: &str| saying(&world, word) + others.as_str() + "runtime_flags: { config_hot_reload: false }\n";
    let postern = Postern::run(&world, &text("word0")).await?;
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4).map(|_| tokio::spawn(ask(world.clone(), over.clone()))).collect();

    let (reload, client) = (format!("http://127.0.0.1:{}/reload", world.health), plain_client()?);
    let mut browser = Browser::new(&world.ca_pem())?;
    let (at_start, mut settled, mut took) = (postern.memory()?, 0, Vec::new());
    for round in 1..=reloads {
        let word = format!("word{round}");
        world.write_config(&text(&word))?;
        let begun = Instant::now();
        let verdict = client.post(&reload).header("X-Postern-Reload", "1").send().await?;
        took.push(begun.elapsed());
        ensure!(verdict.status() == StatusCode::OK, "{}", verdict.text().await?);
        let page = browser.peek(world.url("open", "/")).await?;
        ensure!(page.body.trim() == word, "the verdict came too early: {page:?}");
        browser.trail.clear();
        if round == reloads / 4 {
            settled = postern.memory()?;
        }
    }
    let grown = postern.memory()?.saturating_sub(settled);
    over.store(true, Ordering::Relaxed);
    let mut asked = 0;
    for client in clients {
        asked += client.await??;
    }
    took.sort_unstable();
    let (median, slowest) = (took[took.len() / 2], took[took.len() - 1]);
    println!(
        "{reloads} reloads of {routes} routes beside {asked} requests: median {median:?}, slowest {slowest:?}; resident {at_start} at \
         start, {settled} after a quarter of them, then {grown} more"
    );
    assert!(asked > 100, "only {asked} requests ran beside the reloads");
    assert!(grown < 32 << 20, "{grown} bytes more than after a quarter of the reloads, {settled}");
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
async fn r_021_to_lose_every_certificate_is_told_once_a_reload() -> Result<()> {
    let world = World::new()?;
    let postern = Postern::run(&world, &saying(&world, "here")).await?;
    let text = saying(&world, "here");
    let kept: Vec<_> = text.lines().filter(|line| !line.starts_with("certificate_")).collect();
    let before = reloads(&world, "applied").await?;
    world.write_config(&format!("insecure_server: true\n{}\n", kept.join("\n")))?;
    eventually("the reload to be counted", async || (reloads(&world, "applied").await.ok()? > before).then_some(()))
        .await?;
    postern.says("applied: version 1 is in force").await?;
    let told = postern.told();
    assert_eq!(told.matches("no certificate is configured any more").count(), 1, "{told}");
    Ok(())
}

#[tokio::test]
async fn sighup_reads_the_file_again_whatever_is_watched() -> Result<()> {
    let world = World::new()?;
    let cold = |word: &str| saying(&world, word) + "runtime_flags: { config_hot_reload: false }\n";
    let postern = Postern::run(&world, &cold("first")).await?;
    postern.signal("HUP")?;
    eventually("the look to be counted", async || (reloads(&world, "unchanged").await.ok()? == 1).then_some(()))
        .await?;
    assert_eq!(reloads(&world, "applied").await?, 1, "only the start");

    world.write_config(&cold("second"))?;
    postern.signal("HUP")?;
    eventually("the reload to be counted", async || (reloads(&world, "applied").await.ok()? == 2).then_some(()))
        .await?;
    world.write_config("routes: [")?;
    postern.signal("HUP")?;
    eventually("the failure to be counted", async || (reloads(&world, "refused").await.ok()? == 1).then_some(()))
        .await?;
    for sentence in [
        "nothing has changed: version 0 stays in force",
        "applied: version 1 is in force, with 1 routes",
        "`[` is never closed",
        "refused: the configuration has errors; version 1 stays in force",
    ] {
        postern.says(sentence).await?;
    }
    Ok(())
}

/// `postern reload` at this world's admin address: its exit code and all that it said.
fn ask_to_reload(world: &World, more: &[&str]) -> Result<(Option<i32>, String)> {
    let address = format!("127.0.0.1:{}", world.health);
    let ended = Postern::once(world.folder(), &[&["reload", "--address", &address], more].concat())?;
    Ok((ended.status.code(), ended.told()))
}

#[tokio::test]
async fn r_019_postern_reload_reports_the_verdict_and_every_problem() -> Result<()> {
    let world = World::new()?;
    let cold = |text: &str| text.to_owned() + "runtime_flags: { config_hot_reload: false }\n";
    let (code, told) = ask_to_reload(&world, &[])?;
    assert_eq!(code, Some(3), "{told}");

    let _postern = Postern::run(&world, &cold(&saying(&world, "first"))).await?;
    let (code, told) = ask_to_reload(&world, &[])?;
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("nothing has changed: version 0 stays in force"), "{told}");

    world.write_config(&cold(&saying(&world, "second")))?;
    let (code, told) = ask_to_reload(&world, &[])?;
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("applied: version 1 is in force, with 1 routes"), "{told}");
    let mut browser = Browser::new(&world.ca_pem())?;
    assert_eq!(
        browser.peek(world.url("open", "/")).await?.body.trim(),
        "second",
        "it is in force when the answer comes"
    );

    // Every problem, in the words of `check`.
    let broken = cold(&saying(&world, "third")).replace("body:", "boddy:") + "log_level: chatty\n";
    let file = world.write_config(&broken)?.display().to_string();
    let (code, told) = ask_to_reload(&world, &[])?;
    assert_eq!(code, Some(1), "{told}");
    let checked = Postern::once(world.folder(), &["check", &file])?.stdout;
    assert!(checked.contains("PST-0101") && checked.contains("PST-0204"), "{checked}");
    // Whoever may ask for a reload may not be allowed to read the file: no line of it is in the answer.
    let is_of_the_file =
        |line: &&str| line.trim_start_matches([' ', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']).starts_with('|');
    assert!(checked.lines().any(|line| is_of_the_file(&line)), "{checked}");
    let without: Vec<_> = checked.lines().filter(|line| !is_of_the_file(line)).collect();
    assert!(told.contains(without.join("\n").trim()), "{told}\n--- but check says\n{checked}");
    assert!(told.contains("version 1 stays in force"), "{told}");
    let (code, told) = ask_to_reload(&world, &["--format", "json"])?;
    let told: serde_json::Value = serde_json::from_str(&told)?;
    assert_eq!((code, &told["verdict"], &told["version"]), (Some(1), &"refused".into(), &1.into()), "{told}");
    let problems = told["check"]["problems"].as_array().context("problems")?;
    assert!(problems.iter().any(|problem| problem["code"] == "PST-0204"), "{told}");

    // What cannot change live is named, and the rest holds; asked again nothing has changed, and it is named again.
    let moved = cold(&saying(&world, "fourth")) + "http_redirect_addr: 127.0.0.1:1\ntimeout_write: 7s\n";
    world.write_config(&moved)?;
    for verdict in ["applied", "unchanged"] {
        let (code, told) = ask_to_reload(&world, &["--format", "json"])?;
        let told: serde_json::Value = serde_json::from_str(&told)?;
        assert_eq!((code, &told["verdict"], &told["version"]), (Some(0), &verdict.into(), &2.into()), "{told}");
        assert_eq!(told["needs_restart"], serde_json::json!(["http_redirect_addr"]), "{told}");
    }
    let (_, told) = ask_to_reload(&world, &[])?;
    assert!(told.contains("`http_redirect_addr` has changed, and takes effect only at the next start"), "{told}");
    assert_eq!(browser.peek(world.url("open", "/")).await?.body.trim(), "fourth");
    Ok(())
}

#[tokio::test]
async fn s_113_nobody_but_a_program_on_this_machine_reloads() -> Result<()> {
    let world = World::new()?;
    let _postern = Postern::run(&world, &saying(&world, "first")).await?;
    let admin = format!("http://127.0.0.1:{}/reload", world.health);
    let client = plain_client()?;
    let ask = || client.post(&admin).header("X-Postern-Reload", "1");
    assert_eq!(ask().send().await?.status(), StatusCode::OK);
    assert_eq!(client.get(&admin).send().await?.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(client.post(&admin).send().await?.status(), StatusCode::FORBIDDEN, "a field of ours is wanted");
    for (name, value) in
        [("Origin", "x"), ("X-Forwarded-For", "x"), ("Via", "x"), ("Host", "evil.example.com"), ("Host", "")]
    {
        assert_eq!(ask().header(name, value).send().await?.status(), StatusCode::FORBIDDEN, "{name}");
    }
    let metrics = format!("http://127.0.0.1:{}/reload", world.metrics);
    assert_eq!(client.post(&metrics).header("X-Postern-Reload", "1").send().await?.status(), StatusCode::NOT_FOUND);
    let mut browser = Browser::new(&world.ca_pem())?;
    assert_eq!(browser.peek(world.url("nowhere", "/reload")).await?.status, StatusCode::NOT_FOUND);
    assert_eq!(browser.peek(world.url("open", "/reload")).await?.body.trim(), "first", "it is the route's");
    Ok(())
}

#[tokio::test]
async fn r_020_a_policy_or_regex_that_cannot_be_compiled_leaves_routes_and_policies_as_they_were() -> Result<()> {
    let world = World::new()?;
    let upstream = Upstream::start().await?;
    let open = world.route("open", &upstream.url(), PUBLIC);
    let good = world.config(NO_PROVIDER, &open);
    let _postern = Postern::run(&world, &good).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    let closed = ["policy: [{ deny: { or: [{ accept: true }] } }]"];
    for (broken, code) in [
        (&["policy: [{ allow: { or: [{ emial: { is: a } }] } }]"][..], "PST-0701"),
        (&["policy: [{ permit: { or: [{ accept: true }] } }]"], "PST-0701"),
        (&["regex: '/(?=x)'", "allow_public_unauthenticated_access: true"], "PST-0209"),
    ] {
        let late = [
            world.route("late", &upstream.url(), PUBLIC),
            world.route("open", &upstream.url(), &closed),
            world.route("odd", &upstream.url(), broken),
        ];
        let text = world.config(NO_PROVIDER, &late.concat());
        let file = world.write_config(&text)?.display().to_string();
        let (exit, told) = ask_to_reload(&world, &[])?;
        assert_eq!(exit, Some(1), "{told}");
        assert!(told.contains(code), "{told}");
        assert_eq!(browser.peek(world.url("late", "/")).await?.status, StatusCode::NOT_FOUND, "no new route");
        assert_eq!(browser.peek(world.url("open", "/")).await?.status, StatusCode::OK, "no new policy");
        // The same file is no start either.
        let started = Postern::once(world.folder(), &["run", "--config", &file])?;
        assert_eq!(started.status.code(), Some(1), "{started:?}");
        assert!(started.told().contains(code), "{started:?}");
    }
    let both = [world.route("late", &upstream.url(), PUBLIC), world.route("open", &upstream.url(), &closed)];
    world.write_config(&world.config(NO_PROVIDER, &both.concat()))?;
    assert_eq!(ask_to_reload(&world, &[])?.0, Some(0));
    assert_eq!(browser.peek(world.url("late", "/")).await?.status, StatusCode::OK);
    assert_eq!(browser.peek(world.url("open", "/")).await?.status, StatusCode::FORBIDDEN);
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
    postern.says("takes effect only at the next start").await?;
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
