//! Who may pass: every route asks its own policy, anew for each request, and says why not.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{Browser, NO_PROVIDER, PUBLIC, Postern, Provider, Upstream, World, eventually, plain_client};

const ROUTES: &[(&str, &[&str])] = &[
    ("domain", &["policy: [{ allow: { or: [{ domain: { is: example.com } }] } }]"]),
    ("email", &["policy: [{ allow: { or: [{ email: { is: carol@example.org } }] } }]"]),
    ("group", &["policy: [{ allow: { and: [{ claim/groups: { has: engineering } }] } }]"]),
    (
        "notadmin",
        &["policy: [{ allow: { and: [{ authenticated_user: true }] } }, { deny: { or: [{ claim/groups: admins }] } }]"],
    ),
    ("reading", &["policy: [{ allow: { and: [{ authenticated_user: true }, { http_method: { is: GET } }] } }]"]),
    (
        "below",
        &["policy: [{ allow: { and: [{ authenticated_user: true }, { http_path: { starts_with: /docs/ } }] } }]"],
    ),
    ("here", &["policy: [{ allow: { and: [{ authenticated_user: true }, { source_ip: 10.0.0.0/8 } ] } }]"]),
    ("nobody", &["policy: []"]),
    ("legacy", &["allowed_users: [bob@example.com]", "allowed_idp_claims: { groups: [admins] }"]),
    ("anyone", &["allow_any_authenticated_user: true"]),
];

/// Signs `user` in at every route in turn: those named let them pass, all others answer 403.
async fn passes_at(user: &str, allowed: &[&str]) -> Result<()> {
    let world = World::new()?;
    let (upstream, provider) = (Upstream::start().await?, Provider::start(&world, Some(user))?);
    let routes: String = ROUTES.iter().map(|(name, lines)| world.route(name, &upstream.url(), lines)).collect();
    let postern = Postern::run(&world, &world.config(&provider.settings(), &routes)).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    for (name, _) in ROUTES {
        let page = browser.visit(world.url(name, "/")).await?;
        let expected = if allowed.contains(name) { StatusCode::OK } else { StatusCode::FORBIDDEN };
        assert_eq!(page.status, expected, "{user} at {name}: {page:?}\n{}", postern.told());
    }
    Ok(())
}

#[tokio::test]
async fn alice_of_the_admins_passes_where_the_policies_say() -> Result<()> {
    passes_at("alice", &["domain", "reading", "legacy", "anyone"]).await
}

#[tokio::test]
async fn bob_of_engineering_passes_where_the_policies_say() -> Result<()> {
    passes_at("bob", &["domain", "group", "notadmin", "reading", "legacy", "anyone"]).await
}

#[tokio::test]
async fn carol_of_no_group_passes_where_the_policies_say() -> Result<()> {
    passes_at("carol", &["email", "notadmin", "reading", "anyone"]).await
}

#[tokio::test]
async fn s_069_dave_whose_address_is_not_verified_passes_where_no_address_is_asked_for() -> Result<()> {
    passes_at("dave", &["reading", "legacy", "anyone"]).await
}

