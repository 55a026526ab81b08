//! The reference of every key, made from the tables that the load itself uses.

use std::fmt::Write as _;

use super::keys::{CERTIFICATE, FLAGS, Key, REDIRECT, RESPONSE, ROUTE, SETTINGS, Scope, Status};

/// Every key with its type, default and status, and every flag, as Markdown tables.
#[must_use]
pub fn reference() -> String {
    let mut out = String::new();
    for (title, scope) in [
        ("Top of the file", &SETTINGS),
        ("A route", &ROUTE),
        ("`redirect` of a route", &REDIRECT),
        ("`response` of a route", &RESPONSE),
        ("An entry of `certificates`", &CERTIFICATE),
    ] {
        // Writing to a string cannot fail.
        let _infallible = keys(&mut out, title, scope);
    }
    let _infallible = flags(&mut out);
    out
}

fn keys(out: &mut String, title: &str, scope: &Scope) -> std::fmt::Result {
    writeln!(out, "## {title}\n\n| key | type | default | status |\n| --- | --- | --- | --- |")?;
    for Key { name, kind, default, status } in scope.keys {
        let default = if default.is_empty() { "" } else { default };
        writeln!(out, "| `{name}` | {kind} | {default} | {} |", told(*status))?;
    }
    writeln!(out)
}

fn told(status: Status) -> String {
    match status {
        Status::Works => "works".to_owned(),
        Status::NotYet => "not supported yet; refused".to_owned(),
        Status::NotYetHarmless => "not supported yet; ignored with a warning".to_owned(),
        Status::NoEffect(why) => format!("no effect; {why}"),
        Status::Removed(instead) => format!("removed; {instead}"),
    }
}

fn flags(out: &mut String) -> std::fmt::Result {
    writeln!(out, "## `runtime_flags`\n\n| flag | default | status |\n| --- | --- | --- |")?;
    for (name, default, status) in FLAGS {
        writeln!(out, "| `{name}` | {} | {} |", if *default { "on" } else { "off" }, told(*status))?;
    }
    writeln!(out)
}
