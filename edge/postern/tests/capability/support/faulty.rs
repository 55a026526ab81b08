//! An upstream that does what no upstream should, in HTTP/1.1 and in HTTP/2, in the clear and over TLS, until it is mended.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// What it does to a connection or to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing: it answers 200 and `well`.
    None,
    /// The connection is closed as soon as it is there.
    Closes,
    /// It is reset as soon as it is there.
    Resets,
    /// It is there, and never says anything, not even in TLS.
    Mute,
    /// In place of TLS this is spoken.
    SpeaksPlainly,
    /// The request is read, and the connection is closed.
    ClosesAfterRequest,
    /// The request is read, and the connection is reset.
    ResetsAfterRequest,
    /// The request is read, and never answered.
    Silent,
    /// These bytes are the answer in HTTP/1.1; then the connection is closed.
    Says(&'static str),
    /// These bytes, and then nothing more.
    SaysAndStalls(&'static str),
    /// Byte by byte, so slowly that no single read takes long.
    Drips,
    /// A head that goes on and on.
    EndlessHead,
    /// Of HTTP/2: the stream is reset.
    StreamReset,
    /// Of HTTP/2: the connection ends with an error.
    GoesAway,
    /// Of HTTP/2: more is promised than comes.
    StreamTooShort,
    /// Of HTTP/2: a head, and then the connection is closed.
    StreamCut,
    /// The answer is this status.
    Status(u16),
}

/// A running one; it ends with its owner.
pub(crate) struct Faulty {
    address: SocketAddr,
    fault: Arc<Mutex<Fault>>,
    requests: Arc<Mutex<usize>>,
    server: Option<JoinHandle<()>>,
    tls: Option<TlsAcceptor>,
    h2: bool,
}

#[derive(Clone)]
struct Serving {
    fault: Arc<Mutex<Fault>>,
    requests: Arc<Mutex<usize>>,
    tls: Option<TlsAcceptor>,
    h2: bool,
}

impl Faulty {
    /// One with this fault.
    pub(crate) async fn start(fault: Fault, tls: Option<TlsAcceptor>, h2: bool) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let mut this =
            Self { address, fault: Arc::new(Mutex::new(fault)), requests: Arc::default(), server: None, tls, h2 };
        this.serve(listener);
        Ok(this)
    }

    fn serve(&mut self, listener: TcpListener) {
        let serving = Serving {
            fault: Arc::clone(&self.fault),
            requests: Arc::clone(&self.requests),
            tls: self.tls.clone(),
            h2: self.h2,
        };
        self.server = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let serving = serving.clone();
                connections.spawn(async move {
                    let _ended = serving.connection(stream).await;
                });
            }
        }));
    }

    /// Ends it: nobody listens any more, and its connections are closed.
    pub(crate) async fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            let _cancelled = server.await;
        }
    }

    /// Listens again, at the same address.
    pub(crate) async fn revive(&mut self) -> Result<()> {
        let listener = TcpListener::bind(self.address).await?;
        self.serve(listener);
        Ok(())
    }

    /// From now on it has this fault.
    pub(crate) fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// Requests that were read to the end of their heads.
    pub(crate) fn requests(&self) -> usize {
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

/// The next close is a reset.
fn reset(stream: &TcpStream) -> Result<()> {
    Ok(socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO))?)
}

