//! The rules of 03 §3.3 on the names of request fields: which are ours alone, which are believed from nobody, and which
//! spellings could be taken for one of them further on.

use http::HeaderName;

use crate::UnderscoreHeaders;

/// What a field name is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing special.
    Plain,
    /// Ours alone: removed on every route.
    Reserved,
    /// Written by us; a client's own is removed unless trusted hops wrote it.
    Forwarding,
    /// As [`Self::Forwarding`], and an identity field too.
    ForwardingIdentity,
    /// Names a user to some upstreams: removed on routes that pass identity.
    Identity,
    /// Decides where the message ends or who is meant; only its own spelling may appear.
    Message,
}

/// The rules of one deployment.
#[derive(Clone, Debug, Default)]
pub(crate) struct FieldRules {
    pub(crate) underscores: UnderscoreHeaders,
    /// The configured claim fields.
    pub(crate) claims: Vec<HeaderName>,
}

/// What to do with a field whose name has odd characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// Judge it by its [`Kind`].
    Judge(Kind),
    /// Remove it.
    Drop,
    /// 400: an underscore.
    Underscore,
    /// 400: a variant of a name that means something to us.
    Variant,
}

impl FieldRules {
    /// The verdict on a field name, in whatever spelling.
    pub(crate) fn judge(&self, name: &HeaderName) -> Spelling {
        let text = name.as_str();
        if !text.bytes().any(is_odd) {
            return Spelling::Judge(self.kind(text));
        }
        let folded: String = text.bytes().map(|byte| if is_odd(byte) { '-' } else { char::from(byte) }).collect();
        // A configured claim field may itself have an odd spelling: that one is reserved, its variants are refused.
        if self.claims.contains(name) {
            return Spelling::Judge(Kind::Reserved);
        }
        let kind = self.kind(&folded);
        match (kind, self.underscores) {
            (Kind::Reserved | Kind::Forwarding | Kind::ForwardingIdentity | Kind::Message, _) => Spelling::Variant,
            (Kind::Plain | Kind::Identity, _) if !text.contains('_') => Spelling::Judge(kind),
            (Kind::Plain | Kind::Identity, UnderscoreHeaders::Reject) => Spelling::Underscore,
            (Kind::Plain | Kind::Identity, UnderscoreHeaders::Drop) => Spelling::Drop,
            (Kind::Plain | Kind::Identity, UnderscoreHeaders::Allow) => Spelling::Judge(kind),
        }
    }

    /// The kind of a lower-case name that is spelled with dashes.
    fn kind(&self, name: &str) -> Kind {
        let kind = match name.as_bytes().first() {
            Some(b'x') => kind_of_x(name),
            Some(b'c' | b'f' | b'h' | b'i' | b'o' | b'r' | b's' | b't' | b'a' | b'u' | b'k' | b'p' | b'e') => {
                kind_of_other(name)
            }
            _ => Kind::Plain,
        };
        if kind != Kind::Reserved && self.claims.iter().any(|claim| folds_to(claim.as_str(), name)) {
            return Kind::Reserved;
        }
        kind
    }
}

/// Whether a field of ours may never be set by a route (S-047): the reserved families and the claim fields.
pub(crate) fn is_own_family(name: &str) -> bool {
    name.starts_with("x-pomerium-") || name.starts_with("x-postern-")
}

/// Lower-case letters, digits and dashes are the plain spelling; some upstreams fold everything else into one of them.
const fn is_odd(byte: u8) -> bool {
    !(byte.is_ascii_alphanumeric() || byte == b'-')
}

fn folds_to(claim: &str, name: &str) -> bool {
    claim.len() == name.len() && claim.bytes().zip(name.bytes()).all(|(a, b)| a == b || (is_odd(a) && b == b'-'))
}

fn begins(name: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| name.starts_with(prefix))
}

fn kind_of_x(name: &str) -> Kind {
    if is_own_family(name) {
        Kind::Reserved
    } else if begins(name, X_FORWARDED_IDENTITY) {
        Kind::ForwardingIdentity
    } else if begins(name, X_FORWARDING) || name == "x-real-ip" || name == "x-rewrite-url" {
        Kind::Forwarding
    } else if begins(name, X_IDENTITY) {
        Kind::Identity
    } else {
        Kind::Plain
    }
}

fn kind_of_other(name: &str) -> Kind {
    if MESSAGE.contains(&name) || name.starts_with("proxy-") {
        Kind::Message
    } else if name == "forwarded" || begins(name, &["client-cert", "ssl-client-"]) {
        Kind::Forwarding
    } else if begins(name, IDENTITY) {
        Kind::Identity
    } else {
        Kind::Plain
    }
}

const MESSAGE: &[&str] = &[
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "cookie",
    "authorization",
    "content-type",
    "content-encoding",
    "origin",
];
const X_FORWARDING: &[&str] =
    &["x-forwarded-", "x-original-", "x-envoy-", "x-client-cert", "x-ssl-client-", "x-tls-client-"];
const X_FORWARDED_IDENTITY: &[&str] = &[
    "x-forwarded-user",
    "x-forwarded-email",
    "x-forwarded-group",
    "x-forwarded-preferred-username",
    "x-forwarded-access-token",
];
const X_IDENTITY: &[&str] = &[
    "x-auth-request-",
    "x-webauth-",
    "x-remote-",
    "x-goog-authenticated-user-",
    "x-goog-iap-",
    "x-amzn-oidc-",
    "x-ms-client-principal",
    "x-ms-token-",
    "x-authentik-",
    "x-vouch-",
];
const IDENTITY: &[&str] = &["remote-", "oidc-claim-", "impersonate-", "cf-access-", "tailscale-user-"];
