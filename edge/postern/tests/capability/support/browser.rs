//! A browser without a screen: keeps cookies by host, follows redirects, fills forms, and remembers where it was.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{COOKIE, HeaderMap, LOCATION, SET_COOKIE};
use reqwest::{Certificate, Client, ClientBuilder, Method, RequestBuilder, StatusCode, Url};

use super::page::{self, Form};
use super::world::install_crypto;

/// One person's browser.
#[derive(Debug)]
pub(crate) struct Browser {
    client: Client,
    /// What it keeps.
    pub(crate) cookies: Vec<Cookie>,
    /// Every address it asked for and where that led, in order.
    pub(crate) trail: Vec<Hop>,
}

/// A cookie in the jar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cookie {
    pub(crate) host: String,
    /// Subdomains get it too.
    pub(crate) shared: bool,
    pub(crate) name: String,
    pub(crate) value: String,
    /// Its attributes as they came.
    pub(crate) attributes: String,
}

/// One step of a trail.
#[derive(Debug, Clone)]
pub(crate) struct Hop {
    pub(crate) url: Url,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) url: Url,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Response {
    /// A header as text; empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Where it sends the browser, absolute.
    pub(crate) fn location(&self) -> Result<Url> {
        Ok(self.url.join(self.headers.get(LOCATION).context("no Location")?.to_str()?)?)
    }

    /// Its body as JSON.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.body).with_context(|| format!("not the JSON hoped for: {}", self.body))
    }

    /// The first form with a button of that text, or any text.
    pub(crate) fn form(&self, button: &str) -> Result<Form> {
        let mut forms = page::forms(&self.body).into_iter();
        let fits = |form: &Form| form.buttons.iter().any(|text| text.contains(button));
        forms.find(fits).with_context(|| format!("no form with {button:?} at {}:\n{}", self.url, self.body))
    }
}

impl Browser {
    /// A fresh one that trusts this authority alone and finds every name on this machine.
    pub(crate) fn new(ca_pem: &str) -> Result<Self> {
        Self::with(ca_pem, Client::builder())
    }

    /// The same over HTTP/1.1, where a request may name another port than that of its connection.
    pub(crate) fn over_http1(ca_pem: &str) -> Result<Self> {
        Self::with(ca_pem, Client::builder().http1_only())
    }

    /// The same over HTTP/1.1, with a connection of its own for each request.
    pub(crate) fn without_pool(ca_pem: &str) -> Result<Self> {
        Self::with(ca_pem, Client::builder().http1_only().pool_max_idle_per_host(0))
    }

    /// One of a person at that address of this machine, as others see it: limits count by address.
    pub(crate) fn at(ca_pem: &str, address: Ipv4Addr) -> Result<Self> {
        Self::with(ca_pem, Client::builder().local_address(IpAddr::V4(address)))
    }

    fn with(ca_pem: &str, client: ClientBuilder) -> Result<Self> {
        install_crypto();
        let client = client
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .dns_resolver(Here)
            .timeout(Duration::from_secs(30))
            .tls_certs_only([Certificate::from_pem(ca_pem.as_bytes())?]);
        Ok(Self { client: client.build()?, cookies: Vec::new(), trail: Vec::new() })
    }

    /// Goes to an address as a person would, through every redirect, to the page at its end.
    pub(crate) async fn visit(&mut self, url: impl AsRef<str>) -> Result<Response> {
        let first = self.step(Method::GET, Url::parse(url.as_ref())?, None).await?;
        self.follow(first).await
    }

    /// Goes to an address and stays with the first answer.
    pub(crate) async fn peek(&mut self, url: impl AsRef<str>) -> Result<Response> {
        self.step(Method::GET, Url::parse(url.as_ref())?, None).await
    }

    /// Fills in a form of a page, sends it, and goes where that leads.
    pub(crate) async fn submit(&mut self, page: &Response, button: &str, filled: &[(&str, &str)]) -> Result<Response> {
        let form = page.form(button)?;
        let kept = form.fields.iter().filter(|(name, _)| !filled.iter().any(|(given, _)| given == name));
        let fields: Vec<(&str, &str)> =
            kept.map(|(name, value)| (name.as_str(), value.as_str())).chain(filled.iter().copied()).collect();
        let mut target = page.url.join(&form.action)?;
        let first = if form.method == "post" {
            self.step(Method::POST, target, Some((&page.url, &fields))).await?
        } else {
            target.query_pairs_mut().clear().extend_pairs(&fields);
            self.step(Method::GET, target, None).await?
        };
        self.follow(first).await
    }

