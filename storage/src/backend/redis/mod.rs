//! The store on Redis or Valkey servers. Every verb is one step inside of one server, or several that may be repeated.

mod deposits;
mod everyone;
mod keys;
mod scripts;

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use postern_identity::{SessionHandle, Timestamp};
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::place::Inner;
use super::{Done, Page, Place, Stored, Unread, Write};
use crate::changelog::{Changelog, Entry, Mark};
use crate::config::{RedisConfig, Server};
use crate::contact::Contact;
use crate::invalidation::Fact;
use crate::mark::mark;
use crate::metrics::Metrics;
use crate::record::{EVERYONE, Key, Row, rewrite};
use crate::redis::{Command, Reply, Router};
use crate::{KEPT_AFTER_THE_END, OpenError, StorageError, clock};

use everyone::{Everyone, NEVER};
use keys::Keys;
use scripts::Scripts;

/// The servers, spoken to in records.
#[derive(Debug)]
pub(crate) struct Redis {
    router: Router,
    scripts: Scripts,
    keys: Keys,
    log: Changelog,
    everyone: Everyone,
    /// Who claims refreshes here.
    process: String,
    /// What is still to be made known.
    telling: TaskTracker,
    stop: CancellationToken,
}

impl Redis {
    pub(crate) fn open(config: &RedisConfig, contact: Arc<Contact>, metrics: Arc<Metrics>) -> Result<Self, OpenError> {
        let router = Router::start(config, metrics).map_err(|reason| OpenError::Tls { reason })?;
        let (process, keys) = (mark()?, Keys::new(config.prefix.clone()));
        let log = Changelog::new(router.clone(), &config.prefix, process.clone());
        let (everyone, telling, stop) = (Everyone::new(contact), TaskTracker::new(), CancellationToken::new());
        Ok(Self { router, scripts: Scripts::new(), keys, log, everyone, process, telling, stop })
    }

    /// What every process has to hear of.
    pub(crate) const fn log(&self) -> &Changelog {
        &self.log
    }

    /// Takes note of a fact that the changelog tells.
    pub(crate) fn heard(&self, fact: Fact) {
        if let Fact::OwnerRevoked(EVERYONE, not_before) = fact {
            self.everyone.raise(not_before.as_millis());
        }
    }

    /// Takes note of what was read of the end of all sessions.
    pub(crate) fn knows(&self, not_before: Option<i64>) {
        let _latest = self.everyone.learn(not_before.unwrap_or(NEVER));
    }

    /// Makes known what can be made known in a moment, and ends all connections.
    pub(crate) async fn close(&self) {
        self.telling.close();
        let _whatever_is_left = tokio::time::timeout(LAST_WORDS, self.telling.wait()).await;
        self.stop.cancel();
        self.router.close();
    }

    pub(crate) async fn session(&self, handle: &Key) -> Result<Option<Stored>, StorageError> {
        let key = self.keys.session(handle);
        let fields = Command::new("HMGET").args([key.as_str(), "v", "g", "i", "a", "f", "n", "x"]);
        let reply = self.router.call(&key, fields).await?;
        match row(&reply) {
            Some(row) => self.stored(row).await.map(Some),
            None => Ok(None),
        }
    }

    async fn stored(&self, row: Row) -> Result<Stored, StorageError> {
        // Read after the row, so that a session which is being created while its user's are ended is seen as ended.
        let not_before =
            if row.revoked { None } else { self.epoch(&row.owner()).await?.max(Some(self.everyone().await?)) };
        Ok(Stored { row, not_before })
    }

    pub(crate) async fn tokens(&self, handle: &Key) -> Result<Option<(Stored, Vec<u8>)>, StorageError> {
        let reply = self.router.script(&self.scripts.tokens, &self.pair(handle), Command::new("")).await?;
        let [fields, tokens] = reply.list().unwrap_or_default() else { return Ok(None) };
        let (Some(row), Some(tokens)) = (row(fields), tokens.bytes()) else { return Ok(None) };
        Ok(Some((self.stored(row).await?, tokens.to_vec())))
    }

