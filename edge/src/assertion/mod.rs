//! The signed identity JWT that an upstream gets, and the fields that go with it (01 §5). Only we speak for the user.

mod keys;
mod slot;
#[cfg(test)]
mod tests;

use std::time::Duration;

use arrayvec::ArrayVec;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use postern_identity::{ClaimValues, CompactSession, RandomError, Timestamp, prefetch, uuid};
use serde_json::{Map, Value, json};
use tracing::warn;

pub use keys::{SigningKeyError, SigningKeys};
pub use slot::AssertionSlot;
pub(crate) use slot::{AnonymousSlots, Purpose};

use crate::request::HostName;
use crate::{ClaimHeader, GroupsFilter, IdentityConfig, JwtIssuerFormat};

/// The field that carries the assertion.
pub(crate) const ASSERTION_HEADER: HeaderName = HeaderName::from_static("x-pomerium-jwt-assertion");

/// How long an assertion is good for.
const LIFETIME: Duration = Duration::from_secs(300);
/// How long it is used again: less than half of its life (S-042).
const REUSE: Duration = Duration::from_secs(120);
/// A longer claim value is no field (S-045).
const MAX_VALUE: usize = 8 * 1024;

/// A signed assertion, and the claim fields beside it.
#[derive(Debug)]
pub(crate) struct Assertion {
    /// The compact JWS.
    pub(crate) token: HeaderValue,
    /// The configured claim fields, an absent claim as an empty one (01 §5.4).
    pub(crate) fields: Vec<(HeaderName, HeaderValue)>,
    issued: Timestamp,
    host: HostName,
    issuer: JwtIssuerFormat,
    groups: Option<GroupsFilter>,
    generation: u64,
    version: u64,
}

impl Assertion {
    /// Signs what we say of `session` to the upstream behind `purpose.host`; of nobody, if there is none.
    pub(crate) fn sign(
        identity: &IdentityConfig,
        purpose: &Purpose<'_>,
        session: Option<&CompactSession>,
        now: Timestamp,
    ) -> Result<Self, RandomError> {
        let claims = claims(identity, purpose, session, now)?;
        let fields = identity.claim_headers.iter().map(|wanted| field(wanted, &claims)).collect();
        let token = identity.keys.sign(&Value::Object(claims))?;
        Ok(Self {
            // Base64url and dots only.
            token: HeaderValue::from_maybe_shared(in_one_piece(token)).map_err(|_| RandomError)?,
            fields,
            issued: now,
            host: purpose.host.into(),
            issuer: purpose.issuer,
            groups: purpose.groups.cloned(),
            generation: purpose.generation,
            version: purpose.version,
        })
    }

    /// Asks for all of it before it is read: by fields that lie apart.
    pub(crate) fn prefetch(&self) {
        prefetch(self);
        prefetch(&self.token);
        prefetch(&self.fields);
        prefetch(&self.host);
        prefetch(&self.groups);
        prefetch(&self.version);
    }

    fn is_for(&self, purpose: &Purpose<'_>) -> bool {
        self.host.as_str() == purpose.host
            && self.issuer == purpose.issuer
            && self.groups.as_ref() == purpose.groups
            && self.generation == purpose.generation
            && self.version == purpose.version
    }

    fn is_fresh(&self, now: Timestamp) -> bool {
        now >= self.issued && now.since(self.issued) < REUSE
    }
}

/// That text in one allocation with the count of those who hold it, if it is no longer than usual: one wait for memory, not two.
fn in_one_piece(text: String) -> Bytes {
    fn held<const ROOM: usize>(text: &str) -> Option<Bytes> {
        ArrayVec::<u8, ROOM>::try_from(text.as_bytes()).ok().map(Bytes::from_owner)
    }
    // With the count and the length just below what mimalloc gives out: 640, 768 and 1,024 bytes.
    let short = held::<608>(&text).or_else(|| held::<736>(&text)).or_else(|| held::<992>(&text));
    short.unwrap_or_else(|| text.into())
}