impl Serving {
    fn fault(&self) -> Fault {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self) {
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "all other faults are for somewhere else")]
    async fn connection(self, mut stream: TcpStream) -> Result<()> {
        match self.fault() {
            Fault::Closes => return Ok(()),
            Fault::Resets => return reset(&stream),
            Fault::Mute => return std::future::pending().await,
            Fault::SpeaksPlainly => return Ok(stream.write_all(b"220 mail.example ESMTP\r\n").await?),
            _ => {}
        }
        if self.fault() == Fault::ResetsAfterRequest {
            reset(&stream)?;
        }
        match self.tls.clone() {
            None if self.h2 => self.http2(stream).await,
            None => self.http1(stream).await,
            Some(tls) => {
                let stream = tls.accept(stream).await?;
                let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                if h2 { self.http2(stream).await } else { self.http1(stream).await }
            }
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "all other faults are for somewhere else")]
    async fn http1<S: AsyncRead + AsyncWrite + Unpin>(self, mut stream: S) -> Result<()> {
        let mut heard = Vec::new();
        loop {
            while !heard.windows(4).any(|window| window == b"\r\n\r\n") {
                if stream.read_buf(&mut heard).await? == 0 {
                    return Ok(());
                }
            }
            heard.clear();
            self.count();
            match self.fault() {
                Fault::Silent => return std::future::pending().await,
                Fault::ClosesAfterRequest | Fault::ResetsAfterRequest => return Ok(()),
                Fault::Says(bytes) => {
                    stream.write_all(bytes.as_bytes()).await?;
                    return Ok(stream.shutdown().await?);
                }
                Fault::SaysAndStalls(bytes) => {
                    stream.write_all(bytes.as_bytes()).await?;
                    return std::future::pending().await;
                }
                Fault::Drips => {
                    for byte in b"HTTP/1.1 200 OK\r\nX-Slow: ".iter().chain(std::iter::repeat(&b'x')) {
                        stream.write_all(&[*byte]).await?;
                        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    }
                }
                Fault::EndlessHead => {
                    stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
                    loop {
                        stream.write_all(b"X-More: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n").await?;
                    }
                }
                Fault::Status(status) => {
                    stream.write_all(format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n").as_bytes()).await?;
                }
                _ => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell").await?,
            }
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "all other faults are for somewhere else")]
    async fn http2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S) -> Result<()> {
        let mut connection = h2::server::handshake(stream).await?;
        let mut streams = JoinSet::new();
        while let Some(accepted) = connection.accept().await {
            let (request, answer) = accepted?;
            self.count();
            match self.fault() {
                Fault::ClosesAfterRequest | Fault::ResetsAfterRequest => return Ok(()),
                Fault::GoesAway => {
                    connection.abrupt_shutdown(Reason::INTERNAL_ERROR);
                }
                Fault::StreamCut => {
                    let mut answer = answer;
                    let body = answer.send_response(Response::new(()), false)?;
                    streams.spawn(hold(request, answer, Some(body)));
                    // The head goes out, and nothing else.
                    let _sent = tokio::time::timeout(std::time::Duration::from_millis(50), connection.accept()).await;
                    return Ok(());
                }
                fault => {
                    streams.spawn(answered(fault, request, answer));
                }
            }
        }
        Ok(())
    }
}

async fn hold(request: Request<RecvStream>, answer: SendResponse<Bytes>, body: Option<h2::SendStream<Bytes>>) {
    let _kept = (request, answer, body);
    std::future::pending::<()>().await;
}

#[expect(clippy::wildcard_enum_match_arm, reason = "all other faults are for somewhere else")]
async fn answered(fault: Fault, request: Request<RecvStream>, mut answer: SendResponse<Bytes>) {
    match fault {
        Fault::Silent => hold(request, answer, None).await,
        Fault::StreamReset => answer.send_reset(Reason::INTERNAL_ERROR),
        Fault::StreamTooShort => {
            let head = Response::builder().header("content-length", 10).body(());
            let body = head.ok().and_then(|head| answer.send_response(head, false).ok());
            if let Some(mut body) = body {
                let _gone = body.send_data(Bytes::from_static(b"less"), true);
            }
        }
        Fault::Status(status) => {
            let head = Response::builder().status(status).body(());
            let _gone = head.ok().map(|head| answer.send_response(head, true));
        }
        _ => {
            if let Ok(mut body) = answer.send_response(Response::new(()), false) {
                let _gone = body.send_data(Bytes::from_static(b"well"), true);
            }
        }
    }
}
