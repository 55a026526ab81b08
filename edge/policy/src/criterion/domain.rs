//! `domain`: what stands between the first and the second `@` of the e-mail address.

use super::{of_session, verdict};
use crate::matcher::StringMatcher;
use crate::{Facts, Reason, RuleResult, facts};

#[derive(Clone, Debug)]
pub(crate) struct Domain(pub(crate) StringMatcher);

impl Domain {
    pub(super) fn evaluate(&self, facts: &Facts<'_>) -> RuleResult {
        of_session(facts, |_| {
            let domain = match facts.email() {
                facts::Email::Address(address) => address.split('@').nth(1),
                facts::Email::NoSession | facts::Email::Unverified => None,
            };
            let matches = domain.is_some_and(|domain| self.0.matches(domain));
            verdict(matches, Reason::DomainOk, Reason::DomainUnauthorized)
        })
    }

    pub(super) fn words(&self) -> String {
        if self.0.names_values() {
            format!("an e-mail address at {}", self.0.words())
        } else {
            format!("an e-mail address at a domain {}", self.0.words())
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::World;

    #[test]
    fn the_domain_is_compared_whole_and_case_sensitively() {
        let world = World::signed_in().email("user5@sub.example.com");
        world.assert("domain: sub.example.com", true, "domain-ok");
        world.assert("domain: example.com", false, "domain-unauthorized");
        world.assert("domain: Sub.example.com", false, "domain-unauthorized");
        world.assert("domain: {ends_with: example.com}", true, "domain-ok");
    }

    #[test]
    fn of_two_at_signs_the_middle_is_the_domain() {
        let world = World::signed_in().email("a@middle.example.com@example.net");
        world.assert("domain: middle.example.com", true, "domain-ok");
        world.assert("domain: example.net", false, "domain-unauthorized");
    }

    #[test]
    fn an_address_without_a_domain_matches_nothing() {
        for data in ["''", "{not: example.com}", "{}"] {
            World::signed_in().email("nobody").assert(&format!("domain: {data}"), false, "domain-unauthorized");
            World::default().assert(&format!("domain: {data}"), false, "user-unauthenticated");
        }
    }

    #[test]
    fn s_069_the_domain_of_an_address_that_is_not_verified_matches_no_rule() {
        let world = World::signed_in().email("a@example.com").email_verified(Some(false));
        world.assert("domain: example.com", false, "domain-unauthorized");
        world.assert("domain: {not: example.net}", false, "domain-unauthorized");
    }
}
