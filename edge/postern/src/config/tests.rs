//! What the load promises as a whole.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use postern_authn::ProviderKind;
use postern_edge::route::{Carries, HostPattern, HostRewrite, PathMatcher, PathRewrite, RegexRewrite, Route, Target};
use postern_edge::{AuthnUpstream, ClaimHeader, EscapedSlashes, HeaderRule, PublicListener, UnderscoreHeaders};
use postern_identity::{Claims, CompactSession, IdpId, SameSite, Session, SessionHandle, User};
use proptest::prelude::*;
use url::Url;

use super::keys::{FLAGS, Key, Kind, ROUTE, SCOPES, SETTINGS, Scope, Status};
use super::*;
use postern_identity::Timestamp;
use postern_policy::{Decision, Facts, Policy};

pub(super) const SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
/// The least that runs without a word.
pub(super) const BASE: &str = "insecure_server: true\nshared_secret_file: tests/problems/secret\ncookie_secret_file: tests/problems/secret\n\
    authenticate_service_url: https://authenticate.example.com\nidp_provider: oidc\nidp_provider_url: https://idp.example.com\n\
    idp_client_id: postern\n";

fn environment(variables: &[(&str, &str)]) -> Environment {
    Environment::of(variables.iter().copied()).unwrap()
}

pub(super) fn loaded(text: &str) -> Loaded {
    load_text(Some("config.yaml"), text, false, &environment(&[]))
}

/// The configuration of the base and `text`, without a fatal problem.
fn config(text: &str) -> Config {
    let loaded = loaded(&format!("{BASE}{text}"));
    loaded.config.unwrap_or_else(|| panic!("{}", loaded.problems.to_human(Colour::Plain)))
}

/// `CODE key` of every fatal problem of the base and `text`.
fn errors(text: &str) -> Vec<String> {
    told(&loaded(&format!("{BASE}{text}")), Severity::Fatal)
}

/// `CODE key` of every advisory problem of the base and `text`.
fn warnings(text: &str) -> Vec<String> {
    told(&loaded(&format!("{BASE}{text}")), Severity::Advisory)
}

fn told(loaded: &Loaded, severity: Severity) -> Vec<String> {
    let problems = loaded.problems.iter().filter(|problem| problem.severity == severity);
    problems.map(|problem| format!("{} {}", problem.code, problem.at.key)).collect()
}

/// One public route of these keys, and its text.
fn route_text(keys: &str) -> String {
    format!("routes:\n  - from: https://app.example.com\n    allow_public_unauthenticated_access: true\n{keys}")
}

fn route(keys: &str) -> Arc<Route> {
    config(&route_text(keys)).edge.routes.first().unwrap().clone()
}

#[test]
fn every_broken_file_is_told_of_with_place_and_remedy() {
    let mut codes = BTreeSet::new();
    for number in 1..=12 {
        let file = broken(number);
        let loaded = load(&Source { file: Some(file.clone()), lenient: false }, &environment(&[]));
        assert!(loaded.config.is_none(), "{} was taken", file.display());
        codes.extend(loaded.problems.iter().map(|problem| problem.code));
        let name = file.file_stem().unwrap().to_str().unwrap();
        insta::assert_snapshot!(name, loaded.problems.to_human(Colour::Plain));
    }
    let elsewhere = [Code::FileUnreadable, Code::FileType];
    let missing: Vec<_> = Code::ALL.iter().filter(|code| !codes.contains(code) && !elsewhere.contains(code)).collect();
    assert!(missing.is_empty(), "no file shows {missing:?}");
}

fn broken(number: usize) -> PathBuf {
    let prefix = format!("{number:02}-");
    let entries = fs::read_dir("tests/problems").unwrap().map(|entry| entry.unwrap().path());
    let mut found = entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&prefix));
    found.next().expect("a broken file")
}

#[test]
fn s_108_no_output_shows_a_secret_of_a_broken_file() {
    for number in 1..=12 {
        let loaded = load(&Source { file: Some(broken(number)), lenient: false }, &environment(&[]));
        let outputs =
            [loaded.problems.to_human(Colour::Terminal), loaded.problems.to_json().to_string(), format!("{loaded:?}")];
        for output in outputs {
            assert!(!output.contains("hunter2") && !output.contains("aHVudGVyM"), "{output}");
        }
    }
}

#[test]
fn s_108_a_configuration_never_prints_its_secrets() {
    let text = BASE
        .replace("tests/problems/secret", "SECRET")
        .replace("shared_secret_file: SECRET", &format!("shared_secret: {SECRET}"));
    let text = text.replace("cookie_secret_file: SECRET", &format!("cookie_secret: {SECRET}"))
        + "idp_client_secret: hunter2\n";
    let loaded = load_text(Some("config.yaml"), &text, false, &environment(&[("IDP_CLIENT_SECRET", "swordfish")]));
    let printed = format!("{:?} {}", loaded, loaded.problems.to_json());
    assert!(loaded.config.is_some(), "{printed}");
    for secret in [SECRET, "hunter2", "swordfish", "0123456789abcdef"] {
        assert!(!printed.contains(secret), "{secret}");
    }
}

#[test]
fn programs_read_the_same_problems_as_json() {
    let loaded = loaded("adress: x\nroutes:\n  - from: nowhere\n    colour: red\n");
    insta::assert_snapshot!("json", format!("{:#}", loaded.problems.to_json()));
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    for (name, content, code) in [
        ("missing.yaml", None, Code::FileUnreadable),
        ("latin1.yaml", Some(&b"name: caf\xe9"[..]), Code::FileUnreadable),
        ("config.ini", Some(&b"address = :443"[..]), Code::FileType),
    ] {
        let file = folder.path().join(name);
        content.into_iter().for_each(|content| fs::write(&file, content).unwrap());
        let loaded = load(&Source { file: Some(file.clone()), lenient: false }, &environment(&[]));
        assert!(loaded.config.is_none());
        assert_eq!(loaded.problems.iter().map(|problem| problem.code).collect::<Vec<_>>(), [code], "{name}");
        assert_eq!(loaded.watched.first().map(|file| file.path.as_path()), Some(file.as_path()));
    }
}

#[test]
fn the_base_is_loaded_without_a_word() {
    let loaded = loaded(BASE);
    assert_eq!(loaded.problems.iter().next(), None, "{}", loaded.problems.to_human(Colour::Plain));
}

/// A certificate for `app.example.com` and its key in `folder`.
fn certificate(folder: &Path) {
    let pair = rcgen::generate_simple_self_signed(["app.example.com".to_owned()]).unwrap();
    fs::write(folder.join("tls.crt"), pair.cert.pem()).unwrap();
    fs::write(folder.join("tls.key"), pair.signing_key.serialize_pem()).unwrap();
}

/// A file as people write it for Pomerium, with every key that works.
fn big() -> (tempfile::TempDir, Loaded) {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    fs::write(folder.path().join("secret"), SECRET).unwrap();
    fs::write(folder.path().join("client"), "swordfish\n").unwrap();
    let text = fs::read_to_string("tests/problems/valid.yaml").unwrap();
    let text = text.replace("DIR", folder.path().to_str().unwrap());
    let loaded = load_text(Some("config.yaml"), &text, false, &environment(&[]));
    (folder, loaded)
}

#[test]
fn a_file_with_every_working_key_is_read_whole() {
    let (folder, loaded) = big();
    let Some(config) = loaded.config else { panic!("{}", loaded.problems.to_human(Colour::Plain)) };
    let PublicListener::Tls { addresses, h2, http1 } = &config.edge.listeners.public else { panic!() };
    assert_eq!((addresses.len(), *h2, *http1), (2, true, true));
    assert_eq!(config.edge.listeners.redirect.len(), 2);
    assert_eq!(config.edge.certificates.files.len(), 2);
    assert_eq!(config.edge.timeouts.read, Some(Duration::from_secs(20)));
    assert_eq!(config.edge.timeouts.write, None);
    assert_eq!(config.edge.timeouts.idle, Some(Duration::from_secs(90)));
    assert_eq!(config.edge.timeouts.upstream, Some(Duration::from_secs(45)));
    assert_eq!(config.edge.cookie.name, "_door");
    assert_eq!(config.edge.cookie.attributes.domain.as_deref(), Some("example.com"));
    assert_eq!(config.edge.cookie.attributes.same_site, SameSite::Strict);
    assert!(!config.edge.cookie.attributes.http_only);
    assert_eq!(config.edge.request.escaped_slashes, EscapedSlashes::Keep);
    assert_eq!(config.edge.request.underscores, UnderscoreHeaders::Allow);
    assert!(!config.edge.request.merge_slashes && !config.edge.request.match_any_incoming_port);
    assert_eq!((config.edge.proxy.trusted_hops, config.edge.proxy.skip_xff_append), (2, true));
    let peers = config.edge.proxy.trusted_peers.as_ref().unwrap();
    let known = ["10.1.2.3", "2001:db8::1", "192.0.2.7"].map(|peer| peers.contains(peer.parse().unwrap()));
    assert_eq!(known, [true, true, false]);
    assert!(config.edge.proxy.extra_roots.is_some());
    assert_eq!(config.edge.logs.access.len(), 3);
    assert!(config.edge.identity.jwt_endpoint && config.edge.identity.pass_identity_headers);
    assert_eq!(config.authn.session_lifetime, Duration::from_secs(8 * 3600));
    assert_eq!(config.authn.sign_out_redirect.as_ref().map(Url::as_str), Some("https://example.com/bye"));
    let idps: Vec<_> = config.authn.idps.iter().map(|idp| idp.client_id.as_str()).collect();
    assert_eq!(idps, ["postern", "second"]);
    let idp = config.authn.idps.first().unwrap();
    assert_eq!((idp.kind, idp.issuer.as_str()), (ProviderKind::Google, "https://accounts.google.com"));
    assert_eq!(idp.client_secret.as_ref().unwrap().expose(), "swordfish");
    assert_eq!(idp.scopes, ["openid", "email"]);
    assert_eq!(idp.request_params, [("prompt".to_owned(), "login".to_owned())]);
    assert_eq!(config.storage, StorageConfig::File { path: "/var/lib/postern/postern.redb".into() });
    assert_eq!(config.admin.metrics.unwrap().to_string(), "127.0.0.1:9090");
    assert_eq!(config.admin.health.to_string(), "127.0.0.1:28081");
    assert_eq!(config.logs, LogLevels { all: LevelFilter::WARN, access: LevelFilter::INFO });
    assert_eq!(config.edge.routes.len(), 6);
    let watched: Vec<_> = config.watched.iter().map(|file| file.path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(watched, ["client", "secret", "tls.crt", "tls.key"]);
    drop(folder);
}

#[test]
fn routes_of_the_old_list_come_first_and_keep_their_order() {
    let (_folder, loaded) = big();
    let config = loaded.config.unwrap();
    let names: Vec<_> = config.edge.routes.iter().map(|route| route.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "old.example.com",
            "wiki",
            "app.example.com/exact",
            "app.example.com /v[0-9]+/.*",
            "go.example.com",
            "hello.example.com"
        ]
    );
}

