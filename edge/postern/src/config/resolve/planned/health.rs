//! Asking endpoints how they are: `health_checks` (01 §2.11).

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::keys::{
    GRPC_HEALTH_CHECK, HEADER, HEADER_OPTION, HEALTH_CHECK, HTTP_HEALTH_CHECK, PAYLOAD, STATUS_RANGE, TCP_HEALTH_CHECK,
};
use crate::config::resolve::headers;
use crate::config::value::{Field, Spanned, quoted};

/// An entry of `health_checks`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// How long an answer may take.
    pub timeout: Duration,
    /// How often is asked.
    pub interval: Duration,
    /// After so many failures an endpoint is out.
    pub unhealthy_threshold: u32,
    /// After so many successes it is in again.
    pub healthy_threshold: u32,
    /// What is asked.
    pub probe: Probe,
    /// `initial_jitter`, `interval_jitter`.
    pub jitter: (Duration, Duration),
    /// `interval_jitter_percent`.
    pub jitter_percent: u32,
    /// `no_traffic_interval`: how often, while nobody uses the route.
    pub no_traffic_interval: Duration,
    /// `no_traffic_healthy_interval`.
    pub no_traffic_healthy_interval: Option<Duration>,
    /// `unhealthy_interval`.
    pub unhealthy_interval: Option<Duration>,
    /// `unhealthy_edge_interval`: before the first look after a failure.
    pub unhealthy_edge_interval: Option<Duration>,
    /// `healthy_edge_interval`.
    pub healthy_edge_interval: Option<Duration>,
    /// `alt_port`: another port than that of requests.
    pub port: Option<u16>,
    /// `reuse_connection`.
    pub reuse_connection: bool,
    /// `always_log_health_check_failures` and `_success`.
    pub log: (bool, bool),
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// `http_health_check`.
    Http(HttpCheck),
    /// `tcp_health_check`.
    Tcp(TcpCheck),
    /// `grpc_health_check`.
    Grpc(GrpcCheck),
}

/// `http_health_check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCheck {
    /// `host`; `None` is that of the endpoint.
    pub host: Option<String>,
    /// `path`.
    pub path: String,
    /// `method`.
    pub method: http::Method,
    /// `send`.
    pub send: Option<Payload>,
    /// `receive`: what must be in the answer.
    pub receive: Vec<Payload>,
    /// `expected_statuses`; none: 200.
    pub expected: Vec<StatusRange>,
    /// `retriable_statuses`: they count as failures, and not at once.
    pub retriable: Vec<StatusRange>,
    /// `request_headers_to_add`.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// `request_headers_to_remove`.
    pub remove: Vec<HeaderName>,
    /// `codec_client_type: http2`.
    pub http2: bool,
}

/// `tcp_health_check`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TcpCheck {
    /// `send`; `None`: connecting is enough.
    pub send: Option<Payload>,
    /// `receive`, in this order.
    pub receive: Vec<Payload>,
}

/// `grpc_health_check`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrpcCheck {
    /// `service_name`; empty is the whole server.
    pub service: String,
    /// `authority`.
    pub authority: Option<String>,
    /// `initial_metadata`.
    pub metadata: Vec<(HeaderName, HeaderValue)>,
}

/// Bytes on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload(pub Vec<u8>);

/// Statuses from `start` to the one before `end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusRange {
    /// The first.
    pub start: u16,
    /// The first that is no part of it.
    pub end: u16,
}

const NO_TRAFFIC: Duration = Duration::from_secs(60);

pub(super) fn resolve(cx: &mut Context<'_>, route: &Block<'_>) -> Vec<HealthCheck> {
    let blocks = route.list(cx, "health_checks", &HEALTH_CHECK);
    blocks.iter().filter_map(|block| check(cx, block)).collect()
}

