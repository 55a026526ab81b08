//! What is asked for with CONNECT: connections of TCP routes in both versions of HTTP, and WebSockets over HTTP/2.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request, Response, StatusCode};
use postern_edge::Vigilance;
use postern_edge::route::{
    Authority, Carries, Route, Target, TunnelMatch, Upgrades, Upstream as RouteUpstream, UpstreamEndpoint,
    UpstreamScheme,
};
use postern_policy::{Legacy, Policy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{HOST, Script, Wire, World, WorldBuilder, route, until};

/// A server of no protocol that we know: it greets, says everything back, and says goodbye to whoever has ended.
struct Server {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (accepted, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let server = Self { address, accepted: Arc::clone(&accepted), open: Arc::clone(&open) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                open.fetch_add(1, Ordering::SeqCst);
                let open = Arc::clone(&open);
                tokio::spawn(async move {
                    let _whatever_happens = talk(stream).await;
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        server
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

async fn talk(stream: TcpStream) -> std::io::Result<()> {
    let (mut from, mut to) = stream.into_split();
    to.write_all(b"hello\n").await?;
    tokio::io::copy(&mut from, &mut to).await?;
    to.write_all(b"bye\n").await?;
    to.shutdown().await
}

/// A public route of connections to that address, asked for with `app.localhost:5432` and `db.internal:22`.
fn tunnel(to: SocketAddr) -> Route {
    let authority = |host: &str, port| Authority { host: host.into(), port: Some(port) };
    let authorities = [authority(HOST, 5432), authority("db.internal", 22)].into();
    Route {
        target: leads_to(UpstreamScheme::Tcp, &to.ip().to_string(), to.port()),
        tunnel: Some(Box::new(TunnelMatch { carries: Carries::Connections, authorities, proxy: None })),
        timeout: None,
        ..route("tunnel", HOST, to)
    }
}

pub(crate) fn leads_to(scheme: UpstreamScheme, host: &str, port: u16) -> Target {
    let endpoint =
        UpstreamEndpoint { scheme, host: host.to_owned(), port, authority: format!("{host}:{port}").into(), weight: 1 };
    Target::Upstream(RouteUpstream { endpoints: [endpoint].into(), ..RouteUpstream::default() })
}

/// A world with such a route before the usual one, which looks at what is open often.
async fn world(server: &Server, change: impl FnOnce(&mut Route)) -> World {
    let mut route = tunnel(server.address);
    change(&mut route);
    let vigilance = Vigilance { look: Duration::from_millis(20), admit: Duration::from_secs(60) };
    let builder = WorldBuilder::new().await.change(|config| config.routes.insert(0, Arc::new(route)));
    builder.options(|options| options.vigilance = vigilance).start()
}

pub(crate) fn alice_only(route: &mut Route) {
    let alice = Legacy { allowed_users: vec!["alice@example.com".to_owned()], ..Legacy::default() };
    (route.policy, route.public) = (Policy::new(alice.rules(), Vec::new()), false);
}

fn connect(authority: &str, fields: &str) -> String {
    format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{fields}\r\n")
}

/// A tunnel that was granted, behind the server's greeting.
async fn granted(world: &World, request: &str) -> Wire {
    let mut wire = world.wire().await;
    wire.send(request).await;
    let head = wire.head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let lower = head.to_ascii_lowercase();
    assert!(
        lower.contains("\r\nx-request-id: ") && !lower.contains("content-length") && !lower.contains("transfer-enc")
    );
    assert_eq!(wire.raw(6).await, b"hello\n");
    wire
}

pub(crate) async fn refused(world: &World, request: &str) -> u16 {
    let mut wire = world.wire().await;
    wire.send(request).await;
    wire.response().await.unwrap().status
}

/// A client of HTTP/2 that has heard the settings.
pub(crate) async fn h2_client(world: &World) -> SendRequest<Bytes> {
    let wire = Wire::open(world.address, HOST, &world.root, &["h2"]).await.unwrap();
    let (client, connection) = h2::client::handshake(wire.stream).await.unwrap();
    tokio::spawn(async move { connection.await.ok() });
    let mut client = client.ready().await.unwrap();
    let first = Request::get(format!("https://{HOST}/ping")).body(()).unwrap();
    client.send_request(first, true).unwrap().0.await.unwrap();
    assert!(client.is_extended_connect_protocol_enabled(), "it was announced");
    client
}

pub(crate) async fn asked(
    client: &mut SendRequest<Bytes>,
    request: http::request::Builder,
) -> (Response<RecvStream>, SendStream<Bytes>) {
    let (response, stream) = client.send_request(request.method(Method::CONNECT).body(()).unwrap(), false).unwrap();
    (response.await.unwrap(), stream)
}

fn socket(path: &str) -> http::request::Builder {
    let request = Request::builder().uri(format!("https://{HOST}{path}")).header("sec-websocket-version", "13");
    request.extension(Protocol::from_static("websocket"))
}

/// The next bytes of a stream, so many.
pub(crate) async fn heard(body: &mut RecvStream, length: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < length {
        let piece = tokio::time::timeout(Duration::from_mins(1), body.data()).await.expect("in time");
        let piece = piece.expect("the stream goes on").unwrap();
        body.flow_control().release_capacity(piece.len()).unwrap();
        all.extend_from_slice(&piece);
    }
    assert_eq!(all.len(), length, "{:?}", String::from_utf8_lossy(&all));
    all
}

/// How a stream ends: `None` in order, or with that reason.
pub(crate) async fn end(body: &mut RecvStream) -> Option<Reason> {
    loop {
        match tokio::time::timeout(Duration::from_mins(1), body.data()).await.expect("in time") {
            None => return None,
            Some(Ok(piece)) => assert!(piece.is_empty(), "{piece:?} came"),
            Some(Err(error)) => return error.reason(),
        }
    }
}

#[tokio::test]
async fn s_106_a_tunnel_carries_every_byte_from_the_first_on_and_knows_no_http() {
    let server = Server::start().await;
    let world = world(&server, |_| {}).await;
    let early = "early\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: app.localhost\r\n\r\n";
    let mut wire = granted(&world, &(connect("app.localhost:5432", "") + early)).await;
    assert_eq!(wire.raw(early.len()).await, early.as_bytes(), "what came with the head is neither lost nor read");
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let (mut from, mut to) = tokio::io::split(wire.stream);
    let sent = bytes.clone();
    let sending = tokio::spawn(async move {
        to.write_all(&sent).await.unwrap();
        // The client has ended, and still hears the rest.
        to.shutdown().await.unwrap();
    });
    let mut rest = Vec::new();
    from.read_to_end(&mut rest).await.unwrap();
    sending.await.unwrap();
    assert_eq!(rest.len(), bytes.len() + 4);
    assert!(rest.starts_with(&bytes) && rest.ends_with(b"bye\n"));
    assert!(world.upstream.requests().is_empty());
    let up = early.len() + bytes.len();
    let counted = |direction: &str, bytes: usize| {
        let counted = world.metric("postern_edge_tunnel_bytes_total", &[("direction", direction)]);
        (counted - bytes as f64).abs() < 0.5
    };
    until("its bytes are counted", || counted("up", up) && counted("down", up + 10)).await;
    assert_eq!(world.metric("postern_edge_tunnels", &[]), 0.0);
    assert_eq!(world.metric("postern_edge_requests_total", &[("method", "CONNECT"), ("status", "200")]), 1.0);
}

#[tokio::test]
async fn s_105_only_the_very_host_and_port_of_a_route_is_reached_whatever_the_request_names() {
    let (server, other) = (Server::start().await, Server::start().await);
    let world = world(&server, |_| {}).await;
    let other = other.address.to_string();
    for authority in [
        other.as_str(),
        "127.0.0.1:22",
        "169.254.169.254:80",
        "app.localhost:5433",
        "x.app.localhost:5432",
        "[::1]:5432",
    ] {
        assert_eq!(refused(&world, &connect(authority, "")).await, 405, "{authority}");
    }
    for (request, status) in [
        ("CONNECT app.localhost HTTP/1.1\r\nHost: app.localhost\r\n\r\n", 400),
        ("CONNECT app.localhost:5432 HTTP/1.1\r\nHost: other.localhost:5432\r\n\r\n", 400),
        ("CONNECT https://app.localhost:5432/ HTTP/1.1\r\nHost: app.localhost:5432\r\n\r\n", 400),
        ("CONNECT app.localhost:5432/x HTTP/1.1\r\nHost: app.localhost:5432\r\n\r\n", 400),
        ("CONNECT app.localhost:5432 HTTP/1.1\r\nHost: app.localhost:5432\r\nContent-Length: 3\r\n\r\nabc", 400),
        ("CONNECT app.localhost:5432 HTTP/1.1\r\nHost: app.localhost:5432\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: db.internal:22\r\n\r\n", 404),
    ] {
        assert_eq!(refused(&world, request).await, status, "{request}");
    }
    assert_eq!(server.accepted(), 0, "nothing was dialled");
    // Another name of the route, in the ways of other clients.
    granted(&world, &connect("DB.internal:22", "Proxy-Connection: keep-alive\r\nUser-Agent: curl/8\r\n")).await;
    granted(&world, "CONNECT db.internal:22 HTTP/1.0\r\n\r\n").await;
}

#[tokio::test]
async fn s_105_a_name_that_leads_inwards_is_not_dialled_unless_the_route_says_so() {
    let server = Server::start().await;
    let port = server.address.port();
    let inward = world(&server, |route| route.target = leads_to(UpstreamScheme::Tcp, "ip6-localhost", port)).await;
    assert_eq!(refused(&inward, &connect("app.localhost:5432", "")).await, 503);
    assert_eq!(server.accepted(), 0);
    let meant = world(&server, |route| route.target = leads_to(UpstreamScheme::Tcp, "localhost", port)).await;
    granted(&meant, &connect("app.localhost:5432", "")).await;
}

#[tokio::test]
async fn s_106_nothing_is_dialled_before_the_policy_allowed_it() {
    let server = Server::start().await;
    let world = world(&server, alice_only).await;
    let (_, cookie) = world.sign_in(|_| {}).await;
    let value = cookie.trim().split_once('=').unwrap().1.to_owned();
    let (_, foreign) = world.sign_in(|session| session.user.email = Some("eve@example.com".to_owned())).await;
    for (fields, status) in [
        ("", 302),
        ("Authorization: Pomerium nonsense\r\n", 401),
        ("Accept: application/json\r\n", 401),
        ("Accept: text/html\r\nSec-Fetch-Mode: navigate\r\n", 302),
        (foreign.as_str(), 403),
    ] {
        assert_eq!(refused(&world, &connect("app.localhost:5432", fields)).await, status, "{fields}");
    }
    // Whose session it is on that host, it is on no other (S-089).
    assert_eq!(refused(&world, &connect("db.internal:22", &cookie)).await, 302);
    assert_eq!(server.accepted(), 0);
    for fields in [
        cookie.clone(),
        format!("Authorization: Pomerium {value}\r\n"),
        format!("Authorization: Bearer Pomerium-{value}\r\n"),
        format!("X-Pomerium-Authorization: {value}\r\n"),
    ] {
        granted(&world, &connect("app.localhost:5432", &fields)).await;
    }
    until("all four were dialled", || server.accepted() == 4).await;
}

#[tokio::test]
async fn where_from_names_a_proxy_people_are_who_they_are_on_that_host() {
    let server = Server::start().await;
    let world = world(&server, |route| {
        alice_only(route);
        route.tunnel.as_mut().unwrap().proxy = Some(HOST.into());
    })
    .await;
    let (_, cookie) = world.sign_in(|_| {}).await;
    granted(&world, &connect("db.internal:22", &cookie)).await;
}

#[tokio::test]
async fn an_upstream_that_cannot_be_had_is_told_in_our_words() {
    let server = Server::start().await;
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let world = world(&server, |route| route.target = tunnel(dead).target).await;
    assert_eq!(refused(&world, &connect("app.localhost:5432", "")).await, 502);
    let both = RouteUpstream {
        endpoints: [dead, server.address]
            .map(|at| UpstreamEndpoint {
                scheme: UpstreamScheme::Tcp,
                host: at.ip().to_string(),
                port: at.port(),
                authority: at.to_string().into(),
                weight: 1,
            })
            .into(),
        ..RouteUpstream::default()
    };
    let either = self::world(&server, |route| route.target = Target::Upstream(both)).await;
    for _ in 0..3 {
        granted(&either, &connect("app.localhost:5432", "")).await;
    }
}

#[tokio::test]
async fn s_084_a_tunnel_ends_with_its_session_in_both_versions_of_http() {
    let server = Server::start().await;
    let world = world(&server, alice_only).await;
    let (session, cookie) = world.sign_in(|_| {}).await;
    let mut wire = granted(&world, &connect("app.localhost:5432", &cookie)).await;
    let mut client = h2_client(&world).await;
    let value = cookie.trim().strip_prefix("Cookie: ").unwrap();
    let request = Request::builder().uri("app.localhost:5432").header("cookie", value);
    let (answer, _stream) = asked(&mut client, request).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let mut body = answer.into_body();
    assert_eq!(heard(&mut body, 6).await, b"hello\n");
    world.storage.sessions().revoke(&session.handle).await.unwrap();
    assert!(wire.is_closed().await, "nothing but the end comes");
    assert_eq!(end(&mut body).await, Some(Reason::CANCEL));
    until("the upstream's sides are closed", || server.open() == 0).await;
    let counted = || world.metric("postern_edge_refusals_total", &[("reason", "user-unauthenticated")]) == 2.0;
    until("the reason is counted", counted).await;
}

#[tokio::test]
async fn s_099_r_033_a_tunnel_survives_a_reload_and_ends_when_its_route_does() {
    let server = Server::start().await;
    let mut world = world(&server, |_| {}).await;
    let mut wire = granted(&world, &connect("app.localhost:5432", "")).await;
    world.reload(|_| {});
    tokio::time::sleep(Duration::from_millis(100)).await;
    wire.send("still").await;
    assert_eq!(wire.raw(5).await, b"still");
    world.reload(|config| drop(config.routes.remove(0)));
    assert!(wire.is_closed().await);
    until("the upstream's side is closed", || server.open() == 0).await;
}

#[tokio::test]
async fn silence_ends_a_tunnel_where_the_route_says_so() {
    let server = Server::start().await;
    let world = world(&server, |route| route.idle_timeout = Some(Duration::from_millis(300))).await;
    let mut wire = granted(&world, &connect("app.localhost:5432", "")).await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        wire.send("x").await;
        assert_eq!(wire.raw(1).await, b"x", "bytes keep it open");
    }
    assert!(wire.is_closed().await);
    until("the upstream's side is closed", || server.open() == 0).await;
    let counted = || world.metric("postern_edge_refusals_total", &[("reason", "upstream-timeout")]) == 1.0;
    until("the reason is counted", counted).await;
}

#[tokio::test]
async fn s_106_a_tunnel_over_http_2_is_the_same_and_leaves_the_connection_to_others() {
    let server = Server::start().await;
    let world = world(&server, |_| {}).await;
    let mut client = h2_client(&world).await;
    let (answer, mut stream) = asked(&mut client, Request::builder().uri("app.localhost:5432")).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.headers().contains_key("x-request-id"));
    let mut body = answer.into_body();
    assert_eq!(heard(&mut body, 6).await, b"hello\n");
    let request = Request::get(format!("https://{HOST}/")).body(()).unwrap();
    assert_eq!(client.send_request(request, true).unwrap().0.await.unwrap().status(), StatusCode::OK);
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let sent = Bytes::from(bytes.clone());
    let sending = tokio::spawn(async move {
        let mut left = sent;
        while !left.is_empty() {
            stream.reserve_capacity(left.len());
            let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
            stream.send_data(left.split_to(room.min(left.len())), false).unwrap();
        }
        stream.send_data(Bytes::new(), true).unwrap();
    });
    let back = heard(&mut body, bytes.len() + 4).await;
    sending.await.unwrap();
    assert!(back.starts_with(&bytes) && back.ends_with(b"bye\n"));
    assert_eq!(end(&mut body).await, None, "its end is in order");
    for (authority, status) in [("app.localhost:5433", 405), ("127.0.0.1:22", 405)] {
        let (answer, _) = asked(&mut client, Request::builder().uri(authority)).await;
        assert_eq!(answer.status().as_u16(), status, "{authority}");
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_client_that_resets_its_stream_ends_the_tunnel() {
    let server = Server::start().await;
    let world = world(&server, |_| {}).await;
    let mut client = h2_client(&world).await;
    let (answer, mut stream) = asked(&mut client, Request::builder().uri("app.localhost:5432")).await;
    assert_eq!(heard(&mut answer.into_body(), 6).await, b"hello\n");
    assert_eq!(server.open(), 1);
    stream.send_reset(Reason::CANCEL);
    until("the upstream's side is closed", || server.open() == 0).await;
}

/// A proxy that answers a CONNECT with these bytes and says everything back from then on; and the head that it was sent.
async fn proxy(answer: &'static str) -> (SocketAddr, tokio::sync::oneshot::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (told, hears) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        told.send(String::from_utf8(head).unwrap()).unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        let (mut from, mut to) = stream.into_split();
        tokio::io::copy(&mut from, &mut to).await.ok();
    });
    (address, hears)
}

#[tokio::test]
async fn an_upstream_that_is_a_proxy_is_asked_as_we_are() {
    let server = Server::start().await;
    let (address, head) = proxy("HTTP/1.1 200 Connection established\r\n\r\nhello\n").await;
    let leads = |route: &mut Route| route.target = leads_to(UpstreamScheme::Http, "127.0.0.1", address.port());
    let through = world(&server, leads).await;
    let mut wire = granted(&through, &connect("db.internal:22", "Cookie: a=b\r\nX-Own: x\r\n")).await;
    wire.send("round").await;
    assert_eq!(wire.raw(5).await, b"round");
    let head = head.await.unwrap();
    assert!(head.starts_with("CONNECT db.internal:22 HTTP/1.1\r\n"), "{head}");
    let lower = head.to_ascii_lowercase();
    assert!(
        lower.contains("\r\nhost: db.internal:22\r\n") && !lower.contains("cookie") && !lower.contains("x-own"),
        "{head}"
    );

    for (answer, status) in [
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", 403),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno", 502),
        ("nonsense\r\n\r\n", 502),
    ] {
        let (address, _head) = proxy(answer).await;
        let world =
            world(&server, |route| route.target = leads_to(UpstreamScheme::Http, "127.0.0.1", address.port())).await;
        assert_eq!(refused(&world, &connect("db.internal:22", "")).await, status, "{answer}");
    }
}

async fn sockets(change: impl FnOnce(&mut Route)) -> World {
    let builder = WorldBuilder::new().await.route(|route| {
        route.upgrades = Upgrades::websockets();
        change(route);
    });
    builder.upstream.answers("/ws", Script::WebSocket);
    let vigilance = Vigilance { look: Duration::from_millis(20), admit: Duration::from_secs(60) };
    builder.options(|options| options.vigilance = vigilance).start()
}

#[tokio::test]
async fn a_websocket_over_http_2_is_one_over_http_1_upstream() {
    let world = sockets(|route| route.idle_timeout = None).await;
    let mut client = h2_client(&world).await;
    let request =
        socket("/ws?a=b").header("sec-websocket-key", "bm90IG91cnMgdG8gdXNl").header("origin", "https://app.localhost");
    let (answer, mut stream) = asked(&mut client, request).await;
    assert_eq!(answer.status(), StatusCode::OK);
    for gone in ["sec-websocket-accept", "upgrade", "connection"] {
        assert!(!answer.headers().contains_key(gone), "{gone}");
    }
    assert!(answer.headers().contains_key("x-frame-options"), "answers of the route have its fields");
    let mut body = answer.into_body();
    for frame in [&b"\x81\x85\0\0\0\0hello"[..], b"\0\xff\r\n\r\nGET / HTTP/1.1\r\n\r\n"] {
        stream.send_data(Bytes::copy_from_slice(frame), false).unwrap();
        assert_eq!(heard(&mut body, frame.len()).await, frame);
    }
    let request = &world.upstream.requests()[0];
    assert_eq!(request.line(), "GET /ws?a=b HTTP/1.1");
    assert_eq!((request.fields("upgrade"), request.fields("connection")), (vec!["websocket"], vec!["Upgrade"]));
    assert_eq!(request.fields("sec-websocket-version"), ["13"]);
    let key = request.fields("sec-websocket-key");
    assert!(key.len() == 1 && key[0] != "bm90IG91cnMgdG8gdXNl", "the key is ours: {key:?}");
    assert_eq!(request.fields("host"), [HOST]);
    stream.send_data(Bytes::new(), true).unwrap();
    assert_eq!(end(&mut body).await, None);
    until("the upstream's side is closed", || world.upstream.sockets() == 0).await;
    let counted = || world.metric("postern_edge_requests_total", &[("method", "GET"), ("status", "200")]) == 2.0;
    until("it is counted as what it is", counted).await;
}

#[tokio::test]
async fn s_037_a_websocket_over_http_2_is_held_to_what_one_over_http_1_is() {
    let plain = World::new().await;
    plain.upstream.answers("/ws", Script::WebSocket);
    let mut client = h2_client(&plain).await;
    assert_eq!(asked(&mut client, socket("/ws")).await.0.status(), StatusCode::FORBIDDEN);
    let other = Request::builder().uri(format!("https://{HOST}/ws")).extension(Protocol::from_static("connect-ip"));
    assert_eq!(asked(&mut client, other).await.0.status(), StatusCode::METHOD_NOT_ALLOWED);
    // Nor is anything of ours a WebSocket, whatever it answers to requests.
    for path in ["/ping", "/.well-known/pomerium", "/.pomerium/sign_out"] {
        assert_eq!(asked(&mut client, socket(path)).await.0.status(), StatusCode::FORBIDDEN, "{path}");
    }
    assert!(plain.upstream.requests().is_empty());

    let world = sockets(alice_only).await;
    let (session, cookie) = world.sign_in(|_| {}).await;
    let value = cookie.trim().strip_prefix("Cookie: ").unwrap();
    let mut client = h2_client(&world).await;
    assert_eq!(asked(&mut client, socket("/ws")).await.0.status(), StatusCode::UNAUTHORIZED);
    assert!(world.upstream.requests().is_empty());
    let (answer, _stream) = asked(&mut client, socket("/ws").header("cookie", value)).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(world.upstream.requests()[0].fields("cookie").is_empty(), "our cookie goes nowhere");
    world.storage.sessions().revoke(&session.handle).await.unwrap();
    assert_eq!(end(&mut answer.into_body()).await, Some(Reason::CANCEL), "S-084");
    until("the upstream's side is closed", || world.upstream.sockets() == 0).await;
}

#[tokio::test]
async fn s_009_an_upstream_that_does_not_agree_makes_no_websocket_of_a_stream() {
    let world = sockets(|_| {}).await;
    let mut client = h2_client(&world).await;
    let accept = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
    let wrong = format!("{accept}Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n");
    for (bytes, status) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno".to_owned(), 502),
        ("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n".to_owned(), 502),
        (format!("{accept}\r\n"), 502),
        (wrong, 502),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno".to_owned(), 403),
        ("HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n".to_owned(), 302),
    ] {
        world.upstream.answers("/no", Script::Bytes(bytes.clone().into_bytes()));
        let (answer, _stream) = asked(&mut client, socket("/no")).await;
        assert_eq!(answer.status().as_u16(), status, "{bytes}");
        if status == 403 {
            assert_eq!(heard(&mut answer.into_body(), 2).await, b"no");
        }
    }
}

#[tokio::test]
async fn r_033_a_websocket_over_http_2_is_told_to_leave_between_two_frames() {
    let world = sockets(|_| {}).await;
    let mut client = h2_client(&world).await;
    let (answer, mut stream) = asked(&mut client, socket("/ws")).await;
    let mut body = answer.into_body();
    stream.send_data(Bytes::from_static(b"\x81\x02hi\x81\x04ha"), false).unwrap();
    assert_eq!(heard(&mut body, 8).await, b"\x81\x02hi\x81\x04ha", "half of a frame is under way");
    let drain = tokio::spawn(world.edge.drain(Duration::from_secs(600)));
    stream.send_data(Bytes::from_static(b"lf"), false).unwrap();
    assert_eq!(heard(&mut body, 6).await, b"lf\x88\x02\x03\xe9", "its end comes first");
    stream.send_data(Bytes::new(), true).unwrap();
    assert_eq!(end(&mut body).await, None);
    drop((client, stream, body));
    tokio::time::timeout(Duration::from_mins(1), drain).await.expect("nothing else is waited for").unwrap();
}

/// Greets whoever connects; says this to whoever says something, and breaks off in the same breath.
async fn breaking(said: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.write_all(b"hello\n").await.unwrap();
            stream.read_u8().await.unwrap();
            stream.write_all(said).await.unwrap();
            stream.set_zero_linger().unwrap();
        }
    });
    address
}

