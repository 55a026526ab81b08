//! Values as Pomerium reads them: weakly typed, each with its place (01 §1.1).

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postern_policy::document::{Node, Place, Value, nearest};
use url::Url;

use super::context::Context;
use super::keys::Kind;
use super::problem::{At, Origin, Severity};
use super::{Code, duration};

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Field<'n> {
    pub(super) at: At,
    /// Where the key stands; the same as the value's place for elements of lists.
    pub(super) key_place: Place,
    pub(super) node: &'n Node,
}

/// A scalar and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Spanned<T> {
    pub(super) at: At,
    pub(super) value: T,
}

/// A key of a map and its text.
pub(super) type Pair = (Spanned<String>, Spanned<String>);

/// Below this a bare integer was probably meant as seconds.
const TINY: Duration = Duration::from_millis(1);

impl<'n> Field<'n> {
    /// The place of the key instead of the value's.
    pub(super) fn key_at(&self) -> At {
        At { place: self.key_place, ..self.at.clone() }
    }

    fn wrong<T>(&self, cx: &mut Context<'_>, wanted: &str) -> Option<T> {
        let what = format!("this must be {wanted}, and is {}", self.node.kind());
        cx.fatal(Code::WrongType, &self.at, what, format!("write {wanted}"));
        None
    }

