//! `from`: the hosts of a route (01 §2.2).

use postern_edge::Host;
use postern_edge::route::{Authority, Carries, HostPattern, TunnelMatch};

use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::planned::{Carried, Tunnel};
use crate::config::problem::At;
use crate::config::value::quoted;

/// The hosts, and the text that they were read from.
#[derive(Debug)]
pub(super) struct From {
    pub(super) hosts: HostPattern,
    /// Of a route of tunnels.
    pub(super) tunnel: Option<Box<TunnelMatch>>,
    pub(super) written: String,
}

const HINT: &str = "write scheme and host: `from: https://app.example.com`";

pub(super) fn resolve(cx: &mut Context<'_>, route: &Block<'_>) -> Option<From> {
    let Some(written) = route.filled(cx, "from") else {
        cx.fatal(Code::BadFrom, &route.at("from"), "the route has no `from`", HINT);
        return None;
    };
    let text = written.value.trim().to_owned();
    let (hosts, tunnel) = parse(cx, route, &written.at, &text)?;
    Some(From { hosts, tunnel, written: text })
}

/// What the tunnels carry of a route whose `from` is that text; `None`: it is no such route.
pub(super) fn carries(from: &str) -> Option<Carries> {
    let (scheme, _) = from.trim_start().split_once("://")?;
    match scheme.to_ascii_lowercase().as_str() {
        "tcp+https" | "tcp+http" => Some(Carries::Connections),
        "udp+https" | "udp+http" => Some(Carries::Datagrams),
        _ => None,
    }
}

type Hosts = (HostPattern, Option<Box<TunnelMatch>>);

fn parse(cx: &mut Context<'_>, route: &Block<'_>, at: &At, text: &str) -> Option<Hosts> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return refuse(cx, at, format!("{} has no scheme", quoted(text)), HINT);
    };
    if let Some(carries) = carries(text) {
        return tunnels(cx, at, carries, rest);
    }
    let default_port = match scheme.to_ascii_lowercase().as_str() {
        "https" => 443,
        "http" => 80,
        scheme @ "ssh" => {
            if let Some(tunnel) = tunnel(cx, at, rest) {
                cx.planned.tunnels.push((route.at.key.as_str().to_owned(), tunnel));
            }
            let what = format!("routes of the scheme `{scheme}` are not supported yet");
            cx.fatal(Code::NotYet, at, what, "remove the route until they are");
            return None;
        }
        _ => return refuse(cx, at, format!("{} has a scheme that no request has", quoted(text)), HINT),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, ""));
    if !matches!(path, "" | "/") {
        let hint = "write the path as `prefix`, `path` or `regex`";
        return refuse(cx, at, format!("`from` ends after the host, and {} is left over", quoted(path)), hint);
    }
    let Some((host, port)) = split(authority) else {
        return refuse(cx, at, format!("{} is no host", quoted(authority)), HINT);
    };
    // The default port insists on nothing; what a host without port matches is the table's to know (01 §2.2).
    let port = port.filter(|port| *port != default_port);
    let hosts = if host.contains('*') { HostPattern::wildcard(&host, port) } else { HostPattern::Exact { host, port } };
    Some((hosts, None))
}

/// The hosts and ports that tunnels are asked for with: the parts of the path if there is one, and then the host is that of the
/// proxy; else the host as written (01 §2.2).
fn tunnels(cx: &mut Context<'_>, at: &At, carries: Carries, rest: &str) -> Option<Hosts> {
    let (proxy, path) = rest.split_once('/').unwrap_or((rest, ""));
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
    let named = if parts.is_empty() { vec![proxy] } else { parts.clone() };
    let (what, hint) = match carries {
        Carries::Connections => ("no connection is", TCP_HINT),
        Carries::Datagrams => ("no datagrams are", UDP_HINT),
    };
    let mut authorities = Vec::new();
    for part in named {
        let Some((host, port)) = split(part) else {
            return refuse(cx, at, format!("{} is no host", quoted(part)), hint);
        };
        if port.is_none() {
            let method = carries.method();
            let what = format!("{what} asked for with {}: a {method} names a port", quoted(part));
            cx.advise(Code::NoEffect, at, what, hint);
        }
        authorities.push(Authority { host: host.into(), port });
    }
    let proxy = if parts.is_empty() { None } else { Some(split(proxy)) };
    let proxy = match proxy {
        Some(None) => return refuse(cx, at, format!("{} names no host to connect to", quoted(rest)), hint),
        Some(Some((host, _))) if host.contains('*') => {
            return refuse(cx, at, "clients cannot connect to a pattern of hosts".to_owned(), hint);
        }
        Some(Some((host, _))) => Some(host.into()),
        None => None,
    };
    let hosts = authorities.first().map(Authority::pattern)?;
    Some((hosts, Some(Box::new(TunnelMatch { carries, authorities: authorities.into(), proxy }))))
}

