//! Where sessions are kept (01 §1.9).

mod servers;

use std::path::PathBuf;
use std::time::Duration;

use postern_storage::{LONGEST_WINDOW, Part, RedisConfig, StorageConfig};

use super::secrets::tell_inline;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::value::{Spanned, quoted};
use crate::config::{At, Code, Role};

const KEY: &str = "databroker_storage_connection_string";
const FILE_KEY: &str = "databroker_storage_connection_string_file";

/// The file in the configured folder.
const FILE: &str = "postern.redb";

/// How fresh what the edge knows of sessions has to be (`docs/reference/sessions.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct Freshness {
    /// `session_max_age`: a copy that is older is read again first.
    pub(super) max_age: Duration,
    /// `session_static_window`, of routes that say nothing.
    pub(super) window: Duration,
    /// `session_lease`.
    lease: Duration,
    /// `session_heartbeat`.
    heartbeat: Duration,
}

/// The bounds, and what is wrong with them.
pub(super) fn freshness(cx: &mut Context<'_>, settings: &Block<'_>) -> Freshness {
    let within = |cx: &mut Context<'_>, key: &str, default: Duration, least: Duration, most: Duration| {
        let Some(written) = settings.duration(cx, key) else { return default };
        if written < least || written > most {
            let what = format!("`{key}` is out of its range");
            let hint = format!("write a duration from {} to {}", shown(least), shown(most));
            cx.fatal(Code::OutOfRange, &settings.at(key), what, hint);
        }
        written
    };
    let millis = Duration::from_millis;
    let freshness = Freshness {
        max_age: within(cx, "session_max_age", Duration::from_secs(60), millis(1_000), Duration::from_secs(3_600)),
        window: window(cx, settings).unwrap_or(WINDOW),
        lease: within(cx, "session_lease", millis(2_500), millis(500), Duration::from_secs(60)),
        heartbeat: within(cx, "session_heartbeat", millis(500), millis(100), Duration::from_secs(10)),
    };
    if freshness.lease < freshness.heartbeat.saturating_mul(3) {
        let at =
            settings.at(if settings.find("session_lease").is_some() { "session_lease" } else { "session_heartbeat" });
        let what = "the lease ends before three heartbeats could be heard: one that is late would shut people out";
        let hint = format!("write a `session_lease` of {} at least", shown(freshness.heartbeat.saturating_mul(3)));
        cx.fatal(Code::OutOfRange, &at, what, hint);
    }
    freshness
}

/// `session_static_window`, of everything or of a route.
pub(super) fn window(cx: &mut Context<'_>, block: &Block<'_>) -> Option<Duration> {
    let written = block.duration(cx, "session_static_window")?;
    if written > LONGEST_WINDOW {
        let what = "`session_static_window` is out of its range";
        let hint = format!("write at most {}; `0s` serves nobody who may have been signed out", shown(LONGEST_WINDOW));
        cx.fatal(Code::OutOfRange, &block.at("session_static_window"), what, hint);
    }
    Some(written)
}

fn shown(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("`{}s`", duration.as_secs())
    } else {
        format!("`{}ms`", duration.as_millis())
    }
}

pub(super) fn resolve(
    cx: &mut Context<'_>,
    settings: &Block<'_>,
    freshness: Freshness,
    role: Role,
) -> Option<StorageConfig> {
    let connection = connection(cx, settings);
    let options = servers::options(cx, settings);
    let insecure = settings.flag(cx, "databroker_storage_insecure");
    let Some(kind) = settings.filled(cx, "databroker_storage_type") else { return Some(StorageConfig::Memory) };
    match kind.value.to_ascii_lowercase().as_str() {
        "memory" => Some(StorageConfig::Memory),
        "file" => file(cx, settings, connection),
        "redis" | "valkey" => {
            let servers = servers::resolve(cx, settings, (connection, insecure))?;
            let options = options?;
            advise_of_a_short_lease(cx, settings, freshness, options.operation);
            Some(StorageConfig::Redis(Box::new(RedisConfig {
                topology: servers.topology,
                credentials: servers.credentials,
                database: servers.database,
                prefix: options.prefix,
                tls: servers.tls.then_some(options.tls),
                insecure,
                copies: options.copies,
                part: if role == Role::Edge { Part::Edge } else { Part::Authn },
                heartbeat: freshness.heartbeat,
                lease: freshness.lease,
                connect: options.connect,
                operation: options.operation,
            })))
        }
        "postgres" => {
            let hint = "write `file` for one process, or `redis` for several";
            refuse(cx, &kind.at, Code::BadStorage, "there is no store `postgres` here", hint)
        }
        other => {
            let what = format!("there is no store {}", quoted(other));
            refuse(cx, &kind.at, Code::BadStorage, &what, "write `memory`, `file` or `redis`")
        }
    }
}

/// A heartbeat is two commands. One that takes all the time that these may take has to be heard before the one before it is
/// over.
fn advise_of_a_short_lease(cx: &mut Context<'_>, settings: &Block<'_>, freshness: Freshness, operation: Duration) {
    let least = freshness.heartbeat.saturating_add(operation.saturating_mul(2));
    if freshness.lease < least {
        let named = ["session_lease", "databroker_storage_operation_timeout", "session_heartbeat"];
        let key = named.into_iter().find(|key| settings.find(key).is_some()).unwrap_or("session_lease");
        let what = "the lease may end while one heartbeat waits for the store: then edges are out of contact although it answers in time";
        let hint = format!(
            "write a `session_lease` of {} at least, or a shorter `databroker_storage_operation_timeout`",
            shown(least)
        );
        cx.advise(Code::OutOfRange, &settings.at(key), what, hint);
    }
}

/// Processes with different services meet in the store.
pub(super) fn refuse_unshared(cx: &mut Context<'_>, settings: &Block<'_>, storage: Option<&StorageConfig>, role: Role) {
    if role != Role::AllInOne && matches!(storage, Some(StorageConfig::Memory | StorageConfig::File { .. })) {
        let what = "no other process can reach this store, and one that has only some of the services needs the others' sessions";
        let hint =
            "write `databroker_storage_type: redis` and the connection string of a Redis or Valkey, or `services: all`";
        cx.fatal(Code::BadStorage, &settings.at("databroker_storage_type"), what, hint);
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

/// Unless a file says otherwise.
const WINDOW: Duration = Duration::from_secs(30);

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
