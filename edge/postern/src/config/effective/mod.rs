//! Every key with the value that holds, and where that comes from.

mod defaults;
mod secrets;
mod show;
#[cfg(test)]
mod tests;
mod yaml;

use postern_policy::document::{Entry, Node, Value};
use serde_json::json;

use super::keys::{self, Form, Key, Kind, SETTINGS, Scope, Status};
use super::merge::Variable;
use super::problem::{At, Origin};
use super::value::{Field, choose, converted};
use super::{Loaded, duration};

pub(super) use defaults::literal;
pub use show::{listed, plain};
pub use yaml::yaml;

/// One key and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// As the key is written, without the maps that it is in.
    pub name: String,
    /// The key, and where its value was read from; [`Origin::Absent`] for a default.
    pub at: At,
    /// What it holds. Secrets are masked.
    pub held: Held,
    /// What becomes of the key here, in words.
    pub status: String,
    /// It does what it says.
    pub works: bool,
}

/// What a key holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// A value in the one spelling of its type.
    Value(serde_json::Value),
    /// A map of known keys.
    Map(Vec<Effective>),
    /// A list of maps of known keys.
    List(Vec<Vec<Effective>>),
    /// The content of the file of that path, which another key names.
    Content(String),
    /// Nothing that could be written; what holds instead, in words.
    Words(String),
}

/// Which keys are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// Those that are written.
    Written,
    /// Every one that could be, with its default.
    All,
}

/// Every key of the file, in the order of the reference page. Empty if the file could not be read at all.
#[must_use]
pub fn effective(loaded: &Loaded, keys: Keys) -> Vec<Effective> {
    let Some(written) = &loaded.written else { return Vec::new() };
    let walk = Walk { variables: &written.variables, all: keys == Keys::All };
    let mut out = walk.scope(&SETTINGS, None, &super::block::root(&written.root), Status::Works, true);
    if keys == Keys::All {
        defaults::fill(&mut out, loaded.config.as_ref());
        out.iter_mut().for_each(without_words);
    }
    out
}

/// In lists, where there can be thousands of maps, only what could be written is of use.
fn without_words(one: &mut Effective) {
    if let Held::List(elements) = &mut one.held {
        let empty = |held: &Held| matches!(held, Held::Words(_)) || matches!(held, Held::Map(keys) if keys.is_empty());
        elements.iter_mut().for_each(|keys| keys.retain(|one| one.at.origin != Origin::Absent || !empty(&one.held)));
        elements.iter_mut().flatten().for_each(without_words);
    }
}

struct Walk<'w> {
    variables: &'w [Variable],
    all: bool,
}

impl Walk<'_> {
    /// The keys of one map. `named`: it stands once in the file, so that the environment may give its keys.
    fn scope(
        &self,
        scope: &Scope,
        parent: Option<&Key>,
        map: &Field<'_>,
        block: Status,
        named: bool,
    ) -> Vec<Effective> {
        let entries = map.entries().unwrap_or_default();
        let mut out = Vec::new();
        for key in scope.keys {
            let status = if key.status == Status::AsItsBlock { block } else { key.status };
            let same = |variable: &&Variable| {
                variable.key.name == key.name && variable.parent.map(|key| key.name) == parent.map(|key| key.name)
            };
            let variable = if named { self.variables.iter().find(same).map(Variable::field) } else { None };
            let entry =
                entries.iter().rev().find(|(name, field)| name.eq_ignore_ascii_case(key.name) && !field.node.is_null());
            match variable.as_ref().or(entry.map(|(_, field)| field)) {
                Some(field) => out.push(one(key, field.at.clone(), self.written(key, field, status, named), status)),
                None if matches!(key.status, Status::Removed(_)) => {}
                None => out.extend(self.absent(key, map, status, named)),
            }
        }
        if self.all {
            contents(&mut out, scope);
        }
        out
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "all that holds no keys of its own")]
    fn written(&self, key: &Key, field: &Field<'_>, status: Status, named: bool) -> Held {
        let inside = |scope, element: &Field<'_>| self.scope(scope, None, element, status, false);
        match key.kind {
            Kind::Block(scope) if field.node.as_map().is_some() => {
                Held::Map(self.scope(scope, Some(key), field, status, named))
            }
            Kind::Blocks(scope) if !field.node.is_null() => {
                Held::List(field.elements().iter().map(|element| inside(scope, element)).collect())
            }
            Kind::Named(scope) if field.node.as_map().is_some() => {
                let entries = field.entries().unwrap_or_default().into_iter();
                let named = entries.map(|(name, element)| Effective {
                    name,
                    at: element.at.clone(),
                    held: Held::Map(inside(scope, &element)),
                    status: status.told(),
                    works: status == Status::Works,
                });
                Held::Map(named.collect())
            }
            _ => Held::Value(value(key, field)),
        }
    }

    /// A key that is not there, unless the environment gives some of what it holds, or what it holds is in force without it.
    fn absent(&self, key: &Key, map: &Field<'_>, status: Status, named: bool) -> Option<Effective> {
        let at = At { key: map.at.key.key(key.name), ..At::absent("") };
        let inner = |variable: &Variable| variable.parent.is_some_and(|parent| parent.name == key.name);
        if let Kind::Block(scope) = key.kind
            && named
            && (self.variables.iter().any(inner) || (self.all && key.default == "see below"))
        {
            let node = super::nothing();
            let inside = Field { key_place: node.place, node: &node, at: at.clone() };
            return Some(one(key, at, Held::Map(self.scope(scope, Some(key), &inside, status, true)), status));
        }
        self.all.then(|| one(key, at, defaults::of(key, status), status))
    }
}

