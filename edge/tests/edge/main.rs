//! The edge over real sockets, in front of an upstream that records every byte.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail where it stands"
)]

mod carrying;
mod certificates;
mod datagrams;
mod framing;
mod http2;
mod lifecycle;
mod pace;
mod records;
mod sockets;
mod streams;
mod support;
mod time;
mod tunnels;
mod vendored;
