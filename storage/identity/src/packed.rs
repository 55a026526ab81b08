//! What a session says in few bytes, immutable, and read where it lies.
//!
//! All of it is one text, so that a part of it is a text too and is not checked again when it is read. First come the parts
//! that are texts themselves, then the claims, item after item. An item begins as one of CBOR does (RFC 8949 §3), but with
//! seven bits a byte: a kind in three bits and a number in the other four, or after them, six bits a byte, if it is larger.
//! Other than there, a list and a map say how many bytes they have, so that whoever looks for something else passes over
//! them; before a name stands a mark that most other names do not have; and a text may be a word of the vocabulary that
//! sessions share ([`Words`]), or a part of the same session said again.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Number, Value};

use crate::{Words, prefetch_bytes};

/// What a session consists of, in the order in which it lies there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    UserId,
    Email,
    Name,
    Idp,
    Issuer,
    UserClaims,
    Claims,
}

impl Part {
    /// Those that are texts: only the user's, then those that other sessions have too.
    const OWN: [Self; 3] = [Self::UserId, Self::Email, Self::Name];
    const SHARED: [Self; 2] = [Self::Idp, Self::Issuer];
    const TEXTS: [Self; 5] = [Self::UserId, Self::Email, Self::Name, Self::Idp, Self::Issuer];
}

/// Packed parts, and the vocabulary of their words.
#[derive(Debug)]
pub(crate) struct Packed {
    text: Box<str>,
    /// Where each part ends, and so the next one begins.
    ends: [u32; 7],
    words: Arc<Words>,
}

impl Packed {
    /// How many bytes its parts have.
    #[cfg(test)]
    pub(crate) const fn len(&self) -> usize {
        self.text.len()
    }

    /// Asks for its parts before they are read.
    #[inline]
    pub(crate) fn prefetch(&self) {
        prefetch_bytes(self.text.as_bytes());
    }

    /// One of the [texts](Part::TEXTS); `None` if nothing was said.
    #[inline]
    pub(crate) fn text(&self, part: Part) -> Option<&str> {
        match part {
            Part::UserId | Part::Email | Part::Name => self.part(part)?.get(SAID.len()..),
            Part::Idp | Part::Issuer => self.item(self.place(part)?.0)?.0.as_text(),
            Part::UserClaims | Part::Claims => None,
        }
    }

    /// The claims of the user or of the session.
    #[inline]
    pub(crate) fn claims(&self, part: Part) -> ClaimMap<'_> {
        let (from, to) = self.place(part).unwrap_or_default();
        ClaimMap(ClaimValues { packed: self, from, to })
    }

    #[inline]
    fn part(&self, part: Part) -> Option<&str> {
        let (from, to) = self.place(part)?;
        self.text.get(from..to)
    }

    /// Where a part begins and ends.
    #[inline]
    fn place(&self, part: Part) -> Option<(usize, usize)> {
        let at = |end: Option<&u32>| usize::try_from(*end?).ok();
        let from = (part as usize).checked_sub(1).map_or(Some(0), |before| at(self.ends.get(before)));
        Some((from?, at(self.ends.get(part as usize))?))
    }

    /// Reads the item at that place, and gives the place after it.
    #[inline]
    fn item(&self, at: usize) -> Option<(ClaimValue<'_>, usize)> {
        let (kind, number, from) = self.head(at)?;
        let size = |number: u64| usize::try_from(number).ok();
        let whole = |value| Some((value, from));
        match kind {
            UNSIGNED => whole(ClaimValue::Number(number.into())),
            NEGATIVE => whole(ClaimValue::Number((!number.cast_signed()).into())),
            WORD => whole(ClaimValue::Text(self.words.word(size(number)?)?)),
            TEXT => {
                let to = from.checked_add(size(number)?)?;
                Some((ClaimValue::Text(self.text.get(from..to)?), to))
            }
            SAME => whole(ClaimValue::Text(self.text(*Part::TEXTS.get(size(number)?)?)?)),
            LIST | MAP => {
                let to = from.checked_add(size(number)?)?;
                let inside = ClaimValues { packed: self, from, to };
                Some((if kind == LIST { ClaimValue::List(inside) } else { ClaimValue::Map(ClaimMap(inside)) }, to))
            }
            _ => match number {
                FLOAT => {
                    let (_, bits, after) = self.head(from)?;
                    Some((ClaimValue::Number(Number::from_f64(f64::from_bits(bits))?), after))
                }
                FALSE | TRUE => whole(ClaimValue::Bool(number == TRUE)),
                _ => whole(ClaimValue::Null),
            },
        }
    }

    /// Whether the item at that place is that text: most are of another length, and those are not read.
    #[inline]
    fn says(&self, at: usize, text: &str) -> bool {
        let Some((kind, number, from)) = self.head(at) else { return false };
        let size = usize::try_from(number).unwrap_or(usize::MAX);
        match kind {
            TEXT => {
                size == text.len()
                    && self.text.as_bytes().get(from..).is_some_and(|rest| rest.starts_with(text.as_bytes()))
            }
            WORD => self.words.word(size) == Some(text),
            SAME => Part::TEXTS.get(size).and_then(|part| self.text(*part)) == Some(text),
            _ => false,
        }
    }

    /// The place after the item at that place.
    #[inline]
    fn skip(&self, at: usize) -> Option<usize> {
        let first = *self.text.as_bytes().get(at)?;
        let (kind, small) = (first >> 4, first & MORE);
        match kind {
            _ if small == MORE => self.skip_long(at),
            TEXT | LIST | MAP => Some(at + 1 + usize::from(small)),
            SIMPLE if u64::from(small) == FLOAT => self.head(at + 1).map(|(.., after)| after),
            _ => Some(at + 1),
        }
    }

    /// The same of an item whose number is large.
    fn skip_long(&self, at: usize) -> Option<usize> {
        let (kind, number, from) = self.head(at)?;
        match kind {
            TEXT | LIST | MAP => from.checked_add(usize::try_from(number).ok()?),
            _ => Some(from),
        }
    }

    /// The kind of the item at that place, its number, and the place after these.
    #[inline]
    fn head(&self, at: usize) -> Option<(u8, u64, usize)> {
        let bytes = self.text.as_bytes();
        let first = *bytes.get(at)?;
        let (kind, mut number, mut after) = (first >> 4, u64::from(first & MORE), at + 1);
        if first & MORE == MORE {
            // The lowest bits first; the seventh bit says that there are more.
            for shift in (0..u64::BITS).step_by(6) {
                let byte = *bytes.get(after)?;
                after += 1;
                number = number.wrapping_add(u64::from(byte & 0x3f) << shift);
                if byte & 0x40 == 0 {
                    break;
                }
            }
        }
        Some((kind, number, after))
    }
}

