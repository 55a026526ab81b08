//! Bodies of any size stream through, both ways, and are never held whole.

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{ANY_USER, Browser, DEADLINE, Postern, Provider, Upstream, World, bounded};

/// How much goes each way.
const SIZE: u64 = 1 << 30;
/// How much more memory that may take.
const GROWTH: u64 = 20 << 20;

struct Office {
    world: World,
    cookie: String,
    postern: Postern,
    _upstream: Upstream,
    _provider: Provider,
}

async fn open() -> Result<Office> {
    let world = World::new()?;
    let (upstream, provider) = (Upstream::start().await?, Provider::start(&world, Some("alice"))?);
    let mut lines = ANY_USER.to_vec();
    lines.push("timeout: 0s");
    let settings = format!("{}timeout_read: 0s\n", provider.settings());
    let postern = Postern::run(&world, &world.config(&settings, &world.route("app", &upstream.url(), &lines))).await?;
    let mut browser = Browser::new(&world.ca_pem())?;
    browser.visit(world.url("app", "/")).await?;
    let cookie =
        browser.cookie(&format!("app.{}", World::DOMAIN), "_pomerium").with_context(|| postern.told())?.to_owned();
    Ok(Office { world, cookie, postern, _upstream: upstream, _provider: provider })
}

impl Office {
    fn head(&self, line: &str, fields: &str) -> String {
        format!(
            "{line} HTTP/1.1\r\nHost: {}\r\nCookie: _pomerium={}\r\nConnection: close\r\n{fields}\r\n",
            self.world.host("app"),
            self.cookie
        )
    }

    /// Takes so many bytes from the upstream; gives the most memory that Postern had meanwhile.
    async fn download(&self, bytes: u64) -> Result<u64> {
        let mut stream = self.world.connect("app", &["http/1.1"]).await?;
        stream.write_all(self.head(&format!("GET /download?bytes={bytes}"), "").as_bytes()).await?;
        let (mut piece, mut total, mut most) = (vec![0; 256 * 1024], 0_u64, 0);
        let mut next = 0;
        loop {
            let read = stream.read(&mut piece).await.unwrap_or(0);
            if read == 0 {
                break;
            }
            total += read as u64;
            if total >= next {
                most = most.max(self.postern.memory()?);
                next += 16 << 20;
            }
        }
        anyhow::ensure!(total > bytes, "only {total} of {bytes} came");
        Ok(most)
    }

    /// Brings so many bytes to the upstream; gives the most memory that Postern had meanwhile.
    async fn upload(&self, bytes: u64) -> Result<u64> {
        const PIECE: usize = 256 * 1024;
        let mut stream = self.world.connect("app", &["http/1.1"]).await?;
        stream.write_all(self.head("POST /upload", &format!("Content-Length: {bytes}\r\n")).as_bytes()).await?;
        let mut most = 0;
        for number in 0..bytes / PIECE as u64 {
            stream.write_all(&[b'x'; PIECE]).await?;
            if number % 64 == 0 {
                most = most.max(self.postern.memory()?);
            }
        }
        stream.flush().await?;
        let mut answer = Vec::new();
        let _unclean = bounded(DEADLINE, "the end of the answer", stream.read_to_end(&mut answer)).await?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        anyhow::ensure!(answer.ends_with(&format!("\r\n\r\n{bytes}")), "{answer}\n{}", self.postern.told());
        Ok(most)
    }
}

#[tokio::test]
async fn a_gigabyte_down_takes_no_memory() -> Result<()> {
    let office = open().await?;
    office.download(32 << 20).await?;
    let before = office.postern.memory()?;
    let most = office.download(SIZE).await?;
    assert!(most < before + GROWTH, "from {before} to {most}");
    Ok(())
}

#[tokio::test]
async fn a_gigabyte_up_takes_no_memory() -> Result<()> {
    let office = open().await?;
    office.upload(32 << 20).await?;
    let before = office.postern.memory()?;
    let most = office.upload(SIZE).await?;
    assert!(most < before + GROWTH, "from {before} to {most}");
    Ok(())
}
