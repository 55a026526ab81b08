//! The endpoints of the product itself (01 §4.6): matched by equality on the canonical path, before any route, and never
//! forwarded to an upstream (S-034).

use http::header;
use http::{HeaderValue, Method, StatusCode};
use serde_json::json;

use crate::answer::{Draft, NO_STORE};
use crate::refusal::Asked;
use crate::{Request, Snapshot};

/// An endpoint of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reserved {
    /// `/ping`, `/healthz`.
    Ping,
    /// `/.well-known/pomerium`.
    WellKnown,
    /// `/.well-known/pomerium/jwks.json`.
    KeySet,
    /// `/.pomerium/user`: needs a session.
    User,
    /// `/.pomerium/jwt`, where it is switched on: needs a session.
    Jwt,
    /// `/.pomerium/api/v1/login` of a route's host: a program asks where its user signs in.
    Login,
    /// `/robots.txt` of the authenticate host.
    Robots,
    /// Authn answers.
    Authn,
    /// The same path with or without its last slash.
    Moved(String),
    /// One of our paths, but the method is not taken.
    Method(&'static str),
    /// Ours, and nothing is there.
    Nothing,
}

impl Reserved {
    /// The endpoint of a request; `None` if its path is not ours.
    pub(crate) fn of(request: &Request, snapshot: &Snapshot) -> Option<Self> {
        let path = request.path.as_str();
        if snapshot.is_authenticate(&request.host) {
            match path {
                "/" | "/oauth2/callback" | "/.pomerium/sign_in" => return Some(Self::Authn),
                "/robots.txt" => return Some(Self::Robots.taking(&request.method, READ)),
                _ => {}
            }
        }
        match path {
            "/ping" | "/healthz" => Some(Self::Ping.taking(&request.method, READ)),
            "/.well-known/pomerium" | "/.well-known/pomerium/" => Some(Self::WellKnown),
            "/.well-known/pomerium/jwks.json" => Some(Self::KeySet.taking(&request.method, READ_CORS)),
            "/.pomerium/user" => Some(Self::User.taking(&request.method, READ)),
            "/.pomerium/jwt" if snapshot.config.identity.jwt_endpoint => Some(Self::Jwt.taking(&request.method, READ)),
            LOGIN if !snapshot.is_authenticate(&request.host) => Some(Self::Login.taking(&request.method, "GET")),
            "/.pomerium/" | "/.pomerium/callback/" | "/.pomerium/sign_out" | "/.pomerium/signed_out" => {
                Some(Self::Authn)
            }
            _ => Self::moved(request, snapshot).or_else(|| is_ours(path).then_some(Self::Nothing)),
        }
    }

    /// The other spelling of a path of ours, for requests that may be repeated.
    fn moved(request: &Request, snapshot: &Snapshot) -> Option<Self> {
        let path = request.path.as_str();
        let other = match path {
            "/.pomerium" | "/.pomerium/callback" => format!("{path}/"),
            "/.well-known/pomerium/jwks.json/"
            | "/.pomerium/user/"
            | "/.pomerium/sign_out/"
            | "/.pomerium/signed_out/" => path.trim_end_matches('/').to_owned(),
            "/.pomerium/api/v1/login/" if !snapshot.is_authenticate(&request.host) => LOGIN.to_owned(),
            "/.pomerium/sign_in/" if snapshot.is_authenticate(&request.host) => path.trim_end_matches('/').to_owned(),
            _ => return None,
        };
        let query = request.query.as_deref().map(|query| format!("?{query}")).unwrap_or_default();
        matches!(request.method, Method::GET | Method::HEAD).then(|| Self::Moved(format!("{other}{query}")))
    }

    fn taking(self, method: &Method, allow: &'static str) -> Self {
        if allow.split(", ").any(|allowed| allowed == method.as_str()) { self } else { Self::Method(allow) }
    }
}

const LOGIN: &str = "/.pomerium/api/v1/login";
const READ: &str = "GET, HEAD";
const READ_CORS: &str = "GET, HEAD, OPTIONS";

fn is_ours(path: &str) -> bool {
    path.starts_with("/.pomerium/") || path.starts_with("/.well-known/pomerium/")
}

pub(crate) fn ping() -> Draft {
    Draft::new(StatusCode::OK).body("text/plain; charset=utf-8", "OK")
}

pub(crate) fn robots() -> Draft {
    Draft::new(StatusCode::OK).body("text/plain; charset=utf-8", "User-agent: *\nDisallow: /\n")
}

pub(crate) fn moved(status: StatusCode, location: &str) -> Draft {
    Draft::new(status).text(header::LOCATION, location)
}

/// Where everything is on this host.
pub(crate) fn well_known(asked: &Asked<'_>) -> Draft {
    let host = asked.request.map(|request| request.host.to_string()).unwrap_or_default();
    let here = |path: &str| format!("https://{host}{path}");
    let body = json!({
        "issuer": here("/"),
        "authentication_callback_endpoint": here("/oauth2/callback"),
        "jwks_uri": here("/.well-known/pomerium/jwks.json"),
        "frontchannel_logout_uri": here("/.pomerium/sign_out"),
    });
    open_to_all(Draft::new(StatusCode::OK).body("application/json", body.to_string()))
}

/// The public keys, cacheable for a minute (01 §5.3).
pub(crate) fn key_set(asked: &Asked<'_>) -> Draft {
    let keys = &asked.snapshot.config.identity.keys;
    let known = asked.head.headers.get_all(header::IF_NONE_MATCH).iter().any(|value| names(value, keys.etag()));
    let draft = if asked.head.method == Method::OPTIONS {
        Draft::new(StatusCode::NO_CONTENT)
    } else if known {
        Draft::new(StatusCode::NOT_MODIFIED)
    } else {
        Draft::new(StatusCode::OK).body("application/json", keys.key_set().clone())
    };
    open_to_all(draft)
        .field(header::CACHE_CONTROL, HeaderValue::from_static("max-age=60"))
        .field(header::ETAG, keys.etag().clone())
}

/// Whether an `If-None-Match` names that tag, by weak comparison (RFC 9110 §13.1.2).
fn names(value: &HeaderValue, etag: &HeaderValue) -> bool {
    crate::request::tokens(value).any(|tag| tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == etag.as_bytes())
}

fn open_to_all(draft: Draft) -> Draft {
    draft
        .field(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"))
        .field(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, OPTIONS"))
        .field(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("*"))
}

/// What upstreams are told of the subject.
pub(crate) fn user(asked: &Asked<'_>) -> Draft {
    let identity = &asked.snapshot.config.identity;
    let filter = identity.groups_filter.as_ref();
    let claims = crate::assertion::subject_claims(identity, filter, asked.subject.session());
    Draft::new(StatusCode::OK)
        .body("application/json", serde_json::Value::Object(claims).to_string())
        .field(header::CACHE_CONTROL, NO_STORE)
}
