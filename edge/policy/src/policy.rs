//! Policies: allow and deny rules over and / or / not / nor.

use std::sync::Arc;

use crate::criterion::Criterion;
use crate::document::Place;
use crate::unmet::{self, Unmet};
use crate::{Decision, Evaluation, Facts, Reasons, RuleResult, Signature};

/// A compiled policy. One evaluator serves the policy language and the legacy access keys alike. The default denies all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// The rules that decide, in the order in which they were written.
    rules: Box<[Rule]>,
    /// Those that are only tried out: what they would refuse passes, and is told of.
    dry_run: Box<[Rule]>,
}

/// One block of criteria under one operator that allows or denies. Made by [`crate::ppl::parse`] and [`crate::Legacy::rules`].
#[derive(Clone, Debug)]
pub struct Rule {
    pub(crate) action: Action,
    pub(crate) operator: Operator,
    /// It decides; else it is only tried out.
    pub(crate) enforced: bool,
    /// Named policies lend the same criteria to every route.
    pub(crate) criteria: Arc<[Criterion]>,
    pub(crate) written: Written,
}

/// Rules that say the same are the same, wherever they were written.
impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        let key = |rule: &Self| (rule.action, rule.operator, rule.enforced);
        key(self) == key(other) && self.criteria == other.criteria
    }
}

/// Where a rule was read from.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) origin: Origin,
    /// The operator's key.
    pub(crate) place: Place,
    /// Each criterion's key, in order.
    pub(crate) criteria: Arc<[Place]>,
}

/// What a rule belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The older access keys of the route.
    AccessKeys,
    /// The `policy` of the route itself.
    Policy,
    /// The policy of that name.
    Named(Arc<str>),
    /// The policy of routes that have none.
    Default,
}

/// What a rule does when it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It lets the request pass.
    Allow,
    /// It refuses the request.
    Deny,
}

impl Action {
    /// As the policy language writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// How the criteria of a rule are joined (01 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// All hold.
    And,
    /// One holds.
    Or,
    /// None holds.
    Not,
    /// Not all hold.
    Nor,
}

impl Operator {
    /// As the policy language writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::And => "and",
            Self::Or => "or",
            Self::Not => "not",
            Self::Nor => "nor",
        }
    }
}

impl Policy {
    /// The policy of a route: its legacy access keys, then its `policy` (01 §3.6). With neither it denies all (S-097).
    #[must_use]
    pub fn new(legacy: Vec<Rule>, ppl: Vec<Rule>) -> Self {
        let (rules, dry_run): (Vec<_>, Vec<_>) = legacy.into_iter().chain(ppl).partition(|rule| rule.enforced);
        Self { rules: rules.into(), dry_run: dry_run.into() }
    }

    /// Evaluates every criterion; reasons decide between sign-in and 403, so nothing is cut short (01 §3.2).
    #[must_use]
    pub fn evaluate(&self, facts: &Facts<'_>) -> Evaluation {
        if self.refuses_nobody() {
            Self::with_dry_run_alone(evaluate(&self.dry_run, facts))
        } else {
            evaluate(&self.rules, facts)
        }
    }

    /// What is to happen if its criteria come to that.
    #[must_use]
    pub fn decide_by(&self, signature: &Signature) -> Decision {
        let results = self
            .rules()
            .zip(&signature.0)
            .map(|(rule, of)| (rule.enforced, (rule.action, rule.join(of.results.iter().copied()))));
        if self.refuses_nobody() {
            return Self::with_dry_run_alone(join(results.map(|(_, result)| result))).decision();
        }
        join(results.filter(|(enforced, _)| *enforced).map(|(_, result)| result)).decision()
    }

    /// Rules that are only tried out, and none that decides: whoever they would send to sign in has to, since nothing is
    /// learned of somebody unknown; everybody else passes.
    #[cold]
    fn with_dry_run_alone(evaluation: Evaluation) -> Evaluation {
        if evaluation.decision() == Decision::SignIn {
            return evaluation;
        }
        Evaluation { allow: RuleResult { value: true, reasons: Reasons::NONE }, deny: RuleResult::default() }
    }

