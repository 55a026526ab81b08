//! What a health check asks, over a connection as requests have them: to the same place, with the same TLS.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use pingora_core::connectors::TransportConnector;
use pingora_core::connectors::http::Connector;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::RequestHeader;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::cluster::Http;
use super::super::member::Member;
use super::super::tend::Tended;
use crate::route::{GrpcCheck, HealthCheck, HttpCheck, Payload, Probe, StatusRange, TcpCheck, UpstreamEndpoint};

/// Why an endpoint did not pass.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) why: String,
    /// It is out, however many more it might have failed.
    pub(super) at_once: bool,
}

impl Failure {
    pub(super) fn of(why: impl std::fmt::Display) -> Self {
        Self { why: why.to_string(), at_once: false }
    }
}

impl From<Box<pingora_error::Error>> for Failure {
    fn from(error: Box<pingora_error::Error>) -> Self {
        Self::of(error.etype().as_str())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::of(error)
    }
}

/// Asks one endpoint.
pub(super) struct Prober {
    tended: Arc<Tended>,
    peer: Box<HttpPeer>,
    asks: Asks,
    reuse: Option<Duration>,
    /// What holds the connection of the last time, if that went well and it is to be used again.
    kept: Option<Box<Connector>>,
}

enum Asks {
    Http { check: HttpCheck, authority: String, tls: bool },
    Tcp { check: TcpCheck },
    Grpc { check: GrpcCheck, authority: String, tls: bool },
}

/// Of an answer so much is read.
const MOST: usize = 64 * 1024;
/// Answers that come before the answer.
const INTERIM: usize = 8;

impl Prober {
    /// `None`: there is no such endpoint.
    pub(super) fn new(tended: Arc<Tended>, member: &Member, check: &HealthCheck) -> Option<Self> {
        let http = match &check.probe {
            Probe::Http(http) if http.http2 => Http::Two,
            Probe::Grpc(_) => Http::Two,
            Probe::Http(_) | Probe::Tcp(_) => Http::One,
        };
        let endpoint = tended.endpoint(member)?;
        let peer = tended.peer(member, endpoint, http, check)?;
        let (authority, tls) = (authority(endpoint), endpoint.scheme.is_tls());
        let asks = match &check.probe {
            Probe::Http(http) => {
                let authority = http.host.clone().unwrap_or(authority);
                Asks::Http { check: HttpCheck::clone(http), authority, tls }
            }
            Probe::Tcp(tcp) => Asks::Tcp { check: tcp.clone() },
            Probe::Grpc(grpc) => {
                let authority = grpc.authority.clone().unwrap_or(authority);
                Asks::Grpc { check: grpc.clone(), authority, tls }
            }
        };
        // Longer than any interval that is configured in earnest.
        let reuse = check.reuse_connection.then_some(check.interval.saturating_mul(3).min(Duration::from_secs(600)));
        Some(Self { tended, peer, asks, reuse, kept: None })
    }

    /// Asks once.
    ///
    /// # Errors
    /// Why it does not pass.
    pub(super) async fn ask(&mut self) -> Result<(), Failure> {
        let _lives_as_long = &self.tended;
        // Taken: whatever becomes of this time, a connection on which nothing came is not asked on again.
        let connector = self.kept.take().unwrap_or_else(|| Box::new(Connector::new(None)));
        let outcome = self.ask_over(&connector).await;
        if outcome.is_ok() && self.reuse.is_some() {
            self.kept = Some(connector);
        }
        outcome
    }

    async fn ask_over(&self, connector: &Connector) -> Result<(), Failure> {
        match &self.asks {
            Asks::Http { check, authority, tls } => {
                let head = http_head(check, authority, *tls)?;
                let body = check.send.as_ref().map(|send| Bytes::from(send.0.clone()));
                let answer = exchange(connector, &self.peer, head, body, self.reuse).await?;
                judge(check, &answer)
            }
            Asks::Tcp { check } => tcp(&self.peer, check).await,
            Asks::Grpc { check, authority, tls } => {
                let head = grpc_head(check, authority, *tls)?;
                let body = Some(Bytes::from(framed(&check.service)));
                serving(&exchange(connector, &self.peer, head, body, self.reuse).await?)
            }
        }
    }
}

