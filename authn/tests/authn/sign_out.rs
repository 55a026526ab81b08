//! Signing out: dead in the store first, at the provider last, and by nobody else's link.

use url::Url;

use crate::support::{APP, AUTHN, Browser, OTHER_APP, Script, World};

pub(crate) const SAME: &[(&str, &str)] = &[("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "navigate")];
const CROSS: &[(&str, &str)] = &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];

pub(crate) fn sign_out(origin: &str) -> Url {
    Url::parse(&format!("{origin}/.pomerium/sign_out")).unwrap()
}

async fn signed_in(world: &World) -> Browser {
    let mut browser = world.browser();
    world.sign_in(&mut browser, APP).await;
    world.sign_in(&mut browser, OTHER_APP).await;
    assert_eq!(world.live_sessions().await.len(), 1);
    browser
}

#[tokio::test]
async fn s_084_signing_out_kills_the_session_everywhere_before_it_answers() {
    let world = World::new().await;
    let mut browser = signed_in(&world).await;
    let answer = browser.get_with(&sign_out(APP), SAME).await;
    assert!(world.live_sessions().await.is_empty(), "at the first answer, on every host");
    let revoked = world.provider.seen(|seen| seen.revocations.clone());
    assert_eq!(revoked.len(), 1, "and its tokens are taken back (02 §1.7)");
    assert_eq!(revoked[0].0["token"], "refresh-token-marked-1");
    assert_eq!(browser.cookie(APP, "_pomerium"), None);
    let on_authn = answer.location().unwrap();
    assert!(on_authn.as_str().starts_with(&format!("{AUTHN}/.pomerium/sign_out?")));
    let at_provider = browser.get(&on_authn).await.location().unwrap();
    assert_eq!(browser.cookie(AUTHN, "_pomerium_authenticate"), None);
    assert!(at_provider.as_str().starts_with(&format!("{}/end?", world.provider.issuer)));
    let pairs: std::collections::HashMap<_, _> = at_provider.query_pairs().into_owned().collect();
    assert_eq!(pairs["id_token_hint"].split('.').count(), 3);
    assert_eq!(pairs["client_id"], "postern");
    assert_eq!(pairs["post_logout_redirect_uri"], format!("{AUTHN}/.pomerium/signed_out"));
    let again = world.send_to_sign_in(&mut browser, OTHER_APP);
    let next = browser.get(&again).await.location().unwrap();
    assert!(next.as_str().starts_with(&world.provider.issuer), "no session is left to go on with: {next}");
}

#[tokio::test]
async fn s_085_a_link_or_form_of_another_site_gets_a_question_at_most() {
    let world = World::new().await;
    let mut browser = signed_in(&world).await;
    let same_site = &[("sec-fetch-site", "same-site")][..];
    for origin in [APP, AUTHN] {
        for headers in [CROSS, same_site, &[], &[("sec-fetch-site", "none")]] {
            let page = browser.get_with(&sign_out(origin), headers).await;
            assert_eq!((page.status.as_u16(), page.location()), (200, None));
            assert!(page.body.contains("<form"));
        }
        let posted = browser.post(&sign_out(origin), CROSS, &[("pomerium_token", "1.x")]).await;
        assert!(posted.body.contains("<form"));
        let posted = browser.post(&sign_out(origin), &[("origin", "https://evil.example")], &[]).await;
        assert!(posted.body.contains("<form"));
    }
    assert_eq!(world.live_sessions().await.len(), 1, "still signed in");
    let posted = browser.post(&sign_out(APP), &[("origin", APP)], &[]).await;
    assert!(posted.body.contains("http-equiv=\"refresh\""), "{}", posted.body);
    assert!(world.live_sessions().await.is_empty());
}

/// The hidden field of the question's form.
fn token(page: &str) -> String {
    let field = page.split("name=\"pomerium_token\" value=\"").nth(1).unwrap();
    field.split('"').next().unwrap().to_owned()
}

#[tokio::test]
async fn s_085_the_form_of_the_question_signs_out_and_only_this_browser_on_this_host() {
    let world = World::new().await;
    let mut browser = signed_in(&world).await;
    let mut other = signed_in_as_well(&world).await;
    let asked = browser.get_with(&sign_out(APP), CROSS).await;
    assert!(asked.body.contains("Alice"));
    let token = token(&asked.body);
    let refused = other.post(&sign_out(APP), CROSS, &[("pomerium_token", &token)]).await;
    assert!(refused.body.contains("<form"), "another browser");
    let refused = browser.post(&sign_out(OTHER_APP), CROSS, &[("pomerium_token", &token)]).await;
    assert!(refused.body.contains("<form"), "another host");
    let refused = browser
        .get_with(&Url::parse(&format!("{APP}/.pomerium/sign_out?pomerium_token={token}")).unwrap(), CROSS)
        .await;
    assert!(refused.body.contains("<form"), "not by GET");
    let old = format!("{}.{}", 1_000_000_000, token.split_once('.').unwrap().1);
    let refused = browser.post(&sign_out(APP), CROSS, &[("pomerium_token", &old)]).await;
    assert!(refused.body.contains("<form"), "another time");
    assert_eq!(world.live_sessions().await.len(), 2);
    browser.post(&sign_out(APP), &[("origin", "null")], &[("pomerium_token", &token)]).await;
    assert_eq!(world.live_sessions().await.len(), 1);
}

#[tokio::test]
async fn s_085_a_form_made_for_nobody_signs_nobody_out() {
    let world = World::new().await;
    let mut victim = signed_in(&world).await;
    for (origin, cookie) in [(APP, "_pomerium"), (AUTHN, "_pomerium_authenticate")] {
        // The attacker asks without a cookie; the victim's browser posts from another site, so its cookies stay behind.
        let asked = world.browser().get_with(&sign_out(origin), CROSS).await;
        let hidden = asked.body.split("name=\"pomerium_token\" value=\"").nth(1);
        let token = hidden.and_then(|rest| rest.split('"').next()).unwrap_or("1.x");
        let held = std::mem::take(&mut victim.jar);
        let posted = victim.post(&sign_out(origin), CROSS, &[("pomerium_token", token)]).await;
        assert!(posted.body.contains("<form") && posted.set_cookies.is_empty(), "{:?}", posted.set_cookies);
        victim.jar = held;
        assert!(victim.cookie(origin, cookie).is_some());
    }
}

async fn signed_in_as_well(world: &World) -> Browser {
    let mut browser = world.browser();
    world.sign_in(&mut browser, APP).await;
    browser
}

#[tokio::test]
async fn s_085_a_signed_address_of_one_browser_signs_no_other_out() {
    let world = World::new().await;
    let mut attacker = signed_in(&world).await;
    let address = attacker.get_with(&sign_out(APP), SAME).await.location().unwrap();
    let mut victim = signed_in(&world).await;
    let page = victim.get_with(&address, CROSS).await;
    assert!(page.body.contains("<form"), "a question at most");
    assert_eq!(world.live_sessions().await.len(), 1);
}

#[tokio::test]
async fn signing_out_on_authn_itself_ends_the_session_and_goes_to_the_provider() {
    let world = World::new().await;
    let mut browser = signed_in(&world).await;
    let next = browser.get_with(&sign_out(AUTHN), SAME).await.location().unwrap();
    assert!(next.as_str().starts_with(&format!("{}/end?", world.provider.issuer)));
    assert!(world.live_sessions().await.is_empty());
}

#[tokio::test]
async fn s_086_after_signing_out_the_browser_goes_where_the_configuration_says_and_nowhere_else() {
    let world =
        World::with(|config| config.sign_out_redirect = Some(Url::parse("https://www.example.com/bye").unwrap())).await;
    world.provider.does(Script {
        metadata: Box::new(|metadata| drop(metadata.as_object_mut().unwrap().remove("end_session_endpoint"))),
        ..Script::default()
    });
    let mut browser = signed_in(&world).await;
    let asked = Url::parse(&format!(
        "{APP}/.pomerium/sign_out?pomerium_redirect_uri=https://evil.example/&redirect_uri=https://evil.example/"
    ))
    .unwrap();
    let on_authn = browser.get_with(&asked, SAME).await.location().unwrap();
    assert!(!on_authn.as_str().contains("evil"));
    assert_eq!(browser.get(&on_authn).await.location().unwrap().as_str(), "https://www.example.com/bye");
}

#[tokio::test]
async fn a_provider_without_a_place_to_sign_out_at_ends_on_our_page() {
    let world = World::new().await;
    world.provider.does(Script {
        metadata: Box::new(|metadata| drop(metadata.as_object_mut().unwrap().remove("end_session_endpoint"))),
        ..Script::default()
    });
    let mut browser = signed_in(&world).await;
    let page = browser.get_with(&sign_out(APP), SAME).await.location().unwrap();
    let page = browser.follow(page).await;
    assert_eq!(page.url.as_str(), format!("{AUTHN}/.pomerium/signed_out"));
    assert!(page.status.is_success() && page.body.contains("igned out"));
}

#[tokio::test]
async fn who_is_not_signed_in_may_sign_out_all_the_same() {
    let world = World::new().await;
    let mut browser = world.browser();
    let there = browser.get_with(&sign_out(APP), SAME).await.location().unwrap();
    let page = browser.get_with(&there, &[("sec-fetch-site", "same-site")]).await;
    assert_eq!(page.status, 200);
}

#[tokio::test]
async fn s_084_a_store_that_is_away_is_said_and_nothing_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::on_a_file(&folder).await;
    let mut browser = signed_in(&world).await;
    world.close_the_store().await;
    let page = browser.get_with(&sign_out(APP), SAME).await;
    page.is_refused(503, "store-unavailable");
    assert!(browser.cookie(APP, "_pomerium").is_some());
}

