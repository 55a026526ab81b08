//! `ppl-vectors.yaml`: policy and input => verdict, as Pomerium gives it, or as the safer rule closes it.
//!
//! Two test binaries share this: that of the evaluator, and that of the running edge (`edge/postern/tests/agreement`).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use base64::Engine as _;
use postern_identity::{Claims, CompactSession, IdpId, Session, SessionHandle, Timestamp, User};
use postern_policy::document::read;
use postern_policy::{
    Certificate, ClientCertificate, Decision, Device, Enrolment, Evaluation, Facts, Mcp, Policy, Reason, RuleResult,
    Ssh,
};
use serde_json::{Value, json};

const VECTORS: &str = include_str!("ppl-vectors.yaml");

/// Where Postern departs from the vectors on purpose, unless it is told to fail open as Pomerium does (01 §8.1): an identity
/// criterion without a session is false, whatever its operator.
const CLOSED: [&str; 5] = [
    "email-not-operator-anonymous",
    "email-not-in-anonymous",
    "claim-exclude-anonymous",
    "email-empty-matcher-anonymous",
    "device-approved-false-anonymous",
];

/// Where it always does: id, reason with which everybody of the vector is allowed.
const WIDER: [(&str, &str); 3] = [
    // Without a directory the `groups` claim names the groups.
    ("groups-not-from-claims", "groups-ok"),
    ("groups-exclude-no-directory", "groups-ok"),
    // The lower-cased name is tried as well, as files for Pomerium rely on it.
    ("claim-key-case", "claim-ok"),
];

/// What Pomerium Core refuses, and Postern offers.
const OFFERED: [&str; 1] = ["err-date-core"];

/// When the requests of the vectors come.
pub(crate) const NOW: Timestamp = Timestamp::from_secs(0);

/// One vector.
pub(crate) struct Vector {
    pub(crate) id: String,
    /// The access keys of the route.
    pub(crate) route: Value,
    /// Its rules, the one on client certificates among them if there is one.
    pub(crate) rules: Vec<Value>,
    /// The request, and who sends it.
    pub(crate) input: Value,
    vector: Value,
    document: Rc<Value>,
}

/// What must become of a vector.
#[derive(Debug, PartialEq)]
pub(crate) enum Expected {
    /// Its policy is refused.
    Refused,
    /// Its policy is taken, though Pomerium Core refuses it, and says nothing of what it would come to.
    Offered,
    /// This verdict, which is Pomerium's.
    AsPomerium(Value),
    /// This verdict, which is Postern's own.
    Departed(Value),
}

/// What stands behind the id that a request shows.
pub(crate) enum Shown {
    /// It shows none.
    Nothing,
    /// Nothing.
    Gone,
    /// A session, which may be over.
    Session(Session),
    /// A service account.
    ServiceAccount(Session),
    /// The session that another one impersonates, if it is there.
    StandIn(Option<Session>),
}

/// All of them.
pub(crate) fn all() -> Vec<Vector> {
    let document = Rc::new(read(VECTORS).expect("the vectors are YAML").to_json());
    let vectors = document["vectors"].as_array().expect("a list of vectors").iter();
    vectors.map(|vector| Vector::read(vector, &document)).collect()
}

impl Vector {
    fn read(vector: &Value, document: &Rc<Value>) -> Self {
        let policy = &vector["policy"];
        let one = || policy.is_object().then(|| vec![policy.clone()]);
        let mut rules = policy.as_array().cloned().or_else(one).unwrap_or_default();
        if vector["default_client_certificate_rule"] == true {
            rules.push(json!({"deny": {"or": [{"invalid_client_certificate": true}]}}));
        }
        Self {
            id: text(&vector["id"]),
            route: vector["route"].clone(),
            rules,
            input: vector["input"].clone(),
            vector: vector.clone(),
            document: Rc::clone(document),
        }
    }

