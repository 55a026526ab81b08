//! Each exchange, once it is over: one access event, one authorize event if a policy was evaluated, and the metrics.
//!
//! The fields are those of 01 §1.10, written only if configured. What could be a secret never gets here (S-108), and what a
//! client sent cannot start a line of its own (S-109).

use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use pingora_error::Error;
use pingora_http::RequestHeader;
use pingora_proxy::Session as Downstream;
use postern_identity::CompactSession;
use postern_policy::{Decision, Evaluation, Reasons};
use tracing::{Level, enabled, event, warn};

use crate::credential::has_own_parameter;
use crate::exchange::{End, Exchange};
use crate::metrics::Metrics;
use crate::{AccessField, AuthorizeField};

/// Writes everything that is to be known of `exchange`.
pub(crate) fn record(downstream: &Downstream, error: Option<&Error>, exchange: &Exchange, metrics: &Metrics) {
    let view = View::new(downstream, exchange);
    view.count(metrics);
    view.access();
    if let Some(evaluation) = view.evaluation() {
        view.authorize(&evaluation);
    }
    if let (Some(error), false) = (error, exchange.end == End::ClientGone) {
        // The kind only: the words of an error may hold bytes of the exchange.
        let (kind, source) = (error.etype().as_str(), error.esource().as_str());
        warn!(
            request.id = exchange.id.as_str(),
            postern.route = view.route(),
            error = kind,
            source,
            reason = exchange.end.as_str(),
            "exchange failed"
        );
    }
}

/// An exchange as logs and metrics see it.
struct View<'a> {
    exchange: &'a Exchange,
    head: &'a RequestHeader,
    request: Option<&'a crate::Request>,
    status: StatusCode,
    sent: u64,
}

impl<'a> View<'a> {
    fn new(downstream: &'a Downstream, exchange: &'a Exchange) -> Self {
        let sent = downstream.response_written().map(|head| head.status);
        Self {
            exchange,
            head: downstream.req_header(),
            request: exchange.admission.as_ref().and_then(|admission| admission.request.as_ref()),
            // Nobody was there to see a status: the number that nginx made usual.
            status: sent.or(StatusCode::from_u16(499).ok()).unwrap_or(StatusCode::BAD_REQUEST),
            sent: exchange.carried.map_or(downstream.body_bytes_sent() as u64, |(_, down)| down),
        }
    }

