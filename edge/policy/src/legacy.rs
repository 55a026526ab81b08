//! The legacy access keys of a route -> rules; one evaluator only.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::Rule;

/// The access keys of a route that came before the policy language (01 §3.6).
#[derive(Clone, Debug, Default)]
pub struct Legacy {
    /// Everybody, signed in or not.
    pub allow_public_unauthenticated_access: bool,
    /// CORS preflight requests, without a session.
    pub cors_allow_preflight: bool,
    /// Whoever is signed in.
    pub allow_any_authenticated_user: bool,
    /// E-mail domains.
    pub allowed_domains: Vec<String>,
    /// E-mail addresses or user ids.
    pub allowed_users: Vec<String>,
    /// Claim name (flat, dotted) -> any of these values; a scalar in the file becomes a list of one.
    pub allowed_idp_claims: BTreeMap<String, Vec<Value>>,
}

impl Legacy {
    /// One allow rule over all that is set; none if nothing is.
    #[must_use]
    pub fn rules(&self) -> Vec<Rule> {
        Vec::new()
    }
}
