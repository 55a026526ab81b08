//! The only file that implements Pingora's `ProxyHttp`: each phase calls one step.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING, UPGRADE};
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::Digest;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_core::server::ShutdownWatch;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, HttpProxy, ProxyHttp, ProxyWarnLogContext, Session as Downstream};
use tokio::sync::watch;

use crate::admit::{Admission, Gate};
use crate::answer::Answer;
use crate::bound::Bound;
use crate::exchange::{End, Exchange};
use crate::limits::EdgeLimits;
use crate::listener::Connection;
use crate::metrics::Metrics;
use crate::refusal::{Failure, Refusal, streams_both_ways};
use crate::request::{BadRequest, CONNECT_UDP, has_token};
use crate::tunnel::Dialler;
use crate::upstream::{Http, Line, NoMember, NoWay, Older, Outcome, Overflow, Upstreams, Wants, hurry};
use crate::vigil::{Vigil, Vigilance};
use crate::{record, response};

/// What carries the exchanges of one core.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) gate: Arc<Gate>,
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) metrics: Metrics,
    pub(crate) in_flight: Arc<AtomicUsize>,
    /// Those of them that are, or may become, connections that last.
    pub(crate) tunnels: Arc<AtomicUsize>,
    pub(crate) vigilance: Vigilance,
    /// For what is no request: tunnels, and WebSockets over HTTP/2.
    pub(crate) dialler: Dialler,
    /// Says that this process leaves.
    pub(crate) stop: watch::Receiver<bool>,
    /// Says that what is still under way ends now.
    pub(crate) end: watch::Receiver<bool>,
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        Exchange::new(self.gate.snapshot(), self.metrics.clone())
    }

    /// None: each would cost every request.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn early_request_filter(&self, downstream: &mut Downstream, exchange: &mut Exchange) -> Result<()> {
        let begun = exchange.begin(connection(downstream));
        set_patience(downstream, exchange);
        begun.map_err(|error| Error::because(ErrorType::InternalError, "request id", error))
    }

    async fn request_filter(&self, downstream: &mut Downstream, exchange: &mut Exchange) -> Result<bool> {
        let answer = match self.admit(downstream, exchange).await {
            Ok(()) => exchange.verdict(downstream.req_header()),
            Err(refusal) => {
                if refusal == Refusal::BadRequest(BadRequest::BodyTooLarge) {
                    // What nobody reads is not followed by another request (03 §2).
                    downstream.set_keepalive(None);
                }
                Some(exchange.refuse(&refusal, downstream.req_header()))
            }
        };
        match answer {
            Some(answer) => {
                if may_be_followed_by_capsules(downstream.req_header()) {
                    // They were meant for a tunnel, never for us (S-008).
                    downstream.set_keepalive(None);
                }
                send(downstream, answer).await.map(|()| true)
            }
            None if exchange.is_tunnel() || downstream.req_header().method == http::Method::CONNECT => {
                // Whatever comes of it, what follows is no request.
                downstream.set_keepalive(None);
                self.look_after(downstream, exchange)?;
                // Apart: no other exchange is to hold the room for it.
                Box::pin(self.tunnel(downstream, exchange)).await.map(|()| true)
            }
            None => {
                distrust_zero(downstream);
                if downstream.is_body_empty() {
                    exchange.request_completed();
                }
                self.look_after(downstream, exchange)?;
                Ok(false)
            }
        }
    }

    async fn upstream_peer(&self, downstream: &mut Downstream, exchange: &mut Exchange) -> Result<Box<HttpPeer>> {
        exchange.attempts += 1;
        let bound = Arc::clone(&exchange.bound);
        let head = downstream.req_header();
        // Where a body is still to come, an answer is waited for from the head on in HTTP/2, whatever still comes: only
        // calls that know nothing else are carried so.
        let older = if is_older(head) {
            Older::Must
        } else if !exchange.request_complete && !streams_both_ways(head) {
            Older::Rather
        } else {
            Older::No
        };
        let choosing = async { bound.within(pin!(self.choose(exchange, older))).await.unwrap_or_else(overdue) };
        let mut peer = unless_left(downstream, pin!(choosing)).await?;
        if let Some(left) = bound.left() {
            hurry(&mut peer, left, exchange.request_complete);
        }
        Ok(peer)
    }

    fn fail_to_connect(
        &self,
        _downstream: &mut Downstream,
        peer: &HttpPeer,
        exchange: &mut Exchange,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let older_alone = peer.options.alpn.get_max_http_version() == 1;
        let again = if older_alone && exchange.negotiates() && is_for_newer_alone(&error) {
            // Nothing is wrong with the endpoint, and nothing was sent.
            exchange.attempts == 1 && !exchange.bound.has_passed() && exchange.speak_newer()
        } else {
            exchange.not_connected(&error)
        };
        error.set_retry(again);
        error
    }

    async fn connected_to_upstream(
        &self,
        _downstream: &mut Downstream,
        reused: bool,
        peer: &HttpPeer,
        _fd: i32,
        digest: Option<&Digest>,
        exchange: &mut Exchange,
    ) -> Result<()> {
        // Nobody may cut what others use too.
        if exchange.bound.has_passed() {
            return overdue();
        }
        exchange.bound.hold(digest.and_then(Line::of));
        exchange.upstream = peer._address.as_inet().copied();
        let outcome = if reused { "reused" } else { "opened" };
        self.metrics.0.upstream_connections.with_label_values(&[outcome]).inc();
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        _downstream: &mut Downstream,
        head: &mut RequestHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        if head.version == http::Version::HTTP_2 {
            // Other exchanges use this connection too: nobody may cut it under them.
            exchange.bound.hold(None);
        } else if let Err(overflow) = exchange.way.take_connection() {
            // It was not known before that this upstream speaks HTTP/1.1 alone. The connection is good, and goes back.
            exchange.bound.hold(None);
            return self.overflowed(exchange, overflow);
        }
        exchange.prepare_request(head)
    }

    async fn request_body_filter(
        &self,
        _downstream: &mut Downstream,
        body: &mut Option<Bytes>,
        end: bool,
        exchange: &mut Exchange,
    ) -> Result<()> {
        exchange.bound.note_activity();
        let bytes = body.as_ref().map_or(0, Bytes::len);
        // Once it has become something else, what comes is no body any more.
        if !exchange.long_lived && exchange.received(bytes as u64) {
            // It is the client's: whatever the upstream speaks, the exchange ends with it.
            let error = Error::explain(BODY_TOO_LARGE, "the body is larger than its route takes");
            return Err(error.into_down());
        }
        if end {
            exchange.request_completed();
            // An empty DATA frame at the end would be written as a last chunk of its own, before the last chunk (S-001).
            *body = body.take().filter(|body| !body.is_empty());
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        _downstream: &mut Downstream,
        head: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        exchange.admission.iter().for_each(Admission::prefetch);
        if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
            exchange.note(Outcome::Status(head.status.as_u16()));
        }
        // The connection is a pipe once the request is whole, not before.
        let asked = exchange.upgrade().filter(|_| exchange.request_complete);
        response::check(head, asked, &exchange.snapshot.config.limits.upstream)
    }

    fn upstream_response_body_filter(
        &self,
        _downstream: &mut Downstream,
        _body: &mut Option<Bytes>,
        end: bool,
        exchange: &mut Exchange,
    ) -> Result<Option<Duration>> {
        // Also where the connection was cut at the bound: the end of what has no length must not look like its own.
        if exchange.bound.has_passed() {
            return overdue();
        }
        exchange.bound.note_activity();
        if end {
            // What is complete goes back into the pool: nobody may cut it there.
            exchange.bound.hold(None);
        }
        Ok(None)
    }

    fn upstream_response_trailer_filter(
        &self,
        _downstream: &mut Downstream,
        trailers: &mut http::HeaderMap,
        exchange: &mut Exchange,
    ) -> Result<()> {
        if exchange.bound.has_passed() {
            return overdue();
        }
        response::clean_trailers(trailers)
    }

    async fn response_filter(
        &self,
        downstream: &mut Downstream,
        head: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        exchange.admission.iter().for_each(Admission::prefetch_token);
        if downstream.is_process_shutting_down() {
            downstream.set_keepalive(None);
        }
        if downstream.req_header().version == http::Version::HTTP_10 {
            // It knows no chunks: the end of the connection is the end of the answer (RFC 9112 §7).
            head.remove_header(&TRANSFER_ENCODING);
        }
        if exchange.request_complete && is_bodiless(&downstream.req_header().method, head) {
            // Complete with its head, and so the connection goes back into the pool.
            exchange.bound.hold(None);
        }
        exchange.prepare_response(head)?;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            // Silence is no request that stalls: only the route's `idle_timeout` ends it (01 §2.6).
            downstream.set_read_timeout(None);
            exchange.became_long_lived();
        } else if !head.status.is_informational() {
            exchange.give_tunnel_place_back();
        }
        Ok(())
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        downstream: &mut Downstream,
        mut error: Box<Error>,
        exchange: &mut Exchange,
        reused: bool,
    ) -> Box<Error> {
        // The upstream may have acted on it; only a safe method without a body may be sent again, and only where a pooled
        // connection turned out to be dead.
        let harmless = downstream.req_header().method.is_safe() && downstream.is_body_empty();
        // Nor is one that is silent dead, and there would be no time left.
        let settled = [OVERFLOW, ErrorType::ReadTimedout, ErrorType::WriteTimedout].contains(&error.etype);
        if harmless && !exchange.bound.has_passed() && !settled {
            error.retry.decide_reuse(reused);
        } else {
            error.set_retry(false);
        }
        if error.retry() {
            error.set_retry(exchange.may_go_again());
        } else if let Some(outcome) = exchange.blamed(&error, has_begun(downstream)) {
            exchange.note(outcome);
        }
        error
    }

    async fn fail_to_proxy(&self, downstream: &mut Downstream, error: &Error, exchange: &mut Exchange) -> FailToProxy {
        let status = fail(downstream, error, exchange).await;
        FailToProxy { error_code: status, can_reuse_downstream: false }
    }

    async fn logging(&self, downstream: &mut Downstream, error: Option<&Error>, exchange: &mut Exchange) {
        exchange.bound.hold(None);
        exchange.way.end();
        if let Some(reason) = exchange.bound.reason() {
            exchange.end = End::Cut(reason);
        }
        record::record(downstream, error, exchange, &self.metrics);
        exchange.recorded = true;
        // What the client still sends is read off without a place.
        exchange.give_place_back();
        if let Some(connection) = &exchange.connection {
            connection.end_exchange();
        }
    }

    /// All of them: Pingora's lines would hold what [`record`] leaves out.
    fn suppress_error_log(&self, _downstream: &Downstream, _exchange: &Exchange, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _downstream: &Downstream,
        _exchange: &Exchange,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

/// To be set for every request: what the client says in its head would undo it.
fn set_patience(downstream: &mut Downstream, exchange: &Exchange) {
    let EdgeLimits { patience, requests_per_connection, .. } = exchange.snapshot.config.limits;
    // How long the next request may take to come is the connection's own clock's to say; a second one for each request
    // would only cost. The others come first only in case that it does not.
    // A client of HTTP/1.0 waits for the end of the connection, which is all it can count on; and what follows a CONNECT was
    // meant for a tunnel, never for us (S-008).
    let head = downstream.req_header();
    let last = head.version == http::Version::HTTP_10 || head.method == http::Method::CONNECT;
    let last = last || downstream.is_process_shutting_down();
    let requests = exchange.connection.as_ref().map_or(0, |connection| connection.requests());
    let last = last || requests >= requests_per_connection;
    downstream.set_keepalive(if last { None } else { Some(WITHOUT_END) });
    downstream.set_read_timeout(Some(patience.body_idle * 2));
    // What its socket takes is the connection's own clock's to say too: only a stream of many stands still beside others. In
    // HTTP/1 this would be a time for a whole piece, and so a rate.
    let stall = downstream.is_http2().then_some(patience.write_stall);
    downstream.set_write_timeout(stall);
    downstream.set_total_drain_timeout(Some(patience.linger));
    // Only who waits for 100 is told before the answer, in HTTP/1 as in HTTP/2.
    downstream.set_ignore_info_resp(true);
}

impl Proxy {
    /// Asks the gate, unless there is too much to do already.
    async fn admit(&self, downstream: &Downstream, exchange: &mut Exchange) -> Result<(), Refusal> {
        let snapshot = Arc::clone(&exchange.snapshot);
        let limits = &snapshot.config.limits;
        if !exchange.take_place(&self.in_flight, limits.requests_in_flight) {
            return Err(Refusal::Failed(Failure::Overloaded));
        }
        let Some(connection) = exchange.connection.clone() else { return Err(Refusal::Failed(Failure::Internal)) };
        let at = exchange.at();
        let admitting = pin!(async {
            #[cfg(test)]
            crate::faults::strike(downstream.req_header());
            self.gate.admit(&snapshot, downstream.req_header(), &connection, at).await
        });
        exchange.admission = Some(caught(admitting).await.map_err(|Panicked| exchange.panicked())?);
        if exchange.may_be_long_lived() && !exchange.take_tunnel_place(&self.tunnels, limits.tunnels()) {
            return Err(Refusal::Failed(Failure::Overloaded));
        }
        let declared = downstream.req_header().headers.get(CONTENT_LENGTH);
        let declared = declared.and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(0);
        let is_carried = exchange.permit().is_some();
        if is_carried && exchange.is_too_much(declared) {
            return Err(Refusal::BadRequest(BadRequest::BodyTooLarge));
        }
        Ok(())
    }

    /// A peer for what was permitted; without a permit there is none.
    pub(crate) async fn choose(&self, exchange: &mut Exchange, older: Older) -> Result<Box<HttpPeer>> {
        // What an attempt before has taken.
        let mut way = std::mem::take(&mut exchange.way);
        let Some(permit) = exchange.permit() else { return Error::e_explain(ErrorType::InternalError, "no permit") };
        if permit.is_to_authn() {
            let peer = self.upstreams.authn_peer(&exchange.snapshot, &mut way).await;
            exchange.way = way;
            return peer.map_err(|error| Error::because(NO_ENDPOINT, "authn", error));
        }
        let Some((route, upstream)) = permit.upstream() else {
            return Error::e_explain(NO_ENDPOINT, "the route has no endpoint");
        };
        if let Some(token) = permit.identity_token() {
            token.tried().await;
        }
        let wants = Wants { upgrade: exchange.upgrade().is_some(), older, key: exchange.key(route) };
        let found = self.upstreams.peer((route, upstream), &exchange.snapshot, wants, &mut way).await;
        let found = found.map(|(peer, endpoint)| (peer, Arc::clone(&endpoint.authority)));
        exchange.way = way;
        match found {
            Ok((peer, authority)) => {
                exchange.authority = Some(authority);
                Ok(peer)
            }
            Err(NoWay::Overflow(overflow)) => self.overflowed(exchange, overflow),
            Err(error @ NoWay::Member(NoMember::Unhealthy)) => Err(Error::because(NO_HEALTHY, "upstream", error)),
            Err(error) => Err(Error::because(NO_ENDPOINT, "upstream", error)),
        }
    }

    /// Has it looked after, if it may last: once it has lasted for one look, as few do.
    fn look_after(&self, downstream: &Downstream, exchange: &Exchange) -> Result<()> {
        if exchange.may_last(self.vigilance.admit) {
            let vigil = Vigil::over(exchange, downstream.req_header(), self)
                .ok_or_else(|| Error::explain(ErrorType::InternalError, "nothing to look after"))?;
            exchange.bound.look_after(exchange.began + self.vigilance.look, vigil);
        }
        Ok(())
    }

    /// The upstream has too much to do already.
    fn overflowed<T>(&self, exchange: &Exchange, overflow: Overflow) -> Result<T> {
        let route = exchange.route().map_or("", |route| &route.name);
        self.metrics.0.upstream_overflows.with_label_values(&[route, overflow.as_str()]).inc();
        Error::e_explain(OVERFLOW, "circuit breaker")
    }
}

/// Whether its client may take for granted that it gets a tunnel (RFC 9298 §5).
fn may_be_followed_by_capsules(head: &RequestHeader) -> bool {
    head.headers.contains_key(UPGRADE) && has_token(head, UPGRADE, CONNECT_UDP.as_bytes())
}

/// Whether the request needs what HTTP/2 upstreams do not get from Pingora: an answer to `Expect`, and one without chunks for
/// who speaks HTTP/1.0.
fn is_older(head: &RequestHeader) -> bool {
    head.version == http::Version::HTTP_10 || head.headers.contains_key(EXPECT)
}

/// Whether an upstream has no version of HTTP in common with what was offered to it (RFC 7301 §3.2).
fn is_for_newer_alone(error: &Error) -> bool {
    let mut causes = std::iter::successors(cause(error), |error| match error.downcast_ref::<Box<Error>>() {
        Some(error) => cause(error),
        None => error.source(),
    });
    // An `io::Error` gives what it was made of in this way alone.
    let tls = causes.find_map(|cause| cause.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref());
    matches!(tls, Some(rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol)))
}

