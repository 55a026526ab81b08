//! What is asked for with CONNECT: a connection to the upstream of a TCP route (01 §2.2), datagrams to and from that of a UDP route
//! (RFC 9298), or a WebSocket over HTTP/2 (RFC 8441). Pingora carries none of them, so all are dialled, answered and carried
//! here: with the permit of the gate, never without, and only to the endpoints of its route (S-105, S-106).

mod ask;
mod capsule;
mod datagrams;
mod heads;
mod pipe;
mod stream;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, StatusCode, header};
use pingora_core::connectors::TransportConnector;
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType, OkOrErr as _, OrErr as _, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session as Downstream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UdpSocket;

use self::ask::{Answered, Key, ask};
use self::datagrams::{Event, Lost, relay};
use self::pipe::{Ended, Ends, LAST_WORDS, Meter, pipe};
use crate::exchange::{End, Exchange};
use crate::listener::{Farewell, Tunnel};
use crate::proxy::{Proxy, has_begun, overdue, unless_left};
use crate::refusal::{Failure, Refusal};
use crate::request::Upgrade;
use crate::route::Carries;
use crate::upstream::{Older, Outcome, hurry, socket_to};
use crate::{BadRequest, response};

/// Opens the connections of tunnels; none is ever used twice.
pub(crate) struct Dialler(TransportConnector);

impl Dialler {
    pub(crate) fn new() -> Self {
        Self(TransportConnector::new(None))
    }
}

impl std::fmt::Debug for Dialler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialler").finish_non_exhaustive()
    }
}

/// What leads to the upstream from now on.
struct Opened {
    /// What the client is told.
    head: ResponseHeader,
    up: Up,
}

/// The way to the upstream.
enum Up {
    /// A connection that is a pipe, and what the upstream has said already.
    Stream(Stream, Bytes),
    /// A socket that knows no other address than that of the upstream.
    Socket(UdpSocket),
}

impl Proxy {
    /// Carries what a CONNECT that was permitted asks for, to its end.
    ///
    /// # Errors
    /// It could not be opened: the client has heard nothing yet.
    pub(crate) async fn tunnel(&self, downstream: &mut Downstream, exchange: &mut Exchange) -> Result<()> {
        exchange.request_completed();
        let bound = Arc::clone(&exchange.bound);
        let Some(opened) = bound.within(Box::pin(self.open(downstream, exchange)).as_mut()).await else {
            if !has_begun(downstream) && bound.reason().is_none() {
                exchange.note(Outcome::Late);
            }
            return overdue();
        };
        match opened? {
            Some(opened) => self.carry(downstream, exchange, opened).await,
            None => Ok(()),
        }
    }

    /// Dials the upstream and asks it for what is wanted. `None`: it said no, and that was passed on.
    async fn open(&self, downstream: &mut Downstream, exchange: &mut Exchange) -> Result<Option<Opened>> {
        let carries = exchange.carries();
        if carries == Some(Carries::Datagrams) && !exchange.leads_to_proxy() {
            return self.bind(downstream, exchange).await.map(Some);
        }
        let stream = self.dial(downstream, exchange).await?;
        let opened = match carries {
            None => self.upgrade(stream, downstream, exchange).await,
            Some(Carries::Connections) => self.connect(stream, downstream, exchange).await,
            Some(Carries::Datagrams) => self.connect_udp(stream, downstream, exchange).await,
        };
        if let Err(error) = &opened
            && let Some(outcome) = exchange.blamed(error, has_begun(downstream))
        {
            exchange.note(outcome);
        }
        opened
    }

