//! `postern run`, `postern demo`, `postern health` and `postern reload`: what keeps a process alive, and what ends it.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::assemble::{CONTROL, Place, Running};
use crate::check;
use crate::cli::{self, Exit, Format};
use crate::config::{Config, Environment, Source};
use crate::demo;
use crate::manager::Manager;
use crate::reload::{self, Asker, Followed, Reload};
use crate::telemetry::{LogFormat, Telemetry};
use crate::upgrade::{Inheritance, Upgrades};
use crate::{admin, chain};

/// Threads of the control runtime: authn, the store, admin, reload. Traffic has runtimes of its own.
const CONTROL_THREADS: usize = 2;

/// So many may wait for a reload at once; more are told to come again.
const ASKERS: usize = 8;

/// Runs with a configuration until it is told to stop.
#[must_use]
pub(crate) fn run(asked: &cli::Run) -> Exit {
    let source = Source { file: asked.config.clone(), lenient: asked.lenient };
    ended(check::environment().and_then(|environment| {
        let inheritance = Inheritance::take(&environment);
        let config = check::load_to_run(&source, &environment)?;
        run_to_end(serve(config, source, environment, inheritance, || {}))
    }))
}

/// Runs the demonstration until it is told to stop.
#[must_use]
pub(crate) fn demo(asked: &cli::Demo) -> Exit {
    ended(check::environment().and_then(|environment| run_to_end(demonstrate(asked, environment))))
}

async fn demonstrate(asked: &cli::Demo, environment: Environment) -> Result<(), Exit> {
    let variable = |name| environment.get(name).map(|value| value.expose().as_str());
    let dir = asked.dir.clone().or_else(|| demo::default_dir(variable("XDG_DATA_HOME"), variable("HOME")));
    let dir =
        dir.ok_or_else(|| failed("there is no home folder to keep the demonstration in; name a folder with --dir"))?;
    let prepared =
        demo::prepare(demo::Options { port: asked.port, dir }).await.map_err(|error| failed(&chain(&error)))?;
    // The written file alone says what runs: variables meant for another Postern change nothing here.
    let environment = Environment::of(environment.get("NO_COLOR").map(|value| ("NO_COLOR", value.expose().clone())))
        .map_err(|error| failed(&error.to_string()))?;
    let source = Source { file: Some(prepared.config_path.clone()), lenient: false };
    let config = check::load_to_run(&source, &environment)?;
    let colour = std::io::stdout().is_terminal() && !environment.no_color();
    let banner = prepared.banner(colour);
    let stop = CancellationToken::new();
    let services = prepared.spawn(&stop);
    let served = serve(config, source, environment, Inheritance::default(), move || print(&banner)).await;
    stop.cancel();
    services.stopped().await;
    served
}

/// Asks a running Postern whether it is ready.
#[must_use]
pub(crate) fn health(asked: &cli::Health) -> Exit {
    let url = format!("http://{}/readyz", asked.address);
    let asking = async {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(3)).build().ok()?;
        Some(client.get(&url).send().await.ok()?.status().is_success())
    };
    match control_runtime().map(|runtime| runtime.block_on(asking)) {
        Ok(Some(true)) => {
            print("ready\n");
            Exit::Ok
        }
        Ok(Some(false)) => {
            failed(&format!("{} answers, but is not ready; http://{}/status says why", asked.address, asked.address))
        }
        Ok(None) => {
            failed(&format!("nothing answers at {}", asked.address));
            Exit::Unreachable
        }
        Err(exit) => exit,
    }
}

/// Asks a running Postern to load its configuration again, and tells what became of it.
#[must_use]
pub(crate) fn reload(asked: &cli::Reload) -> Exit {
    let url = format!("http://{}/reload", asked.address);
    let accept = match asked.format {
        Format::Human => "text/plain",
        Format::Json => "application/json",
    };
    let asking = async {
        let client = reqwest::Client::builder().no_proxy().timeout(RELOAD).build().ok()?;
        let answer =
            client.post(&url).header(reqwest::header::ACCEPT, accept).header(admin::ASKS, "1").send().await.ok()?;
        Some((answer.status(), answer.text().await.ok()?))
    };
    match control_runtime().map(|runtime| runtime.block_on(asking)) {
        Ok(Some((status, text))) if status.is_success() => {
            print(&text);
            Exit::Ok
        }
        Ok(Some((reqwest::StatusCode::UNPROCESSABLE_ENTITY, text))) => {
            print(&text);
            Exit::Problem
        }
        Ok(Some((status, text))) => failed(&format!("{} answers {status}: {}", asked.address, text.trim())),
        Ok(None) => {
            failed(&format!("nothing answers at {}", asked.address));
            Exit::Unreachable
        }
        Err(exit) => exit,
    }
}

/// A load of many routes takes seconds at most; a disk may hang for longer.
const RELOAD: Duration = Duration::from_secs(60);