    /// What the rules that are only tried out came to, if they would refuse a request that passes. `None` where there are none.
    #[must_use]
    pub fn would_refuse(&self, facts: &Facts<'_>) -> Option<Evaluation> {
        if self.dry_run.is_empty() {
            return None;
        }
        let evaluation = evaluate(&self.dry_run, facts);
        let allows = self.dry_run.iter().any(|rule| rule.action == Action::Allow);
        (evaluation.deny.value || allows && !evaluation.allow.value).then_some(evaluation)
    }

    /// Whether there are rules that are only tried out.
    #[must_use]
    pub const fn has_dry_run(&self) -> bool {
        !self.dry_run.is_empty()
    }

    /// Whether any rule that decides denies.
    #[must_use]
    pub fn denies(&self) -> bool {
        self.of(Action::Deny).next().is_some()
    }

    /// Whether all rules are only tried out, so that nobody is refused. Some of them has to allow: where nothing ever did,
    /// nothing is opened.
    #[must_use]
    pub fn refuses_nobody(&self) -> bool {
        self.rules.is_empty() && self.dry_run.iter().any(|rule| rule.action == Action::Allow)
    }

    /// What is to happen with the request.
    #[must_use]
    pub fn decide(&self, facts: &Facts<'_>) -> Decision {
        self.evaluate(facts).decision()
    }

    /// What stood in the way, in plain words, for the 403 page and its JSON; empty if nothing did, and if no rule allows
    /// anybody. Allocates; not for the hot path.
    ///
    /// Speaks of the rules that decide. After a denial by a deny rule, what made it true; else each criterion that kept an allow rule from being true.
    #[must_use]
    pub fn unmet(&self, facts: &Facts<'_>) -> Vec<Unmet> {
        let Evaluation { allow, deny } = self.evaluate(facts);
        match (deny.value, allow.value) {
            (true, _) => unmet::of_denial(self.of(Action::Deny), facts),
            (false, false) => unmet::of_no_allowance(self.of(Action::Allow), facts),
            (false, true) => Vec::new(),
        }
    }

    /// The rules that decide, then those that are only tried out.
    pub(crate) fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().chain(&self.dry_run)
    }

    pub(crate) fn of(&self, action: Action) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(move |rule| rule.action == action)
    }

    /// Whether every request is surely allowed, whoever sends it: an allow rule without a condition, and nothing that denies
    /// or asks for a sign-in.
    #[must_use]
    pub fn is_public(&self) -> bool {
        let asks_for_sign_in = |rule: &Rule| rule.inverts() && rule.needs_session();
        self.of(Action::Deny).next().is_none()
            && self.of(Action::Allow).any(Rule::always_holds)
            && !self.of(Action::Allow).any(asks_for_sign_in)
    }

    /// Whether any criterion looks at the session: if none does, no session needs to be loaded to decide.
    #[must_use]
    pub fn needs_session(&self) -> bool {
        self.rules().any(Rule::needs_session)
    }
}

/// Both halves: all allow rules, and all deny rules, each or-ed.
fn evaluate(rules: &[Rule], facts: &Facts<'_>) -> Evaluation {
    join(rules.iter().map(|rule| (rule.action, rule.evaluate(facts))))
}

fn join(results: impl Iterator<Item = (Action, RuleResult)>) -> Evaluation {
    let (mut allow, mut deny) = (Joined::any(), Joined::any());
    for (action, result) in results {
        match action {
            Action::Allow => allow.add(result),
            Action::Deny => deny.add(result),
        }
    }
    Evaluation { allow: allow.result(), deny: deny.result() }
}

