//! Hosts that get a cookie besides the one where somebody signs in (`depends_on`; 02 §1.4 F and G, §1.5), and every way to bend that.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postern_authn::AuthnConfig;
use postern_identity::{IdpId, Purpose, Recipient, SameSite, SessionCookie, SessionId, SignInRequest};
use serde_json::Value;
use url::Url;

use crate::flow::is_signed_in;
use crate::support::{API, APP, AUTHN, Arrived, Browser, FILES, Hosts, OTHER_APP, World, now};

const SESSION: &str = "_pomerium";
/// As an edge names them.
const BOTH: [&str; 2] = ["api.example.com", "files.example.net:8443"];

/// What the browser's cookie for that application names.
fn session_at(world: &World, browser: &Browser, app: &str) -> Option<SessionId> {
    let scope = Url::parse(app).unwrap().host_str().unwrap().to_owned();
    SessionCookie::open(&world.keyring, &scope, browser.cookie(app, SESSION)?.as_bytes())
}

/// As far as the first address of that application which carries this parameter, and is not opened yet.
async fn up_to(world: &World, browser: &mut Browser, app: &str, parameter: &str) -> Url {
    let there = world.send_through(browser, &format!("{APP}/x"), &BOTH);
    browser.follow_until(there, &format!("{app}/.pomerium/callback/?{parameter}=")).await
}

/// The hosts and parameters of the callbacks on the way.
fn callbacks(trail: &[Url]) -> Vec<(String, String)> {
    let callbacks = trail.iter().filter(|url| url.path() == "/.pomerium/callback/");
    callbacks.map(|url| (url.authority().to_owned(), url.query_pairs().next().unwrap().0.into_owned())).collect()
}

/// What is sealed into such an address, changed.
fn resealed(world: &World, url: &Url, context: &str, change: impl FnOnce(&mut Value)) -> Url {
    let (name, text) = url.query_pairs().next().unwrap();
    let sealed = URL_SAFE_NO_PAD.decode(text.as_bytes()).unwrap();
    let plain = world.keyring.open(Purpose::Ticket, context.as_bytes(), &sealed).unwrap();
    let mut inside: Value = serde_json::from_slice(&plain).unwrap();
    change(&mut inside);
    let sealed = world.keyring.seal(Purpose::Ticket, context.as_bytes(), inside.to_string().as_bytes()).unwrap();
    let mut changed = url.clone();
    changed.query_pairs_mut().clear().append_pair(&name, &URL_SAFE_NO_PAD.encode(sealed));
    changed
}

#[tokio::test]
async fn whoever_signs_in_gets_a_cookie_on_each_host_and_then_the_page() {
    let world = World::new().await;
    let mut browser = world.browser();
    let there = world.send_through(&mut browser, &format!("{APP}/x?y=1"), &BOTH);
    let arrived = browser.follow(there).await;
    assert_eq!(arrived.url.as_str(), format!("{APP}/x?y=1"));
    let [api, files] = BOTH;
    let way = [
        ("app.example.com", "pomerium_ticket"),
        (api, "pomerium_chain"),
        ("auth.example.com", "pomerium_chain"),
        (api, "pomerium_ticket"),
        (files, "pomerium_chain"),
        ("auth.example.com", "pomerium_chain"),
        (files, "pomerium_ticket"),
    ];
    assert_eq!(callbacks(&arrived.trail), way.map(|(host, name)| (host.to_owned(), name.to_owned())));
    let session = session_at(&world, &browser, APP);
    assert!(session.is_some());
    for app in [APP, API, FILES] {
        assert!(is_signed_in(&world, &browser, app).await, "{app}");
        assert_eq!(session_at(&world, &browser, app), session, "{app}: one session for all");
        assert_eq!(browser.cookie_names(app, "__Host-_pomerium_flow_"), [""; 0], "{app}: the flow is over");
    }
    assert_ne!(browser.cookie(API, SESSION), browser.cookie(FILES, SESSION), "S-089: each is of its host");
    assert_eq!(browser.cookie(OTHER_APP, SESSION), None, "not named, not led there");
    assert_eq!(world.live_sessions().await.len(), 1);
    assert_eq!(world.provider.seen(|seen| seen.authorizations.len()), 1);
}

