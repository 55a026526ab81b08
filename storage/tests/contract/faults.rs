//! What happens to a cluster now and then, while sessions are read and ended. `postern-load-tests faults` measures the same, and
//! more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postern_identity::Session;
use postern_servers::{Answer, Bare, Cluster, Member, Traffic};
use postern_storage::{Cached, RedisConfig, Server, Sessions, StorageError, Topology};

use crate::shared::Processes;
use crate::support::{at, id, until};

/// Long enough for a machine that is busy.
const PATIENT: Duration = Duration::from_secs(2);
const LOG: &str = "{chg}log";

fn config(cluster: &Cluster) -> RedisConfig {
    let seeds = cluster.members().iter().map(|member| Server::local(member.relay.port())).collect();
    RedisConfig { operation: PATIENT, ..RedisConfig::new(Topology::Cluster(seeds)) }
}

/// Somebody who reads sessions all the time.
struct Reader {
    over: Arc<AtomicBool>,
    reading: tokio::task::JoinHandle<Result<(), StorageError>>,
}

impl Reader {
    fn start(sessions: Sessions, of: &[Session]) -> Self {
        let (over, of) = (Arc::new(AtomicBool::new(false)), of.to_vec());
        let stop = Arc::clone(&over);
        let reading = tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                for session in &of {
                    sessions.load(&session.handle, at(1)).await?;
                }
            }
            Ok(())
        });
        Self { over, reading }
    }

    /// Nothing has failed.
    async fn saw_nothing(self, of: &str) {
        self.over.store(true, Ordering::SeqCst);
        let read = self.reading.await.unwrap();
        assert!(read.is_ok(), "{of}: {read:?}");
    }
}

fn role(bare: &mut Bare) -> String {
    bare.sure(&["ROLE"]).unwrap().list().first().unwrap().text().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r_007_what_operators_do_to_a_cluster_fails_no_look_and_loses_no_revocation() {
    let cluster = Cluster::start(Duration::from_secs(5), &[]);
    let processes = Processes::start(&config(&cluster));
    let sessions = processes.known_everywhere(0..9).await;
    let look = || Reader::start(processes.writer.sessions(), &sessions);
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
    successor.sure(&["CLUSTER", "FAILOVER"]).unwrap();
    for (number, session) in (6..9).zip(&sessions[6..]) {
        processes.revoke(session).await;
        processes.refused_everywhere(number).await;
    }
    until("the replica takes over", async || role(&mut cluster.members()[replica].bare().unwrap()) == "master").await;
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
        assert!(matches!(found, postern_storage::Lookup::Revoked), "{found:?}");
    }
    processes.end().await;
}
