//! The policy language -> rules, with the place of every mistake (01 §3).

use std::collections::BTreeMap;

use crate::criterion::{Criterion, Dialect, parse_name};
use crate::document::{Entry, Mistake, Node, Place};
use crate::matcher::{unknown, unknown_operator};
use crate::policy::{Action, Operator, Origin, Rule, Written};

/// The rules of a `policy` key in the plain language: [`Language::read`] without named policies.
///
/// # Errors
/// Every mistake in it, each with its place. Any of them refuses the configuration.
pub fn parse(policy: &Node) -> Result<Vec<Rule>, Vec<Mistake>> {
    Language::default().read(policy).map(|rules| rules.list)
}

/// What a `policy` key says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// The rules, in the order in which they were written; a block without criteria is none.
    pub list: Vec<Rule>,
    /// Something is written, and all of it has `enforce: false`. A rule that decides counts also where it is empty, and so
    /// does the name of a policy that says nothing: whoever wrote them meant to choose, and chose nobody.
    pub only_tried_out: bool,
}

/// The policy language with the policies that a configuration names.
#[derive(Clone, Debug, Default)]
pub struct Language {
    named: BTreeMap<String, Rules>,
    dialect: Dialect,
}

impl Language {
    /// The language without named policies. With `fail_open_identity`, criteria on identity compare what nobody has as
    /// Pomerium does: `email: {not: x}`, `claim/x: {exclude: y}` and `device: {approved: false}` then let anybody in (01 §8.1).
    #[must_use]
    pub const fn new(fail_open_identity: bool) -> Self {
        Self { named: BTreeMap::new(), dialect: Dialect { fail_open_identity } }
    }

    /// From now on `name` stands for that policy, which calls no other by name.
    ///
    /// # Errors
    /// Every mistake in it. The name is known all the same, so that nobody is told of it twice.
    pub fn define(&mut self, name: &str, policy: &Node) -> Result<&[Rule], Vec<Mistake>> {
        let reading = Reading { language: None, ..self.reading(Origin::Named(name.into())) };
        let read = reading.all(policy);
        let rules = read.as_ref().cloned().unwrap_or_default();
        let rules = self.named.entry(name.to_owned()).insert_entry(rules).into_mut();
        read.map(|_| rules.list.as_slice())
    }

    /// The rules of the policy that routes without one get: as [`Self::read`].
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_default(&self, policy: &Node) -> Result<Rules, Vec<Mistake>> {
        self.reading(Origin::Default).all(policy)
    }

    /// The rules of a `policy` key: a rule object, the name of a policy, or a list of these; nothing at all gives none.
    ///
    /// Names of actions, operators and criteria are known in any case, as Pomerium lower-cases the keys of its file; what
    /// follows `claim/` keeps its case.
    ///
    /// # Errors
    /// Every mistake in it, each with its place. Any of them refuses the configuration.
    pub fn read(&self, policy: &Node) -> Result<Rules, Vec<Mistake>> {
        self.reading(Origin::Policy).all(policy)
    }

    const fn reading(&self, origin: Origin) -> Reading<'_> {
        let (language, dialect) = (Some(self), self.dialect);
        Reading { language, dialect, origin, rules: Vec::new(), decides: false, mistakes: Vec::new() }
    }
}

/// The names that a policy calls others by.
pub fn names(policy: &Node) -> impl Iterator<Item = &str> {
    policy.as_list().unwrap_or(std::slice::from_ref(policy)).iter().filter_map(Node::as_str)
}

/// What has been read so far.
struct Reading<'l> {
    /// The policies that may be called by name; inside of one there are none.
    language: Option<&'l Language>,
    dialect: Dialect,
    origin: Origin,
    rules: Vec<Rule>,
    /// Something was written that is not only tried out.
    decides: bool,
    mistakes: Vec<Mistake>,
}

