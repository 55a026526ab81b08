//! The edge over real sockets, in front of an upstream that records every byte.

mod carrying;
mod framing;
mod support;
