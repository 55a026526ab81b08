//! `to`: the upstreams of a route (01 §2.5).

use percent_encoding::percent_decode_str;
use postern_edge::route::{Carries, Upstream, UpstreamEndpoint, UpstreamScheme};
use url::{Host, Position, Url};

use super::from;
use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::planned::{Endpoint, Scheme};
use crate::config::resolve::authenticate::is_loopback;
use crate::config::value::{Spanned, quoted};

/// The upstream, the path of its first URL, and the text that it was read from.
#[derive(Debug)]
pub(super) struct To {
    pub(super) upstream: Upstream,
    pub(super) path: Option<String>,
    pub(super) written: String,
}

const HINT: &str = "write scheme and host: `to: http://app.internal:8080`";

pub(super) fn resolve(cx: &mut Context<'_>, route: &Block<'_>) -> Option<To> {
    let texts = urls(cx, route)?;
    let entries: Vec<_> = texts.iter().filter_map(|text| entry(cx, text)).collect();
    if entries.len() < texts.len() || !fit_together(cx, route, &texts, &entries) {
        return None;
    }
    if entries.iter().any(|entry| entry.planned.is_some()) {
        let endpoints = entries.iter().map(|entry| entry.planned.clone().unwrap_or_else(|| entry.served()));
        cx.planned.endpoints.push((route.at.key.as_str().to_owned(), endpoints.collect()));
        return None;
    }
    let path = entries.first().map(|entry| entry.path.clone()).filter(|path| !path.is_empty());
    let written = texts.iter().map(|text| text.value.trim()).collect::<Vec<_>>().join(",");
    let endpoints = entries.into_iter().filter_map(|entry| entry.endpoint).collect();
    Some(To { upstream: Upstream { endpoints, ..Upstream::default() }, path, written })
}

/// One entry of `to`: what is served, or what is not served yet.
struct Entry {
    scheme: Scheme,
    weighted: bool,
    endpoint: Option<UpstreamEndpoint>,
    planned: Option<Endpoint>,
    path: String,
}

impl Entry {
    /// What is served beside others that are not.
    fn served(&self) -> Endpoint {
        let address = self.endpoint.as_ref().map(|endpoint| endpoint.authority.to_string()).unwrap_or_default();
        Endpoint { scheme: self.scheme, address, weight: None }
    }
}

/// Entries of one kind, and all with a weight or none (01 §2.5).
fn fit_together(cx: &mut Context<'_>, route: &Block<'_>, texts: &[Spanned<String>], entries: &[Entry]) -> bool {
    let Some((first, text)) = entries.first().zip(texts.last()) else { return true };
    let from = route.find("from").and_then(|field| field.node.as_text()).unwrap_or_default().into_owned();
    let ssh = from.trim_start().to_ascii_lowercase().starts_with("ssh://");
    let carries = from::carries(&from);
    let any = |wanted: fn(Scheme) -> bool| entries.iter().any(|entry| wanted(entry.scheme));
    let (what, hint) = if entries.iter().any(|entry| entry.scheme.family() != first.scheme.family()) {
        ("these upstreams are of different kinds", "write a route for each kind")
    } else if entries.iter().any(|entry| entry.weighted != first.weighted) {
        ("some upstreams have a weight, and some have none", "write a weight behind each URL, or behind none")
    } else if ssh && (entries.len() > 1 || first.scheme != Scheme::Ssh) {
        ("an ssh route leads to exactly one ssh upstream", "write `to: ssh://host:22`")
    } else if carries.is_none() && any(|scheme| scheme == Scheme::Tcp) {
        ("requests cannot be sent to a tcp upstream", "write an http or https URL, or `from: tcp+https://host:port`")
    } else if carries.is_none() && any(|scheme| scheme == Scheme::Udp) {
        ("requests cannot be sent to a udp upstream", "write an http or https URL, or `from: udp+https://host:port`")
    } else if carries == Some(Carries::Connections)
        && any(|scheme| matches!(scheme, Scheme::H2c | Scheme::Udp | Scheme::Ssh))
    {
        ("connections cannot be sent there", "write `to: tcp://host:port`, or the http or https URL of a proxy")
    } else if carries == Some(Carries::Datagrams)
        && any(|scheme| matches!(scheme, Scheme::H2c | Scheme::Tcp | Scheme::Ssh))
    {
        ("datagrams cannot be sent there", "write `to: udp://host:port`, or the http or https URL of a proxy")
    } else {
        return true;
    };
    cx.fatal(Code::BadTo, &text.at, what, hint);
    false
}

/// Each URL. A text is one URL: its comma would divide off a weight, not another URL.
fn urls(cx: &mut Context<'_>, route: &Block<'_>) -> Option<Vec<Spanned<String>>> {
    let elements = route.find("to")?.elements();
    if elements.is_empty() {
        cx.fatal(Code::BadTo, &route.at("to"), "`to` names no upstream", HINT);
        return None;
    }
    let texts = elements.into_iter().map(|element| Some(Spanned { value: element.text(cx)?, at: element.at }));
    texts.collect()
}