/// Pingora's errors tell theirs to nobody who asks as usual.
fn cause(error: &Error) -> Option<&(dyn std::error::Error + 'static)> {
    error.cause.as_deref().map(|cause| cause as _)
}

/// The connection that our listener put there.
fn connection(downstream: &Downstream) -> Option<Arc<Connection>> {
    let digest = downstream.digest()?.proxy_digest.as_ref()?;
    digest.user_data.as_ref()?.downcast_ref::<Arc<Connection>>().map(Arc::clone)
}

/// A length of zero on an HTTP/2 stream that goes on is no promise yet that nothing comes: with it, the upstream would take
/// the message for complete before we know (S-015).
fn distrust_zero(downstream: &mut Downstream) {
    let length = downstream.req_header().headers.get(CONTENT_LENGTH);
    let Some(zero) = length.filter(|length| length.as_bytes().iter().all(|digit| *digit == b'0')).cloned() else {
        return;
    };
    if downstream.is_http2() {
        downstream.req_header_mut().remove_header(&CONTENT_LENGTH);
        if downstream.is_body_empty() {
            let _it_was_there_before = downstream.req_header_mut().insert_header(CONTENT_LENGTH, zero);
        }
    }
}

/// Whether an answer to `method` ends with its head (RFC 9112 §6.3).
fn is_bodiless(method: &http::Method, head: &ResponseHeader) -> bool {
    let empty = || head.headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes().trim_ascii() == b"0");
    let status = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    !head.status.is_informational() && (status || *method == http::Method::HEAD || empty())
}

