//! The keys at the top of the file (01 §1), and the runtime flags.

use super::Kind::{
    Address, Base64, Block, Blocks, Bool, Choice, Colour, Duration, File, Fraction, Host, List, Map, Milliseconds,
    Named, Number, Pem, Special, Text, Url,
};
use super::{
    ACCESS_TEST, BLOB_STORAGE, CERTIFICATE, CIRCUIT_BREAKERS, CLUSTER_NODE, DOWNSTREAM_MTLS, Form, IDENTITY_PROVIDER,
    Kind, LIMITS, ROUTE, Scope, Status, Variable, harmless, no_effect, not_yet, removed, works,
};

const COUNT: Kind = Kind::COUNT;
const ONE_PROCESS: &str = "authorisation is a part of the edge, which asks the store itself: no service is called";
const NO_ENVOY: &str = "it configures Envoy, and Postern has none";
const TRACING: &str = "write `otel_traces_exporter: otlp` and `otel_exporter_otlp_endpoint`";
const DIRECTORY: &str = "remove it; groups come from the `groups` claim of the identity provider";
const OURS: &str = "not in Pomerium";
const TEXTS: Kind = List(&Text);
const URLS: Kind = List(&Url);
const HOSTS: Kind = List(&Host);
const LEVELS: Kind = Choice(&["trace", "debug", "info", "warn", "error", "off"]);
const PROTOCOLS: Kind = Choice(&["grpc", "http/protobuf"]);

