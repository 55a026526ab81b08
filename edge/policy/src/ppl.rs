//! The policy language -> rules, with the place of every mistake (01 §3).

use crate::criterion::{Criterion, parse_name};
use crate::document::{Entry, Mistake, Node, Place, nearest};
use crate::policy::{Action, Operator, Origin, Rule, Written};

/// The rules of a `policy` key: one rule object or a list of them; nothing at all gives none.
///
/// Names are known in any case, as Pomerium lower-cases the keys of its file; what follows `claim/` keeps its case.
///
/// # Errors
/// Every mistake in it, each with its place. Any of them refuses the configuration.
pub fn parse(policy: &Node) -> Result<Vec<Rule>, Vec<Mistake>> {
    let mut reading = Reading::default();
    if !policy.is_null() {
        for rule in policy.as_list().unwrap_or(std::slice::from_ref(policy)) {
            reading.rule(rule);
        }
    }
    if reading.mistakes.is_empty() { Ok(reading.rules) } else { Err(reading.mistakes) }
}

/// What has been read so far.
#[derive(Default)]
struct Reading {
    rules: Vec<Rule>,
    mistakes: Vec<Mistake>,
}

impl Reading {
    fn rule(&mut self, node: &Node) {
        let Some(entries) = node.as_map() else {
            return self.mistakes.push(
                Mistake::at(node.place, format!("a rule must be a map, not {}", node.kind()))
                    .hint("write `allow: {and: [...]}` or `deny: {or: [...]}`"),
            );
        };
        for entry in entries {
            match entry.key.to_ascii_lowercase().as_str() {
                "allow" => self.blocks(Action::Allow, entry),
                "deny" => self.blocks(Action::Deny, entry),
                _ => self.mistakes.push(unknown("action", entry, &["allow", "deny"])),
            }
        }
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
                _ => self.mistakes.push(unknown("operator", entry, &["and", "or", "not", "nor"])),
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
            let written = Written { origin: Origin::Policy, place: entry.key_place, criteria: places };
            self.rules.push(Rule { action, operator, criteria, written });
        }
    }

    fn criterion(&mut self, node: &Node) -> Option<(Criterion, Place)> {
        let parsed = only_entry(node).map_err(|mistake| vec![mistake]).and_then(|entry| {
            let criterion = criterion(entry)?;
            Ok((criterion, entry.key_place))
        });
        parsed.map_err(|mistakes| self.mistakes.extend(mistakes)).ok()
    }
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

fn criterion(entry: &Entry) -> Result<Criterion, Vec<Mistake>> {
    let (name, sub_path) = parse_name(entry).map_err(|mistake| vec![mistake])?;
    Criterion::parse(name, sub_path.unwrap_or_default(), &entry.value)
}

fn unknown(what: &str, entry: &Entry, known: &[&'static str]) -> Mistake {
    let hint = match nearest(&entry.key, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("write one of {}", known.join(", ")),
    };
    Mistake::at(entry.key_place, format!("unknown {what} `{}`", entry.key)).hint(hint)
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
      - device: {type: any}
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
            (4, 9, "criterion `device` is not supported yet"),
            (5, 33, "`nowhere` is not an IP address or range"),
            (7, 9, "a criterion has one key, and `reject` is a second one"),
            (8, 5, "unknown operator `xor`"),
            (9, 9, "`or` needs a list of criteria, not a map"),
            (10, 3, "unknown action `permit`"),
            (11, 3, "a rule must be a map, not text"),
            (12, 9, "`deny` needs a map of operators, not a list"),
            (13, 15, "a criterion must be a map, not text"),
            (13, 23, "a criterion is missing"),
            (13, 28, "`or` stands where a criterion must: operators do not nest"),
        ];
        let expected: Vec<_> =
            expected.into_iter().map(|(line, column, message)| (line, column, message.to_owned())).collect();
        assert_eq!(mistakes(text), expected);
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
