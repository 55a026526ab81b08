//! Criteria that look at facts which no request brings, because what carries them is not there.

use crate::criterion::{Carrier, Criterion};
use crate::document::Place;
use crate::policy::{Action, Rule};

/// A criterion whose carrier is not there, so that it comes to the same for everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idle {
    /// The criterion as the policy language names it.
    pub criterion: String,
    /// Where it stands.
    pub place: Place,
    /// What is not there.
    pub carrier: Carrier,
    /// It lets pass whom it was written to keep out: an `allow` rule holds, or a `deny` rule does not, for want of the carrier.
    pub opens: bool,
}

/// The criteria of these rules that need one of these carriers.
pub fn idle<'r>(rules: impl IntoIterator<Item = &'r Rule>, missing: &'r [Carrier]) -> impl Iterator<Item = Idle> {
    rules.into_iter().flat_map(move |rule| {
        let criteria = rule.criteria.iter().zip(rule.written.criteria.iter().copied());
        criteria.filter_map(move |(criterion, place)| {
            let carrier = criterion.carrier().filter(|carrier| missing.contains(carrier))?;
            Some(Idle { criterion: criterion.name(), place, carrier, opens: opens(rule, criterion) })
        })
    })
}

fn opens(rule: &Rule, criterion: &Criterion) -> bool {
    (criterion.holds_idle() != rule.inverts()) == (rule.action == Action::Allow)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::read;
    use crate::ppl;

    const EVERY: [Carrier; 5] =
        [Carrier::ClientCertificates, Carrier::Devices, Carrier::Mcp, Carrier::Ssh, Carrier::Records];

    fn idle_in(text: &str) -> Vec<(String, Carrier, bool)> {
        let rules = ppl::parse(&read(text).expect("YAML")).expect("a policy");
        idle(&rules, &EVERY).map(|idle| (idle.criterion, idle.carrier, idle.opens)).collect()
    }

    #[test]
    fn what_lets_pass_for_want_of_its_carrier_is_told_from_what_keeps_out() {
        let cases = [
            ("allow: {and: [mcp_tool: query]}", Carrier::Mcp, false),
            ("allow: {not: [mcp_tool: query]}", Carrier::Mcp, true),
            ("deny: {or: [mcp_tool: query]}", Carrier::Mcp, true),
            ("deny: {nor: [mcp_tool: query]}", Carrier::Mcp, false),
            ("allow: {and: [ssh_username: root]}", Carrier::Ssh, false),
            ("allow: {and: [ssh_username: {not: root}]}", Carrier::Ssh, true),
            ("deny: {and: [ssh_username: {not: root}]}", Carrier::Ssh, false),
            ("allow: {and: [device: {type: any}]}", Carrier::Devices, false),
            ("allow: {and: [device: {approved: false}]}", Carrier::Devices, true),
            ("deny: {or: [device: {is: stolen}]}", Carrier::Devices, true),
            ("allow: {and: [record: {type: a, field: b, exists: false}]}", Carrier::Records, true),
            ("allow: {and: [record: {type: a, field: b, exists: true}]}", Carrier::Records, false),
            ("deny: {or: [invalid_client_certificate: 1]}", Carrier::ClientCertificates, true),
        ];
        for (text, carrier, opens) in cases {
            let found = idle_in(text);
            assert_eq!(found.iter().map(|found| (found.1, found.2)).collect::<Vec<_>>(), [(carrier, opens)], "{text}");
        }
        assert_eq!(idle_in("allow: {and: [accept: 1, date: {after: 2026-01-01}, email: a@b]}"), []);
    }

    #[test]
    fn only_what_is_missing_is_named_with_its_place() {
        let rules =
            ppl::parse(&read("allow: {and: [accept: 1, mcp_tool: a, ssh_ca: []]}").expect("YAML")).expect("rules");
        let found: Vec<_> = idle(&rules, &[Carrier::Ssh]).map(|idle| (idle.criterion, idle.place.column)).collect();
        assert_eq!(found, [("ssh_ca".to_owned(), 39)]);
    }
}
