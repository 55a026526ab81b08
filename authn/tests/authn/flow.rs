//! The sign-in from the first redirect to the session cookie, and every way to bend it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postern_authn::AuthnConfig;
use postern_identity::{
    FlowHash, IdpId, Purpose, Recipient, Secret, Session, SessionCookie, SessionId, SignInRequest, Timestamp, Tokens,
    User,
};
use serde_json::Value;
use url::Url;

use crate::support::{APP, AUTHN, Browser, Hosts, OTHER_APP, Script, World, idp, now};

const SESSION: &str = "_pomerium";
const AUTHN_SESSION: &str = "_pomerium_authenticate";
const STATES: &str = "__Host-_pomerium_state_";

/// Whether the edge would find a live session in the browser's cookie for that application.
pub(crate) async fn is_signed_in(world: &World, browser: &Browser, app: &str) -> bool {
    let Some(cookie) = browser.cookie(app, SESSION) else { return false };
    let scope = Url::parse(app).unwrap().host_str().unwrap().to_owned();
    let Some(id) = SessionCookie::open(&world.keyring, &scope, cookie.as_bytes()) else { return false };
    let found = world.sessions.load(&id.handle(&world.keyring), now()).await.unwrap();
    matches!(found, postern_storage::Lookup::Found(_))
}

#[tokio::test]
async fn a_user_signs_in_and_reaches_the_application() {
    let world = World::new().await;
    let mut browser = world.browser();
    let arrived = world.sign_in(&mut browser, &format!("{APP}/x?y=1")).await;
    assert_eq!(arrived.url.as_str(), format!("{APP}/x?y=1"));
    assert!(is_signed_in(&world, &browser, APP).await);
    assert!(!is_signed_in(&world, &browser, OTHER_APP).await);
    assert_eq!(browser.cookie_names(APP, "__Host-_pomerium_flow_"), [""; 0], "the flow is over");
    assert_eq!(browser.cookie_names(AUTHN, STATES), [""; 0], "the state is gone");
    let sessions = world.live_sessions().await;
    let found = world.sessions.load(&sessions[0].handle, now()).await.unwrap();
    let postern_storage::Lookup::Found(session) = found else { panic!("{found:?}") };
    assert_eq!((session.user.id.as_str(), session.user.email.as_deref()), ("alice", Some("alice@example.com")));
    assert_eq!(
        (session.user.email_verified, session.user.issuer.as_str()),
        (Some(true), world.provider.issuer.as_str())
    );
    assert_eq!(session.expires_at.since(session.issued_at), Duration::from_secs(14 * 3600));
    assert_eq!(world.counted("postern_authn_sign_ins_total", "ok"), 1.0);
}

#[tokio::test]
async fn a_second_application_needs_no_second_sign_in() {
    let world = World::new().await;
    let mut browser = world.browser();
    world.sign_in(&mut browser, APP).await;
    let arrived = world.sign_in(&mut browser, &format!("{OTHER_APP}/page")).await;
    assert_eq!(arrived.url.as_str(), format!("{OTHER_APP}/page"));
    assert_eq!(arrived.trail.len(), 3, "sign_in, ticket, application: {:?}", arrived.trail);
    assert!(is_signed_in(&world, &browser, OTHER_APP).await);
    assert_eq!(world.provider.seen(|seen| seen.authorizations.len()), 1);
    assert_eq!(world.live_sessions().await.len(), 1, "one session for both");
}

#[tokio::test]
async fn s_051_s_052_s_079_every_sign_in_uses_code_pkce_state_and_nonce_and_hides_the_target() {
    let world = World::new().await;
    for _ in 0..3 {
        world.sign_in(&mut world.browser(), &format!("{APP}/secret-path")).await;
    }
    let asked = world.provider.seen(|seen| seen.authorizations.clone());
    for request in &asked {
        assert_eq!((&*request["response_type"], &*request["code_challenge_method"]), ("code", "S256"));
        assert_eq!(request["redirect_uri"], format!("{AUTHN}/oauth2/callback"));
        assert_eq!(request["scope"], "openid profile email");
        for name in ["state", "nonce", "code_challenge"] {
            let bytes = URL_SAFE_NO_PAD.decode(&request[name]).unwrap();
            assert_eq!(bytes.len(), 32, "{name}");
            assert!(!String::from_utf8_lossy(&bytes).contains("secret-path"));
            assert_eq!(asked.iter().filter(|other| other[name] == request[name]).count(), 1, "{name} is fresh");
        }
    }
}

