//! What connections may become: `allow_upgrades`, `allow_websockets`, `allow_spdy` (01 §2.1, §2.6).

use postern_edge::route::Upgrades;
use postern_edge::{Upgrade, is_upgrade};

use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::value::quoted;

/// `allow_upgrades` at the top: what every route allows that says nothing itself.
pub(super) fn global(cx: &mut Context<'_>, settings: &Block<'_>) -> Vec<String> {
    list(cx, settings, "remove it; it is never asked of an upstream").unwrap_or_default()
}

/// Those of a route: its own list, else the global one; and what its flags add. A Kubernetes API is always asked for both
/// (01 §2.6).
pub(super) fn of_route(cx: &mut Context<'_>, route: &Block<'_>, (global, kubernetes): (&[String], bool)) -> Upgrades {
    let hint = if global.is_empty() {
        "remove it; it is never asked of an upstream"
    } else {
        "remove it, but keep the list, even an empty one: a route without one takes the global one"
    };
    let own = list(cx, route, hint);
    let listed = own.as_deref().unwrap_or(global).iter().map(String::as_str);
    let flags = [("allow_websockets", Upgrade::WEBSOCKET), ("allow_spdy", SPDY)];
    let flags = flags.map(|(key, token)| (route.flag(cx, key) || kubernetes).then_some(token));
    Upgrades::new(listed.chain(flags.into_iter().flatten()))
}

/// What `kubectl` asks for, to run commands and to forward ports.
const SPDY: &str = "spdy/3.1";

/// The names in `allow_upgrades`, in lower case; empty ones are ignored (01 §2.1).
fn list(cx: &mut Context<'_>, block: &Block<'_>, hint: &str) -> Option<Vec<String>> {
    let mut found = Vec::new();
    for text in block.texts(cx, "allow_upgrades")? {
        let name = text.value.trim().to_ascii_lowercase();
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/".contains(c);
        if name.is_empty() {
            continue;
        }
        if is_upgrade(&name) {
            found.push(name);
        } else if name.chars().all(token)
            && name.split('/').all(|part| !part.is_empty())
            && name.matches('/').count() < 2
        {
            let what = format!("{} has no effect: it is no other protocol, but HTTP in another version", quoted(&name));
            cx.advise(Code::NoEffect, &text.at, what, hint);
        } else {
            let what = format!("{} is no name of a protocol", quoted(&name));
            cx.fatal(Code::BadHeader, &text.at, what, "write `websocket`, `spdy/3.1`, or another token");
        }
    }
    Some(found)
}