fn one(key: &Key, at: At, held: Held, status: Status) -> Effective {
    Effective { name: key.name.to_owned(), at, held, status: status.told(), works: status == Status::Works }
}

/// A key that is not written, and whose `_file` is, holds what stands in that file.
fn contents(out: &mut [Effective], scope: &Scope) {
    for key in scope.keys {
        let file = format!("{}_file", key.name);
        let named = out.iter().find(|one| one.name == file && one.at.origin != Origin::Absent);
        let Some(Effective { held: Held::Value(path), at, .. }) = named else { continue };
        let (path, at) = (path.as_str().unwrap_or_default().to_owned(), at.clone());
        if let Some(one) = out.iter_mut().find(|one| one.name == key.name && one.at.origin == Origin::Absent) {
            one.at = At { key: one.at.key.clone(), ..at };
            one.held = Held::Content(path);
        }
    }
}

/// A value in the one spelling of its type; as it is written where it has another.
#[expect(clippy::wildcard_enum_match_arm, reason = "the others have no spelling of their own")]
fn value(key: &Key, field: &Field<'_>) -> serde_json::Value {
    if keys::is_secret(key.name) {
        return json!(secrets::MASK);
    }
    let text = converted(field.node);
    let spelled = match key.kind {
        Kind::Bool => field.as_boolean().map(|on| json!(on)),
        Kind::Duration => field.as_duration().map(|found| json!(duration::written(found))),
        Kind::Choice(names) => text.as_deref().and_then(|text| choice(text, names)).map(|name| json!(name)),
        Kind::Number(..) | Kind::Milliseconds => {
            field.whole().and_then(|digits| digits.parse::<u64>().ok()).map(|number| json!(number))
        }
        Kind::List(_) => Some(list(field)),
        Kind::Map(kind) => map(kind, field),
        Kind::Special(_, Form::Policy) => Some(field.node.to_json()),
        // Digits are not a number here.
        Kind::Special(_, Form::Hex) => field.node.as_text().map(|text| json!(text)),
        Kind::Special(_, form) if !matches!(form, Form::Text | Form::Pair) => None,
        _ => text.as_deref().map(|text| json!(text)),
    };
    match (spelled, key.kind) {
        (Some(value), Kind::Special(_, Form::Policy)) => value,
        (Some(value), _) => secrets::masked(value),
        (None, _) => secrets::masked(secrets::without(field.node)),
    }
}

/// The choice that a text names; the last of a longer name too, as protocol buffers have them.
fn choice(text: &str, names: &'static [&'static str]) -> Option<&'static str> {
    let lower = text.to_ascii_lowercase();
    let full = |name: &&&str| lower.ends_with(&format!("_{name}").to_ascii_lowercase());
    choose(text, "", names.iter().map(|name| (*name, *name))).or_else(|| names.iter().find(full).copied())
}

/// A list, also of one value, and of one text that is split at commas.
fn list(field: &Field<'_>) -> serde_json::Value {
    match &field.node.value {
        Value::List(nodes) => nodes
            .iter()
            .map(|node| converted(node).map_or_else(|| secrets::without(node), |text| json!(text)))
            .collect(),
        Value::Map(_) => json!([secrets::without(field.node)]),
        Value::Null | Value::Bool(_) | Value::Number { .. } | Value::String(_) => {
            let text = converted(field.node).unwrap_or_default();
            text.split(',').filter(|part| !part.is_empty()).map(|part| json!(part)).collect()
        }
    }
}

/// A map of free names; a text is read as JSON.
fn map(kind: &Kind, field: &Field<'_>) -> Option<serde_json::Value> {
    let read = field.node.as_str().map(|text| serde_json::from_str(if text.trim().is_empty() { "{}" } else { text }));
    let read = match read {
        Some(read) => Some(Node::from_json(read.ok()?)),
        None => None,
    };
    let entries = read.as_ref().unwrap_or(field.node).as_map()?;
    let held = entries.iter().filter(|entry| !entry.value.is_null());
    Some(held.map(|entry| (entry.key.clone(), inner(kind, entry))).collect())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the others are kept as they are")]
fn inner(kind: &Kind, entry: &Entry) -> serde_json::Value {
    let text = || converted(&entry.value).map(|text| json!(text));
    match kind {
        Kind::Text if keys::is_secret(&entry.key) => json!(secrets::MASK),
        Kind::Text => text().map_or_else(|| secrets::without(&entry.value), secrets::of_header),
        Kind::Bool => match entry.value.as_text().as_deref() {
            Some("0" | "f" | "F" | "FALSE" | "false" | "False" | "") => json!(false),
            Some(_) => json!(true),
            None => entry.value.to_json(),
        },
        // Claims and policies: what somebody must have is no secret.
        _ => entry.value.to_json(),
    }
}

/// Each key that holds something of its own, what it holds in one line, and what becomes of it.
#[cfg(test)]
pub(super) fn flattened(keys: &[Effective]) -> Vec<(At, String, String)> {
    let mut out = Vec::new();
    for one in keys {
        let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let value = match &one.held {
            Held::Map(keys) if !keys.is_empty() => {
                out.extend(flattened(keys));
                continue;
            }
            Held::List(elements) if !elements.is_empty() => {
                out.extend(elements.iter().flat_map(|keys| flattened(keys)));
                continue;
            }
            Held::Map(_) => "{}".to_owned(),
            Held::List(_) => String::new(),
            Held::Value(serde_json::Value::Array(values)) if values.iter().all(|value| !value.is_object()) => {
                values.iter().map(text).collect::<Vec<_>>().join(", ")
            }
            Held::Value(value) => text(value),
            Held::Content(path) => format!("content of {path}"),
            Held::Words(words) => words.clone(),
        };
        out.push((one.at.clone(), value, one.status.clone()));
    }
    out
}
