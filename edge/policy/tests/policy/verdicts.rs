//! Every compatibility vector, before the evaluator.

use std::collections::BTreeMap;

use postern_policy::document::read;
use postern_policy::{Legacy, Policy, ppl};
use serde_json::Value;

use crate::vectors::{self, Expected, Vector, text};

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
    let mut counts = BTreeMap::new();
    for vector in vectors::all() {
        *counts.entry(run(&vector, fail_open)).or_insert(0) += 1;
    }
    counts
}

fn run(vector: &Vector, fail_open: bool) -> Ran {
    let id = &vector.id;
    // Through text, as a file has it.
    let written = vector.rules.iter().map(|rule| format!("- {rule}\n")).collect::<String>();
    let parsed = ppl::Language::new(fail_open).read(&read(&written).expect("YAML"));
    let (ran, verdict) = match vector.expected(fail_open) {
        Expected::Refused => {
            assert!(parsed.is_err(), "{id}");
            return Ran::Refused;
        }
        Expected::Offered => {
            assert!(parsed.is_ok(), "{id}");
            return Ran::Offered;
        }
        Expected::AsPomerium(verdict) => (Ran::AsPomerium, verdict),
        Expected::Departed(verdict) => (Ran::Departed, verdict),
    };
    let rules = parsed.unwrap_or_else(|mistakes| panic!("{id}: {mistakes:?}"));
    assert_eq!(vector.came_to(&Policy::new(legacy(&vector.route).rules(), rules.list)), verdict, "{id}");
    ran
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
