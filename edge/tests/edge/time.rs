//! Bounds on time, and how each of them is told.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;

use crate::support::{HOST, Script, Wire, World, WorldBuilder, target, until};

const GET: &str = "GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n";

async fn bounded(millis: u64, script: Script) -> World {
    let builder = WorldBuilder::new().await.route(|route| route.timeout = Some(Duration::from_millis(millis)));
    let world = builder.start();
    world.upstream.answers("/", script);
    world
}

async fn h2(world: &World) -> h2::client::SendRequest<Bytes> {
    let wire = Wire::open(world.address, HOST, &world.root, &["h2"]).await.unwrap();
    let (client, connection) = h2::client::handshake(wire.stream).await.unwrap();
    tokio::spawn(async move { connection.await.ok() });
    client.ready().await.unwrap()
}

#[tokio::test]
async fn r_015_an_upstream_whose_head_drips_is_a_504_at_the_routes_bound() {
    let slow = b"HTTP/1.1 200 OK\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".to_vec();
    let world = bounded(200, Script::Drip(slow)).await;
    let mut wire = world.wire().await;
    wire.send(GET).await;
    let response = wire.response().await.unwrap();
    assert_eq!(response.status, 504);
    assert!(response.field("x-request-id").is_some() && !response.body.is_empty());
    let request = Request::get(format!("https://{HOST}/")).body(()).unwrap();
    let response = h2(&world).await.send_request(request, true).unwrap().0.await.unwrap();
    assert_eq!(response.status(), 504);
    let counted = || world.metric("postern_edge_refusals_total", &[("reason", "upstream-timeout")]) == 2.0;
    until("both are counted", counted).await;
    assert_eq!(world.upstream.requests().len(), 2, "nothing is sent again");
}

#[tokio::test]
async fn r_015_the_time_in_which_an_upstream_is_not_reached_counts_too() {
    // It accepts, in its backlog, and never says a word of TLS.
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = deaf.local_addr().unwrap();
    let builder = WorldBuilder::new().await.route(|route| {
        route.target = target(at, true);
        route.timeout = Some(Duration::from_millis(200));
    });
    let world = builder.start();
    let mut wire = world.wire().await;
    wire.send(GET).await;
    let response = wire.response().await.expect("an answer in words");
    assert_eq!(response.status, 504);
    let counted = || world.metric("postern_edge_refusals_total", &[("reason", "upstream-timeout")]) == 1.0;
    until("it is counted", counted).await;
}

#[tokio::test]
async fn an_answer_without_a_length_that_is_cut_at_the_bound_never_looks_complete() {
    let answer = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 1000]].concat();
    let world = bounded(1000, Script::Drip(answer)).await;
    let mut wire = world.wire().await;
    wire.send(GET).await;
    let head = wire.head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.to_ascii_lowercase().contains("chunked"), "{head}");
    while let Some(chunk) = wire.chunk().await {
        assert!(!chunk.is_empty(), "the last chunk");
    }
}

#[tokio::test]
async fn r_004_an_http2_upload_that_stalls_is_told_so() {
    let read = Some(Duration::from_millis(100));
    let world = WorldBuilder::new().await.change(|config| config.timeouts.read = read).start();
    let mut client = h2(&world).await;
    let request = Request::post(format!("https://{HOST}/")).body(()).unwrap();
    let (response, mut stream) = client.send_request(request, false).unwrap();
    stream.send_data(Bytes::from_static(b"abc"), false).unwrap();
    let response = tokio::time::timeout(Duration::from_secs(20), response).await.unwrap().unwrap();
    assert_eq!(response.status(), 408);
    assert!(world.upstream.requests().iter().all(|request| !request.complete));
    let counted = || world.metric("postern_edge_refusals_total", &[("reason", "body-timeout")]) == 1.0;
    until("it is counted", counted).await;
}

#[tokio::test]
async fn an_http2_connection_ends_when_it_has_rested_for_as_long_as_it_may_and_no_earlier() {
    let idle = Duration::from_millis(600);
    let world = WorldBuilder::new().await.change(|config| config.timeouts.idle = Some(idle)).start();
    let wire = Wire::open(world.address, HOST, &world.root, &["h2"]).await.unwrap();
    let (mut client, connection) = h2::client::handshake(wire.stream).await.unwrap();
    let connection = tokio::spawn(connection);
    // Each rest is short, and the first timer is over long before the last.
    let began = Instant::now();
    let mut rested = began;
    while began.elapsed() < idle * 2 {
        rested = Instant::now();
        client = client.ready().await.unwrap();
        let request = Request::get(format!("https://{HOST}/")).body(()).unwrap();
        assert_eq!(client.send_request(request, true).unwrap().0.await.unwrap().status(), 200);
    }
    let ended = tokio::time::timeout(Duration::from_secs(20), connection).await;
    assert!(ended.is_ok(), "it rests, and is kept");
    assert!(rested.elapsed() >= idle, "{:?}", rested.elapsed());
}

