//! Those who ask: `wrk` and `h2load` for as much as a proxy can take, and clients of our own for what these cannot do.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::peer::Peer;
use super::site::{self, HOST};
use crate::table::{Seen, millis};

/// What became of a turn's requests.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    pub(crate) requests: u64,
    pub(crate) failed: u64,
    /// The time in which they were.
    pub(crate) took: Duration,
    /// In ms: half of them were answered within the first, 99 of 100 within the second.
    pub(crate) latency: Option<[f64; 2]>,
}

/// HTTP/1.1 with all that one core can ask.
pub(crate) fn wrk(peer: &Peer, path: &str, connections: usize, seconds: u64) -> Result<Asked> {
    let mut wrk = Command::new("wrk");
    wrk.args(["--header", &format!("Cookie: {}", peer.cookie)]);
    wrk.args(["--header", &format!("Host: {HOST}:{}", peer.address.port())]);
    run_wrk(wrk, peer, path, connections, seconds)
}

/// The same, with each request for another host, by who is signed in there; `script` is a place for what wrk is told.
pub(crate) fn wrk_at(homes: &[[String; 2]], script: &Path, peer: &Peer, path: &str, seconds: u64) -> Result<Asked> {
    let port = peer.address.port();
    let homes: Vec<_> = homes.iter().map(|[cookie, host]| format!("{{ \"{host}:{port}\", \"{cookie}\" }}")).collect();
    let lines = format!(
        "local homes = {{ {} }}\nrequest = function()\n  local home = homes[math.random(#homes)]\n  \
         wrk.headers[\"Host\"], wrk.headers[\"Cookie\"] = home[1], home[2]\n  return wrk.format()\nend\n",
        homes.join(", ")
    );
    fs::write(script, lines)?;
    let mut wrk = Command::new("wrk");
    wrk.arg("--script").arg(script);
    run_wrk(wrk, peer, path, 32, seconds)
}

fn run_wrk(mut wrk: Command, peer: &Peer, path: &str, connections: usize, seconds: u64) -> Result<Asked> {
    wrk.args(["--threads", "1", "--latency", "--duration", &format!("{seconds}s")]);
    wrk.args(["--connections", &connections.to_string()]).arg(format!("https://{}{path}", peer.address));
    read_wrk(&site::output(wrk)?)
}

/// What `wrk --latency` prints.
pub(crate) fn read_wrk(told: &str) -> Result<Asked> {
    let after = |mark: &str| told.lines().find_map(|line| line.trim().strip_prefix(mark).map(str::trim));
    let line = told.lines().find(|line| line.contains(" requests in ")).with_context(|| format!("wrk says {told}"))?;
    let (requests, rest) = line.trim().split_once(" requests in ").context("no number")?;
    let (took, _) = rest.split_once(',').context("no time")?;
    let unsuccessful = after("Non-2xx or 3xx responses:").map_or(Ok(0), str::parse::<u64>)?;
    let errors = after("Socket errors:").into_iter().flat_map(|errors| errors.split(", "));
    let errors = errors.filter_map(|error| error.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>();
    let latency = after("50%").zip(after("99%")).map(|(half, most)| Ok::<_, anyhow::Error>([ms(half)?, ms(most)?]));
    Ok(Asked {
        requests: requests.parse()?,
        failed: unsuccessful + errors,
        took: Duration::from_secs_f64(ms(took)? / 1e3),
        latency: latency.transpose()?,
    })
}

/// A time as `wrk` and `h2load` write it, in milliseconds.
fn ms(text: &str) -> Result<f64> {
    let units = [("us", 1e-3), ("ms", 1.0), ("s", 1e3), ("m", 6e4)];
    let unit = units.into_iter().find_map(|(unit, ms)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * ms));
    unit.with_context(|| format!("{text} is no time"))
}