/// Before the name of a claim, so that most others are passed over unread. Seven bits.
#[inline]
fn mark(name: &str) -> u8 {
    let bytes = name.as_bytes();
    let [.., size] = bytes.len().to_be_bytes();
    let ends = bytes.first().zip(bytes.last()).map_or(0, |(first, last)| first.wrapping_mul(7) ^ last.wrapping_mul(31));
    ends.wrapping_add(size.wrapping_mul(5)) & 0x7f
}

/// Before an own text, to tell an empty one from none.
const SAID: &str = "=";

const UNSIGNED: u8 = 0;
/// Of what the number is the complement.
const NEGATIVE: u8 = 1;
const WORD: u8 = 2;
const TEXT: u8 = 3;
const LIST: u8 = 4;
const MAP: u8 = 5;
/// What one of [`Part::TEXTS`] says, by its number there.
const SAME: u8 = 6;
const SIMPLE: u8 = 7;
const MORE: u8 = 15;

const NULL: u64 = 0;
const FALSE: u64 = 1;
const TRUE: u64 = 2;
/// Its bits follow as another number.
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
    from: usize,
    to: usize,
}

impl<'a> ClaimValues<'a> {
    /// Each of them.
    #[inline]
    pub fn iter(self) -> impl Iterator<Item = ClaimValue<'a>> {
        let Self { packed, from: mut at, to } = self;
        std::iter::from_fn(move || {
            let (value, after) = (at < to).then(|| packed.item(at))??;
            at = after;
            Some(value)
        })
    }

    /// Whether one of them is that text.
    #[must_use]
    #[inline]
    pub fn has_text(self, text: &str) -> bool {
        let Self { packed, from: mut at, to } = self;
        while at < to {
            if packed.says(at, text) {
                return true;
            }
            let Some(after) = packed.skip(at) else { return false };
            at = after;
        }
        false
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.from == self.to
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
    /// The value of exactly that name.
    #[must_use]
    pub fn get(self, name: &str) -> Option<ClaimValue<'a>> {
        self.0.packed.item(self.place(name)?).map(|(value, _)| value)
    }

    /// The values of the claim of exactly that flat name; `None` if there is no such claim.
    #[must_use]
    #[inline]
    pub fn values(self, name: &str) -> Option<ClaimValues<'a>> {
        let packed = self.0.packed;
        let (kind, number, from) = packed.head(self.place(name)?)?;
        let to = from.checked_add(usize::try_from(number).ok()?)?;
        (kind == LIST).then_some(ClaimValues { packed, from, to })
    }

    /// Where the value of exactly that name lies.
    #[inline]
    fn place(self, name: &str) -> Option<usize> {
        let ClaimValues { packed, from: mut at, to } = self.0;
        let wanted = mark(name);
        while at < to {
            let is_likely = *packed.text.as_bytes().get(at)? == wanted;
            let value = packed.skip(at + 1)?;
            if is_likely && packed.says(at + 1, name) {
                return Some(value);
            }
            at = packed.skip(value)?;
        }
        None
    }

    /// Each name with its value.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, ClaimValue<'a>)> {
        let ClaimValues { packed, from: mut at, to } = self.0;
        std::iter::from_fn(move || {
            let (name, value) = (at < to).then(|| packed.item(at + 1))??;
            let (value, after) = packed.item(value)?;
            at = after;
            Some((name.as_text()?, value))
        })
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

