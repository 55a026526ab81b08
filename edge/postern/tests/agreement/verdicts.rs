//! Every compatibility vector of the policy language (`edge/policy/tests/vectors`), as a route of a whole `config.yaml`: asked of
//! the policy that the file holds, and, where a request can say what the vector says, of the running edge.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use postern::config::{self, Code, Environment, Severity};
use postern_identity::{IdpId, Session, SessionId, Timestamp};
use postern_policy::Carrier;
use serde_json::{Value, json};

use crate::configs;
use crate::edge::{Answer, World, load};
use crate::log::{Line, Log};
use crate::vectors::{self, Expected, Shown, Vector};

/// Why a vector is not sent to the running edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// It has no verdict: Pomerium refuses its policy.
    NoVerdict,
    /// Its file is refused, since its criterion would keep nobody out: what that looks at does not exist yet.
    NoFile(Carrier),
    /// An impersonated session stands behind its credential: the store has no such records.
    StandIn,
    /// No request carries what it looks at yet. Without that it comes to something else.
    Carries(Carrier),
    /// The same, but without it comes to the same.
    CarriesInVain(Carrier),
}

/// Every vector that is not sent.
const NOT_SENT: &[(&str, Why)] = &[
    ("impersonation", Why::StandIn),
    ("impersonation-target-gone", Why::StandIn),
    ("mtls-default-deny-missing", Why::Carries(Carrier::ClientCertificates)),
    ("mtls-default-deny-untrusted", Why::Carries(Carrier::ClientCertificates)),
    ("mtls-default-deny-valid", Why::CarriesInVain(Carrier::ClientCertificates)),
    ("mtls-public-route", Why::Carries(Carrier::ClientCertificates)),
    ("mtls-policy-mode-optional", Why::CarriesInVain(Carrier::ClientCertificates)),
    ("mtls-policy-mode-explicit", Why::Carries(Carrier::ClientCertificates)),
    ("allow-not-invalid-cert", Why::Carries(Carrier::ClientCertificates)),
    ("cert-fingerprint-long", Why::Carries(Carrier::ClientCertificates)),
    ("cert-fingerprint-list-short", Why::Carries(Carrier::ClientCertificates)),
    ("cert-spki", Why::Carries(Carrier::ClientCertificates)),
    ("cert-san", Why::Carries(Carrier::ClientCertificates)),
    ("cert-unverified-match", Why::Carries(Carrier::ClientCertificates)),
    ("device-any", Why::Carries(Carrier::Devices)),
    ("device-other-type", Why::CarriesInVain(Carrier::Devices)),
    ("device-is-other", Why::Carries(Carrier::Devices)),
    ("device-not-approved", Why::Carries(Carrier::Devices)),
    ("device-approved", Why::Carries(Carrier::Devices)),
    ("device-approved-false-anonymous", Why::NoFile(Carrier::Devices)),
    ("mcp-tool-deny-hit", Why::NoFile(Carrier::Mcp)),
    ("mcp-tool-deny-miss", Why::NoFile(Carrier::Mcp)),
    ("mcp-tool-other-method", Why::NoFile(Carrier::Mcp)),
    ("mcp-tool-under-allow", Why::Carries(Carrier::Mcp)),
    ("ssh-username", Why::Carries(Carrier::Ssh)),
    ("ssh-username-matches-email", Why::Carries(Carrier::Ssh)),
    ("ssh-username-matches-claim", Why::Carries(Carrier::Ssh)),
    ("ssh-username-matches-claim-login", Why::CarriesInVain(Carrier::Ssh)),
    ("err-unknown-action", Why::NoVerdict),
    ("err-unknown-operator", Why::NoVerdict),
    ("err-two-keys", Why::NoVerdict),
    ("err-nested-operator", Why::NoVerdict),
    ("err-criteria-not-list", Why::NoVerdict),
    ("err-unknown-criterion", Why::NoVerdict),
    ("err-date-core", Why::NoVerdict),
    ("err-unknown-string-operator", Why::NoVerdict),
    ("err-in-needs-list", Why::NoVerdict),
    ("err-list-operator", Why::NoVerdict),
    ("err-fingerprint-format", Why::NoVerdict),
    ("err-spki-format", Why::NoVerdict),
    ("err-cert-key", Why::NoVerdict),
    ("err-source-ip", Why::NoVerdict),
    ("err-device-key", Why::NoVerdict),
];

