//! `http_path`: the canonical path, percent-decoded and without query.

use super::verdict;
use crate::matcher::StringMatcher;
use crate::{Facts, Reason, RuleResult};

#[derive(Clone, Debug)]
pub(crate) struct HttpPath(pub(crate) StringMatcher);

impl HttpPath {
    pub(super) fn evaluate(&self, facts: &Facts<'_>) -> RuleResult {
        verdict(self.0.matches(facts.path), Reason::HttpPathOk, Reason::HttpPathUnauthorized)
    }

    pub(super) fn words(&self) -> String {
        format!("path {}", self.0.words())
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
