//! The tail, piece by piece, on a server of its own.

use postern_identity::SessionHandle;
use postern_servers::Redis;
use prometheus::Registry;

use super::*;
use crate::config::{RedisConfig, Topology};
use crate::redis::Router;

fn text(text: &str) -> Reply {
    Reply::Bytes(bytes::Bytes::copy_from_slice(text.as_bytes()))
}

#[test]
fn places_are_in_order_and_read_as_they_are_written() {
    let (early, late) = (Cursor(1_700_000_000_000, 9), Cursor(1_700_000_000_000, 10));
    assert!(early < late);
    assert_eq!(Cursor::read(&text(&late.to_string())), Some(late));
    assert_eq!(late.overlapping(), Cursor(1_699_999_990_000, 0));
    assert_eq!(Cursor(5, 5).overlapping(), Cursor(0, 0));
    assert_eq!(Cursor::read(&text("nonsense")), None);
}

#[test]
fn s_084_who_may_have_missed_a_line_reads_from_the_beginning() {
    let read = Cursor(50_000, 3);
    let overlapping = Some(Cursor(40_000, 0));
    for (what, ends, place) in [
        ("as it was", Some((Cursor(1, 0), read)), overlapping),
        ("more has come", Some((Cursor(1, 0), Cursor(60_000, 0))), overlapping),
        ("what was read last is the oldest that is left", Some((read, Cursor(60_000, 0))), overlapping),
        ("the next one is", Some((Cursor(50_000, 4), Cursor(60_000, 0))), None),
        ("another master's clock is behind", Some((Cursor(1, 0), Cursor(40_000, 0))), overlapping),
        ("it has lost more than that", Some((Cursor(1, 0), Cursor(39_999, 9))), None),
        ("nothing is left", None, None),
    ] {
        assert_eq!(read.resumed(ends), place, "{what}");
    }
}

#[test]
fn lines_are_read_and_unknown_ones_have_a_place_all_the_same() {
    let line = |id, kind| Reply::List(vec![text(id), Reply::List(vec![text("k"), text(kind)])]);
    let stream = Reply::List(vec![text("{chg}log"), Reply::List(vec![line("5-0", "h"), line("6-1", "?")])]);
    let read = lines(&Reply::List(vec![stream]));
    assert_eq!(read, Some(vec![(Cursor(5, 0), Some(Entry::Heartbeat)), (Cursor(6, 1), None)]));
    assert_eq!(lines(&Reply::Nil), Some(Vec::new()));
    assert_eq!(lines(&text("OK")), None);
}

/// The tail of a changelog that is on this server.
fn tail(server: &Redis) -> Tail {
    let metrics = Arc::new(Metrics::register(&Registry::new(), "none").unwrap());
    let config = RedisConfig::new(Topology::Single(Server::local(server.port())));
    let router = Router::start(&config, Arc::clone(&metrics)).unwrap();
    Tail {
        log: Changelog::new(router, "", "this".to_owned()),
        invalidation: Arc::new(Invalidation::new(Arc::clone(&metrics))),
        contact: Arc::new(Contact::leased(Duration::from_secs(60))),
        metrics,
        also: Box::new(|_| {}),
        repair: Box::new(|_| {}),
        everyone: Box::new(|_| {}),
    }
}

impl Tail {
    async fn link(&self, server: &Redis) -> Link {
        self.log.router.dial().link(&Server::local(server.port())).await.unwrap()
    }

    fn heard(&self) -> u64 {
        self.metrics.facts_heard.get()
    }
}

/// Half a minute at most.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

const ENDED: Fact = Fact::Revoked(SessionHandle::from_bytes([b'x'; 32]));
const BEGUN: Fact = Fact::Created;

/// An answer with a fact, and with a heartbeat behind it.
fn answer(fact: Fact) -> [Line; 2] {
    [(Cursor(7, 0), Some(Entry::Fact(fact))), (Cursor(7, 1), Some(Entry::Heartbeat))]
}

/// The end of a session, written where the changelog is; its place.
fn write(server: &Redis) -> Cursor {
    let line = "return redis.call('XADD', '{chg}log', '*', 'k', 'r', 'i', string.rep('x', 32))";
    let place = server.cli(&["EVAL", line, "0"]);
    Cursor::read(&text(place.trim())).unwrap_or_else(|| panic!("{place}"))
}

