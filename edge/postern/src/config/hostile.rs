//! What people get wrong, and what others may have written: nothing is dropped without a word, nothing secret is shown, and
//! nothing takes long.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue};
use postern_edge::HeaderRule;

use super::*;

/// The least that runs.
const BASE: &str = "insecure_server: true\nshared_secret_file: tests/problems/secret\ncookie_secret_file: tests/problems/secret\n\
    authenticate_service_url: https://authenticate.example.com\nidp_provider: oidc\nidp_provider_url: https://idp.example.com\n\
    idp_client_id: postern\n";

fn with(text: &str, variables: &[(&str, &str)]) -> Loaded {
    let environment = Environment::of(variables.iter().copied()).unwrap();
    load_text(Some("config.yaml"), text, false, &environment)
}

fn loaded(text: &str) -> Loaded {
    with(&format!("{BASE}{text}"), &[])
}

/// `CODE key` of every problem.
fn told(loaded: &Loaded) -> Vec<String> {
    loaded.problems.iter().map(|problem| format!("{} {}", problem.code, problem.at.key)).collect()
}

/// What every output says of a load.
fn shown(loaded: &Loaded) -> String {
    format!("{}{}", loaded.problems.to_human(Colour::Plain), loaded.problems.to_json())
}

/// A public route with these keys.
fn route(keys: &str) -> String {
    let head = "routes:\n  - from: https://app.example.com\n    to: http://app.internal\n";
    format!("{head}    allow_public_unauthenticated_access: true\n    {keys}\n")
}

/// What the first route sets.
fn set(loaded: &Loaded) -> Vec<(HeaderName, HeaderValue)> {
    let config = loaded.config.as_ref().unwrap_or_else(|| panic!("{}", loaded.problems.to_human(Colour::Plain)));
    let rules = config.edge.routes.iter().flat_map(|route| route.request_headers.clone());
    let set = rules.filter_map(|rule| match rule {
        HeaderRule::Set(name, value) => Some((name, value)),
        HeaderRule::Remove(_) => None,
    });
    set.collect()
}

#[test]
fn headers_of_the_environment_are_pairs_or_refused() {
    let good = with(BASE, &[("HEADERS", "X-A:1, X-B: b:c")]);
    let headers = &good.config.as_ref().unwrap().edge.response_headers.0;
    let pairs: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(pairs, [("x-a", "1"), ("x-b", "b:c")]);
    for text in ["X-Frame-Options=DENY", "[1]", "X-A:1,X-B", "X-A:1,", "Authorization:Basic a,hunter22"] {
        let loaded = with(BASE, &[("HEADERS", text)]);
        assert!(loaded.config.is_none(), "{text} was taken");
        assert_eq!(told(&loaded), ["PST-0208 set_response_headers"], "{text}");
        assert!(!shown(&loaded).contains("hunter22"), "{}", shown(&loaded));
    }
}

