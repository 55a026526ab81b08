//! A look at a store says of each thing that it has to be whether it is, and what to do about it.

use std::time::Duration;

use postern_identity::Secret;
use postern_servers::{Cluster, Redis, Watched};
use postern_storage::{Credentials, Finding, Level, RedisConfig, Report, Server, StorageConfig, Topology, check};

const PASSWORD: &str = "sesame";

/// With bounds for a machine that is busy.
async fn look(config: RedisConfig) -> Report {
    let (connect, operation) = (Duration::from_secs(20), Duration::from_secs(20));
    let report = check(&StorageConfig::Redis(Box::new(RedisConfig { connect, operation, ..config })), true).await;
    for finding in report.findings.iter().filter(|finding| finding.level >= Level::Warn) {
        assert!(finding.remedy.is_some(), "{finding:?}");
    }
    assert!(!format!("{report:?}").contains(PASSWORD), "{report:?}");
    report
}

fn single(port: u16) -> RedisConfig {
    RedisConfig { prefix: "p:".to_owned(), ..RedisConfig::new(Topology::Single(Server::local(port))) }
}

fn signed_in(port: u16, username: Option<&str>) -> RedisConfig {
    let password = Secret::new(PASSWORD.to_owned());
    RedisConfig { credentials: Some(Credentials { username: username.map(str::to_owned), password }), ..single(port) }
}

fn about<'r>(report: &'r Report, what: &str) -> Vec<&'r Finding> {
    report.findings.iter().filter(|finding| finding.about == what).collect()
}

/// How good each finding about it is.
fn levels(report: &Report, what: &str) -> Vec<Level> {
    about(report, what).iter().map(|finding| finding.level).collect()
}

fn failures(report: &Report) -> Vec<String> {
    report
        .findings
        .iter()
        .filter(|finding| finding.level == Level::Fail)
        .map(|finding| format!("{finding:?}"))
        .collect()
}