#[tokio::test]
async fn r_009_of_a_server_that_another_one_took_over_from_what_denies_is_heard_and_no_sign_of_life() {
    let server = Redis::start(&[]);
    let (tail, own, other) = (tail(&server), Server::local(server.port()), Server::local(1));
    let then = Some(Instant::now());
    let heeds = |fact| tail.heed(&own, &answer(fact), then);

    tail.log.router.know(Some((&other, &[])));
    assert_eq!(heeds(ENDED), Err("another server owns it now".to_owned()));
    assert_eq!(tail.heard(), 1);
    // Its successor may never have had it.
    assert!(heeds(BEGUN).is_err());
    assert_eq!((tail.heard(), tail.contact.lost_for()), (1, Some(Duration::MAX)));

    tail.log.router.know(None);
    assert_eq!((heeds(BEGUN), heeds(ENDED)), (Ok(()), Ok(())), "it may own it still, and is read on");
    assert_eq!((tail.heard(), tail.contact.lost_for()), (3, Some(Duration::MAX)), "or may not");

    tail.log.router.know(Some((&own, &[])));
    assert_eq!(tail.heed(&own, &answer(BEGUN), None), Ok(()));
    assert_eq!((tail.heard(), tail.contact.lost_for()), (4, Some(Duration::MAX)), "more may wait unseen");
    assert_eq!(heeds(ENDED), Ok(()));
    assert_eq!((tail.heard(), tail.contact.lost_for()), (5, None));
}

#[tokio::test]
async fn s_084_of_a_replica_what_ends_a_session_is_heard_also_once_nobody_knows_of_it_any_more() {
    let master = Redis::start(&[]);
    let replica = Redis::start(&["--replicaof", "127.0.0.1", &master.port().to_string()]);
    let tail = tail(&master);
    let (_progress, seen) = watch::channel(Progress { has_read: true, ..Progress::default() });
    let written = async {
        until("the replica is known", || {
            tail.log.router.replicas(&tail.log.key).is_some_and(|known| !known.is_empty())
        })
        .await;
        // That a session has begun can wait.
        assert!(master.cli(&["XADD", "{chg}log", "*", "k", "c"]).contains('-'));
        write(&master);
        let changed = "return redis.call('XADD', '{chg}log', '*', 'k', 'w', 'i', string.rep('x', 32), 'n', 7)";
        assert!(master.cli(&["EVAL", changed, "0"]).contains('-'));
        until("both are heard", || tail.heard() == 2).await;
        assert_eq!(tail.metrics.replica_heard.get(), 1);
        tail.log.router.know(None);
        assert_eq!(tail.log.router.replicas(&tail.log.key), None);
        assert_eq!(replica.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
        // On a new connection as well: lines of some seconds are read again.
        assert_ne!(replica.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]), "0");
        write(&replica);
        until("it is heard again", || tail.heard() >= 5).await;
    };
    tokio::select! {
        () = tail.overhear(seen) => panic!("it goes on"),
        () = written => {}
    }
    assert_eq!(tail.contact.lost_for(), Some(Duration::MAX), "that is no contact");
}

/// Why a replica is left; asked again where an answer was merely late, as on a busy machine.
async fn left(tail: &Tail, server: &Server, others: bool, progress: &watch::Receiver<Progress>) -> String {
    let leaving = async {
        loop {
            let Err(why) = tail.listen(server, others, progress, &mut Instant::now()).await;
            if !why.contains("in time") {
                return why;
            }
        }
    };
    timeout(Duration::from_secs(30), leaving).await.expect("it is left")
}

const NO_REPLICA: &str = "it is no replica of the owner any more";
const SILENT: &str = "it tells nothing";

#[tokio::test]
async fn s_084_a_replica_is_left_once_it_is_known_to_be_none() {
    let server = Redis::start(&[]);
    let tail = tail(&server);
    let (own, owner, other) = (Server::local(server.port()), Server::local(1), Server::local(2));
    let (progress, seen) = watch::channel(Progress::default());
    tail.log.router.know(Some((&owner, std::slice::from_ref(&other))));
    assert_eq!(left(&tail, &own, false, &seen).await, NO_REPLICA);
    let cases = [
        ("took over, and has none", &own, &[][..]),
        ("took over, and has another", &own, std::slice::from_ref(&other)),
        ("was the last one", &owner, &[]),
    ];
    for (what, owner, replicas) in cases {
        progress.send_modify(|progress| progress.reading = false);
        tail.log.router.know(Some((owner, replicas)));
        let before = tail.heard();
        let heard = async {
            write(&server);
            until("it is heard", || tail.heard() > before).await;
            let before = tail.heard();
            write(&server);
            until("it is heard until the owner is read", || tail.heard() > before).await;
            progress.send_modify(|progress| progress.reading = true);
        };
        let (why, ()) = tokio::join!(left(&tail, &own, false, &seen), heard);
        assert_eq!(why, NO_REPLICA, "{what}");
    }
}

