//! A store of its own for each test, and sessions to put into it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use postern_identity::{
    Claims, IdpId, Keyring, NEVER, SERVICE_ACCOUNT, Secret, Session, SessionHandle, SessionId, Timestamp, Tokens, User,
};
use postern_servers::{Cluster, Redis, Watched};
use postern_storage::{RedisConfig, Server, Storage, StorageConfig, Topology};
use prometheus::Registry;
use serde_json::json;

pub(crate) const ISSUER: &str = "https://idp.example";

/// Waits for a condition, with a deadline.
pub(crate) async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(2);
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A store, and where its file is.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) storage: Storage,
    pub(crate) registry: Registry,
    pub(crate) file: PathBuf,
    _folder: tempfile::TempDir,
    _server: Option<Redis>,
}

impl World {
    /// Once its servers are reached, which may take a while where the machine is busy.
    pub(super) async fn reached(self) -> Self {
        until("the store is well", async || self.storage.health().await.is_ok()).await;
        self
    }

    pub(crate) fn memory() -> Self {
        Self::with(|_| StorageConfig::Memory)
    }

    pub(crate) fn file() -> Self {
        Self::with(|path| StorageConfig::File { path })
    }

    /// A server of its own.
    pub(crate) fn server() -> Self {
        let server = Redis::start(&[]);
        let topology = Topology::Single(Server::local(server.port()));
        let world = Self::with(|_| StorageConfig::Redis(Box::new(RedisConfig::new(topology))));
        Self { _server: Some(server), ..world }
    }

    /// A part of the one cluster of these tests.
    pub(crate) fn cluster() -> Self {
        static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| Cluster::start(Duration::from_secs(2), &[]));
        let seeds = CLUSTER.members().iter().take(2).map(|member| Server::local(member.relay.port())).collect();
        Self::part_of(Topology::Cluster(seeds))
    }

    /// A part of the one master of these tests that Sentinels watch.
    pub(crate) fn watched() -> Self {
        static WATCHED: LazyLock<Watched> = LazyLock::new(|| Watched::start(Duration::from_secs(5)));
        Self::part_of(behind(&WATCHED))
    }

    fn part_of(topology: Topology) -> Self {
        static PARTS: AtomicU64 = AtomicU64::new(0);
        let prefix = format!("{}:", PARTS.fetch_add(1, Ordering::Relaxed));
        // Long enough for a machine that is busy: before anything else the servers have to be found.
        let operation = Duration::from_secs(2);
        Self::with(|_| StorageConfig::Redis(Box::new(RedisConfig { prefix, operation, ..RedisConfig::new(topology) })))
    }

    fn with(config: impl FnOnce(PathBuf) -> StorageConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (file, registry) = (folder.path().join("data/sessions.redb"), Registry::new());
        let storage = Storage::open(config(file.clone()), keyring(), &registry).unwrap();
        Self { storage, registry, file, _folder: folder, _server: None }
    }
}

/// The master that Sentinels watch, as a configuration names it.
pub(crate) fn behind(watched: &Watched) -> Topology {
    let sentinels = watched.sentinels().into_iter().map(Server::local).collect();
    Topology::Sentinel { sentinels, master: Watched::MASTER.to_owned(), credentials: None }
}

pub(crate) fn keyring() -> Arc<Keyring> {
    Arc::new(Keyring::derive(&Secret::new([1; 32]), &Secret::new([2; 32])))
}

/// The 22nd century, so that the background sweep, which reads the real clock, finds nothing to do; then `secs` later.
pub(crate) fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(4_200_000_000 + secs)
}

pub(crate) fn id(number: u64) -> SessionId {
    let mut bytes = [0x5a; 32];
    for (index, chunk) in bytes.chunks_mut(8).enumerate() {
        let mixed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(u32::try_from(index).unwrap() * 13);
        chunk.copy_from_slice(&mixed.to_be_bytes());
    }
    SessionId::from_bytes(bytes)
}

pub(crate) fn handle(number: u64) -> SessionHandle {
    id(number).handle(&keyring())
}

/// A session that began at 0 and ends at 1000.
pub(crate) fn session(number: u64, user: &str) -> Session {
    let claims = |value| Claims::flatten(value_object(&value));
    Session {
        handle: handle(number),
        user: User {
            id: user.to_owned(),
            issuer: ISSUER.to_owned(),
            email: Some(format!("{user}@mail.example")),
            email_verified: Some(true),
            name: Some(format!("{user} of the North")),
            claims: claims(json!({"groups": ["engineering", "ops"], "address": {"country": "NO"}, "level": 3})),
        },
        claims: claims(json!({"sub": user, "amr": ["pwd", "otp"], "admin": true})),
        idp: IdpId::new("oidc https://idp.example client"),
        issued_at: at(0),
        expires_at: at(1000),
        idle: None,
        generation: 1,
    }
}

/// A service account of that user, which does not end.
pub(crate) fn account(number: u64, user: &str) -> Session {
    let session = session(number, user);
    let user = User { issuer: SERVICE_ACCOUNT.to_owned(), ..session.user };
    Session { user, idp: IdpId::service_account(), expires_at: NEVER, ..session }
}

pub(crate) fn idle(session: Session, secs: u64) -> Session {
    let idle = Duration::from_secs(secs);
    Session { idle: Some((idle, session.issued_at.plus(idle))), ..session }
}

fn value_object(value: &serde_json::Value) -> &serde_json::Map<String, serde_json::Value> {
    value.as_object().unwrap()
}

pub(crate) fn tokens(mark: &str) -> Tokens {
    Tokens {
        access: Secret::new(format!("access-{mark}")),
        access_expires_at: Some(at(300)),
        refresh: Some(Secret::new(format!("refresh-{mark}"))),
        id_token: Secret::new(format!("id-token-{mark}")),
        refresh_at: Some(at(200)),
    }
}
