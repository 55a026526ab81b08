//! The lines of the file as snippets may show them: without secrets (S-108).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use postern_policy::document::{Node, Value};

use super::keys;
use super::value::without_userinfo;

const MASK: &str = "[redacted]";

/// How many bytes may be looked at for copies of secrets, each line once for each secret. Where it takes more, no line is shown.
const MAX_SEARCH: usize = 1 << 30;

/// The `wanted` lines of `text`, from 1, with the values of secret keys masked. Of a text that was not understood (no `root`)
/// nobody knows what is secret in it: no line of it is shown.
pub(super) fn lines(text: &str, root: Option<&Node>, wanted: &BTreeSet<u32>) -> BTreeMap<u32, String> {
    let Some(root) = root.filter(|_| !wanted.is_empty()) else { return BTreeMap::new() };
    let mut secrets = Secrets::default();
    secrets.gather(root, false, &mut Keys::default());
    let kept: Vec<(u32, &str)> = (1..).zip(split(text)).filter(|(number, _)| wanted.contains(number)).collect();
    let length: usize = kept.iter().map(|(_, line)| line.len()).sum();
    if length.saturating_mul(secrets.parts.len()) > MAX_SEARCH {
        return BTreeMap::new();
    }
    let shown = |number, line| without_userinfo(&secrets.mask(number, mask_line(line))).into_owned();
    kept.into_iter().map(|(number, line)| (number, shown(number, line))).collect()
}

/// Which keys are secret, misspelt ones included.
#[derive(Default)]
struct Keys<'n>(HashMap<&'n str, bool>);

/// So many unknown keys are compared with the secret ones; the others are taken for misspelt secrets.
const MAX_SEARCHES: usize = 1000;

impl<'n> Keys<'n> {
    fn is_secret(&mut self, key: &'n str) -> bool {
        if let Some(known) = self.0.get(key) {
            return *known;
        }
        let secret = keys::is_secret(key)
            || (!keys::is_known(key) && (self.0.len() >= MAX_SEARCHES || keys::is_like_a_secret(key)));
        self.0.insert(key, secret);
        secret
    }
}

/// Lines as YAML ends them: by a line feed, a carriage return, or both.
fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

/// Masks what follows a secret key on its own line, and whatever looks like the body of a key.
fn mask_line(line: &str) -> String {
    let body = line.trim();
    let base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '-' | '_');
    if body.len() >= 40 && body.chars().all(base64) {
        return line.replace(body, MASK);
    }
    let mut rest = line;
    while let Some((before, after)) = rest.split_once([':', '=']) {
        let key =
            before.trim_end_matches(['"', '\'', ' ']).rsplit([' ', '{', ',', '"', '\'']).next().unwrap_or_default();
        if keys::is_secret(key) && !after.trim().is_empty() {
            let kept = line.len() - after.len();
            return format!("{} {MASK}", line.get(..kept).unwrap_or_default());
        }
        rest = after;
    }
    line.to_owned()
}

/// What no line may show.
#[derive(Default)]
struct Secrets<'n> {
    /// From which column on each line is secret.
    begin: BTreeMap<u32, u32>,
    /// The lines of all secrets, trimmed.
    parts: HashSet<&'n str>,
}

impl<'n> Secrets<'n> {
    /// Takes every scalar under a secret key, wherever it stands.
    fn gather(&mut self, node: &'n Node, secret: bool, keys: &mut Keys<'n>) {
        match &node.value {
            Value::Map(entries) => {
                for entry in entries {
                    let secret = secret || keys.is_secret(&entry.key);
                    self.gather(&entry.value, secret, keys);
                }
            }
            Value::List(nodes) => nodes.iter().for_each(|node| self.gather(node, secret, keys)),
            Value::String(text) | Value::Number { text, .. } if secret => {
                let begin = self.begin.entry(node.place.line).or_insert(node.place.column);
                *begin = node.place.column.min(*begin);
                self.parts.extend(text.lines().map(str::trim).filter(|part| !part.is_empty()));
            }
            Value::Null | Value::Bool(_) | Value::Number { .. } | Value::String(_) => {}
        }
    }

    fn mask(&self, number: u32, mut line: String) -> String {
        if let Some(column) = self.begin.get(&number) {
            let before = usize::try_from(*column).unwrap_or(1).saturating_sub(1);
            if let Some((end, _)) = line.char_indices().nth(before) {
                line.truncate(end);
                line.push_str(MASK);
            }
        }
        // A text of several lines goes on below.
        if self.parts.contains(line.trim()) {
            return MASK.to_owned();
        }
        // An alias, a merge key or another key shows the same value elsewhere.
        for part in self.parts.iter().filter(|part| part.len() >= 6) {
            if line.contains(part) {
                line = line.replace(part, MASK);
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use postern_policy::document;

    use super::*;

    fn shown(text: &str) -> String {
        let root = document::read(text).ok();
        let all = (1..=64).collect();
        lines(text, root.as_ref(), &all).into_values().collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn s_108_no_snippet_shows_a_secret() {
        for text in [
            "shared_secret: hunter22\naddress: :80",
            "{idp_client_secret: hunter22, address: ':80'}",
            "signing_key: |\n  hunter22\n  hunter22\n",
            "idp_client_secret: &s hunter22\nname: hunter22",
            "routes:\n  - set_request_headers: {Authorization: Bearer hunter22}",
            "Shared_Secret:\n  hunter22",
            "'cookie_secret' : hunter22",
            "databroker_storage_connection_string: redis://:hunter22@host",
        ] {
            assert!(!shown(text).contains("hunter22"), "{}", shown(text));
        }
    }

    #[test]
    fn s_108_a_text_that_was_not_understood_is_not_shown() {
        assert!(lines("shared_secret: \"hunter22\nbroken: [", None, &(1..=2).collect()).is_empty());
    }

    #[test]
    fn what_is_no_secret_is_shown() {
        let text = "address: :443\nshared_secret_file: /run/secret\ncookie_name: biscuit";
        assert_eq!(shown(text), text);
    }

    #[test]
    fn only_the_lines_that_are_wanted_are_kept_however_lines_end() {
        let text = "a: 1\r\nb: 2\rc: 3\nd: 4\n";
        let kept = lines(text, document::read(text).ok().as_ref(), &BTreeSet::from([2, 3]));
        assert_eq!(kept, BTreeMap::from([(2, "b: 2".to_owned()), (3, "c: 3".to_owned())]));
    }

    #[test]
    fn where_too_much_is_secret_no_line_is_shown() {
        let secrets: String = (0..20_000).map(|number| format!("  x{number}_secret: hunter{number}\n")).collect();
        let text = format!("map:\n{secrets}last: {}", "x".repeat(60_000));
        let root = document::read(&text).unwrap();
        assert!(lines(&text, Some(&root), &BTreeSet::from([20_002])).is_empty());
        assert_eq!(lines(&text, Some(&root), &BTreeSet::from([1])).len(), 1);
    }
}
