//! Who may pass and what else is opened for them, beyond what works already (01 §2.1).

use std::collections::BTreeMap;

use postern_policy::ppl;

use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::keys::{SESSION_RECORDING, SUB_POLICY, UPSTREAM_TUNNEL};

/// Keys of a route about people.
#[derive(Debug, Clone, Default)]
pub struct RouteAccess {
    /// `sub_policies`.
    pub sub_policies: Vec<SubPolicy>,
    /// `idp_access_token_allowed_audiences`; an empty list allows none, `None` takes the global ones.
    pub audiences: Option<Vec<String>>,
    /// `upstream_tunnel`: the upstream connects by itself, and this many rules say who may.
    pub tunnel_rules: Option<usize>,
    /// `session_recording`.
    pub recorded: bool,
}

/// An entry of `sub_policies`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubPolicy {
    /// `name`, else `id`.
    pub name: String,
    /// `allowed_users`.
    pub users: Vec<String>,
    /// `allowed_domains`.
    pub domains: Vec<String>,
    /// `allowed_idp_claims`.
    pub claims: BTreeMap<String, Vec<serde_json::Value>>,
    /// `rego`: scripts.
    pub scripts: Vec<String>,
    /// `explanation`.
    pub explanation: String,
    /// `remediation`.
    pub remediation: String,
}

pub(super) fn resolve(cx: &mut Context<'_>, route: &Block<'_>) -> RouteAccess {
    let audiences = route.find("idp_access_token_allowed_audiences").is_some();
    let recording = route.inner(cx, "session_recording", &SESSION_RECORDING);
    RouteAccess {
        sub_policies: sub_policies(cx, route),
        audiences: audiences.then(|| route.names(cx, "idp_access_token_allowed_audiences")),
        tunnel_rules: tunnel(cx, route),
        recorded: recording.is_some_and(|block| block.flag(cx, "enabled")),
    }
}

fn sub_policies(cx: &mut Context<'_>, route: &Block<'_>) -> Vec<SubPolicy> {
    let blocks = route.list(cx, "sub_policies", &SUB_POLICY);
    let one = |block: &Block<'_>| {
        let (id, name) = (block.text(cx, "id").unwrap_or_default(), block.text(cx, "name"));
        let claims = block.find("allowed_idp_claims");
        SubPolicy {
            name: name.filter(|name| !name.is_empty()).unwrap_or(id),
            users: block.names(cx, "allowed_users"),
            domains: block.names(cx, "allowed_domains"),
            claims: claims.and_then(|field| super::super::routes::claims(cx, field)).unwrap_or_default(),
            scripts: block.names(cx, "rego"),
            explanation: block.text(cx, "explanation").unwrap_or_default(),
            remediation: block.text(cx, "remediation").unwrap_or_default(),
        }
    };
    blocks.iter().map(one).collect()
}

/// The policy is read so that its mistakes are told; it is kept as text until tunnels are served.
fn tunnel(cx: &mut Context<'_>, route: &Block<'_>) -> Option<usize> {
    let block = route.inner(cx, "upstream_tunnel", &UPSTREAM_TUNNEL)?;
    let Some(field) = block.find("ssh_policy") else { return Some(0) };
    match ppl::parse(field.node) {
        Ok(rules) => Some(rules.len()),
        Err(mistakes) => {
            super::super::routes::tell_policy(cx, field, mistakes);
            None
        }
    }
}
