//! "Did you mean": the known word that is nearest to an unknown one.

/// The word among `known` that a typing mistake most likely turned into `word`; `None` if none is near.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.chars().flat_map(char::to_lowercase).take(MAX_LENGTH).collect();
    // In a short word two changes make another word.
    let allowed = if word.len() <= 5 { 1 } else { word.len().div_ceil(3).min(3) };
    let mut rows = Rows::default();
    let mut nearest = None;
    let mut less_than = allowed + 1;
    for candidate in known {
        if let Some(distance) = rows.distance(&word, candidate, less_than) {
            (nearest, less_than) = (Some(candidate), distance);
        }
    }
    nearest
}

/// Longer words are not compared in full: no key of ours is that long.
const MAX_LENGTH: usize = 64;

/// The last rows of the table that distances are counted in, kept for the next word.
#[derive(Default)]
struct Rows {
    before: Vec<usize>,
    last: Vec<usize>,
    next: Vec<usize>,
}

impl Rows {
    /// How many characters to insert, remove, replace or swap with their neighbour (optimal string alignment), if that is
    /// less than `limit`.
    fn distance(&mut self, from: &[char], to: &str, limit: usize) -> Option<usize> {
        // Each change makes a word longer or shorter by one at most.
        if to.chars().count().abs_diff(from.len()) >= limit {
            return None;
        }
        self.before.clear();
        self.last.clear();
        self.last.extend(0..=to.chars().count());
        let at = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX / 2);
        for (row, from_char) in from.iter().enumerate() {
            self.next.clear();
            self.next.push(row + 1);
            let mut to_before = None;
            for (column, to_char) in to.chars().enumerate() {
                let replaced = at(&self.last, column) + usize::from(*from_char != to_char);
                let mut least = replaced.min(at(&self.last, column + 1) + 1).min(at(&self.next, column) + 1);
                let from_before = row.checked_sub(1).and_then(|row| from.get(row));
                if from_before == Some(&to_char) && to_before == Some(*from_char) {
                    least = least.min(at(&self.before, column - 1) + 1);
                }
                self.next.push(least);
                to_before = Some(to_char);
            }
            if self.next.iter().chain(&self.last).all(|distance| *distance >= limit) {
                return None;
            }
            std::mem::swap(&mut self.before, &mut self.last);
            std::mem::swap(&mut self.last, &mut self.next);
        }
        self.last.last().copied().filter(|distance| *distance < limit)
    }
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
        assert_eq!(nearest("hosts", ["tests", "path"]), None);
        assert_eq!(nearest("auth", ["tests", "path"]), None);
    }

    #[test]
    fn distances_count_single_changes_and_swaps() {
        let distance = |from: &str, to| Rows::default().distance(&from.chars().collect::<Vec<_>>(), to, 9);
        for (from, to, changes) in [
            ("", "abc", 3),
            ("abc", "", 3),
            ("abc", "abc", 0),
            ("abcd", "acbd", 1),
            ("kitten", "sitting", 3),
            ("ca", "abc", 3),
        ] {
            assert_eq!(distance(from, to), Some(changes), "{from} {to}");
        }
        assert_eq!(distance("abcdefghijk", "zyxwvutsrqp"), None);
    }
}