#[tokio::test]
async fn who_is_signed_in_elsewhere_gets_them_too() {
    let world = World::new().await;
    let mut browser = world.browser();
    world.sign_in(&mut browser, OTHER_APP).await;
    assert_eq!(browser.cookie(API, SESSION), None);
    let there = world.send_through(&mut browser, &format!("{APP}/x"), &BOTH);
    assert_eq!(browser.follow(there).await.url.as_str(), format!("{APP}/x"));
    assert!(is_signed_in(&world, &browser, API).await && is_signed_in(&world, &browser, FILES).await);
    assert_eq!(world.provider.seen(|seen| seen.authorizations.len()), 1);
}

#[tokio::test]
async fn s_054_a_ticket_of_a_chain_in_another_browser_signs_nobody_in() {
    let world = World::new().await;
    let mut attacker = world.browser();
    let ticket = up_to(&world, &mut attacker, API, "pomerium_ticket").await;
    let mut victim = world.browser();
    world.send_to_sign_in(&mut victim, API);
    let arrived = victim.follow(ticket.clone()).await;
    assert_eq!(arrived.url.as_str(), format!("{APP}/x"));
    assert_eq!((victim.cookie(API, SESSION), victim.cookie(FILES, SESSION)), (None, None));
    assert_eq!(attacker.follow(ticket).await.url.as_str(), format!("{APP}/x"), "it was not spent by that");
    assert!(is_signed_in(&world, &attacker, API).await && is_signed_in(&world, &attacker, FILES).await);
}

#[tokio::test]
async fn s_054_a_step_of_a_chain_gives_another_browser_nothing_but_what_it_has() {
    let world = World::new().await;
    let mut attacker = world.browser();
    let begin = up_to(&world, &mut attacker, API, "pomerium_chain").await;
    let mut ahead = attacker.clone();
    let hand_over = ahead.follow_until(begin.clone(), &format!("{AUTHN}/.pomerium/callback/")).await;
    for step in [&begin, &hand_over] {
        let mut nobody = world.browser();
        assert_eq!(nobody.follow(step.clone()).await.url.as_str(), format!("{APP}/x"));
        assert_eq!(nobody.cookie(API, SESSION), None, "{step}");
    }
    let mut victim = world.browser();
    world.sign_in(&mut victim, OTHER_APP).await;
    assert_ne!(session_at(&world, &victim, OTHER_APP), session_at(&world, &attacker, APP));
    assert_eq!(victim.follow(hand_over).await.url.as_str(), format!("{APP}/x"));
    assert_eq!(victim.cookie(API, SESSION), None, "it began nothing there");
    victim.follow(begin).await;
    assert_eq!(session_at(&world, &victim, API), None, "it is for the session of who set out");
}

#[tokio::test]
async fn s_055_a_ticket_of_a_chain_works_once() {
    let world = World::new().await;
    let mut browser = world.browser();
    let ticket = up_to(&world, &mut browser, API, "pomerium_ticket").await;
    let mut copy = browser.clone();
    browser.follow(ticket.clone()).await;
    assert!(is_signed_in(&world, &browser, API).await);
    assert_eq!(copy.follow(ticket).await.url.as_str(), format!("{APP}/x"));
    assert_eq!((copy.cookie(API, SESSION), copy.cookie(FILES, SESSION)), (None, None));
}

#[tokio::test]
async fn s_089_what_is_for_one_host_of_a_chain_is_nothing_on_another() {
    let world = World::new().await;
    for parameter in ["pomerium_chain", "pomerium_ticket"] {
        let mut browser = world.browser();
        let there = up_to(&world, &mut browser, API, parameter).await;
        for elsewhere in [FILES, APP, AUTHN, OTHER_APP, "https://api.example.com:8443"] {
            let moved = Url::parse(&there.as_str().replacen(API, elsewhere, 1)).unwrap();
            let page = browser.get(&moved).await;
            if elsewhere.ends_with("com:8443") {
                page.is_refused(404, "not-found");
            } else {
                page.is_refused(400, "ticket-unreadable");
            }
            assert!(page.set_cookies.is_empty() && page.location().is_none(), "{moved}");
        }
        let renamed = ["pomerium_chain", "pomerium_ticket"].into_iter().find(|other| *other != parameter).unwrap();
        let renamed = Url::parse(&there.as_str().replacen(parameter, renamed, 1)).unwrap();
        browser.get(&renamed).await.is_refused(400, "ticket-unreadable");
        let (mut damaged, at) = (there.to_string(), there.as_str().len() - 20);
        let changed = if damaged.as_bytes()[at] == b'A' { "B" } else { "A" };
        damaged.replace_range(at..=at, changed);
        browser.get(&Url::parse(&damaged).unwrap()).await.is_refused(400, "ticket-unreadable");
        assert_eq!(browser.follow(there).await.url.as_str(), format!("{APP}/x"), "none of that has spent it");
        assert!(is_signed_in(&world, &browser, API).await);
    }
}

