//! `domain`: what stands between the first and the second `@` of the e-mail address.

use super::{Dialect, Stand, Test, of_address, of_person, seen, verdict};
use crate::document::{Mistake, Node};
use crate::matcher::StringMatcher;
use crate::{Facts, Reason, RuleResult, Samples, facts};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Domain(pub(crate) StringMatcher);

impl Test for Domain {
    fn parse(_: &str, data: &Node, _: Dialect) -> Result<Self, Vec<Mistake>> {
        StringMatcher::parse(data).map(Self)
    }

    fn evaluate(&self, facts: &Facts<'_>, stand: Stand) -> RuleResult {
        of_person(facts, |person| {
            let of = |_: &str| person.domain.is_some_and(|domain| self.0.matches(domain));
            let matches = of_address(facts, stand, || self.0.matches(""), of);
            verdict(matches, Reason::DomainOk, Reason::DomainUnauthorized)
        })
    }

    fn words(&self) -> String {
        if self.0.names_values() {
            format!("an e-mail address at {}", self.0.words())
        } else {
            format!("an e-mail address at a domain {}", self.0.words())
        }
    }

    fn data(&self) -> String {
        self.0.words()
    }

    fn saw(&self, facts: &Facts<'_>) -> String {
        match facts.email() {
            facts::Email::NoSession => "no session".to_owned(),
            facts::Email::Unverified(address) => format!("{}, not verified", seen(address, "no address")),
            facts::Email::Address("") => "no address".to_owned(),
            facts::Email::Address(address) => {
                let domain = facts.person.and_then(|person| person.domain);
                domain.map_or_else(|| format!("no domain in {address}"), ToOwned::to_owned)
            }
        }
    }

    fn sample(&self, samples: &mut Samples) {
        self.0.sample_domain(&mut samples.emails);
    }

    const NEEDS_SESSION: bool = true;
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
    fn s_069_the_domain_of_an_address_that_is_not_verified_meets_no_rule_that_allows() {
        let world = World::signed_in().email("a@example.com").email_verified(Some(false));
        world.assert("domain: example.com", false, "domain-unauthorized");
        world.assert("domain: {not: example.net}", false, "domain-unauthorized");
    }
}
