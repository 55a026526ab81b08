//! Reads the changelog as it grows: from the server that owns it, which alone says whether there is contact, starting over whenever
//! something may have been missed; and from a replica too, because any one server or connection may fall silent.

mod overhear;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postern_identity::Timestamp;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Changelog, Entry};
use crate::config::Server;
use crate::contact::Contact;
use crate::invalidation::{Fact, Invalidation};
use crate::metrics::Metrics;
use crate::record::EVERYONE;
use crate::redis::{Command, Link, Reply};

/// What is told of what is read.
pub(crate) struct Tail {
    pub(crate) log: Changelog,
    pub(crate) invalidation: Arc<Invalidation>,
    pub(crate) contact: Arc<Contact>,
    pub(crate) metrics: Arc<Metrics>,
    /// Hears every fact that is believed, whoever told it.
    pub(crate) also: Box<dyn Fn(Fact) + Send + Sync>,
    /// Hears every fact that the owner told, to repair what a crash left half done.
    pub(crate) repair: Box<dyn Fn(Fact) + Send + Sync>,
    /// Hears before when all sessions are over, whenever that was read.
    pub(crate) everyone: Box<dyn Fn(Option<i64>) + Send + Sync>,
}

/// How far the owner of the stream was read.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    cursor: Option<Cursor>,
    /// Whether all that was there has been read on this connection, so that lines are read as they are written.
    reading: bool,
    /// Whether that was so once. Until then no copy is served, so no replica need be heard.
    has_read: bool,
}

/// A place in the stream: milliseconds of a server's clock, and a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Cursor(u64, u64);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

impl Cursor {
    fn read(reply: &Reply) -> Option<Self> {
        let (millis, number) = reply.text()?.split_once('-')?;
        Some(Self(millis.parse().ok()?, number.parse().ok()?))
    }

    /// Where to go on in a stream with these ends, who has read as far as this; `None`: lines in between may be gone, because they
    /// were trimmed, or this is no longer the stream that was read.
    fn resumed(self, ends: Option<(Self, Self)>) -> Option<Self> {
        let (oldest, newest) = ends?;
        (oldest <= self && self.overlapping() <= newest).then(|| self.overlapping())
    }

    /// Somewhat earlier: clocks of masters differ, and facts may be read twice.
    const fn overlapping(self) -> Self {
        Self(self.0.saturating_sub(OVERLAP_MS), 0)
    }
}

/// Reads until told to stop.
pub(crate) async fn follow(tail: Tail, stop: CancellationToken) {
    let (progress, seen) = watch::channel(Progress::default());
    tokio::select! {
        () = stop.cancelled() => {}
        () = tail.run(&progress) => {}
        () = tail.overhear(seen) => {}
    }
}

impl Tail {
    async fn run(&self, progress: &watch::Sender<Progress>) {
        let mut trouble = Trouble::default();
        let mut pause = PAUSE;
        loop {
            let (began, owner) = (Instant::now(), self.owner());
            let Err(why) = match &owner {
                None => Err("nobody is known to own it".to_owned()),
                Some(server) => tokio::select! {
                    biased;
                    read = self.read(server, progress, &mut trouble) => read,
                    () = self.until_owner(|now| now.is_some_and(|now| now != server)) => Err(ANOTHER.to_owned()),
                },
            };
            let was_read = progress.send_if_modified(|progress| std::mem::take(&mut progress.reading));
            trouble.because(&why);
            self.log.router.doubt();
            if began.elapsed() >= LONG {
                pause = PAUSE;
                if was_read && self.owner() == owner {
                    continue;
                }
            } else {
                let _another = timeout(pause, self.until_owner(|now| now != owner.as_ref())).await;
                pause = (pause * 3 / 2).min(LONGEST_PAUSE);
            }
            // Not all come at one moment to a new owner or to one that does not answer, nor without a rest to two that disagree on
            // which of them it is.
            tokio::time::sleep(LEAST_REST + Duration::from_millis(u64::from(jitter()) % SPREAD_MS)).await;
        }
    }

