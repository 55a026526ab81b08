//! `limits`: the bounds of the edge (03 §2). Each has a floor and a ceiling, which its key has in the table.

use std::num::NonZeroU64;
use std::time::Duration;

use postern_edge::listener::{ConnectionLimits, Limits, Patience};
use postern_edge::{EdgeLimits, Http2Limits, UpstreamLimits};

use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::keys::LIMITS;

/// What is written, over what holds without it; and how long a drain may take, if that is.
pub(super) fn resolve(cx: &mut Context<'_>, settings: &Block<'_>) -> (EdgeLimits, Option<Duration>) {
    let default = EdgeLimits::default();
    let Some(block) = settings.inner(cx, "limits", &LIMITS) else { return (default, None) };
    let mut read = Read { cx, block: &block };
    let limits = EdgeLimits {
        connections: read.connections(default.connections),
        bytes: read.bytes(default.bytes),
        patience: read.patience(default.patience),
        http2: read.http2(default.http2),
        requests_per_connection: read.number("requests_per_connection", default.requests_per_connection),
        requests_in_flight: read.number("requests_in_flight", default.requests_in_flight),
        request_body: body(read.cx, &block),
        upstream: read.upstream(default.upstream),
    };
    let drain = block.bounded_duration(read.cx, "drain_timeout");
    (limits, drain)
}

/// `max_request_body_bytes`, of all routes or of one.
pub(super) fn body(cx: &mut Context<'_>, block: &Block<'_>) -> Option<NonZeroU64> {
    NonZeroU64::new(block.bounded(cx, "max_request_body_bytes")?)
}

struct Read<'r, 'n, 'c> {
    cx: &'r mut Context<'c>,
    block: &'r Block<'n>,
}

impl Read<'_, '_, '_> {
    fn number<N: TryFrom<u64>>(&mut self, name: &str, default: N) -> N {
        self.block.bounded(self.cx, name).unwrap_or(default)
    }

    fn duration(&mut self, name: &str, default: Duration) -> Duration {
        self.block.bounded_duration(self.cx, name).unwrap_or(default)
    }

    fn connections(&mut self, default: ConnectionLimits) -> ConnectionLimits {
        ConnectionLimits {
            connections: self.number("connections", default.connections),
            handshakes: self.number("handshakes", default.handshakes),
            handshake_time: self.duration("handshake_timeout", default.handshake_time),
            per_address: self.block.bounded(self.cx, "connections_per_address"),
        }
    }

    fn bytes(&mut self, default: Limits) -> Limits {
        Limits {
            head: self.number("request_head_bytes", default.head),
            field: self.number("request_field_bytes", default.field),
            fields: self.number("request_fields", default.fields),
            target: self.number("request_target_bytes", default.target),
            chunk_extension: self.number("chunk_extension_bytes", default.chunk_extension),
            chunk_extensions: self.number("chunk_extensions_bytes", default.chunk_extensions),
            trailers: self.number("trailer_bytes", default.trailers),
        }
    }

    fn patience(&mut self, default: Patience) -> Patience {
        Patience {
            idle: self.duration("keepalive_timeout", default.idle),
            head: self.duration("request_head_timeout", default.head),
            body_idle: self.duration("request_body_idle_timeout", default.body_idle),
            body_rate: self.number("request_body_min_rate", default.body_rate),
            write_stall: self.duration("response_stall_timeout", default.write_stall),
            ..default
        }
    }

    fn http2(&mut self, default: Http2Limits) -> Http2Limits {
        Http2Limits {
            streams: self.number("http2_streams", default.streams),
            stream_window: self.number("http2_stream_window_bytes", default.stream_window),
            connection_window: self.number("http2_connection_window_bytes", default.connection_window),
            header_list: self.number("http2_header_list_bytes", default.header_list),
            reset_streams: self.number("http2_reset_streams", default.reset_streams),
            pending_resets: self.number("http2_pending_resets", default.pending_resets),
            error_resets: self.number("http2_error_resets", default.error_resets),
        }
    }

    fn upstream(&mut self, default: UpstreamLimits) -> UpstreamLimits {
        UpstreamLimits {
            connect: self.duration("upstream_connect_timeout", default.connect),
            idle: self.duration("upstream_keepalive_timeout", default.idle),
            head: self.number("upstream_head_bytes", default.head),
            fields: self.number("upstream_fields", default.fields),
        }
    }
}
