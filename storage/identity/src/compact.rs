//! A session as the edge keeps it: a million of them are to fit.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::packed::{ClaimMap, ClaimValue, ClaimValues, Packed, Packer};
use crate::{Session, SessionHandle, Timestamp, Words};

/// What a [`Session`] says, packed into two hundred bytes or so, immutable, and read without being unpacked.
pub struct CompactSession {
    /// Its name in the store.
    pub handle: SessionHandle,
    /// When the user signed in.
    pub issued_at: Timestamp,
    /// Absolute end, enforced by us (S-090).
    pub expires_at: Timestamp,
    /// Grows by one with each rewrite of the record (refresh); part of the key of cached assertions.
    pub generation: u64,
    /// In milliseconds; [`NEVER`] if idleness does not end it.
    idle: u64,
    /// The fields of [`SessionView`], in their order.
    content: Packed,
}

/// Who a session is of, and what is said of them; all of it borrowed.
#[derive(Clone, Copy, Debug)]
pub struct SessionView<'a> {
    /// The provider configuration that vouched: the text of an [`IdpId`](crate::IdpId).
    pub idp: &'a str,
    /// `sub` at the issuer; what `user` criteria compare and what the assertion calls `sub`.
    pub user_id: &'a str,
    /// As given by the provider; `None` if it gave none.
    pub email: Option<&'a str>,
    /// `Some(false)` only if the provider said so; e-mail rules then do not match (S-069).
    pub email_verified: Option<bool>,
    /// Display name, if any.
    pub name: Option<&'a str>,
    /// Who vouches: identity is (issuer, id) (S-069).
    pub issuer: &'a str,
    /// Claims of the user: from userinfo merged over the ID token (02 §1.4 D).
    pub user_claims: ClaimMap<'a>,
    /// Claims of the session: from the ID token.
    pub claims: ClaimMap<'a>,
}

const NEVER: u64 = u64::MAX;

impl CompactSession {
    /// Packs a session, with what many have in common among these words.
    #[must_use]
    pub fn with_words(session: &Session, words: &Arc<Words>) -> Self {
        Self::pack(session, Packer::new(Some(words), &session.user.id))
    }

    fn pack<'s>(session: &'s Session, mut packer: Packer<'s>) -> Self {
        let Session { user, .. } = session;
        packer.shared(session.idp.as_str());
        packer.own(Some(&user.id));
        packer.own(user.email.as_deref());
        packer.truth(user.email_verified);
        packer.own(user.name.as_deref());
        packer.shared(&user.issuer);
        packer.map(user.claims.iter());
        packer.map(session.claims.iter());
        Self {
            handle: session.handle,
            issued_at: session.issued_at,
            expires_at: session.expires_at,
            generation: session.generation,
            idle: session.idle.map_or(NEVER, |(idle, _)| u64::try_from(idle.as_millis()).unwrap_or(NEVER)),
            content: packer.finish(),
        }
    }

    /// After how long without use it ends, if that is configured.
    #[must_use]
    pub fn idle(&self) -> Option<Duration> {
        (self.idle != NEVER).then(|| Duration::from_millis(self.idle))
    }

    /// The provider configuration that vouched: the text of an [`IdpId`](crate::IdpId).
    #[must_use]
    pub fn idp(&self) -> &str {
        self.content.items().iter().next().and_then(|idp| idp.as_text()).unwrap_or_default()
    }

    /// What it says.
    #[must_use]
    pub fn view(&self) -> SessionView<'_> {
        let all = self.content.items();
        let mut items = all.iter();
        let mut next = || items.next().unwrap_or(ClaimValue::Null);
        SessionView {
            idp: next().as_text().unwrap_or_default(),
            user_id: next().as_text().unwrap_or_default(),
            email: next().as_text(),
            email_verified: next().as_bool(),
            name: next().as_text(),
            issuer: next().as_text().unwrap_or_default(),
            user_claims: next().as_map().unwrap_or(ClaimMap::empty(all)),
            claims: next().as_map().unwrap_or(ClaimMap::empty(all)),
        }
    }
}

impl<'a> SessionView<'a> {
    /// The values of a claim as policies see them: the user's claims win over the session's, each as a whole (01 §3.3).
    #[must_use]
    pub fn claim(&self, name: &str) -> Option<ClaimValues<'a>> {
        self.user_claims.values(name).or_else(|| self.claims.values(name))
    }

    /// What a page calls the user: their name, else their e-mail address, else their id.
    #[must_use]
    pub fn shown_name(&self) -> &'a str {
        let mut words = [self.name, self.email].into_iter().flatten();
        words.find(|words| !words.is_empty()).unwrap_or(self.user_id)
    }
}

/// Packs a session by itself, without words in common with others.
impl From<&Session> for CompactSession {
    fn from(session: &Session) -> Self {
        Self::pack(session, Packer::new(None, ""))
    }
}

