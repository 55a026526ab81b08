//! `set_response_headers` and the header keys of routes (01 §1.10, §2.10).

use http::{HeaderName, HeaderValue};
use postern_edge::{HeaderRule, ResponseHeaders};

use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::value::{Field, Spanned, quoted, refuse_repeated};

/// Set unless `set_response_headers` is written; `preload` is left to the operator (rulings).
const DEFAULTS: [(HeaderName, HeaderValue); 2] = [
    (http::header::X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN")),
    (http::header::X_XSS_PROTECTION, HeaderValue::from_static("1; mode=block")),
];
const HSTS: (HeaderName, HeaderValue) =
    (http::header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000; includeSubDomains"));

/// The headers of every response; HSTS only where there are certificates to keep the promise with.
pub(super) fn global(cx: &mut Context<'_>, settings: &Block<'_>, certificates: bool) -> ResponseHeaders {
    if settings.find("set_response_headers").is_none() {
        let hsts = certificates.then_some(HSTS);
        return ResponseHeaders(DEFAULTS.into_iter().chain(hsts).collect());
    }
    merged(cx, settings, &ResponseHeaders::default())
}

/// The headers of one route: its own over the global ones; `disable` empties the lot.
pub(super) fn of_route(cx: &mut Context<'_>, route: &Block<'_>, global: &ResponseHeaders) -> ResponseHeaders {
    merged(cx, route, global)
}

fn merged(cx: &mut Context<'_>, block: &Block<'_>, below: &ResponseHeaders) -> ResponseHeaders {
    let disable =
        |field: &Field<'_>| field.node.entries().iter().any(|entry| entry.key.eq_ignore_ascii_case("disable"));
    if block.find("set_response_headers").is_some_and(disable) {
        return ResponseHeaders::default();
    }
    let pairs = block.pairs(cx, "set_response_headers").unwrap_or_default();
    if pairs.is_empty() {
        return below.clone();
    }
    refuse_repeated(cx, &pairs);
    let mut headers = below.0.to_vec();
    for (name, value) in pairs {
        let Some(header) = response_header(cx, &name) else { continue };
        let Some(value) = header_value(cx, &value, &value.value) else { continue };
        headers.retain(|(known, _)| *known != header);
        headers.push((header, value));
    }
    ResponseHeaders(headers.into())
}

/// Fields that say how a message ends or what becomes of the connection: ours alone (S-001).
const FRAMING: [HeaderName; 5] = [
    http::header::CONNECTION,
    http::header::CONTENT_LENGTH,
    http::header::TRANSFER_ENCODING,
    http::header::UPGRADE,
    http::header::TRAILER,
];

/// `set_request_headers`, then `remove_request_headers`: removal is last, also of what was set (01 §2.10).
pub(super) fn request_rules(cx: &mut Context<'_>, route: &Block<'_>, claims: &[HeaderName]) -> Vec<HeaderRule> {
    let mut rules = Vec::new();
    let pairs = route.pairs(cx, "set_request_headers").unwrap_or_default();
    refuse_repeated(cx, &pairs);
    for (name, value) in pairs {
        let Some(header) = header_name(cx, &name) else { continue };
        if is_refused(cx, &name, &header, claims) {
            continue;
        }
        if !can_be_filled(cx, &value) {
            continue;
        }
        // As written: `$$` becomes `$` when the value is sent, and not before.
        rules.extend(header_value(cx, &value, &value.value).map(|value| HeaderRule::Set(header, value)));
    }
    for name in route.texts(cx, "remove_request_headers").unwrap_or_default() {
        let name = Spanned { value: name.value.trim().to_owned(), ..name };
        let Some(header) = header_name(cx, &name) else { continue };
        if header == http::header::HOST || FRAMING.contains(&header) {
            let what = format!("a route cannot remove `{header}`");
            cx.fatal(Code::ReservedName, &name.at, what, "take it off the list; it belongs to the message itself");
        }
        rules.push(HeaderRule::Remove(header));
    }
    rules
}

/// Whether a route may not set this header: it is ours, in whatever spelling, or the connection's (S-047).
fn is_refused(cx: &mut Context<'_>, name: &Spanned<String>, header: &HeaderName, claims: &[HeaderName]) -> bool {
    let plain = |text: &str| text.replace(['_', '.'], "-");
    let spelled = plain(header.as_str());
    let hint = if *header == http::header::HOST {
        "write `host_rewrite`"
    } else if ["x-pomerium-", "x-postern-"].iter().any(|own| spelled.starts_with(own))
        || claims.iter().any(|claim| plain(claim.as_str()) == spelled)
    {
        "remove it; only Postern says who the user is, see `pass_identity_headers` and `jwt_claims_headers`"
    } else if FRAMING.contains(header) {
        "remove it; it belongs to the connection"
    } else {
        return false;
    };
    cx.fatal(Code::ReservedName, &name.at, format!("a route cannot set `{header}`"), hint);
    true
}

/// Whether the references in a value can be filled in (01 §2.10). What is not known stands for nothing, as in Pomerium, and is
/// told of.
fn can_be_filled(cx: &mut Context<'_>, value: &Spanned<String>) -> bool {
    let mut filled = true;
    for path in postern_edge::prepare::references(value.value.as_bytes()) {
        let path: Vec<_> = path.iter().map(String::as_str).collect();
        match path.as_slice() {
            ["pomerium", "jwt" | "client_cert_fingerprint" | "client_cert_san_dns" | "client_cert_san_email"]
            | ["pomerium", "request", "headers", _] => {}
            ["pomerium", token @ ("access_token" | "id_token")] => {
                let what = format!("`$pomerium.{token}` is not supported: the edge does not read tokens of providers");
                cx.fatal(Code::NotYet, &value.at, what, "write `$pomerium.jwt`, or a fixed value");
                filled = false;
            }
            other => {
                // Only a name that cannot be a part of somebody's password.
                let what = match other {
                    ["pomerium", ..] => format!("`${}` stands for nothing", other.join(".")),
                    _ => "a `$` with a name behind it stands for nothing".to_owned(),
                };
                cx.advise(Code::NoEffect, &value.at, what, "write `$$` for a dollar sign");
            }
        }
    }
    filled
}

/// A header of responses that may be changed.
pub(super) fn response_header(cx: &mut Context<'_>, name: &Spanned<String>) -> Option<HeaderName> {
    let header = header_name(cx, name)?;
    if FRAMING.contains(&header) {
        let what = format!("`{header}` belongs to the connection and cannot be set");
        cx.fatal(Code::ReservedName, &name.at, what, "remove it");
        return None;
    }
    Some(header)
}

pub(super) fn header_name(cx: &mut Context<'_>, name: &Spanned<String>) -> Option<HeaderName> {
    let header = HeaderName::from_bytes(name.value.as_bytes());
    if header.is_err() {
        let what = format!("{} cannot be the name of a header", quoted(&name.value));
        cx.fatal(Code::BadHeader, &name.at, what, "use letters, digits and `-`");
    }
    header.ok()
}

pub(super) fn header_value(cx: &mut Context<'_>, at: &Spanned<String>, text: &str) -> Option<HeaderValue> {
    let value = HeaderValue::from_bytes(text.as_bytes());
    if value.is_err() {
        let hint = "remove line ends and control characters; for a long text use `>-` instead of `|`";
        cx.fatal(Code::BadHeader, &at.at, "this value cannot be sent in a header", hint);
    }
    value.ok()
}
