//! In which ways scenarios differ for two policies: of each fact, one value for everything that the policies tell apart.

use std::net::IpAddr;

use http::Method;
use postern_policy::{DeviceRecord, Policy, RuleResult, Sample, Samples, Signature};

use super::scenario::{Fact, Scenario};

/// One kind of fact with all that can be told apart about it. The first value is to say nothing.
#[derive(Debug)]
pub(super) struct Axis(Vec<Choice>);

/// A value, and other named ones that are the same to both policies.
#[derive(Debug)]
pub(super) struct Choice {
    fact: Option<Fact>,
    alike: Vec<Fact>,
    signature: Vec<Signature>,
    /// Which criteria come to something else than where nothing is said: policy, rule, criterion, and what to.
    differs: Vec<(usize, usize, usize, RuleResult)>,
}

/// Every way in which scenarios differ for some policies.
#[derive(Debug)]
pub(super) struct Axes {
    axes: Vec<Axis>,
    /// What the policies say where nothing is said.
    base: Vec<Signature>,
    /// More was named than is tried.
    pub(super) cut: bool,
}

/// One value of each axis.
pub(super) type Combination = Vec<usize>;

impl Axes {
    /// What these policies tell apart at that path, of the subject too or of the request alone.
    pub(super) fn of(policies: &[&Policy], usual: &Scenario, path: &str, subject_too: bool) -> Self {
        let samples = Samples::of(policies.iter().copied());
        let mut axes = vec![methods(&samples)];
        axes.extend((!usual.only_from_there).then(|| sources(&samples)));
        axes.extend((!usual.only_then).then(|| times(&samples, usual)));
        if subject_too {
            axes.extend([users(&samples), emails(&samples), devices(&samples)]);
            let of = |(name, values): (&str, Vec<Sample<_>>)| {
                values.into_iter().map(|value| made(value, |values| Fact::Claim(name.to_owned(), values))).collect()
            };
            axes.extend(samples.claims().map(of));
        }
        let axes = axes.into_iter().map(|facts| Axis::of(policies, usual, path, facts));
        Self {
            axes: axes.filter(|axis| axis.0.len() > 1).collect(),
            base: signature(policies, usual, path),
            cut: samples.is_cut(),
        }
    }

    /// The facts of a combination.
    pub(super) fn facts(&self, combination: &[usize]) -> Vec<&Fact> {
        self.axes.iter().zip(combination).filter_map(|(axis, at)| axis.0.get(*at)?.fact.as_ref()).collect()
    }

    /// The facts of combinations that are the same to both policies, each with one other named value.
    pub(super) fn alike<'a>(&'a self, combination: &'a [usize]) -> impl Iterator<Item = Vec<&'a Fact>> {
        self.axes.iter().zip(combination).enumerate().flat_map(move |(number, (axis, at))| {
            let alike = axis.0.get(*at).map(|choice| choice.alike.as_slice()).unwrap_or_default();
            alike.iter().map(move |other| {
                let facts = self.axes.iter().zip(combination).enumerate();
                let facts =
                    facts.filter_map(
                        |(index, (axis, at))| {
                            if index == number { Some(other) } else { axis.0.get(*at)?.fact.as_ref() }
                        },
                    );
                facts.collect()
            })
        })
    }

    /// What every criterion of the policies comes to: each looks at one fact alone.
    pub(super) fn signatures(&self, combination: &[usize]) -> Vec<Signature> {
        let mut signatures = self.base.clone();
        for (axis, at) in self.axes.iter().zip(combination).filter(|(_, at)| **at > 0) {
            for (policy, rule, criterion, result) in
                axis.0.get(*at).map(|choice| choice.differs.as_slice()).unwrap_or_default()
            {
                let results = signatures.get_mut(*policy).and_then(|of| of.0.get_mut(*rule));
                if let Some(place) = results.and_then(|of| of.results.get_mut(*criterion)) {
                    *place = *result;
                }
            }
        }
        signatures
    }

    /// How many combinations there are.
    pub(super) fn count(&self) -> usize {
        self.axes.iter().fold(1, |all, axis| all.saturating_mul(axis.0.len()))
    }