/// HTTP/2 with all that one core can ask.
pub(crate) fn h2load(peer: &Peer, path: &str, seconds: u64) -> Result<Asked> {
    let mut h2load = Command::new("h2load");
    h2load.args(["--threads", "1", "--clients", "8", "--max-concurrent-streams", "16"]);
    h2load.args(["--duration", &seconds.to_string(), "--header", &format!("Cookie: {}", peer.cookie)]);
    h2load.arg(format!("--connect-to={}", peer.address)).arg(peer.url(path));
    read_h2load(&site::output(h2load)?)
}

/// What `h2load` prints.
fn read_h2load(told: &str) -> Result<Asked> {
    let line = |mark: &str| told.lines().find_map(|line| line.trim().strip_prefix(mark).map(str::trim));
    let named = |line: &str, name: &str| {
        line.split(", ").find_map(|part| part.trim().strip_suffix(name)?.trim().parse::<u64>().ok())
    };
    let unreadable = || format!("h2load says {told}");
    let took = line("finished in ").and_then(|rest| rest.split_once(',')).with_context(unreadable)?.0;
    let codes = line("status codes:").with_context(unreadable)?;
    let done = line("requests:").with_context(unreadable)?;
    let successful = named(codes, "2xx").with_context(unreadable)?;
    Ok(Asked {
        requests: successful,
        failed: named(done, "failed").unwrap_or(0)
            + ["3xx", "4xx", "5xx"].iter().filter_map(|kind| named(codes, kind)).sum::<u64>(),
        took: Duration::from_secs_f64(ms(took)? / 1e3),
        latency: None,
    })
}

/// How connections to a proxy are made.
#[derive(Clone)]
pub(crate) struct Dial {
    address: SocketAddr,
    name: ServerName<'static>,
    tls: TlsConnector,
}

/// A connection to a proxy.
pub(crate) type Stream = TlsStream<TcpStream>;

impl Dial {
    /// To whoever listens there, with a certificate that this authority vouches for.
    pub(crate) fn new(address: SocketAddr, authority: &Path, resuming: bool) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority)?)?;
        // The one exchange of keys that all proxies have.
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519];
        let mut tls = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        if !resuming {
            tls.resumption = Resumption::disabled();
        }
        Ok(Self { address, name: ServerName::try_from(HOST)?, tls: TlsConnector::from(Arc::new(tls)) })
    }

    pub(super) fn to(peer: &Peer, resuming: bool) -> Result<Self> {
        Self::new(peer.address, &peer.authority, resuming)
    }

    /// The same for connections of HTTP/2.
    pub(super) fn over_http2(self) -> Self {
        let mut tls = ClientConfig::clone(self.tls.config());
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Self { tls: TlsConnector::from(Arc::new(tls)), ..self }
    }

    pub(crate) async fn connect(&self) -> Result<Stream> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(self.tls.connect(self.name.clone(), stream).await?)
    }

    /// One request, answered with 200 and a body of the length that its head tells; `true` if the connection ends with that.
    pub(crate) async fn exchange(&self, request: &str, stream: &mut Stream, buffer: &mut Vec<u8>) -> Result<bool> {
        stream.write_all(request.as_bytes()).await?;
        buffer.clear();
        let head = loop {
            ensure!(stream.read_buf(buffer).await? > 0, "the connection ended before the answer");
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let text = String::from_utf8_lossy(buffer.get(..head).unwrap_or_default()).to_ascii_lowercase();
        ensure!(text.starts_with("http/1.1 200"), "{text}");
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        let whole = head + length.context("an answer without a length")?;
        while buffer.len() < whole {
            ensure!(stream.read_buf(buffer).await? > 0, "the connection ended within the answer");
        }
        Ok(text.contains("\r\nconnection: close\r\n"))
    }
}

/// A request of who is signed in.
pub(super) fn request(peer: &Peer, path: &str, closing: bool) -> Arc<str> {
    let connection = if closing { "close" } else { "keep-alive" };
    let (port, cookie) = (peer.address.port(), &peer.cookie);
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nCookie: {cookie}\r\nConnection: {connection}\r\n\r\n").into()
}

