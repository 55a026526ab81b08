//! What upstreams and browsers are told, and what they are never told.

use anyhow::{Context, Result};
use reqwest::{Method, StatusCode};

use crate::support::{ANY_USER, Asked, Browser, NO_PROVIDER, PUBLIC, Postern, Provider, Recorder, Upstream, World};

struct Office {
    world: World,
    browser: Browser,
    upstream: Upstream,
    _provider: Provider,
    _postern: Postern,
}

async fn open() -> Result<Office> {
    let world = World::new()?;
    let (upstream, provider) = (Upstream::start().await?, Provider::start(&world, Some("alice"))?);
    let settings = format!("{}jwt_claims_headers: [email, groups, absent]\n", provider.settings());
    let routes = [
        world.route("app", &upstream.url(), ANY_USER),
        world.route("quiet", &upstream.url(), &["allow_any_authenticated_user: true", "pass_identity_headers: false"]),
        world.route("open", &upstream.url(), PUBLIC),
    ]
    .concat();
    let postern = Postern::run(&world, &world.config(&settings, &routes)).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    browser.visit(world.url("app", "/")).await.with_context(|| postern.told())?;
    browser.visit(world.url("quiet", "/")).await?;
    Ok(Office { world, browser, upstream, _provider: provider, _postern: postern })
}

