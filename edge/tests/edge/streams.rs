//! Answers and requests that go on: what ends them, and what does not.

use std::time::Duration;

use http::Request;
use postern_edge::Vigilance;
use postern_edge::route::Route;
use postern_policy::{Legacy, Policy};

use crate::support::{HOST, Script, Wire, World, WorldBuilder, until};

/// A world whose one route has no time-out, and whose exchanges are looked at often.
async fn builder(change: impl FnOnce(&mut Route)) -> WorldBuilder {
    let builder = WorldBuilder::new().await.route(|route| {
        route.timeout = None;
        change(route);
    });
    builder.upstream.answers("/silent", Script::Stall).answers("/late", Script::Gate);
    builder.upstream.answers("/much", Script::Large(1 << 40)).answers("/echo", Script::Echo);
    builder.options(|options| {
        options.vigilance = Vigilance { look: Duration::from_millis(20), admit: Duration::from_millis(200) };
    })
}

async fn world() -> World {
    builder(alice_only).await.start()
}

fn alice_only(route: &mut Route) {
    let alice = Legacy { allowed_users: vec!["alice@example.com".to_owned()], ..Legacy::default() };
    (route.policy, route.public) = (Policy::new(alice.rules(), Vec::new()), false);
}

async fn ask(world: &World, path: &str, cookie: &str) -> Wire {
    let mut wire = world.wire().await;
    wire.send(format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{cookie}\r\n")).await;
    wire
}

async fn counted(world: &World, reason: &str) {
    let counted = || world.metric("postern_edge_refusals_total", &[("reason", reason)]) == 1.0;
    until("the reason is counted", counted).await;
}

#[tokio::test]
async fn s_084_an_answer_that_goes_on_in_silence_ends_when_its_session_is_revoked() {
    let world = world().await;
    let (session, cookie) = world.sign_in(|_| {}).await;
    let mut wire = ask(&world, "/silent", &cookie).await;
    assert!(wire.head().await.unwrap().starts_with("HTTP/1.1 200 "));
    assert_eq!(wire.chunk().await.unwrap(), b"first");
    world.storage.sessions().revoke(&session.handle).await.unwrap();
    assert_eq!(wire.chunk().await, None, "broken off, and not as if it were complete");
    counted(&world, "user-unauthenticated").await;
}

#[tokio::test]
async fn s_084_an_answer_that_flows_ends_when_its_session_is_revoked() {
    let world = world().await;
    let (session, cookie) = world.sign_in(|_| {}).await;
    let mut wire = ask(&world, "/much", &cookie).await;
    assert!(wire.head().await.unwrap().starts_with("HTTP/1.1 200 "));
    wire.raw(1 << 20).await;
    world.storage.sessions().revoke(&session.handle).await.unwrap();
    let rest = async { while !wire.take().await.is_empty() {} };
    tokio::time::timeout(Duration::from_secs(20), rest).await.unwrap();
    counted(&world, "user-unauthenticated").await;
}

#[tokio::test]
async fn s_084_over_http2_it_ends_alone() {
    let world = world().await;
    let (session, cookie) = world.sign_in(|_| {}).await;
    let wire = Wire::open(world.address, HOST, &world.root, &["h2"]).await.unwrap();
    let (client, connection) = h2::client::handshake(wire.stream).await.unwrap();
    tokio::spawn(async move { connection.await.ok() });
    let mut client = client.ready().await.unwrap();
    let cookie = cookie.trim_start_matches("Cookie: ").trim();
    let request = |path: &str| Request::get(format!("https://{HOST}{path}")).header("cookie", cookie).body(()).unwrap();
    let answer = client.send_request(request("/silent"), true).unwrap().0.await.unwrap();
    let mut body = answer.into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "first");
    world.storage.sessions().revoke(&session.handle).await.unwrap();
    let end = tokio::time::timeout(Duration::from_secs(20), body.data()).await.unwrap();
    assert!(end.unwrap().unwrap_err().is_reset());
    counted(&world, "user-unauthenticated").await;
    let next = client.send_request(request("/silent"), true).unwrap().0.await.unwrap();
    assert_ne!(next.status(), 200, "the connection is still there, and nobody is signed in");
}

#[tokio::test]
async fn s_084_who_still_waits_for_an_answer_is_told_why_there_is_none() {
    let world = world().await;
    let (session, cookie) = world.sign_in(|_| {}).await;
    let mut wire = ask(&world, "/late", &cookie).await;
    until("it is asked", || world.upstream.requests().len() == 1).await;
    world.storage.sessions().revoke(&session.handle).await.unwrap();
    let head = wire.head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 302 "), "to sign in: {head}");
    counted(&world, "user-unauthenticated").await;
    // Nor is the upstream blamed for it.
    assert_eq!(world.metric("postern_edge_upstream_ejections_total", &[]), 0.0);
}

#[tokio::test]
async fn s_084_a_request_that_goes_on_ends_when_its_session_is_revoked() {
    let world = builder(alice_only).await.change(|config| config.timeouts.read = None).start();
    let (session, cookie) = world.sign_in(|_| {}).await;
    let mut wire = world.wire().await;
    wire.send(format!("POST /echo HTTP/1.1\r\nHost: {HOST}\r\n{cookie}Content-Length: 9\r\n\r\nfirst")).await;
    until("it is asked", || world.upstream.requests().len() == 1).await;
    world.storage.sessions().revoke(&session.handle).await.unwrap();
    let head = wire.head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 303 "), "to sign in: {head}");
}

#[tokio::test]
async fn s_099_an_answer_that_goes_on_ends_when_the_policy_no_longer_allows_it() {
    let mut world = builder(|_| {}).await.start();
    let mut wire = ask(&world, "/silent", "").await;
    assert!(wire.head().await.unwrap().starts_with("HTTP/1.1 200 "));
    assert_eq!(wire.chunk().await.unwrap(), b"first");
    let address = world.upstream.address;
    world.reload(|config| {
        let mut route = crate::support::route("app", "app.localhost", address);
        alice_only(&mut route);
        config.routes = vec![std::sync::Arc::new(route)];
    });
    assert_eq!(wire.chunk().await, None);
    counted(&world, "user-unauthenticated").await;
}

#[tokio::test]
async fn s_099_what_is_still_allowed_goes_on() {
    let mut world = world().await;
    let (_, cookie) = world.sign_in(|_| {}).await;
    let mut wire = ask(&world, "/late", &cookie).await;
    until("it is asked", || world.upstream.requests().len() == 1).await;
    world.reload(|_| {});
    // Several decisions later.
    tokio::time::sleep(Duration::from_millis(600)).await;
    world.upstream.release();
    assert_eq!(wire.response().await.unwrap().text(), "late");
    assert_eq!(world.metric("postern_edge_refusals_total", &[]), 0.0);
}
