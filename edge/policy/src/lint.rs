//! What a policy does that its author probably did not mean (01 §8.10, §8.11).

use crate::criterion::Criterion;
use crate::document::Mistake;
use crate::policy::{Action, Policy, Rule};

impl Policy {
    /// Advice on the rules as a whole: none of it is wrong, and each is probably a surprise.
    #[must_use]
    pub fn advice(&self) -> Vec<Mistake> {
        self.tried_out_alone()
            .or_else(|| self.tried_out_in_vain())
            .into_iter()
            .chain(self.sign_in_for_everybody())
            .collect()
    }

    fn tried_out_alone(&self) -> Option<Mistake> {
        let first = self.tried_out_to_allow().next().filter(|_| self.is_tried_out())?;
        let what = "whoever is signed in passes on this route: all of its rules have `enforce: false`";
        Some(
            Mistake::at(first.written.place, what)
                .hint("keep the rules that hold until now beside those that are tried out"),
        )
    }

    /// One more allow rule beside another refuses nobody, so there is nothing to be learned of it.
    fn tried_out_in_vain(&self) -> Option<Mistake> {
        self.of(Action::Allow).next()?;
        let rule = self.tried_out_to_allow().next()?;
        let what =
            "this `allow` rule can only let more people pass than the rules that decide: trying it out tells nothing";
        Some(Mistake::at(rule.written.place, what).hint(
            "to learn whom it would refuse in place of the others, try out `deny: {not: [...]}` with its criteria",
        ))
    }

    /// A deny rule that looks at the session sends everybody without one to sign in, also those whom an allow rule would let
    /// pass without (01 §3.2, §4.2).
    fn sign_in_for_everybody(&self) -> Option<Mistake> {
        let place = self.of(Action::Deny).find_map(|rule| {
            let at = rule.criteria.iter().position(Criterion::needs_session)?;
            Some(rule.written.criteria.get(at).copied().unwrap_or(rule.written.place))
        })?;
        let is_preflight = |criterion: &Criterion| matches!(criterion, Criterion::CorsPreflight(_));
        let what = if self.of(Action::Allow).any(Rule::always_holds) {
            "this route is public, and this rule asks every visitor to sign in"
        } else if self.of(Action::Allow).any(|rule| rule.criteria.iter().any(is_preflight)) {
            "this rule sends CORS preflight requests to sign in, though another lets them pass"
        } else if self.of(Action::Allow).any(|rule| !rule.needs_session()) {
            "this rule sends requests without a session, such as probes, to sign in, though another lets them pass"
        } else {
            return None;
        };
        Some(Mistake::at(place, what).hint("give what passes without a session a route of its own"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::read;
    use crate::ppl;
    use crate::testing::policy;

    fn advice(text: &str) -> Vec<(String, u32)> {
        policy(text).advice().into_iter().map(|advice| (advice.message, advice.place.column)).collect()
    }

    #[test]
    fn a_deny_rule_that_asks_for_a_session_where_another_rule_needs_none_is_told_of() {
        let cases = [
            ("{deny: {or: [reject: 1, user: a]}, allow: {or: [accept: 1]}}", "this route is public"),
            ("{deny: {or: [reject: 1, user: a]}, allow: {or: [accept: 1, user: b]}}", "this route is public"),
            ("{deny: {or: [reject: 1, user: a]}, allow: {or: [cors_preflight: 1, user: b]}}", "this rule sends CORS"),
            ("{deny: {or: [reject: 1, user: a]}, allow: {and: [http_path: /status]}}", "this rule sends requests"),
        ];
        for (text, words) in cases {
            let found = advice(text);
            assert_eq!(found.len(), 1, "{text}");
            assert!(found[0].0.starts_with(words) && found[0].1 == 25, "{found:?}");
        }
        let fine = [
            "{deny: {or: [http_method: PUT]}, allow: {or: [accept: 1]}}",
            "{deny: {or: [user: a]}, allow: {and: [user: b, http_path: /status]}}",
            "[{deny: {or: [user: a]}, enforce: false}, {allow: {or: [accept: 1]}}]",
        ];
        for text in fine {
            assert!(advice(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn rules_that_are_all_only_tried_out_are_told_of() {
        let rules = |text: &str| ppl::parse(&read(text).expect("YAML")).expect("a policy");
        let found =
            Policy::tried_out(rules("{enforce: false, deny: {or: [user: a]}, allow: {or: [user: a]}}")).advice();
        assert!(found.len() == 1 && found[0].message.starts_with("whoever is signed in passes"), "{found:?}");
        assert_eq!(found[0].place.column, 49);
        assert!(advice("{enforce: false, allow: {or: [user: a]}}").is_empty(), "that nobody passes is told elsewhere");
    }

    #[test]
    fn an_allow_rule_that_is_tried_out_where_another_decides_is_told_of() {
        let found = advice("[{enforce: false, allow: {or: [user: a]}}, {allow: {or: [user: a]}}]");
        assert!(found.len() == 1 && found[0].0.starts_with("this `allow` rule can only let more people"), "{found:?}");
        assert_eq!(found[0].1, 27);
        let narrower = "[{enforce: false, deny: {not: [user: a]}}, {allow: {or: [domain: a]}}]";
        assert!(advice(narrower).is_empty());
    }
}
