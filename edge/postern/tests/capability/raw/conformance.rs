//! RFC 9113 and RFC 7541, case by case: a table of frames and of the one thing that must come of them. The catalogue of cases
//! is that of h2spec, in our own words; what HTTP means by it all is in `h2.yaml`.
//!
//! After each case another connection, that was there before, still gets its answers, and so does this one unless it was to
//! end. Whatever went up in between is held to what is true of every request.

use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;
use tokio::io::AsyncReadExt;

use super::case::Many;
use super::edge::Edge;
use super::script::{Step, hex, steps};
use super::upstream::{FENCE, Script};
use super::wire::{ACK, DATA, END_STREAM, Frame, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, Wire};
use super::{bystander::Bystander, judge};
use crate::support::{DEADLINE, bounded, eventually};

const TABLES: &[(&str, &str)] = &[
    ("conformance", include_str!("cases/conformance.yaml")),
    ("hpack", include_str!("cases/hpack.yaml")),
    ("floods", include_str!("cases/floods.yaml")),
];

/// Cases of one section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    /// Of which standard: `RFC 9113 §5.1`.
    section: String,
    cases: Vec<Case>,
}

/// One row.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    /// A sentence about what happens.
    pub(super) name: String,
    /// The steps, in the language of [`super::script`].
    send: Many<String>,
    /// The connection begins with the steps: no preface, no SETTINGS are sent for them.
    #[serde(default)]
    bare: bool,
    /// What the upstream says in place of `ok`.
    body: Option<usize>,
    /// And that at the end of the head, the body still being on its way.
    #[serde(default)]
    early: bool,
    then: Expect,
    /// These requests went up, by their targets; not asked for if it is not written.
    up: Option<Vec<String>>,
    /// No stream is free afterwards, or none is wanted: the connection is asked for a PING alone.
    #[serde(default)]
    full: bool,
}

/// The one thing that must come.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Expect {
    /// A connection error of this code, and then the end.
    Goaway(String),
    /// A stream error: the stream, its code.
    Reset(u32, String),
    /// A whole answer: the stream, its status.
    Answer(u32, u16),
    /// DATA: the stream, how many bytes, and nothing after them for now.
    Data(u32, usize),
    /// PING, acknowledged with these bytes.
    Pong(String),
    /// SETTINGS, acknowledged.
    Acknowledged(usize),
    /// The end, without a word.
    Closed,
    /// Nothing: the connection goes on.
    Nothing,
}

/// All that is a flood.
pub(super) fn floods() -> Result<Vec<Case>> {
    Ok(cases()?.into_iter().filter(|(section, _)| section.starts_with("floods")).map(|(_, case)| case).collect())
}

fn cases() -> Result<Vec<(String, Case)>> {
    let mut cases = Vec::new();
    for (file, text) in TABLES {
        let document = postern_policy::document::read(text).map_err(|mistakes| anyhow!("{file}: {mistakes:?}"))?;
        let groups: Vec<Group> = serde_json::from_value(document.to_json()).with_context(|| (*file).to_owned())?;
        for group in groups {
            cases.extend(group.cases.into_iter().map(|case| (format!("{file}: {}", group.section), case)));
        }
    }
    Ok(cases)
}

#[tokio::test]
async fn s_014_r_003_every_case_of_the_http2_and_hpack_standards_ends_as_written() -> Result<()> {
    let edge = Edge::start_without_provider().await?;
    let mut bystander = Bystander::new(&edge).await?;
    let (mut failed, mut ran) = (Vec::new(), 0);
    for (section, case) in cases()? {
        ran += 1;
        let began = Instant::now();
        let result = holds(&edge, &case, ran).await;
        let asked = bystander.ask(&edge).await.context("the bystander");
        if let Err(error) = result.and(asked) {
            failed.push(format!("{section}: {} ({:?})\n  {error:#}", case.name, began.elapsed()));
        }
    }
    ensure!(failed.is_empty(), "{} of {ran} failed\n{}", failed.len(), failed.join("\n"));
    Ok(())
}

#[tokio::test]
async fn r_004_a_client_that_never_begins_to_speak_http2_is_not_waited_for() -> Result<()> {
    let edge = Edge::start_without_provider().await?;
    let mut silent = edge.connect("open", "h2").await?;
    let mut said = Vec::new();
    let _without_farewell = bounded(DEADLINE, "the end of a silent connection", silent.read_to_end(&mut said)).await?;
    ensure!(said.get(3) == Some(&SETTINGS), "the edge said {said:?}");
    Ok(())
}

