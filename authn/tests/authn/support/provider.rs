//! A provider that signs real ID tokens and breaks whatever rule a test tells it to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use axum::Router;
use axum::body::Body;
use axum::extract::{Form, Query, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use url::Url;

type Change<T> = Box<dyn Fn(&mut T) + Send + Sync>;

/// What the provider does differently from a good one.
pub(crate) struct Script {
    pub(crate) metadata: Change<Value>,
    /// The parameters of the authorization answer.
    pub(crate) answer: Change<Vec<(String, String)>>,
    pub(crate) header: Change<Value>,
    pub(crate) claims: Change<Value>,
    /// Claims as text, before they are signed.
    pub(crate) claims_text: Change<String>,
    /// The signed token, as text.
    pub(crate) token: Change<String>,
    pub(crate) token_answer: Change<Value>,
    /// In place of any token answer.
    pub(crate) token_response: Option<Box<dyn Fn() -> Response + Send + Sync>>,
    /// In place of any answer to a refresh.
    pub(crate) refresh_response: Option<Box<dyn Fn() -> Response + Send + Sync>>,
    /// Whether a refresh token works once, and another comes with each answer.
    pub(crate) rotates: bool,
    pub(crate) userinfo: Change<Value>,
    pub(crate) userinfo_response: Option<Box<dyn Fn() -> Response + Send + Sync>>,
    pub(crate) keys: Change<Value>,
    pub(crate) keys_response: Option<Box<dyn Fn() -> Response + Send + Sync>>,
    pub(crate) discovery_response: Option<Box<dyn Fn() -> Response + Send + Sync>>,
    /// Whether it never answers who takes tokens back.
    pub(crate) revocation_hangs: bool,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            metadata: Box::new(|_| {}),
            answer: Box::new(|_| {}),
            header: Box::new(|_| {}),
            claims: Box::new(|_| {}),
            claims_text: Box::new(|_| {}),
            token: Box::new(|_| {}),
            token_answer: Box::new(|_| {}),
            token_response: None,
            refresh_response: None,
            rotates: false,
            userinfo: Box::new(|_| {}),
            userinfo_response: None,
            keys: Box::new(|_| {}),
            keys_response: None,
            discovery_response: None,
            revocation_hangs: false,
        }
    }
}

/// What was asked of it.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) discoveries: u32,
    pub(crate) key_fetches: u32,
    /// Parameters of each authorization request.
    pub(crate) authorizations: Vec<HashMap<String, String>>,
    /// Forms and `Authorization` of each call to the token endpoint.
    pub(crate) redemptions: Vec<(HashMap<String, String>, Option<String>)>,
    /// The refresh token of each refresh.
    pub(crate) refreshes: Vec<String>,
    pub(crate) userinfo: u32,
    /// Each token that was taken back, and who did it.
    pub(crate) revocations: Vec<(HashMap<String, String>, Option<String>)>,
}

struct Inner {
    issuer: String,
    key: EcdsaKeyPair,
    kid: String,
    script: Script,
    seen: Seen,
    /// Authorization requests by the code that was given for them.
    codes: HashMap<String, HashMap<String, String>>,
    /// The refresh tokens that may be used.
    grants: Vec<String>,
}

#[derive(Clone)]
pub(crate) struct Provider {
    pub(crate) issuer: String,
    inner: Arc<Mutex<Inner>>,
    asked: Arc<tokio::sync::Notify>,
}

impl Provider {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let inner = Inner {
            issuer: issuer.clone(),
            key: new_key(),
            kid: "key-1".into(),
            script: Script::default(),
            seen: Seen::default(),
            codes: HashMap::new(),
            grants: Vec::new(),
        };
        let provider = Self { issuer, inner: Arc::new(Mutex::new(inner)), asked: Arc::default() };
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .route("/userinfo", get(userinfo))
            .route("/keys", get(keys))
            .route("/revoke", post(revoke))
            .with_state(provider.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        provider
    }

