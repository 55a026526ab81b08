//! What a refresh changes, what ends a session, and what does not.

use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse as _, Redirect, Response};
use http::StatusCode;
use postern_identity::{ClaimMap, ClaimValues, Session, SessionCookie, SessionHandle, Timestamp, Tokens};
use postern_servers::Redis;
use postern_storage::{Cached, Loaded, Lookup};
use serde_json::{Value, json};

use crate::support::{APP, AUTHN, Script, World, base64, log, now};

/// Access tokens live for a minute, so that a refresh is due within it.
fn short_lived() -> Script {
    changed(|_| {})
}

/// As above, and the claims of the ID token are changed.
fn changed(claims: impl Fn(&mut Value) + Send + Sync + 'static) -> Script {
    Script {
        token_answer: Box::new(|answer| answer["expires_in"] = json!(60)),
        claims: Box::new(claims),
        ..Script::default()
    }
}

fn answers(response: impl Fn() -> Response + Send + Sync + 'static) -> Script {
    Script { refresh_response: Some(Box::new(response)), ..short_lived() }
}

fn error(status: u16, code: &'static str) -> Script {
    answers(move || (StatusCode::from_u16(status).unwrap(), axum::Json(json!({"error": code}))).into_response())
}

/// A deployment with one session.
async fn signed_in(script: Script) -> World {
    let world = World::new().await;
    world.provider.does(script);
    world.sign_in(&mut world.browser(), APP).await;
    assert_eq!(world.live_sessions().await.len(), 1);
    world
}

/// When the first refresh is due, whatever the share of the minute; and the ones after it.
fn round(number: u32) -> Timestamp {
    now().plus(Duration::from_secs(55) * number)
}

async fn session(world: &World) -> Option<Arc<Session>> {
    let line = world.live_sessions().await.into_iter().next()?;
    match world.sessions.load(&line.handle, now()).await.unwrap() {
        Lookup::Found(session) => Some(session),
        Lookup::Revoked | Lookup::Unknown => None,
    }
}

async fn tokens(world: &World) -> Tokens {
    let session = session(world).await.expect("a session");
    world.sessions.tokens(&session.handle).await.unwrap().expect("tokens")
}

fn refreshes(world: &World) -> Vec<String> {
    world.provider.seen(|seen| seen.refreshes.clone())
}

#[tokio::test]
async fn nothing_is_refreshed_before_it_is_due() {
    let world = signed_in(short_lived()).await;
    world.authn.refresh_due(now().plus(Duration::from_secs(35))).await;
    assert_eq!(refreshes(&world).len(), 0);
    world.authn.refresh_due(round(1)).await;
    assert_eq!(refreshes(&world), ["refresh-token-marked-1"]);
    world.authn.refresh_due(round(1)).await;
    assert_eq!(refreshes(&world).len(), 1, "once is enough");
    assert_eq!(world.counted("postern_authn_refreshes_total", "ok"), 1.0);
}

