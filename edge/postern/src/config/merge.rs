//! The environment over the file, key by key (01 §1.1).

use base64::Engine as _;
use postern_policy::document::{self, Entry, Node, Place, Value};
use serde_json::json;

use super::Code;
use super::block::Block;
use super::context::Context;
use super::keys::{Key, NESTED, SETTINGS};
use super::problem::{At, KeyPath, Origin};
use super::value::Field;

/// The document with `head.rest: value` at its top written as `head: {rest: value}` (01 §1.1).
pub(super) fn undotted(root: &Node) -> Node {
    let Some(entries) = root.as_map() else { return root.clone() };
    let (plain, dotted): (Vec<_>, Vec<_>) = entries.iter().cloned().partition(|entry| head(&entry.key).is_none());
    let mut entries = plain;
    for entry in dotted {
        let Some((head, rest)) = head(&entry.key) else { continue };
        let inner = Entry { key: rest.to_owned(), ..entry.clone() };
        let outer = entries.iter_mut().find(|other| other.key.eq_ignore_ascii_case(head));
        match outer.map(|outer| &mut outer.value.value) {
            Some(Value::Map(inside)) => inside.push(inner),
            // The two contradict each other: both stay, and the second is told of.
            Some(_) => entries.push(map_of(&head.to_uppercase(), &inner)),
            None => entries.push(map_of(head, &inner)),
        }
    }
    Node { place: root.place, value: Value::Map(entries) }
}

fn map_of(key: &str, inner: &Entry) -> Entry {
    let value = Node { place: inner.key_place, value: Value::Map(vec![inner.clone()]) };
    Entry { key: key.to_owned(), key_place: inner.key_place, value }
}

/// A known key and what follows its dot.
fn head(key: &str) -> Option<(&str, &str)> {
    let (head, rest) = key.split_once('.')?;
    SETTINGS.find(&head.to_ascii_lowercase()).map(|_| (head, rest))
}

/// A key that the environment gives, and its value.
#[derive(Debug)]
pub(super) struct Variable {
    key: &'static Key,
    at: At,
    node: Node,
}

/// Keys that have no variable: maps of structs, and a key of ours.
const WITHOUT: &[&str] =
    &["set_response_headers", "circuit_breaker_thresholds", "blob_storage", "debug", "downstream_mtls"];

/// Every variable that stands for a key.
pub(super) fn variables(cx: &mut Context<'_>) -> Vec<Variable> {
    let plain = SETTINGS.keys.iter().filter(|key| !WITHOUT.contains(&key.name));
    let named = plain.map(|key| (key.name.to_ascii_uppercase(), key));
    let nested = NESTED.iter().flat_map(|(parent, keys)| {
        let key = SETTINGS.find(parent);
        keys.iter().filter_map(move |name| Some((format!("{parent}_{name}").to_ascii_uppercase(), key?)))
    });
    let headers = SETTINGS.find("set_response_headers").map(|key| ("HEADERS".to_owned(), key));
    let all: Vec<_> = named.chain(nested).chain(headers).collect();
    all.into_iter().filter_map(|(name, key)| variable(cx, &name, key)).collect()
}

fn variable(cx: &mut Context<'_>, name: &str, key: &'static Key) -> Option<Variable> {
    let text = cx.environment.get(name)?.expose();
    let at =
        At { origin: Origin::Environment(name.into()), place: Place::default(), key: KeyPath::default().key(key.name) };
    let node = match key.name {
        "routes" | "policy" => routes(cx, &at, text)?,
        "set_response_headers" => headers(text),
        _ => scalar(text),
    };
    Some(Variable { key, at, node })
}

/// Puts them over what the file says.
pub(super) fn over<'n>(cx: &mut Context<'_>, settings: &mut Block<'n>, variables: &'n [Variable]) {
    for variable in variables {
        let field = Field { at: variable.at.clone(), key_place: Place::default(), node: &variable.node };
        settings.override_with(cx, variable.key, field);
    }
}

fn scalar(text: &str) -> Node {
    Node { place: Place::default(), value: Value::String(text.to_owned()) }
}

/// `ROUTES` and `POLICY`: base64 of a YAML list.
fn routes(cx: &mut Context<'_>, at: &At, text: &str) -> Option<Node> {
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(text.trim())
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    let Some(decoded) = decoded else {
        cx.fatal(Code::BadBase64, at, "this variable is not base64 of text", "encode the YAML list with `base64 -w0`");
        return None;
    };
    let mistakes = match document::read(&decoded) {
        Ok(node) => return Some(node),
        Err(mistakes) => mistakes,
    };
    for mistake in mistakes {
        let at = At { place: mistake.place, ..at.clone() };
        cx.fatal(Code::Syntax, &at, mistake.message, mistake.hint.unwrap_or_else(|| "repair this line".to_owned()));
    }
    None
}

/// `HEADERS`: a JSON object, or `Name:Value,Name2:Value2`.
fn headers(text: &str) -> Node {
    if text.trim_start().starts_with('{') {
        return scalar(text);
    }
    let pairs = text.split(',').filter_map(|pair| pair.split_once(':'));
    let map: serde_json::Map<_, _> = pairs.map(|(name, value)| (name.trim().to_owned(), json!(value.trim()))).collect();
    Node::from_json(serde_json::Value::Object(map))
}