/// New connections, each for one request, by eight clients without pause.
pub(crate) async fn connections(peer: &Peer, seconds: u64, resuming: bool) -> Result<Asked> {
    let (dial, request) = (Dial::to(peer, resuming)?, request(peer, "/1k", true));
    let (began, span) = (Instant::now(), Duration::from_secs(seconds));
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let (dial, request) = (dial.clone(), Arc::clone(&request));
        clients.spawn(async move {
            let (mut counts, mut buffer) = ([0_u64; 3], Vec::new());
            while began.elapsed() < span {
                let mut once = async || -> Result<bool> {
                    let mut stream = dial.connect().await?;
                    dial.exchange(&request, &mut stream, &mut buffer).await?;
                    Ok(stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed))
                };
                match once().await {
                    Ok(resumed) => {
                        counts[0] += 1;
                        counts[2] += u64::from(resumed);
                    }
                    Err(_) => counts[1] += 1,
                }
            }
            counts
        });
    }
    let [requests, failed, resumed] = clients
        .join_all()
        .await
        .into_iter()
        .fold([0; 3], |sum, counts| [sum[0] + counts[0], sum[1] + counts[1], sum[2] + counts[2]]);
    if resuming && resumed * 10 < requests * 9 {
        bail!("only {resumed} of {requests} connections were resumed");
    }
    Ok(Asked { requests, failed, took: began.elapsed(), latency: None })
}

/// So many requests a second on 32 connections, each when it is due, whatever became of those before it. Latency counts from when
/// a request was due if the one before it was late, else from when it was sent: that a timer rings late is not the proxy's. The
/// first second does not count. `connected` is called once the connections stand.
pub(crate) async fn paced(peer: &Peer, rate: u32, seconds: u64, connected: impl FnOnce()) -> Result<Asked> {
    const CLIENTS: u32 = 32;
    let (dial, request) = (Dial::to(peer, false)?, request(peer, "/1k", false));
    let mut streams = Vec::new();
    for _ in 0..CLIENTS {
        streams.push(dial.connect().await?);
    }
    connected();
    let (began, pause) = (Instant::now(), Duration::from_secs(1) * CLIENTS / rate);
    let (settled, end) = (began + Duration::from_secs(1), began + Duration::from_secs(seconds + 1));
    let mut clients = JoinSet::new();
    for (number, mut stream) in (0_u32..).zip(streams) {
        let (dial, request) = (dial.clone(), Arc::clone(&request));
        clients.spawn(async move {
            let (mut took, mut counts, mut buffer) = (Vec::new(), [0_u64; 2], Vec::new());
            let mut due = began + pause * number / CLIENTS;
            while due < end {
                let mut from = due;
                if due > Instant::now() {
                    tokio::time::sleep_until(due.into()).await;
                    from = Instant::now();
                }
                if dial.exchange(&request, &mut stream, &mut buffer).await.is_ok() {
                    counts[0] += 1;
                    if due >= settled {
                        took.push(millis(from.elapsed()));
                    }
                } else {
                    counts[1] += 1;
                    match dial.connect().await {
                        Ok(other) => stream = other,
                        Err(_) => break,
                    }
                }
                due += pause;
            }
            (took, counts)
        });
    }
    let all = clients.join_all().await;
    let [requests, failed] = [0, 1].map(|which| all.iter().map(|(_, counts)| counts[which]).sum());
    let seen: Seen = all.into_iter().flat_map(|(took, _)| took).collect();
    let latency = seen.percentile(50).zip(seen.percentile(99)).map(|(half, most)| [half, most]);
    Ok(Asked { requests, failed, took: began.elapsed(), latency })
}

