//! Every bound of the edge that a configuration can set (03 §2), and what holds where it does not: `limits`.

use std::num::NonZeroU64;
use std::time::Duration;

use pingora_core::protocols::http::v2::server::{H2Options, default_h2_options};

use crate::listener::{ConnectionLimits, Limits, Patience};

/// All of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EdgeLimits {
    /// How many connections, and how long their handshakes.
    pub connections: ConnectionLimits,
    /// How large the parts of a request.
    pub bytes: Limits,
    /// How long clients may take; what [`Timeouts`](crate::Timeouts) say is taken into account on top.
    pub patience: Patience,
    /// What one connection of HTTP/2 may do.
    pub http2: Http2Limits,
    /// Requests of one HTTP/1.1 connection.
    pub requests_per_connection: u32,
    /// Requests without a complete answer, over all connections; beyond, 503 at once.
    pub requests_in_flight: usize,
    /// Bytes of a request body, where its route does not say otherwise; `None`: it is streamed, however many there are.
    pub request_body: Option<NonZeroU64>,
    /// What upstreams are held to.
    pub upstream: UpstreamLimits,
}

/// What one connection of HTTP/2 may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http2Limits {
    /// Streams at once.
    pub streams: u32,
    /// Bytes that may come of one stream before somebody has read them.
    pub stream_window: u32,
    /// And of all streams together.
    pub connection_window: u32,
    /// Bytes of the fields of one head, counted while they are decoded.
    pub header_list: u32,
    /// Streams that are reset and not over yet.
    pub reset_streams: usize,
    /// Streams that the client resets before we have looked at them; beyond, the connection ends.
    pub pending_resets: usize,
    /// Streams that end for what the client did wrong; beyond, the connection ends.
    pub error_resets: usize,
}

/// What upstreams are held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamLimits {
    /// To connect, TLS included.
    pub connect: Duration,
    /// An idle connection is kept for so long.
    pub idle: Duration,
    /// Bytes of the head of an answer.
    pub head: usize,
    /// Fields of it.
    pub fields: usize,
}

impl EdgeLimits {
    /// How many of the requests in flight may be WebSockets, other upgrades and tunnels: half of them, so that these cannot keep
    /// all others out.
    #[must_use]
    pub const fn tunnels(&self) -> usize {
        self.requests_in_flight.div_ceil(2)
    }
}

impl Default for EdgeLimits {
    fn default() -> Self {
        Self {
            connections: ConnectionLimits::default(),
            bytes: Limits::DEFAULT,
            patience: Patience::DEFAULT,
            http2: Http2Limits::default(),
            requests_per_connection: 1000,
            requests_in_flight: 20_000,
            request_body: None,
            upstream: UpstreamLimits::default(),
        }
    }
}

impl Default for Http2Limits {
    fn default() -> Self {
        Self {
            streams: 100,
            stream_window: 64 * 1024,
            connection_window: 1024 * 1024,
            header_list: 64 * 1024,
            reset_streams: 50,
            pending_resets: 20,
            error_resets: 1024,
        }
    }
}

impl Http2Limits {
    /// As the library takes them.
    pub(crate) fn options(&self) -> H2Options {
        let mut options = default_h2_options();
        options
            .max_concurrent_streams(self.streams)
            .max_header_list_size(self.header_list)
            .initial_window_size(self.stream_window)
            .initial_connection_window_size(self.connection_window)
            .max_concurrent_reset_streams(self.reset_streams)
            .max_pending_accept_reset_streams(self.pending_resets)
            .max_local_error_reset_streams(Some(self.error_resets))
            .max_send_buffer_size(SEND_BUFFER)
            // WebSockets may come as streams (RFC 8441).
            .enable_connect_protocol();
        options
    }
}

impl Default for UpstreamLimits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), idle: Duration::from_secs(60), head: 64 * 1024, fields: 200 }
    }
}

/// What waits to be sent of one stream.
const SEND_BUFFER: usize = 64 * 1024;
