//! Whose session is that?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postern_identity::{
    Claims, IdpId, Keyring, MAX_ACCEPTED_SECRETS, Session, SessionHandle, SessionId, Timestamp, User,
};
use postern_storage::{Lookup, Sessions, StorageError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where this is asked.
pub(crate) const SESSION: &str = "/operator/session";

/// The session that is meant, by the names that the store may have for it; the first that is there counts.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Which {
    names: Vec<String>,
}

impl Which {
    /// What there is under the first of its names that says anything. The others are asked for only if that one says nothing,
    /// since one of them may be an id (S-081); and if its part of the store is away, which may be no part of the session's.
    ///
    /// # Errors
    /// That of a name, if no other one says anything.
    pub(super) async fn first<T, F>(self, look: impl Fn(SessionHandle) -> F) -> Result<Option<T>, StorageError>
    where
        F: Future<Output = Result<Option<T>, StorageError>>,
    {
        let mut failed = None;
        for name in self.names.into_iter().take(MOST_NAMES).filter_map(|name| SessionHandle::parse(&name)) {
            match look(name).await {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(None), Err)
    }

    /// The session of this name, as logs and the `sid` claim have it, or of this id. An id opens something: only the name
    /// that is made of it is sent. `None` if it is neither.
    pub(crate) fn of(written: &str, keyring: &Keyring) -> Option<Self> {
        let name = SessionHandle::parse(written)?;
        let of_id = |secret| SessionId::of(secret, *name.as_bytes()).handle(keyring);
        // If what was written is an id, it is sent only to who holds a secret that its name is made with.
        Some(Self { names: keyring.secrets().map(of_id).chain([name]).map(|name| name.to_string()).collect() })
    }
}

/// By each secret and as it was written; no more are looked for.
const MOST_NAMES: usize = 1 + MAX_ACCEPTED_SECRETS + 1;

/// What the store says of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Found {
    /// It is alive.
    Live(Box<Facts>),
    /// It was ended before its time.
    Revoked,
    /// There is none of that name, or it is over.
    Unknown,
    /// The store does not answer.
    Unavailable(String),
}

impl Found {
    /// The session, or why there is none.
    pub(crate) fn session(self) -> Result<Arc<Session>, String> {
        let unknown = || NO_SUCH.to_owned();
        match self {
            Self::Live(facts) => facts.session().ok_or_else(unknown),
            Self::Revoked => Err("that session was ended".to_owned()),
            Self::Unknown => Err(unknown()),
            Self::Unavailable(why) => Err(silent(&why)),
        }
    }
}

/// What is said of a session that is not there.
pub(crate) const NO_SUCH: &str = "there is no such session, or it is over";
/// What is said of a text that names no session.
pub(crate) const NO_NAME: &str = "write the name of a session as logs have it in `session-id`, 43 characters long";

/// What is said when the store of a running Postern does not answer it.
pub(crate) fn silent(why: &str) -> String {
    format!("the session store does not answer: {why}")
}

/// All of a session that policies and upstreams see. No token, and no id, is among it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Facts {
    handle: String,
    user: Person,
    claims: Flat,
    idp: String,
    issued_at: i64,
    expires_at: i64,
    /// Both in milliseconds: how long it may idle, and until when.
    idle: Option<(u64, i64)>,
    generation: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Person {
    id: String,
    issuer: String,
    email: Option<String>,
    email_verified: Option<bool>,
    name: Option<String>,
    claims: Flat,
}

type Flat = BTreeMap<String, Vec<Value>>;

/// Looks it up in the store itself.
pub(super) async fn find(sessions: &Sessions, which: Which) -> Found {
    let now = SystemTime::now().into();
    let look = |name: SessionHandle| async move {
        Ok(match sessions.load(&name, now).await? {
            Lookup::Found(session) => Some(Found::Live(Box::new(Facts::of(&session)))),
            Lookup::Revoked => Some(Found::Revoked),
            Lookup::Unknown => None,
        })
    };
    match which.first(look).await {
        Ok(found) => found.unwrap_or(Found::Unknown),
        Err(error) => Found::Unavailable(error.to_string()),
    }
}

impl Facts {
    pub(crate) fn of(session: &Session) -> Self {
        let user = &session.user;
        let millis = |time: Timestamp| time.as_millis();
        let idle =
            session.idle.map(|(time, until)| (u64::try_from(time.as_millis()).unwrap_or(u64::MAX), millis(until)));
        Self {
            handle: session.handle.to_string(),
            user: Person {
                id: user.id.clone(),
                issuer: user.issuer.clone(),
                email: user.email.clone(),
                email_verified: user.email_verified,
                name: user.name.clone(),
                claims: flat(&user.claims),
            },
            claims: flat(&session.claims),
            idp: session.idp.as_str().to_owned(),
            issued_at: millis(session.issued_at),
            expires_at: millis(session.expires_at),
            idle,
            generation: session.generation,
        }
    }

