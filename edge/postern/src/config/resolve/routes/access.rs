//! Who may pass: the legacy access keys and `policy` (01 §3, §3.6).

use std::collections::{BTreeMap, HashMap, HashSet};

use postern_policy::document::{Mistake, Node, Place, Value};
use postern_policy::ppl::Rules;
use postern_policy::{Legacy, Policy, Rule};

use super::policies::Policies;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::value::{Field, Spanned};
use crate::config::{At, Code, KeyPath};

pub(super) fn resolve(cx: &mut Context<'_>, route: &Block<'_>, policies: &mut Policies<'_>) -> Option<Policy> {
    let legacy = legacy(cx, route)?;
    refuse_contradictions(cx, route, &legacy);
    let field = route.find("policy");
    let own = legacy.rules();
    let rules = match field {
        Some(field) => policies.of_route(cx, field)?,
        None if own.is_empty() && !LISTS.iter().any(|key| route.find(key).is_some()) => policies.default()?,
        None => Rules::default(),
    };
    let admits = rules.list.iter().any(Rule::admits);
    if let Some(field) = field.filter(|_| admits) {
        advise_of_idle_policy(cx, field, &legacy);
    }
    let nobody = own.is_empty() && !admits;
    // A key that chooses nobody is a choice: what is tried out beside it opens nothing (S-097).
    let policy = if rules.only_tried_out && !KEYS.iter().any(|key| route.mentions(key)) {
        Policy::tried_out(rules.list)
    } else {
        Policy::new(own, rules.list)
    };
    if nobody && !policy.is_tried_out() {
        let what = match field {
            _ if policy.tries_out_to_allow() => {
                "nothing lets anybody pass on this route: what would allow has `enforce: false`"
            }
            Some(_) if policy.denies() => "this policy only denies: nothing lets anybody pass on this route",
            _ => "nothing lets anybody pass on this route",
        };
        let hint = "write `allow_any_authenticated_user: true`, or a `policy` with an `allow` rule";
        cx.advise(Code::NobodyPasses, &route.at("from"), what, hint);
    }
    let advice = policy.advice();
    let paths = field.map(|field| Paths::to(field, advice.iter().map(|advice| advice.place)));
    for advice in advice {
        let at = paths.as_ref().map_or_else(|| route.at("from"), |paths| paths.at(advice.place));
        cx.advise(Code::OddPolicy, &at, advice.message, advice.hint.unwrap_or_default());
    }
    Some(policy)
}

/// The older access keys.
const KEYS: [&str; 6] = [
    "allow_public_unauthenticated_access",
    "cors_allow_preflight",
    "allow_any_authenticated_user",
    "allowed_domains",
    "allowed_users",
    "allowed_idp_claims",
];

/// The access keys that choose somebody, or, empty, nobody: on a route with one of them the default policy has no say.
const LISTS: [&str; 3] = ["allowed_domains", "allowed_users", "allowed_idp_claims"];

fn legacy(cx: &mut Context<'_>, route: &Block<'_>) -> Option<Legacy> {
    let values = |texts: Vec<Spanned<String>>| texts.into_iter().map(|text| text.value).collect::<Vec<_>>();
    let claims = match route.find("allowed_idp_claims") {
        Some(field) => claims(cx, field)?,
        None => BTreeMap::new(),
    };
    Some(Legacy {
        allow_public_unauthenticated_access: route.flag(cx, "allow_public_unauthenticated_access"),
        cors_allow_preflight: route.flag(cx, "cors_allow_preflight"),
        allow_any_authenticated_user: route.flag(cx, "allow_any_authenticated_user"),
        allowed_domains: route.texts(cx, "allowed_domains").map(values).unwrap_or_default(),
        allowed_users: route.texts(cx, "allowed_users").map(values).unwrap_or_default(),
        allowed_idp_claims: claims,
    })
}

/// Claim (flat, dotted) to list; one value is a list of one.
pub(in crate::config::resolve) fn claims(
    cx: &mut Context<'_>,
    field: &Field<'_>,
) -> Option<BTreeMap<String, Vec<serde_json::Value>>> {
    let json = field.node.as_str().and_then(|text| serde_json::from_str(text).ok()).map(Node::from_json);
    let node = json.as_ref().unwrap_or(field.node);
    let Some(entries) = node.as_map() else {
        let what = "`allowed_idp_claims` must be a map of claim to values";
        cx.fatal(Code::WrongType, &field.at, what, "write `allowed_idp_claims: {department: [ops]}`");
        return None;
    };
    let listed = |node: &Node| match &node.value {
        Value::Null => Vec::new(),
        Value::List(nodes) => nodes.iter().map(Node::to_json).collect(),
        Value::Bool(_) | Value::Number { .. } | Value::String(_) | Value::Map(_) => vec![node.to_json()],
    };
    Some(entries.iter().map(|entry| (entry.key.clone(), listed(&entry.value))).collect())
}

