//! What is shown is what holds: it loads again to the same, and holds no secret.

use postern_authn::AuthnConfig;
use postern_policy::document::{self, Node};
use regex::Regex;

use super::*;
use crate::config::keys::SCOPES;
use crate::config::samples::{World, planted, samples};
use crate::config::{Config, Environment, Severity, load_text};

/// Everything that a load gives, but for where it was written.
fn meaning(loaded: &Loaded) -> String {
    let places = Regex::new(r"(?s)(Place \{[^}]*\}|place: Place\b[^}]*\}|At \{.*?\},)").unwrap();
    let planned = format!("{:#?}", loaded.planned);
    let config = loaded.config.as_ref().map_or_else(String::new, |config| {
        let Config {
            role,
            edge,
            places: _,
            authn,
            storage,
            admin,
            google,
            autocert,
            logs,
            watched: _,
            tells_manager,
            hot_reload,
            debug_admin,
            dump: _,
            session_max_age,
        } = config;
        // `hosts` is made from the routes.
        let AuthnConfig {
            url,
            keyring,
            cookie_name,
            cookie,
            session_lifetime,
            idps,
            sign_out_redirect,
            extra_roots,
            programs,
            hosts: _,
        } = authn;
        let authn = (url, keyring, cookie_name, cookie, session_lifetime, idps, sign_out_redirect, extra_roots, programs);
        format!("{edge:#?}{authn:#?}{storage:#?}{admin:#?}{logs:?}{tells_manager}{hot_reload}{debug_admin}{session_max_age:?}{role:?}{google:?}{autocert:?}")
    });
    places.replace_all(&format!("{config}{planned}"), "").into_owned()
}

/// The first line that differs.
fn difference<'t>(first: &'t str, second: &'t str) -> Option<(&'t str, &'t str)> {
    let longer = first.lines().count() != second.lines().count();
    let differ = first.lines().zip(second.lines()).find(|(first, second)| first != second);
    differ.or_else(|| longer.then_some(("", "one of them goes on")))
}

/// The codes and keys of what is told of a load, but for what only the place of a value brings with it.
fn told(loaded: &Loaded, severity: Severity) -> Vec<String> {
    use crate::config::Code::{InlineSecret, ReadOtherwise, UnknownField, UnknownFlag, UnknownKey};
    // What is shown is text where text was meant.
    let passing = [InlineSecret, ReadOtherwise, UnknownKey, UnknownFlag, UnknownField];
    let problems = loaded.problems.iter().filter(|problem| problem.severity == severity);
    let mut told: Vec<_> = problems
        .filter(|problem| !passing.contains(&problem.code))
        .map(|problem| format!("{} {}", problem.code, problem.at.key.as_str().to_ascii_lowercase()))
        // What the environment gives is told key by key, and the same in a block as one.
        .map(|told| told.split(".").next().unwrap_or_default().to_owned())
        .collect();
    told.sort();
    told.dedup();
    told
}

/// `shown`, with what was written where it is masked.
fn unmasked(shown: &mut serde_json::Value, written: Option<&Node>) {
    match shown {
        serde_json::Value::String(text) if text.contains(secrets::MASK) => {
            *shown = written.expect("what is masked was written").to_json();
        }
        serde_json::Value::Array(values) => {
            for (index, value) in values.iter_mut().enumerate() {
                unmasked(value, written.and_then(|node| node.as_list().map_or(Some(node), |nodes| nodes.get(index))));
            }
        }
        serde_json::Value::Object(map) => {
            let json = written.and_then(Node::as_str).and_then(|text| serde_json::from_str(text).ok());
            let json = json.map(Node::from_json);
            let entries = json.as_ref().or(written).map(Node::entries).unwrap_or_default();
            for (name, value) in map {
                let entry = entries.iter().rev().find(|entry| entry.key.eq_ignore_ascii_case(name));
                unmasked(value, entry.map(|entry| &entry.value));
            }
        }
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => {}
    }
}

/// The file and the variables as one document.
fn whole(loaded: &Loaded) -> Node {
    let written = loaded.written.as_ref().unwrap();
    let mut root = written.root.clone();
    let Value::Map(entries) = &mut root.value else { panic!("no map") };
    for variable in &written.variables {
        let key = variable.key.name.to_owned();
        let entry = Entry { key, key_place: variable.at.place, value: variable.node.clone() };
        match variable.parent {
            None => entries.push(entry),
            Some(parent) => {
                let outer = entries.iter_mut().find(|outer| outer.key == parent.name);
                match outer.map(|outer| &mut outer.value.value) {
                    Some(Value::Map(inside)) => inside.push(entry),
                    _ => entries.push(Entry {
                        key: parent.name.to_owned(),
                        key_place: variable.at.place,
                        value: Node { place: variable.at.place, value: Value::Map(vec![entry]) },
                    }),
                }
            }
        }
    }
    root
}

