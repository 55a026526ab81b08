//! `groups`: the groups of the user, which the `groups` claim names.

use super::{of_session, verdict};
use crate::matcher::{ListMatcher, Want};
use crate::{Facts, Reason, RuleResult};

#[derive(Clone, Debug)]
pub(crate) struct Groups(pub(crate) ListMatcher);

impl Groups {
    /// Without any word on groups from the provider it is false, even for `exclude`.
    pub(super) fn evaluate(&self, facts: &Facts<'_>) -> RuleResult {
        of_session(facts, |session| {
            let groups = session.user.claims.find(CLAIM).or_else(|| session.claims.find(CLAIM));
            let matches = groups.is_some_and(|groups| self.0.matches(groups));
            verdict(matches, Reason::GroupsOk, Reason::GroupsUnauthorized)
        })
    }

    pub(super) fn words(&self) -> String {
        let wants = self.0.wants().map(|want| match want {
            Want::Has(group) => format!("group {group}"),
            Want::Only(group) => format!("group {group} and no other"),
            Want::Lacks(group) => format!("no group {group}"),
        });
        let wants: Vec<_> = wants.collect();
        if wants.is_empty() { "groups of any kind".to_owned() } else { wants.join(" and ") }
    }
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
