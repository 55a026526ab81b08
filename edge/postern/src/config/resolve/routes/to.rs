//! `to`: the upstreams of a route (01 §2.5).

use postern_edge::route::{Upstream, UpstreamEndpoint};
use url::{Host, Position, Url};

use super::from;
use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
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
    let before = texts.len();
    let parsed: Vec<_> = texts.iter().filter_map(|text| endpoint(cx, text)).collect();
    if parsed.len() < before {
        return None;
    }
    let path = parsed.first().map(|(_, path)| path.clone()).filter(|path| !path.is_empty());
    let written = texts.iter().map(|text| text.value.trim()).collect::<Vec<_>>().join(",");
    let endpoints = parsed.into_iter().map(|(endpoint, _)| endpoint).collect();
    Some(To { upstream: Upstream { endpoints }, path, written })
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

fn endpoint(cx: &mut Context<'_>, text: &Spanned<String>) -> Option<(UpstreamEndpoint, String)> {
    let written = text.value.trim();
    if let Some((_, weight)) = written.split_once(',') {
        if weight.trim().parse::<u32>().is_ok_and(|weight| weight > 0) {
            cx.fatal(Code::NotYet, &text.at, "weights of upstreams are not supported yet", "write the URL alone");
        } else {
            let what = format!("{} is no weight", quoted(weight));
            cx.fatal(Code::BadTo, &text.at, what, "write one URL in each entry of the list");
        }
        return None;
    }
    let refuse = |cx: &mut Context<'_>, what: String| {
        cx.fatal(Code::BadTo, &text.at, what, HINT);
        None
    };
    let Ok(url) = Url::parse(written) else { return refuse(cx, format!("{} is no URL", quoted(written))) };
    let tls = match url.scheme() {
        "https" => true,
        "http" => false,
        scheme @ ("h2c" | "tcp" | "udp" | "ssh" | "unix" | "https+unix") => {
            let what = format!("upstreams of the scheme `{scheme}` are not supported yet");
            cx.fatal(Code::NotYet, &text.at, what, "write an http or https URL");
            return None;
        }
        _ => return refuse(cx, format!("{} has no scheme that can be dialled", quoted(written))),
    };
    if !written.contains("://") {
        return refuse(cx, format!("{} has no host", quoted(written)));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refuse(cx, "an upstream URL cannot hold a user or a password".to_owned());
    }
    let Some(host) = url.host() else { return refuse(cx, format!("{} has no host", quoted(written))) };
    let port = url.port().unwrap_or(if tls { 443 } else { 80 });
    let endpoint = UpstreamEndpoint { tls, host: dialled(&host), port, authority: authority(written, &url).to_owned() };
    Some((endpoint, path(written).to_owned()))
}

/// What is dialled: an address without brackets; `localhost` is 127.0.0.1 (01 §2.5).
fn dialled(host: &Host<&str>) -> String {
    match host {
        Host::Domain("localhost") => "127.0.0.1".to_owned(),
        Host::Domain(name) => (*name).to_owned(),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    }
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
    !endpoint.tls && !url.is_ok_and(|url| is_loopback(&url))
}
