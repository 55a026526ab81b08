//! Reads the changelog as it grows, on a connection of its own, and starts over whenever something may have been missed.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postern_identity::Timestamp;
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
    /// Hears every fact as well.
    pub(crate) also: Box<dyn Fn(Fact) + Send + Sync>,
    /// Hears before when all sessions are over, whenever that was read.
    pub(crate) everyone: Box<dyn Fn(Option<i64>) + Send + Sync>,
}

/// Where it is read.
struct Source {
    server: Server,
    link: Link,
    /// Whether all that is written is there.
    is_owner: bool,
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

    /// Somewhat earlier: clocks of masters differ, and facts may be read twice.
    const fn overlapping(self) -> Self {
        Self(self.0.saturating_sub(OVERLAP_MS), 0)
    }
}

/// Reads until told to stop.
pub(crate) async fn follow(tail: Tail, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tail.run() => {}
    }
}

impl Tail {
    async fn run(&self) {
        let (mut cursor, mut trouble) = (None, Trouble::default());
        loop {
            let why = match self.connect().await {
                Ok(source) => {
                    if source.is_owner {
                        trouble.over();
                    }
                    let began = Instant::now();
                    let why = self.read(&source, &mut cursor).await;
                    source.link.give_up();
                    if began.elapsed() > WORKED {
                        self.log.router.doubt();
                        continue;
                    }
                    why
                }
                Err(why) => why,
            };
            trouble.because(&why);
            self.log.router.doubt();
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The owner. While that does not answer, one of its replicas: what it knows of denies already, and it may take over.
    async fn connect(&self) -> Result<Source, String> {
        let (router, key) = (&self.log.router, self.log.key.as_str());
        let owner = router.owner(key).ok_or("nobody is known to own it")?;
        let found = timeout(SOON, router.dial().link(&owner)).await;
        if let Ok(Ok(link)) = found {
            return Ok(Source { server: owner, link, is_owner: true });
        }
        for server in router.replicas(key) {
            let Ok(Ok(link)) = timeout(SOON, router.dial().link(&server)).await else { continue };
            // A member of a cluster sends readers to its master unless they say this first; others do not know the word.
            let _either = link.call(&Command::new("READONLY"), tokio::time::Instant::now() + DEADLINE).await;
            return Ok(Source { server, link, is_owner: false });
        }
        let link = match found {
            Ok(refused) => refused,
            Err(_) => router.dial().link(&owner).await,
        };
        let link = link.map_err(|broken| format!("{owner}: {broken}"))?;
        Ok(Source { server: owner, link, is_owner: true })
    }

    /// Reads until something goes wrong, and says what.
    async fn read(&self, source: &Source, cursor: &mut Option<Cursor>) -> String {
        let Source { server, link, is_owner } = source;
        let (began, block) = (Instant::now(), if *is_owner { BLOCK_MS } else { BLOCK_ON_A_REPLICA_MS });
        let mut position = match self.resume(source, *cursor).await {
            Ok(position) => position,
            Err(why) => return why,
        };
        if let Err(why) = self.read_everyone(source).await {
            return why;
        }
        // A heartbeat counts only once nothing older can still be waiting.
        let mut caught_up = false;
        let mut asked = Instant::now();
        loop {
            // What waited while this process did not run was surely written after the question before this one.
            let before = std::mem::replace(&mut asked, Instant::now());
            let block = if caught_up { block } else { 1 };
            let command = Command::new("XREAD").arg("BLOCK").arg(block).arg("COUNT").arg(COUNT);
            let command = command.arg("STREAMS").arg(self.log.key.as_str()).arg(position.to_string());
            let reply = match link.call(&command, tokio::time::Instant::now() + DEADLINE).await {
                Ok(Reply::Error(error)) => return error,
                Ok(reply) => reply,
                Err(broken) => return broken.to_string(),
            };
            if self.log.router.owner(&self.log.key).is_some_and(|owner| (owner == *server) != *is_owner) {
                return "another server owns it now".to_owned();
            }
            let Some(lines) = lines(&reply) else { return "it answers nonsense".to_owned() };
            for (at, entry) in &lines {
                position = position.max(*at);
                match entry {
                    Some(Entry::Fact(fact)) => {
                        self.invalidation.publish(*fact);
                        (self.also)(*fact);
                        self.metrics.facts_heard.inc();
                    }
                    // Of a replica nobody knows whether it has everything.
                    Some(Entry::Heartbeat) if *is_owner && caught_up && lines.len() < COUNT => {
                        self.contact.heard(before);
                    }
                    Some(Entry::Heartbeat) | None => {}
                }
            }
            caught_up |= lines.len() < COUNT;
            *cursor = Some(position.max(cursor.unwrap_or_default()));
            if !is_owner && began.elapsed() > WORKED {
                return "only a replica is read".to_owned();
            }
        }
    }

    /// What the lines of long ago told of the end of all sessions. Whatever comes later is in those that are read next.
    async fn read_everyone(&self, source: &Source) -> Result<(), String> {
        let until = tokio::time::Instant::now() + DEADLINE;
        let not_before = match source.link.call(&Command::new("GET").arg(self.log.everyone()), until).await {
            Ok(Reply::Error(error)) => return Err(error),
            Ok(reply) => reply.number(),
            Err(broken) => return Err(broken.to_string()),
        };
        if let Some(not_before) = not_before {
            let fact = Fact::OwnerRevoked(EVERYONE, Timestamp::from_millis(not_before));
            self.invalidation.publish(fact);
            (self.also)(fact);
        }
        if source.is_owner {
            (self.everyone)(not_before);
        }
        Ok(())
    }

    /// Where to go on. If lines may have been missed, every copy of a session is outdated first.
    async fn resume(&self, source: &Source, cursor: Option<Cursor>) -> Result<Cursor, String> {
        let until = tokio::time::Instant::now() + DEADLINE;
        let key = self.log.key.as_str();
        let ask = async |command: Command| match source.link.call(&command, until).await {
            Ok(Reply::Error(error)) if error.contains("no such key") => Ok(Reply::Nil),
            Ok(Reply::Error(error)) => Err(error),
            Ok(reply) => Ok(reply),
            Err(broken) => Err(broken.to_string()),
        };
        let Some(cursor) = cursor else { return Ok(Cursor::default()) };
        let oldest = ask(Command::new("XRANGE").args([key, "-", "+", "COUNT", "1"])).await?;
        let newest = ask(Command::new("XREVRANGE").args([key, "+", "-", "COUNT", "1"])).await?;
        let ends = |reply: &Reply| Cursor::read(reply.list()?.first()?.list()?.first()?);
        let missed = match (ends(&oldest), ends(&newest)) {
            (Some(oldest), Some(newest)) => cursor < oldest || cursor.overlapping() > newest,
            _ => true,
        };
        if missed && !source.is_owner {
            return Err("the replica does not have all lines".to_owned());
        }
        if missed {
            warn!(%cursor, "lines of the changelog are missing: every session is read again");
            self.invalidation.reset();
            return Ok(Cursor::default());
        }
        Ok(cursor.overlapping())
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
const BLOCK_MS: u64 = 500;
const COUNT: usize = 1_000;
const DEADLINE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(50);
/// A connection that ends later than this is made anew at once; one to a replica ends then.
const WORKED: Duration = Duration::from_secs(1);
/// Whoever takes longer is asked again if nobody else answers.
const SOON: Duration = Duration::from_millis(300);
const BLOCK_ON_A_REPLICA_MS: u64 = 100;
/// A connection that is made anew is nothing that an operator has to know.
const WORTH_TELLING: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Reply {
        Reply::Bytes(bytes::Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn places_are_in_order_and_read_as_they_are_written() {
        let (early, late) = (Cursor(1_700_000_000_000, 9), Cursor(1_700_000_000_000, 10));
        assert!(early < late);
        assert_eq!(Cursor::read(&text(&late.to_string())), Some(late));
        assert_eq!(late.overlapping(), Cursor(1_699_999_990_000, 0));
        assert_eq!(Cursor(5, 5).overlapping(), Cursor(0, 0));
        assert_eq!(Cursor::read(&text("nonsense")), None);
    }

    #[test]
    fn lines_are_read_and_unknown_ones_have_a_place_all_the_same() {
        let line = |id, kind| Reply::List(vec![text(id), Reply::List(vec![text("k"), text(kind)])]);
        let stream = Reply::List(vec![text("{chg}log"), Reply::List(vec![line("5-0", "h"), line("6-1", "?")])]);
        let read = lines(&Reply::List(vec![stream]));
        assert_eq!(read, Some(vec![(Cursor(5, 0), Some(Entry::Heartbeat)), (Cursor(6, 1), None)]));
        assert_eq!(lines(&Reply::Nil), Some(Vec::new()));
        assert_eq!(lines(&text("OK")), None);
    }
}
