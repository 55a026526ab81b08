//! Requests at a steady rate for as long as somebody wants: every second client over HTTP/2.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, StatusCode};
use tokio::task::JoinSet;

use super::ask::{Dial, Stream, request};
use super::peer::Peer;

/// What the clients have seen.
#[derive(Debug)]
pub(crate) struct Steady {
    pub(crate) versions: [Version; 2],
    failures: Mutex<Vec<String>>,
    /// From now on each client asks once more at most.
    pub(crate) ended: AtomicBool,
}

/// Over one version.
#[derive(Debug, Default)]
pub(crate) struct Version {
    pub(crate) name: &'static str,
    pub(crate) answered: AtomicU64,
    /// The longest that an answer took, in milliseconds.
    pub(crate) longest: AtomicU64,
}

/// So many requests a second of 32 clients with a connection each; a connection that the proxy ends in an orderly way is no failure.
pub(crate) fn steady(peer: &Peer, rate: u32, seen: &Arc<Steady>) -> Result<JoinSet<()>> {
    const CLIENTS: u32 = 32;
    let (dial, pause, began) = (Dial::to(peer, false)?, Duration::from_secs(1) * CLIENTS / rate, Instant::now());
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let seen = Arc::clone(seen);
        let mut client = if number % 2 == 0 {
            let request = request(peer, "/1k", false);
            Client::One(Box::new(One { dial: dial.clone(), request, open: None, buffer: Vec::new() }))
        } else {
            let request = Request::get(peer.url("/1k")).header(http::header::COOKIE, &peer.cookie).body(())?;
            Client::Two(Box::new(Two { dial: dial.clone().over_http2(), request, open: None }))
        };
        let mut due = began + pause * number / CLIENTS;
        clients.spawn(async move {
            while !seen.ended.load(Ordering::Relaxed) {
                tokio::time::sleep_until(due.into()).await;
                // Who is late does not catch up: what is looked for are failures.
                due = (due + pause).max(Instant::now());
                let (version, sent) = (client.version(&seen), Instant::now());
                match tokio::time::timeout(Duration::from_secs(10), client.ask()).await {
                    Ok(Ok(())) => version.answered_after(sent.elapsed()),
                    Ok(Err(error)) => seen.fail(format!("{}: {error:#}", version.name)),
                    Err(_) => seen.fail(format!("{}: no answer within 10 s", version.name)),
                }
            }
        });
    }
    Ok(clients)
}

impl Default for Steady {
    fn default() -> Self {
        let versions = ["HTTP/1.1", "HTTP/2"].map(|name| Version { name, ..Version::default() });
        Self { versions, failures: Mutex::default(), ended: AtomicBool::default() }
    }
}

impl Version {
    fn answered_after(&self, took: Duration) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.longest.fetch_max(u64::try_from(took.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Steady {
    pub(crate) fn failures(&self) -> MutexGuard<'_, Vec<String>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, what: String) {
        self.failures().push(what);
    }
}

/// Asks for 1 KB, over a connection that is made anew where the one before was ended.
enum Client {
    One(Box<One>),
    Two(Box<Two>),
}

impl Client {
    async fn ask(&mut self) -> Result<()> {
        match self {
            Self::One(client) => client.ask().await,
            Self::Two(client) => client.ask().await,
        }
    }

    const fn version<'a>(&self, seen: &'a Steady) -> &'a Version {
        let [one, two] = &seen.versions;
        match self {
            Self::One(_) => one,
            Self::Two(_) => two,
        }
    }
}

struct One {
    dial: Dial,
    request: Arc<str>,
    open: Option<Stream>,
    buffer: Vec<u8>,
}

impl One {
    async fn ask(&mut self) -> Result<()> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.dial.connect().await?,
        };
        if !self.dial.exchange(&self.request, &mut open, &mut self.buffer).await? {
            self.open = Some(open);
        }
        Ok(())
    }
}

struct Two {
    dial: Dial,
    request: Request<()>,
    open: Option<SendRequest<Bytes>>,
}

impl Two {
    async fn ask(&mut self) -> Result<()> {
        if let Some(open) = self.open.take() {
            match self.over(open).await {
                // A request that a GOAWAY overtook was not looked at, and may be sent again (RFC 9113 §6.8).
                Err(error) if error.downcast_ref::<h2::Error>().is_some_and(is_orderly) => {}
                done => return done,
            }
        }
        let stream = self.dial.connect().await?;
        ensure!(stream.get_ref().1.alpn_protocol() == Some(b"h2"), "the proxy does not speak HTTP/2");
        let (open, connection) = h2::client::handshake(stream).await?;
        // It ends with the last who asks over it.
        let _not_waited_for = tokio::spawn(connection);
        self.over(open).await
    }

    async fn over(&mut self, open: SendRequest<Bytes>) -> Result<()> {
        let mut open = open.ready().await?;
        let (answer, _) = open.send_request(self.request.clone(), true)?;
        let mut answer = answer.await?;
        ensure!(answer.status() == StatusCode::OK, "{}", answer.status());
        let length = answer.headers().get(http::header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        let (expected, mut length) = (length.context("an answer without a length")?.parse::<usize>()?, 0);
        while let Some(part) = answer.body_mut().data().await {
            // What was begun may not be sent again, however the connection ends.
            let part = part.map_err(|error| anyhow!("within the answer: {error}"))?;
            length += part.len();
            answer.body_mut().flow_control().release_capacity(part.len())?;
        }
        ensure!(length == expected, "{length} bytes of {expected}");
        self.open = Some(open);
        Ok(())
    }
}

/// Whether the proxy ended a connection in an orderly way, without looking at the request.
fn is_orderly(error: &h2::Error) -> bool {
    error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
}
