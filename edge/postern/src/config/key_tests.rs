//! Every way in which a key can be refused (01 §1.4, §1.6, §1.8, §1.11, §2.9, §2.11), and what those that nothing acts on yet
//! are understood as.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postern_edge::route::{
    Balancing, CircuitBreakers, Consecutive, FailureShare, HealthCheck, HostPattern, HostRewrite, LoadBalancing,
    PathMatcher, Payload, Probe, Route, StatusRange, Target,
};
use postern_edge::{Dns, DnsFamily, DnsServer, EdgeLimits};
use proptest::prelude::*;

use super::planned::{Carried, Mcp, OtlpProtocol, PlannedRoute, Scheme, TokenFormat};
use super::tests::BASE;
use super::*;

/// The base and `text`.
fn loaded(text: &str) -> Loaded {
    tests::loaded(&format!("{BASE}{text}"))
}

fn routed(keys: &str) -> Loaded {
    let head = "routes:\n  - from: https://a.example.com\n    allow_public_unauthenticated_access: true\n";
    let to = if keys.contains("to:") || keys.contains("from:") { "" } else { "    to: https://b.internal\n" };
    let keys: String = keys.lines().map(|line| format!("    {line}\n")).collect();
    loaded(&format!("{head}{to}{keys}"))
}

/// `CODE key` of what is wrong with a file, apart from keys that are not supported yet.
fn wrong(loaded: &Loaded) -> Vec<String> {
    let fatal = loaded.problems.iter().filter(|problem| problem.severity == Severity::Fatal);
    let wrong = fatal.filter(|problem| problem.code != Code::NotYet);
    wrong.map(|problem| format!("{} {}", problem.code, problem.at.key)).collect()
}

#[test]
fn peers_that_restrict_nothing_or_believe_nobody_are_named() {
    let told = |text: &str| -> Vec<String> {
        let loaded = loaded(text);
        assert!(wrong(&loaded).is_empty(), "{text}: {:?}", wrong(&loaded));
        let about = loaded.problems.iter().filter(|problem| problem.at.key.as_str() == "xff_trusted_peers");
        about.map(|problem| format!("{} {}", problem.code, problem.what)).collect()
    };
    assert!(told("xff_num_trusted_hops: 1\nxff_trusted_peers: 10.0.0.0/8,192.0.2.7\n").is_empty());
    for (text, expected) in [
        ("xff_trusted_peers: 10.0.0.0/8\n", "PST-0104 `xff_trusted_peers` believes nobody: no hops are trusted"),
        (
            "xff_num_trusted_hops: 1\nxff_trusted_peers: ['::/0']\n",
            "PST-0104 a range that is everybody restricts nothing",
        ),
    ] {
        assert_eq!(told(text), [expected], "{text}");
    }
}

#[test]
fn the_defaults_of_the_limits_are_what_holds_without_them() {
    let written: String = keys::LIMITS
        .keys
        .iter()
        .filter(|key| key.default.starts_with('`'))
        .fold("limits:\n".to_owned(), |text, key| {
            text + &format!("  {}: {}\n", key.name, key.default.trim_matches('`'))
        });
    let (with, without) = (loaded(&written).config.unwrap().edge, loaded("").config.unwrap().edge);
    assert_eq!((with.limits, with.timeouts), (EdgeLimits::default(), without.timeouts));
    assert_eq!(without.limits, EdgeLimits::default());
    let other =
        loaded("limits: {request_fields: 77, drain_timeout: 5s, max_request_body_bytes: 9}").config.unwrap().edge;
    assert_eq!((other.limits.bytes.fields, other.timeouts.drain), (77, Duration::from_secs(5)));
    assert_eq!(other.limits.request_body.map(|bytes| bytes.get()), Some(9));
}

#[test]
fn the_longest_target_that_may_be_set_can_be_read() {
    let key = keys::LIMITS.keys.iter().find(|key| key.name == "request_target_bytes").unwrap();
    let keys::Kind::Number(_, most) = key.kind else { panic!("no number") };
    let most = usize::try_from(most).unwrap();
    let read = |length: usize| http::Uri::try_from(format!("/{}", "a".repeat(length - 1)));
    assert!(read(most).is_ok() && read(most + 1).is_err());
}

