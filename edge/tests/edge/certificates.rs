//! The certificates of the listener and of upstreams.

use std::sync::Arc;

use postern_edge::route::{HostPattern, Target, UpstreamScheme};
use postern_edge::{Certificates, CertifiedFiles};
use postern_identity::Secret;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

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
    let configured = Certificates { inline: Vec::new(), files: vec![files.clone()] };
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
