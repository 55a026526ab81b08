//! Datagrams of UDP routes, asked for with CONNECT-UDP (RFC 9298) in both versions of HTTP.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::ext::Protocol;
use h2::{Reason, RecvStream};
use http::{Request, StatusCode};
use postern_edge::Vigilance;
use postern_edge::route::{
    Authority, Carries, Route, Target, TunnelMatch, Upstream as RouteUpstream, UpstreamEndpoint, UpstreamScheme,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

use crate::support::{HOST, Wire, World, WorldBuilder, route, until};
use crate::tunnels::{alice_only, asked, end, h2_client, heard, leads_to, refused};

/// A server that says everything back; to `flood` it says very much.
struct Server {
    address: SocketAddr,
    heard: Arc<AtomicUsize>,
    flooded: Arc<AtomicUsize>,
    peers: Arc<Mutex<Vec<SocketAddr>>>,
}

/// How much that is: datagrams, each with its number, and their size.
const FLOOD: (u32, usize) = (8000, 8000);

impl Server {
    async fn start() -> Self {
        Self::on(UdpSocket::bind("127.0.0.1:0").await.unwrap())
    }

    fn on(socket: UdpSocket) -> Self {
        let server = Self {
            address: socket.local_addr().unwrap(),
            heard: Arc::default(),
            flooded: Arc::default(),
            peers: Arc::default(),
        };
        let (heard, flooded, peers) =
            (Arc::clone(&server.heard), Arc::clone(&server.flooded), Arc::clone(&server.peers));
        tokio::spawn(async move {
            let mut packet = vec![0; 70_000];
            while let Ok((length, from)) = socket.recv_from(&mut packet).await {
                heard.fetch_add(1, Ordering::SeqCst);
                peers.lock().unwrap().push(from);
                if &packet[..length] != b"flood" {
                    socket.send_to(&packet[..length], from).await.unwrap();
                    continue;
                }
                for number in 0..FLOOD.0 {
                    let mut much = vec![0; FLOOD.1];
                    much[..4].copy_from_slice(&number.to_be_bytes());
                    socket.send_to(&much, from).await.unwrap();
                }
                flooded.fetch_add(1, Ordering::SeqCst);
            }
        });
        server
    }

    fn heard(&self) -> usize {
        self.heard.load(Ordering::SeqCst)
    }
}

/// A public route of datagrams to that address, asked for with `app.localhost:53`, `dns.internal:53` and an address of IPv6.
fn datagrams(to: SocketAddr) -> Route {
    let authority = |host: &str, port| Authority { host: host.into(), port: Some(port) };
    let authorities = [authority(HOST, 53), authority("dns.internal", 53), authority("[2001:db8::42]", 443)].into();
    Route {
        target: leads_to(UpstreamScheme::Udp, &to.ip().to_string(), to.port()),
        tunnel: Some(Box::new(TunnelMatch { carries: Carries::Datagrams, authorities, proxy: Some(HOST.into()) })),
        timeout: None,
        ..route("datagrams", HOST, to)
    }
}

/// A world with such a route before the usual one, which looks at what is open often.
async fn world(server: &Server, change: impl FnOnce(&mut Route)) -> World {
    builder(server, change).await.start()
}

async fn builder(server: &Server, change: impl FnOnce(&mut Route)) -> WorldBuilder {
    let mut route = datagrams(server.address);
    change(&mut route);
    let vigilance = Vigilance { look: Duration::from_millis(20), admit: Duration::from_secs(60) };
    let builder = WorldBuilder::new().await.change(|config| config.routes.insert(0, Arc::new(route)));
    builder.options(|options| options.vigilance = vigilance)
}

/// A request for datagrams to a host and port, sent to `host`.
fn connect_udp(host: &str, to: &str, fields: &str) -> String {
    format!(
        "GET /.well-known/masque/udp/{to}/ HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: connect-udp\r\n\
         Capsule-Protocol: ?1\r\n{fields}\r\n"
    )
}

/// An integer as QUIC has it.
fn integer(value: u64) -> Vec<u8> {
    let (width, tag) = match value {
        0..=0x3f => (1, 0),
        0x40..=0x3fff => (2, 0x40),
        0x4000..=0x3fff_ffff => (4, 0x80),
        _ => (8, 0xc0),
    };
    let mut bytes = value.to_be_bytes()[8 - width..].to_vec();
    bytes[0] |= tag;
    bytes
}

fn capsule(kind: u64, value: &[u8]) -> Vec<u8> {
    [integer(kind), integer(value.len() as u64), value.to_vec()].concat()
}

fn datagram(payload: &[u8]) -> Vec<u8> {
    capsule(0, &[&[0], payload].concat())
}

/// A tunnel in HTTP/1.1 that was granted in the way of the standard.
async fn granted(world: &World, fields: &str) -> Wire {
    let mut wire = world.wire().await;
    wire.send(connect_udp(HOST, "dns.internal/53", fields)).await;
    let head = wire.head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    wire
}

/// One in HTTP/2.
async fn granted_h2(world: &World, fields: &[(&str, &str)]) -> (RecvStream, h2::SendStream<Bytes>) {
    let mut client = h2_client(world).await;
    let request = over_h2(HOST, "dns.internal/53");
    let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let (answer, stream) = asked(&mut client, request).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["capsule-protocol"], "?1");
    assert!(answer.headers().contains_key("x-request-id"));
    (answer.into_body(), stream)
}

