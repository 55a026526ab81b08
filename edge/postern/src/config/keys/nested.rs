//! The keys of maps inside of the file and of routes.

use super::Kind::{
    Address, Block, Blocks, Bool, Choice, DurationWithin, File, Header, Host, List, Number, Pem, Seconds, Special,
    Text, Url,
};
use super::{Form, Kind, Scope, Variable, no_effect, part, works};

const COUNT: Kind = Kind::COUNT;
const PERCENT: Kind = Kind::PERCENT;
const TEXTS: Kind = List(&Text);
const NO_ENVOY: &str = "it configures Envoy, and Postern has none";

/// `redirect` of a route (01 §2.8).
pub(crate) static REDIRECT: Scope = Scope {
    name: "`redirect`",
    guarded: true,
    prefix: None,
    hints: &[],
    keys: &[
        works("https_redirect", Bool, "`false`"),
        works("scheme_redirect", Text, "the request's"),
        works("host_redirect", Host, "the request's").differs("refused if it cannot be sent"),
        works("port_redirect", Number(0, 65_535), "the request's"),
        works("path_redirect", Text, "the request's"),
        works("prefix_rewrite", Text, "none"),
        works("response_code", Choice(&["301", "302", "303", "307", "308"]), "`301`"),
        works("strip_query", Bool, "`false`"),
    ],
};

/// `response` of a route (01 §2.8).
pub(crate) static RESPONSE: Scope = Scope {
    name: "`response`",
    guarded: true,
    prefix: None,
    hints: &[],
    keys: &[works("status", Number(200, 599), "required"), works("body", Text, "empty")],
};

/// `limits`, Postern's own: the rows of 03 §2 that are the edge's. None of them can be switched off.
pub(crate) static LIMITS: Scope = Scope {
    name: "`limits`",
    guarded: true,
    prefix: None,
    hints: &[
        ("max_connections", "write `connections`, or `circuit_breaker_thresholds` if upstreams are meant"),
        ("timeout_idle", "it stands at the top of the file"),
        ("timeout_read", "it stands at the top of the file"),
        ("timeout_write", "it stands at the top of the file"),
        ("request_body_bytes", "write `max_request_body_bytes`"),
    ],
    keys: &[
        works("connections", Number(1, 1_000_000), "`10000`"),
        works("connections_per_address", Number(1, 1_000_000), "none"),
        works("handshakes", Number(1, 100_000), "`500`"),
        works("handshake_timeout", DurationWithin(SECOND, MINUTE), "`10s`"),
        works("keepalive_timeout", DurationWithin(SECOND, HOUR), "`1m`"),
        works("requests_per_connection", Number(1, 1_000_000), "`1000`"),
        works("requests_in_flight", Number(2, 65_535), "`20000`"),
        works("request_head_timeout", DurationWithin(SECOND, 5 * MINUTE), "`15s`"),
        works("request_head_bytes", Number(4096, 262_144), "`65536`"),
        works("request_field_bytes", Number(1024, 262_144), "`32768`"),
        works("request_fields", Number(20, 250), "`200`"),
        // The longest that `http` reads.
        works("request_target_bytes", Number(1024, 65_534), "`16384`"),
        works("request_body_idle_timeout", DurationWithin(SECOND, HOUR), "`30s`"),
        works("request_body_min_rate", Number(1, 1_048_576), "`1024`"),
        works("max_request_body_bytes", Number(1, MOST_BODY), "none"),
        works("chunk_extension_bytes", Number(0, 16_384), "`256`"),
        works("chunk_extensions_bytes", Number(0, 1_048_576), "`16384`"),
        works("trailer_bytes", Number(0, 65_536), "`8192`"),
        works("response_stall_timeout", DurationWithin(SECOND, HOUR), "`30s`"),
        works("http2_streams", Number(1, 1000), "`100`"),
        works("http2_stream_window_bytes", Number(16_384, 16_777_216), "`65536`"),
        works("http2_connection_window_bytes", Number(65_535, 67_108_864), "`1048576`"),
        works("http2_header_list_bytes", Number(4096, 262_144), "`65536`"),
        works("http2_reset_streams", Number(1, 1000), "`50`"),
        works("http2_pending_resets", Number(1, 1000), "`20`"),
        works("http2_error_resets", Number(1, 10_000), "`1024`"),
        works("upstream_connect_timeout", DurationWithin(100, MINUTE), "`5s`"),
        works("upstream_keepalive_timeout", DurationWithin(SECOND, HOUR), "`1m`"),
        works("upstream_head_bytes", Number(4096, 131_072), "`65536`"),
        works("upstream_fields", Number(20, 250), "`200`"),
        works("drain_timeout", DurationWithin(SECOND, 10 * MINUTE), "`30s`"),
    ],
};

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
/// A terabyte.
pub(super) const MOST_BODY: u64 = 1 << 40;

