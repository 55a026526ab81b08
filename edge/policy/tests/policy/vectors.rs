//! `tests/ppl-vectors.yaml`: policy and input => verdict, as Pomerium gives it, or as the safer rule closes it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use base64::Engine as _;
use postern_identity::{Claims, IdpId, Session, SessionHandle, Timestamp, User};
use postern_policy::document::read;
use postern_policy::{
    Certificate, ClientCertificate, Decision, Device, Enrolment, Evaluation, Facts, Legacy, Mcp, Policy, Reason,
    RuleResult, Ssh, ppl,
};
use serde_json::{Value, json};

const VECTORS: &str = include_str!("../ppl-vectors.yaml");

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

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ran {
    AsPomerium,
    Departed,
    Offered,
    Refused,
}

#[test]
fn every_vector_gives_its_verdict() {
    let expected = [(Ran::AsPomerium, 117), (Ran::Departed, 8), (Ran::Offered, 1), (Ran::Refused, 14)];
    assert_eq!(run_all(false), BTreeMap::from(expected));
}

#[test]
fn every_vector_gives_its_verdict_where_postern_fails_open_as_pomerium_does() {
    let expected = [(Ran::AsPomerium, 122), (Ran::Departed, 3), (Ran::Offered, 1), (Ran::Refused, 14)];
    assert_eq!(run_all(true), BTreeMap::from(expected));
}

fn run_all(fail_open: bool) -> BTreeMap<Ran, usize> {
    let document = read(VECTORS).expect("the vectors are YAML").to_json();
    let mut counts = BTreeMap::new();
    for vector in document["vectors"].as_array().expect("a list of vectors") {
        *counts.entry(run(&document, vector, fail_open)).or_insert(0) += 1;
    }
    counts
}

fn run(document: &Value, vector: &Value, fail_open: bool) -> Ran {
    let id = text(&vector["id"]);
    // Through text, as a file has it.
    let mut written: Vec<_> = match vector.get("policy") {
        None => Vec::new(),
        Some(Value::Array(rules)) => rules.iter().map(ToString::to_string).collect(),
        Some(rule) => vec![rule.to_string()],
    };
    if vector["default_client_certificate_rule"] == true {
        written.push(json!({"deny": {"or": [{"invalid_client_certificate": true}]}}).to_string());
    }
    let written = written.iter().map(|rule| format!("- {rule}\n")).collect::<String>();
    let parsed = ppl::Language::new(fail_open).read(&read(&written).expect("YAML"));
    if vector.get("expect_error").is_some() {
        let offered = OFFERED.contains(&id.as_str());
        assert_eq!(parsed.is_err(), !offered, "{id}");
        return if offered { Ran::Offered } else { Ran::Refused };
    }
    let policy =
        Policy::new(legacy(&vector["route"]).rules(), parsed.unwrap_or_else(|mistakes| panic!("{id}: {mistakes:?}")));
    let closed = CLOSED.contains(&id.as_str());
    assert_eq!(vector["hazard"] == true, closed, "{id}");
    let verdict = |value, reason: &str, outcome: &str| {
        let allow = json!({"value": value, "reasons": [reason]});
        json!({"allow": allow, "deny": {"value": false, "reasons": []}, "outcome": outcome})
    };
    let departure = match WIDER.iter().find(|(name, _)| *name == id) {
        Some((_, reason)) => Some(verdict(true, reason, "allow")),
        None => (closed && !fail_open).then(|| verdict(false, "user-unauthenticated", "login")),
    };
    let departed = departure.is_some();
    let expected = departure.unwrap_or_else(|| vector["expect"].clone());
    assert_eq!(came_to(&policy, document, &vector["input"]), expected, "{id}: {}", vector["about"]);
    if departed { Ran::Departed } else { Ran::AsPomerium }
}

/// What the policy makes of the input; a trace of it must agree.
fn came_to(policy: &Policy, document: &Value, input: &Value) -> Value {
    let fixtures = &document["fixtures"];
    let id = input["session"].as_str().unwrap_or_default();
    let session = session(fixtures, id);
    let http = &input["http"];
    let field = |name: &str, or: &'static str| http[name].as_str().unwrap_or(or).to_owned();
    let (method, path, ip) = (field("method", "GET"), field("path", "/"), field("ip", "203.0.113.9"));
    let has = |header: &str| http["headers"][header].as_str().is_some_and(|value| !value.is_empty());
    let leaf = certificate(&document["certificate"]);
    let devices: Vec<_> = fixtures["sessions"][id]["devices"].as_array().into_iter().flatten().collect();
    let devices: Vec<_> = devices.into_iter().map(|device| device_of(fixtures, device)).collect();
    let facts = Facts {
        session: session.as_ref(),
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
        ..Facts::anonymous(&method, &path, ip.parse::<IpAddr>().expect("an address"), Timestamp::from_secs(0))
    };
    let Evaluation { allow, deny } = policy.evaluate(&facts);
    let decision = policy.decide(&facts);
    assert_eq!(policy.trace(&facts).decision, decision);
    json!({"allow": result(allow), "deny": result(deny), "outcome": outcome(decision, &facts)})
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

/// The session that the store would give for that id: service accounts first, impersonation followed, expired ones gone.
fn session(fixtures: &Value, id: &str) -> Option<Session> {
    if let Some(account) = fixtures["service_accounts"].get(id) {
        return Some(session_of(fixtures, account));
    }
    let record = fixtures["sessions"].get(id).filter(|record| record["expired"] != true)?;
    match record["impersonate_session_id"].as_str() {
        Some(other) => session(fixtures, other),
        None => Some(session_of(fixtures, record)),
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
        issued_at: Timestamp::from_secs(0),
        expires_at: Timestamp::from_secs(1),
        idle: None,
        generation: 0,
    }
}

fn claims(flat: &Value) -> Claims {
    let mut claims = Claims::default();
    for (name, values) in flat.as_object().into_iter().flatten() {
        claims.set(name, values.as_array().expect("a list of values").clone());
    }
    claims
}

fn legacy(route: &Value) -> Legacy {
    let flag = |key: &str| route[key] == true;
    let texts = |key: &str| route[key].as_array().into_iter().flatten().map(text).collect();
    let claims = route["allowed_idp_claims"].as_object().into_iter().flatten();
    Legacy {
        allow_public_unauthenticated_access: flag("allow_public_unauthenticated_access"),
        cors_allow_preflight: flag("cors_allow_preflight"),
        allow_any_authenticated_user: flag("allow_any_authenticated_user"),
        allowed_domains: texts("allowed_domains"),
        allowed_users: texts("allowed_users"),
        allowed_idp_claims: claims
            .map(|(name, values)| (name.clone(), values.as_array().expect("a list of values").clone()))
            .collect(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}