#[test]
fn every_key_is_read() {
    let wrong = "[{a: {b: c}}]";
    let read = |key: &&Key| {
        let unread = matches!(key.status, Status::NoEffect(_)) && matches!(key.kind, Kind::Special(..));
        !unread && !matches!(key.status, Status::Removed(_))
    };
    for key in SETTINGS.keys.iter().filter(read) {
        let without = BASE.lines().filter(|line| {
            !line.starts_with(&format!("{}:", key.name)) && !line.starts_with(&format!("{}_file:", key.name))
        });
        let mut text = without.collect::<Vec<_>>().join("\n") + &format!("\n{}: {wrong}\n", key.name);
        if key.name.starts_with("databroker_storage_connection") {
            text += "databroker_storage_type: file\n";
        }
        assert!(is_told(&loaded(&text), key.name), "{} is not read", key.name);
    }
    for key in ROUTE.keys.iter().filter(read) {
        let text = format!("{BASE}routes:\n  - {}: {wrong}\n{}", key.name, rest(key.name));
        assert!(is_told(&loaded(&text), &format!("routes[0].{}", key.name)), "{} is not read", key.name);
    }
}

/// What a route needs besides `key`.
fn rest(key: &str) -> String {
    let all = [
        ("from", "https://app.example.com"),
        ("to", "http://127.0.0.1"),
        ("allow_public_unauthenticated_access", "true"),
    ];
    let leads = ["to", "redirect", "response"].contains(&key);
    let wanted = all.iter().filter(|(name, _)| *name != key && !(leads && *name == "to"));
    wanted.map(|(name, value)| format!("    {name}: {value}\n")).collect()
}

/// Whether some value at that key, or below it, is refused for what it is.
fn is_told(loaded: &Loaded, key: &str) -> bool {
    let below = |path: &str| path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['[', '.']));
    let fatal = loaded.problems.iter().filter(|problem| problem.severity == Severity::Fatal);
    let mut refused = fatal.filter(|problem| problem.code != Code::NotYet);
    refused.any(|problem| below(problem.at.key.as_str()))
}

#[test]
fn every_key_that_does_not_work_is_named_where_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let check = |scope: &Scope, head: &str, path: &str| {
        for key in scope.keys.iter().filter(|key| key.status != Status::Works) {
            let sample = sample(key, folder.path());
            let loaded = loaded(&format!("{BASE}{head}{}: {sample}\n", key.name));
            let told = [Code::NotYet, Code::NoEffect, Code::RemovedKey];
            let found = loaded.problems.iter().find(|problem| {
                problem.at.key.as_str() == format!("{path}{}", key.name) && told.contains(&problem.code)
            });
            let Some(problem) = found else { panic!("{} is silently ignored", key.name) };
            let fatal = matches!(key.status, Status::NotYet | Status::Removed(_));
            assert_eq!(problem.severity == Severity::Fatal, fatal, "{}", key.name);
            assert!(problem.at.place.is_known() && !problem.hint.is_empty(), "{}", key.name);
        }
    };
    check(&SETTINGS, "", "");
    check(&ROUTE, &(route_text("    to: http://127.0.0.1\n") + "    "), "routes[0].");
}

/// A value of a key, as YAML, that is of the right shape and switches something on.
fn sample(key: &Key, folder: &Path) -> String {
    match key.kind {
        Kind::Bool => "true".to_owned(),
        Kind::Number(least, _) => least.max(1).to_string(),
        Kind::Fraction => "0.5".to_owned(),
        Kind::Duration | Kind::DurationWithin(..) | Kind::Seconds => "30s".to_owned(),
        Kind::Milliseconds => "500".to_owned(),
        Kind::Choice(names) => names[1].to_owned(),
        Kind::Address => "127.0.0.1:9000".to_owned(),
        Kind::Url => "https://other.example.com".to_owned(),
        Kind::Host => "other.example.com".to_owned(),
        Kind::Regex => "'/(.*)'".to_owned(),
        Kind::Header => "X-Other".to_owned(),
        Kind::Colour => "'#6F43E7'".to_owned(),
        Kind::Base64 | Kind::Pem => SECRET.to_owned(),
        Kind::File => folder.join("tls.crt").display().to_string(),
        Kind::Map(_) => "{a: b}".to_owned(),
        Kind::Block(_) | Kind::Named(_) => "{}".to_owned(),
        Kind::Blocks(_) => "[{}]".to_owned(),
        Kind::Text | Kind::List(_) | Kind::Special(..) => "other".to_owned(),
    }
}

#[test]
fn every_choice_of_the_table_is_a_choice_and_no_other() {
    let bad = |text: &str, key: &str| {
        let loaded = loaded(text);
        loaded.problems.iter().any(|problem| problem.code == Code::BadChoice && problem.at.key.as_str() == key)
    };
    let base = |key: &str| {
        let kept = BASE.lines().filter(|line| !line.starts_with(&format!("{key}:")));
        kept.map(|line| format!("{line}\n")).collect::<String>()
    };
    for key in SETTINGS.keys {
        let Kind::Choice(names) = key.kind else { continue };
        for name in names {
            let text = format!("{}{}: {}\n", base(key.name), key.name, name.to_uppercase());
            assert!(!bad(&text, key.name), "{} {name}", key.name);
        }
        let other = loaded(&format!("{}{}: no-such\n", base(key.name), key.name));
        assert!(is_told(&other, key.name), "{}", key.name);
    }
    for key in ROUTE.keys {
        let Kind::Choice(names) = key.kind else { continue };
        let path = format!("routes[0].{}", key.name);
        let text =
            |name: &str| format!("{BASE}{}    {}: '{name}'\n", route_text("    to: http://127.0.0.1\n"), key.name);
        assert!(names.iter().all(|name| !bad(&text(name), &path)) && bad(&text("no-such"), &path), "{}", key.name);
    }
}

#[test]
fn a_constant_is_named_in_full_without_its_prefix_or_by_its_end() {
    let choices = || [("round_robin", 1), ("least_request", 2)];
    for text in ["LOAD_BALANCING_POLICY_LEAST_REQUEST", "least_request", "Request", "policy_least_request"] {
        assert_eq!(value::choose(text, "load_balancing_policy_", choices()), Some(2), "{text}");
    }
    assert_eq!(value::choose("", "load_balancing_policy_", choices()), Some(1));
    for text in ["equest", "least", "load_balancing_policy_", "_"] {
        assert_eq!(value::choose(text, "load_balancing_policy_", choices()), None, "{text}");
    }
}

#[test]
fn a_switch_that_is_off_stops_nothing() {
    for key in [
        "autocert: false",
        "use_proxy_protocol: false",
        "bearer_token_format: ''",
        "bearer_token_format: default",
        "bearer_token_format: BEARER_TOKEN_FORMAT_DEFAULT",
        "autocert: 'false'",
        "metrics_basic_auth: ''",
        "dns_resolvers: []",
    ] {
        assert_eq!(errors(&format!("{key}\n")), [] as [&str; 0], "{key}");
    }
    assert!(config("client_ca:\npolicy_file: ''\n").edge.routes.is_empty());
}

#[test]
fn keys_are_read_in_any_case_and_claims_keep_theirs() {
    let loaded = loaded(&BASE.replace("insecure_server", "Insecure_Server"));
    assert!(loaded.config.is_some());
    assert_eq!(
        config("jwt_claims_headers: {X-Groups: GroupIds}").edge.identity.claim_headers,
        [ClaimHeader { header: HeaderName::from_static("x-groups"), claim: "GroupIds".to_owned() }]
    );
}

#[test]
fn a_key_with_a_dot_sits_in_the_map_before_the_dot() {
    assert_eq!(warnings("downstream_mtls.max_verify_depth: 2\n"), ["PST-0104 downstream_mtls"]);
    let text = "runtime_flags: {mcp: false}\nRuntime_Flags.match_any_incoming_port: false\n";
    assert!(!config(text).edge.request.match_any_incoming_port);
    assert!(!config("runtime_flags.match_any_incoming_port: false\n").edge.request.match_any_incoming_port);
    assert!(!errors("runtime_flags: 3\nruntime_flags.mcp: false\n").is_empty());
}

#[test]
fn lenient_turns_errors_on_unknown_keys_into_warnings_and_nothing_else() {
    let text = format!("{BASE}{}", route_text("    to: http://127.0.0.1\n    colour: red\n"));
    let lenient = |text: &str| load_text(Some("config.yaml"), text, true, &environment(&[]));
    assert!(loaded(&text).config.is_none());
    let relaxed = lenient(&text);
    assert_eq!(told(&relaxed, Severity::Advisory), ["PST-0101 routes[0].colour"]);
    assert!(relaxed.config.is_some());
    assert!(lenient(&format!("{text}client_ca: x\n")).config.is_none());
    assert!(lenient(&format!("{text}downstream_mtls: {{ca: x}}\n")).config.is_none());
}