impl Rule {
    /// What it belongs to.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.written.origin
    }

    /// Whether it lets pass when it holds, and decides.
    #[must_use]
    pub fn admits(&self) -> bool {
        self.enforced && self.action == Action::Allow
    }

    pub(crate) fn evaluate(&self, facts: &Facts<'_>) -> RuleResult {
        self.join(self.criteria.iter().map(|criterion| self.result(criterion, facts)))
    }

    /// What it comes to if its criteria came to that, each as the operator takes it.
    pub(crate) fn join(&self, results: impl Iterator<Item = RuleResult>) -> RuleResult {
        let mut joined = match self.operator {
            Operator::And | Operator::Not => Joined::all(),
            Operator::Or | Operator::Nor => Joined::any(),
        };
        results.for_each(|result| joined.add(result));
        joined.result()
    }

    /// What one criterion comes to under the operator: an inverted result keeps its reasons.
    pub(crate) fn result(&self, criterion: &Criterion, facts: &Facts<'_>) -> RuleResult {
        let RuleResult { value, reasons } = criterion.evaluate(facts);
        RuleResult { value: value != self.inverts(), reasons }
    }

    pub(crate) const fn inverts(&self) -> bool {
        matches!(self.operator, Operator::Not | Operator::Nor)
    }

    pub(crate) fn needs_session(&self) -> bool {
        self.criteria.iter().any(Criterion::needs_session)
    }

    pub(crate) fn always_holds(&self) -> bool {
        let holds = |criterion: &Criterion| match criterion.constant() {
            Some(value) => value != self.inverts(),
            None => false,
        };
        match self.operator {
            Operator::And | Operator::Not => self.criteria.iter().all(holds),
            Operator::Or | Operator::Nor => self.criteria.iter().any(holds),
        }
    }
}

/// Results joined so that one of value `decisive` decides: then it is the reasons of its like that count.
struct Joined {
    decisive: bool,
    decided: bool,
    deciding: Reasons,
    every: Reasons,
}

impl Joined {
    /// All of them: the reasons of all if so, else of the false ones.
    const fn all() -> Self {
        Self { decisive: false, decided: false, deciding: Reasons::NONE, every: Reasons::NONE }
    }

    /// Any of them: the reasons of the true ones if so, else of all.
    const fn any() -> Self {
        Self { decisive: true, ..Self::all() }
    }

    const fn add(&mut self, RuleResult { value, reasons }: RuleResult) {
        self.every = self.every.and(reasons);
        if value == self.decisive {
            self.decided = true;
            self.deciding = self.deciding.and(reasons);
        }
    }

