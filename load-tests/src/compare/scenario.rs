//! What is asked of each proxy.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::ValueEnum;

use super::ask::{self, Asked};
use super::peer::Peer;
use super::site::Site;

/// One kind of load, in the order in which they are looked at. What stays idle comes first, since a proxy keeps the memory of what
/// it has done before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Memory of a connection that does nothing; only once
    Idle,
    /// HTTP/1.1, 32 connections that stay, 1 KB
    H1,
    /// HTTP/2, 8 connections of 16 streams, 1 KB
    H2,
    /// A new connection with a whole TLS 1.3 handshake for each request
    Handshakes,
    /// A new connection whose TLS session is resumed for each request
    Resumed,
    /// HTTP/1.1, 64 KB
    Body64k,
    /// HTTP/1.1, 10 MB
    Body10m,
    /// 2,000 requests a second, whoever is behind
    Paced,
    /// Messages of 64 bytes that come back over a WebSocket
    Websocket,
    /// Another host for each request
    Routes,
}

/// What one turn of a proxy was.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) asked: Asked,
    /// Processor time of the proxy.
    pub(crate) cpu: Duration,
    /// Bytes for each connection, where that is what was looked at.
    pub(crate) bytes_each: Option<f64>,
}

impl Scenario {
    pub(crate) fn all() -> Vec<Self> {
        Self::value_variants().to_vec()
    }

    /// How often it is looked at, of so many rounds.
    pub(crate) fn rounds(self, rounds: usize) -> usize {
        if self == Self::Idle { 1 } else { rounds }
    }

    /// Whether the figure would say something of this proxy.
    pub(crate) fn suits(self, peer: &Peer) -> bool {
        match self {
            Self::Routes => peer.is_postern() && !peer.is_for_logs(),
            Self::H1 | Self::H2 => !peer.is_for_routes(),
            Self::Handshakes
            | Self::Resumed
            | Self::Body64k
            | Self::Body10m
            | Self::Paced
            | Self::Websocket
            | Self::Idle => !peer.is_for_routes() && !peer.is_for_logs() && !peer.is_hop(),
        }
    }

    /// A turn of so many seconds, or of so many connections that do nothing.
    pub(crate) async fn measure(self, peer: &Peer, site: &Site, seconds: u64, idle: usize) -> Result<Sample> {
        let homes = if self == Self::Routes { peer.homes(site)? } else { &[] };
        let mut before = peer.cpu(site);
        let mut bytes_each = None;
        let asked = match self {
            Self::H1 => ask::wrk(peer, "/1k", 32, seconds)?,
            Self::Body64k => ask::wrk(peer, "/64k", 16, seconds)?,
            Self::Body10m => ask::wrk(peer, "/10m", 4, seconds)?,
            Self::Routes => ask::wrk_at(homes, &site.file("homes.lua"), peer, "/1k", seconds)?,
            Self::H2 => ask::h2load(peer, "/1k", seconds)?,
            Self::Handshakes => ask::connections(peer, seconds, false).await?,
            Self::Resumed => ask::connections(peer, seconds, true).await?,
            Self::Paced => ask::paced(peer, 2_000, seconds, || before = peer.cpu(site)).await?,
            Self::Websocket => ask::echoes(peer, seconds).await?,
            Self::Idle => {
                let (asked, bytes) = ask::idle(peer, idle).await?;
                bytes_each = Some(bytes);
                asked
            }
        };
        let cpu = peer.cpu(site).saturating_sub(before);
        ensure!(!cpu.is_zero(), "the system tells of no processor time");
        Ok(Sample { asked, cpu, bytes_each })
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::H1 => "HTTP/1.1, 1 KB",
            Self::H2 => "HTTP/2, 1 KB",
            Self::Handshakes => "new TLS 1.3 connection and request",
            Self::Resumed => "resumed TLS 1.3 connection and request",
            Self::Body64k => "64 KB",
            Self::Body10m => "10 MB",
            Self::Paced => "2,000 a second",
            Self::Websocket => "WebSocket message and its echo",
            Self::Idle => "idle TLS connection",
            Self::Routes => "another host each time",
        })
    }
}
