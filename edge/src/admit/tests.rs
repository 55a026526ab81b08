use std::time::Duration;

use futures_util::FutureExt as _;
use http::{HeaderName, Version};
use postern_identity::{Keyring, ProgramToken, Secret, ServiceAccountToken, SessionCookie, SessionId, Tokens};
use proptest::prelude::*;

use super::*;
use crate::route::Upgrades;
use crate::testing::*;
use crate::{ClientTrust, DownstreamMtls, EdgeConfig, SnapshotError, Terms};

fn cookie(value: &str) -> String {
    format!("_pomerium={value}")
}

fn own() -> String {
    cookie(&alices_cookie("app.example.com"))
}

async fn closed() -> World {
    World::new(config(vec![guarded("app.example.com", "/", any_user())])).await
}

fn json() -> (&'static str, &'static str) {
    ("accept", "application/json")
}

#[tokio::test]
async fn a_session_opens_a_route_and_nothing_else_does() {
    let world = closed().await;
    assert_eq!(world.status(&get("/", &[json()])).await, 401);
    assert_eq!(world.status(&get("/", &[("cookie", &own())])).await, 200);
    let admission = world.admit(&get("/", &[("cookie", &own())])).await;
    assert_eq!(admission.subject.session().map(CompactSession::user_id), Some("u-alice"));
    assert!(admission.evaluation.is_some() && admission.route.is_some() && !admission.programmatic);
}

#[tokio::test]
async fn a_program_shows_the_same_session_in_a_field_or_parameter() {
    let world = closed().await;
    let handle = alices_cookie("app.example.com");
    for value in
        [format!("Pomerium {handle}"), format!("bearer  Pomerium-{handle}"), format!("Bearer POMERIUM-{handle}")]
    {
        let admission = world.admit(&get("/", &[("authorization", &value)])).await;
        assert!(matches!(admission.verdict, Verdict::Pass(_)) && admission.programmatic, "{value}");
    }
    assert_eq!(world.status(&get("/", &[("x-pomerium-authorization", &handle)])).await, 200);
    assert_eq!(world.status(&get(&format!("/?a&pomerium_session={handle}"), &[])).await, 200);
    for value in [format!("Bearer {handle}"), format!("Basic {handle}"), handle.clone(), "Pomerium".to_owned()] {
        assert_eq!(world.status(&get("/", &[("authorization", &value), json()])).await, 401, "{value}");
    }
}

#[tokio::test]
async fn s_083_any_change_of_a_cookie_is_no_session_and_never_an_error() {
    let world = closed().await;
    let good = alices_cookie("app.example.com");
    assert_eq!(world.status(&get("/", &[("cookie", &own())])).await, 200, "from here on it is known");
    for at in 0..good.len() {
        for byte in ["A", "_", "=", "%", " "] {
            let mut bad = good.clone();
            bad.replace_range(at..=at, byte);
            if bad != good {
                assert_eq!(world.status(&get("/", &[("cookie", &cookie(&bad)), json()])).await, 401, "{bad}");
            }
        }
    }
    let unknown = SessionCookie::seal(&keyring(), "app.example.com", &SessionId::from_bytes([8; 32]));
    assert_eq!(world.status(&get("/", &[("cookie", &cookie(&unknown)), json()])).await, 401, "well made, but nobody's");
}

#[tokio::test]
async fn s_089_a_cookie_of_one_host_opens_no_other_unless_they_share_a_domain() {
    let routes = || vec![guarded("app.example.com", "/", any_user()), guarded("b.example.com", "/", any_user())];
    let foreign = [("host", "b.example.com"), ("cookie", &own()), json()].map(|(name, value)| (name, value.to_owned()));
    let fields: Vec<_> = foreign.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let world = World::new(config(routes())).await;
    for _ in 0..2 {
        assert_eq!(world.status(&get("/", &fields)).await, 401);
        assert_eq!(world.status(&get("/", &[("cookie", &own())])).await, 200, "from here on it is known");
    }
    let mut shared = config(routes());
    shared.cookie.attributes.domain = Some("example.com".to_owned());
    let world = World::new(shared).await;
    let common = cookie(&alices_cookie("example.com"));
    for host in ["app.example.com", "b.example.com"] {
        assert_eq!(world.status(&get("/", &[("host", host), ("cookie", &common)])).await, 200, "{host}");
    }
}

#[tokio::test]
async fn s_083_a_cookie_that_was_known_is_nothing_to_other_keys() {
    let world = closed().await;
    let asked = get("/", &[("cookie", &own()), json()]);
    assert_eq!(world.status(&asked).await, 200);
    let before = world.gate.snapshot();
    assert_eq!(before.cookies_known(), 1);
    let mut rotated = config(vec![guarded("app.example.com", "/", any_user())]);
    rotated.keyring = Keyring::derive(&Secret::new([8; 32]), &Secret::new([9; 32])).into();
    world.gate.replace(Snapshot::new(rotated, 2).unwrap());
    assert_eq!(world.status(&asked).await, 401);
    assert_eq!(before.cookies_known(), 0, "who keeps that configuration does not keep those cookies");
}

