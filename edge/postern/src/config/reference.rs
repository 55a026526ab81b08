//! The reference of every key, made from the tables that the load itself uses.

use std::fmt::Write as _;

use super::keys::{FLAGS, Key, SCOPES, Scope};

/// Every key with its type, default, variable, status and difference, and every flag, as Markdown tables.
#[must_use]
pub fn reference() -> String {
    let mut out = String::new();
    for (title, scope) in SCOPES {
        // Writing to a string cannot fail.
        let _infallible = keys(&mut out, title, scope);
    }
    let _infallible = flags(&mut out);
    out
}

fn keys(out: &mut String, title: &str, scope: &Scope) -> std::fmt::Result {
    writeln!(out, "## {title}\n")?;
    if scope.keys.is_empty() {
        return writeln!(out, "It holds no keys: write `{{}}`.\n");
    }
    let named = scope.prefix.is_some();
    let (head, rule) = if named { (" variable |", " --- |") } else { ("", "") };
    writeln!(out, "| key | type | default |{head} status | differs from Pomerium |")?;
    writeln!(out, "| --- | --- | --- |{rule} --- | --- |")?;
    for key @ Key { name, kind, default, status, differs, .. } in scope.keys {
        let variable = scope.variable(key).map_or_else(|| "none".to_owned(), |variable| format!("`{variable}`"));
        let variable = if named { format!(" {variable} |") } else { String::new() };
        writeln!(out, "| `{name}` | {kind} | {default} |{variable} {} | {differs} |", status.told())?;
    }
    writeln!(out)
}

fn flags(out: &mut String) -> std::fmt::Result {
    writeln!(out, "## `runtime_flags`\n\n| flag | default | status |\n| --- | --- | --- |")?;
    for (name, default, status) in FLAGS {
        writeln!(out, "| `{name}` | {} | {} |", if *default { "on" } else { "off" }, status.told())?;
    }
    writeln!(out)
}