#[tokio::test]
async fn s_086_an_altered_list_is_refused_and_foreign_hosts_are_never_led_to() {
    let world = World::new().await;
    let mut browser = world.browser();
    let there = world.send_through(&mut browser, &format!("{APP}/x"), &BOTH);
    let altered = Url::parse(&there.as_str().replacen("api.example.com", "evil.example", 1)).unwrap();
    assert_ne!(altered, there);
    browser.get(&altered).await.is_refused(400, "sign-in-not-signed");
    let hosts = ["evil.example", "auth.example.com", "user@api.example.com", "wiki.example.com/x?", "api.example.com"];
    let there = world.send_through(&mut browser, &format!("{APP}/x"), &hosts);
    let page = browser.follow(there).await;
    let start = page.refresh().unwrap();
    let arrived = browser.follow(start).await;
    assert_eq!(arrived.url.as_str(), format!("{APP}/x"));
    let led_to: Vec<_> = callbacks(&arrived.trail).into_iter().map(|(host, _)| host).collect();
    assert_eq!(led_to, ["api.example.com", "auth.example.com", "api.example.com"]);
    assert!(is_signed_in(&world, &browser, API).await);
    let mut browser = world.browser();
    let nowhere = world.send_through(&mut browser, &format!("{APP}/x"), &["evil.example"]);
    assert_eq!(browser.follow(nowhere).await.url.as_str(), format!("{APP}/x"), "and nobody is kept out by that");
}

#[tokio::test]
async fn a_host_that_is_of_no_route_any_more_is_left_out_on_the_way() {
    for parameter in ["pomerium_chain", "pomerium_ticket"] {
        let world = World::new().await;
        let mut browser = world.browser();
        let there = up_to(&world, &mut browser, API, parameter).await;
        let config = AuthnConfig { hosts: Arc::new(Hosts(&[APP, API])), ..world.config.clone() };
        world.authn.reload(config).unwrap();
        assert_eq!(browser.follow(there).await.url.as_str(), format!("{APP}/x"), "{parameter}");
        assert!(is_signed_in(&world, &browser, API).await);
        assert_eq!(browser.cookie(FILES, SESSION), None);
    }
}

#[tokio::test]
async fn a_page_that_is_of_no_route_any_more_is_not_led_to() {
    for parameter in ["pomerium_chain", "pomerium_ticket"] {
        let world = World::new().await;
        let mut browser = world.browser();
        let there = up_to(&world, &mut browser, API, parameter).await;
        let config = AuthnConfig { hosts: Arc::new(Hosts(&[API])), ..world.config.clone() };
        world.authn.reload(config).unwrap();
        let page = browser.get(&there).await;
        page.is_refused(400, "redirect-not-allowed");
        assert!(page.location().is_none() && page.set_cookies.is_empty() && !page.body.contains("app.example.com"));
    }
}

#[tokio::test]
async fn a_chain_that_takes_too_long_ends_at_the_page() {
    let world = World::new().await;
    let past = now().minus(Duration::from_secs(1)).as_millis();
    for (app, parameter, context, seconds) in [
        (API, "pomerium_chain", format!("chain {API}"), 120),
        (AUTHN, "pomerium_chain", format!("chain {AUTHN}"), 120),
        (API, "pomerium_ticket", API.to_owned(), 60),
    ] {
        let mut browser = world.browser();
        let there = up_to(&world, &mut browser, app, parameter).await;
        let old = resealed(&world, &there, &context, |inside| {
            let left = inside["expires"].as_i64().unwrap() - now().as_millis();
            assert!(left <= seconds * 1000 && left > (seconds - 30) * 1000, "{parameter}: {left}");
            inside["expires"] = past.into();
        });
        assert_eq!(browser.follow(old).await.url.as_str(), format!("{APP}/x"));
        assert_eq!(browser.cookie(API, SESSION), None, "{app} {parameter}");
        assert!(is_signed_in(&world, &browser, APP).await);
    }
}

