//! What holds for every request: it comes through an edge, is small, is not too frequent, and is answered safely.

use std::time::Duration;

use http::StatusCode;
use postern_identity::{EDGE_TOKEN_HEADER, Keyring, Secret, edge_token};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use url::Url;

use crate::support::{APP, AUTHN, World, config, idp};

#[tokio::test]
async fn s_114_who_does_not_come_through_an_edge_gets_nothing() {
    let world = World::new().await;
    let mut browser = world.browser();
    let stranger = Keyring::derive(&Secret::new([9; 32]), &Secret::new([2; 32]));
    browser.keyring = std::sync::Arc::new(stranger);
    for path in ["/", "/.pomerium/", "/.pomerium/sign_in", "/oauth2/callback", "/nothing"] {
        let answer = browser.get(&Url::parse(&format!("{AUTHN}{path}")).unwrap()).await;
        assert_eq!((answer.status, answer.body.as_str()), (StatusCode::FORBIDDEN, ""));
    }
    browser.keyring = std::sync::Arc::clone(&world.keyring);
    let twice = [(EDGE_TOKEN_HEADER, edge_token(&world.keyring))];
    let twice: Vec<(&str, &str)> = twice.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = browser.get_with(&Url::parse(AUTHN).unwrap(), &twice).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn s_050_every_answer_has_the_headers_that_protect_it() {
    let world = World::new().await;
    let mut browser = world.browser();
    let there = world.send_to_sign_in(&mut browser, APP);
    for url in [
        there.as_str(),
        &format!("{AUTHN}/"),
        &format!("{AUTHN}/.pomerium/"),
        &format!("{AUTHN}/nothing"),
        &format!("{APP}/.pomerium/sign_out"),
    ] {
        let answer = browser.get(&Url::parse(url).unwrap()).await;
        for (name, value) in
            [("cache-control", "no-store"), ("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer")]
        {
            assert_eq!(answer.headers[name], value, "{url}");
        }
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    }
}

#[tokio::test]
async fn a_path_or_host_that_is_not_ours_is_not_there() {
    let world = World::new().await;
    let mut browser = world.browser();
    for url in [
        format!("{AUTHN}/.pomerium/unknown"),
        format!("{APP}/oauth2/callback"),
        format!("{APP}/.pomerium/sign_in"),
        format!("{APP}/"),
        "https://unknown.example.com/.pomerium/".into(),
        "https://auth.example.com:8443/.pomerium/sign_in".into(),
    ] {
        let url = Url::parse(&url).unwrap();
        browser.get(&url).await.is_refused(404, "not-found");
    }
    let answer = browser.get(&Url::parse(&format!("{APP}/.pomerium")).unwrap()).await;
    assert_eq!(answer.headers["location"], "/.pomerium/");
}

#[tokio::test]
async fn a_body_over_64_kib_is_refused() {
    let world = World::new().await;
    let mut browser = world.browser();
    let url = Url::parse(&format!("{APP}/.pomerium/sign_out")).unwrap();
    let answer = browser.send(http::Method::POST, &url, &[], "x".repeat(64 * 1024 + 1)).await;
    answer.is_refused(413, "body-too-large");
    let answer = browser.send(http::Method::POST, &url, &[], "x".repeat(64 * 1024)).await;
    assert_eq!(answer.status, 200);
}

/// The first line of the answer to a request whose body never comes.
async fn without_its_body(world: &World, host: &str, path: &str) -> String {
    let token = edge_token(&world.keyring);
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\nx-forwarded-for: 192.0.2.77\r\n{EDGE_TOKEN_HEADER}: {token}\r\n\
         content-length: 1000\r\n\r\n"
    );
    let mut stream = tokio::net::TcpStream::connect(world.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut line = String::new();
    let mut stream = BufReader::new(stream);
    let read = stream.read_line(&mut line);
    tokio::time::timeout(Duration::from_secs(10), read).await.expect("an answer in time").unwrap();
    line
}

#[tokio::test]
async fn r_001_who_sends_no_body_holds_no_place_for_long() {
    let world = World::new().await;
    assert!(without_its_body(&world, "auth.example.com", "/nothing").await.contains(" 404 "));
    let mut storm = tokio::task::JoinSet::new();
    let world = std::sync::Arc::new(world);
    for _ in 0..60 {
        let world = std::sync::Arc::clone(&world);
        storm.spawn(async move { without_its_body(&world, "auth.example.com", "/.pomerium/sign_out").await });
    }
    let first = storm.join_next().await.unwrap().unwrap();
    assert!(first.contains(" 429 "), "they are counted before they are read: {first}");
    let lines = storm.join_all().await;
    assert!(lines.iter().any(|line| line.contains(" 408 ")), "{lines:?}");
}

#[tokio::test]
async fn one_address_may_ask_fifty_times_at_once_and_others_are_not_held_up() {
    let world = World::new().await;
    let mut browser = world.browser();
    let url = Url::parse(&format!("{AUTHN}/.pomerium/sign_in")).unwrap();
    let mut refused = None;
    for _ in 0..200 {
        let answer = browser.get(&url).await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("the fifty are used up");
    refused.is_refused(429, "rate-limited");
    assert_eq!(refused.headers["retry-after"], "1");
    browser.client_address = "192.0.2.2".into();
    assert_eq!(browser.get(&url).await.status, StatusCode::BAD_REQUEST);
    assert!(world.counted("postern_authn_rate_limited_total", "") >= 0.0);
}

#[tokio::test]
async fn r_020_a_reload_is_seen_by_the_next_request() {
    let world = World::new().await;
    let mut browser = world.browser();
    let there = world.send_to_sign_in_at(&mut browser, APP, "new", crate::support::now());
    browser.get(&there).await.is_refused(503, "idp-not-configured");
    let changed = config(&world.keyring, vec![idp("new", &world.provider.issuer)]);
    world.authn.reload(changed.clone()).unwrap();
    assert_eq!(browser.get(&there).await.status, 303);
    let broken = postern_authn::AuthnConfig {
        extra_roots: Some(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec()),
        ..changed
    };
    assert!(world.authn.reload(broken).is_err());
    assert_eq!(browser.get(&there).await.status, 303, "the old one stays in force");
}

#[tokio::test]
async fn s_108_no_secret_of_a_sign_in_is_in_any_metric() {
    let world = World::new().await;
    let mut browser = world.browser();
    let arrived = world.sign_in(&mut browser, &format!("{APP}/path-marked?q=query-marked")).await;
    assert_eq!(arrived.status, 200);
    let metrics = prometheus::TextEncoder::new().encode_to_string(&world.registry.gather()).unwrap();
    assert!(metrics.contains("postern_authn_sign_ins_total{idp=\"main\",outcome=\"ok\"} 1"), "{metrics}");
    assert!(metrics.contains("postern_authn_idp_request_duration_seconds_count"));
    assert!(!metrics.contains("marked") && !metrics.contains("alice") && !metrics.contains("code-1"));
}

#[tokio::test]
async fn s_108_no_secret_of_a_sign_in_is_in_any_log_line() {
    let world = World::new().await;
    let mut browser = world.browser();
    let arrived = world.sign_in(&mut browser, &format!("{APP}/x?q=query-marked")).await;
    let asked = world.provider.seen(|seen| seen.authorizations[0].clone());
    let redeemed = world.provider.seen(|seen| seen.redemptions[0].0.clone());
    browser.get(&arrived.trail[2]).await.is_refused(400, "state-unknown");
    browser
        .get_with(&Url::parse(&format!("{APP}/.pomerium/sign_out")).unwrap(), &[("sec-fetch-site", "same-origin")])
        .await;
    let log = crate::support::log();
    assert!(log.contains("signed in") && log.contains("signed out") && log.contains("state-unknown"));
    let cookies = arrived.set_cookies.iter().filter_map(|cookie| cookie.split(['=', ';']).nth(1));
    let ours = [&asked["state"], &asked["nonce"], &redeemed["code_verifier"]].map(String::as_str);
    for secret in cookies.chain(ours).chain(["marked", "code-1", "eyJ"]).filter(|secret| !secret.is_empty()) {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}
