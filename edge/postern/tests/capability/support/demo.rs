//! `postern demo`, as `make demo` starts it, in a folder of the test's own.

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{Browser, Postern, eventually, free_ports};

/// A running demonstration.
#[derive(Debug)]
pub(crate) struct Demo {
    pub(crate) postern: Postern,
    pub(crate) port: u16,
    home: TempDir,
}

impl Demo {
    /// Starts one where it lives by default, as soon as it has said all that it says at the start.
    pub(crate) async fn start() -> Result<Self> {
        // Its provider, its application, health and metrics take the ports after its own.
        Self::start_in(TempDir::new()?, free_ports(5)?).await
    }

    /// Starts one with the folder and the port of an earlier one.
    pub(crate) async fn start_in(home: TempDir, port: u16) -> Result<Self> {
        let mut postern = Postern::spawn(home.path(), &["demo", "--port", &port.to_string()])?;
        let told = eventually("the demonstration's greeting", async || {
            let over = postern.told().contains("Ctrl-C ends it");
            (over || !postern.is_alive()).then_some(over)
        });
        anyhow::ensure!(told.await.with_context(|| postern.told())?, "the demonstration ended: {}", postern.told());
        Ok(Self { postern, port, home })
    }

    /// Ends it as Ctrl-C does; gives what a restart needs.
    pub(crate) async fn interrupt(self) -> Result<(TempDir, u16)> {
        self.postern.signal("INT")?;
        let finished = self.postern.finished().await?;
        anyhow::ensure!(finished.status.success(), "{finished:?}");
        Ok((self.home, self.port))
    }

    /// An https URL of the demonstration.
    pub(crate) fn url(&self, name: &str, path: &str) -> String {
        format!("https://{name}.localhost:{}{path}", self.port)
    }

    /// The home folder that it was started with.
    pub(crate) fn home(&self) -> &std::path::Path {
        self.home.path()
    }

    /// The demonstration's data folder.
    pub(crate) fn folder(&self) -> std::path::PathBuf {
        self.home.path().join(".local/share/postern/demo")
    }

    /// A browser without a screen that trusts its authority.
    pub(crate) fn browser(&self) -> Result<Browser> {
        Browser::new(&std::fs::read_to_string(self.folder().join("ca.pem"))?)
    }
}
