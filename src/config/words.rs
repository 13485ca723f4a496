//! Words in messages: the nearest known one, lists of them, and text of others cut to a safe length.

use crate::error::ConfigError;

/// The most characters of somebody else's text that a message repeats.
const ECHO: usize = 64;

/// The error for a value that has to be one of `known`: names all of them and the nearest.
pub(super) fn unknown(parameter: &'static str, known: &[&str], got: &str) -> ConfigError {
    let all = known.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    let nearest = nearest(got, known).unwrap_or_default();
    ConfigError::new(parameter, format!("one of {all}; the nearest is `{nearest}`")).got(clip(got))
}

/// The known word that takes the fewest edits to reach; the first of several. `None` only where none is known.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word: Vec<char> = word.chars().take(ECHO).flat_map(char::to_lowercase).collect();
    known.iter().copied().min_by_key(|known| distance(&word, known))
}

/// `text` in at most [`ECHO`] characters, with control characters escaped, so that a message stays one line of a log.
pub(super) fn clip(text: &str) -> String {
    let mut out: String = text.chars().take(ECHO).flat_map(char::escape_debug).collect();
    if text.chars().nth(ECHO).is_some() {
        out.push('…');
    }
    out
}

/// Levenshtein's distance, one row at a time: insertions, deletions and substitutions each count one.
fn distance(from: &[char], to: &str) -> usize {
    let mut row: Vec<usize> = (0..=from.len()).collect();
    for (i, b) in to.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, a) in from.iter().enumerate() {
            let substituted = diagonal + usize::from(*a != b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[from.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edits(a: &str, b: &str) -> usize {
        distance(&a.chars().collect::<Vec<_>>(), b)
    }

    #[test]
    fn counts_edits() {
        assert_eq!(edits("", ""), 0);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("abc", ""), 3);
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("pool_size", "pool_size"), 0);
    }

    #[test]
    fn finds_the_nearest_word() {
        let known = ["acquire_timeout", "pool_size", "port"];
        assert_eq!(nearest("poolsize", &known), Some("pool_size"));
        assert_eq!(nearest("AQUIRE_TIMEOUT", &known), Some("acquire_timeout"));
        assert_eq!(nearest("x", &[]), None);
    }

    #[test]
    fn clips_and_escapes() {
        assert_eq!(clip("two\nlines"), "two\\nlines");
        assert_eq!(clip(&"x".repeat(64)), "x".repeat(64));
        assert_eq!(clip(&"x".repeat(65)), format!("{}…", "x".repeat(64)));
    }
}
