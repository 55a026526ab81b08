//! The edge over real sockets, in front of an upstream that records every byte.

mod carrying;
mod certificates;
mod framing;
mod http2;
mod lifecycle;
mod support;
