//! `services` (01 §1.3), and the service URLs that a process with all of them does not need.

use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::value::quoted;

const ALL: [&str; 4] = ["authenticate", "authorize", "databroker", "proxy"];

/// Refuses what one process with all services cannot be.
pub(super) fn resolve(cx: &mut Context<'_>, settings: &Block<'_>) {
    let Some(names) = settings.texts(cx, "services") else { return };
    let at = settings.at("services");
    let mut found = Vec::new();
    for name in &names {
        match name.value.trim().to_ascii_lowercase().as_str() {
            "all" => found.extend(ALL),
            "cache" => found.push("databroker"),
            known if ALL.contains(&known) => found.extend(ALL.into_iter().filter(|service| *service == known)),
            _ => {
                let what = format!("there is no service {}", quoted(&name.value));
                cx.fatal(Code::BadService, &name.at, what, "write `all`, or remove the key");
                return;
            }
        }
    }
    if found.is_empty() {
        cx.fatal(Code::BadService, &at, "the list of services is empty", "write `all`, or remove the key");
    } else if ALL.iter().any(|service| !found.contains(service)) {
        let what = "a process with only some of the services is not supported yet";
        cx.fatal(Code::NotYet, &at, what, "write `services: all`");
    }
}
