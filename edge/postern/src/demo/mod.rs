//! `postern demo`: a whole Postern on one machine, with a provider and an application of its own. No file, no network,
//! no root.
//!
//! [`prepare`] makes or finds the data folder: an authority and a certificate, secrets, the state of provider and store,
//! and the `config.yaml` that runs. What the rest of the product is given is that file and nothing else; the provider
//! and the application are started with [`Prepared::spawn`] and are reached over loopback, as others would be.

mod app;
mod banner;
mod certificates;
mod config;
mod folder;
mod hosts;
mod idp;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postern_identity::{Secret, random};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use folder::{Folder, Mark};

/// What the demonstration is asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The edge's port; 0 for any that is free.
    pub port: u16,
    /// The data folder, made if it is not there.
    pub dir: PathBuf,
}

/// The data folder where none is named: below `$XDG_DATA_HOME`, or below `~/.local/share`. `None` if neither is known.
#[must_use]
pub fn default_dir(xdg_data_home: Option<&str>, home: Option<&str>) -> Option<PathBuf> {
    let absolute = |path: &&str| Path::new(path).is_absolute();
    let data = xdg_data_home.filter(absolute).map(PathBuf::from);
    let data = data.or_else(|| home.filter(absolute).map(|home| Path::new(home).join(".local/share")));
    data.map(|data| data.join("postern/demo"))
}

