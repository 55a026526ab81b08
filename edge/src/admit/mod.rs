//! The whole gate in one screen. Every request is read, routed, identified and decided anew (S-032), and only what is decided
//! here gets a [`Permit`].

#[cfg(test)]
mod tests;

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};
use pingora_http::RequestHeader;
use postern_identity::{CompactSession, EDGE_TOKEN_HEADER, IdpId, Session, Timestamp, prefetch, prefetch_bytes};
use postern_policy::{ClientCertificate, Decision, Device, Evaluation, Reason, Reasons};
use postern_storage::{Moment, StorageError};
use tracing::warn;

use crate::answer::{Answer, Draft, NO_STORE};
use crate::assertion::{Assertion, Purpose};
use crate::credential::Credential;
use crate::exchange::End;
use crate::identify::{Given, Identify, Known, Near, Sessions, Subject};
use crate::mtls::Presented;
use crate::prepare::Impersonation;
use crate::refusal::{Asked, Failure};
use crate::request::{Upgrade, has_body, lenient_reading};
use crate::reserved::{self, Reserved};
use crate::route::{Carries, IdentityToken, Rewritten, Route, Target, Upstream};
use crate::{
    AuthnUpstream, BadRequest, ClientCert, Connection, Destination, GroupsFilter, Host, JwtIssuerFormat, Refusal,
    Request, Snapshot, prepare, programmatic,
};

/// Decides every request of an edge.
#[derive(Debug)]
pub struct Gate {
    snapshot: ArcSwap<Snapshot>,
    sessions: Sessions,
}

/// What was found out about a request, whether it passed or not.
#[derive(Debug)]
pub struct Admission {
    /// What is to happen.
    pub(crate) verdict: Verdict,
    /// The request, if it could be read.
    pub(crate) request: Option<Request>,
    /// The route, if one was found.
    pub route: Option<Arc<Route>>,
    /// Who asks, as far as was found out.
    pub subject: Subject,
    /// The store could not say whose the credential is.
    pub(crate) unknown: bool,
    /// The client certificate, as the route takes it.
    pub(crate) certificate: Presented,
    /// What the policy came to, if it was asked.
    pub evaluation: Option<Evaluation>,
    /// What rules that are only tried out came to, if they would have refused what passed.
    pub would_refuse: Option<Evaluation>,
    /// It shows a credential that only programs show.
    pub programmatic: bool,
}

/// What is to happen with a request.
#[derive(Debug)]
pub enum Verdict {
    /// It is carried.
    Pass(Permit),
    /// It is answered here, although nothing is wrong.
    Reply(Reply),
    /// It is not carried.
    Refuse(Refusal),
}

/// Proof that the request of its admission may be carried; only the gate makes one.
#[derive(Debug)]
pub struct Permit {
    pub(crate) passage: Passage,
    pub(crate) assertion: Option<Arc<Assertion>>,
    /// The Host that the route makes of this request.
    pub(crate) host: Option<HeaderValue>,
    pub(crate) client_cert: Option<Arc<ClientCert>>,
    /// What the connection becomes if the upstream agrees (S-009).
    pub(crate) upgrade: Option<Upgrade>,
    /// Whom the upstream takes the request for, where it is a Kubernetes API.
    pub(crate) impersonation: Option<Impersonation>,
}

/// A request and the permit that it got.
#[derive(Clone, Copy, Debug)]
pub struct Admitted<'a> {
    permit: &'a Permit,
    request: &'a Request,
}

impl<'a> Admitted<'a> {
    pub(crate) const fn permit(self) -> &'a Permit {
        self.permit
    }

    pub(crate) const fn request(self) -> &'a Request {
        self.request
    }
}

/// Where a permit leads.
#[derive(Debug)]
pub(crate) enum Passage {
    /// To the upstream of a route, with this in place of the canonical path.
    Route { route: Arc<Route>, rewritten: Option<Rewritten> },
    /// To authn; or `relayed`: another edge has prepared it for authn, which is here.
    Authn { relayed: bool },
}

