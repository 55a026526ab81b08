//! Reads the changelog as it grows, on a connection of its own, and starts over whenever something may have been missed.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postern_identity::Timestamp;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

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
    /// Hears every fact as well.
    pub(crate) also: Box<dyn Fn(Fact) + Send + Sync>,
    /// Hears before when all sessions are over, whenever that was read.
    pub(crate) everyone: Box<dyn Fn(Option<i64>) + Send + Sync>,
}

/// How far the owner of the stream was read.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    cursor: Option<Cursor>,
    /// Whether all that was there has been read on this connection, and its answers come in time, so that lines are read as they
    /// are written.
    reading: bool,
    /// Whether that was so once. Before, there is no contact, so that nothing that is known is served.
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
            let began = Instant::now();
            let why = match self.connect().await {
                Ok((server, link)) => {
                    let why = self.read(&server, &link, progress, &mut trouble).await;
                    progress.send_modify(|progress| progress.reading = false);
                    link.give_up();
                    why
                }
                Err(why) => why,
            };
            trouble.because(&why);
            self.log.router.doubt();
            if began.elapsed() < WORKED {
                tokio::time::sleep(pause).await;
                pause = (pause * 3 / 2).min(LONGEST_PAUSE);
            } else {
                pause = PAUSE;
            }
        }
    }

    async fn connect(&self) -> Result<(Server, Link), String> {
        let owner = self.log.router.owner(&self.log.key).ok_or("nobody is known to own it")?;
        let link = self.log.router.dial().link(&owner).await;
        link.map_err(|broken| format!("{owner}: {broken}")).map(|link| (owner, link))
    }

    /// Reads until something goes wrong, and says what.
    async fn read(
        &self,
        server: &Server,
        link: &Link,
        progress: &watch::Sender<Progress>,
        trouble: &mut Trouble,
    ) -> String {
        let cursor = progress.borrow().cursor;
        let mut position = match self.resume(link, cursor).await {
            Ok(position) => position,
            Err(why) => return why,
        };
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
            let mut asking = pin!(self.next(link, position, if caught_up { BLOCK_MS } else { 1 }));
            let answer = match timeout(LATE, &mut asking).await {
                Ok(answer) => answer,
                Err(_late) => {
                    // It may hang: others are heard until it is known.
                    progress.send_if_modified(|progress| std::mem::take(&mut progress.reading));
                    asking.await
                }
            };
            let lines = match answer {
                Ok(lines) => lines,
                Err(why) => return why,
            };
            let is_all = lines.len() < COUNT;
            let mut has_beaten = false;
            for (at, entry) in lines {
                position = position.max(at);
                match entry {
                    // Whoever owns the stream by now: what denies is true.
                    Some(Entry::Fact(fact)) => self.tell(fact),
                    Some(Entry::Heartbeat) => has_beaten = true,
                    None => {}
                }
            }
            if self.log.router.owner(&self.log.key).is_some_and(|owner| owner != *server) {
                return "another server owns it now".to_owned();
            }
            trouble.over();
            if has_beaten && caught_up && is_all {
                self.contact.heard(before);
            }
            caught_up |= is_all;
            progress.send_if_modified(|progress| {
                progress.cursor = Some(position.max(progress.cursor.unwrap_or_default()));
                progress.has_read |= caught_up;
                caught_up && !std::mem::replace(&mut progress.reading, true)
            });
        }
    }

    /// While the owner is not read as it grows, and until it has been for a while, what its replicas know: that denies already, and
    /// one of them may take over. It says nothing of contact, because nobody knows whether a replica has everything.
    async fn overhear(&self, mut progress: watch::Receiver<Progress>) {
        // Begun while all was well: a master that is held to have failed is in no map, and neither are its replicas then.
        let mut replicas = Vec::new();
        while progress.wait_for(|progress| progress.has_read).await.is_ok() {
            self.remember(&mut replicas);
            let interrupted = progress.wait_for(|progress| !progress.reading).await.map(|progress| progress.cursor);
            let cursor = interrupted.ok().flatten().unwrap_or_default();
            tokio::select! {
                () = steady(&mut progress) => {}
                () = self.ask_replicas(cursor.overlapping(), &mut replicas) => {}
            }
        }
    }

    /// The replicas that the owner has, if any are known; one that took over has none at first, and is still worth hearing.
    fn remember(&self, replicas: &mut Vec<Server>) {
        let now = self.log.router.replicas(&self.log.key);
        if !now.is_empty() {
            *replicas = now;
        }
    }

    /// One after the other, for as long as it takes.
    async fn ask_replicas(&self, mut position: Cursor, replicas: &mut Vec<Server>) {
        // Not all edges begin with the same one, nor ask at the same moment.
        let mut turn = jitter();
        let mut rest = SOON;
        loop {
            tokio::time::sleep(rest).await;
            rest = AGAIN + Duration::from_millis(u64::from(jitter()) % MORE_MS);
            self.remember(replicas);
            let at = usize::from(turn).checked_rem(replicas.len()).unwrap_or_default();
            turn = turn.wrapping_add(1);
            if let Some(server) = replicas.get(at) {
                let why = self.listen(server, &mut position).await;
                debug!(%server, why, "a replica tells nothing of revocations");
            }
        }
    }

    /// Tells what a replica knows until something goes wrong, and says what.
    async fn listen(&self, server: &Server, position: &mut Cursor) -> String {
        let link = match self.log.router.dial().link(server).await {
            Ok(link) => link,
            Err(broken) => return broken.to_string(),
        };
        // A member of a cluster sends readers to its master unless they say this first; others do not know the word.
        let _either = link.call(&Command::new("READONLY"), tokio::time::Instant::now() + DEADLINE).await;
        loop {
            let lines = match self.next(&link, *position, BLOCK_MS).await {
                Ok(lines) => lines,
                Err(why) => return why,
            };
            for (at, entry) in lines {
                *position = (*position).max(at);
                if let Some(Entry::Fact(fact)) = entry {
                    self.tell(fact);
                }
            }
        }
    }

    /// The lines behind a place; none if there are none for so long.
    async fn next(&self, link: &Link, position: Cursor, block: u64) -> Result<Vec<Line>, String> {
        let command = Command::new("XREAD").arg("BLOCK").arg(block).arg("COUNT").arg(COUNT);
        let command = command.arg("STREAMS").arg(self.log.key.as_str()).arg(position.to_string());
        match link.call(&command, tokio::time::Instant::now() + DEADLINE).await {
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
        ];
        let replies = link.call_all(&commands, tokio::time::Instant::now() + DEADLINE).await;
        let replies = replies.map_err(|broken| broken.to_string())?;
        let [oldest, newest, everyone] =
            <[Reply; 3]>::try_from(replies).map_err(|_| "it answers nonsense".to_owned())?;
        let said = |reply| if let Reply::Error(error) = reply { Err(error) } else { Ok(reply) };
        let end = |reply| said(reply).map(|lines| first_place(&lines));
        let (oldest, newest, not_before) = (end(oldest)?, end(newest)?, said(everyone)?.number());
        let position = cursor.and_then(|cursor| cursor.resumed(oldest.zip(newest)));
        // Who begins anew has done so already, and may have to try more than once.
        if let Some(cursor) = cursor.filter(|cursor| position.is_none() && *cursor != Cursor::default()) {
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

/// Ends once the owner has been read as it grows for [`STEADY`], without a break; also when nobody reads any more.
async fn steady(progress: &mut watch::Receiver<Progress>) {
    let mut again = true;
    while again && progress.wait_for(|progress| progress.reading).await.is_ok() {
        let interrupted = timeout(STEADY, progress.wait_for(|progress| !progress.reading)).await;
        again = interrupted.is_ok_and(|reader| reader.is_ok());
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
            warn!(why, "the changelog cannot be read: revocations by others are not heard until it can");
            self.told = true;
        }
    }

    fn over(&mut self) {
        if self.told {
            info!("the changelog is read again");
        }
        *self = Self::default();
    }
}

type Line = (Cursor, Option<Entry>);

/// The place of the first line of a list.
fn first_place(lines: &Reply) -> Option<Cursor> {
    Cursor::read(lines.list()?.first()?.list()?.first()?)
}

/// Some number.
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

const OVERLAP_MS: u64 = 10_000;
const BLOCK_MS: u64 = 250;
/// An answer that has not come by then is late: it was to be there after [`BLOCK_MS`].
const LATE: Duration = Duration::from_millis(400);
const COUNT: usize = 1_000;
const DEADLINE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(150);
/// A connection that ends later than this is made anew at once.
const WORKED: Duration = Duration::from_secs(1);
/// So long the owner may take to be read again, as far as it has grown, before its replicas are asked.
const SOON: Duration = Duration::from_millis(100);
/// So long it must have been read before they are let go of: whatever befell it may befall it again, and be noticed late.
const STEADY: Duration = Duration::from_secs(2);
/// Between two questions while none of them tells anything, and up to so much more. A server that takes over may be told of an
/// end at once.
const AGAIN: Duration = Duration::from_millis(50);
const MORE_MS: u64 = 30;
/// A connection that is made anew is nothing that an operator has to know.
const WORTH_TELLING: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
