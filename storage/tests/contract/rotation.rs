//! A shared secret is replaced while sessions last: each process has the one in force, and those that it accepts beside it.

use std::sync::Arc;
use std::time::Duration;

use postern_identity::{Keyring, NEVER, Secret, Session, SessionCookie, SessionId};
use postern_servers::Redis;
use postern_storage::{
    CacheConfig, Cached, Committed, Deposit, Loaded, Look, Lookup, Once, RedisConfig, Server, SessionCache, Storage,
    StorageConfig, Topology,
};
use prometheus::Registry;

use crate::deposits::there;
use crate::support::{ISSUER, at, id, session, tokens, until};

const OLD: u8 = 1;
const NEW: u8 = 3;

fn ring(in_force: u8, accepted: &[u8]) -> Arc<Keyring> {
    let accepted: Vec<_> = accepted.iter().map(|byte| Secret::new([*byte; 32])).collect();
    Arc::new(Keyring::derive_with(&Secret::new([in_force; 32]), &accepted, &Secret::new([2; 32])))
}

/// A process in the course of it.
struct Process {
    storage: Storage,
    ring: Arc<Keyring>,
}

impl Process {
    fn start(server: &Redis, ring: Arc<Keyring>) -> Self {
        let topology = Topology::Single(Server::local(server.port()));
        let config = StorageConfig::Redis(Box::new(RedisConfig::new(topology)));
        Self { storage: Storage::open(config, Arc::clone(&ring), &Registry::new()).unwrap(), ring }
    }

    /// The id in a cookie that another process made.
    fn id_in(&self, cookie: &str) -> SessionId {
        SessionCookie::open(&self.ring, HOST, cookie.as_bytes()).unwrap()
    }

    async fn begin(&self, number: u64, user: &str) -> (Session, String) {
        let session = Session { handle: id(number).handle(&self.ring), ..session(number, user) };
        self.storage.sessions().create(&session, &tokens("a")).await.unwrap();
        (session, SessionCookie::seal(&self.ring, HOST, &id(number)))
    }

    async fn found(&self, cookie: &str) -> Option<Session> {
        let handle = self.id_in(cookie).handle(&self.ring);
        match self.storage.sessions().load(&handle, at(1)).await.unwrap() {
            Lookup::Found(session) => Some((*session).clone()),
            Lookup::Revoked | Lookup::Unknown => None,
        }
    }

    async fn spend(&self, value: &[u8]) -> bool {
        self.storage.sessions().spend(Once::Ticket, value, at(0), at(9)).await.unwrap()
    }
}

