//! A permit and two heads: what the upstream sees of a request, and what the client sees of its answer (01 §2.10, 03 §3.3).
//!
//! The order is: strip the client's, apply the route's settings, set ours last, remove what the route removes.

mod cookies;
mod impersonation;
mod template;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use pingora_http::{RequestHeader, ResponseHeader};
use postern_identity::{EDGE_TOKEN_HEADER, Timestamp};

use cookies::Kept;
pub(crate) use cookies::OwnCookies;
pub(crate) use impersonation::{Impersonation, impersonation};
pub use template::references;

use crate::admit::{Admitted, Passage, Permit};
use crate::answer::{INTERCEPTED, REQUEST_ID};
use crate::assertion::ASSERTION_HEADER;
use crate::credential::{has_own_parameter, own_scheme, query_without_own};
use crate::refusal::{Failure, Refusal};
use crate::request::{MAX_NOMINATED, MAX_TARGET, forwarded_entries, is_own_family, nominated, tokens};
use crate::route::{HostRewrite, ResponseRewrite, Route};
use crate::{ClientCert, HeaderRule, Host, Snapshot};

/// Turns the head of an admitted request into the head that goes up. `authority` is that of the chosen endpoint, as the
/// configuration wrote it; `now` says which tokens of ours are still good. Body framing (`Transfer-Encoding`) is left to the connection that sends it.
pub fn request(
    admitted: Admitted<'_>,
    snapshot: &Snapshot,
    request_id: &HeaderValue,
    (authority, now): (&str, Timestamp),
    head: &mut RequestHeader,
) {
    strip_hop_by_hop(head);
    if matches!(admitted.permit().passage, Passage::Authn { relayed: true }) {
        // The edge before this one has done all the rest, and its client is whom authn hears of.
        return;
    }
    strip(admitted, head);
    match &admitted.permit().passage {
        Passage::Route { route, rewritten } => {
            strip_credentials(snapshot, head);
            let query = admitted.request().query.as_deref().and_then(query_without_own);
            let query = query.as_deref();
            match rewritten {
                None => set_target(&admitted.request().path, query, head),
                Some(rewritten) => set_target(&rewritten.path, rewritten.query(query).as_deref(), head),
            }
            forward(admitted, snapshot, head);
            set(head, &REQUEST_ID, request_id.clone());
            if rewritten.is_some() {
                set_text(head, &ORIGINAL_PATH, target(&admitted.request().path, query).into_owned());
            }
            apply_settings(admitted, route, head);
            show_credentials(admitted.permit(), route, now, head);
            set_host(admitted, route, authority, head);
        }
        Passage::Authn { .. } => {
            set_target(&admitted.request().path, admitted.request().query.as_deref(), head);
            set_text(head, &FORWARDED_FOR, admitted.request().client.address.to_string());
            set(head, &FORWARDED_PROTO, HeaderValue::from_static("https"));
            set(head, &REQUEST_ID, request_id.clone());
            set(head, &HeaderName::from_static(EDGE_TOKEN_HEADER), snapshot.edge_token.clone());
            set_text(head, &header::HOST, admitted.request().host.to_string());
        }
    }
}

/// The Host that the route makes of this request, if it makes one (01 §2.7).
///
/// # Errors
/// What it makes is no host that may be asked for (S-047).
pub(crate) fn host(
    admitted: Admitted<'_>,
    route: &Route,
    snapshot: &Snapshot,
    head: &RequestHeader,
) -> Result<Option<HeaderValue>, Refusal> {
    let made = match &route.host_rewrite {
        HostRewrite::Upstream | HostRewrite::Preserve | HostRewrite::Literal(_) => return Ok(None),
        HostRewrite::Path(rewrite) => rewrite.apply(&admitted.request().path, MAX_TARGET).map(String::into_bytes),
        HostRewrite::Header(name) => {
            // As the field goes up, and so after what the route sets and removes.
            let mut head = head.clone();
            strip_hop_by_hop(&mut head);
            strip(admitted, &mut head);
            strip_credentials(snapshot, &mut head);
            forward(admitted, snapshot, &mut head);
            apply_settings(admitted, route, &mut head);
            let mut values = head.headers.get_all(name).iter();
            match (values.next(), values.next()) {
                (None, _) => return Ok(None),
                (Some(value), None) if value.is_empty() => return Ok(None),
                (Some(value), None) => Some(value.as_bytes().to_vec()),
                (Some(_), Some(_)) => None,
            }
        }
    };
    let host = made.and_then(|made| Host::parse(&made).ok());
    let value = host.and_then(|host| HeaderValue::try_from(host.to_string()).ok());
    value.map(Some).ok_or(Refusal::Failed(Failure::HostRewrite))
}