#[tokio::test]
async fn who_is_known_costs_no_allocation_but_the_host_that_goes_up() {
    let world = closed().await;
    // With room for what is set in it, as an exchange has it.
    let asked = || {
        let mut head = RequestHeader::build_no_case("GET", b"/a/b?c=d", Some(32)).unwrap();
        head.set_version(Version::HTTP_11);
        head.append_header("host", HeaderValue::from_static("app.example.com")).unwrap();
        head.append_header("connection", "keep-alive").unwrap();
        head.append_header("cookie", own()).unwrap();
        head
    };
    let (snapshot, connection, id) = (world.gate.snapshot(), connection(), HeaderValue::from_static(TEST_ID));
    let admit = |head| world.gate.admit(&snapshot, head, &connection, NOW.into());
    let prepare = |admission: &Admission, head: &mut RequestHeader| {
        prepare::request(admission.admitted().unwrap(), &snapshot, &id, ("up.internal:8080", NOW), head);
    };
    let ([first, second, another], [mut first_up, mut second_up]) =
        ([(); 3].map(|()| asked()), [(); 2].map(|()| asked()));
    // From here on the cookie is known, the session near, the assertion signed, the address of the client written.
    prepare(&admit(&first).await, &mut first_up);
    let mut admission = None;
    let admitting = allocation_counter::measure(|| {
        admission = admit(&second).now_or_never();
        drop(second.clone());
    });
    let copying = allocation_counter::measure(|| drop(another.clone()));
    assert_eq!(admitting.count_total, copying.count_total, "no more than that Pingora copies the head");
    let admission = admission.unwrap();
    let preparing = allocation_counter::measure(|| prepare(&admission, &mut second_up));
    assert_eq!((preparing.count_total, preparing.bytes_total), (1, "up.internal:8080".len() as u64));
    assert_eq!(first_up.headers, second_up.headers);
}

#[tokio::test]
async fn several_cookies_count_only_if_they_agree() {
    let world = closed().await;
    let other = SessionCookie::seal(&keyring(), "app.example.com", &SessionId::from_bytes([8; 32]));
    let good = alices_cookie("app.example.com");
    for (value, status) in [
        (format!("_pomerium=junk; _pomerium={good}"), 200),
        (format!("_pomerium={good}; _pomerium={good}"), 200),
        (format!("_pomerium={good}; _pomerium={other}"), 401),
        (format!("_pomerium={other}; _pomerium={good}"), 401),
    ] {
        assert_eq!(world.status(&get("/", &[("cookie", &value), json()])).await, status, "{value}");
    }
    let crumbs = [("cookie", "a=1"), ("cookie", &own())].map(|(name, value)| (name, value.to_owned()));
    let crumbs: Vec<_> = crumbs.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(world.status(&h2("GET", "https://app.example.com/", &crumbs)).await, 200, "S-017");
}

#[tokio::test]
async fn s_092_the_number_of_cookies_is_bounded_before_any_work() {
    let world = closed().await;
    let flood = format!("{}{}", "_pomerium=x; ".repeat(8), own());
    assert_eq!(world.status(&get("/", &[("cookie", &flood), json()])).await, 401);
}

#[tokio::test]
async fn s_090_an_expired_session_is_sent_to_sign_in() {
    let world = closed().await;
    let head = get("/", &[("cookie", &own())]);
    let (snapshot, connection) = (world.gate.snapshot(), connection());
    for (seconds, passes) in [(0, true), (3599, true), (3600, false), (9999, false)] {
        let now = NOW.plus(Duration::from_secs(seconds));
        let verdict = world.gate.admit(&snapshot, &head, &connection, now.into()).await.verdict;
        assert_eq!(matches!(verdict, Verdict::Pass(_)), passes, "{seconds}");
        assert!(passes || matches!(verdict, Verdict::Refuse(Refusal::SignIn { .. })));
    }
}

#[tokio::test]
async fn a_session_of_another_identity_provider_is_no_session() {
    let other = Route { idp: IdpId::new("other"), ..guarded("app.example.com", "/", any_user()) };
    let world = World::new(config(vec![other])).await;
    let admission = world.admit(&get("/", &[("cookie", &own())])).await;
    assert!(matches!(admission.verdict, Verdict::Refuse(Refusal::SignIn { idp }) if idp.as_str() == "other"));
    assert!(admission.subject.session().is_none());
}

/// A world that knows the service account too.
async fn with_deployer(config: EdgeConfig) -> World {
    let world = World::new(config).await;
    world.storage.sessions().create(&deployer(), &Tokens::none()).await.unwrap();
    world
}

#[tokio::test]
async fn a_service_account_asks_as_its_user_on_every_host_and_at_whatever_provider() {
    let policy = |text: &str| ppl(&format!("allow: {{and: [{text}]}}"));
    let other = Route { idp: IdpId::new("other"), ..guarded("b.example.com", "/", policy("{email: ci@example.com}")) };
    let routes = vec![
        guarded("app.example.com", "/", policy("{user: ci}, {groups: {has: deployers}}")),
        other,
        guarded("c.example.com", "/", policy("{user: u-alice}")),
    ];
    let (world, token) = (with_deployer(config(routes)).await, deployers_token());
    for value in [format!("Pomerium {token}"), format!("Bearer Pomerium-{token}")] {
        for (host, status) in [("app.example.com", 200), ("b.example.com", 200), ("c.example.com", 403)] {
            assert_eq!(world.status(&get("/", &[("host", host), ("authorization", &value)])).await, status, "{host}");
        }
    }
    assert_eq!(world.status(&get("/", &[("x-pomerium-authorization", &token)])).await, 200);
    assert_eq!(world.status(&get(&format!("/?pomerium_session={token}"), &[])).await, 200);
    let admission = world.admit(&get("/", &[("x-pomerium-authorization", &token)])).await;
    assert!(admission.programmatic && admission.subject.session().is_some_and(CompactSession::is_service_account));
    let carried = world.carried(&get("/", &[("x-pomerium-authorization", &token)])).await.unwrap();
    let assertion = values(&carried.headers, "x-pomerium-jwt-assertion");
    let claims: serde_json::Value = serde_json::from_str(&crate::assertion::payload(&assertion).unwrap()).unwrap();
    assert_eq!(
        (&claims["sub"], &claims["email"], &claims["name"]),
        (&"ci".into(), &"ci@example.com".into(), &"deploy".into())
    );
    assert_eq!(
        (&claims["groups"], &claims["sid"]),
        (&serde_json::json!(["deployers"]), &deployer().handle.to_string().into())
    );
}

