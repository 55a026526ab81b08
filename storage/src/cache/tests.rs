use std::sync::Arc;
use std::time::{Duration, Instant};

use postern_identity::{IdpId, Keyring, Secret, Session, SessionId, Timestamp, Tokens, User};
use proptest::prelude::*;
use tokio::runtime::Handle;

use super::*;
use crate::Storage;
use crate::backend::Backend;
use crate::backend::gated::Gated;
use crate::record::Seal;
use crate::sessions::Committed;

/// Nothing is served that could not be read again.
const WINDOW: Duration = Duration::ZERO;

#[derive(Debug)]
struct World {
    storage: Storage,
    sessions: Sessions,
    cache: Arc<SessionCache<u32>>,
    store: Arc<Gated>,
}

impl World {
    fn new() -> Self {
        Self::with(CacheConfig::default())
    }

    fn with(config: CacheConfig) -> Self {
        Self::hearing(config, Contact::own())
    }

    fn hearing(config: CacheConfig, contact: Contact) -> Self {
        let metrics = Arc::new(Metrics::register(&prometheus::Registry::new(), "gated").unwrap());
        let (backend, store) = Backend::gated(Duration::from_millis(500), Arc::clone(&metrics));
        let storage = Storage::start(backend, Arc::new(contact), Seal::new(keyring()), metrics, Handle::current());
        Self { sessions: storage.sessions(), cache: storage.cache(config), storage, store }
    }

    async fn create(&self, number: u64, user: &str) -> Session {
        let session = session(number, user);
        self.sessions.create(&session, &tokens()).await.unwrap();
        session
    }

    async fn found(&self, number: u64, secs: i64) -> Arc<Entry<u32>> {
        let loaded = self.cache.load(&id(number), at(secs), WINDOW).await.unwrap();
        let Loaded::Found(entry) = loaded else { panic!("{loaded:?}") };
        entry
    }
}

fn keyring() -> Arc<Keyring> {
    Arc::new(Keyring::derive(&Secret::new([1; 32]), &Secret::new([2; 32])))
}

/// Far from the real clock, which the background sweep reads.
fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(4_200_000_000 + secs)
}

