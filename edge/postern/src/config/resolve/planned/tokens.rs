//! Bearer tokens in place of a session: `bearer_token_format`, `identity_providers` and their kin (01 §1.8).

use postern_policy::document::nearest;
use url::Url;

use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::keys::IDENTITY_PROVIDER;
use crate::config::resolve::idp::refuse_plain;
use crate::config::value::{Field, quoted};

/// What is taken in an `Authorization: Bearer` field, and from whom.
#[derive(Debug, Clone, Default)]
pub struct BearerTokens {
    /// `bearer_token_format`, where a route says nothing.
    pub format: TokenFormat,
    /// `identity_providers`, by name.
    pub providers: Vec<IdentityProvider>,
    /// `idp_access_token_allowed_audiences`; an empty list allows none, `None` does not look.
    pub audiences: Option<Vec<String>>,
}

/// `bearer_token_format`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TokenFormat {
    /// Passed to the upstream as it is.
    #[default]
    Passed,
    /// An access token of the identity provider.
    AccessToken,
    /// An ID token of the identity provider.
    IdToken,
    /// A token of one of the `identity_providers`.
    Jwt,
}

/// An issuer of tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityProvider {
    /// Its name, in lower case.
    pub name: String,
    /// `issuer`, as written.
    pub issuer: String,
    /// `jwks_url`; `None` is found by discovery.
    pub jwks_url: Option<Url>,
    /// `supported_algs`.
    pub algorithms: Vec<String>,
    /// `audiences`.
    pub audiences: Vec<String>,
}

const ALGORITHMS: [&str; 10] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"];
/// `supported_algs` unless written.
const USUAL: [&str; 3] = ["RS256", "ES256", "EdDSA"];
/// The issuer that stands for the cluster that the process runs in.
const IN_CLUSTER: &str = "kubernetes:///";

pub(super) fn resolve(cx: &mut Context<'_>, settings: &Block<'_>, format: TokenFormat) -> BearerTokens {
    let audiences = settings.find("idp_access_token_allowed_audiences").is_some();
    let tokens = BearerTokens {
        format,
        providers: providers(cx, settings),
        audiences: audiences.then(|| settings.names(cx, "idp_access_token_allowed_audiences")),
    };
    if tokens.format == TokenFormat::Jwt && tokens.providers.is_empty() {
        let what = "`bearer_token_format: jwt` needs somebody whose tokens are taken";
        cx.fatal(Code::MissingKey, &settings.at("bearer_token_format"), what, HINT);
    }
    tokens
}

const HINT: &str =
    "write `identity_providers: {NAME: {issuer: https://issuer.example.com, audiences: [https://app.example.com]}}`";

/// `bearer_token_format`, of the whole or of a route. So far tokens go up as they came, and nothing else.
pub(in crate::config::resolve) fn format(cx: &mut Context<'_>, block: &Block<'_>) -> Option<TokenFormat> {
    let formats = [
        ("default", TokenFormat::Passed),
        ("unknown", TokenFormat::Passed),
        ("idp_access_token", TokenFormat::AccessToken),
        ("idp_identity_token", TokenFormat::IdToken),
        ("jwt", TokenFormat::Jwt),
    ];
    let format = block.choice(cx, "bearer_token_format", "bearer_token_format_", &formats)?;
    if format != TokenFormat::Passed {
        let what = "tokens in `Authorization: Bearer` open nothing yet: they go to the upstream as they came";
        let hint = "write `bearer_token_format: default`, or remove it; Postern does not start rather than do less than it says";
        cx.fatal(Code::NotYet, &block.at("bearer_token_format"), what, hint);
    }
    Some(format)
}