#[tokio::test]
async fn s_070_the_client_secret_goes_to_the_token_endpoint_alone() {
    let world = World::new().await;
    let arrived = world.sign_in(&mut world.browser(), APP).await;
    assert!(!format!("{:?}", arrived.trail).contains("client-secret"));
    let (form, head) = world.provider.seen(|seen| seen.redemptions[0].clone());
    assert!(head.unwrap().starts_with("Basic ") && !form.contains_key("client_secret"));
    world.provider.does(Script {
        metadata: Box::new(|metadata| {
            metadata["token_endpoint_auth_methods_supported"] = serde_json::json!(["client_secret_post"]);
        }),
        ..Script::default()
    });
    let mut config = world.config.clone();
    config.idps[0].scopes.push("groups".into());
    world.authn.reload(config).unwrap();
    world.sign_in(&mut world.browser(), APP).await;
    let (form, head) = world.provider.seen(|seen| seen.redemptions[1].clone());
    assert_eq!((form["client_secret"].as_str(), head), ("client-secret-marked", None));
}

#[tokio::test]
async fn s_051_request_parameters_of_the_configuration_cannot_weaken_the_flow() {
    let params = [
        ("prompt", "login"),
        ("state", "fixed"),
        ("code_challenge_method", "plain"),
        ("response_type", "token"),
        ("response_mode", "fragment"),
    ];
    let world = World::with(|config| {
        config.idps[0].request_params = params.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    })
    .await;
    let arrived = world.sign_in(&mut world.browser(), APP).await;
    assert_eq!(arrived.url.as_str(), format!("{APP}/"));
    let request = world.provider.seen(|seen| seen.authorizations[0].clone());
    assert_eq!((&*request["prompt"], &*request["response_type"]), ("login", "code"));
    assert_ne!(request["state"], "fixed");
    assert_eq!(request["code_challenge_method"], "S256");
    assert!(!request.contains_key("response_mode"));
}

/// As far as the provider's answer, which is not opened yet.
async fn up_to_the_answer(world: &World, browser: &mut Browser, target: &str) -> Url {
    let there = world.send_to_sign_in(browser, target);
    browser.follow_until(there, &format!("{AUTHN}/oauth2/callback")).await
}

#[tokio::test]
async fn s_053_s_055_a_callback_works_once() {
    let world = World::new().await;
    let mut browser = world.browser();
    let answer = up_to_the_answer(&world, &mut browser, APP).await;
    let mut copy = browser.clone();
    assert_eq!(browser.follow(answer.clone()).await.url.as_str(), format!("{APP}/"));
    browser.get(&answer).await.is_refused(400, "state-unknown");
    copy.get(&answer).await.is_refused(400, "state-used");
    assert_eq!(world.provider.seen(|seen| seen.redemptions.len()), 1);
    assert_eq!(world.live_sessions().await.len(), 1);
}

#[tokio::test]
async fn s_053_a_state_is_gone_also_after_a_failure() {
    let world = World::new().await;
    world.provider.does(Script { userinfo: Box::new(|answer| answer["sub"] = "bob".into()), ..Script::default() });
    let mut browser = world.browser();
    let answer = up_to_the_answer(&world, &mut browser, APP).await;
    let mut copy = browser.clone();
    browser.get(&answer).await.is_refused(502, "userinfo-subject");
    world.provider.does(Script::default());
    copy.get(&answer).await.is_refused(400, "state-used");
    assert_eq!(world.provider.seen(|seen| seen.redemptions.len()), 1);
}

#[tokio::test]
async fn s_054_a_callback_in_another_browser_never_reaches_the_token_endpoint() {
    let world = World::new().await;
    let mut attacker = world.browser();
    let answer = up_to_the_answer(&world, &mut attacker, APP).await;
    let mut victim = world.browser();
    world.send_to_sign_in(&mut victim, APP);
    victim.get(&answer).await.is_refused(400, "state-unknown");
    assert_eq!(world.provider.seen(|seen| seen.redemptions.len()), 0);
    assert_eq!(victim.cookie(AUTHN, AUTHN_SESSION), None);
    assert!(world.live_sessions().await.is_empty());
}

/// The only button of a page.
fn button(page: &str) -> &str {
    let buttons: Vec<_> = page.split("<a class=\"button").skip(1).collect();
    let [button] = buttons[..] else { panic!("{} buttons: {page}", buttons.len()) };
    button.split("href=\"").nth(1).unwrap().split('"').next().unwrap()
}