const TCP_HINT: &str = "write the host and port that clients ask for: `from: tcp+https://db.example.com:5432`";
const UDP_HINT: &str = "write the host and port that clients ask for: `from: udp+https://dns.example.com:53`";

/// The host of a route that carries neither requests nor what HTTP is asked for (01 §2.2).
fn tunnel(cx: &mut Context<'_>, at: &At, rest: &str) -> Option<Tunnel> {
    let host = rest.split('/').next().unwrap_or(rest);
    if split(host).is_none() {
        let hint = "write the name that people log in with: `from: ssh://bastion`";
        return refuse(cx, at, format!("{} is no host", quoted(host)), hint);
    }
    Some(Tunnel { carried: Carried::Ssh, hosts: vec![host.to_owned()] })
}

fn refuse<T>(cx: &mut Context<'_>, at: &At, what: String, hint: &str) -> Option<T> {
    cx.fatal(Code::BadFrom, at, what, hint);
    None
}

/// Host and port of an authority in the one spelling that requests are given (03 §3.2); `*` may stand anywhere in the host.
fn split(authority: &str) -> Option<(String, Option<u16>)> {
    let authority = if authority.is_ascii() { authority.to_owned() } else { ascii(authority)? };
    // A star stands where a letter could: what it stands in must be a host all the same.
    let host = Host::parse(authority.replace('*', STAR).as_bytes()).ok()?;
    Some((host.name().replace(STAR, "*"), host.port()))
}

/// Letters that no host name has in a row.
const STAR: &str = "s---t---a---r";

/// An authority with other letters in the form that requests carry (RFC 3490 A-labels).
fn ascii(authority: &str) -> Option<String> {
    let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
    let labels = host.split('.').map(|label| match url::Host::parse(label) {
        Ok(url::Host::Domain(label)) => Some(label),
        Ok(url::Host::Ipv4(_) | url::Host::Ipv6(_)) => None,
        // A star, and the empty label at the end.
        Err(_) => label.is_ascii().then(|| label.to_owned()),
    });
    let host = labels.collect::<Option<Vec<_>>>()?.join(".");
    Some(port.map_or_else(|| host.clone(), |port| format!("{host}:{port}")))
}

/// Whether a text is `host` or `host:port` as a request may carry it (03 §3.2).
pub(in crate::config::resolve) fn is_authority(text: &str) -> bool {
    Host::parse(text.as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(authority: &str) -> Option<String> {
        split(authority).map(|(host, port)| format!("{host} {}", port.unwrap_or(0)))
    }

    #[test]
    fn hosts_are_made_canonical() {
        assert_eq!(host("App.Example.COM").as_deref(), Some("app.example.com 0"));
        assert_eq!(host("app.example.com.:8443").as_deref(), Some("app.example.com 8443"));
        assert_eq!(host("b\u{fc}cher.example").as_deref(), Some("xn--bcher-kva.example 0"));
        assert_eq!(host("[::1]:80").as_deref(), Some("[::1] 80"));
        assert_eq!(host("[0:0::1]").as_deref(), Some("[::1] 0"));
        assert_eq!(host("*.b\u{fc}cher.example:81").as_deref(), Some("*.xn--bcher-kva.example 81"));
        assert_eq!(host("*").as_deref(), Some("* 0"));
        assert_eq!(host("*.example.com").as_deref(), Some("*.example.com 0"));
        assert_eq!(host("a*b.example.com:").as_deref(), Some("a*b.example.com 0"));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for authority in
            ["", ":80", "a..b", "a b", "user@host", "host:0", "host:99999", "host:http", "[::1", "a%20b", ".", "a/b"]
        {
            assert_eq!(host(authority), None, "{authority}");
        }
    }
}
