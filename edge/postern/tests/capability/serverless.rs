//! `enable_google_cloud_serverless_authentication`: an upstream of Google's gets a token that says who we are (01 §2.1).

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rcgen::{KeyPair, PKCS_RSA_SHA256, PublicKeyData};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::support::{Asked, Browser, DEADLINE, NO_PROVIDER, PUBLIC, Postern, Upstream, World, eventually, within};

/// Stands for Google: the metadata server, and the token endpoint of accounts.
struct Google {
    address: std::net::SocketAddr,
    state: Arc<Inner>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Inner {
    /// How long the tokens are good for that it gives out, in seconds; 0: it gives none.
    lifetime: AtomicUsize,
    given: AtomicUsize,
    /// What accounts said of themselves.
    assertions: Mutex<Vec<String>>,
}

#[derive(Deserialize)]
struct Wanted {
    audience: String,
    format: String,
}

#[derive(Deserialize)]
struct Grant {
    grant_type: String,
    assertion: String,
}

impl Inner {
    fn token(&self, audience: &str) -> Option<String> {
        let lifetime = u64::try_from(self.lifetime.load(Ordering::SeqCst)).unwrap_or_default();
        let number = self.given.fetch_add(1, Ordering::SeqCst);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?.as_secs();
        let claims = json!({ "aud": audience, "exp": now + lifetime, "number": number }).to_string();
        (lifetime > 0).then(|| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims)))
    }
}

impl Google {
    async fn start(lifetime: usize) -> Result<Self> {
        let state = Arc::new(Inner { lifetime: lifetime.into(), ..Inner::default() });
        let routes = Router::new()
            .route("/computeMetadata/v1/instance/service-accounts/default/identity", get(identity))
            .route("/token", post(exchange))
            .with_state(Arc::clone(&state));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(async move {
            let _ended = axum::serve(listener, routes).await;
        });
        Ok(Self { address, state, server })
    }
}

impl Drop for Google {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn identity(
    State(state): State<Arc<Inner>>,
    Query(wanted): Query<Wanted>,
    fields: HeaderMap,
) -> impl IntoResponse {
    let asked = fields.get("metadata-flavor").is_some_and(|flavor| flavor == "Google") && wanted.format == "full";
    match state.token(&wanted.audience).filter(|_| asked) {
        Some(token) => (StatusCode::OK, [("metadata-flavor", "Google")], token),
        None => (StatusCode::NOT_FOUND, [("metadata-flavor", "Google")], String::new()),
    }
}

async fn exchange(State(state): State<Arc<Inner>>, Form(grant): Form<Grant>) -> Json<Value> {
    let bearer = grant.grant_type == "urn:ietf:params:oauth:grant-type:jwt-bearer";
    let claims = grant.assertion.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let claims: Value = serde_json::from_slice(&claims.unwrap_or_default()).unwrap_or_default();
    state.assertions.lock().unwrap_or_else(PoisonError::into_inner).push(grant.assertion);
    let audience = claims.get("target_audience").and_then(Value::as_str).unwrap_or_default();
    Json(json!({ "id_token": state.token(audience).filter(|_| bearer) }))
}

/// The claims of the token that went up.
fn shown(asked: &Asked) -> Option<Value> {
    let token = asked.header("x-serverless-authorization")?.strip_prefix("Bearer ")?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?).ok()
}

async fn ask(world: &World, name: &str) -> Result<Asked> {
    let mut browser = Browser::new(&world.ca_pem())?;
    let request = browser.request(reqwest::Method::GET, world.url(name, "/"));
    browser.send(request.header("x-serverless-authorization", "Bearer forged")).await?.json()
}

fn route(world: &World, name: &str, upstream: &Upstream) -> String {
    let lines = [PUBLIC, &["enable_google_cloud_serverless_authentication: true"]].concat();
    world.route(name, &upstream.url(), &lines)
}

#[tokio::test]
async fn row_enable_google_cloud_serverless_authentication_gives_the_first_request_a_token_that_is_replaced_in_time()
-> Result<()> {
    let (world, upstream, google) = (World::new()?, Upstream::start().await?, Google::start(8).await?);
    let routes = [route(&world, "app", &upstream), route(&world, "twin", &upstream)].concat();
    let metadata = google.address.to_string();
    let config = world.config(NO_PROVIDER, &routes);
    let postern = Postern::run_with(&world, &config, &[("GCE_METADATA_HOST", &metadata)]).await?;
    let first = shown(&ask(&world, "app").await?);
    let number = |claims: &Option<Value>| claims.as_ref().and_then(|claims| claims["number"].as_u64());
    assert_eq!(first.as_ref().and_then(|claims| claims["aud"].as_str()), Some("https://127.0.0.1"), "{first:?}");
    assert_eq!(number(&first), number(&shown(&ask(&world, "twin").await?)), "one token for both routes");
    eventually("another token", async || {
        let next = shown(&ask(&world, "app").await.ok()?);
        assert!(next.is_some(), "none in between");
        (number(&next) != number(&first)).then_some(())
    })
    .await?;
    // A source that goes away takes nothing with it until the token expires; then requests go up without one.
    google.state.lifetime.store(0, Ordering::SeqCst);
    within(DEADLINE, "no token", async || {
        let asked = ask(&world, "app").await.ok()?;
        asked.header("x-serverless-authorization").is_none().then_some(())
    })
    .await?;
    google.state.lifetime.store(3600, Ordering::SeqCst);
    eventually("a token again", async || shown(&ask(&world, "app").await.ok()?)).await?;
    assert!(!postern.told().contains("e30."), "{}", postern.told());
    Ok(())
}

#[tokio::test]
async fn an_account_is_given_tokens_for_what_it_signs_and_a_reload_keeps_them() -> Result<()> {
    let (world, upstream, google) = (World::new()?, Upstream::start().await?, Google::start(3600).await?);
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256)?;
    let account = json!({
        "type": "service_account",
        "client_email": "edge@shop.iam.gserviceaccount.com",
        "private_key_id": "key-1",
        "private_key": key.serialize_pem(),
        "token_uri": format!("http://{}/token", google.address),
    });
    let account = STANDARD.encode(account.to_string());
    let settings = format!("{NO_PROVIDER}google_cloud_serverless_authentication_service_account: {account}\n");
    let config = |more: &str| world.config(&settings, &format!("{}{more}", route(&world, "app", &upstream)));
    let postern = Postern::run(&world, &config("")).await?;
    let first = shown(&ask(&world, "app").await?);
    assert_eq!(first.as_ref().and_then(|claims| claims["aud"].as_str()), Some("https://127.0.0.1"), "{first:?}");
    let assertion = google.state.assertions.lock().unwrap_or_else(PoisonError::into_inner)[0].clone();
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&[format!("http://{}/token", google.address)]);
    validation.set_issuer(&["edge@shop.iam.gserviceaccount.com"]);
    let public = DecodingKey::from_rsa_der(key.der_bytes());
    let claims = jsonwebtoken::decode::<Value>(&assertion, &public, &validation)?;
    assert_eq!(
        (claims.header.kid.as_deref(), claims.claims["sub"].as_str()),
        (Some("key-1"), Some("edge@shop.iam.gserviceaccount.com"))
    );

    world.write_config(&config(&world.route("more", &upstream.url(), PUBLIC)))?;
    eventually("the reload", async || ask(&world, "more").await.ok()).await?;
    assert_eq!(shown(&ask(&world, "app").await?), first, "{}", postern.told());
    assert_eq!(google.state.given.load(Ordering::SeqCst), 1);
    Ok(())
}
