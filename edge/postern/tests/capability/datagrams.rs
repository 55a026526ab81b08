//! Datagrams of UDP routes pass for whom the policy allows, to the upstream of the route alone: queries to a name server, asked for as
//! Pomerium's client asks and as the standard has it (RFC 9298).

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hickory_proto::op::Message;
use hickory_proto::rr::RData;
use http::{Request, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::programs::credential;
use crate::support::{Browser, DEADLINE, Names, Postern, Provider, Said, World, bounded};

struct Office {
    world: World,
    /// What a program was given that alice signed in for, on the host of the proxy.
    credential: String,
    postern: Postern,
    names: Names,
    _provider: Provider,
}

/// The name server is asked as `dns.internal:53` by alice, and as `ops.internal:53` by bob.
async fn open() -> Result<Office> {
    let (world, names) = (World::new()?, Names::start().await?);
    names.say("intranet.internal", Said::Addresses(vec![ADDRESS], 60));
    let provider = Provider::start(&world, Some("alice"))?;
    let to = format!("udp://{}", names.address());
    let routes = [
        datagrams("dns.internal:53", &to, "allowed_users: [alice@example.com]"),
        datagrams("ops.internal:53", &to, "allowed_users: [bob@example.com]"),
    ];
    let postern = Postern::run(&world, &world.config(&provider.settings(), &routes.concat())).await?;
    let mut person = Browser::new(&world.ca_pem())?;
    let credential = credential(&world, &mut person, "app").await.with_context(|| postern.told())?;
    Ok(Office { world, credential, postern, names, _provider: provider })
}

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 42));

fn datagrams(authority: &str, to: &str, policy: &str) -> String {
    format!("  - from: udp+https://app.{}/{authority}\n    to: {to}\n    {policy}\n", World::DOMAIN)
}

impl Office {
    fn shows(&self) -> String {
        format!("Authorization: Pomerium {}\r\n", self.credential)
    }

    /// Asks for datagrams in HTTP/1.1: the head of the answer, and what becomes of the connection.
    async fn asks(&self, host: &str, to: &str, fields: &str) -> Result<(String, TlsStream<TcpStream>)> {
        let mut stream = self.world.connect("app", &["http/1.1"]).await?;
        let request = format!(
            "GET /.well-known/masque/udp/{to}/ HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: connect-udp\r\n\
             Capsule-Protocol: ?1\r\n{fields}\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let reading = async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await?);
            }
            Ok::<_, std::io::Error>(String::from_utf8_lossy(&head).into_owned())
        };
        let head = bounded(DEADLINE, "the answer", reading).await??;
        Ok((head, stream))
    }
}

/// A query for the address of IPv4 of a name (RFC 1035 §4).
fn query(id: u8, name: &str) -> Result<Vec<u8>> {
    let mut bytes = vec![0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len().try_into()?);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
    Ok(bytes)
}

/// The number of an answer and the addresses in it.
fn answer(bytes: &[u8]) -> Result<(u16, Vec<IpAddr>)> {
    let message = Message::from_vec(bytes)?;
    let address = |data: &RData| if let RData::A(address) = data { Some(IpAddr::V4(address.0)) } else { None };
    Ok((message.metadata.id, message.answers.iter().filter_map(|record| address(&record.data)).collect()))
}

/// A small datagram as it stands on the stream.
fn capsule(payload: &[u8]) -> Result<Vec<u8>> {
    let length = u16::try_from(payload.len() + 1)? | 0x4000;
    Ok([&[0][..], &length.to_be_bytes(), &[0], payload].concat())
}

/// The payload of a small capsule, once it is all there.
fn whole(bytes: &[u8]) -> Option<&[u8]> {
    let (kind, first) = (*bytes.first()?, *bytes.get(1)?);
    let (width, first) = (1 << (first >> 6), first & 0x3f);
    let length = match width {
        1 => usize::from(first),
        _ => usize::from(first) << 8 | usize::from(*bytes.get(2)?),
    };
    assert!(kind == 0 && width < 4, "a small datagram: {bytes:?}");
    bytes.get(1 + width..1 + width + length)?.strip_prefix(&[0])
}

