//! Nodes: values with their places, and how they are looked at.

use std::borrow::Cow;

use super::Place;

/// One value of a document, with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where the value begins.
    pub place: Place,
    /// What it is.
    pub value: Value,
}

/// The kinds of value. Scalars keep their text: a string `"0123"` and a number `0123` are told apart.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing: an empty value, `null` or `~`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number {
        /// As parsed.
        value: serde_json::Number,
        /// As written, for messages and for whoever wants text.
        text: String,
    },
    /// Text.
    String(String),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the file, keys unique; what a merge key `<<` brought comes last.
    Map(Vec<Entry>),
}

/// One key of a map and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key, as written.
    pub key: String,
    /// Where the key stood.
    pub key_place: Place,
    /// Its value.
    pub value: Node,
}

impl Node {
    /// A value from outside of any text (the environment): every place is [`Place::NONE`].
    #[must_use]
    pub fn from_json(json: serde_json::Value) -> Self {
        let value = match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(value) => Value::Bool(value),
            serde_json::Value::Number(value) => Value::Number { text: value.to_string(), value },
            serde_json::Value::String(text) => Value::String(text),
            serde_json::Value::Array(values) => Value::List(values.into_iter().map(Self::from_json).collect()),
            serde_json::Value::Object(map) => Value::Map(
                map.into_iter()
                    .map(|(key, value)| Entry { key, key_place: Place::NONE, value: Self::from_json(value) })
                    .collect(),
            ),
        };
        Self { place: Place::NONE, value }
    }

    /// The same value without its places.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => serde_json::Value::Bool(*value),
            Value::Number { value, .. } => serde_json::Value::Number(value.clone()),
            Value::String(text) => serde_json::Value::String(text.clone()),
            Value::List(nodes) => nodes.iter().map(Self::to_json).collect(),
            Value::Map(entries) => entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect(),
        }
    }

    /// Whether there is nothing.
    #[must_use]
    pub const fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// The text, if it is a string; a number or bool is none.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Value::String(text) = &self.value { Some(text) } else { None }
    }

    /// The text of a string, a number as written, or a bool: for keys whose value is text whatever it looks like.
    #[must_use]
    pub fn as_text(&self) -> Option<Cow<'_, str>> {
        match &self.value {
            Value::String(text) | Value::Number { text, .. } => Some(Cow::Borrowed(text)),
            Value::Bool(true) => Some(Cow::Borrowed("true")),
            Value::Bool(false) => Some(Cow::Borrowed("false")),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// The bool, if it is one.
    #[must_use]
    pub const fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(value) = self.value { Some(value) } else { None }
    }

    /// The number, if it is one.
    #[must_use]
    pub const fn as_number(&self) -> Option<&serde_json::Number> {
        if let Value::Number { value, .. } = &self.value { Some(value) } else { None }
    }

    /// The number, if it is a whole one that is not negative.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        self.as_number()?.as_u64()
    }

    /// The number, if it is a whole one.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        self.as_number()?.as_i64()
    }

    /// The number, if it is one, as a float.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        self.as_number()?.as_f64()
    }

    /// The nodes, if it is a list.
    #[must_use]
    pub fn as_list(&self) -> Option<&[Self]> {
        if let Value::List(nodes) = &self.value { Some(nodes) } else { None }
    }

    /// The entries, if it is a map.
    #[must_use]
    pub fn as_map(&self) -> Option<&[Entry]> {
        if let Value::Map(entries) = &self.value { Some(entries) } else { None }
    }

    /// The entries of a map; none for anything else.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        self.as_map().unwrap_or_default()
    }

    /// The value of exactly that key, if it is a map that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The entry of exactly that key, if it is a map that has it.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// What it is, in words for a message: "a map", "text", ...
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Number { .. } => "a number",
            Value::String(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_goes_in_and_comes_out_the_same() {
        let value = json!({"a": [1, 2.5, "x", null, true], "b": {"c": -3}});
        let node = Node::from_json(value.clone());
        assert_eq!(node.to_json(), value);
        assert_eq!(node.place, Place::NONE);
        assert!(!node.entries()[0].key_place.is_known());
    }

    #[test]
    fn each_kind_answers_only_to_its_own_question() {
        let node = Node::from_json(json!({"text": "7", "number": 7, "bool": true, "list": [], "none": null}));
        assert_eq!(node.get("text").and_then(Node::as_str), Some("7"));
        assert_eq!(node.get("text").and_then(Node::as_u64), None);
        assert_eq!(node.get("number").and_then(Node::as_str), None);
        assert_eq!(node.get("number").and_then(Node::as_text).as_deref(), Some("7"));
        assert_eq!(node.get("bool").and_then(Node::as_text).as_deref(), Some("true"));
        assert_eq!(node.get("list").and_then(Node::as_list), Some(&[][..]));
        assert!(node.get("none").unwrap().is_null());
        assert_eq!(node.get("absent"), None);
        assert_eq!(node.get("text").unwrap().entries(), &[]);
    }
}
