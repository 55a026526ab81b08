//! The names of criteria: those that are known, and those that are known elsewhere.

use super::Name;
use crate::document::{Entry, Mistake};

const OPERATORS: [&str; 4] = ["and", "or", "not", "nor"];

/// The criterion that a key names, and what follows its first `/`, the case of that kept.
pub(crate) fn parse_name(entry: &Entry) -> Result<(Name, Option<&str>), Mistake> {
    let (written, sub_path) = match entry.key.split_once('/') {
        Some((name, sub_path)) => (name, Some(sub_path)),
        None => (entry.key.as_str(), None),
    };
    let lower = written.to_ascii_lowercase();
    let Some(name) = Name::ALL.iter().copied().find(|name| name.as_str() == lower) else {
        return Err(unknown(entry, written, &lower));
    };
    let at = |message: String| Err(Mistake::at(entry.key_place, message));
    match (name, sub_path) {
        (Name::Claim, None | Some("")) => at("`claim` needs the name of the claim".to_owned())
            .map_err(|mistake| mistake.hint("write `claim/NAME: value`")),
        (Name::Claim, Some(_)) | (_, None) => Ok((name, sub_path)),
        (_, Some(_)) => at(format!("`{written}` takes nothing after a `/`"))
            .map_err(|mistake| mistake.hint(format!("write `{written}: value`, or `claim/NAME: value` for a claim"))),
    }
}

fn unknown(entry: &Entry, written: &str, lower: &str) -> Mistake {
    if OPERATORS.contains(&lower) {
        return Mistake::at(
            entry.key_place,
            format!("`{written}` stands where a criterion must: operators do not nest"),
        )
        .hint("write it as a rule of its own; all allow rules are joined by `or`, and so are all deny rules");
    }
    if lower == "pomerium_routes" {
        return Mistake::at(entry.key_place, "criterion `pomerium_routes` no longer exists")
            .hint("remove it: the paths of Postern itself pass without any policy");
    }
    Mistake::at(entry.key_place, format!("unknown criterion `{written}`"))
        .hint_nearest(written, known(), || format!("write one of {}", known().join(", ")))
}

fn known() -> Vec<&'static str> {
    Name::ALL.iter().map(|name| name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Node, Place};

    fn entry(key: &str) -> Entry {
        let value = Node::from_json(serde_json::Value::Null);
        Entry { key: key.to_owned(), key_place: Place { line: 2, column: 3, length: 4 }, value }
    }

    fn mistake(key: &str) -> (String, String) {
        let mistake = parse_name(&entry(key)).unwrap_err();
        assert_eq!(mistake.place.line, 2);
        (mistake.message, mistake.hint.unwrap_or_default())
    }

    #[test]
    fn names_are_known_in_any_case_and_claims_keep_theirs() {
        for name in Name::ALL.iter().copied().filter(|name| *name != Name::Claim) {
            assert_eq!(parse_name(&entry(&name.as_str().to_uppercase())), Ok((name, None)));
        }
        assert_eq!(parse_name(&entry("Claim/Dept/Unit")), Ok((Name::Claim, Some("Dept/Unit"))));
    }

    #[test]
    fn a_name_that_is_not_known_is_told_what_was_probably_meant() {
        assert_eq!(mistake("pomerium_routes").0, "criterion `pomerium_routes` no longer exists");
        assert_eq!(mistake("emial"), ("unknown criterion `emial`".to_owned(), "did you mean `email`?".to_owned()));
        assert_eq!(mistake("devise").1, "did you mean `device`?");
        assert!(mistake("colour").1.starts_with("write one of accept, reject"));
        assert!(mistake("or").0.contains("operators do not nest"));
    }

    #[test]
    fn only_a_claim_takes_a_name_and_it_must_have_one() {
        assert_eq!(mistake("claim").1, "write `claim/NAME: value`");
        assert_eq!(mistake("claim/").1, "write `claim/NAME: value`");
        assert_eq!(mistake("email/work").0, "`email` takes nothing after a `/`");
    }
}