/// `identity_providers` of a route with its own `bearer_token_format`: each of them must exist, and the route must take their tokens.
pub(super) fn of_route(cx: &mut Context<'_>, route: &Block<'_>, own: Option<TokenFormat>) -> Vec<String> {
    let wanted = route.names(cx, "identity_providers");
    let wanted: Vec<_> = wanted.into_iter().map(|name| name.to_ascii_lowercase()).collect();
    let known: Vec<_> = cx.planned.tokens.providers.iter().map(|provider| provider.name.clone()).collect();
    if own == Some(TokenFormat::Jwt) && known.is_empty() {
        let what = "a route with `bearer_token_format: jwt` needs somebody whose tokens are taken";
        cx.fatal(Code::MissingKey, &route.at("bearer_token_format"), what, HINT);
    }
    let at = route.at("identity_providers");
    if !wanted.is_empty() && own.unwrap_or(cx.planned.tokens.format) != TokenFormat::Jwt {
        let what = "`identity_providers` of a route choose whose tokens are taken, and this route takes none";
        cx.fatal(Code::Conflict, &at, what, "write `bearer_token_format: jwt`, or remove `identity_providers`");
    }
    for name in wanted.iter().filter(|name| !known.contains(name)) {
        let near = nearest(name, known.iter().map(String::as_str));
        let hint = near.map_or_else(|| HINT.to_owned(), |near| format!("did you mean `{near}`?"));
        cx.fatal(Code::BadChoice, &at, format!("there is no identity provider {}", quoted(name)), hint);
    }
    wanted
}

fn providers(cx: &mut Context<'_>, settings: &Block<'_>) -> Vec<IdentityProvider> {
    let Some(field) = settings.find("identity_providers") else { return Vec::new() };
    let Some(entries) = field.entries() else {
        cx.fatal(Code::WrongType, &field.at, "`identity_providers` must be a map of names", HINT);
        return Vec::new();
    };
    let mut found: Vec<IdentityProvider> = Vec::new();
    for (name, field) in entries {
        let Some(provider) = provider(cx, &name, &field) else { continue };
        if let Some(other) = found.iter().find(|other| other.issuer == provider.issuer) {
            let what = format!("{} has the issuer of {}", quoted(&name), quoted(&other.name));
            cx.fatal(Code::Conflict, &field.at, what, "an issuer says whose token it is: write each once");
        }
        found.push(provider);
    }
    found
}

fn provider(cx: &mut Context<'_>, name: &str, field: &Field<'_>) -> Option<IdentityProvider> {
    let name = name.to_ascii_lowercase();
    if name.is_empty() || name.contains('/') {
        let what = format!("{} cannot be the name of a provider", quoted(&name));
        cx.fatal(Code::BadChoice, &field.key_at(), what, "write a name in lower case, without `/`");
    }
    let block = Block::open(cx, field, &IDENTITY_PROVIDER)?;
    let audiences = block.names(cx, "audiences");
    if audiences.is_empty() {
        let what = format!("{} names no audience: every token of its issuer would do", quoted(&name));
        cx.fatal(Code::MissingKey, &block.at("audiences"), what, "write `audiences: [https://app.example.com]`");
    }
    let algorithms = algorithms(cx, &block);
    let jwks_url = block.url(cx, "jwks_url");
    if let Some(url) = &jwks_url {
        refuse_plain(cx, &block.at("jwks_url"), url);
    }
    let issuer = issuer(cx, &block)?;
    Some(IdentityProvider { name, issuer, jwks_url, algorithms, audiences })
}

fn issuer(cx: &mut Context<'_>, block: &Block<'_>) -> Option<String> {
    let hint = "write the `iss` of its tokens: `issuer: https://issuer.example.com`";
    let text = block.required(cx, "issuer", "the provider has no `issuer`", hint)?;
    if text.value != IN_CLUSTER {
        let url = block.url(cx, "issuer")?;
        refuse_plain(cx, &text.at, &url);
    }
    Some(text.value)
}

fn algorithms(cx: &mut Context<'_>, block: &Block<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for text in block.texts(cx, "supported_algs").unwrap_or_default() {
        let known = ALGORITHMS.iter().find(|known| known.eq_ignore_ascii_case(text.value.trim()));
        if known.is_none() {
            let what = format!("{} is no algorithm that tokens may be signed with", quoted(&text.value));
            cx.fatal(Code::BadChoice, &text.at, what, format!("write one of {}", ALGORITHMS.join(", ")));
        }
        found.extend(known.map(|known| (*known).to_owned()));
    }
    if found.is_empty() { USUAL.map(str::to_owned).to_vec() } else { found }
}
