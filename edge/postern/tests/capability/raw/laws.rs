//! What holds for every path, every framing and every name, whatever an attacker thinks of next (S-001, S-003, S-004, S-021,
//! S-022, S-023, S-025, S-027, S-038).

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, ensure};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use tokio::runtime::Runtime;

use super::edge::Edge;
use super::got::Got;
use super::judge::{breaches, is_canonical};
use super::upstream::Seen;
use super::{h1, h2};
use crate::support::eventually;

/// Tries `law` on so many inputs, against one edge where nobody is signed in.
pub(super) fn holds<S: Strategy>(
    cases: u32,
    inputs: &S,
    law: &impl AsyncFn(&Edge, S::Value) -> Result<()>,
    end: &impl AsyncFn(&Edge) -> Result<()>,
) -> Result<()> {
    let runtime = Runtime::new()?;
    let edge = runtime.block_on(Edge::start_without_provider())?;
    let config = Config { cases, failure_persistence: None, max_shrink_time: 10_000, ..Config::default() };
    let tried = TestRunner::new(config).run(inputs, |input| {
        runtime.block_on(law(&edge, input)).map_err(|error| TestCaseError::fail(format!("{error:#}")))
    });
    tried.map_err(|error| anyhow!("{error}"))?;
    runtime.block_on(end(&edge))?;
    Ok(())
}

async fn ask(edge: &Edge, request: &str) -> Result<Option<Got>> {
    let mut client = h1::Client::new(edge.connect("open", "http/1.1").await?);
    client.send(request).await;
    client.answer(false).await
}

/// Nothing that reached the upstream breaks what holds for every request.
fn ensure_sound(seen: &[Seen]) -> Result<()> {
    for seen in seen {
        let breaches = breaches(seen, std::iter::empty());
        ensure!(breaches.is_empty(), "{breaches:?} in {:?}", seen.head);
    }
    Ok(())
}

const PIECES: &[&str] = &[
    "/", "//", "/", "/", "public", "closed", "exact", "n1", "secret", ".", "..", "...", "/../", "/./", "%2e", "%2E.",
    "%2f", "%2F", "%5c", "\\", ";", "..;", ";x=1", "%3b", "%25", "%252e", "%2525", "%41", "%7e", "%c3%a9", "%c0%ae",
    "%ff", "%00", "%0a", "%", "%zz", "#", "?", "?x=%2f..", "=", "&", "~", "'", "[", "|", "a", "Z", "é",
];

fn target() -> impl Strategy<Value = String> {
    let start = select(vec!["/public/", "/closed/", "/", "/n1/", "/exact", "//public", "/./public/"]);
    (start, prop::collection::vec(select(PIECES), 0..7)).prop_map(|(start, pieces)| [start, &pieces.concat()].concat())
}

/// Whether some public route of `mixed` has this path.
fn is_public(path: &str) -> bool {
    let numbered = path.strip_prefix("/n").and_then(|rest| rest.split_once('/'));
    let numbered =
        numbered.is_some_and(|(digits, _)| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()));
    path.starts_with("/public/") || path == "/exact" || numbered
}

/// The path as the most lenient upstream might read it: decoded again, parameters cut, backslashes turned, slashes merged,
/// dots resolved.
fn read_leniently(path: &str) -> String {
    let decoded = percent_decoded(path).replace('\\', "/");
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/').map(|segment| segment.split(';').next().unwrap_or_default()) {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            name => segments.push(name),
        }
    }
    let last = decoded.rsplit('/').next().unwrap_or_default();
    let is_folder = matches!(last.split(';').next(), Some("" | "." | ".."));
    let slash = if is_folder && !segments.is_empty() { "/" } else { "" };
    format!("/{}{slash}", segments.join("/"))
}

fn percent_decoded(path: &str) -> String {
    let mut pieces = path.split('%');
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let byte = piece.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.zip(piece.get(2..)) {
            Some((byte, rest)) => {
                out.push(char::from(byte));
                out += rest;
            }
            None => {
                out.push('%');
                out += piece;
            }
        }
    }
    out
}

#[test]
fn s_021_s_022_s_025_a_path_has_one_reading_for_policy_log_and_upstream() -> Result<()> {
    holds(400, &target(), &a_path_has_one_reading, &policy_saw_what_the_upstream_got)
}

