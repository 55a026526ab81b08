//! The session cookie (01 §1.7).

use std::sync::Arc;
use std::time::Duration;

use postern_edge::CookieConfig;
use postern_edge::route::{HostPattern, Route};
use postern_identity::{CookieAttributes, SameSite};

use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::value::quoted;

/// `cookie_name` unless written: it is the name that clients know.
const NAME: &str = "_pomerium";
/// `cookie_expire` unless written.
const LIFETIME: Duration = Duration::from_secs(14 * 3600);

/// The cookie, and how long it and its session live.
#[derive(Debug)]
pub(super) struct Cookies {
    pub(super) edge: CookieConfig,
    pub(super) lifetime: Duration,
}

pub(super) fn resolve(cx: &mut Context<'_>, settings: &Block<'_>) -> Cookies {
    let domain = domain(cx, settings);
    let http_only = settings.boolean(cx, "cookie_http_only").unwrap_or(true);
    let choices = [("", SameSite::Lax), ("lax", SameSite::Lax), ("strict", SameSite::Strict), ("none", SameSite::None)];
    let same_site = settings.choice(cx, "cookie_same_site", "", &choices);
    let attributes = CookieAttributes { domain, http_only, same_site: same_site.unwrap_or_default() };
    Cookies { edge: CookieConfig { name: name(cx, settings), attributes }, lifetime: lifetime(cx, settings) }
}

fn name(cx: &mut Context<'_>, settings: &Block<'_>) -> String {
    let Some(name) = settings.filled(cx, "cookie_name") else { return NAME.to_owned() };
    // RFC 6265 §4.1.1: a cookie name is a token, as header names are.
    if name.value.parse::<http::HeaderName>().is_err() {
        let what = format!("{} cannot be the name of a cookie", quoted(&name.value));
        cx.fatal(Code::BadCookie, &name.at, what, "use letters, digits, `_` and `-`");
    }
    name.value
}

fn domain(cx: &mut Context<'_>, settings: &Block<'_>) -> Option<String> {
    let domain = settings.filled(cx, "cookie_domain")?;
    let host = domain.value.trim().trim_start_matches('.').to_ascii_lowercase();
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    if host.is_empty() || !host.chars().all(valid) {
        let what = format!("{} is no domain", quoted(&domain.value));
        cx.fatal(Code::BadCookie, &domain.at, what, "write a domain such as `example.com`, or remove the key");
        return None;
    }
    let what = format!("every host under {host} receives the session cookie, also those that Postern does not guard");
    cx.advise(
        Code::SharedCookie,
        &domain.at,
        what,
        "remove `cookie_domain`: each route host then gets a cookie of its own",
    );
    Some(host)
}

/// Names routes whose hosts never receive a cookie of the configured domain: nobody would stay signed in there.
pub(super) fn tell_outsiders(cx: &mut Context<'_>, settings: &Block<'_>, cookies: &Cookies, routes: &[Arc<Route>]) {
    let Some(domain) = &cookies.edge.attributes.domain else { return };
    let inside = |host: &str| host.strip_suffix(domain).is_some_and(|head| head.is_empty() || head.ends_with('.'));
    for route in routes.iter().filter(|route| !route.public) {
        let door = route.door();
        let (HostPattern::Exact { host, .. } | HostPattern::Wildcard { pattern: host, .. }) = &door;
        if !inside(host) {
            let what = format!("{} is outside of the cookie domain: nobody can stay signed in there", quoted(host));
            cx.advise(Code::SharedCookie, &settings.at("cookie_domain"), what, "remove `cookie_domain`");
        }
    }
}

fn lifetime(cx: &mut Context<'_>, settings: &Block<'_>) -> Duration {
    let Some(field) = settings.find("cookie_expire") else { return LIFETIME };
    let Some(lifetime) = field.duration(cx) else { return LIFETIME };
    if lifetime.as_secs() == 0 {
        cx.fatal(Code::BadCookie, &field.at, "a session must live at least one second", "write `14h`, for example");
    }
    lifetime
}
