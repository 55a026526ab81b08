//! `services`: edges and authn in processes of their own, which meet in a Redis.

use anyhow::{Context, Result, ensure};
use postern_servers::Redis;
use reqwest::StatusCode;
use serde_json::json;

use crate::support::{
    ANY_USER, Asked, Browser, Deployment, Postern, Upstream, World, eventually, free_ports, start_apart, verified,
};

/// Two edges, each with an authn of its own to ask, and their store.
async fn office() -> Result<(Deployment, Redis)> {
    let store = Redis::start(&[]);
    let routes = |world: &World, upstream: &Upstream| world.route("app", &upstream.url(), ANY_USER);
    Ok((Deployment::start(&format!("redis://127.0.0.1:{}", store.port()), 2, ["", ""], routes).await?, store))
}

/// The paths that a process has carried for authn.
fn carried(postern: &Postern, path: &str) -> usize {
    postern.log().iter().filter(|line| line.get("path").is_some_and(|own| own == path)).count()
}

#[tokio::test]
async fn a_sign_in_may_begin_on_one_node_and_end_on_another() -> Result<()> {
    let (office, _store) = office().await?;
    let mut browser = Browser::without_pool(&office.world.ca_pem())?;
    let form = browser.visit(office.world.url("app", "/notes")).await?;
    ensure!(form.url.as_str().starts_with(&office.provider.issuer), "{form:?}\n{}", office.told());
    let page = browser.submit(&form, "Sign in", &[("user", "alice")]).await?;
    ensure!(page.status == StatusCode::OK, "{page:?}\n{}", office.told());
    let asked: Asked = page.json()?;
    let assertion = asked.header("x-pomerium-jwt-assertion").context("no assertion")?;
    let host = format!("app.{}", World::DOMAIN);
    let claims = verified(&mut browser, &office.world.url("app", ""), &host, assertion).await?;
    assert_eq!(claims.get("email"), Some(&json!("alice@example.com")));

    // Each connection went to the next edge, and each edge asks an authn of its own: so both had a part.
    let of_authn = ["/.pomerium/sign_in", "/oauth2/callback", "/.pomerium/callback/", "/.pomerium/callback"];
    for authn in &office.authns {
        let part = async || of_authn.iter().any(|path| carried(&authn.postern, path) > 0).then_some(());
        eventually("each authn's part in the sign-in", part).await.with_context(|| office.told())?;
    }
    for _ in 0..4 {
        let page = browser.peek(office.world.url("app", "/")).await?;
        ensure!(page.status == StatusCode::OK, "every edge knows the session: {page:?}");
    }

    let question = browser.visit(office.world.url("app", "/.pomerium/sign_out")).await?;
    let signed_out = browser.submit(&question, "Sign out", &[]).await?;
    ensure!(signed_out.status.is_success(), "{signed_out:?}\n{}", office.told());
    for _ in 0..4 {
        let answer = browser.peek(office.world.url("app", "/")).await?;
        ensure!(answer.status == StatusCode::FOUND, "no edge knows it any more: {answer:?}");
    }
    Ok(())
}

#[tokio::test]
async fn s_114_authn_answers_edges_of_its_deployment_and_serves_its_own_host_itself() -> Result<()> {
    let (office, _store) = office().await?;
    let authn = office.authns.first().context("an authn")?.port;
    let mut browser = Browser::without_pool(&office.world.ca_pem())?;
    let at = |name: &str, path: &str| format!("https://{name}.{}:{authn}{path}", World::DOMAIN);
    // Nobody but an edge may speak for the client of a route's host, and this process carries nothing to applications.
    for token in [None, Some("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")] {
        for path in ["/", "/.pomerium/sign_out", "/.pomerium/callback/?a=b"] {
            let mut request =
                browser.request(reqwest::Method::GET, at("app", path)).header("host", office.world.host("app"));
            if let Some(token) = token {
                request = request.header("x-pomerium-edge", token).header("x-postern-edge", token);
            }
            let answer = browser.send(request).await?;
            ensure!(answer.status == StatusCode::NOT_FOUND, "{path} {token:?}: {answer:?}");
        }
    }
    assert!(office.upstream.seen().is_empty());
    // The host where people sign in is served here too, as a balancer in front of Pomerium's authenticate service expects it.
    let request = browser.request(reqwest::Method::GET, at("authenticate", "/.pomerium/signed_out"));
    let host = office.world.host("authenticate");
    let answer = browser.send(request.header("host", host)).await?;
    ensure!(answer.status == StatusCode::OK, "{answer:?}\n{}", office.told());
    Ok(())
}

#[tokio::test]
async fn an_edge_that_is_taken_for_authn_says_so_at_once() -> Result<()> {
    let (office, _store) = office().await?;
    let port = free_ports(3)?;
    let config = office.edge(port, port, "").replace("/certificate.pem", "/authn.pem");
    let edge = start_apart(&office.world, "loop", &config.replace("/key.pem", "/authn.key"), port + 1).await?;
    let mut browser = Browser::without_pool(&office.world.ca_pem())?;
    let url = format!("https://app.{}:{port}/.pomerium/sign_out", World::DOMAIN);
    let request = browser.request(reqwest::Method::GET, url).header("host", office.world.host("app"));
    let answer = browser.send(request).await?;
    assert_eq!(answer.status, StatusCode::LOOP_DETECTED, "{}\n{}", answer.body, edge.told());
    let named = async || edge.told().contains("authn-loop").then_some(());
    eventually("the reason in the log", named).await.with_context(|| edge.told())
}
