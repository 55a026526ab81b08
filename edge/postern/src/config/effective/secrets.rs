//! What of a value may be shown: no secret, whatever key it stands under (S-108).

use postern_policy::document::{Node, Value};
use serde_json::json;

use crate::config::keys;
use crate::config::value::without_userinfo;

pub(super) const MASK: &str = "[redacted]";

/// The value as JSON, without what stands under the name of a secret.
pub(super) fn without(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Map(entries) => entries
            .iter()
            .map(|entry| {
                let value = if keys::is_secret(&entry.key) { json!(MASK) } else { without(&entry.value) };
                (entry.key.clone(), value)
            })
            .collect(),
        Value::List(nodes) => nodes.iter().map(without).collect(),
        Value::Null | Value::Bool(_) | Value::Number { .. } | Value::String(_) => node.to_json(),
    }
}

/// The value without what shows by itself that it is secret: private keys, and users and passwords in URLs.
pub(super) fn masked(value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::String(text) if text.contains("PRIVATE KEY-----") => json!(MASK),
        serde_json::Value::String(text) => json!(without_userinfo(&text)),
        serde_json::Value::Array(values) => values.into_iter().map(masked).collect(),
        serde_json::Value::Object(map) => map.into_iter().map(|(key, value)| (key, masked(value))).collect(),
        other @ (serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_)) => other,
    }
}

/// The value of a header, which may be a credential whatever the header is called.
pub(super) fn of_header(value: serde_json::Value) -> serde_json::Value {
    const SCHEMES: [&str; 4] = ["basic ", "bearer ", "digest ", "token "];
    let lower = value.as_str().unwrap_or_default().trim_start().to_ascii_lowercase();
    if SCHEMES.iter().any(|scheme| lower.starts_with(scheme)) { json!(MASK) } else { value }
}
