//! Words that several users have in common, each kept once: names of claims, groups, identity providers. What only one of them
//! says is no word, so nobody can fill the vocabulary alone, and what is said of one alone does not outlive their sessions here.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// A vocabulary that only grows, up to a bound; a session keeps a word itself that found no place here. A word is read
/// without a lock, and stays what it is.
pub struct Words {
    /// Each is made when its first word comes, and filled in order.
    chunks: Box<[OnceLock<Chunk>]>,
    /// Who adds a word holds this.
    numbers: Mutex<Numbers>,
}

type Chunk = Box<[OnceLock<Arc<str>>]>;

#[derive(Default)]
struct Numbers {
    of: HashMap<Arc<str>, usize>,
    bytes: usize,
    /// By the hash of a text, the rest of that and the hash of who said it last.
    heard: HashMap<u16, ([u8; 6], [u8; 4])>,
    hasher: RandomState,
}

impl Words {
    /// The number of a word. It becomes one when a second user says it, if there is room.
    pub(crate) fn number(&self, word: &str, user: &str) -> Option<usize> {
        if word.len() > LONGEST {
            return None;
        }
        let numbers = &mut *self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = numbers.of.get(word) {
            return Some(*number);
        }
        let [word_hash, user_hash] = [word, user].map(|text| numbers.hasher.hash_one(text).to_be_bytes());
        let ([a, b, rest @ ..], [.., c, d, e, f]) = (word_hash, user_hash);
        let heard = numbers.heard.insert(u16::from_be_bytes([a, b]), (rest, [c, d, e, f]));
        if heard.is_none_or(|(text, who)| text != rest || who == [c, d, e, f]) {
            return None;
        }
        let (number, bytes) = (numbers.of.len(), numbers.bytes + word.len());
        let chunk = self.chunks.get(number / CHUNK).filter(|_| bytes <= MAX_BYTES)?;
        let chunk = chunk.get_or_init(|| (0..CHUNK).map(|_| OnceLock::new()).collect());
        let word: Arc<str> = word.into();
        chunk.get(number % CHUNK)?.set(Arc::clone(&word)).ok()?;
        numbers.of.insert(word, number);
        numbers.bytes = bytes;
        Some(number)
    }

    /// The word of a number.
    #[inline]
    pub(crate) fn word(&self, number: usize) -> Option<&str> {
        self.chunks.get(number / CHUNK)?.get()?.get(number % CHUNK)?.get().map(|word| &**word)
    }
}

impl Default for Words {
    fn default() -> Self {
        Self { chunks: (0..MAX_WORDS / CHUNK).map(|_| OnceLock::new()).collect(), numbers: Mutex::default() }
    }
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Words").finish_non_exhaustive()
    }
}

const MAX_WORDS: usize = 65_536;
const CHUNK: usize = 1_024;
/// Of all words. With what it takes to find them, 10 MiB at most.
const MAX_BYTES: usize = 4 << 20;
/// A longer text is hardly said of many.
const LONGEST: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn said_by_two(words: &Words, word: &str) -> Option<usize> {
        let _heard = words.number(word, "alice");
        words.number(word, "bob")
    }

    #[test]
    fn a_word_has_one_number_and_the_number_one_word() {
        let words = Words::default();
        let numbers = ["staff", "", "staff", "ops"].map(|word| said_by_two(&words, word));
        assert_eq!(numbers, [Some(0), Some(1), Some(0), Some(2)]);
        assert_eq!([0, 1, 2, 3].map(|number| words.word(number)), [Some("staff"), Some(""), Some("ops"), None]);
    }

    #[test]
    fn r_004_what_one_user_says_is_no_word_however_often() {
        let words = Words::default();
        for _ in 0..3 {
            assert_eq!((0..1_000).find_map(|number: u32| words.number(&number.to_string(), "mallory")), None);
        }
        assert_eq!(
            (words.number("7", "mallory"), words.number("7", "alice")),
            (None, Some(0)),
            "what another one says too"
        );
        assert_eq!(words.number("7", "mallory"), Some(0));
    }

    #[test]
    fn r_004_the_vocabulary_ends_at_its_bound_and_keeps_what_it_has() {
        let words = Words::default();
        let count = (0..).find(|number: &usize| said_by_two(&words, &number.to_string()).is_none()).unwrap();
        assert_eq!(count, MAX_WORDS);
        assert_eq!((words.number("7", "alice"), words.word(count - 1)), (Some(7), Some("65535")));

        let words = Words::default();
        let long = |number: usize| format!("{number:0>LONGEST$}");
        let count = (0..).find(|number| said_by_two(&words, &long(*number)).is_none()).unwrap();
        assert_eq!(count, MAX_BYTES / LONGEST);
        assert_eq!(words.number(&long(count - 1), "alice"), Some(count - 1));
        assert_eq!(said_by_two(&Words::default(), &format!("{}x", long(0))), None, "nor is a long text a word");
    }
}
