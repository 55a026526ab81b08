//! Wire head and connection become one [`Request`]: one spelling of host, path and client for HTTP/1 and HTTP/2 alike
//! (S-016). What cannot be made canonical is refused; nobody behind this step reads the head to decide anything that is here.

mod client;
mod datagrams;
mod fields;
mod host;
mod path;
#[cfg(test)]
mod tests;
mod text;
mod upgrade;

use std::borrow::Cow;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, StatusCode, Version, header};
use pingora_http::RequestHeader;
use pingora_http::authority::{RawTargetAuthority, raw_target_authority};
use postern_policy::IpMatcher;

pub use client::Client;
pub(crate) use client::entries as forwarded_entries;
pub(crate) use datagrams::CONNECT_UDP;
pub use datagrams::connect_udp_path;
pub(crate) use fields::{FieldRules, is_own_family};
use fields::{Kind, Spelling};
pub(crate) use host::HostName;
pub use host::{Host, HostError};
use path::is_canonical;
pub(crate) use path::lenient_reading;
pub use path::{CanonicalPath, PathError};
pub use text::Text;
pub use upgrade::{Upgrade, is_upgrade};

use crate::listener::Limits;
use crate::route::Carries;
use crate::{Connection, EscapedSlashes, PathConfig, Violation};

/// One request, in its one spelling.
#[derive(Clone, Debug)]
pub struct Request {
    /// As sent, and `GET` of a WebSocket or of CONNECT-UDP over HTTP/2 (RFC 8441, RFC 9298); never `TRACE`, and `CONNECT` of a
    /// connection alone.
    pub method: Method,
    /// Who is meant.
    pub host: Host,
    /// The canonical path; `*` for `OPTIONS *`, empty of a connection.
    pub path: Text,
    /// The query, byte for byte.
    pub query: Option<Text>,
    /// Who asks.
    pub client: Client,
    /// What its connection is asked to become, in the order of the client's wishes; of most requests nothing.
    pub upgrades: Vec<Upgrade>,
    /// What it asks for in place of an answer; most ask for none.
    pub tunnel: Option<Destination>,
    /// `OPTIONS` with `Origin` and `Access-Control-Request-Method` (S-035).
    pub cors_preflight: bool,
    /// Encoded slashes were decoded, and the configuration wants the client to come back with the decoded path.
    pub redirect_to_canonical: bool,
    /// The peer of the client, as a field has it.
    pub(crate) peer: HeaderValue,
    /// Fields of the head that never go up.
    pub(crate) strip: Vec<HeaderName>,
    /// Fields of the head that do not go up where identity is passed.
    pub(crate) strip_with_identity: Vec<HeaderName>,
}

/// Where a tunnel is to lead, as a request has it (S-105).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// What is to go through it.
    pub carries: Carries,
    /// A host, with its port; `None`: the request names none.
    pub to: Option<Host>,
}

/// Why a request is not read (400, 405, 414, 417, 421 or 431).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// Found by the head guard, in the bytes.
    #[error("the request is malformed: {}", .0.reason())]
    Bytes(Violation),
    /// Neither origin-form nor absolute-form with http or https, nor `*` with OPTIONS.
    #[error("the request target has a form that is not served")]
    Form,
    /// Path or query over its limit.
    #[error("the request target is too long")]
    TargetTooLong,
    /// Path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A byte outside of `0x21-0x7e` in the query.
    #[error("the query has a byte that no query may have")]
    Query,
    /// Host.
    #[error(transparent)]
    Host(#[from] HostError),
    /// No authority where there must be one, two, or two that differ.
    #[error("the request does not name exactly one host")]
    Authority,
    /// `CONNECT` or `TRACE` (S-018).
    #[error("the method is not served")]
    Method,
    /// Too many fields, one that is too large, or all of them.
    #[error("the request head is too large")]
    HeadTooLarge,
    /// A control byte in a value.
    #[error("a field value has a control byte")]
    FieldValue,
    /// An underscore in a name, and the configuration refuses them.
    #[error("a field name has an underscore")]
    Underscore,
    /// An odd spelling of a name that means something to us (S-048).
    #[error("a field name is a variant of a reserved name")]
    ReservedVariant,
    /// A field of the connection in HTTP/2, or a `TE` other than `trailers` there (S-014); too many names in `Connection`.
    #[error("a field of the connection is not in order")]
    ConnectionField,
    /// Content-Length is not 1 to 18 digits, once (S-004), or stands beside Transfer-Encoding (S-002).
    #[error("the length of the body is not clear")]
    Framing,
    /// The body is larger than its route takes.
    #[error("the body is too large")]
    BodyTooLarge,
    /// What follows a CONNECT-UDP is no capsule, or none that may be (RFC 9297 §3.3, RFC 9298 §5).
    #[error("a capsule is not in order")]
    Capsule,
    /// An `Expect` other than one `100-continue` (RFC 9110 §10.1.1): upstreams differ in what they make of it (S-008).
    #[error("an expectation cannot be met")]
    Expectation,
}