/// An answer of ours to a request that was in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// We are here.
    Ping,
    /// Where everything is.
    WellKnown,
    /// The keys that verify assertions.
    KeySet,
    /// Who asks.
    User,
    /// Who asks, as the assertion that an upstream here would get.
    Jwt(Bytes),
    /// Where the user of a program signs in.
    Login(Bytes),
    /// Crawlers are not wanted.
    Robots,
    /// The same path, spelled right.
    Moved {
        /// 301 or 308.
        status: StatusCode,
        /// Where to.
        location: String,
    },
    /// The redirect of a route.
    Redirect {
        /// As configured.
        status: StatusCode,
        /// Where to.
        location: String,
    },
    /// The fixed answer of a route.
    Fixed {
        /// As configured.
        status: StatusCode,
        /// As configured.
        body: Bytes,
    },
}

impl Gate {
    /// A gate with its first configuration.
    #[must_use]
    pub fn new(snapshot: Snapshot, sessions: Sessions) -> Self {
        Self { snapshot: ArcSwap::from_pointee(snapshot), sessions }
    }

    /// The configuration in force. Take it once for each exchange.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Puts another configuration in force, for every request from now on.
    pub fn replace(&self, snapshot: Snapshot) {
        self.snapshot.swap(Arc::new(snapshot)).forget_cookies();
    }

    /// Decides a request that began `at`. What is allowed is use of its session.
    pub async fn admit(
        &self,
        snapshot: &Snapshot,
        head: &RequestHeader,
        connection: &Connection,
        at: Moment,
    ) -> Admission {
        let admission = self.judge(snapshot, head, connection, at).await;
        let allowed = admission.evaluation.is_some_and(|evaluation| evaluation.decision() == Decision::Allow);
        if let Some(known) = admission.subject.known().filter(|_| allowed) {
            self.touch(known, at.now);
        }
        admission
    }

    /// Whether a session is still good as far as this process knows.
    pub(crate) fn is_live(&self, known: &Known, now: Timestamp) -> bool {
        self.sessions.is_live(known, now)
    }

    /// Notes that a session is in use.
    pub(crate) fn touch(&self, known: &Known, now: Timestamp) {
        self.sessions.touch(known, now);
    }

    /// Decides a request, and leaves no trace of use.
    pub(crate) async fn judge(
        &self,
        snapshot: &Snapshot,
        head: &RequestHeader,
        connection: &Connection,
        Moment { now, steady }: Moment,
    ) -> Admission {
        let identify = &Near { sessions: &self.sessions, steady };
        Judge { snapshot, connection, now, identify, devices: &[] }.judge(head).await
    }
}

impl Snapshot {
    /// What the gate says to this head if `session`, with these devices, is whose it is, whatever credential it shows: nobody's, if there is
    /// none. Asks no store and leaves no trace of use.
    pub(crate) fn judge(
        &self,
        head: &RequestHeader,
        connection: &Connection,
        (session, devices): (Option<&Session>, &[Device<'_>]),
        now: Timestamp,
    ) -> Admission {
        let given = Given::of(session, now);
        let judge = Judge { snapshot: self, connection, now, identify: &given, devices };
        // Nothing but a store is waited for.
        match pin!(judge.judge(head)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(admission) => admission,
            Poll::Pending => Admission::unread(),
        }
    }
}

/// One request before the gate: everything that decides, but the head.
struct Judge<'a, I> {
    snapshot: &'a Snapshot,
    connection: &'a Connection,
    now: Timestamp,
    identify: &'a I,
    /// The device credentials of whoever asks.
    devices: &'a [Device<'a>],
}