fn over_h2(host: &str, to: &str) -> http::request::Builder {
    let uri = format!("https://{host}/.well-known/masque/udp/{to}/");
    Request::builder().uri(uri).header("capsule-protocol", "?1").extension(Protocol::from_static("connect-udp"))
}

/// What is said is said back.
async fn echoes(wire: &mut Wire, payload: &[u8]) {
    let sent = datagram(payload);
    wire.send(&sent).await;
    assert!(wire.raw(sent.len()).await == sent, "{} bytes", payload.len());
}

#[tokio::test]
async fn rfc_9298_datagrams_pass_both_ways_in_http_1_1() {
    let server = Server::start().await;
    let world = world(&server, |_| {}).await;
    let mut wire = world.wire().await;
    // Whoever is in a hurry does not wait for the answer.
    let early = datagram(b"early");
    wire.send([connect_udp(HOST, "dns.internal/53", "").into_bytes(), early.clone()].concat()).await;
    let head = wire.head().await.unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    for field in ["connection: upgrade", "upgrade: connect-udp", "capsule-protocol: ?1", "x-request-id: "] {
        assert!(head.contains(&format!("\r\n{field}")), "{field}: {head}");
    }
    assert!(!head.contains("content-length") && !head.contains("transfer-encoding") && !head.contains("x-frame"));
    assert_eq!(wire.raw(early.len()).await, early, "what came with the head is neither lost nor read as HTTP");
    for size in [0, 1, 62, 63, 1200, 16_383, 16_384, 65_507] {
        echoes(&mut wire, &vec![7; size]).await;
    }
    // What we do not know is passed over, in whatever pieces it comes; all else keeps its order.
    let many: Vec<u8> = (0..50_u8).flat_map(|number| datagram(&[number; 30])).collect();
    let unknown = [capsule(0x17, &[7; 5000]), capsule(0, b"\x02of another context"), many.clone()].concat();
    for piece in unknown.chunks(777) {
        wire.send(piece).await;
    }
    assert_eq!(wire.raw(many.len()).await, many);
    drop(wire);
    let bytes = (5 + 1 + 62 + 63 + 1200 + 16_383 + 16_384 + 65_507 + 50 * 30) as f64;
    let counted = |direction: &str| {
        let counted = world.metric("postern_edge_tunnel_bytes_total", &[("direction", direction)]);
        (counted - bytes).abs() < 0.5
    };
    until("its bytes are counted", || counted("up") && counted("down")).await;
    assert_eq!(world.metric("postern_edge_tunnels", &[]), 0.0);
    assert_eq!(world.metric("postern_edge_requests_total", &[("method", "GET"), ("status", "101")]), 1.0);
    let peers = server.peers.lock().unwrap();
    assert!(peers.iter().all(|peer| *peer == peers[0]), "it has one socket: {peers:?}");
}

