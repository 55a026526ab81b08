//! A server that is spoken to in TLS, and asks who is there.

use std::path::Path;
use std::time::{Duration, Instant};

use postern_identity::Secret;
use postern_servers::{Cluster, Redis, TlsFiles, Watched, free_port};
use postern_storage::{Level, RedisConfig, RedisTls, Report, Server, StorageConfig, Topology, check};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};

use crate::shared::Processes;
use crate::support::behind;

/// An authority, and what it has signed.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        // With one name for both, what it signs would look as if it had signed itself.
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    /// PEM of a certificate for 127.0.0.1, and of its key.
    fn signs(&self, usages: &[ExtendedKeyUsagePurpose]) -> (Vec<u8>, Vec<u8>) {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "store");
        params.extended_key_usages.extend(usages.iter().cloned());
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem().into_bytes(), key.serialize_pem().into_bytes())
    }

    /// What it has signed for a server, and itself.
    fn files(&self, folder: &Path, usages: &[ExtendedKeyUsagePurpose]) -> TlsFiles {
        let (chain, key) = self.signs(usages);
        TlsFiles::write(folder, (&chain, &key), &self.pem())
    }

    /// What it has signed for a client.
    fn client(&self) -> (Vec<u8>, Secret<Vec<u8>>) {
        let (chain, key) = self.signs(&[ExtendedKeyUsagePurpose::ClientAuth]);
        (chain, Secret::new(key))
    }
}

/// A server with a port for TLS, which asks for certificates of this authority.
fn server(authority: &Authority, folder: &Path, asks: &str) -> (Redis, u16) {
    let port = free_port();
    let options = authority.files(folder, &[ExtendedKeyUsagePurpose::ServerAuth]).options(port, asks);
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    (Redis::start(&options), port)
}

fn config(port: u16, tls: Option<RedisTls>) -> RedisConfig {
    RedisConfig { tls, ..RedisConfig::new(Topology::Single(Server::local(port))) }
}

async fn look(config: RedisConfig) -> Report {
    let (connect, operation) = (Duration::from_secs(20), Duration::from_secs(20));
    check(&StorageConfig::Redis(Box::new(RedisConfig { connect, operation, ..config })), true).await
}

fn connects(report: &Report) -> bool {
    let found = report.findings.iter().find(|finding| finding.about == "connection");
    found.is_some_and(|finding| finding.level == Level::Ok)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_114_sessions_are_kept_and_revocations_heard_over_tls_with_and_without_client_certificates() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    for (asks, client) in [("yes", Some(authority.client())), ("no", None)] {
        let (_server, port) = server(&authority, folder.path(), asks);
        let tls = RedisTls { roots: Some(authority.pem()), client };
        let report = look(config(port, Some(tls.clone()))).await;
        assert!(connects(&report), "{asks}: {report:#?}");
        let processes = Processes::start(&config(port, Some(tls)));
        let sessions = processes.known_everywhere(0..3).await;
        processes.revoke(&sessions[0]).await;
        processes.refused_everywhere(0).await;
        processes.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_114_whoever_cannot_show_who_they_are_is_not_spoken_to() {
    let (authority, other, folder) = (Authority::new(), Authority::new(), tempfile::tempdir().unwrap());
    let (_server, port) = server(&authority, folder.path(), "yes");
    let tls = |roots: &Authority, client| Some(RedisTls { roots: Some(roots.pem()), client });
    let own = Some(authority.client());
    let report = look(config(port, tls(&authority, own.clone()))).await;
    assert!(connects(&report), "{report:#?}");
    for (what, tls) in [
        ("a server of another authority", tls(&other, own.clone())),
        ("a client without a certificate", tls(&authority, None)),
        ("a client of another authority", tls(&authority, Some(other.client()))),
        ("a server that the system's authorities do not know", Some(RedisTls { roots: None, client: own })),
        ("no TLS", None),
    ] {
        let report = look(config(port, tls)).await;
        assert!(!report.is_good() && !connects(&report), "{what}: {report:#?}");
    }
}

fn is_master(server: &Redis) -> bool {
    server.cli(&["ROLE"]).starts_with("master")
}

fn until_now(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

const AMONG_SERVERS: [ExtendedKeyUsagePurpose; 2] =
    [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];

/// Sessions are kept and revocations heard, before and after another master has taken over; and nobody takes other servers for these.
async fn keeps_sessions(authority: &Authority, topology: Topology, fail_over: impl FnOnce()) {
    let tls = |roots: &Authority| Some(RedisTls { roots: Some(roots.pem()), client: Some(authority.client()) });
    // Long enough for a machine that is busy.
    let (connect, operation) = (Duration::from_secs(5), Duration::from_secs(5));
    let own = RedisConfig { tls: tls(authority), connect, operation, ..RedisConfig::new(topology) };
    let report = look(own.clone()).await;
    assert!(connects(&report), "{report:#?}");
    let report = look(RedisConfig { tls: tls(&Authority::new()), ..own.clone() }).await;
    assert!(!report.is_good() && !connects(&report), "{report:#?}");
    let processes = Processes::start(&own);
    let sessions = processes.known_everywhere(0..2).await;
    let [before, after] = &sessions[..] else { panic!("{sessions:?}") };
    processes.revoke(before).await;
    processes.refused_everywhere(0).await;
    tokio::task::block_in_place(fail_over);
    processes.revoke(after).await;
    processes.refused_everywhere(1).await;
    processes.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_114_a_cluster_that_speaks_tls_keeps_sessions_and_replaces_a_master() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let mut cluster = Cluster::start_tls(Duration::from_secs(2), &authority.files(folder.path(), &AMONG_SERVERS));
    let seeds = cluster.members().iter().map(|member| Server::local(member.announced())).collect();
    let fail_over = || {
        let (master, replica) = cluster.shard("{chg}log");
        cluster.members_mut()[master].server.kill();
        until_now("the replica takes over", || is_master(&cluster.members()[replica].server));
    };
    keeps_sessions(&authority, Topology::Cluster(seeds), fail_over).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_114_sentinels_that_speak_tls_name_a_master_and_its_successor() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let mut watched = Watched::start_tls(Duration::from_secs(2), &authority.files(folder.path(), &AMONG_SERVERS));
    let topology = behind(&watched);
    let fail_over = || {
        let former = watched.master();
        watched.servers.iter_mut().find(|server| is_master(server)).unwrap().kill();
        until_now("another master is named", || watched.master() != former);
    };
    keeps_sessions(&authority, topology, fail_over).await;
}