impl<I: Identify> Judge<'_, I> {
    async fn judge(&self, head: &RequestHeader) -> Admission {
        let mut admission = Admission::unread();
        match Request::read(head, self.connection, &self.snapshot.rules) {
            Err(error) => admission.verdict = Verdict::Refuse(Refusal::BadRequest(error)),
            Ok(request) => {
                admission.verdict = match self.decide(head, &request, &mut admission).await {
                    Ok(verdict) if is_unmet(head, &verdict) => Verdict::Refuse(Refusal::Upgrade),
                    decided => decided.unwrap_or_else(Verdict::Refuse),
                };
                admission.request = Some(request);
            }
        }
        admission
    }

    async fn decide(
        &self,
        head: &RequestHeader,
        request: &Request,
        admission: &mut Admission,
    ) -> Result<Verdict, Refusal> {
        let snapshot = self.snapshot;
        if let Some(asked) = &request.tunnel {
            match self.tunnel(asked, request) {
                Some((route, to)) => return self.decide_tunnel(head, (request, to), route, admission).await,
                // What no route is for is no more than a method that is not served (S-018), or a path where nothing is.
                None if asked.carries == Carries::Connections => return Err(Refusal::BadRequest(BadRequest::Method)),
                None if head.method == Method::CONNECT => return Err(Refusal::NoRoute),
                // An upgrade like any other, of which another route may know.
                None => {}
            }
        }
        let sni = self.connection.sni.as_deref();
        let served = self.connection.serves(request.host.name()) && !snapshot.asks_otherwise(sni, &request.host);
        let misdirected = !request.host.is_unnamed() && !served;
        // An edge names the host of authn's process to it, whatever host its own client asks for.
        if misdirected && !self.is_relayed(head) {
            return Err(Refusal::Misdirected);
        }
        if self.connection.tls && !self.is_relayed(head) {
            self.still_welcome()?;
        }
        if request.redirect_to_canonical {
            return Ok(Verdict::Reply(Reply::Moved {
                status: StatusCode::PERMANENT_REDIRECT,
                location: request.url(),
            }));
        }
        let credential = Credential::present_in(&head.headers, request, request.host.name(), (snapshot, self.identify));
        self.identify.prefetch(&credential);
        admission.programmatic = credential.programmatic;
        if let Some(reserved) = Reserved::of(request, snapshot) {
            return self.reserved(reserved, head, (request, &credential), admission).await;
        }
        let (route, other_path) = find_route(snapshot, request)?;
        self.decide_route(head, (request, &credential), (route, other_path), admission).await
    }

    /// The route whose tunnel is asked for, the very host and port that it names; and those. What the host of the request is not for
    /// reaches none (S-105).
    fn tunnel<'r>(&self, asked: &'r Destination, request: &Request) -> Option<(&Arc<Route>, &'r Host)> {
        let to = asked.to.as_ref()?;
        let route = self.snapshot.table.tunnel(asked.carries, to)?;
        route.tunnel.as_deref().is_some_and(|tunnel| tunnel.is_asked_on(&request.host, to)).then_some((route, to))
    }

    /// A request for a tunnel, which its route is for; whoever asks shows who they are on the host that `from` names (S-105).
    async fn decide_tunnel(
        &self,
        head: &RequestHeader,
        (request, to): (&Request, &Host),
        route: &Arc<Route>,
        admission: &mut Admission,
    ) -> Result<Verdict, Refusal> {
        if self.connection.tls {
            self.still_welcome()?;
        }
        if has_body(head) {
            // What follows goes through the tunnel.
            return Err(Refusal::BadRequest(BadRequest::Framing));
        }
        let tunnel = route.tunnel.as_deref();
        let door = tunnel.map_or(to.name(), |tunnel| tunnel.door(to));
        let proxy = tunnel.and_then(|tunnel| tunnel.proxy.as_deref());
        let sni = self.connection.sni.as_deref();
        let served = proxy.is_none_or(|proxy| self.connection.serves(proxy));
        if !served || self.snapshot.asks_otherwise_behind(sni, (route, door)) {
            return Err(Refusal::Misdirected);
        }
        let credential = Credential::present_in(&head.headers, request, door, (self.snapshot, self.identify));
        admission.programmatic = credential.programmatic;
        self.decide_route(head, (request, &credential), (Arc::clone(route), None), admission).await
    }

    /// What the route says, once it is found: who asks, and whether they may.
    async fn decide_route(
        &self,
        head: &RequestHeader,
        (request, credential): (&Request, &Credential),
        (route, other_path): (Arc<Route>, Option<String>),
        admission: &mut Admission,
    ) -> Result<Verdict, Refusal> {
        admission.route = Some(Arc::clone(&route));
        let known = self.known(credential, Some(&route.idp), route.static_window).await;
        admission.subject = known.as_ref().ok().and_then(Option::clone).into();
        admission.unknown = known.is_err();
        let shown = self.connection.client_cert.as_ref();
        admission.certificate = Presented::to(shown, route.client_trust.as_deref(), self.now);
        let path = request.decoded_path();
        let evaluation = route.policy.evaluate(&self.facts(request, &path, admission));
        admission.evaluation = Some(evaluation);
        match (evaluation.decision(), &known) {
            (Decision::Allow, _) => {
                // Nor may a criterion on the path be met, or missed, by what a lenient upstream does not see.
                let decide = |path: &str| route.policy.decide(&self.facts(request, path, admission));
                if other_path.is_some_and(|path| decide(&path) != Decision::Allow) {
                    return Err(Refusal::AmbiguousPath);
                }
                admission.would_refuse = route.policy.would_refuse(&self.facts(request, &path, admission));
            }
            // Nobody who might be somebody is refused for good while that cannot be known.
            (_, Err(error)) => return Err(store_unavailable(error)),
            (decision, Ok(_)) => return Err(refusal_of(decision, &route.idp)),
        }
        self.carry(head, request, &route, known.ok().flatten().as_ref())
    }

    fn facts<'f>(&'f self, request: &'f Request, path: &'f str, found: &'f Admission) -> postern_policy::Facts<'f> {
        facts(request, path, (&found.subject, self.devices, found.certificate.facts()), self.now)
    }

    /// The session of a credential, if it is one of that identity provider, or a service account, for which none vouches.
    async fn known(
        &self,
        credential: &Credential,
        idp: Option<&IdpId>,
        window: Duration,
    ) -> Result<Option<Known>, StorageError> {
        let known = self.identify.session(credential, self.now, window).await?;
        let is_of =
            |session: &CompactSession, idp: &IdpId| session.idp() == idp.as_str() || session.is_service_account();
        Ok(known.filter(|entry| idp.is_none_or(|idp| is_of(&entry.session, idp))))
    }

    /// What an allowed request of a route comes to.
    fn carry(
        &self,
        head: &RequestHeader,
        request: &Request,
        route: &Arc<Route>,
        known: Option<&Known>,
    ) -> Result<Verdict, Refusal> {
        match &route.target {
            Target::Redirect(redirect) => {
                let location = redirect.location(route, request);
                return Ok(Verdict::Reply(Reply::Redirect { status: redirect.status, location }));
            }
            Target::Response { status, body } => {
                let body = Bytes::copy_from_slice(body.as_bytes());
                return Ok(Verdict::Reply(Reply::Fixed { status: *status, body }));
            }
            Target::Upstream(_) => {}
        }
        if route.tunnel.is_some() {
            return Ok(Verdict::Pass(Permit::to_tunnel(Arc::clone(route))));
        }
        let upgrade = route.upgrades.first_of(&request.upgrades).cloned();
        if upgrade.is_none() && !request.upgrades.is_empty() {
            return Err(Refusal::Upgrade);
        }
        let rewritten = route.upstream_path(&request.path, &self.snapshot.config.request)?;
        let assertion = if route.pass_identity_headers || route.uses_assertion() {
            Some(assertion(
                self.snapshot,
                request,
                (route.issuer_format, route.groups_filter.as_ref()),
                (known, self.now),
            )?)
        } else {
            None
        };
        let mut permit = Permit {
            passage: Passage::Route { route: Arc::clone(route), rewritten },
            assertion,
            host: None,
            client_cert: self.connection.client_cert.clone(),
            upgrade,
            impersonation: self.impersonation(route, known)?,
        };
        permit.host = prepare::host(Admitted { permit: &permit, request }, route, self.snapshot, head)?;
        Ok(Verdict::Pass(permit))
    }

    /// Whom the request speaks for at a Kubernetes API, if that is where the route leads.
    fn impersonation(&self, route: &Route, known: Option<&Known>) -> Result<Option<Impersonation>, Refusal> {
        let token = route.credentials.as_ref().and_then(|credentials| credentials.kubernetes.as_ref());
        let session = known.map(|known| &known.session);
        token.map(|token| prepare::impersonation(token, session, route.groups_filter.as_ref())).transpose()
    }

    /// With `reject_connection` the handshake has said that somebody vouches for the client. Lists, authorities and time may have
    /// gone on since.
    fn still_welcome(&self) -> Result<(), Refusal> {
        let mtls = &self.snapshot.config.downstream_mtls;
        let Some(everybody) = mtls.everybody.as_deref().filter(|_| mtls.reject) else { return Ok(()) };
        let reason = match &self.connection.client_cert {
            Some(shown) if shown.is_believed(everybody, self.now) => return Ok(()),
            Some(_) => Reason::InvalidClientCertificate,
            None => Reason::ClientCertificateRequired,
        };
        Err(Refusal::ClientCertificate(Reasons::of(reason)))
    }

    async fn reserved(
        &self,
        reserved: Reserved,
        head: &RequestHeader,
        (request, credential): (&Request, &Credential),
        admission: &mut Admission,
    ) -> Result<Verdict, Refusal> {
        let snapshot = self.snapshot;
        let reply = match reserved {
            Reserved::Ping => Reply::Ping,
            Reserved::WellKnown => Reply::WellKnown,
            Reserved::KeySet => Reply::KeySet,
            Reserved::Robots => Reply::Robots,
            Reserved::Moved(location) => Reply::Moved { status: StatusCode::MOVED_PERMANENTLY, location },
            Reserved::Method(allow) => return Err(Refusal::Method { allow }),
            Reserved::Nothing => return Err(Refusal::NoRoute),
            // What another edge hands on to authn: it has looked at the host.
            Reserved::Authn if self.is_relayed(head) => {
                if matches!(snapshot.config.authenticate.upstream, AuthnUpstream::Elsewhere(_)) {
                    warn!("an edge takes this one for authn: its `authenticate_internal_service_url` leads here");
                    return Err(Refusal::Failed(Failure::AuthnLoop));
                }
                return Ok(Verdict::Pass(Permit::to_authn(true)));
            }
            // What needs a session is only on hosts of ours: nobody is sent to sign in for another (03 §3.4).
            Reserved::Authn | Reserved::User | Reserved::Jwt | Reserved::Login
                if !snapshot.table.knows(&request.host) =>
            {
                return Err(Refusal::NoRoute);
            }
            Reserved::Authn => return Ok(Verdict::Pass(Permit::to_authn(false))),
            Reserved::Login => {
                Reply::Login(Bytes::from(String::from(programmatic::sign_in_url(snapshot, request, self.now)?)))
            }
            Reserved::User => {
                self.signed_in((request, credential), admission).await?;
                Reply::User
            }
            Reserved::Jwt => {
                let known = self.signed_in((request, credential), admission).await?;
                let identity = &snapshot.config.identity;
                let form = (identity.issuer_format, identity.groups_filter.as_ref());
                let assertion = assertion(snapshot, request, form, (Some(&known), self.now))?;
                Reply::Jwt(Bytes::copy_from_slice(assertion.token.as_bytes()))
            }
        };
        Ok(Verdict::Reply(reply))
    }

    /// Whether an edge of this deployment sends it, to whoever is authn: it proves so.
    fn is_relayed(&self, head: &RequestHeader) -> bool {
        let mut tokens = head.headers.get_all(EDGE_TOKEN_HEADER).iter();
        let proof = tokens.next().filter(|_| tokens.next().is_none());
        proof.is_some_and(|proof| postern_identity::same(proof.as_bytes(), self.snapshot.edge_token.as_bytes()))
    }

    /// Whoever is signed in, by whatever provider; anybody else is sent to sign in.
    async fn signed_in(
        &self,
        (request, credential): (&Request, &Credential),
        admission: &mut Admission,
    ) -> Result<Known, Refusal> {
        let known = self.known(credential, None, Duration::ZERO).await.map_err(|error| store_unavailable(&error))?;
        admission.subject = known.clone().into();
        known.ok_or_else(|| {
            self.snapshot.idp_of(&request.host).map_or(Refusal::NoRoute, |idp| Refusal::SignIn { idp: idp.clone() })
        })
    }
}

