//! Open WebSockets: what ends them, and what does not.

use std::time::Duration;

use postern_edge::Vigilance;
use postern_edge::route::{Route, Upgrades};
use postern_policy::{Legacy, Policy};
use tokio::io::AsyncWriteExt as _;

use crate::support::{Script, Wire, World, WorldBuilder, now, tokens, until};

/// A world whose one route takes WebSockets, and looks at them often.
async fn world(admit: Duration, change: impl FnOnce(&mut Route)) -> World {
    builder(admit, change).await.start()
}

async fn builder(admit: Duration, change: impl FnOnce(&mut Route)) -> WorldBuilder {
    let builder = WorldBuilder::new().await.route(|route| {
        route.upgrades = Upgrades::websockets();
        change(route);
    });
    let vigilance = Vigilance { look: Duration::from_millis(20), admit };
    builder.upstream.answers("/ws", Script::WebSocket);
    builder.options(|options| options.vigilance = vigilance)
}

fn alice_only(route: &mut Route) {
    let alice = Legacy { allowed_users: vec!["alice@example.com".to_owned()], ..Legacy::default() };
    (route.policy, route.public) = (Policy::new(alice.rules(), Vec::new()), false);
}

async fn open(world: &World, cookie: &str) -> Wire {
    let mut wire = world.wire().await;
    wire.send(format!("GET /ws HTTP/1.1\r\nHost: app.localhost\r\n{cookie}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")).await;
    let head = wire.head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    echo(&mut wire).await;
    wire
}

async fn echo(wire: &mut Wire) {
    wire.send("hello").await;
    assert_eq!(wire.raw(5).await, b"hello");
}

async fn ended(world: &World, mut wire: Wire, reason: &str) {
    assert!(wire.is_closed().await, "nothing but the end comes");
    until("the upstream's side is closed", || world.upstream.sockets() == 0).await;
    let counted = || world.metric("postern_edge_refusals_total", &[("reason", reason)]) == 1.0;
    until("the reason is counted", counted).await;
}

#[tokio::test]
async fn s_084_a_tunnel_of_kubectl_ends_when_its_session_is_revoked() {
    let spdy = |route: &mut Route| {
        alice_only(route);
        route.upgrades = Upgrades::new(["spdy/3.1"]);
    };
    let world = world(LONG, spdy).await;
    let (session, cookie) = world.sign_in(|_| {}).await;
    let mut wire = world.wire().await;
    wire.send(format!("POST /ws HTTP/1.1\r\nHost: app.localhost\r\n{cookie}Content-Length: 0\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n")).await;
    let head = wire.head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("SPDY/3.1"), "{head}");
    echo(&mut wire).await;
    world.storage.sessions().revoke(&session.handle).await.unwrap();
    ended(&world, wire, "user-unauthenticated").await;
}

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(200);
/// Long enough to sign in and open a socket on a busy machine.
const SOON: Duration = Duration::from_secs(2);

#[tokio::test]
async fn s_084_a_websocket_ends_when_its_session_is_revoked() {
    let world = world(LONG, alice_only).await;
    let (session, cookie) = world.sign_in(|_| {}).await;
    let wire = open(&world, &cookie).await;
    world.storage.sessions().revoke(&session.handle).await.unwrap();
    ended(&world, wire, "user-unauthenticated").await;
}

#[tokio::test]
async fn s_084_where_anybody_may_pass_the_websocket_of_a_session_ends_with_it_too() {
    let world = world(LONG, |_| {}).await;
    let (session, cookie) = world.sign_in(|_| {}).await;
    let (mut public, own) = (open(&world, "").await, open(&world, &cookie).await);
    world.storage.sessions().revoke(&session.handle).await.unwrap();
    let mut own = own;
    assert!(own.is_closed().await);
    let counted = || world.metric("postern_edge_refusals_total", &[("reason", "session-ended")]) == 1.0;
    until("the reason is counted", counted).await;
    echo(&mut public).await;
}

#[tokio::test]
async fn s_084_s_090_a_websocket_ends_when_its_session_expires_or_is_left_idle() {
    let world = world(LONG, alice_only).await;
    let (_, cookie) = world.sign_in(|session| session.expires_at = now().plus(SOON)).await;
    ended(&world, open(&world, &cookie).await, "user-unauthenticated").await;
    let idle = |session: &mut postern_identity::Session| session.idle = Some((SOON, now().plus(SOON)));
    let (_, cookie) = world.sign_in(idle).await;
    let mut wire = open(&world, &cookie).await;
    assert!(wire.is_closed().await);
}

