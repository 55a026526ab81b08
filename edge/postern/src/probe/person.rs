//! Somebody who might ask, made of what was said of them.

use std::time::Duration;

use postern_identity::{Claims, IdpId, Session, SessionHandle, Timestamp, User};
use serde_json::{Map, Value};

/// Somebody who is signed in, as a provider would describe them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Person {
    /// `sub`; `(not said)` if none is, since no session is without one.
    pub user: Option<String>,
    /// `email`.
    pub email: Option<String>,
    /// The `groups` claim.
    pub groups: Vec<String>,
    /// Every other claim.
    pub claims: Map<String, Value>,
}

/// The user id of somebody of whom none was said.
const UNSAID: &str = "(not said)";

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

    /// Their session, just begun at that provider: with what was said of them among the claims, as after a sign-in.
    #[must_use]
    pub fn session(&self, idp: &IdpId, now: Timestamp) -> Session {
        let mut all = self.claims.clone();
        if !self.groups.is_empty() {
            all.insert("groups".to_owned(), self.groups.iter().cloned().map(Value::String).collect());
        }
        if let Some(email) = &self.email {
            all.insert("email".to_owned(), Value::from(email.as_str()));
        }
        let said = all.get("sub").and_then(Value::as_str);
        let id = self.user.as_deref().or(said).filter(|id| !id.is_empty()).unwrap_or(UNSAID).to_owned();
        all.insert("sub".to_owned(), Value::from(id.as_str()));
        let text =
            |name: &str| all.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
        let claims = Claims::flatten(&all);
        Session {
            handle: SessionHandle::from_bytes([0; 32]),
            user: User {
                id,
                issuer: text("iss").unwrap_or_default(),
                email: text("email"),
                email_verified: all.get("email_verified").and_then(postern_authn::truth),
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
