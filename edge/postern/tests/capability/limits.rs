//! Every limit of 03 §2 that is the edge's is a setting, and what is over it is refused as written there.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::{
    Browser, DEADLINE, Fault, Faulty, NO_PROVIDER, PUBLIC, Postern, Upstream, World, bounded, eventually,
};

/// Without them, none of what these tests send would be refused, and nothing cut so soon.
fn limited(world: &World, limits: &str, routes: &str) -> String {
    world.config(&format!("{NO_PROVIDER}limits: {{{limits}}}\n"), routes)
}

async fn open(limits: &str) -> Result<(World, Upstream, Postern)> {
    let (world, upstream) = (World::new()?, Upstream::start().await?);
    let large = [PUBLIC, &["max_request_body_bytes: 5000"]].concat();
    let routes = [world.route("app", &upstream.url(), PUBLIC), world.route("large", &upstream.url(), &large)];
    let postern = Postern::run(&world, &limited(&world, limits, &routes.concat())).await?;
    Ok((world, upstream, postern))
}

fn head(world: &World, line: &str, fields: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", world.host("app"))
}

async fn rest(stream: &mut TlsStream<TcpStream>) -> Result<String> {
    let mut answer = Vec::new();
    // RFC 8446 section 6.1: without close_notify the end may be somebody else's.
    bounded(DEADLINE, "the end of the connection", stream.read_to_end(&mut answer)).await??;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// One answer that has a length, on a connection that stays.
async fn answer(stream: &mut TlsStream<TcpStream>) -> Result<String> {
    let reading = async {
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        stream.read_exact(&mut vec![0; length.unwrap_or_default()]).await?;
        Ok::<_, std::io::Error>(head)
    };
    Ok(bounded(DEADLINE, "an answer", reading).await??)
}

#[tokio::test]
async fn r_002_the_parts_of_a_head_are_as_large_as_they_may_be() -> Result<()> {
    let limits = "request_head_bytes: 4096, request_field_bytes: 1024, request_fields: 20, request_target_bytes: 1024, \
                  request_head_timeout: 1s";
    let (world, upstream, _postern) = open(limits).await?;
    let long = "x".repeat(1100);
    let fields = |count: usize, size: usize| {
        (0..count).map(|at| format!("X-{at}: {}\r\n", "x".repeat(size))).collect::<String>()
    };
    for (what, request, status) in [
        ("a field", head(&world, "GET /", &format!("X-A: {long}\r\n")), 431),
        ("the head", head(&world, "GET /", &fields(6, 800)), 431),
        ("the fields", head(&world, "GET /", &fields(25, 1)), 431),
        ("the target", head(&world, &format!("GET /{long}"), ""), 414),
        ("nothing", head(&world, "GET /", &format!("{}Connection: close\r\n", fields(3, 900))), 200),
    ] {
        let answer = world.exchange("app", &request).await?;
        ensure!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer}");
    }
    let before = upstream.seen().len();
    let mut browser = Browser::new(&world.ca_pem())?;
    let request = browser.request(reqwest::Method::GET, world.url("app", "/")).header("x-a", long);
    assert_eq!(browser.send(request).await?.status.as_u16(), 431, "HTTP/2");
    assert_eq!(upstream.seen().len(), before);

    let mut slow = world.connect("app", &["http/1.1"]).await?;
    slow.write_all(b"GET / HTTP/1.1\r\n").await?;
    let began = Instant::now();
    let told = rest(&mut slow).await?;
    assert!(told.starts_with("HTTP/1.1 408 "), "{told}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    Ok(())
}

#[tokio::test]
async fn row_max_request_body_bytes_is_how_large_a_body_may_be_and_none_is_slower_than_it_may_be() -> Result<()> {
    let limits =
        "max_request_body_bytes: 1000, request_body_idle_timeout: 1s, chunk_extension_bytes: 8, trailer_bytes: 8";
    let (world, upstream, postern) = open(limits).await?;
    let chunk = |size: usize| format!("{size:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(size));
    let (length, chunked) =
        ("Connection: close\r\nContent-Length", "Connection: close\r\nTransfer-Encoding: chunked\r\n");
    for (what, name, fields, body, status) in [
        ("its length", "app", format!("{length}: 1001\r\n"), "x".repeat(1001), 413),
        // All of it is written before anything is read.
        ("a megabyte", "app", format!("{length}: 1048576\r\n"), "x".repeat(1 << 20), 413),
        ("its chunks", "app", chunked.to_owned(), chunk(1001), 413),
        ("enough", "app", chunked.to_owned(), chunk(1000), 200),
        ("a route that takes more", "large", format!("{length}: 5000\r\n"), "x".repeat(5000), 200),
        ("and no more than that", "large", format!("{length}: 5001\r\n"), "x".repeat(5001), 413),
        ("a long extension", "app", chunked.to_owned(), "1;123456789\r\nx\r\n0\r\n\r\n".to_owned(), 400),
        ("long trailers", "app", chunked.to_owned(), "1\r\nx\r\n0\r\nX-A: 123456789\r\n\r\n".to_owned(), 400),
        ("too slow", "app", format!("{length}: 10\r\n"), "x".to_owned(), 408),
    ] {
        let request = format!("POST /upload HTTP/1.1\r\nHost: {}\r\n{fields}\r\n{body}", world.host(name));
        let answer = world.exchange(name, &request).await?;
        ensure!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer}\n{}", postern.told());
        ensure!(status != 413 || answer.contains("body-too-large"), "{what}: {answer}");
    }
    let declared = upstream.seen().iter().filter(|asked| asked.header("content-length") == Some("1001")).count();
    assert_eq!(declared, 0, "what says that it is too large is not begun");

    let mut browser = Browser::new(&world.ca_pem())?;
    for (bytes, status) in [(1000, 200), (1001, 413)] {
        let request = browser.request(reqwest::Method::POST, world.url("app", "/upload")).body(vec![0; bytes]);
        assert_eq!(browser.send(request).await?.status.as_u16(), status, "{bytes} in HTTP/2");
    }
    Ok(())
}

#[tokio::test]
async fn a_body_that_is_too_large_ends_with_its_exchange_whatever_the_upstream_speaks() -> Result<()> {
    let (world, silent) = (World::new()?, Faulty::start(Fault::Silent, None, true).await?);
    let route = world.route("app", &format!("h2c://{}", silent.address()), PUBLIC);
    let postern = Postern::run(&world, &limited(&world, "max_request_body_bytes: 1000", &route)).await?;
    let chunks = format!("3e9\r\n{}\r\n", "x".repeat(1001));
    let request = format!("{}{chunks}", head(&world, "POST /", "Transfer-Encoding: chunked\r\n"));
    let began = Instant::now();
    let answer = world.exchange("app", &request).await?;
    ensure!(answer.starts_with("HTTP/1.1 413 "), "{answer}\n{}", postern.told());
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let request = head(&world, "POST /", "Content-Length: 1001\r\n");
    let answer = world.exchange("app", &request).await?;
    ensure!(answer.starts_with("HTTP/1.1 413 "), "the connection is closed: {answer}\n{}", postern.told());
    Ok(())
}

#[tokio::test]
async fn connections_are_as_many_and_last_as_long_as_they_may() -> Result<()> {
    let (world, _upstream, postern) =
        open("connections_per_address: 2, requests_per_connection: 2, keepalive_timeout: 2s").await?;
    let mut one = world.connect("app", &["http/1.1"]).await?;
    let _two = world.connect("app", &["http/1.1"]).await?;
    assert!(world.connect("app", &["http/1.1"]).await.is_err(), "a third of one address");
    for last in [false, true] {
        one.write_all(head(&world, "GET /", "").as_bytes()).await?;
        let told = answer(&mut one).await?;
        assert_eq!(told.contains("connection: close"), last, "{told}");
    }
    assert_eq!(rest(&mut one).await?, "");
    let mut again = eventually("a place for another", async || world.connect("app", &["http/1.1"]).await.ok()).await?;
    let began = Instant::now();
    assert_eq!(rest(&mut again).await?, "", "{}", postern.told());
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_connection_that_rests_after_an_answer_ends_cleanly_after_its_time_or_when_it_is_given_up() -> Result<()> {
    for (limits, gives_up) in [("keepalive_timeout: 3s", false), ("keepalive_timeout: 1h", true)] {
        let (world, _upstream, _postern) = open(limits).await?;
        let mut stream = world.connect("app", &["http/1.1"]).await?;
        stream.write_all(head(&world, "GET /", "").as_bytes()).await?;
        let told = answer(&mut stream).await?;
        assert!(told.starts_with("http/1.1 200 ") && !told.contains("connection: close"), "{told}");
        if gives_up {
            stream.shutdown().await?;
        }
        assert_eq!(rest(&mut stream).await.context(limits)?, "");
    }
    Ok(())
}

/// What a server settles in its first frame, by the number of the setting (RFC 9113 §6.5.2).
async fn settled(world: &World) -> Result<Vec<(u16, u32)>> {
    let mut stream = world.connect("app", &["h2"]).await?;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
    let reading = async {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let mut payload = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
        stream.read_exact(&mut payload).await?;
        Ok::<_, std::io::Error>(payload)
    };
    let payload = bounded(DEADLINE, "SETTINGS", reading).await??;
    let (settings, _none) = payload.as_chunks::<6>();
    let setting = |[a, b, c, d, e, f]: &[u8; 6]| (u16::from_be_bytes([*a, *b]), u32::from_be_bytes([*c, *d, *e, *f]));
    Ok(settings.iter().map(setting).collect())
}

#[tokio::test]
async fn http_2_is_settled_as_it_is_written_and_anew_with_a_reload() -> Result<()> {
    let written = |streams: u32| {
        format!("http2_streams: {streams}, http2_stream_window_bytes: 32768, http2_header_list_bytes: 8192")
    };
    let (world, upstream, _postern) = open(&written(7)).await?;
    for expected in [(3, 7), (4, 32_768), (6, 8192)] {
        let settled = settled(&world).await?;
        assert!(settled.contains(&expected), "{expected:?} in {settled:?}");
    }
    world.write_config(&limited(&world, &written(9), &world.route("app", &upstream.url(), PUBLIC)))?;
    eventually("the new number of streams", async || settled(&world).await.ok()?.contains(&(3, 9)).then_some(())).await
}

#[tokio::test]
async fn an_answer_is_as_large_as_it_may_be() -> Result<()> {
    let (world, upstream, _postern) = open("upstream_head_bytes: 4096, upstream_fields: 20").await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    let many: String = (0..25).map(|at| format!("x-{at}=1&")).collect();
    for (query, status) in
        [(format!("x-a={}", "x".repeat(5000)), 502), (many, 502), (format!("x-a={}", "x".repeat(1000)), 200)]
    {
        let answer = browser.visit(world.url("app", &format!("/say?{query}"))).await?;
        assert_eq!(answer.status.as_u16(), status, "{}", upstream.seen().len());
    }
    Ok(())
}

#[tokio::test]
async fn an_upstream_that_shakes_no_hands_has_so_long() -> Result<()> {
    let (world, mute) = (World::new()?, Faulty::start(Fault::Mute, None, false).await?);
    let to = format!("https://{}", mute.address());
    let config = limited(&world, "upstream_connect_timeout: 200ms", &world.route("app", &to, PUBLIC));
    let _postern = Postern::run(&world, &config).await?;
    let began = Instant::now();
    let answer = Browser::new(&world.ca_pem())?.visit(world.url("app", "/")).await?;
    assert_eq!(answer.status.as_u16(), 504, "{}", answer.body);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    Ok(())
}

#[tokio::test]
async fn r_030_the_requests_in_flight_are_as_many_as_they_may_be_and_a_reload_changes_that() -> Result<()> {
    let (world, upstream, _postern) = open("requests_in_flight: 2").await?;
    let hold = || async {
        let mut stream = world.connect("app", &["http/1.1"]).await?;
        stream.write_all(head(&world, "GET /hold", "").as_bytes()).await?;
        Ok::<_, anyhow::Error>(stream)
    };
    let _held = (hold().await?, hold().await?);
    eventually("both at the upstream", async || (upstream.seen().len() == 2).then_some(())).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    let refused = browser.visit(world.url("app", "/")).await?;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, "1"));
    world.write_config(&limited(&world, "requests_in_flight: 3", &world.route("app", &upstream.url(), PUBLIC)))?;
    eventually("a place for a third", async || {
        browser.visit(world.url("app", "/")).await.ok().filter(|answer| answer.status == 200).map(drop)
    })
    .await
}

