//! Searches the texts of statements for words that may change session state, and that no response of the server shows:
//! temporary objects (`TEMP`, `TEMPORARY`, `pg_temp`), `set_config`, and session-level advisory locks.
//!
//! A word is a maximal sequence of letters, digits, underscores and bytes of non-ASCII characters, in any letter case.
//! `template` is therefore no match, nor is `pg_advisory_xact_lock`. Quotes and comments are not parsed, so a word in a
//! comment is a match too.
//!
//! The search is a single pass without allocation. Blocks without one of the pairs of letters that each of the words
//! contains are skipped; the compiler turns the comparison of a block into vector instructions. `aho-corasick` and
//! `memchr` were considered: the vector search of the former is case-sensitive, and its automaton takes more time for
//! each byte; the latter searches for at most three bytes, and each of the letters is frequent in SQL.

/// The effect of a statement on session state, as far as its text shows.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum TextEffect {
    /// The text contains none of the words.
    #[default]
    None,
    /// The text contains none of the words, and each `SET` in it is a `SET LOCAL` or a `SET TRANSACTION`, whose effect
    /// ends with the transaction. The command tag is `SET`, like that of a `SET` for the session.
    LocalSet,
    /// The text contains one of the words.
    Changes,
}

/// Maximum number of bytes of a message that are searched. A longer text counts as one that contains a word.
const MAX_SEARCHED: usize = 256 << 10;

/// The words, in lower case.
const WORDS: [&[u8]; 8] = [
    b"temp",
    b"temporary",
    PG_TEMP,
    SET_CONFIG,
    b"pg_advisory_lock",
    b"pg_advisory_lock_shared",
    b"pg_try_advisory_lock",
    b"pg_try_advisory_lock_shared",
];
const PG_TEMP: &[u8] = b"pg_temp";
const SET_CONFIG: &[u8] = b"set_config";

/// Length of the longest word.
const LONGEST: usize = 27;
const _: () = assert!(WORDS[7].len() == LONGEST);

/// Number of pairs of letters that are compared together.
const BLOCK: usize = 32;

#[inline]
fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Returns true for the pairs of which each word contains one: `mp`, `t_` and `y_`.
#[inline]
fn is_pair(first: u8, second: u8) -> bool {
    const UNDERSCORE: u8 = b'_' | 0x20;
    let (first, second) = (first | 0x20, second | 0x20);
    // Without short-circuit evaluation, so that the compiler can vectorize a loop.
    (first == b'm') & (second == b'p') | (second == UNDERSCORE) & ((first == b't') | (first == b'y'))
}

fn is_listed(word: &[u8]) -> bool {
    // The temporary schema of a session also has a name with a number, such as `pg_temp_3`.
    let is_temp_schema = || word.len() > PG_TEMP.len() && word[PG_TEMP.len()] == b'_' && starts_with(word, PG_TEMP);
    WORDS.iter().any(|listed| listed.eq_ignore_ascii_case(word)) || is_temp_schema()
}

fn starts_with(text: &[u8], word: &[u8]) -> bool {
    text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
}

/// Returns true if the text contains a listed word. Calls of `set_config` with local effect are no match if `whole` is
/// true.
fn contains_word(text: &[u8], whole: bool) -> bool {
    let pairs = text.len().saturating_sub(1);
    let (mut start, mut word_end) = (0, 0);
    while start < pairs {
        let end = (start + BLOCK).min(pairs);
        let may_match = match text.get(start..=start + BLOCK).and_then(|block| <&[u8; BLOCK + 1]>::try_from(block).ok())
        {
            Some(block) => block_may_match(block),
            None => true,
        };
        if may_match {
            for at in start..end {
                if at >= word_end && is_pair(text[at], text[at + 1]) {
                    let word_start = text[..at].iter().rposition(|&byte| !is_word_byte(byte)).map_or(0, |at| at + 1);
                    word_end = at + text[at..].iter().position(|&byte| !is_word_byte(byte)).unwrap_or(text.len() - at);
                    let word = &text[word_start..word_end];
                    let is_local = || SET_CONFIG.eq_ignore_ascii_case(word) && is_local_call(&text[word_end..]);
                    if is_listed(word) && !(whole && is_local()) {
                        return true;
                    }
                }
            }
        }
        start = end;
    }
    false
}

#[inline]
fn block_may_match(block: &[u8; BLOCK + 1]) -> bool {
    let mut found = false;
    for at in 0..BLOCK {
        found |= is_pair(block[at], block[at + 1]);
    }
    found
}