#[test]
fn each_key_at_the_top_is_refused_for_what_cannot_be() {
    let mut missed = String::new();
    for (text, expected) in [
        // 01 §1.3.
        ("debug_address: localhost", "PST-0205 debug_address"),
        ("debug_address: localhost:0", "PST-0205 debug_address"),
        ("envoy_bind_config_source_address: 10.0.0.1:80", "PST-0205 envoy_bind_config_source_address"),
        ("allow_upgrades: ['a b']", "PST-0208 allow_upgrades[0]"),
        (
            "programmatic_redirect_domain_whitelist: [localhost, 'localhost:8080']",
            "PST-0204 programmatic_redirect_domain_whitelist[1]",
        ),
        ("programmatic_redirect_domain_whitelist: 'a.example/x'", "PST-0204 programmatic_redirect_domain_whitelist"),
        (
            "programmatic_redirect_domain_whitelist: ['*.example.com']",
            "PST-0204 programmatic_redirect_domain_whitelist[0]",
        ),
        ("allow_upgrades: [websocket, a/b/c]", "PST-0208 allow_upgrades[1]"),
        ("xff_trusted_peers: [10.0.0.0/8, 10.0.0.0/33]", "PST-0201 xff_trusted_peers[1]"),
        ("xff_trusted_peers: balancer.internal", "PST-0201 xff_trusted_peers"),
        ("circuit_breaker_thresholds: {max_connections: -1}", "PST-0201 circuit_breaker_thresholds.max_connections"),
        ("circuit_breaker_thresholds: 3", "PST-0201 circuit_breaker_thresholds"),
        // 03 §2: a floor and a ceiling, and 0 is no "no limit".
        ("limits: {connections: 0}", "PST-0213 limits.connections"),
        ("limits: {connections: 1000001}", "PST-0213 limits.connections"),
        ("limits: {connections_per_address: 0}", "PST-0213 limits.connections_per_address"),
        ("limits: {request_head_bytes: 64KiB}", "PST-0201 limits.request_head_bytes"),
        ("limits: {request_fields: 251}", "PST-0213 limits.request_fields"),
        ("limits: {request_target_bytes: 65535}", "PST-0213 limits.request_target_bytes"),
        ("limits: {request_head_timeout: 0}", "PST-0213 limits.request_head_timeout"),
        ("limits: {request_head_timeout: 999ms}", "PST-0213 limits.request_head_timeout"),
        ("limits: {drain_timeout: 601s}", "PST-0213 limits.drain_timeout"),
        ("limits: {upstream_connect_timeout: soon}", "PST-0202 limits.upstream_connect_timeout"),
        ("limits: {max_request_body_bytes: 0}", "PST-0213 limits.max_request_body_bytes"),
        ("limits: {max_connections: 9}", "PST-0101 limits.max_connections"),
        ("limits: none", "PST-0201 limits"),
        ("grpc_client_timeout: soon", "PST-0202 grpc_client_timeout"),
        ("databroker_service_urls: [localhost]", "PST-0206 databroker_service_urls"),
        ("authorize_service_url: /path", "PST-0206 authorize_service_url"),
        // 01 §1.4.
        ("dns_lookup_family: V5_ONLY", "PST-0204 dns_lookup_family"),
        ("dns_refresh_rate: 100us", "PST-0202 dns_refresh_rate"),
        ("dns_failure_refresh_rate: 0", "PST-0202 dns_failure_refresh_rate"),
        ("dns_query_timeout: -1s", "PST-0202 dns_query_timeout"),
        ("dns_query_tries: many", "PST-0201 dns_query_tries"),
        ("dns_resolvers: [udp://dns.internal:53]", "PST-0205 dns_resolvers[0]"),
        ("dns_resolvers: [10.0.0.53]", "PST-0205 dns_resolvers[0]"),
        ("dns_resolvers: udp://10.0.0.53", "PST-0205 dns_resolvers"),
        // 01 §1.5.
        ("tls_derive: a b", "PST-0214 tls_derive"),
        ("autocert_ca: acme.example.com", "PST-0206 autocert_ca"),
        ("autocert_eab_key_id: a", "PST-0211 autocert_eab_key_id"),
        ("autocert_eab_mac_key: YQ", "PST-0211 autocert_eab_mac_key"),
        ("autocert_eab_key_id: a\nautocert_eab_mac_key: YQ==", "PST-0207 autocert_eab_mac_key"),
        ("autocert_trusted_ca: YQ==", "PST-0304 autocert_trusted_ca"),
        ("autocert_trusted_ca_file: /no/such", "PST-0210 autocert_trusted_ca_file"),
        ("autocert_trusted_ca: YQ==\nautocert_trusted_ca_file: /no/such", "PST-0212 autocert_trusted_ca_file"),
        ("autocert_dir: ftp://x/y", "PST-0206 autocert_dir"),
        ("autocert_ca: http://acme.example.com/directory", "PST-0206 autocert_ca"),
        // 01 §1.6.
        ("downstream_mtls: {ca: YQ==, ca_file: /x}", "PST-0212 downstream_mtls.ca_file"),
        ("downstream_mtls: {crl: YQ==, crl_file: /x}", "PST-0212 downstream_mtls.crl_file"),
        ("downstream_mtls: {ca: '***'}", "PST-0207 downstream_mtls.ca"),
        ("downstream_mtls: {ca: YQ==}", "PST-0304 downstream_mtls.ca"),
        ("downstream_mtls: {crl: YQ==}", "PST-0304 downstream_mtls.crl"),
        ("downstream_mtls: {enforcement: maybe}", "PST-0204 downstream_mtls.enforcement"),
        (
            "downstream_mtls: {match_subject_alt_names: [{name: x}]}",
            "PST-0204 downstream_mtls.match_subject_alt_names[0].name",
        ),
        (
            "downstream_mtls: {match_subject_alt_names: [{dns: '('}]}",
            "PST-0209 downstream_mtls.match_subject_alt_names[0].dns",
        ),
        ("downstream_mtls: {match_subject_alt_names: [dns]}", "PST-0201 downstream_mtls.match_subject_alt_names[0]"),
        ("downstream_mtls: {max_verify_depth: -1}", "PST-0201 downstream_mtls.max_verify_depth"),
        ("downstream_mtls: {cafile: x}", "PST-0101 downstream_mtls.cafile"),
        // 01 §1.8.
        ("bearer_token_format: cookie", "PST-0204 bearer_token_format"),
        ("identity_providers: {a: {audiences: [x]}}", "PST-0211 identity_providers.a.issuer"),
        ("identity_providers: {a: {issuer: https://i}}", "PST-0211 identity_providers.a.audiences"),
        ("identity_providers: {a: {issuer: http://i, audiences: [x]}}", "PST-0206 identity_providers.a.issuer"),
        ("identity_providers: {a: {issuer: i, audiences: [x]}}", "PST-0206 identity_providers.a.issuer"),
        (
            "identity_providers: {a: {issuer: https://i, audiences: [x], jwks_url: http://i/k}}",
            "PST-0206 identity_providers.a.jwks_url",
        ),
        (
            "identity_providers: {a: {issuer: https://i, audiences: [x], supported_algs: [HS256]}}",
            "PST-0204 identity_providers.a.supported_algs[0]",
        ),
        (
            "identity_providers: {a: {issuer: https://i, audiences: x}, b: {issuer: https://i, audiences: x}}",
            "PST-0212 identity_providers.b",
        ),
        ("identity_providers: {a/b: {issuer: https://i, audiences: x}}", "PST-0204 identity_providers.a/b"),
        ("mcp_allowed_client_id_domains: ['']", "PST-0214 mcp_allowed_client_id_domains[0]"),
        ("mcp_allowed_as_metadata_domains: ['a b']", "PST-0214 mcp_allowed_as_metadata_domains[0]"),
        (
            "google_cloud_serverless_authentication_service_account: text",
            "PST-0301 google_cloud_serverless_authentication_service_account",
        ),
        (
            "google_cloud_serverless_authentication_service_account: '{\"type\": \"service_account\"}'",
            "PST-0301 google_cloud_serverless_authentication_service_account",
        ),
        ("ssh_address: ':0'", "PST-0205 ssh_address"),
        ("ssh_address: :22\nssh_host_key_files: [/no/such]", "PST-0210 ssh_host_key_files[0]"),
        ("ssh_user_ca_key_file: /no/such", "PST-0210 ssh_user_ca_key_file"),
        // 01 §1.9.
        ("databroker_storage_type: etcd", "PST-0501 databroker_storage_type"),
        ("databroker_cluster_node_id: a", "PST-0501 databroker_cluster_node_id"),
        (
            "databroker_cluster_leader_id: b\ndatabroker_cluster_nodes: [{id: a, grpc_address: 'a:1'}]",
            "PST-0501 databroker_cluster_leader_id",
        ),
        ("databroker_cluster_nodes: [{grpc_address: 'a:1'}]", "PST-0211 databroker_cluster_nodes[0].id"),
        (
            "databroker_cluster_nodes: [{id: a, grpc_address: 'a b'}]",
            "PST-0205 databroker_cluster_nodes[0].grpc_address",
        ),
        (
            "databroker_cluster_nodes: [{id: a, grpc_address: 'a:1', raft_address: a}]",
            "PST-0205 databroker_cluster_nodes[0].raft_address",
        ),
        ("databroker_raft_bind_address: a", "PST-0205 databroker_raft_bind_address"),
        ("blob_storage: {bucket_uri: recordings}", "PST-0206 blob_storage.bucket_uri"),
        // 01 §1.10.
        ("metrics_basic_auth: dXNlcg==", "PST-0301 metrics_basic_auth"),
        ("metrics_basic_auth: '***'", "PST-0207 metrics_basic_auth"),
        ("metrics_certificate: YQ==", "PST-0211 metrics_certificate"),
        ("metrics_certificate: YQ==\nmetrics_certificate_key: YQ==", "PST-0304 metrics_certificate"),
        ("primary_color: 'red; }'", "PST-0201 primary_color"),
        ("logo_url: javascript:alert(1)", "PST-0206 logo_url"),
        ("otel_exporter_otlp_headers: [a]", "PST-0201 otel_exporter_otlp_headers[0]"),
        ("otel_exporter_otlp_timeout: 5s", "PST-0202 otel_exporter_otlp_timeout"),
        ("otel_traces_exporter: zipkin", "PST-0204 otel_traces_exporter"),
        ("otel_exporter_otlp_protocol: http/json", "PST-0204 otel_exporter_otlp_protocol"),
        ("otel_traces_sampler_arg: often", "PST-0201 otel_traces_sampler_arg"),
    ] {
        let found = wrong(&loaded(&format!("{text}\n")));
        if found != [expected] {
            missed += &format!("{text}\n    wanted {expected}, found {found:?}\n");
        }
    }
    assert!(missed.is_empty(), "\n{missed}");
}