    /// Every combination, those that say least first; of more than `most` so many: what meets each rule, what differs from that or
    /// from nothing in one or two facts, and an even choice of the rest.
    pub(super) fn combinations(&self, most: usize) -> Vec<Combination> {
        let count = self.count();
        let mut all: Vec<Combination> = if count <= most {
            (0..count).map(|number| self.numbered(number)).collect()
        } else {
            self.chosen(count, most)
        };
        all.sort_by_key(|combination| combination.iter().filter(|at| **at > 0).count());
        all
    }

    /// What meets each rule, and what differs from that, or from nothing, in one fact.
    pub(super) fn few(&self) -> Vec<Combination> {
        let mut few = Vec::new();
        for base in self.bases() {
            few.push(base.clone());
            few.extend(self.neighbours(&base));
        }
        distinct(few)
    }

    fn chosen(&self, count: usize, most: usize) -> Vec<Combination> {
        let mut chosen = self.few();
        for base in self.bases() {
            for near in self.neighbours(&base) {
                if chosen.len() > 2 * most {
                    break;
                }
                chosen.extend(self.neighbours(&near));
            }
        }
        let mut chosen = distinct(chosen);
        chosen.truncate(most - most / 4);
        let rest = most - chosen.len();
        let step = (count / rest.max(1)).max(1) | 1;
        chosen.extend((0..rest).map(|number| self.numbered(number.wrapping_mul(step) % count)));
        distinct(chosen)
    }

    /// Nothing said, and for every rule what most of its criteria take for true, and as few of those of deny rules.
    fn bases(&self) -> Vec<Combination> {
        let nothing = vec![0; self.axes.len()];
        let rules: Vec<_> = self.axes.first().map_or_else(Vec::new, |axis| {
            let first = axis.0.first().map(|choice| choice.signature.as_slice()).unwrap_or_default();
            let rules = first.iter().enumerate();
            rules.flat_map(|(policy, signature)| (0..signature.0.len()).map(move |rule| (policy, rule))).collect()
        });
        let meets = |(policy, rule): (usize, usize)| {
            let best = |axis: &Axis| {
                let score = |choice: &Choice| choice.score(policy, rule);
                let ranked = axis.0.iter().enumerate().rev().max_by_key(|(_, choice)| score(choice));
                ranked.map_or(0, |(at, _)| at)
            };
            self.axes.iter().map(best).collect()
        };
        std::iter::once(nothing).chain(rules.into_iter().map(meets)).collect()
    }

    fn neighbours<'a>(&'a self, base: &'a [usize]) -> impl Iterator<Item = Combination> + 'a {
        self.axes.iter().enumerate().flat_map(move |(number, axis)| {
            (0..axis.0.len()).map(move |at| {
                let mut near = base.to_vec();
                if let Some(place) = near.get_mut(number) {
                    *place = at;
                }
                near
            })
        })
    }

    /// The combination of that number, as if the axes were digits.
    fn numbered(&self, mut number: usize) -> Combination {
        let digits = self.axes.iter().map(|axis| {
            let digit = number % axis.0.len().max(1);
            number /= axis.0.len().max(1);
            digit
        });
        digits.collect()
    }
}

fn distinct(combinations: Vec<Combination>) -> Vec<Combination> {
    let mut seen = std::collections::HashSet::new();
    combinations.into_iter().filter(|combination| seen.insert(combination.clone())).collect()
}

/// A fact, and whether a policy names it.
type Candidate = Sample<Fact>;

impl Axis {
    /// One value of everything that the policies tell apart.
    fn of(policies: &[&Policy], usual: &Scenario, path: &str, facts: Vec<Candidate>) -> Self {
        let look = |fact: Option<&Fact>| {
            let scenario = usual.with(fact.as_slice());
            signature(policies, &scenario, path)
        };
        let base = look(None);
        let mut choices = vec![Choice { fact: None, alike: Vec::new(), signature: base.clone(), differs: Vec::new() }];
        for Sample { value, named } in facts {
            let signature = look(Some(&value));
            match choices.iter_mut().find(|choice| choice.signature == signature) {
                // Of subjects of whom nothing matters, one stands for all.
                Some(Choice { fact, alike, .. }) if named && (fact.is_some() || matches!(value, Fact::Method(_))) => {
                    if value != Fact::Method(usual.method.clone()) {
                        alike.push(value);
                    }
                }
                Some(_) => {}
                None => {
                    let differs = differences(&base, &signature);
                    choices.push(Choice { fact: Some(value), alike: Vec::new(), signature, differs });
                }
            }
        }
        Self(choices)
    }
}

