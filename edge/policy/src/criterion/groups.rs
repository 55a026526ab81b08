//! `groups`: the groups of the user, which the `groups` claim names.

use super::{Dialect, Stand, Test, of_person, seen_of_person, verdict};
use crate::document::{Mistake, Node};
use crate::matcher::{ListMatcher, Want, listed_values};
use crate::{Facts, Reason, RuleResult, Samples};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Groups(pub(crate) ListMatcher);

impl Test for Groups {
    fn parse(_: &str, data: &Node, _: Dialect) -> Result<Self, Vec<Mistake>> {
        ListMatcher::parse(data).map(Self)
    }

    /// Without any word on groups from the provider it is false, even for `exclude`.
    fn evaluate(&self, facts: &Facts<'_>, _: Stand) -> RuleResult {
        of_person(facts, |person| {
            let groups = person.session.claim(CLAIM);
            let matches = groups.is_some() && self.0.matches(groups);
            verdict(matches, Reason::GroupsOk, Reason::GroupsUnauthorized)
        })
    }

    fn words(&self) -> String {
        let wants = self.0.wants().map(|want| match want {
            Want::Has(group) => format!("group {group}"),
            Want::Only(group) => format!("group {group} and no other"),
            Want::Lacks(group) => format!("no group {group}"),
        });
        let wants: Vec<_> = wants.collect();
        if wants.is_empty() { "groups of any kind".to_owned() } else { wants.join(" and ") }
    }

    fn data(&self) -> String {
        self.0.words()
    }

    fn saw(&self, facts: &Facts<'_>) -> String {
        seen_of_person(facts, |person| {
            person.session.claim(CLAIM).map_or_else(|| "no groups claim".to_owned(), listed_values)
        })
    }

    fn sample(&self, samples: &mut Samples) {
        self.0.sample(samples.claims.entry(CLAIM.to_owned()).or_default());
    }

    const NEEDS_SESSION: bool = true;
}

const CLAIM: &str = "groups";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::World;

    #[test]
    fn the_groups_claim_names_the_groups() {
        let world = World::signed_in().session_claims(&json!({"groups": ["staff", "ops"]}));
        world.assert("groups: {has: ops}", true, "groups-ok");
        world.assert("groups: admins", false, "groups-unauthorized");
        world.assert("groups: {exclude: admins}", true, "groups-ok");
    }

    #[test]
    fn without_any_word_on_groups_even_exclude_is_false() {
        World::signed_in().assert("groups: {exclude: g9}", false, "groups-unauthorized");
        World::default().assert("groups: {exclude: g9}", false, "user-unauthenticated");
    }
}