#[test]
fn each_key_of_a_route_is_refused_for_what_cannot_be() {
    let mut missed = String::new();
    let check = "timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1";
    let probe = |probe: &str| format!("health_checks: [{{{check}, {probe}}}]");
    let server = |keys: &str| format!("mcp: {{server: {{{keys}}}}}");
    for (text, expected) in [
        // 01 §2.2, §2.5.
        ("to: ['https://a', 'tcp://b:1']".to_owned(), "PST-0602 to[1]"),
        ("to: ['https://a,1', 'https://b']".to_owned(), "PST-0602 to[1]"),
        ("to: ['https://a,0']".to_owned(), "PST-0602 to[0]"),
        ("to: ['unix:///a', 'https://b']".to_owned(), "PST-0602 to[1]"),
        ("to: unix://".to_owned(), "PST-0602 to"),
        ("to: 'tcp://'".to_owned(), "PST-0602 to"),
        ("to: http+unix:///a".to_owned(), "PST-0602 to"),
        // 01 §2.7, §2.10.
        ("prefix_rewrite: /a\nregex_rewrite_pattern: /b".to_owned(), "PST-0212 regex_rewrite_pattern"),
        ("regex_rewrite_pattern: '('".to_owned(), "PST-0209 regex_rewrite_pattern"),
        (
            "regex_rewrite_pattern: '(a)'\nregex_rewrite_substitution: '\\2'".to_owned(),
            "PST-0209 regex_rewrite_substitution",
        ),
        (
            "regex_rewrite_pattern: '(a)'\nregex_rewrite_substitution: '\\n'".to_owned(),
            "PST-0209 regex_rewrite_substitution",
        ),
        ("host_path_regex_rewrite_pattern: '(?=a)'".to_owned(), "PST-0209 host_path_regex_rewrite_pattern"),
        ("host_rewrite_header: 'a b'".to_owned(), "PST-0208 host_rewrite_header"),
        ("rewrite_response_headers: [{prefix: a}]".to_owned(), "PST-0211 rewrite_response_headers[0].header"),
        ("rewrite_response_headers: [{header: 'a b'}]".to_owned(), "PST-0208 rewrite_response_headers[0].header"),
        (
            "rewrite_response_headers: [{header: Transfer-Encoding}]".to_owned(),
            "PST-0605 rewrite_response_headers[0].header",
        ),
        (
            "rewrite_response_headers: [{header: Location, value: \"a\\nb\"}]".to_owned(),
            "PST-0208 rewrite_response_headers[0].value",
        ),
        // 01 §2.9, §2.12, §2.13.
        ("tls_custom_ca: '***'".to_owned(), "PST-0207 tls_custom_ca"),
        ("tls_custom_ca_file: /no/such".to_owned(), "PST-0210 tls_custom_ca_file"),
        ("tls_downstream_client_ca: '***'".to_owned(), "PST-0207 tls_downstream_client_ca"),
        ("tls_client_cert: YQ==".to_owned(), "PST-0211 tls_client_cert"),
        ("tls_client_key_file: /no/such".to_owned(), "PST-0211 tls_client_key_file"),
        ("tls_client_cert: YQ==\ntls_client_key: YQ==".to_owned(), "PST-0304 tls_client_cert"),
        ("tls_server_name: 'a b'".to_owned(), "PST-0214 tls_server_name"),
        (
            "kubernetes_service_account_token: a\nkubernetes_service_account_token_file: /x".to_owned(),
            "PST-0212 kubernetes_service_account_token_file",
        ),
        ("kubernetes_service_account_token: two words".to_owned(), "PST-0301 kubernetes_service_account_token"),
        (
            "kubernetes_service_account_token: a\nset_request_headers: {Authorization: b}".to_owned(),
            "PST-0212 set_request_headers",
        ),
        (
            "kubernetes_service_account_token: a\nremove_request_headers: Impersonate-User".to_owned(),
            "PST-0212 remove_request_headers",
        ),
        ("to: unix:///a\nenable_google_cloud_serverless_authentication: true".to_owned(), "PST-0602 to"),
        ("tls_downstream_server_name: '*.example.com'".to_owned(), "PST-0214 tls_downstream_server_name"),
        ("depends_on: [a, b, c, d, e, f]".to_owned(), "PST-0213 depends_on"),
        ("depends_on: [/a]".to_owned(), "PST-0214 depends_on[0]"),
        ("depends_on: ['a b']".to_owned(), "PST-0214 depends_on[0]"),
        ("mcp: {}".to_owned(), "PST-0211 mcp"),
        ("mcp: {server: {}, client: {}}".to_owned(), "PST-0212 mcp.client"),
        (server("authorization_server_url: http://a"), "PST-0206 mcp.server.authorization_server_url"),
        (server("path: mcp"), "PST-0603 mcp.server.path"),
        (server("upstream_oauth2: {client_id: a}"), "PST-0211 mcp.server.upstream_oauth2.endpoint"),
        (
            server("upstream_oauth2: {endpoint: {auth_url: https://a, token_url: https://b}}"),
            "PST-0211 mcp.server.upstream_oauth2.client_id",
        ),
        (
            server("upstream_oauth2: {client_id: a, endpoint: {auth_url: https://a}}"),
            "PST-0211 mcp.server.upstream_oauth2.endpoint.token_url",
        ),
        ("upstream_tunnel: {ssh_policy: [{permit: x}]}".to_owned(), "PST-0701 upstream_tunnel.ssh_policy[0].permit"),
        ("identity_providers: []\nbearer_token_format: basic".to_owned(), "PST-0204 bearer_token_format"),
        ("logo_url: 'a b'".to_owned(), "PST-0206 logo_url"),
        ("allow_upgrades: ['a b']".to_owned(), "PST-0208 allow_upgrades[0]"),
        // 01 §2.11.
        ("load_balancing_policy: fastest".to_owned(), "PST-0204 load_balancing_policy"),
        ("healthy_panic_threshold: 101".to_owned(), "PST-0213 healthy_panic_threshold"),
        ("outlier_detection: {interval: 1m}".to_owned(), "PST-0202 outlier_detection.interval"),
        (
            "outlier_detection: {max_ejection_percent: 200}".to_owned(),
            "PST-0213 outlier_detection.max_ejection_percent",
        ),
        ("outlier_detection: {consecutive5xx: 3}".to_owned(), "PST-0101 outlier_detection.consecutive5xx"),
        (
            "health_checks: [{timeout: 1s, interval: 1s, healthy_threshold: 1, tcp_health_check: {}}]".to_owned(),
            "PST-0211 health_checks[0].unhealthy_threshold",
        ),
        (probe("tcp_health_check: {}, initial_jitter: 1m"), "PST-0202 health_checks[0].initial_jitter"),
        (format!("health_checks: [{{{check}}}]"), "PST-0211 health_checks[0]"),
        (probe("tcp_health_check: {}, grpc_health_check: {}"), "PST-0212 health_checks[0]"),
        (probe("http_health_check: {host: a}"), "PST-0211 health_checks[0].http_health_check.path"),
        (
            probe("http_health_check: {path: /, expected_statuses: [{start: 300, end: 200}]}"),
            "PST-0213 health_checks[0].http_health_check.expected_statuses[0]",
        ),
        (
            probe("http_health_check: {path: /, expected_statuses: [{start: 1, end: 200}]}"),
            "PST-0213 health_checks[0].http_health_check.expected_statuses[0].start",
        ),
        (
            probe("http_health_check: {path: /, codec_client_type: spdy}"),
            "PST-0204 health_checks[0].http_health_check.codec_client_type",
        ),
        (probe("tcp_health_check: {send: {text: PING}}"), "PST-0201 health_checks[0].tcp_health_check.send.text"),
        (
            probe("tcp_health_check: {receive: [{text: '50', binary: UA==}]}"),
            "PST-0212 health_checks[0].tcp_health_check.receive[0].text",
        ),
        (
            probe("grpc_health_check: {initial_metadata: [{header: {value: a}}]}"),
            "PST-0211 health_checks[0].grpc_health_check.initial_metadata[0]",
        ),
    ] {
        let found = wrong(&routed(&text));
        if found != [expected.replacen(' ', " routes[0].", 1)] {
            missed += &format!("{text}\n    wanted {expected}, found {found:?}\n");
        }
    }
    assert!(missed.is_empty(), "\n{missed}");
}