impl Choice {
    /// How many criteria of a rule take it for true; then, how few of those of rules that deny.
    fn score(&self, policy: usize, rule: usize) -> (usize, std::cmp::Reverse<usize>) {
        let holding = |policy: usize, rule: usize| {
            let rule = self.signature.get(policy).and_then(|signature| signature.0.get(rule));
            rule.map_or(0, |rule| rule.results.iter().filter(|result| result.value).count())
        };
        let rules = self.signature.iter().enumerate().flat_map(|(policy, signature)| {
            signature.0.iter().enumerate().filter(|(_, rule)| !rule.allows).map(move |(rule, _)| (policy, rule))
        });
        let denying = rules.filter(|other| *other != (policy, rule)).map(|(policy, rule)| holding(policy, rule)).sum();
        (holding(policy, rule), std::cmp::Reverse(denying))
    }
}

fn differences(base: &[Signature], other: &[Signature]) -> Vec<(usize, usize, usize, RuleResult)> {
    let of = |signatures: &[Signature]| {
        let mut all = Vec::new();
        for (policy, signature) in signatures.iter().enumerate() {
            for (rule, of) in signature.0.iter().enumerate() {
                all.extend(of.results.iter().enumerate().map(|(criterion, result)| (policy, rule, criterion, *result)));
            }
        }
        all
    };
    of(base).into_iter().zip(of(other)).filter(|(base, other)| base != other).map(|(_, other)| other).collect()
}

/// What every criterion of these policies comes to.
pub(super) fn signature(policies: &[&Policy], scenario: &Scenario, path: &str) -> Vec<Signature> {
    let (session, devices) = (scenario.session(), &scenario.devices);
    let devices: Vec<_> = devices.iter().map(DeviceRecord::facts).collect();
    let facts = scenario.facts(session.as_ref(), &devices, path);
    policies.iter().map(|policy| policy.signature(&facts)).collect()
}

fn made<T>(Sample { value, named }: Sample<T>, fact: impl FnOnce(T) -> Fact) -> Candidate {
    Sample { value: fact(value), named }
}

const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

fn methods(samples: &Samples) -> Vec<Candidate> {
    let usual = METHODS.into_iter().map(|method| Sample { value: Fact::Method(method), named: false });
    let said = samples.methods().into_iter().filter_map(|Sample { value, named }| {
        let method = Method::from_bytes(value.as_bytes()).ok()?;
        Some(Sample { value: Fact::Method(method), named })
    });
    let (named, made_up): (Vec<_>, Vec<_>) = said.partition(|sample| sample.named);
    let preflight = samples.preflights().then_some(Sample { value: Fact::Preflight, named: false });
    named.into_iter().chain(usual).chain(preflight).chain(made_up).collect()
}

fn sources(samples: &Samples) -> Vec<Candidate> {
    let real = |sample: &Sample<IpAddr>| !sample.value.is_unspecified() && !sample.value.is_multicast();
    samples.sources().into_iter().filter(real).map(|sample| made(sample, Fact::Source)).collect()
}

fn times(samples: &Samples, usual: &Scenario) -> Vec<Candidate> {
    samples.times(usual.now).into_iter().map(|sample| made(sample, Fact::Time)).collect()
}

fn users(samples: &Samples) -> Vec<Candidate> {
    let ids = samples.users().into_iter().filter(|id| !id.value.is_empty());
    ids.map(|sample| made(sample, Fact::User)).collect()
}

fn emails(samples: &Samples) -> Vec<Candidate> {
    let emails: Vec<_> = samples.emails().into_iter().filter(|email| !email.value.is_empty()).collect();
    // A rule that denies believes what one that allows does not.
    let unverified: Vec<_> = emails
        .iter()
        .map(|Sample { value, .. }| Sample { value: Fact::Unverified(value.clone()), named: false })
        .collect();
    emails.into_iter().map(|sample| made(sample, Fact::Email)).chain(unverified).collect()
}

fn devices(samples: &Samples) -> Vec<Candidate> {
    samples.devices().into_iter().map(|sample| made(sample, Fact::Devices)).collect()
}
