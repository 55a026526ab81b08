//! What a session costs in the store and near the request, in bytes; and what looking at it costs there, in time.

use std::hint::black_box;
use std::os::unix::process::CommandExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use postern_identity::{SessionId, Tokens};
use postern_servers::{Bare, Redis};
use postern_storage::{CacheConfig, Cached, Moment, SessionCache, Sessions, Storage, StorageConfig};
use prometheus::Registry;
use tokio::runtime::Builder;

use crate::installation::{Installation, on_one};
use crate::people::{Person, keyring, now};
use crate::table::{Goal, Seen, Table, count, shown};

/// Measures both, in large pages of memory.
pub(crate) fn run(sessions: usize, quick: bool, near: bool) -> Result<Table> {
    in_large_pages()?;
    let mut table = Table::of_goals();
    if !near {
        in_the_store(sessions, &mut table)?;
        hits_of_shared(&mut table)?;
    }
    near_the_request(sessions, &mut table)?;
    for entries in if quick { vec![10_000] } else { vec![10_000, 1_000_000] } {
        let runtime = Builder::new_multi_thread().enable_all().build()?;
        // Of a million each as often as any other, a hit is two reads of memory that wait for each other whatever the table
        // (docs/decisions/0021): that order says what the machine's memory is like, and people do not ask in it.
        let goals = if entries > 10_000 { [Goal::None, Goal::AtMost(250.0)] } else { [Goal::AtMost(150.0); 2] };
        runtime.block_on(hits_of_own(entries, goals, &mut table))?;
        waits(entries, &mut table)?;
    }
    Ok(table)
}

/// The product takes pages of 2 MB from 8,192 sessions on. This command counts allocations, and so has the system's allocator,
/// which is told to do the same before it begins: it is started anew, unless it was told something already.
#[expect(clippy::disallowed_methods, reason = "it is a setting of the system's library, not of the product")]
fn in_large_pages() -> Result<()> {
    const TOLD: &str = "GLIBC_TUNABLES";
    if std::env::var_os(TOLD).is_some() {
        return Ok(());
    }
    let itself = std::env::current_exe().context("this program is not found")?;
    let mut anew = std::process::Command::new(itself);
    let failed =
        anew.args(std::env::args_os().skip(1)).env(TOLD, "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1").exec();
    Err(failed).context("it cannot be started anew")
}

/// Bytes of one server, for so many sessions of people who have two each.
fn in_the_store(sessions: usize, table: &mut Table) -> Result<()> {
    let for_once = stored(sessions, &COMPACT, Person::for_once)?;
    let refreshed = stored(sessions, &COMPACT, Person::tokens)?;
    let usual = stored(sessions, &[], Person::for_once)?;
    for (what, bytes, goal) in [
        ("without tokens", for_once.without_tokens, Some(800.0)),
        ("with tokens that are not refreshed", for_once.whole, None),
        ("that are refreshed, the record alone", refreshed.record, None),
        // When each is due is kept for the sake of its tokens.
        ("that are refreshed, without their tokens, but with all lists of them", refreshed.without_tokens, None),
        ("that are refreshed, with 1.8 kB of tokens", refreshed.whole, Some(3_000.0)),
        ("without tokens, and without `hash-max-listpack-value`", usual.without_tokens, None),
    ] {
        let what = format!("{sessions} sessions in the store, {what}: bytes each");
        let goal = goal.map_or(Goal::None, Goal::AtMost);
        table.goal(what, shown(Some(bytes), 0), goal, true, Some(bytes));
    }
    Ok(())
}

/// What `docs/guides/store.md` asks for to save room.
const COMPACT: [&str; 2] = ["--hash-max-listpack-value", "4096"];

/// Bytes of each session in the store.
struct Stored {
    whole: f64,
    /// With the list of its user's sessions, and of when refreshes are due.
    without_tokens: f64,
    /// Without lists; the lines of the changelog are in it.
    record: f64,
}

fn stored(sessions: usize, options: &[&str], tokens: impl Fn(&Person) -> Tokens) -> Result<Stored> {
    let server = Redis::start(options);
    let mut bare = Bare::connect(server.port(), Duration::from_secs(30))?;
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let installation = runtime.block_on(Installation::start(&on_one(&server), 0))?;
    let empty = used(&mut bare)?;
    runtime.block_on(installation.sign_in_with(sessions, 2, tokens))?;
    let full = used(&mut bare)?;
    let removed = remove(&mut bare, "t:*")?;
    ensure!(removed == sessions, "{removed} sessions had tokens");
    let without_tokens = used(&mut bare)?;
    for lists in ["u:*", "r:*"] {
        remove(&mut bare, lists)?;
    }
    let record = used(&mut bare)?;
    runtime.block_on(installation.end());
    let each = |bytes: f64| (bytes - empty) / count(sessions);
    Ok(Stored { whole: each(full), without_tokens: each(without_tokens), record: each(record) })
}