#[tokio::test]
async fn s_082_what_is_sealed_for_a_host_is_no_credential() {
    let world = World::new().await;
    let mut browser = world.browser();
    let there = up_to(&world, &mut browser, API, "pomerium_chain").await;
    resealed(&world, &there, &format!("chain {API}"), |inside| {
        let names = |value: &Value| {
            let mut names: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
            names.sort();
            names
        };
        assert_eq!(names(inside), ["expires", "redirect_uri", "step"]);
        assert_eq!(names(&inside["step"]["Begin"]["way"]), ["hosts", "session"]);
        let session = session_at(&world, &browser, APP).unwrap();
        let named: Vec<u8> = serde_json::from_value(inside["step"]["Begin"]["way"]["session"].clone()).unwrap();
        assert_eq!(named, session.handle(&world.keyring).as_bytes(), "its name in the store, and not the id");
    });
}

#[tokio::test]
async fn further_hosts_get_the_session_that_the_page_has_or_none() {
    let world = World::new().await;
    let mut browser = world.browser();
    let hand_over = up_to(&world, &mut browser, AUTHN, "pomerium_chain").await;
    let of_the_page = session_at(&world, &browser, APP);
    browser.forget(AUTHN);
    world.sign_in(&mut browser, OTHER_APP).await;
    assert_ne!(session_at(&world, &browser, OTHER_APP), of_the_page, "in another tab, as somebody else");
    assert_eq!(browser.follow(hand_over).await.url.as_str(), format!("{APP}/x"));
    assert_eq!((browser.cookie(API, SESSION), session_at(&world, &browser, APP)), (None, of_the_page));
}

#[tokio::test]
async fn r_023_a_step_that_names_no_session_ends_at_the_page() {
    let world = World::new().await;
    let mut browser = world.browser();
    let hand_over = up_to(&world, &mut browser, AUTHN, "pomerium_chain").await;
    let old = resealed(&world, &hand_over, &format!("chain {AUTHN}"), |inside| {
        inside["step"]["HandOver"]["way"].as_object_mut().unwrap().remove("session").unwrap();
    });
    assert_eq!(browser.follow(old).await.url.as_str(), format!("{APP}/x"));
    assert_eq!(browser.cookie(API, SESSION), None);
    browser.follow(hand_over).await;
    assert!(is_signed_in(&world, &browser, API).await, "the same with it");
}

/// From now on this browser comes from an address that has used up its tries, for a tenth of a second.
async fn hurried(browser: &mut Browser) {
    browser.client_address = "192.0.2.66".into();
    let sign_in = Url::parse(&format!("{AUTHN}/.pomerium/sign_in")).unwrap();
    let mut tries = 0;
    while browser.get(&sign_in).await.status.as_u16() != 429 {
        tries += 1;
        assert!(tries < 500, "the tries are never used up");
    }
}

#[tokio::test]
async fn who_comes_too_often_on_the_way_goes_on_to_the_page() {
    for same_site in [SameSite::Lax, SameSite::Strict] {
        let world = World::with(|config| config.cookie.same_site = same_site).await;
        for (app, parameter) in [(API, "pomerium_chain"), (AUTHN, "pomerium_chain"), (API, "pomerium_ticket")] {
            let mut was_hurried = false;
            for _ in 0..20 {
                let mut browser = world.browser();
                let there = up_to(&world, &mut browser, app, parameter).await;
                hurried(&mut browser).await;
                let page = browser.follow(there).await;
                let arrived = page.refresh().unwrap_or(page.url);
                assert_eq!(arrived.as_str(), format!("{APP}/x"), "{same_site:?} {app} {parameter}");
                was_hurried = browser.cookie(API, SESSION).is_none();
                if was_hurried {
                    break;
                }
            }
            assert!(was_hurried, "{app} {parameter}");
        }
    }
}