/// An entry of `certificates`.
pub(crate) static CERTIFICATE: Scope = Scope {
    name: "an entry of `certificates`",
    guarded: true,
    prefix: None,
    hints: &[],
    keys: &[works("cert", File, "required"), works("key", File, "required")],
};

/// An entry of `tests`, Postern's own.
pub(crate) static ACCESS_TEST: Scope = Scope {
    name: "an entry of `tests`",
    guarded: true,
    prefix: None,
    hints: &[
        ("path", "write the whole address as `url`"),
        ("user", "write `as: {user: ID}`"),
        ("expected", "write `expect`"),
    ],
    keys: &[
        works("name", Text, "none"),
        works("url", Url, "required"),
        works("method", Text, "`GET`"),
        works("headers", Kind::Map(&Text), "those of a browser"),
        works("as", Block(&PERSON), "nobody is signed in"),
        works("source_ip", Text, "`127.0.0.1`"),
        works("time", Text, "now"),
        works(
            "expect",
            Special("`allow`, `deny`, `sign_in`, `not_found`, `redirect`, or a status", Form::Text),
            "required",
        ),
        works("reason", Text, "any"),
    ],
};

/// Who asks in a test.
pub(crate) static PERSON: Scope = Scope {
    name: "`as`",
    guarded: true,
    prefix: None,
    hints: &[("id", "write `user`"), ("group", "write `groups`"), ("claim", "write `claims`")],
    keys: &[
        works("user", Text, "none"),
        works("email", Text, "none"),
        works("groups", TEXTS, "none"),
        works("claims", Kind::Map(&Special("a claim's value", Form::Any)), "none"),
    ],
};

/// An entry of `rewrite_response_headers` (01 §2.1).
pub(crate) static REWRITE_RESPONSE_HEADER: Scope = Scope {
    name: "an entry of `rewrite_response_headers`",
    guarded: true,
    prefix: None,
    hints: &[],
    keys: &[works("header", Header, "required"), works("prefix", Text, "empty"), works("value", Text, "empty")],
};

/// An entry of `sub_policies` (01 §2.1).
pub(crate) static SUB_POLICY: Scope = Scope {
    name: "an entry of `sub_policies`",
    guarded: true,
    prefix: None,
    hints: &[],
    keys: &[
        part("id", Text, "none"),
        part("name", Text, "none"),
        part("allowed_users", TEXTS, "none"),
        part("allowed_domains", TEXTS, "none"),
        part("allowed_idp_claims", Kind::Map(&TEXTS), "none"),
        part("rego", TEXTS, "none"),
        part("explanation", Text, "none"),
        part("remediation", Text, "none"),
    ],
};

/// `downstream_mtls` (01 §1.6).
pub(crate) static DOWNSTREAM_MTLS: Scope = Scope {
    name: "`downstream_mtls`",
    guarded: true,
    prefix: Some("DOWNSTREAM_MTLS_"),
    hints: &[],
    keys: &[
        works("ca", Pem, "none"),
        works("ca_file", File, "none"),
        works("crl", Pem, "none").differs("certificates between leaf and authority are looked up too"),
        works("crl_file", File, "none"),
        works(
            "enforcement",
            Choice(&["policy_with_default_deny", "policy", "reject_connection"]),
            "`policy_with_default_deny`",
        ),
        works(
            "match_subject_alt_names",
            List(&Special(
                "`{TYPE: REGEX}`, TYPE one of `dns`, `email`, `ip_address`, `uri`, `user_principal_name`",
                Form::OneEntry,
            )),
            "none",
        )
        .differs("each expression is anchored at both ends")
        .variable(Variable::None),
        works("max_verify_depth", COUNT, "`1`"),
    ],
};