/// Writes part after part.
pub(crate) struct Packer<'s> {
    text: String,
    ends: [u32; 7],
    words: &'s Arc<Words>,
    /// Whose session it is.
    user: &'s str,
    /// What claims may say again, in the order of [`Part::TEXTS`].
    said: [Option<&'s str>; 5],
}

impl<'s> Packer<'s> {
    /// With the texts of all parts; `own` in the order of [`Part::OWN`], `shared` in that of [`Part::SHARED`].
    pub(crate) fn new(words: &'s Arc<Words>, own: [Option<&'s str>; 3], shared: [&'s str; 2]) -> Self {
        let ([user, email, name], [idp, issuer]) = (own, shared);
        let said = [user, email, name, Some(idp), Some(issuer)];
        let mut packer = Self { text: String::new(), ends: [0; 7], words, user: user.unwrap_or_default(), said };
        for (part, text) in Part::OWN.into_iter().zip(own) {
            if let Some(text) = text {
                packer.text.push_str(SAID);
                packer.text.push_str(text);
            }
            packer.end(part);
        }
        for (part, text) in Part::SHARED.into_iter().zip(shared) {
            packer.word(text);
            packer.end(part);
        }
        packer
    }

    /// The claims of the user or of the session, names with values; those of the user first.
    pub(crate) fn claims<'v>(&mut self, part: Part, pairs: impl Iterator<Item = (&'v str, &'v [Value])>) {
        for (name, values) in pairs {
            self.name(name);
            self.list(values);
        }
        self.end(part);
    }

    pub(crate) fn finish(self) -> Packed {
        Packed { text: self.text.into(), ends: self.ends, words: Arc::clone(self.words) }
    }

    fn end(&mut self, part: Part) {
        if let Some(end) = self.ends.get_mut(part as usize) {
            *end = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        }
    }

    fn name(&mut self, name: &str) {
        self.byte(mark(name));
        self.word(name);
    }

    fn word(&mut self, text: &str) {
        match self.words.number(text, self.user) {
            Some(number) => self.head(WORD, number),
            None => self.spelled(text),
        }
    }

    /// The elements of a longer list are words, such as groups; one value alone may well be this user's alone.
    fn list(&mut self, values: &[Value]) {
        self.measured(LIST, |packer| values.iter().for_each(|value| packer.value(value, values.len() > 1)));
    }

    fn value(&mut self, value: &Value, is_word: bool) {
        match value {
            Value::Null => self.simple(NULL),
            Value::Bool(truth) => self.simple(if *truth { TRUE } else { FALSE }),
            Value::Number(number) => self.number(number),
            Value::String(text) => match self.place(text) {
                Some(place) => self.head(SAME, place),
                None if is_word => self.word(text),
                None => self.spelled(text),
            },
            Value::Array(values) => self.list(values),
            Value::Object(object) => self.measured(MAP, |packer| {
                for (name, value) in object {
                    packer.name(name);
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
            self.long_head(UNSIGNED, number.as_f64().unwrap_or_default().to_bits());
        }
    }

    fn simple(&mut self, number: u64) {
        self.long_head(SIMPLE, number);
    }

    fn spelled(&mut self, text: &str) {
        self.head(TEXT, text.len());
        self.text.push_str(text);
    }

    /// Which part says that too; a short text is as well spelled.
    fn place(&self, text: &str) -> Option<usize> {
        self.said.iter().position(|said| *said == Some(text) && text.len() > 1)
    }

    /// An item that has others in it.
    fn measured(&mut self, kind: u8, inside: impl FnOnce(&mut Self)) {
        let outside = std::mem::take(&mut self.text);
        inside(self);
        let inside = std::mem::replace(&mut self.text, outside);
        self.head(kind, inside.len());
        self.text.push_str(&inside);
    }

    fn head(&mut self, kind: u8, number: usize) {
        self.long_head(kind, u64::try_from(number).unwrap_or(u64::MAX));
    }

    fn long_head(&mut self, kind: u8, number: u64) {
        let Some(mut rest) = number.checked_sub(u64::from(MORE)) else {
            return self.byte(kind << 4 | low(number));
        };
        self.byte(kind << 4 | MORE);
        while rest > 0x3f {
            self.byte(low(rest) | 0x40);
            rest >>= 6;
        }
        self.byte(low(rest));
    }

    /// Of seven bits, and so a character.
    fn byte(&mut self, byte: u8) {
        self.text.push(char::from(byte));
    }
}

/// The six lowest bits.
const fn low(number: u64) -> u8 {
    let [.., low] = number.to_be_bytes();
    low & 0x3f
}