    fn route(&self) -> &'a str {
        self.exchange.route().map_or(NO_ROUTE, |route| &route.name)
    }

    fn evaluation(&self) -> Option<Evaluation> {
        self.exchange.admission.as_ref().and_then(|admission| admission.evaluation)
    }

    fn count(&self, metrics: &Metrics) {
        let (route, families) = (self.route(), &metrics.0);
        families
            .requests
            .with_label_values(&[route, self.method().map_or("other", method), self.status.as_str()])
            .inc();
        families.duration.with_label_values(&[route]).observe(self.exchange.began.elapsed().as_secs_f64());
        if let End::Refused(reason) | End::Cut(reason) = self.exchange.end {
            families.refusals.with_label_values(&[reason]).inc();
        }
        if let Some(evaluation) = self.evaluation() {
            let (decision, reasons) = outcome(&evaluation);
            for reason in reasons.iter() {
                families.decisions.with_label_values(&[route, decision, reason.as_str()]).inc();
            }
            if reasons.is_empty() {
                families.decisions.with_label_values(&[route, decision, "none"]).inc();
            }
        }
        if let Some((up, down)) = self.exchange.carried {
            families.tunnel_bytes.with_label_values(&[route, "up"]).inc_by(up);
            families.tunnel_bytes.with_label_values(&[route, "down"]).inc_by(down);
        }
        if self.would_refuse().is_some() {
            families.dry_run_refusals.with_label_values(&[route]).inc();
        }
    }

    /// What rules that are only tried out came to, if they would have refused this.
    fn would_refuse(&self) -> Option<Evaluation> {
        self.exchange.admission.as_ref().and_then(|admission| admission.would_refuse)
    }

    fn access(&self) {
        // Probes come often and say little.
        if self.request.is_some_and(|request| matches!(request.path.as_str(), "/ping" | "/healthz")) {
            self.access_at_debug();
        } else {
            self.access_at_info();
        }
    }

    fn access_line(&self) -> AccessLine<'a> {
        let fields = &self.exchange.snapshot.config.logs.access;
        let on = |field: AccessField| fields.contains(&field).then_some(());
        AccessLine {
            upstream_cluster: on(AccessField::UpstreamCluster).and_then(|()| self.cluster()),
            cluster_stat_name: on(AccessField::ClusterStatName).and_then(|()| self.cluster()),
            method: on(AccessField::Method).and_then(|()| self.method()).map(Method::as_str),
            authority: on(AccessField::Authority).and_then(|()| self.authority()),
            path: on(AccessField::Path).and_then(|()| self.path()),
            query: on(AccessField::Query).and_then(|()| self.query()),
            user_agent: on(AccessField::UserAgent).and_then(|()| self.field(&header::USER_AGENT)),
            referer: on(AccessField::Referer).and_then(|()| self.referer()),
            forwarded_for: on(AccessField::ForwardedFor).and_then(|()| self.forwarded_for()),
            ip: on(AccessField::Ip).and_then(|()| self.ip()),
            request_id: on(AccessField::RequestId).map(|()| self.exchange.id.as_str()),
            duration: on(AccessField::Duration).map(|()| millis(self.exchange.began.elapsed())),
            size: on(AccessField::Size).map(|()| self.sent),
            received: on(AccessField::Size).and(self.exchange.carried).map(|(up, _)| up),
            response_code: on(AccessField::ResponseCode).map(|()| self.status.as_u16()),
            details: on(AccessField::ResponseCodeDetails).map(|()| self.exchange.end.as_str()),
            client_certificate: on(AccessField::ClientCertificate).and_then(|()| self.client_certificate()),
            headers: self.headers(
                fields.iter().filter_map(|field| if let AccessField::Header(name) = field { Some(name) } else { None }),
            ),
        }
    }

    fn authorize(&self, evaluation: &Evaluation) {
        if !enabled!(target: AUTHORIZE, Level::INFO) {
            return;
        }
        let line = self.authorize_line();
        let (allow, deny) = (evaluation.allow, evaluation.deny);
        let would_refuse = self.would_refuse();
        event!(
            target: AUTHORIZE,
            Level::INFO,
            "request-id" = line.request_id,
            "check-request-id" = line.check_request_id,
            method = line.method,
            path = line.path,
            query = line.query,
            host = line.host,
            ip = line.ip,
            "session-id" = line.session_id,
            "service-account-id" = line.service_account_id,
            user = line.user,
            email = line.email,
            "removed-groups-count" = line.removed_groups,
            "envoy-route-checksum" = line.envoy_route_checksum,
            "envoy-route-id" = line.envoy_route_id,
            "route-checksum" = line.route_checksum,
            "route-id" = line.route_id,
            "cluster-stat-name" = line.cluster_stat_name,
            "id-token-claims" = line.claims,
            headers = line.headers,
            allow = allow.value,
            "allow-why-true" = allow.value.then(|| words(allow.reasons)),
            "allow-why-false" = (!allow.value).then(|| words(allow.reasons)),
            deny = deny.value,
            "deny-why-true" = deny.value.then(|| words(deny.reasons)),
            "deny-why-false" = (!deny.value).then(|| words(deny.reasons)),
            "dry-run" = would_refuse.map(|_| "would-deny"),
            "dry-run-why" = would_refuse.map(|evaluation| words(outcome(&evaluation).1)),
            "authorize check",
        );
    }

    fn authorize_line(&self) -> AuthorizeLine<'a> {
        let fields = &self.exchange.snapshot.config.logs.authorize;
        let on = |field: AuthorizeField| fields.contains(&field).then_some(());
        let session = self.exchange.admission.as_ref().and_then(|admission| admission.subject.session());
        let (program, person) = match session {
            Some(session) if session.is_service_account() => (Some(session), None),
            session => (None, session),
        };
        let route = self.exchange.route().map(|route| route.id.as_str());
        let all = fields.contains(&AuthorizeField::Headers);
        let named =
            |name: &HeaderName| fields.iter().any(|field| matches!(field, AuthorizeField::Header(n) if n == name));
        let headers = self.head.headers.keys().filter(|name| all || named(name));
        AuthorizeLine {
            request_id: on(AuthorizeField::RequestId).map(|()| self.exchange.id.as_str()),
            check_request_id: on(AuthorizeField::CheckRequestId).map(|()| self.exchange.id.as_str()),
            method: on(AuthorizeField::Method).and_then(|()| self.method()).map(Method::as_str),
            path: on(AuthorizeField::Path).and_then(|()| self.path()),
            query: on(AuthorizeField::Query).and_then(|()| self.query()),
            host: on(AuthorizeField::Host).and_then(|()| self.authority()),
            ip: on(AuthorizeField::Ip).and_then(|()| self.ip()),
            // A reference that finds the record, never the id that is the credential (S-119).
            session_id: on(AuthorizeField::SessionId).and(person).map(|session| session.handle.to_string()),
            service_account_id: on(AuthorizeField::ServiceAccountId)
                .and(program)
                .map(|session| session.handle.to_string()),
            user: on(AuthorizeField::User).and(session).map(|session| clean(session.user_id().as_bytes())),
            email: on(AuthorizeField::Email)
                .and(session)
                .and_then(|session| session.email().map(|email| clean(email.as_bytes()))),
            removed_groups: on(AuthorizeField::RemovedGroupsCount).map(|()| 0),
            envoy_route_checksum: on(AuthorizeField::EnvoyRouteChecksum).and(route),
            envoy_route_id: on(AuthorizeField::EnvoyRouteId).and(route),
            route_checksum: on(AuthorizeField::RouteChecksum).and(route),
            route_id: on(AuthorizeField::RouteId).and(route),
            cluster_stat_name: on(AuthorizeField::ClusterStatName).and_then(|()| self.cluster()),
            claims: on(AuthorizeField::IdTokenClaims).and(session).map(claims),
            headers: self.headers(headers),
        }
    }

    /// `None` if the bytes were refused: then the head is not the client's.
    fn method(&self) -> Option<&'a Method> {
        let refused = self.request.is_none() && self.exchange.violation().is_some();
        (!refused).then(|| self.request.map_or(&self.head.method, |request| &request.method))
    }

    fn cluster(&self) -> Option<&'a str> {
        if self.exchange.is_for_authn() {
            return Some("authn");
        }
        self.exchange.route().map(|route| route.id.as_str())
    }

    fn authority(&self) -> Option<String> {
        self.request.map(|request| request.host.to_string())
    }

    fn path(&self) -> Option<&'a str> {
        self.request.map(|request| request.path.as_str())
    }

    /// Our own endpoints have secrets in their queries, and so may credentials that are passed as a parameter.
    fn query(&self) -> Option<String> {
        let request = self.request?;
        let query = request.query.as_deref()?;
        let own = self.exchange.is_for_authn()
            || request.path.starts_with("/.pomerium")
            || query.contains("pomerium_")
            || has_own_parameter(query);
        Some(if own { REDACTED.to_owned() } else { clean(query.as_bytes()) })
    }

    fn referer(&self) -> Option<String> {
        self.field(&header::REFERER).map(|referer| without_query(&referer).to_owned())
    }

    fn forwarded_for(&self) -> Option<String> {
        let forwarded = self.exchange.forwarded_for.as_ref().and_then(|value| value.to_str().ok());
        forwarded.map(str::to_owned).or_else(|| self.ip())
    }

    fn ip(&self) -> Option<String> {
        let trusted = self.request.map(|request| request.client.address);
        let peer = || self.exchange.connection.as_ref().map(|connection| connection.peer.ip());
        trusted.or_else(peer).map(|ip| ip.to_string())
    }

    fn client_certificate(&self) -> Option<String> {
        let certificate = self.exchange.connection.as_ref()?.client_cert.as_ref()?;
        Some(hex::encode(certificate.facts().fingerprint))
    }

    fn field(&self, name: &HeaderName) -> Option<String> {
        self.head.headers.get(name).map(|value| clean(value.as_bytes()))
    }

    /// The named fields as a JSON object, secrets left out.
    fn headers<'n>(&self, names: impl Iterator<Item = &'n HeaderName>) -> Option<String> {
        let mut object = serde_json::Map::new();
        for name in names {
            if let Some(value) = joined(&self.head.headers, name) {
                object.insert(name.as_str().to_owned(), shown(name, value).into());
            }
        }
        (!object.is_empty()).then(|| serde_json::Value::Object(object).to_string())
    }
}

