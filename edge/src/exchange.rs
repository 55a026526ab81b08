//! One request and its response, from the head received to the record written.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, StatusCode};
use pingora_error::{Error, ErrorType};
use pingora_http::{RequestHeader, ResponseHeader};
use postern_identity::{RandomError, Timestamp, uuid};
use postern_storage::Moment;
use tokio::time::Instant;

use crate::admit::{Admission, Admitted, Permit};
use crate::bound::{Bound, CUT};
use crate::identify::Subject;
use crate::listener::{Connection, Place, Tunnel};
use crate::metrics::{Metrics, Raised};
use crate::prepare;
use crate::refusal::{Asked, Failure, Refusal};
use crate::request::Upgrade;
use crate::route::Route;
use crate::snapshot::Snapshot;
use crate::upstream::{Outcome, Way, key_of};

/// What is known of an exchange while it runs.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) began: Instant,
    pub(crate) now: Timestamp,
    /// Our name for the request; empty until its head was read.
    pub(crate) id: RequestId,
    pub(crate) connection: Option<Arc<Connection>>,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) admission: Option<Admission>,
    pub(crate) attempts: usize,
    /// That of the chosen endpoint, as the configuration writes it.
    pub(crate) authority: Option<Arc<str>>,
    pub(crate) upstream: Option<SocketAddr>,
    /// What it holds of its upstream.
    pub(crate) way: Way,
    pub(crate) forwarded_for: Option<HeaderValue>,
    pub(crate) request_complete: bool,
    /// Bytes of its body so far.
    received: u64,
    pub(crate) end: End,
    pub(crate) bound: Arc<Bound>,
    /// Its connection became something else: what comes is no body any more.
    pub(crate) long_lived: bool,
    /// The bytes that a tunnel carried, up and down.
    pub(crate) carried: Option<(u64, u64)>,
    /// Its end was written down.
    pub(crate) recorded: bool,
    metrics: Metrics,
    places: Option<(Place<Arc<AtomicUsize>>, Raised)>,
    tunnel_place: Option<Place<Arc<AtomicUsize>>>,
}

/// A version 4 UUID, as logs and fields have it; empty before there is one.
#[derive(Debug)]
pub(crate) struct RequestId(HeaderValue);

impl Default for RequestId {
    fn default() -> Self {
        Self(HeaderValue::from_static(""))
    }
}

impl RequestId {
    fn draw() -> Result<Self, RandomError> {
        // Nothing in it is unfit for a field.
        HeaderValue::try_from(uuid()?).map(Self).map_err(|_| RandomError)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    pub(crate) const fn value(&self) -> &HeaderValue {
        &self.0
    }
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The upstream's answer was carried.
    Upstream,
    /// An answer of ours that is no refusal.
    Answered,
    /// Refused, for this reason.
    Refused(&'static str),
    /// The client left first.
    ClientGone,
    /// The answer broke off half-way, for this reason.
    Cut(&'static str),
}

impl End {
    /// The stable text for `response-code-details`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Upstream => "via-upstream",
            Self::Answered => "direct-response",
            Self::ClientGone => "client-gone",
            Self::Refused(reason) | Self::Cut(reason) => reason,
        }
    }
}

impl Exchange {
    /// One whose head was just read.
    pub(crate) fn new(snapshot: Arc<Snapshot>, metrics: Metrics) -> Self {
        Self {
            began: Instant::now(),
            now: SystemTime::now().into(),
            id: RequestId::default(),
            connection: None,
            snapshot,
            admission: None,
            attempts: 0,
            authority: None,
            upstream: None,
            way: Way::default(),
            forwarded_for: None,
            request_complete: false,
            received: 0,
            end: End::Upstream,
            bound: Bound::current(),
            long_lived: false,
            carried: None,
            recorded: false,
            metrics,
            places: None,
            tunnel_place: None,
        }
    }

    /// From now on the exchange has a name and a connection.
    pub(crate) fn begin(&mut self, connection: Option<Arc<Connection>>) -> Result<(), RandomError> {
        self.connection = connection;
        let timeouts = self.snapshot.config.timeouts;
        self.bound.set(self.until(timeouts.read.into_iter().chain(timeouts.write).min()));
        self.id = RequestId::draw()?;
        Ok(())
    }

    /// When its head was read.
    pub(crate) fn at(&self) -> Moment {
        Moment { now: self.now, steady: self.began.into_std() }
    }

