//! `reject`: never true.

use super::verdict;
use crate::{Reason, RuleResult};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Reject;

impl Reject {
    pub(super) const fn evaluate(self) -> RuleResult {
        verdict(false, Reason::Reject, Reason::Reject)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::World;

    #[test]
    fn reject_never_holds_whatever_its_data() {
        World::signed_in().assert("reject: true", false, "reject");
    }
}
