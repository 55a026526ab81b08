//! Pieces that meet some string matchers or just miss them.

use std::collections::BTreeSet;

use super::Sample;

/// The pieces of texts that matchers look for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pieces {
    whole: BTreeSet<String>,
    starts: BTreeSet<String>,
    contains: BTreeSet<String>,
    ends: BTreeSet<String>,
}

impl Pieces {
    pub(crate) fn whole(&mut self, text: &str) {
        self.whole.insert(text.to_owned());
    }

    pub(crate) fn start(&mut self, text: &str) {
        self.starts.insert(text.to_owned());
    }

    pub(crate) fn middle(&mut self, text: &str) {
        self.contains.insert(text.to_owned());
    }

    pub(crate) fn end(&mut self, text: &str) {
        self.ends.insert(text.to_owned());
    }

    /// Keeps as many of each as `most` says of a length.
    pub(super) fn shorten(&mut self, most: &mut impl FnMut(usize) -> usize) {
        for set in [&mut self.whole, &mut self.starts, &mut self.contains, &mut self.ends] {
            let keep = most(set.len());
            *set = std::mem::take(set).into_iter().take(keep).collect();
        }
    }

    /// The texts that are named, then every beginning with every middle and every end, then what differs from those by a
    /// character. `head` and `tail` stand where no beginning or end is wanted.
    pub(super) fn values(&self, head: &str, tail: &str) -> Vec<Sample<String>> {
        let named = self.whole.iter().map(|text| Sample::named(text.clone()));
        let mut given: Vec<_> = named.take(super::Samples::MOST).collect();
        let mut seen: BTreeSet<String> = self.whole.clone();
        let mut put = |given: &mut Vec<Sample<String>>, text: String, named: bool| {
            if given.len() < super::Samples::MOST && seen.insert(text.clone()) {
                given.push(Sample { value: text, named });
            }
        };
        let all_of_them = self.contains.iter().map(String::as_str).collect::<String>();
        let middles =
            || std::iter::once("").chain(self.contains.iter().map(String::as_str)).chain([all_of_them.as_str()]);
        let or = |set: &BTreeSet<String>, otherwise: &str| {
            std::iter::once(otherwise.to_owned()).chain(set.iter().cloned()).collect::<Vec<_>>()
        };
        let (heads, tails) = (or(&self.starts, head), or(&self.ends, tail));
        for middle in middles() {
            for end in &tails {
                for start in &heads {
                    // What is there for one wish alone is as good as named.
                    let wishes =
                        usize::from(start != head) + usize::from(!middle.is_empty()) + usize::from(end != tail);
                    put(&mut given, format!("{start}{middle}{end}"), wishes == 1);
                }
            }
        }
        for text in &self.whole {
            put(&mut given, format!("x{text}"), false);
            put(&mut given, format!("{text}x"), false);
            put(&mut given, but_the_last(text), false);
        }
        for text in &self.starts {
            put(&mut given, format!("{}{tail}", but_the_last(text)), false);
        }
        for text in self.ends.iter().chain(&self.contains) {
            put(&mut given, format!("{head}{}", but_the_last(text)), false);
        }
        put(&mut given, String::new(), false);
        given
    }
}

fn but_the_last(text: &str) -> String {
    let mut text = text.to_owned();
    text.pop();
    text
}