fn check(cx: &mut Context<'_>, block: &Block<'_>) -> Option<HealthCheck> {
    let timeout = required(cx, block, "timeout", |cx, field| field.seconds(cx));
    let interval = required(cx, block, "interval", |cx, field| field.seconds(cx));
    let unhealthy_threshold = required(cx, block, "unhealthy_threshold", |cx, field| field.number(cx));
    let healthy_threshold = required(cx, block, "healthy_threshold", |cx, field| field.number(cx));
    let probe = probe(cx, block);
    let jitter = ["initial_jitter", "interval_jitter"].map(|key| block.seconds(cx, key).unwrap_or_default());
    let port = block.find("alt_port").and_then(|field| field.within(cx, 0, u16::MAX.into()));
    Some(HealthCheck {
        jitter: jitter.into(),
        jitter_percent: block.number(cx, "interval_jitter_percent").unwrap_or(0),
        no_traffic_interval: block.seconds(cx, "no_traffic_interval").unwrap_or(NO_TRAFFIC),
        no_traffic_healthy_interval: block.seconds(cx, "no_traffic_healthy_interval"),
        unhealthy_interval: block.seconds(cx, "unhealthy_interval"),
        unhealthy_edge_interval: block.seconds(cx, "unhealthy_edge_interval"),
        healthy_edge_interval: block.seconds(cx, "healthy_edge_interval"),
        port: port.filter(|port| *port > 0),
        reuse_connection: block.boolean(cx, "reuse_connection").unwrap_or(true),
        log: (block.flag(cx, "always_log_health_check_failures"), block.flag(cx, "always_log_health_check_success")),
        timeout: timeout?,
        interval: interval?,
        unhealthy_threshold: unhealthy_threshold?,
        healthy_threshold: healthy_threshold?,
        probe: probe?,
    })
}

fn required<T>(
    cx: &mut Context<'_>,
    block: &Block<'_>,
    key: &str,
    read: impl Fn(&mut Context<'_>, &Field<'_>) -> Option<T>,
) -> Option<T> {
    let Some(field) = block.find(key) else {
        let what = format!("a health check has no `{key}`");
        cx.fatal(Code::MissingKey, &block.at(key), what, "write `timeout`, `interval` and both thresholds");
        return None;
    };
    read(cx, field)
}

/// Exactly one of the three.
fn probe(cx: &mut Context<'_>, block: &Block<'_>) -> Option<Probe> {
    let http = block.inner(cx, "http_health_check", &HTTP_HEALTH_CHECK);
    let tcp = block.inner(cx, "tcp_health_check", &TCP_HEALTH_CHECK);
    let grpc = block.inner(cx, "grpc_health_check", &GRPC_HEALTH_CHECK);
    match (http, tcp, grpc) {
        (Some(http), None, None) => self::http(cx, &http).map(Probe::Http),
        (None, Some(tcp), None) => {
            let send = tcp.inner(cx, "send", &PAYLOAD);
            let receive = tcp.list(cx, "receive", &PAYLOAD);
            let send = send.and_then(|block| payload(cx, &block));
            Some(Probe::Tcp(TcpCheck {
                send,
                receive: receive.iter().filter_map(|block| payload(cx, block)).collect(),
            }))
        }
        (None, None, Some(grpc)) => Some(Probe::Grpc(GrpcCheck {
            service: grpc.text(cx, "service_name").unwrap_or_default(),
            authority: super::host(cx, &grpc, "authority"),
            metadata: added(cx, &grpc, "initial_metadata"),
        })),
        (None, None, None) => {
            let what = "a health check does not say what to ask";
            let hint = "add `http_health_check: {path: /healthz}`, `tcp_health_check: {}` or `grpc_health_check: {}`";
            cx.fatal(Code::MissingKey, &block.at, what, hint);
            None
        }
        (_, _, _) => {
            let what = "a health check asks one thing, and this one says several";
            cx.fatal(Code::Conflict, &block.at, what, "write each as an entry of its own");
            None
        }
    }
}