#[tokio::test]
async fn s_053_an_answer_to_no_sign_in_of_this_browser_leads_to_the_newest_one_that_it_began_or_home() {
    let world = World::new().await;
    let mut browser = world.browser();
    let callback = |query: &str| Url::parse(&format!("{AUTHN}/oauth2/callback?{query}")).unwrap();
    let strays = [("state=unknown&code=x", "state-unknown"), ("code=x", "callback-incomplete")];
    for (query, reason) in strays {
        let arrived = browser.get(&callback(query)).await;
        arrived.is_refused(400, reason);
        assert_eq!(button(&arrived.body), "/.pomerium/", "it knows no other");
    }
    for target in [format!("{APP}/older"), format!("{OTHER_APP}/newer?a=b")] {
        up_to_the_answer(&world, &mut browser, &target).await;
        let begun = now();
        while now() == begun {
            tokio::task::yield_now().await;
        }
    }
    for (query, reason) in strays {
        let arrived = browser.get(&callback(query)).await;
        arrived.is_refused(400, reason);
        assert_eq!(button(&arrived.body), format!("{OTHER_APP}/newer?a=b"));
    }
    let forged = browser.cookie_names(AUTHN, STATES)[0].clone();
    let mut other = world.browser();
    other.put_cookie(AUTHN, &forged, "forged");
    assert_eq!(button(&other.get(&callback("state=unknown&code=x")).await.body), "/.pomerium/");
}

#[tokio::test]
async fn s_053_an_answer_to_no_sign_in_leads_to_no_route_that_has_gone() {
    let world = World::new().await;
    let mut browser = world.browser();
    up_to_the_answer(&world, &mut browser, &format!("{APP}/x")).await;
    let config = AuthnConfig { hosts: std::sync::Arc::new(Hosts(&[])), ..world.config.clone() };
    world.authn.reload(config).unwrap();
    let stray = Url::parse(&format!("{AUTHN}/oauth2/callback?state=unknown&code=x")).unwrap();
    assert_eq!(button(&browser.get(&stray).await.body), "/.pomerium/");
}

#[tokio::test]
async fn s_054_a_cookie_moved_to_another_state_is_no_sign_in() {
    let world = World::new().await;
    let (mut attacker, mut victim) = (world.browser(), world.browser());
    let answer = up_to_the_answer(&world, &mut attacker, APP).await;
    up_to_the_answer(&world, &mut victim, APP).await;
    let (own, wanted) = (&victim.cookie_names(AUTHN, STATES)[0], &attacker.cookie_names(AUTHN, STATES)[0]);
    let value = victim.cookie(AUTHN, own).unwrap();
    victim.put_cookie(AUTHN, wanted, &value);
    victim.get(&answer).await.is_refused(400, "state-unknown");
    assert_eq!(world.provider.seen(|seen| seen.redemptions.len()), 0);
}

#[tokio::test]
async fn s_055_a_callback_opened_ten_times_at_once_on_two_edges_makes_one_session() {
    let world = World::new().await;
    let second = world.second().await;
    let mut browser = world.browser();
    let answer = up_to_the_answer(&world, &mut browser, APP).await;
    let mut all = tokio::task::JoinSet::new();
    for n in 0..10 {
        let (mut browser, answer) = (browser.clone(), answer.clone());
        browser.authn = if n % 2 == 0 { world.address } else { second };
        all.spawn(async move { browser.get(&answer).await.status });
    }
    let statuses = all.join_all().await;
    assert_eq!(statuses.iter().filter(|status| status.is_redirection()).count(), 1, "{statuses:?}");
    assert_eq!(world.live_sessions().await.len(), 1);
    assert_eq!(world.provider.seen(|seen| seen.redemptions.len()), 1);
}

#[tokio::test]
async fn r_024_a_sign_in_may_start_on_one_edge_and_end_on_another() {
    let world = World::new().await;
    let second = world.second().await;
    let mut browser = world.browser();
    let there = world.send_to_sign_in(&mut browser, APP);
    let answer = browser.follow_until(there, &format!("{AUTHN}/oauth2/callback")).await;
    browser.authn = second;
    let ticket = browser.follow_until(answer, &format!("{APP}/.pomerium/callback/")).await;
    browser.authn = world.address;
    assert_eq!(browser.follow(ticket).await.url.as_str(), format!("{APP}/"));
    assert!(is_signed_in(&world, &browser, APP).await);
}

#[tokio::test]
async fn several_tabs_sign_in_at_once() {
    let world = World::new().await;
    let mut browser = world.browser();
    let first = up_to_the_answer(&world, &mut browser, &format!("{APP}/1")).await;
    let second = up_to_the_answer(&world, &mut browser, &format!("{OTHER_APP}/2")).await;
    assert_eq!(browser.follow(first).await.url.as_str(), format!("{APP}/1"));
    assert_eq!(browser.follow(second).await.url.as_str(), format!("{OTHER_APP}/2"));
    assert!(is_signed_in(&world, &browser, APP).await && is_signed_in(&world, &browser, OTHER_APP).await);
}

