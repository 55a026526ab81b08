//! Laws that hold for every policy and every request.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use postern_identity::{Claims, CompactSession, IdpId, Session, SessionHandle, Timestamp, User};
use postern_policy::document::Node;
use postern_policy::{Action, Decision, Evaluation, Facts, Policy, Reasons, Rule, ppl};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

/// A request, owned.
#[derive(Clone, Debug)]
struct Request {
    session: Option<Arc<CompactSession>>,
    method: &'static str,
    path: &'static str,
    last_octet: u8,
    cors_preflight: bool,
}

impl Request {
    fn facts(&self) -> Facts<'_> {
        Facts {
            person: self.session.as_deref().map(Into::into),
            cors_preflight: self.cors_preflight,
            ..Facts::anonymous(
                self.method,
                self.path,
                IpAddr::V4(Ipv4Addr::new(192, 0, 2, self.last_octet)),
                Timestamp::from_secs(0),
            )
        }
    }
}

fn sessions() -> impl Strategy<Value = Session> {
    let email = prop::option::of(select(vec!["a@x.test", "b@y.test", "nobody", ""]));
    let claims = select(vec![json!({}), json!({"groups": ["ops"]}), json!({"dept": "eng", "groups": []})]);
    (select(vec!["u1", "u2", ""]), email, prop::option::of(any::<bool>()), claims).prop_map(
        |(id, email, email_verified, claims)| Session {
            handle: SessionHandle::from_bytes([0; 32]),
            user: User { id: id.to_owned(), email: email.map(ToOwned::to_owned), email_verified, ..User::default() },
            claims: Claims::flatten(claims.as_object().expect("an object")),
            idp: IdpId::new("laws"),
            issued_at: Timestamp::from_secs(0),
            expires_at: Timestamp::from_secs(1),
            idle: None,
            generation: 0,
        },
    )
}

fn compact(session: &Session) -> Arc<CompactSession> {
    Arc::new(session.into())
}

fn requests() -> impl Strategy<Value = Request> {
    let method = select(vec!["GET", "POST", "OPTIONS"]);
    (prop::option::of(sessions()), method, select(vec!["/", "/admin", ""]), 0..4_u8, any::<bool>()).prop_map(
        |(session, method, path, last_octet, preflight)| Request {
            session: session.as_ref().map(compact),
            method,
            path,
            last_octet,
            cors_preflight: preflight && method == "OPTIONS",
        },
    )
}

fn identity_criteria() -> impl Strategy<Value = Value> {
    select(vec![
        json!({"authenticated_user": 1}),
        json!({"user": "u1"}),
        json!({"user": {"not": "u1"}}),
        json!({"email": "a@x.test"}),
        json!({"email": {"not_in": ["a@x.test"]}}),
        json!({"email": {}}),
        json!({"domain": "x.test"}),
        json!({"domain": {"not": "x.test"}}),
        json!({"claim/dept": "eng"}),
        json!({"claim/dept": {"exclude": "eng"}}),
        json!({"groups": "ops"}),
        json!({"groups": {"exclude": "ops"}}),
    ])
}

fn criteria() -> impl Strategy<Value = Value> {
    let others = select(vec![
        json!({"accept": 1}),
        json!({"reject": 1}),
        json!({"http_method": "GET"}),
        json!({"http_path": {"starts_with": "/a"}}),
        json!({"source_ip": "192.0.2.0/31"}),
        json!({"cors_preflight": 1}),
    ]);
    prop_oneof![identity_criteria(), others]
}

fn block(criterion: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    (select(vec!["and", "or", "not", "nor"]), prop::collection::vec(criterion, 0..4))
        .prop_map(|(operator, criteria)| json!({operator: criteria}))
}

fn rule(criterion: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    (select(vec!["allow", "deny"]), block(criterion)).prop_map(|(action, block)| json!({action: block}))
}

fn rules() -> impl Strategy<Value = Vec<Value>> {
    prop::collection::vec(rule(criteria()), 0..5)
}

fn parse(rules: &[Value]) -> Vec<Rule> {
    ppl::parse(&Node::from_json(Value::Array(rules.to_vec()))).expect("a policy")
}

fn policy(rules: &[Value]) -> Policy {
    Policy::new(Vec::new(), parse(rules))
}