fn entry(cx: &mut Context<'_>, text: &Spanned<String>) -> Option<Entry> {
    let written = text.value.trim();
    let (written, weight) = match written.split_once(',') {
        Some((url, weight)) => (url.trim(), Some(self::weight(cx, text, weight)?)),
        None => (written, None),
    };
    let refuse = |cx: &mut Context<'_>, what: String| {
        cx.fatal(Code::BadTo, &text.at, what, HINT);
        None
    };
    let Ok(url) = Url::parse(written) else { return refuse(cx, format!("{} is no URL", quoted(written))) };
    let Some((name, scheme)) = Scheme::ALL.into_iter().find(|(name, _)| *name == url.scheme()) else {
        return refuse(cx, format!("{} has no scheme that can be dialled", quoted(written)));
    };
    if !written.contains("://") {
        return refuse(cx, format!("{} has no host", quoted(written)));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refuse(cx, "an upstream URL cannot hold a user or a password".to_owned());
    }
    let address = match (scheme, url.host_str()) {
        (Scheme::Unix | Scheme::UnixTls, None | Some("")) => match socket(&url) {
            Some(path) => path,
            None => return refuse(cx, format!("{} names no socket", quoted(written))),
        },
        (Scheme::Unix | Scheme::UnixTls, _) => return refuse(cx, format!("{} names no socket", quoted(written))),
        (_, Some(host)) if !host.is_empty() => authority(written, &url).to_owned(),
        (_, _) => return refuse(cx, format!("{} has no host", quoted(written))),
    };
    let served = match scheme {
        Scheme::Http => Some(UpstreamScheme::Http),
        Scheme::Https => Some(UpstreamScheme::Https),
        Scheme::H2c => Some(UpstreamScheme::H2c),
        Scheme::Unix => Some(UpstreamScheme::Unix),
        Scheme::UnixTls => Some(UpstreamScheme::HttpsUnix),
        Scheme::Tcp => Some(UpstreamScheme::Tcp),
        Scheme::Udp => Some(UpstreamScheme::Udp),
        Scheme::Ssh => None,
    };
    let Some(served) = served else {
        let what = format!("upstreams of the scheme `{name}` are not supported yet");
        cx.fatal(Code::NotYet, &text.at, what, "write an http or https URL");
        let planned = Some(Endpoint { scheme, address, weight });
        return Some(Entry { scheme, weighted: weight.is_some(), endpoint: None, planned, path: String::new() });
    };
    let (weighted, weight) = (weight.is_some(), weight.unwrap_or(1));
    let (endpoint, path) = if served.is_socket() {
        let endpoint = UpstreamEndpoint { scheme: served, host: address, port: 0, authority: "".into(), weight };
        (endpoint, String::new())
    } else {
        let Some(host) = host(&url) else { return refuse(cx, format!("{} has no host", quoted(written))) };
        let port = url.port().unwrap_or(if served.is_tls() { 443 } else { 80 });
        (UpstreamEndpoint { scheme: served, host, port, authority: address.into(), weight }, path(written).to_owned())
    };
    Some(Entry { scheme, weighted, endpoint: Some(endpoint), planned: None, path })
}

/// What follows the comma: a whole number, not 0.
fn weight(cx: &mut Context<'_>, text: &Spanned<String>, weight: &str) -> Option<u32> {
    let found = weight.trim().parse().ok().filter(|weight| *weight > 0);
    if found.is_none() {
        let what = format!("{} is no weight", quoted(weight));
        cx.fatal(
            Code::BadTo,
            &text.at,
            what,
            "write a whole number from 1 behind the comma, and one URL in each entry of the list",
        );
    }
    found
}

/// The path of a socket, as long as the system takes it.
fn socket(url: &Url) -> Option<String> {
    let path = percent_decode_str(url.path()).decode_utf8().ok()?.into_owned();
    let fits = path.len() > 1 && std::os::unix::net::SocketAddr::from_pathname(&path).is_ok();
    fits.then_some(path)
}

/// What is dialled: an address without brackets. `localhost` is 127.0.0.1 (01 §2.5), and keeps its name for TLS.
fn host(url: &Url) -> Option<String> {
    // Of a scheme that the library does not know it leaves hosts as they are written.
    Some(match Host::parse(url.host_str()?).ok()? {
        Host::Domain(name) => name,
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    })
}

/// `host[:port]` exactly as written; as the URL has it where that could not be sent as a host.
fn authority<'u>(written: &'u str, url: &'u Url) -> &'u str {
    let rest = written.split_once("://").map_or(written, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    if from::is_authority(authority) { authority } else { &url[Position::BeforeHost..Position::AfterPort] }
}

/// The path as written; empty if there is none.
fn path(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or(rest);
    rest.find('/').and_then(|start| rest.get(start..)).unwrap_or_default()
}

/// Whether a connection to this endpoint leaves the machine in the clear.
pub(super) fn is_exposed(endpoint: &UpstreamEndpoint) -> bool {
    let url = Url::parse(&format!("http://{}", endpoint.authority));
    let scheme = endpoint.scheme;
    !scheme.is_tls() && !scheme.is_socket() && !url.is_ok_and(|url| is_loopback(&url))
}
