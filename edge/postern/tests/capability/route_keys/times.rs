//! How long an exchange of a route may take, and what its connections may become (01 §2.6).

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::{Office, open, with};
use crate::support::{DEADLINE, PUBLIC, bounded, eventually};

/// Without any word of the route, requests have a second.
const SHORT: &str = "default_upstream_timeout: 1s\n";

/// A request that the upstream holds, and its answer in time.
fn held(office: &Office, name: &str) -> impl Future<Output = Result<u16>> + use<> {
    let (caller, name, host) = (office.world.caller(None), name.to_owned(), office.world.host(name));
    async move { Ok(caller?.get(&name, &host, "/hold").await?.0) }
}

#[tokio::test]
async fn row_timeout_is_how_long_an_answer_may_take() -> Result<()> {
    let office = open(
        SHORT,
        &[
            ("usual", &[]),
            ("own", &["timeout: 200ms"]),
            // To be silent for longer is not to answer later.
            ("idle", &["idle_timeout: 0s"]),
            ("never", &["timeout: 0s"]),
            ("long", &["timeout: 1h"]),
            ("sockets", &["allow_websockets: true"]),
            ("both", &["allow_websockets: true", "timeout: 200ms"]),
        ],
    )
    .await?;
    let patient = ["never", "long", "sockets"].map(|name| tokio::spawn(held(&office, name)));
    eventually("all at the upstream", async || (office.upstream.seen().len() == 3).then_some(())).await?;
    for (name, least) in [("usual", 1000), ("own", 200), ("idle", 1000), ("both", 200)] {
        let began = Instant::now();
        assert_eq!(held(&office, name).await?, 504, "{name}\n{}", office.postern.told());
        assert!(began.elapsed() >= Duration::from_millis(least), "{name}: {:?}", began.elapsed());
    }
    office.upstream.release();
    for held in patient {
        assert_eq!(held.await??, 200, "{}", office.postern.told());
    }
    office.is_refused(&["timeout: -1s"], "timeout")
}

/// What an upstream does with whoever comes: it agrees to become what is asked for and says back what it hears, goes on slowly, or
/// stops halfway.
async fn answer(mut stream: TcpStream) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head)?;
    if let Some(asked) = head.to_ascii_lowercase().split("\r\nupgrade: ").nth(1).and_then(|rest| rest.lines().next()) {
        let agreed = format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {asked}\r\n\r\n");
        stream.write_all(agreed.as_bytes()).await?;
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await?;
        return Ok(());
    }
    let pieces = if head.starts_with("GET /stops") { 10 } else { 40 };
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n").await?;
    for _ in 0..pieces {
        stream.write_all(b"x").await?;
        tokio::time::sleep(Duration::from_millis(75)).await;
    }
    let _until_it_is_cut = stream.read(&mut [0]).await?;
    Ok(())
}

/// A Postern whose public routes lead there.
async fn before_it(settings: &str, routes: &[(&str, &[&str])]) -> Result<Office> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let to = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    with(settings, |world, held| {
        let made = routes.iter().map(|(name, lines)| world.route(name, &to, &[PUBLIC, *lines].concat()));
        made.chain([world.route("held", held, PUBLIC)]).collect()
    })
    .await
}

type Stream = TlsStream<TcpStream>;

/// What a connection of that name has become, and what follows.
async fn becomes(office: &Office, name: &str, what: &str) -> Result<(u16, Stream)> {
    let mut stream = office.world.connect(name, &["http/1.1"]).await?;
    let host = office.world.host(name);
    let key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: {what}\r\n{key}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let reading = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        anyhow::Ok(String::from_utf8(head)?)
    };
    let head = bounded(DEADLINE, "the answer to an upgrade", reading).await??;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
    Ok((status, stream))
}

/// Holds that what is said comes back.
async fn echoes(stream: &mut Stream) -> Result<()> {
    stream.write_all(b"said").await?;
    let mut heard = [0; 4];
    bounded(DEADLINE, "the echo", stream.read_exact(&mut heard)).await??;
    ensure!(&heard == b"said", "{heard:?}");
    Ok(())
}

