//! What a request shows to say who asks: the session cookie, or in a field or parameter what programs are given in its place, or
//! the same value (02 §4.2, rulings).

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, header};
use postern_identity::{Shown, cookies_named, only_one};

use crate::identify::Identify;
use crate::{Request, Snapshot};

/// What was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credential {
    /// Whom it names, if its MAC holds, a session's for this host. Anything else is no credential (S-083).
    pub(crate) shown: Option<Shown>,
    /// It came in a field or parameter, good or not: a program asks, and is never redirected.
    pub(crate) programmatic: bool,
}

impl Credential {
    /// The cookie first, then fields, then the query (02 §1.5); a session is one on the host `door` alone (S-089), a service
    /// account on every one, but never in a cookie (S-096).
    pub(crate) fn present_in(
        fields: &HeaderMap,
        request: &Request,
        door: &str,
        (snapshot, identify): (&Snapshot, &impl Identify),
    ) -> Self {
        let scope = snapshot.cookie_scope(door);
        let name = snapshot.config.cookie.name.as_str();
        let cookies = fields.get_all(header::COOKIE).iter().flat_map(|field| cookies_named(field.as_bytes(), name));
        let programmatic = in_fields(fields).chain(in_query(request)).next().is_some();
        let keyring = &snapshot.config.keyring;
        let shown = only_one(cookies, |value| snapshot.open_cookie(scope, value, |id| identify.expect(id)))
            .map(Shown::Session)
            .or_else(|| Shown::one(keyring, scope, in_fields(fields)))
            .or_else(|| Shown::one(keyring, scope, in_query(request)));
        Self { shown, programmatic }
    }
}

/// `X-Pomerium-Authorization`, `Authorization: Pomerium …` and `Authorization: Bearer Pomerium-…`.
fn in_fields(fields: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let own = fields.get_all(OWN).iter().map(|value| value.as_bytes().trim_ascii());
    own.chain(fields.get_all(header::AUTHORIZATION).iter().filter_map(|value| own_scheme(value.as_bytes())))
}

/// The credential of ours in an `Authorization` value, if it is one.
pub(crate) fn own_scheme(value: &[u8]) -> Option<&[u8]> {
    let value = value.trim_ascii();
    let (scheme, rest) = value.split_at_checked(value.iter().position(|byte| matches!(byte, b' ' | b'\t'))?)?;
    let rest = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"pomerium") {
        return Some(rest);
    }
    let (prefix, token) = rest.split_at_checked(BEARER_PREFIX.len())?;
    (scheme.eq_ignore_ascii_case(b"bearer") && prefix.eq_ignore_ascii_case(BEARER_PREFIX)).then_some(token)
}

const OWN: HeaderName = HeaderName::from_static("x-pomerium-authorization");
const BEARER_PREFIX: &[u8] = b"pomerium-";

fn in_query(request: &Request) -> impl Iterator<Item = &[u8]> {
    let query = request.query.as_deref().unwrap_or_default();
    query.split('&').filter_map(own_parameter).map(str::as_bytes)
}

/// The value of a `pomerium_session` parameter; its name may be escaped, its value never needs to be.
fn own_parameter(pair: &str) -> Option<&str> {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    let plain = name == PARAMETER;
    (plain || name.contains('%') && percent_encoding::percent_decode_str(name).eq(PARAMETER.bytes())).then_some(value)
}

const PARAMETER: &str = "pomerium_session";

/// A query without a credential of ours, which is meant for nobody else (S-041); otherwise byte for byte (S-027).
pub(crate) fn query_without_own(query: &str) -> Option<Cow<'_, str>> {
    if !has_own_parameter(query) {
        return Some(Cow::Borrowed(query));
    }
    let kept: Vec<&str> = query.split('&').filter(|pair| own_parameter(pair).is_none()).collect();
    (!kept.is_empty()).then(|| Cow::Owned(kept.join("&")))
}

/// Whether a query carries a credential of ours, in whatever spelling.
pub(crate) fn has_own_parameter(query: &str) -> bool {
    query.split('&').any(|pair| own_parameter(pair).is_some())
}
