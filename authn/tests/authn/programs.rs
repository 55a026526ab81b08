//! A sign-in whose session goes to a program (02 §4.2).

use std::time::Duration;

use postern_identity::{IdpId, ProgramHosts, ProgramToken, Recipient, SignInRequest, Timestamp};
use url::Url;

use crate::support::{APP, AUTHN, OTHER_APP, World, now};

const WAITS_AT: &str = "http://127.0.0.1:39000/done?state=7";

fn sign_in_url(world: &World, waits_at: &str, door: &str, now: Timestamp) -> Url {
    let request = SignInRequest {
        redirect_uri: Url::parse(waits_at).unwrap(),
        idp: IdpId::new("main"),
        recipient: Recipient::Program { door: Url::parse(&format!("{door}/.pomerium/callback/")).unwrap() },
        restarted: false,
        additional_hosts: Vec::new(),
    };
    request.to_url(&world.keyring, Url::parse(&format!("{AUTHN}/.pomerium/sign_in")).unwrap(), now)
}

/// What the program was handed.
fn handed(there: &Url) -> String {
    let (name, token) = there.query_pairs().last().unwrap();
    assert_eq!(name, "pomerium_jwt");
    token.into_owned()
}

#[tokio::test]
async fn s_089_a_program_is_handed_the_session_of_one_host() {
    let world = World::new().await;
    let mut browser = world.browser();
    let there = browser.follow_until(sign_in_url(&world, WAITS_AT, APP, now()), "http://127.0.0.1:39000/").await;
    assert!(there.as_str().starts_with(&format!("{WAITS_AT}&pomerium_jwt=")), "{there}");
    let token = handed(&there);
    let open = |host| ProgramToken::open(&world.keyring, host, token.as_bytes());
    let id = open("app.example.com").unwrap();
    assert_eq!(open("wiki.example.com"), None);
    let sessions = world.live_sessions().await;
    assert_eq!((sessions.len(), sessions[0].handle), (1, id.handle(&world.keyring)));
    assert_eq!(browser.cookie_names(APP, "_pomerium"), [""; 0], "no browser was signed in on the host");

    // Signed in at authn by then: no second visit at the provider, and the same session.
    let there = browser.get(&sign_in_url(&world, WAITS_AT, OTHER_APP, now())).await.location().unwrap();
    assert_eq!(ProgramToken::open(&world.keyring, "wiki.example.com", handed(&there).as_bytes()), Some(id));
    assert_eq!(world.provider.seen(|seen| seen.authorizations.len()), 1);
}

#[tokio::test]
async fn s_089_with_a_cookie_domain_the_session_is_of_that_domain() {
    let world = World::with(|config| config.cookie.domain = Some("example.com".into())).await;
    let mut browser = world.browser();
    let there = browser.follow_until(sign_in_url(&world, WAITS_AT, APP, now()), "http://127.0.0.1:39000/").await;
    assert!(ProgramToken::open(&world.keyring, "example.com", handed(&there).as_bytes()).is_some());
}

#[tokio::test]
async fn s_086_a_session_goes_to_no_program_elsewhere_whoever_has_signed_the_address() {
    let world = World::new().await;
    let mut browser = world.browser();
    for (waits_at, door) in [
        ("http://evil.example/", APP),
        ("https://app.example.com/", APP),
        ("http://localhost.evil.example/", APP),
        ("http://user@localhost/", APP),
        ("http://localhost/", "https://nobody.example.com"),
        ("http://localhost/", AUTHN),
    ] {
        let page = browser.get(&sign_in_url(&world, waits_at, door, now())).await;
        page.is_refused(400, "redirect-not-allowed");
        assert!(page.location().is_none() && !page.body.contains("evil.example"), "{waits_at}");
    }
    assert_eq!(world.provider.seen(|seen| seen.authorizations.len()), 0);
}

#[tokio::test]
async fn s_086_a_host_that_is_not_allowed_any_more_gets_nothing_after_the_provider_either() {
    let world = World::with(|config| config.programs = ProgramHosts::new(["cli.example.com"])).await;
    let mut browser = world.browser();
    let begun = sign_in_url(&world, "https://cli.example.com/", APP, now());
    let answer = browser.follow_until(begun, &format!("{AUTHN}/oauth2/callback")).await;
    let config = postern_authn::AuthnConfig { programs: ProgramHosts::default(), ..world.config.clone() };
    world.authn.reload(config).unwrap();
    browser.get(&answer).await.is_refused(400, "redirect-not-allowed");
}

#[tokio::test]
async fn an_old_address_says_so_and_no_page_offers_to_begin_anew_for_a_program() {
    let world = World::new().await;
    let mut browser = world.browser();
    let old = now().minus(Duration::from_secs(361));
    let page = browser.get(&sign_in_url(&world, WAITS_AT, APP, old)).await;
    page.is_refused(400, "sign-in-outdated");
    assert!(!page.body.contains("39000"));

    // One that waits for the provider is no other sign-in of this browser to go on with.
    let begun = sign_in_url(&world, WAITS_AT, APP, now());
    browser.follow_until(begun, &format!("{AUTHN}/oauth2/callback")).await;
    let stray = Url::parse(&format!("{AUTHN}/oauth2/callback?state=unknown&code=x")).unwrap();
    let page = browser.get(&stray).await;
    page.is_refused(400, "state-unknown");
    assert!(!page.body.contains("39000"));
}

#[tokio::test]
async fn the_longest_address_that_is_allowed_comes_back_whole_from_the_provider() {
    let world = World::new().await;
    let mut browser = world.browser();
    let base = "http://127.0.0.1:39000/";
    let waits_at = format!("{base}{}", "x".repeat(2048 - base.len()));
    let there = browser.follow_until(sign_in_url(&world, &waits_at, APP, now()), base).await;
    assert!(there.as_str().starts_with(&waits_at), "{there}");
    let longer = format!("{waits_at}x");
    browser.get(&sign_in_url(&world, &longer, APP, now())).await.is_refused(400, "redirect-not-allowed");
}
