//! Policies: allow and deny rules over and / or / not / nor.

use crate::{Decision, Evaluation, Facts, Reason};

/// One block of criteria under one operator that allows or denies. Made by [`crate::ppl::parse`] and [`crate::Legacy::rules`].
#[derive(Clone, Debug)]
pub struct Rule(());

/// A compiled policy. One evaluator serves the policy language and the legacy access keys alike. The default denies all.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    rules: Vec<Rule>,
}

impl Policy {
    /// The policy of a route: its legacy access keys, then its `policy` (01 §3.6). With neither it denies all (S-097).
    #[must_use]
    pub fn new(mut legacy: Vec<Rule>, ppl: Vec<Rule>) -> Self {
        legacy.extend(ppl);
        Self { rules: legacy }
    }

    /// Evaluates every criterion; reasons decide between sign-in and 403, so nothing is cut short (01 §3.2).
    #[must_use]
    pub fn evaluate(&self, facts: &Facts<'_>) -> Evaluation {
        let _ = (&self.rules, facts);
        Evaluation::default()
    }

    /// What is to happen with the request.
    #[must_use]
    pub fn decide(&self, facts: &Facts<'_>) -> Decision {
        self.evaluate(facts).decision()
    }

    /// What stood in the way, in plain words, for the 403 page and its JSON; empty if nothing did. Not for the hot path.
    #[must_use]
    pub fn unmet(&self, facts: &Facts<'_>) -> Vec<Unmet> {
        let _ = facts;
        Vec::new()
    }

    /// Whether every request is allowed, whoever sends it: no deny rule, and an allow rule without a condition.
    #[must_use]
    pub fn is_public(&self) -> bool {
        false
    }

    /// Whether any criterion looks at the session: if none does, no session needs to be loaded to decide.
    #[must_use]
    pub fn needs_session(&self) -> bool {
        true
    }
}

/// One criterion that stood in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// The criterion as the policy language names it: `groups`, `claim/department`.
    pub criterion: String,
    /// Its reason.
    pub reason: Reason,
    /// The same for a person: "needs group engineering".
    pub words: String,
}
