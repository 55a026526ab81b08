//! Where a route leads: `redirect`, else `response`, else `to` (01 §2.8).

use http::StatusCode;
use postern_edge::route::{Redirect, Target};

use super::{from, path, to};
use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::keys::{REDIRECT, RESPONSE};
use crate::config::value::quoted;

/// The target, the path of its first URL if it has one, and the text that it was read from.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) target: Target,
    pub(super) path: Option<String>,
    pub(super) written: String,
}

pub(super) fn resolve(cx: &mut Context<'_>, route: &Block<'_>) -> Option<Written> {
    if let Some(field) = route.find("redirect") {
        let block = Block::open(cx, field, &REDIRECT)?;
        let redirect = redirect(cx, &block)?;
        let written = format!("redirect {redirect:?}");
        return Some(Written { target: Target::Redirect(Box::new(redirect)), path: None, written });
    }
    if let Some(field) = route.find("response") {
        let block = Block::open(cx, field, &RESPONSE)?;
        return response(cx, &block);
    }
    if route.find("to").is_some() {
        let to = to::resolve(cx, route)?;
        return Some(Written {
            target: Target::Upstream(to.upstream),
            path: to.path,
            written: format!("to {}", to.written),
        });
    }
    let what = "the route leads nowhere: it has no `to`, `redirect` or `response`";
    cx.fatal(Code::BadTarget, &route.at("to"), what, "write `to: http://app.internal:8080`, for example");
    None
}

fn redirect(cx: &mut Context<'_>, block: &Block<'_>) -> Option<Redirect> {
    let https = block.boolean(cx, "https_redirect");
    let scheme = block.filled(cx, "scheme_redirect");
    let scheme = match (https, scheme) {
        (Some(https), _) => https.then(|| "https".to_owned()),
        (None, Some(scheme)) if matches!(scheme.value.as_str(), "http" | "https") => Some(scheme.value),
        (None, Some(scheme)) => {
            let what = format!("{} is no scheme to redirect to", quoted(&scheme.value));
            cx.fatal(Code::BadTarget, &scheme.at, what, "write `https` or `http`");
            None
        }
        (None, None) => None,
    };
    let host = block.filled(cx, "host_redirect");
    if let Some(host) = host.as_ref().filter(|host| !from::is_authority(&host.value)) {
        let what = format!("{} is no host", quoted(&host.value));
        cx.fatal(Code::BadHost, &host.at, what, "write `host` or `host:port`");
    }
    let port = block.find("port_redirect").and_then(|field| field.within(cx, 0, u16::MAX.into()));
    let port = port.filter(|port: &u16| *port > 0);
    let path = redirect_path(cx, block, "path_redirect");
    let prefix = redirect_path(cx, block, "prefix_rewrite");
    let strip_query = block.flag(cx, "strip_query");
    let status = redirect_status(cx, block)?;
    Some(Redirect { scheme, host: host.map(|host| host.value), port, path, prefix, status, strip_query })
}

fn redirect_path(cx: &mut Context<'_>, block: &Block<'_>, key: &str) -> Option<String> {
    let text = block.filled(cx, key)?;
    if let Err(why) = path::absolute(text.value.split('?').next().unwrap_or_default()) {
        cx.fatal(Code::BadTarget, &text.at, format!("`{key}` {why}"), "write a path that begins with `/`");
    }
    Some(text.value)
}

fn redirect_status(cx: &mut Context<'_>, block: &Block<'_>) -> Option<StatusCode> {
    let Some(field) = block.find("response_code") else { return Some(StatusCode::MOVED_PERMANENTLY) };
    let code: u16 = field.number(cx)?;
    if code == 0 {
        return Some(StatusCode::MOVED_PERMANENTLY);
    }
    if !matches!(code, 301 | 302 | 303 | 307 | 308) {
        let what = format!("{code} is no status of a redirect");
        cx.fatal(Code::BadTarget, &field.at, what, "write 301, 302, 303, 307 or 308");
        return None;
    }
    StatusCode::from_u16(code).ok()
}

fn response(cx: &mut Context<'_>, block: &Block<'_>) -> Option<Written> {
    let body = block.text(cx, "body").unwrap_or_default();
    let Some(field) = block.find("status") else {
        cx.fatal(Code::MissingKey, &block.at("status"), "`response` has no status", "write `status: 200`, for example");
        return None;
    };
    let code: u16 = field.number(cx)?;
    let status = StatusCode::from_u16(code).ok().filter(|_| (200..=599).contains(&code));
    let Some(status) = status else {
        cx.fatal(Code::BadTarget, &field.at, format!("{code} is no final HTTP status"), "write 200 to 599");
        return None;
    };
    let written = format!("response {code} {body}");
    Some(Written { target: Target::Response { status, body }, path: None, written })
}
