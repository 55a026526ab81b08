//! Where sessions are kept (01 §1.9).

use std::path::PathBuf;

use postern_storage::StorageConfig;

use super::secrets::tell_inline;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::value::{Spanned, quoted};
use crate::config::{At, Code};

const KEY: &str = "databroker_storage_connection_string";
const FILE_KEY: &str = "databroker_storage_connection_string_file";

/// The file in the configured folder.
const FILE: &str = "postern.redb";

pub(super) fn resolve(cx: &mut Context<'_>, settings: &Block<'_>) -> Option<StorageConfig> {
    let connection = connection(cx, settings);
    let Some(kind) = settings.filled(cx, "databroker_storage_type") else { return Some(StorageConfig::Memory) };
    match kind.value.to_ascii_lowercase().as_str() {
        "memory" => Some(StorageConfig::Memory),
        "file" => file(cx, settings, connection),
        "redis" => refuse(
            cx,
            &kind.at,
            Code::NotYet,
            "the store `redis` is not supported yet",
            "write `file` or `memory` until it is",
        ),
        "postgres" => {
            let hint = "write `file` for one process, and later `redis` for several";
            refuse(cx, &kind.at, Code::BadStorage, "there is no store `postgres` here", hint)
        }
        other => {
            let what = format!("there is no store {}", quoted(other));
            refuse(cx, &kind.at, Code::BadStorage, &what, "write `file` or `memory`")
        }
    }
}

fn refuse<T>(cx: &mut Context<'_>, at: &At, code: Code, what: &str, hint: &str) -> Option<T> {
    cx.fatal(code, at, what, hint);
    None
}

/// The connection string; from its file, which wins, it is trimmed (01 §1.1).
fn connection(cx: &mut Context<'_>, settings: &Block<'_>) -> Option<Spanned<String>> {
    if let Some(path) = settings.filled(cx, FILE_KEY) {
        let value = cx.text_file(&path.at, &path.value)?.trim().to_owned();
        return Some(Spanned { at: path.at, value });
    }
    let inline = settings.filled(cx, KEY)?;
    if holds_password(&inline.value) {
        tell_inline(cx, &inline.at, KEY, FILE_KEY);
    }
    Some(inline)
}

/// Whether a connection string holds a password: `scheme://user:password@host`, or `password=…`.
fn holds_password(text: &str) -> bool {
    let authority = text.split_once("://").map(|(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let user = authority.and_then(|authority| authority.rsplit_once('@')).map(|(user, _)| user);
    let in_authority = user.and_then(|user| user.split_once(':')).is_some_and(|(_, password)| !password.is_empty());
    let lower = text.to_ascii_lowercase();
    in_authority || lower.split("password=").skip(1).any(|rest| !rest.is_empty() && !rest.starts_with(['&', ' ']))
}

/// `file://FOLDER`.
fn file(cx: &mut Context<'_>, settings: &Block<'_>, connection: Option<Spanned<String>>) -> Option<StorageConfig> {
    let hint = "write `databroker_storage_connection_string: file:///var/lib/postern`";
    let Some(connection) = connection else {
        let at = settings.at("databroker_storage_type");
        return refuse(cx, &at, Code::BadStorage, "the store `file` needs a folder", hint);
    };
    let folder = connection.value.strip_prefix("file://").filter(|folder| !folder.is_empty());
    let Some(folder) = folder else {
        return refuse(cx, &connection.at, Code::BadStorage, "this names no folder", hint);
    };
    Some(StorageConfig::File { path: PathBuf::from(folder).join(FILE) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_connection_string_is_found() {
        for text in [
            "redis://:hunter22@redis.internal",
            "rediss://user:hunter22@a:6379,b:6379/0?x=y",
            "redis://user:hunter@22@redis.internal",
            "redis://redis.internal?password=hunter22",
            "host=db Password=hunter22 user=x",
        ] {
            assert!(holds_password(text), "{text}");
        }
        for text in [
            "",
            "file:///var/lib/postern",
            "file:///var/lib/a:b@c",
            "redis://redis.internal:6379",
            "redis://user@redis.internal:6379",
            "redis://user:@redis.internal",
            "redis://redis.internal?password=&x=y",
        ] {
            assert!(!holds_password(text), "{text}");
        }
    }
}
