//! Every key with the value that holds, and where that comes from.

use postern_policy::document::{Node, Value};
use serde_json::json;

use super::keys::{self, Key, Kind, SETTINGS, Scope, Status};
use super::merge::Variable;
use super::problem::{At, Origin};
use super::value::{Field, choose};
use super::{Loaded, duration};

/// One key and the value that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// The key, and where its value was read from; [`Origin::Absent`] for a default.
    pub at: At,
    /// The value, in the one spelling of its type. A secret is masked.
    pub value: String,
    /// What becomes of the key here, in words.
    pub status: String,
}

/// Every key at the top of the file, in the order of the reference page, with all that is written in maps and lists below it.
/// Keys of routes and of entries in lists are there only if they are written. Empty if the file could not be read at all.
#[must_use]
pub fn effective(loaded: &Loaded) -> Vec<Effective> {
    let Some(written) = &loaded.written else { return Vec::new() };
    let mut walk = Walk { out: Vec::new(), variables: &written.variables };
    walk.scope(&SETTINGS, None, &super::block::root(&written.root), Status::Works, true);
    walk.out
}

struct Walk<'w> {
    out: Vec<Effective>,
    variables: &'w [Variable],
}

impl Walk<'_> {
    /// The keys of one map: `all` of them, or only those that are written.
    fn scope(&mut self, scope: &Scope, parent: Option<&Key>, map: &Field<'_>, block: Status, all: bool) {
        let entries = map.entries().unwrap_or_default();
        for key in scope.keys {
            let status = if key.status == Status::AsItsBlock { block } else { key.status };
            let same = |variable: &&Variable| {
                variable.key.name == key.name && variable.parent.map(|key| key.name) == parent.map(|key| key.name)
            };
            let variable = if all { self.variables.iter().find(same).map(Variable::field) } else { None };
            let entry =
                entries.iter().rev().find(|(name, field)| name.eq_ignore_ascii_case(key.name) && !field.node.is_null());
            match variable.as_ref().or(entry.map(|(_, field)| field)) {
                Some(field) => self.written(key, field, status, all),
                None if all && !matches!(key.status, Status::Removed(_)) => self.absent(key, map, status),
                None => {}
            }
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "all that holds no keys of its own")]
    fn written(&mut self, key: &Key, field: &Field<'_>, status: Status, all: bool) {
        match key.kind {
            Kind::Block(_) | Kind::Named(_) if !all && field.node.as_map().is_some_and(<[_]>::is_empty) => {
                self.out.push(Effective { at: field.at.clone(), value: "{}".to_owned(), status: status.told() });
            }
            Kind::Block(scope) if field.node.as_map().is_some() => self.scope(scope, Some(key), field, status, all),
            Kind::Blocks(scope) if !field.node.is_null() => {
                for element in field.elements() {
                    self.scope(scope, None, &element, status, false);
                }
            }
            Kind::Named(scope) if field.node.as_map().is_some() => {
                for (_, element) in field.entries().unwrap_or_default() {
                    self.scope(scope, None, &element, status, false);
                }
            }
            _ => {
                let value = text(key, field);
                self.out.push(Effective { at: field.at.clone(), value, status: status.told() });
            }
        }
    }

    /// A key that is not there, unless the environment gives some of what it holds.
    fn absent(&mut self, key: &Key, map: &Field<'_>, status: Status) {
        let path = map.at.key.key(key.name);
        let at = At { origin: Origin::Absent, key: path, ..At::absent("") };
        if let Kind::Block(scope) = key.kind
            && self.variables.iter().any(|variable| variable.parent.is_some_and(|parent| parent.name == key.name))
        {
            let node = super::nothing();
            let inside = Field { key_place: node.place, node: &node, at };
            return self.scope(scope, Some(key), &inside, status, true);
        }
        self.out.push(Effective { at, value: key.default.replace('`', ""), status: status.told() });
    }
}

/// A value in the one spelling of its type; as it is written where it has another.
fn text(key: &Key, field: &Field<'_>) -> String {
    if keys::is_secret(key.name) {
        return MASK.to_owned();
    }
    let written = match &field.node.value {
        Value::List(nodes) if nodes.iter().all(|node| node.as_text().is_some()) => {
            nodes.iter().filter_map(Node::as_text).collect::<Vec<_>>().join(", ")
        }
        Value::List(_) | Value::Map(_) => shown(field.node).to_string(),
        Value::Null | Value::Bool(_) | Value::Number { .. } | Value::String(_) => {
            field.node.as_text().unwrap_or_default().into_owned()
        }
    };
    spelled(&key.kind, field, &written).unwrap_or(written)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the others are shown as written")]
fn spelled(kind: &Kind, field: &Field<'_>, written: &str) -> Option<String> {
    match kind {
        Kind::Bool => field.as_boolean().map(|on| on.to_string()),
        Kind::List(_) if field.node.as_str().is_some() => {
            Some(written.split(',').filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", "))
        }
        Kind::Duration => field.as_duration().map(duration::written),
        Kind::Choice(names) => {
            let lower = written.to_ascii_lowercase();
            let full = |name: &&&str| lower.ends_with(&format!("_{name}").to_ascii_lowercase());
            let known = names.iter().map(|name| (*name, *name));
            choose(written, "", known).or_else(|| names.iter().find(full).copied()).map(str::to_owned)
        }
        _ => None,
    }
}

const MASK: &str = "[redacted]";

/// The value as JSON, without what stands under a secret key.
fn shown(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Map(entries) => entries
            .iter()
            .map(|entry| {
                let value = if keys::is_secret(&entry.key) { json!(MASK) } else { shown(&entry.value) };
                (entry.key.clone(), value)
            })
            .collect(),
        Value::List(nodes) => nodes.iter().map(shown).collect(),
        Value::Null | Value::Bool(_) | Value::Number { .. } | Value::String(_) => node.to_json(),
    }
}