/// Serves until SIGTERM or SIGINT, or until another process serves in the place of this one; then drains. A second signal cuts
///
async fn serve(
    config: Config,
    source: Source,
    environment: Environment,
    inheritance: Inheritance,
    ready: impl FnOnce(),
) -> Result<(), Exit> {
    let telemetry = Telemetry::start(LogFormat::detect(environment.no_color()), config.logs)
        .map_err(|error| failed(&error.to_string()))?;
    let mut stop = Stop::listen().map_err(|error| failed(&error.to_string()))?;
    let mut upgrades = Upgrades::listen(&environment).map_err(|error| failed(&error.to_string()))?;
    let (ask, askers) = mpsc::channel(ASKERS);
    let (inherited, predecessor) = inheritance.open();
    let place = Place { inherited, predecessor: predecessor.as_ref() };
    let mut running = tokio::select! {
        started = Running::start(config, telemetry, ask, place) => started.map_err(|error| failed(&chain(&error)))?,
        () = stop.asked() => return Ok(()),
    };
    ready();
    if let Some(predecessor) = predecessor {
        let stopped = tokio::select! {
            () = predecessor.relieve() => false,
            () = stop.asked() => true,
        };
        if stopped {
            // Not this one is known to the service manager, which may tell all of them to stop, too.
            info!("stopping before this process took the place of another: what is under way may finish");
            return drained(Box::pin(running.drain()), stop, 2).await;
        }
    }
    let manager = Manager::of(&environment, running.config().tells_manager);
    manager.ready(running.config().edge.routes.len()).await;
    let (follow, mut loads) = follow(&running, source, environment, askers);
    let successor = loop {
        tokio::select! {
            Some(Reload { loaded, asker }) = loads.recv() => {
                manager.reloading();
                let verdict = running.reload(loaded);
                manager.reloaded(&verdict, running.config().tells_manager);
                if let Some(asker) = asker {
                    // Who asked may have gone away.
                    drop(asker.send(verdict));
                }
            }
            successor = upgrades.succeeded(&running) => break Some(successor),
            () = stop.asked() => break None,
        }
    };
    follow.cancel();
    if let Some(successor) = successor {
        running.leave_to_successor();
        manager.succeeded(successor.id()).await;
        info!(
            process = successor.id(),
            "another process serves in the place of this one: what is under way may finish"
        );
        // Now it may speak to the service manager.
        drop(successor);
        // A service manager that stops all of them means this one, too: that is its first signal.
        return drained(Box::pin(running.drain()), stop, 2).await;
    }
    upgrades.give_up();
    manager.stopping();
    info!("stopping: what is under way may finish; a second signal cuts it");
    let both = async {
        tokio::join!(running.drain(), upgrades.are_given_up());
    };
    drained(Box::pin(both), stop, 1).await
}

/// Waits for the end of the drain, or until it is cut by so many signals.
async fn drained(drain: impl Future<Output = ()>, mut stop: Stop, cuts: usize) -> Result<(), Exit> {
    tokio::select! {
        () = drain => Ok(()),
        () = async { for _ in 0..cuts { stop.asked().await } } => {
            warn!("cut by a signal");
            Err(Exit::Problem)
        }
    }
}

/// Starts watching the configuration until the token is cancelled.
fn follow(
    running: &Running,
    source: Source,
    environment: Environment,
    askers: mpsc::Receiver<Asker>,
) -> (CancellationToken, mpsc::Receiver<Reload>) {
    let (stop, (tell, loads)) = (CancellationToken::new(), mpsc::channel(1));
    let (config, until) = (running.config(), stop.clone());
    let followed = Followed { files: config.watched.clone(), hot: config.hot_reload };
    tokio::spawn(async move { reload::follow(source, environment, followed, askers, tell, until).await });
    (stop, loads)
}

/// The signals that end a process.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Runs it on the control runtime, and leaves whatever still hangs on a disk behind: it must not keep the process.
fn run_to_end(work: impl Future<Output = Result<(), Exit>>) -> Result<(), Exit> {
    let runtime = control_runtime()?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_background();
    outcome
}

pub(crate) fn control_runtime() -> Result<Runtime, Exit> {
    Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name(CONTROL)
        .enable_all()
        .build()
        .map_err(|error| failed(&format!("no runtime: {error}")))
}

const fn ended(outcome: Result<(), Exit>) -> Exit {
    match outcome {
        Ok(()) => Exit::Ok,
        Err(exit) => exit,
    }
}

/// Tells why on stderr.
fn failed(why: &str) -> Exit {
    // Nobody is left to tell when stderr is closed.
    let _closed = writeln!(std::io::stderr(), "postern: {why}");
    Exit::Problem
}

fn print(text: &str) {
    // A reader that has gone away has seen enough.
    let _closed = std::io::stdout().lock().write_all(text.as_bytes());
}
