//! A request that nobody sent: what the gate says to it, what would go up, and what would come down. The steps are those of
//! traffic; only the store and the upstream are not asked.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, Version, header};
use pingora_http::RequestHeader;
use postern_identity::{EDGE_TOKEN_HEADER, Session, Timestamp};
use postern_policy::{DeviceRecord, Trace};

use crate::admit::{Admission, Reply, Verdict, facts};
use crate::route::{Carries, LoadBalancing, Miss};
use crate::{Asked, ClientCert, Connection, Host, Request, Snapshot, prepare};

/// What is asked about.
#[derive(Clone, Debug)]
pub struct Inquiry {
    /// The method.
    pub method: Method,
    /// `host[:port]`, as a client would write it.
    pub authority: String,
    /// Path and query, as a client would write them.
    pub target: String,
    /// The other fields.
    pub fields: HeaderMap,
    /// Whose request it is, if anybody's.
    pub session: Option<Arc<Session>>,
    /// Where it comes from.
    pub source: IpAddr,
    /// It comes over TLS that ends here.
    pub tls: bool,
    /// The certificate that the client shows.
    pub client_cert: Option<Arc<ClientCert>>,
    /// The device credentials of the session, which no request of traffic brings yet.
    pub devices: Vec<DeviceRecord>,
    /// When.
    pub now: Timestamp,
}

/// Why a request can be sent by nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no request can be written with this method, address or host")]
pub struct Unsendable;

/// What the gate says to an inquiry.
#[derive(Debug)]
pub struct Finding<'s> {
    snapshot: &'s Snapshot,
    head: RequestHeader,
    now: Timestamp,
    devices: Vec<DeviceRecord>,
    /// All that was found out.
    pub admission: Admission,
}

/// The request that would go up.
#[derive(Clone, Debug)]
pub struct Upward {
    /// The address that would be dialled.
    pub address: String,
    /// How it would be spoken to.
    pub scheme: &'static str,
    /// Over TLS.
    pub tls: bool,
    /// How many endpoints there are; this is the first of them.
    pub endpoints: usize,
    /// How one of them is chosen.
    pub policy: LoadBalancing,
    /// Path and query.
    pub target: String,
    /// The fields; `[assertion]` stands for the assertion.
    pub fields: HeaderMap,
    /// The payload of the assertion, as JSON, wherever in the fields it goes.
    pub claims: Option<String>,
}

/// Stands for the name that a request would be given.
pub const SOME_REQUEST: &str = "00000000-0000-0000-0000-000000000000";
/// Stands for an assertion, which whoever reads this has no use for.
const ASSERTION: &str = "[assertion]";

impl Inquiry {
    /// Asks the gate of this configuration.
    ///
    /// # Errors
    /// [`Unsendable`].
    pub fn ask<'s>(&self, snapshot: &'s Snapshot) -> Result<Finding<'s>, Unsendable> {
        let head = self.head()?;
        let port = if self.tls { 443 } else { 80 };
        let local = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
        let mut connection = Connection::plain(SocketAddr::new(self.source, 0), local);
        connection.tls = self.tls;
        connection.client_cert.clone_from(&self.client_cert);
        let devices: Vec<_> = self.devices.iter().map(DeviceRecord::facts).collect();
        let admission = snapshot.judge(&head, &connection, (self.session.as_deref(), &devices), self.now);
        Ok(Finding { snapshot, head, now: self.now, devices: self.devices.clone(), admission })
    }

    fn head(&self) -> Result<RequestHeader, Unsendable> {
        let mut head =
            RequestHeader::build(self.method.clone(), self.target.as_bytes(), None).map_err(|_| Unsendable)?;
        head.set_version(Version::HTTP_11);
        if !self.fields.contains_key(header::HOST) {
            let host = HeaderValue::from_str(&self.authority).map_err(|_| Unsendable)?;
            head.append_header(header::HOST, host).map_err(|_| Unsendable)?;
        }
        for (name, value) in &self.fields {
            head.append_header(name.clone(), value.clone()).map_err(|_| Unsendable)?;
        }
        Ok(head)
    }
}

