//! Holds `docs/reference/policy.md` to what the language is.

use crate::criterion::Name;
use crate::document::{Node, read};
use crate::ppl::Language;
use crate::testing::World;
use crate::{Decision, Policy, Reason};

const PAGE: &str = include_str!("../../../docs/reference/policy.md");

/// The `yaml` blocks of the page.
fn examples() -> Vec<&'static str> {
    let blocks = PAGE.split("\n```yaml\n").skip(1);
    blocks.map(|rest| rest.split_once("\n```").expect("an end").0).collect()
}

/// The policy of a block: under `policy` on a route or on all of its routes, or the block itself.
fn policy(example: &str) -> Policy {
    let root = read(example).unwrap_or_else(|mistake| panic!("{example}\n{mistake:?}"));
    let mut language = Language::default();
    for named in root.get("policies").map(Node::entries).unwrap_or_default() {
        language.define(&named.key, &named.value).unwrap_or_else(|mistakes| panic!("{example}\n{mistakes:?}"));
    }
    let read = |node: &Node| language.read(node).unwrap_or_else(|mistakes| panic!("{example}\n{mistakes:?}")).list;
    let routes = root.get("routes").and_then(Node::as_list).unwrap_or_default();
    let of_routes = routes.iter().filter_map(|route| route.get("policy")).chain(root.get("default_policy"));
    let rules: Vec<_> = match root.get("routes") {
        Some(_) => of_routes.flat_map(read).collect(),
        None => read(root.get("policy").unwrap_or(&root)),
    };
    assert!(!rules.is_empty(), "says nothing: {example}");
    Policy::new(Vec::new(), rules)
}

#[test]
fn every_example_of_the_page_can_be_read() {
    assert!(examples().len() > 10);
    examples().into_iter().map(policy).for_each(drop);
}

#[test]
fn the_page_names_every_criterion_matcher_and_reason() {
    let named = |name: &str| PAGE.contains(&format!("`{name}`")) || PAGE.contains(&format!("`{name}/NAME`"));
    for name in Name::ALL.iter().copied() {
        assert!(named(name.as_str()), "{name:?}");
        let used = examples().iter().any(|example| example.contains(&format!("- {}", name.as_str())));
        assert!(used, "no example of {name:?}");
    }
    let matchers = crate::matcher::StringMatcher::OPERATORS.into_iter().chain(crate::matcher::ListMatcher::OPERATORS);
    for name in matchers {
        assert!(named(name), "{name}");
    }
    let (_, table) = PAGE.split_once("\n## Reasons\n").expect("a table of reasons");
    let (table, _) = table.split_once("\n## ").expect("an end");
    for reason in Reason::ALL {
        assert!(table.contains(&format!("`{}`", reason.as_str())), "{reason:?}");
    }
}

#[test]
fn the_page_tells_not_from_nor_as_they_are() {
    let holds = |block: &str| policy(block).evaluate(&World::signed_in().facts()).allow.value;
    for (criteria, not, nor) in [
        ("[accept: 1, accept: 1]", false, false),
        ("[accept: 1, reject: 1]", false, true),
        ("[reject: 1, reject: 1]", true, true),
    ] {
        assert_eq!(holds(&format!("allow: {{not: {criteria}}}")), not, "not {criteria}");
        assert_eq!(holds(&format!("allow: {{nor: {criteria}}}")), nor, "nor {criteria}");
    }
}

#[test]
fn the_page_tells_who_is_asked_to_sign_in() {
    let decide = |text: &str| policy(text).decide(&World::default().facts());
    assert_eq!(decide("allow: {or: [accept: true, user: x]}"), Decision::Allow);
    assert_eq!(decide("{allow: {or: [accept: 1]}, deny: {and: [http_path: /elsewhere, user: x]}}"), Decision::SignIn);
    assert_eq!(decide("allow: {not: [groups: x]}"), Decision::SignIn);
    let without_groups = policy("allow: {not: [groups: x]}").decide(&World::signed_in().facts());
    assert_eq!(without_groups, Decision::Allow);
    for never in ["groups: [a, b]", "email: {is: [a, b]}"] {
        let world = World::signed_in().email("a").user_claims(&serde_json::json!({"groups": ["a", "b"]}));
        let decision = policy(&format!("allow: {{and: [{never}]}}")).decide(&world.facts());
        assert!(matches!(decision, Decision::Deny(_)), "{never}");
    }
}