async fn a_path_has_one_reading(edge: &Edge, target: String) -> Result<()> {
    let first = edge.upstream.count();
    let got = ask(edge, &format!("GET {target} HTTP/1.1\r\nHost: mixed.corp.localhost\r\n\r\n")).await?;
    let status = got.context("no answer")?.status;
    let seen = edge.upstream.seen(first);
    ensure_sound(&seen)?;
    let Some(seen) = seen.first() else {
        ensure!((300..500).contains(&status), "{target:?}: {status}, and nothing came up");
        return in_h2(edge, &target, None).await;
    };
    let (path, query) = split(seen.target());
    ensure!(is_canonical(path), "S-023: {target:?} went up as {path:?}");
    ensure!(query == split(&target).1, "S-027: {target:?} went up with {query:?}");
    ensure!(is_public(path), "S-033: {target:?} went up as {path:?}");
    let lenient = read_leniently(path);
    ensure!(is_public(&lenient), "S-022: {target:?} went up as {path:?}, which may be read as {lenient:?}");
    let before = edge.upstream.count();
    ask(edge, &format!("GET {} HTTP/1.1\r\nHost: mixed.corp.localhost\r\n\r\n", seen.target())).await?;
    let again = edge.upstream.seen(before);
    ensure!(again.first().is_some_and(|again| again.target() == seen.target()), "S-025: {again:?} after {seen:?}");
    in_h2(edge, &target, Some(seen.target())).await
}

/// HTTP/2 reads the same path the same way (S-016).
async fn in_h2(edge: &Edge, target: &str, expected: Option<&str>) -> Result<()> {
    // What the library cuts off, and what is no text, has cases of its own.
    if target.contains('#') || !target.is_ascii() {
        return Ok(());
    }
    let first = edge.upstream.count();
    let fields = [(":method", "GET"), (":scheme", "https"), (":authority", "mixed.corp.localhost"), (":path", target)];
    let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let mut client = h2::Client::new(edge.connect("open", "h2").await?).await?;
    client.ask(h2::Frames { fields, ..h2::Frames::default() }).await?;
    let seen = edge.upstream.seen(first);
    let found = seen.first().map(Seen::target);
    ensure!(found == expected, "S-016: {target:?} is {expected:?} in HTTP/1 and {found:?} in HTTP/2");
    Ok(())
}

fn split(target: &str) -> (&str, Option<&str>) {
    target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)))
}

async fn policy_saw_what_the_upstream_got(edge: &Edge) -> Result<()> {
    let seen = edge.upstream.seen(0);
    ensure!(seen.len() > 50, "only {} requests came up: the law was not tried", seen.len());
    let id = |seen: &Seen| seen.values("x-request-id").concat();
    let last = seen.last().map(id).unwrap_or_default();
    let decided = async || {
        let lines = edge.postern.log();
        let decided = lines.iter().filter(|line| line.get("message").is_some_and(|text| text == "authorize check"));
        let text = |line: &serde_json::Value, key| line.get(key).and_then(|value| value.as_str()).map(str::to_owned);
        let paths: BTreeMap<_, _> =
            decided.filter_map(|line| Some((text(line, "request-id")?, text(line, "path")?))).collect();
        paths.contains_key(&last).then_some(paths)
    };
    let paths = eventually("the last line of the authorize log", decided).await?;
    for seen in &seen {
        let decided = paths.get(&id(seen)).map(String::as_str);
        let path = split(seen.target()).0;
        ensure!(decided == Some(path), "S-021: the policy saw {decided:?}, the upstream {path:?}");
    }
    Ok(())
}

pub(super) const FRAMING: &[&str] = &[
    "Content-Length: 5",
    "Content-Length: 5",
    "Content-Length: 0",
    "Content-Length: 05",
    "Content-Length: 6, 5",
    "Content-Length: +5",
    "content-length:5",
    "Content-Length : 5",
    "Content_Length: 5",
    "Content-Length: 5\n",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: chunked",
    "transfer-encoding:\tChunked ",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding : chunked",
    "Transfer_Encoding: chunked",
    "Transfer-Encoding: \x0bchunked",
    "X: 1\r\n Transfer-Encoding: chunked",
    "X: 1\nTransfer-Encoding: chunked",
    "Connection: Content-Length",
    "Connection: Transfer-Encoding",
    "Expect: 100-continue",
    "TE: chunked",
    "Upgrade: h2c",
    "X: 1",
];

