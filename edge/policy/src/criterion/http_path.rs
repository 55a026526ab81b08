//! `http_path`: the canonical path, percent-decoded and without query.

use super::{Dialect, Stand, Test, seen, verdict};
use crate::document::{Mistake, Node};
use crate::matcher::StringMatcher;
use crate::{Facts, Reason, RuleResult, Samples};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HttpPath(pub(crate) StringMatcher);

impl Test for HttpPath {
    fn parse(_: &str, data: &Node, _: Dialect) -> Result<Self, Vec<Mistake>> {
        StringMatcher::parse(data).map(Self)
    }

    fn evaluate(&self, facts: &Facts<'_>, _: Stand) -> RuleResult {
        verdict(self.0.matches(facts.path), Reason::HttpPathOk, Reason::HttpPathUnauthorized)
    }

    fn words(&self) -> String {
        format!("path {}", self.0.words())
    }

    fn data(&self) -> String {
        self.0.words()
    }

    fn saw(&self, facts: &Facts<'_>) -> String {
        seen(facts.path, "a path that is not text")
    }

    fn sample(&self, samples: &mut Samples) {
        self.0.sample(&mut samples.paths);
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::World;

    #[test]
    fn a_path_may_be_compared_by_its_beginning() {
        let world = World::default().path("/administrator");
        world.assert("http_path: {starts_with: /admin}", true, "http-path-ok");
        world.assert("http_path: /admin", false, "http-path-unauthorized");
    }
}
