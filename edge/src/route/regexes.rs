//! Regular expressions over paths: one at a time, and many at once.

use std::collections::HashSet;
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};
use regex_automata::hybrid::dfa::{self as hybrid, Cache, DFA};
use regex_automata::nfa::thompson::{self, NFA};
use regex_automata::util::pool::Pool;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input};
use regex_syntax::hir::{Class, Hir, HirKind};

use super::tree::{NEVER, Order};

/// A regular expression that must match a whole path: anchored at both ends, in linear time, and not before a line end (S-026).
#[derive(Clone)]
pub struct PathRegex(Arc<Compiled>);

struct Compiled {
    regex: Regex,
    /// Its text, anchored.
    anchored: String,
    /// Classes and `.` stand for characters beyond ASCII too. No path has one, so that few expressions need that.
    unicode: bool,
}

impl fmt::Debug for PathRegex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PathRegex").field(&self.0.anchored).finish()
    }
}

impl PathRegex {
    /// # Errors
    /// If `pattern` is no regular expression, or too large a one.
    pub fn new(pattern: &str) -> Result<Self, regex::Error> {
        // As it stands: `a)(b` must not pass because of what is put around it.
        regex_syntax::parse(pattern).map_err(|error| regex::Error::Syntax(error.to_string()))?;
        let anchored = format!(r"\A(?:{pattern})\z");
        let build = |unicode: bool| {
            RegexBuilder::new(&anchored).unicode(unicode).size_limit(COMPILED).dfa_size_limit(ALONE).build()
        };
        let ascii = if pattern.is_ascii() { build(false).ok() } else { None };
        let (regex, unicode) = match ascii {
            Some(regex) => (regex, false),
            None => (build(true)?, true),
        };
        Ok(Self(Arc::new(Compiled { regex, anchored, unicode })))
    }

    /// Whether it matches the whole path.
    #[must_use]
    pub fn is_match(&self, path: &str) -> bool {
        self.0.regex.is_match(path.as_bytes())
    }

    /// Its text, with the anchors around it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0.anchored
    }

    fn hir(&self) -> Option<Hir> {
        syntax::parse_with(&self.0.anchored, &syntax::Config::new().unicode(self.0.unicode).utf8(false)).ok()
    }

    /// Some paths that it matches, short ones; none, if none is found easily.
    #[must_use]
    pub fn examples(&self) -> Vec<String> {
        let texts = self.hir().map(|hir| examples(&hir)).unwrap_or_default();
        let texts = texts.into_iter().filter_map(|bytes| String::from_utf8(bytes).ok());
        let texts = texts.chain(["/", "/x"].map(str::to_owned));
        let mut paths: Vec<_> = texts.filter(|path| path.starts_with('/') && self.is_match(path)).collect();
        paths.sort_unstable_by(|one, other| (one.len(), one).cmp(&(other.len(), other)));
        paths.dedup();
        paths
    }

    /// Whether paths can need more states of its automaton than there is room for: then a long one costs much. Most often a
    /// repetition of many behind `.*` is why.
    #[must_use]
    pub fn is_costly(&self) -> bool {
        self.hir().is_some_and(|hir| counts(&hir) && !fits(&hir))
    }

    /// The text that every path which it matches begins with.
    pub(super) fn literal_prefix(&self) -> Vec<u8> {
        let mut prefix = Vec::new();
        if let Some(hir) = self.hir() {
            literal(&hir, &mut prefix);
        }
        prefix
    }
}

/// Whether something is to come several times, or up to so many.
fn counts(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) | HirKind::Literal(_) | HirKind::Class(_) => false,
        HirKind::Capture(capture) => counts(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().any(counts),
        HirKind::Repetition(repetition) => {
            repetition.min > 1 || repetition.max.is_some_and(|most| most > 1) || counts(&repetition.sub)
        }
    }
}

/// Whether all states of its automaton have room at the same time.
fn fits(hir: &Hir) -> bool {
    let Ok(nfa) = compiler().build_from_hir(hir) else { return false };
    let Ok(dfa) = DFA::builder().configure(room(ALONE)).build_from_nfa(nfa) else { return false };
    let mut cache = dfa.create_cache();
    let Ok(start) = dfa.start_state_forward(&mut cache, &Input::new("").anchored(Anchored::Yes)) else { return false };
    let (mut seen, mut open) = (HashSet::from([start]), vec![start]);
    while let Some(state) = open.pop() {
        for unit in dfa.byte_classes().representatives(..) {
            let next = match unit.as_u8() {
                Some(byte) => dfa.next_state(&mut cache, state, byte),
                None => dfa.next_eoi_state(&mut cache, state),
            };
            let Ok(next) = next else { return false };
            if seen.insert(next) {
                open.push(next);
            }
        }
    }
    true
}

