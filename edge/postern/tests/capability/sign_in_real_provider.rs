//! A person signs in at a provider that is not ours, with a configuration file written for Pomerium.

use anyhow::{Context, Result, ensure};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{
    ANY_USER, Asked, Browser, Hop, PUBLIC, Postern, Provider, Response, Upstream, World, eventually, free_port,
    verified, within,
};

/// A file as Pomerium's guides have it; only names, ports and paths are this world's.
fn written_for_pomerium(world: &World, provider: &Provider, upstream: &Upstream) -> String {
    let (authenticate, issuer, to) = (world.url("authenticate", ""), &provider.issuer, upstream.url());
    let [app, wiki, ops, open, legacy] = ["app", "wiki", "ops", "open", "legacy"].map(|name| world.url(name, ""));
    let routes = format!(
        r"
  - from: {app}
    to: {to}
    pass_identity_headers: true
    preserve_host_header: true
    policy:
      - allow:
          or:
            - domain:
                is: example.com
            - email:
                is: carol@example.org
  - from: {wiki}
    to: {to}
    allow_any_authenticated_user: true
    set_request_headers:
      X-Wiki: yes
  - from: {ops}
    to: {to}
    pass_identity_headers: true
    show_error_details: true
    policy:
      allow:
        and:
          - claim/groups:
              has: admins
  - from: {open}
    to: {to}
    allow_public_unauthenticated_access: true
  - from: {legacy}
    to: {to}
    allowed_users:
      - bob@example.com
    allowed_domains:
      - partner.example
",
    );
    let settings = format!(
        "idp_provider: oidc\nidp_provider_url: {issuer}\nidp_client_id: {}\nidp_client_secret: {}\n\
         idp_scopes: [openid, profile, email, offline_access]\n\
         jwt_claims_headers:\n  X-Email: email\n  X-Groups: groups\n\
         cookie_expire: 10h\nlog_level: info\nsignout_redirect_url: {authenticate}/.pomerium/signed_out\n",
        Provider::CLIENT,
        Provider::SECRET,
    );
    world.config(&settings, &routes)
}

struct Office {
    world: World,
    provider: Provider,
    upstream: Upstream,
    postern: Postern,
}

impl Office {
    async fn open() -> Result<Self> {
        let world = World::new()?;
        let provider = Provider::start(&world, None)?;
        let upstream = Upstream::start().await?;
        let postern = Postern::run(&world, &written_for_pomerium(&world, &provider, &upstream)).await?;
        Ok(Self { world, provider, upstream, postern })
    }

    fn browser(&self) -> Result<Browser> {
        Browser::new(&self.world.ca_pem())
    }

    /// Goes to an address, meets the provider's form, and signs in there.
    async fn sign_in(&self, browser: &mut Browser, user: &str, url: &str) -> Result<Response> {
        let form = browser.visit(url).await?;
        ensure!(
            form.url.as_str().starts_with(&self.provider.issuer),
            "not sent to the provider: {form:?}\n{}",
            self.postern.told()
        );
        browser.submit(&form, "Sign in", &[("user", user)]).await
    }
}

#[tokio::test]
async fn a_user_signs_in_and_the_upstream_learns_who_from_us_alone() -> Result<()> {
    let office = Office::open().await?;
    let mut browser = office.browser()?;
    let page = office.sign_in(&mut browser, "alice", &office.world.url("app", "/notes?page=2&x=%2F")).await?;

    assert_eq!(page.status, StatusCode::OK, "{page:?}\n{}", office.postern.told());
    let asked: Asked = page.json()?;
    assert_eq!(asked.target, "/notes?page=2&x=%2F");
    assert_eq!(asked.header("host"), Some(office.world.host("app").as_str()));
    assert_eq!(asked.header("x-email"), Some("alice@example.com"));
    assert_eq!(asked.header("x-groups"), Some("admins"));
    assert_eq!(asked.header("cookie"), None, "S-041");
    let assertion = asked.header("x-pomerium-jwt-assertion").context("no assertion")?;
    let host = format!("app.{}", World::DOMAIN);
    let claims = verified(&mut browser, &office.world.url("app", ""), &host, assertion).await?;
    assert_eq!(claims.get("email"), Some(&json!("alice@example.com")));
    assert_eq!(claims.get("groups"), Some(&json!(["admins"])));
    assert_eq!(claims.get("sub"), Some(&json!("alice")));
    assert_eq!(claims.get("name"), Some(&json!("Alice Adams")));
    let life = claims
        .get("exp")
        .and_then(Value::as_i64)
        .zip(claims.get("iat").and_then(Value::as_i64))
        .map(|(exp, iat)| exp - iat);
    assert_eq!(life, Some(300), "S-042");
    assert!(office.upstream.seen().iter().all(|asked| asked.header("x-wiki").is_none()));
    Ok(())
}