#[test]
fn routes_that_choose_providers_choose_those_that_there_are() {
    let with = |global: &str, route: &str| {
        let head = format!("identity_providers: {{ci: {{issuer: https://ci, audiences: a}}}}\n{global}");
        let keys =
            format!("from: https://a.example.com, to: https://b, allow_public_unauthenticated_access: true, {route}");
        wrong(&loaded(&format!("{head}routes: [{{{keys}}}]\n")))
    };
    let (jwt, ci) = ("bearer_token_format: jwt\n", "identity_providers: [CI]");
    assert_eq!(with(jwt, ci), [] as [&str; 0]);
    assert_eq!(with("", &format!("bearer_token_format: jwt, {ci}")), [] as [&str; 0]);
    assert_eq!(with("", ci), ["PST-0212 routes[0].identity_providers"]);
    assert_eq!(with(jwt, "identity_providers: [c1]"), ["PST-0204 routes[0].identity_providers"]);
}

#[test]
fn from_of_what_is_not_carried_yet_names_hosts() {
    let tunnel = |from: &str, to: &str| {
        let text = format!("routes: [{{from: '{from}', to: '{to}', allow_public_unauthenticated_access: true}}]\n");
        let loaded = loaded(&text);
        let hosts = loaded.planned.tunnels.first().map(|(_, tunnel)| (tunnel.carried, tunnel.hosts.join(" ")));
        (wrong(&loaded), hosts)
    };
    let told =
        |hosts: Option<(Carried, &str)>| (Vec::<String>::new(), hosts.map(|(kind, text)| (kind, text.to_owned())));
    assert_eq!(tunnel("ssh://bastion", "ssh://a:22"), told(Some((Carried::Ssh, "bastion"))));
    assert_eq!(tunnel("ssh://bastion", "tcp://a:22").0, ["PST-0602 routes[0].to"]);
    assert_eq!(tunnel("tcp+https://", "tcp://a:1"), (vec!["PST-0601 routes[0].from".to_owned()], None));
    assert_eq!(tunnel("tcp+https://p.example.com/a b", "tcp://a:1").0, ["PST-0601 routes[0].from"]);
}

#[test]
fn upstreams_keep_scheme_and_weight() {
    let ssh = "routes: [{from: 'ssh://bastion', to: 'ssh://a:81,3', allow_public_unauthenticated_access: true}]\n";
    let loaded = loaded(ssh);
    let (key, endpoints) = loaded.planned.endpoints.first().unwrap();
    assert_eq!(key, "routes[0]");
    let told: Vec<_> = endpoints.iter().map(|one| (one.scheme, one.address.as_str(), one.weight)).collect();
    assert_eq!(told, [(Scheme::Ssh, "a:81", Some(3))]);
    let loaded = routed("to: ['h2c://a:81,3', 'https://b/path,4294967295']\n");
    let Target::Upstream(upstream) = &loaded.config.as_ref().unwrap().edge.routes[0].target else { panic!() };
    let weights: Vec<_> = upstream.endpoints.iter().map(|one| (&*one.authority, one.weight)).collect();
    assert_eq!(weights, [("a:81", 3), ("b", u32::MAX)]);
    for weight in ["0", "-1", "1.5", "x", "", "4294967296"] {
        assert_eq!(wrong(&routed(&format!("to: ['http://a,{weight}']\n"))), ["PST-0602 routes[0].to[0]"], "{weight}");
    }
    assert_eq!(wrong(&routed("to: ['http://a,1', 'http://b']\n")), ["PST-0602 routes[0].to[1]"]);
    let served = |to: &str| {
        let loaded = routed(&format!("to: '{to}'\n"));
        let config = loaded.config.as_ref().unwrap_or_else(|| panic!("{to}: {:?}", wrong(&loaded)));
        let Target::Upstream(upstream) = &config.edge.routes[0].target else { panic!("{to}") };
        (
            upstream.endpoints[0].to_string(),
            upstream.endpoints[0].host.clone(),
            config.edge.routes[0].host_rewrite.clone(),
        )
    };
    let socket = served("unix:///run/my%20app.sock");
    assert_eq!((socket.0.as_str(), socket.1.as_str()), ("unix:///run/my app.sock", "/run/my app.sock"));
    assert_eq!(socket.2, HostRewrite::Preserve, "a socket has no name of its own");
    assert_eq!(served("h2c://App.internal:81/x").0, "h2c://App.internal:81");
    assert_eq!(served("h2c://[::1]:81").1, "::1");
    assert_eq!(wrong(&routed("to: https+unix:///run/app.sock\n")), ["PST-0602 routes[0].to"], "it has no name");
    assert_eq!(wrong(&routed("to: https+unix:///run/app.sock\ntls_server_name: a.internal\n")), [] as [&str; 0]);
    let long = "x".repeat(200);
    assert_eq!(wrong(&routed(&format!("to: unix:///run/{long}\n"))), ["PST-0602 routes[0].to"]);
}