fn compiler() -> thompson::Compiler {
    let config = thompson::Config::new().utf8(false).which_captures(thompson::WhichCaptures::None);
    let mut compiler = NFA::compiler();
    compiler.configure(config.nfa_size_limit(Some(COMPILED)));
    compiler
}

/// Room for so many bytes of states: whoever needs more is given up.
fn room(bytes: usize) -> hybrid::Config {
    DFA::config().cache_capacity(bytes).minimum_cache_clear_count(Some(0))
}

/// Adds the text that every match of `hir` begins with to `prefix`; whether that is all of every match.
fn literal(hir: &Hir, prefix: &mut Vec<u8>) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => true,
        HirKind::Literal(text) => {
            prefix.extend(&text.0);
            true
        }
        HirKind::Capture(capture) => literal(&capture.sub, prefix),
        HirKind::Concat(parts) => parts.iter().all(|part| literal(part, prefix)),
        HirKind::Alternation(parts) => {
            let common = parts.iter().map(|part| {
                let mut own = Vec::new();
                literal(part, &mut own);
                own
            });
            prefix.extend(common.reduce(shared).unwrap_or_default());
            false
        }
        HirKind::Repetition(repetition) if repetition.min > 0 => {
            literal(&repetition.sub, prefix);
            false
        }
        HirKind::Class(_) | HirKind::Repetition(_) => false,
    }
}

/// So many texts are made of one part of an expression at most.
const EXAMPLES: usize = 16;
/// A part that comes again is written so often at most.
const AGAIN: u32 = 64;

/// Some texts that `hir` matches.
fn examples(hir: &Hir) -> Vec<Vec<u8>> {
    let mut texts = match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => vec![Vec::new()],
        HirKind::Literal(text) => vec![text.0.to_vec()],
        HirKind::Class(class) => some_of(class),
        HirKind::Capture(capture) => examples(&capture.sub),
        HirKind::Concat(parts) => parts.iter().fold(vec![Vec::new()], |begun, part| joined(&begun, &examples(part))),
        HirKind::Alternation(parts) => parts.iter().flat_map(examples).collect(),
        HirKind::Repetition(repetition) => {
            let part = examples(&repetition.sub);
            let least = (0..repetition.min.min(AGAIN)).fold(vec![Vec::new()], |begun, _| joined(&begun, &part));
            let more = repetition.max.is_none_or(|max| max > repetition.min);
            let once_more = if more { joined(&least, &part) } else { Vec::new() };
            least.into_iter().chain(once_more).collect()
        }
    };
    texts.truncate(EXAMPLES);
    texts
}

fn joined(begun: &[Vec<u8>], next: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let all = next.iter().flat_map(|next| begun.iter().map(move |begun| [begun.as_slice(), next].concat()));
    all.take(EXAMPLES).collect()
}

/// A few characters of a class: one that needs no escaping, if there is one, and those at the ends of its ranges.
fn some_of(class: &Class) -> Vec<Vec<u8>> {
    let ranges: Vec<(u32, u32)> = match class {
        Class::Bytes(class) => class.ranges().iter().map(|range| (range.start().into(), range.end().into())).collect(),
        Class::Unicode(class) => {
            class.ranges().iter().map(|range| (range.start().into(), range.end().into())).collect()
        }
    };
    let has = |byte: &u8| ranges.iter().any(|(first, last)| (*first..=*last).contains(&u32::from(*byte)));
    let plain = b"x1aA0-_.~/".iter().copied().chain(0x21..0x7f).find(has);
    let ends = ranges.iter().flat_map(|(first, last)| [*first, *last]);
    let ends = ends.filter_map(|end| u8::try_from(end).ok()).filter(u8::is_ascii_alphanumeric);
    let mut some: Vec<_> = plain.into_iter().chain(ends).map(|byte| vec![byte]).collect();
    let mut seen = HashSet::new();
    some.retain(|one| seen.insert(one.clone()));
    some.truncate(4);
    some
}

/// What both begin with.
fn shared(mut one: Vec<u8>, other: Vec<u8>) -> Vec<u8> {
    let same = one.iter().zip(other).take_while(|(a, b)| *a == b).count();
    one.truncate(same);
    one
}

/// Expressions in the order of the file.
#[derive(Debug)]
pub(super) struct Regexes(Vec<Group>);

/// So many that one automaton for all stays small, whatever paths are asked for.
const GROUP: usize = 64;
/// Fewer are tried one by one.
const FEW: usize = 3;
/// What the states of one automaton may take, for each thread that uses it.
const CACHE: usize = 256 * 1024;
/// What those of one expression may take, for each thread that uses it. One that needs more is looked for without.
const ALONE: usize = 64 * 1024;
/// What an expression may take compiled, and a group of them.
const COMPILED: usize = 1024 * 1024;

