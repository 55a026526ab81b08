//! Paths on their way up, and addresses of redirects (01 §2.7, §2.8).

use std::fmt::Write as _;

use http::HeaderValue;

use crate::credential::query_without_own;
use crate::prepare::references;
use crate::refusal::{Failure, Refusal};
use crate::request::{MAX_TARGET, is_query};
use crate::route::{PathMatcher, PathRewrite, Redirect, ResponseRewrite, Route};
use crate::{CanonicalPath, EscapedSlashes, HeaderRule, PathConfig, Request};

/// What goes up in place of a canonical path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rewritten {
    /// The path.
    pub(crate) path: String,
    /// What the query begins with: an expression may make one.
    pub(crate) query: Option<String>,
}

impl Rewritten {
    /// The query that goes up with it, if `own` is that of the request.
    pub(crate) fn query(&self, own: Option<&str>) -> Option<String> {
        match (self.query.as_deref(), own) {
            (Some(made), Some(own)) => Some(format!("{made}&{own}")),
            (made, own) => made.or(own).map(str::to_owned),
        }
    }
}

impl Route {
    /// Whether one of its request fields carries the assertion.
    pub(crate) fn uses_assertion(&self) -> bool {
        self.request_headers.iter().any(|rule| match rule {
            HeaderRule::Set(_, value) => references(value.as_bytes()).iter().any(|path| path == &["pomerium", "jwt"]),
            HeaderRule::Remove(_) => false,
        })
    }

    /// The path that goes up for a canonical path of this route; what a rewrite gives is made canonical again, without a
    /// second decoding (03 §3.1 step 9). `None`: as it is.
    ///
    /// # Errors
    /// [`Refusal`] if the rewrite gives what no path may be: where the file says what takes a prefix's place the client made it
    /// so, and where an expression does, the expression.
    pub(crate) fn upstream_path(&self, path: &str, rules: &PathConfig) -> Result<Option<Rewritten>, Refusal> {
        // What was canonical before has no dot segments and no escape to decode: whatever needs that now, surgery made.
        let canonical = |text: &str, escaped_slashes| {
            let rules = PathConfig { normalize: false, escaped_slashes, ..*rules };
            CanonicalPath::parse(text.as_bytes(), &rules).map(|canonical| canonical.text)
        };
        match &self.rewrite {
            None => Ok(None),
            Some(PathRewrite::Regex(_)) if path == "*" => Ok(None),
            Some(PathRewrite::Prefix(prefix)) => {
                let path = canonical(&self.replace_matched(path, prefix), EscapedSlashes::Keep);
                let path = path.map_err(|error| Refusal::BadRequest(error.into()))?;
                Ok(Some(Rewritten { path, query: None }))
            }
            Some(PathRewrite::Regex(rewrite)) => {
                let made = rewrite.apply(path, MAX_TARGET).ok_or(Refusal::Failed(Failure::PathRewrite))?;
                let (path, query) = match made.split_once('?') {
                    Some((path, query)) => (path, Some(query)),
                    None => (made.as_str(), None),
                };
                let let_in = rules.escaped_slashes == EscapedSlashes::Keep;
                let slashes = if let_in { EscapedSlashes::Keep } else { EscapedSlashes::Reject };
                let path = canonical(path, slashes).ok().filter(|_| query.is_none_or(is_query));
                let path = path.ok_or(Refusal::Failed(Failure::PathRewrite))?;
                Ok(Some(Rewritten { path, query: query.map(str::to_owned) }))
            }
        }
    }

    /// The matched part of `path` replaced by `with`: the prefix, or all of it. Plain surgery on text, as 01 §2.7 has it.
    fn replace_matched(&self, path: &str, with: &str) -> String {
        match &self.path {
            PathMatcher::Prefix(prefix) => format!("{with}{}", path.strip_prefix(prefix.as_str()).unwrap_or_default()),
            PathMatcher::Exact(_) | PathMatcher::Regex(_) => with.to_owned(),
        }
    }
}

impl ResponseRewrite {
    /// The value in place of one of this field; `None`: it does not begin so.
    pub(crate) fn apply(&self, value: &HeaderValue) -> Option<HeaderValue> {
        let rest = value.as_bytes().strip_prefix(self.prefix.as_bytes())?;
        HeaderValue::from_bytes(&[self.value.as_bytes(), rest].concat()).ok()
    }
}

impl Redirect {
    /// Where a request of `route` is sent.
    #[must_use]
    pub fn location(&self, route: &Route, request: &Request) -> String {
        let scheme = self.scheme.as_deref().unwrap_or(if request.client.https { "https" } else { "http" });
        let mut out = format!("{scheme}://");
        match &self.host {
            Some(host) => out.push_str(host),
            None => out.push_str(request.host.name()),
        }
        // Writing to a string does not fail.
        if let Some(port) = self.kept_port(request).or(self.port) {
            let _written = write!(out, ":{port}");
        }
        match (&self.path, &self.prefix) {
            (Some(path), _) => out.push_str(path),
            (None, Some(prefix)) => out.push_str(&route.replace_matched(&request.path, prefix)),
            (None, None) => out.push_str(&request.path),
        }
        let own_query = self.path.as_deref().is_some_and(|path| path.contains('?'));
        let query = request.query.as_deref().filter(|_| !self.strip_query && !own_query);
        if let Some(query) = query.and_then(query_without_own) {
            out.push('?');
            out.push_str(&query);
        }
        out
    }

    /// The port of the request, unless the target says otherwise, or the scheme changes and it was the old one's default.
    fn kept_port(&self, request: &Request) -> Option<u16> {
        if self.host.is_some() || self.port.is_some() {
            return None;
        }
        let (own, default) = if request.client.https { ("https", 443) } else { ("http", 80) };
        let changes = self.scheme.as_deref().is_some_and(|scheme| scheme != own);
        request.host.port().filter(|port| !changes || *port != default)
    }
}
