//! `to`: which version of HTTP an upstream is spoken to in, over which kind of connection (01 §2.5).

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result};
use reqwest::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::support::{
    Backend, Browser, DEADLINE, NO_PROVIDER, PUBLIC, Postern, Seen, Shown, World, bounded, output_within,
};

/// A backend with the world's certificate, for `localhost`, that speaks these protocols.
async fn secure(world: &World, name: &str, alpn: &[&'static str]) -> Result<Backend> {
    let (certificate, key) = (format!("{name}.crt"), format!("{name}.key"));
    world.issue((&certificate, &key), &["localhost".to_owned()])?;
    let shown =
        Shown { certificate: world.path(&certificate), key: world.path(&key), alpn: alpn.to_vec(), ..Shown::default() };
    Backend::secure(name, &shown).await
}

fn trusting(world: &World) -> String {
    format!("{NO_PROVIDER}certificate_authority_file: {}\n", world.path("ca.pem").display())
}

async fn seen(browser: &mut Browser, world: &World, name: &str) -> Result<Seen> {
    let answer = browser.visit(world.url(name, "/")).await?;
    serde_json::from_str(&answer.body).with_context(|| format!("{}: {}", answer.status, answer.body))
}

#[tokio::test]
async fn row_to_says_the_version_of_http_that_an_upstream_is_spoken_to_in() -> Result<()> {
    let world = World::new()?;
    let both = secure(&world, "both", &["h2", "http/1.1"]).await?;
    let old = secure(&world, "old", &["http/1.1"]).await?;
    let mute = secure(&world, "mute", &[]).await?;
    let plain = Backend::plain("plain").await?;
    let mixed = format!("['{}', '{}']", plain.url("http", "localhost")?, both.url("https", "localhost")?);
    let sockets = [PUBLIC, &["allow_websockets: true"]].concat();
    let routes = [
        world.route("both", &both.url("https", "localhost")?, PUBLIC),
        world.route("old", &old.url("https", "localhost")?, PUBLIC),
        world.route("mute", &mute.url("https", "localhost")?, PUBLIC),
        world.route("h2c", &plain.url("h2c", "localhost")?, PUBLIC),
        world.route("plain", &plain.url("http", "localhost")?, PUBLIC),
        world.route("mixed", &mixed, PUBLIC),
        world.route("sockets", &both.url("https", "localhost")?, &sockets),
    ];
    let _postern = Postern::run(&world, &world.config(&trusting(&world), &routes.concat())).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    for _ in 0..2 {
        for (name, version) in [
            ("both", "HTTP/2.0"),
            ("old", "HTTP/1.1"),
            ("mute", "HTTP/1.1"),
            ("h2c", "HTTP/2.0"),
            ("plain", "HTTP/1.1"),
            ("mixed", "HTTP/1.1"),
            ("sockets", "HTTP/1.1"),
        ] {
            assert_eq!(seen(&mut browser, &world, name).await?.version, version, "{name}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_http_2_upstreams_do_not_get_goes_up_in_http_1() -> Result<()> {
    let world = World::new()?;
    let both = secure(&world, "both", &["h2", "http/1.1"]).await?;
    let route = world.route("app", &both.url("https", "localhost")?, &[PUBLIC, &["timeout: 1s"]].concat());
    let _postern = Postern::run(&world, &world.config(&trusting(&world), &route)).await?;
    // So much that it takes longer to send than the route gives to answer, which counts from the end of the request.
    let (body, large) = (world.path("body"), format!("@{}", world.path("body").display()));
    std::fs::write(&body, vec![b'x'; 200_000])?;
    let address = format!("{}:127.0.0.1", world.host("app"));
    for (arguments, version) in [
        (&["--http1.1"][..], "HTTP/2.0"),
        (&["--no-alpn", "--http1.0"], "HTTP/1.1"),
        (&["--http1.1", "--header", "Expect: 100-continue", "--request", "PUT", "--data", "x"], "HTTP/1.1"),
        (&["--http1.1", "--limit-rate", "70k", "--data-binary", &large], "HTTP/1.1"),
    ] {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--resolve", &address, "--cacert"]).arg(world.path("ca.pem"));
        curl.args(arguments).arg(world.url("app", "/"));
        let told = tokio::task::spawn_blocking(|| output_within(DEADLINE, "curl", curl)).await??;
        assert!(told.status.success(), "{arguments:?}: {:?}", String::from_utf8_lossy(&told.stderr));
        let seen = both.seen().last().map(|seen| seen.version.clone());
        assert_eq!(seen.as_deref(), Some(version), "{arguments:?}: {told:?}");
    }
    Ok(())
}

#[tokio::test]
async fn requests_share_a_connection_of_http_2() -> Result<()> {
    let world = World::new()?;
    let backend = Backend::plain("a").await?;
    let route = world.route("app", &backend.url("h2c", "localhost")?, PUBLIC);
    let _postern = Postern::run(&world, &world.config(NO_PROVIDER, &route)).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    for _ in 0..20 {
        seen(&mut browser, &world, "app").await?;
    }
    let connections = || backend.seen().iter().map(|seen| seen.connection).collect::<BTreeSet<_>>().len();
    let cores = std::thread::available_parallelism()?.get();
    assert!(connections() <= cores, "one for each core at most: {}", connections());
    Ok(())
}

#[tokio::test]
async fn r_015_a_stream_that_hangs_ends_at_its_bound_and_leaves_the_others_of_its_connection_alone() -> Result<()> {
    let world = World::new()?;
    let backend = Backend::plain("a").await?;
    let route = world.route("app", &backend.url("h2c", "localhost")?, &[PUBLIC, &["timeout: 1s"]].concat());
    let postern = Postern::run(&world, &world.config(NO_PROVIDER, &route)).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    seen(&mut browser, &world, "app").await?;
    let silent = async {
        let mut browser = Browser::new(&world.ca_pem())?;
        anyhow::Ok(browser.visit(world.url("app", "/silent")).await?.status.as_u16())
    };
    let lively = async {
        for _ in 0..200 {
            seen(&mut browser, &world, "app").await?;
        }
        anyhow::Ok(())
    };
    let (silent, lively) = bounded(DEADLINE, "both", Box::pin(async { tokio::join!(silent, lively) })).await?;
    lively?;
    assert_eq!(silent?, 504, "{}", postern.told());
    let reason =
        |line: &serde_json::Value| line.get("response-code-details").is_some_and(|why| why == "upstream-timeout");
    assert!(postern.log().iter().any(reason), "{}", postern.told());
    Ok(())
}

#[tokio::test]
async fn an_upstream_may_be_a_socket_in_the_file_system() -> Result<()> {
    let world = World::new()?;
    let plain = Backend::socket("plain", &world.path("app.sock"))?;
    let to = format!("unix://{}", world.path("app.sock").display());
    let gone = format!("unix://{}", world.path("gone.sock").display());
    let routes = [world.route("app", &to, PUBLIC), world.route("gone", &gone, PUBLIC)].concat();
    let _postern = Postern::run(&world, &world.config(NO_PROVIDER, &routes)).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    for _ in 0..3 {
        let seen = seen(&mut browser, &world, "app").await?;
        assert_eq!(seen.version, "HTTP/1.1");
        assert_eq!(seen.header("host"), Some(world.host("app").as_str()), "a socket has no name of its own");
    }
    assert!(plain.seen().iter().all(|seen| seen.path == "/"), "its path is no path of requests");
    let gone = browser.visit(world.url("gone", "/")).await?;
    assert_eq!(gone.status.as_u16(), 502);
    Ok(())
}

#[tokio::test]
async fn r_014_a_pooled_connection_is_closed_soon_after_its_upstream_has_left_and_names_go_up_in_lower_case()
-> Result<()> {
    let world = World::new()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let _postern = Postern::run(&world, &world.config(NO_PROVIDER, &world.route("app", &url, PUBLIC))).await?;
    let answered = Notify::new();
    let upstream = async {
        let (mut stream, _) = listener.accept().await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await?;
        answered.notified().await;
        stream.shutdown().await?;
        let left = stream.read(&mut [0; 16]).await?;
        anyhow::Ok((String::from_utf8(head)?, left))
    };
    let client = async {
        let mut browser = Browser::new(&world.ca_pem())?;
        let request = browser.request(Method::GET, world.url("app", "/")).header("X-Odd-Name", "1");
        assert_eq!(browser.send(request).await?.status, StatusCode::OK);
        answered.notify_one();
        anyhow::Ok(())
    };
    let (upstream, client) = tokio::join!(bounded(DEADLINE, "the upstream", upstream), client);
    client?;
    let (head, left) = upstream??;
    assert_eq!(left, 0, "the other side keeps what nobody can use");
    assert!(head.contains("\r\nx-odd-name: 1\r\n"), "{head}");
    Ok(())
}

#[tokio::test]
async fn what_an_upstream_has_said_goes_down_while_it_thinks_about_the_rest() -> Result<()> {
    let world = World::new()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let _postern = Postern::run(&world, &world.config(NO_PROVIDER, &world.route("app", &url, PUBLIC))).await?;
    let seen = Notify::new();
    let upstream = async {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await?;
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await?);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 10\r\n\r\nhalf ").await?;
            seen.notified().await;
            stream.write_all(b"whole").await?;
        }
        anyhow::Ok(())
    };
    let client = async {
        for old in [true, false] {
            let browser = if old { Browser::over_http1(&world.ca_pem())? } else { Browser::new(&world.ca_pem())? };
            let mut answer = browser.request(Method::GET, world.url("app", "/")).send().await?;
            assert_eq!(answer.chunk().await?.as_deref(), Some(&b"half "[..]), "{:?}", answer.version());
            seen.notify_one();
            assert_eq!(answer.chunk().await?.as_deref(), Some(&b"whole"[..]));
        }
        anyhow::Ok(())
    };
    let both = async { tokio::join!(upstream, client) };
    let (upstream, client) = bounded(DEADLINE, "what was said", Box::pin(both)).await?;
    upstream?;
    client
}
