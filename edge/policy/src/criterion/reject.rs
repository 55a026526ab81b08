//! `reject`: never true.

use super::{Dialect, Stand, Test, verdict};
use crate::document::{Mistake, Node};
use crate::{Facts, Reason, RuleResult};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reject;

impl Test for Reject {
    fn parse(_: &str, _: &Node, _: Dialect) -> Result<Self, Vec<Mistake>> {
        Ok(Self)
    }

    fn evaluate(&self, _: &Facts<'_>, _: Stand) -> RuleResult {
        verdict(false, Reason::Reject, Reason::Reject)
    }

    fn words(&self) -> String {
        "nobody".to_owned()
    }

    fn data(&self) -> String {
        String::new()
    }

    fn saw(&self, _: &Facts<'_>) -> String {
        "any request".to_owned()
    }

    const CONSTANT: Option<bool> = Some(false);
}

#[cfg(test)]
mod tests {
    use crate::testing::World;

    #[test]
    fn reject_never_holds_whatever_its_data() {
        World::signed_in().assert("reject: true", false, "reject");
    }
}