    /// Takes a place among the requests in flight; `false` if there is none left.
    pub(crate) fn take_place(&mut self, count: &Arc<AtomicUsize>, most: usize) -> bool {
        let place = Place::take(Arc::clone(count), most);
        self.places = place.map(|place| (place, Raised::new(&self.metrics.0.in_flight)));
        self.places.is_some()
    }

    /// It is over.
    pub(crate) fn give_place_back(&mut self) {
        self.places = None;
    }

    /// What an answer of ours may speak of.
    pub(crate) fn asked<'a>(&'a self, head: &'a RequestHeader) -> Asked<'a> {
        match &self.admission {
            Some(admission) => admission.asked(&self.snapshot, head, self.id.as_str(), self.now),
            None => Asked {
                snapshot: &self.snapshot,
                head,
                request: None,
                route: None,
                subject: &Subject::Anonymous,
                devices: &[],
                certificate: postern_policy::ClientCertificate::NONE,
                programmatic: false,
                request_id: self.id.as_str(),
                now: self.now,
            },
        }
    }

    /// The proof that this exchange may be carried.
    pub(crate) fn permit(&self) -> Option<&Permit> {
        self.admitted().map(Admitted::permit)
    }

    /// The request that may be carried, with its permit.
    pub(crate) fn admitted(&self) -> Option<Admitted<'_>> {
        self.admission.as_ref()?.admitted()
    }

    pub(crate) fn route(&self) -> Option<&Route> {
        self.admission.as_ref()?.route.as_deref()
    }

    pub(crate) fn is_for_authn(&self) -> bool {
        self.permit().is_some_and(Permit::is_to_authn)
    }

    /// What its connection may become.
    pub(crate) fn upgrade(&self) -> Option<&Upgrade> {
        self.permit()?.upgrade()
    }

    /// It is for a tunnel of its route.
    pub(crate) fn is_tunnel(&self) -> bool {
        self.permit().is_some_and(Permit::is_tunnel)
    }

    /// It asks for an upgrade or a tunnel. Whether it becomes one is for the upstream to say.
    pub(crate) fn may_be_long_lived(&self) -> bool {
        self.permit().is_some_and(|permit| permit.upgrade().is_some() || permit.is_tunnel())
    }

    /// Whether it may last for longer than that: because it may become a connection, or because nothing ends it before.
    pub(crate) fn may_last(&self, span: Duration) -> bool {
        let Some(route) = self.route() else { return false };
        let timeouts = self.snapshot.config.timeouts;
        let sending = if self.request_complete { Some(Duration::ZERO) } else { timeouts.read };
        let most = sending.zip(route.timeout).map(|(sending, answering)| sending + answering);
        self.may_be_long_lived() || most.into_iter().chain(timeouts.write).min().is_none_or(|most| most > span)
    }

    /// It has become a connection: the route's time is for answers, and no longer counts (01 §2.6).
    pub(crate) fn became_long_lived(&mut self) {
        self.long_lived = true;
        self.bound.lasts();
        self.bound.set(self.until(self.snapshot.config.timeouts.write));
    }

    /// Takes a place among the connections that last, which are fewer than the requests in flight, so that those still pass
    /// when all of them are taken; `false` if there is none left.
    pub(crate) fn take_tunnel_place(&mut self, count: &Arc<AtomicUsize>, most: usize) -> bool {
        self.tunnel_place = Place::take(Arc::clone(count), most);
        self.tunnel_place.is_some()
    }

    /// It stays a request: the upstream has declined.
    pub(crate) fn give_tunnel_place_back(&mut self) {
        self.tunnel_place = None;
    }

    /// The hash of what the client is known by, where the same client gets to the same endpoint; else nothing is hashed.
    pub(crate) fn key(&self, route: &Route) -> u64 {
        let balancer = self.snapshot.clusters.of(route).and_then(|cluster| cluster.balancer.as_deref());
        let (Some(admission), true) = (&self.admission, balancer.is_some_and(|balancer| balancer.is_sticky())) else {
            return 0;
        };
        let session = admission.subject.session().map(|session| session.handle);
        let client = admission.request.as_ref().map(|request| request.client.address);
        client.map_or(0, |client| key_of(session.as_ref().map(|handle| handle.as_bytes().as_slice()), client))
    }

