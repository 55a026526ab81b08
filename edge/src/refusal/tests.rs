use std::time::Duration;

use http::header;
use serde_json::Value;

use super::*;
use crate::testing::*;
use crate::{Answer, Connection, EdgeConfig, ResponseHeaders, Verdict};

fn closed() -> EdgeConfig {
    config(vec![guarded("app.example.com", "/", any_user())])
}

async fn told(fields: &[(&'static str, &str)]) -> Answer {
    World::new(closed()).await.answer(&get("/x?y=1", fields)).await.unwrap()
}

fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

#[tokio::test]
async fn s_088_only_a_browser_that_navigates_is_sent_to_sign_in() {
    let cases: [(&[(&str, &str)], u16); 19] = [
        (&[], 302),
        (&[("accept", "*/*")], 302),
        (&[("accept", "text/html,application/xhtml+xml,*/*;q=0.8")], 302),
        (&[("accept", "text/*")], 302),
        (&[("accept", "image/png")], 302),
        (&[("accept", "nonsense")], 302),
        (&[("accept", "application/json")], 401),
        (&[("accept", "application/*")], 401),
        (&[("accept", "application/json, text/html;q=0.9")], 401),
        (&[("accept", "application/json;q=0.1, text/html;q=0.9")], 302),
        (&[("accept", "text/plain")], 401),
        (&[("accept", "text/html"), ("sec-fetch-mode", "cors")], 401),
        (&[("accept", "application/json"), ("sec-fetch-mode", "navigate")], 302),
        (&[("sec-fetch-mode", "no-cors")], 401),
        (&[("content-type", "application/grpc")], 401),
        (&[("content-type", "application/grpc-web-text+proto")], 401),
        (&[("x-pomerium-authorization", "dead")], 401),
        (&[("authorization", "Bearer Pomerium-dead")], 401),
        (&[("upgrade", "websocket"), ("connection", "upgrade")], 401),
    ];
    let world = World::new(closed()).await;
    for (fields, status) in cases {
        assert_eq!(world.status(&get("/", fields)).await, status, "{fields:?}");
    }
    assert_eq!(world.status(&get("/?pomerium_session=dead", &[("accept", "text/html")])).await, 401);
}

#[tokio::test]
async fn who_asks_for_a_connection_signs_in_on_the_host_that_is_connected_to() {
    let own = |route: Route| Route { policy: any_user(), public: false, ..route };
    let routes = vec![
        own(tunnel("behind", Some("proxy.example.com"), &["db.internal:5432"])),
        own(tunnel("named", None, &["db.example.com:5432"])),
        own(tunnel("pattern", None, &["*.ssh.example.com:22"])),
    ];
    let world = World::new(config(routes)).await;
    for (authority, host) in [
        ("db.internal:5432", "proxy.example.com"),
        ("db.example.com:5432", "db.example.com"),
        ("a.ssh.example.com:22", "a.ssh.example.com"),
    ] {
        let answer = world
            .answer(&head("CONNECT", authority, &[("host", authority), ("accept", "application/json")]))
            .await
            .unwrap();
        assert_eq!(json(&answer)["sign_in_url"], format!("https://{host}/.pomerium/user"));
        let door = head("GET", "/.pomerium/user", &[("host", host), ("accept", "text/html")]);
        assert_eq!(world.status(&door).await, 302, "{host}: it leads to sign-in");
    }
}

#[tokio::test]
async fn s_087_a_request_with_a_body_is_never_redirected_with_it() {
    let world = World::new(closed()).await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let browser = head(method, "/", &[("sec-fetch-mode", "navigate")]);
        assert_eq!(world.status(&browser).await, 303, "{method}");
        let program = head(method, "/", &[("accept", "application/json")]);
        assert_eq!(world.status(&program).await, 401, "{method}");
    }
    assert_eq!(world.status(&head("HEAD", "/", &[])).await, 302);
}

#[tokio::test]
async fn a_redirect_to_sign_in_is_signed_and_bound_to_the_browser() {
    let held: Vec<String> = (0..5).map(|at| format!("__Host-_pomerium_flow_{at:020x}=v")).collect();
    let answer = told(&[("cookie", &held.join("; "))]).await;
    let location = url::Url::parse(answer.head.headers[header::LOCATION].to_str().unwrap()).unwrap();
    assert_eq!((location.host_str(), location.path()), (Some("auth.example.com"), "/.pomerium/sign_in"));
    let request = postern_identity::SignInRequest::from_url(&keyring(), &location, NOW).unwrap();
    assert_eq!(request.redirect_uri.as_str(), "https://app.example.com/x?y=1");
    assert_eq!((request.idp.as_str(), request.restarted), ("main", false));
    let cookies: Vec<_> = answer
        .head
        .headers
        .get_all(header::SET_COOKIE)
        .iter()
        .map(|value| value.to_str().unwrap().to_owned())
        .collect();
    assert_eq!(cookies.len(), 2, "one begins, the oldest of five is dropped");
    let pair = cookies[0].split(';').next().unwrap();
    let flow = request.recipient.flow().unwrap();
    assert!(postern_identity::FlowCookie::find(&keyring(), "_pomerium", flow, [pair.as_bytes()].into_iter()).is_some());
    for attribute in ["Secure", "HttpOnly", "SameSite=Lax", "Path=/"] {
        assert!(cookies.iter().all(|cookie| cookie.contains(attribute)), "S-091 {attribute}");
    }
    assert!(cookies[1].starts_with("__Host-_pomerium_flow_00000000000000000000=;") && cookies[1].contains("Max-Age=0"));
}

#[tokio::test]
async fn a_redirect_to_sign_in_names_the_hosts_that_the_route_depends_on() {
    let depends_on = ["api.example.com", "nobody.example.com"].map(|name| crate::Host::parse(name.as_bytes()).unwrap());
    let app = Route { depends_on: depends_on.into(), ..guarded("app.example.com", "/", any_user()) };
    let world = World::new(config(vec![app, route("api.example.com", "/")])).await;
    let hosts = async |path: &str| {
        let answer = world.answer(&get(path, &[])).await.unwrap();
        let location = url::Url::parse(answer.head.headers[header::LOCATION].to_str().unwrap()).unwrap();
        postern_identity::SignInRequest::from_url(&keyring(), &location, NOW).unwrap().additional_hosts
    };
    assert_eq!(hosts("/x").await, ["api.example.com"]);
    assert_eq!(hosts("/.pomerium/user").await, ["api.example.com"]);
}

#[tokio::test]
async fn a_program_is_told_where_to_sign_in() {
    let answer = told(&[("accept", "application/json")]).await;
    let body = json(&answer);
    assert_eq!(
        (body["reason"].as_str(), body["request_id"].as_str(), body["status"].as_u64()),
        (Some("user-unauthenticated"), Some(TEST_ID), Some(401))
    );
    assert_eq!(body["sign_in_url"], "https://app.example.com/x?y=1");
    assert_eq!(values(&answer.head.headers, "www-authenticate"), "Pomerium");
    let script = told(&[("accept", "text/html"), ("sec-fetch-mode", "cors")]).await;
    assert_eq!(values(&script.head.headers, "content-type"), "application/json");
}

#[tokio::test]
async fn s_093_who_is_denied_gets_403_and_no_redirect_and_learns_why() {
    let policy = ppl("allow: {and: [groups: admins]}");
    let world = World::new(config(vec![guarded("app.example.com", "/", policy)])).await;
    let cookie = format!("_pomerium={}", alices_cookie("app.example.com"));
    let answer = world.answer(&get("/x", &[("cookie", &cookie), ("accept", "text/html")])).await.unwrap();
    assert_eq!(answer.head.status, 403);
    assert_eq!(values(&answer.head.headers, "location"), "");
    let page = std::str::from_utf8(&answer.body).unwrap();
    for part in
        ["alice@example.com", TEST_ID, "groups-unauthorized", "/.pomerium/sign_out", "2027-01-15T08:00:00Z", "admins"]
    {
        assert!(page.contains(part), "{part} in {page}");
    }
    assert!(!page.contains("<script"));
    let answer = world.answer(&get("/x", &[("cookie", &cookie), ("accept", "application/json")])).await.unwrap();
    assert_eq!(
        (answer.head.status.as_u16(), json(&answer)["unmet"][0]["reason"].as_str()),
        (403, Some("groups-unauthorized"))
    );
}

#[tokio::test]
async fn why_is_told_in_detail_only_where_the_route_says_so() {
    let quiet =
        Route { show_error_details: false, ..guarded("app.example.com", "/", ppl("allow: {and: [groups: admins]}")) };
    let world = World::new(config(vec![quiet])).await;
    let cookie = format!("_pomerium={}", alices_cookie("app.example.com"));
    for accept in ["text/html", "application/json"] {
        let answer = world.answer(&get("/x", &[("cookie", &cookie), ("accept", accept)])).await.unwrap();
        assert!(!String::from_utf8_lossy(&answer.body).contains("admins"), "{accept}");
    }
}

#[tokio::test]
async fn s_050_every_answer_of_ours_is_hardened_and_carries_the_configured_fields() {
    let mut config = closed();
    config.response_headers =
        ResponseHeaders([(header::STRICT_TRANSPORT_SECURITY, header::HeaderValue::from_static("max-age=1"))].into());
    let world = World::new(config).await;
    let misses = [
        get("/ping", &[]),
        get("/.pomerium/nothing", &[]),
        get("/", &[("host", "unknown.example")]),
        get("/%00", &[]),
        get("/.well-known/pomerium", &[]),
    ];
    for head in misses {
        let answer = world.answer(&head).await.unwrap();
        let fields = &answer.head.headers;
        for (name, value) in [
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("content-security-policy", postern_pages::CSP),
            ("x-pomerium-intercepted-response", "true"),
            ("x-request-id", TEST_ID),
            ("strict-transport-security", "max-age=1"),
        ] {
            assert_eq!(values(fields, name), value, "{name}");
        }
        assert_eq!(values(fields, "content-length"), answer.body.len().to_string());
    }
    assert!(!postern_pages::CSP.contains("unsafe-inline"));
}

#[tokio::test]
async fn s_050_no_setting_makes_an_answer_to_one_client_everybodys() {
    let mut config = closed();
    let public = (header::CACHE_CONTROL, header::HeaderValue::from_static("public, max-age=600"));
    config.response_headers = ResponseHeaders([public.clone()].into());
    let fixed = crate::route::Target::Response { status: StatusCode::OK, body: String::new() };
    for (path, target) in [("/up", None), ("/fixed", Some(fixed))] {
        let mut route = guarded("b.example.com", path, any_user());
        route.response_headers = ResponseHeaders([public.clone()].into());
        route.target = target.unwrap_or(route.target);
        config.routes.push(route.into());
    }
    let world = World::new(config).await;
    let cookie = format!("_pomerium={}", alices_cookie("b.example.com"));
    let (host, cookie) = (("host", "b.example.com"), ("cookie", cookie.as_str()));
    for head in [get("/up", &[host]), get("/none", &[host]), get("/.pomerium/user", &[host, cookie])] {
        let answer = world.answer(&head).await.unwrap();
        assert_eq!(values(&answer.head.headers, "cache-control"), "no-store");
    }
    let answer = world.answer(&get("/fixed", &[host, cookie])).await.unwrap();
    assert_eq!(values(&answer.head.headers, "cache-control"), "public, max-age=600", "the route's own answer");
}

#[tokio::test]
async fn a_missing_route_looks_the_same_everywhere() {
    let world = World::new(config(vec![route("app.example.com", "/only")])).await;
    let body = |answer: Answer| {
        String::from_utf8_lossy(&answer.body).replace("app.example.com", "H").replace("unknown.example", "H")
    };
    let here = body(world.answer(&get("/x", &[])).await.unwrap());
    let elsewhere = body(world.answer(&get("/x", &[("host", "unknown.example")])).await.unwrap());
    assert_eq!(here, elsewhere);
}

#[tokio::test]
async fn each_kind_of_client_is_told_in_its_own_form() {
    let world = World::new(config(vec![route("app.example.com", "/only")])).await;
    let cases: [(&[(&str, &str)], &str); 9] = [
        (&[], "text/html; charset=utf-8"),
        (&[("accept", "*/*")], "text/html; charset=utf-8"),
        (&[("accept", "application/json")], "application/json"),
        (&[("accept", "text/plain")], "text/plain; charset=utf-8"),
        (&[("user-agent", "kubectl/v1 (linux) kubernetes/abc"), ("accept", "text/html")], "application/json"),
        (&[("content-type", "application/grpc")], "application/grpc+json"),
        (&[("content-type", "application/grpc+proto")], "application/grpc+json"),
        (&[("content-type", "application/grpc-web")], "application/grpc-web+json"),
        (&[("content-type", "application/grpcx")], "text/html; charset=utf-8"),
    ];
    for (fields, content_type) in cases {
        let answer = world.answer(&get("/x", fields)).await.unwrap();
        assert_eq!(
            (answer.head.status.as_u16(), values(&answer.head.headers, "content-type").as_str()),
            (404, content_type),
            "{fields:?}"
        );
    }
    let kubernetes = world.answer(&get("/x", &[("user-agent", "kubernetes/abc")])).await.unwrap();
    let status = json(&kubernetes);
    assert_eq!(
        (&status["kind"], &status["reason"], &status["code"]),
        (&"Status".into(), &"NotFound".into(), &404.into())
    );
}

#[tokio::test]
async fn a_grpc_client_reads_the_status_in_the_head() {
    let world = World::new(closed()).await;
    let answer = world.answer(&head("POST", "/", &[("content-type", "application/grpc")])).await.unwrap();
    let fields = &answer.head.headers;
    assert_eq!((answer.head.status.as_u16(), values(fields, "grpc-status").as_str()), (401, "16"));
    assert!(!values(fields, "grpc-message").is_empty() && answer.body.is_empty());
    let codes = [
        (Refusal::NoRoute, 404, "5"),
        (Refusal::Denied(Reasons::NONE), 403, "7"),
        (Refusal::AmbiguousPath, 400, "13"),
        (Refusal::StoreUnavailable { retry_after: Duration::from_secs(2) }, 503, "14"),
        (Refusal::Failed(Failure::UpstreamTimeout), 504, "4"),
        (Refusal::Failed(Failure::Connect), 502, "14"),
        (Refusal::Failed(Failure::Internal), 500, "2"),
        (Refusal::ClientCertificate(Reasons::NONE), 495, "2"),
        (Refusal::Device(Reasons::NONE), 450, "2"),
    ];
    let snapshot = world.gate.snapshot();
    let head = get("/", &[("content-type", "application/grpc")]);
    let admission = world.admit(&head).await;
    for (refusal, status, code) in codes {
        let answer = refusal.answer(&admission.asked(&snapshot, &head, TEST_ID, NOW));
        assert_eq!((answer.head.status.as_u16(), values(&answer.head.headers, "grpc-status").as_str()), (status, code));
    }
}

#[tokio::test]
async fn crawlers_that_are_kept_out_learn_so_and_people_are_not_fooled() {
    let world = World::new(closed()).await;
    let robots = |fields: &'static [(&'static str, &'static str)]| get("/robots.txt", fields);
    let answer = world.answer(&robots(&[("accept", "*/*")])).await.unwrap();
    assert_eq!((answer.head.status.as_u16(), &answer.body[..]), (200, &b"User-agent: *\nDisallow: /\n"[..]));
    assert_eq!(world.status(&robots(&[("sec-fetch-mode", "navigate")])).await, 302);
    assert_eq!(world.status(&head("POST", "/robots.txt", &[("accept", "text/plain")])).await, 401);
    let hidden = config(vec![guarded("app.example.com", "/", any_user()), route("app.example.com", "/robots.txt")]);
    assert_eq!(World::new(hidden).await.status(&robots(&[("accept", "text/plain")])).await, 401);
    let open = World::new(config(vec![route("app.example.com", "/")])).await;
    assert!(open.carried(&robots(&[])).await.is_some());
}

#[tokio::test]
async fn s_029_a_host_of_another_certificate_is_misdirected() {
    #[derive(Debug)]
    struct Names;
    impl crate::CertificateNames for Names {
        fn same_certificate(&self, sni: Option<&str>, host: &str) -> bool {
            sni == Some("app.example.com") && host == "app.example.com"
        }
    }
    let world = World::new(config(vec![route("app.example.com", "/"), route("b.example.com", "/")])).await;
    let address = "192.0.2.7:1".parse().unwrap();
    for (sni, host, status) in [
        (Some("APP.example.com."), "app.example.com:443", 200),
        (Some("app.example.com"), "b.example.com", 421),
        (None, "app.example.com", 421),
        (Some("app.example.com"), "unknown.example", 421),
    ] {
        let connection = Connection::tls(address, address, sni, std::sync::Arc::new(Names));
        let head = get("/", &[("host", host)]);
        let admission = world.gate.admit(&world.gate.snapshot(), &head, &connection, NOW.into()).await;
        let got = match &admission.verdict {
            Verdict::Refuse(refusal) => refusal.status().as_u16(),
            Verdict::Pass(_) | Verdict::Reply(_) => 200,
        };
        assert_eq!(got, status, "{sni:?} {host}");
        assert!(status == 200 || admission.evaluation.is_none(), "no policy is run");
    }
}

#[tokio::test]
async fn s_029_a_tunnel_that_asks_for_other_client_certificates_wants_a_connection_of_its_own() {
    #[derive(Debug)]
    struct Names;
    impl crate::CertificateNames for Names {
        fn same_certificate(&self, _sni: Option<&str>, _host: &str) -> bool {
            true
        }
    }
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
    let trust = crate::ClientTrust::new([authority.as_bytes()], crate::Terms::default()).unwrap();
    let trust = std::sync::Arc::new(trust);
    let of = |route: Route| Route { client_trust: Some(std::sync::Arc::clone(&trust)), ..route };
    let routes = vec![
        route("app.example.com", "/"),
        of(route("own.example.com", "/")),
        tunnel("open", Some("app.example.com"), &["db.internal:5432"]),
        of(tunnel("closed", Some("door.example.com"), &["db.internal:5433"])),
        of(tunnel("named", None, &["sql.example.com:5434"])),
    ];
    let world = World::new(config(routes)).await;
    let address = "192.0.2.7:1".parse().unwrap();
    for (sni, authority, misdirected) in [
        ("app.example.com", "db.internal:5432", false),
        ("door.example.com", "db.internal:5433", false),
        ("own.example.com", "db.internal:5433", false),
        ("sql.example.com", "sql.example.com:5434", false),
        ("door.example.com", "sql.example.com:5434", false),
        ("app.example.com", "db.internal:5433", true),
        ("app.example.com", "sql.example.com:5434", true),
        ("own.example.com", "db.internal:5432", true),
        ("elsewhere.example.com", "db.internal:5433", false),
        ("door.example.com", "db.internal:5432", true),
    ] {
        let connection = Connection::tls(address, address, Some(sni), std::sync::Arc::new(Names));
        let head = head("CONNECT", authority, &[("host", authority)]);
        let admission = world.gate.admit(&world.gate.snapshot(), &head, &connection, NOW.into()).await;
        let refused = matches!(admission.verdict, Verdict::Refuse(Refusal::Misdirected));
        assert_eq!(refused, misdirected, "{sni} {authority}: {:?}", admission.verdict);
    }
}

#[test]
fn s_109_a_sentence_and_a_reason_are_never_the_clients() {
    for refusal in
        [Refusal::NoRoute, Refusal::Upgrade, Refusal::Failed(Failure::Overloaded), Refusal::Method { allow: "GET" }]
    {
        assert!(refusal.reason().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
        assert!(refusal.sentence().ends_with('.'));
    }
}