#[test]
fn s_108_an_unreadable_text_is_not_shown_at_all() {
    for (name, text) in [
        ("tab.yaml", "idp_client_secret:\n\thunter22"),
        ("nested.yaml", "idp_client_secret:\n  hunter22: x: y"),
        ("text.toml", "idp_client_secret = '''\nfirst\nhunter22''' x"),
        ("list.toml", "ssh_host_keys = [\n  'hunter22',\n  'hunter22' x\n]"),
        ("number.toml", "idp_client_secret = 99999999999999999999\n"),
        ("comma.json", "{\"idp_client_secret\":\n\"hunter22\",}"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        let source = Source { file: Some(file), lenient: false };
        let loaded = load(&source, &Environment::of::<&str, &str>([]).unwrap());
        let first = loaded.problems.iter().next().unwrap();
        assert!(first.code == Code::Syntax && first.at.place.line > 0, "{name}");
        let shown = shown(&loaded);
        assert!(!shown.contains("hunter22") && !shown.contains("99999"), "{shown}");
    }
}

#[test]
fn s_108_a_misspelt_secret_is_a_secret() {
    for line in [
        "idp_client_secrt: hunter22",
        "shared_secrt: hunter22",
        "databroker_storage_conection_string: postgres://u:hunter22@h",
        "signing_kye: hunter22",
        "routes: [{from: https://a.example.com, to: http://a, idp_client_secrte: hunter22}]",
    ] {
        let loaded = loaded(line);
        assert!(told(&loaded).iter().any(|told| told.starts_with("PST-0101")), "{line}");
        let shown = shown(&loaded);
        assert!(shown.contains("[redacted]") && !shown.contains("hunter22"), "{shown}");
    }
}

#[test]
fn s_108_no_output_shows_who_a_url_signs_in_as() {
    for line in [
        "routes: [{from: https://a.example.com, to: 'htps://svc:hunter22@db'}]",
        "otel_exporter_otlp_endpoint: 'ftp://svc:hunter22@otel'",
        "autocert: true\nautocert_dir: 's3://svc:hunter22@bucket'",
        "idp_provider_url: 'https://svc:hunter22@idp.example.com'\nidp_provider_url: x",
        "signout_redirect_url: https://svc:hunter22@example.com\n",
        "signout_redirect_url: https://svc:hun/hunter22@example.com\n",
        "authorize_service_urls: ['x://svc:hunter22@', y]",
    ] {
        let shown = shown(&loaded(line));
        assert!(!shown.contains("hunter22"), "{shown}");
    }
    let loaded = with(BASE, &[("IDP_PROVIDER_URL", "https://svc:hunter22@idp.example.com")]);
    assert!(loaded.config.is_none() && !shown(&loaded).contains("hunter22"), "{}", shown(&loaded));
    let loaded = with(BASE, &[("IDP_PROVIDER_URL", "ftp://svc:hunter22@idp.example.com")]);
    assert!(loaded.config.is_none() && !shown(&loaded).contains("hunter22"), "{}", shown(&loaded));
    // A port and a path are no password.
    assert_eq!(value::quoted("http://a:80/b@c d"), "`http://a:80/b@c d`");
}

#[test]
fn people_sign_in_on_a_host_that_can_be_called() {
    for host in ["*.example.com", "a!b.example.com", "a_b*.example.com"] {
        let text = BASE.replace("authenticate.example.com", host);
        let text = format!("{text}tests: [{{url: https://a.example.com, expect: allow}}]\n");
        assert_eq!(told(&with(&text, &[])), ["PST-0206 authenticate_service_url"], "{host}");
    }
}

#[test]
fn a_number_alone_is_no_address() {
    for line in ["address: 443", "address: '443'", "address: 1.2:80", "address: 0x7f.1:80", "http_redirect_addr: 80"] {
        let loaded = loaded(line);
        assert!(loaded.config.is_none(), "{line} was taken");
        let first = loaded.problems.iter().next().unwrap();
        assert_eq!((first.code, first.at.key.as_str()), (Code::BadAddress, line.split(':').next().unwrap()), "{line}");
        assert!(first.hint.contains("`:443`"), "{line}");
    }
}

#[test]
fn many_mistakes_in_one_policy_take_no_longer_than_reading_it() {
    let load = |count: usize| {
        let criteria = "{nonsense: x}, ".repeat(count);
        let text = format!(
            "{BASE}routes:\n  - {{from: https://a.example.com, to: http://a, policy: {{allow: {{or: [{criteria}]}}}}}}\n"
        );
        let begun = Instant::now();
        let loaded = with(&text, &[]);
        (loaded, begun.elapsed())
    };
    let (few, short) = load(1_000);
    assert_eq!(few.problems.count(Severity::Fatal), 1_000);
    let (many, long) = load(8_000);
    assert_eq!(many.problems.count(Severity::Fatal), 8_000);
    assert!(long < 24 * short.max(Duration::from_millis(20)), "{short:?} for 1,000 and {long:?} for 8,000");
    let places: Vec<_> = few.problems.iter().map(|problem| problem.at.key.as_str()).collect();
    assert_eq!(places.get(1), Some(&"routes[0].policy.allow.or[1].nonsense"));
}

#[test]
fn many_criteria_that_are_never_met_take_no_longer_than_reading_them() {
    let load = |count: usize| {
        let criteria =
            "{client_certificate: {fingerprint: 17859273e8a980631d367b2d5a6a6635412b0f22835f69e47b3f65624546a704}}, "
                .repeat(count);
        let text = format!(
            "{BASE}routes:\n  - {{from: https://a.example.com, to: http://a, policy: {{allow: {{or: [{criteria}]}}}}}}\n"
        );
        let begun = Instant::now();
        let loaded = with(&text, &[]);
        (loaded.problems.count(Severity::Advisory), begun.elapsed())
    };
    let ((few, short), (many, long)) = (load(1_000), load(8_000));
    assert!(few >= 1_000 && many >= 8_000, "{few} {many}");
    assert!(long < 24 * short.max(Duration::from_millis(20)), "{short:?} for 1,000 and {long:?} for 8,000");
}

#[test]
fn a_number_is_the_text_that_it_is_in_pomerium() {
    let keys = "set_request_headers: {X-Bool: true, X-Off: false, X-Float: 2.0, X-Big: 1e3, X-Hex: 0x1F, X-Octal: 010, X-Nine: 09, X-Plain: 12, X-Text: '010'}";
    let loaded = loaded(&route(keys));
    let values: Vec<_> = set(&loaded).iter().map(|(_, value)| value.to_str().unwrap().to_owned()).collect();
    assert_eq!(values, ["1", "0", "2", "1000", "31", "8", "9", "12", "010"]);
    let told = told(&loaded);
    let of = |name: &str| told.contains(&format!("PST-0215 routes[0].set_request_headers.{name}"));
    assert!(
        ["X-Bool", "X-Off", "X-Float", "X-Big", "X-Hex", "X-Octal", "X-Nine"].iter().all(|name| of(name)),
        "{told:?}"
    );
    assert!(!of("X-Plain") && !of("X-Text"), "{told:?}");
    let first = loaded.problems.iter().next().unwrap();
    assert_eq!(
        (first.what.as_str(), first.severity),
        ("`true` is the text `1` here, as in Pomerium", Severity::Advisory)
    );
}

#[test]
fn a_number_with_a_leading_zero_is_octal_as_in_pomerium() {
    for (text, variables, hops) in [
        ("xff_num_trusted_hops: 010", &[][..], 8),
        ("xff_num_trusted_hops: 09", &[], 9),
        ("xff_num_trusted_hops: 0", &[], 0),
        ("", &[("XFF_NUM_TRUSTED_HOPS", "010")], 8),
    ] {
        let loaded = with(&format!("{BASE}{text}\n"), variables);
        assert_eq!(loaded.config.as_ref().map(|config| config.edge.proxy.trusted_hops), Some(hops), "{text}");
        let expected = if hops == 0 { Vec::new() } else { vec!["PST-0215 xff_num_trusted_hops".to_owned()] };
        assert_eq!(told(&loaded), expected, "{text}");
    }
    assert!(with(BASE, &[("XFF_NUM_TRUSTED_HOPS", "09")]).config.is_none(), "Go reads no such number");
}

#[test]
fn a_name_that_is_written_twice_in_a_free_map_is_refused() {
    for text in [
        "runtime_flags: {config_hot_reload: true, Config_Hot_Reload: false}",
        "runtime_flags: {config_hot_reload: true}\nruntime_flags.config_hot_reload: false",
        "set_response_headers: {X-A: 1, x-a: 2}",
        &route("set_request_headers: {X-A: 1, x-a: 2}"),
        &route("set_response_headers: {X-A: 1, x-A: 2}"),
    ] {
        let loaded = loaded(text);
        assert!(loaded.config.is_none(), "{text} was taken");
        assert!(told(&loaded).iter().all(|told| told.starts_with("PST-0005")), "{text}: {:?}", told(&loaded));
    }
}

#[test]
fn s_113_metrics_are_on_the_loopback_where_that_is_written() {
    let metrics = |text: &str| {
        let loaded = loaded(&format!("metrics_address: {text}"));
        (loaded.config.as_ref().and_then(|config| config.admin.metrics), told(&loaded))
    };
    let at = |text: &str| Some(text.parse::<SocketAddr>().unwrap());
    assert_eq!(metrics("localhost:9090"), (at("127.0.0.1:9090"), Vec::new()));
    assert_eq!(metrics("Localhost:9090"), (at("127.0.0.1:9090"), Vec::new()));
    assert_eq!(metrics(":9090"), (at("0.0.0.0:9090"), Vec::new()));
    assert_eq!(metrics("nohost.invalid:9090"), (at("0.0.0.0:9090"), vec!["PST-0205 metrics_address".to_owned()]));
}

#[test]
fn s_113_debugging_is_on_the_loopback_unless_another_address_is_written() {
    let debug = |text: &str| {
        let loaded = loaded(&format!("debug_address: '{text}'"));
        (loaded.config.as_ref().and_then(|config| config.admin.debug), told(&loaded))
    };
    let at = |text: &str| Some(text.parse::<SocketAddr>().unwrap());
    for here in ["127.0.0.1:6060", "localhost:6060", ":6060"] {
        assert_eq!(debug(here), (at("127.0.0.1:6060"), Vec::new()), "{here}");
    }
    assert_eq!(debug("[::1]:6060"), (at("[::1]:6060"), Vec::new()));
    let advised = || vec!["PST-0205 debug_address".to_owned()];
    for open in ["0.0.0.0:6060", "10.0.0.5:6060", "[::]:6060"] {
        assert_eq!(debug(open), (at(open), advised()), "{open}");
    }
    for odd in ["6060", "localhost", ":", ":0", "nohost.invalid:6060", "127.0.0.1"] {
        assert_eq!(debug(odd), (None, advised()), "{odd}");
    }
}

#[test]
fn s_108_values_of_headers_that_open_something_are_secret() {
    for name in [
        "X-Auth-Key",
        "Ocp-Apim-Subscription-Key",
        "X-Functions-Key",
        "X-Auth",
        "client_assertion",
        "Proxy-Auth",
        "X-Auth-Token",
    ] {
        assert!(is_secret(name), "{name}");
    }
    for name in [
        "authenticate_service_url",
        "authorize_service_url",
        "ssh_user_ca_key_file",
        "X-Author",
        "signing_key_file",
        "X-Monkey",
    ] {
        assert!(!is_secret(name), "{name}");
    }
}

#[test]
fn a_text_that_looks_off_is_off_only_where_there_is_something_to_switch() {
    for value in ["default", "f", "0", "false"] {
        let loaded = loaded(&format!("databroker_cluster_node_id: {value}"));
        assert!(loaded.config.is_none(), "{value} was taken");
    }
    assert!(loaded("use_proxy_protocol: 'f'").config.is_some());
}

#[test]
fn routes_of_the_environment_that_say_nothing_are_absent() {
    let file = BASE.to_owned() + &route("");
    for nothing in ["# none", "~", "null\n"] {
        let loaded = with(&file, &[("ROUTES", &STANDARD.encode(nothing))]);
        assert_eq!(loaded.config.map(|config| config.edge.routes.len()), Some(1), "{nothing}");
    }
    let none = with(&file, &[("ROUTES", &STANDARD.encode("[]"))]);
    assert_eq!(none.config.map(|config| config.edge.routes.len()), Some(0));
}

#[test]
fn a_json_file_is_json() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    let load = |text: &str| {
        fs::write(&file, text).unwrap();
        load(&Source { file: Some(file.clone()), lenient: false }, &Environment::of::<&str, &str>([]).unwrap())
    };
    let good = load("{\n\t\"insecure_server\": true, \"address\": \"127.0.0.1:1\"\n}\n");
    assert!(good.problems.iter().all(|problem| problem.code != Code::Syntax), "{}", shown(&good));
    for (text, line, column) in [
        ("{\"insecure_server\": true,}", 1, 26),
        ("{\n  // a word\n  \"insecure_server\": true\n}", 2, 3),
        ("insecure_server: true", 1, 1),
        ("{\"insecure_server\": true\n", 2, 0),
        ("{\"a\": 1} x", 1, 10),
    ] {
        let loaded = load(text);
        let first = loaded.problems.iter().next().unwrap();
        assert_eq!((first.code, loaded.problems.count(Severity::Fatal)), (Code::Syntax, 1), "{text}");
        assert_eq!((first.at.place.line, first.at.place.column), (line, column.max(1)), "{text}");
        assert!(!first.what.contains(" line "), "{}", first.what);
    }
    let twice = load("{\"address\": \":1\", \"address\": \":2\"}");
    assert!(twice.config.is_none(), "a key that is there twice was taken");
}

#[test]
fn what_was_meant_is_said_only_where_it_is_likely_and_can_be_written() {
    for text in ["client_id: x", "hosts: [x]", &route("auth: x")] {
        let loaded = loaded(text);
        let unknown = loaded.problems.iter().find(|problem| problem.code == Code::UnknownKey).unwrap();
        assert!(!unknown.hint.contains("did you mean"), "{text}: {}", unknown.hint);
    }
}

#[test]
fn a_default_policy_may_stand_in_a_variable_as_json() {
    let loaded =
        with(&(BASE.to_owned() + &route("")), &[("DEFAULT_POLICY", r#"{"allow": {"and": [{"accept": true}]}}"#)]);
    assert!(loaded.config.is_some(), "{}", shown(&loaded));
    let loaded = with(&(BASE.to_owned() + &route("")), &[("DEFAULT_POLICY", "{\"allow\"")]);
    let shown = shown(&loaded);
    assert!(loaded.config.is_none() && !shown.contains("{{"), "{shown}");
}
