//! Whom a policy lets pass, in short, for a table of routes. What is said of everybody and nobody is sure; all else is chosen.

use crate::criterion::{Criterion, Name};
use crate::policy::{Action, Operator, Policy, Rule};

/// Whom a policy lets pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Everybody, without a sign-in.
    Public,
    /// Everybody who signs in.
    AnyUser,
    /// Whom its rules choose.
    Chosen,
    /// Nobody.
    Nobody,
}

impl Audience {
    /// A stable word for programs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::AnyUser => "any-user",
            Self::Chosen => "chosen",
            Self::Nobody => "nobody",
        }
    }
}

impl Policy {
    /// Whom it lets pass.
    #[must_use]
    pub fn audience(&self) -> Audience {
        if self.of(Action::Deny).any(Rule::always_holds) || self.of(Action::Allow).all(Rule::never_holds) {
            return Audience::Nobody;
        }
        if self.is_public() {
            Audience::Public
        } else if !self.denies() && self.of(Action::Allow).any(Rule::admits_any_user) {
            Audience::AnyUser
        } else {
            Audience::Chosen
        }
    }

    /// The rules in one line: `allow groups admins and domain example.com; deny source_ip 10.0.0.0/8`. Empty without rules.
    #[must_use]
    pub fn summary(&self) -> String {
        self.rules().map(Rule::summary).collect::<Vec<_>>().join("; ")
    }
}

impl Rule {
    fn never_holds(&self) -> bool {
        let fails = |criterion: &Criterion| criterion.constant().is_some_and(|value| value == self.inverts());
        match self.operator {
            Operator::And | Operator::Not => self.criteria.iter().any(fails),
            Operator::Or | Operator::Nor => self.criteria.iter().all(fails),
        }
    }

    /// It holds for every session.
    fn admits_any_user(&self) -> bool {
        let any =
            |criterion: &Criterion| criterion.kind() == Name::AuthenticatedUser || criterion.constant() == Some(true);
        match self.operator {
            Operator::And => self.criteria.iter().all(any),
            Operator::Or => self.criteria.iter().any(any),
            Operator::Not | Operator::Nor => false,
        }
    }

    fn summary(&self) -> String {
        let criteria = self.criteria.iter().map(|criterion| format!("{} {}", criterion.name(), criterion.data()));
        let criteria: Vec<_> = criteria.map(|text| text.trim_end().to_owned()).collect();
        let joined = match self.operator {
            Operator::And => criteria.join(" and "),
            Operator::Or => criteria.join(" or "),
            Operator::Not => format!("none of {}", criteria.join(", ")),
            Operator::Nor => format!("not all of {}", criteria.join(", ")),
        };
        let tried_out = if self.enforced { "" } else { " (only tried out)" };
        format!("{} {joined}{tried_out}", self.action.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, policy};
    use crate::{Decision, Legacy};

    #[test]
    fn who_may_enter_is_told_in_a_word() {
        use Audience::{AnyUser, Chosen, Nobody, Public};
        for (text, audience) in [
            ("allow: {or: [accept: 1]}", Public),
            ("allow: {not: [reject: 1]}", Public),
            ("{enforce: false, allow: {or: [http_method: PUT]}}", Nobody),
            ("allow: {and: [authenticated_user: 1]}", AnyUser),
            ("allow: {and: [authenticated_user: 1, accept: 1]}", AnyUser),
            ("allow: {or: [user: a, authenticated_user: 1]}", AnyUser),
            ("allow: {and: [authenticated_user: 1, user: a]}", Chosen),
            ("allow: {or: [http_method: GET]}", Chosen),
            ("{allow: {or: [authenticated_user: 1]}, deny: {or: [user: a]}}", Chosen),
            ("{allow: {or: [accept: 1]}, deny: {or: [user: a]}}", Chosen),
            ("allow: {nor: [authenticated_user: 1]}", Chosen),
            ("[]", Nobody),
            ("deny: {or: [user: a]}", Nobody),
            ("{enforce: false, deny: {or: [user: a]}}", Nobody),
            ("allow: {and: [accept: 1, reject: 1]}", Nobody),
            ("allow: {or: [reject: 1]}", Nobody),
            ("allow: {not: [accept: 1, user: a]}", Nobody),
            ("{allow: {or: [accept: 1]}, deny: {or: [accept: 1]}}", Nobody),
        ] {
            assert_eq!(policy(text).audience(), audience, "{text}");
        }
        let rules =
            crate::ppl::parse(&crate::document::read("{enforce: false, allow: {or: [groups: ops]}}").unwrap()).unwrap();
        assert_eq!(Policy::tried_out(rules).audience(), AnyUser);
        let any = Legacy { allow_any_authenticated_user: true, ..Legacy::default() };
        assert_eq!(Policy::new(any.rules(), Vec::new()).audience(), AnyUser);
    }

    #[test]
    fn the_word_is_what_is_decided() {
        let criteria = ["accept: 1", "reject: 1", "authenticated_user: 1", "user: u1", "user: a", "http_method: GET"];
        let rule = |first: &str, second: &str| {
            ["and", "or", "not", "nor"].map(|operator| format!("{{{operator}: [{first}, {second}]}}"))
        };
        let blocks: Vec<_> = criteria.iter().flat_map(|one| criteria.iter().flat_map(|two| rule(one, two))).collect();
        let worlds =
            || [World::default(), World::default().method("PUT"), World::signed_in(), World::signed_in().method("PUT")];
        for allow in &blocks {
            for deny in blocks.iter().step_by(7).map(|deny| format!(", deny: {deny}")).chain([String::new()]) {
                let policy = policy(&format!("{{allow: {allow}{deny}}}"));
                for (signed_in, world) in [false, false, true, true].into_iter().zip(worlds()) {
                    let passes = policy.decide(&world.facts()) == Decision::Allow;
                    match policy.audience() {
                        Audience::Public => assert!(passes, "{allow}{deny}"),
                        Audience::AnyUser => assert!(passes || !signed_in, "{allow}{deny}"),
                        Audience::Nobody => assert!(!passes, "{allow}{deny}"),
                        Audience::Chosen => {}
                    }
                }
            }
        }
    }

    #[test]
    fn a_policy_is_told_in_one_line() {
        for (text, summary) in [
            ("allow: {and: [groups: {has: ops}, domain: x.test]}", "allow groups ops and domain x.test"),
            (
                "[{allow: {or: [accept: 1, user: a]}}, {enforce: false, deny: {nor: [user: a, user: b]}}]",
                "allow accept or user a; deny not all of user a, user b (only tried out)",
            ),
            ("allow: {not: [claim/dept: it]}", "allow none of claim/dept it"),
            ("[]", ""),
        ] {
            assert_eq!(policy(text).summary(), summary, "{text}");
        }
    }
}
