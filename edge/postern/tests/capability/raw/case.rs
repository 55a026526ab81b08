//! The table: what is sent, and what must come of it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use serde_json::{Map, Value};

/// One row of the table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "a row says what is so of it, one word each")]
pub(super) struct Case {
    /// A sentence about what happens.
    pub(super) name: String,
    /// The properties that it shows.
    pub(super) rules: Vec<String>,
    /// `h1` (usual), `h2` or `both`.
    #[serde(default)]
    pub(super) over: Over,
    /// The name in the TLS handshake, without the domain; `open` if it is not written.
    pub(super) sni: Option<String>,

    // What is sent. Either `send`, or the parts of a request, spelled for the protocol.
    /// The bytes of HTTP/1 as they are, in several writes; the steps `@upstream` (wait until the upstream has a head),
    /// `@answer` (read an answer), `@half-close` and `@leave` are no bytes.
    pub(super) send: Option<Many<String>>,
    #[serde(default = "get")]
    pub(super) method: String,
    #[serde(default = "slash")]
    pub(super) target: String,
    /// `open.corp.localhost` if it is not written.
    #[serde(default = "open")]
    pub(super) host: String,
    /// `Name: value`, or `[name, value]` where that would not do.
    #[serde(default)]
    pub(super) fields: Vec<Field>,
    /// HTTP/1: with a Content-Length. HTTP/2: DATA frames.
    pub(super) body: Option<Many<String>>,
    /// HTTP/1 alone: these bytes follow the head, whatever it says of a body.
    pub(super) after: Option<String>,
    /// The cookie of alice's session on that host comes with it.
    #[serde(default)]
    pub(super) session: bool,
    /// HTTP/2 alone: all pseudo fields in place of the usual four.
    pub(super) pseudo: Option<Vec<(String, String)>>,
    /// HTTP/2 alone: a field section after the data.
    pub(super) trailers: Option<Vec<(String, String)>>,
    /// HTTP/2 alone: the stream does not end, and is reset once the upstream has its head.
    #[serde(default)]
    pub(super) cut: bool,
    /// HTTP/2 alone: the field section comes in so many frames.
    #[serde(default = "one")]
    pub(super) frames: usize,
    /// So many times `{many}` in `send` or a field stands for its text.
    pub(super) many: Option<(String, usize)>,

    // What the upstream says to it; 200 and `ok` if that is not written.
    pub(super) answer: Option<String>,
    /// At the end of the head, the body still being on its way.
    #[serde(default)]
    pub(super) early: bool,
    /// Then the upstream closes.
    #[serde(default)]
    pub(super) closes: bool,

    // What must come of it.
    /// The status of the answer, or of each answer in turn; 0 for none.
    pub(super) status: Many<u16>,
    /// HTTP/1: the edge closes after that. If it does not, it must take another request.
    #[serde(default)]
    pub(super) closed: bool,
    /// HTTP/1: neither is asked for.
    #[serde(default)]
    pub(super) either: bool,
    /// A stream error, or HTTP/1's end of the connection, will do as well as the status.
    #[serde(default)]
    pub(super) reset: bool,
    /// Is in the body of the last answer.
    pub(super) says: Option<String>,
    /// The body of the last answer.
    pub(super) exactly: Option<String>,
    /// The last answer ends before its end.
    #[serde(default)]
    pub(super) short: bool,
    /// Fields of the last answer: the value; `""` for any, [`None`] (`null`) for absent.
    #[serde(default)]
    pub(super) with: BTreeMap<String, Option<String>>,
    /// What comes after a 101.
    pub(super) tail: Option<String>,
    /// What the upstream has seen: nothing if it is not written.
    #[serde(default)]
    pub(super) up: Many<Up>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Over {
    #[default]
    H1,
    H2,
    Both,
}

/// One or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Many<T> {
    One(T),
    All(Vec<T>),
}

impl<T> Default for Many<T> {
    fn default() -> Self {
        Self::All(Vec::new())
    }
}

impl<T> Many<T> {
    pub(super) fn all(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::All(all) => all,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Field {
    Line(String),
    Pair(String, String),
}

impl Field {
    /// Name and value.
    pub(super) fn pair(&self) -> (&str, &str) {
        match self {
            Self::Line(line) => line.split_once(": ").unwrap_or((line, "")),
            Self::Pair(name, value) => (name, value),
        }
    }

    /// As a line of HTTP/1.
    pub(super) fn line(&self) -> String {
        match self {
            Self::Line(line) => line.clone(),
            Self::Pair(name, value) => format!("{name}: {value}"),
        }
    }
}

/// A request that the upstream has seen.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Up {
    /// With this target; its method is that of the case.
    Target(String),
    /// With these parts.
    Parts(Parts),
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Parts {
    /// The whole request line.
    pub(super) line: Option<String>,
    pub(super) target: Option<String>,
    /// Fields: each value (several: joined by `|`); `""` for any, `null` for absent.
    #[serde(default)]
    pub(super) with: BTreeMap<String, Option<String>>,
    pub(super) body: Option<String>,
    /// What came after a 101.
    pub(super) piped: Option<String>,
    /// It never came to its end, and its connection ended.
    #[serde(default)]
    pub(super) cut: bool,
    /// Its assertion names this host.
    pub(super) assertion: Option<String>,
}

impl Up {
    pub(super) fn parts(&self) -> Parts {
        match self {
            Self::Target(target) => Parts { target: Some(target.clone()), ..Parts::default() },
            Self::Parts(parts) => parts.clone(),
        }
    }
}

/// The cases of a file: groups, whose keys are those of all their cases that have none of their own; rules add up.
pub(super) fn read(file: &str, text: &str) -> Result<Vec<Case>> {
    let document = postern_policy::document::read(text).map_err(|mistakes| anyhow!("{file}: {mistakes:?}"))?;
    let Value::Array(groups) = document.to_json() else { bail!("{file}: no list of groups") };
    let mut cases = Vec::new();
    for group in groups {
        let Value::Object(mut group) = group else { bail!("{file}: no group: {group}") };
        let Some(Value::Array(rows)) = group.remove("cases") else { bail!("{file}: a group without cases: {group:?}") };
        for row in rows {
            let Value::Object(row) = row else { bail!("{file}: no case: {row}") };
            let merged = Value::Object(merge(&group, row));
            let shown = merged.to_string();
            cases.push(serde_json::from_value(merged).with_context(|| format!("{file}: {shown}"))?);
        }
    }
    Ok(cases)
}

fn merge(group: &Map<String, Value>, row: Map<String, Value>) -> Map<String, Value> {
    let mut merged = group.clone();
    for (key, value) in row {
        match (merged.get_mut(&key), value) {
            (Some(Value::Array(rules)), Value::Array(more)) if key == "rules" => rules.extend(more),
            (_, value) => {
                merged.insert(key, value);
            }
        }
    }
    merged
}

fn get() -> String {
    "GET".to_owned()
}

fn slash() -> String {
    "/".to_owned()
}

fn open() -> String {
    format!("open.{}", crate::support::World::DOMAIN)
}

const fn one() -> usize {
    1
}