#[tokio::test]
async fn a_browser_holds_five_sign_ins_and_the_oldest_goes() {
    let world = World::new().await;
    let mut browser = world.browser();
    let first = up_to_the_answer(&world, &mut browser, &format!("{APP}/0")).await;
    age(&world, &mut browser, Duration::from_secs(5));
    let mut last = first.clone();
    for n in 1..7 {
        last = up_to_the_answer(&world, &mut browser, &format!("{APP}/{n}")).await;
        assert!(browser.cookie_names(AUTHN, STATES).len() <= 5);
    }
    browser.get(&first).await.is_refused(400, "state-unknown");
    assert_eq!(browser.follow(last).await.url.as_str(), format!("{APP}/6"));
}

/// Makes every pending sign-in of the browser older.
fn age(world: &World, browser: &mut Browser, by: Duration) {
    for name in browser.cookie_names(AUTHN, STATES) {
        let sealed = URL_SAFE_NO_PAD.decode(browser.cookie(AUTHN, &name).unwrap()).unwrap();
        let plain = world.keyring.open(Purpose::PendingSignIn, name.as_bytes(), &sealed).unwrap();
        let mut pending: Value = serde_json::from_slice(&plain).unwrap();
        let started = pending["started"].as_i64().unwrap();
        pending["started"] = Timestamp::from_millis(started).minus(by).as_millis().into();
        pending["a field of a later version"] = 1.into();
        let sealed =
            world.keyring.seal(Purpose::PendingSignIn, name.as_bytes(), pending.to_string().as_bytes()).unwrap();
        browser.put_cookie(AUTHN, &name, &URL_SAFE_NO_PAD.encode(sealed));
    }
}

#[tokio::test]
async fn a_slow_user_is_sent_through_once_more_and_then_asked() {
    let world = World::new().await;
    let mut browser = world.browser();
    let answer = up_to_the_answer(&world, &mut browser, &format!("{APP}/x")).await;
    age(&world, &mut browser, Duration::from_secs(599));
    let mut quick = browser.clone();
    age(&world, &mut browser, Duration::from_secs(60));
    let again = browser.follow_until(answer.clone(), &format!("{AUTHN}/oauth2/callback")).await;
    assert_ne!(again, answer);
    assert_eq!(world.provider.seen(|seen| seen.redemptions.len()), 0, "the old code is not used");
    let mut still_slow = browser.clone();
    assert_eq!(browser.follow(again.clone()).await.url.as_str(), format!("{APP}/x"));
    age(&world, &mut still_slow, Duration::from_secs(660));
    let fresh_answer = {
        let mut other = world.browser();
        up_to_the_answer(&world, &mut other, &format!("{APP}/x")).await
    };
    still_slow.get(&fresh_answer).await.is_refused(400, "state-unknown");
    quick.get(&answer).await.is_refused(400, "state-used");
}

#[tokio::test]
async fn a_user_who_is_too_slow_twice_gets_a_way_to_start_again() {
    let world = World::new().await;
    let mut browser = world.browser();
    let answer = up_to_the_answer(&world, &mut browser, &format!("{APP}/x")).await;
    age(&world, &mut browser, Duration::from_secs(660));
    let again = browser.follow_until(answer, &format!("{AUTHN}/oauth2/callback")).await;
    age(&world, &mut browser, Duration::from_secs(660));
    let page = browser.get(&again).await;
    page.is_refused(400, "sign-in-too-slow");
    assert!(page.body.contains(&format!("href=\"{APP}/x\"")));
}

#[tokio::test]
async fn an_old_sign_in_address_leads_back_to_the_application_for_a_new_one() {
    let world = World::new().await;
    let mut browser = world.browser();
    let old =
        world.send_to_sign_in_at(&mut browser, &format!("{APP}/x"), "main", now().minus(Duration::from_secs(3600)));
    let arrived = browser.follow(old).await;
    assert_eq!(arrived.trail.len(), 2);
    assert_eq!(arrived.url.as_str(), format!("{APP}/x"));
    assert_eq!(world.provider.seen(|seen| seen.authorizations.len()), 0);
}

async fn up_to_the_ticket(world: &World, browser: &mut Browser, target: &str) -> Url {
    let there = world.send_to_sign_in(browser, target);
    browser.follow_until(there, &format!("{APP}/.pomerium/callback/")).await
}

#[tokio::test]
async fn s_054_a_ticket_in_another_browser_signs_nobody_in() {
    let world = World::new().await;
    let mut attacker = world.browser();
    let ticket = up_to_the_ticket(&world, &mut attacker, APP).await;
    let mut victim = world.browser();
    world.send_to_sign_in(&mut victim, APP);
    let arrived = victim.follow(ticket.clone()).await;
    assert_eq!(arrived.url.as_str(), format!("{APP}/"), "sent on, to sign in by itself");
    assert_eq!(victim.cookie(APP, SESSION), None);
    assert_eq!(attacker.follow(ticket).await.url.as_str(), format!("{APP}/"), "the ticket was not spent by that");
    assert!(is_signed_in(&world, &attacker, APP).await);
}