#[tokio::test]
async fn after_signing_out_there_is_a_way_back_to_the_application_as_somebody_else() {
    let world = World::new().await;
    let mut browser = signed_in(&world).await;
    for (asked, back) in [
        ("", format!("{APP}/")),
        ("?pomerium_redirect_uri=https://app.example.com/page", format!("{APP}/page")),
        ("?pomerium_redirect_uri=https://evil.example/", format!("{APP}/")),
        ("?pomerium_redirect_uri=javascript:alert(1)", format!("{APP}/")),
    ] {
        let asked = Url::parse(&format!("{APP}/.pomerium/sign_out{asked}")).unwrap();
        let on_authn = browser.get_with(&asked, SAME).await.location().unwrap();
        browser.get_with(&on_authn, SAME).await;
        let from_provider = Url::parse(&format!("{AUTHN}/.pomerium/signed_out")).unwrap();
        let page = browser.get(&from_provider).await;
        assert!(page.body.contains(&format!("href=\"{back}\"")), "{}", page.body);
        assert!(!page.body.contains("evil") && !page.body.contains("javascript"));
        let page = browser.get(&from_provider).await;
        assert!(!page.body.contains(&back), "once");
    }
    let planted = "aHR0cHM6Ly9ldmlsLmV4YW1wbGUv";
    browser.put_cookie(AUTHN, "__Host-_pomerium_back", planted);
    let page = browser.get(&Url::parse(&format!("{AUTHN}/.pomerium/signed_out")).unwrap()).await;
    assert!(!page.body.contains("evil"));
}
