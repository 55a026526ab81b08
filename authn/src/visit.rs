//! One request, as the edge passed it on: where, from whom, and what the browser says of its origin.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::header::{self, HeaderMap};
use http::request::Parts;
use http::{HeaderValue, Method};
use postern_identity::{SessionCookie, SessionId, Timestamp, cookies_named, only_one};
use postern_pages::Reference;
use url::Url;

use crate::server::Live;

/// One request, already known to come through an edge of this deployment.
#[derive(Debug)]
pub(crate) struct Visit {
    /// The configuration that this request sees, from its first step to its last.
    pub(crate) live: Arc<Live>,
    /// When it came.
    pub(crate) now: Timestamp,
    /// The address as the browser sees it: https, its host and port as asked, path and query.
    pub(crate) url: Url,
    /// The method.
    pub(crate) method: Method,
    /// The client, as the edge says.
    pub(crate) client: IpAddr,
    /// The edge's name for this request.
    pub(crate) request_id: String,
    /// When it came, in words.
    time: String,
    headers: HeaderMap,
}

impl Visit {
    /// Reads the head; `None` if it names no host that could be one.
    pub(crate) fn read(live: Arc<Live>, head: Parts, now: Timestamp) -> Option<Self> {
        let host = only(&head.headers, header::HOST.as_str())?;
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']');
        let url = Url::parse(&format!("https://{host}{path}")).ok().filter(|_| host.bytes().all(plain))?;
        Some(Self {
            client: client_address(&head.headers),
            request_id: only(&head.headers, "x-request-id").unwrap_or_default().chars().take(128).collect(),
            time: crate::user::utc(now),
            url,
            method: head.method,
            headers: head.headers,
            live,
            now,
        })
    }

    /// The host that was asked, without port.
    pub(crate) fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// An address on the host that was asked.
    pub(crate) fn here(&self, path: &str) -> Url {
        at(&self.url, path)
    }

    /// Whether it is authn's own host that was asked.
    pub(crate) fn is_authn(&self) -> bool {
        self.url.origin() == self.live.config.url.origin()
    }

    /// Each `Cookie` field.
    pub(crate) fn cookie_fields(&self) -> impl Iterator<Item = &[u8]> {
        self.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes)
    }

    /// The session id in the cookie of that name, bound to `scope`.
    pub(crate) fn session_id(&self, cookie: &str, scope: &str) -> Option<SessionId> {
        let values = self.cookie_fields().flat_map(|field| cookies_named(field, cookie));
        only_one(values, |value| SessionCookie::open(&self.live.config.keyring, scope, value))
    }

    /// Whether the browser vouches that a page of this very origin, and no other, made this request (S-085).
    pub(crate) fn is_same_origin(&self) -> bool {
        match only(&self.headers, "sec-fetch-site") {
            Some(site) => site == "same-origin",
            None => only(&self.headers, header::ORIGIN.as_str())
                .is_some_and(|origin| origin == self.url.origin().ascii_serialization()),
        }
    }

    /// Whether it is a script that asks, not a person: pages about a person are not for scripts (S-094).
    pub(crate) fn is_script(&self) -> bool {
        only(&self.headers, "sec-fetch-mode").is_some_and(|mode| mode != "navigate")
            || only(&self.headers, "sec-fetch-dest").is_some_and(|target| target != "document")
    }

    /// The one value of a query parameter; `None` if it is missing or repeated.
    pub(crate) fn param(&self, name: &str) -> Option<String> {
        let mut values = self.url.query_pairs().filter(|(key, _)| key == name);
        let (_, value) = values.next()?;
        values.next().is_none().then(|| value.into_owned())
    }

    /// How a page of ours names this request.
    pub(crate) fn reference<'v>(&'v self, reason: &'v str) -> Reference<'v> {
        Reference { request_id: &self.request_id, reason, route: self.host(), time: &self.time }
    }
}

/// An address on the origin of `url`.
pub(crate) fn at(url: &Url, path: &str) -> Url {
    let mut there = url.clone();
    there.set_path(path);
    there.set_query(None);
    there.set_fragment(None);
    there
}

/// The one value of a field, if it is text.
fn only<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

/// The edge writes the client it believes in last, whatever came before it.
fn client_address(headers: &HeaderMap) -> IpAddr {
    let last = headers.get_all("x-forwarded-for").iter().next_back().and_then(|value| value.to_str().ok());
    last.and_then(|list| list.rsplit(',').next()?.trim().parse().ok()).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}