fn sentinels(watched: &Watched, master: &str) -> RedisConfig {
    let sentinels = watched.sentinels().into_iter().map(Server::local).collect();
    RedisConfig::new(Topology::Sentinel { sentinels, master: master.to_owned(), credentials: None })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_server_has_no_failure_and_nothing_is_written_to_it() {
    let server = Redis::start(&["--appendonly", "yes"]);
    let report = look(single(server.port())).await;
    assert_eq!(failures(&report), [] as [String; 0]);
    for what in ["TLS", "connection", "version", "persistence", "maxmemory-policy", "permissions"] {
        assert_eq!(levels(&report, what), [Level::Ok], "{what}: {report:#?}");
    }
    for what in ["clock", "latency"] {
        assert_eq!(about(&report, what).len(), 1, "{what}: {report:#?}");
    }
    assert_eq!(levels(&report, "replicas"), [Level::Warn], "{report:#?}");
    assert_eq!(server.cli(&["DBSIZE"]), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_looked_at_as_a_whole_and_each_member_by_itself() {
    let cluster = Cluster::start(Duration::from_secs(2), &[]);
    let member = cluster.members()[0].relay.port();
    let report = look(RedisConfig::new(Topology::Cluster(vec![Server::local(member)]))).await;
    assert_eq!(failures(&report), [] as [String; 0]);
    assert_eq!(levels(&report, "slots"), [Level::Ok], "{report:#?}");
    assert_eq!(levels(&report, "replicas"), [Level::Ok; 3], "{report:#?}");
    for what in ["connection", "permissions", "cluster-node-timeout"] {
        assert_eq!(levels(&report, what), [Level::Ok; 6], "{what}: {report:#?}");
    }
    assert_eq!(levels(&report, "cluster-require-full-coverage").len(), 6, "{report:#?}");

    let mistaken = look(single(member)).await;
    assert!(failures(&mistaken).concat().contains("redis+cluster://"), "{mistaken:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_sentinels_the_master_and_its_replica_are_looked_at() {
    let watched = Watched::start(Duration::from_secs(2));
    let report = look(sentinels(&watched, Watched::MASTER)).await;
    assert_eq!(failures(&report), [] as [String; 0]);
    assert_eq!(levels(&report, "connection"), [Level::Ok; 5], "three Sentinels and two servers: {report:#?}");
    assert_eq!(levels(&report, "replicas"), [Level::Ok], "{report:#?}");
    assert_eq!(levels(&report, "replication").len(), 2, "both ends: {report:#?}");
    let unknown = look(sentinels(&watched, "another")).await;
    assert!(failures(&unknown).concat().contains("another"), "{unknown:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_and_a_server_that_is_away_are_told() {
    let mut server = Redis::start(&["--requirepass", "another"]);
    let report = look(signed_in(server.port(), None)).await;
    assert!(!report.is_good() && failures(&report).concat().contains("the user and the password"), "{report:#?}");
    server.kill();
    let report = look(signed_in(server.port(), None)).await;
    assert_eq!(levels(&report, "connection"), [Level::Fail], "{report:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_evicts_fails() {
    let server = Redis::start(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let report = look(single(server.port())).await;
    let failed = failures(&report);
    assert!(failed.len() == 1 && failed.concat().contains("noeviction"), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_user_of_the_guide_may_do_everything_and_one_who_lacks_something_is_told_what() {
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guides/store.md")).unwrap();
    let line = guide.lines().find_map(|line| line.strip_prefix("user postern ")).unwrap();
    let rules = line.replace(">PASSWORD", &format!(">{PASSWORD}")).replace('~', "~p:");
    let server = Redis::start(&[]);
    let with = async |more: &[&str]| {
        let all: Vec<_> = ["ACL", "SETUSER", "postern", "reset"].into_iter().chain(rules.split(' ')).collect();
        assert_eq!(server.cli(&[&all, more].concat()), "OK");
        look(signed_in(server.port(), Some("postern"))).await
    };
    let whole = with(&[]).await;
    assert_eq!(failures(&whole), [] as [String; 0]);
    assert_eq!(levels(&whole, "permissions"), [Level::Ok], "{whole:#?}");

    let command = failures(&with(&["-wait"]).await);
    assert!(command.len() == 1 && command.concat().contains("+wait"), "{command:#?}");
    let names = failures(&with(&["resetkeys", "~p:s:*"]).await);
    assert!(names.len() == 1 && names.concat().contains("~p:{chg}*"), "{names:#?}");
    assert!(!names.concat().contains("~p:s:*"), "{names:#?}");

    // Only who orders certificates needs what processes leave for each other.
    let shared = ["resetkeys", "~p:s:*", "~p:t:*", "~p:u:*", "~p:ue:*", "~p:o:*", "~p:r:*", "~p:{chg}*"];
    let names = failures(&with(&shared).await);
    assert!(names.len() == 1 && names.concat().contains("add to its ACL: ~p:a:*"), "{names:#?}");
    let config = signed_in(server.port(), Some("postern"));
    let (connect, operation) = (Duration::from_secs(20), Duration::from_secs(20));
    let without = check(&StorageConfig::Redis(Box::new(RedisConfig { connect, operation, ..config })), false).await;
    assert_eq!(failures(&without), [] as [String; 0]);
}

#[tokio::test]
async fn a_file_and_memory_are_told_for_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let file = check(&StorageConfig::File { path: folder.path().join("sessions.redb") }, true).await;
    assert_eq!(levels(&file, "file"), [Level::Ok], "{file:#?}");
    assert!(!folder.path().join("sessions.redb").exists(), "a look makes none");
    let folder = check(&StorageConfig::File { path: folder.path().to_owned() }, true).await;
    assert!(!folder.is_good(), "{folder:#?}");
    let memory = check(&StorageConfig::Memory, true).await;
    assert_eq!(levels(&memory, "persistence"), [Level::Warn], "{memory:#?}");
}
