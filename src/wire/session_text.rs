//! Searches the texts of statements for words that may change session state, and that no response of the server shows:
//! temporary objects (`TEMP`, `TEMPORARY`, `pg_temp`), `set_config`, and session-level advisory locks. `TEMP` and
//! `TEMPORARY` are frequent names of columns, so they count only beside `CREATE` or `INTO`.
//!
//! A `CALL` or `DO` as the only statement can commit a change and then fail, so that its command tag does not show the
//! change. It is recognized as the first word of a text.
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
    TEMPORARY[0],
    TEMPORARY[1],
    PG_TEMP,
    SET_CONFIG,
    b"pg_advisory_lock",
    b"pg_advisory_lock_shared",
    b"pg_try_advisory_lock",
    b"pg_try_advisory_lock_shared",
];
const TEMPORARY: [&[u8]; 2] = [b"temp", b"temporary"];
/// The words of which each statement that creates a temporary object contains one.
const CREATE: [&[u8]; 2] = [b"create", b"into"];
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

fn is_one_of(word: &[u8], words: &[&[u8]]) -> bool {
    words.iter().any(|listed| listed.eq_ignore_ascii_case(word))
}

/// Returns true if the text contains the word `CREATE` or `INTO`.
fn may_create(text: &[u8]) -> bool {
    text.split(|&byte| !is_word_byte(byte)).any(|word| is_one_of(word, &CREATE))
}

fn is_listed(word: &[u8]) -> bool {
    // The temporary schema of a session also has a name with a number, such as `pg_temp_3`.
    let is_temp_schema = || word.len() > PG_TEMP.len() && word[PG_TEMP.len()] == b'_' && starts_with(word, PG_TEMP);
    is_one_of(word, &WORDS) || is_temp_schema()
}

fn starts_with(text: &[u8], word: &[u8]) -> bool {
    text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
}

/// The listed words in a text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Found {
    Nothing,
    /// `TEMP` or `TEMPORARY`, and no other word.
    Temporary,
    Other,
}

/// Returns which listed words the text contains. Calls of `set_config` with local effect are no match if `whole` is
/// true.
fn find_words(text: &[u8], whole: bool) -> Found {
    let pairs = text.len().saturating_sub(1);
    let mut found = Found::Nothing;
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
                    if is_one_of(word, &TEMPORARY) {
                        found = Found::Temporary;
                    } else if is_listed(word) && !(whole && is_local()) {
                        return Found::Other;
                    }
                }
            }
        }
        start = end;
    }
    found
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

/// Returns the first word of a text, after spaces, comments and empty statements. Returns `None` if the text ends
/// before the end of this word.
fn first_word(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        text = &text[text.iter().position(|byte| !matches!(byte, b' ' | b'\t'..=b'\r' | b';'))?..];
        text = if text.starts_with(b"--") {
            &text[text.iter().position(|byte| matches!(byte, b'\n' | b'\r'))?..]
        } else if text.starts_with(b"/*") {
            after_comment(text)?
        } else {
            return Some(&text[..text.iter().position(|&byte| !is_word_byte(byte))?]);
        };
    }
}

/// Returns the text after the comment at its start, which may contain comments.
fn after_comment(mut text: &[u8]) -> Option<&[u8]> {
    let mut depth = 0_usize;
    loop {
        let length;
        (depth, length) = match text.get(..2)? {
            b"/*" => (depth + 1, 2),
            b"*/" => (depth - 1, 2),
            _ => (depth, 1),
        };
        text = &text[length..];
        if depth == 0 {
            return Some(text);
        }
    }
}

fn is_block(word: &[u8]) -> bool {
    is_one_of(word, &[b"call", b"do"])
}

/// Returns true if the text whose start this is may be a `CALL` or a `DO`.
pub(super) fn may_run_block(start: &[u8]) -> bool {
    first_word(start).is_none_or(is_block)
}

/// Returns the effect of a text, which may consist of several statements.
pub(super) fn effect_of(text: &[u8]) -> TextEffect {
    let changes = || match find_words(text, true) {
        Found::Nothing => false,
        Found::Temporary => may_create(text),
        Found::Other => true,
    };
    if text.len() > MAX_SEARCHED || first_word(text).is_some_and(is_block) || changes() {
        TextEffect::Changes
    } else if has_only_local_sets(text) {
        TextEffect::LocalSet
    } else {
        TextEffect::None
    }
}

/// A search for the words in a text that arrives in several parts. Statements with local effect are not recognized as
/// such.
#[derive(Debug)]
pub(super) struct PartialSearch {
    /// The start of the word at the end of the parts so far.
    word: [u8; LONGEST + 1],
    word_len: usize,
    searched: usize,
    found: bool,
    /// True if a part contains `TEMP` or `TEMPORARY`.
    temporary: bool,
    /// True if a part contains `CREATE` or `INTO`.
    creates: bool,
}

impl PartialSearch {
    pub(super) fn new() -> Self {
        Self { word: [0; LONGEST + 1], word_len: 0, searched: 0, found: false, temporary: false, creates: false }
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
        self.search(&part[..last]);
        self.extend_word(&part[last..]);
    }

    /// Returns the effect of the whole text.
    pub(super) fn finish(&mut self) -> TextEffect {
        self.end_word();
        if self.found || self.temporary && self.creates { TextEffect::Changes } else { TextEffect::None }
    }

    /// Adds bytes to the word at the end. A word that is too long is truncated after more bytes than the longest listed
    /// word has.
    fn extend_word(&mut self, bytes: &[u8]) {
        let taken = bytes.len().min(self.word.len() - self.word_len);
        self.word[self.word_len..self.word_len + taken].copy_from_slice(&bytes[..taken]);
        self.word_len += taken;
    }

    fn end_word(&mut self) {
        let word = self.word;
        self.search(&word[..self.word_len]);
        self.word_len = 0;
    }

    /// Searches words that end with the text.
    fn search(&mut self, text: &[u8]) {
        match find_words(text, false) {
            Found::Nothing => {}
            Found::Temporary => self.temporary = true,
            Found::Other => self.found = true,
        }
        self.creates = self.creates || may_create(text);
    }
}

#[cfg(test)]
mod tests;
