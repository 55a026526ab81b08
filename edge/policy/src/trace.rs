//! A decision with all that led to it, for operators: `explain` and tests. Allocates; not for the hot path.

use crate::document::Place;
use crate::policy::{Action, Operator, Origin, Policy, Rule};
use crate::{Decision, Evaluation, Facts, RuleResult};

/// Every rule of a policy with what it came to, and the decision. It shows addresses, claims and names as they are: not for
/// those who are refused, who get [`crate::Unmet`].
#[derive(Clone, Debug)]
pub struct Trace {
    /// Every rule: the access keys, then those of `policy` in the order in which they were written, and after all that decide
    /// those that are only tried out.
    pub rules: Vec<RuleTrace>,
    /// What both halves came to.
    pub evaluation: Evaluation,
    /// What is to happen with the request.
    pub decision: Decision,
    /// What a request that passes would come to if the rules that are only tried out decided as well, if it would not pass.
    pub would_refuse: Option<Evaluation>,
}

/// One rule and what it came to.
#[derive(Clone, Debug)]
pub struct RuleTrace {
    /// What it does when it holds.
    pub action: Action,
    /// How its criteria are joined.
    pub operator: Operator,
    /// What it belongs to.
    pub origin: Origin,
    /// Where its operator stands; [`Place::NONE`] for access keys and for policies from outside of a file.
    pub place: Place,
    /// Whether it decides, or is only tried out.
    pub enforced: bool,
    /// Whether it holds, and why.
    pub result: RuleResult,
    /// Its criteria, in order.
    pub criteria: Vec<CriterionTrace>,
}

/// One criterion and what it came to.
#[derive(Clone, Debug)]
pub struct CriterionTrace {
    /// As the policy language names it: `groups`, `claim/department`.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// What it compares with, in words; empty if with nothing.
    pub data: String,
    /// What it looked at: an address, the groups, "no session", ...
    pub saw: String,
    /// Whether it holds, before `not` and `nor` invert it, and why.
    pub result: RuleResult,
}

impl Policy {
    /// The decision with all that led to it.
    #[must_use]
    pub fn trace(&self, facts: &Facts<'_>) -> Trace {
        let evaluation = self.evaluate(facts);
        let decision = evaluation.decision();
        let would_refuse = (decision == Decision::Allow).then(|| self.would_refuse(facts)).flatten();
        Trace {
            rules: self.rules().map(|rule| RuleTrace::new(rule, facts)).collect(),
            evaluation,
            decision,
            would_refuse,
        }
    }
}

impl RuleTrace {
    fn new(rule: &Rule, facts: &Facts<'_>) -> Self {
        let places = rule.written.criteria.iter().copied().chain(std::iter::repeat(Place::NONE));
        let criteria = rule.criteria.iter().zip(places).map(|(criterion, place)| CriterionTrace {
            name: criterion.name(),
            place,
            data: criterion.data(),
            saw: criterion.saw(facts),
            result: criterion.evaluate(facts, rule.stand()),
        });
        Self {
            action: rule.action,
            operator: rule.operator,
            origin: rule.written.origin.clone(),
            place: rule.written.place,
            enforced: rule.enforced,
            result: rule.evaluate(facts),
            criteria: criteria.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{World, policy};
    use crate::{Legacy, ppl};

    /// Each criterion as `name (data) saw: value reason`.
    fn told(trace: &Trace) -> Vec<String> {
        let criteria = trace.rules.iter().flat_map(|rule| &rule.criteria);
        let told = criteria.map(|CriterionTrace { name, data, saw, result, .. }| {
            let reason = result.reasons.iter().next().map_or("", crate::Reason::as_str);
            format!("{name} ({data}) saw {saw}: {} {reason}", result.value)
        });
        told.collect()
    }

    #[test]
    fn each_criterion_tells_what_it_wants_and_what_it_saw() {
        let text = "allow: {and: [email: {in: [b@x.test, a@x.test]}, user: u1, domain: {not: x.test}, groups: {has: ops},
            claim/Dept: {exclude: [1]}, claim/none: x, http_method: POST, http_path: {starts_with: /a}, source_ip: 10.0.0.0/8,
            cors_preflight: 1, authenticated_user: 1, accept: 1, reject: 1]}";
        let world = World::signed_in()
            .email("a@x.test")
            .session_claims(&json!({"groups": ["ops", "dev"], "dept": "eng"}))
            .path("/b");
        let expected = [
            "email (a@x.test or b@x.test) saw a@x.test: true email-ok",
            "user (u1) saw u1: true user-ok",
            "domain (other than x.test) saw x.test: false domain-unauthorized",
            "groups (ops) saw ops, dev: true groups-ok",
            "claim/Dept (not [1]) saw eng: true claim-ok",
            "claim/none (x) saw no claim none: false claim-unauthorized",
            "http_method (POST) saw GET: false http-method-unauthorized",
            "http_path (that starts with /a) saw /b: false http-path-unauthorized",
            "source_ip (10.0.0.0/8) saw 203.0.113.9: false source-ip-unauthorized",
            "cors_preflight () saw no CORS preflight request: false non-cors-request",
            "authenticated_user () saw u1: true user-ok",
            "accept () saw any request: true accept",
            "reject () saw any request: false reject",
        ];
        assert_eq!(told(&policy(text).trace(&world.facts())), expected);
        let anonymous = told(&policy(text).trace(&World::default().facts()));
        for of_session in anonymous.iter().take(6) {
            assert!(of_session.ends_with("saw no session: false user-unauthenticated"), "{of_session}");
        }
    }

    #[test]
    fn an_address_that_is_missing_or_not_verified_is_told_apart() {
        let text = "allow: {and: [email: a@x.test, domain: x.test]}";
        let unverified = World::signed_in().email("a@x.test").email_verified(Some(false));
        let saw = |world: &World<'_>| -> Vec<_> {
            let [rule] = <[_; 1]>::try_from(policy(text).trace(&world.facts()).rules).expect("one rule");
            rule.criteria.into_iter().map(|criterion| criterion.saw).collect()
        };
        assert_eq!(saw(&unverified), ["a@x.test, not verified", "a@x.test, not verified"]);
        assert_eq!(saw(&World::signed_in().email_verified(Some(false))), ["no address, not verified"; 2]);
        assert_eq!(saw(&World::signed_in()), ["no address", "no address"]);
        assert_eq!(saw(&World::signed_in().email("a")), ["a", "no domain in a"]);
    }

    #[test]
    fn rules_and_criteria_keep_their_places_and_their_order() {
        let text = "\
- deny:
    or:
      - reject: 1
- allow:
    and:
      - accept: 1
      - http_method: GET
    not: [reject: 1]
";
        let node = crate::document::read(text).expect("YAML");
        let legacy = Legacy { allow_any_authenticated_user: true, ..Legacy::default() };
        let trace = Policy::new(legacy.rules(), ppl::parse(&node).expect("a policy")).trace(&World::default().facts());
        let told = trace.rules.iter().map(|rule| {
            let places: Vec<_> = rule.criteria.iter().map(|criterion| criterion.place.to_string()).collect();
            format!(
                "{:?} {} {} {} {}",
                rule.origin,
                rule.action.as_str(),
                rule.operator.as_str(),
                rule.place,
                places.join(" ")
            )
        });
        let expected = [
            "AccessKeys allow or 0:0 0:0",
            "Policy deny or 2:5 3:9",
            "Policy allow and 5:5 6:9 7:9",
            "Policy allow not 8:5 8:11",
        ];
        assert_eq!(told.collect::<Vec<_>>(), expected);
    }
}