    fn scalar(&self) -> Option<Cow<'n, str>> {
        self.node.as_text()
    }

    /// Text. A bool or number that is another text in Pomerium is that text (01 §1.1), and is told of.
    pub(super) fn text(&self, cx: &mut Context<'_>) -> Option<String> {
        let Some(written) = self.scalar() else { return self.wrong(cx, "text") };
        let text = converted(self.node).unwrap_or_default();
        if text != written {
            let what = if self.is_secret() {
                "this value is another text here, as in Pomerium: it is no text as it is written".to_owned()
            } else {
                format!("{} is the text `{text}` here, as in Pomerium", self.shown())
            };
            cx.advise(Code::ReadOtherwise, &self.at, what, "put it in quotes if it is meant as it is written");
        }
        Some(text)
    }

    /// Text, whatever it looks like.
    pub(super) fn written(&self, cx: &mut Context<'_>) -> Option<String> {
        self.scalar().map(Cow::into_owned).or_else(|| self.wrong(cx, "text"))
    }

    /// A bool: a real one, a number, or what Go reads as one.
    pub(super) fn boolean(&self, cx: &mut Context<'_>) -> Option<bool> {
        self.as_boolean().or_else(|| self.wrong(cx, "`true` or `false`"))
    }

    /// The same, if it is one.
    pub(super) fn as_boolean(&self) -> Option<bool> {
        if let Some(number) = self.node.as_f64() {
            return Some(number != 0.0);
        }
        as_boolean(&self.scalar()?)
    }

    /// A whole number that fits its type.
    pub(super) fn number<N: std::str::FromStr>(&self, cx: &mut Context<'_>) -> Option<N> {
        let digits = self.whole();
        let number = digits.as_ref().and_then(|text| text.parse().ok());
        if number.is_none() {
            let what = format!("{} is no whole number in the range of this key", self.shown());
            cx.fatal(Code::WrongType, &self.at, what, "write a whole number, not negative");
        } else if let Some(digits) = digits.filter(|_| self.scalar().is_some_and(|text| has_leading_zero(&text))) {
            let what = format!("{} is {digits}: a leading zero makes a number octal, as in Pomerium", self.shown());
            cx.advise(Code::ReadOtherwise, &self.at, what, format!("write `{digits}`, or the number that is meant"));
        }
        number
    }

    /// The digits of a whole number: of a number that is whole, of a bool, or of a text as Go reads one.
    pub(super) fn whole(&self) -> Option<String> {
        match &self.node.value {
            Value::Bool(on) => Some(u8::from(*on).to_string()),
            Value::Number { value, .. } if value.is_f64() => {
                value.as_f64().filter(|number| number.fract() == 0.0).map(|number| format!("{number:.0}"))
            }
            Value::Number { value, text } => Some(decimal(value, text)),
            Value::String(text) => {
                let text = text.trim().to_ascii_lowercase();
                let radix = [("0x", 16), ("0o", 8), ("0b", 2)];
                let named = radix.into_iter().find_map(|(mark, radix)| Some((text.strip_prefix(mark)?, radix)));
                match named {
                    Some((digits, radix)) => u64::from_str_radix(digits, radix).ok().map(|number| number.to_string()),
                    None if has_leading_zero(&text) => octal(&text).map(|number| number.to_string()),
                    None => Some(text),
                }
            }
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// A whole number from `least` to `most`, both of which its type can hold.
    pub(super) fn within<N: TryFrom<u64>>(&self, cx: &mut Context<'_>, least: u64, most: u64) -> Option<N> {
        let number: u64 = self.number(cx)?;
        if (least..=most).contains(&number) {
            return N::try_from(number).ok();
        }
        self.tell_range(cx, Severity::Fatal, &format!("write a number from {least} to {most}"));
        None
    }

    /// A whole number from `least` to `most`; the nearest of them where another is written.
    pub(super) fn clamped(&self, cx: &mut Context<'_>, least: u64, most: u64) -> Option<u64> {
        let number: u64 = self.number(cx)?;
        let nearest = number.clamp(least, most);
        if nearest != number {
            let hint = format!("{nearest} is taken; write a number from {least} to {most}");
            self.tell_range(cx, Severity::Advisory, &hint);
        }
        Some(nearest)
    }

    fn tell_range(&self, cx: &mut Context<'_>, severity: Severity, hint: &str) {
        let what = format!("{} is out of the range of this key", self.shown());
        cx.problems.add(severity, Code::OutOfRange, &self.at, what, hint.to_owned());
    }

    /// A number from 0 to 1; the nearest of them where another is written.
    pub(super) fn fraction(&self, cx: &mut Context<'_>) -> Option<f64> {
        let number = self.scalar().and_then(|text| text.trim().parse::<f64>().ok());
        let Some(number) = number.filter(|number| number.is_finite()) else {
            return self.wrong(cx, "a number from 0 to 1");
        };
        let nearest = number.clamp(0.0, 1.0);
        if !(0.0..=1.0).contains(&number) {
            self.tell_range(cx, Severity::Advisory, &format!("{nearest} is taken; write a number from 0 to 1"));
        }
        Some(nearest)
    }

    /// A whole number of milliseconds.
    pub(super) fn milliseconds(&self, cx: &mut Context<'_>) -> Option<Duration> {
        let number = self.whole().and_then(|text| text.parse().ok());
        if number.is_none() {
            let what = format!("{} is no number of milliseconds", self.shown());
            cx.fatal(Code::BadDuration, &self.at, what, "write a whole number without a unit: `5000` is five seconds");
        }
        number.map(Duration::from_millis)
    }

    /// A duration as JSON of a protocol buffer writes it: in seconds, and nothing else.
    pub(super) fn seconds(&self, cx: &mut Context<'_>) -> Option<Duration> {
        let found = self.node.as_str().and_then(duration::seconds);
        if found.is_none() {
            let what = format!("{} is no duration in seconds", self.shown());
            cx.fatal(Code::BadDuration, &self.at, what, "write seconds and `s`, in this block alone: `60s`, `0.5s`");
        }
        found
    }

    /// The duration, if it is one.
    pub(super) fn as_duration(&self) -> Option<Duration> {
        let from_file = self.at.origin == Origin::File;
        match &self.node.value {
            Value::Number { value, .. } if from_file => value.as_u64().map(Duration::from_nanos),
            Value::Number { .. } | Value::Null | Value::Bool(_) | Value::String(_) | Value::List(_) | Value::Map(_) => {
                self.scalar().and_then(|text| duration::parse(&text))
            }
        }
    }

    /// A Go duration; a bare number in the file is nanoseconds.
    pub(super) fn duration(&self, cx: &mut Context<'_>) -> Option<Duration> {
        let Some(found) = self.as_duration() else {
            let written = self.shown();
            let what = format!("{written} is no duration");
            cx.fatal(Code::BadDuration, &self.at, what, "write a number and a unit: `30s`, `5m`, `1h30m`, or `0`");
            return None;
        };
        if !found.is_zero() && found < TINY {
            let what = format!("this is {found:?}: a bare number counts nanoseconds");
            cx.advise(
                Code::TinyDuration,
                &self.at,
                what,
                format!("write the unit, for example `{}s`", self.scalar().unwrap_or_default()),
            );
        }
        Some(found)
    }

    /// A duration from `least` to `most` milliseconds.
    pub(super) fn duration_within(&self, cx: &mut Context<'_>, least: u64, most: u64) -> Option<Duration> {
        let [least, most] = [least, most].map(Duration::from_millis);
        let found = self.duration(cx)?;
        if (least..=most).contains(&found) {
            return Some(found);
        }
        let [least, most] = [least, most].map(duration::written);
        self.tell_range(cx, Severity::Fatal, &format!("write a duration from {least} to {most}"));
        None
    }

    /// The elements of a list; one value is a list of one.
    pub(super) fn elements(&self) -> Vec<Self> {
        match &self.node.value {
            Value::Null => Vec::new(),
            Value::List(nodes) => nodes.iter().enumerate().map(|(index, node)| self.element(index, node)).collect(),
            Value::Bool(_) | Value::Number { .. } | Value::String(_) | Value::Map(_) => vec![self.clone()],
        }
    }

    fn element(&self, index: usize, node: &'n Node) -> Self {
        let at = At { place: node.place, key: self.at.key.index(index), origin: self.at.origin.clone() };
        Self { at, key_place: node.place, node }
    }

    /// A list of texts; one text is split at commas.
    pub(super) fn texts(&self, cx: &mut Context<'_>) -> Option<Vec<Spanned<String>>> {
        if let Value::List(_) = self.node.value {
            let elements = self.elements().into_iter().map(|element| {
                let value = element.text(cx)?;
                Some(Spanned { at: element.at, value })
            });
            return elements.collect();
        }
        if self.scalar().is_none() {
            return self.wrong(cx, "a list of texts");
        }
        let text = self.text(cx)?;
        let parts = text.split(',').filter(|part| !part.is_empty());
        Some(parts.map(|part| Spanned { at: self.at.clone(), value: part.to_owned() }).collect())
    }

    /// The entries of a map, keys as written.
    pub(super) fn entries(&self) -> Option<Vec<(String, Self)>> {
        let entries = self.node.as_map()?.iter().map(|entry| (entry.key.clone(), self.entry(entry)));
        Some(entries.collect())
    }

    fn entry(&self, entry: &'n postern_policy::document::Entry) -> Self {
        let at = At { place: entry.value.place, key: self.at.key.key(&entry.key), origin: self.at.origin.clone() };
        Self { at, key_place: entry.key_place, node: &entry.value }
    }

    /// A map of texts; a text is read as JSON. Null values are absent.
    pub(super) fn pairs(&self, cx: &mut Context<'_>) -> Option<Vec<Pair>> {
        self.pairs_of(cx, |field, cx| field.text(cx))
    }

    /// The same, of values that only look like texts: each is as it is written.
    pub(super) fn written_pairs(&self, cx: &mut Context<'_>) -> Option<Vec<Pair>> {
        self.pairs_of(cx, |field, cx| field.written(cx))
    }

    fn pairs_of(
        &self,
        cx: &mut Context<'_>,
        read: impl Fn(&Field<'_>, &mut Context<'_>) -> Option<String>,
    ) -> Option<Vec<Pair>> {
        if let Some(text) = self.node.as_str() {
            return self.json_pairs(cx, text, read);
        }
        let Some(entries) = self.entries() else { return self.wrong(cx, "a map") };
        let pairs = entries.into_iter().filter(|(_, field)| !field.node.is_null()).map(|(key, field)| {
            let value = read(&field, cx)?;
            Some((Spanned { at: field.key_at(), value: key }, Spanned { at: field.at, value }))
        });
        pairs.collect()
    }

    fn json_pairs(
        &self,
        cx: &mut Context<'_>,
        text: &str,
        read: impl Fn(&Field<'_>, &mut Context<'_>) -> Option<String>,
    ) -> Option<Vec<Pair>> {
        if text.trim().is_empty() {
            return Some(Vec::new());
        }
        let json = serde_json::from_str::<serde_json::Value>(text).ok().filter(serde_json::Value::is_object);
        let Some(json) = json else { return self.wrong(cx, "a map, or a JSON object as text") };
        let node = Node::from_json(json);
        let pairs = node.entries().iter().filter(|entry| !entry.value.is_null()).map(|entry| {
            let at = At { key: self.at.key.key(&entry.key), ..self.at.clone() };
            let field = Field { at: at.clone(), key_place: self.key_place, node: &entry.value };
            let value = read(&field, cx)?;
            Some((Spanned { at: at.clone(), value: entry.key.clone() }, Spanned { at, value }))
        });
        pairs.collect()
    }

    /// One of `choices`, in any case, with or without the enum's own `prefix` (01 §1.1). Empty is the first.
    pub(super) fn choice<T: Copy + PartialEq>(
        &self,
        cx: &mut Context<'_>,
        prefix: &str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let found = choose(&self.text(cx)?, prefix, choices.iter().map(|(name, value)| (*name, *value)));
        if found.is_none() {
            // Each choice once, by its first name that can be written.
            let named = choices.iter().filter(|(name, _)| !name.is_empty());
            let first = |(name, value): &&(&str, T)| {
                choices
                    .iter()
                    .find(|(other, known)| !other.is_empty() && known == value)
                    .is_some_and(|(other, _)| other == name)
            };
            let names: Vec<_> = named.filter(first).map(|(name, _)| format!("`{name}`")).collect();
            let what = format!("{} is none of the choices", self.shown());
            let written = self.scalar().unwrap_or_default();
            let named = choices.iter().map(|(name, _)| *name).filter(|name| !name.is_empty());
            let near = cx.problems.may_search().then(|| nearest(&written, named)).flatten();
            let meant = near.map_or_else(String::new, |near| format!("did you mean `{near}`? "));
            cx.fatal(Code::BadChoice, &self.at, what, format!("{meant}write one of {}", names.join(", ")));
        }
        found
    }

    /// Tells of a value that is not of its kind, where nothing else reads it.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others are texts of a form that only their reader knows")]
    pub(super) fn check(&self, cx: &mut Context<'_>, kind: &Kind) {
        match kind {
            Kind::Bool => drop(self.boolean(cx)),
            Kind::Duration => drop(self.duration(cx)),
            Kind::DurationWithin(least, most) => drop(self.duration_within(cx, *least, *most)),
            Kind::Number(least, most) => drop(self.within::<u64>(cx, *least, *most)),
            Kind::Url => drop(self.text(cx).map(|text| self.absolute(cx, &text))),
            Kind::List(Kind::Url) => {
                for text in self.texts(cx).unwrap_or_default() {
                    self.absolute(cx, &text.value);
                }
            }
            Kind::List(_) => drop(self.texts(cx)),
            Kind::Text | Kind::Address | Kind::Host | Kind::File => drop(self.text(cx)),
            _ => {}
        }
    }

    /// The bytes of standard base64 with padding; line ends inside are skipped, as Go does.
    pub(super) fn base64(&self, cx: &mut Context<'_>) -> Option<Vec<u8>> {
        let decoded = decode_base64(&self.text(cx)?);
        if decoded.is_none() {
            let hint = "encode it with `base64 -w0`, or name a file with the `_file` form of the key";
            cx.fatal(Code::BadBase64, &self.at, "this is not base64", hint);
        }
        decoded
    }

    /// An absolute URL with a host; nothing but `https` and `http`, no user and password.
    pub(super) fn url(&self, cx: &mut Context<'_>) -> Option<Url> {
        let text = self.text(cx)?;
        let refuse = |cx: &mut Context<'_>, what: String| {
            cx.fatal(Code::BadUrl, &self.at, what, "write scheme and host: `https://host.example.com`");
            None
        };
        let Ok(url) = Url::parse(text.trim()) else {
            return refuse(cx, format!("{} is no URL", self.shown()));
        };
        if !matches!(url.scheme(), "https" | "http") || !text.trim().contains("://") {
            return refuse(cx, format!("{} needs the scheme https", self.shown()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refuse(cx, "this URL holds a user or a password".to_owned());
        }
        Some(url)
    }

    /// Refuses a URL without scheme or host, of whatever scheme.
    fn absolute(&self, cx: &mut Context<'_>, text: &str) {
        let found = Url::parse(text.trim()).is_ok_and(|url| url.has_host());
        if !found && !text.is_empty() {
            let what = format!("{} is no URL with scheme and host", quoted(text));
            cx.fatal(Code::BadUrl, &self.at, what, "write scheme and host, or remove the key");
        }
    }

    fn is_secret(&self) -> bool {
        self.at.key.as_str().rsplit('.').next().is_some_and(super::keys::is_secret)
    }

    /// The value as it may be shown in a message: short, and never that of a secret key.
    pub(super) fn shown(&self) -> String {
        match self.scalar() {
            Some(_) if self.is_secret() => "this value".to_owned(),
            Some(text) => quoted(&text),
            None => self.node.kind().to_owned(),
        }
    }
}

/// The bool that Go reads in a text; an empty one is false.
pub(super) fn as_boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" | "" => Some(false),
        _ => None,
    }
}

