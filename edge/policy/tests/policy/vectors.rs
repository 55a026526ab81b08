//! `tests/ppl-vectors.yaml`: policy and input => verdict, as Pomerium gives it, or as the safer rule closes it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use postern_identity::{Claims, IdpId, Session, SessionHandle, Timestamp, User};
use postern_policy::document::{Node, read};
use postern_policy::{Decision, Evaluation, Facts, Legacy, Policy, Reason, RuleResult, ppl};
use serde_json::{Value, json};

const VECTORS: &str = include_str!("../ppl-vectors.yaml");

/// Where Postern departs from the vectors on purpose: id, value of allow, its reason, outcome.
const DEPARTURES: [(&str, bool, &str, &str); 7] = [
    // Closed: an identity criterion without a session is false, whatever its operator.
    ("email-not-operator-anonymous", false, "user-unauthenticated", "login"),
    ("email-not-in-anonymous", false, "user-unauthenticated", "login"),
    ("claim-exclude-anonymous", false, "user-unauthenticated", "login"),
    ("email-empty-matcher-anonymous", false, "user-unauthenticated", "login"),
    // Without a directory the `groups` claim names the groups.
    ("groups-not-from-claims", true, "groups-ok", "allow"),
    ("groups-exclude-no-directory", true, "groups-ok", "allow"),
    // The lower-cased name is tried as well, as files for Pomerium rely on it.
    ("claim-key-case", true, "claim-ok", "allow"),
];

/// Criteria that Postern does not have yet; the vectors that use them must be refused in these words.
const NOT_YET: &str = "is not supported yet";

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ran {
    AsPomerium,
    Departed,
    NotYet,
    Refused,
}

#[test]
fn every_vector_gives_its_verdict_or_is_refused_as_not_supported_yet() {
    let document = read(VECTORS).expect("the vectors are YAML").to_json();
    let mut counts = BTreeMap::new();
    let mut departed = BTreeSet::new();
    for vector in document["vectors"].as_array().expect("a list of vectors") {
        let ran = run(&document["fixtures"], vector);
        if ran == Ran::Departed {
            departed.insert(text(&vector["id"]));
        }
        *counts.entry(ran).or_insert(0) += 1;
    }
    println!("vectors: {counts:?}");
    assert_eq!(departed, DEPARTURES.iter().map(|(id, ..)| (*id).to_owned()).collect());
    let expected = [(Ran::AsPomerium, 87), (Ran::Departed, 7), (Ran::NotYet, 31), (Ran::Refused, 15)];
    assert_eq!(counts, BTreeMap::from(expected), "no vector is left out silently");
}

fn run(fixtures: &Value, vector: &Value) -> Ran {
    let id = text(&vector["id"]);
    let mut rules = match vector.get("policy") {
        None => Vec::new(),
        Some(Value::Array(rules)) => rules.clone(),
        Some(rule) => vec![rule.clone()],
    };
    if vector["default_client_certificate_rule"] == true {
        rules.push(json!({"deny": {"or": [{"invalid_client_certificate": true}]}}));
    }
    let parsed = ppl::parse(&Node::from_json(Value::Array(rules)));
    if vector.get("expect_error").is_some() {
        assert!(parsed.is_err(), "{id}: must be refused");
        return Ran::Refused;
    }
    let rules = match parsed {
        Ok(rules) => rules,
        Err(mistakes) => {
            assert!(mistakes.iter().all(|mistake| mistake.message.ends_with(NOT_YET)), "{id}: {mistakes:?}");
            return Ran::NotYet;
        }
    };
    let policy = Policy::new(legacy(&vector["route"]).rules(), rules);
    let departure = DEPARTURES.iter().find(|(name, ..)| *name == id);
    assert!(vector["hazard"] != true || departure.is_some(), "{id}: this hazard is open");
    let expected = match departure {
        Some((_, value, reason, outcome)) => {
            json!({"allow": {"value": value, "reasons": [reason]}, "deny": {"value": false, "reasons": []}, "outcome": outcome})
        }
        None => vector["expect"].clone(),
    };
    assert_eq!(verdict(&policy, fixtures, &vector["input"]), expected, "{id}: {}", vector["about"]);
    if departure.is_some() { Ran::Departed } else { Ran::AsPomerium }
}

fn verdict(policy: &Policy, fixtures: &Value, input: &Value) -> Value {
    let session = session(fixtures, input["session"].as_str().unwrap_or_default());
    let http = &input["http"];
    let field = |name: &str, or: &'static str| http[name].as_str().unwrap_or(or).to_owned();
    let (method, path, ip) = (field("method", "GET"), field("path", "/"), field("ip", "203.0.113.9"));
    let has = |header: &str| http["headers"][header].as_str().is_some_and(|value| !value.is_empty());
    let facts = Facts {
        session: session.as_ref(),
        cors_preflight: method == "OPTIONS" && has("Origin") && has("Access-Control-Request-Method"),
        ..Facts::anonymous(&method, &path, ip.parse::<IpAddr>().expect("an address"), Timestamp::from_secs(0))
    };
    let Evaluation { allow, deny } = policy.evaluate(&facts);
    json!({"allow": result(allow), "deny": result(deny), "outcome": outcome(policy.decide(&facts))})
}

fn result(result: RuleResult) -> Value {
    let reasons: BTreeSet<_> = result.reasons.iter().map(Reason::as_str).collect();
    json!({"value": result.value, "reasons": reasons})
}

fn outcome(decision: Decision) -> &'static str {
    match decision {
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
