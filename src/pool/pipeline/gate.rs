//! Decides from the text of a statement whether it may run on a connection that several callers share.
//!
//! Accepted is one statement that begins with one of the [`KEYWORDS`]. All others can open a transaction, change the
//! session for the other callers, or copy data. `SELECT … INTO` creates a table and is refused too.
//!
//! The text is split into tokens as the server's scanner does (PostgreSQL manual, "Lexical Structure"): nested
//! comments, quoted strings and identifiers, and dollar quotes are skipped. A token that does not end is skipped up to
//! the end of the text, and the server then reports the syntax error. With `standard_conforming_strings=off`, the
//! server takes a backslash in a string for an escape, and this module does not. This cannot lead to the execution of a
//! second statement, because the server refuses to prepare more than one.

use std::fmt;

use crate::wire::is_type_lookup;

/// The first words of the statements that are accepted, in upper case.
const KEYWORDS: [&str; 9] = ["SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "VALUES", "TABLE", "WITH", "SHOW"];
/// The first words of the statements that may begin with a parenthesis.
const QUERIES: [&str; 4] = ["SELECT", "VALUES", "TABLE", "WITH"];
/// Maximum length of the first word that an error contains.
const SHOWN: usize = 24;

/// The reason why a statement is refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Refusal {
    /// The text contains no statement before the first semicolon.
    Empty,
    /// The text contains more than one statement.
    Several,
    /// The statement begins with another word, given in upper case.
    Keyword(String),
    /// The statement begins with something that is not a word.
    NoKeyword,
    /// The statement is a `SELECT … INTO`, which creates a table.
    SelectInto,
    /// The text is one with which the driver looks up types, and the pool does not count its executions.
    TypeLookup,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the statement is empty"),
            Self::Several => f.write_str("the text contains more than one statement"),
            Self::Keyword(word) => write!(f, "a statement that begins with `{word}` is not accepted"),
            Self::NoKeyword => f.write_str("the text does not begin with a keyword"),
            Self::SelectInto => f.write_str("`SELECT … INTO` is not accepted, because it creates a table"),
            Self::TypeLookup => f.write_str("the text is equal to one of the driver's own statements"),
        }
    }
}

/// Checks whether a statement may run on a shared connection.
pub(super) fn check(text: &str) -> Result<(), Refusal> {
    if is_type_lookup(text) {
        return Err(Refusal::TypeLookup);
    }
    let mut scanner = Scanner { text: text.as_bytes(), at: 0 };
    let mut parenthesized = false;
    let first = loop {
        match scanner.next() {
            None | Some(Token::Semicolon) => return Err(Refusal::Empty),
            Some(Token::Open) => parenthesized = true,
            Some(Token::Word(word)) => break word,
            Some(Token::Close | Token::Other) => return Err(Refusal::NoKeyword),
        }
    };
    let accepted: &[&str] = if parenthesized { &QUERIES } else { &KEYWORDS };
    if !accepted.iter().any(|keyword| is(first, keyword)) {
        let shown = String::from_utf8_lossy(&first[..first.len().min(SHOWN)]).to_uppercase();
        return Err(Refusal::Keyword(shown));
    }
    let mut verbs = Verbs { open: vec![Verb::First] };
    let mut permits_into = verbs.permit_into(Token::Word(first));
    while let Some(token) = scanner.next() {
        match token {
            Token::Semicolon => {
                return match scanner.find(|token| *token != Token::Semicolon) {
                    None => Ok(()),
                    Some(_) => Err(Refusal::Several),
                };
            }
            Token::Word(word) if is(word, "INTO") && !permits_into => return Err(Refusal::SelectInto),
            _ => {}
        }
        permits_into = verbs.permit_into(token);
    }
    Ok(())
}

/// The verbs of a statement and of the queries in its parentheses, as in `WITH a AS (INSERT INTO …) SELECT …`.
struct Verbs {
    /// What is known of the query in each open parenthesis, and of the whole statement.
    open: Vec<Verb>,
}

/// The verb of a query.
#[derive(Clone, Copy)]
enum Verb {
    /// No token of the query was seen.
    First,
    /// The query began with `WITH`.
    AfterWith,
    Seen,
}

