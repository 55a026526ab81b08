//! How backends read bytes: one strict reader of our own, and real servers that take what it does not.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::bytes::text;
use crate::support::{DEADLINE, Owned, bounded};

/// A request as somebody has read it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub(super) struct Reading(pub(super) String, pub(super) String, pub(super) String);

/// All whole requests of a connection. RFC 9112, to the letter: an error says where it is not kept to.
pub(super) fn strictly(bytes: &[u8]) -> Result<Vec<Reading>> {
    let (mut readings, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let Some(head) = until(rest, b"\r\n\r\n") else { return Ok(readings) };
        let after = rest.get(head.len()..).unwrap_or_default();
        let request = request(head).with_context(|| format!("in {:?}", text(head)))?;
        let Some((body, length)) = request.body(after)? else { return Ok(readings) };
        readings.push(Reading(request.method, request.target, body));
        rest = after.get(length..).unwrap_or_default();
    }
    Ok(readings)
}

/// A head.
struct Request {
    method: String,
    target: String,
    framing: Framing,
}

enum Framing {
    Length(usize),
    Chunked,
}

fn request(head: &[u8]) -> Result<Request> {
    let head = text(head);
    ensure!(head.bytes().all(|byte| matches!(byte, b'\r' | b'\n' | b'\t' | 0x20..=0x7e | 0x80..)), "a control byte");
    let mut lines = head.trim_end_matches("\r\n").split("\r\n");
    let line = lines.next().unwrap_or_default();
    let [method, target, "HTTP/1.1"] = line.split(' ').collect::<Vec<_>>()[..] else {
        anyhow::bail!("no request line: {line:?}");
    };
    ensure!(!method.is_empty() && method.bytes().all(is_token), "no method: {method:?}");
    ensure!(!target.is_empty() && target.bytes().all(|byte| byte.is_ascii_graphic()), "no target: {target:?}");
    let (mut lengths, mut codings, mut hosts) = (Vec::new(), Vec::new(), 0);
    for line in lines {
        ensure!(!line.contains(['\r', '\n']), "a bare CR or LF: {line:?}");
        let (name, value) = line.split_once(':').with_context(|| format!("no field: {line:?}"))?;
        ensure!(!name.is_empty() && name.bytes().all(is_token), "no name: {name:?}");
        let value = value.trim_matches([' ', '\t']);
        match name.to_ascii_lowercase().as_str() {
            "content-length" => lengths.push(value),
            "transfer-encoding" => codings.push(value),
            "host" => hosts += 1,
            _ => {}
        }
    }
    ensure!(hosts == 1, "{hosts} hosts");
    let framing = match (&lengths[..], &codings[..]) {
        ([], []) => Framing::Length(0),
        ([length], []) => {
            ensure!(!length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()), "no length: {length:?}");
            Framing::Length(length.parse()?)
        }
        ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => Framing::Chunked,
        _ => anyhow::bail!("framed by {lengths:?} and {codings:?}"),
    };
    Ok(Request { method: method.to_owned(), target: target.to_owned(), framing })
}

impl Request {
    /// The body and how many bytes it takes; [`None`] if it is not whole.
    fn body(&self, bytes: &[u8]) -> Result<Option<(String, usize)>> {
        match self.framing {
            Framing::Length(length) => Ok(bytes.get(..length).map(|body| (text(body), length))),
            Framing::Chunked => chunks(bytes),
        }
    }
}

fn chunks(bytes: &[u8]) -> Result<Option<(String, usize)>> {
    let (mut body, mut at) = (String::new(), 0);
    loop {
        let Some(line) = bytes.get(at..).and_then(|rest| until(rest, b"\r\n")) else { return Ok(None) };
        let digits = text(line.get(..line.len() - 2).unwrap_or_default());
        let sound = (1..=16).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        ensure!(sound, "no size of a chunk: {digits:?}");
        let size = usize::from_str_radix(&digits, 16)?;
        at += line.len();
        let Some(data) = bytes.get(at..at + size + 2) else { return Ok(None) };
        ensure!(data.ends_with(b"\r\n"), "no end of a chunk: {:?}", text(data));
        body += &text(data.get(..size).unwrap_or_default());
        at += size + 2;
        if size == 0 {
            return Ok(Some((body, at)));
        }
    }
}

const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// What comes up to and with these bytes.
fn until<'b>(bytes: &'b [u8], end: &[u8]) -> Option<&'b [u8]> {
    let at = bytes.windows(end.len()).position(|window| window == end)?;
    bytes.get(..at + end.len())
}

/// A running server that tells how it read what it was sent; it ends with its owner.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) name: &'static str,
    /// It refuses every method but these; [`None`]: it takes any.
    methods: Option<&'static [&'static str]>,
    port: u16,
    told: Receiver<String>,
    /// It ends with this.
    _tell: Option<ChildStdin>,
    _process: Owned,
}

impl Backend {
    /// node's parser, as lenient as it can be.
    pub(super) fn node() -> Result<Self> {
        let methods = &["GET", "POST", "PUT", "HEAD", "OPTIONS", "PURGE"];
        Ok(Self { methods: Some(methods), ..Self::start("node", "node/backend.mjs")? })
    }

    /// Python's, with bodies read by whatever it takes for a number.
    pub(super) fn python() -> Result<Self> {
        Self::start("python3", "node/backend.py")
    }

    fn start(name: &'static str, script: &str) -> Result<Self> {
        let mut command = Command::new(name);
        command.arg(format!("{}/tests/{script}", env!("CARGO_MANIFEST_DIR"))).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().map(Owned).with_context(|| format!("starting {name}"))?;
        let tell = process.0.stdin.take();
        let stdout = process.0.stdout.take().context("no output")?;
        let (sender, told) = mpsc::channel();
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let port = told.recv_timeout(DEADLINE).with_context(|| format!("{name} did not start"))?;
        let port = port.strip_prefix("0 ").and_then(|port| port.parse().ok()).with_context(|| port.clone())?;
        Ok(Self { name, methods: None, port, told, _tell: tell, _process: process })
    }

    /// Whether it takes requests of this method. One that it refuses is the last that it reads of a connection.
    pub(super) fn knows(&self, method: &str) -> bool {
        self.methods.is_none_or(|methods| methods.contains(&method))
    }

    /// Every whole request that it reads in these bytes.
    pub(super) async fn reads(&self, bytes: &[u8]) -> Result<Vec<Reading>> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let own = stream.local_addr()?.port();
        // Whether it takes all is its own affair: what it read is what counts.
        let _cut = stream.write_all(bytes).await;
        let _cut = stream.shutdown().await;
        let _cut = bounded(DEADLINE, "the backend's end", stream.read_to_end(&mut Vec::new())).await?;
        drop(stream);
        let line = self.told.recv_timeout(DEADLINE).with_context(|| format!("{} says nothing", self.name))?;
        let told = line
            .strip_prefix(&format!("{own} "))
            .with_context(|| format!("{} speaks of another: {line}", self.name))?;
        Ok(serde_json::from_str(told)?)
    }
}
