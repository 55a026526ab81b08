//! The provider over HTTP, as a client and a browser see it.

use axum::body::Body;
use axum::http::{Method, Response};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;
use url::Url;

use super::state::fingerprint;
use super::*;

const CALLBACK: &str = "https://auth.localhost:8443/oauth2/callback";
const VERIFIER: &str = "a-verifier-that-is-long-enough-for-rfc-7636";
const HOST: &str = "127.0.0.1:8444";

struct World {
    router: Router,
    _home: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let router = Self::router(home.path(), &rcgen::KeyPair::generate().unwrap().serialize_pem());
        Self { router, _home: home }
    }

    fn router(home: &std::path::Path, key: &str) -> Router {
        let client = Client {
            id: "postern-demo".into(),
            secret: Secret::new("s3cret".into()),
            redirect_uri: CALLBACK.into(),
            origin: "https://auth.localhost:8443".into(),
        };
        let signer = Signer::new(key, format!("http://{HOST}"), client.id.clone()).unwrap();
        let path = home.join("idp.json");
        let memory = folder::read(&path).unwrap().map(|text| serde_json::from_str(&text).unwrap());
        let memory = Mutex::new(memory.unwrap_or_default());
        router(Arc::new(Shared { authority: HOST.into(), client, signer, memory, path }))
    }

    async fn send(&self, method: Method, uri: &str, headers: &[(&str, &str)], form: &[(&str, &str)]) -> Response<Body> {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let mut request = http::Request::builder().method(method).uri(uri).header("host", HOST);
        request = request.header("content-type", "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap()
    }

    async fn code(&self, user: &str, changes: &[(&str, &str)]) -> String {
        let answer = self.send(Method::POST, &authorize(changes), &[], &[("user", user)]).await;
        let location = location(&answer);
        location.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned()
    }

    async fn token(&self, changes: &[(&str, &str)]) -> (StatusCode, Value) {
        let client = [("client_id", "postern-demo"), ("client_secret", "s3cret")];
        let form = [("grant_type", "authorization_code"), ("redirect_uri", CALLBACK), ("code_verifier", VERIFIER)];
        json_of(self.send(Method::POST, "/token", &[], &merged(&[&client[..], &form[..]].concat(), changes)).await)
            .await
    }
}

fn merged<'a>(base: &[(&'a str, &'a str)], changes: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let kept = base.iter().filter(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
    kept.chain(changes.iter().filter(|(_, value)| !value.is_empty())).copied().collect()
}

fn authorize(changes: &[(&str, &str)]) -> String {
    let challenge = fingerprint(VERIFIER);
    let base = [
        ("client_id", "postern-demo"),
        ("redirect_uri", CALLBACK),
        ("response_type", "code"),
        ("scope", "openid profile email offline_access"),
        ("state", "st"),
        ("nonce", "no"),
        ("code_challenge", challenge.as_str()),
        ("code_challenge_method", "S256"),
    ];
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(merged(&base, changes)).finish();
    format!("/authorize?{query}")
}

fn location(answer: &Response<Body>) -> Url {
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    Url::parse(answer.headers()["location"].to_str().unwrap()).unwrap()
}