#[tokio::test]
async fn who_comes_too_often_with_what_is_no_step_is_told_so() {
    let world = World::new().await;
    let (mut browser, mut urls) = (world.browser(), Vec::new());
    for (app, parameter) in [(API, "pomerium_chain"), (API, "pomerium_ticket")] {
        let there = up_to(&world, &mut world.browser(), app, parameter).await;
        let forged = Url::parse(&there.as_str().replacen("=A", "=B", 1)).unwrap();
        assert_ne!(forged, there);
        urls.push(forged);
    }
    urls.push(up_to(&world, &mut world.browser(), APP, "pomerium_ticket").await);
    browser.client_address = "192.0.2.66".into();
    for url in urls {
        let mut tries = 0;
        while browser.get(&url).await.status.as_u16() != 429 {
            tries += 1;
            assert!(tries < 500, "{url}");
        }
    }
}

#[tokio::test]
async fn a_reload_in_the_middle_goes_on_or_ends_at_the_page() {
    let world = World::new().await;
    for (app, parameter, goes_on) in
        [(API, "pomerium_chain", true), (AUTHN, "pomerium_chain", true), (API, "pomerium_ticket", false)]
    {
        let mut browser = world.browser();
        let there = up_to(&world, &mut browser, app, parameter).await;
        browser.get(&there).await;
        browser.jar.get_mut("api.example.com").unwrap().remove(SESSION);
        assert_eq!(browser.follow(there).await.url.as_str(), format!("{APP}/x"));
        assert_eq!(is_signed_in(&world, &browser, API).await, goes_on, "{app} {parameter}");
    }
}

#[tokio::test]
async fn a_host_that_keeps_no_cookies_keeps_nobody_from_the_page() {
    let world = World::new().await;
    let mut browser = world.browser();
    let ticket = up_to(&world, &mut browser, API, "pomerium_ticket").await;
    browser.forget(API);
    assert_eq!(browser.follow(ticket).await.url.as_str(), format!("{APP}/x"));
    assert!(is_signed_in(&world, &browser, APP).await);
    let hand_over = up_to(&world, &mut browser, AUTHN, "pomerium_chain").await;
    browser.forget(AUTHN);
    assert_eq!(browser.follow(hand_over).await.url.as_str(), format!("{APP}/x"));
}

#[tokio::test]
async fn r_010_a_store_that_is_away_ends_a_chain_at_the_page() {
    for (app, parameter) in [(API, "pomerium_ticket"), (AUTHN, "pomerium_chain")] {
        let folder = tempfile::tempdir().unwrap();
        let world = World::on_a_file(&folder).await;
        let mut browser = world.browser();
        let there = up_to(&world, &mut browser, app, parameter).await;
        world.close_the_store().await;
        assert_eq!(browser.follow(there).await.url.as_str(), format!("{APP}/x"), "{app}");
        assert_eq!(browser.cookie(API, SESSION), None);
    }
}

#[tokio::test]
async fn a_strict_cookie_comes_along_from_the_last_host_to_the_page() {
    let world = World::with(|config| config.cookie.same_site = SameSite::Strict).await;
    let mut browser = world.browser();
    let there = world.send_through(&mut browser, &format!("{APP}/x"), &BOTH);
    let page = browser.follow(there).await;
    assert_eq!((page.url.origin(), page.status.as_u16()), (Url::parse(APP).unwrap().origin(), 200));
    assert_eq!(page.refresh().unwrap().as_str(), format!("{APP}/x"), "a navigation that begins on the page's own host");
    assert!(!page.headers.contains_key("cross-origin-opener-policy"), "a pop-up keeps its opener");
    for app in [APP, API, FILES] {
        assert!(is_signed_in(&world, &browser, app).await, "{app}");
    }
    for app in [API, APP] {
        // A ticket that is still good, of a browser that began elsewhere, is never where a page could read it.
        let ticket = up_to(&world, &mut world.browser(), app, "pomerium_ticket").await;
        let answer = browser.get(&ticket).await;
        let onward = answer.location().unwrap();
        assert!(onward.as_str().starts_with(&format!("{APP}/.pomerium/callback/?pomerium_chain=")), "{onward}");
        assert!(answer.refresh().is_none());
    }
    let ticket = up_to(&world, &mut browser, API, "pomerium_ticket").await;
    browser.forget(API);
    let page = browser.follow(ticket).await;
    assert_eq!(
        (page.url.origin(), page.refresh().map(String::from)),
        (Url::parse(APP).unwrap().origin(), Some(format!("{APP}/x")))
    );
}

