//! How a criterion compares: string, string-list and address matchers (01 §3.5), compiled once.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use memchr::memmem::Finder;
use postern_identity::{ClaimValue, ClaimValues};
use serde_json::{Number, Value};

use crate::document::{Entry, Mistake, Node};
use crate::samples::Pieces;

/// Compares one text; all of its tests must hold, and with none it always does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StringMatcher(Box<[StringTest]>);

#[derive(Clone, Debug, PartialEq)]
enum StringTest {
    /// `None`: the value is no text, and so equals none.
    Is(Option<Box<str>>),
    Not(Option<Box<str>>),
    StartsWith(Box<str>),
    EndsWith(Box<str>),
    Contains(Box<Needle>),
    In(Texts),
    NotIn(Texts),
}

impl StringTest {
    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Is(value) => value.as_deref() == Some(text),
            Self::Not(value) => value.as_deref() != Some(text),
            Self::StartsWith(value) => text.starts_with(&**value),
            Self::EndsWith(value) => text.ends_with(&**value),
            Self::Contains(needle) => needle.finder.find(text.as_bytes()).is_some(),
            Self::In(values) => values.contains(text),
            Self::NotIn(values) => !values.contains(text),
        }
    }
}

/// A text that is looked for inside of others; how is prepared.
#[derive(Clone, Debug)]
struct Needle {
    text: Box<str>,
    finder: Finder<'static>,
}

impl Needle {
    fn new(text: Box<str>) -> Self {
        Self { finder: Finder::new(text.as_bytes()).into_owned(), text }
    }
}

impl PartialEq for Needle {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// A sorted set of texts.
#[derive(Clone, Debug, PartialEq)]
struct Texts(Box<[Box<str>]>);

impl Texts {
    fn new(texts: impl IntoIterator<Item = Box<str>>) -> Self {
        let mut texts: Vec<_> = texts.into_iter().collect();
        texts.sort_unstable();
        texts.dedup();
        Self(texts.into())
    }

    fn contains(&self, text: &str) -> bool {
        self.0.binary_search_by(|candidate| (**candidate).cmp(text)).is_ok()
    }
}

impl StringMatcher {
    pub(crate) const OPERATORS: [&'static str; 7] =
        ["is", "not", "starts_with", "ends_with", "contains", "in", "not_in"];

    /// A map of operators, or a plain value, which means `is`.
    pub(crate) fn parse(node: &Node) -> Result<Self, Vec<Mistake>> {
        match node.as_map() {
            Some(entries) => collect(entries, Self::test).map(|tests| Self(tests.into())),
            None => Ok(Self([StringTest::Is(text_of(present(node)?))].into())),
        }
    }

    /// Equality with one of these.
    pub(crate) fn one_of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        Self([StringTest::In(Texts::new(texts.into_iter().map(Box::from)))].into())
    }

    fn test(entry: &Entry) -> Result<StringTest, Mistake> {
        let value = &entry.value;
        Ok(match entry.key.to_ascii_lowercase().as_str() {
            "is" => StringTest::Is(text_of(value)),
            "not" => StringTest::Not(text_of(value)),
            "starts_with" => StringTest::StartsWith(text(entry)?),
            "ends_with" => StringTest::EndsWith(text(entry)?),
            "contains" => StringTest::Contains(Box::new(Needle::new(text(entry)?))),
            "in" => StringTest::In(texts(entry)?),
            "not_in" => StringTest::NotIn(texts(entry)?),
            _ => return Err(unknown_operator(entry, &Self::OPERATORS)),
        })
    }

    pub(crate) fn matches(&self, text: &str) -> bool {
        self.0.iter().all(|test| test.matches(text))
    }

    /// Whether each test is met by some of the texts, not all by the same (01 §3.5).
    pub(crate) fn matches_among(&self, texts: &[String]) -> bool {
        self.0.iter().all(|test| texts.iter().any(|text| test.matches(text)))
    }

    /// Adds what it looks for.
    pub(crate) fn sample(&self, pieces: &mut Pieces) {
        for test in &self.0 {
            match test {
                StringTest::Is(value) | StringTest::Not(value) => {
                    value.iter().for_each(|value| pieces.whole(value));
                }
                StringTest::StartsWith(value) => pieces.start(value),
                StringTest::EndsWith(value) => pieces.end(value),
                StringTest::Contains(needle) => pieces.middle(&needle.text),
                StringTest::In(values) | StringTest::NotIn(values) => {
                    values.0.iter().for_each(|value| pieces.whole(value));
                }
            }
        }
    }