    /// What a WebSocket over HTTP/2 becomes on the way up: one of HTTP/1.1.
    async fn upgrade(
        &self,
        stream: Stream,
        downstream: &mut Downstream,
        exchange: &mut Exchange,
    ) -> Result<Option<Opened>> {
        let key = Key::draw().or_err(ErrorType::InternalError, "WebSocket key")?;
        let head = exchange.upgrade_asked(downstream.req_header(), &key)?;
        let answered = unless_left(downstream, pin!(ask(stream, head, exchange.patience()))).await?;
        response::check(answered.head()?, exchange.upgrade(), &exchange.snapshot.config.limits.upstream)?;
        if answered.head()?.status != StatusCode::SWITCHING_PROTOCOLS {
            pass_on(answered, downstream, exchange).await?;
            return Ok(None);
        }
        if !key.is_accepted_by(answered.head()?) {
            return Err(Error::explain(ErrorType::InvalidHTTPHeader, "the key was not accepted").into_up());
        }
        exchange.note(Outcome::Status(StatusCode::SWITCHING_PROTOCOLS.as_u16()));
        let head = exchange.upgrade_granted(answered.head()?)?;
        let (stream, first) = answered.into_pipe()?;
        Ok(Some(Opened { head, up: Up::Stream(stream, first) }))
    }

    /// The connection itself; or, where the upstream is a proxy, what it gives when it is asked as we are (01 §2.5).
    async fn connect(
        &self,
        stream: Stream,
        downstream: &mut Downstream,
        exchange: &mut Exchange,
    ) -> Result<Option<Opened>> {
        let head = exchange.tunnel_granted()?;
        if !exchange.leads_to_proxy() {
            // That it can be reached is all that is ever known of it.
            exchange.note(Outcome::Status(StatusCode::OK.as_u16()));
            return Ok(Some(Opened { head, up: Up::Stream(stream, Bytes::new()) }));
        }
        let asking = ask(stream, exchange.tunnel_asked()?, exchange.patience());
        let answered = unless_left(downstream, pin!(asking)).await?;
        response::check(answered.head()?, None, &exchange.snapshot.config.limits.upstream)?;
        if !answered.head()?.status.is_success() {
            pass_on(answered, downstream, exchange).await?;
            return Ok(None);
        }
        if [header::CONTENT_LENGTH, header::TRANSFER_ENCODING].iter().any(|name| is_said(&answered, name)) {
            return Err(Error::explain(ErrorType::InvalidHTTPHeader, "a grant with a body").into_up());
        }
        exchange.note(Outcome::Status(StatusCode::OK.as_u16()));
        let (stream, first) = answered.into_pipe()?;
        Ok(Some(Opened { head, up: Up::Stream(stream, first) }))
    }

    /// What a proxy gives when it is asked as we are, though by its own name (01 §2.5, RFC 9298 §3.2): capsules, which pass as they
    /// are.
    async fn connect_udp(
        &self,
        stream: Stream,
        downstream: &mut Downstream,
        exchange: &mut Exchange,
    ) -> Result<Option<Opened>> {
        let head = exchange.datagrams_granted(downstream.req_header())?;
        let asking = ask(stream, exchange.datagrams_asked()?, exchange.patience());
        let answered = unless_left(downstream, pin!(asking)).await?;
        let wanted = Upgrade::connect_udp();
        response::check(answered.head()?, Some(&wanted), &exchange.snapshot.config.limits.upstream)?;
        if answered.head()?.status != StatusCode::SWITCHING_PROTOCOLS {
            pass_on(answered, downstream, exchange).await?;
            return Ok(None);
        }
        exchange.note(Outcome::Status(StatusCode::SWITCHING_PROTOCOLS.as_u16()));
        let (stream, first) = answered.into_pipe()?;
        Ok(Some(Opened { head, up: Up::Stream(stream, first) }))
    }

    /// A fresh connection to an endpoint of the route; if it cannot be had, to another one, once.
    async fn dial(&self, downstream: &mut Downstream, exchange: &mut Exchange) -> Result<Stream> {
        loop {
            let peer = self.next_peer(downstream, exchange).await?;
            match self.dialler.0.new_stream(&*peer).await {
                Ok(stream) => {
                    self.metrics.0.upstream_connections.with_label_values(&["opened"]).inc();
                    return Ok(stream);
                }
                Err(error) if !exchange.not_connected(&error) => return Err(error.into_up()),
                Err(_) => {}
            }
        }
    }