    /// What must become of it.
    pub(crate) fn expected(&self, fail_open: bool) -> Expected {
        let id = self.id.as_str();
        if self.vector.get("expect_error").is_some() {
            return if OFFERED.contains(&id) { Expected::Offered } else { Expected::Refused };
        }
        let closed = CLOSED.contains(&id);
        assert_eq!(self.vector["hazard"] == true, closed, "{id}");
        let verdict = |value, reason: &str, outcome: &str| {
            let allow = json!({"value": value, "reasons": [reason]});
            json!({"allow": allow, "deny": {"value": false, "reasons": []}, "outcome": outcome})
        };
        match WIDER.iter().find(|(name, _)| *name == id) {
            Some((_, reason)) => Expected::Departed(verdict(true, reason, "allow")),
            None if closed && !fail_open => Expected::Departed(verdict(false, "user-unauthenticated", "login")),
            None => Expected::AsPomerium(self.vector["expect"].clone()),
        }
    }

    /// What the policy makes of the input; a trace of it must agree.
    pub(crate) fn came_to(&self, policy: &Policy) -> Value {
        let (input, fixtures) = (&self.input, &self.document["fixtures"]);
        let session = match self.shown() {
            Shown::Session(session) | Shown::ServiceAccount(session) | Shown::StandIn(Some(session)) => Some(session),
            Shown::Nothing | Shown::Gone | Shown::StandIn(None) => None,
        };
        let session = session.filter(|session| session.expires_at > NOW);
        // With the words that another has said too; `by itself` below without.
        let words = Arc::default();
        let mut other = session.clone();
        other.iter_mut().for_each(|other| other.user.id.push_str("-other"));
        let [_, compact] = [&other, &session]
            .map(|session| session.as_ref().map(|session| CompactSession::with_words(session, &words)));
        let http = &input["http"];
        let field = |name: &str, or: &'static str| http[name].as_str().unwrap_or(or).to_owned();
        let (method, path, ip) = (field("method", "GET"), field("path", "/"), field("ip", "203.0.113.9"));
        let has = |header: &str| http["headers"][header].as_str().is_some_and(|value| !value.is_empty());
        let leaf = certificate(&self.document["certificate"]);
        let devices: Vec<_> = self.devices().iter().map(|device| device_of(fixtures, device)).collect();
        let facts = Facts {
            person: compact.as_ref().map(Into::into),
            cors_preflight: method == "OPTIONS" && has("Origin") && has("Access-Control-Request-Method"),
            client_certificate: ClientCertificate {
                leaf: (input["client_certificate"]["leaf"] == true).then_some(&leaf),
                valid: input["client_certificate"]["valid"] != false,
            },
            devices: &devices,
            mcp: match (input["mcp"]["method"].as_str(), input["mcp"]["tool"].as_str()) {
                (Some("tools/call"), Some(tool)) => Mcp::ToolCall(tool),
                (Some(method), _) => Mcp::Method(method),
                (None, _) => Mcp::None,
            },
            ssh: Ssh { username: input["ssh"]["username"].as_str().unwrap_or_default(), ..Ssh::NONE },
            ..Facts::anonymous(&method, &path, ip.parse::<IpAddr>().expect("an address"), NOW)
        };
        let Evaluation { allow, deny } = policy.evaluate(&facts);
        let decision = policy.decide(&facts);
        assert_eq!(policy.trace(&facts).decision, decision);
        let by_itself = session.as_ref().map(CompactSession::from);
        let facts = Facts { person: by_itself.as_ref().map(Into::into), ..facts };
        assert_eq!(policy.evaluate(&facts), Evaluation { allow, deny }, "{}", self.id);
        json!({"allow": result(allow), "deny": result(deny), "outcome": outcome(decision, &facts)})
    }

    /// The id that the request shows; empty if it shows none.
    fn credential(&self) -> &str {
        self.input["session"].as_str().unwrap_or_default()
    }

    /// What stands behind that id: service accounts are tried first, and impersonation is followed.
    pub(crate) fn shown(&self) -> Shown {
        let (id, fixtures) = (self.credential(), &self.document["fixtures"]);
        let (account, session) = (&fixtures["service_accounts"][id], &fixtures["sessions"][id]);
        match session["impersonate_session_id"].as_str() {
            _ if id.is_empty() => Shown::Nothing,
            _ if account.is_object() => Shown::ServiceAccount(service_account(session_of(fixtures, account))),
            Some(other) => Shown::StandIn(fixtures["sessions"].get(other).map(|other| session_of(fixtures, other))),
            None if session.is_null() => Shown::Gone,
            None => Shown::Session(session_of(fixtures, session)),
        }
    }