/// What comes before an answer says that it will come; no field of it goes down.
pub(crate) fn interim(head: &mut ResponseHeader) {
    let names: Vec<HeaderName> = head.headers.keys().cloned().collect();
    for name in &names {
        head.remove_header(name);
    }
}

/// Turns the head of an upstream's answer into the head that goes down.
pub fn response(permit: &Permit, snapshot: &Snapshot, request_id: &HeaderValue, head: &mut ResponseHeader) {
    consume_hop_by_hop(head);
    match &permit.passage {
        Passage::Route { route, .. } => {
            rewrite(&route.response_rewrites, head);
            drop_own(snapshot, head);
            for (name, value) in route.response_headers.0.iter() {
                put(head, name, rewritten(&route.response_rewrites, name, value.clone()));
            }
        }
        Passage::Authn { .. } => {
            put(head, &INTERCEPTED, HeaderValue::from_static("true"));
            for (name, value) in snapshot.config.response_headers.0.iter().filter(|(name, _)| !AUTHNS.contains(name)) {
                put(head, name, value.clone());
            }
        }
    }
    put(head, &REQUEST_ID, request_id.clone());
}

/// What signs people in, and is nobody else's: no setting for what routes answer replaces these.
const AUTHNS: [HeaderName; 4] = [header::SET_COOKIE, header::LOCATION, header::CACHE_CONTROL, header::CONTENT_TYPE];
const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Google takes it before `Authorization`, and keeps it from the service.
pub(crate) const SERVERLESS: HeaderName = HeaderName::from_static("x-serverless-authorization");

/// Takes away what is said of the connection alone (S-039).
fn strip_hop_by_hop(head: &mut RequestHeader) {
    let te = head.headers.get_all(header::TE).iter().flat_map(tokens).any(|te| te.eq_ignore_ascii_case(b"trailers"));
    // Most heads have one of them, or none: to look at what is there takes less than to look for each.
    while let Some(name) = head.headers.keys().find(|name| is_hop_by_hop(name)).cloned() {
        head.remove_header(&name);
    }
    if te {
        set(head, &header::TE, HeaderValue::from_static("trailers"));
    }
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    // The last is no field of HTTP, but CGI makes of it what names a program's proxy (CVE-2016-5385).
    is_of_one_connection(name) || matches!(name.as_str(), "upgrade" | "http2-settings" | "proxy")
}

/// Whether a field never goes on as it came, in either direction.
fn is_of_one_connection(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
    )
}

/// Takes away what is the client's alone to say to us: reserved and forwarding fields, and what its `Connection` nominated
/// (S-038, S-039). This happens before anything of ours is set.
fn strip(admitted: Admitted<'_>, head: &mut RequestHeader) {
    for name in &admitted.request().strip {
        head.remove_header(name);
    }
    // Where somebody is impersonated, identity goes up as well, in other fields.
    if admitted.permit().passes_identity() || admitted.permit().impersonation.is_some() {
        for name in &admitted.request().strip_with_identity {
            head.remove_header(name);
        }
    }
    if let Some(upgrade) = admitted.permit().upgrade() {
        set(head, &header::CONNECTION, HeaderValue::from_static("Upgrade"));
        set_text(head, &header::UPGRADE, upgrade.as_str().to_owned());
    }
}