/// Whether the client has the head of the answer; an interim one is none yet.
pub(crate) fn has_begun(downstream: &Downstream) -> bool {
    let begun = |status: StatusCode| !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS;
    downstream.response_written().is_some_and(|head| begun(head.status))
}

pub(crate) fn overdue<T>() -> Result<T> {
    Error::e_explain(ErrorType::ReadTimedout, "the time of the exchange is over")
}

/// What `work` gives, unless the client leaves first: then it is given up, with all that it holds.
pub(crate) async fn unless_left<T>(
    downstream: &mut Downstream,
    work: Pin<&mut impl Future<Output = Result<T>>>,
) -> Result<T> {
    tokio::select! {
        biased;
        done = work => done,
        error = downstream.left() => Err(error.into_down()),
    }
}

async fn send(downstream: &mut Downstream, answer: Answer) -> Result<()> {
    let silent = downstream.req_header().method == http::Method::HEAD || answer.body.is_empty();
    downstream.write_response_header(Box::new(answer.head), silent).await?;
    // A stream of HTTP/2 that nobody ends is reset, and a client may then discard the head.
    if !silent || downstream.is_http2() {
        downstream.write_response_body((!silent).then_some(answer.body), true).await?;
    }
    Ok(())
}

/// Ends an exchange that failed: in words if the client has heard nothing yet. Gives the status, 0 for none.
async fn fail(downstream: &mut Downstream, error: &Error, exchange: &mut Exchange) -> u16 {
    let Some(refusal) = exchange.cause(error) else {
        exchange.end = End::ClientGone;
        return 0;
    };
    if has_begun(downstream) {
        exchange.end = End::Cut(refusal.reason());
        return 0;
    }
    downstream.set_keepalive(None);
    // The upstream need not wait for what the client does with the answer.
    exchange.bound.cut();
    exchange.bound.hold(None);
    exchange.way.end();
    let answer = exchange.refuse(&refusal, downstream.req_header());
    if send(downstream, answer).await.is_err() {
        return 0;
    }
    if !downstream.is_http2() {
        // Closes in an orderly way, so that the answer arrives although the client may still be sending.
        downstream.as_downstream_mut().shutdown().await;
    }
    refusal.status().as_u16()
}

