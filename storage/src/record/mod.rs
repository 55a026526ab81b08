//! What a record looks like at rest: clear fields for the store to work with, and sealed bytes for everybody else.
//!
//! Rules of evolution: a field number is never used again; a field added in release k is written from k+1 on;
//! `min_reader` says who may still read a record, and a reader that is too old answers "unavailable", never "unknown".

mod deposit;
mod jwt;

use std::time::Duration;

use postern_identity::{
    Claims, IdpId, Keyring, Purpose, Secret, Session, SessionHandle, SessionId, Timestamp, Tokens, User,
};
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, skip_field};
use serde_json::{Map, Value};
use zeroize::{Zeroize as _, Zeroizing};

use crate::StorageError;

/// The format of a session.
const FORMAT: u32 = 1;
/// That of a service account: what does not know them must not take one for a session.
const FORMAT_OF_ACCOUNTS: u32 = 2;
/// The newest format that this version reads.
pub(crate) const READS: u32 = 2;
/// A record larger than this is refused: claims come from outside.
pub(crate) const MAX_RECORD: usize = 256 * 1024;

/// A keyed hash that names something in the store.
pub(crate) type Key = [u8; 32];

/// The owner of every session: what is said of it holds for all users. No keyed hash is this.
pub(crate) const EVERYONE: Key = [0; 32];

/// A session as a backend keeps it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Row {
    #[prost(uint32, tag = "1")]
    pub(crate) ver: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) min_reader: u32,
    /// Keyed hash of (issuer, user).
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) owner: Vec<u8>,
    #[prost(uint64, tag = "4")]
    pub(crate) generation: u64,
    #[prost(int64, tag = "5")]
    pub(crate) issued_at: i64,
    #[prost(int64, tag = "6")]
    pub(crate) expires_at: i64,
    /// When idleness ends it; the one field that changes without a new generation.
    #[prost(int64, optional, tag = "7")]
    pub(crate) idle_until: Option<i64>,
    #[prost(bool, tag = "8")]
    pub(crate) revoked: bool,
    /// Sealed [`View`]; empty once revoked.
    #[prost(bytes = "vec", tag = "9")]
    pub(crate) view: Vec<u8>,
    /// When its tokens are to be refreshed.
    #[prost(int64, optional, tag = "10")]
    pub(crate) refresh_at: Option<i64>,
    /// When that is to be tried next: later than `refresh_at` while somebody tries, and after a try that failed.
    #[prost(int64, optional, tag = "11")]
    pub(crate) refresh_next: Option<i64>,
}

const ROW_FIELDS: u32 = 11;

impl Row {
    pub(crate) fn owner(&self) -> Key {
        Key::try_from(self.owner.as_slice()).unwrap_or_default()
    }

    /// This row, due for a refresh at that time.
    pub(crate) fn due_at(self, at: Option<Timestamp>) -> Self {
        let at = at.map(Timestamp::as_millis);
        Self { refresh_at: at, refresh_next: at, ..self }
    }
}

/// Rewrites an encoded row and keeps the fields that only a newer version knows; `None` if it cannot be read.
pub(crate) fn rewrite(encoded: &[u8], change: impl FnOnce(&mut Row)) -> Option<Vec<u8>> {
    let mut row = Row::decode(encoded).ok()?;
    change(&mut row);
    let mut out = row.encode_to_vec();
    out.extend(unknown_fields(encoded, ROW_FIELDS));
    Some(out)
}

/// The fields above `highest`, still encoded: appended to a message they survive its rewriting.
fn unknown_fields(encoded: &[u8], highest: u32) -> Vec<u8> {
    let (mut rest, mut kept) = (encoded, Vec::new());
    while !rest.is_empty() {
        let field = rest;
        let Ok((tag, wire)) = decode_key(&mut rest) else { break };
        if wire == WireType::EndGroup || skip_field(wire, tag, &mut rest, DecodeContext::default()).is_err() {
            break;
        }
        if tag > highest {
            kept.extend(field.get(..field.len() - rest.len()).unwrap_or_default());
        }
    }
    kept
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct View {
    #[prost(string, tag = "1")]
    user: String,
    #[prost(string, tag = "2")]
    issuer: String,
    #[prost(string, optional, tag = "3")]
    email: Option<String>,
    #[prost(bool, optional, tag = "4")]
    email_verified: Option<bool>,
    #[prost(string, optional, tag = "5")]
    name: Option<String>,
    /// A JSON object of lists.
    #[prost(bytes = "vec", tag = "6")]
    user_claims: Vec<u8>,
    #[prost(bytes = "vec", tag = "7")]
    claims: Vec<u8>,
    #[prost(string, tag = "8")]
    idp: String,
    #[prost(uint64, optional, tag = "9")]
    idle_ms: Option<u64>,
    /// The session's `sub` is the user's id, and not written twice.
    #[prost(bool, tag = "10")]
    sub_is_user: bool,
}

const VIEW_FIELDS: u32 = 10;

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct TokenRecord {
    #[prost(string, tag = "1")]
    access: String,
    #[prost(int64, optional, tag = "2")]
    access_expires_at: Option<i64>,
    #[prost(string, optional, tag = "3")]
    refresh: Option<String>,
    #[prost(string, tag = "4")]
    id_token: String,
    /// In the place of `access`, if it is made of base64url.
    #[prost(bytes = "vec", repeated, tag = "5")]
    access_parts: Vec<Vec<u8>>,
    /// The same of `id_token`.
    #[prost(bytes = "vec", repeated, tag = "6")]
    id_token_parts: Vec<Vec<u8>>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("View([redacted])")
    }
}