    pub(crate) async fn list(&self, owner: &Key, limit: usize) -> Result<Vec<(Key, Stored)>, StorageError> {
        let (found, unread) = self.read_all(self.owned(owner, limit).await?).await;
        unread.into_iter().next().map_or(Ok(found), |(_, error)| Err(error))
    }

    /// The sessions that one look at one server finds. Each server goes through its keys in small steps, and serves others
    /// between them.
    pub(crate) async fn page(&self, after: Option<Place>, limit: usize) -> Result<Page, StorageError> {
        let masters = self.router.masters();
        let masters = masters.ok_or_else(|| StorageError::unavailable("part of the store belongs to nobody"))?;
        let servers = order(&masters);
        let (at, cursor) = match after {
            None => (0, 0),
            Some(Place(Inner::Scan { servers: known, at, cursor })) if known == servers => (at, cursor),
            Some(_) => return Err(StorageError::unavailable("its servers have changed meanwhile: begin anew")),
        };
        let Some(master) = masters.get(at) else { return Ok(Page::default()) };
        let scan = Command::new("SCAN").arg(cursor).args(["MATCH", self.keys.sessions().as_str()]);
        let further = (at + 1 < masters.len()).then_some((at + 1, 0));
        let place = |(at, cursor)| Place(Inner::Scan { servers, at, cursor });
        let reply = match self.router.call_on(master, scan.arg("COUNT").arg(limit)).await {
            Ok(reply) => reply,
            // What others keep does not wait for it.
            Err(error) => {
                let away = Some((master.to_string(), error));
                return Ok(Page { away, next: further.map(place), ..Page::default() });
            }
        };
        let Some([next, Reply::List(names)]) = reply.list() else {
            return Err(StorageError::unavailable(format!("{master}: it answers nonsense")));
        };
        let next = match next.number::<u64>() {
            Some(0) => further,
            Some(cursor) => Some((at, cursor)),
            None => return Err(StorageError::unavailable(format!("{master}: it answers nonsense"))),
        };
        // One name may be given twice.
        let handles: BTreeSet<_> = names.iter().filter_map(|name| self.keys.parse_session(name.text()?)).collect();
        let (found, unread) = self.read_all(handles).await;
        Ok(Page { found, unread, away: None, next: next.map(place) })
    }

    /// Whether a place is of the servers that there are. While some are unknown nothing says that it is not.
    pub(crate) fn stands(&self, place: &Place) -> bool {
        let Place(Inner::Scan { servers, .. }) = place else { return false };
        self.router.masters().is_none_or(|masters| order(&masters) == *servers)
    }

    /// Those that are there, and those that could not be read.
    async fn read_all(&self, handles: impl IntoIterator<Item = Key>) -> (Vec<(Key, Stored)>, Unread) {
        let read = stream::iter(handles)
            .map(|handle| async move { (handle, self.session(&handle).await) })
            .buffer_unordered(AT_ONCE);
        let (mut found, mut unread) = (Vec::new(), Vec::new());
        for (handle, stored) in read.collect::<Vec<_>>().await {
            match stored {
                Ok(stored) => found.extend(stored.map(|stored| (handle, stored))),
                Err(error) => unread.push((handle, error)),
            }
        }
        (found, unread)
    }

    /// Before when the sessions of an owner are over; those of all if it is [`EVERYONE`].
    pub(crate) async fn not_before(&self, owner: &Key) -> Result<Option<i64>, StorageError> {
        if *owner == EVERYONE { self.everyone().await.map(Some) } else { self.epoch(owner).await }
    }

    /// Before when all sessions are over.
    async fn everyone(&self) -> Result<i64, StorageError> {
        if let Some(known) = self.everyone.known() {
            return Ok(known);
        }
        // Sessions of other servers do not wait for one that cannot be asked.
        if let Some(known) = self.everyone.known_lately().filter(|_| !self.router.is_reached(self.log.everyone())) {
            return Ok(known);
        }
        match self.epoch(&EVERYONE).await {
            Ok(not_before) => Ok(self.everyone.learn(not_before.unwrap_or(NEVER))),
            Err(error) => self.everyone.known_lately().ok_or(error),
        }
    }