impl BadRequest {
    /// The status of the answer.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Bytes(violation) => violation.status(),
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Form
            | Self::Path(_)
            | Self::Query
            | Self::Host(_)
            | Self::Authority
            | Self::FieldValue
            | Self::Underscore
            | Self::ReservedVariant
            | Self::ConnectionField
            | Self::Capsule
            | Self::Framing => StatusCode::BAD_REQUEST,
        }
    }

    /// The stable reason code.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Bytes(violation) => violation.reason(),
            Self::Form => "target-form",
            Self::TargetTooLong => "request-target-too-long",
            Self::Path(error) => error.reason(),
            Self::Query => "query-byte",
            Self::Host(error) => error.reason(),
            Self::Authority => "authority",
            Self::Method => "method-not-served",
            Self::HeadTooLarge => "head-too-large",
            Self::FieldValue => "malformed-field",
            Self::Underscore => "field-underscore",
            Self::ReservedVariant => "field-reserved-variant",
            Self::ConnectionField => "connection-field",
            Self::Framing => "content-length",
            Self::Capsule => "malformed-capsule",
            Self::Expectation => "expectation",
            Self::BodyTooLarge => "body-too-large",
        }
    }
}

/// What reading a request depends on.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestRules {
    pub(crate) path: PathConfig,
    pub(crate) trusted_hops: u32,
    pub(crate) trusted_peers: Option<IpMatcher>,
    pub(crate) fields: FieldRules,
    pub(crate) limits: Limits,
    /// Some route is for connections.
    pub(crate) tunnels: bool,
}

impl RequestRules {
    /// How many hops are believed of what comes from this peer (S-040).
    fn hops(&self, connection: &Connection) -> u32 {
        let is_trusted = self.trusted_peers.as_ref().is_none_or(|peers| peers.contains(connection.peer.ip()));
        if is_trusted { self.trusted_hops } else { 0 }
    }
}

impl Request {
    /// The canonical request of a head, whatever version carried it.
    pub(crate) fn read(
        head: &RequestHeader,
        connection: &Connection,
        rules: &RequestRules,
    ) -> Result<Self, BadRequest> {
        if let Some(violation) = connection.violation() {
            return Err(BadRequest::Bytes(violation));
        }
        let (websocket, udp) = (asks_over_h2(head, Upgrade::WEBSOCKET), asks_over_h2(head, CONNECT_UDP));
        match head.method {
            Method::CONNECT if websocket || udp => {}
            Method::CONNECT if rules.tunnels && !is_extended(head) => {
                return Self::read_tunnel(head, connection, rules);
            }
            Method::CONNECT | Method::TRACE => return Err(BadRequest::Method),
            _ => {}
        }
        let target = Target::read(head)?;
        let host = read_host(head, target.authority)?;
        let written = head.uri.path_and_query().ok_or(BadRequest::Form)?;
        let query = read_query(written, &rules.limits)?;
        let (path, unescaped) = read_path(written, &target, rules)?;
        refuse_unclear_framing(head)?;
        if head.method == Method::CONNECT && has_body(head) {
            // What follows is the WebSocket, or capsules.
            return Err(BadRequest::Framing);
        }
        refuse_odd_expectations(head)?;
        let client = Client::behind(rules.hops(connection), connection, &head.headers);
        let upgrades = if websocket { vec![Upgrade::websocket()] } else { Upgrade::asked(head) };
        let tunnel = if udp {
            Some(Destination { carries: Carries::Datagrams, to: datagrams::target(&path) })
        } else {
            datagrams_over_h1(head, &upgrades, &path)
        };
        let mut request = Self {
            method: if websocket || udp { Method::GET } else { head.method.clone() },
            host,
            query,
            client,
            upgrades,
            tunnel,
            cors_preflight: is_cors_preflight(head),
            redirect_to_canonical: unescaped
                && rules.path.escaped_slashes == EscapedSlashes::UnescapeAndRedirect
                && matches!(head.method, Method::GET | Method::HEAD),
            path,
            peer: connection.peer_field(),
            strip: Vec::new(),
            strip_with_identity: Vec::new(),
        };
        request.judge_fields(head, rules)?;
        request.strip_nominated(head)?;
        Ok(request)
    }