fn id(number: u64) -> SessionId {
    let words = [1, 2, 3, 4_u64].map(|n| (number + n).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    SessionId::from_bytes(words.concat().try_into().unwrap())
}

fn session(number: u64, user: &str) -> Session {
    Session {
        handle: id(number).handle(&keyring()),
        user: User { id: user.to_owned(), issuer: "https://idp".to_owned(), ..User::default() },
        claims: postern_identity::Claims::default(),
        idp: IdpId::new("idp"),
        issued_at: at(0),
        expires_at: at(1000),
        idle: None,
        generation: 1,
    }
}

fn tokens() -> Tokens {
    let token = || Secret::new("token".to_owned());
    Tokens { access: token(), access_expires_at: None, refresh: None, id_token: token(), refresh_at: None }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn s_089_the_bytes_of_an_id_under_another_secret_are_no_copy() {
    let world = World::new();
    world.create(1, "alice").await;
    world.found(1, 1).await;
    let replaced =
        Keyring::derive_with(&Secret::new([1; 32]), &[Secret::new([3; 32])], &Secret::new([2; 32])).secrets().nth(1);
    let forged = SessionId::of(replaced.unwrap(), *id(1).as_bytes());
    assert!(matches!(world.cache.get(&id(1), at(1), WINDOW), Cached::Hit(_)));
    assert!(matches!(world.cache.get(&forged, at(1), WINDOW), Cached::Miss));
}

#[tokio::test]
async fn a_session_is_loaded_once_and_then_hit() {
    let world = World::new();
    world.create(1, "alice").await;
    assert!(matches!(world.cache.get(&id(1), at(1), WINDOW), Cached::Miss));
    world.found(1, 1).await;
    let asked = world.store.asked();
    for _ in 0..100 {
        let Cached::Hit(entry) = world.cache.get(&id(1), at(2), WINDOW) else { panic!("not hit") };
        assert_eq!(entry.session.user_id(), "alice");
    }
    assert_eq!(world.store.asked(), asked);
}

#[tokio::test]
async fn s_084_a_revoked_session_is_refused_at_once() {
    let world = World::new();
    let session = world.create(1, "alice").await;
    let entry = world.found(1, 1).await;
    assert!(world.cache.is_live(&entry, at(1)));
    world.sessions.revoke(&session.handle).await.unwrap();
    assert!(matches!(world.cache.get(&id(1), at(1), WINDOW), Cached::Revoked));
    assert!(matches!(world.cache.load(&id(1), at(1), WINDOW).await.unwrap(), Loaded::Revoked));
    assert!(!world.cache.is_live(&entry, at(1)));
}

#[tokio::test]
async fn s_095_all_sessions_of_a_user_are_refused_at_once_and_no_others() {
    let world = World::new();
    for (number, user) in [(1, "alice"), (2, "alice"), (3, "bob")] {
        world.create(number, user).await;
        world.found(number, 1).await;
    }
    world.sessions.revoke_user("https://idp", "alice", at(1)).await.unwrap();
    assert!(matches!(world.cache.get(&id(1), at(1), WINDOW), Cached::Revoked));
    assert!(matches!(world.cache.get(&id(2), at(1), WINDOW), Cached::Revoked));
    assert!(matches!(world.cache.get(&id(3), at(1), WINDOW), Cached::Hit(_)));
}

#[tokio::test]
async fn s_084_a_revocation_that_the_store_did_not_answer_is_effective_here() {
    let world = World::new();
    let session = world.create(1, "alice").await;
    world.found(1, 1).await;
    world.store.hang(true);
    assert!(world.sessions.revoke(&session.handle).await.is_err());
    assert!(matches!(world.cache.get(&id(1), at(1), WINDOW), Cached::Revoked));
}

#[tokio::test]
async fn s_090_an_expired_session_never_hits_also_when_the_clock_jumps_back() {
    let world = World::new();
    world.create(1, "alice").await;
    world.found(1, 999).await;
    assert!(matches!(world.cache.get(&id(1), at(999), WINDOW), Cached::Hit(_)));
    assert!(matches!(world.cache.get(&id(1), at(1000), WINDOW), Cached::Unknown));
    assert!(matches!(world.cache.get(&id(1), at(999), WINDOW), Cached::Unknown), "r_025: it was over");
    assert!(matches!(world.cache.load(&id(1), at(1000), WINDOW).await.unwrap(), Loaded::Unknown));
}

#[tokio::test]
async fn r_025_an_entry_that_was_read_in_the_future_is_read_again() {
    let world = World::new();
    world.create(1, "alice").await;
    world.found(1, 500).await;
    assert!(matches!(world.cache.get(&id(1), at(499), WINDOW), Cached::Hit(_)), "exchanges overlap a little");
    assert!(matches!(world.cache.get(&id(1), at(400), WINDOW), Cached::Miss));
}

#[tokio::test]
async fn a_refreshed_session_is_seen_at_once_and_has_a_fresh_slot() {
    let world = World::new();
    let session = world.create(1, "alice").await;
    let before = world.found(1, 1).await;
    let outcome = world.sessions.commit(&session.handle, 1, &session, &tokens()).await.unwrap();
    assert_eq!(outcome, Committed::Saved(2));
    assert!(matches!(world.cache.get(&id(1), at(1), WINDOW), Cached::Miss), "the former one is out of date");
    let after = world.found(1, 1).await;
    assert_eq!((before.session.generation, after.session.generation), (1, 2));
    assert!(!Arc::ptr_eq(&before, &after));
}

#[tokio::test]
async fn an_old_entry_is_read_again_in_the_background_and_keeps_its_slot() {
    let world = World::new();
    world.create(1, "alice").await;
    let first = world.found(1, 0).await;
    let asked = world.store.asked();
    assert!(matches!(world.cache.get(&id(1), at(29), WINDOW), Cached::Hit(_)));
    assert_eq!(world.store.asked(), asked, "not before half of its life");
    assert!(matches!(world.cache.get(&id(1), at(31), WINDOW), Cached::Hit(_)));
    until("it is read again", || first.read_at() == at(31)).await;
    let Cached::Hit(second) = world.cache.get(&id(1), at(70), WINDOW) else { panic!("it was read at 31") };
    assert!(Arc::ptr_eq(&first, &second), "what the edge keeps beside it stays");
    assert!(matches!(world.cache.get(&id(1), at(200), WINDOW), Cached::Miss), "too old: read in line");
}

#[tokio::test]
async fn a_reading_in_the_background_is_tried_once_a_second_while_the_store_hangs() {
    let world = World::new();
    world.create(1, "alice").await;
    world.found(1, 0).await;
    world.store.hang(true);
    let asked = world.store.asked();
    for _ in 0..1000 {
        assert!(matches!(world.cache.get(&id(1), at(40), WINDOW), Cached::Hit(_)));
    }
    until("it is asked", || world.store.asked() == asked + 1).await;
}

#[tokio::test]
async fn a_thousand_who_wait_cause_one_load() {
    let world = World::new();
    world.create(1, "alice").await;
    let asked = world.store.asked();
    world.store.hang(true);
    let waiting: Vec<_> = (0..1000)
        .map(|_| {
            let cache = Arc::clone(&world.cache);
            tokio::spawn(async move { cache.load(&id(1), at(1), WINDOW).await })
        })
        .collect();
    until("it is asked", || world.store.asked() > asked).await;
    until("all wait", || world.cache.waiting.available_permits() == 4_096 - 1000).await;
    world.store.hang(false);
    for waiter in waiting {
        assert!(matches!(waiter.await.unwrap().unwrap(), Loaded::Found(_)));
    }
    assert_eq!(world.store.asked(), asked + 1);
}

#[tokio::test]
async fn who_gives_up_waiting_stops_nobody_else() {
    let world = World::new();
    world.create(1, "alice").await;
    world.store.hang(true);
    let spawn = || {
        let cache = Arc::clone(&world.cache);
        tokio::spawn(async move { cache.load(&id(1), at(1), WINDOW).await })
    };
    let asked = world.store.asked();
    let leader = spawn();
    until("the leader asks", || world.store.asked() > asked).await;
    let followers = [spawn(), spawn()];
    until("the others wait", || world.cache.waiting.available_permits() == 4_096 - 3).await;
    leader.abort();
    assert!(leader.await.unwrap_err().is_cancelled());
    world.store.hang(false);
    for follower in followers {
        assert!(matches!(follower.await.unwrap().unwrap(), Loaded::Found(_)));
    }
    assert_eq!(world.store.asked(), asked + 1);
}

#[tokio::test]
async fn r_007_a_store_that_hangs_is_unavailable_within_the_deadline_and_recovers() {
    let world = World::with(CacheConfig { load_deadline: Duration::from_millis(50), ..CacheConfig::default() });
    world.create(1, "alice").await;
    world.store.hang(true);
    let started = Instant::now();
    assert!(matches!(world.cache.load(&id(1), at(1), WINDOW).await, Err(StorageError::Unavailable { .. })));
    assert!(started.elapsed() < Duration::from_secs(2), "r_006: within two seconds");
    until("the flight is over", || flight_count(&world) == 0).await;
    assert!(matches!(world.cache.get(&id(1), at(1), WINDOW), Cached::Miss), "unavailable is never unknown");
    world.store.hang(false);
    world.found(1, 1).await;
}

fn flight_count(world: &World) -> usize {
    world.cache.flights.lock().unwrap().len()
}

#[tokio::test]
async fn r_004_more_than_may_wait_are_refused_at_once() {
    let world = World::with(CacheConfig { max_waiting: 2, ..CacheConfig::default() });
    world.store.hang(true);
    let waiting: Vec<_> = [1, 2]
        .map(|number| {
            let cache = Arc::clone(&world.cache);
            tokio::spawn(async move { cache.load(&id(number), at(1), WINDOW).await })
        })
        .into();
    until("two wait", || world.cache.waiting.available_permits() == 0).await;
    let Err(StorageError::Unavailable { reason, .. }) = world.cache.load(&id(3), at(1), WINDOW).await else {
        panic!("waited")
    };
    assert!(reason.contains("too many"), "{reason}");
    for waiter in waiting {
        assert!(waiter.await.unwrap().is_err());
    }
}

#[tokio::test]
async fn an_unknown_id_is_remembered_for_a_second_and_never_longer_than_until_its_session_begins() {
    let world = World::new();
    assert!(matches!(world.cache.load(&id(1), at(1), WINDOW).await.unwrap(), Loaded::Unknown));
    assert!(matches!(world.cache.get(&id(1), at(1), WINDOW), Cached::Unknown));
    assert!(matches!(world.cache.get(&id(1), at(3), WINDOW), Cached::Miss), "only for a second");
    assert!(matches!(world.cache.get(&id(1), at(0), WINDOW), Cached::Miss), "and not from the future");
    assert!(matches!(world.cache.load(&id(1), at(5), WINDOW).await.unwrap(), Loaded::Unknown));
    world.create(1, "alice").await;
    assert!(matches!(world.cache.get(&id(1), at(5), WINDOW), Cached::Miss));
    world.found(1, 5).await;
}

#[tokio::test]
async fn s_083_a_flood_of_unknown_ids_does_not_grow_the_cache() {
    let world = World::new();
    for number in 0..5_000 {
        assert!(matches!(world.cache.load(&id(number), at(1), WINDOW).await.unwrap(), Loaded::Unknown));
    }
    assert!(world.cache.is_empty());
    assert_eq!(flight_count(&world), 0);
}

#[tokio::test]
async fn r_004_the_cache_never_grows_beyond_its_bound() {
    let world = World::with(CacheConfig { max_entries: 80, ..CacheConfig::default() });
    for number in 0..200 {
        world.create(number, "alice").await;
        world.found(number, 1).await;
        assert!(world.cache.len() <= 90, "{}", world.cache.len());
    }
    world.cache.sweep(at(1), 0);
    assert!(world.cache.len() <= 80);
}

#[tokio::test]
async fn where_there_are_too_many_copies_those_of_no_use_go_first_wherever_they_are() {
    let world = World::with(CacheConfig { max_entries: 10, ..CacheConfig::default() });
    for number in 0..11 {
        world.create(number, "alice").await;
        world.found(number, if number < 5 { 1 } else { 300 }).await;
    }
    assert_eq!(world.cache.len(), 11);
    world.cache.sweep(at(362), 0);
    assert_eq!(world.cache.len(), 6, "not one that is of use");
}

#[tokio::test]
async fn each_turn_of_the_sweep_looks_at_a_share_and_in_all_at_everything() {
    let world = World::new();
    for number in 0..200 {
        world.create(number, "alice").await;
        world.found(number, 1).await;
    }
    let mut before = 200;
    for turn in 0..SWEEPS {
        world.cache.sweep(at(362), turn);
        let dropped = before - world.cache.len();
        assert!(dropped < 200 / 8, "{dropped} in turn {turn}");
        before = world.cache.len();
    }
    assert_eq!(before, 0);
}

#[tokio::test(start_paused = true)]
async fn in_sixteen_turns_all_that_is_of_no_use_is_dropped() {
    let world = World::new();
    for number in 0..100 {
        world.create(number, "alice").await;
        // Long before the clock that the sweep reads.
        world.cache.load(&id(number), Timestamp::from_secs(1), WINDOW).await.unwrap();
    }
    assert_eq!(world.cache.len(), 100);
    tokio::time::sleep(SWEEP_EVERY * 8).await;
    assert!((10..90).contains(&world.cache.len()), "{}", world.cache.len());
    tokio::time::sleep(SWEEP_EVERY * 9).await;
    assert_eq!(world.cache.len(), 0);
}

#[tokio::test]
async fn the_sweep_drops_what_nobody_uses_and_keeps_the_rest() {
    let world = World::new();
    for number in [1, 2, 3] {
        world.create(number, "alice").await;
    }
    world.found(1, 1).await;
    world.found(2, 300).await;
    let third = world.found(3, 300).await;
    world.sessions.revoke(&third.session.handle).await.unwrap();
    // A minute that it is fresh, and the longest window that a route may have.
    (0..SWEEPS).for_each(|turn| world.cache.sweep(at(362), turn));
    assert_eq!(world.cache.len(), 1);
    assert!(matches!(world.cache.get(&id(2), at(310), WINDOW), Cached::Hit(_)));
}

#[tokio::test]
async fn when_something_may_have_been_missed_the_whole_cache_is_read_again() {
    let world = World::new();
    world.create(1, "alice").await;
    world.found(1, 1).await;
    world.storage.invalidation.reset();
    assert!(matches!(world.cache.get(&id(1), at(1), WINDOW), Cached::Miss));
    world.found(1, 1).await;
    assert!(matches!(world.cache.get(&id(1), at(1), WINDOW), Cached::Hit(_)));
}

#[tokio::test]
async fn s_090_idleness_ends_a_session_unless_it_is_touched() {
    let world = World::new();
    let idle = Duration::from_secs(100);
    let session = Session { idle: Some((idle, at(100))), ..session(1, "alice") };
    world.sessions.create(&session, &tokens()).await.unwrap();
    let entry = world.found(1, 40).await;
    assert!(matches!(world.cache.get(&id(1), at(99), WINDOW), Cached::Hit(_)));
    assert!(matches!(world.cache.get(&id(1), at(100), WINDOW), Cached::Miss), "the store decides");
    world.cache.touch(&entry, at(90));
    world.found(1, 95).await;
    assert!(matches!(world.cache.get(&id(1), at(110), WINDOW), Cached::Hit(_)));
    until("the store hears of it", || {
        let stored = futures_now(world.storage.backend.session(session.handle.as_bytes()));
        stored.is_some_and(|stored| stored.unwrap().unwrap().row.idle_until == Some(at(190).as_millis()))
    })
    .await;
    assert!(matches!(world.cache.load(&id(1), at(190), WINDOW).await.unwrap(), Loaded::Unknown));
}

/// The outcome of a future that has it at once.
fn futures_now<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test]
async fn a_session_in_use_is_written_down_rarely() {
    let world = World::new();
    let session = Session { idle: Some((Duration::from_secs(600), at(600))), ..session(1, "alice") };
    world.sessions.create(&session, &tokens()).await.unwrap();
    let entry = world.found(1, 0).await;
    let heard = (1..=240).filter(|secs| entry.touch(at(*secs)).is_some()).count();
    assert!((3..=4).contains(&heard), "{heard} times in four minutes");
    let last = entry.touch(at(999)).unwrap().1;
    assert_eq!(last, at(1000), "never past its absolute end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_084_a_load_never_outruns_a_revocation() {
    let world = World::new();
    for round in 0..10_000 {
        let session = world.create(round, if round % 2 == 0 { "alice" } else { "bob" }).await;
        let (cache, sessions) = (Arc::clone(&world.cache), world.sessions.clone());
        let loading = tokio::spawn(async move { cache.load(&id(round), at(1), WINDOW).await });
        let revoking = tokio::spawn(async move {
            match round % 4 {
                0 => sessions.revoke_user("https://idp", "alice", at(1)).await,
                _ => sessions.revoke(&session.handle).await,
            }
        });
        revoking.await.unwrap().unwrap();
        assert!(!matches!(world.cache.get(&id(round), at(1), WINDOW), Cached::Hit(_)), "round {round}: right after");
        loading.await.unwrap().unwrap();
        assert!(!matches!(world.cache.get(&id(round), at(1), WINDOW), Cached::Hit(_)), "round {round}: after the load");
        assert!(matches!(world.cache.load(&id(round), at(1), WINDOW).await.unwrap(), Loaded::Revoked), "round {round}");
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Create(u64),
    Revoke(u64),
    RevokeUser(u64, i64),
    Commit(u64),
    Load(u64),
    Get(u64),
    Pass(i64),
    Sweep,
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    let number = 0..6_u64;
    prop_oneof![
        number.clone().prop_map(Step::Create),
        number.clone().prop_map(Step::Revoke),
        (0..2_u64, -5..5_i64).prop_map(|(user, offset)| Step::RevokeUser(user, offset)),
        number.clone().prop_map(Step::Commit),
        number.clone().prop_map(Step::Load),
        number.clone().prop_map(Step::Load),
        number.clone().prop_map(Step::Get),
        number.prop_map(Step::Get),
        (0..70_i64).prop_map(Step::Pass),
        Just(Step::Sweep),
        Just(Step::Reset),
    ]
}

/// What the sessions really are.
#[derive(Debug, Default)]
struct Model {
    sessions: HashMap<u64, Session>,
    revoked: std::collections::HashSet<u64>,
    now: i64,
}

#[derive(Debug, PartialEq, Eq)]
enum Truth {
    Live(u64),
    Revoked,
    Unknown,
}

impl Model {
    /// Of a session that was ended and has expired, both may be said.
    fn agrees(&self, number: u64, said: &Truth) -> bool {
        let truth = self.truth(number);
        let expired = self.sessions.get(&number).is_some_and(|session| session.is_expired(at(self.now)));
        *said == truth || (expired && truth == Truth::Revoked && *said == Truth::Unknown)
    }

    fn truth(&self, number: u64) -> Truth {
        match self.sessions.get(&number) {
            None => Truth::Unknown,
            Some(_) if self.revoked.contains(&number) => Truth::Revoked,
            Some(session) if session.is_expired(at(self.now)) => Truth::Unknown,
            Some(session) => Truth::Live(session.generation),
        }
    }
}

async fn play(world: &World, model: &mut Model, step: Step) {
    let user = |number: u64| if number.is_multiple_of(2) { "even" } else { "odd" };
    match step {
        Step::Create(number) => {
            let new =
                Session { issued_at: at(model.now), expires_at: at(model.now + 100), ..session(number, user(number)) };
            world.sessions.create(&new, &tokens()).await.unwrap();
            // An id is never used twice; a repetition changes nothing.
            model.sessions.entry(number).or_insert(new);
        }
        Step::Revoke(number) => {
            if let Some(session) = model.sessions.get(&number) {
                world.sessions.revoke(&session.handle).await.unwrap();
                model.revoked.insert(number);
            }
        }
        Step::RevokeUser(number, offset) => {
            let not_before = at((model.now + offset).max(0)).min(at(model.now));
            world.sessions.revoke_user("https://idp", user(number), not_before).await.unwrap();
            let ended = model.sessions.iter().filter(|(n, s)| **n % 2 == number % 2 && s.issued_at < not_before);
            model.revoked.extend(ended.map(|(n, _)| *n).collect::<Vec<_>>());
        }
        Step::Commit(number) => {
            if let (Truth::Live(generation), Some(old)) = (model.truth(number), model.sessions.get_mut(&number)) {
                let outcome = world.sessions.commit(&old.handle, generation, old, &tokens()).await.unwrap();
                assert_eq!(outcome, Committed::Saved(generation + 1));
                old.generation += 1;
            }
        }
        Step::Load(number) => {
            let loaded = match world.cache.load(&id(number), at(model.now), WINDOW).await.unwrap() {
                Loaded::Found(entry) | Loaded::Static(entry) => Truth::Live(entry.session.generation),
                Loaded::Revoked => Truth::Revoked,
                Loaded::Unknown => Truth::Unknown,
            };
            assert!(model.agrees(number, &loaded), "{loaded:?}, not {:?}", model.truth(number));
        }
        Step::Get(number) => {
            let known = match world.cache.get(&id(number), at(model.now), WINDOW) {
                Cached::Hit(entry) | Cached::Static(entry) => Truth::Live(entry.session.generation),
                Cached::Revoked => Truth::Revoked,
                Cached::Unknown => Truth::Unknown,
                Cached::Miss | Cached::Unavailable => return,
            };
            assert!(model.agrees(number, &known), "{known:?}, not {:?}", model.truth(number));
        }
        Step::Pass(secs) => model.now += secs,
        Step::Sweep => (0..SWEEPS).for_each(|turn| world.cache.sweep(at(model.now), turn)),
        Step::Reset => world.storage.invalidation.reset(),
    }
}

const LEASE: Duration = Duration::from_secs(3600);
const HALF_A_MINUTE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn r_006_before_the_first_heartbeat_nobody_is_known_and_nobody_is_unknown() {
    let world = World::hearing(CacheConfig::default(), Contact::leased(LEASE));
    world.create(1, "alice").await;
    assert!(matches!(world.cache.get(&id(1), at(1), HALF_A_MINUTE), Cached::Unavailable));
    assert!(matches!(world.cache.get(&id(2), at(1), HALF_A_MINUTE), Cached::Unavailable));
    world.storage.contact.heard(Instant::now());
    assert!(matches!(world.cache.get(&id(1), at(1), HALF_A_MINUTE), Cached::Miss));
}

#[tokio::test]
async fn r_008_without_contact_a_session_is_served_for_the_window_of_its_route_alone() {
    let world = World::hearing(CacheConfig::default(), Contact::leased(LEASE));
    world.create(1, "alice").await;
    let ended = world.create(2, "bob").await;
    for number in [1, 2] {
        world.storage.contact.heard(Instant::now());
        world.found(number, 1).await;
    }
    // The lease is over for who comes then; the window is not.
    let then = Instant::now() + LEASE + Duration::from_secs(1);
    let cut_off = |number, window| world.cache.get(&id(number), Moment { now: at(2), steady: then }, window);
    assert!(world.cache.is_in_contact(), "each request is judged as of when it began");
    assert!(matches!(cut_off(1, HALF_A_MINUTE), Cached::Static(_)));
    assert!(matches!(cut_off(1, Duration::ZERO), Cached::Unavailable), "a strict route");
    assert!(matches!(cut_off(3, HALF_A_MINUTE), Cached::Unavailable), "who is not known here");
    world.sessions.revoke(&ended.handle).await.unwrap();
    assert!(matches!(cut_off(2, HALF_A_MINUTE), Cached::Revoked), "what was heard stays heard");
}

#[tokio::test]
async fn r_006_a_session_whose_part_of_the_store_is_away_is_served_for_the_window() {
    let world = World::new();
    world.create(1, "alice").await;
    world.found(1, 0).await;
    world.store.hang(true);
    assert!(matches!(world.cache.get(&id(1), at(70), HALF_A_MINUTE), Cached::Miss), "too old: read in line");
    let loaded = world.cache.load(&id(1), at(70), HALF_A_MINUTE).await.unwrap();
    assert!(matches!(loaded, Loaded::Static(_)), "{loaded:?}");
    for (secs, window) in [(70, Duration::ZERO), (91, HALF_A_MINUTE)] {
        let refused = world.cache.load(&id(1), at(secs), window).await;
        assert!(matches!(refused, Err(StorageError::Unavailable { .. })), "{refused:?}");
    }
    world.storage.invalidation.reset();
    assert!(world.cache.load(&id(1), at(70), HALF_A_MINUTE).await.is_err(), "something may have been missed");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_cache_never_says_what_is_not_so(steps in proptest::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (world, mut model) = (World::new(), Model::default());
            for step in steps {
                play(&world, &mut model, step).await;
            }
        });
    }
}
