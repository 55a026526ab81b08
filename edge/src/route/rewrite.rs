//! Paths on their way up, and addresses of redirects (01 §2.7, §2.8).

use std::fmt::Write as _;

use crate::credential::query_without_own;
use crate::route::{PathMatcher, PathRewrite, Redirect, Route};
use crate::{CanonicalPath, EscapedSlashes, HeaderRule, PathConfig, PathError, Request};

impl Route {
    /// Whether one of its request fields carries the assertion.
    pub(crate) fn uses_assertion(&self) -> bool {
        self.request_headers.iter().any(|rule| match rule {
            HeaderRule::Set(_, value) => value.as_bytes().windows(JWT.len()).any(|window| window == JWT),
            HeaderRule::Remove(_) => false,
        })
    }

    /// The path that goes up for a canonical path of this route; what a rewrite gives is made canonical again, without a
    /// second decoding (03 §3.1 step 9). `None`: as it is.
    ///
    /// # Errors
    /// [`PathError`] if the rewrite gives what no path may be.
    pub(crate) fn upstream_path(&self, path: &str, rules: &PathConfig) -> Result<Option<String>, PathError> {
        let Some(PathRewrite::Prefix(prefix)) = &self.rewrite else { return Ok(None) };
        let rewritten = self.replace_matched(path, prefix);
        // What was canonical before has no dot segments and no escape to decode: whatever needs that now, surgery made.
        let rules = PathConfig { normalize: false, escaped_slashes: EscapedSlashes::Keep, ..*rules };
        CanonicalPath::parse(rewritten.as_bytes(), &rules).map(|canonical| Some(canonical.text))
    }

    /// The matched part of `path` replaced by `with`: the prefix, or all of it. Plain surgery on text, as 01 §2.7 has it.
    fn replace_matched(&self, path: &str, with: &str) -> String {
        match &self.path {
            PathMatcher::Prefix(prefix) => format!("{with}{}", path.strip_prefix(prefix.as_str()).unwrap_or_default()),
            PathMatcher::Exact(_) | PathMatcher::Regex(_) => with.to_owned(),
        }
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

const JWT: &[u8] = b"pomerium.jwt";