impl Reading<'_> {
    fn all(mut self, policy: &Node) -> Result<Rules, Vec<Mistake>> {
        let written = match policy.as_list() {
            Some(list) => list,
            None if policy.is_null() => &[],
            None => std::slice::from_ref(policy),
        };
        for rule in written {
            match rule.as_str() {
                Some(name) => self.named(rule, name),
                None => self.rule(rule),
            }
        }
        if self.mistakes.is_empty() {
            Ok(Rules { list: self.rules, only_tried_out: !written.is_empty() && !self.decides })
        } else {
            Err(self.mistakes)
        }
    }

    fn named(&mut self, node: &Node, name: &str) {
        let Some(language) = self.language else {
            let mistake = Mistake::at(node.place, "a named policy calls no other by name");
            return self.mistakes.push(mistake.hint("write the rules out; a route can name several policies"));
        };
        match language.named.get(name) {
            Some(rules) => {
                self.rules.extend_from_slice(&rules.list);
                self.decides |= !rules.only_tried_out;
            }
            None => {
                let known = language.named.keys().map(String::as_str);
                let mistake = Mistake::at(node.place, format!("there is no policy `{name}`"));
                let is_name = name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ' '));
                self.mistakes.push(mistake.hint_nearest(name, known, || {
                    if is_name {
                        format!("write it under `policies`: `policies: {{{name}: {{allow: {{and: [...]}}}}}}`")
                    } else {
                        "write the policy as a map, or the name of one that stands under `policies`".to_owned()
                    }
                }));
            }
        }
    }

    fn rule(&mut self, node: &Node) {
        let Some(entries) = node.as_map() else {
            return self.mistakes.push(
                Mistake::at(node.place, format!("a rule must be a map, not {}", node.kind()))
                    .hint("write `allow: {and: [...]}` or `deny: {or: [...]}`"),
            );
        };
        let first = self.rules.len();
        let mut enforce = None;
        for entry in entries {
            match entry.key.to_ascii_lowercase().as_str() {
                "allow" => self.blocks(Action::Allow, entry),
                "deny" => self.blocks(Action::Deny, entry),
                "enforce" if enforce.is_some() => {
                    let what = format!("`enforce` is here twice, and `{}` is the second", entry.key);
                    self.mistakes.push(Mistake::at(entry.key_place, what).hint("keep one of them"));
                }
                "enforce" => enforce = Some(self.enforce(entry)),
                _ => self.mistakes.push(unknown(entry, "unknown action", &["allow", "deny", "enforce"])),
            }
        }
        let enforced = enforce.unwrap_or(true);
        self.decides |= enforced;
        self.rules.iter_mut().skip(first).for_each(|rule| rule.enforced = enforced);
    }

    fn enforce(&mut self, entry: &Entry) -> bool {
        entry.value.as_bool().unwrap_or_else(|| {
            let what = format!("`enforce` needs true or false, not {}", entry.value.kind());
            self.mistakes.push(
                Mistake::at(entry.value.place, what)
                    .hint("write `enforce: false` to only log and count what the rule would refuse"),
            );
            true
        })
    }

    fn blocks(&mut self, action: Action, entry: &Entry) {
        let Some(operators) = entry.value.as_map() else {
            return self.mistakes.push(
                Mistake::at(
                    entry.value.place,
                    format!("`{}` needs a map of operators, not {}", entry.key, entry.value.kind()),
                )
                .hint(format!("write `{}: {{and: [...]}}`, with one of and, or, not, nor", entry.key)),
            );
        };
        for entry in operators {
            match entry.key.to_ascii_lowercase().as_str() {
                "and" => self.block(action, Operator::And, entry),
                "or" => self.block(action, Operator::Or, entry),
                "not" => self.block(action, Operator::Not, entry),
                "nor" => self.block(action, Operator::Nor, entry),
                "action" => {}
                _ => self.mistakes.push(unknown_operator(entry, &["and", "or", "not", "nor"])),
            }
        }
    }

    /// An empty list gives no rule: nothing is vacuously true.
    fn block(&mut self, action: Action, operator: Operator, entry: &Entry) {
        let Some(nodes) = entry.value.as_list() else {
            return self.mistakes.push(
                Mistake::at(
                    entry.value.place,
                    format!("`{}` needs a list of criteria, not {}", entry.key, entry.value.kind()),
                )
                .hint("begin each criterion with `- `"),
            );
        };
        let read: (Vec<_>, Vec<_>) = nodes.iter().filter_map(|node| self.criterion(node)).unzip();
        if !read.0.is_empty() {
            let (criteria, places) = (read.0.into(), read.1.into());
            let written = Written { origin: self.origin.clone(), place: entry.key_place, criteria: places };
            self.rules.push(Rule { action, operator, enforced: true, criteria, written });
        }
    }

    fn criterion(&mut self, node: &Node) -> Option<(Criterion, Place)> {
        let parsed = criterion(node, self.dialect);
        parsed.map_err(|mistakes| self.mistakes.extend(mistakes)).ok()
    }
}

