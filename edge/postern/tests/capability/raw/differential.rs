//! S-020: whatever the edge makes of odd bytes, three backends of different strictness read the same requests in it. What is
//! sent is made of pieces of the grammar of HTTP/1.1, whole and broken; `POSTERN_TEST_DIFFERENTIAL=20000` tries so many.

use std::cell::RefCell;
use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use proptest::prelude::*;
use proptest::sample::select;

use super::edge::Edge;
use super::laws::{FRAMING, holds};
use super::reading::{Backend, Reading, strictly};
use super::upstream::Seen;
use super::{h1, h2};
use crate::support::eventually;

/// The three backends, and how far they agree on each of the upstream's connections.
struct Backends {
    lenient: [Backend; 2],
    agreed: RefCell<BTreeMap<usize, usize>>,
}

impl Backends {
    fn start() -> Result<Self> {
        Ok(Self { lenient: [Backend::node()?, Backend::python()?], agreed: RefCell::default() })
    }

    /// That they read the same in whatever has come up since they were asked last: what they read.
    async fn agree(&self, edge: &Edge) -> Result<Vec<Reading>> {
        let mut all = Vec::new();
        for (connection, bytes) in edge.upstream.connections().into_iter().enumerate() {
            let from = self.agreed.borrow().get(&connection).copied().unwrap_or_default();
            let new = bytes.get(from..).unwrap_or_default();
            if new.is_empty() {
                continue;
            }
            // Whoever tries something smaller next does not meet these again.
            self.agreed.borrow_mut().insert(connection, bytes.len());
            let shown = || format!("{:?}", super::bytes::text(new));
            let strict = strictly(new).with_context(shown)?;
            for backend in &self.lenient {
                let lenient = backend.reads(new).await.with_context(shown)?;
                let wanted: Vec<_> = strict.iter().take_while(|reading| backend.knows(&reading.0)).cloned().collect();
                ensure!(lenient == wanted, "{} reads {lenient:?}, not {wanted:?}, in {}", backend.name, shown());
            }
            all.extend(strict);
        }
        Ok(all)
    }
}

/// A request over HTTP/2: its method, its path, what other fields it has, and its data.
type Stream = (&'static str, &'static str, Vec<(&'static str, &'static str)>, Option<Vec<&'static str>>);

/// How many are tried.
fn cases() -> u32 {
    #[expect(clippy::disallowed_methods, reason = "a test's own knob")]
    let text = std::env::var("POSTERN_TEST_DIFFERENTIAL").ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(150)
}

/// Most of these, and now and then one of those.
fn mostly(usual: &'static [&str], odd: &'static [&str]) -> impl Strategy<Value = &'static str> {
    prop_oneof![12 => select(usual), 1 => select(odd)]
}

fn end() -> impl Strategy<Value = &'static str> {
    prop_oneof![60 => Just("\r\n"), 1 => select(vec!["\n", "\r", "\r\r\n", " \r\n", "\0\r\n"])]
}

fn method() -> impl Strategy<Value = &'static str> {
    mostly(&["GET", "POST", "PUT", "HEAD", "OPTIONS", "PURGE"], &["POST ", "P\tOST", "GET\r\n", ""])
}

fn target() -> impl Strategy<Value = &'static str> {
    mostly(
        &["/a", "/a?b", "/a%20b", "/a%2e", "//a", "/a/../b", "*", "http://open.corp.localhost/a"],
        &["/a b", "/a#b", "/\x7f", "/é", "", "a", "/a\r\nX: 1"],
    )
}

fn version() -> impl Strategy<Value = &'static str> {
    mostly(&["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0"], &["HTTP/1.2", "http/1.1", "HTTP/2.0", ""])
}

fn host() -> impl Strategy<Value = &'static str> {
    mostly(
        &["Host: open.corp.localhost", "host:\topen.corp.localhost "],
        &[
            "Host : open.corp.localhost",
            "Host: open.corp.localhost\r\nHost: open.corp.localhost",
            "Host: open.corp.localhost, x",
            "X: 1",
        ],
    )
}

/// What a message may have besides, all that frames it included.
const FIELDS: &[&str] = &[
    "X: 1",
    "X:",
    "X: \u{ff}",
    "X: GET /s HTTP/1.1",
    "Connection: close",
    "Connection: keep-alive, X",
    "Trailer: X",
    "Upgrade: websocket",
    "Expect: 100-continue",
    "TE: trailers",
    "Content-Length: 5",
    "Content-Length: 5",
    "Content-Length: 5\t",
    "Content-Length: 12",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: chunked",
    "TRANSFER-ENCODING: CHUNKED",
];

/// What no message may have.
const ODD_FIELDS: &[&str] = &[
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunked;q=1",
    "Transfer-Encoding:\x0cchunked",
    "Content-Length: 5;",
    "Content-Length:",
    "Content-Length: 0x5",
    "Content-Length: 5_",
    "X: \"a\r\n b\"",
    ": 1",
    "X",
    "X: a\0b",
];

