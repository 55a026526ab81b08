//! What is said to a server, and what it answers.

use bytes::Bytes;
use fred::types::Value;

/// A command and its arguments.
#[derive(Clone)]
pub(crate) struct Command {
    pub(super) name: &'static str,
    pub(super) arguments: Vec<Bytes>,
}

impl Command {
    /// A command without arguments so far.
    pub(crate) const fn new(name: &'static str) -> Self {
        Self { name, arguments: Vec::new() }
    }

    /// One more argument.
    #[must_use]
    pub(crate) fn arg(mut self, argument: impl Into<Argument>) -> Self {
        self.arguments.push(argument.into().0);
        self
    }

    /// More arguments.
    #[must_use]
    pub(crate) fn args<A: Into<Argument>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.into().0));
        self
    }
}

#[cfg(test)]
impl Command {
    pub(crate) fn arguments(&self) -> &[Bytes] {
        &self.arguments
    }
}

/// Arguments hold sealed records and keyed hashes: they are not for logs.
impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} with {} arguments", self.name, self.arguments.len())
    }
}

/// One argument, as the bytes that are sent.
#[derive(Clone)]
pub(crate) struct Argument(Bytes);

impl From<&str> for Argument {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Argument {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&[u8]> for Argument {
    fn from(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }
}

impl From<Bytes> for Argument {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl From<$number> for Argument {
            fn from(number: $number) -> Self {
                Self(number.to_string().into())
            }
        }
    )*};
}
numbers!(i64, u64, u32, usize);

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// There is nothing.
    Nil,
    /// A number.
    Number(i64),
    /// Text or bytes.
    Bytes(Bytes),
    /// Several answers.
    List(Vec<Self>),
    /// The server refuses, and says why: `MOVED 866 10.0.0.7:6379`.
    Error(String),
}

impl Reply {
    /// The bytes, if it is bytes.
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    /// The text, if it is text.
    pub(crate) fn text(&self) -> Option<&str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// The number, written as one or as text.
    pub(crate) fn number<N: TryFrom<i64> + std::str::FromStr>(&self) -> Option<N> {
        match self {
            Self::Number(number) => N::try_from(*number).ok(),
            Self::Bytes(_) => self.text()?.parse().ok(),
            Self::Nil | Self::List(_) | Self::Error(_) => None,
        }
    }

    /// The answers, if they are several.
    pub(crate) fn list(&self) -> Option<&[Self]> {
        if let Self::List(list) = self { Some(list) } else { None }
    }

    pub(super) fn of(value: Value) -> Self {
        match value {
            Value::Null => Self::Nil,
            Value::Integer(number) => Self::Number(number),
            Value::Boolean(on) => Self::Number(i64::from(on)),
            Value::String(text) => Self::Bytes(text.into_inner()),
            Value::Bytes(bytes) => Self::Bytes(bytes),
            Value::Double(number) => Self::Bytes(number.to_string().into()),
            Value::Queued => Self::Bytes(Bytes::from_static(b"QUEUED")),
            Value::Array(values) => Self::List(values.into_iter().map(Self::of).collect()),
            Value::Map(map) => Self::List(
                map.inner().into_iter().flat_map(|(key, value)| [Self::of(key.into()), Self::of(value)]).collect(),
            ),
        }
    }
}