#[tokio::test]
async fn s_096_what_a_service_account_shows_is_no_cookie_and_no_plain_bearer_token() {
    let (world, token) =
        (with_deployer(config(vec![guarded("app.example.com", "/", any_user())])).await, deployers_token());
    assert_eq!(world.status(&get("/", &[("cookie", &cookie(&token)), json()])).await, 401);
    for value in [format!("Bearer {token}"), format!("Basic {token}"), token.clone(), format!("Pomerium {token}x")] {
        assert_eq!(world.status(&get("/", &[("authorization", &value), json()])).await, 401, "{value}");
    }
    let field = format!("Pomerium {token}");
    let two = [("authorization", field.as_str()), ("x-pomerium-authorization", &alices_cookie("app.example.com"))];
    assert_eq!(world.status(&get("/", &two)).await, 401, "two at once are none");
}

#[tokio::test]
async fn s_096_neither_a_session_nor_a_service_account_passes_for_the_other() {
    let world = with_deployer(config(vec![guarded("app.example.com", "/", any_user())])).await;
    let (of_alice, of_deployer) = (SessionId::from_bytes([7; 32]), SessionId::from_bytes([9; 32]));
    // As if somebody had made them: well sealed, of the other kind.
    let token = ServiceAccountToken::seal(&keyring(), &of_alice, "u-alice", NOW, NOW);
    assert_eq!(world.status(&get("/", &[("x-pomerium-authorization", &token)])).await, 401);
    let sealed = SessionCookie::seal(&keyring(), "app.example.com", &of_deployer);
    assert_eq!(world.status(&get("/", &[("cookie", &cookie(&sealed)), json()])).await, 401);
    let token = ProgramToken::seal(&keyring(), "app.example.com", &of_deployer, NOW);
    assert_eq!(world.status(&get("/", &[("x-pomerium-authorization", &token)])).await, 401);
}

#[tokio::test]
async fn s_084_a_deleted_service_account_is_dead_at_once_and_one_whose_time_is_over_is_too() {
    let (world, token) =
        (with_deployer(config(vec![guarded("app.example.com", "/", any_user())])).await, deployers_token());
    let head = get("/", &[("x-pomerium-authorization", &token)]);
    let (snapshot, connection) = (world.gate.snapshot(), connection());
    for (seconds, passes) in [(3599, true), (3600, false)] {
        let verdict = world
            .gate
            .admit(&snapshot, &head, &connection, NOW.plus(Duration::from_secs(seconds)).into())
            .await
            .verdict;
        assert_eq!(matches!(verdict, Verdict::Pass(_)), passes, "{seconds}");
    }
    let world = with_deployer(config(vec![guarded("app.example.com", "/", any_user())])).await;
    assert_eq!(world.status(&head).await, 200);
    world.storage.sessions().revoke(&deployer().handle).await.unwrap();
    assert_eq!(world.status(&head).await, 401);
}

#[tokio::test]
async fn s_084_a_revoked_session_is_dead_at_once() {
    let world = closed().await;
    let head = get("/", &[("cookie", &own()), json()]);
    assert_eq!(world.status(&head).await, 200);
    world.storage.sessions().revoke(&alice().handle).await.unwrap();
    assert_eq!(world.status(&head).await, 401);
}

#[tokio::test]
async fn r_006_without_a_store_public_routes_go_on_and_the_rest_is_503() {
    let routes = vec![
        route("app.example.com", "/open"),
        guarded(
            "app.example.com",
            "/not-bob",
            ppl("[{allow: {and: [accept: 1]}}, {deny: {or: [email: bob@example.com]}}]"),
        ),
        guarded("app.example.com", "/", any_user()),
    ];
    let folder = tempfile::tempdir().unwrap();
    let file = postern_storage::StorageConfig::File { path: folder.path().join("sessions") };
    let world = World::with(config(routes), file).await;
    world.storage.close().await;
    for (path, signed, anonymous) in [("/open", 200, 200), ("/", 503, 401), ("/not-bob", 503, 401)] {
        let with = get(path, &[("cookie", &own()), json()]);
        assert_eq!(world.status(&with).await, signed, "{path}");
        assert_eq!(world.status(&get(path, &[json()])).await, anonymous, "{path}");
    }
    let answer = world.answer(&get("/", &[("cookie", &own())])).await.unwrap();
    assert!(answer.head.headers.contains_key("retry-after") && !answer.head.headers.contains_key("set-cookie"));
    let user = world.answer(&get("/.pomerium/user", &[("cookie", &own())])).await.unwrap();
    assert_eq!(user.head.status, 503);
}

#[tokio::test]
async fn s_031_what_no_route_has_reaches_no_upstream() {
    let world = World::new(config(vec![route("app.example.com", "/only")])).await;
    let mut nameless = get("/only", &[]);
    nameless.remove_header("host");
    nameless.set_version(Version::HTTP_10);
    for head in
        [get("/x", &[]), get("/only", &[("host", "b.example.com")]), get("/only", &[("host", "192.0.2.1")]), nameless]
    {
        let admission = world.admit(&head).await;
        assert!(matches!(admission.verdict, Verdict::Refuse(Refusal::NoRoute)), "{head:?}");
    }
}

#[tokio::test]
async fn s_032_every_request_is_decided_anew_on_the_configuration_and_session_of_now() {
    let world = closed().await;
    let head = get("/", &[("cookie", &own()), json()]);
    assert_eq!(world.status(&head).await, 200);
    assert_eq!(world.status(&get("/", &[json()])).await, 401, "nothing stays from the request before");
    let nobody = config(vec![guarded("app.example.com", "/", ppl("allow: {and: [groups: admins]}"))]);
    world.gate.replace(Snapshot::new(nobody, 2).unwrap());
    assert_eq!(world.status(&head).await, 403, "S-099");
    world.gate.replace(Snapshot::new(config(Vec::new()), 3).unwrap());
    assert_eq!(world.status(&head).await, 404);
}

