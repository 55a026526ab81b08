//! Several processes of one world, which meet in a store.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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

/// One address for several servers: each connection goes to the next of them.
#[derive(Debug)]
pub(crate) struct Balancer {
    servers: Arc<Mutex<Vec<u16>>>,
}

impl Balancer {
    /// Listens at `port`; ends with the test.
    pub(crate) async fn start(port: u16, servers: impl IntoIterator<Item = u16>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let (servers, turn) = (Arc::new(Mutex::new(servers.into_iter().collect::<Vec<_>>())), AtomicUsize::new(0));
        let balancer = Self { servers: Arc::clone(&servers) };
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let turn = turn.fetch_add(1, Ordering::Relaxed);
                let server = servers.lock().unwrap_or_else(PoisonError::into_inner).iter().cycle().nth(turn).copied();
                let Some(server) = server else { continue };
                tokio::spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, server))).await {
                        // Either side may go away first.
                        let _ended = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Ok(balancer)
    }

    /// Sends connections there from now on.
    pub(crate) fn lead_to(&self, servers: impl IntoIterator<Item = u16>) {
        *self.servers.lock().unwrap_or_else(PoisonError::into_inner) = servers.into_iter().collect();
    }
}
