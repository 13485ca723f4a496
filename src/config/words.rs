//! Words in messages: the nearest known one, lists of them, and text of others cut to a safe length.

use crate::error::ConfigError;

/// The most characters of somebody else's text that a message repeats.
const ECHO: usize = 64;

/// The error for a value that has to be one of `known`: names all of them and the nearest.
pub(super) fn unknown(parameter: &'static str, known: &[&str], got: &str) -> ConfigError {
    let all = known.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    let nearest = nearest(got, known.iter().copied()).unwrap_or_default();
    ConfigError::new(parameter, format!("one of {all}; the nearest is `{nearest}`")).got(clip(got))
}

/// The known word that takes the fewest edits to reach, where two letters that changed places count as one; the first
/// of several. `None` only where none is known.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known.into_iter().min_by_key(|known| distance(word, known))
}

/// The edits that lead from a word to a known one, whatever its case.
pub(super) fn distance(word: &str, known: &str) -> usize {
    let word: String = word.chars().take(ECHO).flat_map(char::to_lowercase).collect();
    strsim::osa_distance(&word, known)
}

/// `text` in at most [`ECHO`] characters, with control characters escaped, so that a message stays one line of a log.
pub(super) fn clip(text: &str) -> String {
    let mut out: String = text.chars().take(ECHO).flat_map(char::escape_debug).collect();
    if text.chars().nth(ECHO).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_nearest_word() {
        let known = ["acquire_timeout", "pool_size", "port", "user"];
        assert_eq!(nearest("prot", known), Some("port"));
        assert_eq!(nearest("poolsize", known), Some("pool_size"));
        assert_eq!(nearest("AQUIRE_TIMEOUT", known), Some("acquire_timeout"));
        assert_eq!(nearest("x", []), None);
    }

    #[test]
    fn clips_and_escapes() {
        assert_eq!(clip("two\nlines"), "two\\nlines");
        assert_eq!(clip(&"x".repeat(64)), "x".repeat(64));
        assert_eq!(clip(&"x".repeat(65)), format!("{}…", "x".repeat(64)));
    }
}
