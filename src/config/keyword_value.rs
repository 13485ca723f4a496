//! The keyword/value form of a configuration: `host=SERVICE user=app password='it\'s secret'`, as libpq has it
//! (PostgreSQL manual, "Keyword/Value Connection Strings").
//!
//! Blanks around `=` may be there or not. A value with blanks, and an empty one, is written between single quotes; a
//! single quote or a backslash within any value is written with a backslash before it.
//!
//! A password with a blank that is not quoted reads as a password and another parameter, so what follows the word
//! `password` is repeated by no message.

use zeroize::Zeroizing;

use super::{setting::Settings, words};
use crate::error::ConfigError;

const FORM: &str = "`name=value` with blanks between them, a value with blanks in it between single quotes";

const QUOTED: &str =
    "blanks stand between single quotes around it all, and single quotes and backslashes behind a backslash";

/// What C's `isspace` takes for a blank.
const BLANKS: [char; 6] = [' ', '\t', '\n', '\x0b', '\x0c', '\r'];

/// Splits a text into its settings. Whether their values make sense is not looked at.
pub(super) fn parse(text: &str) -> Result<Settings, ConfigError> {
    if text.contains('\0') {
        return Err(ConfigError::new("conninfo", "a text without a zero byte, at which PostgreSQL's texts end"));
    }
    let secrecy = secrecy(text);
    let mut settings = Settings::new(QUOTED);
    let mut rest = text.trim_start_matches(BLANKS);
    while !rest.is_empty() {
        let Some((name, value)) = rest.split_once('=') else { return Err(no_value(rest, text, secrecy)) };
        let name = name.trim_end_matches(BLANKS);
        if name.is_empty() || name.contains(BLANKS) {
            return Err(no_value(rest, text, secrecy));
        }
        let (value, after) = take_value(value.trim_start_matches(BLANKS)).ok_or_else(|| {
            ConfigError::new("conninfo", "a single quote at the end of each value that begins with one")
        })?;
        let quiet = text.len() - after.len() > secrecy;
        settings.add(name, value, quiet)?;
        rest = after.trim_start_matches(BLANKS);
    }
    Ok(settings)
}

/// Where the first word `password` is: what ends behind it may be a piece of one.
fn secrecy(text: &str) -> usize {
    let lower = text.to_ascii_lowercase();
    let word = |(at, word): &(usize, &str)| !lower[at + word.len()..].starts_with("_file");
    lower.match_indices("password").find(word).map_or(usize::MAX, |(at, _)| at)
}

/// The error for a name without a value: `rest` begins with it.
fn no_value(rest: &str, text: &str, secrecy: usize) -> ConfigError {
    let name = rest.split(|c| c == '=' || BLANKS.contains(&c)).next().unwrap_or_default();
    let end = text.len() - rest.len() + name.len();
    match end > secrecy || name.is_empty() {
        true => ConfigError::new("conninfo", FORM),
        false => ConfigError::new("conninfo", FORM).got(words::clip(name)),
    }
}

/// A value, and what comes after it. `None` where its quote does not end.
fn take_value(text: &str) -> Option<(Zeroizing<String>, &str)> {
    let (body, end): (&str, fn(char) -> bool) = match text.strip_prefix('\'') {
        Some(body) => (body, |c| c == '\''),
        None => (text, |c| BLANKS.contains(&c)),
    };
    let mut escaped = false;
    let closed = body.find(|c| {
        let ends = !escaped && end(c);
        escaped = !escaped && c == '\\';
        ends
    });
    match closed {
        Some(at) => Some((unescape(&body[..at]), &body[at + 1..])),
        None if text.starts_with('\'') => None,
        None => Some((unescape(body), "")),
    }
}

/// A backslash stands for what comes after it; one at the very end for nothing.
fn unescape(text: &str) -> Zeroizing<String> {
    // Never longer than before, so this is the only copy there will be.
    let mut out = Zeroizing::new(String::with_capacity(text.len()));
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    out
}

/// Writes a value as [`parse`] reads it.
#[cfg(test)]
pub(super) fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests;
