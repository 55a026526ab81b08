//! Who may pass: every route asks its own policy, anew for each request, and says why not.

use anyhow::{Context, Result};
use reqwest::{Method, StatusCode};

use crate::support::{Browser, Postern, Provider, Upstream, World};

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
