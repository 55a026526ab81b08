//! Starting, reloading, overload and the end.

use std::time::Duration;

use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use http::Request;
use postern_edge::route::Upgrades;
use postern_edge::{AuthnUpstream, Vigilance};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::support::{HOST, Script, Wire, World, WorldBuilder, target, until};

const GET: &str = "GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n";

#[tokio::test]
async fn r_017_a_drain_lets_requests_end_and_then_closes() {
    let world = World::new().await;
    world.upstream.answers("/", Script::Gate);
    let (mut busy, mut idle) = (world.wire().await, world.wire().await);
    busy.send(GET).await;
    until("the request is on its way", || !world.upstream.requests().is_empty()).await;
    let (address, upstream) = (world.address, world.upstream.clone());
    let drain = tokio::spawn(world.edge.drain(Duration::from_secs(20)));
    assert!(idle.is_closed().await, "a connection without a request is closed in a moment");
    let accepts = || std::net::TcpStream::connect(address).is_ok();
    until("nothing is accepted any more", || !accepts()).await;
    assert!(!drain.is_finished());
    upstream.release();
    let response = busy.response().await.unwrap();
    assert_eq!((response.text().as_str(), response.field("connection")), ("late", Some("close")));
    drain.await.unwrap();
}

#[tokio::test]
async fn r_017_http2_gets_a_goaway_and_its_streams_end() {
    let world = World::new().await;
    world.upstream.answers("/", Script::Gate);
    let wire = Wire::open(world.address, HOST, &world.root, &["h2"]).await.unwrap();
    let (client, connection) = h2::client::handshake(wire.stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let request = Request::get(format!("https://{HOST}/")).body(()).unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    until("the request is on its way", || !world.upstream.requests().is_empty()).await;
    let upstream = world.upstream.clone();
    let drain = tokio::spawn(world.edge.drain(Duration::from_secs(20)));
    let told = async {
        while client.clone().ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), told).await.expect("GOAWAY: no stream may be opened any more");
    upstream.release();
    assert_eq!(response.await.unwrap().status(), 200);
    drop(client);
    drain.await.unwrap();
    let _it_ended = connection.await.unwrap();
}

#[tokio::test]
async fn r_017_what_does_not_end_in_time_is_cut() {
    let world = World::new().await;
    world.upstream.answers("/", Script::Hang);
    let mut busy = world.wire().await;
    busy.send(GET).await;
    until("the request is on its way", || !world.upstream.requests().is_empty()).await;
    world.edge.drain(Duration::from_millis(50)).await;
    assert!(busy.response().await.is_none());
}

#[tokio::test]
async fn r_017_who_still_waits_at_the_end_of_the_drain_is_told_to_come_again() {
    let vigilance = Vigilance { look: Duration::from_millis(20), admit: Duration::from_secs(60) };
    let builder = WorldBuilder::new().await.route(|route| route.timeout = None);
    let world = builder.options(|options| options.vigilance = vigilance).start();
    world.upstream.answers("/", Script::Hang);
    let mut busy = world.wire().await;
    busy.send(GET).await;
    until("the request is on its way", || !world.upstream.requests().is_empty()).await;
    world.edge.drain(Duration::from_millis(500)).await;
    let response = busy.response().await.unwrap();
    assert_eq!((response.status, response.field("retry-after")), (503, Some("1")), "{}", response.text());
    assert!(response.text().contains("stopping"), "{}", response.text());
}

#[tokio::test]
async fn r_017_a_request_that_comes_just_as_its_connection_is_to_be_closed_is_answered() {
    let world = World::new().await;
    let (mut rests, fresh) = (world.wire().await, TcpStream::connect(world.address).await.unwrap());
    rests.send(GET).await;
    assert_eq!(rests.response().await.unwrap().status, 200);
    let accepted = || world.metric("postern_edge_connections", &[]) == 2.0;
    until("both are accepted", accepted).await;
    let root = world.root.clone();
    let mut drain = Box::pin(world.edge.drain(Duration::from_secs(600)));
    assert!((&mut drain).now_or_never().is_none(), "it has begun");
    rests.send(GET).await;
    assert_eq!(rests.response().await.unwrap().status, 200);
    let mut fresh = Wire::over(fresh, HOST, &root, &["http/1.1"]).await.unwrap();
    fresh.send(GET).await;
    assert_eq!(fresh.response().await.unwrap().status, 200);
    drain.await;
    assert!(rests.is_closed().await && fresh.is_closed().await);
}

#[tokio::test]
async fn r_033_an_open_websocket_is_told_to_leave_and_holds_up_no_drain() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = upstream.local_addr().unwrap();
    tokio::spawn(async move {
        let mut socket = tokio_tungstenite::accept_async(upstream.accept().await.unwrap().0).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() {
                socket.send(message).await.unwrap();
            }
        }
    });
    let builder = WorldBuilder::new().await.route(|route| {
        route.target = target(at, false);
        route.upgrades = Upgrades::websockets();
    });
    let world = builder.start();
    let stream = world.wire().await.stream;
    let (mut socket, _) = tokio_tungstenite::client_async(format!("wss://{HOST}/"), stream).await.unwrap();
    for text in ["hello".to_owned(), "long ".repeat(50_000)] {
        socket.send(Message::text(text.clone())).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(text));
    }

    let drain = tokio::spawn(world.edge.drain(Duration::from_secs(600)));

    let soon = Duration::from_secs(20);
    let told = tokio::time::timeout(soon, socket.next()).await.expect("it is told").unwrap().unwrap();
    let Message::Close(Some(close)) = told else { panic!("{told:?}") };
    assert_eq!(close.code, CloseCode::Away);
    // It answers by itself, the upstream answers that and ends the connection.
    let end = tokio::time::timeout(soon, socket.next()).await.expect("it ends");
    assert!(!matches!(end, Some(Ok(_))), "{end:?}");
    tokio::time::timeout(soon, drain).await.expect("nothing else is waited for").unwrap();
}