    /// Adds what addresses at the domains that it looks for have in them.
    pub(crate) fn sample_domain(&self, addresses: &mut Pieces) {
        for test in &self.0 {
            match test {
                StringTest::Is(value) | StringTest::Not(value) => {
                    value.iter().for_each(|value| addresses.end(&format!("@{value}")));
                }
                StringTest::StartsWith(value) => addresses.middle(&format!("@{value}")),
                StringTest::EndsWith(value) => {
                    addresses.end(&format!("@{value}"));
                    addresses.end(&format!("@x{value}"));
                    // After what a domain is to begin with.
                    addresses.end(value);
                }
                StringTest::Contains(needle) => {
                    let value = &needle.text;
                    addresses.middle(value);
                    addresses.end(&format!("@{value}"));
                    addresses.end(&format!("@x{value}x"));
                }
                StringTest::In(values) | StringTest::NotIn(values) => {
                    values.0.iter().for_each(|value| addresses.end(&format!("@{value}")));
                }
            }
        }
    }

    /// What it asks for, after a noun: " alice", " that starts with /a", " other than POST".
    pub(crate) fn words(&self) -> String {
        let words = self.0.iter().map(|test| match test {
            StringTest::Is(Some(value)) => value.to_string(),
            StringTest::Is(None) => "that no text equals".to_owned(),
            StringTest::Not(Some(value)) => format!("other than {value}"),
            StringTest::Not(None) => "of any kind".to_owned(),
            StringTest::StartsWith(value) => format!("that starts with {value}"),
            StringTest::EndsWith(value) => format!("that ends with {value}"),
            StringTest::Contains(needle) => format!("that contains {}", needle.text),
            StringTest::In(values) => series(&values.0, "or"),
            StringTest::NotIn(values) => format!("other than {}", series(&values.0, "and")),
        });
        let words: Vec<_> = words.collect();
        if words.is_empty() { "of any kind".to_owned() } else { words.join(" and ") }
    }

    /// Whether it names whole values, as a list of persons does.
    pub(crate) fn names_values(&self) -> bool {
        let names = |test: &StringTest| match test {
            StringTest::Is(_) | StringTest::Not(_) | StringTest::In(_) | StringTest::NotIn(_) => true,
            StringTest::StartsWith(_) | StringTest::EndsWith(_) | StringTest::Contains(_) => false,
        };
        self.0.iter().any(names)
    }
}

/// Compares the values of a claim; all of its tests must hold, and with none it always does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ListMatcher(Box<[ListTest]>);

#[derive(Clone, Debug, PartialEq)]
enum ListTest {
    Has(Value),
    HasAny(Box<[Value]>),
    Is(Value),
    Exclude(Value),
}

impl ListMatcher {
    pub(crate) const OPERATORS: [&'static str; 3] = ["has", "is", "exclude"];

    /// A map of operators, or a plain value, which means `has`.
    pub(crate) fn parse(node: &Node) -> Result<Self, Vec<Mistake>> {
        match node.as_map() {
            Some(entries) => collect(entries, Self::test).map(|tests| Self(tests.into())),
            None => Ok(Self([ListTest::Has(present(node)?.to_json())].into())),
        }
    }

    /// Some element equals one of these.
    pub(crate) fn has_any(values: &[Value]) -> Self {
        Self([ListTest::HasAny(values.into())].into())
    }

    fn test(entry: &Entry) -> Result<ListTest, Mistake> {
        let value = || entry.value.to_json();
        match entry.key.to_ascii_lowercase().as_str() {
            "has" => Ok(ListTest::Has(value())),
            "is" => Ok(ListTest::Is(value())),
            "exclude" => Ok(ListTest::Exclude(value())),
            _ => Err(unknown_operator(entry, &Self::OPERATORS)),
        }
    }

    /// Whether the values of a claim meet it; `None` of a claim that is not there.
    pub(crate) fn matches(&self, list: Option<ClaimValues<'_>>) -> bool {
        let has = |value: &Value| match (list, value) {
            (None, _) => false,
            (Some(list), Value::String(text)) => list.has_text(text),
            (Some(list), _) => list.iter().any(|element| equals(&element, value)),
        };
        self.0.iter().all(|test| match test {
            ListTest::Has(value) => has(value),
            ListTest::HasAny(values) => values.iter().any(has),
            ListTest::Is(value) => list.is_some_and(|list| {
                let mut elements = list.iter();
                elements.next().is_some_and(|element| equals(&element, value)) && elements.next().is_none()
            }),
            ListTest::Exclude(value) => !has(value),
        })
    }

    /// Adds what it looks for.
    pub(crate) fn sample(&self, given: &mut Vec<Value>) {
        let mut put = |value: &Value| {
            if !given.contains(value) {
                given.push(value.clone());
            }
        };
        for test in &self.0 {
            match test {
                ListTest::Has(value) | ListTest::Is(value) | ListTest::Exclude(value) => put(value),
                ListTest::HasAny(values) => values.iter().for_each(&mut put),
            }
        }
    }

    /// What it asks for, in one line.
    pub(crate) fn words(&self) -> String {
        let words = self.wants().map(|want| match want {
            Want::Has(value) => value,
            Want::Only(value) => format!("{value} and nothing else"),
            Want::Lacks(value) => format!("not {value}"),
        });
        let words: Vec<_> = words.collect();
        if words.is_empty() { "anything".to_owned() } else { words.join(" and ") }
    }

    /// What it asks for, each test by itself: an element that must be there, or must not.
    pub(crate) fn wants(&self) -> impl Iterator<Item = Want> {
        self.0.iter().map(|test| match test {
            ListTest::Has(value) => Want::Has(plain(value)),
            ListTest::HasAny(values) => Want::Has(series(&values.iter().map(plain).collect::<Vec<_>>(), "or")),
            ListTest::Is(value) => Want::Only(plain(value)),
            ListTest::Exclude(value) => Want::Lacks(plain(value)),
        })
    }
}

/// One wish of a [`ListMatcher`], in words.
pub(crate) enum Want {
    Has(String),
    Only(String),
    Lacks(String),
}

/// A set of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpMatcher(Box<[IpNet]>);

impl IpMatcher {
    /// These addresses and CIDR ranges.
    ///
    /// # Errors
    /// The number of the first text that is neither.
    pub fn of<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Self, usize> {
        let ranges = texts.into_iter().enumerate().map(|(at, text)| parse_range(text).ok_or(at));
        ranges.collect::<Result<_, _>>().map(Self)
    }

