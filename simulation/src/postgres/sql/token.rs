//! Splits statements into tokens.

use std::fmt;

use super::super::error::Report;

/// A token of a statement.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::postgres) enum Token {
    /// A text in single quotes.
    Literal(String),
    Number(String),
    /// A parameter, such as `$1`.
    Parameter(usize),
    /// A name in double quotes.
    Quoted(String),
    Symbol(String),
    /// A keyword or a name, in lower case.
    Word(String),
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(text) => write!(f, "'{text}'"),
            Self::Number(text) | Self::Symbol(text) | Self::Word(text) => f.write_str(text),
            Self::Parameter(number) => write!(f, "${number}"),
            Self::Quoted(text) => write!(f, "\"{text}\""),
        }
    }
}

/// Returns the tokens of a text, with single spaces between them.
pub(super) fn canonical(tokens: &[Token]) -> String {
    tokens.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Returns the text of the comment at the beginning of a statement.
pub(in crate::postgres) fn leading_comment(text: &str) -> Option<&str> {
    text.trim_start().strip_prefix("/*")?.split_once("*/").map(|(comment, _)| comment.trim())
}

/// Splits a text into tokens. Comments are skipped.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, Report> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (token, length) = if first.is_whitespace() {
            (None, first.len_utf8())
        } else if rest.starts_with("/*") {
            (None, rest.find("*/").ok_or_else(|| unterminated("/* comment"))? + 2)
        } else if rest.starts_with("--") {
            (None, rest.find('\n').unwrap_or(rest.len()))
        } else if first == '\'' {
            let (text, length) = quoted(rest, '\'').ok_or_else(|| unterminated("quoted string"))?;
            (Some(Token::Literal(text)), length)
        } else if first == '"' {
            let (text, length) = quoted(rest, '"').ok_or_else(|| unterminated("quoted identifier"))?;
            (Some(Token::Quoted(text)), length)
        } else if first == '$' {
            let digits = prefix(&rest[1..], |c| c.is_ascii_digit());
            let number = digits.parse().map_err(|_| syntax_error(rest))?;
            (Some(Token::Parameter(number)), digits.len() + 1)
        } else if first.is_ascii_digit() {
            let number = prefix(rest, |c| c.is_ascii_digit() || c == '.');
            (Some(Token::Number(number.to_owned())), number.len())
        } else if first.is_alphanumeric() || first == '_' {
            let word = prefix(rest, |c| c.is_alphanumeric() || c == '_');
            (Some(Token::Word(word.to_lowercase())), word.len())
        } else {
            let length = if rest.starts_with("::") || rest.starts_with("||") { 2 } else { first.len_utf8() };
            (Some(Token::Symbol(rest[..length].to_owned())), length)
        };
        tokens.extend(token);
        rest = &rest[length..];
    }
    Ok(tokens)
}

fn prefix(text: &str, accept: impl Fn(char) -> bool) -> &str {
    &text[..text.find(|c| !accept(c)).unwrap_or(text.len())]
}

/// Returns the content of a quoted text and the length of the text with its quotes. A doubled quote stands for one.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut content = String::new();
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character != quote {
            content.push(character);
        } else if characters.next_if(|(_, next)| *next == quote).is_some() {
            content.push(quote);
        } else {
            return Some((content, at + 1));
        }
    }
    None
}

fn unterminated(what: &str) -> Report {
    Report::error("42601", format!("unterminated {what}"))
}

/// Returns the error for a text that is no statement.
pub(super) fn syntax_error(at: &str) -> Report {
    Report::error("42601", format!("syntax error at or near \"{at}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_statements_into_tokens() {
        let text = "/* c; */ Select 'it''s', \"A\"::int8 || $2 -- end";
        assert_eq!(canonical(&tokens(text).unwrap()), "select 'it's' , \"A\" :: int8 || $2");
        assert_eq!(leading_comment(text), Some("c;"));
        assert_eq!(tokens("'open").unwrap_err().code, "42601");
    }
}
