//! What upstreams are told about the subject (01 §1.10, §5).

use std::sync::Arc;

use http::HeaderName;
use postern_edge::{ClaimHeader, GroupsFilter, IdentityConfig, JwtIssuerFormat, SigningKeyError, SigningKeys};
use postern_policy::document::Value;

use super::flags::Flags;
use super::headers;
use super::secrets::{self, Secrets};
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::value::{Field, Spanned, decode_base64};
use crate::config::{At, Code};

/// All of [`IdentityConfig`] but the keys, which other problems may leave out.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) claim_headers: Vec<ClaimHeader>,
    pub(super) issuer_format: JwtIssuerFormat,
    pub(super) pass_identity_headers: bool,
    pub(super) groups_filter: Option<GroupsFilter>,
    jwt_endpoint: bool,
}

impl Identity {
    pub(super) fn with_keys(self, keys: SigningKeys) -> IdentityConfig {
        IdentityConfig {
            keys: Arc::new(keys),
            claim_headers: self.claim_headers,
            issuer_format: self.issuer_format,
            pass_identity_headers: self.pass_identity_headers,
            groups_filter: self.groups_filter,
            jwt_endpoint: self.jwt_endpoint,
        }
    }

    /// The names that a route may not set.
    pub(super) fn claim_names(&self) -> Vec<HeaderName> {
        self.claim_headers.iter().map(|claim| claim.header.clone()).collect()
    }
}

pub(super) fn resolve(cx: &mut Context<'_>, settings: &Block<'_>, flags: Flags) -> Identity {
    let claims = settings.find("jwt_claims_headers").map(|field| claim_headers(cx, field));
    Identity {
        claim_headers: claims.unwrap_or_default(),
        issuer_format: issuer_format(cx, settings).unwrap_or_default(),
        pass_identity_headers: settings.flag(cx, "pass_identity_headers"),
        groups_filter: groups_filter(cx, settings, None),
        jwt_endpoint: flags.jwt_endpoint,
    }
}

/// `jwt_groups_filter`: what a route names beside what all routes do (01 §5.2).
pub(super) fn groups_filter(
    cx: &mut Context<'_>,
    block: &Block<'_>,
    global: Option<&GroupsFilter>,
) -> Option<GroupsFilter> {
    let own = block.names(cx, "jwt_groups_filter");
    if own.is_empty() {
        return global.cloned();
    }
    Some(Arc::new(own.into_iter().chain(global.iter().flat_map(|all| all.iter().cloned())).collect()))
}

/// `jwt_issuer_format`, of the whole or of a route.
pub(super) fn issuer_format(cx: &mut Context<'_>, block: &Block<'_>) -> Option<JwtIssuerFormat> {
    let choices = [
        ("hostOnly", JwtIssuerFormat::HostOnly),
        ("host_only", JwtIssuerFormat::HostOnly),
        ("uri", JwtIssuerFormat::Uri),
    ];
    block.choice(cx, "jwt_issuer_format", "issuer_format_", &choices)
}

/// `jwt_claims_headers`: a list of claims, a text with commas or spaces, or a map of header to claim.
fn claim_headers(cx: &mut Context<'_>, field: &Field<'_>) -> Vec<ClaimHeader> {
    let pairs = match &field.node.value {
        Value::Map(_) => field.pairs(cx).unwrap_or_default(),
        Value::String(text) if text.trim_start().starts_with('{') => field.pairs(cx).unwrap_or_default(),
        Value::String(text) => {
            let claims = text.split([',', ' ', '\n', '\t']).filter(|claim| !claim.is_empty());
            claims.map(|claim| named(&field.at, claim)).collect()
        }
        Value::List(_) | Value::Null | Value::Bool(_) | Value::Number { .. } => {
            let claims = field.texts(cx).unwrap_or_default();
            claims.iter().map(|claim| named(&claim.at, claim.value.trim())).collect()
        }
    };
    let mut headers: Vec<ClaimHeader> = Vec::new();
    for (name, claim) in pairs {
        let Some(header) = headers::header_name(cx, &name) else { continue };
        if headers.iter().any(|known| known.header == header && known.claim == claim.value) {
            continue;
        }
        if headers.iter().any(|known| known.header == header) {
            let what = format!("two claims go into the header `{header}`");
            cx.fatal(Code::Conflict, &name.at, what, "give each claim a header of its own");
        } else if let Some(use_) = taken(&header) {
            let what = format!("`{header}` is {use_}, and cannot carry a claim");
            cx.fatal(Code::ReservedName, &name.at, what, "choose another name, for example `X-Email`");
        } else {
            headers.push(ClaimHeader { header, claim: claim.value });
        }
    }
    headers
}

fn named(at: &At, claim: &str) -> (Spanned<String>, Spanned<String>) {
    let spanned = |value: String| Spanned { at: at.clone(), value };
    (spanned(format!("x-pomerium-claim-{claim}")), spanned(claim.to_owned()))
}

/// What a header name is already used for, if a claim in it would break something.
fn taken(header: &HeaderName) -> Option<&'static str> {
    match header.as_str() {
        "x-pomerium-jwt-assertion" | "x-pomerium-jwt-assertion-for" => Some("the assertion"),
        "host" | "cookie" | "authorization" | "connection" | "content-length" | "transfer-encoding" | "upgrade"
        | "te" | "trailer" => Some("part of HTTP itself"),
        // Kubernetes believes them of whoever has a token for it, in whatever spelling somebody on the way makes of them.
        name if name.replace(['_', '.'], "-").starts_with("impersonate-") => {
            Some("what a Kubernetes API takes for somebody's name")
        }
        _ => None,
    }
}

/// The keys that sign assertions: `signing_key(_file)`, or one that is derived from the shared secret (01 §5.3).
pub(super) fn signing_keys(cx: &mut Context<'_>, settings: &Block<'_>, secrets: &Secrets) -> Option<SigningKeys> {
    let Some((at, text)) = secrets::text(cx, settings, "signing_key", "signing_key_file") else {
        // A named file that cannot be read has been told of.
        let shared = std::iter::once(&secrets.shared).chain(&secrets.accepted);
        return SigningKeys::derive(shared.map(postern_identity::Secret::expose))
            .map_err(|error| unusable(cx, &settings.at("shared_secret"), &error))
            .ok();
    };
    let text = text.expose().trim();
    let pem = if text.starts_with("-----BEGIN") { Some(text.as_bytes().to_vec()) } else { decode_base64(text) };
    let Some(pem) = pem.map(postern_identity::Secret::new) else {
        refuse(cx, &at, "it is neither PEM nor base64 of PEM");
        return None;
    };
    SigningKeys::from_pem(pem.expose()).map_err(|error| unusable(cx, &at, &error)).ok()
}

/// Why, without a word of the key itself.
fn unusable(cx: &mut Context<'_>, at: &At, error: &SigningKeyError) {
    match error {
        SigningKeyError::Unreadable(_) => refuse(cx, at, "a private key in it cannot be read"),
        SigningKeyError::None
        | SigningKeyError::Curve(_)
        | SigningKeyError::RsaTooShort
        | SigningKeyError::Unsupported => {
            refuse(cx, at, &error.to_string());
        }
    }
}

fn refuse(cx: &mut Context<'_>, at: &At, why: &str) {
    let hint = "make one with `openssl ecparam -genkey -name prime256v1 -noout`, and give it as `signing_key_file`";
    cx.fatal(Code::BadSigningKey, at, format!("this key cannot sign: {why}"), hint);
}
