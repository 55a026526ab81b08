//! `diff` finds what brute force finds: whatever comes out differently of two random configurations, for any of many people and
//! requests that it knows nothing of, is among the changes that it tells.

use std::collections::HashSet;

use http::Method;
use postern::config::Config;
use postern::diff::{Asking, Comparison};
use postern::probe::{Address, Outcome, Person, Probe, Question, Who};
use postern_edge::Verdict;
use postern_identity::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, TestCaseError, TestError, TestRunner};
use serde_json::{Value, json};

use crate::configs::{self, Generated};
use crate::edge::load;

/// Pairs of configurations.
const PAIRS: u32 = 12;
const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

#[test]
fn whatever_asking_one_by_one_finds_diff_finds() {
    let upstream = "127.0.0.1:9".parse().unwrap();
    let (found, whole) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let runs = Runs { cases: PAIRS, max_shrink_iters: 100, failure_persistence: None, ..Runs::default() };
    let any = prop_oneof![3 => configs::pair(), 1 => (configs::generated(), configs::generated())];
    let outcome = TestRunner::new(runs).run(&any, |(old, new): (Generated, Generated)| {
        let texts = [old, new].map(|config| config.text(upstream));
        let changes = agree(&texts.each_ref().map(|text| load(text)))
            .map_err(|error| TestCaseError::fail(format!("{error}\n{}\n{}", texts[0], texts[1])))?;
        found.set(found.get() + changes.unwrap_or(0));
        whole.set(whole.get() + u32::from(changes.is_some()));
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, _) | TestError::Abort(reason)) => panic!("{reason}"),
    }
    println!("{} changes in {} of {PAIRS} pairs, which were compared as a whole", found.get(), whole.get());
    assert!(whole.get() > PAIRS / 2, "only {} pairs were compared as a whole", whole.get());
    assert!(found.get() > 100, "only {} changes were there to be found", found.get());
}

/// How many changes there were, all of which `diff` tells; none, if it says that it has left something out.
fn agree(configs: &[Config; 2]) -> Result<Option<usize>, TestCaseError> {
    let [old, new] = configs;
    let asking = Asking { now: Some(NOW), ..Asking::default() };
    let told = Comparison::of((old, None), (new, None), asking).unwrap().to_json();
    if told["compared"]["left_out"] != json!([]) {
        // It says that it knows less than all.
        return Ok(None);
    }
    let kinds: HashSet<String> =
        told["access"].as_array().unwrap().iter().map(|change| kind(&change["before"], &change["after"])).collect();
    let probes = configs.each_ref().map(|config| Probe::new(config).unwrap());
    let mut changes = 0;
    for question in questions() {
        let [before, after] = [0, 1].map(|side| position(&probes[side], &question));
        if said(&before) != said(&after) {
            changes += 1;
            let kind = kind(&before, &after);
            prop_assert!(kinds.contains(&kind), "{} is not told of: {:?}\n{:#?}", kind, question, kinds);
        }
    }
    Ok(Some(changes))
}

/// What is the same for changes of which one is enough.
fn kind(before: &Value, after: &Value) -> String {
    let words = |position: &Value| {
        let route = &position["route"];
        format!("{} by {}", said(position), route["name"])
    };
    format!("{} -> {}", words(before), words(after))
}

fn said(position: &Value) -> String {
    format!("{} {} {}", position["outcome"], position["status"], position["reason"])
}

fn position(probe: &Probe, question: &Question) -> Value {
    let finding = probe.ask(question).unwrap();
    let verdict = finding.admission.verdict();
    let status = match verdict {
        Verdict::Pass(_) => None,
        Verdict::Refuse(refusal) => Some(refusal.status().as_u16()),
        Verdict::Reply(_) => finding.answer().map(|answer| answer.status().as_u16()),
    };
    let route = finding.admission.route.as_ref().map(|route| json!({ "name": route.name }));
    json!({
        "outcome": Outcome::of(verdict).as_str(),
        "status": status,
        "reason": verdict.details(),
        "route": route,
    })
}

fn questions() -> Vec<Question> {
    let mut questions = Vec::new();
    for authority in ["a.example.com", "b.example.com:8443", "x.example.com", "x.c.example.com", "192.0.2.1"] {
        for path in ["/", "/app", "/app/", "/app/xre", "/application", "/api/v1", "/re/12", "/x/y", "/other"] {
            let address = Address::parse(&format!("https://{authority}{path}")).unwrap();
            for (method, source) in
                [("GET", "127.0.0.1"), ("POST", "10.1.2.3"), ("DELETE", "127.0.0.1"), ("GET", "203.0.113.7")]
            {
                questions.extend(people().into_iter().map(|who| Question {
                    method: Method::from_bytes(method.as_bytes()).unwrap(),
                    source: source.parse().unwrap(),
                    ..Question::get(address.clone(), who, NOW)
                }));
            }
        }
    }
    questions
}

fn people() -> Vec<Who> {
    let person = |user: &str, email: &str, groups: &[&str], claims: Value| {
        let groups = groups.iter().map(ToString::to_string).collect();
        let Value::Object(claims) = claims else { panic!("claims are a map") };
        let of = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Who::Person(Person { user: of(user), email: of(email), groups, claims })
    };
    vec![
        Who::Nobody,
        person("u-0", "alice@example.com", &["ops", "staff"], json!({"department": "it", "level": 3})),
        person("u-1", "bob@example.com", &["staff"], json!({"department": ["hr", "legal"]})),
        person("u-2", "carol@other.test", &["ops"], json!({"active": true})),
        person("u-3", "dave@example.com", &["admins"], json!({"email_verified": false})),
        person("u-4", "bobby@elsewhere.test", &["admins", "ops"], json!({"level": "3", "active": false})),
        person("u-5", "", &[], json!({"department": "hr", "level": 3, "active": true})),
    ]
}
