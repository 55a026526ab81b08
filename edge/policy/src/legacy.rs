//! The legacy access keys of a route -> rules; one evaluator only.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::criterion::{Accept, AuthenticatedUser, Claim, CorsPreflight, Criterion, Domain, Email, User};
use crate::document::Place;
use crate::matcher::{ListMatcher, StringMatcher};
use crate::policy::{Action, Operator, Origin, Rule, Written};

/// The access keys of a route that came before the policy language (01 §3.6).
#[derive(Clone, Debug, Default)]
pub struct Legacy {
    /// Everybody, signed in or not.
    pub allow_public_unauthenticated_access: bool,
    /// CORS preflight requests, without a session.
    pub cors_allow_preflight: bool,
    /// Whoever is signed in.
    pub allow_any_authenticated_user: bool,
    /// E-mail domains. Empty texts are left out: no missing domain lets anybody in.
    pub allowed_domains: Vec<String>,
    /// E-mail addresses or user ids. Empty texts are left out.
    pub allowed_users: Vec<String>,
    /// Claim name (flat, dotted) -> any of these values; a scalar in the file becomes a list of one.
    pub allowed_idp_claims: BTreeMap<String, Vec<Value>>,
}

impl Legacy {
    /// One allow rule over all that is set; none if nothing is.
    #[must_use]
    pub fn rules(&self) -> Vec<Rule> {
        let mut criteria = Vec::new();
        if self.allow_public_unauthenticated_access {
            criteria.push(Criterion::Accept(Accept));
        }
        if self.cors_allow_preflight {
            criteria.push(Criterion::CorsPreflight(CorsPreflight));
        }
        if self.allow_any_authenticated_user {
            criteria.push(Criterion::AuthenticatedUser(AuthenticatedUser));
        }
        criteria.extend(one_of(&self.allowed_domains).map(|domains| Criterion::Domain(Domain(domains))));
        for (name, values) in self.allowed_idp_claims.iter().filter(|(_, values)| !values.is_empty()) {
            criteria.push(Criterion::Claim(Claim::new(name, ListMatcher::has_any(values))));
        }
        criteria.extend(one_of(&self.allowed_users).map(|users| Criterion::User(User(users))));
        criteria.extend(one_of(&self.allowed_users).map(|users| Criterion::Email(Email::new(users))));
        if criteria.is_empty() {
            return Vec::new();
        }
        let places = criteria.iter().map(|_| Place::NONE).collect();
        let written = Written { origin: Origin::AccessKeys, place: Place::NONE, criteria: places };
        vec![Rule { action: Action::Allow, operator: Operator::Or, enforced: true, criteria: criteria.into(), written }]
    }
}

/// One look-up among all of them decides as a criterion for each would: they are or-ed, and their reasons are the same.
fn one_of(texts: &[String]) -> Option<StringMatcher> {
    let mut texts = texts.iter().map(String::as_str).filter(|text| !text.is_empty()).peekable();
    texts.peek().is_some().then(|| StringMatcher::one_of(texts))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::World;
    use crate::{Decision, Policy, Reason, Reasons};

    fn decide(legacy: &Legacy, world: &World<'_>) -> Decision {
        Policy::new(legacy.rules(), Vec::new()).decide(&world.facts())
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nothing_set_is_no_rule_and_so_nobody() {
        assert!(Legacy::default().rules().is_empty());
        assert_eq!(decide(&Legacy::default(), &World::signed_in()), Decision::Deny(Reasons::NONE));
    }

    #[test]
    fn s_033_the_public_key_opens_to_everybody() {
        let legacy = Legacy { allow_public_unauthenticated_access: true, ..Legacy::default() };
        assert_eq!(decide(&legacy, &World::default()), Decision::Allow);
        assert!(Policy::new(legacy.rules(), Vec::new()).is_public());
    }

    #[test]
    fn any_of_the_keys_is_enough_and_none_sends_nobody_away_unasked() {
        let legacy = Legacy {
            cors_allow_preflight: true,
            allowed_domains: texts(&["example.net", "example.com"]),
            allowed_users: texts(&["u7", "a@example.org"]),
            allowed_idp_claims: BTreeMap::from([("dept".to_owned(), vec![json!("ops"), json!("eng")])]),
            ..Legacy::default()
        };
        let yes = [
            World::default().cors_preflight(),
            World::signed_in().email("x@example.com"),
            World::signed_in().email("a@example.org"),
            World::signed_in().user("u7"),
            World::signed_in().user_claims(&json!({"dept": ["eng"]})),
        ];
        for world in yes {
            assert_eq!(decide(&legacy, &world), Decision::Allow);
        }
        assert_eq!(decide(&legacy, &World::default()), Decision::SignIn);
        let Decision::Deny(reasons) = decide(&legacy, &World::signed_in().email("x@example.org")) else {
            panic!("not denied")
        };
        assert!(reasons.contains(Reason::EmailUnauthorized) && reasons.contains(Reason::NonCorsRequest));
    }

    #[test]
    fn an_empty_text_lets_nobody_in() {
        let legacy = Legacy { allowed_users: texts(&[""]), allowed_domains: texts(&[""]), ..Legacy::default() };
        assert!(legacy.rules().is_empty());
        assert_eq!(decide(&legacy, &World::signed_in().email("")), Decision::Deny(Reasons::NONE));
    }

    #[test]
    fn s_069_a_listed_address_that_is_not_verified_lets_nobody_in() {
        let legacy = Legacy { allowed_users: texts(&["a@example.com"]), ..Legacy::default() };
        let world = World::signed_in().email("a@example.com").email_verified(Some(false));
        assert!(matches!(decide(&legacy, &world), Decision::Deny(_)));
    }
}