    /// Sends a request of the test's own making with the cookies that belong to it; no redirect is followed.
    pub(crate) async fn send(&mut self, request: RequestBuilder) -> Result<Response> {
        let (client, request) = request.build_split();
        let mut request = request?;
        let url = request.url().clone();
        if let Some(cookies) = self.cookies_for(&url) {
            request.headers_mut().insert(COOKIE, cookies.parse()?);
        }
        let answer = client.execute(request).await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let set_cookies: Vec<String> =
            headers.get_all(SET_COOKIE).iter().filter_map(|value| value.to_str().ok().map(str::to_owned)).collect();
        for cookie in &set_cookies {
            self.keep(&url, cookie);
        }
        self.trail.push(Hop { url: url.clone() });
        Ok(Response { url, status, headers, body: answer.text().await? })
    }

    /// A request to be sent by [`Self::send`].
    pub(crate) fn request(&self, method: Method, url: impl AsRef<str>) -> RequestBuilder {
        self.client.request(method, url.as_ref())
    }

    /// The value of the cookie of that name for that host.
    pub(crate) fn cookie(&self, host: &str, name: &str) -> Option<&str> {
        let mut cookies = self.cookies.iter();
        cookies.find(|cookie| cookie.fits(host) && cookie.name == name).map(|cookie| cookie.value.as_str())
    }

    async fn follow(&mut self, mut answer: Response) -> Result<Response> {
        for _ in 0..20 {
            let in_head = answer.header("refresh").strip_prefix("0; url=").map(str::to_owned);
            let next = match in_head.or_else(|| page::refresh(&answer.body)) {
                Some(target) if answer.status.is_success() => answer.url.join(&target)?,
                _ if answer.status.is_redirection() => answer.location()?,
                _ => return Ok(answer),
            };
            ensure!(
                !matches!(answer.status.as_u16(), 307 | 308),
                "a browser would send its body again: {}",
                answer.status
            );
            answer = self.step(Method::GET, next, None).await?;
        }
        anyhow::bail!("redirected without end: {:?}", self.trail)
    }

    /// One navigation.
    async fn step(&mut self, method: Method, url: Url, form: Option<(&Url, &[(&str, &str)])>) -> Result<Response> {
        let mut request = self.request(method, &url).header("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
        request = request.header("sec-fetch-mode", "navigate").header("sec-fetch-dest", "document");
        if let Some((page, fields)) = form {
            let site = if page.origin() == url.origin() { "same-origin" } else { "cross-site" };
            request = request
                .header("origin", page.origin().ascii_serialization())
                .header("sec-fetch-site", site)
                .form(fields);
        }
        self.send(request).await
    }

    fn cookies_for(&self, url: &Url) -> Option<String> {
        let host = url.host_str()?;
        let fitting = self.cookies.iter().filter(|cookie| cookie.fits(host) && cookie.covers(url.path()));
        let pairs: Vec<String> = fitting.map(|Cookie { name, value, .. }| format!("{name}={value}")).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    fn keep(&mut self, url: &Url, line: &str) {
        let (pair, attributes) = line.split_once(';').unwrap_or((line, ""));
        let Some((name, value)) = pair.split_once('=') else { return };
        let own = url.host_str().unwrap_or_default();
        let mut cookie = Cookie {
            host: own.to_owned(),
            shared: false,
            name: name.trim().to_owned(),
            value: value.trim().to_owned(),
            attributes: attributes.trim().to_owned(),
        };
        if let Some(domain) = cookie.attribute("domain") {
            cookie.host = domain.trim_start_matches('.').to_owned();
            cookie.shared = true;
        }
        self.cookies.retain(|kept| {
            (&kept.host, &kept.name, kept.attribute("path")) != (&cookie.host, &cookie.name, cookie.attribute("path"))
        });
        let over = cookie
            .attribute("max-age")
            .is_some_and(|age| age.trim_start_matches('0').is_empty() || age.starts_with('-'))
            || cookie.attribute("expires").is_some_and(|date| date.contains(" 1970 "));
        if !over {
            self.cookies.push(cookie);
        }
    }
}

impl Cookie {
    /// The value of one of its attributes; empty for one that is only named.
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        let mut attributes = self.attributes.split(';').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        attributes.find(|(key, _)| key.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    fn fits(&self, host: &str) -> bool {
        host == self.host || self.shared && host.strip_suffix(&self.host).is_some_and(|sub| sub.ends_with('.'))
    }

    fn covers(&self, path: &str) -> bool {
        let own = self.attribute("path").filter(|own| own.starts_with('/')).unwrap_or("/");
        path == own || path.strip_prefix(own).is_some_and(|rest| own.ends_with('/') || rest.starts_with('/'))
    }
}

/// Finds every name on this machine.
struct Here;

impl Resolve for Here {
    fn resolve(&self, _: Name) -> Resolving {
        let here: Addrs = Box::new(std::iter::once(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))));
        Box::pin(async { Ok(here) })
    }
}
