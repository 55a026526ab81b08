//! A stop is announced, what runs is finished, and nothing new is begun.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{
    Browser, DEADLINE, NO_PROVIDER, PUBLIC, Postern, Upstream, World, bounded, eventually, plain_client,
};

#[tokio::test]
async fn r_017_a_request_in_flight_is_finished_and_no_new_connection_taken() -> Result<()> {
    let world = World::new()?;
    let upstream = Upstream::start().await?;
    let postern =
        Postern::run(&world, &world.config(NO_PROVIDER, &world.route("open", &upstream.url(), PUBLIC))).await?;
    let mut http1 = world.connect("open", &["http/1.1"]).await?;
    http1.write_all(format!("GET /hold HTTP/1.1\r\nHost: {}\r\n\r\n", world.host("open")).as_bytes()).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    let url = world.url("open", "/hold");
    let http2 = tokio::spawn(async move { browser.peek(url).await });
    eventually("both requests at the upstream", async || (upstream.seen().len() == 2).then_some(())).await?;

    postern.signal("TERM")?;

    let ready = format!("http://127.0.0.1:{}/readyz", world.health);
    let client = plain_client()?;
    eventually("readiness to go false", async || {
        client.get(&ready).send().await.ok().filter(|answer| answer.status() == 503)
    })
    .await?;
    eventually("the listener to close", async || TcpStream::connect((Ipv4Addr::LOCALHOST, world.port)).await.err())
        .await?;
    upstream.release();
    let mut answer = String::new();
    bounded(DEADLINE, "the rest of the answer", http1.read_to_string(&mut answer)).await??;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    assert!(answer.ends_with("held, then let go"), "{answer}");
    assert_eq!(http2.await??.body, "held, then let go");
    let finished = postern.finished().await?;
    assert!(finished.status.success(), "{finished:?}");
    Ok(())
}

#[tokio::test]
async fn r_017_an_idle_connection_does_not_hold_up_the_end() -> Result<()> {
    let world = World::new()?;
    let upstream = Upstream::start().await?;
    let postern =
        Postern::run(&world, &world.config(NO_PROVIDER, &world.route("open", &upstream.url(), PUBLIC))).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    browser.peek(world.url("open", "/")).await?;
    let mut silent = world.connect("open", &["http/1.1"]).await?;
    let mut answered = world.connect("open", &["http/1.1"]).await?;
    answered.write_all(format!("HEAD / HTTP/1.1\r\nHost: {}\r\n\r\n", world.host("open")).as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(bounded(DEADLINE, "the answer", answered.read_u8()).await??);
    }

    let started = Instant::now();
    postern.signal("TERM")?;
    let finished = postern.finished().await?;

    assert!(finished.status.success(), "{finished:?}");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}\n{}", started.elapsed(), finished.stdout);
    for stream in [&mut silent, &mut answered] {
        // RFC 8446 section 6.1: without close_notify the end may be somebody else's.
        assert_eq!(bounded(DEADLINE, "the end of the connection", stream.read_to_end(&mut Vec::new())).await??, 0);
    }
    Ok(())
}

#[tokio::test]
async fn r_017_a_handshake_that_does_not_end_does_not_hold_up_the_end() -> Result<()> {
    let world = World::new()?;
    let postern =
        Postern::run(&world, &world.config(NO_PROVIDER, &world.route("open", "http://127.0.0.1:9", PUBLIC))).await?;
    let mut half_open = TcpStream::connect((Ipv4Addr::LOCALHOST, world.port)).await?;
    // The beginning of a ClientHello, and no more.
    half_open.write_all(b"\x16\x03\x01\x02\x00\x01").await?;
    let metrics = format!("http://127.0.0.1:{}/metrics", world.metrics);
    let client = plain_client()?;
    eventually("the handshake to begin", async || {
        let text = client.get(&metrics).send().await.ok()?.text().await.ok()?;
        text.lines().any(|line| line == "postern_edge_handshakes 1").then_some(())
    })
    .await?;

    let started = Instant::now();
    postern.signal("TERM")?;
    let finished = postern.finished().await?;

    assert!(finished.status.success(), "{finished:?}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}\n{}", started.elapsed(), finished.stdout);
    Ok(())
}

#[tokio::test]
async fn r_017_a_second_signal_cuts() -> Result<()> {
    let world = World::new()?;
    let upstream = Upstream::start().await?;
    let mut postern =
        Postern::run(&world, &world.config(NO_PROVIDER, &world.route("open", &upstream.url(), PUBLIC))).await?;
    let mut stream = world.connect("open", &["http/1.1"]).await?;
    stream.write_all(format!("GET /hold HTTP/1.1\r\nHost: {}\r\n\r\n", world.host("open")).as_bytes()).await?;
    eventually("the request at the upstream", async || (upstream.seen().len() == 1).then_some(())).await?;
    postern.signal("TERM")?;
    eventually("the listener to close", async || TcpStream::connect((Ipv4Addr::LOCALHOST, world.port)).await.err())
        .await?;
    assert!(postern.is_alive(), "it drains");

    let started = Instant::now();
    postern.signal("TERM")?;
    let finished = postern.finished().await.context("cut")?;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}\n{}", started.elapsed(), finished.stderr);
    Ok(())
}
