//! `user`: the user id, which the identity provider calls `sub`.

use super::{of_session, verdict};
use crate::matcher::StringMatcher;
use crate::{Facts, Reason, RuleResult};

#[derive(Clone, Debug)]
pub(crate) struct User(pub(crate) StringMatcher);

impl User {
    pub(super) fn evaluate(&self, facts: &Facts<'_>) -> RuleResult {
        of_session(facts, |session| verdict(self.0.matches(&session.user.id), Reason::UserOk, Reason::UserUnauthorized))
    }

    /// Persons are not named to those who are refused.
    pub(super) fn words(&self) -> String {
        if self.0.names_values() { "a user on its list".to_owned() } else { format!("a user id {}", self.0.words()) }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::World;

    #[test]
    fn the_user_is_the_id_and_not_the_address() {
        let world = World::signed_in().user("u1").email("user1@example.com");
        world.assert("user: u1", true, "user-ok");
        world.assert("user: user1@example.com", false, "user-unauthorized");
    }

    #[test]
    fn nobody_is_no_user_whatever_the_operator() {
        for data in ["u1", "{not: u1}", "{not_in: [u1]}", "{}"] {
            World::default().assert(&format!("user: {data}"), false, "user-unauthenticated");
        }
    }
}