/// Whether it is sent all the same, without what no request carries.
const fn is_sent_without(why: Why) -> bool {
    matches!(why, Why::Carries(_) | Why::CarriesInVain(_))
}

#[test]
fn every_vector_gives_its_verdict_from_a_whole_file() {
    let expected = [("as Pomerium", 114), ("departed", 7), ("offered", 1), ("refused", 14), ("not yet", 4)];
    assert_eq!(from_files(false), BTreeMap::from(expected));
}

#[test]
fn every_vector_gives_its_verdict_from_a_whole_file_that_fails_open_as_pomerium_does() {
    let expected = [("as Pomerium", 118), ("departed", 3), ("offered", 1), ("refused", 14), ("not yet", 4)];
    assert_eq!(from_files(true), BTreeMap::from(expected));
}

fn from_files(fail_open: bool) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for vector in vectors::all() {
        *counts.entry(from_file(&vector, fail_open)).or_insert(0) += 1;
    }
    counts
}

/// What a file with the vector's route comes to.
fn from_file(vector: &Vector, fail_open: bool) -> &'static str {
    let id = &vector.id;
    let text = file(&[vector], "127.0.0.1:9".parse().unwrap(), fail_open);
    let loaded = config::load_text(Some("config.yaml"), &text, false, &Environment::of::<&str, &str>([]).unwrap());
    let fatal = loaded.problems.iter().filter(|problem| problem.severity == Severity::Fatal);
    let fatal: BTreeSet<_> = fatal.map(|problem| (problem.code, problem.at.key.as_str())).collect();
    let policy = loaded.config.as_ref().map(|config| &config.edge.routes[0].policy);
    let expected = vector.expected(fail_open);
    let (verdict, word) = match expected {
        Expected::Refused => {
            let of_policy =
                |(code, key): &(Code, &str)| *code == Code::BadPolicy && key.starts_with("routes[0].policy");
            assert!(!fatal.is_empty() && fatal.iter().all(of_policy), "{id}: {fatal:?}\n{text}");
            return "refused";
        }
        Expected::Offered => {
            assert!(policy.is_some(), "{id}: {fatal:?}");
            return "offered";
        }
        _ if matches!(why(id), Some(Why::NoFile(_))) => {
            assert!(!fatal.is_empty() && fatal.iter().all(|(code, _)| *code == Code::NotYet), "{id}: {fatal:?}");
            return "not yet";
        }
        Expected::AsPomerium(verdict) => (verdict, "as Pomerium"),
        Expected::Departed(verdict) => (verdict, "departed"),
    };
    let policy = policy.unwrap_or_else(|| panic!("{id}: {fatal:?}\n{text}"));
    assert_eq!(vector.came_to(policy), verdict, "{id}\n{text}");
    word
}

#[test]
fn every_vector_that_a_request_can_say_gives_its_verdict_at_the_running_edge() {
    assert_eq!(at_the_edge(false), 97);
}

#[test]
fn every_vector_that_a_request_can_say_gives_its_verdict_at_an_edge_that_fails_open_as_pomerium_does() {
    assert_eq!(at_the_edge(true), 97);
}

/// Sends every vector that can be loaded; gives how many came to their verdicts.
fn at_the_edge(fail_open: bool) -> usize {
    let all = vectors::all();
    let sent: Vec<_> = all.iter().filter(|vector| why(&vector.id).is_none_or(is_sent_without)).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let log = Log::listen();
    runtime.block_on(async {
        let mut world = World::start(|idp| sent.iter().filter_map(|vector| stored(vector, idp)).collect()).await;
        world.reload(&load(&file(&sent, world.upstream, fail_open)));
        let (mut faults, mut came, mut person) = (Vec::new(), 0, 0..);
        for vector in &sent {
            let verdict = verdict(&mut world, &log, vector, &mut person).await;
            let expected = match vector.expected(fail_open) {
                Expected::AsPomerium(expected) | Expected::Departed(expected) => at_an_edge(expected),
                none @ (Expected::Refused | Expected::Offered) => panic!("{}: {none:?}", vector.id),
            };
            let as_listed = match why(&vector.id) {
                None | Some(Why::CarriesInVain(_)) => verdict == expected,
                Some(_) => verdict != expected,
            };
            came += usize::from(why(&vector.id).is_none());
            if !as_listed {
                faults.push(format!("{} ({:?}): {verdict}, expected {expected}", vector.id, why(&vector.id)));
            }
        }
        assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), sent.len(), faults.join("\n"));
        came
    })
}