#[tokio::test]
async fn s_106_what_an_upstream_said_before_it_broke_off_arrives() {
    const SAID: &[u8] = b"last words";
    let server = Server::start().await;
    let address = breaking(SAID).await;
    let leads = |route: &mut Route| route.target = leads_to(UpstreamScheme::Tcp, "127.0.0.1", address.port());
    let world = world(&server, leads).await;
    for _ in 0..20 {
        let mut wire = granted(&world, &connect("app.localhost:5432", "")).await;
        wire.send("?").await;
        assert_eq!(wire.raw(SAID.len()).await, SAID);
        let mut client = h2_client(&world).await;
        let (answer, mut stream) = asked(&mut client, Request::builder().uri("app.localhost:5432")).await;
        let mut body = answer.into_body();
        assert_eq!(heard(&mut body, 6).await, b"hello\n");
        stream.send_data(Bytes::from_static(b"?"), false).unwrap();
        assert_eq!(heard(&mut body, SAID.len()).await, SAID);
        assert_eq!(end(&mut body).await, Some(Reason::CONNECT_ERROR), "a break is no end (RFC 9113 section 8.5)");
    }
    until("its bytes are counted", || {
        world.metric("postern_edge_tunnel_bytes_total", &[("direction", "down")]) > (40 * (6 + SAID.len())) as f64 - 0.5
    })
    .await;
}