/// An entry of `identity_providers` (01 §1.8).
pub(crate) static IDENTITY_PROVIDER: Scope = Scope {
    name: "an entry of `identity_providers`",
    guarded: true,
    prefix: None,
    hints: &[("jwks_uri", "write `jwks_url`"), ("issuer_url", "write `issuer`"), ("audience", "write `audiences`")],
    keys: &[
        part("issuer", Url, "required"),
        part("jwks_url", Url, "found by discovery"),
        part("supported_algs", TEXTS, "`RS256`, `ES256`, `EdDSA`"),
        part("audiences", TEXTS, "required"),
    ],
};

/// An entry of `databroker_cluster_nodes` (01 §1.9).
pub(crate) static CLUSTER_NODE: Scope = Scope {
    name: "an entry of `databroker_cluster_nodes`",
    guarded: true,
    prefix: None,
    hints: &[],
    keys: &[
        part("id", Text, "required"),
        part("grpc_address", Text, "required"),
        part("raft_address", Address, "none"),
    ],
};

/// `blob_storage` (01 §1.9).
pub(crate) static BLOB_STORAGE: Scope = Scope {
    name: "`blob_storage`",
    guarded: false,
    prefix: None,
    hints: &[],
    keys: &[part("bucket_uri", Text, "none"), part("managed_prefix", Text, "none")],
};

/// `circuit_breaker_thresholds`, of all routes or of one (01 §1.3).
pub(crate) static CIRCUIT_BREAKERS: Scope = Scope {
    name: "`circuit_breaker_thresholds`",
    guarded: false,
    prefix: None,
    hints: &[],
    keys: &[
        works("max_connections", COUNT, "`1024`; in a route, the global one")
            .differs("connections that carry requests; in HTTP/2, 100 each"),
        works("max_pending_requests", COUNT, "`1024`; in a route, the global one")
            .differs("requests that wait for another's connection; not those whose own is being made"),
        works("max_requests", COUNT, "`1024`; in a route, the global one"),
        works("max_retries", COUNT, "`3`; in a route, the global one")
            .differs("there are retries: one at most, and for a tenth of the requests"),
        no_effect("max_connection_pools", COUNT, "the connections of all routes are in one pool"),
    ],
};

/// An entry of `health_checks` (01 §2.11): the keys of Envoy's message.
pub(crate) static HEALTH_CHECK: Scope = Scope {
    name: "an entry of `health_checks`",
    guarded: true,
    prefix: None,
    hints: &[],
    keys: &[
        works("timeout", Seconds, "required"),
        works("interval", Seconds, "required"),
        works("unhealthy_threshold", COUNT, "required"),
        works("healthy_threshold", COUNT, "required"),
        works("http_health_check", Block(&HTTP_HEALTH_CHECK), "none"),
        works("tcp_health_check", Block(&TCP_HEALTH_CHECK), "none"),
        works("grpc_health_check", Block(&GRPC_HEALTH_CHECK), "none"),
        works("initial_jitter", Seconds, "none"),
        works("interval_jitter", Seconds, "none"),
        works("interval_jitter_percent", COUNT, "none"),
        works("no_traffic_interval", Seconds, "`60s`"),
        works("no_traffic_healthy_interval", Seconds, "as `no_traffic_interval`"),
        works("unhealthy_interval", Seconds, "as `interval`"),
        works("unhealthy_edge_interval", Seconds, "as `unhealthy_interval`"),
        works("healthy_edge_interval", Seconds, "as `interval`"),
        works("alt_port", Number(0, 65_535), "the endpoint's"),
        works("reuse_connection", Bool, "`true`"),
        works("always_log_health_check_failures", Bool, "`false`"),
        works("always_log_health_check_success", Bool, "`false`"),
        no_effect("custom_health_check", Special("map", Form::Any), NO_ENVOY),
        no_effect("event_log_path", File, NO_ENVOY),
        no_effect("event_logger", Special("list", Form::Any), NO_ENVOY),
        no_effect("event_service", Special("map", Form::Any), NO_ENVOY),
        no_effect("tls_options", Special("map", Form::Any), NO_ENVOY),
        no_effect("transport_socket_match_criteria", Special("map", Form::Any), NO_ENVOY),
    ],
};

