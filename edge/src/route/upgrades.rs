//! What connections of a route may become (01 §2.6).

use crate::request::{Upgrade, is_upgrade};

/// The protocols that connections of a route may change to: of most routes none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upgrades(Box<[Box<str>]>);

impl Upgrades {
    /// Those of these tokens, each once, in lower case. What is no upgrade but HTTP all the same is left out (S-010).
    #[must_use]
    pub fn new<'t>(tokens: impl IntoIterator<Item = &'t str>) -> Self {
        let mut all: Vec<Box<str>> = Vec::new();
        for token in tokens.into_iter().filter(|token| is_upgrade(token)) {
            let token = token.to_ascii_lowercase().into_boxed_str();
            if !all.contains(&token) {
                all.push(token);
            }
        }
        Self(all.into())
    }

    /// WebSockets alone.
    #[must_use]
    pub fn websockets() -> Self {
        Self::new([Upgrade::WEBSOCKET])
    }

    /// The tokens, in lower case.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(AsRef::as_ref)
    }

    /// Whether WebSockets may pass.
    #[must_use]
    pub fn has_websockets(&self) -> bool {
        self.iter().any(|token| token == Upgrade::WEBSOCKET)
    }

    /// The first of what was asked for that may pass.
    pub(crate) fn first_of<'a>(&self, asked: &'a [Upgrade]) -> Option<&'a Upgrade> {
        asked.iter().find(|upgrade| self.iter().any(|token| upgrade.is(token)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_kept_once_and_those_that_are_http_not_at_all() {
        let all = Upgrades::new([
            "WebSocket",
            "spdy/3.1",
            "websocket",
            "h2c",
            "h2c-14",
            "H2-16",
            "TLS/1.0",
            "HTTP/2.0",
            "a b",
            "a/b/c",
            "",
            "tcp",
        ]);
        assert_eq!(all.iter().collect::<Vec<_>>(), ["websocket", "spdy/3.1", "tcp"]);
        assert!(all.has_websockets() && !Upgrades::new(["spdy/3.1"]).has_websockets());
    }
}
