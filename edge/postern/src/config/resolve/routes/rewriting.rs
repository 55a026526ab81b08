//! How requests and responses change on the way (01 §2.1, §2.7).

use http::HeaderValue;
use postern_edge::route::{HostRewrite, PathRewrite, RegexRewrite, ResponseRewrite, SubstitutionError, Target};

use super::target::Written;
use super::{is_authority, path};
use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::keys::REWRITE_RESPONSE_HEADER;
use crate::config::resolve::{headers, planned};
use crate::config::value::quoted;

/// `prefix_rewrite`, else the expression, else the path of the first `to` (01 §2.7).
pub(super) fn of_path(cx: &mut Context<'_>, block: &Block<'_>, target: Option<&Written>) -> Option<PathRewrite> {
    let prefix = block.filled(cx, "prefix_rewrite");
    if let (Some(_), Some(pattern)) = (&prefix, block.filled(cx, "regex_rewrite_pattern")) {
        let what = "`prefix_rewrite` and `regex_rewrite_pattern` change the same path";
        cx.fatal(Code::Conflict, &pattern.at, what, "remove one of them");
    }
    let expression = expression(cx, block, "regex_rewrite_pattern", "regex_rewrite_substitution");
    let Some(written) = prefix else {
        let path = target.and_then(|target| target.path.clone());
        return expression.map(PathRewrite::Regex).or(path.map(PathRewrite::Prefix));
    };
    if let Err(why) = path::absolute(&written.value) {
        let what = format!("`prefix_rewrite` {why}");
        cx.fatal(Code::BadTarget, &written.at, what, "write a path that begins with `/`");
    }
    Some(PathRewrite::Prefix(written.value))
}

/// The first of `host_rewrite`, `host_rewrite_header`, the expression and `preserve_host_header`, else the upstream's own
/// (01 §2.7).
pub(super) fn of_host(cx: &mut Context<'_>, block: &Block<'_>, target: Option<&Written>) -> HostRewrite {
    // A socket has no name of its own.
    let socket = |target: &Written| match &target.target {
        Target::Upstream(upstream) => upstream.endpoints.iter().any(|endpoint| endpoint.scheme.is_socket()),
        Target::Redirect(_) | Target::Response { .. } => false,
    };
    let preserve = block.flag(cx, "preserve_host_header") || target.is_some_and(socket);
    let literal = literal_host(cx, block);
    let field = block.filled(cx, "host_rewrite_header");
    let field = field.and_then(|name| headers::header_name(cx, &name));
    let made = expression(cx, block, "host_path_regex_rewrite_pattern", "host_path_regex_rewrite_substitution");
    let last = if preserve { HostRewrite::Preserve } else { HostRewrite::Upstream };
    literal.or(field.map(HostRewrite::Header)).or(made.map(HostRewrite::Path)).unwrap_or(last)
}

fn literal_host(cx: &mut Context<'_>, block: &Block<'_>) -> Option<HostRewrite> {
    let written = block.filled(cx, "host_rewrite")?;
    match HeaderValue::from_str(&written.value) {
        Ok(value) if is_authority(&written.value) => Some(HostRewrite::Literal(Box::new(value))),
        Ok(_) | Err(_) => {
            let what = format!("{} cannot be sent as a host", quoted(&written.value));
            cx.fatal(Code::BadHeader, &written.at, what, "write `host` or `host:port`");
            None
        }
    }
}

/// An expression and what takes the place of its matches.
fn expression(cx: &mut Context<'_>, block: &Block<'_>, pattern_key: &str, key: &str) -> Option<RegexRewrite> {
    let substitution = block.filled(cx, key);
    let Some(pattern) = block.filled(cx, pattern_key) else {
        if let Some(substitution) = substitution {
            let what = format!("`{key}` takes the place of nothing");
            cx.advise(Code::MissingKey, &substitution.at, what, format!("add `{pattern_key}`"));
        }
        return None;
    };
    let pattern = planned::regex(cx, &pattern, false)?;
    let text = substitution.as_ref().map(|text| text.value.as_str()).unwrap_or_default();
    let rewrite = RegexRewrite::new(pattern, text);
    if let (Err(error), Some(substitution)) = (&rewrite, &substitution) {
        let hint = match error {
            SubstitutionError::Group(_) => "put round brackets around what the number is to stand for",
            SubstitutionError::Escape => "write `\\1` for the first group, `\\\\` for a backslash",
        };
        cx.fatal(Code::BadRegex, &substitution.at, error.to_string(), hint);
    }
    rewrite.ok()
}

/// `rewrite_response_headers`.
pub(super) fn of_response(cx: &mut Context<'_>, block: &Block<'_>) -> Vec<ResponseRewrite> {
    let mut found = Vec::new();
    for entry in block.list(cx, "rewrite_response_headers", &REWRITE_RESPONSE_HEADER) {
        let what = "an entry of `rewrite_response_headers` has no `header`";
        let name = entry.required(cx, "header", what, "write `{header: Location, prefix: A, value: B}`");
        let prefix = entry.text(cx, "prefix").unwrap_or_default();
        let value = match entry.filled(cx, "value") {
            Some(value) => headers::header_value(cx, &value, &value.value),
            None => Some(HeaderValue::from_static("")),
        };
        let header = name.and_then(|name| headers::response_header(cx, &name));
        found.extend(header.zip(value).map(|(header, value)| ResponseRewrite { header, prefix, value }));
    }
    found
}