#[tokio::test]
async fn pomeriums_client_asks_the_host_that_it_wants_datagrams_of_and_is_told_200() {
    let server = Server::start().await;
    let world = world(&server, |_| {}).await;
    for (host, to) in [
        ("dns.internal:53", "dns.internal/53"),
        ("app.localhost:53", "app.localhost/53"),
        ("[2001:db8::42]:443", "2001:db8::42/443"),
    ] {
        let mut wire = world.wire().await;
        wire.send(connect_udp(host, to, "User-Agent: Go-http-client/1.1\r\n")).await;
        let head = wire.head().await.unwrap().to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200 ") && head.contains("\r\ncapsule-protocol: ?1\r\n"), "{head}");
        assert!(head.contains("\r\nconnection: close\r\n"), "what follows ends with the connection: {head}");
        assert!(!head.contains("content-length") && !head.contains("transfer-encoding") && !head.contains("upgrade"));
        echoes(&mut wire, b"hello").await;
    }
    // The other way of the same address, on the host of the proxy.
    let mut wire = world.wire().await;
    wire.send(connect_udp(HOST, "2001%3Adb8%3A%3A42/443", "")).await;
    assert!(wire.head().await.unwrap().starts_with("HTTP/1.1 101 "));
    echoes(&mut wire, b"hello").await;
}

#[tokio::test]
async fn rfc_9298_datagrams_pass_both_ways_in_http_2_and_leave_the_connection_to_others() {
    let server = Server::start().await;
    let world = world(&server, |_| {}).await;
    let mut client = h2_client(&world).await;
    let (answer, mut stream) = asked(&mut client, over_h2(HOST, "dns.internal/53")).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["capsule-protocol"], "?1");
    assert!(!answer.headers().contains_key("upgrade"));
    let mut body = answer.into_body();
    for size in [0, 1, 1200, 20_000] {
        let sent = datagram(&vec![7; size]);
        for piece in sent.chunks(9000) {
            stream.send_data(Bytes::copy_from_slice(piece), false).unwrap();
        }
        assert!(heard(&mut body, sent.len()).await == sent, "{size}");
    }
    let request = Request::get(format!("https://{HOST}/")).body(()).unwrap();
    assert_eq!(client.send_request(request, true).unwrap().0.await.unwrap().status(), StatusCode::OK);
    let (second, mut other) = asked(&mut client, over_h2(HOST, "dns.internal/53")).await;
    let mut second = second.into_body();
    other.send_data(datagram(b"other").into(), false).unwrap();
    assert_eq!(heard(&mut second, datagram(b"other").len()).await, datagram(b"other"));
    let peers: std::collections::HashSet<_> = server.peers.lock().unwrap().iter().copied().collect();
    assert_eq!(peers.len(), 2, "each tunnel has a socket of its own");
    stream.send_reset(Reason::CANCEL);
    other.send_reset(Reason::CANCEL);
    until("both are over", || world.metric("postern_edge_tunnels", &[]) == 0.0).await;
}

