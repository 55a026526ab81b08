//! Routes: `policy` (the old name), then `routes` (01 §1.1, §2).

mod access;
mod balancing;
mod connections;
mod credentials;
mod depends;
mod from;
mod health;
mod lints;
mod odd;
mod outliers;
mod path;
mod policies;
mod rewriting;
mod target;
mod to;
mod upstream_tls;

pub(super) use access::{claims, tell as tell_policy};
pub(super) use balancing::breakers;
pub(super) use from::is_authority;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use postern_edge::route::{HostPattern, Route, RouteTable, Target};
use postern_edge::{Host, Neighbours, ResponseHeaders};
use url::Url;

use self::policies::Policies;
use super::headers;
use super::identity::{self, Identity};
use super::idp::Idps;
use super::mtls::Mtls;
use super::{limits, planned, storage, upgrades};
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::keys::ROUTE;
use crate::config::value::{Field, quoted};
use crate::config::{At, Code};

/// What a route takes from the top of the file where it says nothing itself.
#[derive(Debug)]
pub(super) struct Defaults<'d> {
    pub(super) upstream_timeout: Option<Duration>,
    pub(super) response_headers: &'d ResponseHeaders,
    pub(super) identity: &'d Identity,
    /// Paths of requests are made canonical.
    pub(super) normalize: bool,
    /// Policies are read as Pomerium reads them (01 §8.1).
    pub(super) fail_open_identity: bool,
    /// `session_static_window`.
    pub(super) static_window: Duration,
    /// `allow_upgrades`.
    pub(super) upgrades: &'d [String],
}

/// A route and what is needed to compare it with others.
struct Resolved {
    route: Arc<Route>,
    /// The text that its identity is the hash of (01 §2.9).
    identity: String,
    at: At,
    /// Where each host of its `depends_on` is written.
    depends_on: Vec<At>,
}

/// Without bytes for so long a stream ends, unless the route says otherwise (01 §1.3).
const IDLE: Duration = Duration::from_secs(300);

/// The routes that could be understood.
#[derive(Debug)]
pub(super) struct Routes {
    /// In the order in which they are tried.
    pub(super) list: Vec<Arc<Route>>,
    /// Where each of them is written.
    pub(super) places: Vec<At>,
    /// Which of them are for https, in the same order.
    secure: Vec<bool>,
    /// None was left out.
    pub(super) complete: bool,
    /// Hosts that have our own paths alone.
    pub(super) own_hosts: Vec<Host>,
    /// The routes with `depends_on`, by their number, and where each host of it is written.
    depending: Vec<(usize, Vec<At>)>,
}

pub(super) fn resolve(
    cx: &mut Context<'_>,
    settings: &Block<'_>,
    (idps, mtls): (&mut Idps, &mut Mtls),
    defaults: &Defaults<'_>,
) -> Routes {
    let (mut resolved, mut written, mut own_hosts) = (Vec::new(), 0, Vec::new());
    let mut policies = Policies::resolve(cx, settings, (defaults.fail_open_identity, mtls.asks()));
    for list in ["policy", "routes"] {
        for field in settings.find(list).map(Field::elements).unwrap_or_default() {
            written += 1;
            if let Some(block) = Block::open(cx, &field, &ROUTE) {
                resolved.extend(route(cx, &block, (idps, &mut policies, mtls), defaults));
                let format = planned::token_format(cx, &block);
                planned::of_route(cx, &block, format);
                own_hosts.extend(downstream_name(cx, &block));
            }
        }
    }
    policies.tell_unused(cx);
    refuse_duplicates(cx, &resolved);
    lints::all(cx, &resolved);
    let complete = resolved.len() == written;
    let scheme = |one: &Resolved| one.identity.split("://").next().unwrap_or_default().to_ascii_lowercase();
    let secure = resolved.iter().map(|one| !scheme(one).ends_with("http")).collect();
    let depending = resolved.iter_mut().map(|one| std::mem::take(&mut one.depends_on)).enumerate();
    let depending = depending.filter(|(_, places)| !places.is_empty()).collect();
    let (list, places) = resolved.into_iter().map(|one| (one.route, one.at)).unzip();
    Routes { list, places, secure, complete, own_hosts, depending }
}

