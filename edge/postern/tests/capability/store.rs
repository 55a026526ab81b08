//! `postern store check` says of each thing that the store has to be whether it is, and what to do about it.

use std::time::Duration;

use anyhow::{Context, Result};
use postern_servers::{Cluster, Redis, Watched};
use serde_json::Value;

use crate::support::{NO_PROVIDER, PUBLIC, Postern, World, with_store};

/// Every finding of a look at the store of this connection string, and the exit code.
fn look(connection: &str, more: &str) -> Result<(Vec<Value>, i32)> {
    let world = World::new()?;
    let text = world.config(&format!("{more}\n{NO_PROVIDER}"), &world.route("app", "http://127.0.0.1:9", PUBLIC));
    told(&world, &with_store(&world, &text, connection))
}

fn told(world: &World, text: &str) -> Result<(Vec<Value>, i32)> {
    let config = world.write_config(text)?.display().to_string();
    let finished = Postern::once(world.folder(), &["store", "check", "-c", &config, "--format", "json"])?;
    let answer: Value = serde_json::from_str(&finished.stdout).with_context(|| finished.told())?;
    let human = Postern::once(world.folder(), &["store", "check", "-c", &config])?;
    assert_eq!(human.status, finished.status, "{}", human.told());
    assert!(!human.stdout.contains('\u{1b}') && !human.told().contains("sesame"), "{}", human.told());
    let findings = answer.get("findings").and_then(Value::as_array).context("findings")?.clone();
    for finding in findings.iter().filter(|finding| is(finding, "fail") || is(finding, "warn")) {
        assert!(finding.get("remedy").is_some_and(Value::is_string), "{finding}");
    }
    Ok((findings, finished.status.code().context("exit code")?))
}

fn is(finding: &Value, level: &str) -> bool {
    finding.get("level").is_some_and(|found| found == level)
}

fn about<'v>(findings: &'v [Value], what: &str) -> Vec<&'v Value> {
    findings.iter().filter(|finding| finding.get("about").is_some_and(|about| about == what)).collect()
}

/// What failed.
fn failures(findings: &[Value]) -> Vec<String> {
    findings.iter().filter(|finding| is(finding, "fail")).map(Value::to_string).collect()
}

#[test]
fn a_good_single_server_has_no_failure_and_its_lack_of_a_replica_is_told() -> Result<()> {
    let server = Redis::start(&["--appendonly", "yes"]);
    let (findings, code) = look(&format!("redis://127.0.0.1:{}", server.port()), "")?;
    assert_eq!((code, failures(&findings)), (0, Vec::new()), "{findings:#?}");
    for what in ["TLS", "connection", "version", "persistence", "maxmemory-policy", "clock", "latency", "permissions"] {
        assert!(about(&findings, what).iter().all(|finding| is(finding, "ok")), "{what}: {findings:#?}");
        assert_eq!(about(&findings, what).len(), 1, "{what}: {findings:#?}");
    }
    assert!(about(&findings, "replicas").iter().all(|finding| is(finding, "warn")), "{findings:#?}");
    assert_eq!(server.cli(&["DBSIZE"]), "0", "nothing was written");
    Ok(())
}

#[test]
fn a_cluster_is_looked_at_as_a_whole_and_one_by_one() -> Result<()> {
    let cluster = Cluster::start(Duration::from_secs(2), &[]);
    let member = cluster.members().first().context("a member")?.relay.port();
    let (findings, code) = look(&format!("redis+cluster://127.0.0.1:{member}"), "")?;
    assert_eq!((code, failures(&findings)), (0, Vec::new()), "{findings:#?}");
    assert_eq!(about(&findings, "connection").len(), 6, "all members: {findings:#?}");
    assert_eq!(about(&findings, "replicas").len(), 3, "{findings:#?}");
    assert!(about(&findings, "slots").iter().all(|finding| is(finding, "ok")), "{findings:#?}");
    assert_eq!(about(&findings, "permissions").iter().filter(|finding| is(finding, "ok")).count(), 6, "{findings:#?}");
    for setting in ["cluster-node-timeout", "cluster-require-full-coverage"] {
        assert_eq!(about(&findings, setting).len(), 6, "{findings:#?}");
    }

    let (findings, code) = look(&format!("redis://127.0.0.1:{member}"), "")?;
    assert_eq!(code, 1, "{findings:#?}");
    assert!(failures(&findings).concat().contains("redis+cluster://"), "{findings:#?}");
    Ok(())
}

