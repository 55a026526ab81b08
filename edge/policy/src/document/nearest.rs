//! "Did you mean": the known word that is nearest to an unknown one.

/// The word among `known` that a typing mistake most likely turned into `word`; `None` if none is near.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.chars().flat_map(char::to_lowercase).take(MAX_LENGTH).collect();
    let allowed = word.len().div_ceil(3).min(3);
    known
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.chars().collect::<Vec<_>>()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Longer words are not compared in full: no key of ours is that long.
const MAX_LENGTH: usize = 64;

/// How many characters to insert, remove, replace or swap with their neighbour (optimal string alignment).
fn distance(from: &[char], to: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (row, from_char) in from.iter().enumerate() {
        let mut next = vec![row + 1];
        for (column, to_char) in to.iter().enumerate() {
            let at = |line: &[usize], index: usize| line.get(index).copied().unwrap_or(usize::MAX / 2);
            let replaced = at(&last, column) + usize::from(from_char != to_char);
            let mut least = replaced.min(at(&last, column + 1) + 1).min(at(&next, column) + 1);
            let swapped =
                row > 0 && column > 0 && from.get(row - 1) == Some(to_char) && to.get(column - 1) == Some(from_char);
            if swapped {
                least = least.min(at(&before, column - 1) + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut last, next);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 4] = ["email", "domain", "groups", "source_ip"];

    #[test]
    fn a_typing_mistake_finds_its_word() {
        assert_eq!(nearest("emial", KNOWN), Some("email"));
        assert_eq!(nearest("Group", KNOWN), Some("groups"));
        assert_eq!(nearest("sourceip", KNOWN), Some("source_ip"));
    }

    #[test]
    fn a_word_that_is_near_to_none_finds_none() {
        assert_eq!(nearest("colour", KNOWN), None);
        assert_eq!(nearest("", KNOWN), None);
        assert_eq!(nearest("x", KNOWN), None);
    }
}
