//! A map of known keys: each entry is looked up in its table once, and what the table says about it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use postern_policy::document::{Value, nearest};
use url::Url;

use super::context::Context;
use super::keys::{Key, Kind, Scope, Status};
use super::merge::Variable;
use super::problem::{At, KeyPath, Origin, Severity};
use super::value::{Field, Pair, Spanned};
use super::{Code, Problems};

/// The entries of a map that mean something, by lower-case name.
#[derive(Debug, Clone)]
pub(super) struct Block<'n> {
    scope: &'static Scope,
    /// The map itself.
    pub(super) at: At,
    fields: BTreeMap<&'static str, Field<'n>>,
    /// Keys that are there without a value.
    unfilled: BTreeSet<&'static str>,
    /// What the environment says of keys in maps that are in here.
    nested: Vec<(&'static str, &'static Key, Field<'n>)>,
    /// Some key that is not supported yet is written.
    pub(super) asks_ahead: bool,
}

impl<'n> Block<'n> {
    fn empty(at: At, scope: &'static Scope) -> Self {
        Self { scope, at, fields: BTreeMap::new(), unfilled: BTreeSet::new(), nested: Vec::new(), asks_ahead: false }
    }

    /// Sorts the entries of the map `field`; `None` if it is no map.
    pub(super) fn open(cx: &mut Context<'_>, field: &Field<'n>, scope: &'static Scope) -> Option<Self> {
        let Some(entries) = field.entries() else {
            let what = format!("{} must be a map, and is {}", scope.name, field.node.kind());
            let code = if field.at.key.as_str().is_empty() { Code::NotAMap } else { Code::WrongType };
            cx.fatal(code, &field.at, what, "write `key: value` lines, indented alike");
            return None;
        };
        let mut block = Self::empty(field.at.clone(), scope);
        for (written, entry) in entries {
            block.sort_in(cx, &written, entry);
        }
        Some(block)
    }

    /// The map under `name`, together with what the environment says of its keys.
    pub(super) fn inner(&self, cx: &mut Context<'_>, name: &str, scope: &'static Scope) -> Option<Self> {
        let overrides: Vec<_> = self.nested.iter().filter(|(parent, ..)| *parent == name).collect();
        let mut block = match self.find(name) {
            Some(field) => Self::open(cx, field, scope)?,
            None if overrides.is_empty() => return None,
            None => Self::empty(self.missing(name), scope),
        };
        for (_, key, field) in overrides {
            block.fields.insert(key.name, field.clone());
        }
        Some(block)
    }

    /// Each map of the list under `name`.
    pub(super) fn list(&self, cx: &mut Context<'_>, name: &str, scope: &'static Scope) -> Vec<Self> {
        let elements = self.find(name).map(Field::elements).unwrap_or_default();
        elements.iter().filter_map(|element| Self::open(cx, element, scope)).collect()
    }

    /// Puts one entry where it belongs: among the fields, or among the problems.
    fn sort_in(&mut self, cx: &mut Context<'_>, written: &str, field: Field<'n>) {
        let Some(key) = self.scope.find(&written.to_ascii_lowercase()) else {
            return unknown(cx, self.scope, written, &field.key_at());
        };
        if field.node.is_null() {
            self.unfilled.insert(key.name);
            return;
        }
        let at = field.key_at();
        if self.fields.contains_key(key.name) {
            let what = format!("`{}` is here twice, in two spellings", key.name);
            cx.fatal(Code::WrittenTwice, &at, what, "keep one of them");
        }
        self.take(cx, key, field);
    }

    /// Lets what the environment says take the place of what the file says.
    pub(super) fn override_with(&mut self, cx: &mut Context<'_>, variables: &'n [Variable]) {
        for variable in variables {
            let field = variable.field();
            match variable.parent {
                None => self.take(cx, variable.key, field),
                Some(parent) => {
                    tell(&mut cx.problems, parent, &field);
                    self.asks_ahead |= is_ahead(parent);
                    self.nested.push((parent.name, variable.key, field));
                }
            }
        }
    }

    fn take(&mut self, cx: &mut Context<'_>, key: &'static Key, field: Field<'n>) {
        tell(&mut cx.problems, key, &field);
        match key.status {
            Status::Removed(_) => {}
            Status::NoEffect(_) => field.check(cx, &key.kind),
            Status::Works | Status::NotYet | Status::NotYetHarmless | Status::AsItsBlock => {
                self.asks_ahead |= is_ahead(key);
                self.fields.insert(key.name, field);
            }
        }
    }