    /// The time by the clock of the server that knows when all sessions are over.
    pub(crate) async fn time(&self) -> Result<Timestamp, StorageError> {
        let reply = self.router.call(self.log.everyone(), Command::new("TIME")).await?;
        let time = reply.list().and_then(|time| {
            let [secs, micros] = time else { return None };
            Some(secs.number::<i64>()?.saturating_mul(1_000).saturating_add(micros.number::<i64>()? / 1_000))
        });
        time.map(Timestamp::from_millis).ok_or_else(|| StorageError::unavailable("it does not know what time it is"))
    }

    pub(crate) async fn due(
        &self,
        after: Option<(i64, Key)>,
        before: i64,
        limit: usize,
    ) -> Result<Vec<(i64, Key)>, StorageError> {
        let part = |part| self.due_in(part, after, before, limit);
        let parts: Vec<_> = stream::iter(0..keys::PARTS).map(part).buffer_unordered(AT_ONCE).collect().await;
        // A part that is away holds up no other.
        let (there, away): (Vec<_>, Vec<_>) = parts.into_iter().partition(Result::is_ok);
        if let (true, Some(Err(error))) = (there.is_empty(), away.into_iter().next()) {
            return Err(error);
        }
        let mut due: Vec<_> = there.into_iter().flatten().flatten().collect();
        due.sort_unstable();
        due.truncate(limit);
        Ok(due)
    }

    /// The same, of one part. Those of one time are in another order there, so all of that time are looked through.
    async fn due_in(
        &self,
        part: u8,
        after: Option<(i64, Key)>,
        before: i64,
        limit: usize,
    ) -> Result<Vec<(i64, Key)>, StorageError> {
        let (key, mut due, mut offset) = (self.keys.due(part), Vec::new(), 0);
        let from = after.map_or_else(|| "-inf".to_owned(), |(at, _)| at.to_string());
        loop {
            let asked = Command::new("ZRANGE").args([key.as_str(), &from, &format!("({before}"), "BYSCORE", "LIMIT"]);
            let reply = self.router.call(&key, asked.arg(offset).arg(limit).arg("WITHSCORES")).await?;
            let page = scored(&reply);
            offset += page.len();
            let full = page.len() == limit;
            due.extend(page.into_iter().filter(|next| after.is_none_or(|after| *next > after)));
            if !full || due.len() >= limit || limit == 0 {
                return Ok(due);
            }
        }
    }

    pub(crate) async fn write(&self, write: Write) -> Result<Done, StorageError> {
        match write {
            Write::Create { handle, row, tokens } => self.create(&handle, &row, tokens).await,
            Write::Commit { handle, expected, row, tokens, tell, last } => {
                let next = row.generation;
                let done = self.commit(&handle, (expected, last), row, tokens).await?;
                if tell && done == Done::Applied {
                    self.tell(Fact::Rewritten(SessionHandle::from_bytes(handle), next));
                }
                Ok(done)
            }
            Write::Revoke { handle, at: _ } => {
                // Both at once, and both to be repeated: whichever holds first denies.
                let fact = Entry::Fact(Fact::Revoked(SessionHandle::from_bytes(handle)));
                let (marked, told) = futures_util::join!(self.revoke(&handle), self.log.append(fact));
                told.and(marked)
            }
            Write::Mark { handle, at: _ } => self.revoke(&handle).await,
            Write::RevokeOwner { owner, not_before, lasts } => self.revoke_owner(&owner, not_before, lasts).await,
            Write::Spend { key, until } => self.spend(&key, until).await,
            Write::Touch { touched, over } => self.touch(touched, over).await,
            Write::Postpone { handle, from, to } => self.postpone(&handle, from, to).await,
            // The servers forget by themselves.
            Write::Sweep { .. } => Ok(Done::Swept(0)),
        }
    }

