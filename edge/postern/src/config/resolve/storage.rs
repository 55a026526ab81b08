//! Where sessions are kept (01 §1.9).

use std::path::PathBuf;

use postern_storage::StorageConfig;

use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::value::{Spanned, quoted};
use crate::config::{At, Code};

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
    if let Some(path) = settings.filled(cx, "databroker_storage_connection_string_file") {
        let value = cx.text_file(&path.at, &path.value)?.trim().to_owned();
        return Some(Spanned { at: path.at, value });
    }
    settings.filled(cx, "databroker_storage_connection_string")
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
