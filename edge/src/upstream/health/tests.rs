//! What health checks make of what they hear, and when they ask.

use super::*;
use crate::metrics::Metrics;
use crate::route::{Balancing, Probe, Route, Target, TcpCheck, UpstreamScheme};
use crate::testing::{config, route};
use crate::upstream::cluster::Clusters;
use crate::upstream::member::{Origin, State, Where};

fn check() -> HealthCheck {
    HealthCheck {
        timeout: Duration::from_secs(1),
        interval: Duration::from_secs(10),
        unhealthy_threshold: 3,
        healthy_threshold: 2,
        probe: Probe::Tcp(TcpCheck::default()),
        initial_jitter: Duration::ZERO,
        interval_jitter: Duration::ZERO,
        jitter_percent: 0,
        no_traffic_interval: Duration::from_secs(60),
        no_traffic_healthy_interval: Some(Duration::from_secs(50)),
        unhealthy_interval: Some(Duration::from_secs(5)),
        unhealthy_edge_interval: Some(Duration::from_secs(2)),
        healthy_edge_interval: Some(Duration::from_secs(3)),
        port: None,
        reuse_connection: false,
        log_failures: false,
        log_successes: false,
    }
}

fn checking() -> Checking {
    let mut one: Route = route("a.example.com", "/");
    let Target::Upstream(upstream) = &mut one.target else { panic!() };
    upstream.balancing = Some(Box::new(Balancing { health_checks: vec![check()], ..Balancing::default() }));
    let config = config(vec![one]);
    let clusters = Clusters::new(&config).unwrap();
    let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
    let route = &config.routes[0];
    let tended = Tended::of(route, clusters.of(route).unwrap(), (clusters.dial(), 1), &metrics).unwrap();
    let place = Where::Address("192.0.2.1:80".parse().unwrap());
    let origin = Origin { scheme: UpstreamScheme::Http, host: "192.0.2.1".into() };
    let member = Member { endpoint: 0, origin, place, weight: 1, state: Arc::<State>::default() };
    Checking { tended, member, index: 0 }
}

fn failed() -> Result<(), Failure> {
    Err(Failure::of("x"))
}

#[tokio::test]
async fn the_first_time_decides_alone_and_later_so_many_in_a_row() {
    let checking = checking();
    let take = |outcome| checking.take(&check(), &outcome);
    assert_eq!(take(failed()), Turn::Out);
    assert!(!checking.member.state.is_usable());
    assert_eq!(
        [take(Ok(())), take(failed()), take(Ok(())), take(Ok(()))],
        [Turn::Same, Turn::Same, Turn::Same, Turn::In]
    );
    assert!(checking.member.state.is_usable());
    assert_eq!([take(failed()), take(failed()), take(Ok(()))], [Turn::Same; 3]);
    assert_eq!([take(failed()), take(failed()), take(failed())], [Turn::Same, Turn::Same, Turn::Out]);
    assert_eq!([take(Ok(())), take(Ok(()))], [Turn::Same, Turn::In]);
    assert_eq!(take(Err(Failure { why: String::new(), at_once: true })), Turn::Out, "its status is final");
}

#[tokio::test]
async fn how_often_is_asked_depends_on_how_it_is_and_whether_anybody_cares() {
    let checking = checking();
    let seconds = |turn| checking.interval(&check(), turn).as_secs();
    assert_eq!(seconds(Turn::Same), 50, "nobody has come yet");
    checking.member.state.health.set(1, true);
    assert_eq!(seconds(Turn::Same), 60);
    checking.tended.balancer.note_use();
    assert_eq!([seconds(Turn::Same), seconds(Turn::Out)], [5, 2]);
    checking.member.state.health.set(1, false);
    assert_eq!([seconds(Turn::Same), seconds(Turn::In)], [10, 3]);
}

#[tokio::test(start_paused = true)]
async fn the_first_request_ends_the_rest_of_who_had_nothing_to_do() {
    let checking = checking();
    let _turn = checking.take(&check(), &Ok(()));
    let (balancer, begun) = (Arc::clone(&checking.tended.balancer), Instant::now());
    let resting = checking.rest(begun + Duration::from_secs(50));
    let ((), ()) = tokio::join!(resting, async {
        tokio::time::sleep(Duration::from_secs(7)).await;
        balancer.note_use();
    });
    assert_eq!(begun.elapsed(), Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn what_was_due_under_the_configuration_before_is_due_at_the_same_time() {
    let checking = checking();
    checking.tended.balancer.note_use();
    assert_eq!(checking.first(&check()), Instant::now(), "at once");
    let _turn = checking.take(&check(), &Ok(()));
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(checking.first(&check()), Instant::now() + Duration::from_secs(6));
}