    /// A socket for this tunnel alone to an endpoint of the route; if there is no way to it, to another one, once. Whether anybody is
    /// there only a datagram can tell.
    async fn bind(&self, downstream: &mut Downstream, exchange: &mut Exchange) -> Result<Opened> {
        let head = exchange.datagrams_granted(downstream.req_header())?;
        loop {
            let peer = self.next_peer(downstream, exchange).await?;
            let address = peer._address.as_inet().or_err(ErrorType::InternalError, "an endpoint without an address")?;
            match socket_to(*address, exchange.snapshot.config.proxy.source) {
                Ok(socket) => {
                    self.metrics.0.upstream_connections.with_label_values(&["opened"]).inc();
                    return Ok(Opened { head, up: Up::Socket(socket) });
                }
                Err(error) if !exchange.not_connected(&error) => return Err(error.into_up()),
                Err(_) => {}
            }
        }
    }

    /// The endpoint that is tried next.
    async fn next_peer(&self, downstream: &mut Downstream, exchange: &mut Exchange) -> Result<Box<HttpPeer>> {
        exchange.attempts += 1;
        let mut peer = unless_left(downstream, pin!(self.choose(exchange, Older::Must))).await?;
        let address = peer._address.as_inet().copied();
        exchange.upstream = address;
        if let Some(left) = exchange.bound.left() {
            hurry(&mut peer, left, true);
        }
        Ok(peer)
    }

    /// Says yes to the client, and carries bytes from then on.
    async fn carry(&self, downstream: &mut Downstream, exchange: &mut Exchange, opened: Opened) -> Result<()> {
        let Opened { head, up } = opened;
        downstream.write_response_header(Box::new(head), false).await.map_err(|error| error.into_down())?;
        exchange.became_long_lived();
        let meter = Meter::new(Arc::clone(&exchange.bound));
        let idle = exchange.route().and_then(|route| route.idle_timeout);
        let websocket = exchange.upgrade().is_some();
        // Neither a WebSocket nor a tunnel of datagrams knows of halves.
        let half = (exchange.carries() != Some(Carries::Connections)).then_some(LAST_WORDS);
        let ends = Ends { idle, half, resets: downstream.is_http2() };
        let _open = crate::metrics::Raised::new(&self.metrics.0.tunnels);
        let ended = match downstream.as_downstream_mut() {
            ServerSession::H2(session) => {
                let farewell = websocket.then(|| Farewell::between(self.stop.clone()));
                let down = stream::Stream::of(session, farewell);
                let down = down.or_err(ErrorType::InternalError, "a stream that was not answered")?;
                let ended = exchange.bound.within(pin!(self.both_ways(down, up, (&meter, ends), exchange))).await;
                match ended {
                    Some(Ended::Whole) => {}
                    Some(Ended::Upstream) => session.shutdown_with_reason(h2::Reason::CONNECT_ERROR),
                    Some(Ended::Malformed) => session.shutdown_with_reason(h2::Reason::PROTOCOL_ERROR),
                    Some(Ended::Downstream | Ended::Silent) | None => {
                        session.shutdown_with_reason(h2::Reason::CANCEL);
                    }
                }
                ended
            }
            ServerSession::H1(session) => {
                if let Some(connection) = &exchange.connection {
                    connection.begin_tunnel(Tunnel::Connect);
                }
                let down = session.take_stream();
                exchange.bound.within(pin!(self.both_ways(down, up, (&meter, ends), exchange))).await
            }
            ServerSession::Subrequest(_) | ServerSession::Custom(_) => None,
        };
        exchange.carried = Some(meter.total());
        exchange.end = exchange.end_of(ended);
        Ok(())
    }