#[test]
fn s_086_programs_wait_on_this_machine_unless_hosts_are_listed() {
    let open = |keys: &str| {
        loaded(keys).config.unwrap().edge.authenticate.programs.names().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(open(""), ["localhost"]);
    assert_eq!(open("programmatic_redirect_domain_whitelist: []\n"), [""; 0]);
    let list = "programmatic_redirect_domain_whitelist: [' Localhost ', '::1', 10.0.0.7, bücher.example]\n";
    assert_eq!(open(list), ["localhost", "[::1]", "10.0.0.7", "xn--bcher-kva.example"]);
}

#[test]
fn keys_at_the_top_mean_what_they_say() {
    let planned = loaded(
        "bearer_token_format: identity_token\nidp_access_token_allowed_audiences: []\nprimary_color: abc\n\
         otel_traces_exporter: OTLP\notel_exporter_otlp_endpoint: http://c:4318\notel_exporter_otlp_protocol: HTTP/protobuf\n\
         otel_exporter_otlp_timeout: 2500\notel_bsp_schedule_delay: 1\notel_traces_sampler_arg: 7\n\
         mcp_allowed_client_id_domains: '*.Example.com'\n",
    )
    .planned;
    assert_eq!(planned.tokens.format, TokenFormat::IdToken, "understood, and refused");
    assert_eq!(planned.tokens.audiences, Some(Vec::new()), "none allowed is not the same as not looked at");
    assert_eq!(planned.branding.primary.as_deref(), Some("#aabbcc"));
    let otlp = planned.tracing.otlp.unwrap();
    assert_eq!(
        (otlp.protocol, otlp.timeout, otlp.exact),
        (OtlpProtocol::HttpProtobuf, Duration::from_millis(2500), false)
    );
    assert_eq!((planned.tracing.delay, planned.tracing.batch), (Duration::from_millis(100), 512));
    assert!((planned.tracing.sampled - 1.0).abs() < f64::EPSILON);
    assert_eq!(planned.mcp_client_domains, ["*.example.com"]);
}

#[test]
fn whole_numbers_are_read_as_go_reads_them() {
    let tries = |written: &str| {
        let loaded = loaded(&format!("dns_query_tries: {written}\n"));
        (wrong(&loaded).len(), loaded.config.and_then(|config| config.edge.proxy.dns.tries))
    };
    for (written, number) in
        [("3", 3), ("'3'", 3), ("0x10", 16), ("'0x10'", 16), ("'0o17'", 15), ("3.0", 3), ("true", 1)]
    {
        assert_eq!(tries(written), (0, Some(number)), "{written}");
    }
    for written in ["3.5", "-3", "'3 or 4'", "4294967296", "[3, 4]", "1e300"] {
        assert_eq!(tries(written), (1, None), "{written}");
    }
}

#[test]
fn what_is_not_written_has_its_default() {
    let planned = loaded("auto_apply_changesets: false\n").planned;
    assert_eq!((planned.tokens.format, planned.tokens.audiences), (TokenFormat::Passed, None));
    assert_eq!((planned.tracing.batch, planned.tracing.longest_value), (512, 256));
    assert!(planned.tracing.otlp.is_none());
    let config = loaded("").config.unwrap();
    assert_eq!((config.admin.debug, config.debug_admin, config.dump), (None, false, None));
}

fn planned(keys: &str) -> PlannedRoute {
    routed(keys).planned.routes.first().unwrap().clone()
}

#[test]
fn how_names_are_looked_up_is_as_it_is_written() {
    let dns = |keys: &str| {
        let loaded = loaded(keys);
        loaded.config.unwrap_or_else(|| panic!("{keys}")).edge.proxy.dns
    };
    assert_eq!(dns(""), Dns::default());
    let written =
        dns("dns_lookup_family: all\ndns_query_timeout: 2500ms\ndns_refresh_rate: 30s\ndns_failure_refresh_rate: 5s\n\
         dns_query_tries: 3\ndns_use_tcp: true\ndns_resolvers: ['tcp://10.0.0.53:5353']\n");
    let server = DnsServer { tcp: true, address: "10.0.0.53:5353".parse::<SocketAddr>().unwrap() };
    let expected = Dns {
        family: DnsFamily::All,
        refresh: Duration::from_secs(30),
        failure_refresh: Duration::from_secs(5),
        timeout: Some(Duration::from_secs(2)),
        tries: Some(3),
        tcp: true,
        servers: vec![server],
    };
    assert_eq!(written, expected);
    assert_eq!(dns("dns_query_timeout: 999ms\ndns_query_tries: 0\n"), Dns::default(), "0 is the machine's");
    for family in ["AUTO", "V4_ONLY", "v6_only", "V4_PREFERRED"] {
        assert_eq!(wrong(&loaded(&format!("dns_lookup_family: {family}\n"))), [] as [&str; 0], "{family}");
    }
    assert_eq!(wrong(&loaded("dns_lookup_family: V6\n")), ["PST-0204 dns_lookup_family"]);
}

/// How the one route of these keys balances.
fn balancing(keys: &str) -> Balancing {
    let loaded = routed(keys);
    let config = loaded.config.as_ref().unwrap_or_else(|| panic!("{keys}: {:?}", wrong(&loaded)));
    let Target::Upstream(upstream) = &config.edge.routes[0].target else { panic!("{keys}") };
    upstream.balancing.as_deref().cloned().unwrap_or_default()
}

#[test]
fn how_endpoints_are_chosen_is_as_it_is_written() {
    assert_eq!(balancing(""), Balancing::default());
    assert_eq!(balancing("").panic_threshold, 50);
    let written = balancing(
        "load_balancing_policy: LOAD_BALANCING_POLICY_RING_HASH\nhealthy_panic_threshold: 0\n\
         circuit_breaker_thresholds: {max_requests: 5, max_connection_pools: 9}\noutlier_detection: {consecutive_5xx: 3}\n",
    );
    assert_eq!((written.policy, written.panic_threshold), (LoadBalancing::RingHash, 0));
    assert_eq!(written.breakers, CircuitBreakers { requests: Some(5), ..CircuitBreakers::default() });
    let outliers = written.outliers.unwrap();
    assert_eq!(outliers.server_errors, Consecutive { failures: 3, enforced: 100 });
    assert_eq!(outliers.gateway_failures, Consecutive { failures: 5, enforced: 0 });
    assert_eq!((outliers.max_ejected, outliers.interval), (10, Duration::from_secs(10)));
    let share = FailureShare { threshold: 85, hosts: 5, requests: 50, enforced: 0, enforced_local: 0 };
    assert_eq!((outliers.failure_share, outliers.split_local), (share, false));
    for (name, policy) in [
        ("round_robin", LoadBalancing::RoundRobin),
        ("least_request", LoadBalancing::LeastRequest),
        ("random", LoadBalancing::Random),
        ("MAGLEV", LoadBalancing::Maglev),
    ] {
        assert_eq!(balancing(&format!("load_balancing_policy: {name}\n")).policy, policy);
    }
    let global = loaded("circuit_breaker_thresholds: {max_retries: 7}\n").config.unwrap().edge.proxy.breakers;
    assert_eq!(global, CircuitBreakers { retries: Some(7), ..CircuitBreakers::default() });
    let idle = routed("redirect: {https_redirect: true}\nload_balancing_policy: random\n");
    let told: Vec<_> = idle.problems.iter().map(|problem| format!("{} {}", problem.code, problem.at.key)).collect();
    assert!(told.contains(&"PST-0104 routes[0].load_balancing_policy".to_owned()), "{told:?}");
}

#[test]
fn keys_of_a_route_mean_what_they_say() {
    let route = planned(
        "mcp: {server: {}}\n\
         sub_policies: [{id: x, allowed_users: a, allowed_idp_claims: {g: [h]}}]\nsession_recording: {enabled: true}\n",
    );
    assert_eq!(route.key, "routes[0]");
    let Some(Mcp::Server(server)) = route.mcp else { panic!() };
    assert_eq!((server.max_request_bytes, server.path.as_str()), (4096, "/"));
    assert_eq!((route.access.sub_policies[0].name.as_str(), route.access.recorded), ("x", true));
    assert_eq!(route.access.sub_policies[0].claims["g"], ["h"]);
    assert!(routed("description: a\n").planned.routes.is_empty(), "a route that asks for nothing is not kept");
}

#[test]
fn depends_on_names_hosts_and_says_which_of_them_get_no_cookie() {
    let told_at = |port: &str, settings: &str, depends_on: &str, routes: &str| {
        let loaded = loaded(&format!(
            "{settings}routes:\n  - from: https://a.example.com{port}\n    to: https://a.internal\n    \
             allow_any_authenticated_user: true\n    depends_on: {depends_on}\n{routes}"
        ));
        assert!(wrong(&loaded).is_empty(), "{:?}", loaded.problems);
        let about = |problem: &&Problem| problem.code == Code::NoCookieThere;
        let told: Vec<_> = loaded.problems.iter().filter(about).map(|problem| problem.at.key.to_string()).collect();
        assert!(
            loaded.problems.iter().filter(about).all(|problem| problem.what.contains(port)),
            "{:?}",
            loaded.problems
        );
        let route = Arc::clone(&loaded.config.unwrap().edge.routes[0]);
        (route.depends_on.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "), told.join(" "))
    };
    let told = |settings: &str, depends_on: &str, routes: &str| told_at("", settings, depends_on, routes);
    let other = |from: &str, lines: &str| {
        format!("  - from: https://{from}\n    to: https://b.internal\n    allow_any_authenticated_user: true\n{lines}")
    };
    let told_of = |settings: &str, depends_on: &str, routes: &str| told(settings, depends_on, routes).1;
    let b = other("b.example.com", "");
    let both = told("", "['https://B.example.com:8/x', nobody.example.com]", &b);
    assert_eq!(both, ("b.example.com:8 nobody.example.com".to_owned(), "routes[0].depends_on[1]".to_owned()));
    for (depends_on, routes) in [
        ("b.example.com", b.clone()),
        ("[a.example.com, 'a.example.com:8']", String::new()),
        ("x.example.com", other("*.example.com", "")),
        ("'b.example.com:8'", other("b.example.com:8", "")),
    ] {
        assert_eq!(told_of("", depends_on, &routes), "", "{depends_on}");
    }
    for (settings, depends_on, routes) in [
        ("", "b.example.com", other("b.example.com:8", "")),
        ("", "b.example.com", other("b.example.com", "    idp_client_id: other\n")),
        ("", "authenticate.example.com", String::new()),
        ("cookie_domain: example.com\n", "b.example.org", other("b.example.org", "")),
    ] {
        assert_eq!(told_of(settings, depends_on, &routes), "routes[0].depends_on", "{depends_on}");
    }
    assert_eq!(told_of("cookie_domain: example.com\n", "b.example.com", &b), "", "it is the same cookie");
    let at_a_port =
        |routes: &str| told_at(":8", "runtime_flags.match_any_incoming_port: false\n", "b.example.com", routes).1;
    assert_eq!(at_a_port(&b), "routes[0].depends_on", "a page at a port leads to the other host at that port");
    assert_eq!(at_a_port(&other("b.example.com:8", "")), "");
}

#[test]
fn health_checks_mean_what_they_say() {
    let check = |probe: &str| {
        let keys = "timeout: 0.5s, interval: 10s, unhealthy_threshold: 3, healthy_threshold: 1";
        balancing(&format!("health_checks: {{{keys}, {probe}}}\n")).health_checks.remove(0)
    };
    let http =
        check("http_health_check: {path: /h, expected_statuses: {start: 200, end: 300}, codec_client_type: http2}");
    assert_eq!((http.timeout, http.no_traffic_interval), (Duration::from_millis(500), Duration::from_secs(60)));
    let Probe::Http(http) = http.probe else { panic!() };
    assert_eq!((http.expected.as_slice(), http.http2), (&[StatusRange { start: 200, end: 300 }][..], true));
    let Probe::Tcp(tcp) = check("tcp_health_check: {send: {text: 5049}, receive: [{binary: UE8=}]}").probe else {
        panic!()
    };
    assert_eq!((tcp.send, tcp.receive), (Some(Payload(b"PI".to_vec())), vec![Payload(b"PO".to_vec())]));
    let Probe::Grpc(grpc) = check("grpc_health_check: {}").probe else { panic!() };
    assert_eq!((grpc.service.as_str(), grpc.authority), ("", None));
    let one = "{timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {}}";
    let many = |count: usize| format!("health_checks: [{}]\n", vec![one; count].join(", "));
    assert_eq!(balancing(&many(HealthCheck::MOST)).health_checks.len(), HealthCheck::MOST);
    assert_eq!(wrong(&routed(&many(HealthCheck::MOST + 1))), ["PST-0213 routes[0].health_checks"]);
    for (old, new, key) in [
        ("timeout: 1s", "timeout: 0s", "timeout"),
        ("interval: 1s", "interval: 0s", "interval"),
        ("timeout: 1s", "timeout: 1m", "timeout"),
        ("timeout: 1s", "unhealthy_interval: 0s, timeout: 1s", "unhealthy_interval"),
    ] {
        let keys = many(1).replace(old, new);
        assert_eq!(wrong(&routed(&keys)), [format!("PST-0202 routes[0].health_checks[0].{key}")], "{keys}");
    }
}

#[test]
fn files_of_tls_are_read_and_belong_together() {
    let folder = tempfile::tempdir().unwrap();
    let pair = rcgen::generate_simple_self_signed(["app.example.com".to_owned()]).unwrap();
    let (certificate, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
    let file = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name).display().to_string()
    };
    let (certificate_file, key_file) = (file("crt", &certificate), file("key", &key));
    let loaded = routed(&format!(
        "to: https://a.internal\ntls_server_name: a.internal\ntls_upstream_server_name: b.internal\ntls_client_cert_file: {certificate_file}\ntls_client_key: {}\ntls_custom_ca_file: {certificate_file}\n",
        STANDARD.encode(&key)
    ));
    assert_eq!(wrong(&loaded), [] as [&str; 0]);
    let edge = &loaded.config.as_ref().unwrap().edge;
    let Target::Upstream(upstream) = &edge.routes[0].target else { panic!() };
    let tls = upstream.tls.as_deref().unwrap();
    assert_eq!((tls.name.as_deref(), tls.skip_verify), (Some("b.internal"), false));
    assert_eq!(tls.client.as_ref().unwrap().1.expose().as_slice(), key.as_bytes());
    assert_eq!(tls.authorities.as_deref(), Some(certificate.as_bytes()));
    assert!(loaded.watched.iter().any(|watched| watched.path == Path::new(&certificate_file)));
    let other = rcgen::generate_simple_self_signed(["b".to_owned()]).unwrap().signing_key.serialize_pem();
    let mixed = format!("tls_client_cert_file: {certificate_file}\ntls_client_key_file: {}\n", file("other", &other));
    assert_eq!(wrong(&routed(&mixed)), ["PST-0304 routes[0].tls_client_cert_file"]);
    let twice = format!("tls_custom_ca: {}\ntls_custom_ca_file: /no/such\n", STANDARD.encode(&certificate));
    assert_eq!(wrong(&routed(&twice)), [] as [&str; 0], "the inline form wins");
    assert!(!format!("{:?}", routed(&format!("tls_client_key_file: {key_file}\n"))).contains("PRIVATE"), "s_108");
}

#[test]
fn a_key_of_ssh_that_others_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    fs::write(&file, "key").unwrap();
    let text = |listens: &str| format!("{listens}ssh_host_key_files: [{}]\n", file.display());
    for (mode, listens, expected) in [
        (0o644, "ssh_address: :22\n", &["PST-0210 ssh_host_key_files[0]"][..]),
        (0o640, "ssh_address: :22\n", &["PST-0210 ssh_host_key_files[0]"]),
        (0o600, "ssh_address: :22\n", &[]),
        (0o644, "", &[]),
    ] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(wrong(&loaded(&text(listens))), expected, "{mode:o} {listens}");
    }
}