impl Finding<'_> {
    /// The route, and why not those before it, all in the order of the file.
    pub fn considered(&self) -> impl Iterator<Item = Option<Miss>> {
        let asked = self.admission.request.as_ref().filter(|_| self.met_routes());
        let traced: Vec<_> = asked.map(|request| self.trace_of(request)).unwrap_or_default();
        traced.into_iter()
    }

    fn trace_of(&self, request: &Request) -> Vec<Option<Miss>> {
        let (table, routes) = (&self.snapshot.table, &self.snapshot.config.routes);
        if let Some((carries, to)) = self.tunnel() {
            return table.trace_tunnel(routes, carries, to).map(|(_, miss)| miss).collect();
        }
        table.trace(routes, &request.host, &request.path).map(|(_, miss)| miss).collect()
    }

    /// Every rule of the policy that was asked, with what it saw.
    #[must_use]
    pub fn trace(&self) -> Option<Trace> {
        let Admission { request, route, subject, evaluation, certificate, .. } = &self.admission;
        let (request, route, _) = (request.as_ref()?, route.as_deref()?, evaluation.as_ref()?);
        let devices: Vec<_> = self.devices.iter().map(DeviceRecord::facts).collect();
        let client = (subject, &devices[..], certificate.facts());
        Some(route.policy.trace(&facts(request, &request.decoded_path(), client, self.now)))
    }

    /// Whether the routes were looked at: not for what cannot be read, and not for paths of our own.
    fn met_routes(&self) -> bool {
        let none = match &self.admission.verdict {
            Verdict::Refuse(crate::Refusal::NoRoute) => true,
            Verdict::Refuse(_) => self.tunnel().is_some(),
            Verdict::Pass(_) | Verdict::Reply(_) => false,
        };
        self.admission.route.is_some() || (none && !self.is_reserved())
    }

    /// Where the tunnel that is asked for leads, unless it met a route of requests, for which it is an upgrade like any other.
    #[must_use]
    pub fn tunnel(&self) -> Option<(Carries, &Host)> {
        let asked = self.admission.request.as_ref()?.tunnel.as_ref()?;
        let met = self.admission.route.as_deref();
        Some((asked.carries, asked.to.as_ref()?)).filter(|_| met.is_none_or(|route| route.tunnel.is_some()))
    }

    /// Whether the path is one of ours, whatever routes there are.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        let request = self.admission.request.as_ref();
        let request = request.filter(|_| self.tunnel().is_none());
        request.is_some_and(|request| crate::reserved::Reserved::of(request, self.snapshot).is_some())
    }

    /// The answer of ours, if the request is not carried.
    #[must_use]
    pub fn answer(&self) -> Option<Response<Bytes>> {
        let devices: Vec<_> = self.devices.iter().map(DeviceRecord::facts).collect();
        let asked = self.admission.asked(self.snapshot, &self.head, SOME_REQUEST, self.now);
        let asked = Asked { devices: &devices, ..asked };
        let answer = match &self.admission.verdict {
            Verdict::Reply(Reply::Jwt(_)) => Reply::Jwt(Bytes::from_static(ASSERTION.as_bytes())).answer(&asked),
            verdict @ (Verdict::Pass(_) | Verdict::Reply(_) | Verdict::Refuse(_)) => verdict.answer(&asked)?,
        };
        let mut response = Response::new(answer.body);
        *response.status_mut() = answer.head.status;
        response.headers_mut().clone_from(&answer.head.headers);
        Some(response)
    }

    /// The hosts that a browser would get a cookie on as well, if it is sent to sign in.
    #[must_use]
    pub fn additional_hosts(&self) -> Vec<String> {
        let asked = self.admission.asked(self.snapshot, &self.head, SOME_REQUEST, self.now);
        let is_sent = matches!(self.admission.verdict, Verdict::Refuse(crate::Refusal::SignIn { .. }));
        asked.wanted().filter(|_| is_sent).map(|wanted| asked.additional_hosts(&wanted)).unwrap_or_default()
    }

    /// What would go to the upstream of a route, or to authn, if the request is carried.
    #[must_use]
    pub fn upward(&self) -> Option<Upward> {
        let admitted = self.admission.admitted()?;
        let endpoint =
            admitted.permit().upstream().map(|(_, upstream)| (upstream.endpoints.first(), upstream.endpoints.len()));
        let (endpoint, endpoints) = endpoint.unwrap_or((None, 1));
        let balancing = admitted.permit().upstream().and_then(|(_, upstream)| upstream.balancing.as_deref());
        let policy = balancing.map(|balancing| balancing.policy).unwrap_or_default();
        if admitted.permit().is_tunnel() {
            let endpoint = endpoint?;
            return Some(Upward {
                address: format!("{}:{}", endpoint.host, endpoint.port),
                scheme: endpoint.scheme.name(),
                tls: endpoint.scheme.is_tls(),
                endpoints,
                policy,
                target: String::new(),
                fields: HeaderMap::new(),
                claims: None,
            });
        }
        let mut head = self.head.clone();
        let authority = endpoint.map_or("", |endpoint| &*endpoint.authority);
        let id = HeaderValue::from_static(SOME_REQUEST);
        prepare::request(admitted, self.snapshot, &id, (authority, self.now), &mut head);
        let mut fields = head.headers.clone();
        // What carries requests says nothing of trailers on a connection of its own.
        fields.remove(header::TE);
        // A token that nobody has fetched here.
        if admitted.permit().identity_token().is_some() {
            fields.insert(prepare::SERVERLESS, HeaderValue::from_static("Bearer [token]"));
        }
        let token = admitted.permit().assertion.as_deref().and_then(|assertion| assertion.token.to_str().ok());
        for (name, value) in &mut fields {
            disarm(name, value, token);
        }
        Some(Upward {
            address: endpoint.map_or_else(String::new, |endpoint| match endpoint.scheme.is_socket() {
                true => endpoint.host.clone(),
                false => format!("{}:{}", endpoint.host, endpoint.port),
            }),
            scheme: endpoint.map_or("http", |endpoint| endpoint.scheme.name()),
            tls: endpoint.is_some_and(|endpoint| endpoint.scheme.is_tls()),
            endpoints,
            policy,
            target: String::from_utf8_lossy(head.raw_path()).into_owned(),
            fields,
            claims: token.and_then(crate::assertion::payload),
        })
    }
}

