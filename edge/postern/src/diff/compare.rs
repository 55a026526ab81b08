//! Asks both configurations the same, and keeps what comes out differently.

use std::collections::HashMap;

use postern_edge::{Refusal, Verdict};
use postern_identity::IdpId;
use postern_policy::{Decision, Policy};

use super::axes::{Axes, Combination};
use super::requests::{self, Asked};
use super::routes::{Pairs, leads_elsewhere};
use super::scenario::{Fact, Scenario};
use super::{Asking, Side};
use crate::probe::{Address, Outcome};

/// So many addresses are asked for.
const ADDRESSES: usize = 20_000;
/// So many combinations of facts are put to the policies of one address, for each subject that is not made up.
const COMBINATIONS: usize = 32_768;
/// So many in all; addresses that come after that are asked what meets or misses one criterion alone.
const IN_ALL: usize = 10_000_000;
/// So many of the combinations that both policies of an address decide alike are put to the edge.
const ALIKE: usize = 256;
/// So many changes are kept.
const CHANGES: usize = 10_000;

/// What is different for whom.
#[derive(Debug, Default)]
pub(super) struct Access {
    pub(super) changes: Vec<Change>,
    pub(super) compared: Compared,
}

/// How much was asked, and what was left out.
#[derive(Debug, Default)]
pub(super) struct Compared {
    pub(super) addresses: usize,
    pub(super) combinations: usize,
    /// Addresses of which not every combination was tried.
    pub(super) partly: usize,
    /// There are more addresses than were asked for.
    pub(super) more_addresses: bool,
    /// Policies name more values of one fact than were tried.
    pub(super) more_values: bool,
    /// There are more changes than were kept.
    pub(super) more_changes: bool,
    /// Routes of either side that no address met.
    pub(super) unmet: [Vec<usize>; 2],
}

/// One subject's request that comes out differently.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) address: Address,
    pub(super) scenario: Scenario,
    pub(super) before: Position,
    pub(super) after: Position,
}

/// What comes of a request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Position {
    pub(super) outcome: Outcome,
    pub(super) status: Option<u16>,
    pub(super) reason: &'static str,
    pub(super) route: Option<usize>,
    /// Where they would sign in.
    provider: Option<IdpId>,
}

/// Which way access changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// They may what they might not.
    Gains,
    /// They may not any more.
    Loses,
    /// They get to another place, or are refused otherwise.
    Moves,
}

impl Direction {
    pub(super) const ALL: [Self; 3] = [Self::Gains, Self::Loses, Self::Moves];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Gains => "gains",
            Self::Loses => "loses",
            Self::Moves => "moves",
        }
    }
}

impl Change {
    pub(super) fn direction(&self) -> Direction {
        match (self.before.may(), self.after.may()) {
            (false, true) => Direction::Gains,
            (true, false) => Direction::Loses,
            (true, true) | (false, false) => Direction::Moves,
        }
    }
}

impl Position {
    const fn may(&self) -> bool {
        matches!(self.outcome, Outcome::Allowed | Outcome::Answered)
    }
}

/// What the policies of both sides say, where there is a route.
type Decisions = [Option<Decision>; 2];

impl Access {
    pub(super) fn of(sides: &[Side<'_>; 2], pairs: &Pairs, asking: Asking, usual: &Scenario) -> Self {
        let mut access = Self::default();
        let addresses = if asking.urls.is_empty() {
            let (made, more) = requests::made(sides, usual, ADDRESSES);
            access.compared.more_addresses = more;
            access.compared.unmet = unmet(sides, &made);
            made
        } else {
            requests::named(sides, &asking.urls, usual)
        };
        let people: Vec<_> = asking.people.into_iter().map(|described| usual.by(described)).collect();
        let mut asker = Asker { sides, pairs, access };
        for asked in &addresses {
            asker.access.compared.addresses += 1;
            if people.is_empty() {
                asker.all_of(asked, &usual.somebody(), true);
                asker.all_of(asked, usual, false);
            }
            for person in &people {
                asker.all_of(asked, person, false);
            }
        }
        asker.access
    }

    /// What was left out, in words.
    pub(super) fn left_out(&self) -> Vec<String> {
        let Compared { addresses, partly, more_addresses, more_values, more_changes, .. } = &self.compared;
        let mut left = Vec::new();
        if *more_addresses {
            left.push(format!(
                "there are more addresses than the {addresses} that were asked for: name some with --url"
            ));
        }
        if *partly > 0 {
            left.push(format!(
                "for {partly} of {addresses} addresses the policies tell apart more subjects and requests than were tried: \
                 name subjects with --subjects"
            ));
        }
        if *more_values {
            left.push(format!("a policy names more than {} values of one fact", postern_policy::Samples::MOST));
        }
        if *more_changes {
            left.push(format!("there are more changes than the {CHANGES} that are told"));
        }
        left
    }
}

/// The routes that no address met.
fn unmet(sides: &[Side<'_>; 2], asked: &[Asked]) -> [Vec<usize>; 2] {
    let met =
        |pick: fn(&Asked) -> Option<usize>| asked.iter().filter_map(pick).collect::<std::collections::HashSet<_>>();
    let (old, new) = (met(|asked| asked.old), met(|asked| asked.new));
    let [before, after] = sides;
    [(before, old), (after, new)].map(|(side, met)| (0..side.routes().count()).filter(|at| !met.contains(at)).collect())
}

struct Asker<'a, 'c> {
    sides: &'a [Side<'c>; 2],
    pairs: &'a Pairs,
    access: Access,
}

impl Asker<'_, '_> {
    /// Asks for one address in every way that its policies tell apart; the subject varies too, if it is made up.
    fn all_of(&mut self, asked: &Asked, usual: &Scenario, made_up: bool) {
        let [before, after] = self.sides;
        let both = [before.policy(asked.old), after.policy(asked.new)];
        let policies: Vec<&Policy> = both.into_iter().flatten().collect();
        let axes = Axes::of(&policies, usual, &asked.path, made_up);
        self.access.compared.more_values |= axes.cut;
        // What decides alike for everybody differs only in where it leads.
        let same = matches!(both, [Some(old), Some(new)] if old == new) || policies.is_empty();
        let left = IN_ALL.saturating_sub(self.access.compared.combinations);
        let combinations = if same || left == 0 { axes.few() } else { axes.combinations(COMBINATIONS.min(left)) };
        self.access.compared.combinations += combinations.len();
        let all = same || combinations.len() == axes.count();
        let (representatives, more) = representatives(&both, &axes, combinations);
        self.access.compared.partly += usize::from(!all || more);
        for combination in representatives {
            if self.put(asked, usual, &axes.facts(&combination)) {
                for facts in axes.alike(&combination) {
                    self.put(asked, usual, &facts);
                }
            }
        }
    }