#[tokio::test]
async fn s_051_every_sign_in_has_a_fresh_state_nonce_and_s256_challenge() -> Result<()> {
    let office = Office::open().await?;
    let mut questions = Vec::new();
    for _ in 0..2 {
        let mut browser = office.browser()?;
        let _form = browser.visit(office.world.url("app", "/")).await?;
        questions.push(authorization(&office, &browser)?.clone());
    }
    for question in &questions {
        assert_eq!(parameter(question, "response_type").as_deref(), Some("code"));
        assert_eq!(parameter(question, "code_challenge_method").as_deref(), Some("S256"));
    }
    for name in ["state", "nonce", "code_challenge"] {
        let values: Vec<_> = questions.iter().map(|question| parameter(question, name).unwrap_or_default()).collect();
        // 128 bits are 22 letters of base64.
        assert!(values.iter().all(|value| value.len() >= 22), "{name}: {values:?}");
        assert_ne!(values.first(), values.last(), "{name}");
        assert!(values.iter().all(|value| !value.contains("app.")), "S-079 {name}: {values:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_second_application_needs_no_second_sign_in() -> Result<()> {
    let office = Office::open().await?;
    let mut browser = office.browser()?;
    office.sign_in(&mut browser, "alice", &office.world.url("app", "/")).await?;
    browser.trail.clear();

    let page = browser.visit(office.world.url("wiki", "/start")).await?;

    assert_eq!(page.status, StatusCode::OK, "{page:?}");
    assert_eq!(page.json::<Asked>()?.header("x-wiki"), Some("yes"));
    assert!(
        !browser.trail.iter().any(|hop| hop.url.as_str().starts_with(&office.provider.issuer)),
        "{:?}",
        browser.trail
    );
    Ok(())
}

#[tokio::test]
async fn the_providers_groups_decide_who_may_pass() -> Result<()> {
    let office = Office::open().await?;
    for (user, name, expected) in [
        ("alice", "ops", StatusCode::OK),
        ("bob", "ops", StatusCode::FORBIDDEN),
        ("carol", "ops", StatusCode::FORBIDDEN),
        ("carol", "app", StatusCode::OK),
        ("bob", "legacy", StatusCode::OK),
        ("alice", "legacy", StatusCode::FORBIDDEN),
        ("dave", "app", StatusCode::FORBIDDEN),
    ] {
        let before = office.upstream.seen().len();
        let page = office.sign_in(&mut office.browser()?, user, &office.world.url(name, "/")).await?;
        assert_eq!(page.status, expected, "{user} at {name}: {page:?}\n{}", office.postern.told());
        let reached = office.upstream.seen().len() - before;
        assert_eq!(reached, usize::from(expected == StatusCode::OK), "S-093: {user} at {name}");
        if expected == StatusCode::FORBIDDEN && name == "ops" {
            assert!(page.body.contains("admins"), "the page names the group: {}", page.body);
            assert!(page.body.contains(&format!("{user}@")), "the page says who you are: {}", page.body);
        }
    }
    Ok(())
}

#[tokio::test]
async fn s_053_a_state_and_its_code_are_used_once() -> Result<()> {
    let office = Office::open().await?;
    let mut browser = office.browser()?;
    office.sign_in(&mut browser, "alice", &office.world.url("app", "/")).await?;
    let callback =
        browser.trail.iter().find(|hop| hop.url.path() == "/oauth2/callback").context("no callback")?.url.clone();
    let redeemed = redemptions(&office).await?;
    let mut thief = office.browser()?;

    let again = browser.peek(&callback).await?;
    let stolen = thief.peek(&callback).await?;

    for answer in [&again, &stolen] {
        assert!(
            answer.headers.get_all("set-cookie").iter().all(|cookie| !is_session(cookie.to_str().unwrap_or_default())),
            "{answer:?}"
        );
    }
    assert_eq!(redemptions(&office).await?, redeemed, "S-054, S-055: no second call of the token endpoint");
    assert!(thief.visit(office.world.url("app", "/")).await?.url.as_str().starts_with(&office.provider.issuer));
    Ok(())
}

#[tokio::test]
async fn s_054_a_callback_in_another_browser_signs_nobody_in() -> Result<()> {
    let office = Office::open().await?;
    let (mut mallory, mut victim) = (office.browser()?, office.browser()?);
    let form = mallory.visit(office.world.url("app", "/")).await?;
    let callback = stop_at(&mut mallory, &form, "/oauth2/callback").await?;

    let answer = victim.visit(&callback).await?;

    assert_ne!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(redemptions(&office).await?, 0);
    assert!(victim.cookies.iter().all(|cookie| !is_session(&cookie.name)), "{:?}", victim.cookies);
    Ok(())
}

#[tokio::test]
async fn s_054_the_ticket_to_a_route_works_only_in_the_browser_that_asked() -> Result<()> {
    let office = Office::open().await?;
    let (mut mallory, mut victim) = (office.browser()?, office.browser()?);
    let form = mallory.visit(office.world.url("app", "/")).await?;
    let ticket = stop_at(&mut mallory, &form, "/.pomerium/callback/").await?;

    let answer = victim.peek(&ticket).await?;

    let host = format!("app.{}", World::DOMAIN);
    assert_eq!(victim.cookie(&host, "_pomerium"), None, "{answer:?}");
    assert!(victim.visit(office.world.url("app", "/")).await?.url.as_str().starts_with(&office.provider.issuer));
    Ok(())
}

#[tokio::test]
async fn a_sign_out_ends_the_session_here_and_at_the_provider() -> Result<()> {
    let office = Office::open().await?;
    let mut browser = office.browser()?;
    office.sign_in(&mut browser, "alice", &office.world.url("app", "/")).await?;
    let copy = browser.cookies.clone();

    let mut page = browser.visit(office.world.url("app", "/.pomerium/sign_out")).await?;
    // Where ours asks first, then the provider's own question.
    while page.form("Sign out").is_ok() {
        page = browser.submit(&page, "Sign out", &[]).await?;
    }

    let ended =
        browser.trail.iter().find(|hop| hop.url.path() == "/session/end").context("the provider was not told")?;
    assert!(ended.url.query().is_some_and(|query| query.contains("id_token_hint=")), "{ended:?}");
    assert!(page.url.as_str().starts_with(&office.world.url("authenticate", "/.pomerium/signed_out")), "{page:?}");
    assert_eq!(page.status, StatusCode::OK);
    // S-084: the copy is dead within two seconds, everywhere.
    let mut thief = office.browser()?;
    thief.cookies = copy;
    let dead = within(std::time::Duration::from_secs(2), "the copied cookie to die", async || {
        let answer = thief.peek(office.world.url("app", "/")).await.ok()?;
        (answer.status == StatusCode::FOUND).then_some(())
    });
    dead.await?;
    let form = thief.visit(office.world.url("wiki", "/")).await?;
    assert!(form.form("Sign in").is_ok(), "the copy of authn's own cookie is dead too: {form:?}");
    Ok(())
}

#[tokio::test]
async fn a_user_whom_the_provider_refuses_is_told_so() -> Result<()> {
    let office = Office::open().await?;
    let mut browser = office.browser()?;
    let page = office.sign_in(&mut browser, "nobody", &office.world.url("app", "/")).await?;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED, "{page:?}");
    assert_eq!(redemptions(&office).await?, 0);
    Ok(())
}

#[tokio::test]
async fn r_013_a_provider_that_is_away_at_start_delays_nothing_and_is_found_later() -> Result<()> {
    let world = World::new()?;
    let upstream = Upstream::start().await?;
    let port = free_port()?;
    let settings = format!(
        "idp_provider: oidc\nidp_provider_url: http://127.0.0.1:{port}\nidp_client_id: {}\nidp_client_secret: {}\n",
        Provider::CLIENT,
        Provider::SECRET
    );
    let routes = [world.route("open", &upstream.url(), PUBLIC), world.route("app", &upstream.url(), ANY_USER)].concat();
    let postern = Postern::run(&world, &world.config(&settings, &routes)).await?;
    let mut browser = Browser::new(&world.ca_pem())?;

    assert_eq!(browser.visit(world.url("open", "/")).await?.status, StatusCode::OK);
    let refused =
        tokio::time::timeout(std::time::Duration::from_secs(12), browser.visit(world.url("app", "/"))).await??;
    assert!(refused.status.is_server_error(), "{refused:?}\n{}", postern.told());

    let mut settings = Provider::settings_for(&world, Some("alice"));
    if let Some(settings) = settings.as_object_mut() {
        settings.insert("port".into(), json!(port));
    }
    let _provider = Provider::with(&settings)?;
    eventually("a sign-in after the provider's return", async || {
        let mut browser = Browser::new(&world.ca_pem()).ok()?;
        browser.visit(world.url("app", "/")).await.ok().filter(|page| page.status == StatusCode::OK)
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn r_012_who_is_signed_in_does_not_notice_that_the_provider_is_gone() -> Result<()> {
    let office = Office::open().await?;
    let mut browser = office.browser()?;
    office.sign_in(&mut browser, "alice", &office.world.url("app", "/")).await?;
    office.provider.stop();
    // On the host that knows her, and on one that has to ask authn.
    for name in ["app", "wiki"] {
        assert_eq!(browser.visit(office.world.url(name, "/")).await?.status, StatusCode::OK, "{name}");
    }
    Ok(())
}

/// Fills in the provider's form, and follows redirects by hand up to the one that leads to this path.
async fn stop_at(browser: &mut Browser, form: &Response, path: &str) -> Result<String> {
    let details = form.form("Sign in")?;
    let request = browser.request(reqwest::Method::POST, form.url.join(&details.action)?).form(&[("user", "alice")]);
    let mut answer = browser.send(request).await?;
    for _ in 0..10 {
        let next = answer.location().with_context(|| format!("{answer:?}"))?;
        if next.path() == path {
            return Ok(next.into());
        }
        answer = browser.peek(&next).await?;
    }
    anyhow::bail!("never led to {path}")
}

/// How often a code was redeemed.
async fn redemptions(office: &Office) -> Result<usize> {
    let log = office.provider.log().await?;
    let requests = log.get("requests").and_then(Value::as_array).context("requests")?;
    Ok(requests.iter().filter(|request| request.get("target").is_some_and(|target| target == "/token")).count())
}

/// The last question that this browser was sent to the provider with.
fn authorization<'b>(office: &Office, browser: &'b Browser) -> Result<&'b Hop> {
    let mut hops = browser.trail.iter().rev();
    hops.find(|hop| hop.url.as_str().starts_with(&office.provider.issuer) && hop.url.path() == "/auth")
        .context("never at the provider")
}

fn parameter(hop: &Hop, name: &str) -> Option<String> {
    hop.url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// Whether a cookie (or a Set-Cookie that sets a value) carries a session.
fn is_session(cookie: &str) -> bool {
    let (name, value) = cookie.split(';').next().and_then(|pair| pair.split_once('=')).unwrap_or((cookie, "x"));
    ["_pomerium", "_pomerium_authenticate"].contains(&name) && !value.is_empty()
}
