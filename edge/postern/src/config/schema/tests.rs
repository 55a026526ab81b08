//! The schema takes what a load takes, and refuses what a load refuses for its shape.

use std::fs;
use std::path::Path;

use jsonschema::Validator;
use postern_policy::document;

use super::*;
use crate::config::samples::{World, planted, samples};
use crate::config::{Code, Environment, Loaded, Problem, load_text};

fn validator() -> Validator {
    let schema = schema();
    jsonschema::draft202012::meta::validate(&schema)
        .unwrap_or_else(|error| panic!("{error}: {}", error.instance_path()));
    jsonschema::draft202012::new(&schema).unwrap()
}

/// What is wrong, each with its place.
fn refused(validator: &Validator, document: &Value) -> Vec<String> {
    validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// Whether a problem is one of names and shapes.
fn is_of_shape(problem: &&Problem) -> bool {
    use Code::{
        BadChoice, BadDuration, MissingKey, NotAMap, OutOfRange, RemovedKey, UnknownFlag, UnknownKey, WrongType,
    };
    let known =
        [NotAMap, UnknownKey, UnknownFlag, RemovedKey, WrongType, BadDuration, BadChoice, OutOfRange, MissingKey];
    known.contains(&problem.code)
}

fn load(text: &str) -> Loaded {
    load_text(Some("config.yaml"), text, false, &Environment::of::<&str, &str>([]).unwrap())
}

#[test]
fn the_schema_is_one_and_every_reference_in_it_leads_somewhere() {
    validator();
    let schema = schema();
    let names = SCOPES.iter().map(|(_, scope)| name_of(scope)).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(names.len(), SCOPES.len(), "two maps of one name");
    let text = schema.to_string();
    let definitions = schema.get("$defs").and_then(Value::as_object).unwrap();
    for name in definitions.keys() {
        let used = text.contains(&format!("\"#/$defs/{name}\""));
        assert!(used, "nothing refers to {name}");
    }
    for reference in text.split("\"$ref\":\"#/$defs/").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(definitions.contains_key(reference), "{reference}");
    }
}

#[test]
fn every_sample_is_taken_unless_check_finds_fault_with_its_shape() {
    let (validator, world) = (validator(), World::new());
    let mut taken = 0;
    for (name, path) in samples() {
        let loaded = world.load(&name, &path);
        let text = world.filled(&fs::read_to_string(&path).unwrap());
        let read = if name.ends_with(".toml") { crate::config::toml::read(&text) } else { document::read(&text) };
        let document = read.unwrap().to_json();
        let refused = refused(&validator, &document);
        let shape: Vec<_> = loaded
            .problems
            .iter()
            .filter(is_of_shape)
            .filter(|problem| problem.at.origin == crate::config::Origin::File)
            .collect();
        assert_eq!(refused.is_empty(), shape.is_empty(), "{name}: {refused:#?}\n{shape:#?}");
        taken += usize::from(refused.is_empty());
    }
    assert!(taken >= 30, "{taken}");
}

#[test]
fn every_broken_file_is_refused_where_check_finds_fault_with_its_shape() {
    let validator = validator();
    let mut refused_files = 0;
    for entry in fs::read_dir("tests/problems").unwrap().map(|entry| entry.unwrap().path()) {
        let text = fs::read_to_string(&entry).unwrap();
        let Ok(document) = document::read(&text) else { continue };
        let (loaded, refused) = (load(&text), refused(&validator, &document.to_json()));
        let shape: Vec<_> = loaded.problems.iter().filter(is_of_shape).collect();
        let policies = loaded.problems.iter().any(|problem| problem.code == Code::BadPolicy);
        assert!(shape.is_empty() || !refused.is_empty(), "{}: {shape:#?}", entry.display());
        assert!(refused.is_empty() || !shape.is_empty() || policies, "{}: {refused:#?}", entry.display());
        refused_files += usize::from(!refused.is_empty());
    }
    assert!(refused_files >= 5, "{refused_files}");
}

/// The pages that show configurations, with whatever YAML stands on them.
fn shown() -> Vec<(String, String)> {
    let root = Path::new("../..");
    let mut pages = vec![root.join("README.md")];
    for folder in ["docs/guides", "docs/reference"] {
        pages.extend(fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path()));
    }
    let mut out = Vec::new();
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for block in text.split("\n```yaml").skip(1).filter_map(|rest| rest.split_once('\n')?.1.split("\n```").next()) {
            out.push((page.file_name().unwrap().to_str().unwrap().to_owned(), block.to_owned()));
        }
    }
    out
}