impl std::fmt::Debug for TokenRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenRecord([redacted])")
    }
}

/// What a sealed value is. Part of what it is sealed with, so that one kind never opens as another (S-082).
#[derive(Clone, Copy, Debug)]
enum Kind {
    View = 1,
    Tokens = 2,
    Deposit = 3,
}

/// The place and the time that a sealed value belongs to: moved anywhere else, or given another life, it does not open (S-082).
fn place(kind: Kind, key: &Key, row: &Row) -> Vec<u8> {
    let mut place = Vec::with_capacity(93);
    place.push(kind as u8);
    place.extend_from_slice(&FORMAT.to_be_bytes());
    place.extend_from_slice(key);
    place.extend_from_slice(&row.owner());
    place.extend_from_slice(&row.generation.to_be_bytes());
    place.extend_from_slice(&row.issued_at.to_be_bytes());
    place.extend_from_slice(&row.expires_at.to_be_bytes());
    place
}

/// Seals and opens records. Knows keys and formats, and nothing of backends.
#[derive(Clone, Debug)]
pub(crate) struct Seal {
    keyring: std::sync::Arc<Keyring>,
}

impl Seal {
    pub(crate) const fn new(keyring: std::sync::Arc<Keyring>) -> Self {
        Self { keyring }
    }

    /// The name of a session in the store.
    pub(crate) fn handle(&self, id: &SessionId) -> SessionHandle {
        id.handle(&self.keyring)
    }

    /// The name of a user in the store.
    pub(crate) fn owner(&self, issuer: &str, user: &str) -> Key {
        self.keyring.mac(Purpose::StoreId, &owner(issuer, user))
    }

    /// Every name that a user may have in the store: one by each secret that a session of theirs may have begun under.
    pub(crate) fn owners(&self, issuer: &str, user: &str) -> Vec<Key> {
        self.keyring.macs(Purpose::StoreId, &owner(issuer, user)).collect()
    }

    /// Every name of a single-use value in the store, in an order that is the same for all who hold the same secrets.
    pub(crate) fn once(&self, kind: &str, value: &[u8]) -> Vec<Key> {
        let mut names: Vec<_> = self.keyring.macs(Purpose::StoreId, &[b"once", kind.as_bytes(), value]).collect();
        names.sort_unstable();
        names
    }

    /// The row of a session. `former` is the row that it replaces, whose unknown fields it keeps, and its owner's name.
    pub(crate) fn row(&self, session: &Session, generation: u64, former: Option<&Row>) -> Result<Row, StorageError> {
        let key = session.handle.as_bytes();
        let mut plain = Zeroizing::new(View::from(session).encode_to_vec());
        let User { issuer, id, .. } = &session.user;
        let mut kept = None;
        if let Some((row, old)) = former.and_then(|row| Some((row, self.open(Kind::View, key, row, &row.view)?))) {
            plain.extend(unknown_fields(&old, VIEW_FIELDS));
            // The name was sealed with it, also where the secret that made it is known no more.
            let of = View::decode(old.as_slice()).ok().and_then(|view| view.into_session(session.handle, row));
            kept = of.filter(|old| (&old.user.issuer, &old.user.id) == (issuer, id)).map(|_| row.owner());
        }
        let format = if session.is_service_account() { FORMAT_OF_ACCOUNTS } else { FORMAT };
        let row = Row {
            ver: format,
            min_reader: format,
            owner: kept.unwrap_or_else(|| self.owner(issuer, id)).to_vec(),
            generation,
            issued_at: session.issued_at.as_millis(),
            expires_at: session.expires_at.as_millis(),
            idle_until: session.idle.map(|(_, until)| until.as_millis()),
            ..Row::default()
        };
        let view = self.seal(&place(Kind::View, key, &row), &plain)?;
        Ok(Row { view, ..row })
    }

    /// The session in a row; `None` if it was not sealed for this very place, or makes no sense.
    pub(crate) fn session(&self, handle: &SessionHandle, row: &Row) -> Option<Session> {
        let plain = self.open(Kind::View, handle.as_bytes(), row, &row.view)?;
        let view = View::decode(plain.as_slice()).ok()?;
        view.into_session(*handle, row)
    }

