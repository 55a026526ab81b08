//! Where a walk through all sessions goes on.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

use super::Stored;
use crate::StorageError;
use crate::record::Key;

/// Where a walk through all sessions goes on. It can be written down and read again, also by another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub(super) Inner);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inner {
    /// Behind that session, in the order of their names.
    Behind(Key),
    /// At that cursor of one of these servers.
    Scan {
        /// A mark of all servers, in their order: of others the cursor means nothing.
        servers: u64,
        /// Which of them.
        at: usize,
        /// Its own cursor.
        cursor: u64,
    },
}

impl Place {
    /// Reads what `Display` wrote; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let inner = match (parts.next()?, parts.next()?, parts.next(), parts.next()) {
            ("b", key, None, _) => Inner::Behind(BASE64.decode(key).ok()?.try_into().ok()?),
            ("s", servers, Some(at), Some(cursor)) => {
                Inner::Scan { servers: servers.parse().ok()?, at: at.parse().ok()?, cursor: cursor.parse().ok()? }
            }
            _ => return None,
        };
        parts.next().is_none().then_some(Self(inner))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Inner::Behind(key) => write!(f, "b.{}", BASE64.encode(key)),
            Inner::Scan { servers, at, cursor } => write!(f, "s.{servers}.{at}.{cursor}"),
        }
    }
}

/// Sessions that are there and could not be read.
pub(crate) type Unread = Vec<(Key, StorageError)>;

/// Some of all sessions, those that were ended included.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) found: Vec<(Key, Stored)>,
    pub(crate) unread: Unread,
    /// A server that could not be looked through.
    pub(crate) away: Option<(String, StorageError)>,
    /// Where the others are; `None`: these were the last.
    pub(crate) next: Option<Place>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written_and_nothing_else_is_one() {
        let scan = Inner::Scan { servers: u64::MAX, at: 2, cursor: 1 << 63 };
        for place in [Inner::Behind([0xfe; 32]), scan].map(Place) {
            assert_eq!(Place::parse(&place.to_string()), Some(place));
            assert_eq!(Place::parse(&format!("{place}.0")), None);
        }
        for text in ["", "b", "b.AA", "s.1.2", "s.1.2.x", "x.1.2.3", "s.-1.0.0"] {
            assert_eq!(Place::parse(text), None, "{text}");
        }
    }
}
