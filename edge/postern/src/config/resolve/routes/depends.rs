//! `depends_on`: hosts that whoever signs in on a route gets a cookie on as well (01 §2.1).

use postern_edge::route::{HostPattern, Route};
use postern_edge::{Host, LeftOut, Neighbours};
use postern_identity::MAX_ADDITIONAL_HOSTS;
use url::Url;

use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::value::{Spanned, quoted};
use crate::config::{At, Code};

/// The hosts, and where each is written.
pub(super) fn resolve(cx: &mut Context<'_>, route: &Block<'_>) -> Vec<(Host, At)> {
    let texts = route.texts(cx, "depends_on").unwrap_or_default();
    if texts.len() > MAX_ADDITIONAL_HOSTS {
        let what = format!("`depends_on` names {} hosts, and {MAX_ADDITIONAL_HOSTS} are the most", texts.len());
        cx.fatal(Code::OutOfRange, &route.at("depends_on"), what, "keep those that pages of this route call");
    }
    texts.into_iter().filter_map(|text| Some((host(cx, &text)?, text.at))).collect()
}

/// A host, or a URL that is cut to its host.
fn host(cx: &mut Context<'_>, text: &Spanned<String>) -> Option<Host> {
    let written = text.value.trim();
    let authority = if written.contains('/') {
        let url = Url::parse(written).ok().filter(|_| written.contains("://"));
        url.map(|url| url[url::Position::BeforeHost..url::Position::AfterPort].to_owned())
    } else {
        Some(written.to_owned())
    };
    let host = authority.and_then(|authority| Host::parse(authority.as_bytes()).ok());
    if host.is_none() {
        let what = format!("{} is no host", quoted(written));
        cx.fatal(Code::BadHost, &text.at, what, "write `api.example.com`, or `https://api.example.com`");
    }
    host
}

/// Tells of hosts that get no cookie, however often somebody signs in.
pub(super) fn tell(cx: &mut Context<'_>, (route, places): (&Route, &[At]), neighbours: Neighbours<'_>) {
    let own = route.own_host();
    // As the edge has it: a host without a port is at that of the page, as far as it is known.
    let (HostPattern::Exact { port, .. } | HostPattern::Wildcard { port, .. }) = route.door();
    for (host, at) in route.depends_on.iter().zip(places) {
        let host = &host.or_port(port);
        let name = quoted(&host.to_string());
        let (what, hint) = match neighbours.left_out(route, own.as_deref(), host) {
            // There is nothing to do.
            None | Some(LeftOut::SameCookie) => continue,
            Some(LeftOut::OutsideOfDomain) => {
                (format!("{name} is outside of the cookie domain, and gets no cookie"), "remove `cookie_domain`")
            }
            Some(LeftOut::SignInHost) => {
                (format!("{name} is where people sign in, and no page can call it"), "remove it from `depends_on`")
            }
            Some(LeftOut::NoRoute) => (
                format!("no route has the host {name}: nobody gets a cookie there"),
                "write the host of a route, with its port if `from` names one, or remove it",
            ),
            Some(LeftOut::OtherProvider) => (
                format!("{name} wants sessions of another identity provider: nobody gets a cookie there"),
                "write the same `idp_client_id` for both routes, or remove it",
            ),
        };
        cx.advise(Code::NoCookieThere, at, what, hint);
    }
}