    fn owner(&self) -> Option<Server> {
        self.log.router.owner(&self.log.key)
    }

    async fn until_owner(&self, holds: impl Fn(Option<&Server>) -> bool) {
        self.log.router.until(|router| holds(router.owner(&self.log.key).as_ref())).await;
    }

    /// Connects, reads until something goes wrong, and says what.
    async fn read(
        &self,
        server: &Server,
        progress: &watch::Sender<Progress>,
        trouble: &mut Trouble,
    ) -> Result<Infallible, String> {
        let link = self.log.router.dial().link(server).await.map_err(|broken| format!("{server}: {broken}"))?;
        let cursor = progress.borrow().cursor;
        let mut position = self.resume(&link, cursor).await?;
        if position == Cursor::default() {
            // How far another stream was read says nothing of this one, whose clock may be behind.
            progress.send_modify(|progress| progress.cursor = progress.cursor.map(|_| position));
        }
        // A heartbeat counts only once nothing older can still be waiting.
        let mut caught_up = false;
        let mut asked = Instant::now();
        loop {
            // What waited while this process did not run was surely written after the question before this one.
            let before = std::mem::replace(&mut asked, Instant::now());
            let lines = self.next(&link, position, if caught_up { BLOCK_MS } else { 1 }, DEADLINE).await?;
            let is_all = lines.len() < COUNT;
            self.heed(server, &lines, (caught_up && is_all).then_some(before))?;
            position = behind(&lines, position);
            trouble.over();
            caught_up |= is_all;
            progress.send_if_modified(|progress| {
                progress.cursor = progress.cursor.max(Some(position));
                progress.has_read |= caught_up;
                caught_up && !std::mem::replace(&mut progress.reading, true)
            });
        }
    }

    /// Does what the lines of a server tell. A heartbeat among them shows that there was contact at `asked`; `None`: more may still
    /// wait unseen, so it shows nothing. Of a server that another one has taken over from, only what denies is believed.
    fn heed(&self, server: &Server, lines: &[Line], asked: Option<Instant>) -> Result<(), String> {
        let owner = self.owner();
        if owner.as_ref().is_some_and(|owner| owner != server) {
            facts(lines).filter(|fact| fact.denies()).for_each(|fact| self.tell(fact));
            return Err(ANOTHER.to_owned());
        }
        for fact in facts(lines) {
            self.tell(fact);
            (self.repair)(fact);
        }
        let has_beaten = lines.iter().any(|(_, entry)| *entry == Some(Entry::Heartbeat));
        if let Some(asked) = asked.filter(|_| has_beaten && owner.is_some()) {
            self.contact.heard(asked);
        }
        Ok(())
    }

    /// The lines behind a place; none if none come within `block` milliseconds. No answer at all `within` is an error.
    async fn next(&self, link: &Link, position: Cursor, block: u64, within: Duration) -> Result<Vec<Line>, String> {
        let command = Command::new("XREAD").arg("BLOCK").arg(block).arg("COUNT").arg(COUNT);
        let command = command.arg("STREAMS").arg(self.log.key.as_str()).arg(position.to_string());
        match link.call(&command, tokio::time::Instant::now() + within).await {
            Ok(Reply::Error(error)) => Err(error),
            Ok(reply) => lines(&reply).ok_or_else(|| "it answers nonsense".to_owned()),
            Err(broken) => Err(broken.to_string()),
        }
    }

    fn tell(&self, fact: Fact) {
        self.invalidation.publish(fact);
        (self.also)(fact);
        self.metrics.facts_heard.inc();
    }

