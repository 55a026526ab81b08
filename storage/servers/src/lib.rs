//! Real stores for tests and load tests: starts Debian's `redis-server` alone, as a cluster, or watched by Sentinels, and
//! does to it what happens in production. Everything ends with the value that stands for it.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot have its servers has to fail"
)]

mod bare;
mod cluster;
mod process;
mod relay;
mod reshard;
mod sentinel;
mod server;
mod tls;

use std::time::{Duration, Instant};

pub use bare::{Answer, Bare};
pub use cluster::{Cluster, Member};
pub use relay::{Relay, Traffic};
pub use sentinel::Watched;
pub use server::{Redis, free_port};
pub use tls::TlsFiles;

/// Waits for a condition, with a deadline.
fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(2);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