/// What is asked for where nothing is said: as requests ask, and of a socket its own name for this machine.
fn authority(endpoint: &UpstreamEndpoint) -> String {
    if endpoint.authority.is_empty() { "localhost".to_owned() } else { endpoint.authority.to_string() }
}

/// An answer, as far as it was read.
#[derive(Debug, Default)]
struct Answer {
    status: StatusCode,
    fields: HeaderMap,
    body: Vec<u8>,
    trailers: HeaderMap,
}

async fn exchange(
    connector: &Connector,
    peer: &HttpPeer,
    head: RequestHeader,
    body: Option<Bytes>,
    reuse: Option<Duration>,
) -> Result<Answer, Failure> {
    let (mut session, _reused) = connector.get_http_session(peer).await?;
    let h2_wanted = peer.options.alpn.get_min_http_version() == 2;
    if h2_wanted && session.as_http2().is_none() {
        return Err(Failure::of("it does not speak HTTP/2"));
    }
    session.write_request_header(Box::new(head)).await?;
    if let Some(body) = body {
        session.write_request_body(body, false).await?;
    }
    session.finish_request_body().await?;
    let mut answer = Answer::default();
    for _ in 0..INTERIM {
        session.read_response_header().await?;
        let Some(head) = session.response_header() else { return Err(Failure::of("no answer")) };
        (answer.status, answer.fields) = (head.status, head.headers.clone());
        if !answer.status.is_informational() {
            break;
        }
    }
    while answer.body.len() < MOST {
        match session.read_response_body().await? {
            Some(more) => answer.body.extend_from_slice(&more),
            None => break,
        }
    }
    if let HttpSession::H2(stream) = &mut session
        && let Some(trailers) = stream.read_trailers().await?
    {
        answer.trailers = trailers;
    }
    match reuse.filter(|_| session.response_done()) {
        Some(idle) => connector.release_http_session(session, peer, Some(idle)).await,
        None => session.shutdown().await,
    }
    Ok(answer)
}

fn head(method: &Method, path: &str, authority: &str, tls: bool) -> Result<RequestHeader, Failure> {
    let mut head = RequestHeader::build(method.clone(), path.as_bytes(), None)?;
    let uri = Uri::builder().scheme(if tls { "https" } else { "http" }).authority(authority).path_and_query(path);
    let uri = uri.build().map_err(Failure::of)?;
    head.set_uri(uri);
    head.insert_header(header::HOST, authority)?;
    head.insert_header(header::USER_AGENT, AGENT)?;
    Ok(head)
}

const AGENT: &str = "Postern/HC";

fn http_head(check: &HttpCheck, authority: &str, tls: bool) -> Result<RequestHeader, Failure> {
    let mut head = head(&check.method, &check.path, authority, tls)?;
    if let Some(send) = &check.send {
        head.insert_header(header::CONTENT_LENGTH, send.0.len())?;
    }
    if !check.http2 {
        // In HTTP/1.1 the target is the path alone.
        head.set_uri(check.path.parse::<Uri>().map_err(Failure::of)?);
    }
    for (name, value) in &check.add {
        head.append_header(name.clone(), value.clone())?;
    }
    for name in &check.remove {
        head.remove_header(name);
    }
    Ok(head)
}

/// Whether the answer is one that was hoped for. A status that is neither expected nor worth another try is final.
fn judge(check: &HttpCheck, answer: &Answer) -> Result<(), Failure> {
    let status = answer.status.as_u16();
    let among = |ranges: &[StatusRange]| ranges.iter().any(|range| range.has(status));
    let expected = if check.expected.is_empty() { status == 200 } else { among(&check.expected) };
    if !expected {
        return Err(Failure { why: format!("status {status}"), at_once: !among(&check.retriable) });
    }
    if found_in_order(&answer.body, &check.receive) {
        return Ok(());
    }
    Err(Failure::of("the answer does not hold what was to be received"))
}

/// Whether all `parts` are in there, one behind the other.
fn found_in_order(mut bytes: &[u8], parts: &[Payload]) -> bool {
    parts.iter().all(|Payload(part)| {
        let at = bytes.windows(part.len().max(1)).position(|window| window == part.as_slice());
        let rest = at.and_then(|at| bytes.get(at + part.len()..));
        bytes = rest.unwrap_or(bytes);
        rest.is_some() || part.is_empty()
    })
}