/// Keys that say different things about the same people (01 §2.9).
fn refuse_contradictions(cx: &mut Context<'_>, route: &Block<'_>, legacy: &Legacy) {
    let listed = [("allowed_domains", &legacy.allowed_domains), ("allowed_users", &legacy.allowed_users)];
    let listed = listed.into_iter().find(|(_, list)| !list.is_empty()).map(|(key, _)| key);
    let any = legacy.allow_any_authenticated_user.then_some("allow_any_authenticated_user");
    let (wide, narrow) = if legacy.allow_public_unauthenticated_access {
        ("allow_public_unauthenticated_access", any.or(listed))
    } else if legacy.allow_any_authenticated_user {
        ("allow_any_authenticated_user", listed)
    } else {
        return;
    };
    if let Some(narrow) = narrow {
        let what = format!("`{wide}` lets everybody pass whom `{narrow}` would choose from");
        cx.fatal(Code::BadAccess, &route.at(narrow), what, format!("remove `{wide}`, or `{narrow}`"));
    }
}

/// Public, and a policy that chooses (S-117): the reference takes both, and the policy then chooses nobody.
fn advise_of_idle_policy(cx: &mut Context<'_>, field: &Field<'_>, legacy: &Legacy) {
    let wide = if legacy.allow_public_unauthenticated_access {
        "allow_public_unauthenticated_access"
    } else if legacy.allow_any_authenticated_user {
        "allow_any_authenticated_user"
    } else {
        return;
    };
    let what = format!("`{wide}` lets everybody pass whom `policy` would choose from");
    cx.advise(
        Code::OddPolicy,
        &field.at,
        what,
        format!("remove `{wide}`, or the `allow` rules; `deny` rules hold either way"),
    );
}

/// Tells of what is wrong in a policy.
pub(in crate::config::resolve) fn tell(cx: &mut Context<'_>, field: &Field<'_>, mistakes: Vec<Mistake>) {
    let paths = Paths::to(field, mistakes.iter().map(|mistake| mistake.place));
    for mistake in mistakes {
        let at = paths.at(mistake.place);
        let hint = mistake.hint.unwrap_or_else(|| {
            "write `allow` or `deny`, an operator (and, or, not, nor), and a list of criteria".to_owned()
        });
        cx.fatal(Code::BadPolicy, &at, mistake.message, hint);
    }
}

/// The key or value of a policy that stands at `place`.
pub(super) fn at(policy: &Field<'_>, place: Place) -> At {
    Paths::to(policy, [place]).at(place)
}

/// Where in a policy some places are. The policy is walked once for all of them.
pub(super) struct Paths<'f, 'n> {
    policy: &'f Field<'n>,
    /// By line and column.
    found: HashMap<(u32, u32), KeyPath>,
}

impl<'f, 'n> Paths<'f, 'n> {
    pub(super) fn to(policy: &'f Field<'n>, places: impl IntoIterator<Item = Place>) -> Self {
        let known = places.into_iter().filter(|place| place.is_known());
        let mut wanted: HashSet<_> = known.map(|place| (place.line, place.column)).collect();
        let mut found = HashMap::new();
        if !wanted.is_empty() {
            find(policy.node, &KeyPath::default(), &mut wanted, &mut found);
        }
        Self { policy, found }
    }

    /// The key or value that stands at one of the places.
    pub(super) fn at(&self, place: Place) -> At {
        let path = self.found.get(&(place.line, place.column));
        let At { key, place: whole, origin } = self.policy.at.clone();
        let key = key.join(path.map_or("", KeyPath::as_str));
        At { key, place: if place.is_known() { place } else { whole }, origin }
    }
}

/// Moves the `wanted` places that are in `node` to `found`, each with the path of the innermost value that stands there.
fn find(node: &Node, path: &KeyPath, wanted: &mut HashSet<(u32, u32)>, found: &mut HashMap<(u32, u32), KeyPath>) {
    let take = |place: Place, path: &KeyPath, wanted: &mut HashSet<(u32, u32)>, found: &mut HashMap<_, _>| {
        if let Some(place) = wanted.take(&(place.line, place.column)) {
            found.insert(place, path.clone());
        }
    };
    match &node.value {
        Value::List(nodes) => {
            for (index, node) in nodes.iter().enumerate() {
                let path = path.index(index);
                find(node, &path, wanted, found);
                take(node.place, &path, wanted, found);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                let path = path.key(&entry.key);
                find(&entry.value, &path, wanted, found);
                take(entry.key_place, &path, wanted, found);
                take(entry.value.place, &path, wanted, found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number { .. } | Value::String(_) => {}
    }
}