/// The payload of the next capsule.
async fn payload(stream: &mut TlsStream<TcpStream>) -> Result<Vec<u8>> {
    let reading = async {
        let mut bytes = Vec::new();
        loop {
            if let Some(payload) = whole(&bytes) {
                return anyhow::Ok(payload.to_vec());
            }
            bytes.push(stream.read_u8().await?);
        }
    };
    bounded(DEADLINE, "a datagram", reading).await?
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.into_iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

#[tokio::test]
async fn row_from_udp_https_carries_queries_to_a_name_server_for_whom_its_policy_allows() -> Result<()> {
    let office = open().await?;
    let proxy = format!("app.{}", World::DOMAIN);
    for (host, status) in [("dns.internal:53".to_owned(), 200), (proxy.clone(), 101), (office.world.host("app"), 101)] {
        let (head, mut stream) = office.asks(&host, "dns.internal/53", &office.shows()).await?;
        ensure!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {head}\n{}", office.postern.told());
        assert_eq!(field(&head, "capsule-protocol"), Some("?1"), "{head}");
        let (mut up, mut down) = (0, 0);
        for (id, name, addresses) in [(7, "intranet.internal", vec![ADDRESS]), (8, "nobody.internal", Vec::new())] {
            let asked = query(id, name)?;
            stream.write_all(&capsule(&asked)?).await?;
            let told = payload(&mut stream).await?;
            assert_eq!(answer(&told)?, (id.into(), addresses), "{host}");
            (up, down) = (up + asked.len(), down + told.len());
        }
        stream.shutdown().await?;
        let mut rest = Vec::new();
        let _unclean = bounded(DEADLINE, "the end of the tunnel", stream.read_to_end(&mut rest)).await?;
        assert_eq!(rest, b"");

        let id = field(&head, "x-request-id").context("no request id")?;
        let line = office.postern.line("http-request", id).await?;
        let told = |key: &str| line.get(key).cloned().unwrap_or_default();
        assert_eq!((told("method"), told("authority")), ("GET".into(), host.clone().into()), "{line}");
        assert_eq!(told("path"), "/.well-known/masque/udp/dns.internal/53/", "{line}");
        assert_eq!((told("response-code"), told("response-code-details")), (status.into(), "via-upstream".into()));
        assert_eq!((told("received"), told("size")), (up.into(), down.into()), "both ways: {line}");
        let checked = office.postern.line("authorize check", id).await?;
        assert_eq!(
            (checked.get("allow"), checked.get("email")),
            (Some(&true.into()), Some(&"alice@example.com".into()))
        );
    }
    let queries = office.names.queries();
    assert!(queries.len() == 6 && queries.iter().all(|query| !query.tcp), "{queries:?}");

    for (host, to, fields, status) in [
        ("dns.internal:53", "dns.internal/53", String::new(), 302),
        (proxy.as_str(), "dns.internal/53", String::new(), 302),
        ("dns.internal:53", "dns.internal/53", "Authorization: Pomerium stale\r\n".to_owned(), 401),
        ("ops.internal:53", "ops.internal/53", office.shows(), 403),
        ("dns.internal:54", "dns.internal/54", office.shows(), 404),
        (proxy.as_str(), "127.0.0.1/53", office.shows(), 404),
        ("other.internal:53", "dns.internal/53", office.shows(), 404),
    ] {
        let (head, mut stream) = office.asks(host, to, &fields).await?;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{host} {to}: {head}");
        let _closed = stream.write_all(&capsule(&query(9, "intranet.internal")?)?).await;
        let mut rest = Vec::new();
        let _unclean = bounded(DEADLINE, "the end", stream.read_to_end(&mut rest)).await?;
    }
    assert_eq!(office.names.queries().len(), 6, "nothing of it went anywhere");
    Ok(())
}

#[tokio::test]
async fn row_from_udp_https_carries_queries_over_http_2_too() -> Result<()> {
    let office = open().await?;
    let stream = office.world.connect("app", &["h2"]).await?;
    let (client, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    let mut client = client.ready().await?;
    let ask = |to: &str| {
        Request::connect(format!("https://app.{}/.well-known/masque/udp/{to}/", World::DOMAIN))
            .extension(h2::ext::Protocol::from_static("connect-udp"))
            .header("capsule-protocol", "?1")
            .header("authorization", format!("Pomerium {}", office.credential))
            .body(())
    };
    let told = async {
        // What the server can do is known once it has answered.
        let first = Request::get(office.world.url("app", "/ping")).body(())?;
        client.send_request(first, true)?.0.await?;
        let (refused, _stream) = client.send_request(ask("dns.internal/54")?, false)?;
        assert_eq!(refused.await?.status(), StatusCode::NOT_FOUND);
        let (granted, mut stream) = client.send_request(ask("dns.internal/53")?, false)?;
        let granted = granted.await?;
        assert_eq!(granted.status(), StatusCode::OK);
        stream.send_data(Bytes::from(capsule(&query(7, "intranet.internal")?)?), false)?;
        let mut body = granted.into_body();
        let mut told = Vec::new();
        while whole(&told).is_none() {
            told.extend_from_slice(&body.data().await.context("the stream goes on")??);
        }
        anyhow::Ok(told)
    };
    let told = bounded(DEADLINE, "an answer", told).await?.with_context(|| office.postern.told())?;
    assert_eq!(answer(whole(&told).context("a whole one")?)?, (7, vec![ADDRESS]));
    Ok(())
}

#[test]
fn whoever_asks_about_datagrams_is_told_what_happens() -> Result<()> {
    let world = World::new()?;
    let provider = "idp_provider: oidc\nidp_provider_url: https://idp.example.com\nidp_client_id: postern\n";
    let config = |user: &str| {
        let web = world.route("app", "http://127.0.0.1:9", &["allow_any_authenticated_user: true"]);
        let dns = datagrams("dns.internal:53", "udp://10.0.0.53:53", &format!("allowed_users: [{user}@example.com]"));
        world.config(provider, &[web, dns].concat())
    };
    let file = |name: &str, text: &str| -> Result<String> {
        let path = world.path(name);
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let (old, new) = (file("old.yaml", &config("alice"))?, file("new.yaml", &config("bob"))?);
    let run = |arguments: &[&str]| Postern::once(world.folder(), arguments);
    let checked = run(&["check", &old])?;
    assert_eq!(checked.status.code(), Some(0), "{}", checked.told());

    let explain = |url: &str, user: &str| -> Result<Value> {
        let told =
            run(&["explain", "--config", &old, "--url", url, "--email", user, "--user", "u", "--format", "json"])?;
        serde_json::from_str(&told.stdout).with_context(|| told.told())
    };
    let outcome = |told: &Value| told.get("outcome").and_then(Value::as_str).map(str::to_owned);
    let allowed = explain("udp+https://dns.internal:53", "alice@example.com")?;
    assert_eq!(outcome(&allowed).as_deref(), Some("allowed"), "{allowed:#}");
    assert_eq!(allowed.pointer("/upstream/address"), Some(&"10.0.0.53:53".into()), "{allowed:#}");
    assert_eq!(outcome(&explain("udp+https://dns.internal:53", "bob@example.com")?).as_deref(), Some("refused"));
    let nothing = explain("udp+https://dns.internal:54", "alice@example.com")?;
    assert_eq!(outcome(&nothing).as_deref(), Some("not-found"), "{nothing:#}");
    assert_eq!(outcome(&explain("tcp+https://dns.internal:53", "alice@example.com")?).as_deref(), Some("refused"));
    let human = run(&["explain", "--config", &old, "--url", "udp+https://dns.internal:53"])?;
    assert!(human.stdout.contains("CONNECT-UDP dns.internal:53"), "{}", human.told());

    let routes = run(&["routes", &old])?;
    let told = &routes.stdout;
    assert!(told.contains("CONNECT-UDP dns.internal:53") && told.contains("udp://10.0.0.53:53"), "{}", routes.told());
    for question in [&["--url", "udp+https://dns.internal:53"], &["--host", "dns.internal:53"]] {
        let one = run(&[&["routes", &old], &question[..]].concat())?;
        assert!(one.stdout.contains("dns.internal:53") && !one.stdout.contains("http://127.0.0.1:9"), "{}", one.told());
    }
    let changed = run(&["diff", &old, &new])?;
    assert_eq!(changed.status.code(), Some(1), "{}", changed.told());
    let told = &changed.stdout;
    assert!(told.contains("CONNECT-UDP dns.internal:53") && told.contains("alice@example.com"), "{}", changed.told());
    assert_eq!(run(&["diff", &old, &old])?.status.code(), Some(0));
    Ok(())
}
