//! A running edge, over real sockets, gives what others say that it gives.
//!
//! `explain` and the running edge agree on random configurations and requests, in 10,000 cases: each is one request of somebody,
//! and what the edge answers, what it writes down and what the upstream gets is compared with what `explain` says. And the
//! compatibility vectors of the policy language come to their verdicts, see `verdicts.rs`. `diff` finds every change that asking
//! for many people and requests one by one finds.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail where it stands"
)]

mod compare;
mod configs;
mod diff;
mod edge;
mod log;
mod people;
mod requests;
#[path = "../../../policy/tests/vectors/mod.rs"]
mod vectors;
mod verdicts;

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};

use crate::compare::Seen;
use crate::edge::World;
use crate::log::Log;

/// Configurations, and requests of each: 10,000 cases.
const CONFIGS: u32 = 50;
const REQUESTS: usize = 200;

#[test]
fn explain_and_the_running_edge_agree_in_ten_thousand_random_cases() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let log = Log::listen();
    let world = RefCell::new(runtime.block_on(World::start(people::everybody)));
    let seen = RefCell::new(Seen::default());
    let runs = Config { cases: CONFIGS, max_shrink_iters: 300, failure_persistence: None, ..Config::default() };
    let cases = (configs::generated(), prop::collection::vec(requests::any(), REQUESTS));
    let outcome = TestRunner::new(runs).run(&cases, |(config, requests)| {
        let (mut world, mut seen) = (world.borrow_mut(), seen.borrow_mut());
        runtime.block_on(compare::agree(&mut world, &log, &mut seen, &config, &requests))
    });
    // The reason names request and configuration; the whole input is long.
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, _) | TestError::Abort(reason)) => panic!("{reason}"),
    }
    let seen = seen.into_inner();
    assert_eq!(seen.total(), 10_000);
    // Agreement means something only if every kind of end was met, and often.
    for (end, least) in
        [("via-upstream", 300), ("direct-response", 200), ("user-unauthenticated", 200), ("route-not-found", 200)]
    {
        assert!(seen.of(end) >= least, "{end}: {seen:?}");
    }
    for end in [
        "groups-unauthorized",
        "claim-unauthorized",
        "http-path-unauthorized",
        "denied",
        "path-encoded-slash",
        "ambiguous-path",
    ] {
        assert!(seen.of(end) > 0, "{end}: {seen:?}");
    }
}
