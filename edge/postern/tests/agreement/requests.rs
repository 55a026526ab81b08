//! Random requests, the odd ones among them.

use proptest::prelude::*;
use proptest::sample::select;

use crate::people::PEOPLE;

/// One request of somebody.
#[derive(Clone, Debug)]
pub(crate) struct Generated {
    pub(crate) method: &'static str,
    pub(crate) authority: &'static str,
    pub(crate) target: String,
    pub(crate) fields: Vec<(&'static str, &'static str)>,
    /// Who is signed in, if anybody is.
    pub(crate) person: Option<usize>,
}

/// Any request.
pub(crate) fn any() -> impl Strategy<Value = Generated> {
    let target = prop_oneof![
        6 => (select(PATHS), select(QUERIES)).prop_map(|(path, query)| format!("{path}{query}")),
        2 => (select(ODD_PATHS), select(QUERIES)).prop_map(|(path, query)| format!("{path}{query}")),
        1 => "/[a-z/.;%0-9]{0,12}".prop_map(|path| path),
    ];
    let fields = prop::collection::vec(prop_oneof![30 => select(FIELDS), 1 => select(ODD_FIELDS)], 0..4).prop_map(
        |mut fields| {
            fields.sort_unstable();
            fields.dedup_by_key(|(name, _)| *name);
            fields
        },
    );
    let person = prop_oneof![1 => Just(None), 3 => (0..PEOPLE).prop_map(Some)];
    (select(METHODS), select(AUTHORITIES), target, fields, person)
        .prop_map(|(method, authority, target, fields, person)| Generated { method, authority, target, fields, person })
}

const METHODS: &[&str] =
    &["GET", "GET", "GET", "GET", "GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"];

const AUTHORITIES: &[&str] = &[
    "a.example.com",
    "a.example.com",
    "A.Example.com.",
    "a.example.com:443",
    "b.example.com",
    "b.example.com:8443",
    "b.example.com:9443",
    "x.c.example.com",
    "d.example.com",
    "auth.example.com",
    "unknown.test",
    "192.0.2.1",
];

const PATHS: &[&str] = &[
    "/",
    "/",
    "/app",
    "/app/",
    "/app/x",
    "/application",
    "/api/v1",
    "/re/12",
    "/re/12/x",
    "/x/y",
    "/robots.txt",
    "/app/./x",
    "/a%20b",
];

const ODD_PATHS: &[&str] = &[
    "/app/../api/x",
    "//app//x",
    "/%61pp",
    "/app%2Fx",
    "/app/%2e%2e/x",
    "/app;v=1/x",
    "/%E4%B8%AD",
    "/%00",
    "/..",
    "/%zz",
    "/%252e",
    "/ping",
    "/.pomerium/",
    "/.pomerium",
    "/.pomerium/user",
    "/.pomerium/jwt",
    "/.pomerium/sign_out",
    "/.pomerium/none",
    "/.well-known/pomerium",
    "/.well-known/pomerium/jwks.json",
    "/oauth2/callback",
];

const QUERIES: &[&str] = &["", "", "", "?", "?a=1&b=%2f", "?pomerium_session=x", "?q=1&pomerium_session=x&r=2"];

const FIELDS: &[(&str, &str)] = &[
    ("accept", "text/html"),
    ("accept", "application/json"),
    ("accept", "text/plain"),
    ("accept", "*/*"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-mode", "cors"),
    ("user-agent", "kubectl/v1 kubernetes/abc"),
    ("content-type", "application/grpc"),
    ("origin", "https://other.test"),
    ("access-control-request-method", "PUT"),
    ("x-forwarded-for", "10.1.2.3"),
    ("x-forwarded-for", "10.1.2.3, 203.0.113.7"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-port", "8443"),
    ("x-forwarded-host", "spoofed.test"),
    ("x-client", "1"),
    ("x-dept", "forged"),
    ("x-pomerium-jwt-assertion", "forged"),
    ("x-pomerium-claim-email", "forged"),
    ("cookie", "a=1; _pomerium_flow=x; b=2"),
    ("authorization", "Bearer Pomerium-x"),
    ("authorization", "Basic abc"),
    ("referer", "https://a.example.com/x?pomerium_session=x"),
    ("connection", "x-client"),
    ("te", "trailers"),
    ("proxy", "http://evil.test"),
];

const ODD_FIELDS: &[(&str, &str)] =
    &[("x_under_score", "1"), ("x_pomerium_jwt_assertion", "1"), ("expect", "something"), ("x-pomerium.jwt", "1")];