    /// The value of a key that is there and not null.
    pub(super) fn find(&self, name: &str) -> Option<&Field<'n>> {
        let read = |key: &Key| !matches!(key.status, Status::NoEffect(_) | Status::Removed(_));
        debug_assert!(self.scope.find(name).is_some_and(read), "{name} is not declared as read");
        self.fields.get(name)
    }

    /// Whether a key is there, with or without a value.
    pub(super) fn mentions(&self, name: &str) -> bool {
        self.find(name).is_some() || self.unfilled.contains(name)
    }

    /// Where a key stands, or where it is missing.
    pub(super) fn at(&self, name: &str) -> At {
        self.fields.get(name).map_or_else(|| self.missing(name), |field| field.at.clone())
    }

    fn missing(&self, name: &str) -> At {
        if self.at.key.as_str().is_empty() {
            return At::absent(name);
        }
        At { key: self.at.key.key(name), ..self.at.clone() }
    }

    pub(super) fn text(&self, cx: &mut Context<'_>, name: &str) -> Option<String> {
        self.find(name)?.text(cx)
    }

    /// Text that is not empty.
    pub(super) fn filled(&self, cx: &mut Context<'_>, name: &str) -> Option<Spanned<String>> {
        let field = self.find(name)?;
        let value = field.text(cx)?;
        (!value.is_empty()).then(|| Spanned { at: field.at.clone(), value })
    }

    /// Text that must be there and not be empty; `what` says that it is not.
    pub(super) fn required(&self, cx: &mut Context<'_>, name: &str, what: &str, hint: &str) -> Option<Spanned<String>> {
        if self.find(name).is_none_or(is_empty) {
            cx.fatal(Code::MissingKey, &self.at(name), what, hint);
            return None;
        }
        self.filled(cx, name)
    }

    pub(super) fn boolean(&self, cx: &mut Context<'_>, name: &str) -> Option<bool> {
        self.find(name)?.boolean(cx)
    }

    /// A bool that is false unless written.
    pub(super) fn flag(&self, cx: &mut Context<'_>, name: &str) -> bool {
        self.boolean(cx, name).unwrap_or(false)
    }

    /// A whole number that fits its type.
    pub(super) fn number<N: std::str::FromStr>(&self, cx: &mut Context<'_>, name: &str) -> Option<N> {
        self.find(name)?.number(cx)
    }

    /// A whole number within the bounds that its key has in the table.
    pub(super) fn bounded<N: TryFrom<u64>>(&self, cx: &mut Context<'_>, name: &str) -> Option<N> {
        let Kind::Number(least, most) = self.scope.find(name)?.kind else { return None };
        self.find(name)?.within(cx, least, most)
    }

    /// A duration within the bounds that its key has in the table.
    pub(super) fn bounded_duration(&self, cx: &mut Context<'_>, name: &str) -> Option<Duration> {
        let Kind::DurationWithin(least, most) = self.scope.find(name)?.kind else { return None };
        self.find(name)?.duration_within(cx, least, most)
    }

    /// One of `choices`, see [`Field::choice`].
    pub(super) fn choice<T: Copy + PartialEq>(
        &self,
        cx: &mut Context<'_>,
        name: &str,
        prefix: &str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        self.find(name)?.choice(cx, prefix, choices)
    }

    /// A duration in seconds alone.
    pub(super) fn seconds(&self, cx: &mut Context<'_>, name: &str) -> Option<Duration> {
        self.find(name)?.seconds(cx)
    }

    /// A duration.
    pub(super) fn duration(&self, cx: &mut Context<'_>, name: &str) -> Option<Duration> {
        self.find(name)?.duration(cx)
    }

    /// A duration of which 0 means none; `default` where nothing usable is written.
    pub(super) fn timeout(&self, cx: &mut Context<'_>, name: &str, default: Option<Duration>) -> Option<Duration> {
        let written = self.find(name).and_then(|field| field.duration(cx));
        written.map_or(default, |duration| (!duration.is_zero()).then_some(duration))
    }

    pub(super) fn texts(&self, cx: &mut Context<'_>, name: &str) -> Option<Vec<Spanned<String>>> {
        self.find(name)?.texts(cx)
    }

    /// The same, trimmed, and empty ones left out.
    pub(super) fn names(&self, cx: &mut Context<'_>, name: &str) -> Vec<String> {
        let texts = self.texts(cx, name).unwrap_or_default();
        texts.into_iter().map(|text| text.value.trim().to_owned()).filter(|text| !text.is_empty()).collect()
    }

    pub(super) fn pairs(&self, cx: &mut Context<'_>, name: &str) -> Option<Vec<Pair>> {
        self.find(name)?.pairs(cx)
    }

    /// A URL, unless the key is absent or empty.
    pub(super) fn url(&self, cx: &mut Context<'_>, name: &str) -> Option<Url> {
        self.filled(cx, name)?;
        self.find(name)?.url(cx)
    }
}

