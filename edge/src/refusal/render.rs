//! A refusal as bytes: redirect, page, JSON, text, gRPC status or Kubernetes `Status`.

use std::borrow::Cow;

use http::header;
use http::{HeaderName, HeaderValue, StatusCode};
use postern_identity::{FlowCookie, IdpId, RandomError, Recipient, SignInRequest};
use postern_pages::{ErrorPage, Links, Reference, Who};
use serde_json::{Map, Value, json};
use url::Url;

use crate::answer::{Answer, Draft, NO_STORE};
use crate::programmatic::ProgramRefusal;
use crate::refusal::form::{is_safe, wants_page};
use crate::refusal::{Asked, Failure, Form, Refusal, may_redirect};
use crate::route::TunnelMatch;
use crate::{BadRequest, Host, reserved};

impl Refusal {
    /// The answer to the client that asked. It is that client's alone, whatever is configured for what routes answer.
    #[must_use]
    pub fn answer(&self, asked: &Asked<'_>) -> Answer {
        self.draft(asked).field(header::CACHE_CONTROL, NO_STORE).finish(asked)
    }

    fn draft(&self, asked: &Asked<'_>) -> Draft {
        if self.is_for_robots(asked) {
            return reserved::robots();
        }
        if let Self::SignIn { idp } = self
            && may_redirect(asked)
            && let Some(url) = asked.wanted()
        {
            return to_sign_in(asked, idp, url)
                .unwrap_or_else(|RandomError| Self::Failed(Failure::Internal).told(asked));
        }
        self.told(asked)
    }

    /// Crawlers that are kept out learn so (rulings): not where a person asks, nor where the file is public.
    fn is_for_robots(&self, asked: &Asked<'_>) -> bool {
        let Some(request) =
            asked.request.filter(|request| request.path.as_str() == "/robots.txt" && is_safe(&request.method))
        else {
            return false;
        };
        let public = |table: &crate::route::RouteTable| table.has_public(&request.host, &request.path);
        match self {
            Self::SignIn { .. } => !wants_page(asked.head) && !public(&asked.snapshot.table),
            Self::Denied(_) => !public(&asked.snapshot.table),
            Self::BadRequest(_)
            | Self::AmbiguousPath
            | Self::Misdirected
            | Self::NoRoute
            | Self::Method { .. }
            | Self::Program(_)
            | Self::Device(_)
            | Self::ClientCertificate(_)
            | Self::Upgrade
            | Self::SessionEnded
            | Self::StoreUnavailable { .. }
            | Self::Failed(_) => false,
        }
    }

    /// In the form of the client, with the fields of the cause.
    fn told(&self, asked: &Asked<'_>) -> Draft {
        let program = matches!(self, Self::SignIn { .. });
        let form = if program { Form::for_program(asked.head) } else { Form::of(asked.head) };
        let draft = match form {
            Form::Page => self.page(asked),
            Form::Json => Draft::new(self.status()).body("application/json", self.json(asked)),
            Form::Plain => Draft::new(self.status()).body("text/plain; charset=utf-8", self.json(asked)),
            Form::Kubernetes => Draft::new(self.status()).body("application/json", self.kubernetes()),
            Form::Grpc => self.grpc("application/grpc+json"),
            Form::GrpcWeb => self.grpc("application/grpc-web+json"),
        };
        match self {
            Self::Method { allow } => draft.field(header::ALLOW, HeaderValue::from_static(allow)),
            Self::BadRequest(BadRequest::Method) => draft.field(header::ALLOW, HeaderValue::from_static(SERVED)),
            Self::SignIn { .. } => draft.field(header::WWW_AUTHENTICATE, HeaderValue::from_static("Pomerium")),
            Self::StoreUnavailable { retry_after } => {
                draft.field(header::RETRY_AFTER, HeaderValue::from(retry_after.as_secs().max(1)))
            }
            Self::Failed(
                Failure::Overloaded
                | Failure::NoEndpoint
                | Failure::NoHealthyEndpoint
                | Failure::UpstreamOverflow
                | Failure::Stopping,
            ) => draft.field(header::RETRY_AFTER, HeaderValue::from_static("1")),
            Self::BadRequest(_)
            | Self::AmbiguousPath
            | Self::Misdirected
            | Self::NoRoute
            | Self::Program(_)
            | Self::Denied(_)
            | Self::Device(_)
            | Self::ClientCertificate(_)
            | Self::Upgrade
            | Self::SessionEnded
            | Self::Failed(_) => draft,
        }
    }

