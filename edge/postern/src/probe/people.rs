//! People as a file describes them, and what is wrong with such a file.

use std::fmt::Display;
use std::net::IpAddr;
use std::path::Path;

use postern_policy::DeviceRecord;
use postern_policy::document::{self, Entry, Mistake, Node, Place, nearest};
use serde_json::{Map, Value};

use super::Person;
use super::devices;

/// Somebody, with what they come with.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Described {
    /// What to call them, if it is said.
    pub name: Option<String>,
    /// Who they are; nobody who is signed in, if nothing is said.
    pub person: Person,
    /// Their devices.
    pub devices: Vec<DeviceRecord>,
    /// Where they connect from, if it is said.
    pub source: Option<IpAddr>,
}

const KEYS: [&str; 7] = ["name", "user", "email", "groups", "claims", "devices", "source_ip"];

impl Described {
    /// The people whom a YAML or JSON file lists.
    ///
    /// # Errors
    /// What is wrong with the file, and where.
    pub fn read(file: &Path) -> Result<Vec<Self>, String> {
        let people = File::read(file)?.list(one)?;
        if people.is_empty() {
            return Err(format!("{} lists nobody; write `- email: alice@example.com`", file.display()));
        }
        Ok(people)
    }
}

fn one(node: &Node, key: &str) -> Result<Described, Wrong> {
    let Some(entries) = node.as_map() else {
        let what = format!("a subject must be a map, and is {}; write `email: alice@example.com`", node.kind());
        return Err(Wrong::at(node.place, key, what));
    };
    let mut described = Described::default();
    for entry in entries {
        let (key, value) = (format!("{key}.{}", entry.key), &entry.value);
        match entry.key.as_str() {
            "name" => described.name = Some(text(value, &key)?),
            "user" => described.person.user = Some(text(value, &key)?),
            "email" => described.person.email = Some(text(value, &key)?),
            "groups" => described.person.groups = each(value, &key, text)?,
            "claims" => described.person.claims = claims(value, &key)?,
            "devices" => described.devices = each(value, &key, devices::of)?,
            "source_ip" => {
                let wrong =
                    |_| Wrong::at(value.place, &key, "this is no address; write one such as `10.0.0.1`".to_owned());
                described.source = Some(text(value, &key)?.parse().map_err(wrong)?);
            }
            _ => return Err(unknown(entry, &key, &KEYS)),
        }
    }
    Ok(described)
}

fn claims(node: &Node, key: &str) -> Result<Map<String, Value>, Wrong> {
    match node.to_json() {
        Value::Object(claims) => Ok(claims),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            let what = format!("claims must be a map, not {}; write `claims: {{department: sales}}`", node.kind());
            Err(Wrong::at(node.place, key, what))
        }
    }
}

/// A list, or one value that stands for a list of it.
fn each<T>(node: &Node, key: &str, read: impl Fn(&Node, &str) -> Result<T, Wrong>) -> Result<Vec<T>, Wrong> {
    match node.as_list() {
        Some(nodes) => nodes.iter().enumerate().map(|(at, node)| read(node, &format!("{key}[{at}]"))).collect(),
        None => Ok(vec![read(node, key)?]),
    }
}

/// Text, or what YAML takes for a number although it is meant as text.
pub(super) fn text(node: &Node, key: &str) -> Result<String, Wrong> {
    let text = node.as_text().filter(|_| !node.is_null());
    text.map(std::borrow::Cow::into_owned).ok_or_else(|| {
        Wrong::at(node.place, key, format!("this must be text, and is {}; put it in quotes", node.kind()))
    })
}

/// A key that nothing is known of.
pub(super) fn unknown(entry: &Entry, key: &str, known: &[&'static str]) -> Wrong {
    let hint = match nearest(&entry.key, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("write one of {}", known.join(", ")),
    };
    Wrong::at(entry.key_place, key, format!("there is no such key; {hint}"))
}

/// What is wrong in a file, where.
#[derive(Debug)]
pub(super) struct Wrong {
    place: Place,
    what: String,
}

impl Wrong {
    pub(super) fn at(place: Place, key: &str, what: impl Display) -> Self {
        Self { place, what: format!("`{key}`: {what}") }
    }
}

/// A file that lists something.
pub(super) struct File {
    name: String,
    root: Node,
}

impl File {
    pub(super) fn read(file: &Path) -> Result<Self, String> {
        let name = file.display().to_string();
        let length = std::fs::metadata(file).map_err(|error| format!("{name}: {error}"))?.len();
        if length > document::MAX_BYTES as u64 {
            return Err(format!("{name} has {length} bytes, and may have {}", document::MAX_BYTES));
        }
        let text = std::fs::read_to_string(file).map_err(|error| format!("{name}: {error}"))?;
        let root = document::read(&text).map_err(|mistakes| {
            let told = |Mistake { place, message, hint }: Mistake| {
                format!("{name}:{place}: {message}{}", hint.map(|hint| format!("; {hint}")).unwrap_or_default())
            };
            mistakes.into_iter().map(told).collect::<Vec<_>>().join("\n")
        })?;
        Ok(Self { name, root })
    }

    /// Each element, read.
    pub(super) fn list<T>(&self, read: impl Fn(&Node, &str) -> Result<T, Wrong>) -> Result<Vec<T>, String> {
        let Some(nodes) = self.root.as_list() else {
            return Err(format!(
                "{}: this must be a list, and is {}; begin each line with `- `",
                self.name,
                self.root.kind()
            ));
        };
        let read = nodes.iter().enumerate().map(|(at, node)| read(node, &format!("[{at}]")));
        read.collect::<Result<_, _>>().map_err(|Wrong { place, what }| format!("{}:{place}: {what}", self.name))
    }
}
