//! Addresses and time-outs of the public listener (01 §1.3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use postern_edge::{Listeners, PublicListener, Timeouts};

use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::value::{Field, quoted};

/// `address` unless written.
const ADDRESS: &str = ":443";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Codec {
    Auto,
    Http1,
    Http2,
    Http3,
}

pub(super) fn resolve(cx: &mut Context<'_>, settings: &Block<'_>) -> Option<Listeners> {
    let plain = settings.flag(cx, "insecure_server");
    let default_port = if plain { 80 } else { 443 };
    let addresses = match settings.filled(cx, "address") {
        Some(text) => parse(&text.value, Some(default_port)).map_err(|error| (text, error)),
        None => Ok(parse(ADDRESS, None).unwrap_or_default()),
    };
    let addresses = match addresses {
        Ok(addresses) => Some(addresses),
        Err((text, error)) => {
            refuse(cx, &text.at, &text.value, error);
            None
        }
    };
    let codec = settings.find("codec_type").and_then(|field| codec(cx, field)).unwrap_or(Codec::Auto);
    let redirect = redirect(cx, settings);
    let proxy_protocol = settings.flag(cx, "use_proxy_protocol");
    let public = if plain {
        PublicListener::Plain { addresses: addresses? }
    } else {
        PublicListener::Tls { addresses: addresses?, h2: codec != Codec::Http1, http1: codec != Codec::Http2 }
    };
    Some(Listeners { public, redirect: redirect?, proxy_protocol })
}

fn codec(cx: &mut Context<'_>, field: &Field<'_>) -> Option<Codec> {
    let choices = [("auto", Codec::Auto), ("http1", Codec::Http1), ("http2", Codec::Http2), ("http3", Codec::Http3)];
    let codec = field.choice(cx, "codec_type_", &choices)?;
    if codec == Codec::Http3 {
        let what = "HTTP/3 is not supported yet: HTTP/1.1 and HTTP/2 are offered";
        cx.advise(Code::NotYet, &field.at, what, "write `codec_type: auto`");
    }
    Some(codec)
}

/// `http_redirect_addr`; quotes around it are stripped (01 §1.3).
fn redirect(cx: &mut Context<'_>, settings: &Block<'_>) -> Option<Vec<SocketAddr>> {
    let Some(text) = settings.filled(cx, "http_redirect_addr") else { return Some(Vec::new()) };
    let bare = text.value.trim_matches(['"', '\'']);
    parse(bare, Some(80)).map_err(|error| refuse(cx, &text.at, bare, error)).ok()
}

pub(super) fn refuse(cx: &mut Context<'_>, at: &crate::config::At, text: &str, error: &str) {
    let what = format!("{} is no address to listen on: {error}", quoted(text));
    cx.fatal(Code::BadAddress, at, what, "write `host:port`, for example `0.0.0.0:443`, or `:443` for all interfaces");
}

/// The socket addresses of `host:port`. An empty host is every interface, IPv6 and IPv4 apart.
pub(super) fn parse(text: &str, default_port: Option<u16>) -> Result<Vec<SocketAddr>, &'static str> {
    let (host, port) = split(text)?;
    let port = match port {
        Some(port) => port.parse::<u16>().map_err(|_| "the port is no number from 0 to 65535")?,
        None => default_port.ok_or("it has no port")?,
    };
    if host.is_empty() {
        return Ok(vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()]);
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![(address, port).into()]);
    }
    if is_number(host.rsplit('.').next().unwrap_or(host)) {
        return Err("its host is a number; before a port alone stands a colon");
    }
    let resolved = (host, port).to_socket_addrs().map_err(|_| "its host is neither an IP address nor a known name")?;
    let mut addresses: Vec<_> = resolved.collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// Whether the last label of a host makes it an address of the C library's own kind: `443` would be 0.0.1.187.
fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    let digits = |text: &str, radix| text.chars().all(|c| c.is_digit(radix));
    !label.is_empty() && hex.map_or_else(|| digits(label, 10), |hex| digits(hex, 16))
}

/// Host and port of `host:port`, `[v6]:port`, `host`, `v6`.
fn split(text: &str) -> Result<(&str, Option<&str>), &'static str> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("a bracket is not closed")?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err("something follows the bracket"),
        };
    }
    match text.rsplit_once(':') {
        Some((host, _)) if host.contains(':') => Ok((text, None)),
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((text, None)),
    }
}

/// Those at the top of the file, and how long a `drain` may take, if that is written.
pub(super) fn timeouts(cx: &mut Context<'_>, settings: &Block<'_>, drain: Option<Duration>) -> Timeouts {
    let default = Timeouts::default();
    Timeouts {
        read: settings.timeout(cx, "timeout_read", default.read),
        write: settings.timeout(cx, "timeout_write", default.write),
        idle: settings.timeout(cx, "timeout_idle", default.idle),
        upstream: settings.timeout(cx, "default_upstream_timeout", default.upstream),
        drain: drain.unwrap_or(default.drain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<String> {
        parse(text, Some(443)).unwrap().iter().map(SocketAddr::to_string).collect()
    }

    #[test]
    fn addresses_are_read_as_listeners_read_them() {
        assert_eq!(parsed(":8443"), ["[::]:8443", "0.0.0.0:8443"]);
        assert_eq!(parsed("127.0.0.1:0"), ["127.0.0.1:0"]);
        assert_eq!(parsed("10.0.0.1"), ["10.0.0.1:443"]);
        assert_eq!(parsed("[::1]:8443"), ["[::1]:8443"]);
        assert_eq!(parsed("[::1]"), ["[::1]:443"]);
        assert_eq!(parsed("::1"), ["[::1]:443"]);
        assert!(parsed("localhost:9").contains(&"127.0.0.1:9".to_owned()));
    }

    #[test]
    fn what_cannot_be_listened_on_is_refused() {
        for text in [":", ":http", "127.0.0.1:65536", "[::1:443", "[::1]443", "a b:443", "no.such.host.invalid:443"] {
            assert!(parse(text, Some(443)).is_err(), "{text}");
        }
        assert!(parse("10.0.0.1", None).is_err());
    }
}
