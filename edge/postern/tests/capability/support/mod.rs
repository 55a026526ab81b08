//! What the promises are tried with: worlds, a launcher, upstreams, clients, a provider and a browser.

mod browser;
mod chromium;
mod page;
mod postern;
mod provider;
mod recorder;
mod upstream;
mod world;

use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

pub(crate) use browser::{Browser, Response};
pub(crate) use chromium::Chromium;
pub(crate) use page::{Form, forms};
pub(crate) use postern::{Finished, Postern};
pub(crate) use provider::Provider;
pub(crate) use recorder::Recorder;
pub(crate) use upstream::Upstream;
pub(crate) use world::{World, free_port};

/// How long a condition may take to come true before its test fails: generous, for a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until `probe` finds something; `what` says what for in the failure.
pub(crate) async fn eventually<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> Result<T> {
    within(DEADLINE, what, probe).await
}

/// Waits until `probe` finds something, for so long at most: where the time is the promise.
pub(crate) async fn within<T>(limit: Duration, what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return Ok(found);
        }
        if started.elapsed() > limit {
            bail!("waited {limit:?} in vain for {what}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Sends a signal to a process, or with a `-` before its id to its group.
pub(crate) fn signal(name: &str, process: &str) -> Result<()> {
    let status = std::process::Command::new("kill").args(["-s", name, "--", process]).status()?;
    anyhow::ensure!(status.success(), "kill -s {name} {process} failed");
    Ok(())
}

/// A child process, with whatever it started, that does not outlive its owner.
#[derive(Debug)]
pub(crate) struct Owned(pub(crate) Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // Its group: a browser's helpers go with it. Both may be gone already.
        let _gone = signal("KILL", &format!("-{}", self.0.id()));
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}