#[test]
fn an_empty_domain_of_mcp_is_refused_while_mcp_is_on() {
    let text = "mcp_allowed_client_id_domains: ['']\n";
    assert_eq!(wrong(&loaded(text)).len(), 1);
    assert_eq!(wrong(&loaded(&format!("{text}runtime_flags: {{mcp: false}}\n"))), [] as [&str; 0]);
}

/// Whether every path that `inner` matches is matched by `outer`, as far as that can be told: each compared with each.
fn covers(outer: &PathMatcher, inner: &PathMatcher) -> bool {
    match (outer, inner) {
        (PathMatcher::Prefix(prefix), PathMatcher::Prefix(path) | PathMatcher::Exact(path)) => path.starts_with(prefix),
        (PathMatcher::Exact(a), PathMatcher::Exact(b)) => a == b,
        (PathMatcher::Regex(regex), PathMatcher::Exact(path)) => regex.is_match(path),
        (PathMatcher::Regex(a), PathMatcher::Regex(b)) => a.as_str() == b.as_str(),
        (PathMatcher::Prefix(prefix), PathMatcher::Regex(_)) => prefix == "/",
        (PathMatcher::Exact(_), PathMatcher::Prefix(_) | PathMatcher::Regex(_))
        | (PathMatcher::Regex(_), PathMatcher::Prefix(_)) => false,
    }
}

