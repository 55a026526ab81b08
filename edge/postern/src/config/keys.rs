//! Every key that a Pomerium file can hold, and what becomes of it here. The reference page is tested against these tables.

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// It does what it says.
    Works,
    /// Not supported yet, and to go on without it could admit more than was meant or break what is relied on: fatal.
    NotYet,
    /// Not supported yet, and nothing is lost but itself: advisory.
    NotYetHarmless,
    /// It has no meaning here, for this reason: advisory.
    NoEffect(&'static str),
    /// It was removed; this is to be written instead: fatal.
    Removed(&'static str),
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    /// As written, in lower case.
    pub(crate) name: &'static str,
    /// What it holds.
    pub(crate) kind: &'static str,
    /// What holds where it is absent.
    pub(crate) default: &'static str,
    /// What becomes of it.
    pub(crate) status: Status,
}

/// The keys of one map.
#[derive(Debug)]
pub(crate) struct Scope {
    /// What the map is, for messages.
    pub(crate) name: &'static str,
    /// An unknown key here could admit more than was meant: it stops the load (rulings).
    pub(crate) guarded: bool,
    /// The keys.
    pub(crate) keys: &'static [Key],
    /// Unknown keys that are known from elsewhere, and what to write.
    pub(crate) hints: &'static [(&'static str, &'static str)],
}

impl Scope {
    pub(crate) fn find(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

const fn works(name: &'static str, kind: &'static str, default: &'static str) -> Key {
    Key { name, kind, default, status: Status::Works }
}

const fn not_yet(name: &'static str, kind: &'static str) -> Key {
    Key { name, kind, default: "", status: Status::NotYet }
}

const fn harmless(name: &'static str, kind: &'static str) -> Key {
    Key { name, kind, default: "", status: Status::NotYetHarmless }
}

const fn no_effect(name: &'static str, kind: &'static str, why: &'static str) -> Key {
    Key { name, kind, default: "", status: Status::NoEffect(why) }
}

const fn removed(name: &'static str, instead: &'static str) -> Key {
    Key { name, kind: "", default: "", status: Status::Removed(instead) }
}

const ONE_PROCESS: &str = "all services run in one process, nothing is called over the network";
const NO_ENVOY: &str = "it configures Envoy, and Postern has none";
const TRACING: &str = "write `otel_traces_exporter: otlp` and `otel_exporter_otlp_endpoint`";
const DIRECTORY: &str = "remove it; groups come from the `groups` claim of the identity provider";

/// The top of the file.
pub(crate) static SETTINGS: Scope = Scope {
    name: "the configuration",
    guarded: false,
    hints: &[
        ("cookie_secure", "remove it: cookies are always `Secure`"),
        ("headers", "write `set_response_headers`"),
        ("policies", "write `routes`"),
        ("forward_auth_url", "remove it: Postern carries requests itself"),
        ("cache_service_url", "remove it: all services run in one process"),
        ("insecure", "write `insecure_server`"),
    ],
    keys: &[
        // Services and listeners, 01 §1.3.
        works("services", "list of names", "`all`"),
        works("address", "host:port", "`:443`"),
        works("insecure_server", "bool", "`false`"),
        no_effect("grpc_address", "host:port", ONE_PROCESS),
        no_effect("grpc_insecure", "bool", ONE_PROCESS),
        no_effect("grpc_client_timeout", "duration", ONE_PROCESS),
        works("http_redirect_addr", "host:port", "none"),
        harmless("debug_address", "host:port"),
        no_effect("debug", "bool", "write `log_level: debug`"),
        works("health_check_addr", "host:port", "`127.0.0.1:28080`"),
        harmless("health_check_systemd_disabled", "bool"),
        not_yet("use_proxy_protocol", "bool"),
        works("codec_type", "`auto`, `http1`, `http2`", "`auto`"),
        works("timeout_read", "duration", "`30s`"),
        works("timeout_write", "duration", "`0` (none)"),
        works("timeout_idle", "duration", "`5m`"),
        works("default_upstream_timeout", "duration", "`30s`"),
        works("skip_xff_append", "bool", "`false`"),
        works("xff_num_trusted_hops", "number", "`0`"),
        works("headers_with_underscores_action", "`reject_request`, `drop_header`, `allow`", "`reject_request`"),
        works("normalize_path", "bool", "`true`"),
        works("merge_slashes", "bool", "`true`"),
        works(
            "path_with_escaped_slashes_action",
            "`reject_request`, `keep_unchanged`, `unescape_and_redirect`, `unescape_and_forward`",
            "`reject_request`",
        ),
        not_yet("allow_upgrades", "list of names"),
        harmless("circuit_breaker_thresholds", "map"),
        no_effect("envoy_admin_address", "host:port", NO_ENVOY),
        no_effect("envoy_admin_access_log_path", "file", NO_ENVOY),
        no_effect("envoy_admin_profile_path", "file", NO_ENVOY),
        not_yet("envoy_bind_config_source_address", "address"),
        not_yet("envoy_bind_config_freebind", "bool"),
        no_effect("envoy_dynamic_extensions", "list", NO_ENVOY),
        // DNS, 01 §1.4.
        harmless("dns_lookup_family", "choice"),
        harmless("dns_refresh_rate", "duration"),
        harmless("dns_failure_refresh_rate", "duration"),
        harmless("dns_query_timeout", "duration"),
        harmless("dns_query_tries", "number"),
        harmless("dns_udp_max_queries", "number"),
        harmless("dns_use_tcp", "bool"),
        not_yet("dns_resolvers", "list of addresses"),
        // Certificates, 01 §1.5.
        works("certificate", "base64 PEM", "none"),
        works("certificate_key", "base64 PEM", "none"),
        works("certificates", "list of `{cert, key}` files", "none"),
        works("certificate_file", "file", "none"),
        works("certificate_key_file", "file", "none"),
        works("certificate_authority", "base64 PEM", "none"),
        works("certificate_authority_file", "file", "none"),
        no_effect("override_certificate_name", "text", ONE_PROCESS),
        harmless("tls_derive", "text"),
        not_yet("autocert", "bool"),
        harmless("autocert_ca", "URL"),
        harmless("autocert_use_staging", "bool"),
        harmless("autocert_email", "text"),
        harmless("autocert_eab_key_id", "text"),
        harmless("autocert_eab_mac_key", "base64url"),
        harmless("autocert_must_staple", "bool"),
        harmless("autocert_dir", "folder"),
        harmless("autocert_trusted_ca", "base64 PEM"),
        harmless("autocert_trusted_ca_file", "file"),
        // Downstream mTLS, 01 §1.6.
        not_yet("downstream_mtls", "map"),
        // Secrets and cookies, 01 §1.7.
        works("shared_secret", "base64 of 32 bytes", "random at each start"),
        works("shared_secret_file", "file", "none"),
        works("cookie_secret", "base64 of 32 bytes", "random at each start"),
        works("cookie_secret_file", "file", "none"),
        works("cookie_name", "text", "`_pomerium`"),
        works("cookie_domain", "host", "none: the cookie stays with its host"),
        works("cookie_http_only", "bool", "`true`"),
        works("cookie_expire", "duration", "`14h`"),
        works("cookie_same_site", "`lax`, `strict`, `none`", "`lax`"),
        // Sign-in, 01 §1.8.
        works("authenticate_service_url", "URL", "`https://authenticate.` and the one parent domain of all routes"),
        works("authenticate_internal_service_url", "URL", "`authenticate_service_url`"),
        works("signout_redirect_url", "URL", "none"),
        no_effect("authorize_service_url", "URL", ONE_PROCESS),
        no_effect("authorize_service_urls", "list of URLs", ONE_PROCESS),
        no_effect("authorize_internal_service_url", "URL", ONE_PROCESS),
        no_effect("databroker_service_url", "URL", ONE_PROCESS),
        no_effect("databroker_service_urls", "list of URLs", ONE_PROCESS),
        no_effect("databroker_internal_service_url", "URL", ONE_PROCESS),
        works(
            "idp_provider",
            "`oidc`, `auth0`, `azure`, `cognito`, `gitlab`, `google`, `okta`, `onelogin`, `ping`",
            "none",
        ),
        works("idp_provider_url", "URL", "the provider's own, where it has one"),
        works("idp_client_id", "text", "none"),
        works("idp_client_secret", "text", "none"),
        works("idp_client_secret_file", "file", "none"),
        works("idp_scopes", "list of texts", "the provider's own"),
        works("idp_request_params", "map of texts", "the provider's own"),
        harmless("idp_access_token_allowed_audiences", "list of texts"),
        harmless("programmatic_redirect_domain_whitelist", "list of hosts"),
        not_yet("bearer_token_format", "choice"),
        not_yet("identity_providers", "map"),
        harmless("mcp_allowed_client_id_domains", "list of hosts"),
        harmless("mcp_allowed_as_metadata_domains", "list of hosts"),
        harmless("google_cloud_serverless_authentication_service_account", "JSON"),
        not_yet("ssh_address", "host:port"),
        harmless("ssh_host_keys", "list of texts"),
        harmless("ssh_host_key_files", "list of files"),
        harmless("ssh_user_ca_key", "text"),
        harmless("ssh_user_ca_key_file", "file"),
        harmless("ssh_rls_enabled", "bool"),
        harmless("ssh_rls_additional_entries", "list"),
        // The store, 01 §1.9.
        works("databroker_storage_type", "`memory`, `file`", "`memory`"),
        works("databroker_storage_connection_string", "`file://FOLDER`", "none"),
        works("databroker_storage_connection_string_file", "file", "none"),
        not_yet("databroker_cluster_node_id", "text"),
        not_yet("databroker_cluster_leader_id", "text"),
        not_yet("databroker_cluster_nodes", "list"),
        not_yet("databroker_raft_bind_address", "host:port"),
        harmless("blob_storage", "map"),
        // Headers, identity, logs, telemetry, 01 §1.10.
        works(
            "set_response_headers",
            "map of texts",
            "`X-Frame-Options`, `X-XSS-Protection`, `Strict-Transport-Security`",
        ),
        works("jwt_claims_headers", "list, text, or map of header to claim", "none"),
        not_yet("jwt_groups_filter", "list of texts"),
        works("jwt_issuer_format", "`hostOnly`, `uri`", "`hostOnly`"),
        works("signing_key", "PEM or base64 PEM", "derived from `shared_secret`"),
        works("signing_key_file", "file", "none"),
        works("pass_identity_headers", "bool", "`false`"),
        harmless("primary_color", "colour"),
        harmless("secondary_color", "colour"),
        harmless("darkmode_primary_color", "colour"),
        harmless("darkmode_secondary_color", "colour"),
        harmless("logo_url", "URL"),
        harmless("favicon_url", "URL"),
        harmless("error_message_first_paragraph", "text"),
        works("log_level", "`trace`, `debug`, `info`, `warn`, `error`, `off`", "`info`"),
        works("proxy_log_level", "as `log_level`", "as `log_level`"),
        works("access_log_fields", "list of field names", "the twelve usual ones"),
        works("authorize_log_fields", "list of field names", "the eighteen usual ones"),
        works("metrics_address", "host:port", "none: no metrics"),
        not_yet("metrics_basic_auth", "base64"),
        not_yet("metrics_certificate", "base64 PEM"),
        not_yet("metrics_certificate_key", "base64 PEM"),
        not_yet("metrics_certificate_file", "file"),
        not_yet("metrics_certificate_key_file", "file"),
        not_yet("metrics_client_ca", "base64 PEM"),
        not_yet("metrics_client_ca_file", "file"),
        harmless("installation_id", "text"),
        harmless("otel_traces_exporter", "choice"),
        harmless("otel_exporter_otlp_endpoint", "URL"),
        harmless("otel_exporter_otlp_traces_endpoint", "URL"),
        harmless("otel_exporter_otlp_protocol", "choice"),
        harmless("otel_exporter_otlp_traces_protocol", "choice"),
        harmless("otel_exporter_otlp_headers", "list"),
        harmless("otel_exporter_otlp_traces_headers", "list"),
        harmless("otel_exporter_otlp_timeout", "milliseconds"),
        harmless("otel_exporter_otlp_traces_timeout", "milliseconds"),
        harmless("otel_traces_sampler_arg", "number"),
        harmless("otel_resource_attributes", "list"),
        harmless("otel_log_level", "choice"),
        harmless("otel_attribute_value_length_limit", "number"),
        harmless("otel_bsp_schedule_delay", "milliseconds"),
        harmless("otel_bsp_max_export_batch_size", "number"),
        harmless("auto_apply_changesets", "bool"),
        harmless("session_recording_concurrency", "number"),
        works("runtime_flags", "map of bools", "see below"),
        // Routes.
        works("policy", "list of routes (old name)", "none"),
        works("routes", "list of routes", "none"),
        // Removed, 01 §1.1.
        removed("client_ca", "write `downstream_mtls: {ca: ...}`"),
        removed("client_ca_file", "write `downstream_mtls: {ca_file: ...}`"),
        removed("idp_service_account", DIRECTORY),
        removed("idp_refresh_directory_timeout", DIRECTORY),
        removed("idp_refresh_directory_interval", DIRECTORY),
        removed("idp_qps", DIRECTORY),
        removed("tracing_datadog_address", TRACING),
        removed("tracing_jaeger_collector_endpoint", TRACING),
        removed("tracing_jaeger_agent_endpoint", TRACING),
        removed("tracing_zipkin_endpoint", TRACING),
        removed("tracing_provider", TRACING),
        removed("tracing_sample_rate", "write `otel_traces_sampler_arg`"),
        removed("policy_file", "write the routes into this file, under `routes`"),
    ],
};

/// One route.
pub(crate) static ROUTE: Scope = Scope {
    name: "a route",
    guarded: true,
    hints: &[
        ("lb_policy", "write `load_balancing_policy`"),
        ("host", "write the host into `from`: `from: https://app.example.com`"),
        ("allowed_emails", "write `allowed_users`"),
        ("users", "write `allowed_users`"),
        ("groups", "write `policy: [{allow: {or: [{groups: {has: NAME}}]}}]`"),
        ("websockets", "write `allow_websockets`"),
    ],
    keys: &[
        works("name", "text", "made from `from` and the path"),
        works("description", "text", "none"),
        harmless("logo_url", "URL"),
        works("from", "URL, required", ""),
        works("to", "URL or list of URLs", "none"),
        works("redirect", "map", "none"),
        works("response", "`{status, body}`", "none"),
        works("prefix", "text", "`/`"),
        works("path", "text", "none"),
        works("regex", "regular expression", "none"),
        no_effect("regex_priority_order", "number", "routes of a file are tried in the order of the file"),
        works("prefix_rewrite", "text", "the path of the first `to`"),
        not_yet("regex_rewrite_pattern", "regular expression"),
        not_yet("regex_rewrite_substitution", "text"),
        works("host_rewrite", "host", "none"),
        not_yet("host_rewrite_header", "header"),
        not_yet("host_path_regex_rewrite_pattern", "regular expression"),
        not_yet("host_path_regex_rewrite_substitution", "text"),
        works("preserve_host_header", "bool", "`false`"),
        works("set_request_headers", "map of texts", "none"),
        works("remove_request_headers", "list of headers", "none"),
        works("set_response_headers", "map of texts", "the global ones"),
        not_yet("rewrite_response_headers", "list"),
        works("timeout", "duration", "`default_upstream_timeout`; none with `allow_websockets`"),
        works("idle_timeout", "duration", "`5m`; none with `allow_websockets`"),
        works("allow_websockets", "bool", "`false`"),
        not_yet("allow_spdy", "bool"),
        not_yet("allow_upgrades", "list of names"),
        harmless("load_balancing_policy", "choice"),
        harmless("health_checks", "list"),
        harmless("outlier_detection", "map"),
        harmless("healthy_panic_threshold", "number"),
        harmless("circuit_breaker_thresholds", "map"),
        not_yet("tls_skip_verify", "bool"),
        not_yet("tls_server_name", "host"),
        not_yet("tls_upstream_server_name", "host"),
        not_yet("tls_custom_ca", "base64 PEM"),
        not_yet("tls_custom_ca_file", "file"),
        not_yet("tls_client_cert", "base64 PEM"),
        not_yet("tls_client_key", "base64 PEM"),
        not_yet("tls_client_cert_file", "file"),
        not_yet("tls_client_key_file", "file"),
        no_effect("tls_upstream_allow_renegotiation", "bool", "renegotiation is never done"),
        not_yet("tls_downstream_client_ca", "base64 PEM"),
        not_yet("tls_downstream_client_ca_file", "file"),
        not_yet("tls_downstream_server_name", "host"),
        works("allow_public_unauthenticated_access", "bool", "`false`"),
        works("allow_any_authenticated_user", "bool", "`false`"),
        works("allowed_users", "list of texts", "none"),
        works("allowed_domains", "list of texts", "none"),
        works("allowed_idp_claims", "map of claim to list", "none"),
        works("cors_allow_preflight", "bool", "`false`"),
        works("policy", "policy (PPL)", "none"),
        not_yet("sub_policies", "list"),
        works("show_error_details", "bool", "`false`"),
        works("pass_identity_headers", "bool", "the global one"),
        works("jwt_issuer_format", "`hostOnly`, `uri`", "the global one"),
        not_yet("bearer_token_format", "choice"),
        not_yet("identity_providers", "list of names"),
        not_yet("jwt_groups_filter", "list of texts"),
        works("idp_client_id", "text", "the global one"),
        works("idp_client_secret", "text", "the global one"),
        harmless("idp_access_token_allowed_audiences", "list of texts"),
        not_yet("kubernetes_service_account_token", "text"),
        not_yet("kubernetes_service_account_token_file", "file"),
        not_yet("enable_google_cloud_serverless_authentication", "bool"),
        harmless("depends_on", "list of hosts"),
        not_yet("mcp", "map"),
        not_yet("upstream_tunnel", "map"),
        not_yet("session_recording", "map"),
        removed("allowed_groups", "write `policy: [{allow: {or: [{groups: {has: NAME}}]}}]`"),
        removed("set_authorization_header", "write `set_request_headers: {Authorization: ...}`"),
    ],
};

/// `redirect` of a route (01 §2.8).
pub(crate) static REDIRECT: Scope = Scope {
    name: "`redirect`",
    guarded: true,
    hints: &[],
    keys: &[
        works("https_redirect", "bool", "`false`"),
        works("scheme_redirect", "text", "the request's"),
        works("host_redirect", "host", "the request's"),
        works("port_redirect", "number", "the request's"),
        works("path_redirect", "text", "the request's"),
        works("prefix_rewrite", "text", "none"),
        works("response_code", "`301`, `302`, `303`, `307`, `308`", "`301`"),
        works("strip_query", "bool", "`false`"),
    ],
};

/// `response` of a route (01 §2.8).
pub(crate) static RESPONSE: Scope = Scope {
    name: "`response`",
    guarded: true,
    hints: &[],
    keys: &[works("status", "number", "required"), works("body", "text", "empty")],
};

/// An entry of `certificates`.
pub(crate) static CERTIFICATE: Scope = Scope {
    name: "an entry of `certificates`",
    guarded: true,
    hints: &[],
    keys: &[works("cert", "file", "required"), works("key", "file", "required")],
};

/// `runtime_flags`: the flag, its default, and what becomes of it here.
pub(crate) static FLAGS: &[(&str, bool, Status)] = &[
    ("add_extra_metrics_labels", true, Status::NotYetHarmless),
    ("allow_any_sign_out_redirect_uri", false, Status::NotYetHarmless),
    ("authorize_use_synced_data", true, Status::NoEffect("the store is read directly")),
    ("config_hot_reload", true, Status::Works),
    ("debug_admin_endpoints", false, Status::NotYetHarmless),
    ("envoy_resource_manager", true, Status::NoEffect(NO_ENVOY)),
    ("grpc_databroker_keepalive", true, Status::NoEffect(ONE_PROCESS)),
    ("match_any_incoming_port", true, Status::Works),
    ("mcp", true, Status::NotYetHarmless),
    ("mcp_dynamic_client_registration", false, Status::NotYetHarmless),
    ("pomerium_jwt_endpoint", false, Status::Works),
    ("refresh_session_at_id_token_expiration", true, Status::NotYetHarmless),
    ("routes_portal", true, Status::NotYetHarmless),
    ("set_envoy_concurrency_to_go_max_procs", true, Status::NoEffect(NO_ENVOY)),
    ("ssh_allow_direct_tcpip", false, Status::NotYetHarmless),
    ("ssh_routes_portal", false, Status::NotYetHarmless),
    ("ssh_upstream_tunnel", false, Status::NotYetHarmless),
];

/// The keys of nested maps, of which the environment knows each by a name of its own (01 §1.1).
pub(crate) static NESTED: &[(&str, &[&str])] =
    &[("downstream_mtls", &["ca", "ca_file", "crl", "crl_file", "enforcement", "max_verify_depth"])];

/// Keys whose values are secrets: never shown, not even in a snippet. Header names count as keys.
pub(crate) fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let part = SECRET_PARTS.iter().any(|part| key.contains(part));
    (part && !key.ends_with("_file")) || key.ends_with("token") || SECRET_KEYS.contains(&key.as_str())
}

const SECRET_PARTS: &[&str] = &[
    "secret",
    "password",
    "signing_key",
    "connection_string",
    "basic_auth",
    "authorization",
    "api-key",
    "api_key",
    "mac_key",
    "otlp_headers",
    "traces_headers",
];

const SECRET_KEYS: &[&str] = &[
    "cookie",
    "certificate_key",
    "metrics_certificate_key",
    "tls_client_key",
    "ssh_host_keys",
    "ssh_user_ca_key",
    "google_cloud_serverless_authentication_service_account",
];