#[tokio::test]
async fn a_ticket_works_once() {
    let world = World::new().await;
    let mut browser = world.browser();
    let ticket = up_to_the_ticket(&world, &mut browser, APP).await;
    let mut copy = browser.clone();
    browser.follow(ticket.clone()).await;
    assert!(is_signed_in(&world, &browser, APP).await);
    let arrived = copy.follow(ticket).await;
    assert_eq!(arrived.url.as_str(), format!("{APP}/"));
    assert_eq!(copy.cookie(APP, SESSION), None);
}

#[tokio::test]
async fn s_089_a_ticket_of_one_host_is_none_on_another() {
    let world = World::new().await;
    let mut browser = world.browser();
    let ticket = up_to_the_ticket(&world, &mut browser, APP).await;
    let elsewhere = Url::parse(&ticket.as_str().replace("app.example.com", "wiki.example.com")).unwrap();
    browser.get(&elsewhere).await.is_refused(400, "ticket-unreadable");
    let mut damaged = ticket.to_string();
    let changed = if damaged.ends_with('A') { 'B' } else { 'A' };
    damaged.replace_range(damaged.len() - 1.., &changed.to_string());
    browser.get(&Url::parse(&damaged).unwrap()).await.is_refused(400, "ticket-unreadable");
    assert_eq!(browser.cookie(OTHER_APP, SESSION), None);
}

#[tokio::test]
async fn a_ticket_is_good_for_a_minute() {
    let world = World::new().await;
    let mut browser = world.browser();
    let ticket = up_to_the_ticket(&world, &mut browser, APP).await;
    let sealed = URL_SAFE_NO_PAD.decode(ticket.query_pairs().next().unwrap().1.as_bytes()).unwrap();
    let plain = world.keyring.open(Purpose::Ticket, APP.as_bytes(), &sealed).unwrap();
    let mut inside: Value = serde_json::from_slice(&plain).unwrap();
    let expires = Timestamp::from_millis(inside["expires"].as_i64().unwrap());
    assert!(expires.since(now()) <= Duration::from_secs(60));
    inside["expires"] = now().minus(Duration::from_secs(1)).as_millis().into();
    let sealed = world.keyring.seal(Purpose::Ticket, APP.as_bytes(), inside.to_string().as_bytes()).unwrap();
    let mut old = ticket.clone();
    old.query_pairs_mut().clear().append_pair("pomerium_ticket", &URL_SAFE_NO_PAD.encode(sealed));
    browser.follow(old).await;
    assert_eq!(browser.cookie(APP, SESSION), None);
    browser.follow(ticket).await;
    assert!(is_signed_in(&world, &browser, APP).await);
}

#[tokio::test]
async fn a_browser_that_keeps_no_cookies_for_the_application_is_stopped_in_the_third_round() {
    let world = World::new().await;
    let mut browser = world.browser();
    let mut pages = Vec::new();
    for _ in 0..3 {
        let there = world.send_to_sign_in(&mut browser, &format!("{APP}/x"));
        browser.forget(APP);
        pages.push(browser.follow(there).await);
        browser.forget(APP);
    }
    assert_eq!(pages[1].url.as_str(), format!("{APP}/x"));
    pages[2].is_refused(400, "sign-in-loop");
    assert!(pages[2].body.contains("app.example.com"));
    let there = world.send_to_sign_in(&mut browser, &format!("{OTHER_APP}/y"));
    assert_eq!(browser.follow(there).await.url.as_str(), format!("{OTHER_APP}/y"), "others are not held up");
}

fn sign_in_url(world: &World, redirect_uri: &str) -> Url {
    let request = SignInRequest {
        redirect_uri: Url::parse(redirect_uri).unwrap(),
        idp: IdpId::new("main"),
        recipient: Recipient::Browser(FlowHash::from_bytes([0; 16])),
        restarted: false,
        additional_hosts: Vec::new(),
    };
    request.to_url(&world.keyring, Url::parse(&format!("{AUTHN}/.pomerium/sign_in")).unwrap(), now())
}

