//! How requests and responses change on the way, beyond what works already (01 §2.1, §2.7).

use http::HeaderName;
use regex::Regex;

use super::regex;
use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::keys::REWRITE_RESPONSE_HEADER;
use crate::config::resolve::headers;

/// Rewrites of a route.
#[derive(Debug, Clone, Default)]
pub struct Rewriting {
    /// `regex_rewrite_pattern` and `regex_rewrite_substitution`: of the path.
    pub path: Option<RegexRewrite>,
    /// `host_rewrite_header`: the field that says the Host.
    pub host_header: Option<HeaderName>,
    /// `host_path_regex_rewrite_pattern` and `_substitution`: the Host, made from the path.
    pub host: Option<RegexRewrite>,
    /// `rewrite_response_headers`.
    pub response: Vec<ResponseRewrite>,
}

/// Every match becomes something else.
#[derive(Debug, Clone)]
pub struct RegexRewrite {
    /// What is looked for.
    pub pattern: Regex,
    /// What takes its place; `\1` to `\9` are groups of it.
    pub substitution: String,
}

/// An entry of `rewrite_response_headers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseRewrite {
    /// Which field.
    pub header: HeaderName,
    /// What it must begin with.
    pub prefix: String,
    /// What takes its place.
    pub value: String,
}

pub(super) fn resolve(cx: &mut Context<'_>, route: &Block<'_>) -> Rewriting {
    if let (Some(_), Some(pattern)) = (route.filled(cx, "prefix_rewrite"), route.filled(cx, "regex_rewrite_pattern")) {
        let what = "`prefix_rewrite` and `regex_rewrite_pattern` change the same path";
        cx.fatal(Code::Conflict, &pattern.at, what, "remove one of them");
    }
    let header = route.filled(cx, "host_rewrite_header");
    Rewriting {
        path: rewrite(cx, route, "regex_rewrite_pattern", "regex_rewrite_substitution"),
        host_header: header.and_then(|name| headers::header_name(cx, &name)),
        host: rewrite(cx, route, "host_path_regex_rewrite_pattern", "host_path_regex_rewrite_substitution"),
        response: response(cx, route),
    }
}

fn rewrite(cx: &mut Context<'_>, route: &Block<'_>, pattern_key: &str, key: &str) -> Option<RegexRewrite> {
    let substitution = route.filled(cx, key);
    let Some(pattern) = route.filled(cx, pattern_key) else {
        if let Some(substitution) = substitution {
            let what = format!("`{key}` takes the place of nothing");
            cx.advise(Code::MissingKey, &substitution.at, what, format!("add `{pattern_key}`"));
        }
        return None;
    };
    let pattern = regex(cx, &pattern, false)?;
    let groups = pattern.captures_len();
    let text = substitution.as_ref().map(|text| text.value.clone()).unwrap_or_default();
    let named = text.split('\\').skip(1).filter_map(|rest| rest.chars().next()?.to_digit(10));
    if let (Some(missing), Some(at)) = (named.max().filter(|group| *group as usize >= groups), substitution) {
        let what = format!("the expression has no group {missing}");
        cx.fatal(Code::BadRegex, &at.at, what, "put round brackets around what the number is to stand for");
    }
    Some(RegexRewrite { pattern, substitution: text })
}

fn response(cx: &mut Context<'_>, route: &Block<'_>) -> Vec<ResponseRewrite> {
    let mut found = Vec::new();
    for block in route.list(cx, "rewrite_response_headers", &REWRITE_RESPONSE_HEADER) {
        let what = "an entry of `rewrite_response_headers` has no `header`";
        let name = block.required(cx, "header", what, "write `{header: Location, prefix: A, value: B}`");
        let prefix = block.text(cx, "prefix").unwrap_or_default();
        let value = block.text(cx, "value").unwrap_or_default();
        let header = name.and_then(|name| headers::header_name(cx, &name));
        found.extend(header.map(|header| ResponseRewrite { header, prefix, value }));
    }
    found
}
