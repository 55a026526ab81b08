//! Who has nothing to do with an attack: connections of HTTP/1 and HTTP/2 that must get their answers meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::edge::Edge;
use super::script::{Step, steps};
use super::upstream::FENCE;
use super::{h1, wire::Wire};

/// One client with two connections.
#[derive(Debug)]
pub(super) struct Bystander {
    h1: h1::Client,
    h2: Wire,
    asked: u32,
    /// What each request took.
    pub(super) took: Vec<Duration>,
}

/// Before the edge ends the connection for the number of its requests.
const ENOUGH: u32 = 900;

impl Bystander {
    pub(super) async fn new(edge: &Edge) -> Result<Self> {
        let (h1, h2) = connect(edge).await?;
        Ok(Self { h1, h2, asked: 0, took: Vec::new() })
    }

    /// Asks on a connection that did not exist before.
    pub(super) async fn ask_anew(&mut self, edge: &Edge) -> Result<()> {
        let began = Instant::now();
        let mut client = h1::Client::new(edge.connect("open", "http/1.1").await.context("a new connection")?);
        ask_h1(&mut client, edge).await.context("a new connection")?;
        self.took.push(began.elapsed());
        Ok(())
    }

    /// Asks on both connections; both must answer.
    pub(super) async fn ask(&mut self, edge: &Edge) -> Result<()> {
        if self.asked == ENOUGH {
            (self.h1, self.h2) = connect(edge).await?;
            self.asked = 0;
        }
        let began = Instant::now();
        ask_h1(&mut self.h1, edge).await?;
        self.took.push(began.elapsed());

        let began = Instant::now();
        let stream = 2 * self.asked + 1;
        let request = steps(&format!("GET {stream} {FENCE}"))?;
        let bytes: Vec<u8> = request
            .into_iter()
            .filter_map(|step| if let Step::Send(bytes) = step { Some(bytes) } else { None })
            .flatten()
            .collect();
        let status = self.h2.ask(stream, &bytes).await.context("HTTP/2")?;
        ensure!(status == 200, "HTTP/2: {status}");
        self.took.push(began.elapsed());
        self.asked += 1;
        Ok(())
    }

    /// The least time within which 99 of 100 requests were answered.
    pub(super) fn p99(&self) -> Duration {
        let mut took = self.took.clone();
        took.sort_unstable();
        let at = (took.len() * 99).div_ceil(100).saturating_sub(1);
        took.get(at).copied().unwrap_or_default()
    }
}

async fn ask_h1(client: &mut h1::Client, edge: &Edge) -> Result<()> {
    client.send(&format!("GET {FENCE} HTTP/1.1\r\nHost: {}\r\n\r\n", edge.host("open"))).await;
    let got = client.answer(false).await.context("HTTP/1")?;
    ensure!(got.as_ref().is_some_and(|got| got.status == 200 && got.body == "ok"), "HTTP/1: {got:?}");
    Ok(())
}

async fn connect(edge: &Edge) -> Result<(h1::Client, Wire)> {
    let h1 = h1::Client::new(edge.connect("open", "http/1.1").await?);
    Ok((h1, Wire::open(edge.connect("open", "h2").await?).await?))
}