    const fn result(&self) -> RuleResult {
        let reasons = if self.decided { self.deciding } else { self.every };
        RuleResult { value: self.decided == self.decisive, reasons }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Reason;
    use crate::testing::{World, policy};

    fn reasons(reasons: &[Reason]) -> Reasons {
        reasons.iter().copied().collect()
    }

    #[test]
    fn s_097_an_empty_policy_denies_without_asking_for_a_sign_in() {
        for policy in [Policy::default(), Policy::new(Vec::new(), Vec::new()), policy("allow: {and: []}")] {
            assert_eq!(policy.decide(&World::default().facts()), Decision::Deny(Reasons::NONE));
            assert_eq!(policy.decide(&World::signed_in().facts()), Decision::Deny(Reasons::NONE));
        }
    }

    #[test]
    fn s_098_deny_wins_over_allow() {
        let policy = policy("{allow: {or: [accept: 1]}, deny: {or: [http_method: GET]}}");
        assert_eq!(policy.decide(&World::default().facts()), Decision::Deny(Reasons::of(Reason::HttpMethodOk)));
        assert_eq!(policy.decide(&World::default().method("POST").facts()), Decision::Allow);
    }

    #[test]
    fn a_subject_outside_the_group_is_denied_and_told_why() {
        let policy = policy("allow: {and: [groups: {has: ops}]}");
        let world = World::signed_in().session_claims(&json!({"groups": ["sales"]}));
        assert_eq!(policy.decide(&world.facts()), Decision::Deny(Reasons::of(Reason::GroupsUnauthorized)));
        assert_eq!(policy.decide(&World::default().facts()), Decision::SignIn);
    }

    #[test]
    fn each_operator_reports_the_reasons_that_decided() {
        let world = World::default();
        let method = Reason::HttpMethodUnauthorized;
        let cases = [
            ("and: [accept: 1, http_path: /]", true, reasons(&[Reason::Accept, Reason::HttpPathOk])),
            ("and: [accept: 1, http_method: PUT]", false, reasons(&[method])),
            ("or: [accept: 1, http_method: PUT]", true, reasons(&[Reason::Accept])),
            ("or: [reject: 1, http_method: PUT]", false, reasons(&[Reason::Reject, method])),
            ("not: [reject: 1, http_method: PUT]", true, reasons(&[Reason::Reject, method])),
            ("not: [accept: 1, http_method: PUT]", false, reasons(&[Reason::Accept])),
            ("nor: [accept: 1, http_method: PUT]", true, reasons(&[method])),
            ("nor: [accept: 1, http_path: /]", false, reasons(&[Reason::Accept, Reason::HttpPathOk])),
        ];
        for (block, value, reasons) in cases {
            let result = policy(&format!("allow: {{{block}}}")).evaluate(&world.facts()).allow;
            assert_eq!(result, RuleResult { value, reasons }, "{block}");
        }
    }

    #[test]
    fn a_policy_is_public_only_if_nothing_can_refuse_or_ask_who_it_is() {
        for public in ["allow: {or: [accept: 1]}", "allow: {not: [reject: 1]}", "allow: {or: [accept: 1, user: a]}"] {
            assert!(policy(public).is_public(), "{public}");
            assert_eq!(policy(public).decide(&World::default().facts()), Decision::Allow);
        }
        let private = [
            "allow: {and: [accept: 1, http_path: /]}",
            "{allow: {or: [accept: 1]}, deny: {or: [user: a]}}",
            "allow: {or: [accept: 1], not: [user: a]}",
            "allow: {and: [authenticated_user: 1]}",
            "allow: {}",
        ];
        for private in private {
            assert!(!policy(private).is_public(), "{private}");
        }
    }

    #[test]
    fn a_rule_that_is_only_tried_out_refuses_nobody_and_tells_whom_it_would() {
        let text = "[{allow: {and: [authenticated_user: 1]}}, {enforce: false, allow: {and: [groups: ops]}},
            {enforce: false, deny: {or: [http_method: POST]}}]";
        let policy = policy(text);
        let ops = || World::signed_in().session_claims(&json!({"groups": "ops"}));
        let refused = |world: World<'_>| {
            assert_eq!(policy.decide(&world.facts()), Decision::Allow);
            policy.would_refuse(&world.facts()).map(|evaluation| evaluation.decision())
        };
        assert_eq!(refused(ops()), None);
        assert_eq!(refused(World::signed_in()), Some(Decision::Deny(Reasons::of(Reason::GroupsUnauthorized))));
        assert_eq!(refused(ops().method("POST")), Some(Decision::Deny(Reasons::of(Reason::HttpMethodOk))));
        assert_eq!(policy.decide(&World::default().facts()), Decision::SignIn);
        assert!(policy.has_dry_run() && !policy.refuses_nobody());
    }

    #[test]
    fn s_097_a_deny_rule_that_is_only_tried_out_opens_nothing() {
        let policy = policy("{enforce: false, deny: {or: [http_method: POST]}}");
        assert!(!policy.refuses_nobody() && !policy.is_public());
        for world in [World::default(), World::signed_in()] {
            assert_eq!(policy.decide(&world.facts()), Decision::Deny(Reasons::NONE));
        }
    }

    #[test]
    fn deny_rules_that_are_only_tried_out_would_refuse_only_whom_they_name() {
        let policy = policy("[{allow: {or: [accept: 1]}}, {enforce: false, deny: {or: [http_method: POST]}}]");
        assert_eq!(policy.would_refuse(&World::default().facts()), None);
        assert!(policy.would_refuse(&World::default().method("POST").facts()).is_some());
        assert!(policy.is_public());
    }

    #[test]
    fn where_all_rules_are_only_tried_out_everybody_passes_once_signed_in_where_they_ask_for_it() {
        let tried = policy("{enforce: false, allow: {and: [groups: ops]}, deny: {or: [http_method: PUT]}}");
        assert_eq!(tried.decide(&World::default().facts()), Decision::SignIn);
        for world in [World::signed_in(), World::signed_in().method("PUT")] {
            assert_eq!(tried.decide(&world.facts()), Decision::Allow);
            assert!(tried.would_refuse(&world.facts()).is_some());
        }
        let open = policy("{enforce: false, allow: {and: [http_method: PUT]}}");
        assert_eq!(open.decide(&World::default().facts()), Decision::Allow);
        assert!(open.would_refuse(&World::default().facts()).is_some());
        assert!(open.refuses_nobody() && !open.is_public(), "nobody said that it is public");
    }

    #[test]
    fn a_policy_without_identity_needs_no_session() {
        assert!(!policy("{allow: {or: [accept: 1]}, deny: {not: [source_ip: 10.0.0.0/8]}}").needs_session());
        assert!(policy("{allow: {or: [accept: 1]}, deny: {or: [claim/a: 1]}}").needs_session());
    }
}
