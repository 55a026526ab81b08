//! Somebody who might ask, made of what was said of them.

use std::time::Duration;

use postern_identity::{Claims, IdpId, Session, SessionHandle, Timestamp, User};
use serde_json::{Map, Value};

/// Somebody who is signed in, as a provider would describe them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Person {
    /// `sub`; nobody's if it is not said.
    pub user: Option<String>,
    /// `email`.
    pub email: Option<String>,
    /// The `groups` claim.
    pub groups: Vec<String>,
    /// Every other claim.
    pub claims: Map<String, Value>,
}

/// As long as a session lasts unless configured; nothing here asks for its end.
const LIFETIME: Duration = Duration::from_secs(14 * 3600);

impl Person {
    /// Whether nothing was said: then nobody is meant.
    #[must_use]
    pub fn is_nobody(&self) -> bool {
        *self == Self::default()
    }

    /// Adds a claim `name=value`: JSON where it can be read as such, else text. A name that comes again makes a list.
    ///
    /// # Errors
    /// If there is no `=`.
    pub fn claim(&mut self, text: &str) -> Result<(), String> {
        let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(format!("`{text}` is no claim; write name=value"));
        };
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        match self.claims.get_mut(name) {
            Some(Value::Array(list)) => list.push(value),
            Some(one) => *one = Value::Array(vec![one.take(), value]),
            None => {
                self.claims.insert(name.to_owned(), value);
            }
        }
        Ok(())
    }

    /// Their session, just begun at that provider.
    #[must_use]
    pub fn session(&self, idp: &IdpId, now: Timestamp) -> Session {
        let mut all = self.claims.clone();
        if !self.groups.is_empty() {
            all.insert("groups".to_owned(), self.groups.iter().cloned().map(Value::String).collect());
        }
        let text = |name: &str| all.get(name).and_then(Value::as_str).map(str::to_owned);
        let claims = Claims::flatten(&all);
        Session {
            handle: SessionHandle::from_bytes([0; 32]),
            user: User {
                id: self.user.clone().or_else(|| text("sub")).unwrap_or_default(),
                issuer: text("iss").unwrap_or_default(),
                email: self.email.clone().or_else(|| text("email")),
                email_verified: all.get("email_verified").and_then(Value::as_bool),
                name: text("name"),
                claims: claims.clone(),
            },
            claims,
            idp: idp.clone(),
            issued_at: now,
            expires_at: now.plus(LIFETIME),
            idle: None,
            generation: 0,
        }
    }
}
