//! The router against servers that refuse, disagree, or are not what the connection string says.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use postern_servers::Redis;
use tokio::time::Instant;

use super::link::{Broken, Mode};
use super::node::Node;
use super::router::{DURABLE_PLACES, Lane, PLACES};
use super::{Command, Dial, Router};
use crate::StorageError;
use crate::config::{RedisConfig, Server, Topology};
use crate::metrics::Metrics;

fn router(topology: Topology, operation: Duration) -> Router {
    let config = RedisConfig { operation, ..RedisConfig::new(topology) };
    let metrics = Metrics::register(&prometheus::Registry::new(), "none").unwrap();
    Router::start(&config, Arc::new(metrics)).unwrap()
}

fn set() -> Command {
    Command::new("SET").args(["key", "value"])
}

/// What the operation fails with in the end, once the router has found out.
async fn told(router: &Router, expected: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let Err(StorageError::Unavailable { reason, .. }) = router.call("key", set()).await else { panic!("it works") };
        if reason.contains(expected) {
            return reason;
        }
        assert!(Instant::now() < deadline, "{reason}");
    }
}

#[tokio::test]
async fn r_004_a_flood_of_loads_refuses_no_revocation_and_no_sign_of_life() {
    let server = Redis::start(&[]);
    let router = router(Topology::Single(Server::local(server.port())), Duration::from_secs(2));
    router.call("key", set()).await.unwrap();
    let _flood = router.take_places(Lane::Common, PLACES);
    let StorageError::Unavailable { reason, .. } = router.call("key", set()).await.unwrap_err();
    assert!(reason.contains("too many"), "{reason}");
    router.call_durably("key", set()).await.unwrap();
    router.call_as_a_sign("key", set()).await.unwrap();
    let _all = router.take_places(Lane::Durable, DURABLE_PLACES);
    assert!(router.call_durably("key", set()).await.is_err(), "it has a bound all the same");
}

/// A master, and a replica that follows it.
async fn followed() -> (Redis, Redis) {
    let master = Redis::start(&[]);
    let replica = Redis::start(&["--replicaof", "127.0.0.1", &master.port().to_string()]);
    let follows = Instant::now() + Duration::from_secs(20);
    while !master.cli(&["INFO", "replication"]).contains("state=online") {
        assert!(Instant::now() < follows, "{}", replica.cli(&["INFO", "replication"]));
        tokio::task::yield_now().await;
    }
    (master, replica)
}

#[tokio::test]
async fn r_009_a_master_that_lost_its_replica_a_moment_ago_acknowledges_nothing_alone() {
    let (master, replica) = followed().await;
    let router = router(Topology::Single(Server::local(master.port())), Duration::from_secs(1));
    router.call_durably("key", set()).await.unwrap();
    assert_eq!(replica.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    for _ in 0..3 {
        assert!(router.call_durably("key", set()).await.is_err(), "it alone has it");
    }
    router.call("key", set()).await.unwrap();
}

#[tokio::test]
async fn r_007_what_waits_for_a_server_that_hangs_hears_at_once_that_it_is_left() {
    let server = Redis::start(&[]);
    let within = Duration::from_secs(20);
    let dial = Dial { expects: Mode::Alone, credentials: None, database: 0, insecure: false, tls: None, within };
    let node = Node::new(Server::local(server.port()), &dial);
    while node.call(&[set()], Instant::now() + within).await.is_err() {}
    server.pause();
    let (begun, commands) = (Instant::now(), [set()]);
    let leave = async {
        tokio::task::yield_now().await;
        node.end();
    };
    let (answer, ()) = tokio::join!(node.call(&commands, begun + within), leave);
    server.resume();
    assert!(matches!(answer, Err(Broken::Lost(_))), "{answer:?}");
    assert!(begun.elapsed() < within / 2, "{:?}", begun.elapsed());
}

/// How often a server has run a command since its counts were reset.
fn calls(server: &Redis, command: &str) -> usize {
    let stats = server.cli(&["INFO", "commandstats"]);
    let counted = stats.split_once(&format!("cmdstat_{command}:calls=")).map(|(_, rest)| rest);
    counted.and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap_or_default()
}

#[tokio::test]
async fn r_009_writes_that_come_together_wait_for_replicas_once() {
    let (master, replica) = followed().await;
    let router = router(Topology::Single(Server::local(master.port())), Duration::from_secs(20));
    router.call_durably("key", set()).await.unwrap();
    assert_eq!(master.cli(&["CONFIG", "RESETSTAT"]), "OK");
    replica.pause();
    let mut writes = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let router = router.clone();
        writes.spawn(async move { router.call_durably("key", set()).await });
    }
    // Each was carried out, and none is confirmed.
    while calls(&master, "set") < 100 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    replica.resume();
    for written in writes.join_all().await {
        written.unwrap();
    }
    let waits = calls(&master, "wait");
    assert!((1..50).contains(&waits), "{waits} times for 100 writes");
}

#[tokio::test]
async fn r_009_a_write_that_nobody_waits_for_any_more_is_not_sent() {
    let (master, replica) = followed().await;
    let router = router(Topology::Single(Server::local(master.port())), Duration::from_secs(20));
    router.call_durably("key", set()).await.unwrap();
    assert_eq!(master.cli(&["CONFIG", "RESETSTAT"]), "OK");
    replica.pause();
    let first = tokio::spawn({
        let router = router.clone();
        async move { router.call_durably("key", set()).await }
    });
    while calls(&master, "set") == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::select! {
        biased;
        answer = router.call_durably("given-up", Command::new("SET").args(["given-up", "value"])) => panic!("{answer:?}"),
        () = std::future::ready(()) => {}
    }
    replica.resume();
    first.await.unwrap().unwrap();
    router.call_durably("key", set()).await.unwrap();
    assert_eq!(master.cli(&["EXISTS", "given-up"]), "0");
}