const HOST: &str = "app.example.com";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_082_sessions_outlive_the_secret_that_they_began_under() {
    let server = Redis::start(&[]);
    let [before, ready, replaced] =
        [ring(OLD, &[]), ring(OLD, &[NEW]), ring(NEW, &[OLD])].map(|ring| Process::start(&server, ring));
    let (session, cookie) = before.begin(1, "alice").await;
    for process in [&ready, &replaced] {
        assert_eq!(process.found(&cookie).await, Some(session.clone()));
        let opened = process.storage.sessions().tokens(&session.handle).await.unwrap().unwrap();
        assert_eq!(opened.refresh.unwrap().expose(), "refresh-a");
    }

    // A refresh seals it by the new one, and leaves its name and its owner's.
    let renewed = replaced.storage.sessions().commit(&session.handle, 1, &session, &tokens("b")).await.unwrap();
    assert_eq!(renewed, Committed::Saved(2));
    for process in [&ready, &replaced] {
        assert_eq!(process.found(&cookie).await.map(|session| session.generation), Some(2));
        let opened = process.storage.sessions().tokens(&session.handle).await.unwrap().unwrap();
        assert_eq!(opened.refresh.unwrap().expose(), "refresh-b");
    }
    let (_, another) = replaced.begin(2, "alice").await;
    for process in [&ready, &replaced] {
        let listed = process.storage.sessions().list(ISSUER, "alice", at(1)).await.unwrap();
        assert_eq!(listed.len(), 2, "whatever they began under");
    }

    let done = Process::start(&server, ring(NEW, &[]));
    assert!(SessionCookie::open(&done.ring, HOST, cookie.as_bytes()).is_none(), "the old secret says nothing any more");
    assert!(done.found(&another).await.is_some());
    let sessions = done.storage.sessions();
    assert!(matches!(sessions.load(&session.handle, at(1)).await.unwrap(), Lookup::Found(_)), "sealed by the new one");
    sessions.revoke_user(ISSUER, "alice", at(10)).await.unwrap();
    let found = sessions.load(&session.handle, at(1)).await.unwrap();
    assert!(matches!(found, Lookup::Revoked), "s_095: its owner's name is not known: {found:?}");
    assert!(sessions.tokens(&session.handle).await.unwrap().is_none());
    let listed = sessions.page(None, at(1)).await.unwrap();
    assert!(listed.next.is_none() && listed.sessions.is_empty(), "nor is it listed: {:?}", listed.sessions);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_095_all_sessions_of_a_user_end_whatever_secret_they_began_under() {
    let server = Redis::start(&[]);
    let [ready, replaced] = [ring(OLD, &[NEW]), ring(NEW, &[OLD])].map(|ring| Process::start(&server, ring));
    let cache: Arc<SessionCache> = replaced.storage.cache(CacheConfig::default());
    until("there is contact", async || cache.is_in_contact()).await;
    let cookies = [ready.begin(1, "alice").await.1, replaced.begin(2, "alice").await.1];
    let bob = ready.begin(3, "bob").await.1;
    let ids = cookies.each_ref().map(|cookie| replaced.id_in(cookie));
    for id in &ids {
        assert!(matches!(cache.load(id, at(1), Duration::ZERO).await.unwrap(), Loaded::Found(_)));
    }
    ready.storage.sessions().revoke_user(ISSUER, "alice", at(10)).await.unwrap();
    for cookie in &cookies {
        assert_eq!((ready.found(cookie).await, replaced.found(cookie).await), (None, None));
    }
    for id in &ids {
        let over = || matches!(cache.get(id, at(1), Duration::ZERO), Cached::Revoked);
        until("the copy is over", async || over()).await;
    }
    for process in [&ready, &replaced] {
        assert!(process.storage.sessions().are_ended(ISSUER, "alice", at(9)).await.unwrap());
        assert!(process.found(&bob).await.is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_055_what_is_spent_in_one_process_is_spent_in_those_that_share_a_secret_with_it() {
    let server = Redis::start(&[]);
    let steps = [ring(OLD, &[]), ring(OLD, &[NEW]), ring(NEW, &[OLD]), ring(NEW, &[])];
    let steps = steps.map(|ring| Process::start(&server, ring));
    for (from, first) in steps.iter().enumerate() {
        for (to, second) in steps.iter().enumerate().filter(|(to, _)| from.abs_diff(*to) <= 1) {
            let value = [u8::try_from(from).unwrap(), u8::try_from(to).unwrap()];
            assert!(first.spend(&value).await, "{from}");
            assert!(!second.spend(&value).await, "{from}, {to}");
        }
    }
    let mut racing = tokio::task::JoinSet::new();
    for process in steps.iter().skip(1).take(2).cycle().take(20) {
        let sessions = process.storage.sessions();
        racing.spawn(async move { sessions.spend(Once::SignIn, b"one", at(0), at(9)).await.unwrap() });
    }
    let spent = racing.join_all().await.into_iter().filter(|spent| *spent).count();
    assert_eq!(spent, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_082_what_processes_leave_for_each_other_outlives_the_secret_that_it_was_left_under() {
    let server = Redis::start(&[]);
    let steps = [ring(OLD, &[]), ring(OLD, &[NEW]), ring(NEW, &[OLD]), ring(NEW, &[])];
    let steps = steps.map(|ring| Process::start(&server, ring));
    let deposits = steps.each_ref().map(|step| step.storage.deposits().unwrap());
    let beside = |from: usize| (0..steps.len()).filter(move |to| from.abs_diff(*to) <= 1);
    for (from, left) in deposits.iter().enumerate() {
        let mark = from.to_string();
        let name = ["authority", mark.as_str()];
        let claim = left.claim(&name, Duration::from_secs(60)).await.unwrap().unwrap();
        for to in beside(from) {
            assert!(deposits[to].claim(&name, Duration::from_secs(60)).await.unwrap().is_none(), "{from}, {to}");
        }
        for value in ["first", "second"] {
            assert!(left.put(Deposit::Certificate, value.as_bytes(), NEVER, &claim).await.unwrap());
            for to in beside(from) {
                let found = there(&deposits[to], Deposit::Certificate, &name).await.map(|(_, value)| value);
                assert_eq!(found.as_deref(), Some(value), "{from}, {to}");
            }
        }
        left.release(claim).await;
        for to in beside(from) {
            let claim = deposits[to].claim(&name, Duration::from_secs(60)).await.unwrap().expect("it was let go");
            deposits[to].release(claim).await;
        }
    }
    // What the first left is found by the old name alone, until one that knows both leaves it again.
    let name = ["authority", "0"];
    let Look::Former(value) = deposits[2].find(Deposit::Certificate, &name, None).await.unwrap() else {
        panic!("it is not told that the new secret does not find it")
    };
    assert!(there(&deposits[3], Deposit::Certificate, &name).await.is_none());
    let claim = deposits[2].claim(&name, Duration::from_secs(60)).await.unwrap().unwrap();
    assert!(deposits[2].put(Deposit::Certificate, value.expose(), NEVER, &claim).await.unwrap());
    for to in [1, 2, 3] {
        let found = there(&deposits[to], Deposit::Certificate, &name).await;
        assert_eq!(found.map(|(_, value)| value).as_deref(), Some("second"), "{to}");
    }
}
