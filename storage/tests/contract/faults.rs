//! What happens to a cluster now and then, while sessions are read and ended. `postern-load-tests faults` measures the same, and
//! more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use postern_identity::Session;
use postern_servers::{Answer, Bare, Cluster, Member, Redis, Traffic};
use postern_storage::{Cached, Committed, Lookup, Once, RedisConfig, Server, Sessions, StorageError, Topology};

use crate::shared::Processes;
use crate::support::{at, id, session, tokens, until};

/// Long enough for a machine that is busy.
const PATIENT: Duration = Duration::from_secs(2);
const HALF_A_MINUTE: Duration = Duration::from_secs(30);
const LOG: &str = "{chg}log";

fn config(cluster: &Cluster) -> RedisConfig {
    let seeds = cluster.members().iter().map(|member| Server::local(member.relay.port())).collect();
    RedisConfig { operation: PATIENT, ..RedisConfig::new(Topology::Cluster(seeds)) }
}

/// Somebody who reads sessions all the time, and the slowest look; and beside them the slowest answer of a server to which nothing
/// happens, which tells how busy the machine is.
struct Reader {
    over: Arc<AtomicBool>,
    reading: tokio::task::JoinHandle<Result<Duration, StorageError>>,
    pinging: tokio::task::JoinHandle<Duration>,
}

impl Reader {
    fn start(sessions: Sessions, of: &[Session], bystander: &Redis) -> Self {
        let (over, of) = (Arc::new(AtomicBool::new(false)), of.to_vec());
        let stop = Arc::clone(&over);
        let reading = tokio::spawn(async move {
            let mut slowest = Duration::ZERO;
            while !stop.load(Ordering::SeqCst) {
                for session in &of {
                    let asked = Instant::now();
                    sessions.load(&session.handle, at(1)).await?;
                    slowest = slowest.max(asked.elapsed());
                }
            }
            Ok(slowest)
        });
        let mut bystander = Bare::connect(bystander.port(), Duration::from_secs(60)).unwrap();
        let stop = Arc::clone(&over);
        let pinging = tokio::task::spawn_blocking(move || {
            let mut slowest = Duration::ZERO;
            while !stop.load(Ordering::SeqCst) {
                let asked = Instant::now();
                bystander.sure(&["PING"]).unwrap();
                slowest = slowest.max(asked.elapsed());
                std::thread::sleep(Duration::from_millis(5));
            }
            slowest
        });
        Self { over, reading, pinging }
    }

    /// Nothing has failed, and no look took longer than it may on such a machine: it is several questions to several servers.
    async fn saw_nothing(self, of: &str) {
        self.over.store(true, Ordering::SeqCst);
        let (read, ping) = (self.reading.await.unwrap(), self.pinging.await.unwrap());
        let most = PATIENT.max(ping * 20);
        assert!(read.as_ref().is_ok_and(|slowest| *slowest <= most), "{of}: {read:?}, {ping:?} for a bystander");
    }
}

