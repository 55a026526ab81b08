//! The tail, piece by piece, on a server of its own.

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

/// Writes a fact and a heartbeat, which one answer gives.
fn write(server: &Redis) {
    let lines = "redis.call('XADD', '{chg}log', '*', 'k', 'c') return redis.call('XADD', '{chg}log', '*', 'k', 'h')";
    let place = server.cli(&["EVAL", lines, "0"]);
    assert!(place.contains('-'), "{place}");
}

fn waits(server: &Redis) -> bool {
    server.cli(&["INFO", "clients"]).contains("blocked_clients:1")
}

#[tokio::test]
async fn r_009_what_a_server_says_while_another_one_takes_over_is_heard_and_is_no_sign_of_life() {
    let server = Redis::start(&[]);
    let tail = tail(&server);
    let link = tail.link(&server).await;
    let (progress, seen) = watch::channel(Progress::default());
    let (owner, mut trouble) = (Server::local(server.port()), Trouble::default());
    let reading = tail.read(&owner, &link, &progress, &mut trouble);
    let taking_over = async {
        until("it is read", || seen.borrow().reading).await;
        // From now on nobody looks who owns it.
        tail.log.router.close();
        until("a question waits", || waits(&server)).await;
        tail.log.router.give(&tail.log.key, &Server::local(1));
        write(&server);
    };
    let (why, ()) = tokio::join!(reading, taking_over);
    assert_eq!(why, "another server owns it now");
    assert_eq!(tail.heard(), 1);
    assert_eq!(tail.contact.lost_for(), Some(Duration::MAX), "it is not its owner");
    assert_eq!(seen.borrow().cursor, Some(Cursor::default()), "who owns it is read from where its owner was read");
}

#[tokio::test]
async fn s_084_the_replicas_of_before_are_heard_where_none_is_known_any_more() {
    let replica = Redis::start(&[]);
    let tail = tail(&replica);
    assert!(tail.log.router.replicas(&tail.log.key).is_empty());
    let mut replicas = vec![Server::local(replica.port())];
    write(&replica);
    tokio::select! {
        () = tail.ask_replicas(Cursor::default(), &mut replicas) => panic!("it goes on"),
        () = until("it is heard", || tail.heard() > 0) => {}
    }
}

#[tokio::test]
async fn r_008_an_owner_whose_answer_is_late_is_not_taken_for_one_that_is_read() {
    let server = Redis::start(&[]);
    let tail = tail(&server);
    let link = tail.link(&server).await;
    let (progress, seen) = watch::channel(Progress::default());
    let (owner, mut trouble) = (Server::local(server.port()), Trouble::default());
    let hanging = async {
        until("it is read", || seen.borrow().reading).await;
        server.pause();
    };
    let (why, ()) = tokio::join!(tail.read(&owner, &link, &progress, &mut trouble), hanging);
    assert_eq!(why, "it does not answer in time");
    assert!(!seen.borrow().reading, "others were heard before it was given up");
    assert!(seen.borrow().has_read);
}

#[tokio::test]
async fn s_084_lines_that_are_missing_outdate_every_copy_once() {
    let server = Redis::start(&[]);
    let tail = tail(&server);
    let link = tail.link(&server).await;
    write(&server);
    let (progress, _) = watch::channel(Progress { cursor: Some(Cursor(1, 0)), ..Progress::default() });
    for _ in 0..3 {
        let cursor = progress.borrow().cursor;
        assert_eq!(tail.resume(&link, cursor).await, Ok(Cursor::default()));
        progress.send_modify(|progress| progress.cursor = Some(Cursor::default()));
    }
    assert_eq!(tail.invalidation.resets(), 1);
}

#[tokio::test(start_paused = true)]
async fn s_084_replicas_are_heard_until_the_owner_has_been_read_for_a_while_without_a_break() {
    let (progress, mut seen) = watch::channel(Progress::default());
    let reads = |reading| progress.send_modify(|progress| progress.reading = reading);
    let begun = tokio::time::Instant::now();
    let owner = async {
        for _ in 0..3 {
            reads(true);
            tokio::time::sleep(STEADY / 2).await;
            reads(false);
            tokio::time::sleep(STEADY * 2).await;
        }
        reads(true);
    };
    let (ended, ()) = tokio::join!(
        async {
            steady(&mut seen).await;
            begun.elapsed()
        },
        owner
    );
    assert_eq!(ended, (STEADY / 2 + STEADY * 2) * 3 + STEADY);
    drop(progress);
    // Nobody reads any more.
    steady(&mut seen).await;
}
