//! What is written down of a request, and what never is.

use anyhow::{Context, Result};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::support::{
    ANY_USER, Browser, COOKIE_SECRET, NO_PROVIDER, PUBLIC, Postern, Provider, SHARED_SECRET, Upstream, World,
    plain_client,
};

/// Marks that a request of the test carries.
const AUTHORIZATION: &str = "authorization-mark-7c1f";
const QUERY: &str = "query-mark-93aa";
const COOKIE: &str = "cookie-mark-51e0";

/// The parameters of our own endpoints, and of the provider's answers, that are secrets while they live.
const SECRET_PARAMETERS: &[&str] =
    &["code", "state", "nonce", "code_challenge", "id_token_hint", "pomerium_signature", "pomerium_session_encrypted"];

#[tokio::test]
async fn s_108_no_output_shows_a_secret() -> Result<()> {
    let world = World::new()?;
    let (upstream, provider) = (Upstream::start().await?, Provider::start(&world, Some("alice"))?);
    let settings = format!("{}log_level: debug\n", provider.settings());
    let denied = ["policy: [{ allow: { and: [{ claim/groups: nobody-is-in-it }] } }]", "show_error_details: true"];
    let routes = [
        world.route("app", &upstream.url(), ANY_USER),
        world.route("open", &upstream.url(), PUBLIC),
        world.route("denied", &upstream.url(), &denied),
    ]
    .concat();
    let postern = Postern::run(&world, &world.config(&settings, &routes)).await?;
    let mut browser = Browser::new(&world.ca_pem())?;

    // A life as full as it can be: sign-in, a page of each kind, wrong credentials, a replay, sign-out.
    let mut pages = Vec::new();
    assert_eq!(browser.visit(world.url("app", "/")).await?.status, StatusCode::OK, "{}", postern.told());
    let mut cookies: Vec<String> = browser.cookies.iter().map(|cookie| cookie.value.clone()).collect();
    for path in ["/.pomerium/", "/.pomerium/user", "/.pomerium/nowhere"] {
        pages.push(browser.visit(world.url("app", path)).await?.body);
    }
    pages.push(browser.visit(world.url("denied", "/")).await?.body);
    pages.push(browser.visit(world.url("unknown", "/")).await?.body);
    let callbacks: Vec<_> =
        browser.trail.iter().filter(|hop| hop.url.path().contains("callback")).map(|hop| hop.url.clone()).collect();
    for callback in callbacks {
        pages.push(browser.peek(callback).await?.body);
    }
    let mut stranger = Browser::new(&world.ca_pem())?;
    for name in ["app", "open"] {
        let request = stranger.request(Method::GET, world.url(name, &format!("/x?token={QUERY}")));
        let request = request
            .bearer_auth(AUTHORIZATION)
            .header("cookie", format!("_pomerium={COOKIE}; _pomerium_authenticate={COOKIE}"));
        let answer = stranger.send(request.header("x-pomerium-authorization", AUTHORIZATION)).await?;
        if name == "app" {
            // It names the way back to where one was, query and all; that is the client's own.
            pages.push(answer.body.replace(QUERY, ""));
        }
    }
    cookies.extend(browser.cookies.iter().map(|cookie| cookie.value.clone()));
    pages.push(sign_out(&world, &mut browser).await?);

    let mut outputs = vec![
        ("status".to_owned(), http(world.health, "/status").await?),
        ("metrics".into(), http(world.metrics, "/metrics").await?),
    ];
    outputs.extend(pages.into_iter().enumerate().map(|(index, page)| (format!("page {index}"), page)));
    let finished = stop(postern).await?;
    outputs.extend([("stdout".to_owned(), finished.0), ("stderr".to_owned(), finished.1)]);

    let mut secrets: Vec<String> =
        [SHARED_SECRET, COOKIE_SECRET, Provider::SECRET, AUTHORIZATION, QUERY, COOKIE].map(str::to_owned).to_vec();
    secrets.extend(cookies);
    secrets.extend(issued(&provider).await?);
    let parameters = browser.trail.iter().flat_map(|hop| hop.url.query_pairs().into_owned().collect::<Vec<_>>());
    secrets.extend(parameters.filter(|(name, _)| SECRET_PARAMETERS.contains(&name.as_str())).map(|(_, value)| value));
    secrets
        .extend(upstream.seen().iter().filter_map(|asked| asked.header("x-pomerium-jwt-assertion").map(str::to_owned)));
    secrets.retain(|secret| secret.len() >= 8);
    secrets.sort_unstable();
    secrets.dedup();
    assert!(secrets.len() > 15, "too few secrets to look for: {secrets:#?}");
    for (name, output) in &outputs {
        for secret in &secrets {
            // Signing out hands the ID token to the provider: in an address or a form, as the standard has it.
            assert!(!output.contains(secret.as_str()), "{name} shows {secret}:\n{output}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_request_has_an_access_line_and_an_authorize_line_that_belong_together() -> Result<()> {
    let world = World::new()?;
    let (upstream, provider) = (Upstream::start().await?, Provider::start(&world, Some("alice"))?);
    let routes = world.route("app", &upstream.url(), ANY_USER);

    let postern = Postern::run(&world, &world.config(&provider.settings(), &routes)).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    browser.visit(world.url("app", "/")).await?;

    let request =
        browser.request(Method::GET, world.url("app", "/a/../notes?secret=1")).header("user-agent", "tests/1");
    let answer = browser.send(request.header("referer", "https://elsewhere.example/x?secret=2")).await?;

    let id = answer.header("x-request-id").to_owned();
    assert!(!id.is_empty(), "{answer:?}");
    let access = postern.line("http-request", &id).await?;
    assert_eq!(field(&access, "method"), "GET", "{access}");
    assert_eq!(field(&access, "path"), "/notes", "{access}");
    assert_eq!(field(&access, "authority"), world.host("app"), "{access}");
    assert_eq!(field(&access, "user-agent"), "tests/1", "{access}");
    assert_eq!(field(&access, "referer"), "https://elsewhere.example/x", "{access}");
    assert_eq!(access.get("response-code").and_then(Value::as_u64), Some(200), "{access}");
    for name in ["upstream-cluster", "forwarded-for", "duration", "size", "response-code-details"] {
        assert!(access.get(name).is_some(), "{name}: {access}");
    }
    let authorize = postern.line("authorize check", &id).await?;
    assert_eq!(authorize.get("allow").and_then(Value::as_bool), Some(true), "{authorize}");
    assert_eq!(field(&authorize, "email"), "alice@example.com", "{authorize}");
    assert_eq!(field(&authorize, "user"), "alice", "{authorize}");
    assert_eq!(field(&authorize, "path"), "/notes", "{authorize}");
    assert!(authorize.get("allow-why-true").is_some_and(Value::is_array), "{authorize}");
    for name in ["host", "ip", "session-id", "route-id", "route-checksum", "check-request-id"] {
        assert!(authorize.get(name).is_some(), "{name}: {authorize}");
    }
    Ok(())
}

#[tokio::test]
async fn s_109_a_clients_value_cannot_start_a_line() -> Result<()> {
    let world = World::new()?;
    let upstream = Upstream::start().await?;
    let postern =
        Postern::run(&world, &world.config(NO_PROVIDER, &world.route("open", &upstream.url(), PUBLIC))).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    let request = browser
        .request(Method::GET, world.url("open", "/%E2%80%A8x"))
        .header("user-agent", "a\u{85}b\u{2028}c\\n{\"forged\":1}\t");
    let answer = browser.send(request).await?;

    postern.line("http-request", answer.header("x-request-id")).await?;
    for text in postern.stdout().lines() {
        assert!(serde_json::from_str::<Value>(text).is_ok(), "not one JSON document a line: {text:?}");
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
    Ok(())
}

fn field<'a>(line: &'a Value, name: &str) -> &'a str {
    line.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Every token that the provider gave out.
async fn issued(provider: &Provider) -> Result<Vec<String>> {
    let log = provider.log().await?;
    let answers = log.get("issued").and_then(Value::as_array).context("issued")?;
    let tokens = ["access_token", "refresh_token", "id_token"];
    let values = answers
        .iter()
        .flat_map(|answer| tokens.iter().filter_map(|name| answer.get(name)?.as_str().map(str::to_owned)));
    let values: Vec<String> = values.collect();
    anyhow::ensure!(values.len() >= 3, "the provider gave out no tokens: {log}");
    Ok(values)
}

async fn sign_out(world: &World, browser: &mut Browser) -> Result<String> {
    let mut page = browser.visit(world.url("app", "/.pomerium/sign_out")).await?;
    while page.form("Sign out").is_ok() {
        page = browser.submit(&page, "Sign out", &[]).await?;
    }
    Ok(page.body)
}

async fn http(port: u16, path: &str) -> Result<String> {
    Ok(plain_client()?.get(format!("http://127.0.0.1:{port}{path}")).send().await?.text().await?)
}

async fn stop(postern: Postern) -> Result<(String, String)> {
    postern.signal("TERM")?;
    let finished = postern.finished().await?;
    Ok((finished.stdout, finished.stderr))
}