#[test]
fn the_environment_beats_the_file_key_by_key() {
    let load = |variables: &[(&str, &str)]| {
        let text = format!("{BASE}timeout_idle: 1m\ncookie_name: file\n");
        load_text(Some("config.yaml"), &text, false, &environment(variables)).config.unwrap()
    };
    let config = load(&[("COOKIE_NAME", "environment"), ("TIMEOUT_IDLE", ""), ("PASS_IDENTITY_HEADERS", "t")]);
    assert_eq!(config.edge.cookie.name, "environment");
    assert_eq!(config.edge.timeouts.idle, Some(Duration::from_secs(60)));
    assert!(config.edge.identity.pass_identity_headers);
    let config = load(&[
        ("HEADERS", "X-A:1,X-B: two"),
        ("JWT_CLAIMS_HEADERS", "email, groups name"),
        ("RUNTIME_FLAGS", r#"{"match_any_incoming_port":false}"#),
        ("IDP_REQUEST_PARAMS", r#"{"prompt":"login"}"#),
        ("ACCESS_LOG_FIELDS", "method,path"),
    ]);
    let value = |text: &'static str| HeaderValue::from_static(text);
    let named = |name: &'static str| HeaderName::from_static(name);
    assert_eq!(*config.edge.response_headers.0, [(named("x-a"), value("1")), (named("x-b"), value("two"))]);
    let claims: Vec<_> = config.edge.identity.claim_headers.iter().map(|claim| claim.header.as_str()).collect();
    assert_eq!(claims, ["x-pomerium-claim-email", "x-pomerium-claim-groups", "x-pomerium-claim-name"]);
    assert!(!config.edge.request.match_any_incoming_port);
    assert_eq!(config.edge.logs.access.len(), 2);
}

#[test]
fn routes_come_from_the_environment_too() {
    use base64::Engine as _;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let routes =
        encode("- {from: https://a.example.com, to: 'http://127.0.0.1', allow_public_unauthenticated_access: true}");
    let environment_of = |routes: &str| environment(&[("ROUTES", routes), ("INSECURE_SERVER", "true")]);
    let loaded = load(&Source::default(), &environment_of(&routes));
    assert_eq!(loaded.config.unwrap().edge.routes.len(), 1);
    let broken = load(&Source::default(), &environment_of(&encode("- from: https://a.example.com\n  colour: red\n")));
    let text = broken.problems.to_human(Colour::Plain);
    assert!(text.contains("environment variable ROUTES, decoded, line 2"), "{text}");
    assert!(load(&Source::default(), &environment_of("***")).config.is_none());
}

#[test]
fn a_bare_number_of_nanoseconds_is_a_duration_in_the_file_only() {
    assert_eq!(config("timeout_read: 2000000000\n").edge.timeouts.read, Some(Duration::from_secs(2)));
    assert_eq!(warnings("timeout_read: 30\n"), ["PST-0203 timeout_read"]);
    assert_eq!(config("timeout_read: 0\n").edge.timeouts.read, None);
    let in_environment = load_text(None, BASE, false, &environment(&[("TIMEOUT_READ", "30")]));
    assert_eq!(told(&in_environment, Severity::Fatal), ["PST-0202 timeout_read"]);
}

#[test]
fn every_variable_stands_for_one_key() {
    let mut seen = BTreeSet::new();
    for (title, scope) in SCOPES {
        for key in scope.keys {
            if let Some(name) = scope.variable(key) {
                assert!(seen.insert(name.clone()), "{title}: {name}");
            }
        }
    }
    assert!(seen.contains("HEADERS") && seen.contains("DOWNSTREAM_MTLS_CA_FILE") && !seen.contains("BLOB_STORAGE"));
}

#[test]
fn what_holds_is_told_with_its_origin_and_without_secrets() {
    let text = format!(
        "{BASE}timeout_read: 5400000000000\ncodec_type: CODEC_TYPE_HTTP2\nidp_client_secret: hunter2\nmerge_slashes: f\n\
         routes:\n  - {{from: https://a.example.com, to: 'http://127.0.0.1', allowed_users: [a, b], \
         set_request_headers: {{Authorization: Bearer hunter2, X-A: b}}, redirect: {{https_redirect: t}}}}\n"
    );
    let variables = environment(&[
        ("COOKIE_NAME", "door"),
        ("DOWNSTREAM_MTLS_MAX_VERIFY_DEPTH", "2"),
        ("COOKIE_SECRET", "swordfish"),
        ("RUNTIME_FLAGS", r#"{"mcp":false}"#),
    ]);
    let all = effective(&load_text(Some("config.yaml"), &text, false, &variables), Keys::All);
    let all = effective::flattened(&all);
    let told: Vec<_> = all
        .iter()
        .map(|(at, value, status)| {
            let origin = match &at.origin {
                Origin::File => format!("line {}", at.place.line),
                Origin::Environment(name) => name.to_string(),
                Origin::Absent => "default".to_owned(),
            };
            format!("{} = {value} ({origin}; {status})", at.key)
        })
        .collect();
    for expected in [
        "timeout_read = 1h30m (line 8; works)",
        "codec_type = http2 (line 9; works)",
        "merge_slashes = false (line 11; works)",
        "idp_client_secret = [redacted] (line 10; works)",
        "cookie_secret = [redacted] (COOKIE_SECRET; works)",
        "cookie_name = door (COOKIE_NAME; works)",
        "cookie_expire = 14h (default; works)",
        "runtime_flags.mcp = false (RUNTIME_FLAGS; works)",
        "runtime_flags.config_hot_reload = true (default; works)",
        "downstream_mtls.max_verify_depth = 2 (DOWNSTREAM_MTLS_MAX_VERIFY_DEPTH; works)",
        "downstream_mtls.enforcement = policy_with_default_deny (default; works)",
        "limits.drain_timeout = 30s (default; works)",
        "routes[0].allowed_users = a, b (line 13; works)",
        "routes[0].set_request_headers = {\"Authorization\":\"[redacted]\",\"X-A\":\"b\"} (line 13; works)",
        "routes[0].redirect.https_redirect = true (line 13; works)",
    ] {
        assert!(told.iter().any(|told| told == expected), "{expected}: {told:#?}");
    }
    assert!(!format!("{all:?}").contains("hunter2"));
    let top: Vec<_> = all.iter().filter(|(at, ..)| !at.key.as_str().contains(['.', '['])).collect();
    let kept = SETTINGS.keys.iter().filter(|key| !matches!(key.status, Status::Removed(_)));
    let apart = ["routes", "downstream_mtls", "runtime_flags", "limits", "circuit_breaker_thresholds"];
    assert_eq!(top.len(), kept.count() - apart.len(), "{apart:?} are told key by key");
}

#[test]
fn a_toml_file_is_read_like_a_yaml_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    let text = format!(
        "insecure_server = true\nshared_secret = '{SECRET}'\ncookie_secret = '{SECRET}'\nadress = ':80'\n\
         [runtime_flags]\nmatch_any_incoming_port = false\n\n[[routes]]\nfrom = 'https://a.example.com'\n\
         to = 'http://127.0.0.1'\nallow_public_unauthenticated_access = true\ncolour = 'red'\n"
    );
    let load = |text: &str| {
        fs::write(&file, text).unwrap();
        load(&Source { file: Some(file.clone()), lenient: false }, &environment(&[]))
    };
    let broken = load(&text);
    let places: Vec<_> = broken
        .problems
        .iter()
        .filter(|problem| problem.code == Code::UnknownKey)
        .map(|problem| (problem.at.key.as_str().to_owned(), problem.at.place.line, problem.at.place.column))
        .collect();
    assert_eq!(places, [("adress".to_owned(), 4, 1), ("routes[0].colour".to_owned(), 12, 1)]);
    assert!(!broken.problems.to_human(Colour::Plain).contains(SECRET), "s_108");
    let config = load(&text.replace("colour", "name")).config.unwrap();
    assert_eq!(config.edge.routes[0].name, "red");
    assert!(!config.edge.request.match_any_incoming_port);
    assert_eq!(load("address = [\n").problems.iter().map(|problem| problem.code).collect::<Vec<_>>(), [Code::Syntax]);
}

#[test]
fn that_a_certificate_in_place_of_an_authority_vouches_for_itself_alone_is_told() {
    use base64::Engine as _;
    let pair = rcgen::generate_simple_self_signed(["client.example.com".to_owned()]).unwrap();
    let ca = base64::engine::general_purpose::STANDARD.encode(pair.cert.pem());
    assert!(warnings(&format!("downstream_mtls: {{ca: {ca}}}\n")).contains(&"PST-0304 downstream_mtls.ca".to_owned()));
}

#[test]
fn a_nested_variable_is_named_like_its_key() {
    let loaded = load_text(None, BASE, false, &environment(&[("DOWNSTREAM_MTLS_MAX_VERIFY_DEPTH", "2")]));
    assert_eq!(told(&loaded, Severity::Advisory), ["PST-0104 downstream_mtls"]);
}

#[test]
fn hosts_of_from_are_matched_as_written() {
    let hosts = |from: &str| {
        let text = format!(
            "routes:\n  - from: {from}\n    to: http://127.0.0.1\n    allow_public_unauthenticated_access: true\n"
        );
        match &config(&text).edge.routes.first().unwrap().hosts {
            hosts @ HostPattern::Exact { host, port } => (host.clone(), *port, hosts.clone()),
            hosts @ HostPattern::Wildcard { pattern, port } => (pattern.clone(), *port, hosts.clone()),
        }
    };
    assert_eq!(hosts("https://App.Example.com/").0, "app.example.com");
    assert_eq!(hosts("https://app.example.com:443").1, None);
    assert_eq!(hosts("http://app.example.com:80").1, None);
    assert_eq!(hosts("http://app.example.com:443").1, Some(443));
    assert_eq!(hosts("https://app.example.com:8443").1, Some(8443));
    let (_, _, wildcard) = hosts("https://a*.example.com");
    for (host, matched) in [
        ("a.example.com", true),
        ("abc.d.example.com", true),
        ("b.example.com", false),
        ("a.example.com.evil", false),
        ("axexample.com", false),
    ] {
        assert_eq!(wildcard.names(host), matched, "{host}");
    }
}

#[test]
fn only_the_first_of_regex_path_and_prefix_counts() {
    let path = |keys: &str| route(&format!("    to: http://127.0.0.1\n{keys}")).path.clone();
    assert!(matches!(path(""), PathMatcher::Prefix(prefix) if prefix == "/"));
    assert!(matches!(path("    path: /a\n    prefix: /b\n"), PathMatcher::Exact(path) if path == "/a"));
    let PathMatcher::Regex(regex) = path("    regex: /a|/b\n    path: /c\n") else { panic!() };
    for (text, matched) in [("/a", true), ("/b", true), ("/ab", false), ("/a\n", false), ("x/b", false)] {
        assert_eq!(regex.is_match(text), matched, "s_026 {text:?}");
    }
}

#[test]
fn s_021_a_path_is_matched_in_the_spelling_that_requests_are_given() {
    let to = |keys: &str| format!("    to: http://127.0.0.1\n{keys}");
    let path = |keys: &str| route(&to(keys)).path.clone();
    let cases = [
        ("/caf%c3%a9/%61%2D%5b", "/caf%C3%A9/a-%5B"),
        ("/a%2", "/a%2"),
        ("/%zz%", "/%zz%"),
        ("/%+1", "/%+1"),
        ("/caf%C3%A9", "/caf%C3%A9"),
    ];
    for (written, matched) in cases {
        let written = format!("'{written}'");
        assert!(matches!(path(&format!("    prefix: {written}\n")), PathMatcher::Prefix(path) if path == matched));
        assert!(matches!(path(&format!("    path: {written}\n")), PathMatcher::Exact(path) if path == matched));
    }
    let raw = config(&format!("normalize_path: false\n{}", route_text(&to("    prefix: /caf%c3%a9\n"))));
    assert!(matches!(&raw.edge.routes[0].path, PathMatcher::Prefix(path) if path == "/caf%c3%a9"));
    let hidden = route_text(&to("    prefix: /%2epomerium/x\n"));
    assert_eq!(errors(&hidden), [format!("{} routes[0].prefix", Code::ReservedPath)]);
    for odd in ["prefix: /a//b", "path: /a/./b", "prefix: /a/../b", "regex: '/caf%c3%a9.*'"] {
        let key = odd.split(':').next().unwrap();
        assert_eq!(
            warnings(&route_text(&to(&format!("    {odd}\n")))),
            [format!("{} routes[0].{key}", Code::BadTarget)],
            "{odd}"
        );
    }
    assert!(warnings(&route_text(&to("    regex: '/caf%C3%A9[%a-f]*'\n"))).is_empty());
}

#[test]
fn an_upstream_is_called_by_a_name_that_can_be_sent() {
    for (to, authority) in [
        ("http://b\u{fc}cher.example:8080/x", "xn--bcher-kva.example:8080"),
        ("http:///app.internal", "app.internal"),
        ("https://U.example.com:443", "U.example.com:443"),
        ("http://[::1]:81", "[::1]:81"),
    ] {
        let Target::Upstream(upstream) = &route(&format!("    to: '{to}'\n")).target else { panic!("{to}") };
        assert_eq!(&*upstream.endpoints[0].authority, authority, "{to}");
    }
}

#[test]
fn where_a_route_leads_and_how_it_rewrites() {
    let upstream = |route: &Route| match &route.target {
        Target::Upstream(upstream) => upstream.endpoints.clone(),
        Target::Redirect(_) | Target::Response { .. } => panic!(),
    };
    let one = route("    to: [https://U.example.com/base, 'http://localhost:81']\n");
    let endpoints = upstream(&one);
    assert_eq!(endpoints.len(), 2);
    assert_eq!(
        (endpoints[0].scheme.is_tls(), endpoints[0].port, &*endpoints[0].authority),
        (true, 443, "U.example.com")
    );
    assert_eq!((endpoints[1].scheme.is_tls(), endpoints[1].port, endpoints[1].host.as_str()), (false, 81, "localhost"));
    assert!(matches!(&one.rewrite, Some(PathRewrite::Prefix(path)) if path == "/base"));
    assert_eq!(one.host_rewrite, HostRewrite::Upstream);
    let two = route("    to: http://127.0.0.1/\n    prefix_rewrite: /x\n    preserve_host_header: true\n");
    assert!(matches!(&two.rewrite, Some(PathRewrite::Prefix(path)) if path == "/x"));
    assert_eq!(two.host_rewrite, HostRewrite::Preserve);
    let three = route(
        "    redirect: {https_redirect: true, host_redirect: b.example.com, response_code: 308}\n    to: http://127.0.0.1\n",
    );
    let Target::Redirect(redirect) = &three.target else { panic!() };
    assert_eq!(
        (redirect.scheme.as_deref(), redirect.host.as_deref(), redirect.status.as_u16()),
        (Some("https"), Some("b.example.com"), 308)
    );
    let by = |keys: &str| route(&format!("    to: http://127.0.0.1/x\n    {}\n", keys.replace('\n', "\n    ")));
    let expression = |pattern: &str, text: &str| RegexRewrite::new(regex::Regex::new(pattern).unwrap(), text).unwrap();
    let three = by("regex_rewrite_pattern: '^/(.)/(.)'\nregex_rewrite_substitution: '/\\2/\\1'");
    assert!(matches!(&three.rewrite, Some(PathRewrite::Regex(one)) if *one == expression("^/(.)/(.)", "/\\2/\\1")));
    let all = [
        ("host_rewrite: a", HostRewrite::Literal(Box::new(HeaderValue::from_static("a")))),
        ("host_rewrite_header: X-Host", HostRewrite::Header(HeaderName::from_static("x-host"))),
        (
            "host_path_regex_rewrite_pattern: '^/(.)$'\nhost_path_regex_rewrite_substitution: '\\1.b'",
            HostRewrite::Path(expression("^/(.)$", "\\1.b")),
        ),
        ("preserve_host_header: true", HostRewrite::Preserve),
    ];
    for (first, (_, expected)) in all.iter().enumerate() {
        let keys: Vec<_> = all[first..].iter().map(|(keys, _)| *keys).collect();
        assert_eq!(by(&keys.join("\n")).host_rewrite, *expected, "the first of them holds");
    }
    let answers = by("rewrite_response_headers: [{header: Location, prefix: a, value: b}, {header: x}]");
    let told: Vec<_> = answers.response_rewrites.iter().map(|one| (one.header.as_str(), &*one.prefix)).collect();
    assert_eq!(told, [("location", "a"), ("x", "")]);
    let four = route("    response: {status: 404, body: gone}\n    host_rewrite: inner:80\n");
    assert!(matches!(&four.target, Target::Response { status: StatusCode::NOT_FOUND, body } if body == "gone"));
    assert_eq!(four.host_rewrite, HostRewrite::Literal(Box::new(HeaderValue::from_static("inner:80"))));
}

#[test]
fn time_outs_of_a_route_follow_what_it_carries() {
    let times = |keys: &str| {
        let route = route(&format!("    to: http://127.0.0.1\n{keys}"));
        (route.timeout.map(|time| time.as_secs()), route.idle_timeout.map(|time| time.as_secs()))
    };
    assert_eq!(times(""), (Some(30), Some(300)));
    assert_eq!(times("    allow_websockets: true\n"), (None, None));
    assert_eq!(times("    timeout: 0\n"), (None, Some(300)));
    assert_eq!(times("    idle_timeout: 1h\n"), (Some(30), Some(3600)));
    assert_eq!(times("    allow_websockets: true\n    timeout: 5s\n"), (Some(5), None));
    assert_eq!(times("    allow_upgrades: [WebSocket]\n"), (None, None));
    assert_eq!(times("    allow_spdy: true\n"), (Some(30), Some(300)));
}

#[test]
fn upgrades_of_a_route_take_the_place_of_the_global_ones_and_flags_add_to_them() {
    let upgrades = |global: &str, keys: &str| {
        let config = config(&format!("{global}{}", route_text(&format!("    to: http://127.0.0.1\n{keys}"))));
        config.edge.routes[0].upgrades.iter().collect::<Vec<_>>().join(" ")
    };
    let global = "allow_upgrades: [WebSocket, SPDY/3.1, '']\n";
    assert_eq!(upgrades("", ""), "");
    assert_eq!(upgrades(global, ""), "websocket spdy/3.1");
    assert_eq!(upgrades("allow_upgrades: websocket,tcp\n", ""), "websocket tcp");
    assert_eq!(upgrades(global, "    allow_upgrades: [Custom]\n"), "custom");
    assert_eq!(upgrades(global, "    allow_upgrades: []\n"), "");
    assert_eq!(upgrades(global, "    allow_upgrades: [tcp]\n    allow_websockets: true\n"), "tcp websocket");
    assert_eq!(upgrades("", "    allow_spdy: true\n    allow_websockets: true\n"), "websocket spdy/3.1");
    let http = route_text("    to: http://127.0.0.1\n    allow_upgrades: [H2C, TLS/1.0, HTTP/2.0, websocket]\n");
    let expected = [0, 1, 2].map(|at| format!("{} routes[0].allow_upgrades[{at}]", Code::NoEffect));
    assert_eq!(warnings(&http), expected, "what is HTTP all the same is never asked for (S-010)");
}

/// The text of a public route of connections.
fn connections(from: &str, to: &str, keys: &str) -> String {
    format!("routes:\n  - from: '{from}'\n    to: '{to}'\n    allow_public_unauthenticated_access: true\n{keys}")
}

#[test]
fn a_route_of_connections_names_hosts_and_ports_and_what_it_leads_to() {
    let tunnel = |from: &str, to: &str| {
        let config = config(&connections(from, to, ""));
        let route = &config.edge.routes[0];
        let Target::Upstream(upstream) = &route.target else { panic!("{from}") };
        let tunnel = route.tunnel.as_deref().unwrap();
        let authorities = tunnel.authorities.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!((route.timeout, route.idle_timeout, route.pass_identity_headers), (None, None, false), "{from}");
        (authorities, tunnel.proxy.as_deref().map(str::to_owned), upstream.endpoints[0].to_string())
    };
    let told = |authorities: &str, proxy: Option<&str>, to: &str| {
        (authorities.to_owned(), proxy.map(str::to_owned), to.to_owned())
    };
    let (db, to) = ("tcp+https://DB.example.com:5432", "tcp://10.0.0.5:5432");
    assert_eq!(tunnel(db, to), told("db.example.com:5432", None, to));
    assert_eq!(
        tunnel("tcp+https://Proxy.example.com:8443/a.internal:1/10.0.0.7:2/", to),
        told("a.internal:1 10.0.0.7:2", Some("proxy.example.com"), to)
    );
    assert_eq!(tunnel("tcp+https://*.example.com:22", to).0, "*.example.com:22");
    assert_eq!(tunnel(db, "https://next.example.com").2, "https://next.example.com", "a proxy is asked in turn");
    let open = config(&connections(db, to, "    idle_timeout: 1h\n"));
    assert_eq!(open.edge.routes[0].idle_timeout, Some(Duration::from_secs(3600)));
    let unsaid = BASE.replace("authenticate_service_url: https://authenticate.example.com\n", "");
    let somebody =
        connections(db, to, "").replace("allow_public_unauthenticated_access", "allow_any_authenticated_user");
    let guessed = loaded(&format!("{unsaid}{somebody}")).config.unwrap().edge.authenticate.url;
    assert_eq!(guessed.as_str(), "https://authenticate.example.com/", "the port is no part of where people sign in");

    for (from, to, problem) in [
        ("tcp+https://", to, format!("{} routes[0].from", Code::BadFrom)),
        ("tcp+https://p.example.com/a b", to, format!("{} routes[0].from", Code::BadFrom)),
        ("tcp+https://*.example.com/a.internal:1", to, format!("{} routes[0].from", Code::BadFrom)),
        (db, "h2c://a:1", format!("{} routes[0].to", Code::BadTo)),
        ("https://db.example.com", to, format!("{} routes[0].to", Code::BadTo)),
    ] {
        assert_eq!(errors(&connections(from, to, "")), [problem], "{from} {to}");
    }
    let redirect = connections(db, to, "    redirect: {host_redirect: a.example.com}\n");
    assert_eq!(errors(&redirect), [format!("{} routes[0].redirect", Code::BadTarget)]);

    let idle = connections(db, to, "    prefix: /a\n    timeout: 5s\n    allow_websockets: true\n");
    let idle_keys = ["prefix", "timeout", "allow_websockets"];
    assert_eq!(warnings(&idle), idle_keys.map(|key| format!("{} routes[0].{key}", Code::NoEffect)));
    assert_eq!(
        warnings(&connections("tcp+https://db.example.com", to, "")),
        [format!("{} routes[0].from", Code::NoEffect)]
    );
    let twice = format!(
        "{}  - {{from: '{db}', to: 'tcp://10.0.0.6:5432', allow_public_unauthenticated_access: true}}\n",
        connections(db, to, "")
    );
    assert_eq!(warnings(&twice), [format!("{} routes[1].from", Code::HiddenRoute)]);
}

#[test]
fn a_route_of_datagrams_is_written_as_one_of_connections_is() {
    let tunnel = |from: &str, to: &str| {
        let config = config(&connections(from, to, ""));
        let route = &config.edge.routes[0];
        let Target::Upstream(upstream) = &route.target else { panic!("{from}") };
        let tunnel = route.tunnel.as_deref().unwrap();
        let authorities = tunnel.authorities.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!((route.timeout, route.idle_timeout, route.pass_identity_headers), (None, None, false), "{from}");
        assert_eq!(tunnel.carries, Carries::Datagrams, "{from}");
        (authorities, tunnel.proxy.as_deref().map(str::to_owned), upstream.endpoints[0].to_string())
    };
    let told = |authorities: &str, proxy: Option<&str>, to: &str| {
        (authorities.to_owned(), proxy.map(str::to_owned), to.to_owned())
    };
    let (dns, to) = ("udp+https://DNS.example.com:53", "udp://10.0.0.53:53");
    assert_eq!(tunnel(dns, to), told("dns.example.com:53", None, to));
    assert_eq!(
        tunnel("UDP+HTTPS://Proxy.example.com:8443/dns.internal:53/[2001:DB8::42]:53/", to),
        told("dns.internal:53 [2001:db8::42]:53", Some("proxy.example.com"), to)
    );
    assert_eq!(tunnel("udp+https://*.example.com:53", to).0, "*.example.com:53");
    assert_eq!(tunnel(dns, "https://next.example.com").2, "https://next.example.com", "a proxy is asked in turn");
    let weighted = format!(
        "routes: [{{from: '{dns}', to: ['udp://a:53,3', 'udp://b:53,1'], allow_public_unauthenticated_access: true}}]\n"
    );
    let Target::Upstream(upstream) = &config(&weighted).edge.routes[0].target else { panic!() };
    assert_eq!(upstream.endpoints.iter().map(|one| one.weight).collect::<Vec<_>>(), [3, 1]);

    for (from, to, problem) in [
        ("udp+https://", to, format!("{} routes[0].from", Code::BadFrom)),
        ("udp+https://p.example.com/a b", to, format!("{} routes[0].from", Code::BadFrom)),
        ("udp+https://*.example.com/a.internal:1", to, format!("{} routes[0].from", Code::BadFrom)),
        (dns, "tcp://10.0.0.53:53", format!("{} routes[0].to", Code::BadTo)),
        (dns, "h2c://a:1", format!("{} routes[0].to", Code::BadTo)),
        ("https://dns.example.com", to, format!("{} routes[0].to", Code::BadTo)),
        ("tcp+https://dns.example.com:53", to, format!("{} routes[0].to", Code::BadTo)),
    ] {
        assert_eq!(errors(&connections(from, to, "")), [problem], "{from} {to}");
    }
    let mixed = connections(dns, to, "").replace(&format!("'{to}'"), &format!("['{to}', 'tcp://10.0.0.53:53']"));
    assert_eq!(errors(&mixed), [format!("{} routes[0].to[1]", Code::BadTo)]);
    let response = connections(dns, to, "    response: {status: 200, body: a}\n");
    assert_eq!(errors(&response), [format!("{} routes[0].response", Code::BadTarget)]);
    let idle = connections(dns, to, "    set_request_headers: {X-A: b}\n    allow_upgrades: [connect-udp]\n");
    let idle_keys = ["set_request_headers", "allow_upgrades"];
    assert_eq!(warnings(&idle), idle_keys.map(|key| format!("{} routes[0].{key}", Code::NoEffect)));
    let portless = loaded(&format!("{BASE}{}", connections("udp+https://p.example.com/dns.internal", to, "")));
    let said: Vec<_> = portless.problems.iter().map(|problem| problem.what.clone()).collect();
    assert!(said.iter().any(|what| what.contains("a CONNECT-UDP names a port")), "{said:?}");
    let beside = |from: &str, to: &str| {
        let other = format!("  - {{from: '{from}', to: '{to}', allow_public_unauthenticated_access: true}}\n");
        warnings(&(connections(dns, "udp://10.0.0.54:53", "") + &other))
    };
    assert_eq!(beside(dns, to), [format!("{} routes[1].from", Code::HiddenRoute)]);
    assert_eq!(beside("tcp+https://dns.example.com:53", "tcp://10.0.0.53:53"), [] as [&str; 0], "both may be there");
}

#[test]
fn certificates_are_ordered_for_the_hosts_that_clients_of_tunnels_connect_to() {
    let base = BASE.replace("insecure_server: true\n", "autocert: true\nautocert_use_staging: true\n");
    let route = |from: &str, to: &str| {
        format!("  - {{from: '{from}', to: '{to}', allow_public_unauthenticated_access: true}}\n")
    };
    let routes = [
        route("tcp+https://proxy.example.com/db.internal:5432", "tcp://10.0.0.5:5432"),
        route("udp+https://udp.example.com:8443/dns.internal:53", "udp://10.0.0.53:53"),
        route("udp+https://dns.example.com:53", "udp://10.0.0.53:53"),
        route("tcp+http://plain.example.com/db.internal:5432", "tcp://10.0.0.6:5432"),
    ];
    let text = format!("{base}routes:\n{}", routes.concat());
    let config = load_text(None, &text, false, &environment(&[])).config.unwrap();
    let names = config.autocert.unwrap().names;
    assert_eq!(names, ["authenticate.example.com", "dns.example.com", "proxy.example.com", "udp.example.com"]);
}

#[test]
fn response_headers_have_defaults_without_preload_and_routes_win() {
    let names = |config: &Config| {
        config
            .edge
            .response_headers
            .0
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&config("")), ["x-frame-options: SAMEORIGIN", "x-xss-protection: 1; mode=block"]);
    let (_folder, loaded) = big();
    assert!(names(&loaded.config.unwrap()).is_empty(), "`disable` empties the lot");
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let text = format!("certificates: [{{cert: {0}/tls.crt, key: {0}/tls.key}}]\n", folder.path().display());
    assert_eq!(names(&config(&text))[2], "strict-transport-security: max-age=31536000; includeSubDomains");
    let trying = BASE.replace("insecure_server: true\n", "autocert: true\nautocert_use_staging: true\n") + &text;
    assert_eq!(
        names(&load_text(None, &trying, false, &environment(&[])).config.unwrap()).len(),
        2,
        "nobody trusts what is issued for trying out"
    );
    assert!(names(&config("set_response_headers: {}\n")).is_empty());
    let own = config(
        &(route_text("    to: http://127.0.0.1\n    set_response_headers: {X-Frame-Options: DENY}\n")
            + "set_response_headers: {X-A: a, X-Frame-Options: x}\n"),
    );
    let merged: Vec<_> = own.edge.routes[0]
        .response_headers
        .0
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    assert_eq!(merged, [("x-a", "a"), ("x-frame-options", "DENY")]);
}

#[test]
fn removal_of_request_headers_comes_after_setting() {
    let route = route(
        "    to: http://127.0.0.1\n    set_request_headers: {X-Price: $$5, X-A: '${nothing}'}\n    remove_request_headers: [X-Price]\n",
    );
    let named = |name: &'static str| HeaderName::from_static(name);
    assert_eq!(
        route.request_headers,
        [
            HeaderRule::Set(named("x-price"), HeaderValue::from_static("$$5")),
            HeaderRule::Set(named("x-a"), HeaderValue::from_static("${nothing}")),
            HeaderRule::Remove(named("x-price")),
        ]
    );
}

#[test]
fn s_047_a_route_sets_no_reserved_header_in_any_spelling() {
    for name in [
        "X-Pomerium-Jwt-Assertion",
        "x_pomerium_claim_email",
        "X.Pomerium.Anything",
        "X-Postern-Anything",
        "Host",
        "X-Mail",
        "x_mail",
        "Transfer-Encoding",
        "Connection",
    ] {
        let text = route_text(&format!("    to: http://127.0.0.1\n    set_request_headers: {{{name}: x}}\n"));
        let found = errors(&format!("jwt_claims_headers: {{X-Mail: email}}\n{text}"));
        assert_eq!(found, [format!("PST-0605 routes[0].set_request_headers.{name}")], "{name}");
    }
    for name in [":path", "a b", ""] {
        let text = route_text(&format!("    to: http://127.0.0.1\n    set_request_headers: {{'{name}': x}}\n"));
        assert_eq!(errors(&text).len(), 1, "{name}");
    }
    for name in ["Host", "content-length", "Transfer-Encoding"] {
        let text = route_text(&format!(
            "    to: http://127.0.0.1\n    remove_request_headers: [X-Pomerium-Jwt-Assertion, {name}]\n"
        ));
        assert_eq!(errors(&text), ["PST-0605 routes[0].remove_request_headers[1]"], "{name}");
    }
    for value in ["a/b", "a b", "user@b", "*"] {
        let text = route_text(&format!("    to: http://127.0.0.1\n    host_rewrite: '{value}'\n"));
        assert_eq!(errors(&text), ["PST-0208 routes[0].host_rewrite"], "{value}");
    }
}

#[test]
fn s_036_a_route_claims_nothing_that_is_claimed_already() {
    let twice = |second: &str| {
        let one = "  - {from: https://app.example.com, to: 'http://127.0.0.1', prefix: /a, allow_public_unauthenticated_access: true}\n";
        errors(&format!("routes:\n{one}{second}"))
    };
    let same =
        "  - {from: https://app.example.com, to: 'http://127.0.0.1', prefix: /a, allow_any_authenticated_user: true}\n";
    assert_eq!(twice(same), ["PST-0604 routes[1].from"]);
    assert!(twice(&same.replace("/a", "/b")).is_empty());
    assert!(twice(&same.replace("127.0.0.1", "127.0.0.2")).is_empty(), "another upstream is another identity");
    for (path, refused) in [
        ("/.pomerium", true),
        ("/.pomerium/callback/", true),
        ("/.well-known/pomerium/jwks.json", true),
        ("/.pomeriumx", false),
        ("/.well-known/other", false),
    ] {
        let text = route_text(&format!("    to: http://127.0.0.1\n    path: {path}\n"));
        assert_eq!(errors(&text).contains(&"PST-0606 routes[0].path".to_owned()), refused, "{path}");
    }
}

#[test]
fn the_identity_of_a_route_is_its_match_and_target() {
    let id = |keys: &str| route(keys).id.clone();
    let one = id("    to: http://127.0.0.1\n");
    assert_eq!(one.len(), 16);
    assert_eq!(one, id("    to: http://127.0.0.1\n    timeout: 3s\n    name: other\n"));
    assert_ne!(one, id("    to: http://127.0.0.1\n    prefix: /a\n"));
    assert_ne!(one, id("    to: http://127.0.0.2\n"));
    assert_ne!(id("    path: /a\n    to: http://127.0.0.1\n"), id("    prefix: /a\n    to: http://127.0.0.1\n"));
}

#[test]
fn a_route_of_another_client_has_another_provider() {
    let text = format!(
        "{}  - from: https://b.example.com\n    to: http://127.0.0.1\n    allow_any_authenticated_user: true\n    idp_client_id: other\n    idp_client_secret: s\n",
        route_text("    to: http://127.0.0.1\n")
    );
    let config = config(&text);
    assert_eq!(config.authn.idps.len(), 2);
    assert_eq!(config.edge.routes[0].idp, config.authn.idps[0].id);
    assert_eq!(config.edge.routes[1].idp, config.authn.idps[1].id);
    assert_eq!(config.authn.idps[1].client_secret.as_ref().unwrap().expose(), "s");
}

#[test]
fn a_client_has_one_secret() {
    let routes = |secret: &str| {
        format!(
            "idp_client_secret: a\nroutes:\n  - {{from: https://a.example.com, to: 'http://127.0.0.1', allow_any_authenticated_user: true, idp_client_secret: {secret}}}\n"
        )
    };
    assert_eq!(errors(&routes("b")), ["PST-0212 routes[0].idp_client_secret"]);
    assert_eq!(config(&routes("a")).authn.idps.len(), 1);
}

#[test]
fn azure_needs_its_tenant() {
    let text = |url: &str| BASE.replace("oidc", "azure").replace("https://idp.example.com", url);
    assert!(loaded(&text("https://login.microsoftonline.com/7a0c/v2.0")).config.is_some());
    assert_eq!(
        told(&loaded(&text("https://login.microsoftonline.com/common/v2.0")), Severity::Fatal),
        ["PST-0103 idp_provider_url"]
    );
}

#[test]
fn a_route_outside_of_the_cookie_domain_is_told_of() {
    let route = |host: &str| {
        format!(
            "cookie_domain: example.com\nroutes:\n  - {{from: 'https://{host}', to: 'http://127.0.0.1', allow_any_authenticated_user: true}}\n"
        )
    };
    assert_eq!(warnings(&route("a.example.com")).len(), 1);
    assert_eq!(warnings(&route("a.badexample.com")).len(), 2);
}

#[test]
fn nobody_is_sent_to_a_service_of_somebody_else() {
    let text = BASE.replace("authenticate.example.com", "authenticate.pomerium.app");
    assert_eq!(told(&loaded(&text), Severity::Fatal), ["PST-0402 authenticate_service_url"]);
}

#[test]
fn an_idp_keeps_its_id_when_its_secret_changes() {
    let id = |text: &str| config(text).authn.idps[0].id.clone();
    assert_eq!(id("idp_client_secret: a\n"), id("idp_client_secret: b\n"));
    assert_ne!(
        id(""),
        load_text(None, &BASE.replace("postern", "other"), false, &environment(&[])).config.unwrap().authn.idps[0].id
    );
}

#[test]
fn where_people_sign_in_is_guessed_only_if_it_is_clear() {
    let guess = |hosts: &[&str]| {
        let routes: String = hosts
            .iter()
            .map(|host| {
                format!("  - {{from: 'https://{host}', to: 'http://127.0.0.1', allow_any_authenticated_user: true}}\n")
            })
            .collect();
        let text =
            BASE.replace("authenticate_service_url: https://authenticate.example.com\n", "") + "routes:\n" + &routes;
        loaded(&text).config.map(|config| config.authn.url.to_string())
    };
    assert_eq!(guess(&["a.example.com", "b.example.com"]).as_deref(), Some("https://authenticate.example.com/"));
    assert_eq!(guess(&["a.localhost:8443"]).as_deref(), Some("https://authenticate.localhost:8443/"));
    assert_eq!(guess(&["*.example.com"]).as_deref(), Some("https://authenticate.example.com/"));
    for hosts in [
        &["a.example.com", "a.example.org"][..],
        &["a.example.com:1", "b.example.com:2"],
        &["example.com"],
        &["example.co.uk"],
        &["127.0.0.1"],
        &["*"],
        &["localhost"],
    ] {
        assert_eq!(guess(hosts), None, "{hosts:?}");
    }
}

#[test]
fn authn_knows_the_hosts_of_all_routes() {
    let config = config(
        "routes:\n  - {from: https://a.example.com, to: 'http://127.0.0.1', allow_public_unauthenticated_access: true}\n  \
         - {from: 'https://*.w.example.com:8443', to: 'http://127.0.0.1', allow_public_unauthenticated_access: true}\n",
    );
    let serves = |url: &str| config.authn.hosts.serves(&Url::parse(url).unwrap());
    assert!(
        serves("https://a.example.com/x")
            && serves("https://A.example.com.:9/")
            && serves("https://x.y.w.example.com:8443/")
    );
    for url in [
        "http://a.example.com/",
        "https://b.example.com/",
        "https://x.w.example.com/",
        "https://a.example.com.evil/",
        "ftp://a.example.com/",
    ] {
        assert!(!serves(url), "{url}");
    }
}

#[test]
fn authn_serves_the_ports_that_the_edge_routes() {
    let strict = config(
        "runtime_flags: {match_any_incoming_port: false}\nroutes:\n  \
         - {from: https://a.example.com, to: 'http://127.0.0.1', allow_public_unauthenticated_access: true}\n",
    );
    let serves = |url: &str| strict.authn.hosts.serves(&Url::parse(url).unwrap());
    assert!(serves("https://a.example.com/") && serves("https://a.example.com:443/"));
    assert!(!serves("https://a.example.com:9/"));
}

#[test]
fn services_say_what_a_process_is_made_of() {
    const SHARED: &str = "databroker_storage_type: redis\ndatabroker_storage_connection_string: redis://127.0.0.1\n";
    let role = |services: &str| config(&format!("{SHARED}services: {services}\n")).role;
    for all in ["all", "ALL", "[authenticate, authorize, databroker, proxy]", "proxy,cache, authenticate"] {
        assert_eq!(role(all), Role::AllInOne, "{all}");
    }
    for edge in ["proxy", "[Proxy, authorize]", "authorize,databroker,proxy"] {
        assert_eq!(role(edge), Role::Edge, "{edge}");
    }
    for authn in ["authenticate", "cache, authenticate", "authorize, authenticate"] {
        assert_eq!(role(authn), Role::Authn, "{authn}");
    }
    for none in ["''", "[]", "everything", "authorize", "databroker", "[authorize, cache]"] {
        assert_eq!(errors(&format!("services: {none}\n")).len(), 1, "{none}");
    }
}

#[test]
fn a_lease_that_one_slow_heartbeat_outlasts_is_told_of() {
    const SHARED: &str = "databroker_storage_type: redis\ndatabroker_storage_connection_string: redis://127.0.0.1\n";
    let lease = "PST-0213 session_lease";
    let told = |lines: &str| {
        warnings(&format!("{SHARED}{lines}")).into_iter().filter(|told| told.contains("0213")).collect::<Vec<_>>()
    };
    assert_eq!(told(""), [] as [&str; 0]);
    let slow = "databroker_storage_operation_timeout: 5s\n";
    assert_eq!(told(slow), ["PST-0213 databroker_storage_operation_timeout"]);
    let short = "session_lease: 500ms\nsession_heartbeat: 100ms\n";
    assert_eq!(told(&format!("{slow}{short}")), [lease]);
    assert_eq!(told(short), [lease], "two commands of 500 ms each");
    assert_eq!(told(&format!("{slow}session_lease: 10500ms\n")), [] as [&str; 0]);
    assert_eq!(
        warnings(&format!("databroker_storage_type: memory\n{slow}"))
            .iter()
            .filter(|told| told.contains("0213"))
            .count(),
        0
    );
}

#[test]
fn processes_apart_share_secrets_and_a_store_and_edges_know_the_way_to_authn() {
    for apart in ["proxy", "authenticate"] {
        let unshared = "PST-0501 databroker_storage_type";
        assert_eq!(errors(&format!("services: {apart}\n")), [unshared], "{apart}");
        let environment = environment(&[]);
        let told_of = |text: &str| {
            let loaded =
                load_text(None, &format!("services: {apart}\ninsecure_server: true\n{text}"), false, &environment);
            told(&loaded, Severity::Fatal)
        };
        let secrets: &[&str] = match apart {
            "proxy" => &[unshared, "PST-0301 shared_secret"],
            _ => &[unshared, "PST-0301 cookie_secret", "PST-0301 shared_secret"],
        };
        let mut found = told_of("");
        found.sort();
        let mut wanted = secrets.to_vec();
        wanted.sort_unstable();
        assert_eq!(found, wanted, "{apart}");
    }
    let edge = |lines: &str| {
        format!(
            "services: proxy\ndatabroker_storage_type: redis\ndatabroker_storage_connection_string: redis://127.0.0.1\n{lines}"
        )
    };
    let at = |lines: &str| match config(&edge(lines)).edge.authenticate.upstream {
        AuthnUpstream::Elsewhere(at) => (at.scheme.is_tls(), at.host, at.port),
        AuthnUpstream::Here(_) => panic!("{lines}"),
    };
    let outer = config(&edge("")).edge.authenticate.url.host_str().unwrap().to_owned();
    assert_eq!(at(""), (true, outer, 443), "without an inner name by the outer one");
    let twice = "idp_client_secret: one\nroutes:\n- {from: https://a.example.com, to: 'http://127.0.0.1', \
                 idp_client_secret: one, allow_any_authenticated_user: true}\n";
    let idps = config(&edge(twice)).authn.idps;
    assert!(idps.iter().all(|idp| idp.client_secret.is_none()), "an edge keeps no client's secret");
    let inner = "authenticate_internal_service_url: https://authn.internal:8443\n";
    assert_eq!(at(inner), (true, "authn.internal".to_owned(), 8443));
    for wrong in ["http://authn.internal", "https://authn.internal/x", "https://authn.internal/?x"] {
        let found = errors(&edge(&format!("authenticate_internal_service_url: {wrong}\n")));
        assert_eq!(found, ["PST-0206 authenticate_internal_service_url"], "{wrong}");
    }
}

#[test]
fn without_secrets_the_process_makes_its_own_and_says_so() {
    let environment = environment(&[]);
    let load = || load_text(None, "insecure_server: true", false, &environment);
    let told = told(&load(), Severity::Advisory);
    assert_eq!(told, ["PST-0302 cookie_secret", "PST-0302 shared_secret"]);
    let mac = |loaded: Loaded| loaded.config.unwrap().edge.keyring.mac(postern_identity::Purpose::StoreId, &[b"x"]);
    assert_eq!(mac(load()), mac(load()), "a reload in the same process ends no session");
}

#[test]
fn secrets_that_are_accepted_beside_the_one_in_force_are_different_ones() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("accepted");
    let path = file.display().to_string();
    let secret = |number: usize| format!("{number:03}yMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
    let listed = |secrets: &[String]| errors(&format!("shared_secrets_accepted: [{}]\n", secrets.join(", ")));
    let in_file = |text: &str| {
        fs::write(&file, text).unwrap();
        errors(&format!("shared_secrets_accepted_file: {path}\n"))
    };
    let four: Vec<_> = (100..104).map(secret).collect();
    assert_eq!(listed(&four), [] as [&str; 0]);
    assert_eq!(in_file(&four.join("\n")), [] as [&str; 0]);
    assert_eq!(in_file(&(four.join("\n\n") + "\n")), [] as [&str; 0]);
    let at = |index: usize| format!("PST-0301 shared_secrets_accepted[{index}]");
    assert_eq!(listed(&[&four[..], &[secret(104), secret(105)]].concat()), [at(4)], "one too many");
    assert_eq!(listed(&[secret(100), "hunter2".to_owned(), secret(100)]), [at(1), at(2)], "no secret, and one twice");
    let in_force = fs::read_to_string("tests/problems/secret").unwrap();
    assert_eq!(listed(&[secret(100), in_force.clone()]), [at(1)], "the one in force");
    assert_eq!(in_file(&in_force), ["PST-0301 shared_secrets_accepted_file"]);
    let alone = format!("insecure_server: true\nshared_secrets_accepted: [{}]", secret(100));
    let loaded = load_text(None, &alone, false, &environment(&[]));
    assert_eq!(told(&loaded, Severity::Fatal), [at(0)], "beside a random one");
    let [one, other] = ["SHARED_SECRET", "SHARED_SECRETS_ACCEPTED"];
    let variables = environment(&[(one, &secret(100)), (other, &four[1..].join(","))]);
    let config = load_text(None, "insecure_server: true", false, &variables).config.unwrap();
    assert_eq!(config.edge.keyring.secrets().count(), 4);
    let set: serde_json::Value = serde_json::from_slice(config.edge.identity.keys.key_set()).unwrap();
    assert_eq!(set["keys"].as_array().unwrap().len(), 4, "upstreams know the keys of all");
}

#[test]
fn lints_name_what_probably_means_something_else() {
    let routes = |text: &str| warnings(&format!("routes:\n{text}"));
    let one = |keys: &str| format!("  - {{from: https://app.example.com, {keys}}}\n");
    let public = "allow_public_unauthenticated_access: true";
    let hidden = one(&format!("to: 'http://127.0.0.1', {public}"))
        + &one(&format!("to: 'http://127.0.0.2', prefix: /a, {public}"));
    assert_eq!(routes(&hidden), ["PST-0801 routes[1].from"]);
    let open = one(&format!("to: 'http://127.0.0.1', prefix: /a, {public}"))
        + &one("to: 'http://127.0.0.2', allow_any_authenticated_user: true");
    assert_eq!(routes(&open), ["PST-0802 routes[0].from"]);
    assert!(routes(&open.replace("prefix: /a", "prefix: /a/")).is_empty());
    assert!(routes(&open.replace("allow_any_authenticated_user", "allow_public_unauthenticated_access")).is_empty());
    let plain = one(&format!("to: 'http://10.0.0.1', pass_identity_headers: true, {public}"));
    assert_eq!(routes(&plain), ["PST-0804 routes[0].from"]);
    assert!(routes(&plain.replace("10.0.0.1", "[::1]:8080")).is_empty());
    assert_eq!(routes(&one("to: 'http://10.0.0.1'")), ["PST-0805 routes[0].from"]);
    let odd = one("to: 'http://10.0.0.1', policy: {allow: {and: [{email: {is: [a]}}], not: [{user: {is: b}}]}}");
    assert_eq!(
        routes(&odd),
        ["PST-0702 routes[0].policy.allow.and[0].email.is", "PST-0702 routes[0].policy.allow.not"]
    );
}

#[test]
fn a_route_on_the_sign_in_host_is_told_what_it_never_gets() {
    let told = |from: &str, path: &str| {
        let text = format!(
            "routes:\n  - {{from: {from}, {path}, to: 'http://127.0.0.1', \
             allow_public_unauthenticated_access: true}}\n"
        );
        let loaded = loaded(&format!("{BASE}{text}"));
        let of = |problem: &&Problem| problem.code == Code::SignInHost;
        loaded.problems.iter().find(of).map(|problem| problem.what.clone()).unwrap_or_default()
    };
    let here = "https://authenticate.example.com";
    for path in ["path: /", "path: /oauth2/callback", "path: /robots.txt"] {
        assert!(told(here, path).starts_with("no request reaches this route"), "{path}");
    }
    assert!(told(here, "prefix: /").ends_with("never gets `/`, `/oauth2/callback`, `/robots.txt`"));
    assert!(told(here, "regex: '/o.*'").ends_with("never gets `/oauth2/callback`"));
    assert!(told(here, "prefix: /app/").is_empty());
    assert!(told("https://app.example.com", "prefix: /").is_empty());
}

#[test]
fn no_certificate_is_missed_only_where_there_is_one() {
    let told = |keys: &str| {
        let text = BASE.replace("insecure_server: true\n", "");
        let loaded = loaded(&format!("{text}{keys}{}", route_text("    to: http://127.0.0.1\n")));
        told(&loaded, Severity::Advisory).iter().any(|told| told.starts_with("PST-0305"))
    };
    for none in ["", "certificates: []\n", "certificate: ''\n", "certificate_file: ''\n"] {
        assert!(told(none), "{none}");
    }
    assert!(!told("certificate_file: /nonexistent\n"), "one that cannot be read is another problem");
}

#[test]
fn s_117_an_open_route_with_a_policy_that_chooses_is_told_of() {
    let told = |wide: &str, policy: &str| {
        warnings(&format!(
            "routes:\n  - {{from: https://a.example.com, to: 'http://127.0.0.1', {wide}: true, policy: {policy}}}\n"
        ))
    };
    for wide in ["allow_public_unauthenticated_access", "allow_any_authenticated_user"] {
        assert_eq!(told(wide, "{allow: {or: [{email: {is: a}}]}}"), ["PST-0702 routes[0].policy"], "{wide}");
        assert!(told(wide, "{deny: {or: [{http_method: PUT}]}}").is_empty(), "{wide}");
    }
    // Nor may a rule on identity ask who visits what is open to all, without a word (01 §8.10).
    let deny = "{deny: {or: [{email: {is: a}}]}}";
    let asks = ["PST-0702 routes[0].policy.deny.or[0].email"];
    assert_eq!(told("allow_public_unauthenticated_access", deny), asks);
    assert!(told("allow_any_authenticated_user", deny).is_empty());
    assert_eq!(told("cors_allow_preflight", deny), asks);
}

#[test]
fn policies_with_a_name_and_a_default_hold_where_they_are_called() {
    let text = "policies:\n  staff: {allow: {and: [{domain: example.com}]}}\n  not_bob: {deny: {or: [{user: bob}]}}\n\
        default_policy: staff\nroutes:\n\
        - {from: https://a.example.com, to: 'http://127.0.0.1'}\n\
        - {from: https://b.example.com, to: 'http://127.0.0.1', policy: [staff, not_bob, {deny: {or: [{http_method: PUT}]}}]}\n\
        - {from: https://c.example.com, to: 'http://127.0.0.1', policy: staff}\n\
        - {from: https://d.example.com, to: 'http://127.0.0.1', allow_public_unauthenticated_access: false}\n\
        - {from: https://e.example.com, to: 'http://127.0.0.1', allow_any_authenticated_user: true}\n\
        - {from: https://f.example.com, to: 'http://127.0.0.1', allowed_users: []}\n\
        - {from: https://g.example.com, to: 'http://127.0.0.1', policy: []}\n";
    let routes = config(text).edge.routes;
    let names = |policy: &Policy| -> Vec<_> {
        let facts = Facts::anonymous("GET", "/", [127, 0, 0, 1].into(), Timestamp::from_secs(0));
        let rules = policy.trace(&facts).rules.into_iter();
        rules.map(|rule| format!("{:?}", rule.origin)).collect()
    };
    let of: Vec<_> = routes.iter().map(|route| names(&route.policy).join(" ")).collect();
    let staff = r#"Named("staff")"#;
    let both = format!(r#"{staff} Named("not_bob") Policy"#);
    assert_eq!(of, [staff, &both, staff, staff, "AccessKeys", "", ""]);
    assert_eq!(warnings(text), ["PST-0805 routes[5].from", "PST-0805 routes[6].from"]);
}

#[test]
fn policies_that_nothing_calls_or_that_do_not_exist_are_told_of() {
    let route = "routes: [{from: https://a.example.com, to: 'http://127.0.0.1', policy: [stuff]}]\n";
    let text = format!("policies: {{staff: {{allow: {{and: [{{domain: a}}]}}}}}}\n{route}");
    assert_eq!(errors(&text), ["PST-0701 routes[0].policy[0]"]);
    let named = "policies: {staff: {allow: {and: [{domain: a}], or: []}}, other: {permit: {}}, third: [staff]}\n";
    assert_eq!(errors(named), ["PST-0701 policies.other.permit", "PST-0701 policies.third[0]"]);
    assert_eq!(errors("policies: [{from: https://a.example.com}]\n"), ["PST-0201 policies"]);
    assert_eq!(errors("default_policy: staff\n"), ["PST-0701 default_policy"]);
    let unused = "policies: {staff: {allow: {and: [{domain: a}], or: []}}}\n";
    assert_eq!(warnings(unused), ["PST-0702 policies.staff", "PST-0702 policies.staff.allow.or"]);
}

/// Who is signed in, and nothing more.
fn somebody() -> CompactSession {
    CompactSession::from(&Session {
        handle: SessionHandle::from_bytes([0; 32]),
        user: User { id: "u1".to_owned(), ..User::default() },
        claims: Claims::default(),
        idp: IdpId::new("test"),
        issued_at: Timestamp::from_secs(0),
        expires_at: Timestamp::from_secs(1),
        idle: None,
        generation: 0,
    })
}

#[test]
fn s_097_a_rule_that_is_only_tried_out_opens_no_route_that_lets_nobody_pass() {
    let route = |keys: &str| format!("routes: [{{from: https://a.example.com, to: 'http://127.0.0.1', {keys}}}]\n");
    let tried = "{enforce: false, allow: {or: [{source_ip: 10.0.0.0/8}]}}";
    let closed = [
        format!("allowed_users: [], policy: [{tried}]"),
        format!("allowed_users: , policy: [{tried}]"),
        format!("allowed_domains: [''], policy: [{tried}]"),
        format!("allowed_idp_claims: {{groups: []}}, policy: {tried}"),
        format!("allow_any_authenticated_user: false, policy: {tried}"),
        format!("policy: [{{allow: {{or: []}}}}, {tried}]"),
        format!("policy: [{tried}, {{deny: {{or: []}}}}]"),
        format!("policy: [{tried}, {{allow: {{}}}}]"),
        format!("policy: [{tried}, {{}}]"),
        format!("policy: [{tried}, none]"),
        "policy: [{enforce: false, deny: {or: [{http_method: PUT}]}}]".to_owned(),
        "policy: [{enforce: false, allow: {or: []}}]".to_owned(),
    ];
    for keys in closed {
        let text = format!("policies: {{none: []}}\n{}", route(&keys));
        let policy = &config(&text).edge.routes[0].policy;
        let somebody = somebody();
        for session in [None, Some(&somebody)] {
            let facts = Facts {
                person: session.map(Into::into),
                ..Facts::anonymous("GET", "/", [10, 0, 0, 1].into(), Timestamp::from_secs(0))
            };
            assert!(matches!(policy.decide(&facts), Decision::Deny(_)), "{keys}");
        }
        assert!(warnings(&text).contains(&"PST-0805 routes[0].from".to_owned()), "{keys}");
    }
    // Nothing but what is tried out was written: whoever is signed in passes, and nobody else.
    for rule in
        [tried, "{enforce: false, allow: {or: [{reject: true}]}}", "{enforce: false, allow: {or: [{accept: true}]}}"]
    {
        for text in [route(&format!("policy: {rule}")), format!("default_policy: {rule}\n{}", route("name: a"))] {
            let policy = &config(&text).edge.routes[0].policy;
            let facts = Facts::anonymous("GET", "/", [10, 0, 0, 1].into(), Timestamp::from_secs(0));
            assert_eq!(policy.decide(&facts), Decision::SignIn, "{text}");
            assert_eq!(
                policy.decide(&Facts { person: Some((&somebody()).into()), ..facts }),
                Decision::Allow,
                "{text}"
            );
            assert!(warnings(&text).iter().any(|told| told.starts_with("PST-0702 ")), "{text}");
        }
    }
}

#[test]
fn a_default_policy_may_be_written_out_and_tried_out() {
    let text = "default_policy: {enforce: false, allow: {and: [{groups: ops}]}}\n\
        routes: [{from: https://a.example.com, to: 'http://127.0.0.1'}]\n";
    assert!(config(text).edge.routes[0].policy.is_tried_out());
    assert_eq!(warnings(text), ["PST-0702 routes[0].from"]);
}

#[test]
fn nobody_is_told_to_remove_what_keeps_people_out() {
    for (rule, opens) in [
        ("allow: {or: [{accept: true}]}, deny: {not: [{CRITERION}]}", false),
        ("allow: {or: [{accept: true}]}, deny: {nor: [{CRITERION}]}", false),
        ("allow: {and: [{domain: a}, {CRITERION}]}", false),
        ("allow: {or: [{accept: true}]}, deny: {or: [{CRITERION}]}", true),
        ("allow: {not: [{CRITERION}]}", true),
    ] {
        for criterion in ["client_certificate: {san_dns: x.example}", "invalid_client_certificate: true"] {
            let rule = rule.replace("CRITERION", criterion);
            let text =
                format!("routes: [{{from: https://a.example.com, to: 'http://127.0.0.1', policy: {{{rule}}}}}]\n");
            let loaded = loaded(&format!("{BASE}{text}"));
            let about = |problem: &&Problem| problem.what.contains("without `downstream_mtls`");
            let hints: Vec<_> = loaded.problems.iter().filter(about).collect();
            assert_eq!(hints.len(), 1, "{rule}");
            assert_eq!(hints[0].hint.starts_with("remove it"), opens, "{rule}: {}", hints[0].hint);
        }
    }
}

#[test]
fn criteria_whose_carrier_is_missing_are_refused_where_they_would_let_somebody_pass() {
    let route =
        |policy: &str| format!("routes: [{{from: https://a.example.com, to: 'http://127.0.0.1', policy: {policy}}}]\n");
    for (criterion, fatal) in [
        ("device: {type: any}", true),
        ("mcp_tool: query", true),
        ("ssh_username: root", true),
        ("record: {type: a, field: b, is: c}", true),
        ("invalid_client_certificate: true", false),
    ] {
        let key = criterion.split(':').next().unwrap();
        let deny = route(&format!("{{allow: {{or: [{{domain: a}}]}}, deny: {{or: [{{{criterion}}}]}}}}"));
        let code = if fatal { "PST-0103" } else { "PST-0702" };
        let told = [format!("{code} routes[0].policy.deny.or[0].{key}")];
        if fatal {
            assert_eq!(errors(&deny), told);
        } else {
            assert_eq!(warnings(&deny), told);
        }
        let allow = route(&format!("{{allow: {{and: [{{{criterion}}}]}}}}"));
        assert_eq!(warnings(&allow), [format!("{code} routes[0].policy.allow.and[0].{key}")]);
    }
}

#[test]
fn identity_fails_open_only_if_the_flag_says_so() {
    let text = "routes: [{from: https://a.example.com, to: 'http://127.0.0.1', policy: {allow: {and: [{email: {not: a}}]}}}]\n";
    let decide = |text: &str| {
        let facts = Facts::anonymous("GET", "/", [127, 0, 0, 1].into(), Timestamp::from_secs(0));
        config(text).edge.routes[0].policy.decide(&facts)
    };
    assert_eq!(decide(text), Decision::SignIn);
    assert_eq!(decide(&format!("runtime_flags: {{pomerium_fail_open_identity: true}}\n{text}")), Decision::Allow);
}

#[test]
fn lists_and_rules_without_criteria_are_told_of() {
    let route = |policy: &str| {
        warnings(&format!("routes: [{{from: https://a.example.com, to: 'http://127.0.0.1', policy: {policy}}}]\n"))
    };
    assert_eq!(route("{allow: {and: [{domain: a}], NOT: []}}"), ["PST-0702 routes[0].policy.allow.NOT"]);
    assert_eq!(route("{allow: {and: [{domain: a}]}, deny: {}}"), ["PST-0702 routes[0].policy.deny"]);
    assert_eq!(route("{deny: {or: [{domain: a}]}}"), ["PST-0805 routes[0].from"]);
}

#[test]
fn the_reference_page_is_made_from_the_tables() {
    let file = "../../docs/reference/configuration.md";
    let page = fs::read_to_string(file).unwrap();
    let (_, tables) = page.split_once("<!-- tables -->\n\n").expect("the mark that the tables follow");
    assert!(tables == reference(), "put this into docs/reference/configuration.md:\n\n{}", reference());
}

#[test]
fn every_flag_is_declared_once() {
    let names: BTreeSet<_> = FLAGS.iter().map(|(name, ..)| name).collect();
    assert_eq!(names.len(), FLAGS.len());
    for (title, scope) in SCOPES {
        let names: BTreeSet<_> = scope.keys.iter().map(|key| key.name).collect();
        assert_eq!(names.len(), scope.keys.len(), "{title}");
    }
}

/// A document of known and unknown keys with values of any kind.
fn document() -> impl Strategy<Value = String> {
    let keys: Vec<&'static str> = SETTINGS.keys.iter().chain(ROUTE.keys).map(|key| key.name).collect();
    let leaf = prop_oneof![
        any::<i64>().prop_map(serde_json::Value::from),
        any::<bool>().prop_map(serde_json::Value::from),
        Just(serde_json::Value::Null),
        "\\PC{0,12}".prop_map(serde_json::Value::from),
        "(https?|tcp|unix)://[a-z*.:/\\[\\]0-9]{0,12}".prop_map(serde_json::Value::from),
        "[0-9]{1,20}(ns|us|ms|s|m|h|)".prop_map(serde_json::Value::from),
    ];
    let value = leaf.prop_recursive(4, 48, 6, move |inner| {
        let key = prop_oneof![proptest::sample::select(keys.clone()).prop_map(str::to_owned), "[a-zA-Z_.$-]{0,8}"];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(serde_json::Value::from),
            proptest::collection::btree_map(key, inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    });
    value.prop_map(|value| value.to_string())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_document_makes_a_load_panic(text in document()) {
        let loaded = loaded(&text);
        prop_assert_eq!(loaded.config.is_none(), loaded.problems.any_fatal());
        prop_assert!(loaded.problems.to_human(Colour::Plain).ends_with('\n'));
    }

    #[test]
    fn no_text_makes_a_load_panic(text in "[ -~\n\t\u{80}-\u{ff}]{0,120}") {
        prop_assert!(loaded(&text).problems.to_human(Colour::Terminal).ends_with('\n'));
    }
}