#[tokio::test]
async fn s_078_a_changed_claim_takes_effect_at_the_edge_at_the_next_refresh() {
    let world = World::new().await;
    world.provider.does(short_lived());
    let mut browser = world.browser();
    world.sign_in(&mut browser, APP).await;
    let cookie = browser.cookie(AUTHN, "_pomerium_authenticate").unwrap();
    let id = SessionCookie::open(&world.keyring, "auth.example.com", cookie.as_bytes()).unwrap();
    let cache = world.cache();
    let Loaded::Found(before) = cache.load(&id, now(), Duration::ZERO).await.unwrap() else { panic!("not found") };
    let values = |claims: ClaimMap<'_>, name| claims.values(name).map(ClaimValues::to_json);
    assert_eq!(values(before.session.user_claims(), "groups"), Some(json!(["admins"])));

    world.provider.does(Script {
        userinfo: Box::new(|answer| answer["email"] = json!("new@example.com")),
        ..changed(|claims| {
            claims.as_object_mut().unwrap().remove("groups");
            claims["department"] = json!("sales");
        })
    });
    world.authn.refresh_due(round(1)).await;
    assert!(matches!(cache.get(&id, now(), Duration::ZERO), Cached::Miss), "what was near is old");
    let Loaded::Found(after) = cache.load(&id, now(), Duration::ZERO).await.unwrap() else { panic!("not found") };
    let (old, new) = (&before.session, &after.session);
    assert!(new.claim("groups").is_none(), "policy never uses claims of an older sign-in");
    assert_eq!(values(new.claims(), "department"), Some(json!(["sales"])));
    assert_eq!(new.email(), Some("new@example.com"));
    assert_eq!(new.user_id(), old.user_id());
    assert_eq!(values(new.claims(), "iat"), values(old.claims(), "iat"), "the sign-in was when it was");
    let (old, now) = (&before.session, &after.session);
    assert_eq!((now.issued_at, now.expires_at), (old.issued_at, old.expires_at));
    assert!(now.generation > old.generation);
}

#[tokio::test]
async fn an_id_token_that_does_not_come_leaves_the_old_one() {
    let world = signed_in(short_lived()).await;
    let before = tokens(&world).await.id_token.expose().clone();
    world.provider.does(Script {
        token_answer: Box::new(|answer| drop(answer.as_object_mut().unwrap().remove("id_token"))),
        userinfo: Box::new(|answer| answer["name"] = json!("Alice Renamed")),
        ..Script::default()
    });
    world.authn.refresh_due(round(1)).await;
    assert_eq!(tokens(&world).await.id_token.expose(), &before);
    let session = session(&world).await.unwrap();
    assert_eq!(session.user.name.as_deref(), Some("Alice Renamed"));
    assert_eq!(session.user.claims.find("groups"), Some(&[json!("admins")][..]), "of the old ID token");
}

#[tokio::test]
async fn s_076_each_refresh_uses_the_refresh_token_that_the_last_one_brought() {
    let world = signed_in(Script { rotates: true, ..short_lived() }).await;
    for number in 1..4 {
        world.authn.refresh_due(round(number)).await;
    }
    let used = refreshes(&world);
    assert_eq!(used, ["refresh-token-marked-1", "refresh-token-marked-2", "refresh-token-marked-3"]);
    assert!(session(&world).await.is_some());
}

#[tokio::test]
async fn s_076_a_rotated_refresh_token_is_saved_although_userinfo_fails() {
    let world = signed_in(short_lived()).await;
    world.provider.does(Script {
        rotates: true,
        userinfo_response: Some(Box::new(|| StatusCode::BAD_GATEWAY.into_response())),
        ..changed(|claims| claims["groups"] = json!(["changed"]))
    });
    world.authn.refresh_due(round(1)).await;
    assert_eq!(tokens(&world).await.refresh.unwrap().expose(), "refresh-token-marked-2");
    let session_now = session(&world).await.unwrap();
    assert_eq!(session_now.claims.find("groups"), Some(&[json!("changed")][..]), "what was vouched for is believed");
    assert_eq!(session_now.user.email.as_deref(), Some("alice@example.com"));
    world.provider.does(Script { rotates: true, ..changed(|claims| claims["groups"] = json!(["changed"])) });
    world.authn.refresh_due(round(2)).await;
    assert_eq!(refreshes(&world), ["refresh-token-marked-1", "refresh-token-marked-2"]);
    assert_eq!(session(&world).await.unwrap().user.claims.find("groups"), Some(&[json!("changed")][..]));
}

#[tokio::test]
async fn s_076_a_refresh_that_the_provider_refuses_ends_the_session() {
    for (status, code) in [(400, "invalid_grant"), (401, "invalid_grant"), (400, "interaction_required")] {
        let world = signed_in(short_lived()).await;
        world.provider.does(error(status, code));
        world.authn.refresh_due(round(1)).await;
        assert!(session(&world).await.is_none(), "{status} {code}");
        assert_eq!(world.counted("postern_authn_refreshes_total", "idp-grant-refused"), 1.0);
    }
}

