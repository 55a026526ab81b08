use http::HeaderMap;
use proptest::prelude::*;

use super::cookies::{Kept, OwnCookies};
use super::template::{Facts, fill};
use super::*;
use crate::route::{IdentityToken, PathRewrite, RegexRewrite, Upgrades, UpstreamCredentials, bearer};
use crate::testing::*;
use crate::{ClaimHeader, EdgeConfig, Gate, ProxyConfig, ResponseHeaders, Verdict};

async fn up(config: EdgeConfig, original: &RequestHeader) -> RequestHeader {
    World::new(config).await.carried(original).await.expect("it is carried")
}

async fn up_open(fields: &[(&'static str, &str)]) -> RequestHeader {
    up(config(vec![route("app.example.com", "/")]), &get("/", fields)).await
}

#[tokio::test]
async fn s_038_what_a_client_says_of_itself_never_goes_up() {
    let forged = [
        ("X-Pomerium-Jwt-Assertion", "forged"),
        ("X-Pomerium-Jwt-Assertion-For", "forged"),
        ("X-Pomerium-Claim-Email", "root"),
        ("X-Pomerium-Edge", "forged"),
        ("X-Forwarded-User", "root"),
        ("Remote-User", "root"),
        ("X-Auth-Request-Email", "root"),
        ("X-Forwarded-Client-Cert", "root"),
        ("X-Original-Url", "/admin"),
        ("Forwarded", "for=1.1.1.1"),
        ("X-Real-Ip", "1.1.1.1"),
        ("Accept", "kept"),
    ];
    let head = up_open(&forged).await;
    for (name, value) in &forged[..11] {
        assert_ne!(values(&head.headers, name), *value, "{name}");
    }
    for name in [
        "x-pomerium-jwt-assertion-for",
        "x-pomerium-claim-email",
        "x-pomerium-edge",
        "remote-user",
        "x-real-ip",
        "forwarded",
    ] {
        assert_eq!(values(&head.headers, name), "", "{name}");
    }
    assert_eq!(values(&head.headers, "accept"), "kept");
    assert_ne!(values(&head.headers, ASSERTION_HEADER.as_str()), "");
}

#[tokio::test]
async fn s_046_a_route_that_passes_no_identity_has_no_identity_field_at_all() {
    let mut plain = route("app.example.com", "/");
    plain.pass_identity_headers = false;
    let mut config = config(vec![plain]);
    let header = HeaderName::from_static("x-mail");
    config.identity.claim_headers = vec![ClaimHeader { header, claim: "email".to_owned() }];
    let fields = [("x-mail", "forged"), ("x-pomerium-jwt-assertion", "forged"), ("remote-user", "passed")];
    let head = up(config, &get("/", &fields)).await;
    assert!(!head.headers.contains_key("x-mail") && !head.headers.contains_key(ASSERTION_HEADER));
    assert_eq!(values(&head.headers, "remote-user"), "passed", "nobody here trusts it for our sake");
}

#[tokio::test]
async fn s_039_connection_removes_only_what_is_the_clients_own() {
    let fields = [
        (
            "Connection",
            "close, X-Own, Cookie, authorization, X-Forwarded-For, X-Pomerium-Jwt-Assertion, host, X-Request-Id",
        ),
        ("X-Own", "1"),
        ("Cookie", "a=b"),
        ("Authorization", "Basic x"),
        ("Keep-Alive", "1"),
        ("Proxy-Connection", "1"),
        ("Proxy-Authorization", "x"),
        ("TE", "gzip, trailers"),
        ("Trailer", "x-pomerium-jwt-assertion"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAA"),
        ("Proxy", "http://evil.example"),
    ];
    let head = up_open(&fields).await;
    for gone in [
        "x-own",
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "trailer",
        "upgrade",
        "http2-settings",
        "proxy",
    ] {
        assert_eq!(values(&head.headers, gone), "", "{gone}");
    }
    for (kept, value) in [
        ("cookie", "a=b"),
        ("authorization", "Basic x"),
        ("te", "trailers"),
        ("host", "up.internal:8080"),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-request-id", TEST_ID),
    ] {
        assert_eq!(values(&head.headers, kept), value, "{kept}");
    }
    assert!(head.headers.contains_key(ASSERTION_HEADER));
    let many = vec!["x"; 65].join(",");
    assert_eq!(
        World::new(config(vec![route("app.example.com", "/")])).await.status(&get("/", &[("connection", &many)])).await,
        400
    );
}

#[tokio::test]
async fn s_041_none_of_our_credentials_goes_up() {
    let cookie = alices_cookie("app.example.com");
    let fields = [
        ("Cookie", format!("a=1; _pomerium={cookie}; b=2")),
        (
            "Cookie",
            "_pomerium_authenticate=x; _pomerium_csrf=y; _pomerium_pkce_1=z; __Host-_pomerium_flow_1=f; c=3".to_owned(),
        ),
        ("Cookie", "_pomerium =x; _pomeriums=kept".to_owned()),
        ("Authorization", format!("Pomerium {cookie}")),
        ("Authorization", format!("bearer POMERIUM-{cookie}")),
        ("Authorization", "Bearer own".to_owned()),
        ("X-Pomerium-Authorization", cookie.clone()),
    ];
    let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let target = format!("/x?a=1&pomerium_session={cookie}&%70omerium_session=x&b=%2f");
    let head = up(config(vec![route("app.example.com", "/")]), &get(&target, &fields)).await;
    assert_eq!(values(&head.headers, "cookie"), "a=1; b=2; c=3; _pomeriums=kept");
    assert_eq!(values(&head.headers, "authorization"), "Bearer own");
    assert_eq!(head.raw_path(), b"/x?a=1&b=%2f");
    let bare =
        up(config(vec![route("app.example.com", "/")]), &get(&format!("/?pomerium_session={cookie}"), &[])).await;
    assert_eq!(bare.raw_path(), b"/");
    assert!(!format!("{head:?}{bare:?}").contains(&cookie));
    let rewritten = Route { rewrite: Some(PathRewrite::Prefix("/up/".into())), ..route("app.example.com", "/") };
    let referer = format!("https://app.example.com/a?b=1&pomerium%5Fsession={cookie}");
    let head = up(config(vec![rewritten]), &get(&target, &[("Referer", &referer)])).await;
    assert_eq!(values(&head.headers, "x-envoy-original-path"), "/x?a=1&b=%2f");
    assert_eq!(values(&head.headers, "referer"), "https://app.example.com/a");
    assert!(!format!("{head:?}").contains(&cookie));
}

#[tokio::test]
async fn a_referer_without_a_credential_of_ours_goes_up_as_it_came() {
    for referer in ["https://app.example.com/a?b=1", "https://app.example.com/", "?"] {
        assert_eq!(values(&up_open(&[("Referer", referer)]).await.headers, "referer"), referer);
    }
}

#[tokio::test]
async fn s_017_cookie_crumbs_become_one_field() {
    let head = h2("GET", "https://app.example.com/", &[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]);
    let head = up(config(vec![route("app.example.com", "/")]), &head).await;
    assert_eq!(head.headers.get_all("cookie").iter().count(), 1);
    assert_eq!(values(&head.headers, "cookie"), "a=1; b=2; c=3");
}

proptest! {
    #[test]
    fn s_041_foreign_cookies_keep_their_bytes_and_order(
        pairs in prop::collection::vec(("[a-z_]{1,10}", "[ -:<-~&&[^;]]{0,8}"), 0..6), at in 0_usize..6,
    ) {
        let own = OwnCookies::new("_pomerium");
        let foreign: Vec<String> = pairs.iter().filter(|(name, _)| !name.starts_with("_pomerium")).map(|(name, value)| format!("{name}={}", value.trim())).collect();
        let mut all = foreign.clone();
        all.insert(at.min(foreign.len()), "_pomerium=secret".to_owned());
        let mut fields = HeaderMap::new();
        fields.insert("cookie", HeaderValue::try_from(all.join("; ")).unwrap());
        match own.strip(&fields) {
            Kept::One(value) => prop_assert_eq!(value.to_str().unwrap(), foreign.join("; ")),
            Kept::None => prop_assert!(foreign.is_empty()),
            Kept::Unchanged => prop_assert!(false, "ours was there"),
        }
    }
}

#[tokio::test]
async fn s_040_forwarding_fields_are_ours_unless_trusted_hops_wrote_them() {
    let fields = [
        ("x-forwarded-for", "6.6.6.6, 203.0.113.9, 198.51.100.2"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "outer.example.com"),
        ("x-forwarded-port", "444"),
    ];
    let shown = |head: &RequestHeader| {
        ["for", "proto", "host", "port"].map(|name| values(&head.headers, &format!("x-forwarded-{name}")))
    };
    let untrusted = up_open(&fields).await;
    assert_eq!(shown(&untrusted), ["192.0.2.7", "http", "app.example.com", "80"]);
    let trusting = |skip| EdgeConfig {
        proxy: ProxyConfig { trusted_hops: 2, skip_xff_append: skip, ..ProxyConfig::default() },
        ..config(vec![route("app.example.com", "/")])
    };
    let trusted = up(trusting(false), &get("/", &fields)).await;
    assert_eq!(
        shown(&trusted),
        ["203.0.113.9, 198.51.100.2, 192.0.2.7", "https", "outer.example.com, app.example.com", "444"]
    );
    let skipped = up(trusting(true), &get("/", &fields)).await;
    assert_eq!(shown(&skipped)[0], "203.0.113.9, 198.51.100.2");
    let short = up(trusting(false), &get("/", &fields[1..])).await;
    assert_eq!(shown(&short), ["192.0.2.7", "http", "app.example.com", "80"]);
}

#[tokio::test]
async fn the_host_is_rewritten_as_configured() {
    let cases = [
        (HostRewrite::Upstream, "up.internal:8080", "app.example.com:444"),
        (HostRewrite::Preserve, "app.example.com:444", ""),
        (HostRewrite::Literal(Box::new(HeaderValue::from_static("lit.example"))), "lit.example", "app.example.com:444"),
    ];
    for (rewrite, host, forwarded) in cases {
        let changed = Route { host_rewrite: rewrite, ..route("app.example.com", "/") };
        let head =
            up(config(vec![changed]), &get("http://APP.example.com.:444/", &[("host", "APP.example.com.:444")])).await;
        assert_eq!(
            (values(&head.headers, "host").as_str(), values(&head.headers, "x-forwarded-host").as_str()),
            (host, forwarded)
        );
        assert_eq!(head.raw_path(), b"/", "origin-form, whatever form it came in (S-030)");
        assert_eq!(head.uri.authority(), None);
    }
}

#[tokio::test]
async fn s_016_a_host_goes_on_in_its_one_spelling_however_it_came() {
    for written in ["app.example.com", "APP.example.com", "app.example.com."] {
        let asked = get("/", &[("host", written)]);
        let hosts = |rewrite| hosts(Route { host_rewrite: rewrite, ..route("app.example.com", "/") }, &asked);
        let (own, none) = ("app.example.com".to_owned(), String::new());
        assert_eq!(hosts(HostRewrite::Preserve).await, Ok((own.clone(), none)), "{written}");
        assert_eq!(hosts(HostRewrite::Upstream).await, Ok(("up.internal:8080".to_owned(), own)), "{written}");
    }
}

fn expression(pattern: &str, substitution: &str) -> RegexRewrite {
    RegexRewrite::new(regex::Regex::new(pattern).unwrap(), substitution).unwrap()
}

/// Host and original host as they go up, or the reason of the refusal.
async fn hosts(route: Route, request: &RequestHeader) -> Result<(String, String), &'static str> {
    let world = World::new(config(vec![route])).await;
    if let Some(head) = world.carried(request).await {
        return Ok((values(&head.headers, "host"), values(&head.headers, "x-forwarded-host")));
    }
    match world.admit(request).await.verdict {
        Verdict::Refuse(refusal) => Err(refusal.reason()),
        other @ (Verdict::Pass(_) | Verdict::Reply(_)) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn s_047_the_host_of_a_field_is_one_that_may_be_asked_for() {
    let by = |rules: Vec<HeaderRule>| Route {
        host_rewrite: HostRewrite::Header(HeaderName::from_static("x-host")),
        request_headers: rules,
        ..route("app.example.com", "/")
    };
    let sent = |value: &'static str| get("/", &[("x-host", value)]);
    let told = |host: &str, forwarded: &str| Ok((host.to_owned(), forwarded.to_owned()));
    let app = "app.example.com";
    assert_eq!(hosts(by(vec![]), &sent("Inner.example:81")).await, told("inner.example:81", app));
    assert_eq!(hosts(by(vec![]), &sent("[::1]:81")).await, told("[::1]:81", app));
    assert_eq!(hosts(by(vec![]), &get("/", &[])).await, told(app, ""), "nothing said: nothing changes");
    assert_eq!(hosts(by(vec![]), &sent("")).await, told(app, ""));
    for odd in ["a b", "a/b", "u@a", "a,b", "a:0", "a:99999", "..", "[a]", "%61", "a..b"] {
        assert_eq!(hosts(by(vec![]), &sent(odd)).await, Err("host-rewrite"), "{odd}");
    }
    let twice = get("/", &[("x-host", "a"), ("x-host", "b")]);
    assert_eq!(hosts(by(vec![]), &twice).await, Err("host-rewrite"), "one of two is not chosen");
    let name = HeaderName::from_static("x-host");
    let set = HeaderRule::Set(name.clone(), HeaderValue::from_static("set.example"));
    assert_eq!(hosts(by(vec![set]), &sent("sent.example")).await, told("set.example", app), "as it goes up");
    assert_eq!(hosts(by(vec![HeaderRule::Remove(name)]), &sent("sent.example")).await, told(app, ""));
    let nominated = get("/", &[("x-host", "a.example"), ("connection", "x-host")]);
    assert_eq!(hosts(by(vec![]), &nominated).await, told(app, ""), "S-039");
    let forwarded = Route { host_rewrite: HostRewrite::Header(FORWARDED_HOST), ..route(app, "/") };
    assert_eq!(hosts(forwarded, &get("/", &[("x-forwarded-host", "forged.example")])).await, told(app, ""), "S-040");
}

#[tokio::test]
async fn s_047_the_host_of_an_expression_is_one_that_may_be_asked_for() {
    let by = |pattern: &str, substitution: &str| Route {
        host_rewrite: HostRewrite::Path(expression(pattern, substitution)),
        ..route("app.example.com", "/")
    };
    let tenant = || by("^/([^/]+)(/.*)?$", r"\1.internal:8080");
    let told = |host: &str| Ok((host.to_owned(), "app.example.com".to_owned()));
    assert_eq!(hosts(tenant(), &get("/acme/x?y=/z", &[])).await, told("acme.internal:8080"));
    assert_eq!(hosts(tenant(), &get("/a%20b/x", &[])).await, Err("host-rewrite"));
    assert_eq!(hosts(by("nothing", "x"), &get("/a", &[])).await, Err("host-rewrite"), "a path is no host");
    // The path that policy saw is asked, not what goes up.
    let both = Route { rewrite: Some(PathRewrite::Regex(expression("^/[^/]+", ""))), ..tenant() };
    let head = up(config(vec![both]), &get("/acme/x?q", &[])).await;
    assert_eq!((values(&head.headers, "host").as_str(), head.raw_path()), ("acme.internal:8080", &b"/x?q"[..]));
    assert_eq!(values(&head.headers, "x-envoy-original-path"), "/acme/x?q");
}

#[tokio::test]
async fn fields_of_an_answer_are_rewritten_where_they_begin_so() {
    let rewrite = |header: &'static str, prefix: &str, value: &'static str| ResponseRewrite {
        header: HeaderName::from_static(header),
        prefix: prefix.to_owned(),
        value: HeaderValue::from_static(value),
    };
    let ours = (HeaderName::from_static("x-ours"), HeaderValue::from_static("http://in/x"));
    let route = Route {
        response_rewrites: [
            rewrite("location", "http://in/", "https://out/"),
            rewrite("location", "https://out/a", "https://out/b"),
            rewrite("x-many", "a", "z"),
            rewrite("set-cookie", "x=", "_pomerium="),
            rewrite("x-ours", "http://in/", "https://out/"),
        ]
        .into(),
        response_headers: ResponseHeaders(std::sync::Arc::new([ours])),
        ..route("app.example.com", "/")
    };
    let world = World::new(config(vec![route])).await;
    let admission = world.admit(&get("/", &[])).await;
    let Verdict::Pass(permit) = &admission.verdict else { panic!("{admission:?}") };
    let mut head = ResponseHeader::build(302, None).unwrap();
    for (name, value) in [
        ("Location", "http://in/ab"),
        ("X-Many", "abc"),
        ("X-Many", "b"),
        ("X-Many", "a"),
        ("Set-Cookie", "x=stolen"),
        ("Set-Cookie", "y=1"),
        ("X-Other", "http://in/ab"),
        ("X-Ours", "theirs"),
    ] {
        head.append_header(name, value).unwrap();
    }
    response(permit, &world.gate.snapshot(), &HeaderValue::from_static("id"), &mut head);
    let found = |name: &str| values(&head.headers, name);
    assert_eq!(found("location"), "https://out/bb", "each once, in order");
    assert_eq!(found("x-many"), "zbc|b|z");
    assert_eq!(found("set-cookie"), "y=1", "no rewrite makes a cookie of ours (S-049)");
    assert_eq!((found("x-other").as_str(), found("x-ours").as_str()), ("http://in/ab", "https://out/x"));
}

#[tokio::test]
async fn s_021_the_upstream_gets_the_path_that_policy_saw() {
    let options = head("OPTIONS", "*", &[]);
    let policy = || ppl("allow: {and: [http_path: /a/b c]}");
    let open = guarded("app.example.com", "/", policy());
    let head = up(config(vec![open]), &get("//x/../%61/./b%20c?q=//..", &[])).await;
    assert_eq!(head.raw_path(), b"/a/b%20c?q=//..");
    let rewritten =
        Route { rewrite: Some(PathRewrite::Prefix("/up/".into())), ..guarded("app.example.com", "/", policy()) };
    let head = up(config(vec![rewritten]), &get("/a/b%20c?q", &[])).await;
    assert_eq!(head.raw_path(), b"/up/a/b%20c?q");
    assert_eq!(values(&head.headers, "x-envoy-original-path"), "/a/b%20c?q");
    let star =
        up(config(vec![Route { path: PathMatcher::Exact("*".into()), ..route("app.example.com", "/") }]), &options)
            .await;
    assert_eq!(star.raw_path(), b"*");
}

use crate::route::PathMatcher;

#[tokio::test]
async fn s_047_a_route_sets_fields_but_none_of_ours_and_removal_is_last() {
    let set = |name: &'static str, value: &'static str| {
        HeaderRule::Set(HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    let remove = |name: &'static str| HeaderRule::Remove(HeaderName::from_static(name));
    let settings = vec![
        set("x-a", "1"),
        set("x-both", "1"),
        set("x-pomerium-jwt-assertion", "forged"),
        set("host", "evil"),
        set("content-length", "9"),
        set("x-tpl", "$$ ${pomerium.request.headers[\"X-In\"]} $pomerium.nothing ${broken"),
        set("x-seen", "${pomerium.request.headers.x-a}"),
        set("authorization", "Bearer ${pomerium.jwt}"),
        remove("x-both"),
        remove("accept"),
        remove("x-forwarded-host"),
        remove("content-length"),
    ];
    let custom = Route { request_headers: settings, ..route("app.example.com", "/") };
    let posted = head("POST", "/", &[("x-a", "client"), ("accept", "x"), ("x-in", "in"), ("content-length", "3")]);
    let head = up(config(vec![custom]), &posted).await;
    for (name, value) in [
        ("x-a", "1"),
        ("x-both", ""),
        ("accept", ""),
        ("x-forwarded-host", ""),
        ("content-length", "3"),
        ("host", "up.internal:8080"),
        ("x-tpl", "$ in  ${broken"),
        ("x-seen", "client"),
    ] {
        assert_eq!(values(&head.headers, name), value, "{name}");
    }
    let assertion = values(&head.headers, ASSERTION_HEADER.as_str());
    assert_eq!(values(&head.headers, "authorization"), format!("Bearer {assertion}"));
    assert_ne!(assertion, "forged");
    let removing = Route { request_headers: vec![remove("x-pomerium-jwt-assertion")], ..route("app.example.com", "/") };
    let head = up(config(vec![removing]), &get("/", &[])).await;
    assert!(!head.headers.contains_key(ASSERTION_HEADER), "what the route removes is removed last");
}

#[test]
fn templates_are_read_as_their_users_know_them() {
    let mut fields = HeaderMap::new();
    fields.insert("x-one", HeaderValue::from_static("1"));
    fields.append("x-one", HeaderValue::from_static("2"));
    let token = HeaderValue::from_static("TOKEN");
    let leaf = postern_policy::Certificate {
        fingerprint: [0xab; 32],
        dns: vec!["a.example".to_owned(), "b,c".to_owned(), "d.example\n".to_owned(), "d.example".to_owned()],
        emails: vec!["a@example.com".to_owned(), "\u{7f}é".to_owned()],
        ..postern_policy::Certificate::default()
    };
    let facts = Facts { assertion: Some(&token), fields: &fields, client_cert: Some(&leaf) };
    let cases = [
        ("plain", "plain"),
        ("$$x", "$x"),
        ("$", "$"),
        ("a$", "a$"),
        ("${pomerium.jwt}", "TOKEN"),
        ("$pomerium.jwt!", "TOKEN!"),
        ("${ pomerium.jwt }", "TOKEN"),
        ("${pomerium[\"jwt\"]}", "TOKEN"),
        ("${pomerium.request.headers[\"X-One\"]}", "1,2"),
        ("${pomerium.request.headers[\"x-\\one\"]}", "1,2"),
        ("${pomerium.request.headers.x-one}", "1,2"),
        ("[${pomerium.access_token}${pomerium.id_token}]", "[]"),
        ("${unknown}", ""),
        ("$unknown.x y", " y"),
        ("${}", "${}"),
        ("${pomerium.jwt", "${pomerium.jwt"),
        ("${pomerium..jwt}", "${pomerium..jwt}"),
        ("$pomerium.jwt.", "TOKEN."),
        ("$-", ""),
        ("$ x", "$ x"),
        ("${pomerium.client_cert_fingerprint}", "6a73aa75ae1bb49c5f4f0aeb27a24e4c9c2f9ae0b0c5bb0a1d4a2eafbc6e0b1d"),
    ];
    for (template, value) in cases {
        let filled = fill(&HeaderValue::from_static(template), &facts).unwrap();
        if template.contains("fingerprint") {
            assert_eq!((filled.len(), value.len()), (64, 64));
        } else {
            assert_eq!(filled, value, "{template}");
        }
    }
}

async fn permit_of(config: EdgeConfig, head: &RequestHeader) -> (Permit, std::sync::Arc<Snapshot>) {
    let world = World::new(config).await;
    let gate: &Gate = &world.gate;
    let Verdict::Pass(permit) = world.admit(head).await.verdict else { panic!("it is carried") };
    (permit, gate.snapshot())
}

fn answered(permit: &Permit, snapshot: &Snapshot, status: u16, fields: &[(&'static str, &str)]) -> ResponseHeader {
    let mut head = ResponseHeader::build(status, None).unwrap();
    for (name, value) in fields {
        head.append_header(*name, *value).unwrap();
    }
    response(permit, snapshot, &HeaderValue::from_static(TEST_ID), &mut head);
    head
}

#[tokio::test]
async fn s_049_what_we_set_wins_over_the_upstream() {
    let mut open = route("app.example.com", "/");
    open.response_headers = ResponseHeaders([(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"))].into());
    let (permit, snapshot) = permit_of(config(vec![open]), &get("/", &[])).await;
    let fields = [
        ("X-Frame-Options", "ALLOWALL"),
        ("X-Frame-Options", "x"),
        ("Set-Cookie", "a=1; Path=/"),
        ("Set-Cookie", "_pomerium=evil; Domain=example.com"),
        ("Set-Cookie", " _pomerium =evil"),
        ("Set-Cookie", "__Host-_pomerium_flow_1=evil"),
        ("Set-Cookie", "=_pomerium=evil; Domain=example.com"),
        ("Set-Cookie", " = =_pomerium=evil"),
        ("Set-Cookie", "=__Host-_pomerium_flow_1=evil"),
        ("Set-Cookie", "b=2"),
        ("X-Pomerium-Intercepted-Response", "true"),
        ("X-Request-Id", "theirs"),
        ("Connection", "X-Inner, set-cookie"),
        ("X-Inner", "1"),
        ("Keep-Alive", "5"),
        ("Proxy-Authenticate", "Basic"),
        ("Trailer", "x"),
        ("Upgrade", "h2c"),
        ("Content-Type", "text/plain"),
    ];
    let head = answered(&permit, &snapshot, 200, &fields);
    assert_eq!(values(&head.headers, "set-cookie"), "a=1; Path=/|b=2");
    assert_eq!(values(&head.headers, "x-frame-options"), "DENY");
    assert_eq!(values(&head.headers, "x-request-id"), TEST_ID);
    for gone in [
        "x-pomerium-intercepted-response",
        "connection",
        "x-inner",
        "keep-alive",
        "proxy-authenticate",
        "trailer",
        "upgrade",
    ] {
        assert_eq!(values(&head.headers, gone), "", "{gone}");
    }
    let upgraded = answered(&permit, &snapshot, 101, &[("Connection", "Upgrade"), ("Upgrade", "websocket")]);
    assert_eq!(
        (values(&upgraded.headers, "connection"), values(&upgraded.headers, "upgrade")),
        ("Upgrade".into(), "websocket".into())
    );
}

#[tokio::test]
async fn authn_gets_the_request_as_it_was_and_proof_that_an_edge_sent_it() {
    let head = get(
        "/.pomerium/callback/?a=1",
        &[
            ("cookie", "_pomerium=x; other=1"),
            ("x-pomerium-edge", "forged"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-request-id", "theirs"),
        ],
    );
    let mut open = config(vec![route("app.example.com", "/")]);
    open.identity.claim_headers = Vec::new();
    let sent = up(open, &head).await;
    let token = postern_identity::edge_token(&keyring());
    for (name, value) in [
        ("cookie", "_pomerium=x; other=1"),
        ("host", "app.example.com"),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", TEST_ID),
        (EDGE_TOKEN_HEADER, token.as_str()),
    ] {
        assert_eq!(values(&sent.headers, name), value, "{name}");
    }
    assert_eq!(sent.raw_path(), b"/.pomerium/callback/?a=1");
    assert!(!sent.headers.contains_key(ASSERTION_HEADER));
    let mut open = config(vec![route("app.example.com", "/")]);
    let configured =
        [(header::CACHE_CONTROL, "public"), (header::SET_COOKIE, "a=b"), (header::X_FRAME_OPTIONS, "DENY")];
    open.response_headers =
        ResponseHeaders(configured.map(|(name, value)| (name, HeaderValue::from_static(value))).into());
    let (permit, snapshot) = permit_of(open, &head).await;
    let answer = answered(&permit, &snapshot, 302, &[("Set-Cookie", "_pomerium=new"), ("Cache-Control", "no-store")]);
    assert_eq!(values(&answer.headers, "set-cookie"), "_pomerium=new");
    assert_eq!(values(&answer.headers, "cache-control"), "no-store");
    assert_eq!(values(&answer.headers, "x-frame-options"), "DENY");
    assert_eq!(values(&answer.headers, "x-pomerium-intercepted-response"), "true");
}

#[tokio::test]
async fn s_037_a_websocket_goes_up_only_where_the_route_allows_it() {
    let fields = [("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-key", "x")];
    let allowed = Route { upgrades: Upgrades::websockets(), ..route("app.example.com", "/") };
    let head = up(config(vec![allowed]), &get("/", &fields)).await;
    assert_eq!(
        (values(&head.headers, "connection"), values(&head.headers, "upgrade")),
        ("Upgrade".into(), "websocket".into())
    );
    assert_eq!(values(&head.headers, "sec-websocket-key"), "x");
    let world = World::new(config(vec![route("app.example.com", "/")])).await;
    assert_eq!(world.status(&get("/", &fields)).await, 403);
}

/// A route to a Kubernetes API, for whom `policy` allows.
fn kubernetes(policy: postern_policy::Policy) -> Route {
    let credentials = UpstreamCredentials { kubernetes: bearer("sa-token"), serverless: None };
    let pass_identity_headers = false;
    Route { credentials: Some(Box::new(credentials)), pass_identity_headers, ..guarded("app.example.com", "/", policy) }
}

/// What a client may write to be somebody else there.
const DISGUISES: [(&str, &str); 9] = [
    ("impersonate-user", "root"),
    ("impersonate-group", "system:masters"),
    ("impersonate-uid", "0"),
    ("impersonate-extra-scopes", "all"),
    ("x-remote-user", "root"),
    ("authorization", "Bearer mine"),
    ("impersonate_user", "root"),
    ("impersonate.user", "root"),
    ("connection", "impersonate-user, impersonate-group, authorization"),
];

#[tokio::test]
async fn a_kubernetes_api_gets_our_token_and_whom_it_speaks_for_and_nothing_that_the_client_says_of_it() {
    let mut lenient = config(vec![kubernetes(any_user())]);
    lenient.request.underscores = crate::UnderscoreHeaders::Allow;
    let cookie = format!("_pomerium={}", alices_cookie("app.example.com"));
    let fields: Vec<_> = DISGUISES.into_iter().chain([("cookie", cookie.as_str())]).collect();
    let head = up(lenient, &get("/api", &fields)).await;
    for (name, expected) in [
        ("authorization", "Bearer sa-token"),
        ("impersonate-user", "alice@example.com"),
        ("impersonate-group", "ops|staff"),
        ("impersonate-uid", ""),
        ("impersonate-extra-scopes", ""),
        ("impersonate_user", ""),
        ("impersonate.user", ""),
        ("x-remote-user", ""),
        ("cookie", ""),
    ] {
        assert_eq!(values(&head.headers, name), expected, "{name}");
    }
}

#[tokio::test]
async fn who_is_not_signed_in_is_nobody_at_a_kubernetes_api_and_never_the_service_account_itself() {
    let head = up(config(vec![kubernetes(public())]), &get("/api", &DISGUISES[..6])).await;
    assert_eq!(values(&head.headers, "impersonate-user"), "system:anonymous");
    assert_eq!(values(&head.headers, "impersonate-group"), "");
    assert_eq!(values(&head.headers, "authorization"), "Bearer sa-token");
}

#[test]
fn whom_a_kubernetes_api_sees_is_somebody_whom_somebody_vouches_for() {
    let seen = |change: &dyn Fn(&mut postern_identity::Session), filter: Option<&[&str]>| {
        let mut session = alice();
        change(&mut session);
        let filter = filter.map(|names| std::sync::Arc::new(names.iter().map(ToString::to_string).collect()));
        let entry = postern_storage::Entry::<crate::AssertionSlot>::alone(&session, NOW);
        let fields = impersonation(&bearer("t").unwrap(), Some(&entry.session), filter.as_ref());
        fields.map(|fields| {
            let texts = fields.iter().skip(1).map(|(_, value)| String::from_utf8(value.as_bytes().to_vec()).unwrap());
            texts.collect::<Vec<_>>()
        })
    };
    assert_eq!(seen(&|_| {}, Some(&["ops", "admins"])).unwrap(), ["alice@example.com", "ops"]);
    for (email, verified, expected) in [
        (None, None, "u-alice"),
        (Some("alice@example.com"), Some(false), "u-alice"),
        (Some("zoë@example.com"), None, "zoë@example.com"),
    ] {
        let change = |session: &mut postern_identity::Session| {
            session.user.email = email.map(str::to_owned);
            session.user.email_verified = verified;
        };
        assert_eq!(seen(&change, Some(&[])).unwrap(), [expected], "{email:?} {verified:?}");
    }
    // What would be read as another name further on is no name: a group is left out, a user fails.
    let groups = |session: &mut postern_identity::Session| {
        session.claims.set("groups", [" admins", "a\nb", "ok", ""].map(serde_json::Value::from).to_vec());
    };
    assert_eq!(seen(&groups, None).unwrap(), ["alice@example.com", "ok"]);
    for id in ["root ", "ro\not", ""] {
        let change = |session: &mut postern_identity::Session| {
            (session.user.email, session.user.id) = (None, id.to_owned());
        };
        assert_eq!(seen(&change, None), Err(Refusal::Failed(Failure::Internal)), "{id:?}");
    }
}

#[tokio::test]
async fn a_serverless_upstream_gets_the_token_that_is_there_and_none_of_the_clients() {
    let token = std::sync::Arc::new(IdentityToken::new("https://up.internal".to_owned()));
    let credentials = UpstreamCredentials { kubernetes: None, serverless: Some(std::sync::Arc::clone(&token)) };
    let routed = || Route { credentials: Some(Box::new(credentials.clone())), ..route("app.example.com", "/") };
    let fields = [("x-serverless-authorization", "Bearer forged"), ("authorization", "Bearer mine")];
    let without = up(config(vec![routed()]), &get("/", &fields)).await;
    assert_eq!(values(&without.headers, "x-serverless-authorization"), "");
    assert!(token.put("a.b.c", NOW.plus(std::time::Duration::from_secs(60)), NOW));
    let with = up(config(vec![routed()]), &get("/", &fields)).await;
    assert_eq!(values(&with.headers, "x-serverless-authorization"), "Bearer a.b.c");
    assert_eq!(values(&with.headers, "authorization"), "Bearer mine", "that one is the client's");
}

#[tokio::test]
async fn a_bearer_token_that_is_none_of_ours_goes_up_as_it_came() {
    let head = up_open(&[("authorization", "Bearer eyJhbGciOiJub25lIn0.e30.")]).await;
    assert_eq!(values(&head.headers, "authorization"), "Bearer eyJhbGciOiJub25lIn0.e30.");
}