#[test]
fn every_sample_loads_again_to_what_it_was() {
    let (world, nothing) = (World::new(), Environment::of::<&str, &str>([]).unwrap());
    let mut with_config = 0;
    for (name, path) in samples() {
        let first = world.load(&name, &path);
        with_config += usize::from(first.config.is_some());
        for wanted in [Keys::Written, Keys::All] {
            let keys = effective(&first, wanted);
            let text = yaml(&keys, None);
            let mut shown = document::read(&text).unwrap_or_else(|error| panic!("{name}: {error:?}\n{text}")).to_json();
            assert_eq!(shown, plain(&keys), "{name}");
            unmasked(&mut shown, Some(&whole(&first)));
            let again = load_text(Some("shown.yaml"), &shown.to_string(), false, &nothing);
            assert_eq!(told(&again, Severity::Fatal), told(&first, Severity::Fatal), "{name} {wanted:?}\n{text}");
            assert_eq!(told(&again, Severity::Advisory), told(&first, Severity::Advisory), "{name} {wanted:?}\n{text}");
            let (before, after) = (meaning(&first), meaning(&again));
            assert_eq!(difference(&before, &after), None, "{name} {wanted:?}\n{text}");
        }
    }
    assert!(with_config >= 10, "{with_config}");
}

const PLANTED: &str = "hunter2-planted";

fn shown_in_every_way(text: &str, environment: &Environment) -> String {
    let loaded = load_text(Some("config.yaml"), text, false, environment);
    assert!(loaded.written.is_some(), "{text}");
    let mut out = String::new();
    for keys in [effective(&loaded, Keys::Written), effective(&loaded, Keys::All)] {
        for text in
            [yaml(&keys, None), yaml(&keys, Some("f")), plain(&keys).to_string(), listed(&keys, Some("f")).to_string()]
        {
            out += &text;
        }
        out += &format!("{keys:?}");
    }
    out
}

#[test]
fn s_108_no_secret_key_shows_its_value() {
    let nothing = Environment::of::<&str, &str>([]).unwrap();
    let mut keys = 0;
    for (title, scope) in SCOPES {
        for key in scope.keys.iter().filter(|key| keys::is_secret(key.name)) {
            keys += 1;
            for value in [json!(PLANTED), json!([PLANTED]), json!({ "inner": PLANTED })] {
                let document = planted(scope, key.name, value).unwrap_or_else(|| panic!("{title}: {}", key.name));
                let shown = shown_in_every_way(&document.to_string(), &nothing);
                assert!(!shown.contains(PLANTED), "{document}\n{shown}");
                let masked = matches!(key.status, Status::Removed(_)) || shown.contains(secrets::MASK);
                assert!(masked, "{document} is not there at all\n{shown}");
            }
            if let Some(variable) = scope.variable(key) {
                let environment = Environment::of([(variable.clone(), PLANTED)]).unwrap();
                let shown = shown_in_every_way("{}", &environment);
                assert!(!shown.contains(PLANTED), "{variable}\n{shown}");
            }
        }
    }
    assert!(keys >= 20, "{keys}");
}

#[test]
fn s_108_no_secret_shows_whatever_key_it_stands_under() {
    let nothing = Environment::of::<&str, &str>([]).unwrap();
    let route = |keys: &str| format!("routes: [{{from: https://a.example.com, to: http://b, {keys}}}]");
    for text in [
        format!("databroker_storage_connection_string: postgres://user:{PLANTED}@db/x"),
        format!("metrics_basic_auth: {PLANTED}"),
        format!("autocert_dir: s3://key:{PLANTED}@bucket/x"),
        format!("autocert_dir: s3://key:a/{PLANTED}@bucket/x"),
        format!("blob_storage: {{bucket_uri: 's3://key:{PLANTED}@bucket'}}"),
        format!("otel_exporter_otlp_headers: [\"Authorization={PLANTED}\"]"),
        format!("idp_request_params: {{client_secret: {PLANTED}}}"),
        format!("idp_request_params: '{{\"client_secret\":\"{PLANTED}\"}}'"),
        format!("set_response_headers: {{Set-Cookie: x, X-Api-Key: {PLANTED}}}"),
        format!("certificate: |\n  -----BEGIN RSA PRIVATE KEY-----\n  {PLANTED}"),
        format!("idp_scopes: |\n  -----BEGIN PRIVATE KEY-----\n  {PLANTED}"),
        route(&format!("set_request_headers: {{Authorization: {PLANTED}}}")),
        route(&format!("set_request_headers: {{X-Upstream: 'Basic {PLANTED}'}}")),
        route(&format!("set_request_headers: {{X-Upstream: 'bearer {PLANTED}'}}")),
        route(&format!("set_request_headers: '{{\"Cookie\":\"{PLANTED}\"}}'")),
        route(&format!("Kubernetes_Service_Account_Token: {PLANTED}")),
        route(&format!("to: 'https://user:{PLANTED}@b'")).replace("to: http://b, ", ""),
        format!("tests: [{{url: https://a, headers: {{Cookie: {PLANTED}}}}}]"),
    ] {
        let shown = shown_in_every_way(&text, &nothing);
        assert!(!shown.contains(PLANTED), "{text}\n{shown}");
        assert!(shown.contains(secrets::MASK), "{text}\n{shown}");
    }
    let routes = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        format!("- {{from: https://a.example.com, to: http://b, idp_client_secret: {PLANTED}}}"),
    );
    let shown = shown_in_every_way("{}", &Environment::of([("ROUTES", routes.clone())]).unwrap());
    assert!(!shown.contains(PLANTED) && !shown.contains(&routes) && shown.contains(secrets::MASK), "{shown}");
}

