//! `email`: the e-mail address. One that the provider says is not verified lets nobody pass (S-069).

use super::{Dialect, Stand, Test, of_address, of_person, seen, verdict};
use crate::document::{Mistake, Node};
use crate::matcher::StringMatcher;
use crate::{Facts, Reason, RuleResult, Samples, facts};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Email {
    address: StringMatcher,
    /// It holds for nobody's empty address.
    nobody: bool,
}

impl Email {
    pub(crate) const fn new(address: StringMatcher) -> Self {
        Self { address, nobody: false }
    }
}

impl Test for Email {
    fn parse(_: &str, data: &Node, dialect: Dialect) -> Result<Self, Vec<Mistake>> {
        let address = StringMatcher::parse(data)?;
        Ok(Self { nobody: dialect.fail_open_identity && address.matches(""), address })
    }

    fn evaluate(&self, facts: &Facts<'_>, stand: Stand) -> RuleResult {
        if self.nobody && facts.person.is_none() {
            return verdict(true, Reason::EmailOk, Reason::EmailOk);
        }
        of_person(facts, |_| {
            let matches =
                of_address(facts, stand, || self.address.matches(""), |address| self.address.matches(address));
            verdict(matches, Reason::EmailOk, Reason::EmailUnauthorized)
        })
    }

    fn words(&self) -> String {
        if self.address.names_values() {
            "an e-mail address on its list".to_owned()
        } else {
            format!("an e-mail address {}", self.address.words())
        }
    }

    fn data(&self) -> String {
        self.address.words()
    }

    fn saw(&self, facts: &Facts<'_>) -> String {
        match facts.email() {
            facts::Email::NoSession => "no session".to_owned(),
            facts::Email::Unverified(address) => format!("{}, not verified", seen(address, "no address")),
            facts::Email::Address(address) => seen(address, "no address"),
        }
    }

    fn sample(&self, samples: &mut Samples) {
        self.address.sample(&mut samples.emails);
    }

    const NEEDS_SESSION: bool = true;
}

#[cfg(test)]
mod tests {
    use crate::testing::World;

    #[test]
    fn addresses_compare_case_sensitively() {
        let world = World::signed_in().email("User2@Example.com");
        world.assert("email: User2@Example.com", true, "email-ok");
        world.assert("email: user2@example.com", false, "email-unauthorized");
    }

    #[test]
    fn nobody_has_no_address_whatever_the_operator() {
        for data in ["a@b", "{not: a@b}", "{not_in: [a@b]}", "{}", "{is: ''}"] {
            World::default().assert(&format!("email: {data}"), false, "user-unauthenticated");
        }
    }

    #[test]
    fn s_069_an_address_that_is_not_verified_meets_no_rule_that_allows() {
        let world = World::signed_in().email("a@example.com").email_verified(Some(false));
        for data in ["a@example.com", "{not: b@example.com}", "{}", "{ends_with: example.com}"] {
            world.assert(&format!("email: {data}"), false, "email-unauthorized");
        }
        let world = World::signed_in().email("a@example.com").email_verified(Some(true));
        world.assert("email: a@example.com", true, "email-ok");
    }

    #[test]
    fn a_user_without_an_address_has_the_empty_one() {
        World::signed_in().assert("email: {is: ''}", true, "email-ok");
    }
}
