//! Where people sign in (01 §1.8, rulings), and which hosts they may be sent back to (03 §3.4).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use postern_authn::RouteHosts;
use postern_edge::route::{HostPattern, Route, RouteTable, UpstreamEndpoint, UpstreamScheme};
use postern_edge::{AuthenticateTarget, AuthnUpstream};
use postern_identity::ProgramHosts;
use url::{Host, Position, Url};

use super::idp::Idps;
use super::routes::{Routes, is_authority};
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::value::quoted;
use crate::config::{Code, Role};

/// The private socket of authn is bound to a free port and put in here when the rooms are assembled.
const UNBOUND: AuthnUpstream = AuthnUpstream::Here(SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0));

/// The hosted service that Pomerium uses unless told otherwise.
const VENDOR: [&str; 2] = ["authenticate.pomerium.app", "authenticate.pomerium.com"];

/// Where nobody is ever asked to sign in, the place for it is this machine.
const NOBODY_SIGNS_IN: &str = "https://authenticate.localhost/";

const HINT: &str = "write `authenticate_service_url: https://authenticate.example.com`";

pub(super) fn resolve(
    cx: &mut Context<'_>,
    settings: &Block<'_>,
    routes: &Routes,
    (role, idps): (Role, &Idps),
) -> Option<AuthenticateTarget> {
    let internal = internal(cx, settings, role);
    let programs = programs(cx, settings);
    let url = if settings.filled(cx, "authenticate_service_url").is_some() {
        written(cx, settings)
    } else {
        guessed(cx, settings, routes)
    };
    let url = url?;
    let upstream = match role {
        Role::AllInOne | Role::Authn => UNBOUND,
        Role::Edge => AuthnUpstream::Elsewhere(endpoint(internal.as_ref().unwrap_or(&url))?),
    };
    Some(AuthenticateTarget { url, upstream, idp: idps.list.first().map(|idp| idp.id.clone()), programs })
}

/// `programmatic_redirect_domain_whitelist`: hosts, and nothing else; an empty list allows none.
fn programs(cx: &mut Context<'_>, settings: &Block<'_>) -> ProgramHosts {
    let Some(names) = settings.texts(cx, "programmatic_redirect_domain_whitelist") else {
        return ProgramHosts::default();
    };
    let mut hosts = Vec::new();
    for name in names.iter().filter(|name| !name.value.trim().is_empty()) {
        let text = name.value.trim();
        let bare = text.parse::<Ipv6Addr>().map(Host::Ipv6);
        match bare.or_else(|_| Host::parse(text)).ok().filter(|_| !text.contains('*')) {
            Some(host) => hosts.push(host.to_string()),
            None => {
                let what = format!("{} is no host, and so nobody would ever be sent there", quoted(&name.value));
                cx.fatal(Code::BadChoice, &name.at, what, "write a name or an address alone, such as `localhost`");
            }
        }
    }
    ProgramHosts::new(hosts.iter().map(String::as_str))
}

fn written(cx: &mut Context<'_>, settings: &Block<'_>) -> Option<Url> {
    let url = settings.url(cx, "authenticate_service_url")?;
    let at = settings.at("authenticate_service_url");
    if url.host_str().is_some_and(|host| VENDOR.contains(&host)) {
        let what = "the hosted authenticate service belongs to somebody else, and is not used";
        cx.fatal(Code::NoAuthenticate, &at, what, "write a host of your own that leads to Postern, or remove the key");
    } else if !is_authority(&url[Position::BeforeHost..Position::AfterPort]) {
        let what = "this host cannot be asked for: it has letters that no host name has";
        cx.fatal(Code::BadUrl, &at, what, HINT);
    } else if url.scheme() != "https" {
        cx.fatal(Code::BadUrl, &at, "people sign in over https only", HINT);
    } else if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        cx.fatal(Code::BadUrl, &at, "this URL must end after its host", HINT);
    }
    Some(url)
}

