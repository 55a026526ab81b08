//! An upstream that keeps what it got, byte by byte, and answers as a case wants it to, however odd.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use super::bytes::{latin1, text};

/// A running upstream; it ends with its owner.
#[derive(Debug)]
pub(super) struct Upstream {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    seen: Vec<Seen>,
    script: Option<Script>,
    /// The bytes of each, as they came.
    connections: Vec<Vec<u8>>,
}

/// What is answered to every request but the fence's.
#[derive(Debug, Clone, Default)]
pub(super) struct Script {
    /// Written as it is.
    pub(super) bytes: Vec<u8>,
    /// At the end of the head, the body still being on its way.
    pub(super) early: bool,
    /// The connection ends with it.
    pub(super) close: bool,
}

/// One request, or what has come of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// Which connection it came by, counted from zero.
    pub(super) connection: usize,
    pub(super) line: String,
    /// Names and values as they came, trimmed.
    pub(super) fields: Vec<(String, String)>,
    /// The head as it came, with its empty line.
    pub(super) head: String,
    pub(super) body: Vec<u8>,
    /// It came to its end.
    pub(super) complete: bool,
    /// Its connection ended before it did.
    pub(super) cut: bool,
    /// What came after a 101.
    pub(super) piped: Vec<u8>,
    /// What a strict reader finds wrong with it.
    pub(super) fault: Option<String>,
}

impl Seen {
    /// All values of that field.
    pub(super) fn values(&self, name: &str) -> Vec<&str> {
        let own = self.fields.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name));
        own.map(|(_, value)| value.as_str()).collect()
    }

    /// The target of its request line.
    pub(super) fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }

    /// It only asks whether everything before it is over.
    pub(super) fn is_fence(&self) -> bool {
        self.target() == FENCE
    }
}

/// The path of the request that tells that everything before it is over.
pub(super) const FENCE: &str = "/fence";

