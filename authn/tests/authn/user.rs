//! The user's own page.

use url::Url;

use crate::support::{APP, AUTHN, OTHER_APP, World};

fn home(origin: &str) -> Url {
    Url::parse(&format!("{origin}/.pomerium/")).unwrap()
}

#[tokio::test]
async fn s_094_the_page_shows_who_you_are_and_neither_token_nor_cookie() {
    let world = World::new().await;
    let mut browser = world.browser();
    world.sign_in(&mut browser, APP).await;
    for origin in [APP, AUTHN] {
        let page = browser.get(&home(origin)).await;
        assert_eq!(page.status, 200);
        for shown in ["alice@example.com", "admins", "Alice &#60;b&#62;", &world.provider.issuer] {
            assert!(page.body.contains(shown), "{shown} in {}", page.body);
        }
        assert!(!page.body.contains("marked") && !page.body.contains("eyJ"));
        for (_, value) in browser.cookies(&home(origin)).split("; ").filter_map(|pair| pair.split_once('=')) {
            assert!(!page.body.contains(value));
        }
    }
}

#[tokio::test]
async fn s_094_the_page_needs_a_session_of_that_host() {
    let world = World::new().await;
    let mut browser = world.browser();
    world.sign_in(&mut browser, APP).await;
    let page = browser.get(&home(OTHER_APP)).await;
    assert_eq!(page.status, 401);
    assert!(!page.body.contains("alice"));
}

#[tokio::test]
async fn s_094_scripts_of_an_application_cannot_read_the_page() {
    let world = World::new().await;
    let mut browser = world.browser();
    world.sign_in(&mut browser, APP).await;
    for by_script in [
        ("sec-fetch-mode", "cors"),
        ("sec-fetch-mode", "same-origin"),
        ("sec-fetch-dest", "iframe"),
        ("sec-fetch-dest", "empty"),
    ] {
        let page = browser.get_with(&home(APP), &[by_script]).await;
        page.is_refused(403, "not-for-scripts");
        assert!(!page.body.contains("alice"));
    }
    let page = browser.get_with(&home(APP), &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")]).await;
    assert_eq!(page.status, 200);
    for (name, value) in [
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("x-frame-options", "DENY"),
    ] {
        assert_eq!(page.headers[name], value);
    }
    assert!(!page.headers.contains_key("access-control-allow-origin"));
}