/// Whether what is asked for over HTTP/2 is another protocol (RFC 8441), and this is none: there an answer that is no refusal, of
/// whomever, would be consent to it.
fn is_unmet(head: &RequestHeader, verdict: &Verdict) -> bool {
    head.method == Method::CONNECT
        && match verdict {
            Verdict::Pass(permit) => !permit.is_tunnel() && permit.upgrade().is_none(),
            Verdict::Reply(_) => true,
            Verdict::Refuse(_) => false,
        }
}

/// The route of a request, unless a more lenient reading of its path leads to another one (S-022); and that reading, decoded,
/// if there is one that its author cannot have meant.
fn find_route(snapshot: &Snapshot, request: &Request) -> Result<(Arc<Route>, Option<String>), Refusal> {
    let route = snapshot.table.find(&request.host, &request.path).ok_or(Refusal::NoRoute)?;
    let other = lenient_reading(&request.path).filter(|_| !route.path.is_deliberate());
    if let Some(path) = &other
        && snapshot.table.find(&request.host, path).is_some_and(|other| !Arc::ptr_eq(other, route))
    {
        return Err(Refusal::AmbiguousPath);
    }
    let decoded = |path: String| percent_encoding::percent_decode_str(&path).decode_utf8_lossy().into_owned();
    Ok((Arc::clone(route), other.map(decoded)))
}