    /// Asks the edge of both sides; whether the answers differ.
    fn put(&mut self, asked: &Asked, usual: &Scenario, facts: &[&Fact]) -> bool {
        let scenario = usual.with(facts);
        let question = scenario.question(&asked.address);
        let [before, after] = self.sides;
        let (Some(old), Some(new)) = (position(before, &question), position(after, &question)) else { return false };
        if self.same(&old, &new) {
            return false;
        }
        let full = self.access.changes.len() == CHANGES;
        self.access.compared.more_changes |= full;
        if !full {
            self.access.changes.push(Change { address: asked.address.clone(), scenario, before: old, after: new });
        }
        true
    }

    fn same(&self, old: &Position, new: &Position) -> bool {
        let [before, after] = self.sides;
        let same_route = match (old.route, new.route) {
            (None, None) => true,
            (Some(old_at), Some(new_at)) => {
                let both = before.route(old_at).zip(after.route(new_at));
                let elsewhere = both.is_some_and(|(before, after)| leads_elsewhere(before, after));
                self.pairs.are(old_at, new_at) && !(old.may() && elsewhere)
            }
            (Some(_), None) | (None, Some(_)) => false,
        };
        let said =
            |position: &Position| (position.outcome, position.status, position.reason, position.provider.clone());
        same_route && said(old) == said(new)
    }
}

/// Of all combinations that both policies decide alike, those that say no more than they have to, and whether there were more.
fn representatives(
    policies: &[Option<&Policy>; 2],
    axes: &Axes,
    combinations: Vec<Combination>,
) -> (Vec<Combination>, bool) {
    let mut found: HashMap<Decisions, Vec<Combination>> = HashMap::new();
    let mut more = false;
    for combination in combinations {
        let mut signatures = axes.signatures(&combination).into_iter();
        let decisions = policies.map(|policy| Some(policy?.decide_by(&signatures.next()?)));
        let alike = found.entry(decisions).or_default();
        let says_less =
            |other: &Combination| other.iter().zip(&combination).all(|(less, more)| *less == 0 || less == more);
        if alike.iter().any(says_less) {
            continue;
        }
        if alike.len() == ALIKE {
            more = true;
        } else {
            alike.push(combination);
        }
    }
    let mut all: Vec<_> = found.into_values().flatten().collect();
    all.sort_by_key(|combination| (combination.iter().filter(|at| **at > 0).count(), combination.clone()));
    (all, more)
}

fn position(side: &Side<'_>, question: &crate::probe::Question) -> Option<Position> {
    let finding = side.probe.ask(question).ok()?;
    let verdict = finding.admission.verdict();
    let route = finding.admission.route.as_ref();
    let status = match verdict {
        Verdict::Pass(_) => None,
        Verdict::Refuse(refusal) => Some(refusal.status().as_u16()),
        Verdict::Reply(_) => finding.answer().map(|answer| answer.status().as_u16()),
    };
    let provider = match verdict {
        Verdict::Refuse(Refusal::SignIn { idp }) => Some(idp.clone()),
        Verdict::Pass(_) | Verdict::Reply(_) | Verdict::Refuse(_) => None,
    };
    Some(Position {
        outcome: Outcome::of(verdict),
        status,
        reason: verdict.details(),
        route: route
            .and_then(|route| side.probe.routes().iter().position(|other| std::sync::Arc::ptr_eq(other, route))),
        provider,
    })
}
