//! Several processes of one world, which meet in a store.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use tokio::net::{TcpListener, TcpStream};

use super::{Postern, World};

/// The configuration `text` of this world, with the store of that connection string.
pub(crate) fn with_store(world: &World, text: &str, store: &str) -> String {
    let file = format!("databroker_storage_connection_string: file://{}", world.path("store").display());
    text.replace("databroker_storage_type: file", "databroker_storage_type: redis")
        .replace(&file, &format!("databroker_storage_connection_string: {store}"))
}

/// The configuration `text` of this world for another process, at this port, with health and metrics at the next two.
pub(crate) fn moved_to(port: u16, world: &World, text: &str) -> String {
    let World { port: public, health, metrics, .. } = world;
    text.replace(&format!("address: 127.0.0.1:{public}\n"), &format!("address: 127.0.0.1:{port}\n"))
        .replace(&format!("127.0.0.1:{health}\n"), &format!("127.0.0.1:{}\n", port + 1))
        .replace(&format!("127.0.0.1:{metrics}\n"), &format!("127.0.0.1:{}\n", port + 2))
}

/// A process of that name with this configuration, as soon as it is ready.
pub(crate) async fn start_apart(world: &World, name: &str, config: &str, health: u16) -> Result<Postern> {
    let file = world.path(&format!("{name}.yaml"));
    std::fs::write(&file, config)?;
    let postern = Postern::spawn(world.folder(), &["run", "--config", &file.display().to_string()])?;
    postern.ready(health).await
}

/// One address for several servers: each connection goes to the next.
pub(crate) async fn balance(port: u16, servers: Vec<u16>) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let (servers, turn) = (Arc::new(servers), AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let server = servers.get(turn.fetch_add(1, Ordering::Relaxed) % servers.len()).copied().unwrap_or_default();
            tokio::spawn(async move {
                if let Ok(mut server) = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, server))).await {
                    // Either side may go away first.
                    let _ended = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    });
    Ok(())
}