/// The client as the policy sees it: who is signed in, with which devices and which certificate.
pub(crate) type Seen<'a> = (&'a Subject, &'a [Device<'a>], ClientCertificate<'a>);

/// What the policy may look at.
pub(crate) fn facts<'a>(
    request: &'a Request,
    path: &'a str,
    (subject, devices, client_certificate): Seen<'a>,
    now: Timestamp,
) -> postern_policy::Facts<'a> {
    postern_policy::Facts {
        person: subject.session().map(Into::into),
        devices,
        client_certificate,
        cors_preflight: request.cors_preflight,
        ..postern_policy::Facts::anonymous(request.method.as_str(), path, request.client.address, now)
    }
}

fn refusal_of(decision: Decision, idp: &IdpId) -> Refusal {
    match decision {
        Decision::SignIn => Refusal::SignIn { idp: idp.clone() },
        Decision::ClientCertificate(reasons) => Refusal::ClientCertificate(reasons),
        Decision::DeviceUnauthorized(reasons) => Refusal::Device(reasons),
        Decision::EnrolDevice => Refusal::Device(Reasons::of(Reason::DeviceUnauthenticated)),
        Decision::Deny(reasons) => Refusal::Denied(reasons),
        Decision::Allow => Refusal::Failed(Failure::Internal),
    }
}

