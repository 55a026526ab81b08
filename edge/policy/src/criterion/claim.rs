//! `claim/NAME`: the values of a claim.

use postern_identity::{ClaimValues, CompactSession};
use serde_json::Value;

use super::{Dialect, Stand, Test, of_person, seen_of_person, verdict};
use crate::document::{Mistake, Node};
use crate::matcher::{ListMatcher, Want, listed_values};
use crate::policy::Action;
use crate::{Facts, Reason, RuleResult, Samples};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Claim {
    name: ClaimName,
    values: ListMatcher,
    /// It holds for nobody's empty list.
    nobody: bool,
}

impl Claim {
    pub(crate) fn new(name: &str, values: ListMatcher) -> Self {
        Self { name: ClaimName::new(name), values, nobody: false }
    }
}

impl Test for Claim {
    fn parse(name: &str, data: &Node, dialect: Dialect) -> Result<Self, Vec<Mistake>> {
        let values = ListMatcher::parse(data)?;
        let nobody = dialect.fail_open_identity && values.matches(None);
        Ok(Self { nobody, ..Self::new(name, values) })
    }

    fn evaluate(&self, facts: &Facts<'_>, stand: Stand) -> RuleResult {
        if self.nobody && facts.person.is_none() {
            return verdict(true, Reason::ClaimOk, Reason::ClaimOk);
        }
        of_person(facts, |person| {
            let matches = self.name.meets(person.session, stand, |values| self.values.matches(values));
            verdict(matches, Reason::ClaimOk, Reason::ClaimUnauthorized)
        })
    }

    fn words(&self) -> String {
        let name = &self.name.written;
        let wants = self.values.wants().map(|want| match want {
            Want::Has(value) => format!("claim {name} with {value}"),
            Want::Only(value) => format!("claim {name} with {value} alone"),
            Want::Lacks(value) => format!("claim {name} without {value}"),
        });
        let wants: Vec<_> = wants.collect();
        if wants.is_empty() { format!("claim {name} of any kind") } else { wants.join(" and ") }
    }

    fn data(&self) -> String {
        self.values.words()
    }

    fn saw(&self, facts: &Facts<'_>) -> String {
        seen_of_person(facts, |person| self.name.saw(person.session))
    }

    fn sample(&self, samples: &mut Samples) {
        let mut values = Vec::new();
        self.values.sample(&mut values);
        let texts = values.iter().filter_map(Value::as_str);
        match &*self.name.written {
            // Nobody has these without the address and the id themselves.
            "email" => texts.for_each(|text| samples.emails.whole(text)),
            "sub" => texts.for_each(|text| samples.users.whole(text)),
            name => {
                let known = samples.claims.entry(name.to_owned()).or_default();
                values.into_iter().for_each(|value| {
                    if !known.contains(&value) {
                        known.push(value);
                    }
                });
            }
        }
    }

    const NEEDS_SESSION: bool = true;

    fn sub_path(&self) -> &str {
        &self.name.written
    }
}

/// The flat name of a claim, as written, and its lower-cased form, because Pomerium lower-cases the keys of its file. Stored claims are flat, so a nested one is reached by its dotted name and by no other path (01 §3.4).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ClaimName {
    written: Box<str>,
    lower: Option<Box<str>>,
}

impl ClaimName {
    pub(crate) fn new(written: &str) -> Self {
        let lower = written.to_lowercase();
        Self { written: written.into(), lower: (lower != written).then(|| lower.into()) }
    }

    pub(super) const fn written(&self) -> &str {
        &self.written
    }