#[derive(Debug)]
struct Group {
    members: Vec<(Order, PathRegex)>,
    together: Option<Together>,
}

impl Regexes {
    pub(super) fn new(members: &[(Order, PathRegex)]) -> Self {
        let group = |members: &[(Order, PathRegex)]| Group {
            members: members.to_vec(),
            together: if members.len() > FEW { Together::new(members) } else { None },
        };
        Self(members.chunks(GROUP).map(group).collect())
    }

    /// The order of the first.
    pub(super) fn least(&self) -> Order {
        self.0.first().map_or(NEVER, Group::least)
    }

    /// The first that matches, if it comes before `bound`.
    pub(super) fn find(&self, path: &str, bound: Order) -> Option<Order> {
        self.0.iter().take_while(|group| group.least() < bound).find_map(|group| group.find(path, bound))
    }
}

impl Group {
    fn least(&self) -> Order {
        self.members.first().map_or(NEVER, |(order, _)| *order)
    }

    fn find(&self, path: &str, bound: Order) -> Option<Order> {
        let could_win = self.members.partition_point(|(order, _)| *order < bound);
        if could_win > FEW
            && let Some(together) = &self.together
            && let Ok(found) = together.find(path)
        {
            return found.and_then(|index| self.members.get(index)).map(|(order, _)| *order).filter(|own| *own < bound);
        }
        self.members.iter().take(could_win).find(|(_, regex)| regex.is_match(path)).map(|(order, _)| *order)
    }
}

/// One automaton for several expressions. It is built as paths need it; a path that needs too much of it is given up, and then
/// the expressions are tried one by one, so that no path costs more than a small multiple of that.
struct Together {
    dfa: DFA,
    caches: Pool<Cache, Box<dyn Fn() -> Cache + Send + Sync + UnwindSafe + RefUnwindSafe>>,
}

impl Together {
    fn new(members: &[(Order, PathRegex)]) -> Option<Self> {
        let parsed: Option<Vec<Hir>> = members.iter().map(|(_, regex)| regex.hir()).collect();
        let nfa = compiler().build_many_from_hir(&parsed?).ok()?;
        let dfa = DFA::builder().configure(room(CACHE)).build_from_nfa(nfa).ok()?;
        let own = dfa.clone();
        Some(Self { dfa, caches: Pool::new(Box::new(move || own.create_cache())) })
    }

    /// Which is the first that matches; an error if the path was given up. All are anchored at both ends, so that of several
    /// which match, leftmost-first search prefers the one that comes first.
    fn find(&self, path: &str) -> Result<Option<usize>, regex_automata::MatchError> {
        let mut cache = self.caches.get();
        let found = self.dfa.try_search_fwd(&mut cache, &Input::new(path).anchored(Anchored::Yes));
        if found.is_err() {
            cache.reset(&self.dfa);
        }
        found.map(|found| found.map(|half| half.pattern().as_usize()))
    }
}