/// What a token of ours says, as JSON.
pub(crate) fn payload(token: &str) -> Option<String> {
    let payload = token.split('.').nth(1)?;
    String::from_utf8(URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

/// The claims of 01 §5.1.
pub(crate) fn claims(
    identity: &IdentityConfig,
    purpose: &Purpose<'_>,
    session: Option<&CompactSession>,
    now: Timestamp,
) -> Result<Map<String, Value>, RandomError> {
    let mut claims = subject_claims(identity, purpose.groups, session);
    let issuer = match purpose.issuer {
        JwtIssuerFormat::HostOnly => purpose.host.to_owned(),
        JwtIssuerFormat::Uri => format!("https://{}/", purpose.host),
    };
    claims.insert("iss".to_owned(), json!(issuer));
    claims.insert("aud".to_owned(), json!(purpose.host));
    claims.insert("jti".to_owned(), json!(uuid()?));
    claims.insert("iat".to_owned(), json!(now.as_secs()));
    claims.insert("exp".to_owned(), json!(now.plus(LIFETIME).as_secs()));
    Ok(claims)
}

/// Those of them that speak of the subject: what `/.pomerium/user` shows.
pub(crate) fn subject_claims(
    identity: &IdentityConfig,
    filter: Option<&GroupsFilter>,
    session: Option<&CompactSession>,
) -> Map<String, Value> {
    let named = |group: &String| filter.is_none_or(|filter| filter.contains(group));
    let sid = session.map(|session| session.handle.to_string()).unwrap_or_default();
    let mut claims = Map::new();
    let mut set = |name: &str, value: Value| claims.insert(name.to_owned(), value);
    set("sub", json!(session.map_or("", CompactSession::user_id)));
    set("user", json!(session.map_or("", CompactSession::user_id)));
    set("email", json!(session.and_then(CompactSession::email).unwrap_or_default()));
    let groups = session.map(groups).unwrap_or_default();
    set("groups", json!(groups.into_iter().filter(named).collect::<Vec<_>>()));
    set("sid", json!(sid));
    set("name", json!(session.map(name).unwrap_or_default()));
    for ClaimHeader { claim, .. } in &identity.claim_headers {
        if OWN_CLAIMS.contains(&claim.as_str()) {
            continue;
        }
        // However it is spelled, of the groups those are named that the filter lets through.
        let all = session.and_then(|session| values(session, claim)).map(texts);
        let is_groups = claim.eq_ignore_ascii_case("groups");
        let named = all.map(|all| all.filter(|one| !is_groups || named(one)).collect::<Vec<_>>().join(","));
        if let Some(text) = named {
            set(claim, json!(text));
        }
    }
    claims
}

/// Always present, always as 01 §5.1 has them.
const OWN_CLAIMS: [&str; 11] = ["iss", "aud", "jti", "iat", "exp", "sub", "user", "email", "groups", "sid", "name"];

/// A claim's values: the session's own first, else the user's; the name as written, else in lower case.
fn values<'s>(session: &'s CompactSession, claim: &str) -> Option<ClaimValues<'s>> {
    let find = |name: &str| session.claims().values(name).or_else(|| session.user_claims().values(name));
    find(claim).or_else(|| find(&claim.to_ascii_lowercase()))
}

/// The scalars of a claim, joined by commas; `None` if it is unknown.
fn joined(session: &CompactSession, claim: &str) -> Option<String> {
    values(session, claim).map(|values| texts(values).collect::<Vec<_>>().join(","))
}

fn name(session: &CompactSession) -> String {
    joined(session, "name").or_else(|| session.name().map(str::to_owned)).unwrap_or_default()
}

/// The groups of a session: its claim `groups`, where there is no directory (01 §5.2).
pub(crate) fn groups(session: &CompactSession) -> Vec<String> {
    values(session, "groups").into_iter().flat_map(texts).collect()
}

fn texts(values: ClaimValues<'_>) -> impl Iterator<Item = String> {
    values.iter().filter_map(|value| text(&value.to_json()))
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// One claim as a field: lists joined by commas, what is not plain ASCII escaped (S-045).
fn field(wanted: &ClaimHeader, claims: &Map<String, Value>) -> (HeaderName, HeaderValue) {
    let value = match claims.get(&wanted.claim) {
        Some(Value::Array(list)) => {
            let items = list.iter().filter_map(text).map(|item| item.replace('%', "%25").replace(',', "%2C"));
            Some(items.collect::<Vec<_>>().join(","))
        }
        Some(value) => text(value).map(|text| text.replace('%', "%25")),
        None => None,
    };
    let value = value.unwrap_or_default();
    let fit = field_value(&value);
    if fit.is_none() {
        warn!(claim = %wanted.claim, bytes = value.len(), "claim left out: too long for a field, or with control bytes");
    }
    (wanted.header.clone(), fit.unwrap_or_else(|| HeaderValue::from_static("")))
}

/// A value without control bytes and not over 8 KiB; bytes outside of ASCII become `%XX`, and so `%` is `%25` already.
fn field_value(text: &str) -> Option<HeaderValue> {
    if text.len() > MAX_VALUE || text.chars().any(char::is_control) {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            0x20..=0x7e => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    HeaderValue::try_from(out).ok().filter(|value| value.len() <= MAX_VALUE)
}
