//! The users of `docs/guides/*.acl`: each may do what its part needs, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use postern_identity::{Secret, Timestamp, Tokens};
use postern_servers::Redis;
use postern_storage::{
    CacheConfig, Cached, Committed, Credentials, Deposit, Loaded, Once, Part, RedisConfig, Server, SessionCache,
    Storage, StorageConfig, Topology, check,
};
use prometheus::Registry;

use crate::deposits::there;
use crate::support::{ISSUER, at, id, idle, keyring, session, tokens, until};

const ADMIN: [&str; 5] = ["--user", "admin", "--pass", "sesame", "--no-auth-warning"];

/// A server with the users of both files and one that may do everything.
fn server() -> (Redis, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let line = |part: &str| {
        let file = format!("{}/../docs/guides/store-{part}.acl", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(file).unwrap().replace(">PASSWORD", &format!(">the-password-of-{part}"))
    };
    let users = ["user default off\nuser admin on >sesame ~* &* +@all\n".to_owned(), line("authn"), line("edge")];
    let file = folder.path().join("users.acl");
    std::fs::write(&file, users.concat()).unwrap();
    (Redis::start(&["--aclfile", file.to_str().unwrap()]), folder)
}

fn config(server: &Redis, part: Part) -> RedisConfig {
    let name = if part == Part::Authn { "authn" } else { "edge" };
    let credentials = Credentials {
        username: Some(format!("postern-{name}")),
        password: Secret::new(format!("the-password-of-{name}")),
    };
    let topology = Topology::Single(Server::local(server.port()));
    RedisConfig { part, credentials: Some(credentials), ..RedisConfig::new(topology) }
}

fn as_admin(server: &Redis, command: &[&str]) -> String {
    server.cli(&[&ADMIN, command].concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_114_both_users_of_the_guide_may_do_all_that_their_part_needs() {
    let (server, _folder) = server();
    let open = |part| {
        let config = StorageConfig::Redis(Box::new(config(&server, part)));
        Storage::open(config, keyring(), &Registry::new()).unwrap()
    };
    let (authn, edge) = (open(Part::Authn), open(Part::Edge));
    let cache: Arc<SessionCache> = edge.cache(CacheConfig::default());
    until("there is contact", async || cache.is_in_contact()).await;
    let sessions = authn.sessions();

    for number in 1..4 {
        let session = idle(session(number, "alice"), 50);
        let soon = Tokens { refresh_at: Some(at(40)), ..tokens("a") };
        sessions.create(&session, &soon).await.unwrap();
    }
    let Loaded::Found(entry) = cache.load(&id(1), at(1), Duration::ZERO).await.unwrap() else { panic!("not found") };
    cache.touch(&entry, at(30));
    until("the store hears that it is in use", async || {
        sessions.list(ISSUER, "alice", at(60)).await.is_ok_and(|live| live.len() == 1)
    })
    .await;
    let kept = || as_admin(&server, &["--scan", "--pattern", "t:*"]).lines().count();
    assert_eq!(kept(), 3);
    for number in 2..4 {
        assert!(matches!(cache.load(&id(number), at(60), Duration::ZERO).await.unwrap(), Loaded::Unknown));
    }
    until("what an edge saw to be over is forgotten, with its tokens", async || kept() == 1).await;

    let alice = idle(session(1, "alice"), 50);
    // The index still lists those that are forgotten.
    let due = sessions.due(at(40), 10).await.unwrap();
    let due = due.iter().find(|due| due.handle == alice.handle).unwrap();
    assert!(sessions.postpone(due, at(45)).await.unwrap().is_some());
    assert!(sessions.tokens(&alice.handle).await.unwrap().is_some());
    let mut renamed = alice.clone();
    renamed.user.name = Some("Renamed".to_owned());
    let committed = sessions.commit(&alice.handle, 1, &renamed, &tokens("b")).await.unwrap();
    assert_eq!(committed, Committed::Saved(2));
    assert!(sessions.spend(Once::SignIn, b"state", at(0), at(60)).await.unwrap());
    assert_eq!(sessions.page(None, at(1)).await.unwrap().sessions.len(), 1);
    sessions.revoke(&alice.handle).await.unwrap();
    let refused = async || matches!(cache.get(&id(1), at(2), Duration::ZERO), Cached::Revoked | Cached::Miss);
    until("the edge hears of it", refused).await;
    sessions.revoke_user(ISSUER, "bob", at(1)).await.unwrap();
    sessions.revoke_everyone(at(1)).await.unwrap();
    sessions.time(at(1)).await.unwrap();
    assert!(sessions.clear(None, at(2), Timestamp::from_secs(0)).await.failed.is_none());
    for storage in [&authn, &edge] {
        let (deposits, name) = (storage.deposits().unwrap(), ["authority", "a.example"]);
        let claim = deposits.claim(&name, Duration::from_secs(60)).await.unwrap().unwrap();
        assert!(deposits.prolong(&claim, Duration::from_secs(60)).await.unwrap());
        assert!(deposits.put(Deposit::Certificate, b"x", at(60), &claim).await.unwrap());
        assert!(there(&deposits, Deposit::Certificate, &name).await.is_some());
        assert!(deposits.remove(Deposit::Certificate, &claim).await.unwrap());
        deposits.release(claim).await;
    }
    // The edge keeps the heartbeat where no authn does.
    authn.close().await;
    let turn = || as_admin(&server, &["XLEN", "{chg}log"]).parse::<u64>().unwrap();
    let before = turn();
    until("the edge writes heartbeats", async || turn() > before + 2).await;
    edge.close().await;
    assert_eq!(as_admin(&server, &["ACL", "LOG"]), "", "nothing was refused");

    for part in [Part::Authn, Part::Edge] {
        let patient = RedisConfig { operation: Duration::from_secs(20), ..config(&server, part) };
        let report = check(&StorageConfig::Redis(Box::new(patient)), true).await;
        let permissions = report.findings.iter().find(|finding| finding.about == "permissions").unwrap();
        assert_eq!(permissions.level, postern_storage::Level::Ok, "{permissions:?}");
    }
}

#[test]
fn s_114_both_users_of_the_guide_may_do_nothing_else() {
    let (server, _folder) = server();
    let may = |user: &str, command: &str| {
        let words: Vec<_> = ["ACL", "DRYRUN", user].into_iter().chain(command.split(' ')).collect();
        let said = as_admin(&server, &words);
        assert!(
            said == "OK" || said.contains("has no permissions") || said.contains("doesn't have permission"),
            "{said}"
        );
        said == "OK"
    };
    for user in ["postern-authn", "postern-edge"] {
        assert!(may(user, "HMGET s:{x} v") && may(user, "XADD {chg}log * k h"), "{user}");
        for command in [
            "FLUSHALL",
            "FLUSHDB",
            "KEYS *",
            "CONFIG GET *",
            "CONFIG SET maxmemory 1",
            "ACL LIST",
            "ACL SETUSER default on",
            "CLIENT LIST",
            "CLIENT KILL 127.0.0.1:1",
            "MONITOR",
            "DEBUG OBJECT s:{x}",
            "SCRIPT FLUSH",
            "FUNCTION FLUSH",
            "SHUTDOWN",
            "REPLICAOF NO ONE",
            "CLUSTER FAILOVER",
            "CLUSTER RESET",
            "PUBLISH c m",
            "SUBSCRIBE c",
            "MIGRATE 127.0.0.1 1 s:{x} 0 1",
            "RESTORE s:{x} 0 x",
            "DUMP s:{x}",
            "HGETALL s:{x}",
            "XTRIM {chg}log MAXLEN 0",
            "XDEL {chg}log 1-1",
            "GET another",
            "SET another v",
        ] {
            assert!(!may(user, command), "{user} may {command}");
        }
    }
    // Of a session that it saw to be over. Whoever may remove a name may write it; what is in it, an edge never sees.
    assert!(may("postern-edge", "DEL t:{x}"));
    for command in [
        "GET t:{x}",
        "SET t:{x} v GET",
        "EVAL return 1 t:{x}",
        "SET ue:{x} 1",
        "DEL ue:{x}",
        "ZRANGE u:{x} 0 0",
        "ZADD u:{x} 1 v",
        "ZADD r:{0} 1 v",
        "GET o:{x}",
        "DEL o:{x}",
        "SCAN 0",
        "TIME",
        "EXISTS s:{x}",
    ] {
        assert!(!may("postern-edge", command), "an edge may {command}");
    }
}