fn http(cx: &mut Context<'_>, block: &Block<'_>) -> Option<HttpCheck> {
    let path = block.filled(cx, "path");
    if path.as_ref().is_none_or(|path| !path.value.starts_with('/')) {
        let what = "`http_health_check` needs a path that begins with `/`";
        cx.fatal(Code::MissingKey, &block.at("path"), what, "write `path: /healthz`, for example");
    }
    let methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "METHOD_UNSPECIFIED"];
    let method = block.choice(cx, "method", "", &methods.map(|name| (name, name)));
    let method = method.filter(|name| *name != "METHOD_UNSPECIFIED").and_then(|name| name.parse().ok());
    let send = block.inner(cx, "send", &PAYLOAD);
    let receive = block.list(cx, "receive", &PAYLOAD);
    let expected = block.list(cx, "expected_statuses", &STATUS_RANGE);
    let retriable = block.list(cx, "retriable_statuses", &STATUS_RANGE);
    let codecs = [("http1", false), ("http2", true), ("http3", true)];
    let remove = block.texts(cx, "request_headers_to_remove").unwrap_or_default();
    Some(HttpCheck {
        host: super::host(cx, block, "host"),
        method: method.unwrap_or_default(),
        send: send.and_then(|block| payload(cx, &block)),
        receive: receive.iter().filter_map(|block| payload(cx, block)).collect(),
        expected: expected.iter().filter_map(|block| statuses(cx, block)).collect(),
        retriable: retriable.iter().filter_map(|block| statuses(cx, block)).collect(),
        add: added(cx, block, "request_headers_to_add"),
        remove: remove.iter().filter_map(|name| headers::header_name(cx, name)).collect(),
        http2: block.choice(cx, "codec_client_type", "", &codecs).unwrap_or(false),
        path: path?.value,
    })
}

/// Envoy's own form of headers: `{header: {key, value}}`.
fn added(cx: &mut Context<'_>, block: &Block<'_>, key: &str) -> Vec<(HeaderName, HeaderValue)> {
    let options = block.list(cx, key, &HEADER_OPTION);
    let mut found = Vec::new();
    for option in options {
        let header = option.inner(cx, "header", &HEADER);
        let Some((header, name)) = header.and_then(|header| Some((header.clone(), header.filled(cx, "key")?))) else {
            cx.fatal(
                Code::MissingKey,
                &option.at,
                "a header has no name",
                "write `{header: {key: NAME, value: TEXT}}`",
            );
            continue;
        };
        let value = header.text(cx, "value").unwrap_or_default();
        let value = Spanned { at: header.at("value"), value };
        let (name, text) = (headers::header_name(cx, &name), headers::header_value(cx, &value, &value.value));
        found.extend(name.zip(text));
    }
    found
}

fn statuses(cx: &mut Context<'_>, block: &Block<'_>) -> Option<StatusRange> {
    let start = required(cx, block, "start", |cx, field| field.within(cx, 100, 599));
    let end = required(cx, block, "end", |cx, field| field.within(cx, 101, 600));
    let (start, end) = (start?, end?);
    if start >= end {
        let what = format!("there is no status from {start} to the one before {end}");
        cx.fatal(
            Code::OutOfRange,
            &block.at,
            what,
            "`end` is the first status that does not count: `{start: 200, end: 300}`",
        );
    }
    Some(StatusRange { start, end })
}

/// `text` is hex, `binary` is base64.
fn payload(cx: &mut Context<'_>, block: &Block<'_>) -> Option<Payload> {
    let text = block.find("text").and_then(|field| {
        let value = field.written(cx).filter(|text| !text.is_empty())?;
        Some(Spanned { at: field.at.clone(), value })
    });
    let binary = block.find("binary").and_then(|field| field.base64(cx));
    match (text, binary) {
        (Some(text), None) => {
            let bytes = hex::decode(&text.value).ok();
            if bytes.is_none() {
                let what = format!("{} is not hex", quoted(&text.value));
                cx.fatal(Code::WrongType, &text.at, what, "write two hex digits for each byte: `50494e47` is PING");
            }
            bytes.map(Payload)
        }
        (None, Some(binary)) => Some(Payload(binary)),
        (None, None) => None,
        (Some(text), Some(_)) => {
            let what = "a payload is `text` or `binary`, not both";
            cx.fatal(Code::Conflict, &text.at, what, "remove one of them");
            None
        }
    }
}
