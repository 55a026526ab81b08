//! What the promises are tried with: worlds, a launcher, upstreams, clients, a provider and a browser.

mod apart;
mod assertion;
mod backend;
mod browser;
mod caller;
mod chromium;
mod demo;
mod deployment;
mod faulty;
mod names;
mod page;
mod pebble;
mod postern;
mod provider;
mod pulse;
mod recorder;
mod responder;
mod upstream;
mod world;

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

pub(crate) use apart::{Balancer, moved_to, start_apart, with_store};
pub(crate) use assertion::{Keys, verified};
pub(crate) use backend::{Backend, Seen, Shown, acceptor};
pub(crate) use browser::{Browser, Hop, Response};
pub(crate) use caller::{Authority, Caller, Identity, openssl};
pub(crate) use chromium::Chromium;
pub(crate) use demo::Demo;
pub(crate) use deployment::Deployment;
pub(crate) use faulty::{Fault, Faulty};
pub(crate) use names::{Names, Said};
pub(crate) use page::{Form, forms};
pub(crate) use pebble::{Behaviour, Pebble};
pub(crate) use postern::{Finished, Postern, plain_client};
pub(crate) use provider::{Grant, Provider, Refreshes, Reuse};
pub(crate) use pulse::Pulse;
pub(crate) use recorder::Recorder;
pub(crate) use responder::{ISSUER, Responder};
pub(crate) use upstream::{Asked, Upstream};
pub(crate) use world::{ANY_USER, COOKIE_SECRET, NO_PROVIDER, PUBLIC, SHARED_SECRET, World, free_port, free_ports};

/// How long a condition may take to come true before its test fails: generous, for a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_mins(2);

/// Waits until `probe` finds something; `what` says what for in the failure.
pub(crate) async fn eventually<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> Result<T> {
    within(DEADLINE, what, probe).await
}

/// Waits until `probe` finds something, for so long at most: where the time is the promise. A probe that hangs is cut.
pub(crate) async fn within<T>(limit: Duration, what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> Result<T> {
    let search = async {
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    bounded(limit, what, search).await
}

/// Waits for `work`, for so long at most; `what` says what for in the failure.
pub(crate) async fn bounded<T>(limit: Duration, what: &str, work: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(limit, work).await.map_err(|_| anyhow!("waited {limit:?} in vain for {what}; {}", machine()))
}

/// How busy the machine is, for whoever reads of something that came too late.
pub(crate) fn machine() -> String {
    let read = |name: &str| std::fs::read_to_string(name).unwrap_or_default().trim().replace('\n', ", ");
    let pressure = |what: &str| format!("{what}: {}", read(&format!("/proc/pressure/{what}")));
    let busy = [format!("load: {}", read("/proc/loadavg")), pressure("cpu"), pressure("io"), pressure("memory")];
    format!("the machine: {}", busy.join("; "))
}

/// The output of a command that ends in time; else it is killed, with whatever it started.
pub(crate) fn output_within(limit: Duration, what: &str, mut command: Command) -> Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let child = command.spawn().with_context(|| format!("starting {what}"))?;
    let (id, (tell, told)) = (child.id(), mpsc::channel());
    std::thread::spawn(move || tell.send(child.wait_with_output()));
    match told.recv_timeout(limit) {
        Ok(output) => output.with_context(|| what.to_owned()),
        Err(_) => {
            signal("KILL", &format!("-{id}"))?;
            let said = told.recv_timeout(DEADLINE).ok().and_then(Result::ok);
            bail!("waited {limit:?} in vain for the end of {what}; it said {said:?}")
        }
    }
}

/// Sends a signal to a process, or with a `-` before its id to its group.
pub(crate) fn signal(name: &str, process: &str) -> Result<()> {
    let killed = Command::new("kill").args(["-s", name, "--", process]).output()?;
    anyhow::ensure!(killed.status.success(), "{}", String::from_utf8_lossy(&killed.stderr));
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