#[tokio::test]
async fn s_076_a_refresh_token_that_somebody_else_used_ends_the_session() {
    let world = signed_in(Script { rotates: true, ..short_lived() }).await;
    world.authn.refresh_due(round(1)).await;
    world.provider.revoke_grants();
    world.authn.refresh_due(round(2)).await;
    assert!(session(&world).await.is_none());
    world.authn.refresh_due(round(9)).await;
    assert_eq!(refreshes(&world).len(), 2, "what has ended is not asked for again");
}

#[tokio::test]
async fn r_012_a_provider_that_is_away_or_in_trouble_ends_no_session_and_is_asked_again() {
    let faults = [
        ("500", answers(|| StatusCode::INTERNAL_SERVER_ERROR.into_response())),
        ("429", answers(|| StatusCode::TOO_MANY_REQUESTS.into_response())),
        ("a refusal in a 503", error(503, "invalid_grant")),
        ("invalid_client", error(401, "invalid_client")),
        ("unauthorized_client", error(400, "unauthorized_client")),
        ("server_error", error(400, "server_error")),
        ("no JSON", answers(|| "<html>".into_response())),
        ("a redirect", answers(|| Redirect::to("/login").into_response())),
        ("an answer that does not end", answers(endless)),
    ];
    for (what, script) in faults {
        let world = signed_in(short_lived()).await;
        let before = session(&world).await.unwrap();
        world.provider.does(script);
        world.authn.refresh_due(round(1)).await;
        assert_eq!(refreshes(&world).len(), 1, "{what}: not in a loop");
        assert_eq!(session(&world).await.as_ref(), Some(&before), "{what}");
        world.authn.refresh_due(round(1)).await;
        assert_eq!(refreshes(&world).len(), 1, "{what}: not at once");
        world.provider.does(short_lived());
        world.authn.refresh_due(round(2)).await;
        assert_eq!(refreshes(&world).len(), 2, "{what}: again");
        assert_eq!(world.counted("postern_authn_refreshes_total", "ok"), 1.0, "{what}");
    }
}

#[tokio::test]
async fn r_012_a_provider_whose_discovery_fails_ends_no_session() {
    let world = signed_in(short_lived()).await;
    let gone = Script { discovery_response: Some(Box::new(|| StatusCode::NOT_FOUND.into_response())), ..short_lived() };
    world.provider.does(gone);
    let elsewhere = world.other_authn();
    elsewhere.refresh_due(round(1)).await;
    assert!(session(&world).await.is_some());
    assert_eq!(refreshes(&world).len(), 0);
}

#[tokio::test]
async fn a_provider_that_is_configured_no_more_ends_no_session_by_itself() {
    let world = signed_in(short_lived()).await;
    let mut config = world.config.clone();
    config.idps = vec![crate::support::idp("other", &world.provider.issuer)];
    world.authn.reload(config).unwrap();
    world.authn.refresh_due(round(1)).await;
    assert!(session(&world).await.is_some());
    world.authn.reload(world.config.clone()).unwrap();
    world.authn.refresh_due(round(2)).await;
    assert_eq!(refreshes(&world).len(), 1);
}

