//! One contract, run against every backend.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first thing that is not as promised")]

mod access;
mod apart;
mod check;
mod deposits;
mod faults;
mod file;
mod layout;
mod rotation;
mod shared;
mod support;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use postern_identity::{CompactSession, NEVER, SERVICE_ACCOUNT, Session, SessionHandle, Timestamp, Tokens};
use postern_storage::{CacheConfig, Cached, Committed, Due, Loaded, Lookup, Once, Place};
use support::{ISSUER, World, account, at, id, idle, session, tokens};

/// Nothing is served that could not be read again.
const WINDOW: Duration = Duration::ZERO;

/// Each promise, once for each backend.
macro_rules! contract {
    ($(async fn $name:ident($world:ident) $body:block)*) => {$(
        mod $name {
            use super::*;

            async fn promise($world: &World) $body

            async fn holds(world: World) {
                promise(&world).await;
                world.storage.close().await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn in_memory() {
                holds(World::memory()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_one_server() {
                holds(World::server().reached().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_a_cluster() {
                holds(World::cluster().reached().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn behind_sentinels() {
                holds(World::watched().reached().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn in_a_file() {
                holds(World::file()).await;
            }
        }
    )*};
}

async fn create(world: &World, number: u64, user: &str) -> Session {
    let session = session(number, user);
    world.storage.sessions().create(&session, &tokens("a")).await.unwrap();
    session
}

async fn load(world: &World, handle: &SessionHandle, secs: i64) -> Lookup {
    world.storage.sessions().load(handle, at(secs)).await.unwrap()
}

async fn is_live(world: &World, handle: &SessionHandle, secs: i64) -> bool {
    matches!(load(world, handle, secs).await, Lookup::Found(_))
}

/// All live sessions in the order of their names, and how many pages they came on.
async fn walk(world: &World, secs: i64) -> (Vec<Session>, usize) {
    let (mut found, mut place, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = world.storage.sessions().page(place, at(secs)).await.unwrap();
        found.extend(page.sessions);
        pages += 1;
        // As whoever asks from elsewhere would.
        place = page.next.map(|next| Place::parse(&next.to_string()).unwrap());
        if place.is_none() {
            break;
        }
    }
    found.sort_by_key(|session| session.handle);
    found.dedup();
    (found, pages)
}

/// Those of which something was left; each has to have had its tokens.
async fn clear(world: &World) -> Vec<SessionHandle> {
    clear_before(world, at(0)).await
}

/// Those that began before that time as well.
async fn clear_before(world: &World, before: Timestamp) -> Vec<SessionHandle> {
    let (mut cleared, mut place) = (Vec::new(), None);
    loop {
        let left = world.storage.sessions().clear(place, at(11), before).await;
        assert!(left.failed.is_none() && left.unsure.is_empty(), "{left:?}");
        for (session, tokens) in left.ended {
            assert_eq!(tokens.unwrap().access.expose(), "access-a");
            cleared.push(session.handle);
        }
        place = left.next;
        if place.is_none() {
            break;
        }
    }
    cleared.sort_unstable();
    cleared
}

contract! {
    async fn what_was_created_is_found_with_its_tokens(world) {
        let session = create(world, 1, "alice").await;
        let Lookup::Found(found) = load(world, &session.handle, 1).await else { panic!("not found") };
        assert_eq!(*found, session);
        let found = world.storage.sessions().tokens(&session.handle).await.unwrap().unwrap();
        assert_eq!(found.access.expose(), "access-a");
        assert_eq!(found.refresh.unwrap().expose(), "refresh-a");
        assert_eq!(found.id_token.expose(), "id-token-a");
        assert_eq!(found.access_expires_at, Some(at(300)));
        support::until("the store is well", async || world.storage.health().await.is_ok()).await;
    }

    async fn a_session_that_never_was_is_unknown(world) {
        let handle = session(1, "alice").handle;
        assert!(matches!(load(world, &handle, 1).await, Lookup::Unknown));
        assert!(world.storage.sessions().tokens(&handle).await.unwrap().is_none());
        world.storage.sessions().revoke(&handle).await.unwrap();
    }

    async fn s_090_a_session_ends_at_its_time(world) {
        let lasting = create(world, 1, "alice").await;
        assert!(is_live(world, &lasting.handle, 999).await);
        assert!(!is_live(world, &lasting.handle, 1000).await);
        let idle = idle(session(2, "alice"), 50);
        world.storage.sessions().create(&idle, &tokens("a")).await.unwrap();
        assert!(is_live(world, &idle.handle, 49).await);
        assert!(!is_live(world, &idle.handle, 50).await);
    }

    async fn r_025_a_session_that_was_seen_to_be_over_is_never_revived(world) {
        let session = create(world, 1, "alice").await;
        assert!(!is_live(world, &session.handle, 2000).await);
        support::until("it is forgotten", async || !is_live(world, &session.handle, 1).await).await;
    }

    async fn s_084_a_revoked_session_is_over_and_its_tokens_are_gone(world) {
        let session = create(world, 1, "alice").await;
        world.storage.sessions().revoke(&session.handle).await.unwrap();
        assert!(matches!(load(world, &session.handle, 1).await, Lookup::Revoked));
        assert!(world.storage.sessions().tokens(&session.handle).await.unwrap().is_none());
        world.storage.sessions().create(&session, &tokens("a")).await.unwrap();
        assert!(matches!(load(world, &session.handle, 1).await, Lookup::Revoked), "a late repetition revives nothing");
        world.storage.sessions().revoke(&session.handle).await.unwrap();
    }

    async fn s_095_all_sessions_of_a_user_end_together(world) {
        let sessions = world.storage.sessions();
        let (first, second, other) = (create(world, 1, "alice").await, create(world, 2, "alice").await, create(world, 3, "bob").await);
        let later = Session { issued_at: at(10), ..session(4, "alice") };
        sessions.create(&later, &tokens("a")).await.unwrap();
        sessions.revoke_user(ISSUER, "alice", at(10)).await.unwrap();
        for ended in [first, second] {
            assert!(matches!(load(world, &ended.handle, 11).await, Lookup::Revoked));
            assert!(sessions.tokens(&ended.handle).await.unwrap().is_none());
        }
        assert!(is_live(world, &other.handle, 11).await);
        assert!(is_live(world, &later.handle, 11).await, "it began in time");
        sessions.revoke_user(ISSUER, "alice", at(5)).await.unwrap();
        let late = create(world, 5, "alice").await;
        assert!(matches!(load(world, &late.handle, 11).await, Lookup::Revoked), "a sign-in that was under way is over too");
        assert!(sessions.tokens(&late.handle).await.unwrap().is_none());
    }

    async fn a_service_account_lasts_until_it_is_ended_and_no_person_is_one(world) {
        let sessions = world.storage.sessions();
        let (account, person) = (account(1, "alice"), create(world, 2, "alice").await);
        sessions.create(&account, &Tokens::none()).await.unwrap();
        let Lookup::Found(found) = load(world, &account.handle, 200_000_000_000).await else { panic!("not found") };
        assert_eq!(*found, account);
        assert!(found.is_service_account() && !person.is_service_account());
        assert!(sessions.due(at(1_000), 10).await.unwrap().iter().all(|due| due.handle != account.handle), "nothing is refreshed");
        let names = |listed: Vec<postern_storage::SessionSummary>| listed.iter().map(|line| line.handle).collect::<Vec<_>>();
        assert_eq!(names(sessions.list(ISSUER, "alice", at(1)).await.unwrap()), [person.handle]);
        assert_eq!(names(sessions.list(SERVICE_ACCOUNT, "alice", at(1)).await.unwrap()), [account.handle]);
        sessions.revoke_user(ISSUER, "alice", at(10)).await.unwrap();
        assert!(is_live(world, &account.handle, 11).await, "it is another user's");
        sessions.revoke(&account.handle).await.unwrap();
        assert!(matches!(load(world, &account.handle, 11).await, Lookup::Revoked));
    }

    async fn s_095_service_accounts_end_with_those_of_their_user_and_with_all(world) {
        let sessions = world.storage.sessions();
        for (number, user) in [(1, "ci"), (2, "ci"), (3, "cd")] {
            sessions.create(&account(number, user), &Tokens::none()).await.unwrap();
        }
        let live = async || {
            let mut live = Vec::new();
            for number in [1, 2, 3] {
                live.push(is_live(world, &account(number, "ci").handle, 11).await);
            }
            live
        };
        assert_eq!(live().await, [true, true, true]);
        sessions.revoke_user(SERVICE_ACCOUNT, "ci", at(10)).await.unwrap();
        assert_eq!(live().await, [false, false, true]);
        sessions.revoke_everyone(at(10)).await.unwrap();
        assert_eq!(live().await, [false, false, false]);
    }

    async fn what_has_ended_hides_nothing_that_lives(world) {
        let sessions = world.storage.sessions();
        let alive = create(world, 0, "alice").await;
        let ended = (1..=1_050).map(|number| Session { expires_at: NEVER, ..session(number, "alice") });
        let ending = futures_util::stream::iter(ended).for_each_concurrent(64, |session| {
            let sessions = sessions.clone();
            async move {
                sessions.create(&session, &tokens("a")).await.unwrap();
                sessions.revoke(&session.handle).await.unwrap();
            }
        });
        ending.await;
        let listed = sessions.list(ISSUER, "alice", at(1)).await.unwrap();
        assert_eq!(listed.iter().map(|line| line.handle).collect::<Vec<_>>(), [alive.handle]);
        sessions.revoke_user(ISSUER, "alice", at(10)).await.unwrap();
        assert!(sessions.tokens(&alive.handle).await.unwrap().is_none());
    }

    async fn a_user_of_another_issuer_is_another_user(world) {
        let session = create(world, 1, "alice").await;
        world.storage.sessions().revoke_user("https://other.example", "alice", at(10)).await.unwrap();
        assert!(is_live(world, &session.handle, 11).await);
        assert!(world.storage.sessions().list("https://other.example", "alice", at(1)).await.unwrap().is_empty());
    }

    async fn the_live_sessions_of_a_user_are_listed_newest_first(world) {
        let sessions = world.storage.sessions();
        for number in 0..5 {
            let session = Session { issued_at: at(i64::try_from(number).unwrap()), ..session(number, "alice") };
            sessions.create(&session, &tokens("a")).await.unwrap();
        }
        create(world, 9, "bob").await;
        sessions.revoke(&session(2, "alice").handle).await.unwrap();
        let listed = sessions.list(ISSUER, "alice", at(10)).await.unwrap();
        let expected: Vec<_> = [4, 3, 1, 0].map(|number| session(number, "alice").handle).into();
        assert_eq!(listed.iter().map(|line| line.handle).collect::<Vec<_>>(), expected);
        assert!(sessions.list(ISSUER, "alice", at(1000)).await.unwrap().is_empty());
    }

    async fn every_live_session_is_on_some_page_and_no_other(world) {
        let sessions = world.storage.sessions();
        for number in 0..500 {
            create(world, number, &format!("user-{}", number % 100)).await;
        }
        let idle = idle(session(500, "sleeper"), 50);
        sessions.create(&idle, &tokens("a")).await.unwrap();
        sessions.revoke(&session(1, "").handle).await.unwrap();
        sessions.revoke_user(ISSUER, "user-2", at(1)).await.unwrap();
        let (found, pages) = walk(world, 60).await;
        let mut expected: Vec<_> = (0..500).filter(|n| *n != 1 && n % 100 != 2).map(|n| session(n, "").handle).collect();
        expected.sort_unstable();
        assert_eq!(found.iter().map(|session| session.handle).collect::<Vec<_>>(), expected);
        assert!(pages > 1, "no page holds them all");
        let one = found.iter().find(|found| found.handle == session(3, "").handle).unwrap();
        assert_eq!(*one, session(3, "user-3"));
        assert_eq!(walk(world, 49).await.0.len(), expected.len() + 1, "not idle yet");
        assert_eq!(walk(world, 1000).await.0.len(), 0);
    }

    async fn s_095_all_sessions_of_everybody_end_by_one_fact(world) {
        let sessions = world.storage.sessions();
        for number in 0..30 {
            create(world, number, &format!("user-{}", number % 10)).await;
        }
        sessions.revoke(&session(0, "").handle).await.unwrap();
        let later = Session { issued_at: at(10), ..session(30, "later") };
        sessions.create(&later, &tokens("a")).await.unwrap();
        sessions.revoke_everyone(at(10)).await.unwrap();
        sessions.revoke_everyone(at(5)).await.unwrap();
        for number in 0..30 {
            let handle = session(number, "").handle;
            assert!(matches!(load(world, &handle, 11).await, Lookup::Revoked), "{number}");
            assert!(sessions.tokens(&handle).await.unwrap().is_none(), "{number}");
        }
        assert!(is_live(world, &later.handle, 11).await, "who signed in afterwards");
        let late = create(world, 31, "late").await;
        assert!(matches!(load(world, &late.handle, 11).await, Lookup::Revoked), "a sign-in that was under way is over too");
        let late = Session { generation: 2, ..late };
        assert_eq!(sessions.commit(&late.handle, 1, &late, &tokens("b")).await.unwrap(), Committed::Ended);
        assert_eq!(walk(world, 11).await.0, [later]);
        let opens = async |now| sessions.opens(at(now), Duration::from_secs(3)).await.ok();
        assert_eq!((opens(12).await, opens(7).await), (Some(at(12)), Some(at(10))), "whoever signs in waits for that");
        assert_eq!(opens(6).await, None, "but not for long");
        sessions.revoke_user(ISSUER, "early", at(9)).await.unwrap();
        let are_ended = async |user, began| sessions.are_ended(ISSUER, user, at(began)).await.unwrap();
        assert_eq!((are_ended("early", 8).await, are_ended("early", 9).await), (true, false));
        assert!(!are_ended("later", 8).await, "that is for one user to know, not for all");
    }

    async fn what_is_left_of_sessions_that_ended_together_is_cleared_once(world) {
        let sessions = world.storage.sessions();
        for number in 0..300 {
            create(world, number, &format!("user-{}", number % 10)).await;
        }
        sessions.revoke(&session(0, "").handle).await.unwrap();
        let later = Session { issued_at: at(10), ..session(300, "later") };
        sessions.create(&later, &tokens("later")).await.unwrap();
        assert_eq!(clear(world).await, [], "nobody's session has ended");
        sessions.revoke_everyone(at(10)).await.unwrap();
        let cleared = clear(world).await;
        let mut expected: Vec<_> = (1..300).map(|number| session(number, "").handle).collect();
        expected.sort_unstable();
        assert_eq!(cleared, expected);
        assert_eq!(clear(world).await, [], "once");
        assert_eq!(sessions.due(at(999), 500).await.unwrap().len(), 1, "no other is refreshed");
        assert!(sessions.tokens(&later.handle).await.unwrap().is_some());
        world.storage.sessions().create(&session(5, "user-5"), &tokens("a")).await.unwrap();
        assert!(matches!(load(world, &session(5, "").handle, 11).await, Lookup::Revoked), "a late repetition revives nothing");
    }

    async fn s_095_what_began_by_a_clock_that_is_ahead_ends_in_the_clearing(world) {
        let sessions = world.storage.sessions();
        let cache = world.storage.cache::<()>(CacheConfig::default());
        support::until("there is contact", async || cache.is_in_contact()).await;
        for (number, began) in [(1, 9), (2, 10), (3, 11), (4, 12)] {
            let session = Session { issued_at: at(began), ..session(number, "alice") };
            sessions.create(&session, &tokens("a")).await.unwrap();
            cache.load(&id(number), at(12), WINDOW).await.unwrap();
        }
        sessions.revoke_everyone(at(10)).await.unwrap();
        assert!(is_live(world, &session(3, "").handle, 12).await, "by its own time it began afterwards");
        let mut expected: Vec<_> = [1, 2, 3].map(|number| session(number, "").handle).into();
        expected.sort_unstable();
        assert_eq!(clear_before(world, at(12)).await, expected);
        for number in 1..4 {
            assert!(matches!(load(world, &session(number, "").handle, 12).await, Lookup::Revoked), "{number}");
            assert!(matches!(cache.get(&id(number), at(12), WINDOW), Cached::Revoked), "{number}");
        }
        assert!(is_live(world, &session(4, "").handle, 12).await, "who signed in afterwards");
        assert_eq!(clear_before(world, at(12)).await, [], "once");
    }

    async fn s_095_no_session_that_is_created_meanwhile_survives_the_end_of_all(world) {
        let creating: Vec<_> = (0..60_u64)
            .map(|number| {
                let sessions = world.storage.sessions();
                let began = at(if number % 3 == 0 { 10 } else { 9 });
                let session = Session { issued_at: began, ..session(number, &format!("user-{}", number % 7)) };
                tokio::spawn(async move {
                    // Whether it is there before, at, or after the end of all is up to chance.
                    sessions.create(&session, &tokens("a")).await.unwrap();
                    let early = sessions.load(&session.handle, at(11)).await.unwrap();
                    (session, early)
                })
            })
            .collect();
        let ending = {
            let sessions = world.storage.sessions();
            tokio::spawn(async move { sessions.revoke_everyone(at(10)).await.unwrap() })
        };
        ending.await.unwrap();
        for created in creating {
            let (session, early) = created.await.unwrap();
            let found = load(world, &session.handle, 11).await;
            if session.issued_at < at(10) {
                assert!(matches!(found, Lookup::Revoked), "{:?}", session.handle);
                assert!(world.storage.sessions().tokens(&session.handle).await.unwrap().is_none());
            } else {
                assert!(matches!((early, found), (Lookup::Found(_), Lookup::Found(_))), "{:?}", session.handle);
            }
        }
    }

    async fn s_076_of_many_refreshes_of_one_generation_one_is_saved(world) {
        let session = create(world, 1, "alice").await;
        let committing: Vec<_> = (0..32)
            .map(|number| {
                let (sessions, session) = (world.storage.sessions(), session.clone());
                tokio::spawn(async move {
                    sessions.commit(&session.handle, 1, &session, &tokens(&number.to_string())).await.unwrap()
                })
            })
            .collect();
        let mut saved = Vec::new();
        for (number, commit) in committing.into_iter().enumerate() {
            match commit.await.unwrap() {
                Committed::Saved(generation) => saved.push((number, generation)),
                Committed::Moved => {}
                Committed::Ended => panic!("it has not ended"),
            }
        }
        let [(winner, 2)] = saved[..] else { panic!("{saved:?}") };
        let found = world.storage.sessions().tokens(&session.handle).await.unwrap().unwrap();
        assert_eq!(found.access.expose(), &format!("access-{winner}"));
        let Lookup::Found(found) = load(world, &session.handle, 1).await else { panic!("not found") };
        assert_eq!(found.generation, 2);
    }

    async fn a_refresh_changes_what_is_known_of_the_user_and_revives_nothing(world) {
        let sessions = world.storage.sessions();
        let mut session = create(world, 1, "alice").await;
        session.user.name = Some("Alice Renamed".to_owned());
        assert_eq!(sessions.commit(&session.handle, 1, &session, &tokens("b")).await.unwrap(), Committed::Saved(2));
        let Lookup::Found(found) = load(world, &session.handle, 1).await else { panic!("not found") };
        assert_eq!(found.user, session.user);
        assert_eq!(sessions.commit(&session.handle, 1, &session, &tokens("c")).await.unwrap(), Committed::Moved);
        sessions.revoke(&session.handle).await.unwrap();
        assert_eq!(sessions.commit(&session.handle, 2, &session, &tokens("d")).await.unwrap(), Committed::Ended);
        assert!(matches!(load(world, &session.handle, 1).await, Lookup::Revoked));
    }

    async fn s_053_s_055_a_value_is_spent_by_exactly_one_of_many(world) {
        for round in 0..20_u8 {
            let spending: Vec<_> = (0..50)
                .map(|_| {
                    let sessions = world.storage.sessions();
                    tokio::spawn(async move { sessions.spend(Once::SignIn, &[round], at(0), at(60)).await.unwrap() })
                })
                .collect();
            let mut won = 0;
            for spend in spending {
                won += u32::from(spend.await.unwrap());
            }
            assert_eq!(won, 1, "round {round}");
            assert!(!world.storage.sessions().spend(Once::SignIn, &[round], at(59), at(60)).await.unwrap());
            assert!(world.storage.sessions().spend(Once::Ticket, &[round], at(0), at(60)).await.unwrap(), "another kind");
        }
    }

    async fn s_076_a_refresh_is_due_at_its_time_and_one_of_many_may_try_it(world) {
        let (sessions, session) = (world.storage.sessions(), create(world, 1, "alice").await);
        assert_eq!(sessions.due(at(199), 10).await.unwrap(), []);
        let [due] = sessions.due(at(200), 10).await.unwrap()[..] else { panic!("not due") };
        assert_eq!(due, Due { handle: session.handle, next: at(200) });
        let trying: Vec<_> = (0..16)
            .map(|_| {
                let sessions = world.storage.sessions();
                tokio::spawn(async move { sessions.postpone(&due, at(260)).await.unwrap() })
            })
            .collect();
        let mut claims = Vec::new();
        for attempt in trying {
            claims.extend(attempt.await.unwrap());
        }
        assert_eq!(claims, [Due { next: at(260), ..due }]);
        assert_eq!(sessions.due(at(259), 10).await.unwrap(), []);
        assert_eq!(sessions.due(at(260), 10).await.unwrap(), claims, "who claimed it may have gone away");
        let [claim] = claims[..] else { panic!("{claims:?}") };
        let earlier = sessions.postpone(&claim, at(230)).await.unwrap().unwrap();
        assert_eq!(sessions.due(at(230), 10).await.unwrap(), [earlier]);
        let found = world.storage.sessions().tokens(&session.handle).await.unwrap().unwrap();
        assert_eq!(found.refresh_at, Some(at(200)), "since when it is due stays known");
        let Lookup::Found(found) = load(world, &session.handle, 1).await else { panic!("not found") };
        assert_eq!(*found, session, "a claim changes nothing of the session");
    }

    async fn a_refresh_that_was_saved_is_due_at_its_next_time_alone(world) {
        let (sessions, session) = (world.storage.sessions(), create(world, 1, "alice").await);
        let [due] = sessions.due(at(200), 10).await.unwrap()[..] else { panic!("not due") };
        let claim = sessions.postpone(&due, at(260)).await.unwrap().unwrap();
        let next = Tokens { refresh_at: Some(at(500)), ..tokens("b") };
        assert_eq!(sessions.commit(&session.handle, 1, &session, &next).await.unwrap(), Committed::Saved(2));
        assert_eq!(sessions.postpone(&claim, at(270)).await.unwrap(), None, "the claim is over");
        let [due] = sessions.due(at(999), 10).await.unwrap()[..] else { panic!("not due once") };
        assert_eq!(due.next, at(500));
        let last = Tokens { refresh_at: None, refresh: None, ..tokens("c") };
        assert_eq!(sessions.commit(&session.handle, 2, &session, &last).await.unwrap(), Committed::Saved(3));
        assert_eq!(sessions.due(at(999), 10).await.unwrap(), []);
    }

    async fn the_earliest_refreshes_come_first_and_no_more_than_asked_for(world) {
        for (number, time) in [(1, 30), (2, 10), (3, 20), (4, 10)] {
            let due = Tokens { refresh_at: Some(at(time)), ..tokens("a") };
            world.storage.sessions().create(&session(number, "alice"), &due).await.unwrap();
        }
        let due = world.storage.sessions().due(at(100), 3).await.unwrap();
        assert_eq!(due.iter().map(|due| due.next).collect::<Vec<_>>(), [at(10), at(10), at(20)]);
    }

    async fn who_leaves_refreshes_undone_sees_those_that_come_after(world) {
        for (number, time) in [(1, 30), (2, 10), (3, 20), (4, 10)] {
            let due = Tokens { refresh_at: Some(at(time)), ..tokens("a") };
            world.storage.sessions().create(&session(number, "alice"), &due).await.unwrap();
        }
        let (sessions, mut seen) = (world.storage.sessions(), Vec::<Due>::new());
        for _ in 0..4 {
            seen.extend(sessions.due_after(seen.last(), at(100), 1).await.unwrap());
        }
        assert_eq!(seen, sessions.due(at(100), 9).await.unwrap(), "one after the other, and none twice");
        assert_eq!(sessions.due_after(seen.last(), at(100), 9).await.unwrap(), []);
        assert_eq!(sessions.due_after(seen.last(), at(5), 9).await.unwrap(), [], "a clock that went back");
    }

    async fn s_084_a_session_that_is_over_is_not_refreshed(world) {
        let sessions = world.storage.sessions();
        let revoked = create(world, 1, "alice").await;
        sessions.revoke(&revoked.handle).await.unwrap();
        assert_eq!(sessions.due(at(999), 10).await.unwrap(), []);
        let idle = idle(session(2, "alice"), 50);
        sessions.create(&idle, &tokens("a")).await.unwrap();
        let [due] = sessions.due(at(200), 10).await.unwrap()[..] else { panic!("not due") };
        assert_eq!(sessions.postpone(&due, at(260)).await.unwrap(), None, "it ended before its refresh was due");
        create(world, 3, "bob").await;
        sessions.revoke_user(ISSUER, "bob", at(10)).await.unwrap();
        assert_eq!(sessions.due(at(999), 10).await.unwrap(), []);
    }

    async fn a_closed_store_is_unavailable(world) {
        let session = create(world, 1, "alice").await;
        world.storage.close().await;
        let sessions = world.storage.sessions();
        assert!(world.storage.health().await.is_err());
        assert!(sessions.load(&session.handle, at(1)).await.is_err());
        assert!(sessions.due(at(1), 1).await.is_err());
        assert!(sessions.create(&session, &tokens("a")).await.is_err());
        assert!(sessions.revoke(&session.handle).await.is_err());
    }

    async fn the_cache_follows_the_store(world) {
        let cache = world.storage.cache::<()>(CacheConfig::default());
        support::until("there is contact", async || cache.is_in_contact()).await;
        let session = create(world, 1, "alice").await;
        assert!(matches!(cache.get(&id(1), at(1), WINDOW), Cached::Miss));
        let Loaded::Found(entry) = cache.load(&id(1), at(1), WINDOW).await.unwrap() else { panic!("not found") };
        let (kept, all) = (&entry.session, CompactSession::from(&session));
        assert_eq!((kept.handle, kept.expires_at, kept.idle()), (session.handle, session.expires_at, all.idle()));
        let said = |session: &CompactSession| format!("{:?}", (session.user_claims(), session.claims()));
        assert_eq!((kept.user_id(), kept.email(), said(kept)), (all.user_id(), all.email(), said(&all)));
        let Cached::Hit(hit) = cache.get(&id(1), at(2), WINDOW) else { panic!("not kept") };
        assert!(Arc::ptr_eq(&hit, &entry));
        world.storage.sessions().revoke(&session.handle).await.unwrap();
        assert!(matches!(cache.get(&id(1), at(2), WINDOW), Cached::Revoked));
    }

    async fn s_095_the_cache_follows_the_end_of_all_sessions(world) {
        let cache = world.storage.cache::<()>(CacheConfig::default());
        support::until("there is contact", async || cache.is_in_contact()).await;
        create(world, 1, "alice").await;
        assert!(matches!(cache.load(&id(1), at(1), WINDOW).await, Ok(Loaded::Found(_))));
        world.storage.sessions().revoke_everyone(at(5)).await.unwrap();
        assert!(matches!(cache.get(&id(1), at(2), WINDOW), Cached::Revoked));
    }

    async fn what_the_store_does_is_counted(world) {
        create(world, 1, "alice").await;
        let cache = world.storage.cache::<()>(CacheConfig::default());
        support::until("there is contact", async || cache.is_in_contact()).await;
        assert!(matches!(cache.get(&id(1), at(1), WINDOW), Cached::Miss));
        cache.load(&id(1), at(1), WINDOW).await.unwrap();
        assert!(matches!(cache.get(&id(1), at(1), WINDOW), Cached::Hit(_)));
        let shown = prometheus::TextEncoder::new().encode_to_string(&world.registry.gather()).unwrap();
        let has = |series: &str| shown.lines().any(|line| line == series);
        assert!(has(r#"postern_storage_cache_lookups_total{outcome="hit"} 1"#), "{shown}");
        assert!(has(r#"postern_storage_cache_lookups_total{outcome="miss"} 1"#), "{shown}");
        for operation in ["create", "load"] {
            let counted = |line: &str| {
                line.starts_with("postern_storage_operation_duration_seconds_count{")
                    && line.contains(&format!("operation=\"{operation}\""))
                    && line.ends_with(" 1")
            };
            assert!(shown.lines().any(counted), "{operation}: {shown}");
        }
    }
}