#[tokio::test]
async fn the_way_to_many_hosts_begins_on_a_page_so_that_no_browser_gives_up() {
    let world = World::new().await;
    let mut browser = world.browser();
    let hosts = ["api.example.com", "files.example.net:8443", "wiki.example.com"];
    let there = world.send_through(&mut browser, &format!("{APP}/x"), &hosts);
    let page = browser.follow(there).await;
    assert!(is_signed_in(&world, &browser, APP).await, "already");
    assert!(!page.headers.contains_key("cross-origin-opener-policy"));
    let start = page.refresh().unwrap();
    let arrived = browser.follow(start).await;
    assert_eq!((arrived.url.as_str(), arrived.trail.len()), (format!("{APP}/x").as_str(), 3 * hosts.len() + 1));
    for app in [API, FILES, OTHER_APP] {
        assert!(is_signed_in(&world, &browser, app).await, "{app}");
    }
}

#[tokio::test]
async fn a_circle_through_further_hosts_is_noticed_though_each_round_takes_longer() {
    const ROUNDS: &str = "__Host-_pomerium_rounds";
    let older = |round: &str| {
        let (target, at) = round.split_once('.').unwrap();
        format!("{target}.{}", at.parse::<i64>().unwrap() - 40)
    };
    for (hosts, is_circle) in [(&BOTH[..], true), (&[], false)] {
        let world = World::new().await;
        let mut browser = world.browser();
        for _ in 0..2 {
            round(&world, &mut browser, hosts).await;
        }
        let rounds = browser.jar.get_mut("auth.example.com").unwrap().get_mut(ROUNDS).unwrap();
        *rounds = rounds.split(':').map(older).collect::<Vec<_>>().join(":");
        // By way of no further host: that makes nothing of the others forgotten.
        let elsewhere = world.send_through(&mut browser, &format!("{OTHER_APP}/y"), &[]);
        browser.follow(elsewhere).await;
        let last = round(&world, &mut browser, hosts).await;
        if is_circle {
            last.is_refused(400, "sign-in-loop");
        } else {
            assert_eq!(last.url.as_str(), format!("{APP}/x"), "they were 40 s ago");
        }
    }
}

/// Through these hosts to an application whose cookies are lost on the way.
async fn round(world: &World, browser: &mut Browser, hosts: &[&str]) -> Arrived {
    let there = world.send_through(browser, &format!("{APP}/x"), hosts);
    browser.forget(APP);
    let arrived = browser.follow(there).await;
    browser.forget(APP);
    arrived
}

#[tokio::test]
async fn a_program_is_led_nowhere() {
    let world = World::new().await;
    let mut browser = world.browser();
    let request = SignInRequest {
        redirect_uri: Url::parse("http://127.0.0.1:39000/done").unwrap(),
        idp: IdpId::new("main"),
        recipient: Recipient::Program { door: Url::parse(&format!("{APP}/.pomerium/callback/")).unwrap() },
        restarted: false,
        additional_hosts: BOTH.map(str::to_owned).to_vec(),
    };
    let sign_in = Url::parse(&format!("{AUTHN}/.pomerium/sign_in")).unwrap();
    let there = request.to_url(&world.keyring, sign_in, now());
    let there = browser.follow_until(there, "http://127.0.0.1:39000/done").await;
    assert!(there.as_str().contains("pomerium_jwt="));
    for app in [APP, API, FILES] {
        assert_eq!(browser.cookie_names(app, ""), [""; 0], "{app}");
    }
}

#[tokio::test]
async fn a_long_address_comes_back_before_the_hosts_do_and_they_before_none_of_it() {
    let world = World::new().await;
    let long = ["b", "c", "d", "e"].map(|letter| format!("{}.example.com", letter.repeat(240)));
    let mut hosts = vec![BOTH[0]];
    hosts.extend(long.iter().map(String::as_str));
    let mut browser = world.browser();
    let whole = format!("{APP}/page?q={}", "x".repeat(1900));
    let there = world.send_through(&mut browser, &whole, &hosts);
    assert_eq!(browser.follow(there).await.url.as_str(), whole);
    assert_eq!(browser.cookie(API, SESSION), None);
    let mut browser = world.browser();
    let there = world.send_through(&mut browser, &format!("{APP}/page?q={}", "x".repeat(5000)), &BOTH);
    assert_eq!(browser.follow(there).await.url.as_str(), format!("{APP}/page"));
    assert!(is_signed_in(&world, &browser, API).await);
}