    /// A request for a connection, which names where to and nothing else (RFC 9110 §9.3.6).
    fn read_tunnel(head: &RequestHeader, connection: &Connection, rules: &RequestRules) -> Result<Self, BadRequest> {
        let h2 = head.version == Version::HTTP_2;
        if h2 && (head.uri.scheme().is_some() || head.uri.path_and_query().is_some()) {
            return Err(BadRequest::Form);
        }
        let authority = head.uri.authority().map(|authority| authority.as_str().as_bytes());
        let host = read_host(head, if h2 { authority } else { Some(head.raw_path()) })?;
        if host.port().is_none() {
            return Err(BadRequest::Form);
        }
        refuse_unclear_framing(head)?;
        if [header::CONTENT_LENGTH, header::TRANSFER_ENCODING].iter().any(|name| head.headers.contains_key(name)) {
            return Err(BadRequest::Framing);
        }
        refuse_odd_expectations(head)?;
        let mut request = Self {
            method: Method::CONNECT,
            tunnel: Some(Destination { carries: Carries::Connections, to: Some(host.clone()) }),
            host,
            path: String::new().into(),
            query: None,
            client: Client::behind(rules.hops(connection), connection, &head.headers),
            upgrades: Vec::new(),
            cors_preflight: false,
            redirect_to_canonical: false,
            peer: connection.peer_field(),
            strip: Vec::new(),
            strip_with_identity: Vec::new(),
        };
        request.judge_fields(head, rules)?;
        request.strip_nominated(head)?;
        Ok(request)
    }

    /// The path with its escapes decoded, as `http_path` criteria read it.
    #[must_use]
    pub fn decoded_path(&self) -> Cow<'_, str> {
        // A canonical path is valid UTF-8 once decoded.
        percent_encoding::percent_decode_str(&self.path).decode_utf8().unwrap_or_default()
    }

    /// `path?query`, as it goes up when nothing rewrites it.
    #[must_use]
    pub fn path_and_query(&self) -> Cow<'_, str> {
        match &self.query {
            Some(query) => Cow::Owned(format!("{}?{query}", self.path)),
            None => Cow::Borrowed(self.path.as_str()),
        }
    }

    /// The address of this request as the browser sees it; always https (01 §1.3).
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}{}", self.host, self.path_and_query())
    }

    fn judge_fields(&mut self, head: &RequestHeader, rules: &RequestRules) -> Result<(), BadRequest> {
        let (mut count, mut total) = (0_usize, 0_usize);
        for (name, value) in &head.headers {
            let size = name.as_str().len() + value.len() + 4;
            count += 1;
            total += size;
            if size > rules.limits.field || total > rules.limits.head || count > rules.limits.fields {
                return Err(BadRequest::HeadTooLarge);
            }
            if has_control(value.as_bytes()) {
                return Err(BadRequest::FieldValue);
            }
            match rules.fields.judge(name) {
                Spelling::Judge(kind) => self.sort_out(name, kind),
                Spelling::Drop => self.strip.push(name.clone()),
                Spelling::Underscore => return Err(BadRequest::Underscore),
                Spelling::Variant => return Err(BadRequest::ReservedVariant),
            }
        }
        Ok(())
    }

    /// What the client's `Connection` names is for us alone, as far as the client may say so (S-039).
    fn strip_nominated(&mut self, head: &RequestHeader) -> Result<(), BadRequest> {
        for (at, name) in nominated(head.headers.get_all(header::CONNECTION)).enumerate() {
            if at >= MAX_NOMINATED {
                return Err(BadRequest::ConnectionField);
            }
            self.strip.push(name);
        }
        Ok(())
    }

    fn sort_out(&mut self, name: &HeaderName, kind: Kind) {
        match kind {
            Kind::Plain | Kind::Message => {}
            Kind::Reserved => self.strip.push(name.clone()),
            Kind::Forwarding | Kind::ForwardingIdentity if !self.client.trusted => self.strip.push(name.clone()),
            Kind::Forwarding => {}
            Kind::ForwardingIdentity | Kind::Identity => self.strip_with_identity.push(name.clone()),
        }
    }
}