    /// The device credentials of the session.
    pub(crate) fn devices(&self) -> &[Value] {
        let devices = self.document["fixtures"]["sessions"][self.credential()]["devices"].as_array();
        devices.map_or(&[], Vec::as_slice)
    }
}

/// The certificate of the vectors, as the edge would read it.
fn certificate(certificate: &Value) -> Certificate {
    let names = |kind: &str| certificate["san"][kind].as_array().expect("names").iter().map(text).collect();
    let fingerprint = text(&certificate["fingerprint"]);
    let byte = |index: usize| {
        u8::from_str_radix(fingerprint.get(2 * index..2 * index + 2).expect("two digits"), 16).expect("hex")
    };
    let spki = base64::engine::general_purpose::STANDARD.decode(text(&certificate["spki_hash"])).expect("base64");
    Certificate {
        fingerprint: std::array::from_fn(byte),
        spki_hash: spki.try_into().expect("32 bytes"),
        dns: names("dns"),
        emails: names("email"),
        uris: names("uri"),
    }
}

fn device_of<'a>(fixtures: &'a Value, device: &'a Value) -> Device<'a> {
    let id = device["credential"].as_str().expect("an id");
    let credential = &fixtures["device_credentials"][id];
    let enrolment = credential["enrollment_id"].as_str().and_then(|id| fixtures["device_enrollments"].get(id));
    Device {
        kind: device["type"].as_str().expect("a type"),
        id,
        enrolment: match (credential.is_null(), enrolment) {
            (true, _) => Enrolment::NoCredential,
            (false, None) => Enrolment::None,
            (false, Some(enrolment)) if enrolment["approved_by"].is_string() => Enrolment::Approved,
            (false, Some(_)) => Enrolment::Unapproved,
        },
    }
}

fn result(result: RuleResult) -> Value {
    let reasons: BTreeSet<_> = result.reasons.iter().map(Reason::as_str).collect();
    json!({"value": result.value, "reasons": reasons})
}

/// A refusal of an MCP request is written in its own protocol (01 §4.2).
fn outcome(decision: Decision, facts: &Facts<'_>) -> &'static str {
    match decision {
        Decision::Deny(_) if facts.mcp != Mcp::None => "mcp_denied",
        Decision::Allow => "allow",
        Decision::SignIn => "login",
        Decision::EnrolDevice => "webauthn",
        Decision::ClientCertificate(_) => "client_certificate",
        Decision::DeviceUnauthorized(_) => "device_unauthorized",
        Decision::Deny(_) => "forbidden",
    }
}

/// A directory does not exist yet: its e-mail and groups are what a provider would have said at sign-in.
fn session_of(fixtures: &Value, record: &Value) -> Session {
    let id = record["user_id"].as_str().unwrap_or_default();
    let (user, directory) = (&fixtures["users"][id], &fixtures["directory_users"][id]);
    let mut user_claims = claims(&user["claims"]);
    if let Some(groups) = directory["group_ids"].as_array() {
        user_claims.set("groups", groups.clone());
    }
    let email = directory["email"].as_str().or_else(|| user["email"].as_str()).map(ToOwned::to_owned);
    Session {
        handle: SessionHandle::from_bytes([0; 32]),
        user: User { id: id.to_owned(), email, claims: user_claims, ..User::default() },
        claims: claims(&record["claims"]),
        idp: IdpId::new("vectors"),
        issued_at: Timestamp::from_secs(-1),
        expires_at: if record["expired"] == true { NOW } else { Timestamp::from_secs(1) },
        idle: None,
        generation: 0,
    }
}

fn service_account(session: Session) -> Session {
    Session { idp: IdpId::service_account(), ..session }
}

fn claims(flat: &Value) -> Claims {
    let mut claims = Claims::default();
    for (name, values) in flat.as_object().into_iter().flatten() {
        claims.set(name, values.as_array().expect("a list of values").clone());
    }
    claims
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}