fn criterion(node: &Node, dialect: Dialect) -> Result<(Criterion, Place), Vec<Mistake>> {
    let entry = only_entry(node)?;
    let (name, sub_path) = parse_name(entry)?;
    let criterion = Criterion::parse(name, sub_path.unwrap_or_default(), &entry.value, dialect)?;
    Ok((criterion, entry.key_place))
}

fn only_entry(node: &Node) -> Result<&Entry, Mistake> {
    match node.as_map() {
        Some([entry]) => Ok(entry),
        Some([]) => {
            Err(Mistake::at(node.place, "a criterion is missing").hint("write `name: value`, or remove the entry"))
        }
        Some([_, second, ..]) => {
            Err(Mistake::at(second.key_place, format!("a criterion has one key, and `{}` is a second one", second.key))
                .hint("begin each criterion with a `- ` of its own"))
        }
        None => Err(Mistake::at(node.place, format!("a criterion must be a map, not {}", node.kind()))
            .hint("write `name: value`, such as `accept: true`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::read;

    fn mistakes(text: &str) -> Vec<(u32, u32, String)> {
        let mistakes = parse(&read(text).unwrap()).expect_err(text);
        assert!(mistakes.iter().all(|mistake| mistake.hint.is_some()), "{mistakes:?}");
        mistakes.into_iter().map(|mistake| (mistake.place.line, mistake.place.column, mistake.message)).collect()
    }

    #[test]
    fn every_mistake_is_found_and_has_its_place() {
        let text = "\
- allow:
    and:
      - emial: a@b
      - device: {kind: any}
      - source_ip: [10.0.0.0/8, nowhere]
      - accept: 1
        reject: 1
    xor: []
    or: {accept: 1}
- permit: {}
- deny
- deny: [accept: 1]
- deny: {or: [accept, {}, {or: []}]}
";
        let expected = [
            (3, 9, "unknown criterion `emial`"),
            (4, 18, "a device has no `kind`"),
            (5, 33, "`nowhere` is not an IP address or range"),
            (7, 9, "a criterion has one key, and `reject` is a second one"),
            (8, 5, "unknown operator `xor`"),
            (9, 9, "`or` needs a list of criteria, not a map"),
            (10, 3, "unknown action `permit`"),
            (11, 3, "there is no policy `deny`"),
            (12, 9, "`deny` needs a map of operators, not a list"),
            (13, 15, "a criterion must be a map, not text"),
            (13, 23, "a criterion is missing"),
            (13, 28, "`or` stands where a criterion must: operators do not nest"),
        ];
        let expected: Vec<_> =
            expected.into_iter().map(|(line, column, message)| (line, column, message.to_owned())).collect();
        assert_eq!(mistakes(text), expected);
    }

    fn language(policies: &[(&str, &str)]) -> Language {
        let mut language = Language::default();
        for (name, text) in policies {
            language.define(name, &read(text).unwrap()).unwrap();
        }
        language
    }

    #[test]
    fn a_text_stands_for_the_policy_of_that_name() {
        let language = language(&[("staff", "allow: {and: [domain: x.test]}"), ("out", "deny: {or: [user: u1]}")]);
        let rules = |text: &str| language.read(&read(text).unwrap()).unwrap().list;
        let origins = |text: &str| rules(text).into_iter().map(|rule| rule.written.origin).collect::<Vec<_>>();
        assert_eq!(origins("staff"), [Origin::Named("staff".into())]);
        let both = "[staff, {deny: {or: [reject: 1]}}, out]";
        assert_eq!(origins(both), [Origin::Named("staff".into()), Origin::Policy, Origin::Named("out".into())]);
        assert_eq!(rules("staff"), parse(&read("allow: {and: [domain: x.test]}").unwrap()).unwrap());
        assert_eq!(names(&read(both).unwrap()).collect::<Vec<_>>(), ["staff", "out"]);
    }

    #[test]
    fn a_name_that_stands_for_nothing_is_refused() {
        let mut language = language(&[("staff", "allow: {and: [domain: x.test]}")]);
        let mistake = |language: &Language, text: &str| language.read(&read(text).unwrap()).unwrap_err().remove(0);
        let unknown = mistake(&language, "[stuff]");
        assert_eq!((unknown.message.as_str(), unknown.place.column), ("there is no policy `stuff`", 2));
        assert_eq!(unknown.hint.as_deref(), Some("did you mean `staff`?"));
        assert!(mistake(&language, "elsewhere").hint.unwrap().contains("`policies"));
        let nested = language.define("both", &read("[staff]").unwrap()).unwrap_err().remove(0);
        assert_eq!(nested.message, "a named policy calls no other by name");
        assert!(language.define("bad", &read("allow: 7").unwrap()).is_err());
        assert_eq!(language.read(&read("bad").unwrap()), Ok(Rules::default()));
    }

    #[test]
    fn a_rule_may_be_tried_out_alone_and_in_a_named_policy() {
        let language = language(&[("new", "[{enforce: false, allow: {and: [accept: 1]}}, {deny: {or: [reject: 1]}}]")]);
        let enforced = |text: &str| {
            language.read(&read(text).unwrap()).unwrap().list.iter().map(|rule| rule.enforced).collect::<Vec<_>>()
        };
        assert_eq!(enforced("[new, {allow: {or: [accept: 1]}, enforce: true}]"), [false, true, true]);
        assert_eq!(enforced("{Enforce: False, deny: {or: [reject: 1], and: [accept: 1]}}"), [false, false]);
        assert_eq!(mistakes("enforce: later")[0].2, "`enforce` needs true or false, not text");
    }

    #[test]
    fn s_097_only_what_says_so_throughout_is_only_tried_out() {
        let tried = "{enforce: false, allow: {and: [accept: 1]}}";
        let language =
            language(&[("tried", tried), ("none", "[]"), ("nothing", ""), ("some", "allow: {or: [accept: 1]}")]);
        let only = |text: &str| language.read(&read(text).unwrap()).unwrap().only_tried_out;
        for text in [tried, "tried", &format!("[{tried}, {{ENFORCE: false}}]"), &format!("[tried, {tried}]")] {
            assert!(only(text), "{text}");
        }
        let decides = ["{}", "none", "nothing", "some", "{allow: {or: []}}", "{deny: {}}", "{enforce: true}"];
        for text in decides {
            assert!(!only(text) && !only(&format!("[{tried}, {text}]")), "{text}");
        }
        assert!(!only("") && !only("[]"));
    }

    #[test]
    fn whether_a_rule_decides_is_said_once() {
        for text in ["{enforce: true, Enforce: false}", "{enforce: false, allow: {and: [accept: 1]}, ENFORCE: false}"] {
            let told = mistakes(text);
            assert!(told.len() == 1 && told[0].2.starts_with("`enforce` is here twice"), "{told:?}");
        }
        assert_eq!(mistakes("{enforce: true, Enforce: false}")[0].1, 17);
    }

    #[test]
    fn names_are_known_in_any_case() {
        let rules = parse(&read("Allow: {AND: [{Email: {IS: a@b}}], action: x}").unwrap()).unwrap();
        assert_eq!((rules.len(), rules[0].action, rules[0].operator), (1, Action::Allow, Operator::And));
    }

    #[test]
    fn nothing_gives_no_rule_and_neither_does_an_empty_list() {
        for text in ["", "[]", "{}", "allow: {}", "allow: {and: [], or: [], not: [], nor: []}"] {
            assert!(parse(&read(text).unwrap()).unwrap().is_empty(), "{text}");
        }
    }

    #[test]
    fn an_operator_without_its_list_is_refused() {
        assert_eq!(mistakes("allow: {and: }")[0].2, "`and` needs a list of criteria, not nothing");
        assert_eq!(mistakes("allow: ")[0].2, "`allow` needs a map of operators, not nothing");
    }
}