/// Our cookies out of every `Cookie` field, which becomes one; our schemes out of `Authorization`; our parameter out of the
/// address that led here (S-041).
fn strip_credentials(snapshot: &Snapshot, head: &mut RequestHeader) {
    match snapshot.cookies.strip(&head.headers) {
        Kept::Unchanged => {}
        Kept::One(value) => set(head, &header::COOKIE, value),
        Kept::None => {
            head.remove_header(&header::COOKIE);
        }
    }
    let fields = head.headers.get_all(header::AUTHORIZATION);
    if fields.iter().any(|value| own_scheme(value.as_bytes()).is_some()) {
        let kept: Vec<_> = fields.iter().filter(|value| own_scheme(value.as_bytes()).is_none()).cloned().collect();
        head.remove_header(&header::AUTHORIZATION);
        for value in kept {
            let _appended = head.append_header(header::AUTHORIZATION, value);
        }
    }
    let referer = head.headers.get(header::REFERER).and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
    if let Some((place, query)) = referer.and_then(|referer| referer.split_once('?'))
        && has_own_parameter(query)
    {
        let place = place.to_owned();
        set_text(head, &header::REFERER, place);
    }
}

/// The canonical target, in origin-form whatever form it came in (S-021, S-030).
fn set_target(path: &str, query: Option<&str>, head: &mut RequestHeader) {
    // Most clients write it so.
    if head.uri.authority().is_none() && is_target(head.raw_path(), path, query) {
        return;
    }
    let target = target(path, query);
    if target == "*" {
        let _set = head.set_raw_path(b"*");
        return;
    }
    match PathAndQuery::try_from(target.as_ref()) {
        Ok(target) => {
            let mut parts = http::uri::Parts::default();
            parts.path_and_query = Some(target);
            head.set_uri(Uri::from_parts(parts).unwrap_or_default());
        }
        // A byte that the library's type does not take (such as a raw `<`): the bytes themselves still go.
        Err(_) => {
            let _set = head.set_raw_path(target.as_bytes());
        }
    }
}

/// Whether `raw` is the target already, to the byte.
fn is_target(raw: &[u8], path: &str, query: Option<&str>) -> bool {
    match (raw.strip_prefix(path.as_bytes()), query) {
        (Some(rest), Some(query)) => rest.strip_prefix(b"?") == Some(query.as_bytes()),
        (Some(rest), None) => rest.is_empty(),
        (None, _) => false,
    }
}

fn target<'a>(path: &'a str, query: Option<&str>) -> Cow<'a, str> {
    match query {
        Some(query) => Cow::Owned(format!("{path}?{query}")),
        None => Cow::Borrowed(path),
    }
}

/// `X-Forwarded-For`, `-Proto` and `-Port`, written by us; what trusted hops wrote stays (S-040).
fn forward(admitted: Admitted<'_>, snapshot: &Snapshot, head: &mut RequestHeader) {
    let client = &admitted.request().client;
    let proxy = &snapshot.config.proxy;
    let hops = if client.trusted { proxy.trusted_hops as usize } else { 0 };
    let peer = (!proxy.skip_xff_append).then_some(&admitted.request().peer);
    let chain = if hops == 0 { peer.cloned() } else { chain(head, hops, peer) };
    match chain {
        Some(chain) => set(head, &FORWARDED_FOR, chain),
        None => drop(head.remove_header(&FORWARDED_FOR)),
    }
    set(head, &FORWARDED_PROTO, HeaderValue::from_static(if client.https { "https" } else { "http" }));
    if !(client.trusted && head.headers.contains_key(FORWARDED_PORT)) {
        let default = HeaderValue::from_static(if client.https { "443" } else { "80" });
        set(head, &FORWARDED_PORT, admitted.request().host.port().map_or(default, HeaderValue::from));
    }
}

/// What so many trusted hops wrote, then the peer. Further left than they reach, anybody may have written anything.
fn chain(head: &RequestHeader, hops: usize, peer: Option<&HeaderValue>) -> Option<HeaderValue> {
    let mut chain: Vec<&[u8]> = forwarded_entries(&head.headers).take(hops).collect();
    chain.reverse();
    chain.extend(peer.map(HeaderValue::as_bytes));
    let chain = chain.join(&b", "[..]);
    if chain.is_empty() { None } else { HeaderValue::try_from(chain).ok() }
}