/// The text that a scalar is where text is wanted (01 §1.1): a bool or number may be another one than it is written as.
pub(super) fn converted(node: &Node) -> Option<String> {
    match &node.value {
        Value::Bool(on) => Some(u8::from(*on).to_string()),
        Value::Number { value, text } => Some(decimal(value, text)),
        Value::Null | Value::String(_) | Value::List(_) | Value::Map(_) => node.as_text().map(Cow::into_owned),
    }
}

/// A number in decimal digits, as Go writes one that YAML read (01 §1.1): `0x1F` is 31, `010` is 8, `1e3` is 1000.
fn decimal(value: &serde_json::Number, text: &str) -> String {
    match (octal(text), value.as_f64()) {
        (Some(number), _) => number.to_string(),
        (None, Some(number)) if value.is_f64() => number.to_string(),
        (None, _) => value.to_string(),
    }
}

/// The number of octal digits behind a leading zero.
fn octal(text: &str) -> Option<i64> {
    has_leading_zero(text).then(|| i64::from_str_radix(text, 8).ok()).flatten()
}

fn has_leading_zero(text: &str) -> bool {
    let digits = text.trim().trim_start_matches(['-', '+']);
    digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Tells of names that come again, in whatever case: which of them is meant?
pub(super) fn refuse_repeated(cx: &mut Context<'_>, pairs: &[Pair]) {
    let mut seen = HashSet::new();
    for (name, _) in pairs {
        if !seen.insert(name.value.trim().to_ascii_lowercase()) {
            let what = format!("{} is here twice", quoted(&name.value));
            cx.fatal(Code::WrittenTwice, &name.at, what, "keep one of them; names are the same in any case");
        }
    }
}

/// The choice that a text names, in any case: in full, without the enum's own `prefix`, or what follows a `_` in it
/// (01 §1.1). Empty is the first.
pub(super) fn choose<'c, T>(text: &str, prefix: &str, choices: impl IntoIterator<Item = (&'c str, T)>) -> Option<T> {
    let text = text.to_ascii_lowercase();
    let named = |name: &str| {
        let full = format!("{prefix}{name}").to_ascii_lowercase();
        let before = full.strip_suffix(&text);
        before.is_some_and(|before| before.is_empty() || (!prefix.is_empty() && before.ends_with('_')))
    };
    let mut choices = choices.into_iter().filter(|(name, _)| text.is_empty() || named(name));
    choices.next().map(|(_, value)| value)
}