/// `tls_downstream_server_name`: a host that has our own paths, and no routes.
fn downstream_name(cx: &mut Context<'_>, route: &Block<'_>) -> Option<Host> {
    let text = route.filled(cx, "tls_downstream_server_name")?;
    let name = text.value.trim();
    let host = Host::parse(name.as_bytes()).ok().filter(|host| !host.is_unnamed() && is_authority(name));
    if host.is_none() {
        let what = format!("{} is no host name", quoted(name));
        cx.fatal(Code::BadHost, &text.at, what, "write one name, without `*`: `app.example.com`");
    }
    host
}

impl Routes {
    /// The hosts that clients connect to over https, in the spelling of requests, and where each is written.
    pub(super) fn secure_hosts(&self) -> impl Iterator<Item = (String, &At)> {
        let all = self.list.iter().zip(&self.places).zip(&self.secure);
        all.filter(|(_, secure)| **secure).map(|((route, at), _)| match route.door() {
            HostPattern::Exact { host, .. } | HostPattern::Wildcard { pattern: host, .. } => (host, at),
        })
    }

    /// Tells of routes on the host where people sign in.
    pub(super) fn tell_of_sign_in_host(&self, cx: &mut Context<'_>, url: &Url) {
        for (route, at) in self.list.iter().zip(&self.places) {
            lints::sign_in_host(cx, route, at, url);
        }
    }

    /// Tells of hosts in `depends_on` that get no cookie.
    pub(super) fn tell_of_dependencies(
        &self,
        cx: &mut Context<'_>,
        (url, cookie_domain): (&Url, Option<&str>),
        any_port: bool,
    ) {
        // A route that was refused may be the one that is missed.
        if self.depending.is_empty() || !self.complete {
            return;
        }
        let own = self.own_hosts.iter().map(|host| (host.name(), host.port()));
        let table = RouteTable::new(&self.list, own, any_port);
        let sign_in_host = url.host_str().unwrap_or_default();
        for (index, places) in &self.depending {
            if let Some(route) = self.list.get(*index) {
                depends::tell(cx, (route, places), Neighbours { table: &table, cookie_domain, sign_in_host });
            }
        }
    }
}

