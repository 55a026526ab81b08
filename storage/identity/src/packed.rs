//! JSON values in few bytes, immutable, and read where they lie.
//!
//! Each item begins as one of CBOR does (RFC 8949 §3): a kind in three bits and a number in the other five, or after them if it
//! is larger. Other than there, a list and a map say how many bytes they have, so that whoever looks for something else
//! passes over them; and a text may be a word of the vocabulary that sessions share ([`Words`]), or one of the first texts of
//! the same session said again.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Number, Value};

use crate::Words;

/// Packed items, and the vocabulary of their words.
#[derive(Debug)]
pub(crate) struct Packed {
    bytes: Box<[u8]>,
    words: Option<Arc<Words>>,
}

impl Packed {
    /// How many bytes its items have.
    #[cfg(test)]
    pub(crate) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// All items.
    pub(crate) fn items(&self) -> ClaimValues<'_> {
        ClaimValues { packed: self, bytes: &self.bytes }
    }

    /// Reads one item of those bytes, and gives what comes after it.
    fn item<'a>(&'a self, bytes: &'a [u8]) -> Option<(ClaimValue<'a>, &'a [u8])> {
        let (kind, number, rest) = head(bytes)?;
        let at = |number: u64| usize::try_from(number).ok();
        let part = || rest.split_at_checked(at(number)?);
        let whole = |value| Some((value, rest));
        match kind {
            UNSIGNED => whole(ClaimValue::Number(number.into())),
            NEGATIVE => whole(ClaimValue::Number((!number.cast_signed()).into())),
            WORD => whole(ClaimValue::Text(self.words.as_ref()?.word(at(number)?)?)),
            TEXT => part().map(|(text, rest)| (ClaimValue::Text(str::from_utf8(text).unwrap_or_default()), rest)),
            SAME => {
                let said =
                    self.bytes.get(at(number)?..).filter(|said| head(said).is_some_and(|said| said.0 != SAME))?;
                whole(self.item(said)?.0)
            }
            LIST => part().map(|(bytes, rest)| (ClaimValue::List(ClaimValues { packed: self, bytes }), rest)),
            MAP => part().map(|(bytes, rest)| (ClaimValue::Map(ClaimMap(ClaimValues { packed: self, bytes })), rest)),
            _ => match number {
                FLOAT => {
                    let (bits, rest) = rest.split_first_chunk()?;
                    Some((ClaimValue::Number(Number::from_f64(f64::from_be_bytes(*bits))?), rest))
                }
                FALSE | TRUE => whole(ClaimValue::Bool(number == TRUE)),
                _ => whole(ClaimValue::Null),
            },
        }
    }
}

/// What comes after one item of those bytes.
fn skip(bytes: &[u8]) -> Option<&[u8]> {
    let (kind, number, rest) = head(bytes)?;
    match kind {
        TEXT | LIST | MAP => rest.get(usize::try_from(number).ok()?..),
        SIMPLE if number == FLOAT => rest.get(size_of::<f64>()..),
        _ => Some(rest),
    }
}

