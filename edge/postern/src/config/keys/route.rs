//! The keys of a route (01 §2.1).

use super::Kind::{
    Block, Blocks, Bool, Choice, Duration, File, Header, Host, List, Map, Number, Pem, Regex, Special, Text, Url,
};
use super::nested::MOST_BODY;
use super::{
    CIRCUIT_BREAKERS, Form, HEALTH_CHECK, Kind, MCP, OUTLIER_DETECTION, REDIRECT, RESPONSE, REWRITE_RESPONSE_HEADER,
    SESSION_RECORDING, SUB_POLICY, Scope, UPSTREAM_TUNNEL, harmless, no_effect, not_yet, removed, works,
};

const TEXTS: Kind = List(&Text);
const UPGRADES: &str = "HTTP itself (`h2c`, `TLS/1.0`) is no upgrade";
const PPL: Kind = Special("policy (PPL)", Form::Policy);

/// One route.
pub(crate) static ROUTE: Scope = Scope {
    name: "a route",
    guarded: true,
    prefix: None,
    hints: &[
        ("lb_policy", "write `load_balancing_policy`"),
        ("host", "write the host into `from`: `from: https://app.example.com`"),
        ("allowed_emails", "write `allowed_users`"),
        ("users", "write `allowed_users`"),
        ("groups", "write `policy: [{allow: {or: [{groups: {has: NAME}}]}}]`"),
        ("websockets", "write `allow_websockets`"),
    ],
    keys: &[
        works("name", Text, "made from `from` and the path")
            .differs("in logs and metrics alone: there is no routes portal yet"),
        works("description", Text, "none").differs("shown nowhere: there is no routes portal yet"),
        harmless("logo_url", Url, "none"),
        works("from", Special("URL, required", Form::Text), ""),
        works("to", Special("URL or list of URLs, each alone or as `URL,WEIGHT`", Form::Texts), "none"),
        works("redirect", Block(&REDIRECT), "none"),
        works("response", Block(&RESPONSE), "none"),
        works("prefix", Text, "`/`").differs("matched in the spelling that requests are normalized to"),
        works("path", Text, "none").differs("matched in the spelling that requests are normalized to"),
        works("regex", Regex, "none").differs("refused if it cannot be compiled"),
        no_effect(
            "regex_priority_order",
            Special("whole number", Form::Integer),
            "routes of a file are tried in the order of the file",
        ),
        works("prefix_rewrite", Text, "the path of the first `to`"),
        works("regex_rewrite_pattern", Regex, "none").differs("refused if it cannot be compiled"),
        works("regex_rewrite_substitution", Text, "empty")
            .differs("a query that it makes goes before the request's own; a path that none may be is a 500"),
        works("host_rewrite", Host, "none").differs("refused if it cannot be sent"),
        works("host_rewrite_header", Header, "none").differs("a value that is no host is a 500"),
        works("host_path_regex_rewrite_pattern", Regex, "none").differs("refused if it cannot be compiled"),
        works("host_path_regex_rewrite_substitution", Text, "empty").differs("what is no host is a 500"),
        works("preserve_host_header", Bool, "`false`"),
        works("set_request_headers", Map(&Text), "none")
            .differs("identity headers and `Host` are refused; so are references to tokens, so far"),
        works("remove_request_headers", List(&Header), "none").differs("`Host` and framing fields are refused"),
        works("set_response_headers", Map(&Text), "the global ones"),
        works("rewrite_response_headers", Blocks(&REWRITE_RESPONSE_HEADER), "none")
            .differs("framing fields are refused"),
        works("timeout", Duration, "`default_upstream_timeout`; none where WebSockets may pass"),
        works("idle_timeout", Duration, "`5m`; none where WebSockets may pass"),
        works("allow_websockets", Bool, "`false`"),
        works("allow_spdy", Bool, "`false`"),
        works("allow_upgrades", TEXTS, "the global ones").differs(UPGRADES),
        works(
            "load_balancing_policy",
            Choice(&["round_robin", "least_request", "random", "ring_hash", "maglev"]),
            "`round_robin`",
        )
        .differs("who is not signed in is told apart by the client's address"),
        works("health_checks", Blocks(&HEALTH_CHECK), "none")
            .differs("16 at most; the first look decides alone; until then an endpoint is used"),
        works("outlier_detection", Block(&OUTLIER_DETECTION), "none"),
        works("healthy_panic_threshold", Kind::PERCENT, "`50`"),
        works("circuit_breaker_thresholds", Block(&CIRCUIT_BREAKERS), "the global ones"),
        works("tls_skip_verify", Bool, "`false`"),
        works("tls_server_name", Host, "the host of the URL"),
        works("tls_upstream_server_name", Host, "as `tls_server_name`"),
        works("tls_custom_ca", Pem, "none"),
        works("tls_custom_ca_file", File, "none"),
        works("tls_client_cert", Pem, "none"),
        works("tls_client_key", Pem, "none"),
        works("tls_client_cert_file", File, "none"),
        works("tls_client_key_file", File, "none"),
        no_effect("tls_upstream_allow_renegotiation", Bool, "renegotiation is never done"),
        works("tls_downstream_client_ca", Pem, "`downstream_mtls`"),
        works("tls_downstream_client_ca_file", File, "none"),
        works("tls_downstream_server_name", Host, "none").differs("one name, without `*`"),
        works("allow_public_unauthenticated_access", Bool, "`false`"),
        works("allow_any_authenticated_user", Bool, "`false`"),
        works("allowed_users", TEXTS, "none"),
        works("allowed_domains", TEXTS, "none"),
        works("allowed_idp_claims", Map(&TEXTS), "none"),
        works("cors_allow_preflight", Bool, "`false`"),
        works("policy", PPL, "none").differs("an identity criterion is never met without a session"),
        not_yet("sub_policies", Blocks(&SUB_POLICY), "none"),
        works("show_error_details", Bool, "`false`"),
        works("max_request_body_bytes", Number(1, MOST_BODY), "that of `limits`").differs("not in Pomerium"),
        works("session_static_window", Duration, "the global one").differs("not in Pomerium"),
        works("pass_identity_headers", Bool, "the global one"),
        works("jwt_issuer_format", Choice(&["hostOnly", "uri"]), "the global one"),
        works(
            "bearer_token_format",
            Choice(&["default", "idp_access_token", "idp_identity_token", "jwt"]),
            "the global one",
        )
        .differs("anything but `default` is refused, so far"),
        not_yet("identity_providers", TEXTS, "all"),
        works("jwt_groups_filter", TEXTS, "the global one").differs("names more than the global one"),
        works("idp_client_id", Text, "the global one"),
        works("idp_client_secret", Text, "the global one").differs("one client has one secret"),
        harmless("idp_access_token_allowed_audiences", TEXTS, "the global ones"),
        works("kubernetes_service_account_token", Text, "none")
            .differs("who has no e-mail address is named by id; who is not signed in is `system:anonymous`"),
        works("kubernetes_service_account_token_file", File, "none").differs("line ends at the end are cut off"),
        works("enable_google_cloud_serverless_authentication", Bool, "`false`"),
        works("depends_on", List(&Host), "none")
            .differs("hosts that no route has are left out; a host has the port of the page, unless one is written"),
        not_yet("mcp", Block(&MCP), "none"),
        not_yet("upstream_tunnel", Block(&UPSTREAM_TUNNEL), "none"),
        not_yet("session_recording", Block(&SESSION_RECORDING), "none"),
        removed("allowed_groups", "write `policy: [{allow: {or: [{groups: {has: NAME}}]}}]`"),
        removed("set_authorization_header", "write `set_request_headers: {Authorization: ...}`"),
    ],
};
