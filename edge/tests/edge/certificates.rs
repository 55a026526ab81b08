//! The certificates of the listener and of upstreams.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use postern_edge::route::{HostPattern, Target, UpstreamScheme};
use postern_edge::{Certificates, CertifiedFiles};
use postern_identity::{Keyring, Secret};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{HOST, Upstream, Wire, World, WorldBuilder, route, until};

struct Made {
    chain: Vec<u8>,
    key: Vec<u8>,
    der: CertificateDer<'static>,
}

fn made(names: &[&str]) -> Made {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    Made {
        chain: made.cert.pem().into_bytes(),
        key: made.signing_key.serialize_pem().into_bytes(),
        der: made.cert.der().clone(),
    }
}

fn shown(wire: &Wire) -> CertificateDer<'static> {
    wire.stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

#[tokio::test]
async fn r_021_a_certificate_is_picked_up_from_disk_and_open_connections_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let files = CertifiedFiles { certificate: folder.path().join("a.crt"), key: folder.path().join("a.key") };
    let write = |made: &Made| {
        std::fs::write(&files.certificate, &made.chain).unwrap();
        std::fs::write(&files.key, &made.key).unwrap();
    };
    let (old, new) = (made(&[HOST]), made(&[HOST]));
    write(&old);
    let configured = Certificates { files: vec![files.clone()], ..Certificates::default() };
    let world = WorldBuilder::new().await.change(|config| config.certificates = configured).start();
    let mut before = Wire::open(world.address, HOST, &old.der, &["http/1.1"]).await.unwrap();

    std::fs::write(&files.key, "half a file").unwrap();
    world.edge.reload_certificates();
    assert_eq!(shown(&Wire::open(world.address, HOST, &old.der, &[]).await.unwrap()), old.der, "the old one stays");
    assert_eq!(world.metric("postern_edge_certificate_reloads_total", &[("outcome", "error")]), 1.0);

    write(&new);
    world.edge.reload_certificates();
    assert_eq!(shown(&Wire::open(world.address, HOST, &new.der, &[]).await.unwrap()), new.der);
    before.send("GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await;
    assert_eq!(before.response().await.unwrap().status, 200);
    assert!(world.metric("postern_edge_certificate_not_after_timestamp_seconds", &[("name", HOST)]) > 1.7e9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r_021_a_hundred_renewals_under_load_fail_no_handshake_and_no_request() {
    let folder = tempfile::tempdir().unwrap();
    let files = CertifiedFiles { certificate: folder.path().join("a.crt"), key: folder.path().join("a.key") };
    let both = [made(&[HOST]), made(&[HOST])];
    let write = |made: &Made| {
        // Each file whole; between the two they do not belong together, and the old pair stays.
        for (path, content) in [(&files.certificate, &made.chain), (&files.key, &made.key)] {
            let beside = path.with_extension("new");
            std::fs::write(&beside, content).unwrap();
            std::fs::rename(&beside, path).unwrap();
        }
    };
    write(&both[0]);
    let configured = Certificates { files: vec![files.clone()], ..Certificates::default() };
    let world = WorldBuilder::new().await.change(|config| config.certificates = configured).start();
    let client = trusting(both.iter().map(|made| &made.der), rustls::ALL_VERSIONS, Resumption::disabled());
    let (stop, shaken) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let knock = || {
        let (client, address) = (Arc::clone(&client), world.address);
        let (stop, shaken) = (Arc::clone(&stop), Arc::clone(&shaken));
        async move {
            while !stop.load(Ordering::Relaxed) {
                let mut stream = connect(&client, address).await.unwrap();
                let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).await.unwrap();
                assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
                shaken.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let clients: Vec<_> = (0..4).map(|_| tokio::spawn(knock())).collect();
    for round in 0..100 {
        let before = shaken.load(Ordering::Relaxed);
        write(&both[(round + 1) % 2]);
        world.edge.reload_certificates();
        // At least one client shakes hands with each of them.
        until("a handshake", || shaken.load(Ordering::Relaxed) > before || clients.iter().all(JoinHandle::is_finished))
            .await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("no handshake and no request fails");
    }
    // The watch may have seen one of them as well.
    assert!(world.metric("postern_edge_certificate_reloads_total", &[("outcome", "ok")]) >= 100.0);
    assert_eq!(world.metric("postern_edge_connections_total", &[("outcome", "handshake_failed")]), 0.0);
}

/// A client that trusts these, and keeps what it needs to resume connections.
fn trusting<'c>(
    roots: impl IntoIterator<Item = &'c CertificateDer<'static>>,
    versions: &[&'static SupportedProtocolVersion],
    resumption: Resumption,
) -> Arc<ClientConfig> {
    let mut store = RootCertStore::empty();
    roots.into_iter().for_each(|root| store.add(root.clone()).unwrap());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let mut config = builder.with_root_certificates(store).with_no_client_auth();
    config.resumption = resumption;
    Arc::new(config)
}

async fn connect(client: &Arc<ClientConfig>, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::clone(client)).connect(HOST.try_into().unwrap(), stream).await
}

/// Whether a connection was resumed; the client has seen an answer on it, and with it every ticket.
async fn resumed(client: &Arc<ClientConfig>, address: SocketAddr) -> bool {
    let mut stream = connect(client, address).await.unwrap();
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    stream.read_to_end(&mut Vec::new()).await.unwrap();
    stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
}

#[tokio::test]
async fn a_connection_is_resumed_at_another_edge_of_the_deployment_and_at_no_other() {
    let (here, there) = (World::new().await, World::new().await);
    let keyring = Arc::new(Keyring::derive(&Secret::new([9; 32]), &Secret::new([2; 32])));
    let foreign = WorldBuilder::new().await.change(|config| config.keyring = keyring).start();
    let roots = [&here.root, &there.root, &foreign.root];
    let client = || trusting(roots, rustls::ALL_VERSIONS, Resumption::default());
    let own = client();
    assert!(!resumed(&own, here.address).await);
    assert!(resumed(&own, there.address).await, "the other edge opens the ticket");
    assert!(resumed(&own, here.address).await);
    let other = client();
    assert!(!resumed(&other, here.address).await);
    assert!(!resumed(&other, foreign.address).await, "another secret");
    // A ticket of TLS 1.2 would open the connection that it is from to whoever learns the key.
    let older = trusting(roots, &[&rustls::version::TLS12], Resumption::default());
    assert!(!resumed(&older, here.address).await);
    assert!(!resumed(&older, there.address).await);
}

#[tokio::test]
async fn an_authority_that_looks_at_a_challenge_is_shown_it_and_no_more() {
    let world = World::new().await;
    let shown = made(&["challenge.localhost"]);
    let client = |alpn: &[&[u8]]| {
        let mut client =
            ClientConfig::clone(&trusting([&world.root, &shown.der], rustls::ALL_VERSIONS, Resumption::disabled()));
        client.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(client)
    };
    let ask = async |client: Arc<ClientConfig>, name: &'static str| {
        let stream = TcpStream::connect(world.address).await?;
        TlsConnector::from(client).connect(name.try_into().unwrap(), stream).await
    };
    let challenges = world.challenges();
    assert!(ask(client(&[b"acme-tls/1"]), "challenge.localhost").await.is_err(), "none is open");
    challenges.show("challenge.localhost", &shown.chain, &shown.key).unwrap();
    let mut stream = ask(client(&[b"acme-tls/1"]), "challenge.localhost").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"acme-tls/1"[..]));
    assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0], shown.der);
    let _sent = stream.write_all(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes()).await;
    let mut answer = Vec::new();
    let _ended = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty(), "nothing is carried on such a connection");
    assert!(ask(client(&[b"acme-tls/1"]), HOST).await.is_err(), "another name");
    // Who offers more is no authority, and gets what everybody gets.
    let stream = ask(client(&[b"acme-tls/1", b"http/1.1"]), HOST).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let counted = || world.metric("postern_edge_connections_total", &[("outcome", "challenge")]) == 1.0;
    until("it is counted", counted).await;
    assert!(world.upstream.requests().is_empty());
}