/// A text without the users and passwords of the URLs in it.
pub(super) fn without_userinfo(text: &str) -> Cow<'_, str> {
    let Some((before, after)) = text.split_once("://") else { return Cow::Borrowed(text) };
    let end = after
        .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ',' | ']' | '}'))
        .unwrap_or(after.len());
    let (url, rest) = after.split_at_checked(end).unwrap_or((after, ""));
    let (authority, path) = url.split_at_checked(url.find(['/', '?', '#']).unwrap_or(url.len())).unwrap_or((url, ""));
    // A password may hold a slash; what follows the colon before it is no port then.
    let port = authority.rsplit_once(':').is_none_or(|(_, port)| port.chars().all(|c| c.is_ascii_digit() || c == ']'));
    let host = match (authority.rsplit_once('@'), path.rsplit_once('@')) {
        (_, Some((_, host))) if !port => Some(host.to_owned()),
        (Some((_, host)), _) => Some(format!("{host}{path}")),
        (None, _) => None,
    };
    let url = host.map_or(Cow::Borrowed(url), |host| Cow::Owned(format!("[redacted]@{host}")));
    Cow::Owned(format!("{before}://{url}{}", without_userinfo(rest)))
}

/// Text in a message: quoted, short, without control characters, and without the user and password of a URL.
pub(super) fn quoted(text: &str) -> String {
    let text = &without_userinfo(text);
    let clean: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    let more = if text.chars().count() > 60 { "…" } else { "" };
    format!("`{clean}{more}`")
}

/// Standard base64 with padding, line ends skipped.
pub(super) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let text: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    STANDARD.decode(text).ok()
}
