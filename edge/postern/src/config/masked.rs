//! The lines of the file as snippets may show them: without secrets (S-108).

use postern_policy::document::{Node, Value};

use super::keys;

const MASK: &str = "[redacted]";

/// The lines of `text`; values of secret keys are masked, by place where the document was understood, by line where not.
pub(super) fn lines(text: &str, root: Option<&Node>) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(mask_line).collect();
    if let Some(root) = root {
        mask_node(&mut lines, root, false);
    }
    lines
}

/// Masks what follows a secret key on its own line, and whatever looks like the body of a key.
fn mask_line(line: &str) -> String {
    let body = line.trim();
    let base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '-' | '_');
    if body.len() >= 40 && body.chars().all(base64) {
        return line.replace(body, MASK);
    }
    let mut rest = line;
    while let Some((before, after)) = rest.split_once(':') {
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

/// Masks every scalar under a secret key, wherever it stands.
fn mask_node(lines: &mut [String], node: &Node, secret: bool) {
    match &node.value {
        Value::Map(entries) => {
            entries.iter().for_each(|entry| mask_node(lines, &entry.value, secret || keys::is_secret(&entry.key)));
        }
        Value::List(nodes) => nodes.iter().for_each(|node| mask_node(lines, node, secret)),
        Value::String(text) if secret => mask_text(lines, node, text),
        Value::Number { text, .. } if secret => mask_text(lines, node, text),
        Value::Null | Value::Bool(_) | Value::Number { .. } | Value::String(_) => {}
    }
}

fn mask_text(lines: &mut [String], node: &Node, text: &str) {
    let first = usize::try_from(node.place.line).unwrap_or(usize::MAX).saturating_sub(1);
    let column = usize::try_from(node.place.column).unwrap_or(1).saturating_sub(1);
    if let Some(line) = lines.get_mut(first) {
        let head: String = line.chars().take(column).collect();
        *line = format!("{head}{MASK}");
    }
    // A text of several lines: its further lines follow directly.
    let further = text.lines().count();
    for line in lines.iter_mut().skip(first + 1).take(further) {
        if text.lines().any(|part| !part.trim().is_empty() && line.trim() == part.trim()) {
            MASK.clone_into(line);
        }
    }
    // An alias or a merge key shows the same value elsewhere.
    for part in text.lines().map(str::trim).filter(|part| part.len() >= 6) {
        lines.iter_mut().filter(|line| line.contains(part)).for_each(|line| *line = line.replace(part, MASK));
    }
}

#[cfg(test)]
mod tests {
    use postern_policy::document;

    use super::*;

    fn shown(text: &str) -> String {
        let root = document::read(text).ok();
        lines(text, root.as_ref()).join("\n")
    }

    #[test]
    fn s_108_no_snippet_shows_a_secret() {
        for text in [
            "shared_secret: hunter22\naddress: :80",
            "{idp_client_secret: hunter22, address: ':80'}",
            "signing_key: |\n  hunter22\n  hunter22\n",
            "idp_client_secret: &s hunter22\nname: hunter22",
            "shared_secret: \"hunter22\nbroken: [",
            "routes:\n  - set_request_headers: {Authorization: Bearer hunter22}",
            "Shared_Secret:\n  hunter22",
            "'cookie_secret' : hunter22",
            "databroker_storage_connection_string: redis://:hunter22@host",
        ] {
            assert!(!shown(text).contains("hunter22"), "{}", shown(text));
        }
    }

    #[test]
    fn what_is_no_secret_is_shown() {
        let text = "address: :443\nshared_secret_file: /run/secret\ncookie_name: biscuit";
        assert_eq!(shown(text), text);
    }
}