fn store_unavailable(error: &StorageError) -> Refusal {
    let StorageError::Unavailable { reason, retry_after } = error;
    warn!(%reason, "the session store is unavailable: who asks is not known");
    Refusal::StoreUnavailable { retry_after: *retry_after }
}

/// What the upstream is told of the subject: signed once, and used again for less than half of its life (S-042).
fn assertion(
    snapshot: &Snapshot,
    request: &Request,
    (issuer, groups): (JwtIssuerFormat, Option<&GroupsFilter>),
    (known, now): (Option<&Known>, Timestamp),
) -> Result<Arc<Assertion>, Refusal> {
    let session = known.map(|entry| &entry.session);
    let generation = session.map_or(0, |session| session.generation);
    let purpose = Purpose { host: request.host.name(), issuer, groups, generation, version: snapshot.version };
    let slot = known.map_or_else(|| snapshot.anonymous.of(purpose.host), |entry| &entry.extra);
    if let Some(assertion) = slot.find(&purpose, now) {
        // It is copied when the head goes up.
        prefetch_bytes(assertion.token.as_bytes());
        return Ok(assertion);
    }
    let assertion = Assertion::sign(&snapshot.config.identity, &purpose, session, now)
        .map_err(|_| Refusal::Failed(Failure::Internal))?;
    let assertion = Arc::new(assertion);
    slot.keep(&purpose, Arc::clone(&assertion), now);
    Ok(assertion)
}