#[tokio::test]
async fn with_reject_connection_an_open_connection_is_refused_once_nobody_vouches_for_it_any_more() {
    let authority = rcgen::generate_simple_self_signed(["ca.example".to_owned()]).unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority.signing_key).unwrap().pem();
    let trust = ClientTrust::new([authority.as_bytes()], Terms::default()).unwrap();
    let mut rejecting = config(vec![route("app.example.com", "/")]);
    rejecting.downstream_mtls = DownstreamMtls { everybody: Some(Arc::new(trust)), reject: true };
    let is_refused = async |config: &EdgeConfig, tls, target| {
        let world = World::new(config.clone()).await;
        let mut connection = connection();
        connection.tls = tls;
        let admission = world.gate.admit(&world.gate.snapshot(), &get(target, &[]), &connection, NOW.into()).await;
        matches!(admission.verdict, Verdict::Refuse(Refusal::ClientCertificate(_)))
    };
    for target in ["/", "/ping", "/.pomerium/"] {
        assert!(is_refused(&rejecting, true, target).await, "{target}");
        assert!(!is_refused(&rejecting, false, target).await, "{target}: without TLS nobody was asked");
    }
    rejecting.downstream_mtls.reject = false;
    assert!(!is_refused(&rejecting, true, "/").await);
}

#[tokio::test]
async fn s_033_a_public_route_opens_only_its_own_match() {
    let world =
        World::new(config(vec![route("app.example.com", "/open/"), guarded("app.example.com", "/", any_user())])).await;
    assert_eq!(world.status(&get("/open/x", &[])).await, 200);
    let tricks: [(&str, &[(&str, &str)]); 9] = [
        ("/openx", &[]),
        ("/open", &[]),
        ("/x?/open/", &[]),
        ("/open/../x", &[]),
        ("/Open/", &[]),
        ("/x", &[("x-original-url", "/open/")]),
        ("/x", &[("user-agent", "kube-probe/1.0")]),
        ("/x", &[("x-forwarded-for", "127.0.0.1")]),
        ("/x", &[("referer", "https://app.example.com/open/"), ("x-http-method-override", "OPTIONS")]),
    ];
    for (target, fields) in tricks {
        let mut fields = fields.to_vec();
        fields.push(json());
        assert_eq!(world.status(&get(target, &fields)).await, 401, "{target}");
    }
    for method in ["POST", "OPTIONS", "HEAD", "PURGE"] {
        assert_eq!(world.status(&head(method, "/x", &[json()])).await, 401, "{method}");
    }
}

#[tokio::test]
async fn s_035_a_preflight_passes_only_where_the_route_says_so() {
    let preflight =
        || head("OPTIONS", "/", &[("origin", "https://a"), ("access-control-request-method", "PUT"), json()]);
    let open = || ppl("allow: {or: [cors_preflight: 1, authenticated_user: 1]}");
    let world = World::new(config(vec![guarded("app.example.com", "/", open())])).await;
    assert_eq!(world.status(&preflight()).await, 200);
    assert_eq!(world.status(&head("OPTIONS", "/", &[json()])).await, 401);
    assert_eq!(closed().await.status(&preflight()).await, 401);
}

#[tokio::test]
async fn s_097_a_route_without_a_policy_admits_nobody() {
    let world = World::new(config(vec![guarded("app.example.com", "/", postern_policy::Policy::default())])).await;
    for head in [get("/", &[]), get("/", &[("cookie", &own())])] {
        assert!(matches!(world.admit(&head).await.verdict, Verdict::Refuse(Refusal::Denied(_))));
    }
}

#[tokio::test]
async fn policy_sees_the_trusted_address_and_the_decoded_path() {
    let policy = ppl("allow: {and: [source_ip: 203.0.113.0/24, http_path: '/a b', http_method: GET]}");
    let mut behind = config(vec![guarded("app.example.com", "/", policy)]);
    behind.proxy.trusted_hops = 1;
    let world = World::new(behind).await;
    assert_eq!(world.status(&get("/a%20b", &[("x-forwarded-for", "203.0.113.9")])).await, 200);
    assert_eq!(world.status(&get("/a%20b", &[("x-forwarded-for", "203.0.113.9, 198.51.100.1")])).await, 403);
    assert_eq!(world.status(&get("/a%20b", &[])).await, 403);
    assert_eq!(world.status(&head("HEAD", "/a%20b", &[("x-forwarded-for", "203.0.113.9")])).await, 403);
}

#[tokio::test]
async fn s_034_our_own_endpoints_are_matched_by_equality_and_never_forwarded() {
    let world = World::new(config(vec![route("app.example.com", "/"), route("auth.example.com", "/")])).await;
    let ours = [
        ("app.example.com", "/ping", 200),
        ("app.example.com", "/healthz", 200),
        ("anything.example", "/healthz", 200),
        ("app.example.com", "/.well-known/pomerium", 200),
        ("app.example.com", "/.well-known/pomerium/", 200),
        ("app.example.com", "/.well-known/pomerium/jwks.json", 200),
        ("app.example.com", "/.well-known/pomerium/x", 404),
        ("app.example.com", "/.pomerium/x", 404),
        ("app.example.com", "/.pomerium/jwt", 404),
        ("app.example.com", "/.pomerium/sign_in", 404),
        ("app.example.com", "/.pomerium", 301),
        ("app.example.com", "/.pomerium/callback", 301),
        ("app.example.com", "/.pomerium/user/", 301),
        ("app.example.com", "//.pomerium//x", 404),
        ("app.example.com", "/%2epomerium/x", 404),
        ("auth.example.com", "/robots.txt", 200),
        ("unknown.example", "/.pomerium/", 404),
        ("unknown.example", "/.pomerium/callback/", 404),
        ("unknown.example", "/.pomerium/user", 404),
    ];
    for (host, path, status) in ours {
        let head = get(path, &[("host", host)]);
        assert!(world.carried(&head).await.is_none(), "{host}{path}");
        assert_eq!(world.status(&head).await, status, "{host}{path}");
    }
    let authn = [
        ("app.example.com", "/.pomerium/"),
        ("app.example.com", "/.pomerium/callback/?x=1"),
        ("app.example.com", "/.pomerium/sign_out"),
        ("auth.example.com", "/"),
        ("auth.example.com", "/oauth2/callback"),
        ("auth.example.com", "/.pomerium/sign_in"),
        ("auth.example.com", "/.pomerium/signed_out"),
    ];
    for (host, path) in authn {
        let Verdict::Pass(permit) = world.admit(&get(path, &[("host", host)])).await.verdict else { panic!("{path}") };
        assert!(permit.is_to_authn() && permit.upstream().is_none() && permit.upgrade().is_none(), "{path}");
    }
    for path in ["/pingx", "/ping/", "/healthz/x", "/Ping", "/.pomeriumx", "/oauth2/callback", "/.well-known/pomeriumx"]
    {
        let Verdict::Pass(permit) = world.admit(&get(path, &[])).await.verdict else { panic!("{path}") };
        assert!(!permit.is_to_authn(), "{path} is the application's");
    }
}