#[tokio::test]
async fn s_106_what_a_client_said_before_it_left_without_a_word_arrives() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = Server::start().await;
    let world = world(&server, |route| route.target = leads_to(UpstreamScheme::Tcp, "127.0.0.1", port)).await;
    for _ in 0..20 {
        let mut wire = world.wire().await;
        wire.send(&connect("app.localhost:5432", "")).await;
        let (mut upstream, _) = listener.accept().await.unwrap();
        assert!(wire.head().await.unwrap().starts_with("HTTP/1.1 200 "));
        wire.send("last words").await;
        // The end of the connection, without that of TLS.
        wire.stream.get_mut().0.shutdown().await.unwrap();
        let mut said = Vec::new();
        let reading = upstream.read_to_end(&mut said);
        tokio::time::timeout(Duration::from_mins(1), reading).await.expect("in time").unwrap();
        assert_eq!(said, b"last words");
    }
}

#[tokio::test]
async fn r_030_tunnels_take_half_of_the_places_at_most_and_requests_still_pass() {
    let server = Server::start().await;
    let route = tunnel(server.address);
    let builder = WorldBuilder::new().await.change(|config| config.routes.insert(0, Arc::new(route)));
    let world = builder.limits(|limits| limits.requests_in_flight = 4).start();
    assert_eq!(world.metric("postern_edge_limit", &[("limit", "tunnels")]), 2.0);
    let request = connect("app.localhost:5432", "");
    let first = granted(&world, &request).await;
    let _second = granted(&world, &request).await;
    assert_eq!((refused(&world, &request).await, server.accepted()), (503, 2), "nothing was dialled for it");
    let mut wire = world.wire().await;
    wire.send("GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await;
    assert_eq!(wire.response().await.unwrap().status, 200);
    drop(first);
    until("its place is given back", || world.metric("postern_edge_tunnels", &[]) == 1.0).await;
    until("the request is over", || world.metric("postern_edge_requests_in_flight", &[]) == 1.0).await;
    granted(&world, &request).await;
}

#[tokio::test]
async fn a_websocket_over_http_2_with_a_body_is_a_bad_request() {
    let server = Server::start().await;
    let world = world(&server, |_| {}).await;
    let mut client = h2_client(&world).await;
    let (answer, _stream) = asked(&mut client, socket("/socket").header("content-length", "3")).await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
}