    /// What came of the request at its endpoint.
    pub(crate) fn note(&self, outcome: Outcome) {
        let Some((route, cause)) = self.way.note(outcome) else { return };
        let (cause, endpoint) = (cause.as_str(), self.upstream.map(|address| address.to_string()));
        self.metrics.0.upstream_ejections.with_label_values(&[route, cause]).inc();
        tracing::warn!(
            postern.route = route,
            upstream.address = endpoint,
            cause,
            "an endpoint is left out for a while"
        );
    }

    /// That of the chosen endpoint; of a socket empty.
    pub(crate) fn authority(&self) -> &str {
        self.authority.as_deref().unwrap_or_default()
    }

    /// The head that goes up. Without a permit nothing does.
    pub(crate) fn prepare_request(&mut self, head: &mut RequestHeader) -> pingora_error::Result<()> {
        let admitted = self.admitted().ok_or_else(no_permit)?;
        prepare::request(admitted, &self.snapshot, self.id.value(), (self.authority(), self.now), head);
        self.forwarded_for = head.headers.get(prepare::FORWARDED_FOR).cloned();
        Ok(())
    }

    /// The head that goes down. After a 101 the connection is not HTTP any more.
    pub(crate) fn prepare_response(&self, head: &mut ResponseHeader) -> pingora_error::Result<()> {
        if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
            prepare::interim(head);
            return Ok(());
        }
        prepare::response(self.permit().ok_or_else(no_permit)?, &self.snapshot, self.id.value(), head);
        if let (StatusCode::SWITCHING_PROTOCOLS, Some(connection)) = (head.status, &self.connection) {
            let websocket = self.upgrade().is_some_and(Upgrade::is_websocket);
            connection.begin_tunnel(if websocket { Tunnel::WebSocket } else { Tunnel::Upgraded });
        }
        Ok(())
    }

    /// The request is complete: the time to send it no longer counts, the route's time begins (01 §2.6).
    pub(crate) fn request_completed(&mut self) {
        if std::mem::replace(&mut self.request_complete, true) {
            return;
        }
        let route = self.route().and_then(|route| route.timeout);
        let route = route.map(|timeout| Instant::now() + timeout);
        let whole = self.until(self.snapshot.config.timeouts.write);
        self.bound.set(route.into_iter().chain(whole).min());
    }

    /// So many more bytes of its body have come; whether that is more than its route takes.
    pub(crate) fn received(&mut self, bytes: u64) -> bool {
        self.received = self.received.saturating_add(bytes);
        self.is_too_much(self.received)
    }

    /// Whether a body of so many bytes is more than its route takes. Authn has a limit of its own.
    pub(crate) fn is_too_much(&self, bytes: u64) -> bool {
        let Some(route) = self.route() else { return false };
        let most = route.max_request_body.or(self.snapshot.config.limits.request_body);
        most.is_some_and(|most| bytes > most.get())
    }

    fn until(&self, span: Option<Duration>) -> Option<Instant> {
        span.map(|span| self.began + span)
    }

    /// The client's connection broke a rule or lost its patience: that is the cause, whatever came of it.
    pub(crate) fn violation(&self) -> Option<Refusal> {
        let violation = self.connection.as_ref()?.violation()?;
        Some(Refusal::BadRequest(crate::BadRequest::Bytes(violation)))
    }

    /// Why an exchange failed whose time is over.
    pub(crate) const fn overdue(&self) -> Refusal {
        Refusal::Failed(if self.request_complete { Failure::UpstreamTimeout } else { Failure::BodyTimeout })
    }

    /// Counts a second attempt, or that there is none.
    pub(crate) fn count_retry(&self, outcome: &str) {
        self.metrics.0.upstream_retries.with_label_values(&[outcome]).inc();
    }

    /// Counts a panic that was caught.
    pub(crate) fn panicked(&self) -> Refusal {
        self.metrics.0.panics.inc();
        Refusal::Failed(Failure::Internal)
    }
}

fn no_permit() -> Box<Error> {
    Error::explain(ErrorType::InternalError, "no permit")
}

impl Drop for Exchange {
    /// What ends without its record was cut from outside: by a panic, by its bound, or with the drain.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.metrics.0.panics.inc();
        }
        if self.recorded || self.id.is_empty() {
            return;
        }
        let reason = self.bound.reason().unwrap_or(CUT);
        self.metrics.0.refusals.with_label_values(&[reason]).inc();
        let route = self.route().map(|route| route.name.as_str());
        tracing::warn!(request.id = self.id.as_str(), postern.route = route, reason, "exchange cut");
    }
}