#[tokio::test]
async fn s_029_a_connection_for_one_certificate_is_no_way_to_a_host_of_another() {
    let builder = WorldBuilder::new().await;
    let other = made(&["other.localhost"]);
    let at = builder.upstream.address;
    let world = builder
        .change(|config| {
            config.certificates.inline.push((other.chain.clone(), Secret::new(other.key.clone())));
            config.routes.push(Arc::new(route("other", "other.localhost", at)));
            config.routes.push(Arc::new(route("sub", "sub.app.localhost", at)));
        })
        .start();
    let mut wire = world.wire().await;
    wire.send("GET / HTTP/1.1\r\nHost: sub.app.localhost\r\n\r\n").await;
    assert_eq!(wire.response().await.unwrap().status, 200);
    wire.send("GET / HTTP/1.1\r\nHost: other.localhost\r\n\r\n").await;
    assert_eq!(wire.response().await.unwrap().status, 421);
    let mut right = Wire::open(world.address, "other.localhost", &other.der, &[]).await.unwrap();
    right.send("GET / HTTP/1.1\r\nHost: other.localhost\r\n\r\n").await;
    assert_eq!(right.response().await.unwrap().status, 200);
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_spoken_and_early_data_is_not() {
    let world = World::new().await;
    let wire = world.wire().await;
    let version = wire.stream.get_ref().1.protocol_version();
    assert_eq!(version, Some(rustls::ProtocolVersion::TLSv1_3));
    assert!(!wire.stream.get_ref().1.is_early_data_accepted());
}

async fn secure_upstream(made: &Made) -> Upstream {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.der.clone()], PrivateKeyDer::from_pem_slice(&made.key).unwrap())
        .unwrap();
    Upstream::start(Some(Arc::new(config).into())).await
}