/// Why there is no demonstration.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant is its own text")]
pub enum DemoError {
    #[error("{0} holds something else; name an empty folder with --dir")]
    Foreign(PathBuf),
    #[error("{0} is in use by another `postern demo`; end that one, or name another folder with --dir")]
    InUse(PathBuf),
    #[error("{path} is broken: {what}; delete it, or the whole folder, to have it made anew")]
    Broken { path: PathBuf, what: &'static str },
    #[error("{0} cannot be written into a configuration: its path is not UTF-8; name another folder with --dir")]
    Unwritable(PathBuf),
    #[error("cannot use {path}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("port {port} of this machine is taken; choose another with --port")]
    PortTaken { port: u16 },
    #[error("cannot listen on this machine")]
    Listen(#[source] std::io::Error),
    #[error("{0} is not a loopback address")]
    NotLoopback(SocketAddr),
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
    #[error("cannot make an HTTPS client")]
    Client(#[source] reqwest::Error),
    #[error("the system gives no randomness")]
    NoRandomness,
}

/// What only this module can make: with it alone a provider or an application of the demonstration can be started.
#[derive(Debug)]
struct DemoOnly(());

/// A demonstration that is ready: its folder is in order, its provider and its application have their addresses.
#[derive(Debug)]
pub struct Prepared {
    /// The file to run.
    pub config_path: PathBuf,
    /// The edge's port.
    pub port: u16,
    folder: Folder,
    idp: idp::Idp,
    app: app::App,
}

/// The provider and the application at work. Keep it: the folder is open to others once it is dropped.
#[derive(Debug)]
pub struct Running {
    _folder: Folder,
    tasks: [JoinHandle<std::io::Result<()>>; 2],
}

/// How long provider and application may take to end.
const GRACE: Duration = Duration::from_secs(2);

/// Makes everything ready, or says what is in the way.
///
/// # Errors
/// If the folder is not ours, broken or in use, or a port is taken.
pub async fn prepare(options: Options) -> Result<Prepared, DemoError> {
    let on_disk = tokio::task::spawn_blocking(move || OnDisk::prepare(&options));
    on_disk.await.map_err(|_| DemoError::Listen(std::io::Error::other("the preparation was cancelled")))??.start()
}

impl Prepared {
    /// The data folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// What to print once the edge listens; with `colour` for a terminal.
    #[must_use]
    pub fn banner(&self, colour: bool) -> String {
        banner::text(self.folder.path(), self.port, colour)
    }

    /// Starts provider and application, on the runtime of the caller; they end with `shutdown`.
    #[must_use]
    pub fn spawn(self, shutdown: &CancellationToken) -> Running {
        let idp = tokio::spawn(self.idp.serve(shutdown.clone()));
        let app = tokio::spawn(self.app.serve(shutdown.clone()));
        Running { _folder: self.folder, tasks: [idp, app] }
    }
}

impl Running {
    /// Waits until both have ended, after their shutdown; for two seconds at most.
    pub async fn stopped(self) {
        for mut task in self.tasks {
            if tokio::time::timeout(GRACE, &mut task).await.is_err() {
                task.abort();
            }
        }
    }
}

/// The folder in order, and the addresses that its configuration names, held.
struct OnDisk {
    folder: Folder,
    port: u16,
    idp: std::net::TcpListener,
    app: std::net::TcpListener,
    key: Secret<String>,
    client_secret: Secret<String>,
    authority: String,
}

impl OnDisk {
    fn prepare(options: &Options) -> Result<Self, DemoError> {
        let folder = Folder::open(&options.dir)?;
        // All are held until each has its own.
        let edge = free(options.port)?;
        let port = port_of(&edge)?;
        let mark = folder.mark()?.unwrap_or_else(|| Mark::from(port.saturating_add(1)));
        let idp = near(mark.idp_port)?;
        let app = near(mark.app_port)?;
        // The product binds these two itself.
        let (health, metrics) = (near(mark.health_port)?, near(mark.metrics_port)?);
        let mark = Mark {
            idp_port: port_of(&idp)?,
            app_port: port_of(&app)?,
            health_port: port_of(&health)?,
            metrics_port: port_of(&metrics)?,
            ..mark
        };
        folder.set_mark(mark)?;
        certificates::prepare(&folder, SystemTime::now().into())?;
        folder.keep(config::SHARED_SECRET, secret)?;
        folder.keep(config::COOKIE_SECRET, secret)?;
        let client_secret = Secret::new(folder.keep(config::CLIENT_SECRET, secret)?);
        let key = Secret::new(folder.keep(folder::IDP_KEY, || Ok(rcgen::KeyPair::generate()?.serialize_pem()))?);
        folder::write(&folder.file(config::FILE), &config::text(&folder, port, mark)?)?;
        let authority = folder::read(&folder.file(certificates::CA))?.unwrap_or_default();
        Ok(Self { folder, port, idp, app, key, client_secret, authority })
    }

    fn start(self) -> Result<Prepared, DemoError> {
        let only = DemoOnly(());
        let origin = format!("https://{}.localhost:{}", hosts::AUTHENTICATE, self.port);
        let redirect_uri = format!("{origin}/oauth2/callback");
        let client = idp::Client { id: config::CLIENT_ID.to_owned(), secret: self.client_secret, redirect_uri, origin };
        let settings = idp::Settings { key: self.key, memory: self.folder.file("idp.json"), client };
        let idp = idp::Idp::new(&only, listener(self.idp)?, settings)?;
        let app = app::App::new(&only, listener(self.app)?, self.port, &self.authority)?;
        Ok(Prepared { config_path: self.folder.file(config::FILE), port: self.port, folder: self.folder, idp, app })
    }
}

fn listener(listener: std::net::TcpListener) -> Result<TcpListener, DemoError> {
    listener.set_nonblocking(true).map_err(DemoError::Listen)?;
    TcpListener::from_std(listener).map_err(DemoError::Listen)
}

fn bind(port: u16) -> std::io::Result<std::net::TcpListener> {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

/// The edge's port, if it is free now: better said here than by an edge that cannot start.
fn free(port: u16) -> Result<std::net::TcpListener, DemoError> {
    bind(port).map_err(|error| {
        let taken = error.kind() == std::io::ErrorKind::AddrInUse;
        if taken { DemoError::PortTaken { port } } else { DemoError::Listen(error) }
    })
}

/// That port, or any if it is taken.
fn near(port: u16) -> Result<std::net::TcpListener, DemoError> {
    bind(port).or_else(|_| bind(0)).map_err(DemoError::Listen)
}

fn port_of(listener: &std::net::TcpListener) -> Result<u16, DemoError> {
    listener.local_addr().map(|address| address.port()).map_err(DemoError::Listen)
}

/// 32 random bytes in base64, as the configuration wants them.
fn secret() -> Result<String, DemoError> {
    Ok(STANDARD.encode(random::<32>().map_err(|_| DemoError::NoRandomness)?))
}

#[cfg(test)]
mod tests;
