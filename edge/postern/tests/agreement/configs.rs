//! Random configurations: routes that hide and overlap each other, with policies of every criterion.

use std::collections::HashSet;
use std::net::SocketAddr;

use proptest::prelude::*;
use proptest::sample::select;

/// A configuration without its addresses.
#[derive(Clone, Debug)]
pub(crate) struct Generated {
    routes: Vec<GeneratedRoute>,
    flags: u8,
}

#[derive(Clone, Debug)]
struct GeneratedRoute {
    from: &'static str,
    path: &'static str,
    to: &'static str,
    access: String,
    settings: Vec<&'static str>,
}

impl Generated {
    /// The file.
    pub(crate) fn text(&self, upstream: SocketAddr) -> String {
        text(&self.routes.iter().map(GeneratedRoute::text).collect::<Vec<_>>(), upstream, self.flags)
    }
}

/// A file with these routes.
pub(crate) fn text(routes: &[String], upstream: SocketAddr, flags: u8) -> String {
    let on = |bit: u8, line: &'static str| if flags & (1 << bit) == 0 { "" } else { line };
    let settings = [
        on(0, "xff_num_trusted_hops: 1\n"),
        on(1, "pass_identity_headers: true\n"),
        on(2, "merge_slashes: false\n"),
        on(3, "path_with_escaped_slashes_action: unescape_and_forward\n"),
        on(4, "path_with_escaped_slashes_action: unescape_and_redirect\n"),
        on(5, "headers_with_underscores_action: drop_header\n"),
        on(6, "jwt_claims_headers: {X-Dept: department, X-Who: email, X-Groups: groups}\n"),
        on(7, "runtime_flags: {match_any_incoming_port: false, pomerium_jwt_endpoint: true}\n"),
    ];
    // Of two settings of one key the first holds.
    let settings =
        if flags & 0b1_1000 == 0b1_1000 { settings.concat().replace(settings[4], "") } else { settings.concat() };
    format!(
        "address: 127.0.0.1:0\ninsecure_server: true\nauthenticate_service_url: https://auth.example.com\n\
         shared_secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\ncookie_secret: ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=\n\
         idp_provider: oidc\nidp_provider_url: https://idp.example.com\nidp_client_id: postern\nidp_client_secret: sesame\n\
         {settings}routes:\n{}",
        if routes.is_empty() { " []\n".to_owned() } else { routes.concat().replace("UPSTREAM", &upstream.to_string()) }
    )
}

impl GeneratedRoute {
    fn text(&self) -> String {
        let settings: String = self.settings.iter().map(|line| format!("    {line}\n")).collect();
        format!("  - from: {}\n    {}\n    {}\n    {}\n{settings}", self.from, self.path, self.to, self.access)
    }
}

/// Any configuration.
pub(crate) fn generated() -> impl Strategy<Value = Generated> {
    (prop::collection::vec(route(), 6..18), prop::num::u8::ANY).prop_map(|(mut routes, flags)| {
        let mut seen = HashSet::new();
        // Two routes of one identity are refused.
        routes.retain(|route| !route.to.contains("UPSTREAM") || seen.insert((route.from, route.path, route.to)));
        Generated { routes, flags }
    })
}

/// A configuration, and the same with other policies on some of its routes.
pub(crate) fn pair() -> impl Strategy<Value = (Generated, Generated)> {
    let others = prop::collection::vec((any::<prop::sample::Index>(), access()), 1..4);
    (generated(), others).prop_map(|(old, others)| {
        let mut new = old.clone();
        for (which, access) in others {
            let at = which.index(new.routes.len());
            new.routes[at].access = access;
        }
        (old, new)
    })
}

fn route() -> impl Strategy<Value = GeneratedRoute> {
    let settings = prop::collection::hash_set(select(SETTINGS), 0..4);
    (select(HOSTS), select(PATHS), select(TARGETS), access(), settings).prop_map(
        |(from, path, to, access, settings)| {
            let mut keys = HashSet::new();
            let mut settings: Vec<_> = settings.into_iter().collect();
            settings.sort_unstable();
            settings.retain(|line| keys.insert(line.split(':').next()));
            // A rewrite of the Host excludes that it is kept.
            if keys.contains(&Some("host_rewrite")) {
                settings.retain(|line| !line.starts_with("preserve_host_header"));
            }
            if !to.contains("UPSTREAM") {
                settings.retain(|line| !line.starts_with("prefix_rewrite"));
            }
            GeneratedRoute { from, path, to, access, settings }
        },
    )
}