impl Admission {
    /// Before anything is known.
    fn unread() -> Self {
        Self {
            verdict: Verdict::Refuse(Refusal::Failed(Failure::Internal)),
            request: None,
            route: None,
            subject: Subject::Anonymous,
            unknown: false,
            certificate: Presented::NOTHING,
            evaluation: None,
            would_refuse: None,
            programmatic: false,
        }
    }

    /// What is to happen.
    #[must_use]
    pub const fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// The request, if it could be read.
    #[must_use]
    pub const fn request(&self) -> Option<&Request> {
        self.request.as_ref()
    }

    /// The request with its permit, if it may be carried.
    #[must_use]
    pub fn admitted(&self) -> Option<Admitted<'_>> {
        match (&self.verdict, &self.request) {
            (Verdict::Pass(permit), Some(request)) => Some(Admitted { permit, request }),
            _ => None,
        }
    }

    /// Asks for what is let go of when the exchange ends, and was used last before the upstream answered: others came since.
    pub(crate) fn prefetch(&self) {
        self.subject.known().into_iter().for_each(|known| prefetch(&**known));
        self.assertion().into_iter().for_each(Assertion::prefetch);
    }

    /// The same for the token, when what leads to it is near.
    pub(crate) fn prefetch_token(&self) {
        self.assertion().and_then(|assertion| assertion.token.as_bytes().first()).into_iter().for_each(prefetch);
    }

    fn assertion(&self) -> Option<&Assertion> {
        let Verdict::Pass(permit) = &self.verdict else { return None };
        permit.assertion.as_deref()
    }

    /// What an answer of ours may speak of.
    #[must_use]
    pub fn asked<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        head: &'a RequestHeader,
        request_id: &'a str,
        now: Timestamp,
    ) -> Asked<'a> {
        Asked {
            snapshot,
            head,
            request: self.request.as_ref(),
            route: self.route.as_deref(),
            subject: &self.subject,
            devices: &[],
            certificate: self.certificate.facts(),
            programmatic: self.programmatic,
            request_id,
            now,
        }
    }
}