#[tokio::test]
async fn s_086_no_parameter_leads_a_browser_to_a_foreign_place() {
    let world = World::new().await;
    let mut browser = world.browser();
    for foreign in [
        "https://evil.example/",
        "http://app.example.com/",
        "https://user@app.example.com/",
        "https://app.example.com:444/",
        "https://app.example.com.evil.example/",
        "https://auth.example.com/.pomerium/sign_out",
        "javascript:alert(1)",
        "data:text/html,x",
    ] {
        let page = browser.get(&sign_in_url(&world, foreign)).await;
        page.is_refused(400, "redirect-not-allowed");
        assert!(!page.body.contains("evil.example") && page.location().is_none());
    }
    let long = format!("{APP}/{}", "x".repeat(9000));
    browser.get(&sign_in_url(&world, &long)).await.is_refused(400, "redirect-not-allowed");
    for unsigned in ["/.pomerium/sign_in", "/.pomerium/sign_in?pomerium_redirect_uri=https://evil.example/"] {
        let page = browser.get(&Url::parse(&format!("{AUTHN}{unsigned}")).unwrap()).await;
        page.is_refused(400, "sign-in-not-signed");
    }
    let forged = sign_in_url(&world, APP).as_str().replace("app.example.com", "evil.example");
    browser.get(&Url::parse(&forged).unwrap()).await.is_refused(400, "sign-in-not-signed");
    let expired_foreign =
        world.send_to_sign_in_at(&mut browser, "https://evil.example/", "main", now().minus(Duration::from_secs(3600)));
    browser.get(&expired_foreign).await.is_refused(400, "redirect-not-allowed");
    assert_eq!(world.provider.seen(|seen| seen.authorizations.len()), 0);
}

#[tokio::test]
async fn a_very_long_address_comes_back_at_least_to_its_page() {
    let world = World::new().await;
    let mut browser = world.browser();
    let arrived = world.sign_in(&mut browser, &format!("{APP}/page?q={}", "x".repeat(5000))).await;
    assert_eq!(arrived.url.as_str(), format!("{APP}/page"));
    assert!(is_signed_in(&world, &browser, APP).await);
}

async fn two_providers() -> (World, crate::support::Provider) {
    let other = crate::support::Provider::start().await;
    let issuer = other.issuer.clone();
    (World::with(|config: &mut AuthnConfig| config.idps.push(idp("second", &issuer))).await, other)
}

#[tokio::test]
async fn s_058_s_059_an_answer_of_one_provider_is_never_taken_to_another() {
    let (world, other) = two_providers().await;
    let mut browser = world.browser();
    let there = world.send_to_sign_in_at(&mut browser, APP, "second", now());
    let mut answer = browser.follow_until(there, &format!("{AUTHN}/oauth2/callback")).await;
    let mut mixed = browser.clone();
    answer.query_pairs_mut().append_pair("iss", &world.provider.issuer);
    mixed.get(&answer).await.is_refused(400, "callback-issuer");
    assert_eq!(other.seen(|seen| seen.redemptions.len()), 0);
    let there = world.send_to_sign_in_at(&mut browser, APP, "second", now());
    let mut answer = browser.follow_until(there, &format!("{AUTHN}/oauth2/callback")).await;
    answer.query_pairs_mut().append_pair("iss", &other.issuer);
    assert_eq!(browser.follow(answer).await.url.as_str(), format!("{APP}/"));
    assert_eq!(other.seen(|seen| seen.redemptions.len()), 1);
    assert_eq!(world.provider.seen(|seen| seen.redemptions.len()), 0);
}

#[tokio::test]
async fn a_session_of_one_provider_is_none_where_another_is_wanted() {
    let (world, other) = two_providers().await;
    let mut browser = world.browser();
    world.sign_in(&mut browser, APP).await;
    let there = world.send_to_sign_in_at(&mut browser, OTHER_APP, "second", now());
    assert_eq!(browser.follow(there).await.url.as_str(), format!("{OTHER_APP}/"));
    assert_eq!(other.seen(|seen| seen.redemptions.len()), 1);
    let unknown = world.send_to_sign_in_at(&mut browser, APP, "third", now());
    browser.get(&unknown).await.is_refused(503, "idp-not-configured");
}

#[tokio::test]
async fn s_053_parameters_that_come_twice_are_refused() {
    let world = World::new().await;
    let mut browser = world.browser();
    let mut answer = up_to_the_answer(&world, &mut browser, APP).await;
    answer.query_pairs_mut().append_pair("code", "another");
    browser.get(&answer).await.is_refused(400, "callback-incomplete");
    let nothing = Url::parse(&format!("{AUTHN}/oauth2/callback?code=x")).unwrap();
    browser.get(&nothing).await.is_refused(400, "callback-incomplete");
    assert_eq!(world.provider.seen(|seen| seen.redemptions.len()), 0);
}