#[tokio::test]
async fn row_idle_timeout_is_how_long_nothing_may_be_said() -> Result<()> {
    let office = before_it(
        SHORT,
        &[
            ("app", &["timeout: 0s", "idle_timeout: 1500ms"]),
            ("sockets", &["allow_websockets: true", "idle_timeout: 1500ms"]),
            ("open", &["allow_websockets: true"]),
        ],
    )
    .await?;
    let (_, mut open) = becomes(&office, "open", "websocket").await?;
    let (_, mut silent) = becomes(&office, "sockets", "websocket").await?;
    echoes(&mut silent).await?;
    let began = Instant::now();
    let silence = async {
        let mut rest = Vec::new();
        let _unclean = bounded(DEADLINE, "the end of a silent socket", silent.read_to_end(&mut rest)).await?;
        Ok(began.elapsed())
    };
    let (whole, part) = (office.get("app", "/slow", ""), office.get("app", "/stops", ""));
    let (whole, part, silence) = tokio::try_join!(whole, part, silence)?;
    assert_eq!((whole.status, whole.body.len()), (200, 40), "it lasts for longer, but is never silent for so long");
    assert!(part.body.len() <= 10, "{}: what stops halfway is cut", part.body);
    assert!(silence >= Duration::from_millis(1400), "{silence:?}");
    echoes(&mut open).await.context("a WebSocket may be silent for as long as it likes")
}

#[tokio::test]
async fn row_allow_websockets_lets_them_pass_and_they_have_no_end_of_their_own_accord() -> Result<()> {
    let office = open(
        SHORT,
        &[("on", &["allow_websockets: true"]), ("off", &["allow_websockets: false"]), ("unset", &[]), ("held", &[])],
    )
    .await?;
    let socket = async |name: &str| {
        let stream = office.world.connect(name, &["http/1.1"]).await?;
        let request = format!("wss://{}/socket", office.world.host(name)).into_client_request()?;
        let opening = Box::pin(tokio_tungstenite::client_async(request, stream));
        anyhow::Ok(bounded(DEADLINE, "the answer to the upgrade", opening).await?)
    };
    let (mut on, _) = socket("on").await??;
    // As long as two requests may take, nothing is said.
    for _ in 0..2 {
        assert_eq!(held(&office, "held").await?, 504);
    }
    on.send(Message::text("still here")).await?;
    let heard = bounded(DEADLINE, "the echo", on.next()).await?.context("it has ended")??;
    assert_eq!(heard.to_text()?, "still here");
    for name in ["off", "unset"] {
        let told = socket(name).await?.err().with_context(|| format!("{name}: it was opened"))?;
        assert!(told.to_string().contains("403"), "{name}: {told}");
    }
    Ok(())
}

#[tokio::test]
async fn row_allow_spdy_lets_that_pass_and_nothing_else() -> Result<()> {
    let office = before_it("", &[("on", &["allow_spdy: true"]), ("off", &[])]).await?;
    for (name, what, status) in
        [("on", "spdy/3.1", 101), ("on", "SPDY/3.1", 101), ("on", "websocket", 403), ("off", "spdy/3.1", 403)]
    {
        let (got, mut stream) = becomes(&office, name, what).await?;
        assert_eq!(got, status, "{name}, {what}");
        if status == 101 {
            echoes(&mut stream).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn row_allow_upgrades_takes_the_place_of_those_of_the_file() -> Result<()> {
    let office = before_it(
        "allow_upgrades: [websocket]\n",
        &[
            ("unset", &[]),
            ("custom", &["allow_upgrades: [Foo/2, '', tcp]"]),
            ("words", &["allow_upgrades: [WebSocket, SPDY/3.1]"]),
            ("more", &["allow_upgrades: [tcp]", "allow_websockets: true"]),
        ],
    )
    .await?;
    for (name, what, status) in [
        ("unset", "websocket", 101),
        ("unset", "foo/2", 403),
        ("custom", "foo/2", 101),
        ("custom", "tcp", 101),
        ("custom", "websocket", 403),
        ("words", "websocket", 101),
        ("words", "spdy/3.1", 101),
        ("words", "tcp", 403),
        ("more", "tcp", 101),
        ("more", "websocket", 101),
    ] {
        let (got, mut stream) = becomes(&office, name, what).await?;
        assert_eq!(got, status, "{name}, {what}");
        if status == 101 {
            echoes(&mut stream).await?;
        }
    }
    Ok(())
}
