//! How things are called in the store. What has to change together has one hash tag, so that it lives on one server.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

use crate::deposits::Deposit;
use crate::record::Key;

/// The names in one store.
#[derive(Debug)]
pub(super) struct Keys {
    /// What stands before every name, so that several can share the servers.
    prefix: String,
}

impl Keys {
    pub(super) const fn new(prefix: String) -> Self {
        Self { prefix }
    }

    /// `s:{handle}`: a session, as a hash.
    pub(super) fn session(&self, handle: &Key) -> String {
        self.name("s", handle)
    }

    /// What every name of a session is like, for `SCAN`. No prefix holds what means something there.
    pub(super) fn sessions(&self) -> String {
        format!("{}s:{{*}}", self.prefix)
    }

    /// The session that is called so.
    pub(super) fn parse_session(&self, name: &str) -> Option<Key> {
        parse(name.strip_prefix(&self.prefix)?.strip_prefix("s:{")?.strip_suffix('}')?.as_bytes())
    }

    /// `t:{handle}`: its sealed tokens. A name of its own, so that edges can be kept away from them.
    pub(super) fn tokens(&self, handle: &Key) -> String {
        self.name("t", handle)
    }

    /// `u:{owner}`: a user's sessions, by when they end.
    pub(super) fn owned(&self, owner: &Key) -> String {
        self.name("u", owner)
    }

    /// `ue:{owner}`: before when a user's sessions are over.
    pub(super) fn epoch(&self, owner: &Key) -> String {
        self.name("ue", owner)
    }

    /// `o:{key}`: a single-use value that is spent.
    pub(super) fn spent(&self, key: &Key) -> String {
        self.name("o", key)
    }

    /// `r:{n}`: whose refresh is to be tried when, a part of all sessions.
    pub(super) fn due(&self, part: u8) -> String {
        format!("{}r:{{{part:x}}}", self.prefix)
    }

    /// `a:c:{name}`, and other letters: what processes leave for each other.
    pub(super) fn deposit(&self, kind: Deposit, key: &Key) -> String {
        self.name(&format!("a:{}", kind.letter()), key)
    }

    /// `a:l:{name}`: who may change that.
    pub(super) fn claim(&self, key: &Key) -> String {
        self.name("a:l", key)
    }

    fn name(&self, kind: &str, key: &Key) -> String {
        format!("{}{kind}:{{{}}}", self.prefix, text(key))
    }
}

/// The part that a session belongs to.
pub(super) const fn part(handle: &Key) -> u8 {
    handle[31] % PARTS
}

/// Parts of the index of refreshes: so many servers can share it.
pub(super) const PARTS: u8 = 16;

/// A key as text: raw bytes may hold braces, which mean something.
pub(super) fn text(key: &Key) -> String {
    BASE64.encode(key)
}

/// The opposite of [`text`].
pub(super) fn parse(text: &[u8]) -> Option<Key> {
    BASE64.decode(text).ok()?.try_into().ok()
}