    pub(crate) fn does(&self, script: Script) {
        self.inner.lock().unwrap().script = script;
    }

    pub(crate) fn seen<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.inner.lock().unwrap().seen)
    }

    /// Returns as soon as what was asked of it is such.
    pub(crate) async fn until(&self, is_so: impl Fn(&Seen) -> bool) {
        let waited = async {
            while !self.seen(&is_so) {
                self.asked.notified().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_mins(2), waited).await.expect("it is asked");
    }

    /// Signs with a new key from now on, and publishes only that one.
    pub(crate) fn rotate(&self, kid: &str) {
        let mut inner = self.inner.lock().unwrap();
        inner.key = new_key();
        inner.kid = kid.into();
    }

    /// Takes back every refresh token.
    pub(crate) fn revoke_grants(&self) {
        self.inner.lock().unwrap().grants.clear();
    }

    /// The published key, as a JWK.
    pub(crate) fn jwk(&self) -> Value {
        self.inner.lock().unwrap().jwk()
    }
}

impl Inner {
    fn new_grant(&mut self) -> String {
        let grant = format!("refresh-token-marked-{}", self.seen.redemptions.len() + self.seen.refreshes.len());
        self.grants.push(grant.clone());
        grant
    }

    fn jwk(&self) -> Value {
        let point = self.key.public_key().as_ref();
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.kid,
               "x": base64(&point[1..33]), "y": base64(&point[33..])})
    }

    fn id_token(&self, nonce: Option<&str>) -> String {
        let now = super::now().as_secs();
        let mut header = json!({"alg": "ES256", "kid": self.kid, "typ": "JWT"});
        let mut claims = json!({"iss": self.issuer, "aud": "postern", "sub": "alice", "iat": now, "exp": now + 300,
                                "email": "alice@example.com", "groups": ["admins"]});
        if let Some(nonce) = nonce {
            claims["nonce"] = json!(nonce);
        }
        (self.script.header)(&mut header);
        (self.script.claims)(&mut claims);
        let mut claims = claims.to_string();
        (self.script.claims_text)(&mut claims);
        let mut token = sign_es256(&self.key, &header.to_string(), &claims);
        (self.script.token)(&mut token);
        token
    }
}

fn new_key() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()
}

pub(crate) fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn sign_es256(key: &EcdsaKeyPair, header: &str, claims: &str) -> String {
    let signed = format!("{}.{}", base64(header), base64(claims));
    let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    format!("{signed}.{}", base64(signature))
}

async fn discovery(State(provider): State<Provider>) -> Response {
    let mut inner = provider.inner.lock().unwrap();
    inner.seen.discoveries += 1;
    if let Some(response) = &inner.script.discovery_response {
        return response();
    }
    let at = |path: &str| format!("{}{path}", inner.issuer);
    let mut metadata = json!({
        "issuer": inner.issuer, "authorization_endpoint": at("/authorize"), "token_endpoint": at("/token"),
        "userinfo_endpoint": at("/userinfo"), "jwks_uri": at("/keys"), "end_session_endpoint": at("/end"),
        "revocation_endpoint": at("/revoke"),
        "response_types_supported": ["code"], "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256", "ES256"],
    });
    (inner.script.metadata)(&mut metadata);
    json_response(&metadata)
}

async fn authorize(State(provider): State<Provider>, Query(request): Query<HashMap<String, String>>) -> Response {
    let mut inner = provider.inner.lock().unwrap();
    inner.seen.authorizations.push(request.clone());
    let code = format!("code-{}", inner.seen.authorizations.len());
    let mut answer = vec![("code".to_owned(), code.clone()), ("state".to_owned(), request["state"].clone())];
    let mut back = Url::parse(&request["redirect_uri"]).unwrap();
    inner.codes.insert(code, request);
    (inner.script.answer)(&mut answer);
    back.query_pairs_mut().extend_pairs(answer);
    Redirect::to(back.as_str()).into_response()
}

