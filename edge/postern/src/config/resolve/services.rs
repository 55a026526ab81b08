//! `services` (01 §1.3): which rooms this process is made of.

use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::value::quoted;
use crate::config::{Code, Role};

const ALL: [&str; 4] = ["authenticate", "authorize", "databroker", "proxy"];

/// The role of this process. `authorize` is a part of the edge, and `databroker` is the store (rulings): neither is a process.
pub(super) fn resolve(cx: &mut Context<'_>, settings: &Block<'_>) -> Role {
    let Some(names) = settings.texts(cx, "services") else { return Role::AllInOne };
    let at = settings.at("services");
    let mut found = Vec::new();
    for name in &names {
        match name.value.trim().to_ascii_lowercase().as_str() {
            "all" => found.extend(ALL),
            "cache" => found.push("databroker"),
            known if ALL.contains(&known) => found.extend(ALL.into_iter().filter(|service| *service == known)),
            _ => {
                let what = format!("there is no service {}", quoted(&name.value));
                cx.fatal(Code::BadService, &name.at, what, HINT);
                return Role::AllInOne;
            }
        }
    }
    match (found.contains(&"proxy"), found.contains(&"authenticate")) {
        (true, true) => Role::AllInOne,
        (true, false) => Role::Edge,
        (false, true) => Role::Authn,
        (false, false) if found.is_empty() => {
            cx.fatal(Code::BadService, &at, "the list of services is empty", HINT);
            Role::AllInOne
        }
        (false, false) => {
            let what =
                "these services are no processes here: `authorize` is a part of the proxy, `databroker` is the store";
            cx.fatal(
                Code::BadService,
                &at,
                what,
                "start no process for them, or write `proxy`, `authenticate` or `all`",
            );
            Role::AllInOne
        }
    }
}

const HINT: &str = "write `all`, `proxy` or `authenticate`, or remove the key";