impl Exchange {
    /// The answer of ours; `None` if the request is to be carried.
    fn verdict(&mut self, head: &RequestHeader) -> Option<Answer> {
        let verdict = &self.admission.as_ref()?.verdict;
        self.end = verdict.end();
        verdict.answer(&self.asked(head))
    }

    fn refuse(&mut self, refusal: &Refusal, head: &RequestHeader) -> Answer {
        self.end = End::Refused(refusal.reason());
        refusal.answer(&self.asked(head))
    }

    /// Why an exchange failed; `None` if the client left, so that nobody is there to be told.
    fn cause(&self, error: &Error) -> Option<Refusal> {
        if let Some(violation) = self.violation() {
            return Some(violation);
        }
        if self.bound.has_passed() {
            return Some(self.bound.refusal().cloned().unwrap_or_else(|| self.overdue()));
        }
        if *error.etype() == BODY_TOO_LARGE {
            return Some(Refusal::BadRequest(BadRequest::BodyTooLarge));
        }
        let failure = match (error.esource(), error.etype()) {
            (_, etype) if *etype == NO_ENDPOINT => Failure::NoEndpoint,
            (_, etype) if *etype == NO_HEALTHY => Failure::NoHealthyEndpoint,
            (_, etype) if *etype == OVERFLOW => Failure::UpstreamOverflow,
            (ErrorSource::Downstream, ErrorType::ReadTimedout) => Failure::BodyTimeout,
            (ErrorSource::Downstream, _) => return None,
            // Authn is a part of us: that it cannot be asked is a 503, whatever the reason.
            (ErrorSource::Upstream, _) if self.is_for_authn() => Failure::NoEndpoint,
            (ErrorSource::Upstream, etype) => self.upstream_failure(etype),
            (ErrorSource::Internal | ErrorSource::Unset, etype) => internal_failure(etype),
        };
        Some(Refusal::Failed(failure))
    }

