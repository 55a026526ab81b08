//! `cors_preflight`: `OPTIONS` that asks for permission (Fetch §4.8), which browsers send without any credential (S-035).

use super::verdict;
use crate::{Facts, Reason, RuleResult};

#[derive(Clone, Copy, Debug)]
pub(crate) struct CorsPreflight;

impl CorsPreflight {
    pub(super) const fn evaluate(self, facts: &Facts<'_>) -> RuleResult {
        verdict(facts.cors_preflight, Reason::CorsRequest, Reason::NonCorsRequest)
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