const BODIES: &[&str] = &[
    "",
    "",
    "hello",
    "hello",
    "5\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\n\r\n",
    "5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\nContent-Length: 3\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    "+5\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello0\r\n\r\n",
    "5\r\nhello\r\n-0\r\n\r\n",
    "00005\r\nhello\r\n0000\r\n\r\n",
    "c\r\n0\r\n\r\nGET /s \r\n0\r\n\r\n",
    "10000000000000005\r\nhello\r\n0\r\n\r\n",
    "0\r\n\r\nGET /s HTTP/1.1\r\nHost: open.corp.localhost\r\n\r\n",
];

/// One message, more or less.
fn message() -> impl Strategy<Value = String> {
    let field = prop_oneof![12 => select(FIELDS), 1 => select(ODD_FIELDS), 1 => select(FRAMING)];
    let fields = prop::collection::vec(field, 0..3);
    let ends = prop::collection::vec(end(), 6);
    (method(), target(), version(), host(), fields, ends, select(BODIES)).prop_map(
        |(method, target, version, host, fields, ends, body)| {
            let mut ends = ends.into_iter().cycle();
            let mut end = || ends.next().unwrap_or("\r\n");
            let mut message = format!("{method} {target} {version}{}{host}{}", end(), end());
            for field in fields {
                message += field;
                message += end();
            }
            message + end() + body
        },
    )
}

/// Up to three of them, and up to two bytes changed.
fn bytes() -> impl Strategy<Value = String> {
    let change = (any::<prop::sample::Index>(), select(b"\0\t\n\r :;,0a\x7f\x80".to_vec()));
    // Most stay as they are: what is broken beyond repair tries little.
    let changes = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(change, 1..3)];
    (prop::collection::vec(message(), 1..4), changes).prop_map(|(messages, changes)| {
        let mut all: Vec<char> = messages.concat().chars().collect();
        for (at, byte) in changes {
            let at = at.index(all.len());
            if let Some(place) = all.get_mut(at) {
                *place = char::from(byte);
            }
        }
        all.into_iter().collect()
    })
}

#[test]
fn s_020_three_backends_read_the_same_in_what_the_edge_makes_of_odd_bytes() -> Result<()> {
    let backends = Backends::start()?;
    let read = RefCell::new(0);
    let law = async |edge: &Edge, sent: String| {
        let first = edge.upstream.count();
        let mut client = h1::Client::new(edge.connect("open", "http/1.1").await?);
        client.send(&sent).await;
        client.half_close().await;
        client.end().await?;
        settled(edge, first).await?;
        let readings = backends.agree(edge).await?;
        let seen = edge.upstream.seen(first).into_iter().filter(|seen| seen.complete).count();
        ensure!(readings.len() == seen, "{readings:?} are not what came up");
        *read.borrow_mut() += readings.len();
        Ok(())
    };
    holds(cases(), &bytes(), &law, &async |_: &Edge| {
        let read = *read.borrow();
        ensure!(read * 10 > usize::try_from(cases())?, "only {read} requests were read: the law was not tried");
        Ok(())
    })
}

#[test]
fn s_020_three_backends_read_the_same_in_what_the_edge_makes_of_odd_streams() -> Result<()> {
    let backends = Backends::start()?;
    let read = RefCell::new(0);
    let names = select(vec![
        "x",
        "content-length",
        "transfer-encoding",
        "te",
        "cookie",
        "host",
        "x\r\ny",
        "content_length",
        "expect",
    ]);
    let values = select(vec![
        "1",
        "5",
        "chunked",
        "trailers",
        "a=b",
        "open.corp.localhost",
        "5\r\nX: 1",
        "100-continue",
        "",
        " 5",
        "\u{ff}",
    ]);
    let fields = prop::collection::vec((names, values), 0..4);
    let data = prop::option::of(prop::collection::vec(select(BODIES), 1..3));
    let inputs = (method(), target(), fields, data);
    let law = async |edge: &Edge, (method, target, fields, data): Stream| {
        let first = edge.upstream.count();
        let usual =
            [(":method", method), (":scheme", "https"), (":authority", "open.corp.localhost"), (":path", target)];
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let fields = usual.into_iter().chain(fields).map(own).collect();
        let data = data.map(|data| data.into_iter().map(str::to_owned).collect());
        let mut client = h2::Client::new(edge.connect("open", "h2").await?).await?;
        client.ask(h2::Frames { fields, data, ..h2::Frames::default() }).await?;
        drop(client);
        settled(edge, first).await?;
        let readings = backends.agree(edge).await?;
        ensure!(readings.len() <= 1, "one stream became {readings:?}");
        *read.borrow_mut() += readings.len();
        Ok(())
    };
    holds(cases(), &inputs, &law, &async |_: &Edge| {
        let read = *read.borrow();
        ensure!(read * 10 > usize::try_from(cases())?, "only {read} requests were read: the law was not tried");
        Ok(())
    })
}

/// Whatever came up is whole or cut by now.
async fn settled(edge: &Edge, first: usize) -> Result<()> {
    let over = |seen: &Seen| seen.complete || seen.cut;
    eventually("what came up to be over", async || edge.upstream.seen(first).iter().all(over).then_some(())).await
}
