//! `http_method`: the request method, compared case-sensitively.

use super::{Dialect, Stand, Test, verdict};
use crate::document::{Mistake, Node};
use crate::matcher::StringMatcher;
use crate::{Facts, Reason, RuleResult, Samples};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HttpMethod(pub(crate) StringMatcher);

impl Test for HttpMethod {
    fn parse(_: &str, data: &Node, _: Dialect) -> Result<Self, Vec<Mistake>> {
        StringMatcher::parse(data).map(Self)
    }

    fn evaluate(&self, facts: &Facts<'_>, _: Stand) -> RuleResult {
        verdict(self.0.matches(facts.method), Reason::HttpMethodOk, Reason::HttpMethodUnauthorized)
    }

    fn words(&self) -> String {
        format!("method {}", self.0.words())
    }

    fn data(&self) -> String {
        self.0.words()
    }

    fn saw(&self, facts: &Facts<'_>) -> String {
        facts.method.to_owned()
    }

    fn sample(&self, samples: &mut Samples) {
        self.0.sample(&mut samples.methods);
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