    /// The tokens of the session in a row, sealed to its place.
    pub(crate) fn tokens(&self, handle: &SessionHandle, row: &Row, tokens: &Tokens) -> Result<Vec<u8>, StorageError> {
        let (access, access_parts) = jwt::pack(tokens.access.expose());
        let (id_token, id_token_parts) = jwt::pack(tokens.id_token.expose());
        let mut record = TokenRecord {
            access,
            access_expires_at: tokens.access_expires_at.map(Timestamp::as_millis),
            refresh: tokens.refresh.as_ref().map(|token| token.expose().clone()),
            id_token,
            access_parts,
            id_token_parts,
        };
        let plain = Zeroizing::new(record.encode_to_vec());
        record.access.zeroize();
        record.refresh.zeroize();
        record.id_token.zeroize();
        record.access_parts.zeroize();
        record.id_token_parts.zeroize();
        self.seal(&place(Kind::Tokens, handle.as_bytes(), row), &plain)
    }

    /// Opens what [`tokens`](Self::tokens) sealed.
    pub(crate) fn open_tokens(&self, handle: &SessionHandle, row: &Row, sealed: &[u8]) -> Option<Tokens> {
        let plain = self.open(Kind::Tokens, handle.as_bytes(), row, sealed)?;
        let record = TokenRecord::decode(plain.as_slice()).ok()?;
        Some(Tokens {
            access: Secret::new(jwt::unpack(record.access, record.access_parts)),
            access_expires_at: record.access_expires_at.map(Timestamp::from_millis),
            refresh: record.refresh.map(Secret::new),
            id_token: Secret::new(jwt::unpack(record.id_token, record.id_token_parts)),
            refresh_at: row.refresh_at.map(Timestamp::from_millis),
        })
    }

    fn open(&self, kind: Kind, key: &Key, row: &Row, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        self.keyring.open(Purpose::StoreSeal, &place(kind, key, row), sealed).map(Zeroizing::new)
    }

    fn seal(&self, place: &[u8], plain: &[u8]) -> Result<Vec<u8>, StorageError> {
        if plain.len() > MAX_RECORD {
            return Err(StorageError::unavailable("a record is too large to be kept"));
        }
        self.keyring
            .seal(Purpose::StoreSeal, place, plain)
            .map_err(|error| StorageError::unavailable(error.to_string()))
    }
}

/// What names a user.
fn owner<'a>(issuer: &'a str, user: &'a str) -> [&'a [u8]; 3] {
    [b"user", issuer.as_bytes(), user.as_bytes()]
}

impl From<&Session> for View {
    fn from(session: &Session) -> Self {
        let sub_is_user = matches!(session.claims.find(SUB), Some([Value::String(sub)]) if *sub == session.user.id);
        let claims = session.claims.iter().filter(|(name, _)| !sub_is_user || *name != SUB);
        Self {
            claims: claims_to_json(claims),
            sub_is_user,
            idp: session.idp.as_str().to_owned(),
            idle_ms: session.idle.map(|(idle, _)| u64::try_from(idle.as_millis()).unwrap_or(u64::MAX)),
            ..Self::of_user(&session.user)
        }
    }
}

impl View {
    fn of_user(user: &User) -> Self {
        Self {
            user: user.id.clone(),
            issuer: user.issuer.clone(),
            email: user.email.clone(),
            email_verified: user.email_verified,
            name: user.name.clone(),
            user_claims: claims_to_json(user.claims.iter()),
            ..Self::default()
        }
    }

    fn into_user(self) -> Option<User> {
        Some(User {
            claims: claims_from_json(&self.user_claims)?,
            id: self.user,
            issuer: self.issuer,
            email: self.email,
            email_verified: self.email_verified,
            name: self.name,
        })
    }

    fn into_session(self, handle: SessionHandle, row: &Row) -> Option<Session> {
        let idle_until = row.idle_until.unwrap_or(row.issued_at);
        let mut claims = claims_from_json(&self.claims)?;
        if self.sub_is_user {
            claims.set(SUB, vec![Value::String(self.user.clone())]);
        }
        Some(Session {
            handle,
            claims,
            idp: IdpId::new(self.idp.as_str()),
            issued_at: Timestamp::from_millis(row.issued_at),
            expires_at: Timestamp::from_millis(row.expires_at),
            idle: self.idle_ms.map(|idle| (Duration::from_millis(idle), Timestamp::from_millis(idle_until))),
            generation: row.generation,
            user: self.into_user()?,
        })
    }
}

/// OpenID Connect Core §2.
const SUB: &str = "sub";

fn claims_to_json<'c>(claims: impl Iterator<Item = (&'c str, &'c [Value])>) -> Vec<u8> {
    let object: Map<String, Value> =
        claims.map(|(name, values)| (name.to_owned(), Value::Array(values.to_vec()))).collect();
    if object.is_empty() { Vec::new() } else { Value::Object(object).to_string().into_bytes() }
}

fn claims_from_json(json: &[u8]) -> Option<Claims> {
    let mut claims = Claims::default();
    if json.is_empty() {
        return Some(claims);
    }
    let object: Map<String, Value> = serde_json::from_slice(json).ok()?;
    for (name, value) in object {
        let Value::Array(values) = value else { return None };
        claims.set(name, values);
    }
    Some(claims)
}

#[cfg(test)]
mod tests;
