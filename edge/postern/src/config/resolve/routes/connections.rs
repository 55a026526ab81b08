//! Routes of connections and of datagrams (`from: tcp+https`, `udp+https`): what says nothing there, and what cannot be there
//! (01 §2.2, 02 §5.2, §5.3).

use std::collections::HashMap;

use postern_edge::route::{Authority, Carries};

use super::{Resolved, place};
use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::value::Field;

/// Keys that are about requests and their answers, of which a tunnel has none that we see.
const KEYS: [&str; 22] = [
    "prefix",
    "path",
    "regex",
    "prefix_rewrite",
    "regex_rewrite_pattern",
    "regex_rewrite_substitution",
    "host_rewrite",
    "host_rewrite_header",
    "host_path_regex_rewrite_pattern",
    "host_path_regex_rewrite_substitution",
    "preserve_host_header",
    "set_request_headers",
    "remove_request_headers",
    "set_response_headers",
    "rewrite_response_headers",
    "pass_identity_headers",
    "timeout",
    "allow_websockets",
    "allow_spdy",
    "allow_upgrades",
    "cors_allow_preflight",
    "max_request_body_bytes",
];

/// Values that say nothing wherever they stand.
const NOTHING: [&str; 4] = ["", "false", "0", "/"];

/// What such a route carries, for people.
const fn words(carries: Carries) -> &'static str {
    match carries {
        Carries::Connections => "connections",
        Carries::Datagrams => "datagrams",
    }
}

/// Tells of what has no effect.
pub(super) fn tell_unused(cx: &mut Context<'_>, route: &Block<'_>, carries: Carries) {
    for key in KEYS {
        let said = |field: &&Field<'_>| field.node.as_text().is_none_or(|text| !NOTHING.contains(&&*text));
        if let Some(field) = route.find(key).filter(said) {
            let what = format!("`{key}` has no effect: this route carries {}, and no requests", words(carries));
            cx.advise(Code::NoEffect, &field.key_at(), what, "remove it");
        }
    }
}

/// A redirect or a fixed answer is for requests.
pub(super) fn refuse_answers(cx: &mut Context<'_>, route: &Block<'_>, carries: Carries) {
    let key = if route.find("redirect").is_some() { "redirect" } else { "response" };
    let what = format!("`{key}` answers requests, and this route carries {}", words(carries));
    let hint = match carries {
        Carries::Connections => "write `to: tcp://host:port`",
        Carries::Datagrams => "write `to: udp://host:port`",
    };
    cx.fatal(Code::BadTarget, &route.at(key), what, hint);
}

/// Routes whose every tunnel earlier ones take: order decides among those that name a host, as among those with a pattern.
pub(super) fn hidden(cx: &mut Context<'_>, routes: &[Resolved]) {
    let mut first: HashMap<(Carries, &Authority), &Resolved> = HashMap::new();
    for one in routes {
        let Some(tunnel) = one.route.tunnel.as_deref() else { continue };
        let mut taken = Vec::new();
        for authority in &tunnel.authorities {
            let asked = (tunnel.carries, authority);
            taken.extend(first.get(&asked).copied().map(|earlier| place(&earlier.at)));
            first.entry(asked).or_insert(one);
        }
        if let Some(earlier) = taken.first().filter(|_| taken.len() == tunnel.authorities.len()) {
            let what = format!("no {} reach this route: {earlier} takes them all", words(tunnel.carries));
            cx.advise(Code::HiddenRoute, &one.at, what, "put this route before the other one, or remove it");
        }
    }
}
