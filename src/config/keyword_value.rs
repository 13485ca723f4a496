//! Parser for keyword/value connection strings: `host=SERVICE user=app password='it\'s secret'`, as in libpq
//! (PostgreSQL manual, "Keyword/Value Connection Strings").
//!
//! Spaces around `=` are optional. An empty value, or one that contains spaces, is enclosed in single quotes. In every
//! value, a single quote or a backslash is escaped with a backslash.
//!
//! If a password with a space is not quoted, the text after the space is parsed as another parameter. Therefore errors
//! contain no text after the first occurrence of `password`.

use zeroize::Zeroizing;

use super::{message, setting::Settings};
use crate::error::ConfigError;

const SYNTAX: &str = "`name=value` pairs separated by spaces, with single quotes around values that contain spaces";

const PASSWORD_SYNTAX: &str =
    "a password in single quotes if it contains spaces, with a backslash before each single quote and backslash";

/// The characters that libpq treats as spaces, which are those of C's `isspace`.
const SPACES: [char; 6] = [' ', '\t', '\n', '\x0b', '\x0c', '\r'];

/// Splits a keyword/value string into settings without checking their values.
pub(super) fn parse(text: &str) -> Result<Settings, ConfigError> {
    if text.contains('\0') {
        return Err(ConfigError::new("conninfo", "a text without zero bytes (PostgreSQL strings cannot contain any)"));
    }
    let sensitive_from = password_offset(text);
    let mut settings = Settings::new(PASSWORD_SYNTAX);
    let mut rest = text.trim_start_matches(SPACES);
    while !rest.is_empty() {
        let Some((name, value)) = rest.split_once('=') else { return Err(missing_value(rest, text, sensitive_from)) };
        let name = name.trim_end_matches(SPACES);
        if name.is_empty() || name.contains(SPACES) {
            return Err(missing_value(rest, text, sensitive_from));
        }
        let (value, after) = take_value(value.trim_start_matches(SPACES)).ok_or_else(|| {
            ConfigError::new("conninfo", "a closing single quote after each value that begins with a single quote")
        })?;
        let sensitive = text.len() - after.len() > sensitive_from;
        settings.add(name, value, sensitive)?;
        rest = after.trim_start_matches(SPACES);
    }
    Ok(settings)
}

/// Returns the offset of the first `password` that is not part of `password_file`, or `usize::MAX`. Any text after this
/// offset may be part of a password.
fn password_offset(text: &str) -> usize {
    let lower = text.to_ascii_lowercase();
    let is_password = |(at, found): &(usize, &str)| !lower[at + found.len()..].starts_with("_file");
    lower.match_indices("password").find(is_password).map_or(usize::MAX, |(at, _)| at)
}

/// Returns the error for the name at the beginning of `rest`, which has no value.
fn missing_value(rest: &str, text: &str, sensitive_from: usize) -> ConfigError {
    let name = rest.split(|c| c == '=' || SPACES.contains(&c)).next().unwrap_or_default();
    let end = text.len() - rest.len() + name.len();
    match end > sensitive_from || name.is_empty() {
        true => ConfigError::new("conninfo", SYNTAX),
        false => ConfigError::new("conninfo", SYNTAX).got(message::excerpt(name)),
    }
}

/// Returns the first value of `text` and the text after it, or `None` if the closing quote is missing.
fn take_value(text: &str) -> Option<(Zeroizing<String>, &str)> {
    let (body, end): (&str, fn(char) -> bool) = match text.strip_prefix('\'') {
        Some(body) => (body, |c| c == '\''),
        None => (text, |c| SPACES.contains(&c)),
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

/// Removes the backslashes that escape the next character. As in libpq, a backslash at the end is dropped.
fn unescape(text: &str) -> Zeroizing<String> {
    // The result is never longer than the input, so the buffer is not reallocated and leaves no copy of a password.
    let mut out = Zeroizing::new(String::with_capacity(text.len()));
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    out
}

/// Quotes and escapes a value for a keyword/value string.
#[cfg(test)]
pub(super) fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests;
