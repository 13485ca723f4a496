//! Helpers for error messages: lists of accepted keywords, the closest match for a misspelled name, and excerpts of the
//! received text.

use crate::error::ConfigError;

/// Maximum length of an excerpt, in characters. Longer input is truncated.
const MAX_EXCERPT: usize = 64;

/// Returns the error for a value that is not one of `keywords`. The error lists the keywords and the closest match.
pub(super) fn unknown_keyword(parameter: &'static str, keywords: &[&str], received: &str) -> ConfigError {
    let all = keywords.iter().map(|keyword| format!("`{keyword}`")).collect::<Vec<_>>().join(", ");
    let closest = closest(received, keywords.iter().copied()).unwrap_or_default();
    ConfigError::new(parameter, format!("one of {all} (closest match: `{closest}`)")).got(excerpt(received))
}

/// Returns the known name with the smallest [`distance`] from `name`. If several are equally close, returns the first.
pub(super) fn closest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known.into_iter().min_by_key(|known| distance(name, known))
}

/// Returns the edit distance between `name` in lower case and a known name. A transposition counts as one edit.
pub(super) fn distance(name: &str, known: &str) -> usize {
    let name: String = name.chars().take(MAX_EXCERPT).flat_map(char::to_lowercase).collect();
    strsim::osa_distance(&name, known)
}

/// Returns the first [`MAX_EXCERPT`] characters of `text`, with control characters escaped, so that a log line that
/// contains the excerpt stays on one line.
pub(super) fn excerpt(text: &str) -> String {
    let mut out: String = text.chars().take(MAX_EXCERPT).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_EXCERPT).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_closest_name() {
        let known = ["acquire_timeout", "pool_size", "port", "user"];
        assert_eq!(closest("prot", known), Some("port"));
        assert_eq!(closest("poolsize", known), Some("pool_size"));
        assert_eq!(closest("AQUIRE_TIMEOUT", known), Some("acquire_timeout"));
        assert_eq!(closest("x", []), None);
    }

    #[test]
    fn excerpts_are_truncated_and_escaped() {
        assert_eq!(excerpt("two\nlines"), "two\\nlines");
        assert_eq!(excerpt(&"x".repeat(64)), "x".repeat(64));
        assert_eq!(excerpt(&"x".repeat(65)), format!("{}…", "x".repeat(64)));
    }
}
