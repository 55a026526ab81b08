//! A Kubernetes API behind a route with a service account's token (01 §2.13): it gets our token and whom it speaks for, and
//! clients that are refused are told as its own would be.

use anyhow::{Context, Result};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::support::{Asked, Browser, NO_PROVIDER, Postern, Provider, Upstream, World, eventually};

/// Lines of a route with the token that is in this file of the world.
fn token_of(world: &World, name: &str) -> String {
    format!("kubernetes_service_account_token_file: {}", world.path(name).display())
}

#[tokio::test]
async fn the_api_sees_who_is_signed_in_in_the_words_of_our_account() -> Result<()> {
    let (world, upstream) = (World::new()?, Upstream::start().await?);
    let provider = Provider::start(&world, Some("alice"))?;
    std::fs::write(world.path("token"), "first.token\n")?;
    let routes = [
        world.route("k8s", &upstream.url(), &["allow_any_authenticated_user: true", &token_of(&world, "token")]),
        world.route("app", &upstream.url(), &["allow_any_authenticated_user: true"]),
    ];
    let postern = Postern::run(&world, &world.config(&provider.settings(), &routes.concat())).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    browser.visit(world.url("k8s", "/")).await.with_context(|| postern.told())?;
    browser.visit(world.url("app", "/")).await?;
    let mut ask = async |name: &str, path: &str| -> Result<Asked> {
        let request = browser.request(Method::GET, world.url(name, path));
        let forged = request.header("impersonate-user", "root").header("impersonate-group", "system:masters");
        let forged = forged.header("connection", "impersonate-user").header("authorization", "Bearer mine");
        browser.send(forged).await?.json()
    };
    let asked = ask("k8s", "/api/v1/pods?watch=1").await?;
    assert_eq!(asked.header("authorization"), Some("Bearer first.token"), "{asked:?}");
    assert_eq!(asked.header("impersonate-user"), Some("alice@example.com"));
    assert_eq!(asked.header("impersonate-group"), Some("admins"));
    assert_eq!(asked.target, "/api/v1/pods?watch=1");
    let asked = ask("app", "/").await?;
    assert_eq!(asked.header("authorization"), Some("Bearer mine"), "another route keeps what the client shows");

    std::fs::write(world.path("token"), "second.token\n")?;
    eventually("the new token", async || {
        let asked = ask("k8s", "/").await.ok()?;
        (asked.header("authorization") == Some("Bearer second.token")).then_some(())
    })
    .await?;
    assert!(!postern.told().contains(".token"), "{}", postern.told());
    Ok(())
}

#[tokio::test]
async fn nobody_speaks_for_the_account_itself_and_kubectl_is_told_as_by_its_own_api() -> Result<()> {
    let (world, upstream) = (World::new()?, Upstream::start().await?);
    std::fs::write(world.path("token"), "the.token")?;
    let routes = [
        world.route(
            "open",
            &upstream.url(),
            &["allow_public_unauthenticated_access: true", &token_of(&world, "token")],
        ),
        world.route("k8s", &upstream.url(), &["allow_any_authenticated_user: true", &token_of(&world, "token")]),
    ];
    let _postern = Postern::run(&world, &world.config(NO_PROVIDER, &routes.concat())).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    let mut ask = async |name: &str, accept: &str| {
        let request = browser.request(Method::GET, world.url(name, "/api"));
        let request = request.header("user-agent", "kubectl/v1.33.0 (linux/amd64) kubernetes/abcdef0");
        browser.send(request.header("accept", accept)).await
    };
    let asked: Asked = ask("open", "application/json").await?.json()?;
    assert_eq!(asked.header("impersonate-user"), Some("system:anonymous"), "{asked:?}");
    assert_eq!(asked.header("impersonate-group"), None);
    for accept in ["application/json", "application/vnd.kubernetes.protobuf", "*/*"] {
        let refused = ask("k8s", accept).await?;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{accept}: never sent to a page");
        let status: Value = refused.json()?;
        assert_eq!((status["kind"].as_str(), status["reason"].as_str()), (Some("Status"), Some("Unauthorized")));
        assert_eq!((status["apiVersion"].as_str(), status["code"].as_u64()), (Some("v1"), Some(401)));
    }
    assert_eq!(upstream.seen().len(), 1);
    Ok(())
}
