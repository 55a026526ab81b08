//! Hosts with `*`, each of which stands for any text, dots included (01 §2.2).

/// Whether `pattern` is this name, from end to end.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(head) else { return false };
    if let Some((middle, _)) = rest.rsplit_once('*') {
        // What stands between two stars may be taken where it is first found: no later place leaves more for the others.
        for part in middle.split('*') {
            let Some((_, behind)) = left.split_once(part) else { return false };
            left = behind;
        }
    }
    left.ends_with(tail(pattern))
}

/// What stands behind the last star; every name that matches ends in it.
pub(super) fn tail(pattern: &str) -> &str {
    pattern.rsplit_once('*').map_or(pattern, |(_, tail)| tail)
}
