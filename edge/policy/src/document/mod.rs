//! A parsed document that remembers where everything stood: what policies and `config.yaml` are read from.

mod place;
pub use place::Place;

/// One value of a document, with its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where the value begins.
    pub place: Place,
    /// What it is.
    pub value: Value,
}

/// The kinds of value. Scalars keep their text: a string `"0123"` and a number `0123` are told apart.
#[derive(Clone, Debug)]
pub enum Value {
    /// Nothing: an empty value, `null` or `~`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as written and as parsed.
    Number(serde_json::Number),
    /// Text.
    String(String),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the file, keys unique.
    Map(Vec<Entry>),
}

/// One key of a map and its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key, as written.
    pub key: String,
    /// Where the key stood.
    pub key_place: Place,
    /// Its value.
    pub value: Node,
}
