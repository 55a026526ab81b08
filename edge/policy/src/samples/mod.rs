//! What policies turn on: values that meet a criterion and values that just miss it, so that two policies can be told apart by
//! asking. Allocates; not for the hot path.

mod list;
mod text;
mod time;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::civil::Time;
use jiff::tz::TimeZone;
use postern_identity::Timestamp;
use serde_json::Value;

use crate::{DeviceRecord, Enrolment, Facts, Policy, RuleResult};

pub(crate) use text::Pieces;

/// A value of a fact.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample<T> {
    /// The value.
    pub value: T,
    /// A policy names it, or the one thing that it was made up to have; else it is there to meet several, or to miss one.
    pub named: bool,
}

impl<T> Sample<T> {
    pub(crate) const fn named(value: T) -> Self {
        Self { value, named: true }
    }

    pub(crate) const fn made_up(value: T) -> Self {
        Self { value, named: false }
    }
}

/// What some policies turn on, fact by fact. No list is longer than [`Samples::MOST`].
#[derive(Clone, Debug, Default)]
pub struct Samples {
    pub(crate) users: Pieces,
    pub(crate) emails: Pieces,
    pub(crate) methods: Pieces,
    pub(crate) paths: Pieces,
    /// By the name of the claim.
    pub(crate) claims: BTreeMap<String, Vec<Value>>,
    pub(crate) ranges: Vec<IpNet>,
    pub(crate) moments: Vec<Timestamp>,
    pub(crate) times_of_day: Vec<(TimeZone, Time)>,
    pub(crate) days: bool,
    pub(crate) preflights: bool,
    /// The type and the id of each device that is looked for, if they are said.
    pub(crate) devices: Vec<(Option<String>, Option<String>)>,
    cut: bool,
}

impl Samples {
    /// So many values of one fact are given at most.
    pub const MOST: usize = 2000;

    /// What these policies turn on.
    #[must_use]
    pub fn of<'p>(policies: impl IntoIterator<Item = &'p Policy>) -> Self {
        let mut samples = Self::default();
        for rule in policies.into_iter().flat_map(Policy::rules) {
            for criterion in &*rule.criteria {
                criterion.sample(&mut samples);
            }
        }
        samples.shorten();
        samples
    }

    /// Whether more was named than is given.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.cut
    }

    fn shorten(&mut self) {
        let mut cut = false;
        let mut most = |length: usize| {
            cut |= length > Self::MOST;
            length.min(Self::MOST)
        };
        for texts in [&mut self.users, &mut self.emails, &mut self.methods, &mut self.paths] {
            texts.shorten(&mut most);
        }
        for values in self.claims.values_mut() {
            values.truncate(most(values.len()));
        }
        self.ranges.truncate(most(self.ranges.len()));
        self.cut = cut;
    }

    /// Ids of users.
    #[must_use]
    pub fn users(&self) -> Vec<Sample<String>> {
        self.users.values("some", "one")
    }

    /// E-mail addresses.
    #[must_use]
    pub fn emails(&self) -> Vec<Sample<String>> {
        self.emails.values("someone", "@elsewhere.test")
    }

    /// Methods, which may be no methods of HTTP.
    #[must_use]
    pub fn methods(&self) -> Vec<Sample<String>> {
        self.methods.values("", "")
    }

    /// Decoded paths that begin with `prefix`, or that a policy names as a whole.
    #[must_use]
    pub fn paths(&self, prefix: &str) -> Vec<Sample<String>> {
        self.paths.values(prefix, "")
    }

    /// The names of claims, each with the lists of values that it may have; having none is not among them.
    pub fn claims(&self) -> impl Iterator<Item = (&str, Vec<Sample<Vec<Value>>>)> {
        self.claims.iter().map(|(name, values)| (name.as_str(), list::of(values)))
    }

    /// Addresses: both ends of every range, and their neighbours outside.
    #[must_use]
    pub fn sources(&self) -> Vec<Sample<IpAddr>> {
        let mut addresses = Vec::new();
        for range in &self.ranges {
            let (first, last) = (range.network(), range.broadcast());
            addresses.push(Sample::named(first));
            addresses.extend((first != last).then_some(Sample::made_up(last)));
            let outside = [neighbour(first, false), neighbour(last, true)];
            addresses.extend(outside.into_iter().flatten().map(Sample::made_up));
        }
        addresses
    }

    /// Times that differ by what the policies say of dates, days and times of day, `now` first.
    #[must_use]
    pub fn times(&self, now: Timestamp) -> Vec<Sample<Timestamp>> {
        time::of(&self.moments, &self.times_of_day, self.days, now)
    }

    /// Whether some criterion looks for CORS preflight requests.
    #[must_use]
    pub const fn preflights(&self) -> bool {
        self.preflights
    }

    /// What devices somebody may have; having none is not among them.
    #[must_use]
    pub fn devices(&self) -> Vec<Sample<Vec<DeviceRecord>>> {
        if self.devices.is_empty() {
            return Vec::new();
        }
        let of = |kind: &str, id: &str, enrolment| DeviceRecord { kind: kind.to_owned(), id: id.to_owned(), enrolment };
        let named = |said: Vec<&Option<String>>| said.into_iter().flatten().cloned().collect::<BTreeSet<_>>();
        let mut kinds = named(self.devices.iter().map(|(kind, _)| kind).collect());
        kinds.insert("any".to_owned());
        let ids = named(self.devices.iter().map(|(_, id)| id).collect());
        let mut given = Vec::new();
        for id in ids.iter().map(String::as_str).chain(["another"]) {
            for enrolment in [Enrolment::Approved, Enrolment::Unapproved, Enrolment::None] {
                let named = ids.contains(id);
                given.extend(kinds.iter().map(|kind| Sample { value: vec![of(kind, id, enrolment)], named }));
                if kinds.len() > 1 {
                    let all = kinds.iter().map(|kind| of(kind, id, enrolment)).collect();
                    given.push(Sample::made_up(all));
                }
            }
        }
        given
    }
}

/// What each criterion of a policy comes to, rule by rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Signature(pub Vec<RuleSignature>);

/// What each criterion of a rule comes to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RuleSignature {
    /// The rule allows; else it denies.
    pub allows: bool,
    /// The results, each as its operator takes it.
    pub results: Vec<RuleResult>,
}

impl Policy {
    /// What each of its criteria comes to: facts with one signature are the same to it.
    #[must_use]
    pub fn signature(&self, facts: &Facts<'_>) -> Signature {
        let rules = self.rules().map(|rule| RuleSignature {
            allows: rule.action == crate::Action::Allow,
            results: rule.criteria.iter().map(|criterion| rule.result(criterion, facts)).collect(),
        });
        Signature(rules.collect())
    }
}

fn neighbour(address: IpAddr, up: bool) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => {
            let bits = u32::from(address);
            let bits = if up { bits.checked_add(1) } else { bits.checked_sub(1) };
            bits.map(|bits| IpAddr::V4(bits.into()))
        }
        IpAddr::V6(address) => {
            let bits = u128::from(address);
            let bits = if up { bits.checked_add(1) } else { bits.checked_sub(1) };
            bits.map(|bits| IpAddr::V6(bits.into()))
        }
    }
}

#[cfg(test)]
mod tests;