/// A route to `https://localhost` at the port of `upstream`.
fn secure(name: &str, host: &str, upstream: &Upstream) -> postern_edge::route::Route {
    let mut route = route(name, host, upstream.address);
    if let Target::Upstream(target) = &mut route.target {
        target.endpoints[0].scheme = UpstreamScheme::Https;
        "localhost".clone_into(&mut target.endpoints[0].host);
    }
    route.hosts = HostPattern::Exact { host: host.to_owned(), port: None };
    route
}

#[tokio::test]
async fn an_upstream_is_believed_only_with_a_certificate_that_the_roots_vouch_for() {
    let trusted = made(&["localhost"]);
    let upstream = secure_upstream(&trusted).await;
    let pem = trusted.chain.clone();
    let builder = WorldBuilder::new().await.change(|config| {
        config.routes = vec![Arc::new(secure("app", HOST, &upstream))];
        config.proxy.extra_roots = Some(pem);
    });
    let mut world = builder.start();
    let mut wire = world.wire().await;
    wire.send("GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await;
    assert_eq!(wire.response().await.unwrap().text(), "hello");
    // The pooled connection was verified under roots that are gone: it must not be used again.
    world.reload(|config| config.proxy.extra_roots = None);
    wire.send("GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await;
    assert_eq!(wire.response().await.unwrap().status, 502);
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn two_routes_to_one_address_never_share_a_connection() {
    let trusted = made(&["localhost"]);
    let upstream = secure_upstream(&trusted).await;
    let pem = trusted.chain.clone();
    let world = WorldBuilder::new()
        .await
        .change(|config| {
            config.routes =
                vec![Arc::new(secure("a", HOST, &upstream)), Arc::new(secure("b", "sub.app.localhost", &upstream))];
            config.proxy.extra_roots = Some(pem);
        })
        .options(|options| options.workers = 1)
        .start();
    let mut wire = world.wire().await;
    for host in ["app.localhost", "sub.app.localhost", "app.localhost", "sub.app.localhost"] {
        wire.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(wire.response().await.unwrap().status, 200);
    }
    until("all arrived", || upstream.requests().len() == 4).await;
    let used: Vec<_> = upstream.requests().iter().map(|request| request.connection).collect();
    assert_eq!((used[0], used[1]), (used[2], used[3]), "each keeps its own");
    assert_ne!(used[0], used[1]);
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "what a test tells itself in another process")]
async fn the_systems_roots_are_believed_and_those_of_the_configuration_beside_them() {
    // The system's roots are read from the environment, so this runs in a process of its own.
    let Some(place) = std::env::var_os("EDGE_TEST_SYSTEM_ROOT").map(std::path::PathBuf::from) else {
        let (place, system) = (tempfile::tempdir().unwrap(), made(&["localhost"]));
        std::fs::write(place.path().join("root.pem"), &system.chain).unwrap();
        std::fs::write(place.path().join("key.pem"), &system.key).unwrap();
        let name = "certificates::the_systems_roots_are_believed_and_those_of_the_configuration_beside_them";
        let mut inner = std::process::Command::new(std::env::current_exe().unwrap());
        inner.args(["--exact", name]).env("EDGE_TEST_SYSTEM_ROOT", place.path());
        let output = inner.env("SSL_CERT_FILE", place.path().join("root.pem")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    };
    let chain = std::fs::read(place.join("root.pem")).unwrap();
    let der = CertificateDer::from_pem_slice(&chain).unwrap();
    let system = Made { chain, key: std::fs::read(place.join("key.pem")).unwrap(), der };
    let added = made(&["localhost"]);
    let (by_system, by_config) = (secure_upstream(&system).await, secure_upstream(&added).await);
    for (extra, statuses) in [(None, [200, 502]), (Some(added.chain.clone()), [200, 200])] {
        let routes =
            vec![Arc::new(secure("a", HOST, &by_system)), Arc::new(secure("b", "sub.app.localhost", &by_config))];
        let world = WorldBuilder::new().await.change(|config| {
            config.routes = routes;
            config.proxy.extra_roots = extra;
        });
        let world = world.start();
        let mut wire = world.wire().await;
        for (host, status) in [HOST, "sub.app.localhost"].into_iter().zip(statuses) {
            wire.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
            assert_eq!(wire.response().await.unwrap().status, status, "{host}");
        }
    }
}