#[tokio::test]
async fn s_075_an_id_token_of_or_for_somebody_else_ends_the_session() {
    let others: [(&str, Script); 5] = [
        ("id-token-subject", changed(|claims| claims["sub"] = json!("mallory"))),
        ("id-token-issuer", changed(|claims| claims["iss"] = json!("https://evil.example"))),
        ("id-token-audience", changed(|claims| claims["aud"] = json!("another"))),
        (
            "id-token-audience",
            changed(|claims| {
                claims["aud"] = json!(["postern", "another"]);
                claims["azp"] = json!("postern");
            }),
        ),
        ("userinfo-subject", Script { userinfo: Box::new(|answer| answer["sub"] = json!("mallory")), ..short_lived() }),
    ];
    for (reason, script) in others {
        let world = signed_in(short_lived()).await;
        world.provider.does(script);
        world.authn.refresh_due(round(1)).await;
        assert!(session(&world).await.is_none(), "{reason}");
        assert_eq!(world.counted("postern_authn_refreshes_total", reason), 1.0, "{reason}");
    }
}

#[tokio::test]
async fn s_075_an_id_token_that_no_key_vouches_for_changes_nothing_but_the_tokens() {
    let forged = || Script {
        rotates: true,
        token: Box::new(|token| {
            let (signed, _) = token.rsplit_once('.').unwrap();
            *token = format!("{signed}.{}", base64([7; 64]));
        }),
        ..changed(|claims| claims["groups"] = json!(["root"]))
    };
    let world = signed_in(short_lived()).await;
    let before = (session(&world).await.unwrap(), tokens(&world).await);
    world.provider.does(forged());
    world.authn.refresh_due(round(1)).await;
    let after = (session(&world).await.unwrap(), tokens(&world).await);
    assert_eq!((&after.0.claims, &after.0.user), (&before.0.claims, &before.0.user));
    assert_eq!(after.1.id_token.expose(), before.1.id_token.expose());
    assert_eq!(after.1.refresh.unwrap().expose(), "refresh-token-marked-2");
    assert_eq!(world.counted("postern_authn_refreshes_total", "id-token-signature"), 1.0);
}

#[tokio::test]
async fn r_026_s_076_however_many_look_each_session_is_refreshed_once() {
    let world = World::new().await;
    world.provider.does(Script { rotates: true, ..short_lived() });
    for _ in 0..12 {
        world.sign_in(&mut world.browser(), APP).await;
    }
    let (second, third, due) = (world.other_authn(), world.other_authn(), round(1));
    tokio::join!(
        world.authn.refresh_due(due),
        world.authn.refresh_due(due),
        second.refresh_due(due),
        third.refresh_due(due),
    );
    let mut used = refreshes(&world);
    assert_eq!(used.len(), 12);
    used.sort();
    used.dedup();
    assert_eq!(used.len(), 12);
    assert_eq!(world.live_sessions().await.len(), 12, "nobody was signed out");
}

#[tokio::test]
async fn a_session_without_a_refresh_token_lives_to_its_own_end() {
    let world = signed_in(Script {
        token_answer: Box::new(|answer| {
            answer["expires_in"] = json!(60);
            answer.as_object_mut().unwrap().remove("refresh_token");
        }),
        ..Script::default()
    })
    .await;
    world.authn.refresh_due(now().plus(Duration::from_secs(13 * 3600))).await;
    assert_eq!(refreshes(&world).len(), 0);
    assert!(session(&world).await.is_some());
}

#[tokio::test]
async fn s_084_a_session_that_was_signed_out_is_not_refreshed() {
    let world = signed_in(short_lived()).await;
    let handle = session(&world).await.unwrap().handle;
    world.sessions.revoke(&handle).await.unwrap();
    world.authn.refresh_due(round(1)).await;
    assert_eq!(refreshes(&world).len(), 0);
}

#[tokio::test]
async fn s_108_no_refresh_logs_a_token() {
    let world = signed_in(Script { rotates: true, ..short_lived() }).await;
    world.authn.refresh_due(round(1)).await;
    world.provider.does(error(400, "invalid_grant"));
    world.authn.refresh_due(round(2)).await;
    assert!(log().contains("session ended by its provider"));
    assert!(!log().contains("token-marked"));
}