/// Of what rewriting makes.
pub(crate) const MAX_TARGET: usize = 16 * 1024;

/// The request target, split by its form (03 §3.1 step 1).
struct Target<'h> {
    authority: Option<&'h [u8]>,
    asterisk: bool,
}

impl<'h> Target<'h> {
    fn read(head: &'h RequestHeader) -> Result<Self, BadRequest> {
        let raw = head.raw_path();
        let plain = Self { authority: None, asterisk: false };
        match raw.first() {
            _ if !head.raw_path_is_utf8() => Err(BadRequest::Path(PathError::Byte)),
            Some(b'/') => Ok(plain),
            Some(b'*') if raw == b"*" && head.method == Method::OPTIONS => Ok(Self { asterisk: true, ..plain }),
            _ if head.version == Version::HTTP_2 => Err(BadRequest::Form),
            _ => match raw_target_authority(raw) {
                RawTargetAuthority::Absolute { scheme, authority, .. } if is_http(scheme) => {
                    Ok(Self { authority: Some(authority), asterisk: false })
                }
                RawTargetAuthority::Absolute { .. }
                | RawTargetAuthority::None
                | RawTargetAuthority::AmbiguousAuthority => Err(BadRequest::Form),
            },
        }
    }
}

fn is_http(scheme: &[u8]) -> bool {
    scheme.eq_ignore_ascii_case(b"https") || scheme.eq_ignore_ascii_case(b"http")
}

/// 03 §3.2 step 1.
fn read_host(head: &RequestHeader, absolute: Option<&[u8]>) -> Result<Host, BadRequest> {
    let mut fields = head.headers.get_all(header::HOST).iter();
    let (field, second) = (fields.next(), fields.next());
    if second.is_some() {
        return Err(BadRequest::Authority);
    }
    let field = field.map(|value| Host::parse(value.as_bytes())).transpose()?;
    let target = match (absolute, head.uri.authority()) {
        (Some(authority), _) => Some(authority),
        (None, pseudo) => pseudo.map(|authority| authority.as_str().as_bytes()),
    };
    if head.version == Version::HTTP_2 {
        if target.is_none() {
            return Err(BadRequest::Authority);
        }
        if head.uri.scheme_str().is_some_and(|scheme| !is_http(scheme.as_bytes())) {
            return Err(BadRequest::Form);
        }
    }
    match (target.map(Host::parse).transpose()?, field) {
        (Some(target), Some(field)) if target != field => Err(BadRequest::Authority),
        (Some(host), _) | (None, Some(host)) => Ok(host),
        (None, None) if head.version == Version::HTTP_10 => Ok(Host::unnamed()),
        (None, None) => Err(BadRequest::Authority),
    }
}

fn read_query(written: &PathAndQuery, limits: &Limits) -> Result<Option<Text>, BadRequest> {
    let Some(query) = Text::query_of(written) else { return Ok(None) };
    if query.len() > limits.target {
        return Err(BadRequest::TargetTooLong);
    }
    if is_query(&query) { Ok(Some(query)) } else { Err(BadRequest::Query) }
}

/// Whether every byte of it may be in a query.
pub(crate) fn is_query(query: &str) -> bool {
    query.bytes().all(|byte| matches!(byte, 0x21..=0x7e) && byte != b'#')
}

/// The canonical path, and whether encoded slashes were decoded in it.
fn read_path(written: &PathAndQuery, target: &Target<'_>, rules: &RequestRules) -> Result<(Text, bool), BadRequest> {
    if target.asterisk {
        return Ok(("*".to_owned().into(), false));
    }
    let path = written.path();
    if path.len() > rules.limits.target {
        return Err(BadRequest::TargetTooLong);
    }
    if is_canonical(path.as_bytes()) {
        return Ok((Text::path_of(written), false));
    }
    let CanonicalPath { text, unescaped } = CanonicalPath::parse(path.as_bytes(), &rules.path)?;
    Ok((text.into(), unescaped))
}

/// Whether it is an extended CONNECT (RFC 8441), to whatever protocol.
fn is_extended(head: &RequestHeader) -> bool {
    head.extensions.get::<h2::ext::Protocol>().is_some()
}

