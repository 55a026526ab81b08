//! What goes wrong with servers that Sentinels watch.

use std::time::Duration;

use anyhow::Result;
use postern_servers::Watched;
use tokio::task::block_in_place;

use super::verdict::Reach;
use super::{Route, Trial, promoted};
use crate::support::eventually;

/// How long a server has to be silent until Sentinels call it dead.
const DOWN_AFTER: Duration = Duration::from_secs(2);

impl Trial<Watched> {
    /// On a master and a replica that are well.
    pub(super) async fn on_watched() -> Result<Self> {
        let watched = block_in_place(|| Watched::start(DOWN_AFTER));
        let sentinels: Vec<_> = watched.sentinels().iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let store = format!("redis+sentinel://{}/{}", sentinels.join(","), Watched::MASTER);
        Self::begin(watched, &store, |_, _| true).await
    }

    /// It holds its connections and answers nothing. When it goes on it follows the other one.
    pub(super) async fn the_master_hangs(&mut self) -> Result<()> {
        let (began, late) = self.leavers().await?;
        let [master, replica] = &self.servers.servers;
        master.pause();
        let leaving = tokio::spawn(late.leave());
        let away_until = promoted(replica.port()).await?;
        self.is_served_from_memory(Reach::All, began, Route::Strict).await?;
        let fault = ("the master hangs that Sentinels watch", Reach::All);
        self.recovers(fault, (began, Some(away_until)), leaving).await?;
        let [master, _] = &self.servers.servers;
        master.resume();
        let follows = || master.cli(&["INFO", "replication"]).contains("master_link_status:up").then_some(());
        eventually("the former master to follow its successor", async || block_in_place(follows)).await
    }

    /// The first one takes its place again.
    pub(super) async fn its_successor_is_killed(&mut self) -> Result<()> {
        let (began, late) = self.leavers().await?;
        let [replica, master] = &mut self.servers.servers;
        master.kill();
        let leaving = tokio::spawn(late.leave());
        let away_until = promoted(replica.port()).await?;
        self.is_served_from_memory(Reach::All, began, Route::Strict).await?;
        let fault = ("the master is killed that Sentinels watch", Reach::All);
        self.recovers(fault, (began, Some(away_until)), leaving).await
    }
}