#[tokio::test]
async fn the_task_ends_with_its_server_and_finishes_what_it_began() {
    let world = signed_in(short_lived()).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let task = tokio::spawn({
        let (authn, stop) = (world.authn.clone(), stop.clone());
        async move { authn.refresh(stop).await }
    });
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(10), task).await.expect("it ends").unwrap();
    assert!(session(&world).await.is_some());
}

/// Somebody else's hand in what the provider does just before it answers with new tokens.
fn meanwhile(act: impl Fn() + Send + Sync + 'static) -> Script {
    Script {
        rotates: true,
        token_answer: Box::new(move |answer| {
            answer["expires_in"] = json!(60);
            act();
        }),
        ..Script::default()
    }
}

#[tokio::test]
async fn s_076_tokens_that_come_while_the_process_ends_are_saved_and_no_more_is_asked() {
    let world = signed_in(short_lived()).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let asked = world.provider.seen(|seen| seen.userinfo);
    world.provider.does(meanwhile({
        let stop = stop.clone();
        move || stop.cancel()
    }));
    make_due(&world).await;
    world.authn.refresh(stop).await;
    assert_eq!(tokens(&world).await.refresh.unwrap().expose(), "refresh-token-marked-2");
    assert_eq!(world.provider.seen(|seen| seen.userinfo), asked);
    assert_eq!(world.counted("postern_authn_refreshes_total", "interrupted"), 1.0);
    world.provider.does(Script { rotates: true, ..short_lived() });
    world.authn.refresh_due(round(2)).await;
    assert_eq!(world.provider.seen(|seen| seen.userinfo), asked + 1, "it comes up again soon");
}

#[tokio::test]
async fn r_017_a_refresh_that_waits_for_metadata_when_the_process_ends_sends_no_grant_and_leaves_it_to_another() {
    let world = signed_in(short_lived()).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let ended = stop.clone();
    // This one knows nothing of the provider yet, and learns it at the very end.
    let elsewhere = world.other_authn();
    world.provider.does(Script { metadata: Box::new(move |_| ended.cancel()), ..short_lived() });
    make_due(&world).await;
    elsewhere.refresh(stop).await;
    assert_eq!(refreshes(&world).len(), 0, "nothing is asked after the end");
    world.authn.refresh_due(now()).await;
    assert_eq!(refreshes(&world), ["refresh-token-marked-1"], "whoever is left takes it over at once");
    assert!(session(&world).await.is_some());
}

/// An answer that begins and does not end.
fn endless() -> Response {
    axum::body::Body::from_stream(futures_util::stream::pending::<std::io::Result<bytes::Bytes>>()).into_response()
}

#[tokio::test]
async fn r_017_after_the_grant_an_ending_process_waits_for_neither_keys_nor_userinfo() {
    type Answer = Box<dyn Fn() -> Response + Send + Sync>;
    type Hang = fn(Answer) -> Script;
    let hangs: [(&str, Hang); 2] = [
        ("keys", |hang| Script { keys_response: Some(hang), ..Script::default() }),
        ("userinfo", |hang| Script { userinfo_response: Some(hang), ..Script::default() }),
    ];
    for (what, script) in hangs {
        let world = signed_in(short_lived()).await;
        let stop = tokio_util::sync::CancellationToken::new();
        let ended = stop.clone();
        let hang = Box::new(move || {
            ended.cancel();
            endless()
        });
        world.provider.does(Script {
            rotates: true,
            token_answer: Box::new(|answer| answer["expires_in"] = json!(60)),
            ..script(hang)
        });
        make_due(&world).await;
        // Without keys of its own.
        let (elsewhere, begun) = (world.other_authn(), std::time::Instant::now());
        elsewhere.refresh(stop).await;
        assert!(begun.elapsed() < Duration::from_secs(7), "{what}: {:?}", begun.elapsed());
        assert_eq!(tokens(&world).await.refresh.unwrap().expose(), "refresh-token-marked-2", "{what}: saved");
        world.provider.does(Script { rotates: true, ..short_lived() });
        world.authn.refresh_due(round(9)).await;
        assert_eq!(
            refreshes(&world),
            ["refresh-token-marked-1", "refresh-token-marked-2"],
            "{what}: it comes up again"
        );
    }
}