#[tokio::test]
async fn a_stream_without_bytes_ends_at_the_idle_timeout_of_its_route() {
    let builder = WorldBuilder::new().await.route(|route| route.idle_timeout = Some(Duration::from_millis(200)));
    let world = builder.start();
    world.upstream.answers("/", Script::Hang).answers("/stall", Script::Stall);
    let mut wire = world.wire().await;
    wire.send(GET).await;
    assert_eq!(wire.response().await.unwrap().status, 504);
    let mut wire = world.wire().await;
    wire.send("GET /stall HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await;
    assert!(wire.head().await.unwrap().starts_with("HTTP/1.1 200 "));
    assert_eq!(wire.chunk().await.unwrap(), b"first");
    assert!(wire.chunk().await.is_none(), "no last chunk");
}

#[tokio::test]
async fn a_slow_upload_is_not_idle() {
    let builder = WorldBuilder::new().await.route(|route| {
        route.timeout = Some(BOUND);
        route.idle_timeout = Some(BOUND);
    });
    let world = builder.start();
    world.upstream.answers("/echo", Script::Echo);
    let mut wire = world.wire().await;
    wire.send("POST /echo HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 20\r\n\r\n").await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        wire.send("x").await;
    }
    assert_eq!(wire.response().await.unwrap().text(), "x".repeat(20));
}

#[tokio::test]
async fn a_download_that_is_slow_but_moves_is_cut_by_nothing_but_the_routes_timeout() {
    let limits = |limits: &mut postern_edge::EdgeLimits| {
        limits.patience.idle = BOUND;
        limits.patience.body_idle = BOUND;
        limits.patience.write_stall = BOUND;
    };
    let builder = WorldBuilder::new().await.route(|route| {
        route.timeout = None;
        route.idle_timeout = Some(BOUND);
    });
    let builder = builder.change(|config| config.timeouts.read = Some(BOUND));
    let world = builder.limits(limits).start();
    world.upstream.answers(
        "/slow",
        Script::Drip([&b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"[..], &[b'x'; 100]].concat()),
    );
    let mut wire = world.wire().await;
    wire.send("GET /slow HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await;
    assert_eq!(wire.response().await.unwrap().text(), "x".repeat(100));
    // And where the client is the slow one.
    world.upstream.answers("/large", Script::Large(SIZE));
    wire.send("GET /large HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await;
    let head = wire.head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    for _ in 0..16 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        wire.raw(usize::try_from(SIZE / 16).unwrap()).await;
    }
}

#[tokio::test]
async fn r_004_an_http2_answer_that_is_taken_slowly_goes_on_and_one_that_is_not_taken_ends() {
    const LENGTH: u64 = 192 * 1024;
    let stall = |limits: &mut postern_edge::EdgeLimits| limits.patience.write_stall = Duration::from_millis(400);
    let world = WorldBuilder::new().await.limits(stall).start();
    world.upstream.answers("/large", Script::Large(LENGTH));
    let wire = Wire::open(world.address, HOST, &world.root, &["h2"]).await.unwrap();
    let mut builder = h2::client::Builder::new();
    let (client, connection) = builder.initial_window_size(4096).handshake::<_, Bytes>(wire.stream).await.unwrap();
    tokio::spawn(async move { connection.await.ok() });
    let mut client = client.ready().await.unwrap();
    let get = || Request::get(format!("https://{HOST}/large")).body(()).unwrap();
    let mut body = client.send_request(get(), true).unwrap().0.await.unwrap().into_body();
    let mut taken = 0;
    while let Some(piece) = body.data().await {
        let piece = piece.expect("it moves").len();
        taken += piece;
        tokio::time::sleep(Duration::from_millis(50)).await;
        body.flow_control().release_capacity(piece).unwrap();
    }
    assert_eq!(u64::try_from(taken).unwrap(), LENGTH);
    let mut body = client.send_request(get(), true).unwrap().0.await.unwrap().into_body();
    let ended = async { while body.data().await.expect("it does not look complete").is_ok() {} };
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("it ends");
}

/// What the whole takes longer than, and no single step of it.
const BOUND: Duration = Duration::from_millis(1500);
const SIZE: u64 = 64 * 1024 * 1024;