#[tokio::test]
async fn a_wait_that_is_refused_is_told_at_once_and_repeats_nothing() {
    let (master, _replica) = followed().await;
    let router = router(Topology::Single(Server::local(master.port())), Duration::from_secs(5));
    router.call_durably("key", set()).await.unwrap();
    assert_eq!(master.cli(&["ACL", "SETUSER", "default", "-wait"]), "OK");
    assert_eq!(master.cli(&["CONFIG", "RESETSTAT"]), "OK");
    let begun = Instant::now();
    let StorageError::Unavailable { reason, .. } = router.call_durably("key", set()).await.unwrap_err();
    assert!(reason.contains("refuses WAIT") && reason.contains("NOPERM"), "{reason}");
    assert!(begun.elapsed() < Duration::from_secs(4), "the budget was spent on it");
    assert_eq!(calls(&master, "set"), 1);
}

#[tokio::test]
async fn a_plain_server_and_a_member_of_a_cluster_say_what_to_write_instead() {
    let (plain, member) = (Redis::start(&[]), Redis::start(&["--cluster-enabled", "yes"]));
    let cluster = router(Topology::Cluster(vec![Server::local(plain.port())]), Duration::from_millis(500));
    let why = told(&cluster, "not a cluster").await;
    assert!(
        why.contains(&format!("127.0.0.1:{}: this server is not a cluster; write `redis://…`", plain.port())),
        "{why}"
    );
    let single = router(Topology::Single(Server::local(member.port())), Duration::from_millis(500));
    let why = told(&single, "part of a cluster").await;
    assert!(why.contains("write `redis+cluster://…`"), "{why}");
}

#[tokio::test]
async fn r_009_whoever_asks_for_what_nobody_owns_has_the_next_owner_looked_for() {
    let server = Redis::start(&["--cluster-enabled", "yes", "--cluster-require-full-coverage", "no"]);
    assert_eq!(server.cli(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]), "OK");
    // Shorter than from one regular look to the next.
    let router = router(Topology::Cluster(vec![Server::local(server.port())]), Duration::from_secs(3));
    let deadline = Instant::now() + Duration::from_secs(20);
    while router.call("key", set()).await.is_err() {
        assert!(Instant::now() < deadline, "the cluster is not well");
    }
    let slot = super::slots::slot("key").to_string();
    assert_eq!(server.cli(&["CLUSTER", "DELSLOTS", &slot]), "OK");
    while router.owner("key").is_some() {
        assert!(Instant::now() < deadline, "it still has an owner");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(server.cli(&["CLUSTER", "ADDSLOTS", &slot]), "OK");
    router.call("key", set()).await.unwrap();
}

/// A server that sends every `GET` on to itself, and counts how often.
struct Disagreeing {
    port: u16,
    gets: Arc<AtomicUsize>,
}

impl Disagreeing {
    fn start(word: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, gets) = (listener.local_addr().unwrap().port(), Arc::<AtomicUsize>::default());
        let counted = Arc::clone(&gets);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let counted = Arc::clone(&counted);
                std::thread::spawn(move || serve(&stream, word, port, &counted));
            }
        });
        Self { port, gets }
    }
}

/// Answers commands in the order in which they come, until the connection ends.
fn serve(stream: &TcpStream, word: &str, port: u16, gets: &AtomicUsize) -> Option<()> {
    let mut lines = BufReader::new(stream);
    let number = |lines: &mut BufReader<&TcpStream>| {
        let mut line = String::new();
        lines.read_line(&mut line).ok()?;
        line.get(1..)?.trim().parse::<usize>().ok()
    };
    loop {
        let mut words = Vec::new();
        for _ in 0..number(&mut lines)? {
            let mut word = vec![0; number(&mut lines)? + 2];
            lines.read_exact(&mut word).ok()?;
            words.push(String::from_utf8(word).ok()?.trim().to_owned());
        }
        let nodes = format!("aaa 127.0.0.1:{port}@1 myself,master - 0 0 1 connected 0-16383\n");
        let answer = match words.first()?.as_str() {
            "CLUSTER" => format!("${}\r\n{nodes}\r\n", nodes.len()),
            "GET" => {
                gets.fetch_add(1, Ordering::SeqCst);
                format!("-{word} {} 127.0.0.1:{port}\r\n", super::slots::slot("key"))
            }
            "PING" => "+PONG\r\n".to_owned(),
            "HELLO" => "-ERR unknown command\r\n".to_owned(),
            _ => "+OK\r\n".to_owned(),
        };
        let mut stream = stream;
        stream.write_all(answer.as_bytes()).ok()?;
    }
}

#[tokio::test]
async fn servers_that_send_to_each_other_are_not_asked_without_pause() {
    for word in ["MOVED", "ASK"] {
        let server = Disagreeing::start(word);
        let router = router(Topology::Cluster(vec![Server::local(server.port)]), Duration::from_millis(500));
        let deadline = Instant::now() + Duration::from_secs(20);
        while router.owner("key").is_none() {
            assert!(Instant::now() < deadline, "it is not known");
            tokio::task::yield_now().await;
        }
        // Why depends on whether the last question is answered before the time is over.
        let _refused = router.call("key", Command::new("GET").arg("key")).await.unwrap_err();
        let asked = server.gets.load(Ordering::SeqCst);
        assert!((2..=40).contains(&asked), "{word}: {asked} times in half a second");
    }
}