/// The route's own fields, then who asks; then what the route removes, last (01 §2.10).
fn apply_settings(admitted: Admitted<'_>, route: &Route, head: &mut RequestHeader) {
    let assertion = admitted.permit().assertion.as_deref();
    let facts = template::Facts {
        assertion: assertion.map(|assertion| &assertion.token),
        fields: &head.headers,
        client_cert: admitted.permit().client_cert.as_deref().map(ClientCert::facts),
    };
    let settings = route.request_headers.iter().filter_map(|rule| match rule {
        HeaderRule::Set(name, template) if !is_untouchable(name) => Some((name, template::fill(template, &facts))),
        HeaderRule::Set(..) | HeaderRule::Remove(_) => None,
    });
    // All before the first is set: a reference means what the client has sent.
    for (name, value) in settings.collect::<Vec<_>>() {
        match value {
            Some(value) => set(head, name, value),
            // What the client itself said under that name is not ours to pass on.
            None => drop(head.remove_header(name)),
        }
    }
    append_original_host(admitted, route, head);
    if let Some(assertion) = assertion.filter(|_| route.pass_identity_headers) {
        set(head, &ASSERTION_HEADER, assertion.token.clone());
        for (name, value) in &assertion.fields {
            set(head, name, value.clone());
        }
    }
    for rule in &route.request_headers {
        if let HeaderRule::Remove(name) = rule
            && !is_framing(name)
        {
            head.remove_header(name);
        }
    }
}

/// What the upstream is shown of ours, whatever the client showed and the route sets: last, so that nothing takes its place.
fn show_credentials(permit: &Permit, route: &Route, now: Timestamp, head: &mut RequestHeader) {
    let Some(credentials) = &route.credentials else { return };
    if let Some(token) = &credentials.serverless {
        match token.field(now) {
            Some(value) => set(head, &SERVERLESS, value),
            None => drop(head.remove_header(&SERVERLESS)),
        }
    }
    if let Some(fields) = &permit.impersonation {
        let others = head.headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned();
        let ours = fields.iter().map(|(name, _)| name.clone());
        // `Impersonate-Uid` and `Impersonate-Extra-…` would add to whom ours name.
        for name in others.chain(ours).collect::<Vec<_>>() {
            head.remove_header(&name);
        }
        for (name, value) in fields {
            let _appended = head.append_header(name.clone(), value.clone());
        }
    }
}

/// Where the Host changes, the upstream learns the one that was asked for (01 §2.7).
fn append_original_host(admitted: Admitted<'_>, route: &Route, head: &mut RequestHeader) {
    let made = matches!(route.host_rewrite, HostRewrite::Header(_) | HostRewrite::Path(_));
    if route.host_rewrite == HostRewrite::Preserve || (made && admitted.permit().host.is_none()) {
        return;
    }
    let Some(own) = asked_host(admitted, head) else { return };
    let mut hosts: Vec<_> = head.headers.get_all(FORWARDED_HOST).iter().map(HeaderValue::as_bytes).collect();
    if hosts.is_empty() {
        return set(head, &FORWARDED_HOST, own);
    }
    hosts.push(own.as_bytes());
    if let Ok(all) = HeaderValue::try_from(hosts.join(&b", "[..])) {
        set(head, &FORWARDED_HOST, all);
    }
}

/// The host that was asked for, in its one spelling: most clients write it so.
fn asked_host(admitted: Admitted<'_>, head: &RequestHeader) -> Option<HeaderValue> {
    let host = &admitted.request().host;
    let written = head.headers.get(header::HOST).filter(|written| host.is_written_as(written.as_bytes()));
    written.cloned().or_else(|| HeaderValue::try_from(host.to_string()).ok())
}

