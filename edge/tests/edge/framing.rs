//! Raw bytes against the edge: what cannot be read in one way only reaches no upstream.

use std::time::Duration;

use postern_edge::listener::Patience;
use postern_edge::route::Upgrades;

use crate::support::{Script, World, WorldBuilder, until};

/// A request, what it is answered with, and the rule.
const REFUSED: &[(&str, u16, &str)] = &[
    (
        "s_002",
        400,
        "POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "s_002",
        400,
        "POST / HTTP/1.1\r\nHost: app.localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    ),
    ("s_003", 400, "POST / HTTP/1.1\r\nHost: app.localhost\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n"),
    ("s_003", 400, "POST / HTTP/1.1\r\nHost: app.localhost\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    (
        "s_003",
        400,
        "POST / HTTP/1.1\r\nHost: app.localhost\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("s_003", 400, "POST / HTTP/1.0\r\nHost: app.localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("s_004", 400, "POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
    ("s_004", 400, "POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 3, 3\r\n\r\nabc"),
    ("s_004", 400, "POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: +3\r\n\r\nabc"),
    ("s_006", 400, "GET / HTTP/1.1\r\nHost: app.localhost\r\nX: a\r\n b\r\n\r\n"),
    ("s_006", 400, "GET / HTTP/1.1\r\nHost: app.localhost\r\nX : a\r\n\r\n"),
    ("s_006", 400, "GET / HTTP/1.1\r\nHost: app.localhost\nX: a\r\n\r\n"),
    ("s_006", 400, "GET / HTTP/1.1\r\nHost: app.localhost\r\nX: a\0\r\n\r\n"),
    ("s_006", 400, "GET / HTTP/1.1\r\nHost: app.localhost\r\nHost: app.localhost\r\n\r\n"),
    ("s_007", 400, "GET /\r\n\r\n"),
    ("s_007", 400, "GET  / HTTP/1.1\r\nHost: app.localhost\r\n\r\n"),
    ("s_007", 400, "GET / HTTP/1.2\r\nHost: app.localhost\r\n\r\n"),
    ("s_010", 400, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("s_018", 405, "TRACE / HTTP/1.1\r\nHost: app.localhost\r\n\r\n"),
    ("s_018", 405, "CONNECT app.localhost:443 HTTP/1.1\r\nHost: app.localhost:443\r\n\r\n"),
    ("s_024", 400, "GET /a#b HTTP/1.1\r\nHost: app.localhost\r\n\r\n"),
];

#[tokio::test]
async fn what_is_framed_or_spelled_in_two_ways_is_refused_and_the_connection_closed() {
    let world = World::new().await;
    for (rule, status, request) in REFUSED {
        let mut wire = world.wire().await;
        wire.send(request).await;
        wire.send("GET /smuggled HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await;
        let response = wire.response().await.unwrap_or_else(|| panic!("{rule}: no answer to {request:?}"));
        assert_eq!(response.status, *status, "{rule}: {request:?}");
        if *status == 400 {
            assert!(response.field("x-request-id").is_some(), "{rule}: {}", response.head);
            assert!(wire.is_closed().await, "{rule}: {request:?}");
        }
    }
    let reached: Vec<_> =
        world.upstream.requests().into_iter().filter(|request| !request.line().contains("smuggled")).collect();
    assert!(reached.is_empty(), "{reached:?}");
}

#[tokio::test]
async fn large_heads_are_refused_with_their_own_status() {
    let world = World::new().await;
    let target = format!("GET /{} HTTP/1.1\r\nHost: app.localhost\r\n\r\n", "a".repeat(17_000));
    let field = format!("GET / HTTP/1.1\r\nHost: app.localhost\r\nX: {}\r\n\r\n", "a".repeat(33_000));
    let many: String = (0..201).map(|n| format!("X-{n}: a\r\n")).collect();
    let many = format!("GET / HTTP/1.1\r\nHost: app.localhost\r\n{many}\r\n");
    for (request, status) in [(target, 414), (field, 431), (many, 431)] {
        let mut wire = world.wire().await;
        wire.send(&request).await;
        assert_eq!(wire.response().await.unwrap().status, status, "{}", request.len());
    }
    assert!(world.upstream.requests().is_empty());
}

#[tokio::test]
async fn s_005_s_012_a_broken_chunk_never_completes_a_message_upstream() {
    for body in ["5\r\nhel", "5\r\nhelloX\r\n0\r\n\r\n", "g\r\n", "5 \r\nhello\r\n0\r\n\r\n", "5\nhello\r\n0\r\n\r\n"] {
        let world = World::new().await;
        let mut wire = world.wire().await;
        wire.send("POST / HTTP/1.1\r\nHost: app.localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
        until("the request is on its way", || !world.upstream.requests().is_empty()).await;
        wire.send(body).await;
        if body.ends_with("hel") {
            drop(wire);
        } else {
            assert_eq!(wire.response().await.unwrap().status, 400, "{body:?}");
        }
        let mut next = world.wire().await;
        next.send("GET /next HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await;
        assert_eq!(next.response().await.unwrap().status, 200);
        let requests = world.upstream.requests();
        assert!(!requests[0].complete, "{body:?}");
        assert_ne!(requests[0].connection, requests[1].connection, "{body:?}: a cut connection is not used again");
    }
}

#[tokio::test]
async fn s_012_a_length_that_is_not_kept_never_completes_a_message_upstream() {
    let world = World::new().await;
    let mut wire = world.wire().await;
    wire.send("POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 10\r\n\r\nabc").await;
    until("the request is on its way", || !world.upstream.requests().is_empty()).await;
    drop(wire);
    let mut next = world.wire().await;
    next.send("GET /next HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await;
    assert_eq!(next.response().await.unwrap().status, 200);
    let requests = world.upstream.requests();
    assert!(!requests[0].complete && requests[0].connection != requests[1].connection);
}

#[tokio::test]
async fn s_013_an_ambiguous_answer_is_a_502_and_its_connection_is_not_used_again() {
    let long = format!("HTTP/1.1 200 OK\r\nX: {0}\r\nY: {0}\r\nContent-Length: 0\r\n\r\n", "a".repeat(40_000));
    let answers = [
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
        "nonsense\r\n\r\n",
        &long,
    ];
    let world = World::new().await;
    for answer in answers {
        world.upstream.answers("/bad", Script::Bytes(answer.as_bytes().to_vec()));
        let before = world.upstream.requests().len();
        let mut wire = world.wire().await;
        wire.send("GET /bad HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await;
        let response = wire.response().await.unwrap();
        assert_eq!(response.status, 502, "{:?}", answer.get(..60));
        assert!(response.field("server").is_none(), "{}", response.head);
        let mut next = world.wire().await;
        next.send("GET /next HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await;
        assert_eq!(next.response().await.unwrap().text(), "hello");
        let requests = world.upstream.requests();
        assert_ne!(requests[before].connection, requests[before + 1].connection, "{:?}", answer.get(..60));
    }
}

#[tokio::test]
async fn s_009_bytes_before_the_101_are_no_request() {
    let world = WorldBuilder::new().await.route(|route| route.upgrades = Upgrades::websockets()).start();
    world.upstream.answers("/ws", Script::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno".to_vec()));
    let mut wire = world.wire().await;
    wire.send("GET /ws HTTP/1.1\r\nHost: app.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x01\x02early\r\n\r\n").await;
    assert_eq!(wire.response().await.unwrap().text(), "no");
    let answer = wire.response().await;
    assert!(answer.is_none_or(|answer| answer.status == 400));
    assert_eq!(world.upstream.requests().len(), 1);
}

#[tokio::test]
async fn s_010_h2c_is_never_passed_on() {
    let world = WorldBuilder::new().await.route(|route| route.upgrades = Upgrades::websockets()).start();
    let mut wire = world.wire().await;
    wire.send("GET / HTTP/1.1\r\nHost: app.localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n").await;
    let status = wire.response().await.unwrap().status;
    for request in world.upstream.requests() {
        assert!(
            request.fields("upgrade").is_empty() && request.fields("http2-settings").is_empty(),
            "{}",
            request.head
        );
    }
    assert_ne!(status, 101);
}

#[tokio::test]
async fn a_slow_head_is_a_408() {
    let patience = Patience { head: Duration::from_millis(50), ..Patience::DEFAULT };
    let world = WorldBuilder::new().await.limits(|limits| limits.patience = patience).start();
    let mut wire = world.wire().await;
    wire.send("GET / HTTP/1.1\r\nHost: app.local").await;
    let response = wire.response().await.unwrap();
    assert_eq!(response.status, 408);
    assert!(response.field("x-request-id").is_some(), "{}", response.head);
    assert!(wire.is_closed().await);
}

#[tokio::test]
async fn a_body_that_stops_is_a_408_and_never_completes_upstream() {
    let patience = Patience { body_idle: Duration::from_millis(50), ..Patience::DEFAULT };
    let world = WorldBuilder::new().await.limits(|limits| limits.patience = patience).start();
    let mut wire = world.wire().await;
    wire.send("POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 10\r\n\r\nabc").await;
    assert_eq!(wire.response().await.unwrap().status, 408);
    until("the upstream's connection is cut", || world.upstream.requests().iter().all(|request| !request.complete))
        .await;
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed() {
    let patience = Patience { idle: Duration::from_millis(50), ..Patience::DEFAULT };
    let world = WorldBuilder::new().await.limits(|limits| limits.patience = patience).start();
    let mut wire = world.wire().await;
    assert!(wire.is_closed().await);
    let mut wire = world.wire().await;
    wire.send("GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await;
    assert_eq!(wire.response().await.unwrap().status, 200);
    assert!(wire.is_closed().await, "after a request as well");
}

#[tokio::test]
async fn s_018_r_032_a_connect_is_refused_in_our_words_whatever_it_names() {
    let world = World::new().await;
    for target in ["app.localhost:443", "127.0.0.1:22", "app.localhost", "http://app.localhost/", "/", "*"] {
        let mut wire = world.wire().await;
        wire.send(format!("CONNECT {target} HTTP/1.1\r\nHost: app.localhost\r\n\r\n")).await;
        let response = wire.response().await.unwrap();
        assert!([400, 405].contains(&response.status), "{target}: {}", response.head);
    }
    let mut wire = world.wire().await;
    wire.send("CONNECT app.localhost:443 HTTP/1.1\r\nHost: app.localhost:443\r\n\r\n").await;
    let response = wire.response().await.unwrap();
    assert_eq!((response.status, response.field("server")), (405, None), "{}", response.head);
    assert!(response.field("x-request-id").is_some() && !response.body.is_empty());
    assert_eq!(response.field("allow"), Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    let counted = || world.metric("postern_edge_refusals_total", &[("reason", "method-not-served")]) >= 1.0;
    until("the refusal is counted", counted).await;
    assert!(world.upstream.requests().is_empty());
}
