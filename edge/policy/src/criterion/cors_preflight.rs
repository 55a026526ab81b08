//! `cors_preflight`: `OPTIONS` that asks for permission (Fetch §4.8), which browsers send without any credential (S-035).

use super::{Dialect, Stand, Test, verdict};
use crate::document::{Mistake, Node};
use crate::{Facts, Reason, RuleResult, Samples};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct CorsPreflight;

impl Test for CorsPreflight {
    fn parse(_: &str, _: &Node, _: Dialect) -> Result<Self, Vec<Mistake>> {
        Ok(Self)
    }

    fn evaluate(&self, facts: &Facts<'_>, _: Stand) -> RuleResult {
        verdict(facts.cors_preflight, Reason::CorsRequest, Reason::NonCorsRequest)
    }

    fn words(&self) -> String {
        "a CORS preflight request".to_owned()
    }

    fn data(&self) -> String {
        String::new()
    }

    fn saw(&self, facts: &Facts<'_>) -> String {
        if facts.cors_preflight { "a CORS preflight request" } else { "no CORS preflight request" }.to_owned()
    }

    fn sample(&self, samples: &mut Samples) {
        samples.preflights = true;
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::World;

    #[test]
    fn s_035_only_a_preflight_is_one() {
        World::default().cors_preflight().assert("cors_preflight: 1", true, "cors-request");
        World::default().method("OPTIONS").assert("cors_preflight: 1", false, "non-cors-request");
    }
}