    /// Where to go on. If lines may have been missed, every copy of a session is outdated first. What the lines of long ago told
    /// of the end of all sessions is told again; whatever comes later is in those that are read next.
    async fn resume(&self, link: &Link, cursor: Option<Cursor>) -> Result<Cursor, String> {
        let key = self.log.key.as_str();
        // In one piece: many edges that lost a server come back to it at the same moment.
        let commands = [
            Command::new("XRANGE").args([key, "-", "+", "COUNT", "1"]),
            Command::new("XREVRANGE").args([key, "+", "-", "COUNT", "1"]),
            Command::new("GET").arg(self.log.everyone()),
            Command::new("ROLE"),
        ];
        let replies = link.call_all(&commands, tokio::time::Instant::now() + DEADLINE).await;
        let replies = replies.map_err(|broken| broken.to_string())?;
        let [oldest, newest, everyone, role] =
            <[Reply; 4]>::try_from(replies).map_err(|_| "it answers nonsense".to_owned())?;
        // One that may not say what it is, is taken for what it is held to be.
        if role.list().and_then(|role| role.first()).and_then(Reply::text) == Some("slave") {
            return Err("it follows another server now".to_owned());
        }
        let said = |reply| if let Reply::Error(error) = reply { Err(error) } else { Ok(reply) };
        let end = |reply| said(reply).map(|lines| first_place(&lines));
        let (oldest, newest, not_before) = (end(oldest)?, end(newest)?, said(everyone)?.number());
        let position = cursor.and_then(|cursor| cursor.resumed(oldest.zip(newest)));
        if let Some(cursor) = cursor.filter(|_| position.is_none()) {
            warn!(%cursor, "lines of the changelog are missing: every session is read again");
            self.invalidation.reset();
        }
        if let Some(not_before) = not_before {
            self.invalidation.publish(Fact::OwnerRevoked(EVERYONE, Timestamp::from_millis(not_before)));
        }
        (self.everyone)(not_before);
        Ok(position.unwrap_or_default())
    }
}

/// Something that has not worked for a while is told once, and that it works again.
#[derive(Debug, Default)]
struct Trouble {
    since: Option<Instant>,
    told: bool,
}

impl Trouble {
    fn because(&mut self, why: &str) {
        if self.since.get_or_insert_with(Instant::now).elapsed() >= WORTH_TELLING && !self.told {
            warn!(
                why,
                "the changelog's server cannot be read: there is no contact until it can, and revocations are heard from a replica at best"
            );
            self.told = true;
        }
    }

    fn over(&mut self) {
        if self.told {
            info!("the changelog's server is read again");
        }
        *self = Self::default();
    }
}

type Line = (Cursor, Option<Entry>);

/// The place of the first line of a list.
fn first_place(lines: &Reply) -> Option<Cursor> {
    Cursor::read(lines.list()?.first()?.list()?.first()?)
}

fn facts(lines: &[Line]) -> impl Iterator<Item = Fact> {
    lines.iter().filter_map(|(_, entry)| if let Some(Entry::Fact(fact)) = entry { Some(*fact) } else { None })
}

/// The place behind which to read on after these lines.
fn behind(lines: &[Line], position: Cursor) -> Cursor {
    lines.iter().map(|(place, _)| *place).fold(position, Ord::max)
}

/// A random number; 0 if there is none to be had.
fn jitter() -> u16 {
    postern_identity::random().map_or(0, u16::from_be_bytes)
}

/// The lines in an answer to `XREAD`; none in no answer.
fn lines(reply: &Reply) -> Option<Vec<Line>> {
    if *reply == Reply::Nil {
        return Some(Vec::new());
    }
    let stream = reply.list()?.first()?.list()?.get(1)?.list()?;
    stream
        .iter()
        .map(|line| {
            let line = line.list()?;
            Some((Cursor::read(line.first()?)?, line.get(1)?.list().and_then(Entry::read)))
        })
        .collect()
}

const ANOTHER: &str = "another server owns it now";
const OVERLAP_MS: u64 = 10_000;
const BLOCK_MS: u64 = 250;
const COUNT: usize = 1_000;
const DEADLINE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// Before each attempt that is not made at once, and up to so much more.
const LEAST_REST: Duration = Duration::from_millis(10);
const SPREAD_MS: u64 = 80;
/// An attempt that took so long needs no pause behind it.
const LONG: Duration = Duration::from_secs(1);
/// A connection that is made anew is nothing that an operator has to know.
const WORTH_TELLING: Duration = Duration::from_secs(1);