/// The kind of an item, its number, and the bytes after these.
fn head(bytes: &[u8]) -> Option<(u8, u64, &[u8])> {
    let (first, mut rest) = bytes.split_first()?;
    let (kind, mut number) = (first >> 5, u64::from(first & MORE));
    if first & MORE == MORE {
        // Seven bits a byte, the lowest first; the highest bit says that there are more.
        for shift in (0..u64::BITS).step_by(7) {
            let (byte, after) = rest.split_first()?;
            rest = after;
            number = number.wrapping_add(u64::from(byte & 0x7f) << shift);
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    Some((kind, number, rest))
}

const UNSIGNED: u8 = 0;
/// Of what the number is the complement.
const NEGATIVE: u8 = 1;
const WORD: u8 = 2;
const TEXT: u8 = 3;
const LIST: u8 = 4;
const MAP: u8 = 5;
/// A text that stands there already, at that place.
const SAME: u8 = 6;
const SIMPLE: u8 = 7;
const MORE: u8 = 31;

const NULL: u64 = 0;
const FALSE: u64 = 1;
const TRUE: u64 = 2;
const FLOAT: u64 = 3;

/// A value in a packed claim, borrowed.
#[derive(Clone, Debug)]
pub enum ClaimValue<'a> {
    /// `null`.
    Null,
    /// A truth value.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A text.
    Text(&'a str),
    /// A list.
    List(ClaimValues<'a>),
    /// An object.
    Map(ClaimMap<'a>),
}

impl<'a> ClaimValue<'a> {
    /// The text, if it is one.
    #[must_use]
    pub const fn as_text(&self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::List(_) | Self::Map(_) => None,
        }
    }

    /// The truth value, if it is one.
    #[must_use]
    pub const fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(truth) => Some(*truth),
            Self::Null | Self::Number(_) | Self::Text(_) | Self::List(_) | Self::Map(_) => None,
        }
    }

    /// The object, if it is one.
    #[must_use]
    pub const fn as_map(&self) -> Option<ClaimMap<'a>> {
        match self {
            Self::Map(map) => Some(*map),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) | Self::List(_) => None,
        }
    }

    /// The same as JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(truth) => Value::Bool(*truth),
            Self::Number(number) => Value::Number(number.clone()),
            Self::Text(text) => Value::String((*text).to_owned()),
            Self::List(values) => values.to_json(),
            Self::Map(map) => Value::Object(map.to_json()),
        }
    }
}

/// The values of a packed claim, in their order.
#[derive(Clone, Copy)]
pub struct ClaimValues<'a> {
    packed: &'a Packed,
    bytes: &'a [u8],
}

impl<'a> ClaimValues<'a> {
    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = ClaimValue<'a>> {
        let mut rest = self.bytes;
        std::iter::from_fn(move || {
            let (value, after) = self.packed.item(rest)?;
            rest = after;
            Some(value)
        })
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// The same as a JSON list.
    #[must_use]
    pub fn to_json(self) -> Value {
        self.iter().map(|value| value.to_json()).collect()
    }
}

/// Packed claims, or another object: names with values, in their order.
#[derive(Clone, Copy)]
pub struct ClaimMap<'a>(ClaimValues<'a>);

impl<'a> ClaimMap<'a> {
    /// None, of the session that these items are of.
    pub(crate) const fn empty(of: ClaimValues<'a>) -> Self {
        Self(ClaimValues { bytes: &[], ..of })
    }

    /// The value of exactly that name.
    #[must_use]
    pub fn get(self, name: &str) -> Option<ClaimValue<'a>> {
        let ClaimValues { packed, bytes: mut rest } = self.0;
        while let Some((known, value)) = packed.item(rest) {
            if known.as_text() == Some(name) {
                return packed.item(value).map(|(value, _)| value);
            }
            rest = skip(value)?;
        }
        None
    }

    /// The values of the claim of exactly that flat name; `None` if there is no such claim.
    #[must_use]
    pub fn values(self, name: &str) -> Option<ClaimValues<'a>> {
        match self.get(name) {
            Some(ClaimValue::List(values)) => Some(values),
            Some(_) | None => None,
        }
    }

    /// Each name with its value.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, ClaimValue<'a>)> {
        let mut items = self.0.iter();
        std::iter::from_fn(move || Some((items.next()?.as_text()?, items.next()?)))
    }

    /// The same as a JSON object.
    #[must_use]
    pub fn to_json(self) -> Map<String, Value> {
        self.iter().map(|(name, value)| (name.to_owned(), value.to_json())).collect()
    }
}

impl fmt::Debug for ClaimValues<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl fmt::Debug for ClaimMap<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Writes items one after the other.
pub(crate) struct Packer<'s> {
    bytes: Vec<u8>,
    words: Option<&'s Arc<Words>>,
    /// Whose session it is.
    user: &'s str,
    /// Texts that may be said again, and where they stand.
    said: Vec<(&'s str, usize)>,
}

impl<'s> Packer<'s> {
    pub(crate) const fn new(words: Option<&'s Arc<Words>>, user: &'s str) -> Self {
        Self { bytes: Vec::new(), words, user, said: Vec::new() }
    }