impl fmt::Debug for CompactSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("CompactSession");
        shown.field("handle", &self.handle).field("generation", &self.generation).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{Claims, IdpId, User};

    fn session(user: &Value, claims: &Value) -> Session {
        Session {
            handle: SessionHandle::from_bytes([7; 32]),
            user: User {
                id: "u-1".to_owned(),
                issuer: "https://idp.example".to_owned(),
                email: Some("alice@example.com".to_owned()),
                email_verified: Some(false),
                name: Some(String::new()),
                claims: Claims::flatten(user.as_object().unwrap()),
            },
            claims: Claims::flatten(claims.as_object().unwrap()),
            idp: IdpId::new("oidc one"),
            issued_at: Timestamp::from_millis(1),
            expires_at: Timestamp::from_millis(2),
            idle: Some((Duration::from_millis(3), Timestamp::from_millis(4))),
            generation: 5,
        }
    }

    fn json_of(claims: &Claims) -> Value {
        claims.iter().map(|(name, values)| (name.to_owned(), Value::from(values.to_vec()))).collect()
    }

    /// Packed by itself, with words that nobody else has said, and with words that all are known.
    fn packed(session: &Session) -> [CompactSession; 3] {
        let words = Arc::new(Words::default());
        let with_words = || CompactSession::with_words(session, &words);
        [session.into(), with_words(), {
            said_by_another(session, &words);
            with_words()
        }]
    }

    fn said_by_another(session: &Session, words: &Arc<Words>) {
        let mut other = session.clone();
        other.user.id = "another".to_owned();
        let _compact = CompactSession::with_words(&other, words);
    }

    #[test]
    fn whatever_a_session_says_its_compact_form_says() {
        let odd = json!({
            "sub": "u-1", "email": "alice@example.com", "iss": "https://idp.example", "a": "", "same": "u-1",
            "groups": ["staff", "", "u-1", "ünï", "staff", "\u{0}", "x".repeat(300)],
            "numbers": [0, 30, 31, 158, 159, -1, -31, -32, -33, u64::MAX, i64::MIN, i64::MAX, 0.5, -0.0, 1e300, 1.0],
            "mixed": [null, true, false, [], [[null, ["x", ["u-1"]]]], {}, {"b": {"a": [1, "u-1"]}, "a": null}],
            "none": [], "long": "y".repeat(5000), "deep": {"er": {"name": "z"}},
        });
        let session = session(&odd, &json!({"groups": ["x", "y"], "exp": 1_800_000_000_u64}));
        for compact in packed(&session) {
            let view = compact.view();
            assert_eq!((view.idp, compact.idp(), view.issuer), ("oidc one", "oidc one", "https://idp.example"));
            assert_eq!((view.user_id, view.email, view.name), ("u-1", Some("alice@example.com"), Some("")));
            assert_eq!((view.email_verified, view.shown_name()), (Some(false), "alice@example.com"));
            assert_eq!(Value::Object(view.user_claims.to_json()), json_of(&session.user.claims));
            assert_eq!(Value::Object(view.claims.to_json()), json_of(&session.claims));
            for (name, values) in session.user.claims.iter() {
                assert_eq!(view.claim(name).unwrap().to_json(), Value::from(values.to_vec()), "{name}");
            }
            assert_eq!(view.claims.values("groups").unwrap().to_json(), json!(["x", "y"]));
            assert_eq!(view.claim("exp").unwrap().to_json(), json!([1_800_000_000_u64]));
            assert!(view.claim("group").is_none() && view.user_claims.get("exp").is_none());
            assert!(view.claim("none").unwrap().is_empty());
            assert_eq!((compact.handle, compact.generation), (session.handle, 5));
            assert_eq!((compact.issued_at, compact.expires_at), (session.issued_at, session.expires_at));
            assert_eq!(compact.idle(), Some(Duration::from_millis(3)));
        }
    }

    #[test]
    fn what_is_not_there_is_not_said() {
        let mut session = session(&json!({}), &json!({}));
        session.user = User { id: "u-1".to_owned(), ..User::default() };
        session.idle = None;
        for compact in packed(&session) {
            let view = compact.view();
            assert_eq!((view.email, view.email_verified, view.name, view.issuer), (None, None, None, ""));
            assert_eq!((view.shown_name(), compact.idle()), ("u-1", None));
            assert!(view.user_claims.to_json().is_empty() && view.claims.iter().next().is_none());
        }
    }

    #[test]
    fn what_many_say_takes_one_byte_and_what_was_said_is_not_spelled_again() {
        let groups: Vec<_> = (0..20).map(|number| format!("a-group-of-some-length-{number}")).collect();
        let claims = |groups: &[String]| json!({"groups": groups, "sub": "u-1", "email": "alice@example.com"});
        let words = Arc::new(Words::default());
        // One after the other: two that are heard of at one time may share a place there.
        for group in &groups {
            for user in ["one", "another"] {
                words.number(group, user);
            }
        }
        let bytes = |groups: &[String]| {
            let session = session(&json!({}), &claims(groups));
            (0..9).for_each(|_| said_by_another(&session, &words));
            CompactSession::with_words(&session, &words).content.len()
        };
        let known = bytes(&groups);
        assert_eq!((known - bytes(&groups[..2]), known < 65), (18, true), "{known}");
    }
}