#[tokio::test]
async fn r_017_a_drain_takes_as_long_as_it_may_and_a_tunnel_that_it_cuts_has_its_record() -> Result<()> {
    let (world, upstream) = (World::new()?, Upstream::start().await?);
    let to = upstream.url().replace("http://", "tcp://");
    let tcp =
        format!("  - from: tcp+https://app.{}/db.internal:5432\n    to: {to}\n    {}\n", World::DOMAIN, PUBLIC[0]);
    let routes = [world.route("app", &upstream.url(), PUBLIC), tcp];
    let postern = Postern::run(&world, &limited(&world, "drain_timeout: 1s", &routes.concat())).await?;
    let mut tunnel = world.connect("app", &["http/1.1"]).await?;
    tunnel.write_all(b"CONNECT db.internal:5432 HTTP/1.1\r\nHost: db.internal:5432\r\n\r\n").await?;
    let told = answer(&mut tunnel).await?;
    assert!(told.starts_with("http/1.1 200 "), "{told}");
    let began = Instant::now();
    postern.signal("TERM")?;
    let finished = postern.finished().await?;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let lines = finished.stdout.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let lines: Vec<_> = lines.filter(|line| line.get("method") == Some(&"CONNECT".into())).collect();
    let told = |message: &str| lines.iter().find(|line| line.to_string().contains(message)).cloned();
    let access = told("http-request").with_context(|| finished.told())?;
    assert_eq!(access["response-code-details"], "cut", "{access}");
    told("authorize check").with_context(|| finished.told())?;
    Ok(())
}