    pub(crate) fn finish(self) -> Packed {
        Packed { bytes: self.bytes.into(), words: self.words.map(Arc::clone) }
    }

    /// A text that claims may repeat, or none. Such come before all lists and maps, which move what is in them.
    pub(crate) fn own(&mut self, text: Option<&'s str>) {
        match text {
            Some(text) => {
                self.said.push((text, self.bytes.len()));
                self.spelled(text);
            }
            None => self.simple(NULL),
        }
    }

    /// The same, of a text that other sessions have too.
    pub(crate) fn shared(&mut self, text: &'s str) {
        self.said.push((text, self.bytes.len()));
        self.word(text);
    }

    pub(crate) fn truth(&mut self, truth: Option<bool>) {
        self.simple(truth.map_or(NULL, |truth| if truth { TRUE } else { FALSE }));
    }

    fn word(&mut self, text: &str) {
        match self.words.and_then(|words| words.number(text, self.user)) {
            Some(number) => self.head(WORD, number),
            None => self.spelled(text),
        }
    }

    /// Names with values.
    pub(crate) fn map<'v>(&mut self, pairs: impl Iterator<Item = (&'v str, &'v [Value])>) {
        self.measured(MAP, |packer| {
            for (name, values) in pairs {
                packer.word(name);
                packer.list(values);
            }
        });
    }

    /// The elements of a longer list are words, such as groups; one value alone may well be this user's alone.
    fn list(&mut self, values: &[Value]) {
        self.measured(LIST, |packer| values.iter().for_each(|value| packer.value(value, values.len() > 1)));
    }

    fn value(&mut self, value: &Value, is_word: bool) {
        match value {
            Value::Null => self.simple(NULL),
            Value::Bool(truth) => self.truth(Some(*truth)),
            Value::Number(number) => self.number(number),
            Value::String(text) => match self.place(text) {
                Some(place) => self.head(SAME, place),
                None if is_word => self.word(text),
                None => self.spelled(text),
            },
            Value::Array(values) => self.list(values),
            Value::Object(object) => self.measured(MAP, |packer| {
                for (name, value) in object {
                    packer.word(name);
                    packer.value(value, false);
                }
            }),
        }
    }

    fn number(&mut self, number: &Number) {
        if let Some(number) = number.as_u64() {
            self.long_head(UNSIGNED, number);
        } else if let Some(number) = number.as_i64() {
            self.long_head(NEGATIVE, !number.cast_unsigned());
        } else {
            self.simple(FLOAT);
            self.bytes.extend(number.as_f64().unwrap_or_default().to_be_bytes());
        }
    }

    fn simple(&mut self, number: u64) {
        self.long_head(SIMPLE, number);
    }

    fn spelled(&mut self, text: &str) {
        self.head(TEXT, text.len());
        self.bytes.extend(text.as_bytes());
    }

    /// Where a text stands that was said; a short one is as well spelled.
    fn place(&self, text: &str) -> Option<usize> {
        let said = self.said.iter().find(|(said, _)| *said == text && text.len() > 1);
        said.map(|(_, place)| *place)
    }

    /// An item that has others in it.
    fn measured(&mut self, kind: u8, inside: impl FnOnce(&mut Self)) {
        let outside = std::mem::take(&mut self.bytes);
        inside(self);
        let inside = std::mem::replace(&mut self.bytes, outside);
        self.head(kind, inside.len());
        self.bytes.extend(inside);
    }

    fn head(&mut self, kind: u8, number: usize) {
        self.long_head(kind, u64::try_from(number).unwrap_or(u64::MAX));
    }

    fn long_head(&mut self, kind: u8, number: u64) {
        let more = u64::from(MORE);
        let Some(mut rest) = number.checked_sub(more) else {
            return self.bytes.push(kind << 5 | low(number));
        };
        self.bytes.push(kind << 5 | MORE);
        while rest > 0x7f {
            self.bytes.push(low(rest) | 0x80);
            rest >>= 7;
        }
        self.bytes.push(low(rest));
    }
}

/// The seven lowest bits.
const fn low(number: u64) -> u8 {
    let [.., low] = number.to_be_bytes();
    low & 0x7f
}