#[test]
fn every_vector_is_sent_or_listed_with_what_no_request_can_say_of_it() {
    let all = vectors::all();
    let listed: BTreeSet<_> = NOT_SENT.iter().map(|(id, _)| *id).collect();
    assert_eq!(listed.len(), NOT_SENT.len(), "an id is listed twice");
    let gone: Vec<_> = listed.iter().filter(|id| !all.iter().any(|vector| vector.id == **id)).collect();
    assert!(gone.is_empty(), "no such vectors: {gone:?}");
    let wrong: Vec<_> = all.iter().filter(|vector| !fits(vector)).map(|vector| (&vector.id, why(&vector.id))).collect();
    assert!(wrong.is_empty(), "what their inputs hold is something else: {wrong:#?}");
    let sent = all.iter().filter(|vector| why(&vector.id).is_none()).count();
    assert_eq!((sent, sent + listed.len()), (97, 140));
}

/// Whether the list tells of the vector what its input holds.
fn fits(vector: &Vector) -> bool {
    let has_verdict = !matches!(vector.expected(false), Expected::Refused | Expected::Offered);
    match why(&vector.id) {
        None => has_verdict && carried(vector).is_none() && !stands_in(vector),
        Some(Why::NoVerdict) => !has_verdict,
        Some(Why::StandIn) => has_verdict && stands_in(vector),
        Some(Why::NoFile(_)) => has_verdict,
        Some(Why::Carries(carrier) | Why::CarriesInVain(carrier)) => has_verdict && carried(vector) == Some(carrier),
    }
}

/// What the vector has that no request brings.
fn carried(vector: &Vector) -> Option<Carrier> {
    let certificate = &vector.input["client_certificate"];
    if certificate["presented"] == true || certificate["valid"] == false {
        Some(Carrier::ClientCertificates)
    } else if !vector.devices().is_empty() {
        Some(Carrier::Devices)
    } else if !vector.input["mcp"].is_null() {
        Some(Carrier::Mcp)
    } else if !vector.input["ssh"].is_null() {
        Some(Carrier::Ssh)
    } else {
        None
    }
}

/// Whether the record of another stands behind the credential.
fn stands_in(vector: &Vector) -> bool {
    matches!(vector.shown(), Shown::StandIn(_))
}

fn why(id: &str) -> Option<Why> {
    NOT_SENT.iter().find(|(listed, _)| *listed == id).map(|(_, why)| *why)
}

/// A whole file with the routes of these vectors, in the style in which people write them.
fn file(vectors: &[&Vector], upstream: std::net::SocketAddr, fail_open: bool) -> String {
    let route = |vector: &&Vector| {
        let mut route = json!({"from": format!("https://{}", host(vector)), "to": "http://UPSTREAM"});
        let keys = vector.route.as_object().into_iter().flatten();
        let keys = keys.map(|(key, value)| (key.clone(), value.clone()));
        let policy = (!vector.rules.is_empty()).then(|| ("policy".to_owned(), Value::from(vector.rules.clone())));
        route.as_object_mut().unwrap().extend(keys.chain(policy));
        format!("  -{}\n", block(&route, 2))
    };
    let flag = if fail_open { "runtime_flags:\n  pomerium_fail_open_identity: true\n" } else { "" };
    let trusts_one_hop = 1;
    format!("{flag}{}", configs::text(&vectors.iter().map(route).collect::<Vec<_>>(), upstream, trusts_one_hop))
}

/// A value in block style; what is empty, and what is no collection, is the same in JSON.
fn block(value: &Value, depth: usize) -> String {
    let line = |mark: String, value: &Value| format!("\n{}{mark}{}", "  ".repeat(depth), block(value, depth + 1));
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            entries.iter().map(|(key, value)| line(format!("{key}:"), value)).collect()
        }
        Value::Array(items) if !items.is_empty() => items.iter().map(|item| line("-".to_owned(), item)).collect(),
        Value::Object(_) | Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            format!(" {value}")
        }
    }
}