    fn page(&self, asked: &Asked<'_>) -> Draft {
        let unmet = self.unmet(asked);
        let unmet: Vec<&str> = unmet.iter().map(|one| one.words.as_str()).collect();
        let session = asked.subject.session();
        let here = asked.request.map(|request| request.path_and_query()).unwrap_or(Cow::Borrowed("/"));
        let other = format!("/.pomerium/sign_out?pomerium_redirect_uri={}", query_escaped(&asked.url()));
        let leave = session.is_some() && self.status() == StatusCode::FORBIDDEN;
        let page = ErrorPage {
            status: self.status().as_u16(),
            sentence: self.sentence(),
            reference: Reference {
                request_id: asked.request_id,
                reason: self.reason(),
                route: &asked.place(),
                time: &asked.now.to_string(),
            },
            who: session.map(|session| Who {
                name: session.shown_name(),
                email: session.email().filter(|email| *email != session.shown_name()),
                email_unverified: session.email_verified == Some(false),
            }),
            unmet: &unmet,
            contact: None,
            links: Links {
                retry: Some(&*here).filter(|_| self.status().is_server_error() && asked.is_get()),
                other_account: Some(other.as_str()).filter(|_| leave),
                sign_out: Some("/.pomerium/sign_out").filter(|_| leave),
            },
        };
        Draft::new(self.status()).body("text/html; charset=utf-8", page.html())
    }

    fn json(&self, asked: &Asked<'_>) -> String {
        let mut object = Map::new();
        let mut set = |name: &str, value: Value| object.insert(name.to_owned(), value);
        set("error", json!(self.sentence()));
        set("reason", json!(self.reason()));
        set("request_id", json!(asked.request_id));
        set("status", json!(self.status().as_u16()));
        if let Self::SignIn { .. } = self {
            set("sign_in_url", json!(asked.sign_in_url()));
        }
        let unmet = self.unmet(asked);
        if !unmet.is_empty() {
            set("unmet", unmet.iter().map(|one| json!({"reason": one.reason.as_str(), "words": one.words})).collect());
        }
        Value::Object(object).to_string()
    }

    fn kubernetes(&self) -> String {
        let reason = match self.status().as_u16() {
            401 | 450 | 495 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            _ => "",
        };
        let code = self.status().as_u16();
        json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
               "message": self.sentence(), "reason": reason, "code": code})
        .to_string()
    }

    fn grpc(&self, content_type: &'static str) -> Draft {
        Draft::new(self.status())
            .body(content_type, "")
            .field(HeaderName::from_static("grpc-status"), HeaderValue::from(self.grpc_status()))
            .text(HeaderName::from_static("grpc-message"), self.sentence())
    }

    /// 01 §4.3 for decisions, §4.4 for what the proxy itself says.
    fn grpc_status(&self) -> u16 {
        match (self, self.status().as_u16()) {
            (Self::NoRoute, _) => 5,
            (Self::Failed(Failure::ConnectTimeout | Failure::UpstreamTimeout | Failure::BodyTimeout), _) => 4,
            (_, 400) => 13,
            (_, 401) => 16,
            (_, 403) => 7,
            (_, 404) => 12,
            (_, 429 | 502 | 503 | 504) => 14,
            _ => 2,
        }
    }

    /// What happened, plainly.
    pub(crate) fn sentence(&self) -> &'static str {
        match self {
            Self::BadRequest(cause) => sentence_of(cause.status()),
            Self::AmbiguousPath => "This address can be read in more than one way.",
            Self::Misdirected => "This connection was opened for another site.",
            Self::NoRoute => "There is no application at this address.",
            Self::Method { .. } => "This kind of request is not answered here.",
            Self::Program(ProgramRefusal::Missing) => "Say in pomerium_redirect_uri where you wait.",
            Self::Program(ProgramRefusal::NotAllowed) => "Nobody who signed in is sent to that address.",
            Self::SignIn { .. } => "You need to sign in first.",
            Self::Denied(_) => "You may not open this application.",
            Self::Device(_) => "This device may not open this application.",
            Self::ClientCertificate(_) => "A valid client certificate is required to access this page.",
            Self::Upgrade => "This application does not take connections of this kind.",
            Self::SessionEnded => "Your session is over.",
            Self::StoreUnavailable { .. } => "Who you are cannot be checked just now. Please try again in a moment.",
            Self::Failed(failure) => match failure {
                Failure::NoEndpoint | Failure::NoHealthyEndpoint => "The application is not available just now.",
                Failure::Connect | Failure::ConnectTimeout => "The application could not be reached.",
                Failure::UpstreamTimeout => "The application did not answer in time.",
                Failure::UpstreamProtocol => "The application gave an answer that cannot be passed on.",
                Failure::BodyTimeout => sentence_of(failure.status()),
                Failure::Overloaded | Failure::UpstreamOverflow => {
                    "There is too much to do just now. Please try again in a moment."
                }
                Failure::Stopping => "This server is being replaced. Please try again in a moment.",
                Failure::AuthnLoop => "Sign-in cannot be reached from here.",
                Failure::PathRewrite | Failure::HostRewrite => {
                    "This address cannot be put in the way that the application wants it."
                }
                Failure::Internal => "Something went wrong on our side.",
            },
        }
    }

    /// What the policy missed, where the route lets it be told.
    fn unmet(&self, asked: &Asked<'_>) -> Vec<postern_policy::Unmet> {
        match (self, asked.request, asked.route) {
            (Self::Denied(_) | Self::Device(_), Some(request), Some(route)) if route.show_error_details => {
                let path = request.decoded_path();
                let client = (asked.subject, asked.devices, asked.certificate);
                route.policy.unmet(&crate::admit::facts(request, &path, client, asked.now))
            }
            _ => Vec::new(),
        }
    }
}