#[test]
fn each_value_says_where_it_comes_from() {
    let environment = Environment::of([
        ("ADDRESS", ":8080".to_owned()),
        (
            "ROUTES",
            base64::Engine::encode(
                &base64::engine::general_purpose::STANDARD,
                "- from: https://a.example.com\n  to: http://b\n",
            ),
        ),
    ]);
    let text = "log_level: debug\nshared_secret_file: /run/secret\n";
    let loaded = load_text(Some("config.yaml"), text, false, &environment.unwrap());
    let keys = effective(&loaded, Keys::All);
    let told = yaml(&keys, Some("config.yaml"));
    for line in [
        "log_level: debug  # config.yaml:1:12",
        "proxy_log_level: debug  # default",
        "address: \":8080\"  # environment ADDRESS",
        "shared_secret_file: /run/secret  # config.yaml:2:21",
        "# shared_secret: the content of /run/secret  # config.yaml:2:21",
        "# cookie_secret: random at each start",
        "    from: https://a.example.com  # environment ROUTES:1:9",
        "timeout_write: \"0\"  # default",
        "# ssh_address: none (not supported yet; refused)",
    ] {
        assert!(
            told.lines().any(|told| told.trim_start_matches("  - ").trim_start() == line.trim_start()),
            "{line}\n{told}"
        );
    }
    let json = listed(&keys, Some("config.yaml"));
    let of = |key: &str| {
        let found = json.as_array().unwrap().iter().find(|one| one["key"] == key);
        found.unwrap_or_else(|| panic!("{key}")).clone()
    };
    assert_eq!(of("log_level")["origin"], json!({"kind": "file", "file": "config.yaml", "line": 1, "column": 12}));
    assert_eq!(
        of("address")["origin"],
        json!({"kind": "environment", "variable": "ADDRESS", "line": null, "column": null})
    );
    assert_eq!(of("routes[0].to")["origin"]["variable"], "ROUTES");
    assert_eq!(
        of("timeout_read"),
        json!({"key": "timeout_read", "value": "30s", "origin": {"kind": "default"}, "status": "works"})
    );
    assert_eq!(
        of("shared_secret")["origin"],
        json!({"kind": "file_content", "path": "/run/secret", "named_at": "config.yaml:2:21"})
    );
    assert_eq!(of("shared_secret")["value"], secrets::MASK);
    assert_eq!(of("cookie_secret")["origin"], json!({"kind": "default", "words": "random at each start"}));
    assert!(!yaml(&effective(&loaded, Keys::Written), None).contains("timeout_read"));
}

#[test]
fn what_is_read_otherwise_than_it_is_written_is_shown_as_it_is_read() {
    let text = "xff_num_trusted_hops: 010\nidp_client_id: 010\ncookie_name: true\nidp_scopes: [010, true]\n\
        set_response_headers: {X-On: true, X-Number: 010}\nruntime_flags: {mcp: 1}\n";
    let loaded = load_text(Some("config.yaml"), text, false, &Environment::of::<&str, &str>([]).unwrap());
    let shown = plain(&effective(&loaded, Keys::Written));
    assert_eq!(
        shown,
        json!({
            "xff_num_trusted_hops": 8,
            "cookie_name": "1",
            "idp_client_id": "8",
            "idp_scopes": ["8", "1"],
            "set_response_headers": { "X-On": "1", "X-Number": "8" },
            "runtime_flags": { "mcp": true },
        })
    );
}
