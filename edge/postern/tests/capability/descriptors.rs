//! a process that may open only few files refuses new connections, serves those that it has, and is itself again once some
//! are closed.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::{DEADLINE, NO_PROVIDER, PUBLIC, Postern, Upstream, World, bounded, eventually, plain_client};

/// What the process may open. It needs about fifty for itself.
const FILES: u32 = 300;

struct Office {
    world: World,
    upstream: Upstream,
    postern: Postern,
    metrics: reqwest::Client,
}

async fn open() -> Result<Office> {
    let (world, upstream) = (World::new()?, Upstream::start().await?);
    let slow = [PUBLIC, &["timeout: 3s"]].concat();
    let patient = [PUBLIC, &["timeout: 0s"]].concat();
    let routes = [
        world.route("app", &upstream.url(), PUBLIC),
        world.route("slow", &upstream.url(), &slow),
        world.route("patient", &upstream.url(), &patient),
    ];
    let config = world.config(&format!("{NO_PROVIDER}log_level: info\n"), &routes.concat());
    let postern = Postern::run_with_files(&world, &config, FILES).await?;
    Ok(Office { world, upstream, postern, metrics: plain_client()? })
}

impl Office {
    async fn connect(&self, name: &str) -> Result<TlsStream<TcpStream>> {
        self.world.connect(name, &["http/1.1"]).await
    }

    /// The status of an answer on a connection that stays.
    async fn ask(&self, stream: &mut TlsStream<TcpStream>, name: &str, path: &str) -> Result<u16> {
        let host = self.world.host(name);
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
        let reading = async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await?);
            }
            let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            stream.read_exact(&mut vec![0; length.unwrap_or_default()]).await?;
            head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")
        };
        bounded(DEADLINE, "an answer", reading).await?
    }

    /// On one connection that stays.
    async fn metric(&self, line: &str) -> Result<u64> {
        let url = format!("http://127.0.0.1:{}/metrics", self.world.metrics);
        let text = self.metrics.get(url).send().await?.text().await?;
        let found = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' ')?.parse().ok());
        found.with_context(|| format!("no {line}"))
    }

    async fn accept_errors(&self) -> Result<u64> {
        self.metric("postern_edge_accept_errors_total").await
    }

    /// Holds that the process does next to nothing while a request on this connection waits for three seconds in vain.
    async fn is_quiet(&self, stream: &mut TlsStream<TcpStream>) -> Result<()> {
        let before = self.postern.cpu()?;
        ensure!(self.ask(stream, "slow", "/hold").await? == 504, "{}", self.postern.told());
        let took = self.postern.cpu()? - before;
        // A loop that spins takes a whole core, or as much of one as there is.
        ensure!(took < Duration::from_millis(750), "it took {took:?} of three seconds");
        Ok(())
    }
}

#[tokio::test]
async fn r_029_idle_connections_leave_others_the_files_that_they_need() -> Result<()> {
    let office = open().await?;
    office.postern.says("may open only 300 files").await?;
    let most = usize::try_from(office.metric("postern_edge_limit{limit=\"connections\"}").await?)?;
    assert_eq!(most, 172, "a good part is not for clients");

    let mut idle = Vec::new();
    for _ in 0..most {
        idle.push(office.connect("app").await?);
    }
    let refused = join_all((0..300).map(|_| office.connect("app"))).await;
    assert_eq!(refused.iter().filter(|one| one.is_ok()).count(), 0, "closed at once, not left to wait");
    assert_eq!(office.metric("postern_edge_connections_total{outcome=\"refused\"}").await?, 300);
    assert_eq!(office.accept_errors().await?, 0);

    office.is_quiet(&mut idle[0]).await?;
    // Those that are there reach the upstream, and many of them at once.
    let asking = idle.iter_mut().skip(1).take(20).map(|stream| office.ask(stream, "patient", "/hold"));
    let (answers, waited) = tokio::join!(join_all(asking), async {
        let all = eventually("all at the upstream", async || (office.upstream.seen().len() == 21).then_some(())).await;
        office.upstream.release();
        all
    });
    waited.with_context(|| office.postern.told())?;
    for answer in answers {
        assert_eq!(answer?, 200, "{}", office.postern.told());
    }
    idle.truncate(most / 2);
    eventually("a place for a new one", async || {
        let mut stream = office.connect("app").await.ok()?;
        (office.ask(&mut stream, "app", "/").await.ok()? == 200).then_some(())
    })
    .await
    .with_context(|| office.postern.told())
}
