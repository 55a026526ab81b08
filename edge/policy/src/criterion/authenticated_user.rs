//! `authenticated_user`: somebody is signed in.

use super::{Dialect, Stand, Test, of_person, seen, seen_of_person, verdict};
use crate::document::{Mistake, Node};
use crate::{Facts, Reason, RuleResult};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct AuthenticatedUser;

impl Test for AuthenticatedUser {
    fn parse(_: &str, _: &Node, _: Dialect) -> Result<Self, Vec<Mistake>> {
        Ok(Self)
    }

    fn evaluate(&self, facts: &Facts<'_>, _: Stand) -> RuleResult {
        of_person(facts, |person| verdict(!person.user_id.is_empty(), Reason::UserOk, Reason::UserUnauthorized))
    }

    fn words(&self) -> String {
        "a signed-in user".to_owned()
    }

    fn data(&self) -> String {
        String::new()
    }

    fn saw(&self, facts: &Facts<'_>) -> String {
        seen_of_person(facts, |person| seen(person.user_id, "a session without a user"))
    }

    const NEEDS_SESSION: bool = true;
}

#[cfg(test)]
mod tests {
    use crate::testing::World;

    #[test]
    fn a_signed_in_user_is_enough() {
        World::signed_in().assert("authenticated_user: ~", true, "user-ok");
    }

    #[test]
    fn nobody_is_not_enough() {
        World::default().assert("authenticated_user: 1", false, "user-unauthenticated");
    }

    #[test]
    fn a_session_without_a_user_is_not_enough_and_no_sign_in_helps() {
        World::signed_in().user("").assert("authenticated_user: 1", false, "user-unauthorized");
    }
}