    /// Whether its upstream is one that may choose the version.
    fn negotiates(&self) -> bool {
        let cluster = self.route().and_then(|route| self.snapshot.clusters.of(route));
        cluster.is_some_and(|cluster| cluster.http == Http::Negotiated)
    }

    /// Its upstream is offered HTTP/2 from now on, whatever is asked of it; gives whether that may be.
    fn speak_newer(&mut self) -> bool {
        let cluster = self.route().and_then(|route| self.snapshot.clusters.of(route));
        let Some(cluster) = cluster.filter(|cluster| cluster.http == Http::Negotiated) else { return false };
        cluster.newer.store(true, Ordering::Relaxed);
        self.way.forget_place();
        true
    }

    /// There is no connection: notes what that says of the endpoint, and gives whether another may be asked, since nothing was
    /// sent. Once, and not if the first took all the time there is.
    pub(crate) fn not_connected(&mut self, error: &Error) -> bool {
        let late = error.etype == ErrorType::ConnectTimedout;
        // Neither what we lack ourselves nor that we left it no time is the endpoint's.
        let own = [ErrorType::BindError, ErrorType::SocketError].contains(&error.etype);
        if !own && !self.bound.has_passed() {
            self.note(if late { Outcome::Late } else { Outcome::Unreachable });
        }
        self.attempts == 1 && !self.bound.has_passed() && !late && self.may_go_again()
    }

