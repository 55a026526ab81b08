//! What stood in the way of a request, told to the person who sent it.

use crate::criterion::Criterion;
use crate::policy::Rule;
use crate::{Email, Facts, Reason};

/// One criterion that stood in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// The criterion as the policy language names it: `groups`, `claim/department`.
    pub criterion: String,
    /// Its reason.
    pub reason: Reason,
    /// The same for a person: "needs group engineering". Names no other person.
    pub words: String,
}

/// What made the deny rules true.
pub(crate) fn of_denial<'a>(rules: impl Iterator<Item = &'a Rule>, facts: &Facts<'_>) -> Vec<Unmet> {
    let denying = rules.filter(|rule| rule.evaluate(facts).value);
    distinct(denying.flat_map(|rule| criteria(rule, facts, true)), |criterion, inverted| {
        let condition = if inverted { "not " } else { "" };
        format!("denied by rule: {condition}{}", criterion.words())
    })
}

/// What kept the allow rules from being true.
pub(crate) fn of_no_allowance<'a>(rules: impl Iterator<Item = &'a Rule>, facts: &Facts<'_>) -> Vec<Unmet> {
    distinct(rules.flat_map(|rule| criteria(rule, facts, false)), |criterion, inverted| {
        if criterion.constant().is_some() {
            "open to nobody".to_owned()
        } else if criterion.needs_email() && matches!(facts.email(), Email::Unverified(_)) {
            "the e-mail address is not verified".to_owned()
        } else if inverted {
            format!("not open to {}", criterion.words())
        } else {
            format!("needs {}", criterion.words())
        }
    })
}

/// A criterion, whether its operator inverts it, and its reason.
type Judged<'a> = (&'a Criterion, bool, Reason);

/// The criteria of a rule that came out as `value` under its operator.
fn criteria<'a>(rule: &'a Rule, facts: &Facts<'_>, value: bool) -> impl Iterator<Item = Judged<'a>> {
    rule.criteria.iter().filter_map(move |criterion| {
        let result = rule.result(criterion, facts);
        let reason = result.reasons.iter().next()?;
        (result.value == value).then_some((criterion, rule.inverts(), reason))
    })
}

fn distinct<'a>(judged: impl Iterator<Item = Judged<'a>>, words: impl Fn(&Criterion, bool) -> String) -> Vec<Unmet> {
    let mut unmet: Vec<Unmet> = Vec::new();
    for (criterion, inverted, reason) in judged {
        let next = Unmet { criterion: criterion.name(), reason, words: words(criterion, inverted) };
        if !unmet.contains(&next) {
            unmet.push(next);
        }
    }
    unmet
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{World, policy};

    fn words(text: &str, world: &World<'_>) -> Vec<String> {
        policy(text).unmet(&world.facts()).into_iter().map(|unmet| unmet.words).collect()
    }

    #[test]
    fn what_is_missing_is_named_in_plain_words() {
        let world = World::signed_in().email("carol@example.org");
        let cases = [
            ("groups: engineering", "needs group engineering"),
            ("domain: example.com", "needs an e-mail address at example.com"),
            ("domain: {ends_with: .example.com}", "needs an e-mail address at a domain that ends with .example.com"),
            ("email: {ends_with: '@example.com'}", "needs an e-mail address that ends with @example.com"),
            ("claim/department: ops", "needs claim department with ops"),
            ("claim/tags: {is: a, has: b}", "needs claim tags with a alone and claim tags with b"),
            ("source_ip: [10.0.0.0/8]", "needs a source address in 10.0.0.0/8"),
            ("http_method: {in: [PUT, POST]}", "needs method POST or PUT"),
            ("http_path: {starts_with: /open}", "needs path that starts with /open"),
            ("cors_preflight: 1", "needs a CORS preflight request"),
            ("reject: 1", "open to nobody"),
        ];
        for (criterion, expected) in cases {
            assert_eq!(words(&format!("allow: {{and: [{criterion}]}}"), &world), [expected]);
        }
        assert_eq!(words("allow: {and: [authenticated_user: 1]}", &World::default()), ["needs a signed-in user"]);
    }

    #[test]
    fn persons_are_not_named_to_those_who_are_refused() {
        let world = World::signed_in().email("carol@example.org");
        let text = "allow: {or: [email: boss@example.com, email: {in: [alice@example.com]}, user: secret-id]}";
        assert_eq!(words(text, &world), ["needs an e-mail address on its list", "needs a user on its list"]);
    }

    #[test]
    fn an_address_that_is_not_verified_is_called_so() {
        let world = World::signed_in().email("dave@example.com").email_verified(Some(false));
        let unmet = policy("allow: {or: [domain: example.com]}").unmet(&world.facts());
        assert_eq!(unmet[0].words, "the e-mail address is not verified");
        assert_eq!((unmet[0].criterion.as_str(), unmet[0].reason.as_str()), ("domain", "domain-unauthorized"));
        assert_eq!(words("allow: {not: [domain: example.org]}", &world), ["the e-mail address is not verified"]);
    }

    #[test]
    fn a_denial_names_the_rule_that_made_it() {
        let world = World::signed_in().user_claims(&json!({"employment": "contractor"}));
        let text = "{allow: {or: [accept: 1]}, deny: {or: [claim/employment: contractor, http_method: PUT]}}";
        assert_eq!(words(text, &world), ["denied by rule: claim employment with contractor"]);
        let text = "{allow: {or: [accept: 1]}, deny: {not: [source_ip: 10.0.0.0/8]}}";
        assert_eq!(words(text, &world), ["denied by rule: not a source address in 10.0.0.0/8"]);
    }

    #[test]
    fn what_is_met_is_not_named_and_nothing_is_named_twice() {
        let world = World::signed_in().email("a@example.com");
        let text =
            "[allow: {and: [domain: example.com, groups: ops]}, allow: {and: [groups: ops], not: [http_method: GET]}]";
        assert_eq!(words(text, &world), ["needs group ops", "not open to method GET"]);
        assert!(words("allow: {and: [domain: example.com]}", &world).is_empty());
        assert!(words("allow: {}", &world).is_empty());
    }
}