fn host(vector: &Vector) -> String {
    format!("{}.vectors.example.com", vector.id)
}

/// The session that the store holds for a vector, an hour old.
fn stored(vector: &Vector, idp: &IdpId) -> Option<Session> {
    let (session, idp) = match vector.shown() {
        Shown::Session(session) => (session, idp.clone()),
        Shown::ServiceAccount(account) => (account, IdpId::service_account()),
        Shown::Nothing | Shown::Gone | Shown::StandIn(_) => return None,
    };
    let (now, hour) = (Timestamp::from(SystemTime::now()), Duration::from_secs(3600));
    let expires_at = if session.expires_at > vectors::NOW { now.plus(hour) } else { now.minus(hour / 2) };
    Some(Session { idp, issued_at: now.minus(hour), expires_at, ..session })
}

/// What the edge makes of the vector's request: of its answer, and of its authorize record.
async fn verdict(world: &mut World, log: &Log, vector: &Vector, person: &mut std::ops::RangeFrom<usize>) -> Value {
    let (http, host) = (&vector.input["http"], host(vector));
    let field = |name: &str, or: &'static str| http[name].as_str().unwrap_or(or).to_owned();
    let (method, path) = (field("method", "GET"), field("path", "/"));
    let query = http["raw_query"].as_str().map(|query| format!("?{query}")).unwrap_or_default();
    let credential = match vector.shown() {
        Shown::Nothing | Shown::StandIn(_) => None,
        Shown::Gone => Some(("cookie", world.cookie(&SessionId::from_bytes([0xff; 32]), &host))),
        Shown::Session(_) => person.next().map(|number| ("cookie", world.person(number, &host).1)),
        Shown::ServiceAccount(_) => person.next().map(|number| ("authorization", world.service_account(number))),
    };
    let own =
        http["headers"].as_object().into_iter().flatten().map(|(name, value)| (name.clone(), vectors::text(value)));
    let browser = [("accept", "text/html".to_owned()), ("x-forwarded-for", field("ip", "203.0.113.9"))];
    let fields = browser.map(|(name, value)| (name.to_owned(), value)).into_iter();
    let fields = fields.chain(own).chain(credential.map(|(name, value)| (name.to_owned(), value)));
    let fields: String = fields.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let answer = world.send(&method, &format!("{method} {path}{query} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")).await;
    let (_, authorize) = log.next(true);
    let authorize = authorize.expect("the authorize record");
    json!({"allow": half(&authorize, "allow"), "deny": half(&authorize, "deny"), "outcome": outcome(&method, &answer)})
}

/// `allow` or `deny` of an authorize record.
fn half(authorize: &Line, half: &str) -> Value {
    let value = authorize[half] == "true";
    let mut reasons: Vec<String> = serde_json::from_str(&authorize[&format!("{half}-why-{value}")]).unwrap();
    reasons.sort_unstable();
    json!({"value": value, "reasons": reasons})
}

/// Where the edge sends who has to sign in.
const SIGN_IN: &str = "https://auth.example.com/.pomerium/sign_in?";

/// The vectors' word for an answer.
fn outcome(method: &str, answer: &Answer) -> &'static str {
    let is_upstreams = answer.body.starts_with(&format!("{method} /"));
    let leads_to = |place| answer.field("location").is_some_and(|location| location.starts_with(place));
    match answer.status {
        200 if is_upstreams => "allow",
        // What followed with the same method would carry it elsewhere (S-087).
        302 | 303 if (answer.status == 302) == (method == "GET") && leads_to(SIGN_IN) => "login",
        403 => "forbidden",
        450 => "device_unauthorized",
        495 => "client_certificate",
        status => panic!("{status}: {}", answer.body),
    }
}

/// The verdict that an edge gives, which cannot enrol devices yet.
fn at_an_edge(mut verdict: Value) -> Value {
    if verdict["outcome"] == "webauthn" {
        verdict["outcome"] = "device_unauthorized".into();
    }
    verdict
}
