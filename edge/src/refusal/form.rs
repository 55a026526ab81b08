//! Which kind of client asks, and what it can read (01 §4.3, 02 §1.3).

use http::header;
use http::{HeaderName, Method};
use pingora_http::RequestHeader;

use super::Asked;

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A page.
    Page,
    /// A JSON object.
    Json,
    /// The same JSON, as text.
    Plain,
    /// The `Status` of a Kubernetes API.
    Kubernetes,
    /// A gRPC status in the head.
    Grpc,
    /// The same for gRPC-Web.
    GrpcWeb,
}

impl Form {
    /// The form that this client is told a denial in.
    pub(crate) fn of(head: &RequestHeader) -> Self {
        if is_kubernetes(head) {
            return Self::Kubernetes;
        }
        match Media::preferred(head) {
            Some(Media::Json) => Self::Json,
            _ if grpc(head) == Some(Self::Grpc) => Self::Grpc,
            _ if grpc(head) == Some(Self::GrpcWeb) => Self::GrpcWeb,
            Some(Media::Plain) => Self::Plain,
            Some(Media::Html | Media::Grpc) | None => Self::Page,
        }
    }

    /// The form for a program that is not signed in: never a page.
    pub(crate) fn for_program(head: &RequestHeader) -> Self {
        match Self::of(head) {
            Self::Page => Self::Json,
            other @ (Self::Json | Self::Plain | Self::Kubernetes | Self::Grpc | Self::GrpcWeb) => other,
        }
    }
}

/// Whether a client of a Kubernetes API asks.
fn is_kubernetes(head: &RequestHeader) -> bool {
    let agent = head.headers.get(header::USER_AGENT).map_or(&b""[..], |value| value.as_bytes());
    agent.windows(b"kubernetes/".len()).any(|window| window == b"kubernetes/")
}

/// Whether whoever asks can be sent to sign in (rulings): a browser that navigates here, or a client of a route of tunnels, which
/// sends a browser (02 §5.2).
pub(crate) fn may_redirect(asked: &Asked<'_>) -> bool {
    let head = asked.head;
    // Nobody browses to what a connection becomes.
    let is_upgrade = head.method == Method::CONNECT || head.headers.contains_key(header::UPGRADE);
    let is_tunnel = asked.tunnel().is_some();
    if asked.programmatic || is_kubernetes(head) || grpc(head).is_some() || is_upgrade && !is_tunnel {
        return false;
    }
    match head.headers.get(FETCH_MODE) {
        Some(mode) => mode.as_bytes() == b"navigate",
        None => matches!(Media::preferred(head), None | Some(Media::Html)),
    }
}

/// Whether the client says outright that a person will read the answer.
pub(crate) fn wants_page(head: &RequestHeader) -> bool {
    match head.headers.get(FETCH_MODE) {
        Some(mode) => mode.as_bytes() == b"navigate",
        None => ranges(head).iter().any(|range| range.media == "text/html"),
    }
}

/// Whether a redirect keeps the method harmless (S-087): else it is 303.
pub(crate) fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Whether it is a call that may be answered while it is still sent, as gRPC and Connect know them.
pub(crate) fn streams_both_ways(head: &RequestHeader) -> bool {
    let kind = head.headers.get(header::CONTENT_TYPE).map_or(&[][..], |kind| kind.as_bytes());
    matches!(grpc(head), Some(Form::Grpc)) || kind.starts_with(b"application/connect+")
}

/// By content type: gRPC, gRPC-Web, or neither.
pub(crate) fn grpc(head: &RequestHeader) -> Option<Form> {
    let value = head.headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let media = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is = |name: &str| media.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('+'));
    if is("application/grpc") {
        Some(Form::Grpc)
    } else if is("application/grpc-web") || is("application/grpc-web-text") {
        Some(Form::GrpcWeb)
    } else {
        None
    }
}

/// The media types that answers come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Media {
    Html,
    Json,
    Plain,
    Grpc,
}

const SUPPORTED: [(&str, Media); 7] = [
    ("text/html", Media::Html),
    ("application/json", Media::Json),
    ("text/plain", Media::Plain),
    ("application/grpc", Media::Grpc),
    ("application/grpc-web", Media::Grpc),
    ("application/grpc-web+json", Media::Grpc),
    ("application/grpc-web-text", Media::Grpc),
];

impl Media {
    /// The first supported one by `Accept`; `None` if it is missing, unreadable or names none of ours.
    fn preferred(head: &RequestHeader) -> Option<Self> {
        let mut ranges = ranges(head);
        ranges.sort_by_key(|range| std::cmp::Reverse((range.weight, range.specificity())));
        ranges.iter().find_map(|range| SUPPORTED.iter().find(|(name, _)| range.covers(name)).map(|(_, media)| *media))
    }
}

/// One media range of `Accept`.
struct Range {
    media: String,
    /// In thousandths.
    weight: u16,
    parameters: usize,
}

impl Range {
    fn covers(&self, name: &str) -> bool {
        let family = self.media.strip_suffix("/*");
        self.media == "*/*"
            || self.media == name
            || family.is_some_and(|family| name.strip_prefix(family).is_some_and(|rest| rest.starts_with('/')))
    }

    fn specificity(&self) -> (u8, usize) {
        let kind = match self.media.as_str() {
            "*/*" => 0,
            media if media.ends_with("/*") => 1,
            _ => 2,
        };
        (kind, self.parameters)
    }
}

/// The ranges of all `Accept` fields; none if one of them cannot be read. Longer lists are cut.
fn ranges(head: &RequestHeader) -> Vec<Range> {
    let fields = head.headers.get_all(header::ACCEPT).iter().map(|value| value.to_str().ok());
    let Some(fields) = fields.collect::<Option<Vec<_>>>() else { return Vec::new() };
    let items = fields.into_iter().flat_map(|field| field.split(',')).map(str::trim).filter(|item| !item.is_empty());
    items.take(64).map(range).collect::<Option<Vec<_>>>().unwrap_or_default()
}

fn range(item: &str) -> Option<Range> {
    let mut parts = item.split(';').map(str::trim);
    let media = parts.next()?.to_ascii_lowercase();
    let (family, kind) = media.split_once('/')?;
    if family.is_empty() || kind.is_empty() || (family == "*" && kind != "*") {
        return None;
    }
    let mut range = Range { weight: 1000, parameters: 0, media };
    for part in parts {
        match part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")) {
            // As clients of the reference know it, a weight of zero counts as one (01 §4.3).
            Some(weight) => range.weight = Some(thousandths(weight)?).filter(|weight| *weight > 0).unwrap_or(1000),
            None => range.parameters += 1,
        }
    }
    Some(range)
}

/// RFC 9110 §12.4.2: `0`, `1`, or up to three decimals of them.
fn thousandths(weight: &str) -> Option<u16> {
    let (whole, decimals) = weight.split_once('.').unwrap_or((weight, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let decimals: u16 = format!("{decimals:0<3}").parse().ok()?;
    match (whole, decimals) {
        ("0", part) => Some(part),
        ("1", 0) => Some(1000),
        _ => None,
    }
}