const fn sentence_of(status: StatusCode) -> &'static str {
    match status.as_u16() {
        405 => "This kind of request is not served.",
        408 => "The request did not come in time.",
        413 | 414 | 431 => "The request is too large.",
        _ => "The request is malformed.",
    }
}

impl Asked<'_> {
    fn url(&self) -> String {
        self.request.map(crate::Request::url).unwrap_or_default()
    }

    fn is_get(&self) -> bool {
        self.request.is_some_and(|request| request.method == http::Method::GET) && self.tunnel().is_none()
    }

    /// Host and path, for people to speak of.
    fn place(&self) -> String {
        self.request.map(|request| format!("{}{}", request.host, request.path)).unwrap_or_default()
    }

    /// The address that a person opens in a browser to sign in and land where this program wanted to go.
    fn sign_in_url(&self) -> String {
        if let Some(door) = self.door() {
            return door;
        }
        match self.request {
            Some(request) if request.method == http::Method::GET && request.upgrades.is_empty() => request.url(),
            Some(request) => format!("https://{}/", request.host),
            None => String::new(),
        }
    }

    /// What is asked for, and of which route, where it is a tunnel.
    pub(crate) fn tunnel(&self) -> Option<(&TunnelMatch, &Host)> {
        let (request, route) = (self.request?, self.route?);
        Some((route.tunnel.as_deref()?, request.tunnel.as_ref()?.to.as_ref()?))
    }

    /// Where a tunnel is asked for nobody can browse, but on the host that clients connect to: its session is what they
    /// show. Browsers reach it at the port at which they sign in.
    fn door(&self) -> Option<String> {
        let (tunnel, to) = self.tunnel()?;
        let port = self.snapshot.config.authenticate.url.port().map(|port| format!(":{port}")).unwrap_or_default();
        Some(format!("https://{}{port}/.pomerium/user", tunnel.door(to)))
    }

    /// Where a browser is to be in the end.
    pub(crate) fn wanted(&self) -> Option<Url> {
        let request = self.request?;
        Url::parse(&self.door().unwrap_or_else(|| request.url())).ok()
    }

    /// The hosts that it is led through before, for a cookie on each. Paths of ours have those of the host's first route.
    pub(crate) fn additional_hosts(&self, wanted: &Url) -> Vec<String> {
        let first = || self.snapshot.table.first_on(&self.request?.host).map(AsRef::as_ref);
        self.route.or_else(first).map(|route| self.snapshot.additional_hosts(route, wanted)).unwrap_or_default()
    }
}

/// 302 for what may be repeated, 303 for the rest, never 307 or 308 (S-087); with the cookie that binds the sign-in to this
/// browser (S-054).
fn to_sign_in(asked: &Asked<'_>, idp: &IdpId, redirect_uri: Url) -> Result<Draft, RandomError> {
    let config = &asked.snapshot.config;
    let flow = FlowCookie::begin(&config.cookie.name, asked.now)?;
    let recipient = Recipient::Browser(flow.hash(&config.keyring));
    let additional_hosts = asked.additional_hosts(&redirect_uri);
    let request = SignInRequest { redirect_uri, idp: idp.clone(), recipient, restarted: false, additional_hosts };
    let location = request.to_url(&config.keyring, config.authenticate.sign_in(), asked.now);
    // Clients of routes of tunnels know the first of them alone.
    let keeps = is_safe(&asked.head.method) || asked.head.method == http::Method::CONNECT;
    let status = if keeps { StatusCode::FOUND } else { StatusCode::SEE_OTHER };
    let fields = asked.head.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
    let dropped = FlowCookie::drop_oldest(&config.cookie.name, fields);
    let draft = Draft::new(status).text(header::LOCATION, location.as_str()).text(header::SET_COOKIE, &flow.set());
    Ok(dropped.iter().fold(draft, |draft, cookie| draft.text(header::SET_COOKIE, cookie)))
}

fn query_escaped(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// What may be asked of a route; `CONNECT` and `TRACE` may not, whatever it is (S-018).
const SERVED: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