    /// What an error says of the endpoint, which has `answered` or not; `None`: nothing. How long an answer takes from its head on
    /// is as much the client's.
    pub(crate) fn blamed(&self, error: &Error, answered: bool) -> Option<Outcome> {
        if self.violation().is_some() || self.is_for_authn() {
            return None;
        }
        if self.bound.has_passed() {
            // Who has not got the whole request yet owes no answer.
            return (self.request_complete && !answered && self.bound.reason().is_none()).then_some(Outcome::Late);
        }
        match (error.esource(), self.upstream_failure(error.etype())) {
            (ErrorSource::Upstream, Failure::ConnectTimeout | Failure::UpstreamTimeout) => {
                (!answered).then_some(Outcome::Late)
            }
            (ErrorSource::Upstream, Failure::BodyTimeout) => None,
            (ErrorSource::Upstream, _) => Some(Outcome::Broken),
            (ErrorSource::Downstream | ErrorSource::Internal | ErrorSource::Unset, _) => None,
        }
    }

    /// Whether the request may be sent once more, and counts what was decided.
    fn may_go_again(&mut self) -> bool {
        let may = self.way.may_go_again();
        self.count_retry(if may { "tried" } else { "refused" });
        may
    }

    fn upstream_failure(&self, etype: &ErrorType) -> Failure {
        let late = [ErrorType::ReadTimedout, ErrorType::WriteTimedout].contains(etype);
        if *etype == ErrorType::ConnectTimedout {
            Failure::ConnectTimeout
        } else if late && self.request_complete {
            Failure::UpstreamTimeout
        } else if late {
            // The upstream waits for the rest of the request, as we do.
            Failure::BodyTimeout
        } else if UNREACHABLE.contains(etype) {
            Failure::Connect
        } else {
            Failure::UpstreamProtocol
        }
    }
}