#[tokio::test]
async fn rfc_9297_what_is_no_capsule_ends_the_stream_and_has_a_reason() {
    let server = Server::start().await;
    let world = world(&server, |_| {}).await;
    let announced = |length: u64| [integer(0), integer(length), vec![0]].concat();
    let mut times = 0.0;
    for bytes in [vec![0, 0], announced(65_529), announced((1 << 62) - 1), vec![0, 2, 0xc0]] {
        let mut wire = granted(&world, "").await;
        wire.send(&bytes).await;
        assert!(wire.is_closed().await, "{bytes:02x?}");
        let (mut body, mut stream) = granted_h2(&world, &[]).await;
        stream.send_data(bytes.clone().into(), false).unwrap();
        assert_eq!(end(&mut body).await, Some(Reason::PROTOCOL_ERROR), "{bytes:02x?}");
        times += 2.0;
    }
    // Half of a capsule is none either.
    let (mut body, mut stream) = granted_h2(&world, &[]).await;
    stream.send_data(Bytes::from_static(&[0, 5, 0, 1]), true).unwrap();
    assert_eq!(end(&mut body).await, Some(Reason::PROTOCOL_ERROR));
    let counted = || world.metric("postern_edge_refusals_total", &[("reason", "malformed-capsule")]);
    until("the reason is counted", || counted() == times + 1.0).await;
    assert_eq!(server.heard(), 0);
}

#[tokio::test]
async fn s_105_only_the_very_host_and_port_of_a_route_is_reached_whatever_the_request_names() {
    let (server, other) = (Server::start().await, Server::start().await);
    let world = world(&server, |_| {}).await;
    let port = other.address.port();
    for (host, to, status) in [
        // The host has another route, whose connections become nothing (S-009).
        (HOST, "dns.internal/54".to_owned(), 403),
        (HOST, format!("127.0.0.1/{port}"), 403),
        (HOST, "169.254.169.254/53".to_owned(), 403),
        (HOST, "dns.internal%2F53".to_owned(), 400),
        (HOST, "dns.internal/0".to_owned(), 403),
        (HOST, "*/53".to_owned(), 403),
        ("x.app.localhost", "dns.internal/53".to_owned(), 404),
        ("dns.internal:54", "dns.internal/53".to_owned(), 404),
        ("dns.internal", "dns.internal/53".to_owned(), 404),
        ("dns.internal:54", "dns.internal/54".to_owned(), 404),
    ] {
        assert_eq!(refused(&world, &connect_udp(host, &to, "")).await, status, "{host} {to}");
    }
    for fields in ["Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n"] {
        assert_eq!(refused(&world, &connect_udp(HOST, "dns.internal/53", fields)).await, 400, "{fields}");
    }
    let plain = "GET /.well-known/masque/udp/dns.internal/53/ HTTP/1.1\r\nHost: app.localhost\r\n\r\n";
    assert_eq!(refused(&world, plain).await, 200, "it is a request, and of the other route");
    let mut client = h2_client(&world).await;
    for (host, to) in [(HOST, "dns.internal/54"), (HOST, "x"), ("x.app.localhost", "dns.internal/53")] {
        let (answer, _stream) = asked(&mut client, over_h2(host, to)).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{host} {to}");
    }
    assert_eq!((server.heard(), other.heard()), (0, 0));
    assert_eq!(world.upstream.requests().len(), 1);
}

#[tokio::test]
async fn s_008_capsules_behind_a_request_that_was_refused_are_no_requests() {
    let server = Server::start().await;
    let world = world(&server, alice_only).await;
    for (host, to, status) in [(HOST, "dns.internal/53", 302), (HOST, "dns.internal/54", 403)] {
        let mut wire = world.wire().await;
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: app.localhost\r\n\r\n";
        wire.send(connect_udp(host, to, "") + smuggled).await;
        let answer = wire.response().await.unwrap();
        assert_eq!((answer.status, answer.field("connection")), (status, Some("close")), "{}", answer.head);
        assert!(wire.is_closed().await);
    }
    assert!(world.upstream.requests().is_empty());
}