    /// Whether the values meet `test`: those under the name as written, else those under the lower-cased one. Where both exist
    /// nobody passes for want of a look at the other: a `deny` rule holds if it does by either, and what keeps an `allow` rule
    /// from holding does so by either.
    pub(super) fn meets(
        &self,
        session: &CompactSession,
        stand: Stand,
        test: impl Fn(Option<ClaimValues<'_>>) -> bool,
    ) -> bool {
        match (self.find(session), stand.action, stand.inverted) {
            ((found, None) | (None, found), _, _) => test(found),
            ((written, Some(_)), Action::Allow, false) => test(written),
            ((written, lower), Action::Deny, true) => test(written) && test(lower),
            ((written, lower), _, _) => test(written) || test(lower),
        }
    }

    /// The values, for those who may see the request.
    pub(super) fn saw(&self, session: &CompactSession) -> String {
        match self.find(session) {
            (Some(written), Some(lower)) => {
                format!("{}, and in lower case {}", listed_values(written), listed_values(lower))
            }
            (Some(found), None) | (None, Some(found)) => listed_values(found),
            (None, None) => format!("no claim {}", self.written),
        }
    }

    /// The values under the name as written and under its lower-cased form, if that is another, in the union of the session's
    /// and the user's claims; those of the user win as a whole.
    fn find<'a>(&self, session: &'a CompactSession) -> (Option<ClaimValues<'a>>, Option<ClaimValues<'a>>) {
        (session.claim(&self.written), self.lower.as_deref().and_then(|lower| session.claim(lower)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::Decision;
    use crate::testing::{World, policy};

    fn world() -> World<'static> {
        World::signed_in()
            .session_claims(
                &json!({"roles": ["viewer", "editor"], "team": "blue", "level": 3, "address": {"country": "NZ"}}),
            )
            .user_claims(&json!({"team": "red", "dept": "eng"}))
    }

    #[test]
    fn a_claim_of_the_session_or_of_the_user_is_found() {
        world().assert("claim/roles: editor", true, "claim-ok");
        world().assert("claim/dept: eng", true, "claim-ok");
        world().assert("claim/roles: admin", false, "claim-unauthorized");
        world().assert("claim/nothing: x", false, "claim-unauthorized");
    }

    #[test]
    fn the_users_claim_replaces_that_of_the_session() {
        world().assert("claim/team: red", true, "claim-ok");
        world().assert("claim/team: blue", false, "claim-unauthorized");
    }

    #[test]
    fn a_nested_claim_is_reached_by_its_dotted_name() {
        world().assert("claim/address.country: NZ", true, "claim-ok");
        world().assert("claim/address/country: NZ", false, "claim-unauthorized");
    }

    #[test]
    fn the_lower_cased_name_is_tried_after_the_written_one() {
        world().assert("claim/Dept: eng", true, "claim-ok");
        let both = World::signed_in().user_claims(&json!({"Dept": "ops", "dept": "eng"}));
        both.assert("claim/Dept: ops", true, "claim-ok");
        both.assert("claim/Dept: eng", false, "claim-unauthorized");
    }

    #[test]
    fn where_both_spellings_exist_nobody_passes_for_want_of_a_look_at_the_other() {
        let roles =
            |written: &str, lower: &str| World::signed_in().user_claims(&json!({"Role": written, "role": lower}));
        let passes = |rules: &str, world: &World<'_>| policy(rules).decide(&world.facts()) == Decision::Allow;
        let deny = |block: &str| format!("{{allow: {{and: [authenticated_user: 1]}}, deny: {{{block}}}}}");
        for both in [roles("x", "contractor"), roles("contractor", "x")] {
            assert!(!passes(&deny("or: [claim/Role: contractor]"), &both));
            assert!(!passes(&deny("not: [claim/Role: contractor]"), &both));
            assert!(!passes("allow: {not: [claim/Role: contractor]}", &both));
        }
        assert!(passes(&deny("or: [claim/Role: contractor]"), &roles("x", "y")));
        assert!(passes(&deny("not: [claim/Role: staff]"), &roles("staff", "staff")));
        assert!(!passes(&deny("or: [claim/role: contractor]"), &roles("x", "contractor")));
        assert!(
            passes(&deny("or: [claim/role: contractor]"), &roles("contractor", "x")),
            "only that spelling is named"
        );
        // The written one alone lets in, as before.
        assert!(passes("allow: {and: [claim/Role: admin]}", &roles("admin", "x")));
        assert!(!passes("allow: {and: [claim/Role: admin]}", &roles("x", "admin")));
        let seen = &policy("allow: {and: [claim/Role: a]}").trace(&roles("x", "y").facts()).rules[0].criteria[0].saw;
        assert_eq!(seen, "x, and in lower case y");
    }

    #[test]
    fn values_compare_without_coercion() {
        world().assert("claim/level: 3", true, "claim-ok");
        world().assert("claim/level: '3'", false, "claim-unauthorized");
    }

    #[test]
    fn nobody_has_no_claims_whatever_the_operator() {
        for data in ["admin", "{exclude: admin}", "{}"] {
            World::default().assert(&format!("claim/roles: {data}"), false, "user-unauthenticated");
        }
    }
}
