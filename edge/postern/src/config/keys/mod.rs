//! Every key that a Pomerium file can hold, and what becomes of it here. The reference page is tested against these tables.

mod kind;
mod nested;
mod route;
mod settings;

use std::collections::HashSet;
use std::sync::LazyLock;

use postern_policy::document::nearest;

pub(crate) use kind::{Form, Kind};
pub(crate) use nested::{
    ACCESS_TEST, BLOB_STORAGE, CERTIFICATE, CIRCUIT_BREAKERS, CLUSTER_NODE, DOWNSTREAM_MTLS, GRPC_HEALTH_CHECK, HEADER,
    HEADER_OPTION, HEALTH_CHECK, HTTP_HEALTH_CHECK, IDENTITY_PROVIDER, LIMITS, MCP, MCP_CLIENT, MCP_OAUTH2,
    MCP_OAUTH2_ENDPOINT, MCP_SERVER, OUTLIER_DETECTION, PAYLOAD, PERSON, REDIRECT, RESPONSE, REWRITE_RESPONSE_HEADER,
    SESSION_RECORDING, STATUS_RANGE, SUB_POLICY, TCP_HEALTH_CHECK, UPSTREAM_TUNNEL,
};
pub(crate) use route::ROUTE;
pub(crate) use settings::{FLAGS, SETTINGS};

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// It does what it says.
    Works,
    /// Not supported yet, and to go on without it could admit more than was meant or break what is relied on: fatal.
    NotYet,
    /// Not supported yet, and nothing is lost but itself: advisory.
    NotYetHarmless,
    /// It shares what becomes of the block that it is in.
    AsItsBlock,
    /// It has no meaning here, for this reason: advisory.
    NoEffect(&'static str),
    /// It was removed; this is to be written instead: fatal.
    Removed(&'static str),
}

impl Status {
    /// The status in words, for tables.
    pub(crate) fn told(self) -> String {
        match self {
            Self::Works => "works".to_owned(),
            Self::NotYet => "not supported yet; refused".to_owned(),
            Self::NotYetHarmless => "not supported yet; ignored with a warning".to_owned(),
            Self::AsItsBlock => "as its block".to_owned(),
            Self::NoEffect(why) => format!("no effect; {why}"),
            Self::Removed(instead) => format!("removed; {instead}"),
        }
    }
}

/// The environment variable of a key at the top of the file, or in a block whose keys have variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variable {
    /// The key in upper case.
    Usual,
    /// This one.
    Named(&'static str),
    /// None: the key holds a map of structs (01 §1.1).
    None,
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    /// As written, in lower case.
    pub(crate) name: &'static str,
    /// What it holds.
    pub(crate) kind: Kind,
    /// What holds where it is absent, as Markdown; empty if nothing does.
    pub(crate) default: &'static str,
    /// What becomes of it.
    pub(crate) status: Status,
    /// How it differs from Pomerium, where it does.
    pub(crate) differs: &'static str,
    variable: Variable,
}

impl Key {
    const fn new(name: &'static str, kind: Kind, default: &'static str, status: Status) -> Self {
        Self { name, kind, default, status, differs: "", variable: Variable::Usual }
    }

    /// The same key with a difference from Pomerium.
    const fn differs(self, differs: &'static str) -> Self {
        Self { differs, ..self }
    }

    /// The same key with another variable than the usual one.
    const fn variable(self, variable: Variable) -> Self {
        Self { variable, ..self }
    }
}

/// The keys of one map.
#[derive(Debug)]
pub(crate) struct Scope {
    /// What the map is, for messages.
    pub(crate) name: &'static str,
    /// An unknown key here could admit more than was meant: it stops the load (rulings).
    pub(crate) guarded: bool,
    /// What the environment variables of these keys begin with, if they have some.
    pub(crate) prefix: Option<&'static str>,
    /// The keys.
    pub(crate) keys: &'static [Key],
    /// Unknown keys that are known from elsewhere, and what to write.
    pub(crate) hints: &'static [(&'static str, &'static str)],
}

impl Scope {
    pub(crate) fn find(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The environment variable of a key in here.
    pub(crate) fn variable(&self, key: &Key) -> Option<String> {
        let prefix = self.prefix?;
        match (key.variable, key.status) {
            (Variable::Named(name), _) => Some(name.to_owned()),
            (Variable::Usual, _) => Some(format!("{prefix}{}", key.name.to_ascii_uppercase())),
            (Variable::None, _) => None,
        }
    }
}

/// Every map of known keys, with its heading on the reference page.
pub(crate) static SCOPES: &[(&str, &Scope)] = &[
    ("Top of the file", &SETTINGS),
    ("A route", &ROUTE),
    ("`redirect` of a route", &REDIRECT),
    ("`response` of a route", &RESPONSE),
    ("An entry of `rewrite_response_headers`", &REWRITE_RESPONSE_HEADER),
    ("An entry of `sub_policies`", &SUB_POLICY),
    ("An entry of `health_checks`", &HEALTH_CHECK),
    ("`http_health_check`", &HTTP_HEALTH_CHECK),
    ("`tcp_health_check`", &TCP_HEALTH_CHECK),
    ("`grpc_health_check`", &GRPC_HEALTH_CHECK),
    ("An entry of `expected_statuses`, `retriable_statuses`", &STATUS_RANGE),
    ("`send` and `receive` of a health check", &PAYLOAD),
    ("An entry of `request_headers_to_add`, `initial_metadata`", &HEADER_OPTION),
    ("Its `header`", &HEADER),
    ("`outlier_detection`", &OUTLIER_DETECTION),
    ("`circuit_breaker_thresholds`", &CIRCUIT_BREAKERS),
    ("`limits`", &LIMITS),
    ("`mcp`", &MCP),
    ("`mcp.server`", &MCP_SERVER),
    ("`mcp.server.upstream_oauth2`", &MCP_OAUTH2),
    ("`mcp.server.upstream_oauth2.endpoint`", &MCP_OAUTH2_ENDPOINT),
    ("`mcp.client`", &MCP_CLIENT),
    ("`upstream_tunnel`", &UPSTREAM_TUNNEL),
    ("`session_recording`", &SESSION_RECORDING),
    ("An entry of `tests`", &ACCESS_TEST),
    ("`as` of a test", &PERSON),
    ("An entry of `certificates`", &CERTIFICATE),
    ("`downstream_mtls`", &DOWNSTREAM_MTLS),
    ("An entry of `identity_providers`", &IDENTITY_PROVIDER),
    ("An entry of `databroker_cluster_nodes`", &CLUSTER_NODE),
    ("`blob_storage`", &BLOB_STORAGE),
];

const fn works(name: &'static str, kind: Kind, default: &'static str) -> Key {
    Key::new(name, kind, default, Status::Works)
}

const fn not_yet(name: &'static str, kind: Kind, default: &'static str) -> Key {
    Key::new(name, kind, default, Status::NotYet)
}

const fn harmless(name: &'static str, kind: Kind, default: &'static str) -> Key {
    Key::new(name, kind, default, Status::NotYetHarmless)
}

/// A key of a block that is not supported yet as a whole.
const fn part(name: &'static str, kind: Kind, default: &'static str) -> Key {
    Key::new(name, kind, default, Status::AsItsBlock)
}

const fn no_effect(name: &'static str, kind: Kind, why: &'static str) -> Key {
    Key::new(name, kind, "", Status::NoEffect(why))
}

const fn removed(name: &'static str, instead: &'static str) -> Key {
    Key::new(name, Kind::Special("", Form::Nothing), "", Status::Removed(instead)).variable(Variable::Usual)
}

/// Keys whose values are secrets: never shown, not even in a snippet. Header names count as keys.
pub(crate) fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let part = SECRET_PARTS.iter().any(|part| key.contains(part));
    let end = ["token", "-key", "-auth"].iter().any(|end| key.ends_with(end));
    (part && !key.ends_with("_file")) || end || SECRET_KEYS.contains(&key.as_str())
}

/// Every key that there is, wherever it may stand.
static KNOWN: LazyLock<HashSet<&str>> =
    LazyLock::new(|| SCOPES.iter().flat_map(|(_, scope)| scope.keys).map(|key| key.name).collect());

/// Whether there is such a key, in whatever map.
pub(crate) fn is_known(key: &str) -> bool {
    KNOWN.contains(key.to_ascii_lowercase().as_str())
}

/// Whether a secret key may be meant by an unknown one.
pub(crate) fn is_like_a_secret(key: &str) -> bool {
    nearest(key, KNOWN.iter().copied().filter(|known| is_secret(known))).is_some()
}

const SECRET_PARTS: &[&str] = &[
    "secret",
    "password",
    "signing_key",
    "connection_string",
    "basic_auth",
    "authorization",
    "api-key",
    "api_key",
    "mac_key",
    "otlp_headers",
    "traces_headers",
    "client_assertion",
];

const SECRET_KEYS: &[&str] = &[
    "cookie",
    "certificate_key",
    "metrics_certificate_key",
    "tls_client_key",
    "ssh_host_keys",
    "ssh_user_ca_key",
    "google_cloud_serverless_authentication_service_account",
];
