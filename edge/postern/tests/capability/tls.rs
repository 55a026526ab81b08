//! The certificate by name, the protocols on offer, and the line between two names of one connection.

use anyhow::{Context, Result};
use rcgen::{CertificateParams, KeyPair};
use rustls::version::{TLS12, TLS13};
use tokio::io::AsyncReadExt;

use crate::support::{DEADLINE, NO_PROVIDER, PUBLIC, Postern, Upstream, World, bounded, free_port, plain_client};

struct Office {
    world: World,
    upstream: Upstream,
    _postern: Postern,
}

/// `open` has the world's certificate, `other` one of its own.
async fn open(settings: &str) -> Result<Office> {
    let world = World::new()?;
    let upstream = Upstream::start().await?;
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec![format!("other.{}", World::DOMAIN)])?.self_signed(&key)?;
    std::fs::write(world.path("other.pem"), certificate.pem())?;
    std::fs::write(world.path("other-key.pem"), key.serialize_pem())?;
    let settings = format!(
        "{NO_PROVIDER}{settings}certificates:\n  - cert: {}\n    key: {}\n",
        world.path("other.pem").display(),
        world.path("other-key.pem").display()
    );
    let routes = [
        world.route("open", &upstream.url(), PUBLIC),
        world.route("twin", &upstream.url(), PUBLIC),
        world.route("other", &upstream.url(), PUBLIC),
    ]
    .concat();
    let _postern = Postern::run(&world, &world.config(&settings, &routes)).await?;
    Ok(Office { world, upstream, _postern })
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_spoken_with_both_http_versions() -> Result<()> {
    let office = open("").await?;
    for (version, name) in [(&TLS12, "1.2"), (&TLS13, "1.3")] {
        for (offer, expected) in [(&["h2", "http/1.1"][..], &b"h2"[..]), (&["http/1.1"], b"http/1.1"), (&["h2"], b"h2")]
        {
            let stream = office.world.connect_with("open", offer, &[version]).await.with_context(|| name)?;
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(expected), "TLS {name}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn s_029_a_name_of_another_certificate_on_this_connection_is_misdirected() -> Result<()> {
    let office = open("").await?;
    let ask = |host: &str| format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", office.world.host(host));
    assert!(office.world.exchange("open", &ask("open")).await?.starts_with("HTTP/1.1 200"));
    assert!(
        office.world.exchange("open", &ask("twin")).await?.starts_with("HTTP/1.1 200"),
        "one certificate covers both"
    );
    let before = office.upstream.seen().len();
    let refused = office.world.exchange("open", &ask("other")).await?;
    assert!(refused.starts_with("HTTP/1.1 421"), "{refused}");
    assert_eq!(office.upstream.seen().len(), before);
    Ok(())
}

#[tokio::test]
async fn plain_http_on_the_tls_port_gets_no_answer_from_an_upstream() -> Result<()> {
    let office = open("").await?;
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", office.world.port)).await?;
    tokio::io::AsyncWriteExt::write_all(
        &mut stream,
        format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", office.world.host("open")).as_bytes(),
    )
    .await?;
    let mut answer = Vec::new();
    let _cut = bounded(DEADLINE, "the end of the answer", stream.read_to_end(&mut answer)).await?;
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    assert!(office.upstream.seen().is_empty());
    Ok(())
}

#[tokio::test]
async fn plain_http_is_sent_to_https() -> Result<()> {
    let port = free_port()?;
    let _office = open(&format!("http_redirect_addr: 127.0.0.1:{port}\n")).await?;
    let request = plain_client()?
        .get(format!("http://127.0.0.1:{port}/a?b=c"))
        .header("host", format!("open.{}:{port}", World::DOMAIN));
    let answer = request.send().await?;
    assert_eq!(answer.status().as_u16(), 301);
    let expected = format!("https://open.{}/a?b=c", World::DOMAIN);
    assert_eq!(answer.headers().get("location").and_then(|value| value.to_str().ok()), Some(expected.as_str()));
    Ok(())
}
