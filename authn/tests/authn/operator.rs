//! Ending sessions for an operator, while a part of the store or the provider is away.

use std::time::Duration;

use postern_authn::{Clearing, End, EndAllError, Stage};
use postern_identity::{Session, SessionHandle, Timestamp};
use postern_servers::Redis;
use postern_storage::Lookup;

use crate::sign_out::{SAME, sign_out};
use crate::support::{APP, AUTHN, Browser, Script, World, now};

/// Long enough for a machine that is busy.
const PATIENT: Duration = Duration::from_mins(2);
const LOG: &str = "{chg}log";

/// Somebody who is signed in, and their session.
async fn signed_in(world: &World) -> (Browser, SessionHandle) {
    let mut browser = world.browser();
    world.sign_in(&mut browser, APP).await;
    let [session] = &world.live_sessions().await[..] else { panic!("not signed in") };
    (browser, session.handle)
}

/// Whether the changelog has told of the end of a session.
fn is_told(server: &Redis) -> bool {
    let lines = server.cli(&["XRANGE", LOG, "-", "+"]);
    lines.lines().any(|line| line == "r")
}

/// From now on nothing can be told, or it can again.
fn mute(server: &Redis, muted: bool) {
    let _gone = server.cli(&["DEL", LOG]);
    if muted {
        assert_eq!(server.cli(&["SET", LOG, "no stream"]), "OK");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_084_an_end_that_failed_half_way_is_told_of_when_it_is_tried_again() {
    let server = Redis::start(&[]);
    let world = World::on_a_server(&server).await;
    let (_browser, session) = signed_in(&world).await;
    mute(&server, true);
    assert!(world.authn.end(&session, now()).await.is_err(), "nobody was told");
    assert!(matches!(world.sessions.load(&session, now()).await, Ok(Lookup::Revoked)), "it is marked");
    assert!(world.authn.end(&session, now()).await.is_err(), "and still nobody was told");
    mute(&server, false);
    assert!(matches!(world.authn.end(&session, now()).await, Ok(End::Before)));
    assert!(is_told(&server));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_084_a_sign_out_that_failed_half_way_is_told_of_when_it_is_tried_again() {
    let server = Redis::start(&[]);
    let world = World::on_a_server(&server).await;
    let (mut browser, _) = signed_in(&world).await;
    mute(&server, true);
    browser.get_with(&sign_out(APP), SAME).await.is_refused(503, "store-unavailable");
    browser.get_with(&sign_out(APP), SAME).await.is_refused(503, "store-unavailable");
    mute(&server, false);
    assert!(browser.get_with(&sign_out(APP), SAME).await.location().is_some());
    assert!(is_told(&server));
    assert_eq!(browser.cookie(APP, "_pomerium"), None);
}

/// Everything that tells when the sessions of a user are over answers nonsense, as if it were on another server that is away.
fn hide_epochs(server: &Redis) {
    let hide = "for _, key in ipairs(redis.call('KEYS', 'u:*')) do
        redis.call('LPUSH', 'ue:' .. string.sub(key, 3), '?') end return 'OK'";
    assert_eq!(server.cli(&["EVAL", hide, "0"]), "OK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_084_a_session_ends_although_what_is_known_of_its_user_is_away() {
    let server = Redis::start(&[]);
    let world = World::on_a_server(&server).await;
    let (mut browser, session) = signed_in(&world).await;
    hide_epochs(&server);
    assert!(world.sessions.load(&session, now()).await.is_err());
    assert!(matches!(world.authn.end(&session, now()).await, Ok(End::Now(None))));
    assert!(matches!(world.sessions.load(&session, now()).await, Ok(Lookup::Revoked)));
    assert!(is_told(&server));
    assert!(browser.get_with(&sign_out(APP), SAME).await.location().is_some(), "it is over already");
    let nobodys = SessionHandle::from_bytes([7; 32]);
    assert!(matches!(world.authn.end(&nobodys, now()).await, Ok(End::Unknown)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_084_who_signs_out_is_out_although_what_is_known_of_them_is_away() {
    let server = Redis::start(&[]);
    let world = World::on_a_server(&server).await;
    let (mut browser, session) = signed_in(&world).await;
    hide_epochs(&server);
    assert!(browser.get_with(&sign_out(APP), SAME).await.location().is_some());
    assert!(matches!(world.sessions.load(&session, now()).await, Ok(Lookup::Revoked)));
    assert!(is_told(&server));
}

/// How far the clearing is once it is over.
async fn cleared(world: &World) -> Clearing {
    let mut clearing = world.authn.clearing();
    let over = clearing.wait_for(|now| !matches!(now.stage, Stage::Working { .. }));
    tokio::time::timeout(PATIENT, over).await.expect("the clearing does not end").unwrap().clone()
}

/// Another session of alice, that began then.
async fn created(world: &World, number: u8, began: Timestamp) -> SessionHandle {
    let lines = world.live_sessions().await;
    let line = lines.last().expect("not signed in");
    let Ok(Lookup::Found(known)) = world.sessions.load(&line.handle, now()).await else { panic!("not there") };
    let tokens = world.sessions.tokens(&line.handle).await.unwrap().unwrap();
    let session = Session {
        handle: SessionHandle::from_bytes([number; 32]),
        issued_at: began,
        generation: 1,
        ..(*known).clone()
    };
    world.sessions.create(&session, &tokens).await.unwrap();
    session.handle
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_095_all_sessions_end_by_the_clock_of_the_store() {
    let server = Redis::start(&[]);
    let world = World::on_a_server(&server).await;
    let (_browser, session) = signed_in(&world).await;
    let hour = Duration::from_secs(3600);
    for wrong in [now().minus(hour), now().plus(hour)] {
        assert!(matches!(world.authn.end_all(wrong).await, Err(EndAllError::Clocks { .. })), "{wrong}");
        assert!(matches!(world.sessions.load(&session, now()).await, Ok(Lookup::Found(_))), "nothing was done");
    }
    // By clocks that are a little ahead of the store's, and far.
    let (ahead, far) = (now().plus(Duration::from_millis(900)), now().plus(hour));
    let (ahead, far) = (created(&world, 1, ahead).await, created(&world, 2, far).await);
    world.authn.end_all(now().minus(Duration::from_millis(500))).await.unwrap();
    for over in [session, ahead] {
        assert!(matches!(world.sessions.load(&over, now()).await, Ok(Lookup::Revoked)), "at once");
    }
    assert_eq!(cleared(&world).await, Clearing { ended: 2, ..Clearing::default() });
    assert!(matches!(world.sessions.load(&far, now()).await, Ok(Lookup::Found(_))), "that is no question of clocks");
    world.authn.finish().await;
    assert_eq!(world.provider.seen(|seen| seen.revocations.len()), 2, "their tokens are taken back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_095_a_sign_in_waits_for_the_end_of_all_and_does_not_outlive_that_of_its_user() {
    let world = World::new().await;
    let end_all = async |ahead| world.sessions.revoke_everyone(now().plus(Duration::from_millis(ahead))).await.unwrap();
    end_all(700).await;
    world.sign_in(&mut world.browser(), APP).await;
    assert_eq!(world.live_sessions().await.len(), 1, "a session that is over before it is used is none");

    end_all(2_000).await;
    let mut browser = world.browser();
    let there = world.send_to_sign_in(&mut browser, APP);
    let answer = browser.follow_until(there, &format!("{AUTHN}/oauth2/callback")).await;
    let meanwhile = now().plus(Duration::from_secs(1));
    let (refused, ended) =
        tokio::join!(browser.get(&answer), world.sessions.revoke_user(&world.provider.issuer, "alice", meanwhile));
    ended.unwrap();
    refused.is_refused(400, "sessions-ended");
    assert_eq!(world.live_sessions().await, []);

    end_all(60_000).await;
    let mut browser = world.browser();
    let there = world.send_to_sign_in(&mut browser, APP);
    let answer = browser.follow_until(there, &format!("{AUTHN}/oauth2/callback")).await;
    browser.get(&answer).await.is_refused(503, "store-unavailable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_095_a_provider_that_takes_no_token_back_in_time_is_named() {
    let world = World::new().await;
    let (_browser, session) = signed_in(&world).await;
    let Ok(Lookup::Found(known)) = world.sessions.load(&session, now()).await else { panic!("not there") };
    world.provider.does(Script { revocation_hangs: true, ..Script::default() });
    world.authn.end_all(now()).await.unwrap();
    let untaken = [(known.idp.clone(), 1)].into();
    assert_eq!(cleared(&world).await, Clearing { ended: 1, untaken, ..Clearing::default() });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_095_a_user_is_out_although_their_sessions_cannot_be_listed() {
    let server = Redis::start(&[]);
    let world = World::on_a_server(&server).await;
    let (_browser, session) = signed_in(&world).await;
    let hide =
        "local key = redis.call('KEYS', 'u:*')[1] redis.call('DEL', key) redis.call('SET', key, '?') return 'OK'";
    assert_eq!(server.cli(&["EVAL", hide, "0"]), "OK");
    assert_eq!(world.authn.end_user(&world.provider.issuer, "alice", now()).await.unwrap(), None);
    assert!(matches!(world.sessions.load(&session, now()).await, Ok(Lookup::Revoked)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_095_what_begins_while_the_sessions_of_a_user_are_read_is_over_too() {
    let server = Redis::start(&[]);
    let world = World::on_a_server(&server).await;
    let (_browser, session) = signed_in(&world).await;
    let Ok(Lookup::Found(known)) = world.sessions.load(&session, now()).await else { panic!("not there") };
    let tokens = world.sessions.tokens(&session).await.unwrap().unwrap();
    server.pause();
    let ending = world.authn.end_user(&world.provider.issuer, "alice", now());
    let meanwhile = now().plus(Duration::from_millis(50));
    let resume = async {
        tokio::time::timeout(PATIENT, async {
            while now() <= meanwhile {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        server.resume();
    };
    let (ended, ()) = tokio::join!(ending, resume);
    assert_eq!(ended.unwrap(), Some(1));
    // It is saved only now.
    let late = Session { handle: SessionHandle::from_bytes([1; 32]), issued_at: meanwhile, ..(*known).clone() };
    world.sessions.create(&late, &tokens).await.unwrap();
    assert!(matches!(world.sessions.load(&late.handle, now()).await, Ok(Lookup::Revoked)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_begun_for_an_operator_is_finished_at_the_end() {
    let world = World::new().await;
    let (_browser, session) = signed_in(&world).await;
    assert!(matches!(world.authn.end(&session, now()).await, Ok(End::Now(Some(_)))));
    world.authn.finish().await;
    assert_eq!(world.provider.seen(|seen| seen.revocations.len()), 1, "its tokens are taken back before the end");
    world.authn.end_all(now()).await.unwrap();
    let Stage::GivenUp(why) = cleared(&world).await.stage else { panic!("it went on") };
    assert!(why.contains("ends"), "{why}");
}