#[tokio::test]
async fn an_answer_may_be_posted_where_the_configuration_says_so() {
    let world = World::with(|config| {
        config.idps[0].request_params = vec![("response_mode".into(), "form_post".into())];
    })
    .await;
    let mut browser = world.browser();
    let there = world.send_to_sign_in(&mut browser, APP);
    let begun = browser.get(&there).await;
    assert!(begun.set_cookies[0].contains("SameSite=None"), "or it would not come along: {:?}", begun.set_cookies);
    let answer = browser.follow_until(begun.location().unwrap(), &format!("{AUTHN}/oauth2/callback")).await;
    let pairs: Vec<(String, String)> = answer.query_pairs().into_owned().collect();
    let form: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let mut bare = answer.clone();
    bare.set_query(None);
    let posted = browser.post(&bare, &[("sec-fetch-site", "cross-site")], &form).await;
    assert_eq!(posted.status, 303);
    assert_eq!(browser.follow(posted.location().unwrap()).await.url.as_str(), format!("{APP}/"));
}

#[tokio::test]
async fn s_080_every_sign_in_makes_a_fresh_session_whatever_the_browser_brings() {
    let world = World::new().await;
    let mut browser = world.browser();
    let planted = SessionId::generate().unwrap();
    browser.put_cookie(APP, SESSION, &SessionCookie::seal(&world.keyring, "app.example.com", &planted));
    browser.put_cookie(AUTHN, AUTHN_SESSION, &SessionCookie::seal(&world.keyring, "auth.example.com", &planted));
    world.sign_in(&mut browser, APP).await;
    let first = browser.cookie(APP, SESSION).unwrap();
    let id = SessionCookie::open(&world.keyring, "app.example.com", first.as_bytes()).unwrap();
    assert_ne!(id, planted);
    browser.forget(AUTHN);
    world.sign_in(&mut browser, APP).await;
    assert_ne!(browser.cookie(APP, SESSION).unwrap(), first);
    assert_eq!(world.live_sessions().await.len(), 2);
}

#[tokio::test]
async fn s_083_s_092_cookies_full_of_rubbish_are_no_session_and_no_error() {
    let world = World::new().await;
    let mut browser = world.browser();
    world.sign_in(&mut browser, APP).await;
    let good = browser.cookie(AUTHN, AUTHN_SESSION).unwrap();
    for at in [0, 10, good.len() - 1] {
        let mut bad = good.clone().into_bytes();
        bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
        browser.put_cookie(AUTHN, AUTHN_SESSION, &String::from_utf8(bad).unwrap());
        let there = world.send_to_sign_in(&mut browser, APP);
        let next = browser.get(&there).await.location().unwrap();
        assert!(next.as_str().starts_with(&world.provider.issuer), "{next}");
    }
    for n in 0..100 {
        browser.put_cookie(AUTHN, &format!("{STATES}{n}"), &"A".repeat(40));
    }
    let there = world.send_to_sign_in(&mut browser, APP);
    assert_eq!(browser.get(&there).await.status, 303);
    let answer = Url::parse(&format!("{AUTHN}/oauth2/callback?state=x&code=y")).unwrap();
    browser.get(&answer).await.is_refused(400, "state-unknown");
}

#[tokio::test]
async fn s_090_a_session_ends_when_the_store_says_so() {
    let world = World::new().await;
    let id = SessionId::generate().unwrap();
    let begun = now().minus(Duration::from_secs(3600));
    let session = Session {
        handle: id.handle(&world.keyring),
        user: User { id: "alice".into(), issuer: world.provider.issuer.clone(), ..User::default() },
        claims: postern_identity::Claims::default(),
        idp: IdpId::new("main"),
        issued_at: begun,
        expires_at: now().plus(Duration::from_secs(2)),
        idle: Some((Duration::from_secs(60), now().minus(Duration::from_secs(1)))),
        generation: 0,
    };
    let secret = |text: &str| Secret::new(text.to_owned());
    let tokens =
        Tokens { access: secret("a"), access_expires_at: None, refresh: None, id_token: secret("i"), refresh_at: None };
    world.sessions.create(&session, &tokens).await.unwrap();
    let mut browser = world.browser();
    browser.put_cookie(AUTHN, AUTHN_SESSION, &SessionCookie::seal(&world.keyring, "auth.example.com", &id));
    let there = world.send_to_sign_in(&mut browser, APP);
    let next = browser.get(&there).await.location().unwrap();
    assert!(next.as_str().starts_with(&world.provider.issuer), "an idle session does not sign in: {next}");
}

#[tokio::test]
async fn s_091_cookies_are_set_and_deleted_with_the_attributes_of_their_kind() {
    let world = World::new().await;
    let mut browser = world.browser();
    let arrived = world.sign_in(&mut browser, APP).await;
    assert!(arrived.set_cookies.len() >= 5);
    for cookie in &arrived.set_cookies {
        for attribute in ["Path=/", "Secure", "HttpOnly", "SameSite=Lax", "Max-Age="] {
            assert!(cookie.contains(attribute), "{cookie}");
        }
        assert!(!cookie.contains("Domain"), "{cookie}");
    }
    let deleted = arrived.set_cookies.iter().filter(|cookie| cookie.contains("Max-Age=0;")).count();
    assert_eq!(deleted, 2, "the state and the flow: {:?}", arrived.set_cookies);
}