fn with(rules: &[Value], rule: Value) -> Policy {
    policy(&[rules, &[rule]].concat())
}

/// The same rules, with rules and criteria in another order.
fn reordered(rules: Vec<Value>) -> impl Strategy<Value = Vec<Value>> {
    Just(rules).prop_shuffle().prop_map(|mut rules| {
        for criteria in rules.iter_mut().flat_map(|rule| rule.as_object_mut().expect("a rule").values_mut()) {
            for criteria in criteria.as_object_mut().expect("a block").values_mut() {
                criteria.as_array_mut().expect("criteria").reverse();
            }
        }
        rules
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn s_098_the_order_of_rules_and_criteria_never_matters(
        (rules, other) in rules().prop_flat_map(|rules| (Just(rules.clone()), reordered(rules))),
        request in requests(),
    ) {
        prop_assert_eq!(policy(&rules).evaluate(&request.facts()), policy(&other).evaluate(&request.facts()));
    }

    #[test]
    fn s_098_one_more_allow_never_denies_what_was_allowed(
        rules in rules(),
        more in block(criteria()),
        request in requests(),
    ) {
        let before = policy(&rules).decide(&request.facts());
        let decision = with(&rules, json!({"allow": more})).decide(&request.facts());
        // Without a session the new rule may ask who it is; it may never refuse.
        let asks = decision == Decision::SignIn && request.session.is_none();
        prop_assert!(before != Decision::Allow || decision == Decision::Allow || asks, "{:?}", decision);
    }

    #[test]
    fn s_098_one_more_deny_never_allows_what_was_not(
        rules in rules(),
        more in block(criteria()),
        request in requests(),
    ) {
        let before = policy(&rules).decide(&request.facts());
        let after = with(&rules, json!({"deny": more})).decide(&request.facts());
        prop_assert!(before == Decision::Allow || after != Decision::Allow, "{:?}", before);
    }

    #[test]
    fn s_098_a_deny_that_holds_is_never_passed(rules in rules(), request in requests()) {
        prop_assert_ne!(with(&rules, json!({"deny": {"or": [{"accept": 1}]}})).decide(&request.facts()), Decision::Allow);
    }

    #[test]
    fn s_097_without_an_allow_rule_nobody_passes(denies in prop::collection::vec(block(criteria()), 0..4), request in requests()) {
        let denies: Vec<_> = denies.into_iter().map(|block| json!({"deny": block})).collect();
        prop_assert_ne!(policy(&denies).decide(&request.facts()), Decision::Allow);
        let empty = Policy::new(Vec::new(), Vec::new());
        prop_assert_eq!(empty.evaluate(&request.facts()), Evaluation::default());
        prop_assert_eq!(empty.decide(&request.facts()), Decision::Deny(Reasons::NONE));
    }

    #[test]
    fn criteria_on_identity_never_let_anybody_in_without_a_session(
        rules in prop::collection::vec(rule(identity_criteria()), 0..5),
        request in requests(),
    ) {
        let anonymous = Request { session: None, ..request };
        prop_assert_ne!(policy(&rules).decide(&anonymous.facts()), Decision::Allow);
    }

    #[test]
    fn s_069_whom_an_address_that_is_not_verified_lets_pass_passes_with_it_verified_and_without_one(
        rules in rules(),
        request in requests(),
        session in sessions(),
    ) {
        let policy = policy(&rules);
        let decide = |email: Option<String>, email_verified: Option<bool>| {
            let user = User { email, email_verified, ..session.user.clone() };
            let session = Some(compact(&Session { user, ..session.clone() }));
            policy.decide(&Request { session, ..request.clone() }.facts())
        };
        let address = session.user.email.clone();
        if decide(address.clone(), Some(false)) == Decision::Allow {
            prop_assert_eq!(decide(address, Some(true)), Decision::Allow);
            prop_assert_eq!(decide(None, None), Decision::Allow);
        }
    }

    #[test]
    fn what_would_be_refused_is_what_is_if_nothing_is_tried_out(
        rules in prop::collection::vec((rule(criteria()), any::<bool>()), 0..5),
        request in requests(),
    ) {
        let mut tried = rules.clone();
        for (rule, enforced) in &mut tried {
            rule.as_object_mut().expect("a rule").insert("enforce".to_owned(), json!(*enforced));
        }
        let with = |rules: Vec<(Value, bool)>| policy(&rules.into_iter().map(|(rule, _)| rule).collect::<Vec<_>>());
        let (tried, flipped) = (with(tried), with(rules).evaluate(&request.facts()));
        let wanted = (tried.has_dry_run() && flipped.decision() != Decision::Allow).then_some(flipped);
        prop_assert_eq!(tried.would_refuse(&request.facts()), wanted);
    }

    #[test]
    fn a_public_policy_allows_every_request_and_one_without_identity_needs_no_session(
        rules in rules(),
        request in requests(),
    ) {
        let policy = policy(&rules);
        let anonymous = Request { session: None, ..request };
        if policy.is_public() {
            prop_assert_eq!(policy.decide(&request.facts()), Decision::Allow);
            prop_assert_eq!(policy.decide(&anonymous.facts()), Decision::Allow);
        }
        if !policy.needs_session() {
            prop_assert_eq!(policy.evaluate(&request.facts()), policy.evaluate(&anonymous.facts()));
        }
    }

    #[test]
    fn a_denial_for_want_of_something_says_of_what(rules in rules(), request in requests()) {
        let policy = policy(&rules);
        match policy.decide(&request.facts()) {
            Decision::Deny(reasons) => {
                let unmet: Reasons = policy.unmet(&request.facts()).iter().map(|unmet| unmet.reason).collect();
                prop_assert!(reasons.iter().all(|reason| unmet.contains(reason)), "{:?} {:?}", reasons, unmet);
            }
            Decision::Allow => prop_assert!(policy.unmet(&request.facts()).is_empty()),
            Decision::SignIn
            | Decision::EnrolDevice
            | Decision::ClientCertificate(_)
            | Decision::DeviceUnauthorized(_) => {}
        }
    }

    #[test]
    fn a_trace_tells_what_was_decided_and_all_that_led_to_it(rules in rules(), request in requests()) {
        let policy = policy(&rules);
        let trace = policy.trace(&request.facts());
        prop_assert_eq!(trace.decision, policy.decide(&request.facts()));
        prop_assert_eq!(trace.evaluation, policy.evaluate(&request.facts()));
        let written: Vec<_> = rules.iter().flat_map(|rule| rule.as_object().expect("a rule"))
            .flat_map(|(action, block)| block.as_object().expect("a block").iter().map(move |block| (action, block)))
            .filter(|(_, (_, criteria))| criteria != &&json!([]))
            .map(|(action, (operator, criteria))| (action.as_str(), operator.as_str(), criteria.as_array().map(Vec::len)))
            .collect();
        let traced: Vec<_> = trace.rules.iter()
            .map(|rule| (rule.action.as_str(), rule.operator.as_str(), Some(rule.criteria.len())))
            .collect();
        prop_assert_eq!(traced, written);
        for (action, half) in [(Action::Allow, trace.evaluation.allow), (Action::Deny, trace.evaluation.deny)] {
            let results = trace.rules.iter().filter(|rule| rule.action == action).map(|rule| rule.result);
            prop_assert_eq!(results.clone().any(|result| result.value), half.value);
            let counting: Reasons =
                results.filter(|result| result.value == half.value).flat_map(|result| result.reasons.iter()).collect();
            prop_assert_eq!(counting, half.reasons);
        }
    }

    #[test]
    fn no_document_makes_the_parser_panic(value in documents()) {
        match ppl::parse(&Node::from_json(value)) {
            Ok(rules) => drop(Policy::new(Vec::new(), rules)),
            Err(mistakes) => prop_assert!(!mistakes.is_empty()),
        }
    }
}

/// JSON that looks like a policy often enough to get deep into the parser.
fn documents() -> impl Strategy<Value = Value> {
    let words = ["allow", "deny", "and", "or", "email", "claim/", "claim/a", "source_ip", "in", "is", "has", "é/", ""];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        select(words.to_vec()).prop_map(Value::from)
    ];
    leaf.prop_recursive(6, 64, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(select(words.to_vec()).prop_map(ToOwned::to_owned), inner, 0..3)
                .prop_map(|map| map.into_iter().collect::<Value>()),
        ]
    })
}
