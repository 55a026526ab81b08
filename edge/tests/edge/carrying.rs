//! Requests and bodies, both ways.

use std::time::Duration;

use postern_edge::route::Upgrades;
use tokio::io::AsyncWriteExt as _;

use crate::support::{Script, World, WorldBuilder, until};

const GET: &str = "GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n";

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: app.localhost\r\n\r\n")
}

#[tokio::test]
async fn a_permitted_request_is_carried_and_answered() {
    let world = World::new().await;
    let mut wire = world.wire().await;
    wire.send(get("/a?b=c")).await;
    let response = wire.response().await.unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "hello"));
    assert_eq!(response.field("x-frame-options"), Some("SAMEORIGIN"));
    let upstream = &world.upstream.requests()[0];
    assert_eq!(upstream.line(), "GET /a?b=c HTTP/1.1");
    assert_eq!(upstream.fields("x-request-id"), [response.field("x-request-id").unwrap()]);
    assert_eq!(upstream.fields("host"), ["app.localhost"]);
}

#[tokio::test]
async fn both_sides_keep_their_connections() {
    let world = World::new().await;
    let mut wire = world.wire().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        wire.send(GET).await;
        let response = wire.response().await.unwrap();
        assert_eq!(response.status, 200);
        ids.push(response.field("x-request-id").unwrap().to_owned());
    }
    assert!(world.upstream.requests().iter().all(|request| request.connection == 0));
    ids.dedup();
    assert_eq!(ids.len(), 5, "every request has its own id");
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_order() {
    let world = World::new().await;
    world.upstream.answers("/echo", Script::Echo);
    let mut wire = world.wire().await;
    let post = |body: &str| {
        format!("POST /echo HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    wire.send([post("one"), post("three"), get("/")].concat()).await;
    for expected in ["one", "three", "hello"] {
        assert_eq!(wire.response().await.unwrap().text(), expected);
    }
}

#[tokio::test]
async fn a_chunked_body_arrives_with_one_framing() {
    let world = World::new().await;
    world.upstream.answers("/echo", Script::Echo);
    let mut wire = world.wire().await;
    wire.send("POST /echo HTTP/1.1\r\nHost: app.localhost\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    wire.send("3;ext=1\r\nabc\r\n").await;
    wire.send("0005\r\ndefgh\r\n0\r\nX-Pomerium-Jwt-Assertion: forged\r\n\r\n").await;
    assert_eq!(wire.response().await.unwrap().text(), "abcdefgh");
    let request = &world.upstream.requests()[0];
    assert_eq!((request.fields("transfer-encoding"), request.fields("content-length")), (vec!["chunked"], vec![]));
    assert!(!request.head.to_ascii_lowercase().contains("trailer"));
    wire.send(GET).await;
    assert_eq!(wire.response().await.unwrap().status, 200, "and the connection goes on");
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_gets_it_from_the_upstream() {
    let world = World::new().await;
    world.upstream.answers("/upload", Script::Continue);
    let mut wire = world.wire().await;
    wire.send("POST /upload HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        .await;
    assert_eq!(wire.response().await.unwrap().status, 100);
    wire.send("body").await;
    assert_eq!(wire.response().await.unwrap().text(), "body");
}

#[tokio::test]
async fn s_008_bytes_after_an_early_refusal_are_no_request() {
    let world = World::new().await;
    let mut wire = world.wire().await;
    let smuggled = get("/smuggled");
    let head = format!(
        "POST /.pomerium/nothing HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: {}\r\n\r\n",
        smuggled.len()
    );
    wire.send([head, smuggled].concat()).await;
    assert_eq!(wire.response().await.unwrap().status, 404);
    assert!(wire.is_closed().await);
    assert!(world.upstream.requests().is_empty());
}

#[tokio::test]
async fn a_websocket_is_carried_where_the_route_allows_it() {
    let world = WorldBuilder::new().await.route(|route| route.upgrades = Upgrades::websockets()).start();
    world.upstream.answers("/ws", Script::WebSocket);
    let mut wire = world.wire().await;
    wire.send("GET /ws HTTP/1.1\r\nHost: app.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").await;
    let head = wire.head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.to_ascii_lowercase().contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    for frame in [&b"\x81\x85\0\0\0\0hello"[..], b"\0\xff\r\n\r\nGET / HTTP/1.1\r\n\r\n"] {
        wire.send(frame).await;
        assert_eq!(wire.raw(frame.len()).await, frame);
    }
}

#[tokio::test]
async fn s_037_a_websocket_is_refused_where_the_route_does_not_allow_it() {
    let world = World::new().await;
    let mut wire = world.wire().await;
    wire.send("GET /ws HTTP/1.1\r\nHost: app.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").await;
    assert_eq!(wire.response().await.unwrap().status, 403);
    assert!(world.upstream.requests().is_empty());
}

#[tokio::test]
async fn r_014_an_upstream_that_is_dead_is_a_502_with_our_page() {
    let world = WorldBuilder::new().await;
    let dead = { std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap() };
    let world = world.route(|route| *route = crate::support::route("app", "app.localhost", dead)).start();
    let mut wire = world.wire().await;
    wire.send(GET).await;
    let response = wire.response().await.unwrap();
    assert_eq!(response.status, 502);
    assert!(response.field("x-request-id").is_some() && response.field("server").is_none(), "{}", response.head);
    let counted = || world.metric("postern_edge_refusals_total", &[("reason", "upstream-unreachable")]) == 1.0;
    until("the refusal is counted", counted).await;
}

#[tokio::test]
async fn r_015_an_upstream_that_hangs_is_a_504_at_the_routes_bound() {
    let world = WorldBuilder::new().await.route(|route| route.timeout = Some(Duration::from_millis(100))).start();
    world.upstream.answers("/", Script::Hang);
    let mut wire = world.wire().await;
    wire.send(GET).await;
    assert_eq!(wire.response().await.unwrap().status, 504);
}

#[tokio::test]
async fn for_a_client_that_leaves_no_upstream_is_waited_for_before_its_answer_or_within_it() {
    let world = World::new().await;
    world.upstream.answers("/hang", Script::Hang).answers("/stall", Script::Stall);
    let under_way = || world.metric("postern_edge_requests_in_flight", &[]);
    for path in ["/hang", "/stall"] {
        let mut wire = world.wire().await;
        wire.send(get(path)).await;
        until("the request", || under_way() > 0.0).await;
        if path == "/stall" {
            assert!(wire.head().await.unwrap().starts_with("HTTP/1.1 200 "));
            assert_eq!(wire.chunk().await.unwrap(), b"first");
        }
        drop(wire);
        // Sooner than at the bound of the route.
        until("its end", || under_way() == 0.0).await;
    }
}

#[tokio::test]
async fn r_005_a_client_that_does_not_read_stops_the_upstream() {
    let world = World::new().await;
    world.upstream.answers("/large", Script::Large(SIZE));
    let mut wire = world.wire().await;
    wire.send(get("/large")).await;
    let head = wire.head().await.unwrap();
    assert!(
        head.contains(&format!("ontent-length: {SIZE}")) || head.contains(&format!("ontent-Length: {SIZE}")),
        "{head}"
    );
    // What is sent while nobody reads settles at what the buffers hold, far from the whole.
    let sent = || world.upstream.sent();
    let mut last = 0;
    let mut settled = 0;
    while settled < 20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        settled = if sent() == last { settled + 1 } else { 0 };
        last = sent();
    }
    assert!(last < SIZE / 4, "{last} bytes are held for a client that does not read");
    let mut left = SIZE;
    while left > 0 {
        let take = left.min(1024 * 1024);
        wire.raw(usize::try_from(take).unwrap()).await;
        left -= take;
    }
    wire.send(GET).await;
    assert_eq!(wire.response().await.unwrap().text(), "hello");
}

#[tokio::test]
async fn r_005_an_upstream_that_does_not_read_stops_the_client() {
    let world = World::new().await;
    world.upstream.answers("/deaf", Script::Deaf);
    let mut wire = world.wire().await;
    wire.send(format!("POST /deaf HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: {SIZE}\r\n\r\n")).await;
    let piece = vec![b'x'; 64 * 1024];
    let mut sent = 0_u64;
    while let Ok(Ok(())) = tokio::time::timeout(Duration::from_millis(300), wire.stream.write_all(&piece)).await {
        sent += piece.len() as u64;
        assert!(sent < SIZE / 4, "{sent} bytes were taken for an upstream that does not read");
    }
}

#[tokio::test]
async fn an_answer_that_stalls_is_cut_at_the_routes_bound_and_never_looks_complete() {
    let world = WorldBuilder::new().await.route(|route| route.timeout = Some(Duration::from_millis(100))).start();
    world.upstream.answers("/", Script::Stall);
    let mut wire = world.wire().await;
    wire.send(GET).await;
    assert!(wire.head().await.unwrap().starts_with("HTTP/1.1 200 "));
    assert_eq!(wire.chunk().await.unwrap(), b"first");
    assert!(wire.chunk().await.is_none(), "no last chunk");
}

const SIZE: u64 = 64 * 1024 * 1024;

#[tokio::test]
async fn an_answer_that_ends_with_its_connection_is_carried_whole() {
    let world = World::new().await;
    world.upstream.answers("/", Script::Close(b"HTTP/1.1 200 OK\r\n\r\nto the end".to_vec()));
    let mut wire = world.wire().await;
    wire.send(GET).await;
    assert_eq!(wire.response().await.unwrap().text(), "to the end");
}

#[tokio::test]
async fn s_008_an_early_answer_of_the_upstream_ends_the_connection_not_the_framing() {
    let world = World::new().await;
    world.upstream.answers("/early", Script::Early(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno".to_vec()));
    let mut wire = world.wire().await;
    let smuggled = get("/smuggled");
    let length = smuggled.len();
    wire.send(format!("POST /early HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: {length}\r\n\r\n")).await;
    assert_eq!(wire.response().await.unwrap().status, 413);
    let _refused_is_fine = wire.stream.write_all(smuggled.as_bytes()).await;
    assert!(wire.is_closed().await);
    assert_eq!(world.upstream.requests().len(), 1);
}

#[tokio::test]
async fn an_upstream_says_whether_its_connection_is_used_again() {
    let (kept, closed) = ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n");
    for (head, again) in [
        (kept.to_owned(), true),
        (format!("{kept}Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n"), true),
        (format!("{kept}Connection: close\r\n"), false),
        (format!("HTTP/1.1 103 Early Hints\r\n\r\n{kept}"), true),
        (format!("HTTP/1.1 103 Early Hints\r\nConnection: close\r\n\r\n{kept}"), true),
        (format!("{closed}Connection: keep-alive\r\n"), true),
        (closed.to_owned(), false),
    ] {
        let world = WorldBuilder::new().await.options(|options| options.workers = 1).start();
        world.upstream.answers("/", Script::Bytes(format!("{head}\r\nok").into_bytes()));
        for _ in 0..2 {
            let mut wire = world.wire().await;
            wire.send(GET).await;
            assert_eq!(wire.response().await.unwrap().text(), "ok", "{head}");
        }
        let used: Vec<_> = world.upstream.requests().iter().map(|request| request.connection).collect();
        assert_eq!(used, [0, usize::from(!again)], "{head}");
    }
}

#[tokio::test]
async fn a_pooled_connection_that_died_is_not_a_502() {
    let world = World::new().await;
    world.upstream.answers("/last", Script::Close(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()));
    let mut wire = world.wire().await;
    for _ in 0..5 {
        wire.send(get("/last")).await;
        assert_eq!(wire.response().await.unwrap().text(), "ok");
        wire.send(GET).await;
        assert_eq!(wire.response().await.unwrap().text(), "hello");
    }
}

#[tokio::test]
async fn a_head_request_has_no_body_and_the_connection_goes_on() {
    let world = World::new().await;
    world.upstream.answers("/", Script::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec()));
    let mut wire = world.wire().await;
    wire.send("HEAD / HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await;
    assert!(wire.head().await.unwrap().starts_with("HTTP/1.1 200 "));
    wire.send("HEAD /.pomerium/nothing HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await;
    assert!(wire.head().await.unwrap().starts_with("HTTP/1.1 404 "));
    wire.send(get("/next")).await;
    assert_eq!(wire.response().await.unwrap().text(), "hello");
}

#[tokio::test]
async fn s_049_what_comes_before_an_answer_brings_nothing_with_it() {
    let world = World::new().await;
    let early = "HTTP/1.1 103 Early Hints\r\nSet-Cookie: _pomerium=evil\r\n\r\n";
    let go_on = "HTTP/1.1 100 Continue\r\nSet-Cookie: _pomerium=evil\r\nX-Pomerium-Edge: evil\r\n\r\n";
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let script = Script::Early(format!("{early}{go_on}{answer}").into_bytes());
    world.upstream.answers("/", script);
    let mut wire = world.wire().await;
    wire.send(GET).await;
    assert!(wire.head().await.unwrap().starts_with("HTTP/1.1 200 "), "nobody waits for less");
    let mut wire = world.wire().await;
    wire.send("POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(wire.head().await.unwrap().trim_end(), "HTTP/1.1 100 Continue");
}
