//! `prefix`, `path` and `regex`: what the path must be (01 §2.4).

use postern_edge::route::PathMatcher;

use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::value::{Spanned, quoted};

/// The matcher, and the text that it was read from.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) matcher: PathMatcher,
    pub(super) written: String,
}

impl Written {
    /// A readable name for a route that has none: its `from`, and its path if it says more than `/`.
    pub(super) fn named(&self, from: &str) -> String {
        let host = from.split_once("://").map_or(from, |(_, rest)| rest).trim_end_matches('/');
        match &self.matcher {
            PathMatcher::Prefix(prefix) if prefix == "/" => host.to_owned(),
            PathMatcher::Prefix(path) | PathMatcher::Exact(path) => format!("{host}{path}"),
            PathMatcher::Regex(_) => format!("{host} {}", self.written.trim_start_matches("regex ")),
        }
    }
}

/// Only the first present of `regex`, `path`, `prefix` counts. Where requests are `normalize`d, so are `path` and `prefix`: a
/// route that is never found leaves its paths to whichever comes next.
pub(super) fn resolve(cx: &mut Context<'_>, route: &Block<'_>, normalize: bool) -> Option<Written> {
    let (regex, path, prefix) = (route.filled(cx, "regex"), route.filled(cx, "path"), route.filled(cx, "prefix"));
    tell_unused(cx, [("regex", &regex), ("path", &path), ("prefix", &prefix)]);
    if let Some(regex) = regex {
        tell_small_escapes(cx, &regex, normalize);
        return compiled(cx, &regex);
    }
    let (key, text) = match (path, prefix) {
        (Some(path), _) => ("path", path),
        (None, Some(prefix)) => ("prefix", prefix),
        (None, None) => {
            return Some(Written { matcher: PathMatcher::Prefix("/".to_owned()), written: "prefix /".to_owned() });
        }
    };
    let written = format!("{key} {}", text.value);
    let value = if normalize { canonical_escapes(&text.value) } else { text.value };
    let text = Spanned { value, at: text.at };
    refuse_reserved(cx, key, &text);
    if let Err(why) = absolute(&text.value) {
        let what = format!("`{key}` {why}");
        cx.advise(Code::BadTarget, &text.at, what, "no request has such a path; write one that begins with `/`");
    } else if normalize && ["//", "/./", "/../"].iter().any(|odd| text.value.contains(odd)) {
        let what = format!("`{key}` holds an empty or a dot segment");
        cx.advise(
            Code::BadTarget,
            &text.at,
            what,
            "no request has such a path once it is normalized; write it without",
        );
    }
    let matcher = if key == "path" { PathMatcher::Exact(text.value) } else { PathMatcher::Prefix(text.value) };
    Some(Written { matcher, written })
}

/// A path with its escapes as canonical requests have them (03 §3.1 step 4): unreserved characters as they are, all others
/// with upper-case digits.
fn canonical_escapes(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        match after.split_at_checked(2).and_then(|(digits, after)| Some((escaped(digits)?, after))) {
            Some((byte, after)) => {
                if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                    out.push(char::from(byte));
                } else {
                    out.push_str(&format!("%{byte:02X}"));
                }
                rest = after;
            }
            None => {
                out.push('%');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// The byte of two hex digits.
fn escaped(digits: &str) -> Option<u8> {
    let hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if hex { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// Tells of escapes in an expression that no canonical path has.
fn tell_small_escapes(cx: &mut Context<'_>, regex: &Spanned<String>, normalize: bool) {
    let small = |after: &str| {
        let digits = after.get(..2).unwrap_or_default();
        escaped(digits).is_some() && digits.bytes().any(|digit| digit.is_ascii_lowercase())
    };
    if normalize && regex.value.split('%').skip(1).any(small) {
        let hint = "write the digits of escapes in upper case, as in `%C3%A9`";
        cx.advise(Code::BadTarget, &regex.at, "`regex` holds an escape that no normalized path has", hint);
    }
}

fn tell_unused(cx: &mut Context<'_>, keys: [(&str, &Option<Spanned<String>>); 3]) {
    let mut present = keys.iter().filter_map(|(key, text)| text.as_ref().map(|text| (key, text)));
    let Some((first, _)) = present.next() else { return };
    for (key, text) in present {
        let what = format!("`{key}` is not looked at next to `{first}`");
        cx.advise(Code::Conflict, &text.at, what, format!("remove `{key}`, or `{first}`"));
    }
}

fn compiled(cx: &mut Context<'_>, text: &Spanned<String>) -> Option<Written> {
    match PathMatcher::regex(&text.value) {
        Ok(matcher) => {
            if matches!(&matcher, PathMatcher::Regex(regex) if regex.is_costly()) {
                let what = "`regex` needs so many states that a long path costs much";
                let hint = "repeat less often or without an end, or begin with fixed text in place of `.*`";
                cx.advise(Code::CostlyRegex, &text.at, what, hint);
            }
            Some(Written { matcher, written: format!("regex {}", text.value) })
        }
        Err(error) => {
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            let what = format!("`regex` cannot be compiled: {why}");
            cx.fatal(Code::BadRegex, &text.at, what, "RE2 syntax holds: no look-around and no back-references");
            None
        }
    }
}

/// Paths under which only Postern answers: no route can claim them (S-036).
fn refuse_reserved(cx: &mut Context<'_>, key: &str, text: &Spanned<String>) {
    let path = text.value.as_str();
    let within = |root: &str| path == root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
    if within("/.pomerium") || within("/.well-known/pomerium") {
        let what = format!("{} belongs to Postern itself", quoted(path));
        cx.fatal(Code::ReservedPath, &text.at, what, "remove the route; these paths are answered on every host");
    } else if matches!(path, "/ping" | "/healthz") {
        let what = format!("Postern answers {} itself, on every host", quoted(path));
        cx.advise(Code::ReservedPath, &text.at, what, format!("give the upstream's own check another `{key}`"));
    }
}

/// Whether a text is a path that a canonical request can have.
pub(super) fn absolute(path: &str) -> Result<(), &'static str> {
    if !path.starts_with('/') {
        return Err("does not begin with `/`");
    }
    if path.contains(['?', '#']) {
        return Err("holds a `?` or `#`, which never is part of a path");
    }
    if path.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err("holds a space, a control character or a letter outside of ASCII: write it percent-encoded");
    }
    Ok(())
}