#[tokio::test]
async fn s_091_a_cookie_domain_holds_for_applications_and_never_for_authn() {
    let world = World::with(|config| config.cookie.domain = Some("example.com".into())).await;
    let mut browser = world.browser();
    let arrived = world.sign_in(&mut browser, APP).await;
    let of =
        |name: &str| arrived.set_cookies.iter().find(|cookie| cookie.starts_with(&format!("{name}="))).unwrap().clone();
    assert!(of(SESSION).contains("Domain=example.com"));
    assert!(!of(AUTHN_SESSION).contains("Domain"));
    let value = browser.cookie(APP, SESSION).unwrap();
    assert!(SessionCookie::open(&world.keyring, "example.com", value.as_bytes()).is_some());
}

#[tokio::test]
async fn s_087_a_sign_in_is_never_begun_by_a_post() {
    let world = World::new().await;
    let mut browser = world.browser();
    let there = world.send_to_sign_in(&mut browser, APP);
    let refused = browser.post(&there, &[], &[("a", "b")]).await;
    refused.is_refused(405, "method-not-allowed");
    assert_eq!(refused.headers["allow"], "GET");
    let answer = up_to_the_answer(&world, &mut browser, APP).await;
    for head in [&there, &answer] {
        assert_eq!(browser.send(http::Method::HEAD, head, &[], String::new()).await.status, 405);
    }
    let arrived = browser.follow(answer).await;
    assert_eq!(arrived.url.as_str(), format!("{APP}/"), "a link preview spent nothing");
}

#[tokio::test]
async fn r_013_a_provider_that_is_away_stops_nobody_for_longer_than_it_is_away() {
    let world = World::new().await;
    world.provider.does(Script {
        discovery_response: Some(Box::new(|| {
            axum::response::IntoResponse::into_response(http::StatusCode::BAD_GATEWAY)
        })),
        ..Script::default()
    });
    let mut browser = world.browser();
    let page = world.sign_in(&mut browser, &format!("{APP}/x")).await;
    page.is_refused(503, "idp-status");
    assert!(page.headers.contains_key("retry-after"));
    world.provider.does(Script::default());
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        let arrived = world.sign_in(&mut browser, &format!("{APP}/x")).await;
        if arrived.url.as_str() == format!("{APP}/x") {
            break;
        }
        arrived.is_refused(503, "idp-unreachable");
        assert!(std::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
        browser.client_address = format!("192.0.2.{}", now().as_millis() % 250);
    }
}

#[tokio::test]
async fn r_010_a_store_that_is_away_refuses_sign_in_in_words_and_loops_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::on_a_file(&folder).await;
    let mut browser = world.browser();
    let answer = up_to_the_answer(&world, &mut browser, APP).await;
    world.close_the_store().await;
    let page = browser.get(&answer).await;
    page.is_refused(503, "store-unavailable");
    assert!(page.headers.contains_key("retry-after"));
    assert_eq!(world.provider.seen(|seen| seen.redemptions.len()), 0);
}

#[tokio::test]
async fn r_010_a_user_of_a_flushed_store_signs_in_again() {
    let world = World::new().await;
    let mut browser = world.browser();
    world.sign_in(&mut browser, APP).await;
    for session in world.live_sessions().await {
        world.sessions.revoke(&session.handle).await.unwrap();
    }
    assert!(!is_signed_in(&world, &browser, APP).await);
    assert_eq!(world.sign_in(&mut browser, APP).await.url.as_str(), format!("{APP}/"));
    assert!(is_signed_in(&world, &browser, APP).await);
}

#[tokio::test]
async fn a_strict_cookie_is_not_lost_on_the_way_from_the_provider() {
    let world = World::with(|config| config.cookie.same_site = postern_identity::SameSite::Strict).await;
    let mut browser = world.browser();
    let ticket = up_to_the_ticket(&world, &mut browser, &format!("{APP}/x")).await;
    let page = browser.get(&ticket).await;
    assert_eq!((page.status.as_u16(), page.location()), (200, None));
    assert_eq!(page.headers["refresh"], format!("0; url={APP}/x"));
    let of = |name: &str| page.set_cookies.iter().find(|cookie| cookie.starts_with(&format!("{name}="))).unwrap();
    assert!(of(SESSION).contains("SameSite=Strict"));
    let second = world.sign_in(&mut browser, &format!("{OTHER_APP}/y")).await;
    assert_eq!(second.trail.len(), 2, "authn's own cookie came along: {:?}", second.trail);
}