/// `http_health_check` (01 §2.11).
pub(crate) static HTTP_HEALTH_CHECK: Scope = Scope {
    name: "`http_health_check`",
    guarded: true,
    prefix: None,
    hints: &[],
    keys: &[
        works("host", Host, "the endpoint's"),
        works("path", Text, "required"),
        works(
            "method",
            Choice(&["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "METHOD_UNSPECIFIED"]),
            "`GET`",
        ),
        works("send", Block(&PAYLOAD), "none"),
        works("receive", Blocks(&PAYLOAD), "none"),
        works("expected_statuses", Blocks(&STATUS_RANGE), "200 alone"),
        works("retriable_statuses", Blocks(&STATUS_RANGE), "none"),
        works("request_headers_to_add", Blocks(&HEADER_OPTION), "none"),
        works("request_headers_to_remove", List(&Header), "none"),
        works("codec_client_type", Choice(&["http1", "http2", "http3"]), "`http1`"),
        no_effect("response_buffer_size", COUNT, NO_ENVOY),
        no_effect("service_name_matcher", Special("map", Form::Any), NO_ENVOY),
    ],
};

/// `tcp_health_check` (01 §2.11).
pub(crate) static TCP_HEALTH_CHECK: Scope = Scope {
    name: "`tcp_health_check`",
    guarded: true,
    prefix: None,
    hints: &[],
    keys: &[
        works("send", Block(&PAYLOAD), "none: connecting is enough"),
        works("receive", Blocks(&PAYLOAD), "none"),
        no_effect("proxy_protocol_config", Special("map", Form::Any), NO_ENVOY),
    ],
};

/// `grpc_health_check` (01 §2.11).
pub(crate) static GRPC_HEALTH_CHECK: Scope = Scope {
    name: "`grpc_health_check`",
    guarded: true,
    prefix: None,
    hints: &[],
    keys: &[
        works("service_name", Text, "empty: the whole server"),
        works("authority", Host, "the endpoint's"),
        works("initial_metadata", Blocks(&HEADER_OPTION), "none"),
    ],
};

/// An entry of `request_headers_to_add`, `initial_metadata`.
pub(crate) static HEADER_OPTION: Scope = Scope {
    name: "a header to add",
    guarded: true,
    prefix: None,
    hints: &[],
    keys: &[
        works("header", Block(&HEADER), "required"),
        no_effect("append_action", Text, NO_ENVOY),
        no_effect("keep_empty_value", Bool, NO_ENVOY),
    ],
};

/// Its `header`.
pub(crate) static HEADER: Scope = Scope {
    name: "`header`",
    guarded: true,
    prefix: None,
    hints: &[("name", "write `key`")],
    keys: &[part("key", Header, "required"), part("value", Text, "empty")],
};

/// What is sent, or must be received (01 §2.11).
pub(crate) static PAYLOAD: Scope = Scope {
    name: "a payload",
    guarded: true,
    prefix: None,
    hints: &[],
    keys: &[part("text", Special("hex", Form::Hex), "none"), part("binary", Kind::Base64, "none")],
};

/// A range of status codes.
pub(crate) static STATUS_RANGE: Scope = Scope {
    name: "a range of statuses",
    guarded: true,
    prefix: None,
    hints: &[],
    keys: &[part("start", Number(100, 599), "required"), part("end", Number(101, 600), "required; not included")],
};

/// `outlier_detection` (01 §2.11): the keys of Envoy's message.
pub(crate) static OUTLIER_DETECTION: Scope = Scope {
    name: "`outlier_detection`",
    guarded: true,
    prefix: None,
    hints: &[],
    keys: &[
        works("consecutive_5xx", COUNT, "`5`"),
        works("interval", Seconds, "`10s`"),
        works("base_ejection_time", Seconds, "`30s`"),
        works("max_ejection_time", Seconds, "`300s`"),
        works("max_ejection_time_jitter", Seconds, "`0s`"),
        works("max_ejection_percent", PERCENT, "`10`"),
        works("enforcing_consecutive_5xx", PERCENT, "`100`"),
        works("consecutive_gateway_failure", COUNT, "`5`"),
        works("enforcing_consecutive_gateway_failure", PERCENT, "`0`"),
        works("enforcing_success_rate", PERCENT, "`100`"),
        works("success_rate_minimum_hosts", COUNT, "`5`"),
        works("success_rate_request_volume", COUNT, "`100`"),
        works("success_rate_stdev_factor", COUNT, "`1900`"),
        works("failure_percentage_threshold", PERCENT, "`85`"),
        works("enforcing_failure_percentage", PERCENT, "`0`"),
        works("enforcing_failure_percentage_local_origin", PERCENT, "`0`"),
        works("failure_percentage_minimum_hosts", COUNT, "`5`"),
        works("failure_percentage_request_volume", COUNT, "`50`"),
        works("split_external_local_origin_errors", Bool, "`false`"),
        works("consecutive_local_origin_failure", COUNT, "`5`"),
        works("enforcing_consecutive_local_origin_failure", PERCENT, "`100`"),
        works("enforcing_local_origin_success_rate", PERCENT, "`100`"),
        works("successful_active_health_check_uncheck_outlier", Bool, "`true`"),
        works("always_eject_one_host", Bool, "`false`"),
        no_effect("monitors", Special("list", Form::Any), NO_ENVOY),
    ],
};

/// `mcp` of a route (01 §2.1).
pub(crate) static MCP: Scope = Scope {
    name: "`mcp`",
    guarded: true,
    prefix: None,
    hints: &[],
    keys: &[part("server", Block(&MCP_SERVER), "none"), part("client", Block(&MCP_CLIENT), "none")],
};

/// `mcp.server`.
pub(crate) static MCP_SERVER: Scope = Scope {
    name: "`mcp.server`",
    guarded: true,
    prefix: None,
    hints: &[],
    keys: &[
        part("upstream_oauth2", Block(&MCP_OAUTH2), "none"),
        part("max_request_bytes", COUNT, "`4096`"),
        part("path", Text, "`/`"),
        part("authorization_server_url", Url, "none"),
    ],
};

/// `mcp.server.upstream_oauth2`.
pub(crate) static MCP_OAUTH2: Scope = Scope {
    name: "`upstream_oauth2`",
    guarded: true,
    prefix: None,
    hints: &[],
    keys: &[
        part("client_id", Text, "required"),
        part("client_secret", Text, "none"),
        part("endpoint", Block(&MCP_OAUTH2_ENDPOINT), "required"),
        part("scopes", TEXTS, "none"),
        part("authorization_url_params", Kind::Map(&Text), "none"),
    ],
};

/// `mcp.server.upstream_oauth2.endpoint`.
pub(crate) static MCP_OAUTH2_ENDPOINT: Scope = Scope {
    name: "`endpoint`",
    guarded: true,
    prefix: None,
    hints: &[],
    keys: &[
        part("auth_url", Url, "required"),
        part("token_url", Url, "required"),
        part("auth_style", Choice(&["", "header", "params"]), "found out"),
    ],
};

/// `mcp.client`: it holds nothing.
pub(crate) static MCP_CLIENT: Scope =
    Scope { name: "`mcp.client`", guarded: true, prefix: None, hints: &[], keys: &[] };

/// `upstream_tunnel` of a route.
pub(crate) static UPSTREAM_TUNNEL: Scope = Scope {
    name: "`upstream_tunnel`",
    guarded: true,
    prefix: None,
    hints: &[],
    keys: &[part("ssh_policy", Special("policy (PPL)", Form::Policy), "none")],
};

/// `session_recording` of a route.
pub(crate) static SESSION_RECORDING: Scope = Scope {
    name: "`session_recording`",
    guarded: true,
    prefix: None,
    hints: &[],
    keys: &[part("enabled", Bool, "`false`")],
};