/// Errors of our own filters carry no source.
fn internal_failure(etype: &ErrorType) -> Failure {
    if *etype == ErrorType::ReadTimedout { Failure::UpstreamTimeout } else { Failure::Internal }
}

pub(crate) struct Panicked;

/// The output of `future`, or that it panicked: one request's bug is that request's end only (S-115).
pub(crate) async fn caught<F: Future>(mut future: Pin<&mut F>) -> Result<F::Output, Panicked> {
    std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(_) => Poll::Ready(Err(Panicked)),
    })
    .await
}

/// Pingora's proxy, with a bound around each exchange that no phase can overrun.
pub(crate) struct App {
    proxy: Arc<HttpProxy<Proxy>>,
    gate: Arc<Gate>,
}

impl App {
    pub(crate) fn new(proxy: HttpProxy<Proxy>, gate: Arc<Gate>) -> Self {
        Self { proxy: Arc::new(proxy), gate }
    }
}

#[async_trait]
impl HttpServerApp for App {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        Bound::keep(self.proxy.process_new_http(session, shutdown)).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(self.gate.snapshot().config.limits.http2.options())
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        self.proxy.server_options()
    }

    async fn http_cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}

/// The route leads nowhere at the moment.
const NO_ENDPOINT: ErrorType = ErrorType::Custom("NoEndpoint");
/// It leads to nobody who is healthy.
const NO_HEALTHY: ErrorType = ErrorType::Custom("NoHealthyEndpoint");
/// The client sends more than it may.
const BODY_TOO_LARGE: ErrorType = ErrorType::Custom("BodyTooLarge");
/// Its upstream has too much to do.
const OVERFLOW: ErrorType = ErrorType::Custom("Overflow");
/// What can go wrong before a request is sent.
const UNREACHABLE: [ErrorType; 9] = [
    ErrorType::ConnectRefused,
    ErrorType::ConnectNoRoute,
    ErrorType::ConnectError,
    ErrorType::SocketError,
    ErrorType::BindError,
    ErrorType::TLSHandshakeFailure,
    ErrorType::TLSHandshakeTimedout,
    ErrorType::InvalidCert,
    ErrorType::HandshakeError,
];
/// As Pingora writes it.
const WITHOUT_END: u64 = 0;

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _};
    use std::os::unix::net::UnixStream;

    use tokio::io::{AsyncWriteExt as _, DuplexStream};
    use tokio::time::Instant;

    use super::*;
    use crate::listener::{GuardedStream, Limits, Patience, Wire};
    use crate::route::{Route, Upgrades};
    use crate::testing::{World, config, connection, route};

    /// A proxy, and one exchange of it that was admitted and has this request behind it.
    async fn admitted(request: &str) -> (Proxy, Downstream, Exchange) {
        let (proxy, downstream, exchange, _gone) = asked(request).await;
        (proxy, downstream, exchange)
    }

    /// The same, and its client.
    async fn asked(request: &str) -> (Proxy, Downstream, Exchange, DuplexStream) {
        let world_config = config(vec![Route { upgrades: Upgrades::websockets(), ..route("app.example.com", "/") }]);
        let world = World::new(world_config.clone()).await;
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let proxy = Proxy {
            upstreams: Arc::new(Upstreams::new(&world_config, tokio::runtime::Handle::current(), metrics.clone())),
            gate: Arc::new(world.gate),
            metrics,
            in_flight: Arc::default(),
            tunnels: Arc::default(),
            vigilance: Vigilance::default(),
            dialler: Dialler::new(),
            stop: watch::channel(false).1,
            end: watch::channel(false).1,
        };
        let (ours, mut client) = tokio::io::duplex(4096);
        client.write_all(request.as_bytes()).await.unwrap();
        let wire = Wire { fd: -1, alpn: None, tls: None };
        let stream = GuardedStream::new(ours, wire, Arc::new(connection()), Limits::DEFAULT, Patience::DEFAULT);
        let mut downstream = Downstream::new_h1(Box::new(stream));
        assert!(downstream.read_request().await.unwrap());
        let mut exchange = proxy.new_ctx();
        proxy.early_request_filter(&mut downstream, &mut exchange).await.unwrap();
        assert!(!proxy.request_filter(&mut downstream, &mut exchange).await.unwrap());
        (proxy, downstream, exchange, client)
    }

    const GET: &str = "GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n";

    #[tokio::test]
    async fn a_request_whose_time_ran_out_while_its_upstream_was_dialled_is_not_sent() {
        let (proxy, mut downstream, mut exchange) = admitted(GET).await;
        let peer = HttpPeer::new("127.0.0.1:1", false, String::new());
        let connected = proxy.connected_to_upstream(&mut downstream, false, &peer, -1, None, &mut exchange).await;
        connected.unwrap();
        exchange.bound.set(Some(Instant::now()));
        let late = proxy.connected_to_upstream(&mut downstream, false, &peer, -1, None, &mut exchange).await;
        assert_eq!(late.as_ref().unwrap_err().etype, ErrorType::ReadTimedout);
        assert_eq!(exchange.cause(&late.unwrap_err()), Some(Refusal::Failed(Failure::UpstreamTimeout)));
    }

    /// Whether an exchange still has its hand on the upstream connection after the head of an answer.
    async fn holds_after(method: &str, status: u16, length: Option<&str>) -> bool {
        let (proxy, mut downstream, mut exchange) = admitted(&GET.replacen("GET", method, 1)).await;
        let (near, mut far) = UnixStream::pair().unwrap();
        exchange.bound.hold(Some(Line::over(near.try_clone().unwrap().into())));
        let mut head = ResponseHeader::build(status, None).unwrap();
        if let Some(length) = length {
            head.insert_header(CONTENT_LENGTH, length).unwrap();
        }
        proxy.response_filter(&mut downstream, &mut head, &mut exchange).await.unwrap();
        exchange.bound.cut();
        far.set_nonblocking(true).unwrap();
        match far.read(&mut [0]) {
            Ok(0) => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_connection_that_goes_back_into_the_pool_with_the_head_of_an_answer_is_let_go_of() {
        for (method, status, length) in
            [("HEAD", 200, Some("5")), ("GET", 204, None), ("GET", 304, Some("5")), ("GET", 200, Some("0"))]
        {
            assert!(!holds_after(method, status, length).await, "{method} {status}");
        }
        for (method, status, length) in [("GET", 200, Some("5")), ("GET", 200, None), ("HEAD", 103, None)] {
            assert!(holds_after(method, status, length).await, "{method} {status}");
        }
    }

    #[tokio::test]
    async fn r_015_an_upstream_that_says_to_go_on_and_then_nothing_has_not_answered() {
        let (_proxy, mut downstream, exchange, _client) = asked(GET).await;
        downstream.set_ignore_info_resp(false);
        for (status, blamed) in [(100, Some(Outcome::Late)), (200, None)] {
            let head = ResponseHeader::build(status, None).unwrap();
            downstream.write_response_header(Box::new(head), false).await.unwrap();
            let silent = Error::explain(ErrorType::ReadTimedout, "").into_up();
            assert_eq!(exchange.blamed(&silent, has_begun(&downstream)), blamed, "{status}");
        }
    }

    #[tokio::test]
    async fn silence_on_a_websocket_is_no_request_that_stalls() {
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let (proxy, mut downstream, mut exchange) =
            admitted(&GET.replacen("\r\n\r\n", &format!("\r\n{upgrade}"), 1)).await;
        assert!(downstream.as_downstream().get_read_timeout().is_some());
        let mut head = ResponseHeader::build(101, None).unwrap();
        proxy.response_filter(&mut downstream, &mut head, &mut exchange).await.unwrap();
        assert_eq!(downstream.as_downstream().get_read_timeout(), None);
    }

    #[tokio::test]
    async fn what_most_exchanges_need_is_made_small_and_the_rest_apart() {
        let (proxy, _downstream, _exchange) = admitted(GET).await;
        let proxy = Arc::new(pingora_proxy::http_proxy(&Arc::default(), proxy));
        let session = ServerSession::new_http1(Box::new(tokio::io::duplex(1).0));
        let stop = watch::channel(false).1;
        let exchange = size_of_val(proxy.process_new_http(session, &stop).as_ref().get_ref());
        assert!(exchange < 4_000, "{exchange} bytes, copied for each");
    }

    #[tokio::test]
    async fn s_115_a_panic_in_a_step_is_that_steps_end_only() {
        assert!(matches!(caught(pin!(async { 1 })).await, Ok(1)));
        let bug = async {
            tokio::task::yield_now().await;
            panic!("a bug");
        };
        assert!(caught(pin!(bug)).await.is_err());
    }
}