#[tokio::test]
async fn our_own_endpoints_take_their_own_methods_only() {
    let world = World::new(config(vec![route("app.example.com", "/")])).await;
    for (path, allow) in [
        ("/ping", "GET, HEAD"),
        ("/healthz", "GET, HEAD"),
        ("/.pomerium/user", "GET, HEAD"),
        ("/.well-known/pomerium/jwks.json", "GET, HEAD, OPTIONS"),
    ] {
        let answer = world.answer(&head("POST", path, &[])).await.unwrap();
        assert_eq!(
            (answer.head.status.as_u16(), values(&answer.head.headers, "allow").as_str()),
            (405, allow),
            "{path}"
        );
        assert_eq!(world.status(&head("HEAD", "/ping", &[])).await, 200);
    }
    let answer = world.answer(&get("/ping", &[])).await.unwrap();
    assert_eq!(&answer.body[..], b"OK");
    let moved = world.answer(&get("/.pomerium/callback?a=%2f&b", &[])).await.unwrap();
    assert_eq!(values(&moved.head.headers, "location"), "/.pomerium/callback/?a=%2f&b");
    assert_eq!(world.status(&head("POST", "/.pomerium/callback", &[])).await, 404);
}

#[tokio::test]
async fn the_key_set_is_cacheable_and_open_to_all() {
    let world = World::new(config(vec![route("app.example.com", "/")])).await;
    let path = "/.well-known/pomerium/jwks.json";
    let answer = world.answer(&get(path, &[])).await.unwrap();
    let etag = values(&answer.head.headers, "etag");
    for (name, value) in
        [("content-type", "application/json"), ("cache-control", "max-age=60"), ("access-control-allow-origin", "*")]
    {
        assert_eq!(values(&answer.head.headers, name), value);
    }
    let set: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((&set["keys"][0]["use"], &set["keys"][0]["alg"]), (&"sig".into(), &"ES256".into()));
    for (tag, status) in [(etag.as_str(), 304), ("\"x\", *", 304), (&format!("W/{etag}"), 304), ("\"x\"", 200)] {
        let again = world.answer(&get(path, &[("if-none-match", tag)])).await.unwrap();
        assert_eq!((again.head.status.as_u16(), again.body.is_empty()), (status, status == 304), "{tag}");
    }
    assert_eq!(world.status(&head("OPTIONS", path, &[])).await, 204);
}

#[tokio::test]
async fn an_answer_that_has_no_body_has_no_length_either() {
    let world = World::new(config(vec![Route {
        target: Target::Response { status: StatusCode::NO_CONTENT, body: "text".to_owned() },
        ..route("app.example.com", "/")
    }]))
    .await;
    let path = "/.well-known/pomerium/jwks.json";
    for head in [get("/", &[]), head("OPTIONS", path, &[]), get(path, &[("if-none-match", "*")])] {
        let answer = world.answer(&head).await.unwrap();
        assert!(answer.body.is_empty() && !answer.head.headers.contains_key("content-length"), "{answer:?}");
    }
}

#[tokio::test]
async fn the_well_known_document_speaks_of_the_host_that_was_asked() {
    let world = World::new(config(vec![route("app.example.com", "/")])).await;
    let answer = world.answer(&get("/.well-known/pomerium", &[("host", "app.example.com:8443")])).await.unwrap();
    let document: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(document["issuer"], "https://app.example.com:8443/");
    assert_eq!(document["jwks_uri"], "https://app.example.com:8443/.well-known/pomerium/jwks.json");
    assert_eq!(document["frontchannel_logout_uri"], "https://app.example.com:8443/.pomerium/sign_out");
}

#[tokio::test]
async fn the_user_endpoint_shows_what_upstreams_are_told_and_needs_a_session() {
    let world = World::new(config(vec![route("app.example.com", "/")])).await;
    let answer = world.answer(&get("/.pomerium/user", &[("cookie", &own())])).await.unwrap();
    let user: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(
        (&user["sub"], &user["email"], &user["groups"][0]),
        (&"u-alice".into(), &"alice@example.com".into(), &"ops".into())
    );
    for absent in ["iss", "aud", "exp", "iat", "jti"] {
        assert!(user.get(absent).is_none(), "{absent}");
    }
    assert_eq!(world.status(&get("/.pomerium/user", &[json()])).await, 401);
    assert_eq!(world.status(&get("/.pomerium/user", &[])).await, 302);
    let mut on = config(vec![route("app.example.com", "/")]);
    on.identity.jwt_endpoint = true;
    let world = World::new(on).await;
    let answer = world.answer(&get("/.pomerium/jwt", &[("cookie", &own())])).await.unwrap();
    assert_eq!(
        (values(&answer.head.headers, "content-type").as_str(), answer.body.split(|byte| *byte == b'.').count()),
        ("application/jwt", 3)
    );
    assert_eq!(world.status(&get("/.pomerium/jwt", &[json()])).await, 401);
}