    /// The indices first: entries without a session are skipped, a session without entries would be overlooked.
    async fn create(&self, handle: &Key, row: &Row, tokens: Vec<u8>) -> Result<Done, StorageError> {
        self.own(handle, row).await?;
        self.index_due(handle, row.refresh_next).await?;
        let arguments = fields(&sealed_row(row).encode_to_vec(), row, tokens);
        self.router.script_durably(&self.scripts.create, &self.pair(handle), arguments).await?;
        Ok(Done::Applied)
    }

    async fn commit(
        &self,
        handle: &Key,
        (expected, last): (u64, bool),
        row: Row,
        tokens: Vec<u8>,
    ) -> Result<Done, StorageError> {
        let key = self.keys.session(handle);
        let reply = self.router.call(&key, Command::new("HMGET").args([key.as_str(), "v", "g", "x"])).await?;
        let [Reply::Bytes(old), generation, Reply::Nil] = reply.list().unwrap_or_default() else {
            return Ok(Done::Gone);
        };
        if generation.number() != Some(expected) {
            return Ok(Done::Refused);
        }
        let clear = sealed_row(&row);
        let mut owner_moved = true;
        let next = rewrite(old, |old| {
            owner_moved = old.owner != row.owner;
            *old = clear;
        });
        let Some(next) = next.filter(|_| !owner_moved) else { return Ok(Done::Gone) };
        let claimant = if last { self.process.as_str() } else { "" };
        let arguments = fields(&next, &row, tokens).arg(expected).arg(claimant);
        let saved = self.router.script_durably(&self.scripts.commit, &self.pair(handle), arguments).await?;
        match saved.number::<i64>() {
            Some(1) => {
                self.index_due(handle, row.refresh_next).await?;
                self.own(handle, &row).await?;
                Ok(Done::Applied)
            }
            Some(0) => Ok(Done::Refused),
            _ => Ok(Done::Gone),
        }
    }

    async fn revoke(&self, handle: &Key) -> Result<Done, StorageError> {
        let marked = self
            .router
            .script_durably(&self.scripts.revoke, &self.pair(handle), Command::new("").arg(super::END_LIFE_MS))
            .await?;
        let marked = marked.list().unwrap_or_default();
        let row = marked.get(1).and_then(Reply::bytes).and_then(|row| Row::decode(row).ok());
        let (due, owned) = futures_util::join!(self.index_due(handle, None), self.disown(handle, row.as_ref()));
        if let Err(error) = due.and(owned) {
            debug!(%error, "what is not needed any more stays listed until it is tried, or its time comes");
        }
        Ok(if marked.first().and_then(Reply::number) == Some(1_i64) { Done::Applied } else { Done::Gone })
    }

    /// What is over takes no place in the list of its owner's, which shows only so many.
    async fn disown(&self, handle: &Key, row: Option<&Row>) -> Result<(), StorageError> {
        let Some(row) = row else { return Ok(()) };
        let key = self.keys.owned(&row.owner());
        self.router.call(&key, Command::new("ZREM").arg(key.as_str()).arg(keys::text(handle))).await.map(drop)
    }

    /// The epoch is what ends the sessions. Marking them wipes their tokens as well.
    async fn revoke_owner(&self, owner: &Key, not_before: i64, lasts: bool) -> Result<Done, StorageError> {
        let fact = Entry::Fact(Fact::OwnerRevoked(*owner, Timestamp::from_millis(not_before)));
        let (ended, told) = futures_util::join!(self.end_before(owner, not_before, lasts), self.log.append(fact));
        // Also without an answer: then it may hold.
        self.heard(Fact::OwnerRevoked(*owner, Timestamp::from_millis(not_before)));
        ended.and(told)?;
        // They are over already; whoever hears of it marks what could not be marked now.
        if let Err(error) = self.mark_all(owner).await {
            debug!(%error, "some sessions of a user are still to be marked");
        }
        Ok(Done::Applied)
    }