macro_rules! access_event {
    ($name:ident, $level:expr) => {
        impl View<'_> {
            fn $name(&self) {
                if !enabled!(target: ACCESS, $level) {
                    return;
                }
                let line = self.access_line();
                event!(
                    target: ACCESS,
                    $level,
                    "upstream-cluster" = line.upstream_cluster,
                    "cluster-stat-name" = line.cluster_stat_name,
                    method = line.method,
                    authority = line.authority,
                    path = line.path,
                    query = line.query,
                    "user-agent" = line.user_agent,
                    referer = line.referer,
                    "forwarded-for" = line.forwarded_for,
                    ip = line.ip,
                    "request-id" = line.request_id,
                    duration = line.duration,
                    size = line.size,
                    received = line.received,
                    "response-code" = line.response_code,
                    "response-code-details" = line.details,
                    "client-certificate" = line.client_certificate,
                    headers = line.headers,
                    "http-request",
                );
            }
        }
    };
}
access_event!(access_at_info, Level::INFO);
access_event!(access_at_debug, Level::DEBUG);

struct AccessLine<'a> {
    upstream_cluster: Option<&'a str>,
    cluster_stat_name: Option<&'a str>,
    method: Option<&'a str>,
    authority: Option<String>,
    path: Option<&'a str>,
    query: Option<String>,
    user_agent: Option<String>,
    referer: Option<String>,
    forwarded_for: Option<String>,
    ip: Option<String>,
    request_id: Option<&'a str>,
    duration: Option<u64>,
    size: Option<u64>,
    received: Option<u64>,
    response_code: Option<u16>,
    details: Option<&'a str>,
    client_certificate: Option<String>,
    headers: Option<String>,
}

