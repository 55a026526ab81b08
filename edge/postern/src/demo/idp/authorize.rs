//! The authorization endpoint (OpenID Connect Core §3.1.2), and the page on which one chooses who to be.

use std::sync::Arc;

use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use postern_identity::Timestamp;
use postern_pages::Who;
use postern_pages::demo::{Account, ChooseAccount};

use super::state::{Browser, Grant};
use super::users::{USERS, User};
use super::{COOKIE, Failure, Params, Shared, cookie_in, is_own_form, now, page, refuse};

/// A request for a code that is in order.
#[derive(Debug)]
struct Asked {
    state: Option<String>,
    nonce: Option<String>,
    challenge: String,
    scope: String,
    prompt: Vec<String>,
    max_age: Option<i64>,
}

/// Why there will be no code.
#[derive(Debug)]
enum Refused {
    /// It is not known who asks: said on a page, never by a redirect.
    Here(&'static str),
    /// Said to the client.
    ToClient { state: Option<String>, error: &'static str, why: &'static str },
}

type Pairs = Vec<(String, String)>;

/// `GET /authorize`: straight back for a browser that is signed in, else the page to choose.
pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Query(query): Query<Pairs>,
) -> Result<Response, Failure> {
    let asked = match Asked::parse(query, &shared) {
        Ok(asked) => asked,
        Err(refused) => return Ok(refused.respond(&shared)),
    };
    let now = now();
    let browser = cookie_in(&headers).and_then(|cookie| shared.look(|memory| memory.browser(cookie, now).cloned()));
    match browser.filter(|browser| asked.accepts(browser, now)) {
        Some(browser) => grant(&shared, asked, browser, now).await,
        None if asked.wants("none") => Ok(asked.refuse("login_required", "nobody is signed in").respond(&shared)),
        None => Ok(choice(&shared)),
    }
}