/// The top of the file.
pub(crate) static SETTINGS: Scope = Scope {
    name: "the configuration",
    guarded: false,
    prefix: Some(""),
    hints: &[
        ("cookie_secure", "remove it: cookies are always `Secure`"),
        ("headers", "write `set_response_headers`"),
        ("forward_auth_url", "remove it: Postern carries requests itself"),
        ("cache_service_url", "remove it: all services run in one process"),
        ("insecure", "write `insecure_server`"),
    ],
    keys: &[
        // Services and listeners, 01 §1.3.
        works("services", List(&Special("services", Form::Text)), "`all`")
            .differs("`authorize` is a part of `proxy`, and `databroker` is the store: neither runs alone"),
        works("address", Address, "`:443`"),
        works("insecure_server", Bool, "`false`"),
        no_effect("grpc_address", Address, ONE_PROCESS),
        no_effect("grpc_insecure", Bool, ONE_PROCESS),
        no_effect("grpc_client_timeout", Duration, ONE_PROCESS),
        works("http_redirect_addr", Address, "none"),
        works("debug_address", Address, "none: nothing listens").differs("`:6060` is this machine alone"),
        no_effect("debug", Bool, "write `log_level: debug`").variable(Variable::None),
        works("health_check_addr", Address, "`127.0.0.1:28080`"),
        works("health_check_systemd_disabled", Bool, "`false`"),
        works("use_proxy_protocol", Bool, "`false`").differs("with `xff_trusted_peers`, from those alone"),
        works("codec_type", Choice(&["auto", "http1", "http2", "http3"]), "`auto`")
            .differs("`http3` is `auto`, so far"),
        works("timeout_read", Duration, "`30s`"),
        works("timeout_write", Duration, "`0` (none)"),
        works("timeout_idle", Duration, "`5m`"),
        works("default_upstream_timeout", Duration, "`30s`"),
        works("skip_xff_append", Bool, "`false`"),
        works("xff_num_trusted_hops", COUNT, "`0`").differs("also decides `source_ip` and the logged address"),
        works("xff_trusted_peers", List(&Special("IP addresses and ranges", Form::Text)), "whoever connects")
            .differs("not in Pomerium"),
        works(
            "headers_with_underscores_action",
            Choice(&["reject_request", "drop_header", "allow"]),
            "`reject_request`",
        )
        .differs("a reserved name is refused whatever is written"),
        works("normalize_path", Bool, "`true`"),
        works("merge_slashes", Bool, "`true`"),
        works(
            "path_with_escaped_slashes_action",
            Choice(&["reject_request", "keep_unchanged", "unescape_and_redirect", "unescape_and_forward"]),
            "`reject_request`",
        ),
        works("allow_upgrades", TEXTS, "none").differs("HTTP itself (`h2c`, `TLS/1.0`) is no upgrade"),
        works("circuit_breaker_thresholds", Block(&CIRCUIT_BREAKERS), "see below").variable(Variable::None),
        works("limits", Block(&LIMITS), "see below").variable(Variable::None).differs(OURS),
        no_effect("envoy_admin_address", Address, NO_ENVOY),
        no_effect("envoy_admin_access_log_path", File, NO_ENVOY),
        no_effect("envoy_admin_profile_path", File, NO_ENVOY),
        works("envoy_bind_config_source_address", Special("IP address", Form::Text), "none"),
        works("envoy_bind_config_freebind", Bool, "`false`"),
        no_effect("envoy_dynamic_extensions", TEXTS, NO_ENVOY),
        // DNS, 01 §1.4.
        works("dns_lookup_family", Choice(&["auto", "v4_only", "v6_only", "v4_preferred", "all"]), "`v4_preferred`"),
        works("dns_refresh_rate", Duration, "`5s`")
            .differs("holds where the record has no time to live, which is kept to between 1 s and 1 h"),
        works("dns_failure_refresh_rate", Duration, "`1s`"),
        works("dns_query_timeout", Duration, "the machine's"),
        works("dns_query_tries", COUNT, "the machine's"),
        no_effect("dns_udp_max_queries", COUNT, "each query over UDP goes out from a port of its own"),
        works("dns_use_tcp", Bool, "`false`"),
        works("dns_resolvers", List(&Special("`udp://IP:PORT` or `tcp://IP:PORT`", Form::Text)), "the machine's"),
        // Certificates, 01 §1.5.
        works("certificate", Pem, "none"),
        works("certificate_key", Pem, "none"),
        works("certificates", Blocks(&CERTIFICATE), "none"),
        works("certificate_file", File, "none").differs("refused unless it belongs to its key"),
        works("certificate_key_file", File, "none"),
        works("certificate_authority", Pem, "none"),
        works("certificate_authority_file", File, "none"),
        no_effect("override_certificate_name", Text, ONE_PROCESS),
        works("tls_derive", Host, "none").differs("the authority is another one: both sides must be Postern"),
        works("autocert", Bool, "`false`"),
        works("autocert_ca", Url, "the public authority of Let's Encrypt"),
        works("autocert_use_staging", Bool, "`false`"),
        works("autocert_email", Text, "none"),
        works("autocert_eab_key_id", Text, "none"),
        works("autocert_eab_mac_key", Special("base64url without padding", Form::Text), "none"),
        works("autocert_must_staple", Bool, "`false`"),
        works("autocert_dir", Special("folder", Form::Text), "`postern/autocert` in the data folder")
            .differs("`s3://` and `gs://` are refused, so far"),
        works("autocert_trusted_ca", Pem, "none"),
        works("autocert_trusted_ca_file", File, "none"),
        // Downstream mTLS, 01 §1.6.
        works("downstream_mtls", Block(&DOWNSTREAM_MTLS), "none").variable(Variable::None),
        // Secrets and cookies, 01 §1.7.
        works("shared_secret", Base64, "random at each start").differs("refused if it is too regular to be random"),
        works("shared_secret_file", File, "none"),
        works("shared_secrets_accepted", List(&Base64), "none").differs(OURS),
        works("shared_secrets_accepted_file", File, "none").differs(OURS),
        works("cookie_secret", Base64, "random at each start").differs("refused if it is too regular to be random"),
        works("cookie_secret_file", File, "none"),
        works("cookie_name", Text, "`_pomerium`"),
        works("cookie_domain", Host, "none: the cookie stays with its host"),
        works("cookie_http_only", Bool, "`true`"),
        works("cookie_expire", Duration, "`14h`"),
        works("cookie_same_site", Choice(&["lax", "strict", "none"]), "`lax`")
            .differs("there, no attribute by default"),
        // Sign-in, 01 §1.8.
        works("authenticate_service_url", Url, "`https://authenticate.` and the one parent domain of all routes")
            .differs("the default there is a service of the vendor"),
        works("authenticate_internal_service_url", Url, "`authenticate_service_url`"),
        works("signout_redirect_url", Url, "none"),
        no_effect("authorize_service_url", Url, ONE_PROCESS),
        no_effect("authorize_service_urls", URLS, ONE_PROCESS),
        no_effect("authorize_internal_service_url", Url, ONE_PROCESS),
        no_effect("databroker_service_url", Url, ONE_PROCESS),
        no_effect("databroker_service_urls", URLS, ONE_PROCESS),
        no_effect("databroker_internal_service_url", Url, ONE_PROCESS),
        works(
            "idp_provider",
            Choice(&["oidc", "auth0", "azure", "cognito", "gitlab", "google", "okta", "onelogin", "ping"]),
            "none",
        )
        .differs("`apple`, `github` and `hosted` are refused, so far"),
        works("idp_provider_url", Url, "the provider's own, where it has one").differs("https, or this machine"),
        works("idp_client_id", Text, "none"),
        works("idp_client_secret", Text, "none"),
        works("idp_client_secret_file", File, "none").differs("line ends at the end are cut off"),
        works("idp_scopes", TEXTS, "the provider's own"),
        works("idp_request_params", Map(&Text), "the provider's own"),
        harmless("idp_access_token_allowed_audiences", TEXTS, "none"),
        works("programmatic_redirect_domain_whitelist", HOSTS, "`localhost`"),
        works(
            "bearer_token_format",
            Choice(&["default", "idp_access_token", "idp_identity_token", "jwt"]),
            "`default`",
        )
        .differs("anything but `default` is refused, so far"),
        not_yet("identity_providers", Named(&IDENTITY_PROVIDER), "none"),
        harmless("mcp_allowed_client_id_domains", HOSTS, "none"),
        harmless("mcp_allowed_as_metadata_domains", HOSTS, "none"),
        works(
            "google_cloud_serverless_authentication_service_account",
            Special("JSON, or base64 of it", Form::Text),
            "the metadata server",
        ),
        not_yet("ssh_address", Address, "none"),
        harmless("ssh_host_keys", TEXTS, "none"),
        harmless("ssh_host_key_files", List(&File), "none"),
        harmless("ssh_user_ca_key", Text, "none"),
        harmless("ssh_user_ca_key_file", File, "none"),
        harmless("ssh_rls_enabled", Bool, "`false`"),
        harmless("ssh_rls_additional_entries", TEXTS, "none"),
        // The store, 01 §1.9.
        works("databroker_storage_type", Choice(&["memory", "file", "redis", "valkey"]), "`memory`")
            .differs("`postgres` is refused; `redis` and `valkey` serve several processes"),
        works(
            "databroker_storage_connection_string",
            Special("`file://FOLDER`, `redis://…`, `redis+sentinel://…` or `redis+cluster://…`", Form::Text),
            "none",
        ),
        works("databroker_storage_connection_string_file", File, "none"),
        works("databroker_storage_ca_file", File, "the system's").differs(OURS),
        works("databroker_storage_cert_file", File, "none").differs(OURS),
        works("databroker_storage_key_file", File, "none").differs(OURS),
        works("databroker_storage_insecure", Bool, "`false`").differs(OURS),
        works("databroker_storage_key_prefix", Text, "none").differs(OURS),
        works("databroker_storage_copies", Number(0, 5), "`1`").differs(OURS),
        works("databroker_storage_connect_timeout", Duration, "`1s`").differs(OURS),
        works("databroker_storage_operation_timeout", Duration, "`500ms`").differs(OURS),
        works("session_max_age", Duration, "`1m`").differs(OURS),
        works("session_static_window", Duration, "`30s`").differs(OURS),
        works("session_lease", Duration, "`2.5s`").differs(OURS),
        works("session_heartbeat", Duration, "`500ms`").differs(OURS),
        not_yet("databroker_cluster_node_id", Text, "none"),
        not_yet("databroker_cluster_leader_id", Text, "none"),
        not_yet("databroker_cluster_nodes", Blocks(&CLUSTER_NODE), "none"),
        not_yet("databroker_raft_bind_address", Address, "none"),
        harmless("blob_storage", Block(&BLOB_STORAGE), "none").variable(Variable::None),
        // Headers, identity, logs, telemetry, 01 §1.10.
        works("set_response_headers", Map(&Text), "`X-Frame-Options`, `X-XSS-Protection`, `Strict-Transport-Security`")
            .variable(Variable::Named("HEADERS"))
            .differs("`Strict-Transport-Security` is without `preload` by default"),
        works("jwt_claims_headers", Special("list, text, or map of header to claim", Form::TextsOrMap), "none"),
        works("jwt_groups_filter", TEXTS, "none").differs("filters the `groups` claim"),
        works("jwt_issuer_format", Choice(&["hostOnly", "uri"]), "`hostOnly`"),
        works("signing_key", Special("PEM or base64 PEM", Form::Text), "derived from `shared_secret`"),
        works("signing_key_file", File, "none"),
        works("pass_identity_headers", Bool, "`false`"),
        harmless("primary_color", Colour, "none"),
        harmless("secondary_color", Colour, "none"),
        harmless("darkmode_primary_color", Colour, "none"),
        harmless("darkmode_secondary_color", Colour, "none"),
        harmless("logo_url", Url, "none"),
        harmless("favicon_url", Url, "none"),
        harmless("error_message_first_paragraph", Text, "none"),
        works("log_level", LEVELS, "`info`"),
        works("proxy_log_level", LEVELS, "`log_level`"),
        works("access_log_fields", List(&Special("field names", Form::Text)), "the twelve usual ones"),
        works("authorize_log_fields", List(&Special("field names", Form::Text)), "the eighteen usual ones"),
        works("metrics_address", Address, "none: no metrics"),
        works("metrics_basic_auth", Special("base64 of `user:password`", Form::Text), "none"),
        not_yet("metrics_certificate", Pem, "none"),
        not_yet("metrics_certificate_key", Pem, "none"),
        not_yet("metrics_certificate_file", File, "none"),
        not_yet("metrics_certificate_key_file", File, "none"),
        not_yet("metrics_client_ca", Pem, "none"),
        not_yet("metrics_client_ca_file", File, "none"),
        works("installation_id", Text, "none"),
        harmless("otel_traces_exporter", Choice(&["none", "otlp"]), "`none`"),
        harmless("otel_exporter_otlp_endpoint", Url, "none"),
        harmless("otel_exporter_otlp_traces_endpoint", Url, "`otel_exporter_otlp_endpoint`"),
        harmless("otel_exporter_otlp_protocol", PROTOCOLS, "`grpc`"),
        harmless("otel_exporter_otlp_traces_protocol", PROTOCOLS, "`otel_exporter_otlp_protocol`"),
        harmless("otel_exporter_otlp_headers", List(&Special("`key=value`", Form::Pair)), "none"),
        harmless(
            "otel_exporter_otlp_traces_headers",
            List(&Special("`key=value`", Form::Pair)),
            "`otel_exporter_otlp_headers`",
        ),
        harmless("otel_exporter_otlp_timeout", Milliseconds, "`10000`"),
        harmless("otel_exporter_otlp_traces_timeout", Milliseconds, "`otel_exporter_otlp_timeout`"),
        harmless("otel_traces_sampler_arg", Fraction, "`1.0`"),
        harmless("otel_resource_attributes", List(&Special("`key=value`", Form::Pair)), "none"),
        harmless("otel_log_level", LEVELS, "`info`"),
        harmless("otel_attribute_value_length_limit", Number(64, 32_768), "`256`"),
        harmless("otel_bsp_schedule_delay", Milliseconds, "`5000`"),
        harmless("otel_bsp_max_export_batch_size", Number(1, u32::MAX as u64), "`512`"),
        harmless("auto_apply_changesets", Bool, "`false`"),
        harmless("session_recording_concurrency", COUNT, "none"),
        works("runtime_flags", Map(&Bool), "see below"),
        // Policies of their own, Postern's.
        works("policies", Map(&Special("policies (PPL)", Form::Policy)), "none")
            .variable(Variable::None)
            .differs("not in Pomerium"),
        works("default_policy", Special("name of a policy, or policy (PPL)", Form::Policy), "none")
            .differs("not in Pomerium"),
        works("tests", Blocks(&ACCESS_TEST), "none").variable(Variable::None).differs("not in Pomerium"),
        // Routes.
        works("policy", Blocks(&ROUTE), "none"),
        works("routes", Blocks(&ROUTE), "none"),
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

/// `runtime_flags`: the flag, its default, and what becomes of it here.
pub(crate) static FLAGS: &[(&str, bool, Status)] = &[
    ("add_extra_metrics_labels", true, Status::NotYetHarmless),
    ("allow_any_sign_out_redirect_uri", false, Status::NotYetHarmless),
    ("authorize_use_synced_data", true, Status::NoEffect("the store is read directly")),
    ("config_hot_reload", true, Status::Works),
    ("debug_admin_endpoints", false, Status::Works),
    ("envoy_resource_manager", true, Status::NoEffect(NO_ENVOY)),
    ("grpc_databroker_keepalive", true, Status::NoEffect(ONE_PROCESS)),
    ("match_any_incoming_port", true, Status::Works),
    ("mcp", true, Status::NotYetHarmless),
    ("mcp_dynamic_client_registration", false, Status::NotYetHarmless),
    ("pomerium_fail_open_identity", false, Status::Works),
    ("pomerium_jwt_endpoint", false, Status::Works),
    ("refresh_session_at_id_token_expiration", true, Status::NotYetHarmless),
    ("routes_portal", true, Status::NotYetHarmless),
    ("set_envoy_concurrency_to_go_max_procs", true, Status::NoEffect(NO_ENVOY)),
    ("ssh_allow_direct_tcpip", false, Status::NotYetHarmless),
    ("ssh_routes_portal", false, Status::NotYetHarmless),
    ("ssh_upstream_tunnel", false, Status::NotYetHarmless),
];
