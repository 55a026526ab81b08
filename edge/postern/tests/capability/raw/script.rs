//! The frames of a table: each step is one line, `KIND STREAM +FLAG ... ITEM ...`, and an item is a piece of the payload.
//!
//! | item | bytes |
//! |---|---|
//! | `hex:00ff`, `text:abc`, `u8:1`, `u16:1`, `u32:1` | as they are |
//! | `fill:N` | so many of `a` |
//! | `zeros:N` | so many of 0 |
//! | `set:ID=VALUE` | one setting |
//! | `get:/a`, `post:/a`, `head:/a` | the four pseudo fields, each a literal without indexing |
//! | `field:NAME=VALUE`, `never:`, `indexed:` | a literal of a new name: without indexing, never indexed, with indexing |
//! | `long:NAME=N`, `bomb:NAME=N` | the same as `field:` and `indexed:`, the value so many of `a` |
//! | `again:N` | so many times the newest entry of the dynamic table |
//! | `index:N`, `size:N` | an indexed field; an update of the dynamic table's size |
//! | `length:N` | none: the head of the frame says this length |
//!
//! `GET 1 /a` is short for a whole request, `POST 1 /a` for one whose body follows. `RAW` has no head of a frame. A number in
//! front, `600*`, repeats the steps of a line, which ` ; ` divides; `{n}` in them counts 1, 3, 5, … as streams do.

use anyhow::{Context, Result, anyhow, bail};

use super::bytes::latin1;
use super::wire::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, integer, string,
};
use crate::support::World;

/// What a client does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Writes that.
    Send(Vec<u8>),
    /// `@answer 1`: reads until the answer on this stream is whole.
    Answer(u32),
    /// `@head 1`: reads until the head of that answer is there.
    Head(u32),
    /// `@upstream`: waits until the upstream has another head.
    Upstream,
}

/// The steps of a table's line.
pub(super) fn steps(line: &str) -> Result<Vec<Step>> {
    let (times, line) = match line.split_once("* ") {
        Some((times, rest)) if times.bytes().all(|byte| byte.is_ascii_digit()) => (times.parse()?, rest),
        _ => (1_usize, line),
    };
    let mut all = Vec::new();
    for index in 0..times {
        let line = line.replace("{n}", &(2 * index + 1).to_string());
        for part in line.split(" ; ") {
            let step = step(part).with_context(|| format!("in {part:?}"))?;
            // What is repeated goes out in few writes.
            match (all.last_mut(), step) {
                (Some(Step::Send(bytes)), Step::Send(more)) if bytes.len() < 16 * 1024 => bytes.extend(more),
                (_, step) => all.push(step),
            }
        }
    }
    Ok(all)
}

fn step(line: &str) -> Result<Step> {
    let mut words = line.split(' ').filter(|word| !word.is_empty());
    let kind = words.next().context("an empty step")?;
    match kind {
        "@upstream" => return Ok(Step::Upstream),
        "@answer" => return Ok(Step::Answer(words.next().context("no stream")?.parse()?)),
        "@head" => return Ok(Step::Head(words.next().context("no stream")?.parse()?)),
        "RAW" => {
            let mut raw = Frame::default();
            words.try_for_each(|word| item(&mut raw, word))?;
            return Ok(Step::Send(raw.payload));
        }
        _ => {}
    }
    let stream = words.next().context("no stream")?.parse()?;
    let mut frame = Frame { stream, ..Frame::default() };
    if let "GET" | "POST" | "HEAD" = kind {
        frame.kind = HEADERS;
        frame.flags = if kind == "POST" { END_HEADERS } else { END_HEADERS | END_STREAM };
        let path = words.next().context("no path")?;
        item(&mut frame, &format!("{}:{path}", kind.to_ascii_lowercase()))?;
    } else {
        frame.kind =
            KINDS.iter().find(|(name, _)| *name == kind).map_or_else(|| number(kind), |(_, kind)| Ok(*kind))?;
    }
    for word in words {
        match word.strip_prefix('+') {
            Some(flag) => frame.flags |= self::flag(flag)?,
            None => item(&mut frame, word)?,
        }
    }
    Ok(Step::Send(frame.bytes()))
}

const KINDS: &[(&str, u8)] = &[
    ("DATA", DATA),
    ("HEADERS", HEADERS),
    ("PRIORITY", 2),
    ("RST_STREAM", RST_STREAM),
    ("SETTINGS", SETTINGS),
    ("PUSH_PROMISE", 5),
    ("PING", PING),
    ("GOAWAY", GOAWAY),
    ("WINDOW_UPDATE", 8),
    ("CONTINUATION", CONTINUATION),
];

/// `0x1f`.
fn number(text: &str) -> Result<u8> {
    let digits = text.strip_prefix("0x").with_context(|| format!("neither a name nor a number: {text}"))?;
    Ok(u8::from_str_radix(digits, 16)?)
}

fn flag(name: &str) -> Result<u8> {
    Ok(match name {
        "END_STREAM" | "ACK" => 1,
        "END_HEADERS" => 4,
        "PADDED" => 8,
        "PRIORITY" => 0x20,
        other => number(other)?,
    })
}

fn item(frame: &mut Frame, item: &str) -> Result<()> {
    let (kind, value) = item.split_once(':').context("no item")?;
    let out = &mut frame.payload;
    let count = || value.parse::<usize>().with_context(|| format!("no number: {value}"));
    let pair = || value.split_once('=').context("no =");
    match kind {
        "hex" => out.extend(hex(value)?),
        "text" => out.extend(latin1(value)),
        "u8" => out.push(value.parse()?),
        "u16" => out.extend(value.parse::<u16>()?.to_be_bytes()),
        "u32" => out.extend(value.parse::<u32>()?.to_be_bytes()),
        "fill" => out.extend(vec![b'a'; count()?]),
        "zeros" => out.extend(vec![0; count()?]),
        "set" => {
            let (id, value) = pair()?;
            out.extend(id.parse::<u16>()?.to_be_bytes());
            out.extend(value.parse::<u32>()?.to_be_bytes());
        }
        "get" | "post" | "head" => {
            let host = format!("open.{}", World::DOMAIN);
            let method = kind.to_ascii_uppercase();
            for (name, value) in [(":method", &*method), (":scheme", "https"), (":authority", &*host), (":path", value)]
            {
                literal(out, 0, (name, value));
            }
        }
        "field" => literal(out, 0, pair()?),
        "never" => literal(out, 0x10, pair()?),
        "indexed" => literal(out, 0x40, pair()?),
        "long" | "bomb" => {
            let (name, count) = pair()?;
            let first = if kind == "bomb" { 0x40 } else { 0 };
            literal(out, first, (name, &"a".repeat(count.parse()?)));
        }
        "again" => out.extend(vec![0x80 | 62; count()?]),
        "index" => integer(out, 0x80, 7, count()?),
        "size" => integer(out, 0x20, 5, count()?),
        "length" => frame.length = Some(count()?),
        other => bail!("no item {other:?}"),
    }
    Ok(())
}

/// A literal of a new name (RFC 7541 §6.2).
fn literal(out: &mut Vec<u8>, first: u8, (name, value): (&str, &str)) {
    out.push(first);
    string(out, &latin1(name));
    string(out, &latin1(value));
}

pub(super) fn hex(text: &str) -> Result<Vec<u8>> {
    let digit = |at: usize| text.get(at..at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    (0..text.len()).step_by(2).map(|at| digit(at).ok_or_else(|| anyhow!("no bytes: {text}"))).collect()
}