#[test]
fn each_case_of_the_standards_has_a_name_of_its_own() -> Result<()> {
    let cases = cases()?;
    let names: std::collections::BTreeSet<_> = cases.iter().map(|(section, case)| (section, &case.name)).collect();
    assert_eq!(names.len(), cases.len(), "two cases of a section have one name");
    let catalogue = cases.iter().filter(|(section, _)| !section.starts_with("floods")).count();
    assert!(catalogue >= 120, "{catalogue} cases of the catalogue");
    Ok(())
}

/// One case on a connection of its own.
async fn holds(edge: &Edge, case: &Case, number: usize) -> Result<()> {
    let first = edge.upstream.count();
    edge.upstream.answer(case.answer());
    let outcome = play(edge, case, &case.steps(number)?).await;
    edge.upstream.answer(None);
    outcome?;
    let seen: Vec<_> = edge.upstream.seen(first).into_iter().filter(|seen| !seen.is_fence()).collect();
    for seen in &seen {
        let breaches = judge::breaches(seen, std::iter::empty());
        ensure!(breaches.is_empty(), "{breaches:?} in {:?}", seen.head);
    }
    if let Some(up) = &case.up {
        // What a case before this one has left may still come up.
        let mark = format!("?{number}");
        let own = seen.iter().filter(|seen| seen.target().ends_with(&mark) || !seen.target().contains('?'));
        let targets: Vec<_> = own.map(|seen| seen.target().trim_end_matches(&mark).to_owned()).collect();
        ensure!(targets == *up, "{targets:?} went up, not {up:?}");
    }
    Ok(())
}

/// The steps of a case, and what must come of them.
pub(super) async fn play(edge: &Edge, case: &Case, steps: &[Step]) -> Result<()> {
    let stream = edge.connect("open", "h2").await?;
    let wire = if case.bare { Wire::silent(stream) } else { Wire::open(stream).await? };
    let first = edge.upstream.count();
    let mut dialogue = Dialogue { edge, wire, got: Vec::new(), over: false, first };
    let outcome = dialogue.run(case, steps).await;
    outcome.with_context(|| format!("got {}", dialogue.told()))
}

impl Case {
    /// What the client does; the paths have the number of the case.
    pub(super) fn steps(&self, number: usize) -> Result<Vec<Step>> {
        let lines = self.send.all().iter().map(|line| steps(&marked(line, number)));
        Ok(lines.collect::<Result<Vec<_>>>()?.concat())
    }

    /// What the upstream is to say.
    pub(super) fn answer(&self) -> Option<Script> {
        self.body.map(|length| {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            Script { bytes: [head.into_bytes(), vec![b'a'; length]].concat(), early: self.early, ..Script::default() }
        })
    }
}

/// A connection, and what came on it.
struct Dialogue<'e> {
    edge: &'e Edge,
    wire: Wire,
    got: Vec<Frame>,
    over: bool,
    first: usize,
}