/// The session's refresh was due a moment ago.
async fn make_due(world: &World) {
    let (session, tokens) = (session(world).await.unwrap(), tokens(world).await);
    let tokens = Tokens { refresh_at: Some(now()), ..tokens };
    world.sessions.commit(&session.handle, session.generation, &session, &tokens).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_084_tokens_that_come_after_a_sign_out_are_taken_back() {
    let world = signed_in(short_lived()).await;
    let handle = session(&world).await.unwrap().handle;
    let (sessions, runtime) = (world.sessions.clone(), tokio::runtime::Handle::current());
    world.provider.does(meanwhile(move || {
        let sessions = sessions.clone();
        let revoked = std::thread::scope(|scope| {
            scope.spawn(|| runtime.block_on(async { sessions.revoke(&handle).await })).join().unwrap()
        });
        revoked.unwrap();
    }));
    world.authn.refresh_due(round(1)).await;
    let revoked = world.provider.seen(|seen| seen.revocations.clone());
    let [(form, authorization)] = &revoked[..] else { panic!("{revoked:?}") };
    assert_eq!((form["token"].as_str(), form["token_type_hint"].as_str()), ("refresh-token-marked-2", "refresh_token"));
    assert!(authorization.as_ref().is_some_and(|value| value.starts_with("Basic ")));
    assert!(session(&world).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_084_tokens_that_were_saved_when_a_sign_out_came_are_taken_back() {
    let world = signed_in(short_lived()).await;
    let handle = session(&world).await.unwrap().handle;
    let (sessions, runtime) = (world.sessions.clone(), tokio::runtime::Handle::current());
    // The session ends while the provider is asked for the user: the new tokens are saved, and wiped again.
    world.provider.does(Script {
        userinfo: Box::new(move |_| {
            let sessions = sessions.clone();
            std::thread::scope(|scope| {
                scope.spawn(|| runtime.block_on(async { sessions.revoke(&handle).await })).join().unwrap()
            })
            .unwrap();
        }),
        ..meanwhile(|| {})
    });
    world.authn.refresh_due(round(1)).await;
    let revoked = world.provider.seen(|seen| seen.revocations.clone());
    let tokens: Vec<_> = revoked.iter().map(|(form, _)| form["token"].as_str()).collect();
    assert_eq!(tokens, ["refresh-token-marked-2"]);
    assert!(session(&world).await.is_none());
    assert_eq!(world.counted("postern_authn_refreshes_total", "overtaken"), 1.0);
}

#[tokio::test]
async fn a_provider_that_hangs_takes_no_place_of_another() {
    let world = World::new().await;
    let other = crate::support::Provider::start().await;
    let mut config = world.config.clone();
    config.idps.push(crate::support::idp("other", &other.issuer));
    world.authn.reload(config).unwrap();
    world.provider.does(short_lived());
    other.does(short_lived());
    for _ in 0..12 {
        world.sign_in(&mut world.browser(), APP).await;
    }
    let mut browser = world.browser();
    let there = world.send_to_sign_in_at(&mut browser, APP, "other", now());
    browser.follow(there).await;
    world.provider.does(answers(endless));
    let refreshing = tokio::spawn({
        let authn = world.authn.clone();
        async move { authn.refresh_due(round(1)).await }
    });
    other.until(|seen| seen.refreshes.len() == 1).await;
    world.provider.until(|seen| seen.refreshes.len() == 8).await;
    let no_place = async {
        while world.counted("postern_authn_refreshes_total", "no-place") < 4.0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(2), no_place).await.expect("the others make way");
    refreshing.abort();
    assert_eq!(refreshes(&world).len(), 8, "no more than it has places");
}

#[tokio::test]
async fn a_reload_forgets_nothing_of_a_provider_that_stays() {
    let world = signed_in(short_lived()).await;
    let before = world.provider.seen(|seen| (seen.discoveries, seen.key_fetches));
    world.authn.reload(world.config.clone()).unwrap();
    world.authn.refresh_due(round(1)).await;
    assert_eq!(refreshes(&world).len(), 1);
    assert_eq!(world.provider.seen(|seen| (seen.discoveries, seen.key_fetches)), before);
    let mut config = world.config.clone();
    config.idps[0].scopes.push("groups".into());
    world.authn.reload(config).unwrap();
    world.authn.refresh_due(round(2)).await;
    assert_eq!(world.provider.seen(|seen| seen.discoveries), before.0 + 1, "another configuration is another provider");
}

/// So many sessions whose refresh is due.
async fn many_due(world: &World, count: u16) {
    world.sign_in(&mut world.browser(), APP).await;
    let (session, tokens) = (session(world).await.unwrap(), tokens(world).await);
    for number in 0..count {
        let mut handle = [0; 32];
        handle[..2].copy_from_slice(&number.to_be_bytes());
        let session = Session { handle: SessionHandle::from_bytes(handle), ..Session::clone(&session) };
        let tokens = Tokens { refresh_at: Some(now()), ..tokens.clone() };
        world.sessions.create(&session, &tokens).await.unwrap();
    }
}

/// How often the store was written to for the sake of a claim.
fn claims_written(world: &World) -> u64 {
    let families = world.registry.gather();
    let family = families.iter().find(|family| family.name() == "postern_storage_operation_duration_seconds").unwrap();
    let is_claim =
        |metric: &&prometheus::proto::Metric| metric.get_label().iter().any(|pair| pair.value() == "postpone");
    family.get_metric().iter().filter(is_claim).map(|metric| metric.get_histogram().get_sample_count()).sum()
}

#[tokio::test]
async fn r_012_many_sessions_of_a_provider_in_trouble_cost_the_store_a_few_writes_and_are_caught_up_with_later() {
    let world = World::new().await;
    world.provider.does(short_lived());
    many_due(&world, 300).await;
    world.provider.does(answers(|| StatusCode::INTERNAL_SERVER_ERROR.into_response()));
    let begin = now().plus(Duration::from_secs(1));
    for second in 0..900 {
        world.authn.refresh_due(begin.plus(Duration::from_secs(second))).await;
    }
    // Eight at most at first, then one after each rest of 5, 10, 20, 40, 80, 160, 300 s: each is claimed and given back.
    let written = claims_written(&world);
    assert!((2 * 7..=2 * 16).contains(&written), "{written} writes in 900 s");
    assert_eq!(refreshes(&world).len() as u64 * 2, written);

    world.provider.does(short_lived());
    world.authn.refresh_due(begin.plus(Duration::from_secs(1300))).await;
    let due = world.sessions.due(begin.plus(Duration::from_secs(1300)), 2000).await.unwrap();
    assert_eq!(due, [], "as soon as it is well");
}

#[tokio::test]
async fn r_012_many_sessions_of_a_provider_that_hangs_cost_the_store_no_write_each() {
    let world = World::new().await;
    world.provider.does(short_lived());
    many_due(&world, 600).await;
    world.provider.does(answers(endless));
    let begin = now().plus(Duration::from_secs(1));
    let refreshing = tokio::spawn({
        let authn = world.authn.clone();
        async move { authn.refresh_due(begin).await }
    });
    world.provider.until(|seen| seen.refreshes.len() == 8).await;
    for second in 0..600 {
        world.authn.refresh_due(begin.plus(Duration::from_millis(100 * second))).await;
    }
    assert_eq!(claims_written(&world), 8);
    refreshing.abort();
}

#[tokio::test]
async fn a_reload_with_other_roots_gives_a_provider_that_hangs_no_more_places() {
    let world = World::new().await;
    world.provider.does(short_lived());
    for _ in 0..10 {
        world.sign_in(&mut world.browser(), APP).await;
    }
    world.provider.does(answers(endless));
    let refreshing = tokio::spawn({
        let authn = world.authn.clone();
        async move { authn.refresh_due(round(1)).await }
    });
    world.provider.until(|seen| seen.refreshes.len() == 8).await;
    let root = rcgen::generate_simple_self_signed(["root".to_owned()]).unwrap();
    let config = postern_authn::AuthnConfig { extra_roots: Some(root.cert.pem().into_bytes()), ..world.config.clone() };
    world.authn.reload(config).unwrap();
    world.authn.refresh_due(round(2)).await;
    assert_eq!(refreshes(&world).len(), 8, "what was begun before holds its places");
    refreshing.abort();
}

#[tokio::test]
async fn a_session_whose_record_does_not_open_does_not_come_up_all_the_time() {
    let folder = tempfile::TempDir::new().unwrap();
    let world = World::on_a_file(&folder).await;
    world.provider.does(short_lived());
    world.sign_in(&mut world.browser(), APP).await;
    world.close_the_store().await;
    // After a restart with another `shared_secret` the record is there, and opens no more.
    let (authn, sessions) = world.after_a_restart_with_other_keys(&folder);
    assert_eq!(sessions.due(round(1), 9).await.unwrap().len(), 1);
    authn.refresh_due(round(1)).await;
    assert_eq!(sessions.due(round(4), 9).await.unwrap(), []);
    assert_eq!(refreshes(&world).len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r_012_sessions_that_cannot_be_read_hold_up_no_other() {
    let server = Redis::start(&[]);
    let world = World::on_a_server(&server).await;
    world.provider.does(short_lived());
    many_due(&world, 20).await;
    let begin = now().plus(Duration::from_secs(1));
    let due = world.sessions.due(begin, 99).await.unwrap();
    let (unreadable, readable) = due.split_at(15);
    for due in unreadable {
        // Of another kind: whatever is asked of it is refused.
        let name = format!("s:{{{}}}", base64(due.handle.as_bytes()));
        let renamed = server.cli(&["SET", &name, "damaged"]);
        assert_eq!(renamed, "OK");
    }
    world.authn.refresh_due(begin).await;
    assert_eq!(refreshes(&world).len(), readable.len(), "in one look");
    assert_eq!(world.counted("postern_authn_refreshes_total", "store-unavailable"), 15.0, "each is counted");
}

#[tokio::test]
async fn s_076_a_clock_that_jumps_past_a_claim_sends_no_refresh_token_that_is_on_its_way() {
    let world = signed_in(answers(endless)).await;
    let refreshing = tokio::spawn({
        let authn = world.authn.clone();
        async move { authn.refresh_due(round(1)).await }
    });
    world.provider.until(|seen| seen.refreshes.len() == 1).await;
    world.authn.refresh_due(round(1).plus(Duration::from_secs(3600))).await;
    assert_eq!(refreshes(&world).len(), 1);
    refreshing.abort();
}

#[tokio::test]
async fn s_076_who_stood_still_until_the_claim_ran_out_sends_no_refresh_token() {
    let world = signed_in(short_lived()).await;
    let ago = |minutes: u64| now().minus(Duration::from_secs(60 * minutes));
    let (session, tokens) = (session(&world).await.unwrap(), tokens(&world).await);
    let tokens = Tokens { refresh_at: Some(ago(10)), ..tokens };
    world.sessions.commit(&session.handle, session.generation, &session, &tokens).await.unwrap();
    // Claimed then, and held for two minutes.
    world.authn.refresh_due(ago(5)).await;
    assert_eq!(refreshes(&world).len(), 0);
    world.authn.refresh_due(now()).await;
    assert_eq!(refreshes(&world).len(), 1, "it came up again");
}
