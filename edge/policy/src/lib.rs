//! May they? The policy language, compiled once into a tree that decides without allocating, locking or failing.
//!
//! [`Policy::decide`] is total: every input gives a [`Decision`], and everything that is missing, unknown or contradictory
//! denies (S-097). Parsing is the only place where things can go wrong, and there every mistake carries its place in the
//! file ([`document::Place`]).
//!
//! Start with [`Policy`], then [`Facts`], then `ppl`.

mod decision;
pub mod document;
mod facts;

pub use decision::{Decision, Evaluation, Reason, Reasons, RuleResult};
pub use facts::{ClientCertificate, Email, Facts};

/// A compiled policy. One evaluator serves the policy language and the legacy access keys alike.
#[derive(Clone, Debug)]
pub struct Policy {
    rules: (),
}

impl Policy {
    /// Evaluates every criterion; reasons decide between sign-in and 403, so nothing is cut short (01 §3.2).
    #[must_use]
    pub fn evaluate(&self, facts: &Facts<'_>) -> Evaluation {
        let _ = (self.rules, facts);
        Evaluation::default()
    }

    /// What is to happen with the request.
    #[must_use]
    pub fn decide(&self, facts: &Facts<'_>) -> Decision {
        self.evaluate(facts).decision()
    }
}