/// `POST /authorize`, to the address of that page: signs in as the chosen one. A form without a choice is an
/// authorization request of its own.
pub(super) async fn choose(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Query(query): Query<Pairs>,
    Form(form): Form<Pairs>,
) -> Result<Response, Failure> {
    let (chosen, rest): (Pairs, Pairs) = form.into_iter().partition(|(name, _)| name == "user");
    let all: Pairs = query.into_iter().chain(rest).collect();
    let Some((_, id)) = chosen.first() else { return show(State(shared), headers, Query(all)).await };
    if !is_own_form(&headers, &shared) {
        return Ok(refuse(StatusCode::FORBIDDEN, "This form was sent by another site."));
    }
    let asked = match Asked::parse(all, &shared) {
        Ok(asked) => asked,
        Err(refused) => return Ok(refused.respond(&shared)),
    };
    let Some(user) = User::find(id) else { return Ok(refuse(StatusCode::BAD_REQUEST, "There is no such person.")) };
    let now = now();
    let (cookie, browser) = shared.change(move |memory| memory.sign_in(user.id, now)).await??;
    let mut response = grant(&shared, asked, browser, now).await?;
    let cookie = HeaderValue::try_from(format!("{COOKIE}={cookie}; Path=/; HttpOnly; SameSite=Lax"))?;
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

async fn grant(shared: &Arc<Shared>, asked: Asked, browser: Browser, now: Timestamp) -> Result<Response, Failure> {
    let Asked { state, nonce, challenge, scope, .. } = asked;
    let redirect_uri = shared.client.redirect_uri.clone();
    let grant = Grant { browser, redirect_uri, challenge, nonce, scope };
    let code = shared.change(move |memory| memory.code(grant, now)).await??;
    Ok(back(shared, state.as_deref(), &[("code", &code)]))
}

/// To the client, with these parameters. 303, so that a form's answer is fetched with GET.
fn back(shared: &Shared, state: Option<&str>, pairs: &[(&str, &str)]) -> Response {
    // The one redirect_uri has no query of its own.
    let uri = format!("{}?", shared.client.redirect_uri);
    let start = uri.len();
    let state = state.map(|state| ("state", state));
    let uri = url::form_urlencoded::Serializer::for_suffix(uri, start)
        .extend_pairs(pairs)
        .extend_pairs(state)
        .append_pair("iss", shared.signer.issuer())
        .finish();
    (StatusCode::SEE_OTHER, [(header::LOCATION, uri)]).into_response()
}

fn choice(shared: &Shared) -> Response {
    let names = USERS.map(|user| user.name());
    let accounts: Vec<_> = USERS
        .iter()
        .zip(&names)
        .map(|(user, name)| {
            let who = Who { name, email: Some(user.email), email_unverified: !user.email_verified };
            Account { id: user.id, who, note: user.note }
        })
        .collect();
    let client = shared.client.origin.trim_start_matches("https://");
    page(StatusCode::OK, ChooseAccount { client, accounts: &accounts }.html())
}

impl Asked {
    fn parse(pairs: Pairs, shared: &Shared) -> Result<Self, Refused> {
        let params = Params::of(pairs).ok_or(Refused::Here("A parameter came twice."))?;
        if params.find("client_id") != Some(shared.client.id.as_str()) {
            return Err(Refused::Here("This client is not known here."));
        }
        if params.find("redirect_uri") != Some(shared.client.redirect_uri.as_str()) {
            return Err(Refused::Here("This redirect_uri does not belong to the client."));
        }
        let text = |name| params.find(name).map(str::to_owned);
        let asked = Self {
            state: text("state"),
            nonce: text("nonce"),
            challenge: text("code_challenge").unwrap_or_default(),
            scope: text("scope").unwrap_or_default(),
            prompt: words(params.find("prompt").unwrap_or_default()),
            max_age: params.find("max_age").and_then(|age| age.parse().ok()),
        };
        match asked.fault(&params) {
            Some((error, why)) => Err(asked.refuse(error, why)),
            None => Ok(asked),
        }
    }

    fn fault(&self, params: &Params) -> Option<(&'static str, &'static str)> {
        let mode = params.find("response_mode").unwrap_or("query");
        let well_formed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if params.find("response_type") != Some("code") {
            Some(("unsupported_response_type", "only code is supported"))
        } else if mode != "query" {
            Some(("invalid_request", "only response_mode query is supported"))
        } else if params.find("request").is_some() || params.find("request_uri").is_some() {
            Some(("request_not_supported", "request objects are not supported"))
        } else if params.find("code_challenge_method") != Some("S256") {
            Some(("invalid_request", "PKCE with S256 is required"))
        } else if self.challenge.len() != 43 || !self.challenge.chars().all(well_formed) {
            Some(("invalid_request", "code_challenge is not a SHA-256 in base64url"))
        } else if !words(&self.scope).iter().any(|word| word == "openid") {
            Some(("invalid_scope", "the scope has to contain openid"))
        } else if self.wants("none") && self.prompt.len() > 1 {
            Some(("invalid_request", "prompt none stands alone"))
        } else if params.find("max_age").is_some() && self.max_age.is_none_or(|age| age < 0) {
            Some(("invalid_request", "max_age is not a number of seconds"))
        } else {
            None
        }
    }

    fn wants(&self, prompt: &str) -> bool {
        self.prompt.iter().any(|word| word == prompt)
    }

    /// Whether a browser that is signed in needs no new choice.
    fn accepts(&self, browser: &Browser, now: Timestamp) -> bool {
        let young = self.max_age.is_none_or(|age| now.as_secs().saturating_sub(browser.since) <= age);
        young && !self.wants("login") && !self.wants("select_account") && User::find(&browser.user).is_some()
    }

    fn refuse(self, error: &'static str, why: &'static str) -> Refused {
        Refused::ToClient { state: self.state, error, why }
    }
}

impl Refused {
    fn respond(self, shared: &Shared) -> Response {
        match self {
            Self::Here(sentence) => refuse(StatusCode::BAD_REQUEST, sentence),
            Self::ToClient { state, error, why } => {
                back(shared, state.as_deref(), &[("error", error), ("error_description", why)])
            }
        }
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}
