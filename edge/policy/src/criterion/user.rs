//! `user`: the user id, which the identity provider calls `sub`.

use super::{Dialect, Stand, Test, of_person, seen, seen_of_person, verdict};
use crate::document::{Mistake, Node};
use crate::matcher::StringMatcher;
use crate::{Facts, Reason, RuleResult, Samples};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct User(pub(crate) StringMatcher);

impl Test for User {
    fn parse(_: &str, data: &Node, _: Dialect) -> Result<Self, Vec<Mistake>> {
        StringMatcher::parse(data).map(Self)
    }

    fn evaluate(&self, facts: &Facts<'_>, _: Stand) -> RuleResult {
        of_person(facts, |person| verdict(self.0.matches(person.user_id), Reason::UserOk, Reason::UserUnauthorized))
    }

    fn words(&self) -> String {
        if self.0.names_values() { "a user on its list".to_owned() } else { format!("a user id {}", self.0.words()) }
    }

    fn data(&self) -> String {
        self.0.words()
    }

    fn saw(&self, facts: &Facts<'_>) -> String {
        seen_of_person(facts, |person| seen(person.user_id, "a session without a user"))
    }

    fn sample(&self, samples: &mut Samples) {
        self.0.sample(&mut samples.users);
    }

    const NEEDS_SESSION: bool = true;
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