    async fn end_before(&self, owner: &Key, not_before: i64, lasts: bool) -> Result<(), StorageError> {
        let arguments = Command::new("").arg(not_before).arg(super::epoch_ends(not_before, lasts));
        self.router.script_durably(&self.scripts.end_before, &[self.epoch_key(owner)], arguments).await.map(drop)
    }

    /// Marks the sessions of an owner that its epoch ended.
    async fn mark_all(&self, owner: &Key) -> Result<(), StorageError> {
        let marking = stream::iter(self.list(owner, super::MARKED_AT_ONCE).await?)
            .filter(|(_, stored)| std::future::ready(!stored.row.revoked && stored.is_revoked()))
            .map(|(handle, _)| async move { self.revoke(&handle).await })
            .buffer_unordered(AT_ONCE);
        marking.try_for_each(|_| std::future::ready(Ok(()))).await
    }

    /// Makes a fact known that does not deny. Nobody waits for it: the changelog may be on another server, whose failure is not
    /// that of whoever saved this. Copies that do not hear of it are read again in time. One that is told again after no answer may
    /// be there twice, and says nothing more the second time; so that it does not fill the changelog, pauses grow.
    fn tell(&self, fact: Fact) {
        if self.telling.len() >= TELLINGS {
            debug!("too many refreshes wait to be made known");
            return;
        }
        let (log, stop) = (self.log.clone(), self.stop.clone());
        let told = async move {
            let (begun, mut pause) = (Instant::now(), TOLD_AGAIN);
            while let Err(error) = log.append(Entry::Fact(fact)).await {
                if begun.elapsed() >= TOLD_WITHIN {
                    debug!(%error, "a refresh could not be made known");
                    return;
                }
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        };
        drop(self.telling.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = told => {}
            }
        }));
    }

    async fn spend(&self, key: &Key, until: i64) -> Result<Done, StorageError> {
        let arguments = Command::new("").arg(mark()?).arg(forget_at(until));
        let spent = self.router.script_durably(&self.scripts.spend, &[self.keys.spent(key)], arguments).await?;
        Ok(if spent.number() == Some(1_i64) { Done::Applied } else { Done::Refused })
    }

    /// Shard by shard, all of them side by side: one that is away loses what is its own, and holds up no other.
    async fn touch(&self, touched: Vec<(Key, i64)>, over: Vec<(Key, i64)>) -> Result<Done, StorageError> {
        let mut shards: HashMap<Option<Server>, Vec<(Key, Seen)>> = HashMap::new();
        let touched = touched.into_iter().map(|(handle, until)| (handle, Seen::Alive(until)));
        let over = over.into_iter().map(|(handle, at)| (handle, Seen::Over(at)));
        for (handle, seen) in touched.chain(over) {
            shards.entry(self.router.owner(&self.keys.session(&handle))).or_default().push((handle, seen));
        }
        let writing = stream::iter(shards.into_values()).map(|seen| self.see_all(seen)).buffer_unordered(AT_ONCE);
        let ended: Vec<_> = writing.collect().await;
        ended.into_iter().find(Result::is_err).unwrap_or(Ok(Done::Applied))
    }

    /// What was seen of sessions of one shard. What fails is left out, and a shard where much fails is given up.
    async fn see_all(&self, seen: Vec<(Key, Seen)>) -> Result<Done, StorageError> {
        let seeing = stream::iter(seen).map(|(handle, seen)| self.see(handle, seen));
        let mut seeing = seeing.buffer_unordered(AT_ONCE_IN_A_SHARD);
        let (mut failed, mut outcome) = (0, Ok(Done::Applied));
        while let Some(seen) = seeing.next().await {
            if let Err(error) = seen {
                (failed, outcome) = (failed + 1, Err(error));
            }
            if failed == AT_ONCE_IN_A_SHARD {
                break;
            }
        }
        outcome
    }

    async fn see(&self, handle: Key, seen: Seen) -> Result<(), StorageError> {
        let [session, tokens] = self.pair(&handle);
        match seen {
            Seen::Alive(until) => {
                self.router.script(&self.scripts.touch, &[session], Command::new("").arg(until)).await.map(drop)
            }
            Seen::Over(at) => {
                let forgotten = self.router.script(&self.scripts.forget, &[session], Command::new("").arg(at)).await?;
                if forgotten.number() == Some(1_i64) {
                    let _gone = self.router.call(&tokens, Command::new("DEL").arg(tokens.as_str())).await?;
                }
                Ok(())
            }
        }
    }

    /// The row decides; the index follows, and is repaired where it was left behind.
    async fn postpone(&self, handle: &Key, from: i64, to: i64) -> Result<Done, StorageError> {
        // How long it is held, by the clock that both times are from; the server counts it by its own.
        let held = Timestamp::from_millis(to).since(clock()).min(HELD).as_millis();
        let held = u64::try_from(held).unwrap_or(u64::MAX);
        let arguments = Command::new("").arg(from).arg(to).arg(mark()?).arg(self.process.as_str()).arg(held);
        let reply = self.router.script(&self.scripts.postpone, &[self.keys.session(handle)], arguments).await?;
        let reply = reply.list().unwrap_or_default();
        let done = match reply.first().and_then(Reply::number) {
            Some(1_i64) => Done::Applied,
            Some(0) => Done::Refused,
            _ => Done::Gone,
        };
        self.index_due(handle, reply.get(1).and_then(Reply::number)).await?;
        Ok(done)
    }

    async fn index_due(&self, handle: &Key, at: Option<i64>) -> Result<(), StorageError> {
        let key = self.keys.due(keys::part(handle));
        let command = match at {
            Some(at) => Command::new("ZADD").arg(key.as_str()).arg(at),
            None => Command::new("ZREM").arg(key.as_str()),
        };
        self.router.call(&key, command.arg(keys::text(handle))).await.map(drop)
    }

    async fn own(&self, handle: &Key, row: &Row) -> Result<(), StorageError> {
        let arguments = Command::new("").arg(keys::text(handle)).arg(row.expires_at).arg(forget_at(row.expires_at));
        self.router.script(&self.scripts.own, &[self.keys.owned(&row.owner())], arguments).await.map(drop)
    }

    async fn owned(&self, owner: &Key, limit: usize) -> Result<Vec<Key>, StorageError> {
        let key = self.keys.owned(owner);
        let newest = Command::new("ZRANGE").args([key.as_str(), "0"]).arg(limit.saturating_sub(1)).arg("REV");
        let reply = self.router.call(&key, newest).await?;
        Ok(reply.list().unwrap_or_default().iter().filter_map(|handle| keys::parse(handle.bytes()?)).collect())
    }

    fn pair(&self, handle: &Key) -> [String; 2] {
        [self.keys.session(handle), self.keys.tokens(handle)]
    }

    /// That of everyone is beside the changelog, so that who reads the one can read the other.
    fn epoch_key(&self, owner: &Key) -> String {
        if *owner == EVERYONE { self.log.everyone().to_owned() } else { self.keys.epoch(owner) }
    }

    async fn epoch(&self, owner: &Key) -> Result<Option<i64>, StorageError> {
        let key = self.epoch_key(owner);
        Ok(self.router.call(&key, Command::new("GET").arg(key.as_str())).await?.number())
    }
}