#[tokio::test]
async fn s_032_each_request_of_one_connection_is_decided_anew() -> Result<()> {
    let world = World::new()?;
    let (upstream, provider) = (Upstream::start().await?, Provider::start(&world, Some("bob"))?);
    let routes: String = ROUTES.iter().map(|(name, lines)| world.route(name, &upstream.url(), lines)).collect();
    let postern = Postern::run(&world, &world.config(&provider.settings(), &routes)).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    for name in ["reading", "below"] {
        browser.visit(world.url(name, "/")).await.with_context(|| postern.told())?;
    }
    // One client keeps its HTTP/2 connections; only the method or the path differs.
    for _ in 0..3 {
        for (name, method, path, expected) in [
            ("reading", Method::GET, "/", StatusCode::OK),
            ("reading", Method::POST, "/", StatusCode::FORBIDDEN),
            ("below", Method::POST, "/docs/a", StatusCode::OK),
            ("below", Method::GET, "/docs/../a", StatusCode::FORBIDDEN),
            ("below", Method::GET, "/doc", StatusCode::FORBIDDEN),
        ] {
            let request = browser.request(method, world.url(name, path));
            assert_eq!(browser.send(request).await?.status, expected, "{name}{path}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_script_is_told_in_json_and_never_redirected() -> Result<()> {
    let world = World::new()?;
    let (upstream, provider) = (Upstream::start().await?, Provider::start(&world, Some("alice"))?);
    let routes: String = ROUTES.iter().map(|(name, lines)| world.route(name, &upstream.url(), lines)).collect();
    let _postern = Postern::run(&world, &world.config(&provider.settings(), &routes)).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    let fetch = |browser: &Browser, name: &str| {
        browser
            .request(Method::GET, world.url(name, "/"))
            .header("accept", "application/json")
            .header("sec-fetch-mode", "cors")
    };
    let stranger = browser.send(fetch(&browser, "email")).await?;
    assert_eq!(stranger.status, StatusCode::UNAUTHORIZED, "S-088: {stranger:?}");
    assert!(stranger.json::<serde_json::Value>()?.get("request_id").is_some(), "{stranger:?}");

    browser.visit(world.url("email", "/")).await?;
    let denied = browser.send(fetch(&browser, "email")).await?;
    assert_eq!(denied.status, StatusCode::FORBIDDEN, "{denied:?}");
    assert!(denied.json::<serde_json::Value>()?.get("error").is_some(), "{denied:?}");
    let post =
        Browser::new(&world.ca_pem())?.send(browser.request(Method::POST, world.url("email", "/")).body("x")).await?;
    assert!(matches!(post.status.as_u16(), 401 | 303), "S-087: {post:?}");
    Ok(())
}

/// What holds until now on the routes where a rule is tried out.
const HOLDS: &str = "{ allow: { and: [{ authenticated_user: true }] }, deny: { or: [{ http_path: /closed }] } }";

#[tokio::test]
async fn a_rule_that_is_tried_out_refuses_nobody_and_tells_whom_it_would() -> Result<()> {
    let world = World::new()?;
    let (upstream, provider) = (Upstream::start().await?, Provider::start(&world, Some("bob"))?);
    let route = |name: &str, tried: &str| {
        let policy = format!("policy: [{HOLDS}, {{ enforce: false, {tried} }}]");
        world.route(name, &upstream.url(), &[&format!("name: {name}"), &policy])
    };
    let routes = [
        route("mine", "deny: { not: [{ claim/groups: engineering }] }"),
        route("others", "deny: { not: [{ claim/groups: admins }] }"),
        route("reading", "deny: { not: [{ http_method: GET }] }"),
    ]
    .concat();
    let postern = Postern::run(&world, &world.config(&provider.settings(), &routes)).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    for name in ["mine", "others", "reading"] {
        assert_eq!(browser.visit(world.url(name, "/")).await?.status, StatusCode::OK, "{name}: {}", postern.told());
    }
    // Each visit has passed once; before that it was sent to sign in, which counts for nothing.
    let mut expected = BTreeMap::from([("{route=\"others\"}".to_owned(), 1)]);
    for (name, method, path, status, why) in [
        ("mine", Method::GET, "/", StatusCode::OK, None),
        ("others", Method::GET, "/", StatusCode::OK, Some(json!(["claim-unauthorized"]))),
        ("reading", Method::GET, "/", StatusCode::OK, None),
        ("reading", Method::PUT, "/", StatusCode::OK, Some(json!(["http-method-unauthorized"]))),
        // Whom the other rules refuse is refused, and nothing is said of the one that is tried out.
        ("others", Method::GET, "/closed", StatusCode::FORBIDDEN, None),
    ] {
        let answer = browser.send(browser.request(method.clone(), world.url(name, path))).await?;
        assert_eq!(answer.status, status, "{method} {name}{path}: {answer:?}");
        let line = postern.line("authorize check", answer.header("x-request-id")).await?;
        let marked = why.as_ref().map(|_| json!("would-deny"));
        assert_eq!((line.get("dry-run"), line.get("dry-run-why")), (marked.as_ref(), why.as_ref()), "{line}");
        assert_eq!(line.get("deny"), Some(&json!(status == StatusCode::FORBIDDEN)), "{line}");
        if marked.is_some() {
            *expected.entry(format!("{{route=\"{name}\"}}")).or_default() += 1;
        }
        eventually(&format!("{expected:?}"), async || {
            dry_run_refusals(&world).await.ok().filter(|counted| *counted == expected)
        })
        .await?;
    }
    Ok(())
}

/// Labels and values of `postern_edge_dry_run_refusals_total`.
async fn dry_run_refusals(world: &World) -> Result<BTreeMap<String, u64>> {
    let page = plain_client()?.get(format!("http://127.0.0.1:{}/metrics", world.metrics)).send().await?.text().await?;
    let samples = page.lines().filter_map(|line| line.strip_prefix("postern_edge_dry_run_refusals_total"));
    samples
        .map(|sample| {
            let (labels, value) = sample.rsplit_once(' ').context("a sample")?;
            Ok((labels.to_owned(), value.parse()?))
        })
        .collect()
}

#[tokio::test]
async fn routes_that_refuse_nobody_are_named_in_the_log_at_start_and_at_each_reload() -> Result<()> {
    let world = World::new()?;
    let tried = "{ allow: { or: [{ claim/groups: admins }] }, enforce: false }";
    let route = |name: &str, lines: &[&str]| {
        world.route(name, "http://127.0.0.1:9", &[&[&*format!("name: {name}")], lines].concat())
    };
    let (all, one) = (format!("policy: [{tried}]"), format!("policy: [{HOLDS}, {tried}]"));
    let usual = [route("public", PUBLIC), route("one", &[&one]), route("nobody", &["policy: []"])].concat();
    let with_one = usual.clone() + route("all", &[&all]).as_str();
    let with_two = with_one.clone() + route("more", &[&all]).as_str();
    let cold =
        |routes: &str| world.config(&format!("{NO_PROVIDER}runtime_flags: {{ config_hot_reload: false }}"), routes);
    let postern = Postern::run(&world, &cold(&with_one)).await?;
    let reload = async |routes: &str| {
        world.write_config(&cold(routes))?;
        let url = format!("http://127.0.0.1:{}/reload", world.health);
        plain_client()?.post(url).header("X-Postern-Reload", "1").send().await?.error_for_status()?;
        anyhow::Ok(())
    };
    reload(&with_two).await?;
    reload(&usual).await?;
    // Stopped, it has said all.
    postern.signal("TERM")?;
    let finished = postern.finished().await?;
    let lines = finished.stdout.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let warned: Vec<_> = lines.filter(|line| line.get("routes-refusing-nobody").is_some()).collect();
    let told = |line: &serde_json::Value| {
        json!([line["level"], line["service"], line["count"], line["routes-refusing-nobody"]])
    };
    let expected = [json!(["warn", "postern", 1, ["all"]]), json!(["warn", "postern", 2, ["all", "more"]])];
    assert_eq!(warned.iter().map(told).collect::<Vec<_>>(), expected, "{}", finished.told());
    Ok(())
}
