//! `source_ip`: the trusted address of the client.

use super::{Dialect, Stand, Test, verdict};
use crate::document::{Mistake, Node};
use crate::matcher::IpMatcher;
use crate::{Facts, Reason, RuleResult, Samples};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SourceIp(pub(crate) IpMatcher);

impl Test for SourceIp {
    fn parse(_: &str, data: &Node, _: Dialect) -> Result<Self, Vec<Mistake>> {
        IpMatcher::parse(data).map(Self)
    }

    fn evaluate(&self, facts: &Facts<'_>, _: Stand) -> RuleResult {
        verdict(self.0.contains(facts.source), Reason::SourceIpOk, Reason::SourceIpUnauthorized)
    }

    fn words(&self) -> String {
        format!("a source address in {}", self.0.words())
    }

    fn data(&self) -> String {
        self.0.words()
    }

    fn saw(&self, facts: &Facts<'_>) -> String {
        facts.source.to_canonical().to_string()
    }

    fn sample(&self, samples: &mut Samples) {
        samples.ranges.extend(self.0.ranges());
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::World;

    #[test]
    fn a_source_inside_any_range_matches_without_a_session() {
        let world = World::default().source("192.0.2.77");
        world.assert("source_ip: ['2001:db8::/32', 192.0.2.0/24]", true, "source-ip-ok");
        world.assert("source_ip: 192.0.2.78", false, "source-ip-unauthorized");
        world.assert("source_ip: []", false, "source-ip-unauthorized");
    }
}