    /// Whether every address of some version is in it, by one of its ranges.
    #[must_use]
    pub fn is_everybody(&self) -> bool {
        self.0.iter().any(|range| range.prefix_len() == 0)
    }

    /// An address or CIDR range, or a list of them.
    pub(crate) fn parse(node: &Node) -> Result<Self, Vec<Mistake>> {
        let ranges = node.as_list().unwrap_or(std::slice::from_ref(node));
        collect(ranges, range).map(|ranges| Self(ranges.into()))
    }

    /// Whether that address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|range| range.contains(&address))
    }

    /// The ranges.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = IpNet> {
        self.0.iter().copied()
    }

    /// The ranges, for a person.
    pub(crate) fn words(&self) -> String {
        let ranges: Vec<_> = self.0.iter().map(IpNet::to_string).collect();
        if ranges.is_empty() { "an empty list".to_owned() } else { series(&ranges, "or") }
    }
}

/// An IPv4 address inside IPv6 is taken for what it is, in ranges as in sources, or a deny rule could be walked around.
fn parse_range(text: &str) -> Option<IpNet> {
    let text = text.trim();
    let range = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    let IpNet::V6(inside) = range else { return Some(range) };
    Some(match (inside.addr().to_ipv4_mapped(), inside.prefix_len().checked_sub(96)) {
        (Some(address), Some(prefix)) => Ipv4Net::new(address, prefix).map_or(range, IpNet::V4),
        _ => range,
    })
}

fn range(node: &Node) -> Result<IpNet, Mistake> {
    node.as_str().and_then(parse_range).ok_or_else(|| {
        let found = node.as_text().map_or_else(|| node.kind().to_owned(), |text| format!("`{text}`"));
        Mistake::at(node.place, format!("{found} is not an IP address or range"))
            .hint("write an address such as `192.0.2.7` or a range such as `2001:db8::/32`, or a list of them")
    })
}

/// JSON equality: typed, without coercion, numbers by value.
pub(crate) fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => equal_numbers(left, right),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| equal(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, left)| right.get(key).is_some_and(|right| equal(left, right)))
        }
        _ => left == right,
    }
}