#[test]
fn behind_sentinels_the_master_and_its_replica_are_looked_at() -> Result<()> {
    let watched = Watched::start(Duration::from_secs(2));
    let sentinels: Vec<_> = watched.sentinels().iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let servers = sentinels.join(",");
    let (findings, code) = look(&format!("redis+sentinel://{servers}/{}", Watched::MASTER), "")?;
    assert_eq!((code, failures(&findings)), (0, Vec::new()), "{findings:#?}");
    assert_eq!(about(&findings, "connection").len(), 5, "three Sentinels and two servers: {findings:#?}");
    assert!(about(&findings, "replicas").iter().all(|finding| is(finding, "ok")), "{findings:#?}");
    assert_eq!(about(&findings, "replication").len(), 2, "both ends: {findings:#?}");

    let (findings, code) = look(&format!("redis+sentinel://{servers}/another"), "")?;
    assert_eq!(code, 1, "{findings:#?}");
    assert!(failures(&findings).concat().contains("another"), "{findings:#?}");
    Ok(())
}

#[test]
fn a_wrong_password_and_a_server_that_is_away_are_told_in_time() -> Result<()> {
    let mut server = Redis::start(&["--requirepass", "open"]);
    let (findings, code) = look(&format!("redis://:sesame@127.0.0.1:{}", server.port()), "")?;
    assert_eq!(code, 1, "{findings:#?}");
    assert!(failures(&findings).concat().contains("password"), "{findings:#?}");
    server.kill();
    let (findings, code) = look(&format!("redis://:open@127.0.0.1:{}", server.port()), "")?;
    assert_eq!((code, about(&findings, "connection").len()), (1, 1), "{findings:#?}");
    Ok(())
}

#[test]
fn a_server_that_evicts_fails() -> Result<()> {
    let server = Redis::start(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let (findings, code) = look(&format!("redis://127.0.0.1:{}", server.port()), "")?;
    assert_eq!(code, 1, "{findings:#?}");
    let failed = failures(&findings);
    assert!(failed.len() == 1 && failed.concat().contains("noeviction"), "{findings:#?}");
    Ok(())
}

#[test]
fn the_user_of_the_guide_may_do_everything_and_one_who_lacks_something_is_told_what() -> Result<()> {
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guides/store.md"))?;
    let line = guide.lines().find_map(|line| line.strip_prefix("user postern ")).context("the user of the guide")?;
    let rules = line.replace(">PASSWORD", ">sesame").replace('~', "~p:");
    let server = Redis::start(&[]);
    let prefix = "databroker_storage_key_prefix: \"p:\"";
    let try_with = |more: &[&str]| -> Result<(Vec<Value>, i32)> {
        let all: Vec<_> = ["ACL", "SETUSER", "postern", "reset"].into_iter().chain(rules.split(' ')).collect();
        assert_eq!(server.cli(&[&all, more].concat()), "OK");
        look(&format!("redis://postern:sesame@127.0.0.1:{}", server.port()), prefix)
    };
    let (findings, code) = try_with(&[])?;
    assert_eq!((code, failures(&findings)), (0, Vec::new()), "{findings:#?}");
    assert!(about(&findings, "permissions").iter().all(|finding| is(finding, "ok")), "{findings:#?}");

    let (findings, code) = try_with(&["-wait"])?;
    let failed = failures(&findings);
    assert!(code == 1 && failed.len() == 1 && failed.concat().contains("+wait"), "{findings:#?}");
    let (findings, code) = try_with(&["resetkeys", "~p:s:*"])?;
    let failed = failures(&findings);
    assert!(code == 1 && failed.len() == 1 && failed.concat().contains("~p:{chg}*"), "{findings:#?}");
    assert!(!failed.concat().contains("~p:s:*"), "{findings:#?}");
    Ok(())
}

#[test]
fn a_file_and_memory_are_told_for_what_they_are() -> Result<()> {
    let world = World::new()?;
    let text = world.config(NO_PROVIDER, &world.route("app", "http://127.0.0.1:9", PUBLIC));
    let (findings, code) = told(&world, &text)?;
    assert!(code == 0 && about(&findings, "file").iter().all(|finding| is(finding, "ok")), "{findings:#?}");
    let lines = text.lines().filter(|line| !line.starts_with("databroker_storage_connection_string:"));
    let memory: String = lines.map(|line| line.replace("type: file", "type: memory") + "\n").collect();
    let (findings, code) = told(&world, &memory)?;
    assert!(code == 0 && about(&findings, "persistence").iter().all(|finding| is(finding, "warn")), "{findings:#?}");
    Ok(())
}
