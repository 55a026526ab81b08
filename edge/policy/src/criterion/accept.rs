//! `accept`: always true, for everybody.

use super::verdict;
use crate::{Reason, RuleResult};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Accept;

impl Accept {
    pub(super) const fn evaluate(self) -> RuleResult {
        verdict(true, Reason::Accept, Reason::Accept)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::World;

    #[test]
    fn accept_holds_without_a_session_whatever_its_data() {
        World::default().assert("accept: false", true, "accept");
    }
}