/// Returns true if `arguments`, the text after `set_config`, starts with the arguments of a call whose effect ends with
/// the transaction: two string literals or parameters, and `true`.
fn is_local_call(arguments: &[u8]) -> bool {
    fn token<'a>(text: &'a [u8], token: &[u8]) -> Option<&'a [u8]> {
        text.trim_ascii_start().strip_prefix(token)
    }
    /// Skips a string literal or a parameter, which may be followed by a cast.
    fn argument(text: &[u8]) -> Option<&[u8]> {
        let text = text.trim_ascii_start();
        let rest = if let Some(literal) = text.strip_prefix(b"'") {
            let end = literal.iter().position(|byte| matches!(byte, b'\'' | b'\\'))?;
            literal[end..].strip_prefix(b"'")?
        } else {
            skip_word(text.strip_prefix(b"$")?)
        };
        Some(rest.strip_prefix(b"::").map_or(rest, skip_word))
    }
    fn skip_word(text: &[u8]) -> &[u8] {
        &text[text.iter().position(|&byte| !is_word_byte(byte)).unwrap_or(text.len())..]
    }
    let is_local = || {
        let rest = argument(token(arguments, b"(")?)?;
        let rest = token(argument(token(rest, b",")?)?, b",")?.trim_ascii_start();
        token(&rest[rest.len().min(4)..], b")")?;
        Some(starts_with(rest, b"true"))
    };
    is_local() == Some(true)
}

/// Returns true if the text contains the word `SET`, and each such word begins a `SET LOCAL` or a `SET TRANSACTION`, so
/// that each completed `SET` was one of these. Only texts that start with a `SET` or with the start of a transaction
/// are searched.
fn has_only_local_sets(text: &[u8]) -> bool {
    let starts = [&b"SET"[..], b"BEGIN", b"START"];
    if !starts.iter().any(|start| starts_with(text.trim_ascii_start(), start)) {
        return false;
    }
    let (mut at, mut found) = (0, false);
    while let Some(start) = text[at..].iter().position(|&byte| is_word_byte(byte)) {
        let start = at + start;
        at = start + text[start..].iter().position(|&byte| !is_word_byte(byte)).unwrap_or(text.len() - start);
        if text[start..at].eq_ignore_ascii_case(b"SET") {
            if !is_local_set(&text[at..]) {
                return false;
            }
            found = true;
        }
    }
    found
}

/// Returns true if `rest`, the text after `SET`, starts with `LOCAL` or `TRANSACTION`, and a name. `SET local.name`
/// sets a parameter for the session.
fn is_local_set(rest: &[u8]) -> bool {
    fn after_space(text: &[u8]) -> Option<&[u8]> {
        text.first()?.is_ascii_whitespace().then(|| text.trim_ascii_start())
    }
    let name = after_space(rest).and_then(|rest| {
        let words = [&b"LOCAL"[..], b"TRANSACTION"];
        let word = words.into_iter().find(|word| starts_with(rest, word))?;
        after_space(&rest[word.len()..])
    });
    name.and_then(|name| name.first()).is_some_and(|&byte| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'"'))
}

/// Returns the effect of a text, which may consist of several statements.
pub(super) fn effect_of(text: &[u8]) -> TextEffect {
    if text.len() > MAX_SEARCHED || contains_word(text, true) {
        TextEffect::Changes
    } else if has_only_local_sets(text) {
        TextEffect::LocalSet
    } else {
        TextEffect::None
    }
}

/// A search of a text that arrives in several parts. Statements with local effect are not recognized as such.
#[derive(Debug)]
pub(super) struct PartialSearch {
    /// The start of the word at the end of the parts so far.
    word: [u8; LONGEST + 1],
    word_len: usize,
    searched: usize,
    found: bool,
}

impl PartialSearch {
    pub(super) fn new() -> Self {
        Self { word: [0; LONGEST + 1], word_len: 0, searched: 0, found: false }
    }

    pub(super) fn add(&mut self, mut part: &[u8]) {
        self.searched = self.searched.saturating_add(part.len());
        if self.found || self.searched > MAX_SEARCHED {
            self.found = true;
            return;
        }
        if self.word_len > 0 {
            let end = part.iter().position(|&byte| !is_word_byte(byte)).unwrap_or(part.len());
            self.extend_word(&part[..end]);
            part = &part[end..];
            if part.is_empty() {
                return;
            }
            self.end_word();
        }
        let last = part.iter().rposition(|&byte| !is_word_byte(byte)).map_or(0, |at| at + 1);
        self.found |= contains_word(&part[..last], false);
        self.extend_word(&part[last..]);
    }

    /// Returns the effect of the whole text.
    pub(super) fn finish(&mut self) -> TextEffect {
        self.end_word();
        if self.found { TextEffect::Changes } else { TextEffect::None }
    }

    /// Adds bytes to the word at the end. A word that is too long is truncated after more bytes than the longest listed
    /// word has.
    fn extend_word(&mut self, bytes: &[u8]) {
        let taken = bytes.len().min(self.word.len() - self.word_len);
        self.word[self.word_len..self.word_len + taken].copy_from_slice(&bytes[..taken]);
        self.word_len += taken;
    }

    fn end_word(&mut self) {
        self.found |= is_listed(&self.word[..self.word_len]);
        self.word_len = 0;
    }
}

#[cfg(test)]
mod tests;