#[tokio::test]
async fn s_084_a_replica_is_left_that_is_silent_while_others_may_not_be() {
    let server = Redis::start(&[]);
    let mut tail = tail(&server);
    let own = Server::local(server.port());
    tail.log.router.know(Some((&Server::local(1), std::slice::from_ref(&own))));
    tail.contact = Arc::new(Contact::leased(Duration::ZERO));
    let place = write(&server);
    let as_far = Progress { cursor: Some(place), reading: true, has_read: true };
    let (progress, seen) = watch::channel(as_far);
    let waits = || server.cli(&["INFO", "clients"]).contains("blocked_clients:1");
    let two_questions = async || {
        for _ in 0..2 {
            until("a question waits", waits).await;
            until("none waits", || !waits()).await;
        }
    };
    for other in [Cursor(1, 1), Cursor(place.0 + 1, 0)] {
        progress.send_modify(|progress| *progress = as_far);
        let heard = tail.heard();
        let moving = async {
            two_questions().await;
            assert!(tail.heard() > heard, "it is as far as the owner, and was not left");
            progress.send_modify(|progress| progress.cursor = Some(other));
        };
        let (why, ()) = tokio::join!(left(&tail, &own, false, &seen), moving);
        assert_eq!(why, SILENT, "the owner is at {other}");
    }
    progress.send_modify(|progress| progress.reading = false);
    tokio::select! {
        why = left(&tail, &own, true, &seen) => panic!("it is the only one: {why}"),
        () = two_questions() => {}
    }
}

#[tokio::test]
async fn s_084_who_waits_for_another_owner_hears_of_it_at_once() {
    let server = Redis::start(&[]);
    let tail = tail(&server);
    let (own, other) = (Server::local(server.port()), Server::local(1));
    tail.log.router.know(None);
    let knowing = async {
        tail.log.router.know(Some((&own, &[])));
        tokio::task::yield_now().await;
        tail.log.router.know(Some((&other, &[])));
    };
    // Nobody is no other one.
    tokio::join!(tail.until_owner(|now| now.is_some_and(|now| *now != own)), knowing);
    assert_eq!(tail.log.router.owner(&tail.log.key), Some(other));
}

#[tokio::test]
async fn s_084_a_server_that_follows_another_one_is_not_read_as_the_owner() {
    let master = Redis::start(&[]);
    let replica = Redis::start(&["--replicaof", "127.0.0.1", &master.port().to_string()]);
    let tail = tail(&master);
    assert_eq!(tail.resume(&tail.link(&master).await, None).await, Ok(Cursor::default()));
    let refused = tail.resume(&tail.link(&replica).await, None).await;
    assert_eq!(refused, Err("it follows another server now".to_owned()));
}

#[tokio::test]
async fn s_084_lines_that_are_missing_outdate_every_copy() {
    let server = Redis::start(&[]);
    let tail = tail(&server);
    let link = tail.link(&server).await;
    write(&server);
    for (cursor, resets) in [(None, 0), (Some(Cursor(1, 0)), 1)] {
        assert_eq!(tail.resume(&link, cursor).await, Ok(Cursor::default()));
        assert_eq!(tail.invalidation.resets(), resets, "{cursor:?}");
    }
}

// Answers are read while another program is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_084_a_heartbeat_counts_only_once_nothing_older_waits_behind_it() {
    let server = Redis::start(&[]);
    let tail = tail(&server);
    let (progress, seen) = watch::channel(Progress::default());
    let beat = |count: &str| {
        let lines = "for _ = 1, ARGV[1] do redis.call('XADD', '{chg}log', '*', 'k', 'h') end return 'OK'";
        assert_eq!(server.cli(&["EVAL", lines, "0", count]), "OK");
    };
    // More than two answers hold.
    beat("2500");
    let (owner, mut trouble) = (Server::local(server.port()), Trouble::default());
    let reading = tail.read(&owner, &progress, &mut trouble);
    let beating = async {
        until("all of them are read", || seen.borrow().has_read).await;
        assert_eq!(tail.contact.lost_for(), Some(Duration::MAX), "they are old");
        beat("1");
        until("there is contact", || tail.contact.lost_for().is_none()).await;
    };
    tokio::select! {
        why = reading => panic!("{why:?}"),
        () = beating => {}
    }
}
