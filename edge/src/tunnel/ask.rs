//! Asks an upstream, in HTTP/1.1, for a connection that is a pipe from then on.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderName, StatusCode};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_error::{Error, ErrorType, OkOrErr as _, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use postern_identity::{RandomError, random};

/// What an upstream was asked for, and its answer, whose body was not read.
pub(super) struct Answered(HttpSession);

impl Answered {
    /// The head of the answer.
    pub(super) fn head(&self) -> Result<&ResponseHeader> {
        self.0.resp_header().or_err(ErrorType::InternalError, "an answer without a head")
    }

    /// The next piece of its body.
    pub(super) async fn body(&mut self) -> Result<Option<Bytes>> {
        self.0.read_body_bytes().await.map_err(|error| error.into_up())
    }

    /// The connection, and what came behind the head.
    pub(super) fn into_pipe(mut self) -> Result<(Stream, Bytes)> {
        let first = {
            let reading = std::pin::pin!(self.0.read_body_bytes());
            // What came with the head is there at once; nothing else is waited for.
            match reading.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(first) => first.map_err(|error| error.into_up())?.unwrap_or_default(),
                Poll::Pending => Bytes::new(),
            }
        };
        Ok((self.0.into_inner(), first))
    }
}

/// Sends `head`, which has no body, and reads the head of the answer, all of it within `patience`; so long, too, each piece of a body
/// may take that is read later.
///
/// # Errors
/// What went wrong, as the upstream's.
pub(super) async fn ask(stream: Stream, head: RequestHeader, patience: Duration) -> Result<Answered> {
    let mut session = HttpSession::new(stream);
    (session.read_timeout, session.write_timeout) = (Some(patience), Some(patience));
    let asking = tokio::time::timeout(patience, ask_on(session, head)).await;
    asking.unwrap_or_else(|_| Err(Error::explain(ErrorType::ReadTimedout, "the head of an answer").into_up()))
}

async fn ask_on(mut session: HttpSession, head: RequestHeader) -> Result<Answered> {
    session.write_request_header(Box::new(head)).await.map_err(|error| error.into_up())?;
    let interim = |status: StatusCode| status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS;
    for _ in 0..MOST_INTERIM {
        session.read_response().await.map_err(|error| error.into_up())?;
        if !session.get_status().is_some_and(interim) {
            return Ok(Answered(session));
        }
    }
    Err(Error::explain(ErrorType::InvalidHTTPHeader, "too many interim answers").into_up())
}

/// More answers before the answer are none.
const MOST_INTERIM: usize = 16;

/// `Sec-WebSocket-Key`, which HTTP/2 has no need of (RFC 8441 §5), and upstreams that speak HTTP/1.1 do.
pub(super) struct Key(String);

impl Key {
    /// A fresh one.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub(super) fn draw() -> Result<Self, RandomError> {
        random::<16>().map(|bytes| Self(STANDARD.encode(bytes)))
    }

    /// As a field.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether an answer proves that it is one to this key (RFC 6455 §4.2.2).
    pub(super) fn is_accepted_by(&self, head: &ResponseHeader) -> bool {
        let proof = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{}{GUID}", self.0).as_bytes());
        let mut shown = head.headers.get_all(ACCEPT).iter();
        let first = shown.next().map(|shown| shown.as_bytes().trim_ascii());
        first == Some(STANDARD.encode(proof).as_bytes()) && shown.next().is_none()
    }
}

/// The field of the key.
pub(super) const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
/// The field of its proof.
pub(super) const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_accepted_by_its_own_proof_alone() {
        // RFC 6455 §1.3.
        let key = Key("dGhlIHNhbXBsZSBub25jZQ==".to_owned());
        let answer = |values: &[&str]| {
            let mut head = ResponseHeader::build(101, None).unwrap();
            for value in values {
                head.append_header(ACCEPT, (*value).to_owned()).unwrap();
            }
            head
        };
        let proof = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        assert!(key.is_accepted_by(&answer(&[proof])));
        for other in [&[][..], &["s3pPLMBiTxaQ9kYGzzhZRbK+xOp="], &[proof, proof], &[""]] {
            assert!(!key.is_accepted_by(&answer(other)), "{other:?}");
        }
        assert_ne!(Key::draw().unwrap().as_str(), Key::draw().unwrap().as_str());
    }

    #[tokio::test(start_paused = true)]
    async fn r_005_an_answer_that_drips_has_no_longer_than_one_that_does_not_come() {
        let (ours, mut upstream) = tokio::io::duplex(4096);
        let dripping = async {
            for byte in b"HTTP/1.1 101 Switching Protocols\r\n".iter().cycle() {
                tokio::time::sleep(Duration::from_secs(29)).await;
                if tokio::io::AsyncWriteExt::write_all(&mut upstream, &[*byte]).await.is_err() {
                    break;
                }
            }
        };
        let head = RequestHeader::build("GET", b"/", None).unwrap();
        let began = tokio::time::Instant::now();
        let patience = Duration::from_secs(30);
        let asked = tokio::select! {
            asked = ask(Box::new(ours), head, patience) => asked,
            () = dripping => panic!("it took all of it"),
        };
        assert_eq!(asked.err().map(|error| error.etype), Some(ErrorType::ReadTimedout));
        assert_eq!(began.elapsed(), patience);
    }
}