/// What is to be noted of a session.
#[derive(Clone, Copy, Debug)]
enum Seen {
    /// It is in use: idleness ends it then.
    Alive(i64),
    /// It was over at that time.
    Over(i64),
}

#[async_trait]
impl Mark for Arc<Redis> {
    fn shard(&self, fact: Fact) -> Option<Server> {
        match fact {
            Fact::Revoked(handle) | Fact::Rewritten(handle, _) => {
                self.router.owner(&self.keys.session(handle.as_bytes()))
            }
            Fact::OwnerRevoked(owner, _) => self.router.owner(&self.epoch_key(&owner)),
            Fact::Created => None,
        }
    }

    async fn mark(&self, fact: Fact) -> Result<bool, StorageError> {
        match fact {
            Fact::Revoked(handle) => {
                let key = self.keys.session(handle.as_bytes());
                let state = self.router.call(&key, Command::new("HMGET").args([key.as_str(), "a", "x"])).await?;
                let stands = matches!(state.list(), Some([Reply::Bytes(_), Reply::Nil]));
                if stands {
                    self.revoke(handle.as_bytes()).await?;
                }
                Ok(stands)
            }
            Fact::OwnerRevoked(owner, not_before) => {
                let not_before = not_before.as_millis();
                let stands = self.epoch(&owner).await?.is_none_or(|known| known < not_before);
                if stands {
                    // Whether they are service accounts is not known here, and what is lost is rare.
                    self.end_before(&owner, not_before, true).await?;
                }
                self.mark_all(&owner).await?;
                Ok(stands)
            }
            Fact::Rewritten(..) | Fact::Created => Ok(false),
        }
    }
}