/// Takes out of a field what would open something: the assertion, credentials of ours, and the proof that we are the edge.
fn disarm(name: &HeaderName, value: &mut HeaderValue, token: Option<&str>) {
    if value.is_sensitive() {
        *value = HeaderValue::from_static("Bearer [token]");
    }
    if name == EDGE_TOKEN_HEADER {
        *value = HeaderValue::from_static("[token]");
    }
    if let Some(harmless) = token.and_then(|token| without(value.as_bytes(), token.as_bytes())) {
        *value = HeaderValue::from_bytes(&harmless).unwrap_or_else(|_| HeaderValue::from_static(ASSERTION));
    }
}

/// The bytes of a field with [`ASSERTION`] for each `token` in them; `None` if there is none.
fn without(value: &[u8], token: &[u8]) -> Option<Vec<u8>> {
    let find = |rest: &[u8]| rest.windows(token.len().max(1)).position(|part| part == token);
    let (mut harmless, mut rest) = (Vec::new(), value);
    while let Some((before, after)) = find(rest).and_then(|at| Some((rest.get(..at)?, rest.get(at + token.len()..)?))) {
        harmless.extend_from_slice(before);
        harmless.extend_from_slice(ASSERTION.as_bytes());
        rest = after;
    }
    if harmless.is_empty() {
        return None;
    }
    harmless.extend_from_slice(rest);
    Some(harmless)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HeaderRule;
    use crate::route::Route;
    use crate::testing::*;

    fn inquiry(target: &str) -> Inquiry {
        Inquiry {
            method: Method::GET,
            authority: "app.example.com".to_owned(),
            target: target.to_owned(),
            fields: HeaderMap::new(),
            session: Some(Arc::new(alice())),
            source: connection().peer.ip(),
            tls: false,
            client_cert: None,
            devices: Vec::new(),
            now: NOW,
        }
    }

    fn snapshot(routes: Vec<Route>) -> Snapshot {
        Snapshot::new(config(routes), 1).unwrap()
    }

    #[tokio::test]
    async fn what_would_go_up_is_what_goes_up_but_for_what_opens_something() {
        let template =
            HeaderRule::Set(HeaderName::from_static("x-token"), HeaderValue::from_static("jwt ${pomerium.jwt}"));
        let routes =
            || vec![Route { request_headers: vec![template.clone()], ..guarded("app.example.com", "/", any_user()) }];
        let snapshot = snapshot(routes());
        let found = inquiry("/a/../b?x=1").ask(&snapshot).unwrap();
        let told = found.upward().unwrap();
        let world = World::new(config(routes())).await;
        let own = format!("_pomerium={}", alices_cookie("app.example.com"));
        let carried = world.carried(&get("/a/../b?x=1", &[("cookie", &own)])).await.unwrap();

        assert_eq!(told.target.as_bytes(), carried.raw_path());
        let names = |fields: &HeaderMap| fields.keys().map(HeaderName::to_string).collect::<Vec<_>>();
        assert_eq!(names(&told.fields), names(&carried.headers));
        assert_eq!(values(&told.fields, "x-pomerium-jwt-assertion"), ASSERTION);
        assert_eq!(values(&told.fields, "x-token"), format!("jwt {ASSERTION}"));
        let claims: serde_json::Value = serde_json::from_str(&told.claims.unwrap()).unwrap();
        assert_eq!(
            (claims["email"].as_str(), claims["aud"].as_str()),
            (Some("alice@example.com"), Some("app.example.com"))
        );
    }

    #[tokio::test]
    async fn what_would_come_down_is_what_comes_down() {
        let routes = || vec![guarded("app.example.com", "/", ppl("allow: {and: [groups: admins]}"))];
        let (snapshot, world) = (snapshot(routes()), World::new(config(routes())).await);
        let own = format!("_pomerium={}", alices_cookie("app.example.com"));
        for (target, accept) in
            [("/", "text/html"), ("/%00", "application/json"), ("/ping", "*/*"), ("/robots.txt", "*/*")]
        {
            let mut asked = inquiry(target);
            asked.fields.insert(header::ACCEPT, HeaderValue::from_static(accept));
            let told = asked.ask(&snapshot).unwrap().answer().unwrap();
            let real = world.answer(&get(target, &[("accept", accept), ("cookie", &own)])).await.unwrap();
            let text = |body: &Bytes| String::from_utf8_lossy(body).replace(TEST_ID, SOME_REQUEST);
            assert_eq!((told.status(), text(told.body())), (real.head.status, text(&real.body)), "{target}");
        }
    }

    #[test]
    fn nobody_is_shown_an_assertion_that_would_open_something() {
        let mut on = config(vec![Route {
            request_headers: vec![HeaderRule::Set(
                HeaderName::from_static("x-token"),
                HeaderValue::from_bytes(b"\xc3\xa9 ${pomerium.jwt} \xff ${pomerium.jwt}").unwrap(),
            )],
            ..guarded("app.example.com", "/", any_user())
        }]);
        on.identity.jwt_endpoint = true;
        let snapshot = Snapshot::new(on, 1).unwrap();
        let answer = inquiry("/.pomerium/jwt").ask(&snapshot).unwrap().answer().unwrap();
        assert_eq!((answer.status(), &answer.body()[..]), (http::StatusCode::OK, ASSERTION.as_bytes()));
        assert_eq!(values(answer.headers(), "content-type"), "application/jwt");
        if let Some(length) = answer.headers().get(header::CONTENT_LENGTH) {
            assert_eq!(length.to_str().unwrap(), ASSERTION.len().to_string());
        }
        let told = inquiry("/").ask(&snapshot).unwrap().upward().unwrap();
        assert!(told.claims.is_some(), "there is an assertion");
        let field = told.fields.get("x-token").unwrap().as_bytes();
        assert_eq!(field, [b"\xc3\xa9 ", ASSERTION.as_bytes(), b" \xff ", ASSERTION.as_bytes()].concat());
    }

    #[test]
    fn paths_of_ours_meet_no_route_and_what_is_no_request_is_none() {
        let snapshot = snapshot(vec![route("b.example.com", "/"), route("app.example.com", "/x")]);
        let considered = |target: &str| {
            inquiry(target).ask(&snapshot).map(|found| (found.is_reserved(), found.considered().collect::<Vec<_>>()))
        };
        assert_eq!(considered("/x/1"), Ok((false, vec![Some(Miss::Host), None])));
        assert_eq!(considered("/y"), Ok((false, vec![Some(Miss::Host), Some(Miss::Path)])));
        assert_eq!(considered("/.pomerium/nothing"), Ok((true, Vec::new())));
        assert_eq!(considered("/%00"), Ok((false, Vec::new())));
        let broken = Inquiry { authority: "a\nb".to_owned(), ..inquiry("/") };
        assert_eq!(broken.ask(&snapshot).err(), Some(Unsendable));
    }
}
