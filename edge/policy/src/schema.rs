//! The policy language as a JSON Schema (draft 2020-12), for editors: names and shapes, not what values mean.

use serde_json::{Map, Value, json};

use crate::criterion::{CLIENT_CERTIFICATE_KEYS, DEVICE_KEYS, Name, RECORD_KEYS, TIME_OF_DAY_KEYS};
use crate::matcher::{ListMatcher, StringMatcher};

/// The definitions of the language, to stand under `$defs`: `policy`, what a `policy` key holds, and all that it is made of.
/// Names are those of lower case, although others are read too.
#[must_use]
pub fn schema() -> Map<String, Value> {
    let definitions = [
        ("policy", policy(&["object", "string"])),
        ("named_policy", policy(&["object"])),
        ("policy_rule", rule()),
        ("policy_operators", operators()),
        ("policy_criteria", json!({ "type": "array", "items": { "$ref": "#/$defs/policy_criterion" } })),
        ("policy_criterion", criterion()),
        ("string_matcher", matcher(&StringMatcher::OPERATORS)),
        ("list_matcher", matcher(&ListMatcher::OPERATORS)),
    ];
    definitions.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A rule, a list of rules, or nothing; where texts are allowed, they are names of policies. Keywords for objects say nothing
/// of lists and texts, so that no `anyOf` is needed, and an editor marks the very key that is wrong.
fn policy(one: &[&str]) -> Value {
    let types: Vec<_> = one.iter().copied().chain(["array", "null"]).collect();
    let rule = "#/$defs/policy_rule";
    json!({ "type": types, "$ref": rule, "items": { "type": one, "$ref": rule } })
}

fn rule() -> Value {
    json!({
        "description": "All allow rules are joined by `or`, and so are all deny rules; deny wins.",
        "properties": {
            "allow": { "$ref": "#/$defs/policy_operators", "description": "Lets pass when one of its operators holds." },
            "deny": { "$ref": "#/$defs/policy_operators", "description": "Refuses when one of its operators holds." },
            "enforce": {
                "type": "boolean",
                "default": true,
                "description": "`false`: what the rule would refuse passes, and is logged and counted.",
            },
        },
        "additionalProperties": false,
    })
}

fn operators() -> Value {
    let of = |description: &str| json!({ "$ref": "#/$defs/policy_criteria", "description": description });
    json!({
        "type": "object",
        "properties": {
            "and": of("All criteria hold."),
            "or": of("One criterion holds."),
            "not": of("No criterion holds."),
            "nor": of("Not all criteria hold."),
            "action": true,
        },
        "additionalProperties": false,
    })
}

/// One key, the name of the criterion.
fn criterion() -> Value {
    let plain = Name::ALL.iter().copied().filter(|name| *name != Name::Claim);
    let properties: Map<_, _> = plain.map(|name| (name.as_str().to_owned(), data(name))).collect();
    json!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "properties": properties,
        "patternProperties": { "^claim/.": data(Name::Claim) },
        "additionalProperties": false,
    })
}

/// What follows the colon of a criterion.
fn data(name: Name) -> Value {
    match name {
        Name::Accept
        | Name::Reject
        | Name::AuthenticatedUser
        | Name::CorsPreflight
        | Name::InvalidClientCertificate
        | Name::SshUsernameMatchesEmail => json!(true),
        Name::User
        | Name::Email
        | Name::Domain
        | Name::HttpMethod
        | Name::HttpPath
        | Name::McpTool
        | Name::SshUsername => {
            json!({ "$ref": "#/$defs/string_matcher" })
        }
        Name::Claim | Name::Groups => json!({ "$ref": "#/$defs/list_matcher" }),
        Name::SourceIp | Name::SshPublickey | Name::SshCa => {
            json!({ "type": ["string", "array"], "items": { "type": "string" } })
        }
        Name::ClientCertificate => {
            let listed = || json!({ "type": ["string", "number", "array"] });
            keys(&CLIENT_CERTIFICATE_KEYS, |key| {
                if key.starts_with("san_") { json!({ "$ref": "#/$defs/string_matcher" }) } else { listed() }
            })
        }
        Name::Device => {
            keys(&DEVICE_KEYS, |key| if key == "approved" { json!(true) } else { json!({ "type": "string" }) })
        }
        Name::SshUsernameMatchesClaim => json!({ "type": "string", "minLength": 1 }),
        Name::Date => with(keys(&["after", "before"], |_| json!({ "type": "string" })), "minProperties", json!(1)),
        Name::DayOfWeek => json!({ "type": "string" }),
        Name::TimeOfDay => {
            with(keys(&TIME_OF_DAY_KEYS, |_| json!({ "type": "string" })), "required", json!(["timezone"]))
        }
        Name::Record => {
            let record = with(keys(&RECORD_KEYS, of_record), "required", json!(["type", "field"]));
            with(record, "minProperties", json!(3))
        }
    }
}

fn of_record(key: &str) -> Value {
    match key {
        "type" | "field" | "starts_with" | "ends_with" | "contains" => json!({ "type": "string" }),
        "exists" => json!({ "type": "boolean" }),
        "in" | "not_in" => json!({ "type": "array" }),
        "<" | "<=" | ">" | ">=" => json!({ "type": ["number", "string"] }),
        _ => json!(true),
    }
}

/// A map of these keys and no others.
fn keys(names: &[&str], of: impl Fn(&str) -> Value) -> Value {
    let properties: Map<_, _> = names.iter().map(|name| ((*name).to_owned(), of(name))).collect();
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

fn with(mut schema: Value, keyword: &str, value: Value) -> Value {
    if let Some(object) = schema.as_object_mut() {
        object.insert(keyword.to_owned(), value);
    }
    schema
}

/// A plain value, or a map of operators.
fn matcher(operators: &[&str]) -> Value {
    let operator = |name: &str| match name {
        "starts_with" | "ends_with" | "contains" => json!({ "type": "string" }),
        "in" | "not_in" => json!({ "type": "array" }),
        _ => json!(true),
    };
    with(keys(operators, operator), "type", json!(["string", "number", "boolean", "array", "object"]))
}