/// The row without what has a field of its own.
fn sealed_row(row: &Row) -> Row {
    let bare =
        Row { generation: 0, expires_at: 0, idle_until: None, refresh_at: None, refresh_next: None, ..row.clone() };
    Row { revoked: false, ..bare }
}

/// The arguments of the scripts that write a session.
fn fields(sealed: &[u8], row: &Row, tokens: Vec<u8>) -> Command {
    let optional = |number: Option<i64>| number.map(|number| number.to_string()).unwrap_or_default();
    Command::new("")
        .arg(sealed)
        .arg(row.generation)
        .arg(optional(row.idle_until))
        .arg(row.expires_at)
        .arg(optional(row.refresh_at))
        .arg(optional(row.refresh_next))
        .arg(bytes::Bytes::from(tokens))
        .arg(forget_at(row.expires_at))
}

/// The row in an answer to `HMGET v g i a f n x`; one that was revoked is nothing but that.
fn row(reply: &Reply) -> Option<Row> {
    let [view, generation, idle, end, due, next, revoked] = reply.list()? else { return None };
    let expires_at = end.number()?;
    if *revoked != Reply::Nil {
        return Some(Row { revoked: true, expires_at, generation: generation.number()?, ..Row::default() });
    }
    let row = Row::decode(view.bytes()?).ok()?;
    Some(Row {
        generation: generation.number()?,
        idle_until: idle.number(),
        expires_at,
        refresh_at: due.number(),
        refresh_next: next.number(),
        ..row
    })
}

/// A mark of these servers in this order.
fn order(servers: &[Server]) -> u64 {
    let mut hasher = DefaultHasher::new();
    servers.hash(&mut hasher);
    hasher.finish()
}

fn scored(reply: &Reply) -> Vec<(i64, Key)> {
    let pairs = reply.list().unwrap_or_default().chunks_exact(2);
    pairs
        .filter_map(|pair| match pair {
            [handle, score] => Some((score.number()?, keys::parse(handle.bytes()?)?)),
            _ => None,
        })
        .collect()
}

/// When the servers may forget what ends then.
fn forget_at(end: i64) -> i64 {
    Timestamp::from_millis(end).plus(KEPT_AFTER_THE_END).as_millis().max(1)
}

/// No claim is held for longer than this: one that is put off further is free for others to put off anew.
const HELD: Duration = Duration::from_secs(3600);
/// Refreshes that wait to be made known: a few of the places that revocations have as well.
const TELLINGS: usize = 512;
/// By then copies were read again anyway, unless `session_max_age` is longer.
const TOLD_WITHIN: Duration = Duration::from_secs(60);
const TOLD_AGAIN: Duration = Duration::from_millis(100);
/// What a process that ends still waits for.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Commands of one verb that are under way at one time.
const AT_ONCE: usize = 64;
/// The same, where each shard has places of its own.
const AT_ONCE_IN_A_SHARD: usize = 16;