#[tokio::test]
async fn s_106_no_socket_is_made_before_the_policy_allowed_it() {
    let server = Server::start().await;
    let world = world(&server, alice_only).await;
    let (_, cookie) = world.sign_in(|_| {}).await;
    let value = cookie.trim().split_once('=').unwrap().1.to_owned();
    let (_, foreign) = world.sign_in(|session| session.user.email = Some("eve@example.com".to_owned())).await;
    for (fields, status) in [
        ("", 302),
        ("Authorization: Pomerium nonsense\r\n", 401),
        ("Accept: application/json\r\n", 401),
        (foreign.as_str(), 403),
    ] {
        for host in [HOST, "dns.internal:53"] {
            let request = connect_udp(host, "dns.internal/53", fields);
            assert_eq!(refused(&world, &request).await, status, "{host} {fields}");
        }
    }
    let mut client = h2_client(&world).await;
    let (answer, _stream) = asked(&mut client, over_h2(HOST, "dns.internal/53")).await;
    assert_eq!(answer.status(), StatusCode::FOUND);
    assert_eq!((world.metric("postern_edge_upstream_connections_total", &[]), server.heard()), (0.0, 0));
    for fields in [
        cookie.clone(),
        format!("Authorization: Pomerium {value}\r\n"),
        format!("Authorization: Bearer Pomerium-{value}\r\n"),
        format!("X-Pomerium-Authorization: {value}\r\n"),
    ] {
        echoes(&mut granted(&world, &fields).await, b"hello").await;
    }
}

#[tokio::test]
async fn s_084_a_tunnel_of_datagrams_ends_with_its_session_in_both_versions_of_http() {
    let server = Server::start().await;
    let world = world(&server, alice_only).await;
    let (session, cookie) = world.sign_in(|_| {}).await;
    let mut wire = granted(&world, &cookie).await;
    echoes(&mut wire, b"hello").await;
    let value = cookie.trim().strip_prefix("Cookie: ").unwrap();
    let (mut body, mut stream) = granted_h2(&world, &[("cookie", value)]).await;
    stream.send_data(datagram(b"hello").into(), false).unwrap();
    heard(&mut body, datagram(b"hello").len()).await;
    world.storage.sessions().revoke(&session.handle).await.unwrap();
    assert!(wire.is_closed().await, "nothing but the end comes");
    assert_eq!(end(&mut body).await, Some(Reason::CANCEL));
    let counted = || world.metric("postern_edge_refusals_total", &[("reason", "user-unauthenticated")]) == 2.0;
    until("the reason is counted", counted).await;
    assert_eq!(world.metric("postern_edge_tunnels", &[]), 0.0);
}

#[tokio::test]
async fn s_099_a_tunnel_of_datagrams_ends_with_its_route_and_no_other_reload_ends_it() {
    let server = Server::start().await;
    let mut world = world(&server, |_| {}).await;
    let mut wire = granted(&world, "").await;
    world.reload(|config| config.limits.requests_in_flight = 1000);
    echoes(&mut wire, b"hello").await;
    world.reload(|config| drop(config.routes.remove(0)));
    assert!(wire.is_closed().await);
    until("it is over", || world.metric("postern_edge_tunnels", &[]) == 0.0).await;
}