#[test]
fn every_file_of_the_pages_is_taken_or_is_there_for_its_mistake() {
    let validator = validator();
    let mut files = 0;
    for (page, block) in shown() {
        let Ok(node) = document::read(&block) else { continue };
        let document = match node.to_json() {
            // A page on policies shows what stands on a route.
            document if page == "policy.md" && document.get("routes").is_none() => {
                let policy = document.get("policy").cloned().unwrap_or_else(|| document.clone());
                let top = document.get("policies").or(document.get("default_policy")).is_some();
                if top { document } else { json!({ "routes": [{ "from": "https://a", "policy": policy }] }) }
            }
            document => document,
        };
        let refused = refused(&validator, &document);
        let loaded = load(&document.to_string());
        // What is refused, `check` refuses too, perhaps for what it means.
        let told = |error: &&String| {
            let key = error.split(['/', ':']).nth(1).unwrap_or_default();
            loaded.problems.iter().any(|problem| {
                let twice = problem.code == Code::WrittenTwice;
                twice || problem.at.key.as_str().split(['.', '[']).next() == Some(key) || is_of_shape(&problem)
            })
        };
        let untold: Vec<_> = refused.iter().filter(|error| !told(error)).collect();
        assert!(untold.is_empty(), "{page}: {untold:#?}\n{block}");
        files += usize::from(refused.is_empty());
    }
    assert!(files >= 25, "{files}");
}

#[test]
fn check_and_schema_agree_on_keys_that_do_not_exist() {
    let validator = validator();
    for (title, scope) in SCOPES {
        for name in ["no_such_key", "from_", "adress", "policy"] {
            let Some(document) = planted(scope, name, json!([])) else { panic!("{title}") };
            let by_check = load(&document.to_string());
            let unknown = by_check.problems.iter().any(|problem| problem.code == Code::UnknownKey);
            assert_eq!(unknown, scope.find(name).is_none(), "{title}: {name}");
            let by_schema = refused(&validator, &document);
            assert_eq!(by_schema.iter().any(|error| error.contains(name)), unknown, "{title} {name}: {by_schema:#?}");
        }
    }
    for key in SETTINGS.hints.iter().map(|(name, _)| *name) {
        assert!(!refused(&validator, &json!({ key: "x" })).is_empty(), "{key}");
    }
    let flag = json!({ "runtime_flags": { "no_such_flag": true } });
    assert!(!refused(&validator, &flag).is_empty());
    assert!(load(&flag.to_string()).problems.iter().any(|problem| problem.code == Code::UnknownFlag));
}

