//! whatever one client does, another one gets its answers. Each attack comes from many connections at once, beside a
//! bystander that asks all the while, on connections of its own and on new ones.
//!
//! The suite holds that the bystander is answered. `POSTERN_TEST_ATTACK_SECONDS=10` and `POSTERN_TEST_ATTACKERS=5000` make
//! the attacks as long and as many, hold that its 99th percentile stays within R-001, and print it for each attack;
//! `POSTERN_TEST_ATTACK=slow` leaves those with that in their name.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::bystander::Bystander;
use super::conformance::{Case, floods, play};
use super::edge::Edge;
use super::script::{Step, steps};
use super::upstream::Script;
use super::wire::Wire;

#[expect(clippy::disallowed_methods, reason = "a test's own knob")]
fn asked(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A number from the environment.
fn measure(name: &str) -> Option<u32> {
    asked(name)?.parse().ok()
}

/// Whether this attack is among those that are asked for.
fn is_wanted(name: &str) -> bool {
    asked("POSTERN_TEST_ATTACK").is_none_or(|part| name.contains(&part))
}

/// How long and how hard.
#[derive(Debug, Clone, Copy)]
struct Force {
    /// At least so long.
    lasting: Duration,
    attackers: u32,
}

impl Force {
    fn asked_for() -> Self {
        let seconds = measure("POSTERN_TEST_ATTACK_SECONDS").unwrap_or(0);
        Self {
            lasting: Duration::from_secs(seconds.into()),
            attackers: measure("POSTERN_TEST_ATTACKERS").unwrap_or(20),
        }
    }

    /// The settings with which an upstream takes the requests of so many: beyond its usual threshold it is the route that is full,
    /// whoever they are from.
    fn room(self) -> String {
        let most = self.attackers * 2;
        let room = format!("max_connections: {most}, max_pending_requests: {most}, max_requests: {most}");
        if most > 1024 { format!("circuit_breaker_thresholds: {{{room}}}\n") } else { String::new() }
    }
}

#[tokio::test]
async fn r_001_r_003_no_flood_keeps_anybody_else_from_answers() -> Result<()> {
    let force = Force::asked_for();
    let edge = Edge::start_without_provider().await?;
    let mut report = Report::begin(&edge, force).await?;
    // A flood is as hard from a few connections as from many: each does what it can.
    let connections = if force.lasting.is_zero() { 2 } else { 8 };
    for case in floods()?.into_iter().filter(|case| is_wanted(&case.name)) {
        edge.upstream.answer(case.answer());
        let steps = case.steps(0)?;
        let flooded = beside(&edge, force, async |course| {
            course.is_whole();
            let all = (0..connections).map(|_| flood(&edge, (&case, &steps), course));
            futures_util::future::join_all(all).await;
        });
        let bystander = flooded.await.with_context(|| case.name.clone())?;
        edge.upstream.answer(None);
        report.row(&case.name, &bystander)?;
    }
    Ok(())
}

/// Whether the flood ended as it should is what the table of cases is for: here it only has to be one.
async fn flood(edge: &Edge, (case, steps): (&Case, &[Step]), course: &Course) {
    loop {
        let _outcome = play(edge, case, steps).await;
        if course.is_over() {
            return;
        }
    }
}

#[tokio::test]
async fn r_001_no_slow_or_silent_client_keeps_anybody_else_from_answers() -> Result<()> {
    // Clients and upstream are both here, and the edge inherits this.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let force = Force::asked_for();
    let edge = Edge::start_with(&force.room()).await?;
    let mut report = Report::begin(&edge, force).await?;
    for slow in SLOW.iter().filter(|slow| is_wanted(slow.name)) {
        let lagging = beside(&edge, force, async |course| {
            let wanted = force.attackers.clamp(slow.least(), slow.most());
            let mut held = Vec::new();
            for _ in 0..wanted {
                // More than the edge takes are turned away: that is one of its bounds.
                held.extend(slow.begin(&edge).await.ok());
                if course.is_over() {
                    return;
                }
            }
            course.is_whole();
            let mut beat = tokio::time::interval(BEAT);
            while !course.is_over() {
                let mut cut = 0;
                for mut one in std::mem::take(&mut held) {
                    if one.goes_on().await {
                        held.push(one);
                    } else {
                        cut += 1;
                    }
                }
                // Who was cut comes again, as far as there is time between two beats.
                for _ in 0..cut.min(AGAIN) {
                    held.extend(slow.begin(&edge).await.ok());
                }
                beat.tick().await;
            }
        });
        edge.upstream.answer(slow.answer());
        let bystander = lagging.await.with_context(|| slow.name.to_owned())?;
        edge.upstream.answer(None);
        report.row(slow.name, &bystander)?;
    }
    Ok(())
}

/// How often slow clients are looked after; each says something once a second.
const BEAT: Duration = Duration::from_millis(50);
/// How many that were cut begin again in one beat.
const AGAIN: usize = 20;

/// A client that takes its time.
struct Slow {
    name: &'static str,
    over: On,
    /// What it begins with.
    first: &'static str,
    /// What it says every now and then.
    then: &'static str,
    /// How much is answered, of which it takes nothing.
    body: usize,
}

/// What it speaks.
#[derive(Clone, Copy)]
enum On {
    /// Bytes, before TLS.
    Tcp,
    H1,
    /// The steps of script.rs, one a line.
    H2,
    /// Nothing behind the handshake that chose HTTP/2.
    SilentH2,
}

const SLOW: &[Slow] = &[
    Slow { name: "half-open TLS: not a byte", over: On::Tcp, first: "", then: "", body: 2 },
    Slow {
        name: "half-open TLS: a ClientHello byte by byte",
        over: On::Tcp,
        first: "\x16\x03\x01\x02\0\x01",
        then: "\0",
        body: 2,
    },
    Slow { name: "idle connections", over: On::H1, first: "", then: "", body: 2 },
    Slow { name: "idle HTTP/2 connections without a preface", over: On::SilentH2, first: "", then: "", body: 2 },
    Slow { name: "idle HTTP/2 connections", over: On::H2, first: "SETTINGS 0", then: "", body: 2 },
    Slow {
        name: "slow head",
        over: On::H1,
        first: "GET /a HTTP/1.1\r\nHost: open.corp.localhost\r\n",
        then: "X: 1\r\n",
        body: 2,
    },
    Slow {
        name: "slow body",
        over: On::H1,
        first: "POST /a HTTP/1.1\r\nHost: open.corp.localhost\r\nContent-Length: 1000000\r\n\r\n",
        then: "x",
        body: 2,
    },
    Slow {
        name: "slow chunks",
        over: On::H1,
        first: "POST /a HTTP/1.1\r\nHost: open.corp.localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
        then: "1\r\nx\r\n",
        body: 2,
    },
    Slow {
        name: "slow read",
        over: On::H1,
        first: "GET /a HTTP/1.1\r\nHost: open.corp.localhost\r\n\r\n",
        then: "",
        body: 10_000_000,
    },
    Slow {
        name: "HTTP/2: a head that does not end",
        over: On::H2,
        first: "HEADERS 1 +END_STREAM get:/a",
        then: "",
        body: 2,
    },
    Slow { name: "HTTP/2: slow body", over: On::H2, first: "POST 1 /a", then: "DATA 1 text:x", body: 2 },
    Slow {
        name: "HTTP/2: slow read of fifty streams",
        over: On::H2,
        first: "SETTINGS 0 set:4=0\n50* GET {n} /a",
        then: "",
        body: 1_000_000,
    },
    Slow {
        name: "HTTP/2: slow read, byte by byte",
        over: On::H2,
        first: "SETTINGS 0 set:4=0\nGET 1 /a",
        then: "WINDOW_UPDATE 1 u32:1",
        body: 1_000_000,
    },
];

impl Slow {
    /// Fewer would not be an attack: half-open handshakes are one only where there is no room for others.
    const fn least(&self) -> u32 {
        if matches!(self.over, On::Tcp) { 520 } else { 0 }
    }

    /// Of HTTP/2 each connection is many requests; and the system keeps megabytes of each answer that nobody takes.
    const fn most(&self) -> u32 {
        match self.over {
            On::H2 => 20,
            On::H1 if self.body > 2 => 1000,
            On::Tcp | On::H1 | On::SilentH2 => u32::MAX,
        }
    }

    fn answer(&self) -> Option<Script> {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", self.body);
        let bytes = [head.into_bytes(), vec![b'a'; self.body]].concat();
        (self.body > 2).then(|| Script { bytes, ..Script::default() })
    }

    async fn begin(&self, edge: &Edge) -> Result<Held> {
        let then = self.then.as_bytes().to_vec();
        match self.over {
            On::Tcp => {
                let mut stream = edge.reach().await?;
                stream.write_all(self.first.as_bytes()).await?;
                Ok(Held { on: Holding::Tcp(stream), then, last: Instant::now() })
            }
            On::H1 => {
                let mut stream = edge.connect("open", "http/1.1").await?;
                stream.write_all(self.first.as_bytes()).await?;
                stream.flush().await?;
                Ok(Held { on: Holding::Tls(Box::new(stream)), then, last: Instant::now() })
            }
            On::SilentH2 => {
                let stream = edge.connect("open", "h2").await?;
                Ok(Held { on: Holding::Tls(Box::new(stream)), then, last: Instant::now() })
            }
            On::H2 => {
                let mut wire = Wire::open(edge.connect("open", "h2").await?).await?;
                for line in self.first.lines() {
                    wire.send(&frames(line)?).await;
                }
                Ok(Held { on: Holding::H2(Box::new(wire)), then: frames(self.then)?, last: Instant::now() })
            }
        }
    }
}

fn frames(line: &str) -> Result<Vec<u8>> {
    if line.is_empty() {
        return Ok(Vec::new());
    }
    let bytes = steps(line)?.into_iter().map(|step| match step {
        Step::Send(bytes) => Ok(bytes),
        Step::Answer(_) | Step::Head(_) | Step::Upstream => anyhow::bail!("{line:?} waits"),
    });
    Ok(bytes.collect::<Result<Vec<_>>>()?.concat())
}

/// A slow client under way.
struct Held {
    on: Holding,
    then: Vec<u8>,
    last: Instant,
}

enum Holding {
    Tcp(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    H2(Box<Wire>),
}

impl Held {
    /// Says the next little thing, if it is time; `false` if the edge has ended it, which is its right. Who takes nothing of an
    /// answer over HTTP/1 does not see that.
    async fn goes_on(&mut self) -> bool {
        if self.last.elapsed() < Duration::from_secs(1) {
            return true;
        }
        self.last = Instant::now();
        match &mut self.on {
            Holding::Tcp(stream) => stream.write_all(&self.then).await.is_ok(),
            Holding::Tls(stream) => stream.write_all(&self.then).await.is_ok(),
            Holding::H2(wire) => {
                wire.send(&self.then).await;
                !wire.is_cut()
            }
        }
    }
}

/// How far an attack is.
#[derive(Debug, Default)]
struct Course {
    /// Since when it is under way with all that it has.
    whole: Cell<Option<Instant>>,
    over: AtomicBool,
}

impl Course {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn is_whole(&self) {
        self.whole.set(self.whole.get().or_else(|| Some(Instant::now())));
    }
}

/// The bystander's fate while `attack` goes on: it asks while that begins, and for as long as it is to last once it is whole. Then
/// the attack is told that it is over.
async fn beside(edge: &Edge, force: Force, attack: impl AsyncFnOnce(&Course)) -> Result<Bystander> {
    let mut bystander = Bystander::new(edge).await?;
    let course = Course::default();
    let asking = async {
        for round in 0_u32.. {
            let asked = bystander.ask(edge).await;
            let anew = if round.is_multiple_of(4) { bystander.ask_anew(edge).await } else { Ok(()) };
            let lasted = course.whole.get().is_some_and(|whole| whole.elapsed() >= force.lasting);
            if asked.is_err() || anew.is_err() || round >= 8 && lasted {
                course.over.store(true, Ordering::Relaxed);
                return asked.and(anew);
            }
        }
        Ok(())
    };
    let ((), asked) = tokio::join!(attack(&course), asking);
    asked.context("the bystander")?;
    Ok(bystander)
}

/// What the bystander met with.
struct Report {
    force: Force,
    usual: Duration,
}

impl Report {
    /// Finds out how it is without an attack.
    async fn begin(edge: &Edge, force: Force) -> Result<Self> {
        let mut bystander = Bystander::new(edge).await?;
        for _ in 0..50 {
            bystander.ask(edge).await?;
            bystander.ask_anew(edge).await?;
        }
        let report = Self { force, usual: bystander.p99() };
        report.print("none", &bystander);
        Ok(report)
    }

    fn row(&mut self, attack: &str, bystander: &Bystander) -> Result<()> {
        self.print(attack, bystander);
        let bound = (self.usual * 5).max(Duration::from_secs(1));
        ensure!(self.force.lasting.is_zero() || bystander.p99() <= bound, "R-001: {attack}: {:?}", bystander.p99());
        Ok(())
    }

    #[expect(clippy::print_stdout, reason = "figures, for whoever asks for them with --nocapture")]
    fn print(&self, attack: &str, bystander: &Bystander) {
        println!("| {attack} | {} | {:.1} ms |", bystander.took.len(), bystander.p99().as_secs_f64() * 1000.0);
    }
}
