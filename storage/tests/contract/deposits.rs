//! What processes leave for each other is found by all who share the store, and by nobody else; and one of them at a time may
//! change it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postern_identity::{NEVER, Secret, Timestamp};
use postern_servers::Redis;
use postern_storage::{Claim, Deposit, Deposits, Look, RedisConfig, Server, Storage, StorageConfig, Topology, Version};
use prometheus::Registry;

use crate::support::{World, keyring, until};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);
const NAME: &[&str] = &["https://acme.example/directory", "a.example"];
const LESS: &[&str] = &["https://acme.example/directory"];
const OTHER: &[&str] = &["https://acme.example/directory", "b.example"];

/// Each promise, once for each kind of store that processes share.
macro_rules! shared {
    ($(async fn $name:ident($deposits:ident) $body:block)*) => {$(
        mod $name {
            use super::*;

            async fn promise($deposits: &Deposits) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_one_server() {
                let world = World::server();
                promise(&world.storage.deposits().unwrap()).await;
                world.storage.close().await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_a_cluster() {
                let world = World::cluster();
                promise(&world.storage.deposits().unwrap()).await;
                world.storage.close().await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn behind_sentinels() {
                let world = World::watched();
                promise(&world.storage.deposits().unwrap()).await;
                world.storage.close().await;
            }
        }
    )*};
}

/// What is there, and what tells it from others.
pub(super) async fn there(deposits: &Deposits, kind: Deposit, name: &[&str]) -> Option<(Version, String)> {
    match deposits.find(kind, name, None).await.unwrap() {
        Look::Found(version, value) => Some((version, String::from_utf8(value.expose().clone()).unwrap())),
        Look::Former(_) => panic!("there is one secret"),
        Look::Nothing => None,
        Look::Same => panic!("nothing was known"),
    }
}

async fn left(deposits: &Deposits, value: &str, claim: &Claim) -> bool {
    deposits.put(Deposit::Certificate, value.as_bytes(), NEVER, claim).await.unwrap()
}

async fn claimed(deposits: &Deposits, name: &[&str], life: Duration) -> Claim {
    deposits.claim(name, life).await.unwrap().unwrap()
}

shared! {
    async fn what_is_left_is_found_by_its_kind_and_name_alone(deposits) {
        let claim = claimed(deposits, NAME, LONG).await;
        assert!(left(deposits, "one", &claim).await);
        let (version, value) = there(deposits, Deposit::Certificate, NAME).await.unwrap();
        assert_eq!(value, "one");
        let other_kinds = [Deposit::Account, Deposit::Staple].map(|kind| (kind, NAME));
        for (kind, name) in other_kinds.into_iter().chain([(Deposit::Certificate, OTHER), (Deposit::Certificate, LESS)]) {
            assert!(there(deposits, kind, name).await.is_none(), "{kind:?} {name:?}");
        }
        let again = deposits.find(Deposit::Certificate, NAME, Some(&version)).await.unwrap();
        assert!(matches!(again, Look::Same), "{again:?}");
        assert!(left(deposits, "two", &claim).await);
        let other = deposits.find(Deposit::Certificate, NAME, Some(&version)).await.unwrap();
        assert!(matches!(&other, Look::Found(next, value) if *next != version && value.expose() == b"two"), "{other:?}");
        assert!(deposits.remove(Deposit::Certificate, &claim).await.unwrap());
        assert!(there(deposits, Deposit::Certificate, NAME).await.is_none());
    }

    async fn one_process_holds_a_claim_and_what_a_former_holder_writes_is_refused(deposits) {
        let mut racing = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let deposits = deposits.clone();
            racing.spawn(async move { deposits.claim(NAME, LONG).await.unwrap() });
        }
        let mut held: Vec<_> = racing.join_all().await.into_iter().flatten().collect();
        assert_eq!(held.len(), 1);
        let former = claimed(deposits, OTHER, SHORT).await;
        deposits.release(held.pop().unwrap()).await;
        assert!(deposits.claim(NAME, LONG).await.unwrap().is_some(), "it was let go");

        until("a claim that nobody prolongs is over", async || deposits.claim(OTHER, LONG).await.unwrap().is_some()).await;
        assert!(!deposits.prolong(&former, LONG).await.unwrap());
        assert!(!left(deposits, "late", &former).await);
        assert!(there(deposits, Deposit::Certificate, OTHER).await.is_none());
        assert!(!deposits.remove(Deposit::Certificate, &former).await.unwrap());
        deposits.release(former).await;
        assert!(deposits.claim(OTHER, LONG).await.unwrap().is_none(), "whoever lets go lets go of its own");
    }

    async fn a_claim_that_is_prolonged_is_held(deposits) {
        let held = claimed(deposits, NAME, SHORT * 10).await;
        assert!(deposits.prolong(&held, LONG).await.unwrap());
        let witness = claimed(deposits, OTHER, SHORT * 10).await;
        until("as much time has passed", async || deposits.claim(OTHER, LONG).await.unwrap().is_some()).await;
        assert!(deposits.claim(NAME, LONG).await.unwrap().is_none());
        assert!(!deposits.prolong(&witness, LONG).await.unwrap());
    }

    async fn a_claim_that_was_over_for_a_moment_is_not_prolonged(deposits) {
        let former = claimed(deposits, NAME, SHORT).await;
        until("it is over", async || {
            let free = deposits.claim(NAME, LONG).await.unwrap();
            let is_free = free.is_some();
            if let Some(other) = free {
                deposits.release(other).await;
            }
            is_free
        })
        .await;
        assert!(!deposits.prolong(&former, LONG).await.unwrap(), "another one may have been at it meanwhile");
        assert!(deposits.claim(NAME, LONG).await.unwrap().is_some());
    }

    async fn what_is_left_ends_at_its_time(deposits) {
        let end = Timestamp::from(SystemTime::now()).plus(SHORT);
        let claim = claimed(deposits, NAME, LONG).await;
        assert!(deposits.put(Deposit::Challenge, b"one", end, &claim).await.unwrap());
        until("it is over", async || there(deposits, Deposit::Challenge, NAME).await.is_none()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_process_shares_the_store_there_is_nothing_to_leave() {
    for world in [World::memory(), World::file()] {
        assert!(world.storage.deposits().is_none());
        world.storage.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_082_what_is_left_is_sealed_to_its_place() {
    let server = Redis::start(&[]);
    let config = RedisConfig::new(Topology::Single(Server::local(server.port())));
    let storage = Storage::open(StorageConfig::Redis(Box::new(config)), keyring(), &Registry::new()).unwrap();
    let deposits = storage.deposits().unwrap();
    let (claim, of_other) = (claimed(&deposits, NAME, LONG).await, claimed(&deposits, OTHER, LONG).await);
    assert!(left(&deposits, "-----BEGIN PRIVATE KEY-----", &claim).await);
    let names = |pattern: &str| server.cli(&["--scan", "--pattern", pattern]);
    let (first, raw) = (names("a:c:*"), server.cli(&["GET", &names("a:c:*")]));
    for clear in ["PRIVATE", "a.example", "acme"] {
        assert!(!raw.contains(clear) && !first.contains(clear), "{first}: {raw}");
    }

    assert!(left(&deposits, "other", &of_other).await);
    let second = names("a:c:*").lines().find(|name| *name != first).unwrap().to_owned();
    assert_eq!(server.cli(&["COPY", &first, &second, "REPLACE"]), "1");
    assert!(there(&deposits, Deposit::Certificate, OTHER).await.is_none(), "it was moved to another name");
    assert!(left(&deposits, "mended", &of_other).await);
    assert_eq!(there(&deposits, Deposit::Certificate, OTHER).await.unwrap().1, "mended");

    assert_eq!(server.cli(&["COPY", &first, &first.replace("a:c:", "a:a:")]), "1");
    assert!(there(&deposits, Deposit::Account, NAME).await.is_none(), "it was made another kind");
    let stranger = Arc::new(postern_identity::Keyring::derive(&Secret::new([9; 32]), &Secret::new([2; 32])));
    let config = RedisConfig::new(Topology::Single(Server::local(server.port())));
    let other = Storage::open(StorageConfig::Redis(Box::new(config)), stranger, &Registry::new()).unwrap();
    assert!(there(&other.deposits().unwrap(), Deposit::Certificate, NAME).await.is_none(), "another secret");
    other.close().await;
    storage.close().await;
}
