//! Which addresses are asked for: what hits each route of both sides, and what the criteria on paths tell apart there.

use std::collections::{BTreeSet, HashMap};

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use postern_edge::route::{Carries, HostPattern, PathMatcher, Route};
use postern_policy::{Facts, Policy, Samples, Signature};

use super::Side;
use super::scenario::Scenario;
use crate::probe::{Address, Question, Who};

/// One address, and what takes it on each side.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) address: Address,
    /// The canonical path, decoded, as policies see it.
    pub(super) path: String,
    pub(super) old: Option<usize>,
    pub(super) new: Option<usize>,
}

/// What is the same for two addresses that need not be asked for both.
type Kind = (Option<usize>, Option<usize>, &'static str, &'static str, Vec<Signature>);

/// A port that routes hardly name.
const ODD_PORT: u16 = 44_300;

/// The addresses that were named.
pub(super) fn named(sides: &[Side<'_>; 2], urls: &[Address], usual: &Scenario) -> Vec<Asked> {
    urls.iter().filter_map(|url| met(sides, url, usual).map(|(asked, _)| asked)).collect()
}

/// Addresses that together meet every route, as far as they were found, and whether there were more than `most`.
pub(super) fn made(sides: &[Side<'_>; 2], usual: &Scenario, most: usize) -> (Vec<Asked>, bool) {
    let routes: Vec<&Route> = sides.iter().flat_map(Side::routes).filter(|route| route.tunnel.is_none()).collect();
    let exact: BTreeSet<&str> = routes.iter().filter_map(|route| exact(&route.hosts)).collect();
    let mut seen = HashMap::new();
    let mut authorities = BTreeSet::new();
    let mut hosts = Vec::new();
    for route in &routes {
        let (name, port) = host(&route.hosts, &exact);
        // Whether another port makes a difference is a setting.
        for port in [port, None, Some(ODD_PORT)] {
            let authority = port.map_or_else(|| name.clone(), |port| format!("{name}:{port}"));
            if authorities.insert(authority.clone()) {
                hosts.push((name.clone(), authority));
            }
        }
    }
    let wild: Vec<_> = routes.iter().filter(|route| exact_of(route).is_none()).copied().collect();
    let mut by_name: HashMap<&str, Vec<&Route>> = HashMap::new();
    for route in &routes {
        if let Some(name) = exact_of(route) {
            by_name.entry(name).or_default().push(route);
        }
    }
    let mut all = Vec::new();
    for address in tunnels(sides) {
        let Some((asked, kind)) = met(sides, &address, usual) else { continue };
        if seen.insert(kind, ()).is_none() {
            if all.len() == most {
                return (all, true);
            }
            all.push(asked);
        }
    }
    for (name, authority) in &hosts {
        let named = by_name.get(name.as_str()).map(Vec::as_slice).unwrap_or_default();
        let fitting = named.iter().chain(wild.iter().filter(|route| route.hosts.names(name))).copied();
        for path in paths(fitting) {
            let Ok(address) = Address::parse(&format!("https://{authority}{path}")) else { continue };
            let Some((asked, kind)) = met(sides, &address, usual) else { continue };
            if seen.insert(kind, ()).is_some() {
                continue;
            }
            if all.len() == most {
                return (all, true);
            }
            all.push(asked);
        }
    }
    (all, false)
}

/// What tunnels are asked for with, on both sides; of a pattern one host.
fn tunnels(sides: &[Side<'_>; 2]) -> Vec<Address> {
    let tunnels = sides.iter().flat_map(Side::routes).filter_map(|route| route.tunnel.as_deref());
    let asked = tunnels.flat_map(|tunnel| tunnel.authorities.iter().map(|one| (tunnel.carries, one.to_string())));
    let asked: BTreeSet<_> = asked.collect();
    let address = |(carries, authority): &(Carries, String)| {
        Address::parse(&format!("{}://{}", carries.scheme(), authority.replace('*', "any")))
    };
    asked.iter().filter_map(|asked| address(asked).ok()).collect()
}

fn exact(hosts: &HostPattern) -> Option<&str> {
    match hosts {
        HostPattern::Exact { host, .. } => Some(host),
        HostPattern::Wildcard { .. } => None,
    }
}

fn exact_of(route: &Route) -> Option<&str> {
    exact(&route.hosts)
}

/// A host that is the route's, and its port; of a pattern one that no route names.
fn host(hosts: &HostPattern, exact: &BTreeSet<&str>) -> (String, Option<u16>) {
    match hosts {
        HostPattern::Exact { host, port } => (host.clone(), *port),
        HostPattern::Wildcard { pattern, port } => {
            let mut label = "any".to_owned();
            loop {
                let name = pattern.replace('*', &label);
                if !exact.contains(name.as_str()) {
                    return (name, *port);
                }
                label.push('x');
            }
        }
    }
}

/// Paths, as they are written in requests, shortest first: of each route what hits it, and of each criterion on paths what meets it
/// there and what misses it. The criteria of all routes: what one side leads to one of them the other may lead to another.
fn paths<'r>(routes: impl Iterator<Item = &'r Route>) -> Vec<String> {
    let mut all = BTreeSet::from(["/".to_owned()]);
    let routes: Vec<_> = routes.collect();
    let samples = Samples::of(routes.iter().map(|route| &route.policy));
    for route in routes {
        let hits = hits(&route.path);
        for hit in &hits {
            let decoded = percent_encoding::percent_decode_str(hit).decode_utf8_lossy();
            let made = samples.paths(&decoded).into_iter().map(|sample| escaped(&sample.value));
            all.extend(made.filter(|path| path.starts_with('/')));
        }
        all.extend(hits);
    }
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_by_key(String::len);
    all
}

fn hits(matcher: &PathMatcher) -> Vec<String> {
    match matcher {
        PathMatcher::Prefix(text) | PathMatcher::Exact(text) => {
            let slash = if text.ends_with('/') { "" } else { "/" };
            vec![text.clone(), format!("{text}{slash}x"), format!("{text}x")]
        }
        PathMatcher::Regex(regex) => regex.examples(),
    }
}

/// All that may not stand in a path by itself.
const IN_PATHS: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}')
    .add(b'\\');

fn escaped(path: &str) -> String {
    utf8_percent_encode(path, IN_PATHS).to_string()
}

/// What takes that address on both sides.
fn met(sides: &[Side<'_>; 2], address: &Address, usual: &Scenario) -> Option<(Asked, Kind)> {
    let question = Question { source: usual.source, ..Question::get(address.clone(), Who::Nobody, usual.now) };
    let [old, new] = sides.each_ref().map(|side| side.probe.ask(&question).ok());
    let (old, new) = (old?, new?);
    let number = |side: &Side<'_>, finding: &postern_edge::Finding<'_>| {
        let route = finding.admission.route.as_ref()?;
        side.probe.routes().iter().position(|other| std::sync::Arc::ptr_eq(other, route))
    };
    let [before, after] = sides;
    let (old_at, new_at) = (number(before, &old), number(after, &new));
    let request = old.admission.request().or(new.admission.request());
    let path = request.map(|request| request.decoded_path().into_owned()).unwrap_or_default();
    let policies = [before.policy(old_at), after.policy(new_at)].into_iter().flatten();
    let facts = Facts::anonymous("GET", &path, usual.source, usual.now);
    let signatures = policies.map(|policy: &Policy| policy.signature(&facts)).collect();
    let details = |at: Option<usize>, finding: &postern_edge::Finding<'_>| {
        if at.is_some() { "" } else { finding.admission.verdict().details() }
    };
    let kind = (old_at, new_at, details(old_at, &old), details(new_at, &new), signatures);
    Some((Asked { address: address.clone(), path, old: old_at, new: new_at }, kind))
}
