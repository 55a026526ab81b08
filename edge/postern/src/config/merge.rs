//! The environment over the file, key by key (01 §1.1).

use std::collections::HashMap;

use postern_policy::document::{self, Entry, Node, Place, Value};

use super::Code;
use super::context::Context;
use super::keys::{Key, Kind, SETTINGS, Scope};
use super::problem::{At, KeyPath, Origin};
use super::value::{Field, decode_base64};

/// The document with `head.rest: value` at its top written as `head: {rest: value}`, and with texts of JSON where a map is
/// wanted (01 §1.1).
pub(super) fn unfolded(root: Node) -> Node {
    let place = root.place;
    let Value::Map(entries) = root.value else { return root };
    let (plain, dotted): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| head(&entry.key).is_none());
    let mut entries = plain;
    // Where each known key stands first.
    let mut places: HashMap<&'static str, usize> = HashMap::new();
    for (index, entry) in entries.iter().enumerate() {
        if let Some(key) = SETTINGS.find(&entry.key.to_ascii_lowercase()) {
            places.entry(key.name).or_insert(index);
        }
    }
    for entry in dotted {
        let Some((key, written, rest)) = head(&entry.key) else { continue };
        let (written, rest) = (written.to_owned(), rest.to_owned());
        let outer = places.get(key.name).and_then(|index| entries.get_mut(*index));
        let inner = Entry { key: rest, ..entry };
        match outer.map(|outer| &mut outer.value.value) {
            Some(Value::Map(inside)) => inside.push(inner),
            // The two contradict each other: both stay, and the second is told of.
            Some(_) => entries.push(map_of(&written.to_uppercase(), inner)),
            None => {
                places.insert(key.name, entries.len());
                entries.push(map_of(&written, inner));
            }
        }
    }
    for entry in &mut entries {
        if let Some(key) = SETTINGS.find(&entry.key.to_ascii_lowercase()) {
            json_for_map(key, &mut entry.value);
        }
    }
    Node { place, value: Value::Map(entries) }
}

fn map_of(key: &str, inner: Entry) -> Entry {
    let key_place = inner.key_place;
    let value = Node { place: key_place, value: Value::Map(vec![inner]) };
    Entry { key: key.to_owned(), key_place, value }
}

/// A known key, how it is written, and what follows its dot.
fn head(key: &str) -> Option<(&'static Key, &str, &str)> {
    let (head, rest) = key.split_once('.')?;
    SETTINGS.find(&head.to_ascii_lowercase()).map(|known| (known, head, rest))
}

/// A text where a map is wanted is that map, as JSON; every part of it stands where the text stands.
fn json_for_map(key: &Key, node: &mut Node) {
    let wanted = matches!(key.kind, Kind::Map(_) | Kind::Block(_) | Kind::Named(_)) || key.name == "default_policy";
    let Some(text) = node.as_str().filter(|text| wanted && text.trim_start().starts_with('{')) else { return };
    if let Ok(json) = serde_json::from_str(text) {
        *node = placed(Node::from_json(json), node.place);
    }
}

fn placed(node: Node, place: Place) -> Node {
    let value = match node.value {
        Value::List(nodes) => Value::List(nodes.into_iter().map(|node| placed(node, place)).collect()),
        Value::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|entry| Entry { key_place: place, value: placed(entry.value, place), ..entry })
                .collect(),
        ),
        scalar @ (Value::Null | Value::Bool(_) | Value::Number { .. } | Value::String(_)) => scalar,
    };
    Node { place, value }
}

/// A key that the environment gives, and its value.
#[derive(Debug, Clone)]
pub(super) struct Variable {
    /// The map that the key is in, unless it is at the top.
    pub(super) parent: Option<&'static Key>,
    pub(super) key: &'static Key,
    pub(super) at: At,
    pub(super) node: Node,
}

impl Variable {
    pub(super) fn field(&self) -> Field<'_> {
        Field { at: self.at.clone(), key_place: Place::default(), node: &self.node }
    }
}

/// Every variable that stands for a key.
pub(super) fn variables(cx: &mut Context<'_>) -> Vec<Variable> {
    let mut found = Vec::new();
    for key in SETTINGS.keys {
        found.extend(variable(cx, &SETTINGS, None, key));
        let Kind::Block(scope) = key.kind else { continue };
        found.extend(scope.keys.iter().filter_map(|inner| variable(cx, scope, Some(key), inner)));
    }
    found
}

fn variable(cx: &mut Context<'_>, scope: &Scope, parent: Option<&'static Key>, key: &'static Key) -> Option<Variable> {
    let name = scope.variable(key)?;
    let text = cx.environment.get(&name)?.expose();
    let path = parent.map_or_else(KeyPath::default, |parent| KeyPath::default().key(parent.name)).key(key.name);
    let at = At { origin: Origin::Environment(name.into()), place: Place::default(), key: path };
    let mut node = match key.name {
        "routes" | "policy" => routes(cx, &at, text)?,
        "set_response_headers" => headers(cx, &at, text)?,
        _ => scalar(text),
    };
    json_for_map(key, &mut node);
    Some(Variable { parent, key, at, node })
}

fn scalar(text: &str) -> Node {
    Node { place: Place::default(), value: Value::String(text.to_owned()) }
}

/// `ROUTES` and `POLICY`: base64 of a YAML list.
fn routes(cx: &mut Context<'_>, at: &At, text: &str) -> Option<Node> {
    let decoded = decode_base64(text.trim()).and_then(|bytes| String::from_utf8(bytes).ok());
    let Some(decoded) = decoded else {
        cx.fatal(Code::BadBase64, at, "this variable is not base64 of text", "encode the YAML list with `base64 -w0`");
        return None;
    };
    let mistakes = match document::read(&decoded) {
        // Null counts as absent here as in the file.
        Ok(node) => return Some(node).filter(|node| !node.is_null()),
        Err(mistakes) => mistakes,
    };
    for mistake in mistakes {
        let at = At { place: mistake.place, ..at.clone() };
        cx.fatal(Code::Syntax, &at, mistake.message, mistake.hint.unwrap_or_else(|| "repair this line".to_owned()));
    }
    None
}

/// `HEADERS`: a JSON object, or `Name:Value,Name2:Value2`.
fn headers(cx: &mut Context<'_>, at: &At, text: &str) -> Option<Node> {
    if text.trim_start().starts_with('{') {
        return Some(scalar(text));
    }
    let mut entries = Vec::new();
    for (index, pair) in text.split(',').enumerate() {
        let Some((name, value)) = pair.split_once(':') else {
            // The part may belong to a secret with a comma in it, and is not shown.
            let what = format!("part {} of this variable has no `:` between a name and a value", index + 1);
            let hint = "write `Name:Value,Name2:Value2`, or a JSON object where a value has a comma in it";
            cx.fatal(Code::BadHeader, at, what, hint);
            return None;
        };
        entries.push(Entry { key: name.trim().to_owned(), key_place: Place::NONE, value: scalar(value.trim()) });
    }
    Some(Node { place: Place::NONE, value: Value::Map(entries) })
}