fn role(bare: &mut Bare) -> String {
    bare.sure(&["ROLE"]).unwrap().list().first().unwrap().text().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r_007_what_operators_do_to_a_cluster_fails_no_look_and_loses_no_revocation() {
    // Nobody is called dead because the machine is busy.
    let (cluster, bystander) = (Cluster::start(Duration::from_secs(15), &[]), Redis::start(&[]));
    let processes = Processes::start(&RedisConfig { operation: HALF_A_MINUTE, ..config(&cluster) });
    let sessions = processes.known_everywhere(0..9).await;
    let look = || Reader::start(processes.writer.sessions(), &sessions, &bystander);
    let (master, replica) = cluster.shard(LOG);

    let reader = look();
    for (number, session) in (0..3).zip(&sessions) {
        for mut bare in cluster.members().iter().map(Member::bare).map(Result::unwrap) {
            bare.sure(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).unwrap();
        }
        processes.revoke(session).await;
        processes.refused_everywhere(number).await;
    }
    reader.saw_nothing("connections that are killed").await;

    let reader = look();
    tokio::task::block_in_place(|| cluster.reshard(master, 20));
    for (number, session) in (3..6).zip(&sessions[3..]) {
        processes.revoke(session).await;
        processes.refused_everywhere(number).await;
    }
    reader.saw_nothing("slots that move").await;

    let reader = look();
    let mut successor = cluster.members()[replica].bare().unwrap();
    let begun = Instant::now();
    successor.sure(&["CLUSTER", "FAILOVER"]).unwrap();
    for (number, session) in (6..9).zip(&sessions[6..]) {
        processes.revoke(session).await;
        processes.refused_everywhere(number).await;
    }
    let mut asked = Instant::now();
    tokio::task::block_in_place(|| {
        while role(&mut successor) != "master" {
            // On a busy machine the servers give it up, after 5 s.
            if asked.elapsed() > Duration::from_secs(6) {
                successor.sure(&["CLUSTER", "FAILOVER"]).unwrap();
                asked = Instant::now();
            }
            assert!(begun.elapsed() < HALF_A_MINUTE, "the replica does not take over");
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    reader.saw_nothing("a failover by hand").await;
    processes.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r_009_a_revocation_is_heard_after_a_stall_and_after_connections_were_refused() {
    let cluster = Cluster::start(Duration::from_secs(5), &[]);
    let processes = Processes::start(&config(&cluster));
    let sessions = processes.known_everywhere(0..4).await;
    let (master, _) = cluster.shard(LOG);
    let second = || tokio::time::sleep(Duration::from_secs(1));

    let server = &cluster.members()[master].server;
    server.pause();
    let resume = async {
        second().await;
        server.resume();
    };
    tokio::join!(processes.revoke(&sessions[0]), resume);
    processes.refused_everywhere(0).await;

    let all = |traffic| cluster.members().iter().for_each(|member| member.relay.set(traffic));
    all(Traffic::Refused);
    let heal = async {
        second().await;
        all(Traffic::Passes);
    };
    tokio::join!(processes.revoke(&sessions[1]), heal);
    processes.refused_everywhere(1).await;
    processes.in_contact().await;
    let (_, cache) = &processes.edges[0];
    assert!(matches!(cache.get(&id(2), at(2), Duration::ZERO), Cached::Hit(_)), "and nobody else's");
    processes.end().await;
}

/// What the store has said yes to.
#[derive(Default)]
struct Acknowledged {
    created: Vec<u64>,
    /// The latest generation of the session that is refreshed.
    generation: u64,
    spent: Vec<u64>,
}

impl Acknowledged {
    /// Writes without pause, each once: what fails may hold or not.
    async fn all(sessions: Sessions, lane: u64, over: Arc<AtomicBool>) -> Self {
        let refreshed = session(lane, "refreshed");
        let mut own = Self { generation: 1, ..Self::default() };
        for number in (1_000 * lane..).skip(1) {
            if over.load(Ordering::SeqCst) {
                break;
            }
            let created = session(number, &format!("user-{number}"));
            if sessions.create(&created, &tokens("a")).await.is_ok() {
                own.created.push(number);
            }
            let generation = match sessions.load(&refreshed.handle, at(1)).await {
                Ok(Lookup::Found(found)) => found.generation,
                _ => continue,
            };
            if let Ok(Committed::Saved(next)) =
                sessions.commit(&refreshed.handle, generation, &refreshed, &tokens("b")).await
            {
                own.generation = next;
            }
            if let Ok(true) = sessions.spend(Once::SignIn, &number.to_be_bytes(), at(0), at(60)).await {
                own.spent.push(number);
            }
        }
        own
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r_009_nothing_that_was_acknowledged_is_lost_when_a_master_is_killed_while_it_is_written_to() {
    const LANES: u64 = 8;
    let mut cluster = Cluster::start(Duration::from_secs(1), &[]);
    let processes = Processes::start(&RedisConfig { operation: Duration::from_millis(500), ..config(&cluster) });
    let sessions = || processes.writer.sessions();
    for lane in 1..=LANES {
        sessions().create(&session(lane, "refreshed"), &tokens("a")).await.unwrap();
    }
    let over = Arc::new(AtomicBool::new(false));
    let writing: Vec<_> =
        (1..=LANES).map(|lane| tokio::spawn(Acknowledged::all(sessions(), lane, Arc::clone(&over)))).collect();
    until("much is written", async || {
        let sessions = |member: &Member| member.bare().unwrap().keys("s:*").unwrap().len();
        cluster.members().iter().map(sessions).sum::<usize>() >= 400
    })
    .await;
    let (master, replica) = cluster.shard(LOG);
    cluster.members_mut()[master].server.kill();
    until("the replica takes over", async || role(&mut cluster.members()[replica].bare().unwrap()) == "master").await;
    over.store(true, Ordering::SeqCst);
    let mut checked = [0_usize; 3];
    for (lane, written) in (1..).zip(writing) {
        let written = written.await.unwrap();
        checked[0] += written.created.len();
        checked[2] += written.spent.len();
        for number in written.created {
            let found = load(&sessions(), number).await;
            assert!(matches!(found, Lookup::Found(_)), "session {number} is lost: {found:?}");
        }
        let Lookup::Found(found) = load(&sessions(), lane).await else { panic!("session {lane} is lost") };
        assert!(found.generation >= written.generation, "{} after {}", found.generation, written.generation);
        checked[1] += usize::try_from(written.generation).unwrap();
        for number in written.spent {
            let again = loop {
                if let Ok(again) = sessions().spend(Once::SignIn, &number.to_be_bytes(), at(0), at(60)).await {
                    break again;
                }
            };
            assert!(!again, "value {number} could be spent once more");
        }
    }
    assert!(checked.iter().all(|count| *count > 50), "{checked:?}");
    processes.end().await;
}

/// What the store has, once it answers.
async fn load(sessions: &Sessions, number: u64) -> Lookup {
    loop {
        if let Ok(found) = sessions.load(&session(number, "").handle, at(1)).await {
            return found;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r_009_a_master_that_was_cut_off_with_its_clients_says_yes_to_nothing_that_is_lost() {
    let cluster = Cluster::start(Duration::from_secs(1), &[]);
    let processes = Processes::start(&RedisConfig { operation: Duration::from_millis(500), ..config(&cluster) });
    let sessions = processes.known_everywhere(0..12).await;
    let (master, replica) = cluster.shard(LOG);
    // All that ends one of these is on that master.
    let own = (0..12).zip(&sessions).filter(|(_, session)| cluster.owner(&session.handle.to_string()) == master);
    let own: Vec<_> = own.collect();
    assert!(!own.is_empty(), "the ids of these tests are spread over all masters");
    let (mut former, mut successor) =
        (cluster.members()[master].bare().unwrap(), cluster.members()[replica].bare().unwrap());

    cluster.part(master, false);
    let unconfirmed = format!("{LOG}:unconfirmed");
    assert_eq!(former.sure(&["SET", &unconfirmed, "1"]).unwrap().text(), "OK", "it does not know yet");
    let (_, first) = own[0];
    assert!(processes.writer.sessions().revoke(&first.handle).await.is_err(), "no replica has it");
    until("a replica takes over", async || role(&mut cluster.members()[replica].bare().unwrap()) == "master").await;
    assert!(processes.writer.sessions().revoke(&first.handle).await.is_err(), "no replica has it");
    let (_, cache) = &processes.edges[0];
    until("nothing is served on strict routes", async || {
        matches!(cache.get(&id(own[0].0), at(2), Duration::ZERO), Cached::Revoked | Cached::Unavailable)
    })
    .await;

    cluster.rejoin(master);
    for (number, session) in &own {
        processes.revoke(session).await;
        processes.refused_everywhere(*number).await;
    }
    until("the former master follows", async || role(&mut cluster.members()[master].bare().unwrap()) == "slave").await;
    assert_eq!(successor.sure(&["EXISTS", &unconfirmed]).unwrap(), Answer::Number(0), "it was a split brain");
    for (_, session) in &own {
        let found = processes.writer.sessions().load(&session.handle, at(1)).await.unwrap();
        assert!(matches!(found, Lookup::Revoked), "{found:?}");
    }
    processes.end().await;
}
