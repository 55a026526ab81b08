//! Figures for the operator: there, bounded, and on an address of their own.

use anyhow::Result;
use reqwest::{Method, StatusCode};

use crate::support::{ANY_USER, Browser, PUBLIC, Postern, Provider, Upstream, World, eventually, plain_client};

#[tokio::test]
async fn requests_decisions_sign_ins_cache_and_reloads_are_counted() -> Result<()> {
    let world = World::new()?;
    let (upstream, provider) = (Upstream::start().await?, Provider::start(&world, Some("carol"))?);
    let admins = ["policy: [{ allow: { and: [{ claim/groups: admins }] } }]"];
    let routes = [
        world.route("app", &upstream.url(), ANY_USER),
        world.route("ops", &upstream.url(), &admins),
        world.route("open", &upstream.url(), PUBLIC),
    ]
    .concat();
    let text = world.config(&provider.settings(), &routes);
    let _postern = Postern::run(&world, &text).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    assert_eq!(browser.visit(world.url("app", "/")).await?.status, StatusCode::OK);
    assert_eq!(browser.visit(world.url("ops", "/")).await?.status, StatusCode::FORBIDDEN);
    assert_eq!(browser.visit(world.url("open", "/")).await?.status, StatusCode::OK);
    world.write_config(&[text, world.route("late", &upstream.url(), PUBLIC)].concat())?;

    for (metric, labels) in [
        ("postern_edge_requests_total", &["method=\"GET\"", "status=\"200\""][..]),
        ("postern_edge_requests_total", &["status=\"403\""]),
        ("postern_edge_request_duration_seconds_count", &[]),
        ("postern_edge_decisions_total", &["decision=\"allow\""]),
        ("postern_edge_decisions_total", &["decision=\"deny\""]),
        ("postern_authn_sign_ins_total", &["outcome="]),
        ("postern_storage_cache_lookups_total", &["outcome="]),
        ("postern_storage_operation_duration_seconds_count", &["operation="]),
        ("postern_config_reloads_total", &["outcome="]),
    ] {
        eventually(&format!("{metric} {labels:?}"), async || {
            let figures = scrape(&world).await.ok()?;
            let fits = |line: &&str| line.starts_with(metric) && labels.iter().all(|label| line.contains(label));
            figures.lines().filter(fits).any(|line| !line.ends_with(" 0")).then_some(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_a_client_sends_makes_no_new_series() -> Result<()> {
    let world = World::new()?;
    let (upstream, provider) = (Upstream::start().await?, Provider::start(&world, None)?);
    let _postern =
        Postern::run(&world, &world.config(&provider.settings(), &world.route("open", &upstream.url(), PUBLIC)))
            .await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    let shout = async |browser: &mut Browser, round: usize| -> Result<()> {
        for method in ["GET", "POST", "BREW", "X-MADE-UP"] {
            let method = Method::from_bytes(method.as_bytes())?;
            for name in ["open", "unknown"] {
                let request = browser.request(method.clone(), world.url(name, &format!("/{round}?{round}")));
                browser.send(request.header("user-agent", round.to_string())).await?;
            }
        }
        Ok(())
    };
    shout(&mut browser, 0).await?;
    let before = scrape(&world).await?.lines().count();
    for round in 1..20 {
        shout(&mut browser, round).await?;
    }
    let figures = scrape(&world).await?;
    assert_eq!(figures.lines().count(), before, "{figures}");
    assert!(!figures.contains("BREW") && !figures.contains("unknown."), "{figures}");
    Ok(())
}

#[tokio::test]
async fn s_113_figures_and_health_are_not_on_the_public_listener() -> Result<()> {
    let world = World::new()?;
    let (upstream, provider) = (Upstream::start().await?, Provider::start(&world, None)?);
    let _postern =
        Postern::run(&world, &world.config(&provider.settings(), &world.route("open", &upstream.url(), PUBLIC)))
            .await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    for path in ["/metrics", "/status", "/readyz"] {
        let through = browser.peek(world.url("open", path)).await?;
        assert!(through.body.contains("\"target\""), "{path} belongs to the upstream: {through:?}");
        let own = browser.peek(world.url("authenticate", path)).await?;
        assert_eq!(own.status, StatusCode::NOT_FOUND, "{path}: {own:?}");
    }
    Ok(())
}

#[tokio::test]
async fn figures_are_for_who_shows_the_password_and_carry_the_installation() -> Result<()> {
    let world = World::new()?;
    let (upstream, provider) = (Upstream::start().await?, Provider::start(&world, None)?);
    let settings = format!("{}metrics_basic_auth: cHJvbTpodW50ZXIy\ninstallation_id: hamburg-1\n", provider.settings());
    let _postern =
        Postern::run(&world, &world.config(&settings, &world.route("open", &upstream.url(), PUBLIC))).await?;
    let ask = || Ok::<_, anyhow::Error>(plain_client()?.get(format!("http://127.0.0.1:{}/metrics", world.metrics)));
    for asked in [ask()?, ask()?.basic_auth("prom", Some("hunter3")), ask()?.bearer_auth("cHJvbTpodW50ZXIy")] {
        let refused = asked.send().await?;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        assert!(refused.headers().get("www-authenticate").is_some_and(|value| value.as_bytes().starts_with(b"Basic ")));
        assert!(!refused.text().await?.contains("postern_"));
    }
    let figures = ask()?.basic_auth("prom", Some("hunter2")).send().await?.error_for_status()?.text().await?;
    assert!(figures.contains("postern_") && figures.contains("installation_id=\"hamburg-1\""), "{figures}");
    Ok(())
}

async fn scrape(world: &World) -> Result<String> {
    let answer = plain_client()?.get(format!("http://127.0.0.1:{}/metrics", world.metrics)).send().await?;
    Ok(answer.error_for_status()?.text().await?)
}