fn set_host(admitted: Admitted<'_>, route: &Route, authority: &str, head: &mut RequestHeader) {
    match (&route.host_rewrite, &admitted.permit().host) {
        (HostRewrite::Upstream, _) => set_text(head, &header::HOST, authority.to_owned()),
        (HostRewrite::Literal(host), _) => set(head, &header::HOST, HeaderValue::clone(host)),
        (HostRewrite::Header(_) | HostRewrite::Path(_), Some(made)) => set(head, &header::HOST, made.clone()),
        (HostRewrite::Preserve | HostRewrite::Header(_) | HostRewrite::Path(_), _) => {
            if let Some(host) = asked_host(admitted, head) {
                set(head, &header::HOST, host);
            }
        }
    }
}

/// What a route can never set (S-047); the configuration refuses it before.
fn is_untouchable(name: &HeaderName) -> bool {
    is_framing(name) || is_own_family(name.as_str())
}

fn is_framing(name: &HeaderName) -> bool {
    [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION, header::UPGRADE]
        .contains(name)
}

/// What the upstream says to us alone; `Connection` cannot take away what the client needs.
fn consume_hop_by_hop(head: &mut ResponseHeader) {
    let upgraded = head.status == StatusCode::SWITCHING_PROTOCOLS;
    let goes = |name: &HeaderName| match name.as_str() {
        "upgrade" => !upgraded,
        // What follows an upgrade has no frame of HTTP, whatever the upstream says (RFC 9112 §6.1).
        "content-length" | "transfer-encoding" => upgraded,
        _ => is_of_one_connection(name),
    };
    let nominated = nominated(head.headers.get_all(header::CONNECTION)).take(MAX_NOMINATED);
    let nominated: Vec<_> = nominated.filter(|name| !(upgraded && *name == header::UPGRADE)).collect();
    for name in &nominated {
        head.remove_header(name);
    }
    // As in a request, to look at what is there takes less than to look for each.
    while let Some(name) = head.headers.keys().find(|name| goes(name)).cloned() {
        head.remove_header(&name);
    }
    if upgraded {
        put(head, &header::CONNECTION, HeaderValue::from_static("Upgrade"));
    }
}

/// `rewrite_response_headers`, on every field of those names.
fn rewrite(rewrites: &[ResponseRewrite], head: &mut ResponseHeader) {
    for one in rewrites {
        let before: Vec<HeaderValue> = head.headers.get_all(&one.header).iter().cloned().collect();
        if before.iter().all(|value| one.apply(value).is_none()) {
            continue;
        }
        head.remove_header(&one.header);
        for value in before {
            let value = one.apply(&value).unwrap_or(value);
            let _appended = head.append_header(one.header.clone(), value);
        }
    }
}

/// The value of such a field once each rewrite of it was applied, in their order.
fn rewritten(rewrites: &[ResponseRewrite], name: &HeaderName, value: HeaderValue) -> HeaderValue {
    let of_it = rewrites.iter().filter(|rewrite| rewrite.header == *name);
    of_it.fold(value, |value, rewrite| rewrite.apply(&value).unwrap_or(value))
}

/// Cookies of ours and fields of ours that an upstream would set (S-049).
fn drop_own(snapshot: &Snapshot, head: &mut ResponseHeader) {
    let cookies = head.headers.get_all(header::SET_COOKIE);
    if cookies.iter().any(|value| snapshot.cookies.is_set_by(value)) {
        let kept: Vec<_> = cookies.iter().filter(|value| !snapshot.cookies.is_set_by(value)).cloned().collect();
        head.remove_header(&header::SET_COOKIE);
        for value in kept {
            let _appended = head.append_header(header::SET_COOKIE, value);
        }
    }
    let own: Vec<HeaderName> = head.headers.keys().filter(|name| is_own_family(name.as_str())).cloned().collect();
    for name in &own {
        head.remove_header(name);
    }
}

fn set(head: &mut RequestHeader, name: &HeaderName, value: HeaderValue) {
    // Name and value are of the library's own types, so there is nothing left that could be refused.
    let _set = head.insert_header(name.clone(), value);
}

fn set_text(head: &mut RequestHeader, name: &HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        set(head, name, value);
    }
}

fn put(head: &mut ResponseHeader, name: &HeaderName, value: HeaderValue) {
    let _set = head.insert_header(name.clone(), value);
}