impl Upstream {
    pub(super) fn start() -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        // As long a queue as the edge has: of a flood that it passes on none waits a second for its SYN to be sent again.
        let listener = socket.listen(4096)?;
        let (address, state) = (listener.local_addr()?, Arc::<Mutex<State>>::default());
        let shared = Arc::clone(&state);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = with(&shared, |state| {
                    state.connections.push(Vec::new());
                    state.connections.len() - 1
                });
                let serving = Serving { stream, pending: Vec::new(), connection, state: Arc::clone(&shared) };
                tokio::spawn(serving.run());
            }
        });
        Ok(Self { address, state, server })
    }

    /// What to write after `to:`.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request from the `first` on.
    pub(super) fn seen(&self, first: usize) -> Vec<Seen> {
        with(&self.state, |state| state.seen.iter().skip(first).cloned().collect())
    }

    /// How many requests have come.
    pub(super) fn count(&self) -> usize {
        with(&self.state, |state| state.seen.len())
    }

    /// The bytes of every connection so far, in order of arrival.
    pub(super) fn connections(&self) -> Vec<Vec<u8>> {
        with(&self.state, |state| state.connections.clone())
    }

    /// How to answer from now on; [`None`]: 200 and `ok`.
    pub(super) fn answer(&self, script: Option<Script>) {
        with(&self.state, |state| state.script = script);
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn with<T>(state: &Mutex<State>, act: impl FnOnce(&mut State) -> T) -> T {
    act(&mut state.lock().unwrap_or_else(PoisonError::into_inner))
}

/// One connection.
struct Serving {
    stream: TcpStream,
    pending: Vec<u8>,
    connection: usize,
    state: Arc<Mutex<State>>,
}

impl Serving {
    async fn run(mut self) {
        while let Some(index) = self.head().await {
            let seen = with(&self.state, |state| state.seen.get(index).cloned()).unwrap_or_default();
            let script = with(&self.state, |state| state.script.clone()).filter(|_| !seen.is_fence());
            let early = script.as_ref().is_some_and(|script| script.early);
            if early && !self.say(script.as_ref(), &seen).await {
                return;
            }
            let whole = self.body(index, &seen).await;
            with(&self.state, |state| {
                if let Some(seen) = state.seen.get_mut(index) {
                    (seen.complete, seen.cut) = (whole, !whole);
                }
            });
            if !whole || !early && !self.say(script.as_ref(), &seen).await {
                return;
            }
            if script.is_some_and(|script| script.bytes.starts_with(b"HTTP/1.1 101")) {
                return self.pipe(index).await;
            }
        }
    }

    /// Reads on; whether something came.
    async fn more(&mut self) -> bool {
        let mut piece = vec![0; 16 * 1024];
        match self.stream.read(&mut piece).await {
            Ok(read @ 1..) => {
                piece.truncate(read);
                with(&self.state, |state| state.connections.get_mut(self.connection).map(|all| all.extend(&piece)));
                self.pending.extend(piece);
                true
            }
            Ok(0) | Err(_) => false,
        }
    }

    /// The next head, noted down.
    async fn head(&mut self) -> Option<usize> {
        let end = loop {
            match self.pending.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None if self.more().await => {}
                None if self.pending.is_empty() => return None,
                None => break self.pending.len(),
            }
        };
        let head: Vec<u8> = self.pending.drain(..end).collect();
        let seen = Seen { connection: self.connection, ..read_head(&text(&head)) };
        Some(with(&self.state, |state| {
            state.seen.push(seen);
            state.seen.len() - 1
        }))
    }

    /// The body of a request, noted down as it comes; whether it came to its end.
    async fn body(&mut self, index: usize, seen: &Seen) -> bool {
        if seen.fault.is_some() {
            return false;
        }
        if !seen.values("transfer-encoding").is_empty() {
            return self.chunks(index).await;
        }
        let length = seen.values("content-length").first().and_then(|length| length.parse().ok()).unwrap_or(0);
        self.take(index, length).await
    }

    async fn chunks(&mut self, index: usize) -> bool {
        loop {
            let Some(line) = self.line().await else { return false };
            let Ok(size) = usize::from_str_radix(&line, 16) else { return self.fault(index, "chunk size", &line) };
            if !self.take(index, size).await {
                return false;
            }
            let Some(end) = self.line().await else { return false };
            if !end.is_empty() {
                return self.fault(index, if size == 0 { "a trailer" } else { "chunk end" }, &end);
            }
            if size == 0 {
                return true;
            }
        }
    }

    fn fault(&self, index: usize, what: &str, found: &str) -> bool {
        with(&self.state, |state| {
            if let Some(seen) = state.seen.get_mut(index) {
                seen.fault = Some(format!("{what}: {found:?}"));
            }
        });
        false
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.pending.windows(2).position(|window| window == b"\r\n") {
                let line: Vec<u8> = self.pending.drain(..at + 2).take(at).collect();
                return Some(text(&line));
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn take(&mut self, index: usize, mut length: usize) -> bool {
        while length > 0 {
            if self.pending.is_empty() && !self.more().await {
                return false;
            }
            let piece: Vec<u8> = self.pending.drain(..length.min(self.pending.len())).collect();
            length -= piece.len();
            with(&self.state, |state| state.seen.get_mut(index).map(|seen| seen.body.extend(piece)));
        }
        true
    }

    /// Answers; whether the connection goes on.
    async fn say(&mut self, script: Option<&Script>, seen: &Seen) -> bool {
        let plain = Script { bytes: plain_answer(seen), ..Script::default() };
        let script = script.unwrap_or(&plain);
        self.stream.write_all(&script.bytes).await.is_ok() && !script.close
    }

    /// After a 101: says back what comes.
    async fn pipe(&mut self, index: usize) {
        loop {
            let piece = std::mem::take(&mut self.pending);
            with(&self.state, |state| state.seen.get_mut(index).map(|seen| seen.piped.extend(&piece)));
            if self.stream.write_all(&piece).await.is_err() || !self.more().await {
                return;
            }
        }
    }
}

fn plain_answer(seen: &Seen) -> Vec<u8> {
    let body = if seen.line.starts_with("HEAD ") { "" } else { "ok" };
    latin1(&format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{body}"))
}

/// A head as a strict reader takes it.
fn read_head(head: &str) -> Seen {
    let mut seen = Seen { head: head.to_owned(), ..Seen::default() };
    let Some(lines) = head.strip_suffix("\r\n\r\n") else {
        seen.fault = Some("the head has no end".to_owned());
        return seen;
    };
    let mut lines = lines.split("\r\n");
    lines.next().unwrap_or_default().clone_into(&mut seen.line);
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            seen.fault = Some(format!("no field: {line:?}"));
            return seen;
        };
        seen.fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
    }
    seen
}