/// Whether it asks for a protocol in the way of HTTP/2.
fn asks_over_h2(head: &RequestHeader, token: &str) -> bool {
    let protocol = || head.extensions.get::<h2::ext::Protocol>();
    head.method == Method::CONNECT && protocol().is_some_and(|protocol| protocol.as_str() == token)
}

/// What an upgrade asks for that names a host and a port in its path; where no route is for them it is one like any other
/// (RFC 9298 §3.2).
fn datagrams_over_h1(head: &RequestHeader, upgrades: &[Upgrade], path: &str) -> Option<Destination> {
    let asks = head.method == Method::GET && upgrades.iter().any(|upgrade| upgrade.is(CONNECT_UDP));
    let to = if asks { datagrams::target(path) } else { None };
    to.map(|to| Destination { carries: Carries::Datagrams, to: Some(to) })
}

/// Whether a body is announced; one of no bytes is none.
pub(crate) fn has_body(head: &RequestHeader) -> bool {
    let mut lengths = head.headers.get_all(header::CONTENT_LENGTH).iter();
    head.headers.contains_key(header::TRANSFER_ENCODING)
        || lengths.any(|length| length.as_bytes().iter().any(|digit| *digit != b'0'))
}

/// The head guard has seen the bytes of HTTP/1 already; this is what both versions are held to (S-016).
fn refuse_unclear_framing(head: &RequestHeader) -> Result<(), BadRequest> {
    let fields = &head.headers;
    if head.version == Version::HTTP_2 {
        let alien = [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE];
        let te = fields.get_all(header::TE).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"trailers"));
        if te
            || alien.iter().any(|name| fields.contains_key(name))
            || CONNECTION_ONLY.iter().any(|name| fields.contains_key(*name))
        {
            return Err(BadRequest::ConnectionField);
        }
    }
    let mut lengths = fields.get_all(header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Ok(()) };
    let digits = (1..=18).contains(&length.len()) && length.as_bytes().iter().all(u8::is_ascii_digit);
    if !digits || lengths.next().is_some() || fields.contains_key(header::TRANSFER_ENCODING) {
        return Err(BadRequest::Framing);
    }
    Ok(())
}

fn refuse_odd_expectations(head: &RequestHeader) -> Result<(), BadRequest> {
    let mut expectations = head.headers.get_all(header::EXPECT).iter();
    let known = expectations.next().is_none_or(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if known && expectations.next().is_none() { Ok(()) } else { Err(BadRequest::Expectation) }
}

const CONNECTION_ONLY: [&str; 2] = ["keep-alive", "proxy-connection"];

fn has_control(value: &[u8]) -> bool {
    value.iter().fold(false, |found, byte| found | (*byte < 0x20 && *byte != b'\t') | (*byte == 0x7f))
}

pub(crate) fn has_token(head: &RequestHeader, name: HeaderName, token: &[u8]) -> bool {
    head.headers.get_all(name).iter().any(|value| tokens(value).any(|found| found.eq_ignore_ascii_case(token)))
}

pub(crate) fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// More names in `Connection` than this are not looked at.
pub(crate) const MAX_NOMINATED: usize = 64;

/// The fields that `Connection` names and may remove: never those that say who is meant, who asks, how long it is or how
/// it came here. What keeps the connection, as most name it, goes in any case.
pub(crate) fn nominated(fields: header::GetAll<'_, HeaderValue>) -> impl Iterator<Item = HeaderName> {
    let tokens = fields.into_iter().flat_map(tokens).filter(|token| !token.eq_ignore_ascii_case(b"keep-alive"));
    let names = tokens.filter_map(|token| HeaderName::from_bytes(token).ok());
    names.filter(|name| !KEPT.contains(name) && !name.as_str().starts_with("x-forwarded-"))
}

const KEPT: [HeaderName; 10] = [
    header::HOST,
    header::COOKIE,
    header::AUTHORIZATION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::SET_COOKIE,
    header::LOCATION,
    header::CACHE_CONTROL,
];

fn is_cors_preflight(head: &RequestHeader) -> bool {
    let says = |name| head.headers.get(name).is_some_and(|value| !value.is_empty());
    head.method == Method::OPTIONS && says(header::ORIGIN) && says(header::ACCESS_CONTROL_REQUEST_METHOD)
}