/// Where edges reach authn in other processes: by its inner name, if it has one.
fn internal(cx: &mut Context<'_>, settings: &Block<'_>, role: Role) -> Option<Url> {
    let key = "authenticate_internal_service_url";
    let internal = settings.url(cx, key)?;
    let at = settings.at(key);
    match role {
        // Its edges read the same file.
        Role::Authn => {}
        Role::Edge if internal.scheme() != "https" => {
            let what = "edges speak to authn over https only: they tell it who signs in";
            cx.fatal(
                Code::BadUrl,
                &at,
                what,
                "write `https://` and the host of the processes with `services: authenticate`",
            );
        }
        Role::Edge if !matches!(internal.path(), "" | "/") || internal.query().is_some() => {
            cx.fatal(Code::BadUrl, &at, "this URL must end after its host", "remove what follows the host");
        }
        Role::Edge => {}
        Role::AllInOne => {
            let outer = settings.find("authenticate_service_url").and_then(|field| field.node.as_text());
            if outer.is_none_or(|url| Url::parse(&url).ok().as_ref() != Some(&internal)) {
                let what = "`authenticate_internal_service_url` has no effect here";
                let hint = "all services run in one process, authn is reached inside of it; remove it";
                cx.advise(Code::NoEffect, &at, what, hint);
            }
        }
    }
    Some(internal)
}

fn endpoint(url: &Url) -> Option<UpstreamEndpoint> {
    let (host, port) = (url.host_str()?.to_owned(), url.port_or_known_default()?);
    let authority = url[Position::BeforeHost..Position::AfterPort].into();
    Some(UpstreamEndpoint { scheme: UpstreamScheme::Https, host, port, authority, weight: 1 })
}

/// `https://authenticate.` and the parent domain of the routes, if all of them have the same one.
fn guessed(cx: &mut Context<'_>, settings: &Block<'_>, routes: &Routes) -> Option<Url> {
    let mut parents: Vec<_> = routes.list.iter().filter_map(|route| parent(&route.door())).collect();
    parents.sort();
    parents.dedup();
    let why = match parents.as_slice() {
        [(parent, port)] => {
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            if let Ok(url) = Url::parse(&format!("https://authenticate.{parent}{port}/")) {
                return Some(url);
            }
            "no host can be made from the routes' domain"
        }
        [] => "no route has a host that one could be made from",
        [_, _, ..] => "the routes have different parent domains",
    };
    if !routes.complete {
        // The routes that were refused may be those that say it.
        return None;
    }
    if routes.list.iter().all(|route| route.public) {
        return Url::parse(NOBODY_SIGNS_IN).ok();
    }
    let what = format!("where people sign in is not said, and {why}");
    cx.fatal(Code::NoAuthenticate, &settings.at("authenticate_service_url"), what, HINT);
    None
}

/// What follows the first label of a host, and its port; nothing where that might be somebody else's domain.
fn parent(hosts: &HostPattern) -> Option<(String, Option<u16>)> {
    let (host, port) = match hosts {
        HostPattern::Exact { host, port } => (host, port),
        HostPattern::Wildcard { pattern, port, .. } => (pattern, port),
    };
    let (_, parent) = host.split_once('.')?;
    let own = parent == "localhost" || (parent.contains('.') && !is_registry(parent));
    let named = !parent.contains(['*', ':', '[']) && host.parse::<std::net::IpAddr>().is_err();
    (own && named).then(|| (parent.to_owned(), *port))
}

/// Whether a domain of two labels is one under which registries sell names (`co.uk`, `com.au`).
fn is_registry(domain: &str) -> bool {
    domain.split_once('.').is_some_and(|(second, top)| top.len() == 2 && second.len() <= 3)
}

/// Whether a URL leads to this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

/// What the edge would route, for authn: the same table, so the two never disagree on a host.
#[derive(Debug)]
pub(super) struct Served(RouteTable);

impl Served {
    /// What is served under these routes, and beside them.
    pub(super) fn by(routes: &[Arc<Route>], own: &[postern_edge::Host], any_port: bool) -> Self {
        Self(RouteTable::new(routes, own.iter().map(|host| (host.name(), host.port())), any_port))
    }
}

impl RouteHosts for Served {
    fn serves(&self, url: &Url) -> bool {
        let host = postern_edge::Host::parse(url[Position::BeforeHost..Position::AfterPort].as_bytes());
        url.scheme() == "https" && host.is_ok_and(|host| self.0.knows(&host))
    }
}
