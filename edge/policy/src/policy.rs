//! Policies: allow and deny rules over and / or / not / nor.

use std::sync::Arc;

use crate::criterion::{AuthenticatedUser, Criterion, InvalidClientCertificate, Stand};
use crate::document::Place;
use crate::unmet::{self, Unmet};
use crate::{Decision, Evaluation, Facts, Reasons, RuleResult, Signature};

/// A compiled policy. One evaluator serves the policy language and the legacy access keys alike. The default denies all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// The rules that decide, in the order in which they were written.
    rules: Box<[Rule]>,
    /// Those that are only tried out: what would be refused if they decided too passes, and is told of.
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
    /// No text: where nothing but rules that are tried out is written, whoever is signed in passes.
    TriedOut,
    /// `downstream_mtls`, which every route has a rule of (01 §1.6).
    ClientCertificates,
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
    /// The policy of a route: its legacy access keys, then its `policy` (01 §3.6). Without a rule that decides and allows it
    /// denies all (S-097).
    #[must_use]
    pub fn new(legacy: Vec<Rule>, ppl: Vec<Rule>) -> Self {
        let (rules, dry_run): (Vec<_>, Vec<_>) = legacy.into_iter().chain(ppl).partition(|rule| rule.enforced);
        Self { rules: rules.into(), dry_run: dry_run.into() }
    }

    /// The policy of a route on which nothing is written but rules that are tried out ([`ppl::Rules::only_tried_out`], and no
    /// access key): whoever is signed in passes. As [`Self::new`] if a rule decides, and if none would allow: where nothing ever
    /// did, nothing is opened (S-097).
    ///
    /// [`ppl::Rules::only_tried_out`]: crate::ppl::Rules::only_tried_out
    #[must_use]
    pub fn tried_out(rules: Vec<Rule>) -> Self {
        let policy = Self::new(Vec::new(), rules);
        if policy.rules.is_empty() && policy.tries_out_to_allow() {
            Self { rules: Box::new([Rule::whoever_is_signed_in()]), ..policy }
        } else {
            policy
        }
    }

    /// The same policy, with a rule that denies whoever has no client certificate that is valid for the route (01 §1.6).
    #[must_use]
    pub fn with_client_certificates(self) -> Self {
        let rules = self.rules.into_iter().chain([Rule::no_valid_client_certificate()]).collect();
        Self { rules, ..self }
    }

    /// Evaluates every criterion that has a say in it: reasons decide between sign-in and 403 (01 §3.2), so nothing is cut short
    /// but an allow rule that does not hold beside one that does.
    #[must_use]
    pub fn evaluate(&self, facts: &Facts<'_>) -> Evaluation {
        evaluate(&self.rules, facts)
    }

    /// What is to happen if its criteria come to that.
    #[must_use]
    pub fn decide_by(&self, signature: &Signature) -> Decision {
        let decides = self.rules().zip(&signature.0).filter(|(rule, _)| rule.enforced);
        join(decides.map(|(rule, of)| (rule.action, rule.join(of.results.iter().copied())))).decision()
    }

    /// What a request would come to if the rules that are only tried out decided as well; `None` where it would pass, and where
    /// there are no such rules. Meant for requests that pass now.
    #[must_use]
    pub fn would_refuse(&self, facts: &Facts<'_>) -> Option<Evaluation> {
        if self.dry_run.is_empty() {
            return None;
        }
        let evaluation = evaluate(self.rules().filter(|rule| rule.written.origin != Origin::TriedOut), facts);
        (evaluation.decision() != Decision::Allow).then_some(evaluation)
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

    /// Whether whoever is signed in passes because nothing is written but rules that are tried out.
    #[must_use]
    pub fn is_tried_out(&self) -> bool {
        self.rules.iter().any(|rule| rule.written.origin == Origin::TriedOut)
    }

    /// The allow rules that are only tried out.
    pub(crate) fn tried_out_to_allow(&self) -> impl Iterator<Item = &Rule> {
        self.dry_run.iter().filter(|rule| rule.action == Action::Allow)
    }

    /// Whether some allow rule is only tried out.
    #[must_use]
    pub fn tries_out_to_allow(&self) -> bool {
        self.tried_out_to_allow().next().is_some()
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
    pub(crate) fn rules(&self) -> impl Iterator<Item = &Rule> + Clone {
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
///
/// Why an allow rule does not hold is of no interest once another one does, and so is not found out until it is known that none
/// does. Most requests pass.
fn evaluate<'r>(rules: impl IntoIterator<Item = &'r Rule, IntoIter: Clone>, facts: &Facts<'_>) -> Evaluation {
    let rules = rules.into_iter();
    let (mut allow, mut deny) = (Joined::any(), Joined::any());
    for rule in rules.clone() {
        match rule.action {
            Action::Deny => deny.add(rule.evaluate(facts)),
            Action::Allow if rule.wants_all() => {
                if let Some(reasons) = rule.holds(facts) {
                    allow.add(RuleResult { value: true, reasons });
                }
            }
            Action::Allow => allow.add(rule.evaluate(facts)),
        }
    }
    if !allow.decided {
        let cut_short = rules.filter(|rule| rule.action == Action::Allow && rule.wants_all());
        cut_short.for_each(|rule| allow.add(rule.evaluate(facts)));
    }
    Evaluation { allow: allow.result(), deny: deny.result() }
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
    fn whoever_is_signed_in() -> Self {
        Self::unwritten(Action::Allow, Criterion::AuthenticatedUser(AuthenticatedUser), Origin::TriedOut)
    }

    fn no_valid_client_certificate() -> Self {
        let invalid = Criterion::InvalidClientCertificate(InvalidClientCertificate);
        Self::unwritten(Action::Deny, invalid, Origin::ClientCertificates)
    }

    /// A rule of one criterion that stands in no text.
    fn unwritten(action: Action, criterion: Criterion, origin: Origin) -> Self {
        Self {
            action,
            operator: if action == Action::Allow { Operator::And } else { Operator::Or },
            enforced: true,
            criteria: Arc::new([criterion]),
            written: Written { origin, place: Place::NONE, criteria: Arc::new([Place::NONE]) },
        }
    }

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

    /// Whether one criterion is enough for it not to hold.
    const fn wants_all(&self) -> bool {
        matches!(self.operator, Operator::And | Operator::Not)
    }

    /// Why it holds, if it does and wants all of its criteria: the first that is not as it should be is the last that is asked.
    fn holds(&self, facts: &Facts<'_>) -> Option<Reasons> {
        self.criteria.iter().try_fold(Reasons::NONE, |why, criterion| {
            let RuleResult { value, reasons } = self.result(criterion, facts);
            value.then(|| why.and(reasons))
        })
    }

    /// What it comes to if its criteria came to that, each as the operator takes it.
    pub(crate) fn join(&self, results: impl Iterator<Item = RuleResult>) -> RuleResult {
        let mut joined = if self.wants_all() { Joined::all() } else { Joined::any() };
        results.for_each(|result| joined.add(result));
        joined.result()
    }

    /// What one criterion comes to under the operator: an inverted result keeps its reasons.
    pub(crate) fn result(&self, criterion: &Criterion, facts: &Facts<'_>) -> RuleResult {
        let RuleResult { value, reasons } = criterion.evaluate(facts, self.stand());
        RuleResult { value: value != self.inverts(), reasons }
    }

    pub(crate) const fn inverts(&self) -> bool {
        matches!(self.operator, Operator::Not | Operator::Nor)
    }

    /// Where its criteria stand.
    pub(crate) const fn stand(&self) -> Stand {
        Stand { action: self.action, inverted: self.inverts() }
    }

    pub(crate) fn needs_session(&self) -> bool {
        self.criteria.iter().any(Criterion::needs_session)
    }

    pub(crate) fn always_holds(&self) -> bool {
        let holds = |criterion: &Criterion| match criterion.constant() {
            Some(value) => value != self.inverts(),
            None => false,
        };
        if self.wants_all() { self.criteria.iter().all(holds) } else { self.criteria.iter().any(holds) }
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
    use crate::document::read;
    use crate::testing::{World, policy};
    use crate::{Reason, ppl};

    fn tried_out(text: &str) -> Policy {
        Policy::tried_out(ppl::parse(&read(text).expect(text)).expect(text))
    }

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
        let text = "[{allow: {and: [authenticated_user: 1]}}, {enforce: false, deny: {not: [groups: ops]}},
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
        assert!(policy.has_dry_run() && !policy.is_tried_out());
    }

    #[test]
    fn s_097_rules_that_are_only_tried_out_open_nothing_by_themselves() {
        let deny = "{enforce: false, deny: {or: [http_method: POST]}}";
        for text in [deny, "{enforce: false, allow: {or: [accept: 1]}}", "{enforce: false, allow: {or: [user: u1]}}"] {
            let policy = policy(text);
            assert!(!policy.is_tried_out() && !policy.is_public());
            for world in [World::default(), World::signed_in()] {
                assert_eq!(policy.decide(&world.facts()), Decision::Deny(Reasons::NONE), "{text}");
            }
        }
        assert_eq!(tried_out(deny), policy(deny));
        let decides = "[{enforce: false, allow: {or: [accept: 1]}}, {allow: {or: [user: u2]}}]";
        assert_eq!(tried_out(decides), policy(decides));
    }

    #[test]
    fn deny_rules_that_are_only_tried_out_would_refuse_only_whom_they_name() {
        let policy = policy("[{allow: {or: [accept: 1]}}, {enforce: false, deny: {or: [http_method: POST]}}]");
        assert_eq!(policy.would_refuse(&World::default().facts()), None);
        assert!(policy.would_refuse(&World::default().method("POST").facts()).is_some());
        assert!(policy.is_public());
    }

    #[test]
    fn a_rule_that_would_ask_for_a_session_a_device_or_a_certificate_would_refuse() {
        let outcome = |criterion: &str, world: &World<'_>| {
            let policy =
                policy(&format!("[{{allow: {{or: [accept: 1]}}}}, {{enforce: false, deny: {{or: [{criterion}]}}}}]"));
            assert_eq!(policy.decide(&world.facts()), Decision::Allow);
            policy.would_refuse(&world.facts()).map(|evaluation| evaluation.decision())
        };
        assert_eq!(outcome("email: m@x.test", &World::default()), Some(Decision::SignIn));
        assert_eq!(outcome("email: m@x.test", &World::signed_in().email("a@x.test")), None);
        assert_eq!(outcome("device: {type: any}", &World::signed_in()), Some(Decision::EnrolDevice));
        let required = Decision::ClientCertificate(Reasons::of(Reason::ClientCertificateRequired));
        assert_eq!(
            outcome("invalid_client_certificate: 1", &World::default().certificate(None, false)),
            Some(required)
        );
    }

    #[test]
    fn one_more_allow_rule_would_refuse_nobody_whom_another_lets_pass() {
        let policy = policy("[{allow: {and: [authenticated_user: 1]}}, {enforce: false, allow: {and: [groups: ops]}}]");
        assert_eq!(policy.would_refuse(&World::signed_in().facts()), None);
    }

    #[test]
    fn where_all_rules_are_only_tried_out_whoever_is_signed_in_passes_and_nobody_else() {
        let tried = tried_out("{enforce: false, allow: {and: [groups: ops]}, deny: {or: [http_method: PUT]}}");
        let ops = World::signed_in().session_claims(&json!({"groups": "ops"}));
        assert_eq!((tried.decide(&ops.facts()), tried.would_refuse(&ops.facts())), (Decision::Allow, None));
        for world in [World::signed_in(), World::signed_in().method("PUT")] {
            assert_eq!(tried.decide(&world.facts()), Decision::Allow);
            assert!(tried.would_refuse(&world.facts()).is_some());
        }
        for text in ["http_method: PUT", "accept: 1", "reject: 1", "cors_preflight: 1", "groups: ops"] {
            let tried = tried_out(&format!("{{enforce: false, allow: {{or: [{text}]}}}}"));
            assert!(tried.is_tried_out() && !tried.is_public() && tried.needs_session());
            for world in [World::default(), World::default().method("PUT"), World::default().cors_preflight()] {
                assert_eq!(tried.decide(&world.facts()), Decision::SignIn, "{text}");
            }
            assert_eq!(tried.decide(&World::signed_in().facts()), Decision::Allow, "{text}");
        }
    }

    #[test]
    fn s_069_an_address_that_is_not_verified_is_to_nobodys_good() {
        let mallory = World::signed_in().email("mallory@contractor.example").email_verified(Some(false));
        let passes = |text: &str| {
            let policy = policy(text);
            let passes = |world: &World<'_>| policy.decide(&world.facts()) == Decision::Allow;
            (passes(&mallory), passes(&World::signed_in().email("mallory@contractor.example")))
        };
        let denied = |block: &str| passes(&format!("{{allow: {{and: [authenticated_user: 1]}}, deny: {{{block}}}}}"));
        // What a rule says of the address holds also if nobody vouches for it.
        for block in ["or: [email: mallory@contractor.example]", "and: [domain: contractor.example]"] {
            assert_eq!(denied(block), (false, false), "{block}");
        }
        for block in ["or: [email: {ends_with: .com}]", "or: [domain: example.com]"] {
            assert_eq!(denied(block), (true, true), "{block}");
        }
        // Nobody is spared because of an address that may be another's.
        let spared = ["{operator}: [email: mallory@contractor.example]", "{operator}: [domain: contractor.example]"];
        for block in spared {
            for operator in ["not", "nor"] {
                assert_eq!(denied(&block.replace("{operator}", operator)), (false, true), "{block} {operator}");
            }
        }
        for block in ["or: [email: {not: mallory@contractor.example}]", "or: [domain: {not: contractor.example}]"] {
            assert_eq!(denied(block), (false, true), "{block}");
        }
        // Nor let in, by any operator.
        for criterion in ["email: mallory@contractor.example", "domain: contractor.example", "email: {}", "domain: {}"]
        {
            for operator in ["and", "or"] {
                assert_eq!(passes(&format!("allow: {{{operator}: [{criterion}]}}")), (false, true), "{criterion}");
            }
        }
        for criterion in ["email: a@example.com", "domain: example.com"] {
            for operator in ["not", "nor"] {
                assert_eq!(passes(&format!("allow: {{{operator}: [{criterion}]}}")), (false, true), "{criterion}");
            }
        }
    }

    #[test]
    fn a_policy_without_identity_needs_no_session() {
        assert!(!policy("{allow: {or: [accept: 1]}, deny: {not: [source_ip: 10.0.0.0/8]}}").needs_session());
        assert!(policy("{allow: {or: [accept: 1]}, deny: {or: [claim/a: 1]}}").needs_session());
    }
}