    /// The session; `None` if its name is none.
    pub(crate) fn session(self) -> Option<Arc<Session>> {
        let Person { id, issuer, email, email_verified, name, claims: of_user } = self.user;
        let user = User { id, issuer, email, email_verified, name, claims: claims(of_user) };
        Some(Arc::new(Session {
            handle: SessionHandle::parse(&self.handle)?,
            user,
            claims: claims(self.claims),
            idp: IdpId::new(self.idp),
            issued_at: Timestamp::from_millis(self.issued_at),
            expires_at: Timestamp::from_millis(self.expires_at),
            idle: self.idle.map(|(time, until)| (Duration::from_millis(time), Timestamp::from_millis(until))),
            generation: self.generation,
        }))
    }
}

fn flat(claims: &Claims) -> Flat {
    claims.iter().map(|(name, values)| (name.to_owned(), values.to_vec())).collect()
}

fn claims(flat: Flat) -> Claims {
    let mut claims = Claims::default();
    for (name, values) in flat {
        claims.set(name, values);
    }
    claims
}

#[cfg(test)]
mod tests {
    use postern_identity::Secret;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_session_comes_over_whole() {
        let all = json!({"groups": ["ops"], "level": 3, "address": {"country": "NZ"}});
        let session = Session {
            handle: SessionHandle::from_bytes([7; 32]),
            user: User {
                id: "u-1".to_owned(),
                issuer: "https://idp.example.com".to_owned(),
                email: Some("alice@example.com".to_owned()),
                email_verified: Some(false),
                name: Some("Alice".to_owned()),
                claims: Claims::flatten(all.as_object().unwrap()),
            },
            claims: Claims::flatten(json!({"sub": "u-1"}).as_object().unwrap()),
            idp: IdpId::new("one"),
            issued_at: Timestamp::from_secs(1),
            expires_at: Timestamp::from_secs(2),
            idle: Some((Duration::from_secs(3), Timestamp::from_secs(4))),
            generation: 5,
        };
        let text = serde_json::to_string(&Found::Live(Box::new(Facts::of(&session)))).unwrap();
        let Found::Live(facts) = serde_json::from_str(&text).unwrap() else { panic!("{text}") };
        assert_eq!(*facts.session().unwrap(), session);
    }

    #[tokio::test]
    async fn a_name_that_says_something_is_the_last_that_is_asked_and_one_that_fails_is_not() {
        let keyring = Keyring::derive(&Secret::new([1; 32]), &Secret::new([2; 32]));
        let written = SessionHandle::from_bytes([3; 32]);
        let of_id = SessionId::from_bytes([3; 32]).handle(&keyring);
        let which = || Which::of(&written.to_string(), &keyring).unwrap();
        let ask = |says: [Result<Option<u8>, StorageError>; 2]| {
            let which = which();
            async move {
                let asked = std::cell::RefCell::new(Vec::new());
                let found = which.first(|name| {
                    let said = says[usize::from(name == written)].clone();
                    asked.borrow_mut().push(name);
                    async move { said }
                });
                let found = found.await.map_err(|_| ());
                (found, asked.into_inner())
            }
        };
        let away = || Err(StorageError::cut_off());
        assert_eq!(ask([Ok(Some(1)), Ok(Some(2))]).await, (Ok(Some(1)), vec![of_id]), "s_081: it may be an id");
        assert_eq!(ask([Ok(None), Ok(Some(2))]).await, (Ok(Some(2)), vec![of_id, written]));
        assert_eq!(ask([away(), Ok(Some(2))]).await, (Ok(Some(2)), vec![of_id, written]));
        assert_eq!(ask([away(), Ok(None)]).await, (Err(()), vec![of_id, written]), "unavailable is never unknown");
        assert_eq!(ask([Ok(None), Ok(None)]).await, (Ok(None), vec![of_id, written]));
    }

    #[test]
    fn s_081_a_session_is_named_by_its_name_or_by_its_id() {
        let keyring = Keyring::derive(&Secret::new([1; 32]), &Secret::new([2; 32]));
        let id = SessionId::from_bytes([3; 32]);
        let written = SessionHandle::from_bytes(*id.as_bytes()).to_string();
        let which = Which::of(&written, &keyring).unwrap();
        assert_eq!(which.names, [id.handle(&keyring).to_string(), written]);
        for wrong in ["", "alice", "AAAA", "../../etc/passwd"] {
            assert!(Which::of(wrong, &keyring).is_none(), "{wrong}");
        }
    }
}
