//! Compares what came of a case with what must come of it, and every request that an upstream saw with what holds for all.

use std::collections::BTreeMap;

use super::case::{Case, Over, Parts};
use super::got::Outcome;
use super::upstream::Seen;

/// All that is wrong with what came of a case, one line each.
pub(super) fn faults(case: &Case, over: Over, outcome: &Outcome, seen: &[Seen]) -> Vec<String> {
    let mut faults = Vec::new();
    answers(case, over, outcome, &mut faults);
    let (fences, seen): (Vec<_>, Vec<_>) = seen.iter().partition(|seen| seen.is_fence());
    if fences.len() != 1 {
        faults.push(format!("{} fences came up", fences.len()));
    }
    let wanted = case.up.all();
    if wanted.len() != seen.len() {
        faults.push(format!("{} requests came up, not {}", seen.len(), wanted.len()));
    }
    for (index, (wanted, seen)) in wanted.iter().zip(&seen).enumerate() {
        let mut parts = wanted.parts();
        if parts.line.is_none()
            && let Some(target) = &parts.target
        {
            parts.line = Some(format!("{} {target} HTTP/1.1", case.method));
        }
        request(&parts, seen, &format!("request {index} upstream"), &mut faults);
    }
    // What was cut, or answered in two ways, leaves a connection that nobody may trust again (S-012, S-013).
    let distrusted = seen.iter().filter(|seen| seen.cut).chain(seen.last().filter(|_| distrusts(case)));
    for seen in distrusted {
        if fences.iter().any(|fence| fence.connection == seen.connection) {
            faults.push(format!("connection {} went on to be used", seen.connection));
        }
    }
    faults
}

fn distrusts(case: &Case) -> bool {
    case.answer.is_some() && (case.short || case.status.all().last() == Some(&502))
}

fn answers(case: &Case, over: Over, outcome: &Outcome, faults: &mut Vec<String>) {
    let statuses: Vec<u16> = outcome.answers.iter().map(|got| got.status).collect();
    let wanted: Vec<u16> = case.status.all().iter().copied().filter(|status| *status != 0).collect();
    if over == Over::H2 {
        if !(case.reset && outcome.closed || statuses == wanted && outcome.closed == wanted.is_empty()) {
            faults.push(format!("answered {statuses:?} (error: {}), not {wanted:?}", outcome.closed));
        }
    } else {
        if statuses != wanted && !(case.reset && statuses.is_empty() && outcome.closed) {
            faults.push(format!("answered {statuses:?}, not {wanted:?}"));
        }
        if !case.either && case.tail.is_none() && outcome.closed != case.closed {
            faults.push(format!("the connection was {}", if outcome.closed { "closed" } else { "kept" }));
        }
        if !(case.either || case.tail.is_some() || case.closed || outcome.closed || outcome.usable) {
            faults.push("the next request on the connection went wrong".to_owned());
        }
        if !outcome.rest.is_empty() {
            faults.push(format!("more came: {:?}", outcome.rest));
        }
    }
    let tail = case.tail.as_deref().unwrap_or_default();
    if outcome.tail != tail {
        faults.push(format!("after the 101 came {:?}, not {tail:?}", outcome.tail));
    }
    let Some(last) = outcome.answers.last() else { return };
    if last.short != case.short {
        faults.push(format!("the answer came {}: {:?}", if last.short { "in part" } else { "whole" }, last.body));
    }
    if let Some(words) = &case.says
        && !last.body.contains(words)
    {
        faults.push(format!("the answer does not say {words:?}: {:?}", last.body));
    }
    if let Some(body) = &case.exactly
        && last.body != *body
    {
        faults.push(format!("the answer is not {body:?}: {:?}", last.body));
    }
    fields(&case.with, |name| last.values(name).join("|"), "the answer", faults);
    for name in ["connection", "keep-alive", "transfer-encoding", "proxy-connection"] {
        if over == Over::H2 && !last.values(name).is_empty() {
            faults.push(format!("the answer has {name} in HTTP/2"));
        }
    }
}

fn request(wanted: &Parts, seen: &Seen, place: &str, faults: &mut Vec<String>) {
    if let Some(line) = &wanted.line
        && seen.line != *line
    {
        faults.push(format!("{place}: {:?}, not {line:?}", seen.line));
    }
    fields(&wanted.with, |name| seen.values(name).join("|"), place, faults);
    let body: String = super::bytes::text(&seen.body);
    if let Some(wanted) = &wanted.body
        && body != *wanted
    {
        faults.push(format!("{place}: body {body:?}, not {wanted:?}"));
    }
    let piped = super::bytes::text(&seen.piped);
    if let Some(wanted) = &wanted.piped
        && piped != *wanted
    {
        faults.push(format!("{place}: after the 101 {piped:?}, not {wanted:?}"));
    }
    if seen.complete == wanted.cut {
        faults.push(format!("{place}: came {}", if seen.complete { "whole" } else { "in part" }));
    }
}