async fn token(
    State(provider): State<Provider>,
    headers: HeaderMap,
    Form(form): Form<HashMap<String, String>>,
) -> Response {
    if form["grant_type"] == "refresh_token" {
        let answer = refresh(&mut provider.inner.lock().unwrap(), &form["refresh_token"]);
        provider.asked.notify_one();
        return answer;
    }
    let mut inner = provider.inner.lock().unwrap();
    let authorization = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    inner.seen.redemptions.push((form.clone(), authorization));
    if let Some(response) = &inner.script.token_response {
        return response();
    }
    let request = inner.codes.remove(&form["code"]);
    let Some(request) = request.filter(|request| is_proven(request, &form)) else {
        return (StatusCode::BAD_REQUEST, axum::Json(json!({"error": "invalid_grant"}))).into_response();
    };
    let grant = inner.new_grant();
    let mut answer = json!({"access_token": "access-token-marked", "token_type": "Bearer", "expires_in": 3600,
                            "refresh_token": grant, "id_token": inner.id_token(Some(&request["nonce"]))});
    (inner.script.token_answer)(&mut answer);
    json_response(&answer)
}

fn refresh(inner: &mut Inner, token: &str) -> Response {
    inner.seen.refreshes.push(token.to_owned());
    if let Some(response) = &inner.script.refresh_response {
        return response();
    }
    if !inner.grants.iter().any(|grant| grant == token) {
        // A token that is used again was stolen: the whole family is void.
        inner.grants.clear();
        return (StatusCode::BAD_REQUEST, axum::Json(json!({"error": "invalid_grant"}))).into_response();
    }
    let mut answer = json!({"access_token": "access-token-marked", "token_type": "Bearer", "expires_in": 60,
                            "id_token": inner.id_token(None)});
    if inner.script.rotates {
        inner.grants.retain(|grant| grant != token);
        answer["refresh_token"] = json!(inner.new_grant());
    }
    (inner.script.token_answer)(&mut answer);
    json_response(&answer)
}

/// PKCE (RFC 7636 §4.6).
fn is_proven(request: &HashMap<String, String>, form: &HashMap<String, String>) -> bool {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, form["code_verifier"].as_bytes());
    request["code_challenge"] == base64(digest) && request["code_challenge_method"] == "S256"
}

async fn userinfo(State(provider): State<Provider>, headers: HeaderMap) -> Response {
    let mut inner = provider.inner.lock().unwrap();
    inner.seen.userinfo += 1;
    if let Some(response) = &inner.script.userinfo_response {
        return response();
    }
    if headers.get("authorization").is_none_or(|value| value != "Bearer access-token-marked") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let mut answer =
        json!({"sub": "alice", "email": "alice@example.com", "email_verified": true, "name": "Alice <b>A</b>"});
    (inner.script.userinfo)(&mut answer);
    json_response(&answer)
}

async fn keys(State(provider): State<Provider>) -> Response {
    let mut inner = provider.inner.lock().unwrap();
    inner.seen.key_fetches += 1;
    if let Some(response) = &inner.script.keys_response {
        return response();
    }
    let mut set = json!({"keys": [inner.jwk()]});
    (inner.script.keys)(&mut set);
    json_response(&set)
}

async fn revoke(
    State(provider): State<Provider>,
    headers: HeaderMap,
    Form(form): Form<HashMap<String, String>>,
) -> StatusCode {
    let hangs = {
        let mut inner = provider.inner.lock().unwrap();
        let authorization = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
        inner.grants.retain(|grant| *grant != form["token"]);
        inner.seen.revocations.push((form, authorization));
        inner.script.revocation_hangs
    };
    if hangs {
        std::future::pending::<()>().await;
    }
    StatusCode::OK
}

fn json_response(value: &Value) -> Response {
    ([("content-type", "application/json")], Body::from(value.to_string())).into_response()
}