fn parameter(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

async fn json_of(answer: Response<Body>) -> (StatusCode, Value) {
    let status = answer.status();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

fn payload(jwt: &Value) -> Value {
    let part = jwt.as_str().unwrap().split('.').nth(1).unwrap();
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, part).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[tokio::test]
async fn choosing_alice_gives_a_code_and_the_code_gives_her_claims() {
    let world = World::new();
    let page = world.send(Method::GET, &authorize(&[]), &[], &[]).await;
    assert_eq!(page.status(), StatusCode::OK);
    let answer = world.send(Method::POST, &authorize(&[]), &[], &[("user", "alice")]).await;
    let back = location(&answer);
    assert!(back.as_str().starts_with(CALLBACK));
    assert_eq!(parameter(&back, "state").as_deref(), Some("st"));
    assert_eq!(parameter(&back, "iss").as_deref(), Some("http://127.0.0.1:8444"));
    let code = parameter(&back, "code").unwrap();
    let (status, tokens) = world.token(&[("code", &code)]).await;
    assert_eq!(status, StatusCode::OK);
    let claims = payload(&tokens["id_token"]);
    for (name, value) in [
        ("iss", json!("http://127.0.0.1:8444")),
        ("aud", json!("postern-demo")),
        ("sub", json!("alice")),
        ("email", json!("alice@example.com")),
        ("email_verified", json!(true)),
        ("groups", json!(["admins"])),
        ("nonce", json!("no")),
    ] {
        assert_eq!(claims[name], value, "{name}");
    }
    let bearer = format!("Bearer {}", tokens["access_token"].as_str().unwrap());
    let (status, claims) =
        json_of(world.send(Method::GET, "/userinfo", &[("authorization", &bearer)], &[]).await).await;
    assert_eq!((status, &claims["sub"]), (StatusCode::OK, &json!("alice")));
    let id_token = format!("Bearer {}", tokens["id_token"].as_str().unwrap());
    let answer = world.send(Method::GET, "/userinfo", &[("authorization", &id_token)], &[]).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "an ID token is no access token");
}

#[tokio::test]
async fn a_code_is_refused_with_another_verifier_uri_client_or_a_second_time() {
    let world = World::new();
    for changes in
        [[("code_verifier", "another")], [("code_verifier", "")], [("redirect_uri", "https://evil.example/")]]
    {
        let code = world.code("bob", &[]).await;
        let (status, body) = world.token(&[&changes[..], &[("code", code.as_str())]].concat()).await;
        assert_eq!((status, &body["error"]), (StatusCode::BAD_REQUEST, &json!("invalid_grant")), "{changes:?}");
    }
    for changes in [[("client_secret", "wrong")], [("client_id", "other")], [("client_secret", "")]] {
        let code = world.code("bob", &[]).await;
        let (status, body) = world.token(&[&changes[..], &[("code", code.as_str())]].concat()).await;
        assert_eq!((status, &body["error"]), (StatusCode::UNAUTHORIZED, &json!("invalid_client")), "{changes:?}");
    }
    let code = world.code("bob", &[]).await;
    let (_, tokens) = world.token(&[("code", &code)]).await;
    assert_eq!(world.token(&[("code", &code)]).await.1["error"], "invalid_grant");
    let refresh = tokens["refresh_token"].as_str().unwrap();
    let (_, body) = world.token(&[("grant_type", "refresh_token"), ("refresh_token", refresh)]).await;
    assert_eq!(body["error"], "invalid_grant", "what came of a code that was used twice is revoked");
}

#[tokio::test]
async fn a_client_may_show_its_secret_in_one_way_only() {
    let world = World::new();
    let basic =
        format!("Basic {}", base64::Engine::encode(&base64::engine::general_purpose::STANDARD, "postern-demo:s3cret"));
    let code = world.code("bob", &[]).await;
    let form = [
        ("grant_type", "authorization_code"),
        ("redirect_uri", CALLBACK),
        ("code_verifier", VERIFIER),
        ("code", &code),
    ];
    let both = [&form[..], &[("client_id", "postern-demo"), ("client_secret", "s3cret")]].concat();
    let answer = world.send(Method::POST, "/token", &[("authorization", &basic)], &both).await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    let answer = world.send(Method::POST, "/token", &[("authorization", &basic)], &form).await;
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test]
async fn an_unknown_client_or_address_is_told_on_a_page_and_never_redirected() {
    let world = World::new();
    for change in [
        ("client_id", "other"),
        ("client_id", ""),
        ("redirect_uri", "https://evil.example/oauth2/callback"),
        ("redirect_uri", "https://auth.localhost:8443/oauth2/callback?x=1"),
        ("redirect_uri", "https://auth.localhost:8443/oauth2/callback/"),
        ("redirect_uri", ""),
    ] {
        for (method, form) in [(Method::GET, vec![]), (Method::POST, vec![("user", "alice")])] {
            let answer = world.send(method, &authorize(&[change]), &[], &form).await;
            assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{change:?}");
            assert!(!answer.headers().contains_key("location") && !answer.headers().contains_key("set-cookie"));
        }
    }
    let twice = format!("{}&client_id=postern-demo", authorize(&[]));
    assert_eq!(world.send(Method::GET, &twice, &[], &[]).await.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_request_out_of_order_is_told_to_the_client() {
    let world = World::new();
    for (change, error) in [
        (("code_challenge_method", "plain"), "invalid_request"),
        (("code_challenge_method", ""), "invalid_request"),
        (("code_challenge", ""), "invalid_request"),
        (("response_type", "token"), "unsupported_response_type"),
        (("response_mode", "form_post"), "invalid_request"),
        (("scope", "email"), "invalid_scope"),
        (("request_uri", "https://evil.example/"), "request_not_supported"),
        (("prompt", "none"), "login_required"),
        (("max_age", "soon"), "invalid_request"),
    ] {
        let back = location(&world.send(Method::GET, &authorize(&[change]), &[], &[]).await);
        assert_eq!(parameter(&back, "error").as_deref(), Some(error), "{change:?}");
        assert_eq!(parameter(&back, "state").as_deref(), Some("st"));
        assert_eq!(parameter(&back, "code"), None);
    }
}

#[tokio::test]
async fn a_second_application_needs_no_second_choice_unless_it_asks_for_one() {
    let world = World::new();
    let answer = world.send(Method::POST, &authorize(&[]), &[], &[("user", "carol")]).await;
    let cookie = answer.headers()["set-cookie"].to_str().unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"));
    let cookie = [("cookie", cookie.split(';').next().unwrap())];
    for quiet in [&[][..], &[("prompt", "none")], &[("max_age", "3600")]] {
        let back = location(&world.send(Method::GET, &authorize(quiet), &cookie, &[]).await);
        assert!(parameter(&back, "code").is_some(), "{quiet:?}");
    }
    for asking in [[("prompt", "login")], [("prompt", "select_account")]] {
        let answer = world.send(Method::GET, &authorize(&asking), &cookie, &[]).await;
        assert_eq!(answer.status(), StatusCode::OK, "{asking:?}");
    }
}

#[tokio::test]
async fn a_form_of_another_site_and_another_name_of_the_provider_are_refused() {
    let world = World::new();
    let form = [("user", "alice")];
    let foreign = [("origin", "https://evil.example")];
    assert_eq!(world.send(Method::POST, &authorize(&[]), &foreign, &form).await.status(), StatusCode::FORBIDDEN);
    let own = [("origin", "http://127.0.0.1:8444")];
    assert_eq!(world.send(Method::POST, &authorize(&[]), &own, &form).await.status(), StatusCode::SEE_OTHER);
    let request = http::Request::get("/keys").header("host", "evil.example:8444").body(Body::empty()).unwrap();
    let answer = world.router.clone().oneshot(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::MISDIRECTED_REQUEST);
}

#[tokio::test]
async fn refresh_tokens_rotate_and_reuse_ends_them_all() {
    let world = World::new();
    let code = world.code("alice", &[]).await;
    let (_, tokens) = world.token(&[("code", &code)]).await;
    let first = tokens["refresh_token"].as_str().unwrap().to_owned();
    let refresh = async |token: &str| world.token(&[("grant_type", "refresh_token"), ("refresh_token", token)]).await;
    let (status, renewed) = refresh(&first).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(payload(&renewed["id_token"])["sub"], "alice");
    assert_eq!(payload(&renewed["id_token"])["nonce"], Value::Null);
    assert_eq!(refresh(&first).await.1["error"], "invalid_grant");
    assert_eq!(refresh(renewed["refresh_token"].as_str().unwrap()).await.1["error"], "invalid_grant");
    let bearer = format!("Bearer {}", renewed["access_token"].as_str().unwrap());
    let answer = world.send(Method::GET, "/userinfo", &[("authorization", &bearer)], &[]).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn signing_out_ends_browser_and_tokens_and_leads_only_to_the_client() {
    let world = World::new();
    let answer = world.send(Method::POST, &authorize(&[]), &[], &[("user", "alice")]).await;
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let code = parameter(&location(&answer), "code").unwrap();
    let (_, tokens) = world.token(&[("code", &code)]).await;
    let out = |hint: &str, uri: &str| {
        let query = [("id_token_hint", hint), ("post_logout_redirect_uri", uri), ("state", "bye")];
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        format!("/end_session?{query}")
    };
    let asks = world.send(Method::GET, &out("forged", CALLBACK), &[("cookie", &cookie)], &[]).await;
    assert_eq!(asks.status(), StatusCode::OK, "without a good hint it asks first");
    let still = world.send(Method::GET, &authorize(&[]), &[("cookie", &cookie)], &[]).await;
    assert_eq!(still.status(), StatusCode::SEE_OTHER);

    let hint = tokens["id_token"].as_str().unwrap();
    let back = location(&world.send(Method::GET, &out(hint, "https://auth.localhost:8443/out"), &[], &[]).await);
    assert_eq!(back.as_str(), "https://auth.localhost:8443/out?state=bye");
    let gone = world.send(Method::GET, &authorize(&[]), &[("cookie", &cookie)], &[]).await;
    assert_eq!(gone.status(), StatusCode::OK, "the browser has to choose again");
    let refresh = tokens["refresh_token"].as_str().unwrap();
    let (_, body) = world.token(&[("grant_type", "refresh_token"), ("refresh_token", refresh)]).await;
    assert_eq!(body["error"], "invalid_grant");
    let elsewhere = world.send(Method::GET, &out(hint, "https://evil.example/"), &[], &[]).await;
    assert_eq!(elsewhere.status(), StatusCode::OK);
}

#[tokio::test]
async fn revocation_ends_a_family_and_an_unknown_token_is_no_error() {
    let world = World::new();
    let code = world.code("alice", &[]).await;
    let (_, tokens) = world.token(&[("code", &code)]).await;
    let client = [("client_id", "postern-demo"), ("client_secret", "s3cret")];
    for token in ["unknown", tokens["access_token"].as_str().unwrap()] {
        let form = [&client[..], &[("token", token)]].concat();
        assert_eq!(world.send(Method::POST, "/revoke", &[], &form).await.status(), StatusCode::OK);
    }
    let refresh = tokens["refresh_token"].as_str().unwrap();
    let (_, body) = world.token(&[("grant_type", "refresh_token"), ("refresh_token", refresh)]).await;
    assert_eq!(body["error"], "invalid_grant");
}

#[tokio::test]
async fn a_restart_forgets_nothing_that_lasts() {
    let home = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let first = World { router: World::router(home.path(), &key), _home: tempfile::tempdir().unwrap() };
    let answer = first.send(Method::POST, &authorize(&[]), &[], &[("user", "bob")]).await;
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let code = parameter(&location(&answer), "code").unwrap();
    let (_, tokens) = first.token(&[("code", &code)]).await;
    let second = World { router: World::router(home.path(), &key), _home: tempfile::tempdir().unwrap() };
    let answer = second.send(Method::GET, &authorize(&[]), &[("cookie", &cookie)], &[]).await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    let refresh = tokens["refresh_token"].as_str().unwrap();
    let (status, _) = second.token(&[("grant_type", "refresh_token"), ("refresh_token", refresh)]).await;
    assert_eq!(status, StatusCode::OK);
    let bearer = format!("Bearer {}", tokens["access_token"].as_str().unwrap());
    let answer = second.send(Method::GET, "/userinfo", &[("authorization", &bearer)], &[]).await;
    assert_eq!(answer.status(), StatusCode::OK);
}