async fn tcp(peer: &HttpPeer, check: &TcpCheck) -> Result<(), Failure> {
    let mut stream = TransportConnector::new(None).new_stream(peer).await?;
    if let Some(Payload(send)) = &check.send {
        stream.write_all(send).await?;
        stream.flush().await?;
    }
    let mut heard = Vec::new();
    while !found_in_order(&heard, &check.receive) {
        if heard.len() >= MOST || stream.read_buf(&mut heard).await? == 0 {
            return Err(Failure::of("what was to be received did not come"));
        }
    }
    // The end is said properly, so that TLS servers log nothing.
    let _either_way = stream.shutdown().await;
    Ok(())
}

fn grpc_head(check: &GrpcCheck, authority: &str, tls: bool) -> Result<RequestHeader, Failure> {
    let mut head = head(&Method::POST, "/grpc.health.v1.Health/Check", authority, tls)?;
    head.insert_header(header::CONTENT_TYPE, "application/grpc")?;
    head.insert_header(header::TE, "trailers")?;
    for (name, value) in &check.metadata {
        head.append_header(name.clone(), value.clone())?;
    }
    Ok(head)
}

/// `HealthCheckRequest { service = 1 }`, as a message of gRPC: not compressed, its length, and it.
fn framed(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        loop {
            let low = u8::try_from(length & 0x7f).unwrap_or_default();
            length >>= 7;
            message.push(if length > 0 { low | 0x80 } else { low });
            if length == 0 {
                break;
            }
        }
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(&message);
    frame
}

/// Whether the answer is `HealthCheckResponse { status = 1: SERVING }`.
fn serving(answer: &Answer) -> Result<(), Failure> {
    let code = |fields: &HeaderMap| {
        fields.get(HeaderName::from_static("grpc-status")).map(HeaderValue::as_bytes).map(<[u8]>::to_vec)
    };
    if answer.status != StatusCode::OK {
        return Err(Failure { why: format!("status {}", answer.status.as_u16()), at_once: false });
    }
    match code(&answer.trailers).or_else(|| code(&answer.fields)).as_deref() {
        Some(b"0") => {}
        Some(other) => return Err(Failure::of(format!("grpc-status {}", String::from_utf8_lossy(other)))),
        None => return Err(Failure::of("no grpc-status")),
    }
    let message = answer.body.get(5..).unwrap_or_default();
    if answer.body.first() == Some(&0) && status_of(message) == Some(SERVING) {
        return Ok(());
    }
    Err(Failure::of("it does not serve"))
}

const SERVING: u64 = 1;

