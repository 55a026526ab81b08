//! Where traces go: `otel_*` (01 §1.10).

use std::time::Duration;

use postern_identity::Secret;
use url::Url;

use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::resolve::logs;
use crate::config::value::quoted;

/// `otel_*`.
#[derive(Debug, Clone)]
pub struct Tracing {
    /// `otel_traces_exporter: otlp` and an endpoint; `None`: no traces.
    pub otlp: Option<Otlp>,
    /// `otel_traces_sampler_arg`: which share of requests is traced.
    pub sampled: f64,
    /// `otel_resource_attributes`.
    pub attributes: Vec<(String, String)>,
    /// `otel_log_level`.
    pub log_level: ::tracing::level_filters::LevelFilter,
    /// `otel_attribute_value_length_limit`.
    pub longest_value: u64,
    /// `otel_bsp_schedule_delay`.
    pub delay: Duration,
    /// `otel_bsp_max_export_batch_size`.
    pub batch: u64,
}

/// A collector.
#[derive(Debug, Clone)]
pub struct Otlp {
    /// `otel_exporter_otlp_traces_endpoint`, else `otel_exporter_otlp_endpoint`.
    pub endpoint: Url,
    /// The endpoint is that of traces alone: nothing is added to its path.
    pub exact: bool,
    /// `otel_exporter_otlp_(traces_)protocol`.
    pub protocol: OtlpProtocol,
    /// `otel_exporter_otlp_(traces_)headers`.
    pub headers: Vec<(String, Secret<String>)>,
    /// `otel_exporter_otlp_(traces_)timeout`.
    pub timeout: Duration,
}

/// How a collector is spoken to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// gRPC.
    #[default]
    Grpc,
    /// Protocol buffers over HTTP.
    HttpProtobuf,
}

const LONGEST_VALUE: u64 = 256;
const DELAY: Duration = Duration::from_secs(5);
const BATCH: u64 = 512;
const TIMEOUT: Duration = Duration::from_secs(10);

impl Default for Tracing {
    fn default() -> Self {
        Self {
            otlp: None,
            sampled: 1.0,
            attributes: Vec::new(),
            log_level: ::tracing::level_filters::LevelFilter::INFO,
            longest_value: LONGEST_VALUE,
            delay: DELAY,
            batch: BATCH,
        }
    }
}

pub(super) fn resolve(cx: &mut Context<'_>, settings: &Block<'_>) -> Tracing {
    let usual = Tracing::default();
    let sampled = settings.find("otel_traces_sampler_arg").and_then(|field| field.fraction(cx));
    let longest = settings.find("otel_attribute_value_length_limit");
    let delay = settings.find("otel_bsp_schedule_delay");
    let batch = settings.find("otel_bsp_max_export_batch_size");
    Tracing {
        otlp: otlp(cx, settings),
        sampled: sampled.unwrap_or(usual.sampled),
        attributes: pairs(cx, settings, "otel_resource_attributes").unwrap_or_default(),
        log_level: logs::level(cx, settings, "otel_log_level").unwrap_or(usual.log_level),
        longest_value: longest.and_then(|field| field.clamped(cx, 64, 32_768)).unwrap_or(usual.longest_value),
        delay: delay.and_then(|field| field.clamped(cx, 100, 3_600_000)).map_or(usual.delay, Duration::from_millis),
        batch: batch.and_then(|field| field.clamped(cx, 1, u32::MAX.into())).unwrap_or(usual.batch),
    }
}

fn otlp(cx: &mut Context<'_>, settings: &Block<'_>) -> Option<Otlp> {
    let exporters = [("none", false), ("otlp", true)];
    let on = settings.choice(cx, "otel_traces_exporter", "", &exporters).unwrap_or(false);
    let own = settings.url(cx, "otel_exporter_otlp_traces_endpoint");
    let shared = settings.url(cx, "otel_exporter_otlp_endpoint");
    let own_protocol = protocol(cx, settings, "otel_exporter_otlp_traces_protocol");
    let shared_protocol = protocol(cx, settings, "otel_exporter_otlp_protocol");
    let own_headers = pairs(cx, settings, "otel_exporter_otlp_traces_headers");
    let shared_headers = pairs(cx, settings, "otel_exporter_otlp_headers");
    let own_timeout = timeout(cx, settings, "otel_exporter_otlp_traces_timeout");
    let shared_timeout = timeout(cx, settings, "otel_exporter_otlp_timeout");
    let exact = own.is_some();
    let endpoint = own.or(shared);
    if on && endpoint.is_none() {
        let what = "traces are to be exported, and it is not said where to";
        let hint = "write `otel_exporter_otlp_endpoint: http://collector.internal:4317`";
        cx.advise(Code::MissingKey, &settings.at("otel_traces_exporter"), what, hint);
    }
    let headers = own_headers.or(shared_headers).unwrap_or_default();
    let otlp = Otlp {
        endpoint: endpoint?,
        exact,
        protocol: own_protocol.or(shared_protocol).unwrap_or_default(),
        headers: headers.into_iter().map(|(name, value)| (name, Secret::new(value))).collect(),
        timeout: own_timeout.or(shared_timeout).unwrap_or(TIMEOUT),
    };
    on.then_some(otlp)
}

fn protocol(cx: &mut Context<'_>, settings: &Block<'_>, key: &str) -> Option<OtlpProtocol> {
    let protocols = [("grpc", OtlpProtocol::Grpc), ("http/protobuf", OtlpProtocol::HttpProtobuf)];
    settings.choice(cx, key, "", &protocols)
}

fn timeout(cx: &mut Context<'_>, settings: &Block<'_>, key: &str) -> Option<Duration> {
    settings.find(key)?.milliseconds(cx)
}

/// A list of `key=value`.
fn pairs(cx: &mut Context<'_>, settings: &Block<'_>, key: &str) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    for text in settings.texts(cx, key)? {
        match text.value.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => {
                found.push((name.trim().to_owned(), value.trim().to_owned()));
            }
            Some(_) | None => {
                let secret = crate::config::keys::is_secret(key);
                let written = if secret { "this entry".to_owned() } else { quoted(&text.value) };
                cx.fatal(Code::WrongType, &text.at, format!("{written} is no `key=value`"), "write `key=value`");
            }
        }
    }
    Some(found)
}