struct AuthorizeLine<'a> {
    request_id: Option<&'a str>,
    check_request_id: Option<&'a str>,
    method: Option<&'a str>,
    path: Option<&'a str>,
    query: Option<String>,
    host: Option<String>,
    ip: Option<String>,
    session_id: Option<String>,
    service_account_id: Option<String>,
    user: Option<String>,
    email: Option<String>,
    removed_groups: Option<u64>,
    envoy_route_checksum: Option<&'a str>,
    envoy_route_id: Option<&'a str>,
    route_checksum: Option<&'a str>,
    route_id: Option<&'a str>,
    cluster_stat_name: Option<&'a str>,
    claims: Option<String>,
    headers: Option<String>,
}

fn claims(session: &CompactSession) -> String {
    serde_json::Value::Object(session.claims().to_json()).to_string()
}

/// What a policy came to, and the reasons that made it so.
fn outcome(evaluation: &Evaluation) -> (&'static str, Reasons) {
    match evaluation.decision() {
        Decision::Allow => ("allow", evaluation.allow.reasons),
        Decision::SignIn => ("sign-in", evaluation.allow.reasons.and(evaluation.deny.reasons)),
        Decision::EnrolDevice => ("enrol-device", evaluation.allow.reasons.and(evaluation.deny.reasons)),
        Decision::ClientCertificate(reasons) | Decision::DeviceUnauthorized(reasons) | Decision::Deny(reasons) => {
            ("deny", reasons)
        }
    }
}

/// Reasons as a JSON list.
fn words(reasons: Reasons) -> String {
    reasons.iter().map(postern_policy::Reason::as_str).collect::<serde_json::Value>().to_string()
}

/// A label from a closed set.
fn method(method: &Method) -> &'static str {
    let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT"];
    known.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

fn is_secret(name: &HeaderName) -> bool {
    [header::COOKIE, header::AUTHORIZATION, header::PROXY_AUTHORIZATION].contains(name)
        || name.as_str().starts_with("x-pomerium-")
}

/// What may be written of a field.
fn shown(name: &HeaderName, value: String) -> String {
    if is_secret(name) {
        REDACTED.to_owned()
    } else if *name == header::REFERER {
        without_query(&value).to_owned()
    } else {
        value
    }
}

fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}

fn joined(fields: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<String> = fields.get_all(name).iter().map(|value| clean(value.as_bytes())).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

/// Text that is one line wherever it is written: control characters are escaped, what is not UTF-8 replaced (S-109).
fn clean(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for char in String::from_utf8_lossy(bytes).chars() {
        if char.is_control() || matches!(char, '\u{2028}' | '\u{2029}') {
            text.extend(char.escape_unicode());
        } else {
            text.push(char);
        }
    }
    text
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

const ACCESS: &str = "postern::access";
const AUTHORIZE: &str = "postern::authorize";
const NO_ROUTE: &str = "";
const REDACTED: &str = "[redacted]";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn s_108_fields_that_carry_credentials_are_known_as_such() {
        for name in
            ["cookie", "authorization", "proxy-authorization", "x-pomerium-authorization", "x-pomerium-jwt-assertion"]
        {
            assert!(is_secret(&HeaderName::from_static(name)), "{name}");
        }
        assert!(!is_secret(&header::ACCEPT));
    }

    #[test]
    fn a_method_that_the_wire_made_up_is_no_label() {
        assert_eq!(method(&Method::PUT), "PUT");
        assert_eq!(method(&Method::from_bytes(b"BREW").unwrap()), "other");
    }

    proptest! {
        #[test]
        fn s_109_no_value_can_start_a_line(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let text = clean(&bytes);
            prop_assert!(!text.chars().any(char::is_control), "{:?}", text);
            prop_assert_eq!(text.lines().count().max(1), 1);
        }
    }
}
