//! WebSockets pass where a route allows them, for whom its policy allows, many at a time.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use futures_util::{SinkExt, StreamExt};
use reqwest::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::support::{Browser, DEADLINE, NO_PROVIDER, PUBLIC, Postern, Provider, Upstream, World, bounded};

/// How long the many echo; a whole minute with `POSTERN_TEST_WEBSOCKET_SECONDS=60`.
fn duration() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "a test's own knob")]
    let seconds = std::env::var("POSTERN_TEST_WEBSOCKET_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(5))
}

type Socket = WebSocketStream<TlsStream<TcpStream>>;

struct Office {
    world: World,
    browser: Browser,
    _upstream: Upstream,
    _provider: Provider,
    postern: Postern,
}

/// Alice is signed in; `app` allows WebSockets, `plain` does not, `ops` is for a group that she is not in.
async fn open() -> Result<Office> {
    let world = World::new()?;
    let (upstream, provider) = (Upstream::start().await?, Provider::start(&world, Some("bob"))?);
    let routes = [
        world.route("app", &upstream.url(), &["allow_any_authenticated_user: true", "allow_websockets: true"]),
        world.route("plain", &upstream.url(), &["allow_any_authenticated_user: true"]),
        world.route(
            "ops",
            &upstream.url(),
            &["allow_websockets: true", "policy: [{ allow: { and: [{ claim/groups: admins }] } }]"],
        ),
    ]
    .concat();
    let postern = Postern::run(&world, &world.config(&provider.settings(), &routes)).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    for name in ["app", "plain", "ops"] {
        browser.visit(world.url(name, "/")).await.with_context(|| postern.told())?;
    }
    Ok(Office { world, browser, _upstream: upstream, _provider: provider, postern })
}

impl Office {
    async fn socket(&self, name: &str, signed_in: bool) -> Result<Result<Socket, Error>> {
        let stream = self.world.connect(name, &["http/1.1"]).await?;
        let mut request = format!("wss://{}/socket", self.world.host(name)).into_client_request()?;
        let cookie = self.browser.cookie(&format!("{name}.{}", World::DOMAIN), "_pomerium").context("no session")?;
        if signed_in {
            request.headers_mut().insert("cookie", format!("_pomerium={cookie}").parse()?);
        }
        let opening = Box::pin(tokio_tungstenite::client_async(request, stream));
        Ok(bounded(DEADLINE, "the answer to the upgrade", opening).await?.map(|(socket, _)| socket))
    }
}

#[tokio::test]
async fn two_hundred_sockets_echo_without_a_drop() -> Result<()> {
    let office = open().await?;
    let until = Instant::now() + duration();
    let echoing = (0..200).map(async |number| {
        let mut socket = office.socket("app", true).await?.with_context(|| format!("socket {number}"))?;
        let mut round = 0_usize;
        // Each says something before and after the others, and once more at the end.
        while Instant::now() < until || round == 0 {
            let text = format!("{number} says {round}{}", "!".repeat(round % 700));
            socket.send(Message::text(text.clone())).await?;
            let answer = bounded(DEADLINE, "the echo", socket.next()).await?;
            let answer = answer.with_context(|| format!("socket {number} ended in round {round}"))??;
            ensure!(answer.to_text()? == text, "{answer:?}");
            round += 1;
        }
        socket.close(None).await?;
        Ok(round)
    });
    let rounds = try_join_all(echoing)
        .await
        .with_context(|| office.postern.told().lines().rev().take(20).collect::<String>())?;
    assert_eq!(rounds.len(), 200);
    assert!(rounds.iter().all(|rounds| *rounds > 1), "a socket starved: {rounds:?}");
    Ok(())
}

#[tokio::test]
async fn s_037_an_upgrade_is_refused_unless_the_route_and_the_policy_allow_it() -> Result<()> {
    let office = open().await?;
    assert!(office.socket("app", true).await?.is_ok());
    for (name, signed_in, expected) in [
        ("plain", true, StatusCode::FORBIDDEN),
        ("ops", true, StatusCode::FORBIDDEN),
        ("app", false, StatusCode::UNAUTHORIZED),
    ] {
        match office.socket(name, signed_in).await? {
            Err(Error::Http(answer)) => assert_eq!(answer.status().as_u16(), expected.as_u16(), "{name}: {answer:?}"),
            other => anyhow::bail!("{name}, signed in: {signed_in}: {other:?}"),
        }
    }
    Ok(())
}

/// What an upstream does with whoever asks for another protocol.
async fn answer(mut stream: TcpStream) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let (head, pieces) = match head.split(|byte| *byte == b' ').nth(1) {
        Some(b"/declines") => ("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", 100_000),
        Some(b"/agrees") => {
            ("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: spdy/3.1\r\n\r\n", 30)
        }
        // It hangs for as long as it is let.
        _ => ("", 0),
    };
    stream.write_all(head.as_bytes()).await?;
    for _ in 0..pieces {
        stream.write_all(b"x").await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    if pieces == 0 {
        let _until_it_is_cut = stream.read(&mut [0]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn r_014_only_a_connection_that_has_become_something_else_has_more_time_than_its_route() -> Result<()> {
    let (world, listener) = (World::new()?, TcpListener::bind("127.0.0.1:0").await?);
    let to = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    let routes = world.route("app", &to, &[PUBLIC, &["allow_spdy: true", "timeout: 1s"]].concat());
    let postern = Postern::run(&world, &world.config(NO_PROVIDER, &routes)).await?;
    let ask = async |path: &str| {
        let fields = "Connection: Upgrade\r\nUpgrade: spdy/3.1\r\n\r\n";
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{fields}", world.host("app"));
        world.exchange("app", &request).await
    };
    let told = ask("/hangs").await.with_context(|| postern.told())?;
    assert!(told.starts_with("HTTP/1.1 504 "), "{told}");
    let told = ask("/declines").await.with_context(|| postern.told())?;
    assert!(told.len() < 10_000, "it was cut, whatever of it had been passed on: {}", told.len());
    let told = ask("/agrees").await.with_context(|| postern.told())?;
    let carried = told.split_once("\r\n\r\n").context("no head")?.1;
    assert!(told.starts_with("HTTP/1.1 101 "), "{told}");
    assert_eq!(carried, "x".repeat(30), "it outlives the time of its route");
    Ok(())
}