/// Tells of a key that does not exist, with the one that was probably meant.
fn unknown(cx: &mut Context<'_>, scope: &'static Scope, written: &str, at: &At) {
    let lower = written.to_ascii_lowercase();
    // Beyond a thousand nobody reads what was meant; then each is taken as the worst that it could be.
    let searched = cx.problems.may_search();
    let writable = scope.keys.iter().filter(|key| !matches!(key.status, Status::Removed(_)));
    let near = searched.then(|| nearest(&lower, writable.map(|key| key.name))).flatten();
    let near = near.and_then(|name| scope.find(name));
    let hint = scope.hints.iter().find(|(name, _)| *name == lower).map(|(_, hint)| (*hint).to_owned());
    let hint = hint.or_else(|| near.map(|key| format!("did you mean `{}`?", key.name)));
    // Outside of routes an unknown key is advice, unless the key that was meant would have guarded something.
    let guards = !searched || near.is_some_and(guards);
    let severity = if (scope.guarded || guards) && !cx.lenient { Severity::Fatal } else { Severity::Advisory };
    let what = format!("{} has no key {}", scope.name, super::value::quoted(written));
    let hint = hint.unwrap_or_else(|| "remove it, or look it up in docs/reference/configuration.md".to_owned());
    cx.problems.add(severity, Code::UnknownKey, at, what, hint);
}

/// Whether to go on without what was written under this key could admit more than was meant.
fn guards(key: &Key) -> bool {
    key.status == Status::NotYet || key.name == "downstream_mtls"
}

/// Tells what became of a key that exists and does not work.
fn tell(problems: &mut Problems, key: &Key, field: &Field<'_>) {
    let (at, name) = (field.key_at(), key.name);
    match key.status {
        Status::Works | Status::AsItsBlock => {}
        Status::NotYet if !is_off(key, field) => {
            let hint = "remove it; Postern does not start rather than do less than it says";
            problems.fatal(Code::NotYet, &at, format!("`{name}` is not supported yet"), hint);
        }
        Status::NotYet | Status::NotYetHarmless => {
            problems.advise(Code::NotYet, &at, format!("`{name}` is not supported yet"), "it is ignored; remove it");
        }
        Status::NoEffect(why) => {
            problems.advise(Code::NoEffect, &at, format!("`{name}` has no effect here"), format!("{why}; remove it"));
        }
        Status::Removed(_) if is_empty(field) => {}
        Status::Removed(instead) => {
            problems.fatal(Code::RemovedKey, &at, format!("`{name}` was removed from the configuration"), instead);
        }
    }
}

/// Whether a key is to work one day.
const fn is_ahead(key: &Key) -> bool {
    matches!(key.status, Status::NotYet | Status::NotYetHarmless)
}

/// Whether a value switches nothing on.
#[expect(clippy::wildcard_enum_match_arm, reason = "all that is not switched on or off by a word")]
fn is_off(key: &Key, field: &Field<'_>) -> bool {
    let text = field.node.as_text().map(|text| text.to_ascii_lowercase());
    let off: &[&str] = match key.kind {
        Kind::Bool => &["false", "f", "0"],
        Kind::Choice(_) => &["default"],
        _ => &[],
    };
    is_empty(field) || text.is_some_and(|text| off.contains(&text.as_str()))
}

fn is_empty(field: &Field<'_>) -> bool {
    match &field.node.value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::List(nodes) => nodes.is_empty(),
        Value::Bool(_) | Value::Number { .. } | Value::Map(_) => false,
    }
}

/// The top of the document, as a field.
pub(super) fn root(node: &postern_policy::document::Node) -> Field<'_> {
    let at = At { origin: Origin::File, place: node.place, key: KeyPath::default() };
    Field { at, key_place: node.place, node }
}