/// Messages of 64 bytes and their echoes, one after the other, on eight WebSockets.
pub(crate) async fn echoes(peer: &Peer, seconds: u64) -> Result<Asked> {
    let dial = Dial::to(peer, false)?;
    let mut sockets = Vec::new();
    for _ in 0..8 {
        let mut request = format!("wss://{HOST}:{}/echo", peer.address.port()).into_client_request()?;
        request.headers_mut().insert("cookie", peer.cookie.parse()?);
        let (socket, _) = tokio_tungstenite::client_async(request, dial.connect().await?).await?;
        sockets.push(socket);
    }
    let (began, span) = (Instant::now(), Duration::from_secs(seconds));
    let mut clients = JoinSet::new();
    for mut socket in sockets {
        clients.spawn(async move {
            let mut count = 0_u64;
            while began.elapsed() < span {
                socket.send(Message::Binary(vec![b'x'; 64].into())).await?;
                let message = socket.next().await.context("the WebSocket ended")??;
                ensure!(message.into_data().len() == 64, "another message came back");
                count += 1;
            }
            Ok(count)
        });
    }
    let counts: Vec<Result<u64>> = clients.join_all().await;
    let requests = counts.into_iter().sum::<Result<u64>>()?;
    Ok(Asked { requests, failed: 0, took: began.elapsed(), latency: None })
}

/// Connections that were used once and then do nothing; and the bytes that each costs. Each is used once more at the end: one that
/// was closed meanwhile has failed, and cost nothing.
pub(crate) async fn idle(peer: &Peer, count: usize) -> Result<(Asked, f64)> {
    let (dial, request) = (Dial::to(peer, false)?, request(peer, "/1k", false));
    let mut buffer = Vec::new();
    // What the first ones make the proxy set aside for all is not theirs.
    for _ in 0..32 {
        dial.exchange(&request, &mut dial.connect().await?, &mut buffer).await?;
    }
    let (began, before) = (Instant::now(), peer.processes.memory());
    let mut idle = Vec::new();
    for _ in 0..count {
        let mut stream = dial.connect().await?;
        dial.exchange(&request, &mut stream, &mut buffer).await?;
        idle.push(stream);
    }
    let (took, more) = (began.elapsed(), peer.processes.memory().saturating_sub(before));
    let mut failed = 0;
    for stream in &mut idle {
        failed += u64::from(dial.exchange(&request, stream, &mut buffer).await.is_err());
    }
    let asked = Asked { requests: u64::try_from(count)?, failed, took, latency: None };
    Ok((asked, f64::from(u32::try_from(more / 1024)?) * 1024.0 / f64::from(u32::try_from(count)?)))
}

/// A server that echoes what comes over WebSockets, for as long as this process lives.
pub(crate) fn echo() -> Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let listener = TcpListener::from_std(listener)?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _no_delay_is_only_faster = stream.set_nodelay(true);
                let mut socket = tokio_tungstenite::accept_async(stream).await.ok()?;
                while let Some(Ok(message)) = socket.next().await {
                    if matches!(message, Message::Text(_) | Message::Binary(_)) {
                        socket.send(message).await.ok()?;
                    }
                }
                Some(())
            });
        }
    });
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_prints_is_read() {
        let told = "Running 3s test @ https://127.0.0.1:1/1k\n  1 threads and 32 connections\n  Thread Stats   Avg\n  \
                    Latency Distribution\n     50%  430.00us\n     75%    1.00ms\n     99%    1.25ms\n  \
                    120000 requests in 3.01s, 150.00MB read\n  Socket errors: connect 0, read 2, write 1, timeout 0\n  \
                    Non-2xx or 3xx responses: 4\nRequests/sec:  39867.11\n";
        let asked = read_wrk(told).unwrap();
        assert_eq!((asked.requests, asked.failed, asked.took), (120_000, 7, Duration::from_millis(3_010)));
        assert_eq!(asked.latency, Some([0.43, 1.25]));
        assert!(read_wrk("unable to connect").is_err());
    }

    #[test]
    fn what_h2load_prints_is_read() {
        let told = "finished in 3.00s, 40000.00 req/s, 40MB/s\n\
                    requests: 120005 total, 120128 started, 120005 done, 120000 succeeded, 5 failed, 5 errored, 0 timeout\n\
                    status codes: 119990 2xx, 0 3xx, 10 4xx, 0 5xx\n";
        let asked = read_h2load(told).unwrap();
        assert_eq!((asked.requests, asked.failed, asked.took), (119_990, 15, Duration::from_secs(3)));
    }
}
