//! The provider's keys change, go away, and are asked for by storms.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{APP, Script, World};

#[tokio::test]
async fn s_073_a_rotated_key_works_on_the_first_sign_in_that_meets_it() {
    let world = World::new().await;
    world.sign_in(&mut world.browser(), APP).await;
    world.provider.rotate("key-2");
    let arrived = world.sign_in(&mut world.browser(), APP).await;
    assert_eq!(arrived.url.as_str(), format!("{APP}/"), "{}", arrived.body);
    assert_eq!(world.provider.seen(|seen| seen.key_fetches), 2);
}

#[tokio::test]
async fn s_072_the_key_set_is_fetched_once_for_many_sign_ins() {
    let world = World::new().await;
    for _ in 0..5 {
        world.sign_in(&mut world.browser(), APP).await;
    }
    assert_eq!(world.provider.seen(|seen| (seen.discoveries, seen.key_fetches)), (1, 1));
}

#[tokio::test]
async fn s_072_a_storm_of_unknown_kids_causes_one_fetch() {
    let world = World::new().await;
    world.sign_in(&mut world.browser(), APP).await;
    world.provider.does(Script { header: Box::new(|header| header["kid"] = json!("unknown")), ..Script::default() });
    let begun = Instant::now();
    let mut storm = tokio::task::JoinSet::new();
    for n in 0..20 {
        let mut browser = world.browser();
        browser.client_address = format!("198.51.100.{n}");
        let there = world.send_to_sign_in(&mut browser, APP);
        storm.spawn(async move { browser.follow(there).await });
    }
    for arrived in storm.join_all().await {
        arrived.is_refused(502, "id-token-key-unknown");
    }
    if begun.elapsed() < Duration::from_secs(5) {
        assert_eq!(world.provider.seen(|seen| seen.key_fetches), 2, "one for the first sign-in, one for the storm");
    }
    assert_eq!(world.live_sessions().await.len(), 1);
}

#[tokio::test]
async fn s_072_a_failed_fetch_keeps_the_old_set() {
    let world = World::new().await;
    world.sign_in(&mut world.browser(), APP).await;
    let gone = || axum::response::IntoResponse::into_response(http::StatusCode::INTERNAL_SERVER_ERROR);
    world.provider.does(Script {
        header: Box::new(|header| header["kid"] = json!("unknown")),
        keys_response: Some(Box::new(gone)),
        ..Script::default()
    });
    world.sign_in(&mut world.browser(), APP).await.is_refused(502, "id-token-key-unknown");
    world.provider.does(Script { keys_response: Some(Box::new(gone)), ..Script::default() });
    let arrived = world.sign_in(&mut world.browser(), APP).await;
    assert_eq!(arrived.url.as_str(), format!("{APP}/"));
}

#[tokio::test]
async fn s_072_a_withdrawn_key_stops_working_when_the_set_was_fetched_anew() {
    let world = World::new().await;
    world.sign_in(&mut world.browser(), APP).await;
    let old = world.provider.jwk();
    world.provider.does(Script {
        keys: Box::new(move |set| {
            let mut renamed = old.clone();
            renamed["kid"] = json!("key-2");
            set["keys"] = json!([renamed]);
        }),
        header: Box::new(|header| header["kid"] = json!("key-2")),
        ..Script::default()
    });
    assert_eq!(world.sign_in(&mut world.browser(), APP).await.url.as_str(), format!("{APP}/"), "fetched anew");
    world.provider.does(Script { keys: Box::new(|set| set["keys"] = json!([])), ..Script::default() });
    world.sign_in(&mut world.browser(), APP).await.is_refused(502, "id-token-key-unknown");
}