#[tokio::test]
async fn r_033_a_session_is_not_idle_while_bytes_flow() {
    let world = world(LONG, alice_only).await;
    let idle = Duration::from_secs(2);
    let (_, cookie) = world.sign_in(|session| session.idle = Some((idle, now().plus(idle)))).await;
    let mut wire = open(&world, &cookie).await;
    for _ in 0..30 {
        echo(&mut wire).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn s_084_a_client_that_takes_nothing_does_not_hold_its_websocket_open() {
    let world = world(LONG, alice_only).await;
    let (session, cookie) = world.sign_in(|_| {}).await;
    let mut wire = open(&world, &cookie).await;
    let piece = vec![b'x'; 64 * 1024];
    while let Ok(Ok(())) = tokio::time::timeout(Duration::from_millis(300), wire.stream.write_all(&piece)).await {}
    world.storage.sessions().revoke(&session.handle).await.unwrap();
    until("the upstream's side is closed", || world.upstream.sockets() == 0).await;
    let counted = || world.metric("postern_edge_refusals_total", &[("reason", "user-unauthenticated")]) == 1.0;
    until("the reason is counted", counted).await;
}

#[tokio::test]
async fn s_099_a_websocket_ends_when_the_policy_no_longer_allows_it() {
    let mut world = world(LONG, |_| {}).await;
    let wire = open(&world, "").await;
    let address = world.upstream.address;
    world.reload(|config| {
        let mut route = crate::support::route("app", "app.localhost", address);
        route.upgrades = Upgrades::websockets();
        alice_only(&mut route);
        config.routes = vec![std::sync::Arc::new(route)];
    });
    ended(&world, wire, "user-unauthenticated").await;
}

#[tokio::test]
async fn s_099_a_websocket_ends_when_its_route_leads_elsewhere() {
    let mut world = world(LONG, |_| {}).await;
    let wire = open(&world, "").await;
    let address = world.upstream.address;
    world.reload(|config| {
        let mut route = crate::support::route("other", "app.localhost", address);
        route.upgrades = Upgrades::websockets();
        config.routes = vec![std::sync::Arc::new(route)];
    });
    ended(&world, wire, "route-not-found").await;
}

#[tokio::test]
async fn s_099_a_websocket_is_decided_anew_now_and_then() {
    let world = world(SHORT, alice_only).await;
    let (mut session, cookie) = world.sign_in(|_| {}).await;
    let wire = open(&world, &cookie).await;
    // No longer who she was, but signed in all the same.
    session.user.email = Some("mallory@example.com".to_owned());
    world.storage.sessions().commit(&session.handle, 1, &session, &tokens()).await.unwrap();
    ended(&world, wire, "email-unauthorized").await;
}

#[tokio::test]
async fn s_099_without_the_store_no_websocket_outlives_the_configuration_that_allowed_it() {
    let mut world = builder(LONG, alice_only).await.cache(|cache| cache.max_age = Duration::ZERO).start();
    let (_, cookie) = world.sign_in(|_| {}).await;
    let wire = open(&world, &cookie).await;
    world.storage.close().await;
    world.reload(|_| {});
    ended(&world, wire, "store-unavailable").await;
}

#[tokio::test]
async fn s_084_where_anybody_may_pass_a_store_that_cannot_be_asked_is_no_end_of_a_session() {
    let world = builder(SHORT, |_| {}).await.cache(|cache| cache.max_age = Duration::ZERO).start();
    let (_, cookie) = world.sign_in(|_| {}).await;
    let wire = open(&world, &cookie).await;
    world.storage.close().await;
    ended(&world, wire, "store-unavailable").await;
}

#[tokio::test]
async fn a_websocket_ends_with_timeout_write_as_every_exchange() {
    let world = builder(LONG, |_| {}).await.change(|config| config.timeouts.write = Some(SOON)).start();
    ended(&world, open(&world, "").await, "upstream-timeout").await;
}

/// The timer of the accepted side of `wire`, as the kernel tells it: its kind, and in how many hundredths of a second it ends.
fn timer(wire: &Wire) -> Option<(u8, u64)> {
    let (here, there) = (wire.stream.get_ref().0.local_addr().unwrap(), wire.stream.get_ref().0.peer_addr().unwrap());
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    table.lines().find_map(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let (local, remote) = (columns.next()?, columns.next()?);
        let is = |column: &str, port: u16| column.ends_with(&format!(":{port:04X}"));
        let (kind, when) = columns.nth(2)?.split_once(':')?;
        (is(local, there.port()) && is(remote, here.port()))
            .then(|| (kind.parse().unwrap(), u64::from_str_radix(when, 16).unwrap()))
    })
}

#[tokio::test]
async fn a_client_that_vanished_without_a_word_is_found_out() {
    const KEEPALIVE: u8 = 2;
    let world = world(LONG, |_| {}).await;
    let wire = open(&world, "").await;
    until("only the time for the next probe runs", || {
        timer(&wire).is_some_and(|(kind, when)| kind == KEEPALIVE && (1..=60 * 100).contains(&when))
    })
    .await;
}

#[tokio::test]
async fn a_websocket_outlives_requests_reloads_and_silence() {
    let builder = WorldBuilder::new().await.route(|route| {
        route.upgrades = Upgrades::websockets();
        route.timeout = Some(Duration::from_millis(50));
        alice_only(route);
    });
    let vigilance = Vigilance { look: Duration::from_millis(5), admit: Duration::from_millis(40) };
    let builder = builder.change(|config| config.timeouts.read = Some(Duration::from_millis(500)));
    let builder = builder.options(|options| {
        options.vigilance = vigilance;
    });
    let builder = builder.limits(|limits| limits.patience.body_idle = Duration::from_millis(100));
    let mut world = builder.start();
    world.upstream.answers("/ws", Script::WebSocket);
    let (_, cookie) = world.sign_in(|_| {}).await;
    let mut wire = open(&world, &cookie).await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    world.reload(|_| {});
    tokio::time::sleep(Duration::from_millis(100)).await;
    echo(&mut wire).await;
    assert_eq!(world.metric("postern_edge_refusals_total", &[]), 0.0);
}

#[tokio::test]
async fn a_websocket_without_bytes_ends_at_the_idle_timeout_of_its_route() {
    let world = world(LONG, |route| route.idle_timeout = Some(SHORT)).await;
    let mut wire = open(&world, "").await;
    assert!(wire.is_closed().await);
}