#[test]
fn check_and_schema_agree_on_the_shape_of_every_key() {
    let validator = validator();
    let values = [
        json!({ "a": { "b": "c" } }),
        json!([[["x"]]]),
        json!("no such value"),
        json!(true),
        json!(7),
        json!(-1.5),
        json!({}),
        json!([]),
        json!(null),
    ];
    let mut wrong = String::new();
    for (title, scope) in SCOPES {
        for key in scope.keys.iter().filter(|key| !matches!(key.status, Status::Removed(_))) {
            for value in &values {
                let document = planted(scope, key.name, value.clone()).unwrap();
                let loaded = load(&document.to_string());
                let at = key.name;
                let told: Vec<_> = loaded
                    .problems
                    .iter()
                    .filter(|problem| {
                        let path = problem.at.key.as_str();
                        path.split(['.', '[']).any(|part| part == at)
                    })
                    .collect();
                // What a list or a text may hold only a load can tell, and that one thing wants another.
                let shape = told.iter().any(|problem| {
                    let ends = [
                        "is no e-mail address",
                        "is no colour",
                        "is not hex",
                        "is no `key=value`",
                        "must be a millisecond or more",
                        "is not an IP address or range",
                    ];
                    let of_value = (problem.code == Code::BadChoice && !matches!(key.kind, Kind::Choice(_)))
                        || (problem.code == Code::MissingKey && !(value.is_null() && is_required(key)))
                        || (problem.code == Code::OutOfRange
                            && matches!(key.kind, Kind::Milliseconds | Kind::Duration | Kind::DurationWithin(..)))
                        || ends.iter().any(|end| problem.what.ends_with(end));
                    is_of_shape(problem) && !of_value
                });
                let any = told.iter().any(|problem| problem.code != Code::NotYet);
                let errors: Vec<_> = validator
                    .iter_errors(&document)
                    .filter(|error| error.instance_path().to_string().split('/').any(|part| part == at))
                    .map(|error| error.to_string())
                    .collect();
                if shape && errors.is_empty() {
                    wrong += &format!(
                        "{title}: {}: {value}: only check: {:?}\n",
                        key.name,
                        told.iter().map(|p| (p.code, &p.what)).collect::<Vec<_>>()
                    );
                }
                // That a key is missing is told of the map that it is missing from.
                let missing = value.is_null() && is_required(key)
                    || errors.iter().all(|error| error.ends_with("is a required property"));
                if !any && !missing && !errors.is_empty() {
                    wrong += &format!("{title}: {}: {value}: only the schema: {errors:?}\n", key.name);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn check_and_schema_agree_on_policies() {
    let validator = validator();
    let criteria = [
        "accept",
        "reject",
        "authenticated_user",
        "user",
        "email",
        "domain",
        "claim/dept",
        "groups",
        "http_method",
        "http_path",
        "source_ip",
        "cors_preflight",
        "client_certificate",
        "invalid_client_certificate",
        "device",
        "mcp_tool",
        "ssh_username",
        "ssh_username_matches_email",
        "ssh_username_matches_claim",
        "ssh_publickey",
        "ssh_ca",
        "date",
        "day_of_week",
        "time_of_day",
        "record",
        "claim",
        "claim/",
        "emial",
        "email/x",
        "or",
    ];
    let data = [
        json!(true),
        json!(7),
        json!("text"),
        json!(["text"]),
        json!([7]),
        json!({}),
        json!(null),
        json!({ "is": "x" }),
        json!({ "has": "x" }),
        json!({ "exclude": 3 }),
        json!({ "starts_with": "x" }),
        json!({ "starts_with": 3 }),
        json!({ "in": ["x"] }),
        json!({ "in": "x" }),
        json!({ "nonsense": 1 }),
        json!("10.0.0.0/8"),
        json!("mon-fri"),
        json!({ "after": "2026-01-01T00:00:00Z" }),
        json!({ "timezone": "UTC", "after": "9:00", "before": "17:00" }),
        json!({ "after": "9:00" }),
        json!({ "type": "any" }),
        json!({ "type": 3 }),
        json!({ "approved": true }),
        json!({ "type": "a", "field": "b", "is": 1 }),
        json!({ "type": "a", "field": "b" }),
        json!({ "type": "a", "field": "b", "exists": "x" }),
        json!({ "type": "a", "field": "b", ">": [] }),
        json!({ "san_dns": "x" }),
        json!({ "san_dns": { "ends_with": "x" } }),
        json!({ "fingerprint": {} }),
    ];
    let mut policies: Vec<Value> = criteria
        .iter()
        .flat_map(|name| data.iter().map(move |data| json!([{ "allow": { "and": [{ *name: data }] } }])))
        .collect();
    policies.extend([
        json!("no-such-policy"),
        json!([]),
        json!(null),
        json!({}),
        json!({ "allow": {} }),
        json!({ "allow": [] }),
        json!({ "permit": {} }),
        json!({ "allow": { "xor": [] } }),
        json!({ "allow": { "and": {} } }),
        json!({ "allow": { "and": ["accept"] } }),
        json!({ "allow": { "and": [{}] } }),
        json!({ "allow": { "and": [{ "accept": 1, "reject": 1 }] } }),
        json!({ "enforce": "later" }),
        json!({ "enforce": false, "deny": { "nor": [{ "accept": 1 }] } }),
        json!({ "allow": { "action": 1 } }),
        json!(7),
    ]);
    // What is of a right shape, and still no address, hash, date or name: only a load can tell.
    let values =
        ["is not an", "is not a", "no day", "needs a date", "time zone", "time of day", "is no ", "there is no policy"];
    let (mut both, mut wrong) = (0, String::new());
    for policy in policies {
        let document = json!({ "routes": [{ "from": "https://a.example.com", "to": "http://b", "policy": policy }] });
        let refused = refused(&validator, &document);
        let loaded = load(&document.to_string());
        let told: Vec<_> = loaded
            .problems
            .iter()
            .filter(|problem| problem.code == Code::BadPolicy)
            .map(|problem| problem.what.as_str())
            .collect();
        let of_value = told.iter().all(|what| values.iter().any(|value| what.contains(value)));
        both += usize::from(!refused.is_empty() && !told.is_empty());
        if refused.is_empty() && !of_value {
            wrong += &format!("only check: {policy}: {told:?}\n");
        }
        if !refused.is_empty() && told.is_empty() {
            wrong += &format!("only the schema: {policy}: {refused:?}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(both > 200, "{both}");
}
