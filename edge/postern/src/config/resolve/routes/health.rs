//! Asking endpoints how they are: `health_checks` (01 §2.11).

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use postern_edge::route::{GrpcCheck, HealthCheck, HttpCheck, Payload, Probe, StatusRange, TcpCheck};

use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::keys::{
    GRPC_HEALTH_CHECK, HEADER, HEADER_OPTION, HEALTH_CHECK, HTTP_HEALTH_CHECK, PAYLOAD, STATUS_RANGE, TCP_HEALTH_CHECK,
};
use crate::config::resolve::headers;
use crate::config::resolve::planned::host;
use crate::config::value::{Field, Spanned, quoted};

const NO_TRAFFIC: Duration = Duration::from_secs(60);

pub(super) fn resolve(cx: &mut Context<'_>, route: &Block<'_>) -> Vec<HealthCheck> {
    let blocks = route.list(cx, "health_checks", &HEALTH_CHECK);
    if blocks.len() > HealthCheck::MOST {
        let what = format!("a route has {} health checks at most", HealthCheck::MOST);
        cx.fatal(Code::OutOfRange, &route.at("health_checks"), what, "leave out those that tell nothing of their own");
    }
    blocks.iter().filter_map(|block| check(cx, block)).collect()
}

fn check(cx: &mut Context<'_>, block: &Block<'_>) -> Option<HealthCheck> {
    let timeout = required(cx, block, "timeout", positive);
    let interval = required(cx, block, "interval", positive);
    let unhealthy_threshold = required(cx, block, "unhealthy_threshold", |cx, field| field.number(cx));
    let healthy_threshold = required(cx, block, "healthy_threshold", |cx, field| field.number(cx));
    let probe = probe(cx, block);
    let mut seconds = |key: &str| block.find(key).and_then(|field| positive(cx, field));
    let (no_traffic_interval, no_traffic_healthy_interval) =
        (seconds("no_traffic_interval").unwrap_or(NO_TRAFFIC), seconds("no_traffic_healthy_interval"));
    let (unhealthy_interval, unhealthy_edge_interval, healthy_edge_interval) =
        (seconds("unhealthy_interval"), seconds("unhealthy_edge_interval"), seconds("healthy_edge_interval"));
    let port = block.find("alt_port").and_then(|field| field.within(cx, 0, u16::MAX.into()));
    Some(HealthCheck {
        initial_jitter: block.seconds(cx, "initial_jitter").unwrap_or_default(),
        interval_jitter: block.seconds(cx, "interval_jitter").unwrap_or_default(),
        jitter_percent: block.number(cx, "interval_jitter_percent").unwrap_or(0),
        no_traffic_interval,
        no_traffic_healthy_interval,
        unhealthy_interval,
        unhealthy_edge_interval,
        healthy_edge_interval,
        port: port.filter(|port| *port > 0),
        reuse_connection: block.boolean(cx, "reuse_connection").unwrap_or(true),
        log_failures: block.flag(cx, "always_log_health_check_failures"),
        log_successes: block.flag(cx, "always_log_health_check_success"),
        timeout: timeout?,
        interval: interval?,
        unhealthy_threshold: unhealthy_threshold?,
        healthy_threshold: healthy_threshold?,
        probe: probe?,
    })
}

/// A time that is not 0.
fn positive(cx: &mut Context<'_>, field: &Field<'_>) -> Option<Duration> {
    let time = field.seconds(cx)?;
    if time.is_zero() {
        cx.fatal(Code::BadDuration, &field.at, "this time must be longer than 0", "write `5s`, for example");
        return None;
    }
    Some(time)
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
        (Some(http), None, None) => self::http(cx, &http).map(|http| Probe::Http(Box::new(http))),
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
            authority: host(cx, &grpc, "authority"),
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
    } else if let Some(path) = path.as_ref().filter(|path| path.value.parse::<http::uri::PathAndQuery>().is_err()) {
        let what = format!("{} is no path that can be asked for", quoted(&path.value));
        cx.fatal(Code::BadTarget, &path.at, what, "write `path: /healthz`, for example");
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
        host: host(cx, block, "host"),
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