#[tokio::test]
async fn redirects_and_fixed_answers_are_authorised_like_any_route() {
    let fixed = Target::Response { status: StatusCode::IM_A_TEAPOT, body: "short".to_owned() };
    let redirect = crate::route::Redirect {
        path: Some("/new".to_owned()),
        status: StatusCode::FOUND,
        ..crate::route::Redirect::default()
    };
    let routes = vec![
        Route { target: fixed, ..guarded("app.example.com", "/fixed", any_user()) },
        Route { target: Target::Redirect(Box::new(redirect)), ..guarded("app.example.com", "/old", any_user()) },
    ];
    let world = World::new(config(routes)).await;
    for path in ["/fixed", "/old"] {
        assert_eq!(world.status(&get(path, &[json()])).await, 401, "{path}");
    }
    let answer = world.answer(&get("/fixed", &[("cookie", &own())])).await.unwrap();
    assert_eq!((answer.head.status.as_u16(), &answer.body[..]), (418, &b"short"[..]));
    let answer = world.answer(&get("/old?q", &[("cookie", &own())])).await.unwrap();
    assert_eq!(
        (answer.head.status.as_u16(), values(&answer.head.headers, "location").as_str()),
        (302, "http://app.example.com/new?q")
    );
}

#[tokio::test]
async fn escaped_slashes_send_the_client_back_where_the_configuration_says_so() {
    let mut redirecting = config(vec![route("app.example.com", "/")]);
    redirecting.request.escaped_slashes = crate::EscapedSlashes::UnescapeAndRedirect;
    redirecting.request.merge_slashes = false;
    let world = World::new(redirecting).await;
    let answer = world.answer(&get("/%2fevil.example/x?q", &[])).await.unwrap();
    assert_eq!(answer.head.status, 308);
    assert_eq!(
        values(&answer.head.headers, "location"),
        "https://app.example.com//evil.example/x?q",
        "the host is named"
    );
    let posted = world.carried(&head("POST", "/a%2fb", &[])).await.unwrap();
    assert_eq!(posted.raw_path(), b"/a/b");
}

#[tokio::test]
async fn s_042_one_session_and_host_share_one_assertion() {
    let world = closed().await;
    let name = HeaderName::from_static("x-pomerium-jwt-assertion");
    let head = get("/", &[("cookie", &own())]);
    let first = world.carried(&head).await.unwrap().headers[&name].clone();
    assert_eq!(world.carried(&head).await.unwrap().headers[&name], first);
    let open = World::new(config(vec![route("*.example.com", "/")])).await;
    let of = |host: &'static str| get("/", &[("host", host)]);
    let (a, b) = (open.carried(&of("a.example.com")).await.unwrap(), open.carried(&of("b.example.com")).await.unwrap());
    assert_ne!(a.headers[&name], b.headers[&name], "S-043");
    assert_eq!(open.carried(&of("a.example.com")).await.unwrap().headers[&name], a.headers[&name]);
    open.gate.replace(Snapshot::new(config(vec![route("*.example.com", "/")]), 2).unwrap());
    assert_ne!(open.carried(&of("a.example.com")).await.unwrap().headers[&name], a.headers[&name]);
}

#[test]
fn s_036_two_routes_that_claim_the_same_make_no_snapshot() {
    let error = Snapshot::new(config(vec![route("a.example.com", "/"), route("a.example.com", "/")]), 1).unwrap_err();
    assert!(matches!(error, SnapshotError::Duplicate(_, _)));
    let fixed = || Route {
        target: Target::Response { status: StatusCode::OK, body: String::new() },
        ..route("a.example.com", "/")
    };
    Snapshot::new(config(vec![fixed(), fixed()]), 1).unwrap();
}

#[tokio::test]
async fn s_086_nobody_is_sent_to_sign_in_for_a_host_that_is_not_ours() {
    let world = World::new(config(vec![route("app.example.com", "/")])).await;
    for path in ["/.pomerium/user", "/.pomerium/jwt"] {
        assert_eq!(world.status(&get(path, &[("host", "evil.example")])).await, 404, "{path}");
        let mut unnamed = get(path, &[]);
        unnamed.remove_header("host");
        unnamed.set_version(Version::HTTP_10);
        assert_eq!(world.status(&unnamed).await, 404, "{path}");
    }
    let mut shared = config(vec![route("app.example.com", "/")]);
    shared.cookie.attributes.domain = Some("example.com".to_owned());
    let world = World::new(shared).await;
    let fields = [("host", "evil.example"), ("cookie", &*cookie(&alices_cookie("example.com")))];
    assert_eq!(world.status(&get("/.pomerium/user", &fields)).await, 404);
}

/// A protected folder inside a public host, as 03 §3.1 fears it.
fn folders() -> EdgeConfig {
    config(vec![
        guarded("app.example.com", "/admin", any_user()),
        guarded("app.example.com", "/files/", any_user()),
        route("app.example.com", "/"),
    ])
}

fn hostile() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/", "//", "admin", "files", "x", "..", ".", ";", ";a=1", "%3b", "%2e", "%2e%2e", "%2f", "%5c", "%61dmin",
        "%40", "%25", "%20", "..;", "%3B..",
    ]);
    prop::collection::vec(piece, 0..8).prop_map(|pieces| format!("/{}", pieces.concat()))
}

