//! `claim/NAME`: the values of a claim.

use postern_identity::Session;
use serde_json::Value;

use super::{Dialect, Test, of_session, seen_of_session, verdict};
use crate::document::{Mistake, Node};
use crate::matcher::{ListMatcher, Want, listed};
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
        let nobody = dialect.fail_open_identity && values.matches(&[]);
        Ok(Self { nobody, ..Self::new(name, values) })
    }

    fn evaluate(&self, facts: &Facts<'_>) -> RuleResult {
        if self.nobody && facts.session.is_none() {
            return verdict(true, Reason::ClaimOk, Reason::ClaimOk);
        }
        of_session(facts, |session| {
            let values = self.name.find(session).unwrap_or_default();
            verdict(self.values.matches(values), Reason::ClaimOk, Reason::ClaimUnauthorized)
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
        let none = || format!("no claim {}", self.name.written);
        seen_of_session(facts, |session| self.name.find(session).map_or_else(none, listed))
    }

    fn sample(&self, samples: &mut Samples) {
        self.values.sample(samples.claims.entry(self.name.written.to_string()).or_default());
    }

    const NEEDS_SESSION: bool = true;

    fn sub_path(&self) -> &str {
        &self.name.written
    }
}

/// The flat name of a claim, as written; its lower-cased form is tried as well, because Pomerium lower-cases the keys of its
/// file. Stored claims are flat, so a nested one is reached by its dotted name and by no other path (01 §3.4).
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

    /// The values in the union of the session's and the user's claims; those of the user win as a whole.
    pub(crate) fn find<'a>(&self, session: &'a Session) -> Option<&'a [Value]> {
        let find = |name: &str| session.user.claims.find(name).or_else(|| session.claims.find(name));
        find(&self.written).or_else(|| find(self.lower.as_deref()?))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::World;

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
