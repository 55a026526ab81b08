//! Who is at the other end, and whether what a proxy before us says of it is believed (03 §3.3).

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

use crate::Connection;

/// The client of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address: the TCP peer, or what the trusted hops say. Policy and logs see this one.
    pub address: IpAddr,
    /// The TCP peer.
    pub peer: IpAddr,
    /// It came with https, here or at the first trusted hop.
    pub https: bool,
    /// The forwarding fields of this request were written by trusted hops.
    pub trusted: bool,
}

impl Client {
    /// The client behind `hops` proxies: that entry of `X-Forwarded-For`, counted from the right. Fewer entries, or one
    /// that is no address, and nothing of it is believed.
    #[must_use]
    pub fn behind(hops: u32, connection: &Connection, fields: &HeaderMap) -> Self {
        let peer = connection.peer.ip().to_canonical();
        let direct = Self { address: peer, peer, https: connection.tls, trusted: false };
        let Some(address) = hops.checked_sub(1).and_then(|skip| entries(fields).nth(skip as usize)).and_then(parse)
        else {
            return direct;
        };
        let https = match fields.get("x-forwarded-proto").map(http::HeaderValue::as_bytes) {
            Some(proto) if proto.eq_ignore_ascii_case(b"https") => true,
            Some(proto) if proto.eq_ignore_ascii_case(b"http") => false,
            _ => connection.tls,
        };
        Self { address, https, trusted: true, ..direct }
    }
}

/// The entries of `X-Forwarded-For` over all its fields, from the right.
pub(crate) fn entries(fields: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    fields
        .get_all("x-forwarded-for")
        .iter()
        .rev()
        .flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
}

/// `1.2.3.4`, `1.2.3.4:5`, `::1`, `[::1]` or `[::1]:5`.
fn parse(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))?;
    Some(IpAddr::to_canonical(&address))
}