impl Office {
    async fn ask(&mut self, name: &str, headers: &[(&str, &str)]) -> Result<(StatusCode, Option<Asked>)> {
        let mut request = self.browser.request(Method::GET, self.world.url(name, "/"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self.browser.send(request).await?;
        Ok((answer.status, answer.json().ok()))
    }
}

#[tokio::test]
async fn identity_fields_come_from_us_or_not_at_all() -> Result<()> {
    let mut office = open().await?;
    let forged = [
        ("x-pomerium-claim-email", "root@example.com"),
        ("x-pomerium-claim-groups", "root"),
        ("x-pomerium-claim-other", "root"),
        ("x-pomerium-jwt-assertion", "forged"),
        ("x-pomerium-jwt-assertion-for", "forged"),
    ];
    let (_, asked) = office.ask("app", &forged).await?;
    let asked = asked.context("refused")?;
    assert_eq!(asked.header("x-pomerium-claim-email"), Some("alice@example.com"), "{asked:?}");
    assert_eq!(asked.header("x-pomerium-claim-groups"), Some("admins"));
    assert_eq!(asked.header("x-pomerium-claim-absent"), Some(""));
    assert_eq!(asked.header("x-pomerium-claim-other"), None, "S-038");
    assert!(asked.header("x-pomerium-jwt-assertion").is_some_and(|assertion| assertion.matches('.').count() == 2));
    for name in ["quiet", "open"] {
        let (_, asked) = office.ask(name, &forged).await?;
        let asked = asked.with_context(|| format!("{name} refused"))?;
        let leaked: Vec<_> = asked.headers.iter().filter(|(name, _)| name.starts_with("x-pomerium-")).collect();
        assert!(leaked.is_empty(), "S-038, S-046 at {name}: {leaked:?}");
    }
    Ok(())
}

#[tokio::test]
async fn row_jwt_groups_filter_leaves_only_the_groups_that_it_names() -> Result<()> {
    let (world, upstream) = (World::new()?, Upstream::start().await?);
    let provider = Provider::start(&world, Some("alice"))?;
    let more = [ANY_USER, &["jwt_groups_filter: [admins]"]].concat();
    let routes = [
        world.route("few", &upstream.url(), ANY_USER),
        world.route("more", &upstream.url(), &more),
        format!("{}    prefix: /x\n", world.route("more", &upstream.url(), ANY_USER)),
    ];
    let routes = format!("{}{}{}", routes[2], routes[0], routes[1]);
    let settings = format!("{}jwt_claims_headers: [groups]\njwt_groups_filter: [others]\n", provider.settings());
    let postern = Postern::run(&world, &world.config(&settings, &routes)).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    for (name, path, groups) in [("few", "/", ""), ("more", "/", "admins"), ("more", "/x", ""), ("more", "/", "admins")]
    {
        browser.visit(world.url(name, path)).await.with_context(|| postern.told())?;
        let seen = upstream.seen();
        let asked = seen.last().context("nothing was seen")?;
        assert_eq!(asked.header("x-pomerium-claim-groups"), Some(groups), "{name}{path}: {asked:?}");
    }
    Ok(())
}

#[tokio::test]
async fn s_041_our_credentials_stay_here_and_other_cookies_pass() -> Result<()> {
    let mut office = open().await?;
    let host = format!("app.{}", World::DOMAIN);
    let session = office.browser.cookie(&host, "_pomerium").context("no session")?.to_owned();
    let cookies = format!("a=1; _pomerium={session}; b=2");
    office.browser.cookies.clear();
    let (_, asked) = office.ask("app", &[("cookie", &cookies), ("authorization", "Basic dXBzdHJlYW0=")]).await?;
    let asked = asked.context("refused")?;
    assert_eq!(asked.header("cookie"), Some("a=1; b=2"));
    assert_eq!(asked.header("authorization"), Some("Basic dXBzdHJlYW0="));
    let (_, asked) = office.ask("open", &[("authorization", &format!("Pomerium {session}"))]).await?;
    assert!(asked.is_none_or(|asked| asked.header("authorization").is_none()));
    Ok(())
}

#[tokio::test]
async fn s_040_forwarded_fields_are_ours_unless_hops_are_trusted() -> Result<()> {
    let mut office = open().await?;
    let forged = [
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-proto", "http"),
        ("x-real-ip", "6.6.6.6"),
        ("forwarded", "for=6.6.6.6"),
    ];
    let (_, asked) = office.ask("open", &forged).await?;
    let asked = asked.context("refused")?;
    assert_eq!(asked.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(asked.header("x-forwarded-proto"), Some("https"));
    assert!(!format!("{asked:?}").contains("6.6.6.6"), "{asked:?}");
    Ok(())
}

#[tokio::test]
async fn s_040_forwarded_fields_are_dropped_behind_a_peer_that_is_not_among_the_trusted_ones() -> Result<()> {
    let (world, upstream) = (World::new()?, Upstream::start().await?);
    let config = |peers: &str| {
        let settings = format!("{NO_PROVIDER}xff_num_trusted_hops: 1\nxff_trusted_peers: {peers}\n");
        world.config(&settings, &world.route("open", &upstream.url(), PUBLIC))
    };
    let own = world.host("open");
    for (peers, client, host) in [("127.0.0.0/8", "6.6.6.6", "h.example"), ("10.0.0.0/8", "127.0.0.1", own.as_str())] {
        let postern = Postern::run(&world, &config(peers)).await?;
        let request = format!(
            "GET /{peers} HTTP/1.1\r\nHost: {}\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Host: h.example\r\n\
             Connection: close\r\n\r\n",
            world.host("open")
        );
        world.exchange("open", &request).await?;
        let seen = upstream.seen();
        let asked = seen.last().context("refused")?;
        // Ours come after what is believed.
        let first = |name: &str| asked.header(name).unwrap_or_default().split(", ").next().map(str::to_owned);
        assert_eq!(first("x-forwarded-for").as_deref(), Some(client), "{peers}: {asked:?}");
        assert_eq!(first("x-forwarded-host").as_deref(), Some(host), "{peers}: {asked:?}");
        drop(postern);
    }
    Ok(())
}

#[tokio::test]
async fn s_050_our_own_answers_carry_the_fields_that_protect_them() -> Result<()> {
    let mut office = open().await?;
    for (name, path) in [("app", "/.pomerium/"), ("unknown", "/"), ("authenticate", "/.pomerium/sign_out")] {
        let answer = office.browser.peek(office.world.url(name, path)).await?;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{name}{path}: {answer:?}");
        assert_eq!(answer.header("cache-control"), "no-store", "{name}{path}: {answer:?}");
        assert!(!answer.header("strict-transport-security").is_empty(), "{name}{path}: {answer:?}");
        let rules = answer.header("content-security-policy");
        assert!(
            rules.contains("default-src 'none'") && !rules.contains("script-src 'unsafe-inline'"),
            "{name}{path}: {rules}"
        );
        assert!(!answer.header("x-request-id").is_empty(), "R-032 {name}{path}: {answer:?}");
        assert!(!answer.header("server").contains("ingora"), "{answer:?}");
    }
    assert!(office.upstream.seen().iter().all(|asked| !asked.target.starts_with("/.pomerium")), "S-034");
    Ok(())
}

#[tokio::test]
async fn s_039_connection_takes_away_the_clients_own_fields_alone() -> Result<()> {
    let world = World::new()?;
    let (recorder, provider) = (Recorder::start().await?, Provider::start(&world, Some("alice"))?);
    let postern =
        Postern::run(&world, &world.config(&provider.settings(), &world.route("app", &recorder.url(), ANY_USER)))
            .await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    browser.visit(world.url("app", "/")).await.with_context(|| postern.told())?;
    let session = browser.cookie(&format!("app.{}", World::DOMAIN), "_pomerium").context("no session")?;

    let answer = world
        .exchange(
            "app",
            &format!(
                "GET /marked HTTP/1.1\r\nHost: {}\r\nCookie: _pomerium={session}; a=b\r\nX-Own: 1\r\nX-Kept: 2\r\nTE: gzip\r\nKeep-Alive: 5\r\n\
                 Connection: close, x-own, x-pomerium-jwt-assertion, x-forwarded-for, cookie, host\r\n\r\n",
                world.host("app")
            ),
        )
        .await?;

    assert!(answer.starts_with("HTTP/1.1 200"), "{answer} {} {}", postern.told(), recorder.text());
    let text = recorder.text();
    let head = text.split("GET /marked ").nth(1).context("the upstream saw nothing")?.to_ascii_lowercase();
    for kept in [
        "\r\nhost:",
        "\r\ncookie: a=b\r\n",
        "\r\nx-kept: 2\r\n",
        "\r\nx-pomerium-jwt-assertion: ",
        "\r\nx-forwarded-for: 127.0.0.1\r\n",
    ] {
        assert!(head.contains(kept), "{kept:?} is missing: {head}");
    }
    for gone in ["x-own", "\r\nte:", "\r\nkeep-alive:", "close"] {
        assert!(!head.contains(gone), "{gone:?} went on: {head}");
    }
    Ok(())
}
