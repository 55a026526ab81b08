//! Policies that can be read and probably mean something else (01 §8.10).

use postern_policy::document::{Entry, Node, Place, Value};

use super::access::Paths;
use crate::config::Code;
use crate::config::context::Context;
use crate::config::value::Field;

const OPERATORS: [&str; 4] = ["and", "or", "not", "nor"];

/// Tells of the oddities in a policy that was read without a mistake.
pub(super) fn policy(cx: &mut Context<'_>, field: &Field<'_>) {
    let mut odd = Vec::new();
    for rule in rules(field.node) {
        for action in rule.entries() {
            several_blocks(&mut odd, action);
            empty_lists(&mut odd, action);
            lists_under_is(&mut odd, &action.value);
        }
    }
    let paths = Paths::to(field, odd.iter().map(|odd| odd.place));
    for Odd { place, what, hint } in odd {
        cx.advise(Code::OddPolicy, &paths.at(place), what, hint);
    }
}

/// One oddity.
struct Odd {
    place: Place,
    what: String,
    hint: String,
}

impl Odd {
    fn at(place: Place, what: String, hint: impl Into<String>) -> Self {
        Self { place, what, hint: hint.into() }
    }
}

fn rules(policy: &Node) -> &[Node] {
    policy.as_list().unwrap_or(std::slice::from_ref(policy))
}

/// Blocks side by side are alternatives, whatever they are called (01 §3.2).
fn several_blocks(odd: &mut Vec<Odd>, action: &Entry) {
    let filled = |entry: &&Entry| is_operator(entry) && entry.value.as_list().is_some_and(|list| !list.is_empty());
    let blocks: Vec<_> = action.value.entries().iter().filter(filled).collect();
    if let [first, second, ..] = blocks.as_slice() {
        let what = format!("`{}` and `{}` are alternatives here: either of them is enough", first.key, second.key);
        let hint =
            "write what must hold together into one `and` block; a `deny` rule takes away what an `allow` rule gives";
        odd.push(Odd::at(second.key_place, what, hint));
    }
}

/// Nothing is vacuously true: a list without criteria is left out (01 §3.2).
fn empty_lists(odd: &mut Vec<Odd>, action: &Entry) {
    if !matches!(action.key.to_ascii_lowercase().as_str(), "allow" | "deny") {
        return;
    }
    let empty = |entry: &&Entry| is_operator(entry) && entry.value.as_list().is_some_and(<[Node]>::is_empty);
    for entry in action.value.entries().iter().filter(empty) {
        let what = format!("`{}` without criteria counts as not written", entry.key);
        odd.push(Odd::at(entry.key_place, what, "write a criterion into it, or remove it"));
    }
    if action.value.entries().is_empty() {
        let what = format!("`{}` without operators counts as not written", action.key);
        let hint = format!("write `{}: {{and: [...]}}`, or remove it", action.key);
        odd.push(Odd::at(action.key_place, what, hint));
    }
}

fn is_operator(entry: &Entry) -> bool {
    OPERATORS.contains(&entry.key.to_ascii_lowercase().as_str())
}

/// Operators, and criteria whose plain value stands for `is` or `has` (01 §3.5).
fn compares_whole(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    matches!(key.as_str(), "is" | "has" | "email" | "user" | "domain" | "groups" | "http_method" | "http_path")
        || key.starts_with("claim/")
}

/// A text never equals a list.
fn lists_under_is(odd: &mut Vec<Odd>, node: &Node) {
    match &node.value {
        Value::List(nodes) => nodes.iter().for_each(|node| lists_under_is(odd, node)),
        Value::Map(entries) => {
            for entry in entries {
                if compares_whole(&entry.key) && entry.value.as_list().is_some() {
                    let what =
                        format!("`{}` with a list is never true: a value is compared with the whole list", entry.key);
                    let hint = "write `in: [...]` where there is one value to compare, or one criterion for each value in an `or` block";
                    odd.push(Odd::at(entry.key_place, what, hint));
                }
                lists_under_is(odd, &entry.value);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number { .. } | Value::String(_) => {}
    }
}