/// The field of that number in a message; others are skipped. `None`: it cannot be read.
fn status_of(message: &[u8]) -> Option<u64> {
    let mut bytes = message.iter().copied();
    let mut status = Some(0);
    let varint = |bytes: &mut dyn Iterator<Item = u8>| {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = bytes.next()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    };
    while bytes.len() > 0 {
        let tag = varint(&mut bytes)?;
        match (tag >> 3, tag & 7) {
            (1, 0) => status = varint(&mut bytes),
            (_, 0) => {
                varint(&mut bytes)?;
            }
            (_, 1) => {
                bytes.nth(7)?;
            }
            (_, 2) => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                if length > 0 {
                    bytes.nth(length - 1)?;
                }
            }
            (_, 5) => {
                bytes.nth(3)?;
            }
            _ => return None,
        }
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &[u8]) -> Answer {
        Answer { status: StatusCode::from_u16(status).unwrap(), body: body.to_vec(), ..Answer::default() }
    }

    fn http() -> HttpCheck {
        HttpCheck {
            host: None,
            path: "/healthz".to_owned(),
            method: Method::GET,
            send: None,
            receive: Vec::new(),
            expected: Vec::new(),
            retriable: Vec::new(),
            add: Vec::new(),
            remove: Vec::new(),
            http2: false,
        }
    }

    #[test]
    fn a_status_passes_is_worth_another_try_or_decides_at_once() {
        let at_once = |check: &HttpCheck, status| judge(check, &answer(status, b"")).map_err(|failure| failure.at_once);
        assert_eq!(at_once(&http(), 200), Ok(()));
        assert_eq!(at_once(&http(), 204), Err(true));
        let ranges = HttpCheck {
            expected: vec![StatusRange { start: 200, end: 202 }, StatusRange { start: 301, end: 302 }],
            retriable: vec![StatusRange { start: 503, end: 504 }],
            ..http()
        };
        for (status, expected) in
            [(200, Ok(())), (201, Ok(())), (202, Err(true)), (301, Ok(())), (503, Err(false)), (500, Err(true))]
        {
            assert_eq!(at_once(&ranges, status), expected, "{status}");
        }
    }

    #[test]
    fn what_must_be_received_is_found_in_order_and_nowhere_else() {
        let parts = |parts: &[&str]| parts.iter().map(|part| Payload(part.as_bytes().to_vec())).collect::<Vec<_>>();
        for (bytes, wanted, found) in [
            ("", &[][..], true),
            ("anything", &[], true),
            ("+PONG\r\n", &["PONG"], true),
            ("a b c", &["a", "c"], true),
            ("a b c", &["c", "a"], false),
            ("aa", &["a", "a"], true),
            ("a", &["a", "a"], false),
            ("", &["a"], false),
        ] {
            assert_eq!(found_in_order(bytes.as_bytes(), &parts(wanted)), found, "{bytes} {wanted:?}");
        }
        let check = HttpCheck { receive: parts(&["ready"]), ..http() };
        assert!(judge(&check, &answer(200, b"all ready")).is_ok());
        assert!(judge(&check, &answer(200, b"starting")).is_err_and(|failure| !failure.at_once));
    }

    #[test]
    fn a_head_holds_what_is_added_less_what_is_removed() {
        let check = HttpCheck {
            add: vec![(HeaderName::from_static("x-probe"), HeaderValue::from_static("postern"))],
            remove: vec![header::USER_AGENT],
            send: Some(Payload(b"PING".to_vec())),
            ..http()
        };
        let head = http_head(&check, "app.internal:81", false).unwrap();
        assert_eq!(head.raw_path(), b"/healthz");
        assert_eq!(head.headers["host"], "app.internal:81");
        assert_eq!(head.headers["x-probe"], "postern");
        assert_eq!(head.headers["content-length"], "4");
        assert!(!head.headers.contains_key("user-agent"));
        let head = grpc_head(&GrpcCheck::default(), "app.internal", true).unwrap();
        assert_eq!(head.uri.to_string(), "https://app.internal/grpc.health.v1.Health/Check");
        assert_eq!(
            (&head.headers["te"], &head.headers["content-type"]),
            (&"trailers".parse().unwrap(), &"application/grpc".parse().unwrap())
        );
    }

    #[test]
    fn a_grpc_server_passes_only_if_it_says_that_it_serves() {
        assert_eq!(framed(""), [0, 0, 0, 0, 0]);
        assert_eq!(framed("a"), [0, 0, 0, 0, 3, 0x0a, 1, b'a']);
        assert_eq!(framed(&"x".repeat(200))[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 1]);
        let status =
            |code: &str| HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), code.parse().unwrap())]);
        let told = |body: &[u8], trailers: HeaderMap| serving(&Answer { trailers, ..answer(200, body) }).is_ok();
        assert!(told(&[0, 0, 0, 0, 2, 8, 1], status("0")));
        for (body, code) in [
            (&[0, 0, 0, 0, 2, 8, 2][..], "0"),
            (&[0, 0, 0, 0, 0], "0"),
            (&[], "0"),
            (&[1, 0, 0, 0, 2, 8, 1], "0"),
            (&[0, 0, 0, 0, 1, 8], "0"),
            (&[0, 0, 0, 0, 2, 8, 1], "5"),
        ] {
            assert!(!told(body, status(code)), "{body:?} {code}");
        }
        assert!(!told(&[0, 0, 0, 0, 2, 8, 1], HeaderMap::new()), "without a status nothing is said");
        assert!(serving(&Answer { trailers: status("0"), ..answer(503, &[0, 0, 0, 0, 2, 8, 1]) }).is_err());
        assert_eq!(status_of(&[0x12, 1, b'x', 8, 1]), Some(1), "other fields are skipped");
    }
}
