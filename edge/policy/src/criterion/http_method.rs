//! `http_method`: the request method, compared case-sensitively.

use super::verdict;
use crate::matcher::StringMatcher;
use crate::{Facts, Reason, RuleResult};

#[derive(Clone, Debug)]
pub(crate) struct HttpMethod(pub(crate) StringMatcher);

impl HttpMethod {
    pub(super) fn evaluate(&self, facts: &Facts<'_>) -> RuleResult {
        verdict(self.0.matches(facts.method), Reason::HttpMethodOk, Reason::HttpMethodUnauthorized)
    }

    pub(super) fn words(&self) -> String {
        format!("method {}", self.0.words())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::World;

    #[test]
    fn methods_compare_case_sensitively() {
        World::default().assert("http_method: GET", true, "http-method-ok");
        World::default().assert("http_method: get", false, "http-method-unauthorized");
        World::default().method("DELETE").assert("http_method: {in: [GET, HEAD]}", false, "http-method-unauthorized");
    }
}