fn takes_hosts(outer: &HostPattern, inner: &HostPattern) -> bool {
    match (outer, inner) {
        (HostPattern::Wildcard { pattern, port: None, .. }, HostPattern::Wildcard { .. }) if pattern == "*" => true,
        (HostPattern::Exact { host: a, port: p }, HostPattern::Exact { host: b, port: q })
        | (HostPattern::Wildcard { pattern: a, port: p, .. }, HostPattern::Wildcard { pattern: b, port: q, .. }) => {
            a == b && p == q
        }
        (HostPattern::Exact { .. }, HostPattern::Wildcard { .. })
        | (HostPattern::Wildcard { .. }, HostPattern::Exact { .. }) => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn hidden_and_open_routes_are_those_that_comparing_all_with_all_finds(
        routes in proptest::collection::vec((0..5_usize, 0..9_usize, any::<bool>()), 1..14)
    ) {
        let hosts = ["https://a.example.com", "https://a.example.com:8443", "https://*.example.com", "https://*", "https://*:81"];
        let paths = ["", "prefix: /, ", "prefix: /a, ", "prefix: /a/b, ", "prefix: /ax, ", "path: /a, ", "path: /ax, ",
            "regex: '/a.*', ", "regex: '/[ab]x?', "];
        let access = ["allow_public_unauthenticated_access: true", "allow_any_authenticated_user: true"];
        let lines: String = routes.iter().enumerate().map(|(index, (host, path, public))| format!(
            "  - {{from: '{}', {}to: 'https://u{index}.internal', {}}}\n", hosts[*host], paths[*path], access[usize::from(*public)]
        )).collect();
        let loaded = loaded(&format!("routes:\n{lines}"));
        let told = |code| loaded.problems.iter().filter(move |problem| problem.code == code).count();
        let routes = &loaded.config.as_ref().unwrap().edge.routes;
        let before = |index: usize| routes.iter().take(index);
        let hides = |outer: &Route, inner: &Route| takes_hosts(&outer.hosts, &inner.hosts) && covers(&outer.path, &inner.path);
        let hidden = routes.iter().enumerate().filter(|(index, one)| before(*index).any(|outer| hides(outer, one)));
        prop_assert_eq!(told(Code::HiddenRoute), hidden.count());
        let opens = |outer: &Route, inner: &Route| {
            let PathMatcher::Prefix(prefix) = &outer.path else { return false };
            let same = takes_hosts(&outer.hosts, &inner.hosts) && takes_hosts(&inner.hosts, &outer.hosts);
            same && !prefix.ends_with('/') && covers(&inner.path, &PathMatcher::Exact(format!("{prefix}x"))) && outer.policy != inner.policy
        };
        let open = routes.iter().enumerate().map(|(index, one)| before(index).filter(|outer| opens(outer, one)).count());
        prop_assert_eq!(told(Code::OpenPrefix), open.sum::<usize>());
    }
}

/// A file whose own tests are those.
fn with_tests(tests: &str) -> Loaded {
    loaded(&format!(
        "routes:
  - {{name: app, from: https://a.example.com, to: http://a.internal, policy: {{allow: {{and: [{{domain: example.com}}]}}}}}}
  - {{from: https://r.example.com, redirect: {{host_redirect: a.example.com}}, allow_public_unauthenticated_access: true}}
tests:
{tests}"
    ))
}

fn fatal(loaded: &Loaded) -> Vec<String> {
    let fatal = loaded.problems.iter().filter(|problem| problem.severity == Severity::Fatal);
    fatal.map(|problem| format!("{} {} {}", problem.code, problem.at.key, problem.what)).collect()
}

#[test]
fn tests_beside_the_policies_pass_or_refuse_the_file_and_say_what_came_out() {
    let alice = "as: {email: alice@example.com}";
    let good = [
        format!("- {{url: https://a.example.com/x, {alice}, expect: allow}}"),
        "- {url: a.example.com, as: {email: a@example.org}, expect: deny, reason: domain-unauthorized}".to_owned(),
        "- {url: https://a.example.com, as: {email: a@example.org}, expect: 403}".to_owned(),
        "- {url: https://a.example.com, expect: SIGN_IN}".to_owned(),
        "- {url: https://a.example.com, expect: 302}".to_owned(),
        "- {url: https://a.example.com, headers: {accept: application/json}, expect: 401}".to_owned(),
        "- {url: https://r.example.com/, expect: redirect}".to_owned(),
        "- {url: https://r.example.com/, expect: 301}".to_owned(),
        "- {url: https://b.example.com/, expect: not_found}".to_owned(),
    ];
    let loaded = with_tests(&good.map(|test| format!("  {test}\n")).concat());
    assert!(loaded.config.is_some(), "{:?}", fatal(&loaded));

    let cases = [
        (
            format!("url: https://a.example.com/x, {alice}, expect: deny"),
            "this test fails: the request passes to the upstream by the route `app` (`via-upstream`)",
        ),
        (
            "name: n, url: https://a.example.com/, expect: allow".to_owned(),
            "the test `n` fails: the request is sent to sign in by the route `app`, with 302 (`user-unauthenticated`)",
        ),
        (
            "url: https://a.example.com/, as: {email: a@b.test}, expect: deny, reason: denied".to_owned(),
            "this test fails: the request is refused by the route `app`, with 403 (`domain-unauthorized`)",
        ),
        (
            format!("url: https://b.example.com/, {alice}, expect: deny"),
            "this test fails: no route takes the request, with 404 (`route-not-found`)",
        ),
        ("url: https://r.example.com/, expect: 302".to_owned(), "with 301 ("),
    ];
    for (test, what) in cases {
        let loaded = with_tests(&format!("  - {{{test}}}\n"));
        let told = fatal(&loaded);
        assert!(loaded.config.is_none() && told.len() == 1, "{test}: {told:?}");
        assert!(told[0].starts_with("PST-0902 tests[0] ") && told[0].contains(what), "{test}: {told:?}");
    }
}

#[test]
fn a_test_that_cannot_be_read_is_told_of_and_none_is_run() {
    let cases = [
        (
            "url: https://a.example.com/, expect: allowed",
            "PST-0901 tests[0].expect `allowed` is nothing that can come of a request",
        ),
        ("url: https://a.example.com/, expect: 99", "PST-0901 tests[0].expect"),
        ("url: ftp://a.example.com/, expect: allow", "PST-0901 tests[0].url"),
        ("url: https://a.example.com/, method: 'G T', expect: allow", "PST-0901 tests[0].method"),
        ("url: https://a.example.com/, source_ip: here, expect: allow", "PST-0901 tests[0].source_ip"),
        ("url: https://a.example.com/, time: soon, expect: allow", "PST-0901 tests[0].time"),
        ("url: https://a.example.com/, headers: {'a b': c}, expect: allow", "PST-0901 tests[0].headers"),
        ("url: https://a.example.com/, as: {claims: [a]}, expect: allow", "PST-0201 tests[0].as.claims"),
        ("url: https://a.example.com/, as: {mail: a}, expect: allow", "PST-0101 tests[0].as.mail"),
        ("url: https://a.example.com/", "PST-0211 tests[0].expect this test has no `expect`"),
        ("expect: allow", "PST-0211 tests[0].url this test has no `url`"),
        ("url: '', expect: allow", "PST-0211 tests[0].url this test has no `url`"),
    ];
    for (test, told) in cases {
        let loaded = with_tests(&format!("  - {{{test}}}\n"));
        let all = fatal(&loaded);
        assert!(all.len() == 1 && all[0].starts_with(told), "{test}: {all:?}");
    }
    // The first of these two would fail; it is not run as long as the file has another error.
    let loaded = with_tests("  - {url: https://a.example.com/, expect: deny}\n  - {url: https://a.example.com/}\n");
    assert_eq!(fatal(&loaded).len(), 1, "{:?}", fatal(&loaded));
}

#[test]
fn a_test_whose_outcome_depends_on_the_clock_never_stops_a_load() {
    let load = |policy: &str, test: &str| {
        loaded(&format!(
            "routes:\n  - {{from: https://a.example.com, to: http://a.internal, policy: {policy}}}\n\
             tests:\n  - {{url: https://a.example.com, as: {{user: u}}, expect: allow{test}}}\n"
        ))
    };
    let past = "{allow: {and: [{date: {before: '2020-01-01T00:00:00Z'}}]}}";
    for (policy, test, outcome) in [
        (past, "", Some(Severity::Advisory)),
        (past, ", time: '2021-01-01T00:00:00Z'", Some(Severity::Fatal)),
        (past, ", time: '2019-01-01T00:00:00Z'", None),
        ("{allow: {and: [{date: {after: '2020-01-01T00:00:00Z'}}]}}", "", Some(Severity::Advisory)),
        ("{allow: {and: [{accept: true}, {day_of_week: mon}]}}", "", Some(Severity::Advisory)),
        ("{allow: {and: [{time_of_day: {timezone: UTC, after: '08:00:00'}}]}}", "", Some(Severity::Advisory)),
        ("{allow: {or: [{accept: true}, {day_of_week: mon}]}}", "", None),
        ("{allow: {and: [{accept: true}]}}", "", None),
        ("{allow: {and: [{user: {is: v}}]}}", "", Some(Severity::Fatal)),
    ] {
        let loaded = load(policy, test);
        let told: Vec<_> = loaded.problems.iter().map(|problem| (problem.severity, problem.at.key.as_str())).collect();
        let key = "tests[0]";
        assert_eq!(told, outcome.map(|severity| (severity, key)).into_iter().collect::<Vec<_>>(), "{policy}{test}");
        assert_eq!(loaded.config.is_some(), outcome != Some(Severity::Fatal), "{policy}{test}");
    }
}

/// The names that certificates are ordered for, and the keys of what is told of certificates.
fn ordered(more: &str, variables: &[(&str, &str)]) -> (Vec<String>, Vec<String>, Option<Autocert>) {
    let text = format!(
        "autocert: true\nidp_provider: google\nidp_client_id: id\nidp_client_secret: secret\n{more}routes:\n\
         - {{from: https://App.example.com, to: http://a, allow_any_authenticated_user: true}}\n\
         - {{from: https://app.example.com, prefix: /x, to: http://b, allow_any_authenticated_user: true}}\n\
         - {{from: 'https://*.wild.example.com', to: http://c, allow_any_authenticated_user: true}}\n\
         - {{from: https://192.0.2.7, to: http://d, allow_any_authenticated_user: true}}\n\
         - {{from: http://plain.example.com, to: http://e, allow_any_authenticated_user: true}}\n"
    );
    let environment = Environment::of(variables.iter().copied()).unwrap();
    let loaded = load_text(None, &text, false, &environment);
    let told = loaded.problems.iter().filter(|problem| problem.code == Code::NoCertificate);
    let told = told.map(|problem| problem.at.key.to_string()).collect();
    let autocert = loaded.config.and_then(|config| config.autocert);
    (autocert.as_ref().map(|autocert| autocert.names.clone()).unwrap_or_default(), told, autocert)
}

#[test]
fn certificates_are_ordered_for_hosts_that_have_none_and_can_get_one() {
    let (names, told, autocert) =
        ordered("authenticate_service_url: https://auth.example.com\n", &[("HOME", "/home/p")]);
    assert_eq!(names, ["app.example.com", "auth.example.com"]);
    assert_eq!(told, ["routes[2].from", "routes[3].from"]);
    let autocert = autocert.unwrap();
    assert_eq!(autocert.folder, Path::new("/home/p/.local/share/postern/autocert"));
    assert_eq!(autocert.directory.host_str(), Some("acme-v02.api.letsencrypt.org"));
    assert!(!autocert.answers_http);

    // What a certificate of one's own covers is not ordered, nor told of.
    let folder = tempfile::tempdir().unwrap();
    let names = ["app.example.com", "*.wild.example.com"].map(str::to_owned);
    let pair = rcgen::generate_simple_self_signed(names).unwrap();
    fs::write(folder.path().join("crt"), pair.cert.pem()).unwrap();
    fs::write(folder.path().join("key"), pair.signing_key.serialize_pem()).unwrap();
    let here = folder.path().display();
    let own = format!(
        "authenticate_service_url: https://auth.example.com\ncertificate_file: {here}/crt\ncertificate_key_file: {here}/key\n\
         autocert_use_staging: true\nhttp_redirect_addr: 127.0.0.1:0\nautocert_dir: /srv/certificates\n"
    );
    let (names, told, autocert) = ordered(&own, &[]);
    assert_eq!((names, told), (vec!["auth.example.com".to_owned()], vec!["routes[3].from".to_owned()]));
    let staging = autocert.unwrap();
    assert_eq!((staging.folder.as_path(), staging.answers_http), (Path::new("/srv/certificates"), true));
    assert!(staging.directory.as_str().contains("staging"));
    let (names, ..) = ordered("authenticate_service_url: https://auth.example.com\ninsecure_server: true\n", &[]);
    assert!(names.is_empty(), "nobody is shown a certificate");
}

#[test]
fn must_staple_is_warned_of_where_the_authority_is_known_to_refuse_it() {
    let base = "authenticate_service_url: https://auth.example.com\nautocert_must_staple: true\n";
    for (authority, refuses) in [
        ("", true),
        ("autocert_use_staging: true\n", true),
        ("autocert_ca: https://acme-v02.api.letsencrypt.org/directory\n", true),
        ("autocert_ca: https://acme.example.com/directory\n", false),
    ] {
        let (names, told, autocert) = ordered(&format!("{base}{authority}"), &[]);
        assert!(autocert.unwrap().must_staple && !names.is_empty(), "it is ordered all the same");
        assert_eq!(told.iter().any(|key| key == "autocert_must_staple"), refuses, "{authority}");
    }
    let (_, told, autocert) = ordered("authenticate_service_url: https://auth.example.com\n", &[]);
    assert!(!autocert.unwrap().must_staple && !told.iter().any(|key| key == "autocert_must_staple"));
}