impl Dialogue<'_> {
    async fn run(&mut self, case: &Case, steps: &[Step]) -> Result<()> {
        for (index, step) in steps.iter().enumerate() {
            self.take(step).await.with_context(|| format!("in step {index}"))?;
        }
        self.await_expected(&case.then).await.with_context(|| format!("{:?} did not come", case.then))?;
        let data = self.data();
        match &case.then {
            Expect::Goaway(_) => bounded(DEADLINE, "the end behind GOAWAY", self.wire.ends()).await?,
            Expect::Closed => Ok(()),
            Expect::Reset(..)
            | Expect::Answer(..)
            | Expect::Data(..)
            | Expect::Pong(_)
            | Expect::Acknowledged(_)
            | Expect::Nothing => self.goes_on(case.full).await,
        }?;
        let more = self.data() - data;
        ensure!(more == 0 || !matches!(case.then, Expect::Data(..)), "{more} more bytes of data came");
        Ok(())
    }

    /// How many bytes of data have come, but for those of the last request.
    fn data(&self) -> usize {
        self.got
            .iter()
            .filter(|frame| frame.kind == DATA && frame.stream != LAST)
            .map(|frame| frame.payload.len())
            .sum()
    }

    async fn take(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Send(bytes) => self.wire.send(bytes).await,
            Step::Answer(stream) => {
                self.until(|frame| frame.stream == *stream && is_end(frame)).await?;
            }
            Step::Head(stream) => {
                self.until(|frame| frame.stream == *stream && frame.kind == HEADERS).await?;
            }
            Step::Upstream => {
                let (edge, first) = (self.edge, self.first);
                let came = async || (edge.upstream.count() > first).then_some(());
                eventually("the upstream to see a request", came).await?;
                self.first = edge.upstream.count();
            }
        }
        Ok(())
    }

    /// What is expected comes before any other end of it.
    async fn await_expected(&mut self, expect: &Expect) -> Result<()> {
        let mut data = 0;
        let mut acknowledged = 0;
        let mut status = None;
        if matches!(expect, Expect::Nothing | Expect::Data(_, 0)) {
            return Ok(());
        }
        // What the steps have read already counts.
        let mut read = 0;
        loop {
            let Some(frame) = self.nth(read).await? else {
                ensure!(matches!(expect, Expect::Closed), "the connection ended");
                return Ok(());
            };
            read += 1;
            match (expect, frame.kind) {
                (Expect::Goaway(code), GOAWAY) if frame.code() == *code => return Ok(()),
                (_, GOAWAY) => bail!("GOAWAY {}", frame.code()),
                (Expect::Reset(stream, code), RST_STREAM) if frame.stream == *stream && frame.code() == *code => {
                    return Ok(());
                }
                // What becomes of other streams is not asked for; an answer that is whole may end in one (RFC 9113 §8.1).
                (Expect::Goaway(_), RST_STREAM) => {}
                (Expect::Answer(stream, _) | Expect::Reset(stream, _), RST_STREAM) if frame.stream != *stream => {}
                (_, RST_STREAM) if frame.code() != "NO_ERROR" => bail!("RST_STREAM {} {}", frame.stream, frame.code()),
                (Expect::Pong(bytes), PING) if frame.has(ACK) && frame.payload == hex(bytes)? => return Ok(()),
                (Expect::Acknowledged(times), SETTINGS) if frame.has(ACK) => {
                    acknowledged += 1;
                    if acknowledged == *times {
                        return Ok(());
                    }
                }
                (Expect::Answer(stream, wanted), HEADERS | DATA) if frame.stream == *stream => {
                    if frame.kind == HEADERS {
                        status = frame.status();
                    }
                    if frame.has(END_STREAM) {
                        ensure!(status == Some(*wanted), "the status is {status:?}");
                        return Ok(());
                    }
                }
                (Expect::Data(stream, length), DATA) if frame.stream == *stream => {
                    data += frame.payload.len();
                    ensure!(data <= *length, "{data} bytes");
                    if data == *length {
                        return Ok(());
                    }
                }
                _ => {}
            }
        }
    }

    /// The frame with this number of all that came.
    async fn nth(&mut self, index: usize) -> Result<Option<Frame>> {
        while self.got.len() <= index {
            if self.next().await?.is_none() {
                return Ok(None);
            }
        }
        Ok(self.got.get(index).cloned())
    }

    async fn next(&mut self) -> Result<Option<Frame>> {
        if self.over {
            return Ok(None);
        }
        let frame = self.wire.next().await?;
        self.over = frame.is_none();
        self.got.extend(frame.clone());
        Ok(frame)
    }

    async fn until(&mut self, is: impl Fn(&Frame) -> bool) -> Result<()> {
        while let Some(frame) = self.next().await? {
            if is(&frame) {
                return Ok(());
            }
            ensure!(frame.kind != GOAWAY, "GOAWAY {}", frame.code());
        }
        bail!("the connection ended")
    }

    /// The connection still takes a PING, and a request too.
    async fn goes_on(&mut self, full: bool) -> Result<()> {
        let ping = Frame { kind: PING, payload: b"go on...".to_vec(), ..Frame::default() };
        self.wire.send(&ping.bytes()).await;
        self.until(|frame| frame.kind == PING && frame.payload == ping.payload).await.context("the PING after it")?;
        if !full {
            let fence = steps(&format!("1* GET {LAST} {FENCE} ; WINDOW_UPDATE {LAST} u32:100"))?;
            for step in fence {
                self.take(&step).await?;
            }
            self.until(|frame| frame.stream == LAST && is_end(frame)).await.context("the request after it")?;
            let head = self.got.iter().find(|frame| frame.stream == LAST && frame.kind == HEADERS);
            ensure!(head.and_then(Frame::status) == Some(200), "the request after it");
        }
        Ok(())
    }

    fn told(&self) -> String {
        let brief = |frame: &Frame| {
            let code = if matches!(frame.kind, RST_STREAM | GOAWAY) { frame.code() } else { String::new() };
            format!("[{} {:#x} {} {}B {code}]", frame.kind, frame.flags, frame.stream, frame.payload.len())
        };
        let last = self.got.len().saturating_sub(20);
        self.got.iter().skip(last).map(brief).collect::<String>() + if self.over { " and the end" } else { "" }
    }
}

/// The paths of a line, each with the number of its case.
fn marked(line: &str, number: usize) -> String {
    line.replace("/a", &format!("/a?{number}")).replace("/b", &format!("/b?{number}"))
}

/// The stream of the request after it.
const LAST: u32 = 1_000_001;

const fn is_end(frame: &Frame) -> bool {
    matches!(frame.kind, HEADERS | DATA) && frame.has(END_STREAM) || frame.kind == RST_STREAM
}
