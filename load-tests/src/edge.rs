//! An edge that is a process of its own, on a cluster, and what it needs around it: an application, and a provider that nobody
//! should ask.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postern_identity::{IdpId, SessionCookie};
use postern_servers::Cluster;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::compare::site::{self, HOST};
use crate::compare::{Dial, Processes, host};
use crate::people::{Person, SHARED_SECRET, keyring};

/// An edge.
#[derive(Debug)]
pub(crate) struct Edge {
    address: SocketAddr,
    health: SocketAddr,
    folder: TempDir,
    pub(crate) processes: Processes,
}

impl Edge {
    /// Starts one, with what runs Postern, whose sessions are in that store. It has ten routes with a policy of two criteria, which whoever
    /// [`Person::new`] makes meets, and tells the application who asks. `more` are lines of its configuration.
    pub(crate) fn start(
        mut postern: Command,
        store: &str,
        provider: &Provider,
        application: SocketAddr,
        more: &str,
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        site::certificate(folder.path())?;
        let [address, health, metrics, authn] = [site::free()?, site::free()?, site::free()?, site::free()?];
        let (config, log) = (folder.path().join("edge.yaml"), folder.path().join("edge.log"));
        let port = address.port();
        let mut text = format!(
            r"services: proxy
address: {address}
health_check_addr: {health}
metrics_address: {metrics}
log_level: error
proxy_log_level: error
certificates:
  - cert: {cert}
    key: {key}
authenticate_service_url: https://authenticate.bench.localhost:{port}
authenticate_internal_service_url: https://localhost:{authn}
idp_provider: oidc
idp_provider_url: {issuer}
idp_client_id: {CLIENT_ID}
shared_secret: {shared}
databroker_storage_type: redis
databroker_storage_connection_string: {store}
pass_identity_headers: true
limits:
  connections: 20000
{more}routes:
",
            cert = folder.path().join("cert.pem").display(),
            key = folder.path().join("key.pem").display(),
            issuer = provider.issuer,
            authn = authn.port(),
            shared = STANDARD.encode(SHARED_SECRET),
        );
        for number in 1..=ROUTES {
            text += &format!("  - from: https://{}:{port}\n    to: http://{application}\n{POLICY}", host(number));
        }
        site::write(&config, &text)?;
        postern.arg("run").arg("--config").arg(&config);
        postern.stdout(site::log(&folder.path().join("edge.out"))?).stderr(site::log(&log)?);
        let mut processes = Processes::start(postern)?;
        site::listens(&mut processes, address, &log)?;
        Ok(Self { address, health, folder, processes })
    }

    /// How to connect to it.
    pub(crate) fn dial(&self) -> Result<Dial> {
        Dial::new(self.address, &self.folder.path().join("cert.pem"), false)
    }

    /// What the head of a request of somebody who has signed in says of them.
    pub(crate) fn cookie(person: &Person) -> String {
        format!("_pomerium={}", SessionCookie::seal(&keyring(), HOST, &person.id))
    }

    /// A request of somebody who has signed in, for so many bytes.
    pub(crate) fn request(&self, person: &Person, bytes: usize) -> String {
        let (port, cookie) = (self.address.port(), Self::cookie(person));
        format!("GET /{bytes} HTTP/1.1\r\nHost: {HOST}:{port}\r\nCookie: {cookie}\r\n\r\n")
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it says that it may be sent requests.
    pub(crate) async fn is_ready(&self) -> Result<()> {
        let began = Instant::now();
        while timeout(PATIENCE, self.says_so()).await.ok().flatten().is_none() {
            ensure!(began.elapsed() < PATIENCE, "the edge is not ready");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    async fn says_so(&self) -> Option<()> {
        let mut stream = TcpStream::connect(self.health).await.ok()?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(())
    }
}

/// How long an edge may take to start on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// An identity provider that only counts who comes.
#[derive(Debug)]
pub(crate) struct Provider {
    issuer: String,
    asked: Arc<AtomicUsize>,
}

/// As many as the least that others are compared with.
const ROUTES: usize = 10;
const POLICY: &str = "    policy:
      - allow:
          and:
            - domain:
                is: company.example
            - groups:
                has: everyone
";
const CLIENT_ID: &str = "postern-load-tests";

impl Provider {
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (issuer, asked) = (format!("http://{}", listener.local_addr()?), Arc::<AtomicUsize>::default());
        let counted = Arc::clone(&asked);
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        Ok(Self { issuer, asked })
    }

    /// How often somebody came.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// As the configuration calls it (`edge/postern/src/config/resolve/idp.rs`).
    pub(crate) fn idp(&self) -> IdpId {
        let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        for part in ["Oidc", &self.issuer, CLIENT_ID] {
            digest.update(&u64::try_from(part.len()).unwrap_or_default().to_be_bytes());
            digest.update(part.as_bytes());
        }
        let bytes = digest.finish();
        IdpId::new(bytes.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>())
    }
}

/// Starts an application that answers every request with so many bytes as its path says.
pub(crate) fn application() -> Result<SocketAddr> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let (address, listener) = (listener.local_addr()?, TcpListener::from_std(listener)?);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _no_delay_is_only_faster = stream.set_nodelay(true);
                let mut buffer = Vec::new();
                loop {
                    let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
                        if stream.read_buf(&mut buffer).await.ok()? == 0 {
                            return Some(());
                        }
                        continue;
                    };
                    let answer = answer(buffer.get(..end).unwrap_or_default());
                    buffer.drain(..end + 4);
                    stream.write_all(&answer).await.ok()?;
                }
            });
        }
    });
    Ok(address)
}

/// What is answered to a head.
fn answer(head: &[u8]) -> Vec<u8> {
    let path = head.split(|byte| *byte == b' ').nth(1).and_then(|path| str::from_utf8(path).ok()).unwrap_or_default();
    let length: usize = path.trim_start_matches('/').parse().unwrap_or_default();
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + length, b'x');
    answer
}

/// What a configuration calls a cluster.
pub(crate) fn cluster_url(cluster: &Cluster) -> String {
    let servers: Vec<_> = cluster.members().iter().map(|member| format!("127.0.0.1:{}", member.announced())).collect();
    format!("redis+cluster://{}", servers.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_application_answers_as_much_as_it_is_asked_for() {
        assert_eq!(answer(b"GET /3 HTTP/1.1\r\nHost: a"), b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nxxx");
        assert_eq!(answer(b"GET / HTTP/1.1"), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    }
}