fn equal_numbers(left: &Number, right: &Number) -> bool {
    match (left.is_f64(), right.is_f64()) {
        (false, false) => left == right,
        _ => left.as_f64() == right.as_f64(),
    }
}

/// [`equal`], of an element of a claim.
fn equals(element: &ClaimValue<'_>, value: &Value) -> bool {
    match (element, value) {
        (ClaimValue::Text(left), Value::String(right)) => left == right,
        (ClaimValue::Number(left), Value::Number(right)) => equal_numbers(left, right),
        (ClaimValue::Bool(left), Value::Bool(right)) => left == right,
        (ClaimValue::Null, Value::Null) => true,
        (ClaimValue::List(left), Value::Array(right)) => {
            let (mut left, mut right) = (left.iter(), right.iter());
            loop {
                match (left.next(), right.next()) {
                    (None, None) => return true,
                    (Some(left), Some(right)) if equals(&left, right) => {}
                    _ => return false,
                }
            }
        }
        (ClaimValue::Map(left), Value::Object(right)) => {
            left.iter().count() == right.len()
                && left.iter().all(|(key, left)| right.get(key).is_some_and(|right| equals(&left, right)))
        }
        _ => false,
    }
}

/// Each item read, or every mistake in them.
pub(crate) fn collect<I, T, M: Into<Vec<Mistake>>>(
    items: &[I],
    read: impl FnMut(&I) -> Result<T, M>,
) -> Result<Vec<T>, Vec<Mistake>> {
    let mut mistakes = Vec::new();
    let read = items.iter().map(read);
    let read = read.filter_map(|read| read.map_err(|more| mistakes.extend(more.into())).ok()).collect();
    if mistakes.is_empty() { Ok(read) } else { Err(mistakes) }
}

fn present(node: &Node) -> Result<&Node, Mistake> {
    if node.is_null() {
        return Err(Mistake::at(node.place, "a value to compare with is missing").hint("write it after the colon"));
    }
    Ok(node)
}

fn text_of(node: &Node) -> Option<Box<str>> {
    node.as_str().map(Box::from)
}

pub(crate) fn text(entry: &Entry) -> Result<Box<str>, Mistake> {
    text_of(&entry.value).ok_or_else(|| {
        Mistake::at(entry.value.place, format!("`{}` needs text, not {}", entry.key, entry.value.kind()))
            .hint("put the value in quotes")
    })
}

/// Elements that are no text equal no text, and so are left out.
fn texts(entry: &Entry) -> Result<Texts, Mistake> {
    match entry.value.as_list() {
        Some(nodes) => Ok(Texts::new(nodes.iter().filter_map(text_of))),
        None => {
            Err(Mistake::at(entry.value.place, format!("`{}` needs a list, not {}", entry.key, entry.value.kind()))
                .hint(format!("write `{}: [first, second]`", entry.key)))
        }
    }
}

/// A key that is none of those that are known; `what` says so.
pub(crate) fn unknown(entry: &Entry, what: &str, known: &[&str]) -> Mistake {
    Mistake::at(entry.key_place, format!("{what} `{}`", entry.key)).hint_nearest(
        &entry.key,
        known.iter().copied(),
        || format!("write one of {}", known.join(", ")),
    )
}

pub(crate) fn unknown_operator(entry: &Entry, known: &[&str]) -> Mistake {
    unknown(entry, "unknown operator", known)
}

/// The elements of a claim, for a person.
pub(crate) fn listed(values: &[Value]) -> String {
    if values.is_empty() { "an empty list".to_owned() } else { values.iter().map(plain).collect::<Vec<_>>().join(", ") }
}

/// The same of those of a session.
pub(crate) fn listed_values(values: ClaimValues<'_>) -> String {
    listed(&values.iter().map(|value| value.to_json()).collect::<Vec<_>>())
}

pub(crate) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

/// "a, b or c", cut where a person stops reading.
pub(crate) fn series(items: &[impl AsRef<str>], last: &str) -> String {
    const SHOWN: usize = 6;
    let mut words: Vec<&str> = items.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let more = format!("{} more", items.len().saturating_sub(SHOWN));
    if items.len() > SHOWN {
        words.push(&more);
    }
    match words.split_last() {
        None => "nothing".to_owned(),
        Some((only, [])) => (*only).to_owned(),
        Some((end, rest)) => format!("{} {last} {end}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests;