fn fields(
    wanted: &BTreeMap<String, Option<String>>,
    found: impl Fn(&str) -> String,
    place: &str,
    faults: &mut Vec<String>,
) {
    for (name, value) in wanted {
        let found = found(name);
        match value.as_deref() {
            None if !found.is_empty() => faults.push(format!("{place}: has {name}: {found}")),
            Some("") if found.is_empty() => faults.push(format!("{place}: has no {name}")),
            Some(value) if !value.is_empty() && found != value => {
                faults.push(format!("{place}: {name}: {found:?}, not {value:?}"));
            }
            _ => {}
        }
    }
}

/// What is wrong with a request whatever case it belongs to. `secrets` are session cookies.
pub(super) fn breaches<'s>(seen: &Seen, secrets: impl Iterator<Item = &'s str>) -> Vec<String> {
    let mut breaches: Vec<String> = seen.fault.iter().filter(|_| !seen.cut || seen.complete).cloned().collect();
    let mut breach = |holds: bool, what: &str| {
        if !holds {
            breaches.push(what.to_owned());
        }
    };
    let (lengths, codings) = (seen.values("content-length"), seen.values("transfer-encoding"));
    breach(lengths.len() + codings.len() <= 1, "S-001: it is framed twice");
    breach(codings.iter().all(|coding| *coding == "chunked"), "S-001: its coding is not chunked");
    let digits = |length: &&str| (1..=18).contains(&length.len()) && length.bytes().all(|byte| byte.is_ascii_digit());
    breach(lengths.iter().all(digits), "S-001: its length is no number");
    breach(seen.values("host").len() == 1, "it has not one Host");
    breach(is_canonical(seen.target()), "S-021: its path is not canonical");
    breach(!seen.head.replace("\r\n", "").contains(|byte: char| byte < ' ' && byte != '\t'), "S-006: control bytes");
    for secret in secrets {
        breach(!seen.head.contains(secret), "S-041: it has a session cookie");
    }
    for (name, value) in &seen.fields {
        let sound = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        breach(sound, &format!("S-038: the name {name:?}"));
        breach(!is_ours(name) || !value.contains("forged"), &format!("S-038: {name}: {value}"));
        breach(!is_of_the_connection(name, value), &format!("S-039: {name}: {value}"));
    }
    breaches
}

/// Nobody but us says this.
fn is_ours(name: &str) -> bool {
    let folded = name.to_ascii_lowercase().replace(['_', '.'], "-");
    let family = |prefix: &&str| folded.starts_with(prefix);
    OURS.iter().any(family)
}

const OURS: &[&str] = &[
    "x-pomerium-",
    "x-postern-",
    "x-company-groups",
    "x-forwarded-",
    "forwarded",
    "x-real-ip",
    "x-original-",
    "x-rewrite-url",
    "x-envoy-",
    "x-client-cert",
    "client-cert",
    "x-request-id",
    "x-gone",
    "x-set",
];

fn is_of_the_connection(name: &str, value: &str) -> bool {
    match name.to_ascii_lowercase().as_str() {
        "keep-alive"
        | "proxy-connection"
        | "proxy-authenticate"
        | "proxy-authorization"
        | "trailer"
        | "http2-settings" => true,
        "te" => value != "trailers",
        "upgrade" => !["websocket", "SPDY/3.1", "tcp", "Foo/2"].contains(&value),
        "connection" => !value.eq_ignore_ascii_case("upgrade") && value != "keep-alive",
        _ => false,
    }
}

/// 03 §3.1: nothing is left in it that another reader could take for something else.
pub(super) fn is_canonical(target: &str) -> bool {
    if target == "*" {
        return true;
    }
    let path = target.split('?').next().unwrap_or_default();
    let dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
    let bytes = target.bytes().all(|byte| matches!(byte, 0x21..=0x7e) && !matches!(byte, b'#'));
    path.starts_with('/')
        && bytes
        && !path.contains("//")
        && !path.contains('\\')
        && !path.split('/').any(dots)
        && escapes(path).all(|escape| is_kept(&escape))
}

/// What follows each `%`.
fn escapes(path: &str) -> impl Iterator<Item = String> {
    path.split('%').skip(1).map(|rest| rest.chars().take(2).collect())
}

/// An escape of upper-case digits that stands for neither a control byte, a separator nor an unreserved character.
fn is_kept(escape: &str) -> bool {
    let upper = escape.len() == 2 && escape.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'));
    let Some(byte) = u8::from_str_radix(escape, 16).ok().filter(|_| upper) else { return false };
    !(byte < 0x20 || matches!(byte, 0x7f | b'/' | b'\\' | b'-' | b'.' | b'_' | b'~') || byte.is_ascii_alphanumeric())
}