#[tokio::test]
async fn r_020_a_reload_is_seen_by_the_next_request_of_an_open_connection() {
    let mut world = World::new().await;
    let mut wire = world.wire().await;
    wire.send(GET).await;
    assert_eq!(wire.response().await.unwrap().status, 200);
    world.reload(|config| config.routes.clear());
    wire.send(GET).await;
    assert_eq!(wire.response().await.unwrap().status, 404);
}

#[tokio::test]
async fn a_reload_ends_the_use_of_connections_that_were_verified_under_old_rules() {
    let mut world = World::new().await;
    let mut wire = world.wire().await;
    wire.send(GET).await;
    wire.response().await.unwrap();
    world.reload(|_| {});
    wire.send(GET).await;
    wire.response().await.unwrap();
    let requests = world.upstream.requests();
    assert_ne!(requests[0].connection, requests[1].connection);
}

#[tokio::test]
async fn r_030_above_the_bound_requests_get_503_at_once() {
    let world = WorldBuilder::new().await.limits(|limits| limits.requests_in_flight = 1).start();
    world.upstream.answers("/", Script::Gate);
    let (mut first, mut second) = (world.wire().await, world.wire().await);
    first.send(GET).await;
    until("the request is on its way", || !world.upstream.requests().is_empty()).await;
    second.send(GET).await;
    let refused = second.response().await.unwrap();
    assert_eq!(refused.status, 503);
    assert!(refused.field("retry-after").is_some(), "{}", refused.head);
    world.upstream.release();
    assert_eq!(first.response().await.unwrap().status, 200);
    until("the place is given back", || world.metric("postern_edge_requests_in_flight", &[]) == 0.0).await;
    second.send(GET).await;
    world.upstream.release();
    assert_eq!(second.response().await.unwrap().status, 200);
}

#[tokio::test]
async fn above_the_bound_connections_are_closed_and_counted() {
    let world = WorldBuilder::new().await.limits(|limits| limits.connections.connections = 1).start();
    let first = world.wire().await;
    assert!(Wire::open(world.address, HOST, &world.root, &["http/1.1"]).await.is_err());
    let counted = || world.metric("postern_edge_connections_total", &[("outcome", "refused")]) == 1.0;
    until("it is counted", counted).await;
    drop(first);
    until("the place is given back", || world.metric("postern_edge_connections", &[]) == 0.0).await;
    let mut next = world.wire().await;
    next.send(GET).await;
    assert_eq!(next.response().await.unwrap().status, 200);
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_given_up() {
    let world = WorldBuilder::new()
        .await
        .limits(|limits| limits.connections.handshake_time = Duration::from_millis(50))
        .start();
    let mut silent = TcpStream::connect(world.address).await.unwrap();
    assert_eq!(silent.read(&mut [0; 16]).await.unwrap_or(0), 0);
    let counted = || world.metric("postern_edge_connections_total", &[("outcome", "handshake_timeout")]) == 1.0;
    until("it is counted", counted).await;
}

#[tokio::test]
async fn plain_http_is_sent_to_https() {
    let world = World::new().await;
    let mut plain = TcpStream::connect(world.redirect).await.unwrap();
    plain.write_all(b"GET /a?b=c HTTP/1.1\r\nHost: App.localhost:80\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 301 ") && answer.contains("Location: https://app.localhost/a?b=c\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn r_017_who_asked_the_redirect_listener_nothing_holds_up_no_drain() {
    let world = World::new().await;
    let mut silent = TcpStream::connect(world.redirect).await.unwrap();
    until("it is accepted", || world.metric("postern_edge_connections", &[]) == 1.0).await;
    let drain = world.edge.drain(Duration::from_secs(600));
    tokio::time::timeout(Duration::from_secs(20), drain).await.expect("it is not waited for");
    assert_eq!(silent.read(&mut [0; 16]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn r_011_a_dead_authn_is_a_503_at_once() {
    let world = World::new().await;
    let mut wire = world.wire().await;
    wire.send("GET /.pomerium/sign_out HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await;
    let began = std::time::Instant::now();
    assert_eq!(wire.response().await.unwrap().status, 503);
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn what_belongs_to_authn_goes_to_authn() {
    let builder = WorldBuilder::new().await;
    let authn = crate::support::Upstream::plain().await;
    let at = authn.address;
    let world = builder.change(|config| config.authenticate.upstream = AuthnUpstream::Here(at)).start();
    let mut wire = world.wire().await;
    wire.send("GET /.pomerium/sign_out?a=b HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await;
    assert_eq!(wire.response().await.unwrap().text(), "hello");
    assert_eq!(authn.requests()[0].line(), "GET /.pomerium/sign_out?a=b HTTP/1.1");
    assert_eq!(authn.requests()[0].fields("x-pomerium-edge").len(), 1);
    assert!(world.upstream.requests().is_empty());
}