impl fmt::Debug for Together {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Together").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn regexes(patterns: &[String]) -> Vec<(Order, PathRegex)> {
        (0..).zip(patterns).map(|(order, pattern)| (order, PathRegex::new(pattern).unwrap())).collect()
    }

    /// The first that matches, one after the other.
    fn one_by_one(members: &[(Order, PathRegex)], path: &str, bound: Order) -> Option<Order> {
        members.iter().find(|(order, regex)| *order < bound && regex.is_match(path)).map(|(order, _)| *order)
    }

    #[test]
    fn many_regexes_at_once_find_what_one_by_one_finds() {
        let patterns: Vec<_> = (0..200).map(|index| format!("/.*x{}/?[a-z0-9/]*", index % 150)).collect();
        let members = regexes(&patterns);
        let all = Regexes::new(&members);
        assert!(all.0.iter().all(|group| group.together.is_some()), "every group has its automaton");
        for path in ["/x3", "/x3/", "/a/x149/b", "/ax77x5", "/x150", "/", "/X3", "/x12x"] {
            for bound in [NEVER, 100, 5, 2] {
                assert_eq!(all.find(path, bound), one_by_one(&members, path, bound), "{path} before {bound}");
            }
        }
    }

    #[test]
    fn a_path_that_needs_too_many_states_is_answered_all_the_same() {
        // Where an `a` stood among the last dozen letters makes thousands of states.
        let patterns: Vec<_> = (0..8).map(|index| format!("/.*a[ab]{{11}}{index}")).collect();
        let members = regexes(&patterns);
        let all = Regexes::new(&members);
        let mut state = 1_u32;
        let noise: String = (0..8000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if state >> 31 == 0 { 'a' } else { 'b' }
            })
            .collect();
        let together = all.0.first().and_then(|group| group.together.as_ref()).unwrap();
        assert!(together.find(&format!("/{noise}")).is_err(), "this path was to be too much");
        for end in ["", "abbbbbbbbbbb5", "bbbbbbbbbbbb5"] {
            let path = format!("/{noise}{end}");
            assert_eq!(all.find(&path, NEVER), one_by_one(&members, &path, NEVER), "{end}");
        }
        assert_eq!(all.find("/abbbbbbbbbbb7", NEVER), Some(7), "and the next one is none the worse");
    }

    #[test]
    fn expressions_that_can_need_very_many_states_are_known() {
        for costly in ["/.*a[ab]{11}", "/.*a[ab]{11}N", ".*(x.{10}|y.{12})", "/(a|b)*a(a|b){15}/x"] {
            assert!(PathRegex::new(costly).unwrap().is_costly(), "{costly}");
        }
        for cheap in [
            "/.*",
            "/.*/[0-9]+/.*x",
            "/[0-9a-f]{64}",
            "/.*/[0-9a-f]{32}",
            "/api/v[0-9]{1,3}/users/[a-z0-9-]{1,36}/?",
            "/[0-9]{4}-[0-9]{2}-[0-9]{2}/.*",
            "/.*a[ab]{2}",
            "/é{3}.*",
        ] {
            assert!(!PathRegex::new(cheap).unwrap().is_costly(), "{cheap}");
        }
    }

    #[test]
    fn an_expression_that_is_too_large_is_refused_and_so_is_a_group() {
        assert!(matches!(PathRegex::new("/((a|bc){100}){100}"), Err(regex::Error::CompiledTooBig(_))));
        let large: Vec<_> = (0..8).map(|index| format!("/.*x{index}(a|bc){{2000}}")).collect();
        let members = regexes(&large);
        assert!(Together::new(&members).is_none(), "each is tried by itself");
        let path = format!("/x3{}", "a".repeat(2000));
        assert_eq!(Regexes::new(&members).find(&path, NEVER), Some(3));
    }

    #[test]
    fn every_match_begins_with_the_literal_prefix() {
        for (pattern, prefix) in [
            ("/a/[0-9]+", "/a/"),
            ("^/a", "/a"),
            ("(/a)b.*", "/ab"),
            ("/a|/b", "/"),
            ("/ab?", "/a"),
            ("/a{2}", "/a"),
            ("/(ab|ac)d", "/a"),
            ("(?i)/ab", "/"),
            (".*", ""),
            (r"/a\.b$", "/a.b"),
        ] {
            let found = PathRegex::new(pattern).unwrap().literal_prefix();
            assert_eq!(String::from_utf8_lossy(&found), prefix, "{pattern}");
        }
    }

    #[test]
    fn examples_of_an_expression_match_it_and_show_its_branches() {
        let examples = |pattern: &str| PathRegex::new(pattern).unwrap().examples();
        assert_eq!(examples("/re/[0-9]"), ["/re/0", "/re/1", "/re/9"]);
        assert_eq!(examples("/[xy]"), ["/x", "/y"]);
        assert_eq!(examples("/a+"), ["/a", "/aa"]);
        let branches = examples("/(x|app)/.*");
        assert!(
            ["/x/", "/x/x", "/app/", "/app/x"].iter().all(|path| branches.contains(&(*path).to_owned())),
            "{branches:?}"
        );
        assert_eq!(examples(".*"), ["/", "/x"]);
        assert_eq!(examples("/a{2,3}"), ["/aa", "/aaa"]);
        assert!(examples("(?i)/ab").contains(&"/ab".to_owned()));
        assert!(examples("/[^a-zA-Z]b").contains(&"/1b".to_owned()));
        assert_eq!(examples("/a$|/b"), ["/a", "/b"]);
        assert_eq!(examples("no path"), Vec::<String>::new());
        assert_eq!(examples("/a{100}"), Vec::<String>::new(), "longer than is tried");
    }

    proptest! {
        #[test]
        fn without_characters_beyond_ascii_no_path_is_read_otherwise(
            pattern in r"(\(\?[is]\))?/?([a-k/]|\.|\\w|\\W|\\d|\\s|\\b|\[\^a/\]|é|\\pL|\[[a-c]-k\]){0,5}[*+?]?",
            path in "/[a-kK/%0-9]{0,6}",
        ) {
            if let (Ok(ours), Ok(theirs)) = (PathRegex::new(&pattern), regex::Regex::new(&format!(r"\A(?:{pattern})\z"))) {
                prop_assert_eq!(ours.is_match(&path), theirs.is_match(&path), "{} {}", pattern, path);
                let prefix = ours.literal_prefix();
                prop_assert!(!ours.is_match(&path) || path.as_bytes().starts_with(&prefix));
            }
        }
    }
}