#[tokio::test]
async fn r_005_a_client_that_reads_nothing_costs_no_more_than_a_bound_and_gets_whole_datagrams_in_order() {
    let server = Server::start().await;
    let world = world(&server, |_| {}).await;
    let mut wire = granted(&world, "").await;
    wire.send(datagram(b"flood")).await;
    until("all was sent", || server.flooded.load(Ordering::SeqCst) == 1).await;
    let one = datagram(&vec![0; FLOOD.1]).len();
    let header = one - FLOOD.1;
    wire.send(datagram(b"end")).await;
    until("the end was sent", || server.heard() == 2).await;
    // It may be that the end was lost too: it is asked for until it comes.
    let (mut numbers, mut last) = (Vec::new(), Vec::new());
    let (mut from, mut to) = tokio::io::split(wire.stream);
    let asking = tokio::spawn(async move {
        while to.write_all(&datagram(b"end")).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    while !last.ends_with(b"end") {
        let mut start = vec![0; datagram(b"end").len()];
        from.read_exact(&mut start).await.unwrap();
        if start.ends_with(b"end") {
            last = start;
            continue;
        }
        let mut rest = vec![0; one - start.len()];
        from.read_exact(&mut rest).await.unwrap();
        let whole = [start, rest].concat();
        numbers.push(u32::from_be_bytes(whole[header..header + 4].try_into().unwrap()));
    }
    asking.abort();
    assert!(!numbers.is_empty() && numbers.is_sorted() && numbers.windows(2).all(|pair| pair[0] < pair[1]));
    assert!(numbers.len() < FLOOD.0 as usize, "what nobody took in time is lost");
    assert_eq!(numbers[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], "what there was room for is not");

    // A stream that stands still holds up no other of its connection.
    let mut client = h2_client(&world).await;
    let (answer, mut stream) = asked(&mut client, over_h2(HOST, "dns.internal/53")).await;
    let mut body = answer.into_body();
    stream.send_data(datagram(b"flood").into(), false).unwrap();
    until("all was sent", || server.flooded.load(Ordering::SeqCst) == 2).await;
    let request = Request::get(format!("https://{HOST}/")).body(()).unwrap();
    assert_eq!(client.send_request(request, true).unwrap().0.await.unwrap().status(), StatusCode::OK);
    let first = heard_at_least(&mut body, one).await;
    assert_eq!(first[header..header + 4], [0; 4]);
}

async fn heard_at_least(body: &mut RecvStream, length: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < length {
        all.extend_from_slice(&body.data().await.unwrap().unwrap());
    }
    all
}

#[tokio::test]
async fn an_endpoint_where_nobody_listens_costs_datagrams_and_not_the_tunnel() {
    let server = Server::start().await;
    let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let world = world(&server, |route| route.target = datagrams(address).target).await;
    let mut wire = granted(&world, "").await;
    let (lost, found) = (datagram(b"lost!"), datagram(b"found"));
    let is_told = || world.metric("postern_edge_datagrams_lost_total", &[("cause", "unreachable")]) > 0.5;
    // The system says so when the next one is sent.
    let sending = async {
        while !is_told() {
            wire.send(&lost).await;
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), sending).await.expect("it is counted");
    let _back = Server::on(UdpSocket::bind(address).await.unwrap());
    wire.send(&found).await;
    // The last of those before may have found somebody.
    loop {
        let answer = wire.raw(found.len()).await;
        assert!(answer == found || answer == lost, "{answer:?}");
        if answer == found {
            break;
        }
    }
}

fn several(addresses: &[SocketAddr]) -> Target {
    let endpoint = |at: &SocketAddr| UpstreamEndpoint {
        scheme: UpstreamScheme::Udp,
        host: at.ip().to_string(),
        port: at.port(),
        authority: at.to_string().into(),
        weight: 1,
    };
    let endpoints = addresses.iter().map(endpoint).collect();
    Target::Upstream(RouteUpstream { endpoints, ..RouteUpstream::default() })
}

#[tokio::test]
async fn several_endpoints_share_tunnels_and_each_tunnel_keeps_to_one() {
    let (server, other) = (Server::start().await, Server::start().await);
    let world = world(&server, |route| route.target = several(&[server.address, other.address])).await;
    for _ in 0..6 {
        let mut wire = granted(&world, "").await;
        for _ in 0..2 {
            echoes(&mut wire, b"hello").await;
        }
    }
    assert_eq!((server.heard(), other.heard()), (6, 6));
    let pairs = |server: &Server| server.peers.lock().unwrap().chunks(2).all(|pair| pair[0] == pair[1]);
    assert!(pairs(&server) && pairs(&other));
}

#[tokio::test]
async fn s_105_a_name_that_leads_inwards_gets_no_datagrams_unless_the_route_says_so() {
    let server = Server::start().await;
    let port = server.address.port();
    let inward = world(&server, |route| route.target = leads_to(UpstreamScheme::Udp, "ip6-localhost", port)).await;
    assert_eq!(refused(&inward, &connect_udp(HOST, "dns.internal/53", "")).await, 503);
    let meant = world(&server, |route| route.target = leads_to(UpstreamScheme::Udp, "localhost", port)).await;
    echoes(&mut granted(&meant, "").await, b"hello").await;
}

#[tokio::test]
async fn silence_ends_a_tunnel_of_datagrams_where_the_route_says_so() {
    let server = Server::start().await;
    let world = world(&server, |route| route.idle_timeout = Some(Duration::from_millis(300))).await;
    let mut wire = granted(&world, "").await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        echoes(&mut wire, b"x").await;
    }
    assert!(wire.is_closed().await);
    let counted = || world.metric("postern_edge_refusals_total", &[("reason", "upstream-timeout")]) == 1.0;
    until("the reason is counted", counted).await;
}

#[tokio::test]
async fn r_030_tunnels_of_datagrams_take_their_places_among_all_tunnels() {
    let server = Server::start().await;
    let world = builder(&server, |_| {}).await.limits(|limits| limits.requests_in_flight = 4).start();
    let first = granted(&world, "").await;
    let _second = granted(&world, "").await;
    until("both are there", || world.metric("postern_edge_tunnels", &[]) == 2.0).await;
    assert_eq!(refused(&world, &connect_udp(HOST, "dns.internal/53", "")).await, 503);
    drop(first);
    until("its place is given back", || world.metric("postern_edge_tunnels", &[]) < 1.5).await;
    until("the request is over", || world.metric("postern_edge_requests_in_flight", &[]) < 1.5).await;
    granted(&world, "").await;
}

#[tokio::test]
async fn r_033_a_tunnel_of_datagrams_has_until_the_end_of_the_drain() {
    let server = Server::start().await;
    let world = world(&server, |_| {}).await;
    let mut wire = granted(&world, "").await;
    let drain = tokio::spawn(world.edge.drain(Duration::from_secs(600)));
    echoes(&mut wire, b"still").await;
    assert!(!drain.is_finished());
    drop(wire);
    tokio::time::timeout(Duration::from_mins(1), drain).await.expect("nothing else is waited for").unwrap();
}

/// A proxy that answers with these bytes and says everything back from then on; and the head that it was sent.
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
async fn an_upstream_that_is_a_proxy_is_asked_in_the_way_of_the_standard() {
    let server = Server::start().await;
    let agrees = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: connect-udp\r\n\r\n";
    for host in [HOST, "[2001:db8::42]:443"] {
        let (address, head) = proxy(agrees).await;
        let leads = |route: &mut Route| route.target = leads_to(UpstreamScheme::Http, "127.0.0.1", address.port());
        let world = world(&server, leads).await;
        let mut wire = world.wire().await;
        wire.send(connect_udp(host, "2001%3Adb8%3A%3A42/443", "Cookie: a=b\r\nX-Own: x\r\n")).await;
        let status = wire.head().await.unwrap();
        assert!(status.starts_with(if host == HOST { "HTTP/1.1 101 " } else { "HTTP/1.1 200 " }), "{status}");
        echoes(&mut wire, b"hello").await;
        let head = head.await.unwrap().to_ascii_lowercase();
        assert!(head.starts_with("get /.well-known/masque/udp/2001%3adb8%3a%3a42/443/ http/1.1\r\n"), "{head}");
        for field in
            [&format!("host: {address}"), "connection: upgrade", "upgrade: connect-udp", "capsule-protocol: ?1"]
        {
            assert!(head.contains(&format!("\r\n{field}\r\n")), "{field}: {head}");
        }
        assert!(!head.contains("cookie") && !head.contains("x-own"), "{head}");
    }
    for (answer, status) in [
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", 403),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno", 502),
        ("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 502),
        ("nonsense\r\n\r\n", 502),
    ] {
        let (address, _head) = proxy(answer).await;
        let leads = |route: &mut Route| route.target = leads_to(UpstreamScheme::Http, "127.0.0.1", address.port());
        let world = world(&server, leads).await;
        assert_eq!(refused(&world, &connect_udp(HOST, "dns.internal/53", "")).await, status, "{answer}");
    }
}