fn route(
    cx: &mut Context<'_>,
    block: &Block<'_>,
    (idps, policies, mtls): (&mut Idps, &mut Policies<'_>, &mut Mtls),
    defaults: &Defaults<'_>,
) -> Option<Resolved> {
    let from = from::resolve(cx, block);
    let path = path::resolve(cx, block, defaults.normalize);
    let mut target = target::resolve(cx, block);
    upstream_tls::resolve(cx, block, target.as_mut().map(|written| &mut written.target));
    balancing::resolve(cx, block, target.as_mut().map(|written| &mut written.target));
    let policy = access::resolve(cx, block, policies);
    let public = policy.as_ref().is_some_and(postern_policy::Policy::is_public);
    let policy = policy.map(|policy| if mtls.denies() { policy.with_client_certificates() } else { policy });
    let client_trust = mtls.of_route(cx, block);
    let idp = idps.of_route(cx, block);
    let tunnel = from.as_ref().and_then(|from| Some(from.tunnel.as_deref()?.carries));
    let credentials = credentials::resolve(cx, block, target.as_ref().map(|written| &written.target));
    let kubernetes = credentials.as_ref().is_some_and(|credentials| credentials.kubernetes.is_some());
    let upgrades = upgrades::of_route(cx, block, (defaults.upgrades, kubernetes));
    let long_lived = tunnel.is_some() || upgrades.has_websockets();
    if let Some(carries) = tunnel {
        connections::tell_unused(cx, block, carries);
    }
    let rewrite = rewriting::of_path(cx, block, target.as_ref());
    let host_rewrite = rewriting::of_host(cx, block, target.as_ref());
    let response_rewrites = rewriting::of_response(cx, block);
    let request_headers = headers::request_rules(cx, block, &defaults.identity.claim_names());
    credentials::refuse_other_words(cx, block, credentials.as_deref(), &request_headers);
    let response_headers = headers::of_route(cx, block, defaults.response_headers);
    let pass = block.boolean(cx, "pass_identity_headers");
    let issuer = identity::issuer_format(cx, block);
    let groups_filter = identity::groups_filter(cx, block, defaults.identity.groups_filter.as_ref());
    let show_error_details = block.flag(cx, "show_error_details");
    let (depends_on, dependencies): (Vec<_>, Vec<_>) = depends::resolve(cx, block).into_iter().unzip();
    let static_window = storage::window(cx, block).unwrap_or(defaults.static_window);
    let max_request_body = limits::body(cx, block);
    // A long-lived route has no time-outs of its own accord (01 §2.6).
    let timeout = block.timeout(cx, "timeout", if long_lived { None } else { defaults.upstream_timeout });
    let idle_timeout = block.timeout(cx, "idle_timeout", (!long_lived).then_some(IDLE));
    // For people who read the file; it only has to be text.
    block.text(cx, "description");
    let name = block.filled(cx, "name").map(|name| name.value);

    let (from, path, target, policy) = (from?, path?, target?, policy?);
    if let Some(carries) = tunnel
        && !matches!(target.target, Target::Upstream(_))
    {
        connections::refuse_answers(cx, block, carries);
        return None;
    }
    let mut name = name.unwrap_or_else(|| path.named(&from.written));
    name.shrink_to_fit();
    let identity = [&from.written, &path.written, &target.written].map(String::as_str).join("\n");
    let route = Route {
        id: digest(&[&identity]),
        name,
        hosts: from.hosts,
        tunnel: from.tunnel,
        path: path.matcher,
        target: target.target,
        public,
        policy,
        client_trust,
        idp,
        rewrite,
        host_rewrite,
        request_headers,
        response_headers,
        response_rewrites: response_rewrites.into(),
        // Nobody tells who somebody is in what is not HTTP.
        pass_identity_headers: tunnel.is_none() && pass.unwrap_or(defaults.identity.pass_identity_headers),
        issuer_format: issuer.unwrap_or(defaults.identity.issuer_format),
        groups_filter,
        timeout,
        idle_timeout,
        upgrades,
        credentials,
        static_window,
        max_request_body,
        show_error_details,
        depends_on: depends_on.into(),
    };
    Some(Resolved { route: Arc::new(route), identity, at: block.at("from"), depends_on: dependencies })
}

/// The first 16 hex digits of the SHA-256 over `parts`.
pub(super) fn digest(parts: &[&str]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    hex::encode(context.finish().as_ref().get(..8).unwrap_or_default())
}

/// Two routes to upstreams that are the same in every way (S-036, 01 §2.9).
fn refuse_duplicates(cx: &mut Context<'_>, routes: &[Resolved]) {
    let mut seen: HashMap<&str, &At> = HashMap::new();
    for one in routes.iter().filter(|one| matches!(one.route.target, Target::Upstream(_))) {
        if let Some(first) = seen.get(one.identity.as_str()) {
            let what = format!("this route is the same as {}", place(first));
            cx.fatal(
                Code::DuplicateRoute,
                &one.at,
                what,
                "remove one of them; put both policies into the one that stays",
            );
        } else {
            seen.insert(&one.identity, &one.at);
        }
    }
}

/// A route by its key, and its line where it has one.
fn place(at: &At) -> String {
    let key = at.key.as_str().trim_end_matches(".from");
    if at.place.is_known() { format!("`{key}` on line {}", at.place.line) } else { format!("`{key}`") }
}
