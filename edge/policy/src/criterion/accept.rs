//! `accept`: always true, for everybody.

use super::{Dialect, Stand, Test, verdict};
use crate::document::{Mistake, Node};
use crate::{Facts, Reason, RuleResult};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Accept;

impl Test for Accept {
    fn parse(_: &str, _: &Node, _: Dialect) -> Result<Self, Vec<Mistake>> {
        Ok(Self)
    }

    fn evaluate(&self, _: &Facts<'_>, _: Stand) -> RuleResult {
        verdict(true, Reason::Accept, Reason::Accept)
    }

    fn words(&self) -> String {
        "everybody".to_owned()
    }

    fn data(&self) -> String {
        String::new()
    }

    fn saw(&self, _: &Facts<'_>) -> String {
        "any request".to_owned()
    }

    const CONSTANT: Option<bool> = Some(true);
}

#[cfg(test)]
mod tests {
    use crate::testing::World;

    #[test]
    fn accept_holds_without_a_session_whatever_its_data() {
        World::default().assert("accept: false", true, "accept");
    }
}