const HOSTS: &[&str] = &[
    "https://a.example.com",
    "https://a.example.com",
    "https://a.example.com",
    "https://b.example.com",
    "https://b.example.com:8443",
    "https://*.example.com",
    "https://*.c.example.com",
    "https://192.0.2.1",
];

const PATHS: &[&str] = &[
    "prefix: /",
    "prefix: /",
    "prefix: /",
    "prefix: /",
    "prefix: /app",
    "prefix: /app/",
    "prefix: /api/",
    "path: /app",
    "path: /robots.txt",
    "regex: '/re/[0-9]+'",
    "regex: '/(x|app)/.*'",
];

const TARGETS: &[&str] = &[
    "to: http://UPSTREAM",
    "to: http://UPSTREAM",
    "to: http://UPSTREAM",
    "to: http://UPSTREAM/base",
    "redirect: {host_redirect: elsewhere.example.com, response_code: 302}",
    "redirect: {path_redirect: /new, strip_query: true}",
    "response: {status: 202, body: accepted}",
];

const SETTINGS: &[&str] = &[
    "pass_identity_headers: true",
    "pass_identity_headers: false",
    "preserve_host_header: true",
    "host_rewrite: rewritten.internal",
    "prefix_rewrite: /rewritten",
    "prefix_rewrite: /",
    "set_request_headers: {X-Set: 'a b', X-Client: overwritten}",
    "set_request_headers: {X-Literal: '$$5', Authorization: Basic c2VjcmV0}",
    "remove_request_headers: [X-Client, X-Forwarded-Proto]",
    "jwt_issuer_format: uri",
    "show_error_details: true",
    "set_response_headers: {X-Frame-Options: DENY}",
    "allow_websockets: true",
];

/// The access keys, or a policy.
fn access() -> impl Strategy<Value = String> {
    let keys = select(
        &[
            "allow_public_unauthenticated_access: true",
            "allow_any_authenticated_user: true",
            "allowed_users: [alice@example.com, u-1]",
            "allowed_domains: [other.test]",
            "allowed_idp_claims: {department: [hr]}",
            "cors_allow_preflight: true",
            "policy: []",
        ][..],
    )
    .prop_map(str::to_owned);
    prop_oneof![1 => keys, 2 => prop::collection::vec(rule(), 1..4).prop_map(|rules| format!("policy: [{}]", rules.join(", ")))]
}

fn rule() -> impl Strategy<Value = String> {
    let action = prop_oneof![3 => Just("allow"), 1 => Just("deny")];
    let operator = prop_oneof![3 => Just("and"), 3 => Just("or"), 1 => Just("not"), 1 => Just("nor")];
    (action, operator, prop::collection::vec(select(CRITERIA), 1..4))
        .prop_map(|(action, operator, criteria)| format!("{{{action}: {{{operator}: [{}]}}}}", criteria.join(", ")))
}

const CRITERIA: &[&str] = &[
    "{accept: true}",
    "{reject: true}",
    "{authenticated_user: true}",
    "{groups: {has: ops}}",
    "{groups: {has: admins}}",
    "{claim/department: it}",
    "{claim/level: 3}",
    "{claim/active: true}",
    "{domain: {is: example.com}}",
    "{email: {starts_with: bob}}",
    "{email: {in: [carol@other.test, alice@example.com]}}",
    "{user: {is: u-1}}",
    "{http_method: {is: GET}}",
    "{http_method: {in: [POST, PUT]}}",
    "{http_path: {starts_with: /app/}}",
    "{http_path: {contains: 're'}}",
    "{source_ip: 10.0.0.0/8}",
    "{source_ip: 127.0.0.1}",
    "{cors_preflight: true}",
];