/// Bytes of an edge's copy: what this thread has allocated and not given back after it read them.
fn near_the_request(sessions: usize, table: &mut Table) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let Own { storage, ids } = runtime.block_on(Own::holding(sessions, StorageConfig::Memory))?;
    let cache: Arc<SessionCache> = storage.cache(large());
    let mut read = Ok(());
    let allocated = allocation_counter::measure(|| read = runtime.block_on(load(&cache, &ids)));
    read?;
    ensure!(cache.len() == sessions, "{} are kept", cache.len());
    let looked = allocation_counter::measure(|| {
        for id in &ids {
            black_box(cache.get(id, now(), Duration::ZERO));
        }
    });
    ensure!(looked.count_total == 0, "{} allocations to look at {sessions} copies", looked.count_total);
    runtime.block_on(storage.close());
    let bytes = i32::try_from(allocated.bytes_current / i64::try_from(sessions)?)?.into();
    let what = format!("{sessions} sessions in an edge's cache: bytes each");
    table.goal(what, shown(Some(bytes), 0), Goal::AtMost(400.0), true, Some(bytes));
    Ok(())
}

/// A look at a copy whose store is shared, which asks whether there was contact when the request began.
fn hits_of_shared(table: &mut Table) -> Result<()> {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let server = Redis::start(&[]);
    runtime.block_on(async {
        let installation = Installation::start(&on_one(&server), 1).await?;
        let people = installation.sign_in(10_000).await?;
        installation.know(&people).await?;
        let ids = people.into_iter().map(|person| person.id).collect();
        let edge = installation.edges.first().context("no edge")?;
        end_others(&installation.writer.sessions()).await?;
        tell("10000 entries, the store shared", ids, &edge.cache, [Goal::AtMost(150.0); 2], table)?;
        installation.end().await;
        Ok(())
    })
}

/// Ends sessions of others, so that there are facts which a look has to tell from its own.
async fn end_others(sessions: &Sessions) -> Result<()> {
    for number in 0..OTHERS {
        sessions.revoke(&Person::new(number)?.session.handle).await?;
    }
    Ok(())
}

const OTHERS: usize = 1_000;

async fn hits_of_own(entries: usize, goals: [Goal; 2], table: &mut Table) -> Result<()> {
    // The store in memory has a bound, which a million sessions would pass.
    let folder = tempfile::tempdir()?;
    let Own { storage, ids } =
        Own::holding(entries, StorageConfig::File { path: folder.path().join("sessions") }).await?;
    let cache = storage.cache(large());
    load(&cache, &ids).await?;
    end_others(&storage.sessions()).await?;
    tell(&format!("{entries} entries"), ids, &cache, goals, table)?;
    storage.close().await;
    Ok(())
}

/// Rounds of looks; each is a hit, its end and its tombstone looked at. By turns each session as often as any other, and as people
/// are: the one that is asked for most often n times as often as the nth (Zipf's law).
fn tell(
    what: &str,
    mut ids: Vec<SessionId>,
    cache: &Arc<SessionCache>,
    goals: [Goal; 2],
    table: &mut Table,
) -> Result<()> {
    // They are random, so by their last bytes they are in no order that the table knows, which goes by their first.
    ids.sort_by_key(|id| id.as_bytes().last_chunk::<8>().copied());
    let looks = ids.len().max(LOOKS);
    let even: Vec<SessionId> = ids.iter().cycle().take(looks).cloned().collect();
    let mut numbers = Numbers(1);
    let asked = std::iter::repeat_with(|| ids.get(numbers.zipf(ids.len())).cloned());
    let zipf: Vec<SessionId> = asked.flatten().take(looks).collect();
    let mut orders = [("each as often as any other", even, Vec::new()), ("by Zipf's law", zipf, Vec::new())];
    for _ in 0..ROUNDS {
        for (_, ids, rounds) in &mut orders {
            let (at, mut looked) = (Moment::from(now()), 0_u32);
            for id in &*ids {
                let found = black_box(cache.get(black_box(id), at, Duration::ZERO));
                ensure!(matches!(found, Cached::Hit(_)), "no hit in {rounds:?}: {found:?}");
                looked += 1;
            }
            rounds.push(at.steady.elapsed().as_secs_f64() * 1e9 / f64::from(looked));
        }
    }
    for ((order, _, rounds), goal) in orders.into_iter().zip(goals) {
        let seen: Seen = rounds.into_iter().collect();
        let text = format!("{}, {}", shown(seen.percentile(0), 0), shown(seen.percentile(50), 0));
        let what = format!("a hit among {what}, {order}: ns, least and median");
        table.goal(what, text, goal, true, seen.percentile(50));
    }
    Ok(())
}