impl Verdict {
    /// The stable text that the access record has for it, unless something fails later.
    #[must_use]
    pub fn details(&self) -> &'static str {
        self.end().as_str()
    }

    /// How the exchange ends, unless something fails later.
    pub(crate) fn end(&self) -> End {
        match self {
            Self::Pass(_) => End::Upstream,
            Self::Reply(_) => End::Answered,
            Self::Refuse(refusal) => End::Refused(refusal.reason()),
        }
    }

    /// The answer of ours; `None` if the request is carried.
    #[must_use]
    pub fn answer(&self, asked: &Asked<'_>) -> Option<Answer> {
        match self {
            Self::Pass(_) => None,
            Self::Reply(reply) => Some(reply.answer(asked)),
            Self::Refuse(refusal) => Some(refusal.answer(asked)),
        }
    }
}

impl Reply {
    /// The answer to the client that asked.
    #[must_use]
    pub fn answer(&self, asked: &Asked<'_>) -> Answer {
        let draft = match self {
            Self::Ping => reserved::ping(),
            Self::WellKnown => reserved::well_known(asked),
            Self::KeySet => reserved::key_set(asked),
            Self::User => reserved::user(asked),
            Self::Jwt(token) => Draft::new(StatusCode::OK)
                .body("application/jwt", token.clone())
                .field(http::header::CACHE_CONTROL, NO_STORE),
            Self::Login(url) => Draft::new(StatusCode::OK)
                .body("text/plain; charset=utf-8", url.clone())
                .field(http::header::CACHE_CONTROL, NO_STORE),
            Self::Robots => reserved::robots(),
            Self::Moved { status, location } | Self::Redirect { status, location } => {
                reserved::moved(*status, location)
            }
            Self::Fixed { status, body } => Draft::new(*status).body("text/plain; charset=utf-8", body.clone()),
        };
        draft.finish(asked)
    }
}

impl Permit {
    const fn to_authn(relayed: bool) -> Self {
        let passage = Passage::Authn { relayed };
        Self { passage, assertion: None, host: None, client_cert: None, upgrade: None, impersonation: None }
    }

    /// Nobody tells an upstream anything that is no HTTP.
    const fn to_tunnel(route: Arc<Route>) -> Self {
        let passage = Passage::Route { route, rewritten: None };
        Self { passage, assertion: None, host: None, client_cert: None, upgrade: None, impersonation: None }
    }

    /// The upstream to choose an endpoint of; `None`: authn is where it leads.
    #[must_use]
    pub fn upstream(&self) -> Option<(&Arc<Route>, &Upstream)> {
        match &self.passage {
            Passage::Route { route, .. } => match &route.target {
                Target::Upstream(upstream) => Some((route, upstream)),
                Target::Redirect(_) | Target::Response { .. } => None,
            },
            Passage::Authn { .. } => None,
        }
    }

    /// It leads to authn, at [`AuthenticateTarget::upstream`](crate::AuthenticateTarget::upstream).
    #[must_use]
    pub const fn is_to_authn(&self) -> bool {
        matches!(self.passage, Passage::Authn { .. })
    }

    /// It is for a tunnel to the upstream, and for no request (S-105).
    #[must_use]
    pub fn is_tunnel(&self) -> bool {
        self.tunnel().is_some()
    }

    /// What the tunnel carries, if it is for one.
    #[must_use]
    pub fn tunnel(&self) -> Option<Carries> {
        let (route, _) = self.upstream()?;
        route.tunnel.as_deref().map(|tunnel| tunnel.carries)
    }

    /// What the connection becomes if the upstream agrees; nothing else does it become (S-009, S-010).
    #[must_use]
    pub const fn upgrade(&self) -> Option<&Upgrade> {
        self.upgrade.as_ref()
    }

    /// The token that its upstream is shown, if it is one that has to be fetched.
    pub(crate) fn identity_token(&self) -> Option<&Arc<IdentityToken>> {
        let (route, _) = self.upstream()?;
        route.credentials.as_ref()?.serverless.as_ref()
    }

    pub(crate) fn passes_identity(&self) -> bool {
        match &self.passage {
            Passage::Route { route, .. } => route.pass_identity_headers,
            Passage::Authn { .. } => true,
        }
    }
}
