//! A browser: keeps cookies by host, follows redirects, and reaches authn the way an edge would.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use postern_identity::{EDGE_TOKEN_HEADER, Keyring, edge_token};
use url::Url;

use super::{API, APP, AUTHN, FILES, OTHER_APP};

#[derive(Clone)]
pub(crate) struct Browser {
    pub(crate) authn: SocketAddr,
    pub(crate) client_address: String,
    pub(crate) keyring: Arc<Keyring>,
    http: reqwest::Client,
    /// Host, then cookie name, then value.
    pub(crate) jar: BTreeMap<String, BTreeMap<String, String>>,
}

/// Where a chain of redirects ended.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) url: Url,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    /// Every address on the way, this one included.
    pub(crate) trail: Vec<Url>,
    /// Every `Set-Cookie` on the way.
    pub(crate) set_cookies: Vec<String>,
}

impl Arrived {
    /// Fails unless it is a page with this status and this reason code.
    #[track_caller]
    pub(crate) fn is_refused(&self, status: u16, reason: &str) {
        assert_eq!(self.status, status, "at {}: {}", self.url, self.body);
        assert!(self.body.contains(reason), "no {reason} in {}", self.body);
    }

    pub(crate) fn location(&self) -> Option<Url> {
        self.headers.get("location").map(|to| Url::parse(to.to_str().unwrap()).unwrap())
    }

    /// Where the page goes on by itself.
    pub(crate) fn refresh(&self) -> Option<Url> {
        let to = self.headers.get("refresh")?.to_str().unwrap().strip_prefix("0; url=").unwrap();
        Some(Url::parse(to).unwrap())
    }
}

impl Browser {
    pub(crate) fn new(authn: SocketAddr, keyring: &Arc<Keyring>) -> Self {
        let _installed_by_another_test = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Self {
            authn,
            client_address: "192.0.2.1".into(),
            keyring: Arc::clone(keyring),
            http: reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap(),
            jar: BTreeMap::new(),
        }
    }

    /// Goes there and on, until a page or an application.
    pub(crate) async fn follow(&mut self, url: Url) -> Arrived {
        let mut arrived = self.get(&url).await;
        let (mut trail, mut set_cookies) = (vec![url], arrived.set_cookies.clone());
        while let Some(next) = arrived.location() {
            assert!(trail.len() < 20, "a circle: {trail:?}");
            trail.push(next.clone());
            if is_application(&next) {
                arrived = Arrived { url: next, status: StatusCode::OK, body: String::new(), ..arrived };
                break;
            }
            arrived = self.get(&next).await;
            set_cookies.extend(arrived.set_cookies.clone());
        }
        Arrived { trail, set_cookies, ..arrived }
    }

    /// Goes there and on, but stops in front of the first address that begins so.
    pub(crate) async fn follow_until(&mut self, url: Url, stop: &str) -> Url {
        let mut next = url;
        for _ in 0..20 {
            next = self.get(&next).await.location().expect("a redirect");
            if next.as_str().starts_with(stop) {
                return next;
            }
        }
        panic!("a circle");
    }

    pub(crate) async fn get(&mut self, url: &Url) -> Arrived {
        self.send(http::Method::GET, url, &[], String::new()).await
    }

    pub(crate) async fn get_with(&mut self, url: &Url, headers: &[(&str, &str)]) -> Arrived {
        self.send(http::Method::GET, url, headers, String::new()).await
    }

    pub(crate) async fn post(&mut self, url: &Url, headers: &[(&str, &str)], form: &[(&str, &str)]) -> Arrived {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        self.send(http::Method::POST, url, headers, body).await
    }

    pub(crate) async fn send(
        &mut self,
        method: http::Method,
        url: &Url,
        headers: &[(&str, &str)],
        body: String,
    ) -> Arrived {
        let answer = self.request(method, url, headers).body(body).send().await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        let set_cookies: Vec<String> =
            headers.get_all("set-cookie").iter().map(|cookie| cookie.to_str().unwrap().to_owned()).collect();
        for cookie in &set_cookies {
            self.take_cookie(url, cookie);
        }
        let body = answer.text().await.unwrap();
        Arrived { url: url.clone(), status, headers, body, trail: vec![url.clone()], set_cookies }
    }

    fn request(&self, method: http::Method, url: &Url, headers: &[(&str, &str)]) -> reqwest::RequestBuilder {
        let mut request = if url.scheme() == "http" {
            self.http.request(method, url.clone())
        } else {
            let mut there = url.clone();
            there.set_scheme("http").unwrap();
            there.set_ip_host(self.authn.ip()).unwrap();
            there.set_port(Some(self.authn.port())).unwrap();
            self.http
                .request(method, there)
                .header("host", url.authority())
                .header("x-request-id", "request-1")
                .header("x-forwarded-for", &self.client_address)
                .header(EDGE_TOKEN_HEADER, edge_token(&self.keyring))
        };
        let cookies = self.cookies(url);
        if !cookies.is_empty() {
            request = request.header("cookie", cookies);
        }
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
    }

    /// The `Cookie` field for that host.
    pub(crate) fn cookies(&self, url: &Url) -> String {
        let of_host = self.jar.get(url.host_str().unwrap()).into_iter().flatten();
        of_host.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    pub(crate) fn cookie(&self, url: &str, name: &str) -> Option<String> {
        self.jar.get(Url::parse(url).unwrap().host_str().unwrap())?.get(name).cloned()
    }

    /// Names of the cookies of that host that begin so.
    pub(crate) fn cookie_names(&self, url: &str, prefix: &str) -> Vec<String> {
        let of_host = self.jar.get(Url::parse(url).unwrap().host_str().unwrap()).into_iter().flatten();
        of_host.map(|(name, _)| name.clone()).filter(|name| name.starts_with(prefix)).collect()
    }

    pub(crate) fn put_cookie(&mut self, url: &str, name: &str, value: &str) {
        let host = Url::parse(url).unwrap().host_str().unwrap().to_owned();
        self.jar.entry(host).or_default().insert(name.into(), value.into());
    }

    pub(crate) fn forget(&mut self, url: &str) {
        self.jar.remove(Url::parse(url).unwrap().host_str().unwrap());
    }

    /// Does as a `Set-Cookie` says.
    pub(crate) fn take_cookie(&mut self, url: &Url, set_cookie: &str) {
        let (pair, attributes) = set_cookie.split_once(';').unwrap();
        let (name, value) = pair.split_once('=').unwrap();
        assert!(pair.len() <= 4096, "a browser drops a cookie of {} bytes", pair.len());
        assert!(attributes.contains("Secure") && attributes.contains("Path=/"), "{set_cookie}");
        let jar = self.jar.entry(url.host_str().unwrap().to_owned()).or_default();
        if attributes.contains("Max-Age=0") {
            jar.remove(name);
        } else {
            jar.insert(name.into(), value.into());
        }
    }
}

fn is_application(url: &Url) -> bool {
    let origin = url.origin().ascii_serialization();
    let known = [APP, OTHER_APP, API, FILES, AUTHN].contains(&origin.as_str());
    let ours = origin == AUTHN || url.path().starts_with("/.pomerium");
    known && !ours || (!known && url.scheme() == "https")
}