/// What one read costs on this machine that has to wait for the one before, in as much memory as so many copies take. No table
/// finds a copy with fewer than two: its own place, and the copy.
fn waits(entries: usize, table: &mut Table) -> Result<()> {
    let mut lines: Vec<[usize; 8]> = (0..entries * BYTES_EACH / 64).map(|line| [line; 8]).collect();
    let mut numbers = Numbers(1);
    // One round through all of them (Sattolo).
    for last in (1..lines.len()).rev() {
        lines.swap(last, numbers.below(last));
    }
    let mut rounds = Vec::new();
    let mut at = 0;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        for _ in 0..LOOKS {
            [at, ..] = *lines.get(at).context("a line that is not there")?;
        }
        rounds.push(began.elapsed().as_secs_f64() * 1e9 / count(LOOKS));
    }
    black_box(at);
    let seen: Seen = rounds.into_iter().collect();
    let text = format!("{}, {}", shown(seen.percentile(0), 0), shown(seen.percentile(50), 0));
    table.goal(
        format!("one read among the bytes of {entries} copies: ns, least and median"),
        text,
        Goal::None,
        true,
        seen.percentile(50),
    );
    Ok(())
}

/// As the edge's copies are measured to be.
const BYTES_EACH: usize = 361;

/// Numbers without order, the same in each run (SplitMix64).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 32).unwrap_or_default() % end
    }

    /// A rank below `end` by Zipf's law with the exponent 1, nearly: of the ranks from 1 to 2, 2 to 4, 4 to 8 and so on each
    /// group is as likely as any other.
    fn zipf(&mut self, end: usize) -> usize {
        let group = 1 << self.below(end.ilog2().try_into().unwrap_or(1));
        group + self.below(group) - 1
    }
}

const ROUNDS: usize = 15;
const LOOKS: usize = 200_000;

/// A store of this process alone, and the sessions in it.
struct Own {
    storage: Storage,
    ids: Vec<SessionId>,
}

impl Own {
    /// Ten sessions of each person, whose tokens are small so that many fit.
    async fn holding(sessions: usize, config: StorageConfig) -> Result<Self> {
        let storage = Storage::open(config, keyring(), &Registry::new())?;
        let create = |number: usize| {
            let sessions = storage.sessions();
            async move {
                let person = Person::new(number / 10)?;
                sessions.create(&person.session, &person.small_tokens()).await?;
                anyhow::Ok(person.id)
            }
        };
        let ids = stream::iter((0..sessions).map(create)).buffer_unordered(64).try_collect().await?;
        Ok(Self { storage, ids })
    }
}

fn large() -> CacheConfig {
    let hour = Duration::from_secs(3600);
    CacheConfig { max_entries: 2_000_000, max_age: hour, ..CacheConfig::default() }
}

async fn load(cache: &Arc<SessionCache>, ids: &[SessionId]) -> Result<()> {
    let load = |id: &SessionId| {
        let (cache, id) = (Arc::clone(cache), id.clone());
        async move { cache.load(&id, now(), Duration::ZERO).await.map(drop).context("a session cannot be read") }
    };
    stream::iter(ids.iter().map(load)).buffer_unordered(16).try_collect().await
}

/// Bytes that a server uses.
fn used(bare: &mut Bare) -> Result<f64> {
    let info = bare.sure(&["INFO", "memory"])?;
    let used = info.text().lines().find_map(|line| line.strip_prefix("used_memory:")).context("no used_memory")?;
    Ok(used.parse()?)
}

/// Removes the keys of one server that look like that; gives how many there were.
fn remove(bare: &mut Bare, pattern: &str) -> Result<usize> {
    let keys = bare.keys(pattern)?;
    for key in &keys {
        bare.sure(&["DEL", key])?;
    }
    Ok(keys.len())
}
