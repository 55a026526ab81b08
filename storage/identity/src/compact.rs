//! A session as the edge keeps it: a million of them are to fit.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::packed::{ClaimMap, ClaimValues, Packed, Packer, Part};
use crate::{SERVICE_ACCOUNT, Session, SessionHandle, Timestamp, Words};

/// What a [`Session`] says, packed into three hundred bytes or so, immutable, and read without being unpacked. What each look
/// reads comes first.
#[repr(C)]
pub struct CompactSession {
    /// When the user signed in.
    pub issued_at: Timestamp,
    /// Absolute end, enforced by us (S-090).
    pub expires_at: Timestamp,
    /// Its name in the store.
    pub handle: SessionHandle,
    /// Grows by one with each rewrite of the record (refresh); part of the key of cached assertions.
    pub generation: u64,
    /// In milliseconds; [`NEVER`] if idleness does not end it.
    idle: u64,
    /// `Some(false)` only if the provider said so; e-mail rules then do not match (S-069).
    pub email_verified: Option<bool>,
    said: Packed,
}

const NEVER: u64 = u64::MAX;

impl CompactSession {
    /// Packs a session, with what many have in common among these words.
    #[must_use]
    pub fn with_words(session: &Session, words: &Arc<Words>) -> Self {
        let Session { user, .. } = session;
        let own = [Some(&*user.id), user.email.as_deref(), user.name.as_deref()];
        let mut packer = Packer::new(words, own, [session.idp.as_str(), &user.issuer]);
        packer.claims(Part::UserClaims, user.claims.iter());
        packer.claims(Part::Claims, session.claims.iter());
        Self {
            handle: session.handle,
            issued_at: session.issued_at,
            expires_at: session.expires_at,
            generation: session.generation,
            idle: session.idle.map_or(NEVER, |(idle, _)| u64::try_from(idle.as_millis()).unwrap_or(NEVER)),
            email_verified: user.email_verified,
            said: packer.finish(),
        }
    }

    /// Asks for what is said of the user, which lies apart, before it is read.
    #[inline]
    pub fn prefetch(&self) {
        self.said.prefetch();
    }

    /// After how long without use it ends, if that is configured.
    #[must_use]
    #[inline]
    pub fn idle(&self) -> Option<Duration> {
        (self.idle != NEVER).then(|| Duration::from_millis(self.idle))
    }

    /// The provider configuration that vouched: the text of an [`IdpId`](crate::IdpId).
    #[must_use]
    #[inline]
    pub fn idp(&self) -> &str {
        self.said.text(Part::Idp).unwrap_or_default()
    }

    /// Whether it is no person's, but that of a program to which an operator gave it (02 §4.3).
    #[must_use]
    #[inline]
    pub fn is_service_account(&self) -> bool {
        self.idp() == SERVICE_ACCOUNT
    }

    /// `sub` at the issuer; what `user` criteria compare and what the assertion calls `sub`.
    #[must_use]
    #[inline]
    pub fn user_id(&self) -> &str {
        self.said.text(Part::UserId).unwrap_or_default()
    }

    /// As given by the provider; `None` if it gave none.
    #[must_use]
    #[inline]
    pub fn email(&self) -> Option<&str> {
        self.said.text(Part::Email)
    }

    /// Display name, if any.
    #[must_use]
    #[inline]
    pub fn name(&self) -> Option<&str> {
        self.said.text(Part::Name)
    }

    /// Who vouches: identity is (issuer, id) (S-069).
    #[must_use]
    #[inline]
    pub fn issuer(&self) -> &str {
        self.said.text(Part::Issuer).unwrap_or_default()
    }

    /// Claims of the user: from userinfo merged over the ID token (02 §1.4 D).
    #[must_use]
    #[inline]
    pub fn user_claims(&self) -> ClaimMap<'_> {
        self.said.claims(Part::UserClaims)
    }

    /// Claims of the session: from the ID token.
    #[must_use]
    #[inline]
    pub fn claims(&self) -> ClaimMap<'_> {
        self.said.claims(Part::Claims)
    }

    /// The values of a claim as policies see them: the user's claims win over the session's, each as a whole (01 §3.3).
    #[must_use]
    #[inline]
    pub fn claim(&self, name: &str) -> Option<ClaimValues<'_>> {
        self.user_claims().values(name).or_else(|| self.claims().values(name))
    }

    /// What a page calls the user: their name, else their e-mail address, else their id.
    #[must_use]
    pub fn shown_name(&self) -> &str {
        let mut words = [self.name(), self.email()].into_iter().flatten();
        words.find(|words| !words.is_empty()).unwrap_or_else(|| self.user_id())
    }
}

/// Packs a session by itself, without words in common with others.
impl From<&Session> for CompactSession {
    fn from(session: &Session) -> Self {
        Self::with_words(session, &Arc::default())
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
            "numbers": [0, 14, 15, 78, 79, 4174, 4175, -1, -15, -16, -17, u64::MAX, i64::MIN, i64::MAX, 0.5, -0.0, 1e300, 1.0],
            "abc": ["marked alike"], "axc": 1, "axxc": {"": 2}, "mixed": [null, true, false, [], [[null, ["x", ["u-1"]]]], {}, {"b": {"a": [1, "u-1"]}, "a": null}],
            "none": [], "long": "y".repeat(5000), "deep": {"er": {"name": "z"}},
        });
        let session = session(&odd, &json!({"groups": ["x", "y"], "exp": 1_800_000_000_u64}));
        for compact in packed(&session) {
            assert_eq!((compact.idp(), compact.issuer()), ("oidc one", "https://idp.example"));
            assert_eq!(
                (compact.user_id(), compact.email(), compact.name()),
                ("u-1", Some("alice@example.com"), Some(""))
            );
            assert_eq!((compact.email_verified, compact.shown_name()), (Some(false), "alice@example.com"));
            assert_eq!(Value::Object(compact.user_claims().to_json()), json_of(&session.user.claims));
            assert_eq!(Value::Object(compact.claims().to_json()), json_of(&session.claims));
            let long = ["x".repeat(300), "x".repeat(299), "y".repeat(5000)];
            let texts = ["", "staff", "staf", "staffs", "u-1", "ünï", "alice@example.com", "https://idp.example", "0"];
            for (name, values) in session.user.claims.iter() {
                let packed = compact.claim(name).unwrap();
                assert_eq!(packed.to_json(), Value::from(values.to_vec()), "{name}");
                for text in texts.into_iter().chain(long.iter().map(String::as_str)) {
                    let is_there = values.iter().any(|value| value.as_str() == Some(text));
                    assert_eq!(packed.has_text(text), is_there, "{name}: {text}");
                }
            }
            assert_eq!(compact.claims().values("groups").unwrap().to_json(), json!(["x", "y"]));
            assert_eq!(compact.claim("exp").unwrap().to_json(), json!([1_800_000_000_u64]));
            assert!(compact.claim("group").is_none() && compact.user_claims().get("exp").is_none());
            assert!(compact.claim("none").unwrap().is_empty());
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
            assert_eq!((compact.email(), compact.email_verified, compact.name()), (None, None, None));
            assert_eq!((compact.issuer(), compact.shown_name(), compact.idle()), ("", "u-1", None));
            assert!(compact.user_claims().to_json().is_empty() && compact.claims().iter().next().is_none());
        }
    }

    #[test]
    fn what_many_say_takes_a_byte_or_two_and_what_was_said_is_not_spelled_again() {
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
            CompactSession::with_words(&session, &words).said.len()
        };
        let known = bytes(&groups);
        assert_eq!((known - bytes(&groups[..2]), known < 70), (24, true), "{known}");
    }
}