/// What the most lenient upstream makes of a path: S-022, word for word.
fn most_lenient(path: &str) -> String {
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy().replace('\\', "/");
    let mut out: Vec<&str> = Vec::new();
    let ends = decoded.split('/').next_back().is_some_and(|last| last.is_empty() || last.starts_with(';'));
    for segment in decoded.split('/').map(|segment| segment.split(';').next().unwrap_or_default()) {
        match segment {
            "" | "." => {}
            ".." => drop(out.pop()),
            other => out.push(other),
        }
    }
    let end = if ends && !out.is_empty() { "/" } else { "" };
    format!("/{}{end}", out.join("/"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn s_022_no_reading_of_what_goes_up_belongs_to_another_route(raw in hostile(), keep in any::<bool>()) {
        let mut config = folders();
        if keep {
            config.request.escaped_slashes = crate::EscapedSlashes::Keep;
        }
        let snapshot = Snapshot::new(config, 1).unwrap();
        let Ok(request) = Request::read(&get(&raw, &[]), &connection(), &snapshot.rules) else { return Ok(()) };
        if let Ok((route, _)) = find_route(&snapshot, &request) {
            let lenient = most_lenient(&request.path);
            let other = snapshot.table.find(&request.host, &lenient).unwrap();
            prop_assert_eq!(&other.id, &route.id, "{} is read as {}", request.path, lenient);
        }
    }
}

#[tokio::test]
async fn s_022_parameters_do_not_lead_around_a_route() {
    let world = World::new(folders()).await;
    for path in ["/files;x/secret", "/files%3bx/secret", "/x;/../files/y"] {
        let status = world.status(&get(path, &[json()])).await;
        assert!(matches!(status, 400 | 401), "{path}: {status}");
    }
    assert_eq!(world.status(&get("/x;v=1/y", &[])).await, 200);
    assert_eq!(world.status(&get("/x%40y", &[])).await, 200);
    let deny = "{allow: {or: [accept: 1]}, deny: {or: [http_path: {starts_with: /admin/}, http_path: /admin]}}";
    let allow = "{allow: {or: [http_path: {ends_with: .css}, {http_path: {starts_with: /open/}}]}}";
    for (policy, path) in
        [(deny, "/admin;x"), (deny, "/admin%3bx"), (deny, "/admin;x/y"), (allow, "/admin;.css"), (allow, "/a/b;.css")]
    {
        let world = World::new(config(vec![guarded("app.example.com", "/", ppl(policy))])).await;
        assert_eq!(world.status(&get(path, &[])).await, 400, "{path}");
    }
    for (policy, path) in [(deny, "/x;admin"), (allow, "/a;v=1/b.css"), (allow, "/open/a;v=1"), (allow, "/open/a%40b")]
    {
        let world = World::new(config(vec![guarded("app.example.com", "/", ppl(policy))])).await;
        assert_eq!(world.status(&get(path, &[])).await, 200, "{path}");
    }
    let deliberate = vec![
        Route { path: crate::route::PathMatcher::Exact("/a;b".to_owned()), ..route("app.example.com", "/") },
        Route { id: "other".to_owned(), ..guarded("app.example.com", "/", any_user()) },
    ];
    assert_eq!(World::new(config(deliberate)).await.status(&get("/a;b", &[])).await, 200);
}

#[test]
fn an_admission_can_be_sent_between_threads() {
    fn is_send<T: Send>(_: &T) {}
    let refused = Admission::unread();
    is_send(&refused);
    assert!(
        matches!(refused.verdict, Verdict::Refuse(Refusal::Failed(Failure::Internal))),
        "refused until it is decided"
    );
}

#[tokio::test]
async fn whoever_is_given_is_judged_as_if_their_cookie_was_shown() {
    let policy = || ppl("allow: {and: [groups: ops]}");
    let world = World::new(config(vec![
        guarded("app.example.com", "/", policy()),
        Route { idp: IdpId::new("other"), ..guarded("b.example.com", "/", policy()) },
    ]))
    .await;
    let snapshot = world.gate.snapshot();
    let given = |host, session: Option<Session>, now| {
        snapshot.judge(&get("/", &[("host", host)]), &connection(), (session.as_ref(), &[]), now).verdict
    };
    for host in ["app.example.com", "b.example.com"] {
        let own = cookie(&alices_cookie(host));
        let shown = world.admit(&get("/", &[("host", host), ("cookie", &own)])).await.verdict;
        let passes = |verdict: &Verdict| matches!(verdict, Verdict::Pass(_));
        assert_eq!(passes(&given(host, Some(alice()), NOW)), passes(&shown), "{host}");
        assert_eq!(passes(&shown), host == "app.example.com", "a session of another provider is none");
        assert!(!passes(&given(host, None, NOW)));
        assert!(!passes(&given(host, Some(alice()), alice().expires_at)), "S-090");
    }
}

/// A request for datagrams over HTTP/2.
fn connect_udp_h2(url: &str) -> RequestHeader {
    let request = http::Request::connect(url).version(Version::HTTP_2).header("capsule-protocol", "?1");
    let request = request.extension(::h2::ext::Protocol::from_static("connect-udp"));
    request.body(()).unwrap().into_parts().0.into()
}

const DNS: &str = "/.well-known/masque/udp/dns.internal/53/";

/// A UDP route beside routes of requests, on the host that its clients connect to among them.
async fn with_datagrams() -> World {
    let upgrades = Upgrades::new(["connect-udp", "custom"]);
    World::new(config(vec![
        route("app.example.com", "/"),
        Route { upgrades, ..route("own.example.com", "/") },
        tunnel("tcp", Some("app.example.com"), &["dns.internal:53"]),
        datagrams("dns", Some("app.example.com"), &["dns.internal:53"]),
        datagrams("bare", None, &["game.example.com:27015"]),
    ]))
    .await
}

#[tokio::test]
async fn s_105_datagrams_are_asked_for_on_the_host_of_the_proxy_or_on_their_own_in_both_versions_of_http() {
    let world = with_datagrams().await;
    let game = "/.well-known/masque/udp/game.example.com/27015/";
    let mut heads = vec![
        connect_udp_h2(&format!("https://app.example.com{DNS}")),
        connect_udp_h2(&format!("https://game.example.com{game}")),
        get(&format!("https://app.example.com{DNS}"), &connect_udp("app.example.com")),
    ];
    for (path, host) in [
        (DNS, "app.example.com"),
        (DNS, "app.example.com:8443"),
        (DNS, "dns.internal:53"),
        (game, "game.example.com"),
        (game, "game.example.com:27015"),
    ] {
        heads.push(get(path, &connect_udp(host)));
    }
    for head in heads {
        let Admission { verdict, request, route, .. } = world.admit(&head).await;
        let Verdict::Pass(permit) = verdict else { panic!("{head:?}: {verdict:?}") };
        assert_eq!((permit.tunnel(), permit.upgrade()), (Some(Carries::Datagrams), None), "{head:?}");
        let (request, route) = (request.unwrap(), route.unwrap());
        assert!(["dns", "bare"].contains(&route.name.as_str()), "{head:?}: {}", route.name);
        assert_eq!((request.method.as_str(), request.path.starts_with("/.well-known/masque/udp/")), ("GET", true));
    }
}

#[tokio::test]
async fn what_no_udp_route_is_for_is_what_it_was_before_there_were_any() {
    let world = with_datagrams().await;
    let told = async |head: RequestHeader| match world.admit(&head).await.verdict {
        Verdict::Pass(permit) => permit.upgrade().map_or("request", |_| "upgrade"),
        verdict @ (Verdict::Reply(_) | Verdict::Refuse(_)) => verdict.details(),
    };
    let elsewhere = "/.well-known/masque/udp/dns.internal/54/";
    for (path, host, expected) in [
        // The host of another route, which does not let its connections become anything, or does.
        (elsewhere, "app.example.com", "upgrade-not-allowed"),
        (elsewhere, "own.example.com", "upgrade"),
        // Neither the host that clients connect to nor the one that they ask for.
        (DNS, "own.example.com", "upgrade"),
        (DNS, "nobody.example.com", "route-not-found"),
        (DNS, "dns.internal", "route-not-found"),
        (DNS, "dns.internal:54", "route-not-found"),
        (elsewhere, "dns.internal:54", "route-not-found"),
        ("/.well-known/masque/udp/game.example.com/27015/", "app.example.com", "upgrade-not-allowed"),
        ("/dns.internal/53/", "app.example.com", "upgrade-not-allowed"),
    ] {
        assert_eq!(told(get(path, &connect_udp(host))).await, expected, "{host}{path}");
    }
    // Over HTTP/2 it asks for nothing else, so that no other route is for it.
    for url in [
        format!("https://app.example.com{elsewhere}"),
        format!("https://own.example.com{DNS}"),
        "https://own.example.com/".to_owned(),
        "https://nobody.example.com/".to_owned(),
    ] {
        assert_eq!(told(connect_udp_h2(&url)).await, "route-not-found", "{url}");
    }
    // Without the upgrade it is a request, whatever its path.
    assert_eq!(told(get(DNS, &[("host", "app.example.com")])).await, "request");
    let others = [("connection", "upgrade"), ("upgrade", "custom, connect-udp"), ("host", "own.example.com")];
    assert_eq!(told(get("/", &others)).await, "upgrade");
    let post = head("POST", DNS, &connect_udp("app.example.com"));
    assert_eq!(told(post).await, "upgrade-not-allowed", "datagrams are asked for with GET (RFC 9298 section 3.2)");
}

#[tokio::test]
async fn a_request_for_datagrams_has_no_body() {
    let world = with_datagrams().await;
    for (name, value) in [("content-length", "3"), ("transfer-encoding", "chunked")] {
        let fields: Vec<_> = connect_udp("app.example.com").into_iter().chain([(name, value)]).collect();
        assert_eq!(world.status(&get(DNS, &fields)).await, 400, "{name}");
    }
    let mut over_h2 = connect_udp_h2(&format!("https://app.example.com{DNS}"));
    over_h2.insert_header("content-length", "3").unwrap();
    assert_eq!(world.status(&over_h2).await, 400);
    let nothing: Vec<_> = connect_udp("app.example.com").into_iter().chain([("content-length", "0")]).collect();
    assert_eq!(world.status(&get(DNS, &nothing)).await, 200);
}

#[tokio::test]
async fn who_asks_for_datagrams_signs_in_on_the_host_that_is_connected_to_and_policy_sees_what_is_asked() {
    let own = |route: Route, policy| Route { policy, public: false, ..route };
    let dns = "allow: {and: [{http_path: {is: /.well-known/masque/udp/dns.internal/53/}}, {http_method: {is: GET}}]}";
    let world = World::new(config(vec![
        own(datagrams("any", Some("app.example.com"), &["any.internal:1"]), any_user()),
        own(datagrams("dns", Some("app.example.com"), &["dns.internal:53", "dns.internal:54"]), ppl(dns)),
    ]))
    .await;
    let any = "/.well-known/masque/udp/any.internal/1/";
    for host in ["app.example.com", "any.internal:1"] {
        let mut fields = connect_udp(host).to_vec();
        let head = get(any, &fields);
        assert_eq!(world.status(&head).await, 302, "{host}: a client of Pomerium's opens a browser");
        fields.push(("accept", "application/json"));
        let told = world.answer(&get(any, &fields)).await.unwrap();
        let told: serde_json::Value = serde_json::from_slice(&told.body).unwrap();
        assert_eq!(told["sign_in_url"], "https://app.example.com/.pomerium/user", "{host}");
        let token = format!("Pomerium {}", alices_cookie("app.example.com"));
        fields.push(("authorization", &token));
        assert_eq!(world.status(&get(any, &fields)).await, 200, "{host}");
        let foreign = format!("Pomerium {}", alices_cookie("any.internal"));
        fields.pop();
        fields.push(("authorization", &foreign));
        assert_eq!(world.status(&get(any, &fields)).await, 401, "{host}: S-089");
    }
    assert_eq!(world.status(&get(DNS, &connect_udp("app.example.com"))).await, 200);
    assert_eq!(world.status(&connect_udp_h2(&format!("https://app.example.com{DNS}"))).await, 200);
    let other = get("/.well-known/masque/udp/dns.internal/54/", &connect_udp("app.example.com"));
    assert_eq!(world.status(&other).await, 403);
}