impl Verbs {
    /// The first words of the statements that may follow `WITH`.
    const VERBS: [&str; 7] = ["SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "VALUES", "TABLE"];

    /// Returns true if a word is the verb of its query.
    fn is_verb(&mut self, word: &[u8]) -> bool {
        let Some(verb) = self.open.last_mut() else { return false };
        let before = *verb;
        *verb = match before {
            Verb::First if is(word, "WITH") => Verb::AfterWith,
            Verb::AfterWith if !Self::VERBS.iter().any(|keyword| is(word, keyword)) => Verb::AfterWith,
            _ => Verb::Seen,
        };
        !matches!(before, Verb::Seen) && matches!(verb, Verb::Seen)
    }

    /// Applies a token. Returns true if the word `INTO` after it is not that of a `SELECT … INTO`: it belongs to an
    /// `INSERT` or a `MERGE`, or it is the label of a column. In every other place, it is a reserved word.
    fn permit_into(&mut self, token: Token<'_>) -> bool {
        match token {
            Token::Word(word) => {
                let is_verb = self.is_verb(word);
                is(word, "AS") || is_verb && (is(word, "INSERT") || is(word, "MERGE"))
            }
            Token::Open => {
                self.open.push(Verb::First);
                false
            }
            Token::Close => {
                self.open.pop();
                false
            }
            Token::Semicolon | Token::Other => {
                if let Some(verb @ Verb::First) = self.open.last_mut() {
                    *verb = Verb::Seen;
                }
                false
            }
        }
    }
}

fn is(word: &[u8], keyword: &str) -> bool {
    word.eq_ignore_ascii_case(keyword.as_bytes())
}

/// A token of a statement.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Token<'a> {
    /// A keyword or an identifier without quotes.
    Word(&'a [u8]),
    Semicolon,
    /// An opening parenthesis.
    Open,
    /// A closing parenthesis.
    Close,
    Other,
}

/// Splits a text into tokens. Skips white space and comments.
struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Scanner<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let rest = &self.text[self.at..];
            let first = *rest.first()?;
            match first {
                // The white space of the server's scanner.
                b' ' | b'\t' | b'\n' | b'\r' | b'\x0b' | b'\x0c' => self.at += 1,
                b'-' if rest.starts_with(b"--") => {
                    self.at += rest.iter().position(|&byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
                }
                b'/' if rest.starts_with(b"/*") => self.at += comment(rest),
                b';' => return self.take(1, Token::Semicolon),
                b'(' => return self.take(1, Token::Open),
                b')' => return self.take(1, Token::Close),
                b'\'' => return self.take(quoted(rest, b'\'', false), Token::Other),
                b'"' => return self.take(quoted(rest, b'"', false), Token::Other),
                b'$' => return self.take(dollar_quoted(rest), Token::Other),
                b'0'..=b'9' => return self.take(number(rest), Token::Other),
                byte if starts_word(byte) => {
                    let length = rest.iter().position(|&byte| !continues_word(byte)).unwrap_or(rest.len());
                    let (word, after) = rest.split_at(length);
                    return match (word, after.first()) {
                        // A string with escapes, such as E'\''.
                        (b"e" | b"E", Some(b'\'')) => self.take(1 + quoted(after, b'\'', true), Token::Other),
                        _ => self.take(length, Token::Word(word)),
                    };
                }
                b'.' if rest.get(1).is_some_and(u8::is_ascii_digit) => return self.take(number(rest), Token::Other),
                // A column label may be any word, as in `t.into`.
                b'.' => {
                    self.at += 1;
                    self.skip_space();
                    let label = self.text[self.at..].iter().position(|&byte| !continues_word(byte));
                    self.at += label.unwrap_or(self.text.len() - self.at);
                    return Some(Token::Other);
                }
                _ => return self.take(1, Token::Other),
            }
        }
    }
}

impl<'a> Scanner<'a> {
    fn take(&mut self, length: usize, token: Token<'a>) -> Option<Token<'a>> {
        self.at += length;
        Some(token)
    }

    fn skip_space(&mut self) {
        let space = self.text[self.at..].iter().position(|byte| !byte.is_ascii_whitespace());
        self.at += space.unwrap_or(self.text.len() - self.at);
    }
}

fn starts_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn continues_word(byte: u8) -> bool {
    starts_word(byte) || byte.is_ascii_digit() || byte == b'$'
}

/// Returns the length of the comment at the start of a text. Comments nest.
fn comment(text: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        match &text[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// Returns the length of the quoted string or identifier at the start of a text. A doubled quote does not end it.
fn quoted(text: &[u8], quote: u8, escapes: bool) -> usize {
    let mut at = 1;
    while let Some(&byte) = text.get(at) {
        at += 1;
        match byte {
            b'\\' if escapes => at += 1,
            byte if byte == quote => match text.get(at) {
                Some(&next) if next == quote => at += 1,
                // A string that continues on another line has escapes there too.
                _ if escapes => match continuation(&text[at..]) {
                    Some(length) => at += length,
                    None => return at,
                },
                _ => return at,
            },
            _ => {}
        }
    }
    text.len()
}

/// Returns the length of the white space, with at least one line break, and of the quote with which a string continues.
fn continuation(text: &[u8]) -> Option<usize> {
    let (mut at, mut breaks) = (0, false);
    loop {
        match *text.get(at)? {
            b'\'' if breaks => return Some(at + 1),
            b'\n' | b'\r' => (at, breaks) = (at + 1, true),
            b' ' | b'\t' | b'\x0b' | b'\x0c' => at += 1,
            b'-' if text[at..].starts_with(b"--") => {
                at += text[at..].iter().position(|&byte| matches!(byte, b'\n' | b'\r'))?;
            }
            _ => return None,
        }
    }
}

/// Returns the length of the dollar-quoted string at the start of a text, or that of a parameter such as `$1`.
fn dollar_quoted(text: &[u8]) -> usize {
    let tag =
        text[1..].iter().position(|&byte| !(starts_word(byte) || byte.is_ascii_digit())).unwrap_or(text.len() - 1);
    let is_quote = text.get(1 + tag) == Some(&b'$') && !text[1].is_ascii_digit();
    if !is_quote {
        return if text.get(1).is_some_and(u8::is_ascii_digit) { 1 + number(&text[1..]) } else { 1 };
    }
    let (delimiter, body) = text.split_at(tag + 2);
    let end = body.windows(delimiter.len()).position(|window| window == delimiter);
    end.map_or(text.len(), |end| delimiter.len() + end + delimiter.len())
}

/// Returns the length of the number at the start of a text. Before version 15, the server accepts a word directly after
/// a number.
fn number(text: &[u8]) -> usize {
    let digits = |text: &[u8]| text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let length = text.iter().position(|byte| !(byte.is_ascii_digit() || *byte == b'.')).unwrap_or(text.len());
    let exponent = match &text[length..] {
        [b'e' | b'E', b'+' | b'-', rest @ ..] if digits(rest) > 0 => 2 + digits(rest),
        [b'e' | b'E', rest @ ..] if digits(rest) > 0 => 1 + digits(rest),
        _ => 0,
    };
    length + exponent
}

#[cfg(test)]
mod tests;
