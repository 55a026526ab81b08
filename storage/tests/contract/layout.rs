//! What lies in Redis, byte for byte, is read by every later version (R-023): names, types, fields, and what is sealed in them.

use std::collections::BTreeSet;

use postern_identity::Session;
use postern_servers::Redis;
use postern_storage::{Committed, Lookup, Once, Part, RedisConfig, Server, Storage, StorageConfig, Topology};
use prometheus::Registry;

use crate::support::{ISSUER, at, idle, keyring, session, tokens, until};

/// Each layout that was ever written, by [`write_the_fixture`]: a name and its `DUMP` on each line.
const LAYOUTS: [&str; 1] = [include_str!("layout_1.dump")];

const RESTORE: &str = "
    local dump = ARGV[1]:gsub('..', function(two) return string.char(tonumber(two, 16)) end)
    return redis.call('RESTORE', KEYS[1], 0, dump)";
const DUMP: &str = "
    local dump = redis.call('DUMP', KEYS[1])
    return (dump:gsub('.', function(one) return string.format('%02x', string.byte(one)) end))";

fn open(server: &Redis, part: Part) -> (Storage, Registry) {
    let registry = Registry::new();
    let config = RedisConfig { part, ..RedisConfig::new(Topology::Single(Server::local(server.port()))) };
    let storage = Storage::open(StorageConfig::Redis(Box::new(config)), keyring(), &registry).unwrap();
    (storage, registry)
}

fn alice() -> Session {
    idle(session(1, "alice"), 500)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r_023_what_an_earlier_version_left_in_redis_is_all_there() {
    for layout in LAYOUTS {
        let server = Redis::start(&[]);
        let mut kinds = BTreeSet::new();
        for line in layout.lines() {
            let (name, dump) = line.split_once(' ').unwrap();
            assert_eq!(server.cli(&["EVAL", RESTORE, "1", name, dump]), "OK", "{name}");
            kinds.insert(name.split_once(":{").map_or(name, |(kind, _)| kind));
        }
        assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["o", "r", "s", "t", "u", "ue", "{chg}everyone", "{chg}log"]);

        // One that repairs nothing.
        let (storage, registry) = open(&server, Part::Reader);
        let sessions = storage.sessions();
        until("the store answers", async || sessions.load(&alice().handle, at(1)).await.is_ok()).await;
        let Lookup::Found(found) = sessions.load(&alice().handle, at(1)).await.unwrap() else {
            panic!("alice is lost")
        };
        assert_eq!(*found, alice());
        let kept = sessions.tokens(&alice().handle).await.unwrap().unwrap();
        assert_eq!(kept.refresh.unwrap().expose(), "refresh-alice");
        for (number, user) in [(2, "bob"), (3, "carol"), (5, "early")] {
            let found = sessions.load(&session(number, user).handle, at(1)).await.unwrap();
            assert!(matches!(found, Lookup::Revoked), "{user}: {found:?}");
        }
        for (began, ended) in [(4, true), (5, false)] {
            assert_eq!(sessions.are_ended(ISSUER, "carol", at(began)).await.unwrap(), ended, "at {began}");
        }
        let Lookup::Found(dave) = sessions.load(&session(4, "dave").handle, at(1)).await.unwrap() else {
            panic!("dave is lost")
        };
        assert_eq!((dave.generation, dave.user.name.as_deref()), (2, Some("Dave Renamed")));
        let due = sessions.due(at(201), 10).await.unwrap();
        let due: BTreeSet<_> = due.iter().map(|due| due.handle).collect();
        // What ended with everybody's is listed until it is cleared.
        assert_eq!(due, [alice().handle, dave.handle, session(5, "early").handle].into());
        assert_eq!(sessions.list(ISSUER, "alice", at(1)).await.unwrap().len(), 1);
        assert!(!sessions.spend(Once::Ticket, b"spent", at(0), at(9)).await.unwrap());
        let renamed = Session { generation: 2, ..(*dave).clone() };
        assert_eq!(sessions.commit(&dave.handle, 2, &renamed, &tokens("e")).await.unwrap(), Committed::Saved(3));
        // One that ended, one user, everybody, and what was renamed.
        let heard = || prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        until("every line of the changelog is understood", async || {
            heard().lines().any(|line| line == "postern_storage_changelog_facts_total 4")
        })
        .await;
        storage.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes the fixture of a new layout"]
async fn write_the_fixture() {
    let server = Redis::start(&[]);
    // Nobody writes heartbeats.
    let (storage, _registry) = open(&server, Part::Reader);
    let sessions = storage.sessions();
    let early = Session { issued_at: at(-9), ..session(5, "early") };
    let all = [alice(), session(2, "bob"), session(3, "carol"), session(4, "dave"), early];
    for session in &all {
        until("it is saved", async || sessions.create(session, &tokens(&session.user.id)).await.is_ok()).await;
    }
    sessions.revoke(&all[1].handle).await.unwrap();
    sessions.revoke_user(ISSUER, "carol", at(5)).await.unwrap();
    let mut dave = all[3].clone();
    dave.user.name = Some("Dave Renamed".to_owned());
    sessions.commit(&dave.handle, 1, &dave, &tokens("dave")).await.unwrap();
    sessions.revoke_everyone(at(-5)).await.unwrap();
    sessions.spend(Once::Ticket, b"spent", at(0), at(9)).await.unwrap();
    until("the new name is told", async || server.cli(&["XLEN", "{chg}log"]) == "4").await;
    storage.close().await;
    let mut names: Vec<_> = server.cli(&["--scan"]).lines().map(str::to_owned).collect();
    names.sort_unstable();
    let line = |name: String| format!("{name} {}\n", server.cli(&["EVAL", DUMP, "1", &name]));
    std::fs::write("tests/contract/layout_N.dump", names.into_iter().map(line).collect::<String>()).unwrap();
}