const BODIES: &[&str] = &[
    "",
    "hello",
    "0\r\n\r\n",
    "5\r\nhello\r\n0\r\n\r\n",
    "5;x=\r\nhello\r\n0\r\nX: 1\r\n\r\n",
    "5\nhello\n0\n\n",
    "05\r\nhello\r\n00\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "hello0\r\n\r\n",
];

#[test]
fn s_001_s_003_s_004_a_message_has_one_framing_upstream_and_nothing_is_smuggled() -> Result<()> {
    let methods = select(vec!["POST", "GET", "PUT", "HEAD", "OPTIONS"]);
    let versions = select(vec!["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0"]);
    let inputs = (methods, versions, prop::collection::vec(select(FRAMING), 0..4), select(BODIES));
    holds(250, &inputs, &a_message_has_one_framing, &async |_: &Edge| Ok(()))
}

async fn a_message_has_one_framing(
    edge: &Edge,
    (method, version, framing, body): (&str, &str, Vec<&str>, &str),
) -> Result<()> {
    let lines: String = framing.iter().map(|line| format!("{line}\r\n")).collect();
    let first = edge.upstream.count();
    // What follows is behind the message for one reading at least. It needs a session, so that it never may go up.
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: app.corp.localhost\r\n\r\n";
    let request = format!("{method} /law {version}\r\nHost: open.corp.localhost\r\n{lines}\r\n{body}{smuggled}");
    let mut client = h1::Client::new(edge.connect("open", "http/1.1").await?);
    client.send(&request).await;
    client.half_close().await;
    let first_answer = client.answer(method == "HEAD").await?;
    ensure!(first_answer.is_some() || !edge.upstream.seen(first).is_empty(), "no answer to {request:?}");
    client.end().await?;
    let seen = edge.upstream.seen(first);
    ensure_sound(&seen)?;
    ensure!(seen.len() <= 1, "{} requests came up of {request:?}", seen.len());
    let strange = seen.iter().find(|seen| seen.target() != "/law" || !matches!(seen.body.as_slice(), b"" | b"hello"));
    ensure!(
        strange.is_none_or(|seen| seen.target() == "/law" && seen.values("transfer-encoding").is_empty()),
        "{strange:?} came up of {request:?}"
    );
    let next = ask(edge, "GET /fence HTTP/1.1\r\nHost: open.corp.localhost\r\n\r\n").await?;
    ensure!(next.is_some_and(|got| got.status == 200 && got.body == "ok"), "the next request after {request:?}");
    Ok(())
}

#[test]
fn s_038_no_spelling_of_a_reserved_name_reaches_an_upstream() -> Result<()> {
    let names = select(vec![
        "x-pomerium-jwt-assertion",
        "x-pomerium-claim-email",
        "x-company-groups",
        "x-postern-user",
        "x-forwarded-for",
        "x-real-ip",
        "forwarded",
        "x-original-url",
        "client-cert",
    ]);
    let odd = prop::collection::vec(select(vec!["-", "-", "_", ".", "~", "+", "|"]), 4);
    let cases = prop::collection::vec(any::<bool>(), 32);
    let inputs = (names, odd, cases, any::<bool>()).prop_map(|(name, odd, upper, connection)| {
        let mut odd = odd.into_iter();
        let spelled: String = name
            .chars()
            .zip(upper.into_iter().cycle())
            .map(|(character, upper)| match character {
                '-' => odd.next().unwrap_or("-").to_owned(),
                _ if upper => character.to_ascii_uppercase().to_string(),
                _ => character.to_string(),
            })
            .collect();
        (spelled, connection)
    });
    holds(250, &inputs, &no_spelling_goes_up, &async |edge: &Edge| {
        ensure!(edge.upstream.count() > 10, "the law was not tried");
        Ok(())
    })
}

async fn no_spelling_goes_up(edge: &Edge, (name, connection): (String, bool)) -> Result<()> {
    let first = edge.upstream.count();
    let connection = if connection { format!("Connection: {name}\r\n") } else { String::new() };
    let request = format!("GET /law HTTP/1.1\r\nHost: told.corp.localhost\r\n{connection}{name}: forged\r\n\r\n");
    let got = ask(edge, &request).await?.context("no answer")?;
    let seen = edge.upstream.seen(first);
    ensure_sound(&seen)?;
    ensure!(seen.len() == usize::from(got.status == 200), "{} for {name}: {seen:?}", got.status);
    for seen in &seen {
        ensure!(!seen.head.contains("forged"), "S-038: {name}: {:?}", seen.head);
    }
    Ok(())
}