    /// Carries to the end.
    async fn both_ways<D>(&self, down: D, up: Up, (meter, ends): (&Meter, Ends), exchange: &Exchange) -> Ended
    where
        D: AsyncRead + AsyncWrite + Unpin,
    {
        match up {
            Up::Stream(stream, first) => pipe(down, (stream, first), meter, ends).await,
            Up::Socket(socket) => {
                let known = AtomicBool::new(false);
                let tell = |event| self.note_datagram(event, &known, exchange);
                relay(down, &socket, meter, ends, &tell).await
            }
        }
    }

    /// Counts what was lost, and tells once whether there is anybody at the endpoint.
    fn note_datagram(&self, event: Event, known: &AtomicBool, exchange: &Exchange) {
        if let Event::Lost(lost) = event {
            let route = exchange.route().map_or("", |route| &route.name);
            self.metrics.0.datagrams_lost.with_label_values(&[route, lost.as_str()]).inc();
        }
        let outcome = match event {
            Event::Heard => Outcome::Status(StatusCode::OK.as_u16()),
            Event::Lost(Lost::Unreachable) => Outcome::Unreachable,
            Event::Lost(Lost::TooLarge | Lost::Unsent) => return,
        };
        if !known.swap(true, Ordering::Relaxed) {
            exchange.note(outcome);
        }
    }
}

fn is_said(answered: &Answered, name: &HeaderName) -> bool {
    answered.head().is_ok_and(|head| head.headers.contains_key(name))
}

/// Passes the answer of an upstream on that does not want what it was asked for. One that says that all is well has not
/// understood: over HTTP/2 that would be consent (RFC 8441 §5), and so it would be to Pomerium's client.
async fn pass_on(mut answered: Answered, downstream: &mut Downstream, exchange: &mut Exchange) -> Result<()> {
    exchange.give_tunnel_place_back();
    let mut head = answered.head()?.clone();
    if head.status.is_success() {
        return Err(Error::explain(ErrorType::InvalidHTTPHeader, "the protocol was not changed").into_up());
    }
    exchange.note(Outcome::Status(head.status.as_u16()));
    exchange.prepare_response(&mut head)?;
    downstream.write_response_header(Box::new(head), false).await.map_err(|error| error.into_down())?;
    while let Some(piece) = answered.body().await? {
        exchange.bound.note_activity();
        downstream.write_response_body(Some(piece), false).await.map_err(|error| error.into_down())?;
    }
    downstream.write_response_body(None, true).await.map_err(|error| error.into_down())
}

impl Exchange {
    /// What goes through it, if it is a tunnel of a route for these.
    fn carries(&self) -> Option<Carries> {
        self.permit()?.tunnel()
    }

    /// How long an upstream may take for the head of its answer, and for each piece of its body.
    fn patience(&self) -> Duration {
        self.route().and_then(|route| route.timeout).unwrap_or(HEAD)
    }

    /// Whether the upstream speaks HTTP, though the route is for tunnels.
    fn leads_to_proxy(&self) -> bool {
        let upstream = self.permit().and_then(crate::admit::Permit::upstream);
        upstream.is_some_and(|(_, upstream)| upstream.endpoints.iter().any(|endpoint| !endpoint.scheme.is_bare()))
    }

    /// How it ended, as the record has it. `None`: at its bound.
    fn end_of(&self, ended: Option<Ended>) -> End {
        let cut = |failure| End::Cut(Refusal::Failed(failure).reason());
        match ended {
            Some(Ended::Whole) => End::Upstream,
            Some(Ended::Downstream) => End::ClientGone,
            Some(Ended::Upstream) => cut(Failure::UpstreamProtocol),
            Some(Ended::Silent) => cut(Failure::UpstreamTimeout),
            Some(Ended::Malformed) => End::Cut(Refusal::BadRequest(BadRequest::Capsule).reason()),
            None => End::Cut(self.overdue().reason()),
        }
    }
}

/// For the head of the answer to an upgrade, where the route sets no time (03 §2).
const HEAD: Duration = Duration::from_secs(30);
