//! What goes back to the browser: a page or a redirect, always with the headers of S-050.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use url::Url;

/// One answer, complete but for its headers.
#[derive(Debug)]
pub(crate) struct Answer {
    status: StatusCode,
    location: Option<String>,
    refresh: Option<String>,
    html: String,
    cookies: Vec<String>,
    retry_after: Option<Duration>,
    allow: Option<&'static str>,
}

impl Answer {
    /// A page.
    pub(crate) const fn page(status: StatusCode, html: String) -> Self {
        Self { status, location: None, refresh: None, html, cookies: Vec::new(), retry_after: None, allow: None }
    }

    /// Sends the browser on with a GET, whatever the method was (S-087).
    pub(crate) fn redirect(to: &Url) -> Self {
        Self::redirect_to_path(to.as_str())
    }

    /// Sends the browser on to a fixed path of the same host.
    pub(crate) fn redirect_to_path(path: &str) -> Self {
        Self { location: Some(path.to_owned()), ..Self::page(StatusCode::SEE_OTHER, String::new()) }
    }

    /// Lets the browser go on by a navigation that begins on this very page.
    pub(crate) fn refresh(to: &Url) -> Self {
        Self { refresh: Some(format!("0; url={to}")), ..Self::page(StatusCode::OK, String::new()) }
    }

    /// The same, with one more `Set-Cookie` value.
    pub(crate) fn cookie(mut self, set_cookie: String) -> Self {
        self.cookies.push(set_cookie);
        self
    }

    /// The same, with these `Set-Cookie` values.
    pub(crate) fn cookies(mut self, set_cookies: impl IntoIterator<Item = String>) -> Self {
        self.cookies.extend(set_cookies);
        self
    }

    /// The same, with `Retry-After`.
    pub(crate) const fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The same, with `Allow`: what a 405 must say (RFC 9110 §15.5.6).
    pub(crate) const fn allow(mut self, methods: &'static str) -> Self {
        self.allow = Some(methods);
        self
    }

    /// The status.
    pub(crate) const fn status(&self) -> StatusCode {
        self.status
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in FIXED {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let value = |text: &Option<String>| HeaderValue::from_str(text.as_deref()?).ok();
        let onward = [(header::LOCATION, value(&self.location)), (header::REFRESH, value(&self.refresh))];
        if onward.iter().all(|(_, to)| to.is_none()) {
            // The opener policy keeps a page of ours out of reach for scripts of an application on the same host (S-094);
            // where nothing is shown it would only cut a pop-up off from the application that opened it.
            headers.insert(OPENER_POLICY, HeaderValue::from_static("same-origin"));
        }
        headers.extend(onward.into_iter().filter_map(|(name, to)| Some((name, to?))));
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        }
        if let Some(methods) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(methods));
        }
        for cookie in self.cookies.iter().filter_map(|cookie| HeaderValue::from_str(cookie).ok()) {
            headers.append(header::SET_COOKIE, cookie);
        }
        headers
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        (self.status, self.headers(), Body::from(self.html)).into_response()
    }
}

const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// On every answer (S-050).
const FIXED: [(HeaderName, &str); 7] = [
    (header::CONTENT_TYPE, "text/html; charset=utf-8"),
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CONTENT_SECURITY_POLICY, postern_pages::CSP),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];
