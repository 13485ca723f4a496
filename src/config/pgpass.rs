//! Parser for libpq's password file (PostgreSQL manual, "The Password File").
//!
//! Each line has the form `host:port:database:user:password`, and the first matching line applies. Each of the first
//! four fields is either a literal value or `*`, which matches any value. In a literal value, a colon is written as
//! `\:` and a backslash as `\\`. A line that begins with `#` is a comment. The password ends at the end of the line or
//! at an unescaped colon.

use super::Secret;

/// The connection parameters that a line must match.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key<'a> {
    /// The host of the configuration, which is the Service name, not the name of a Pod.
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) dbname: &'a str,
    pub(crate) user: &'a str,
}

/// The error for a matching line whose password is not valid UTF-8.
#[derive(Debug)]
pub(crate) struct NotUtf8;

/// Returns the password of the first matching line. An empty password counts as none, as in libpq.
pub(crate) fn find(file: &[u8], key: Key<'_>) -> Result<Option<Secret>, NotUtf8> {
    let port = key.port.to_string();
    let password = |line| {
        let rest = match_field(line, key.host.as_bytes(), u8::eq_ignore_ascii_case)?;
        [&port, key.dbname, key.user].iter().try_fold(rest, |rest, text| match_field(rest, text.as_bytes(), u8::eq))
    };
    let mut lines = file.split(|byte| *byte == b'\n').map(strip_cr).filter(|line| !line.starts_with(b"#"));
    let Some(password) = lines.find_map(password).filter(|password| !password.is_empty()) else { return Ok(None) };
    Secret::from_utf8(unescape(password)).map(Some).ok_or(NotUtf8)
}

fn strip_cr(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|byte| *byte != b'\r').map_or(0, |last| last + 1);
    &line[..end]
}

/// Returns the rest of the line after the first field and its colon, or `None` if the field does not match `text`. A
/// colon in `text` also matches an unescaped colon, as in libpq, so `::1` needs no backslashes.
fn match_field<'a>(line: &'a [u8], text: &[u8], same: fn(&u8, &u8) -> bool) -> Option<&'a [u8]> {
    if let Some(rest) = line.strip_prefix(b"*:") {
        return Some(rest);
    }
    let (mut line, mut text) = (line.iter(), text.iter());
    loop {
        let byte = match line.next()? {
            b':' if text.as_slice().is_empty() => return Some(line.as_slice()),
            b'\\' => line.next()?,
            byte => byte,
        };
        if !same(byte, text.next()?) {
            return None;
        }
    }
}

/// Returns the password up to the first unescaped colon. A backslash escapes the next byte. A backslash at the end is
/// literal.
fn unescape(text: &[u8]) -> Vec<u8> {
    // The result is never longer than the input, so the buffer is not reallocated and leaves no copy of the password.
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b':' => break,
            b'\\' => out.push(*bytes.next().unwrap_or(byte)),
            byte => out.push(*byte),
        }
    }
    out
}

/// Escapes a field for a password file.
#[cfg(test)]
pub(crate) fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace(':', "\\:")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: Key<'static> = Key { host: "db.svc", port: 5432, dbname: "shop", user: "app" };

    fn password(file: &str, key: Key<'_>) -> Option<String> {
        find(file.as_bytes(), key).unwrap().map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn the_first_matching_line_applies() {
        let file = "# db.svc:5432:shop:app:comment\n\ndb.svc:5433:shop:app:port\ndb.svc:5432:other:app:database\n\
                    db.svc:5432:shop:root:user\nother.svc:5432:shop:app:host\ndb.svc:5432:shop:app:right\n\
                    *:*:*:*:later\n";
        assert_eq!(password(file, KEY).as_deref(), Some("right"));
        assert_eq!(password(file, Key { user: "someone", ..KEY }).as_deref(), Some("later"));
        assert_eq!(password("", KEY), None);
        assert_eq!(password("db.svc:5432:shop:app", KEY), None, "a line without a password field");
        assert_eq!(password("db.svc:5432:shop:app:", KEY), None, "an empty password");
        assert_eq!(
            password("db.svc:5432:shop:app:\n*:*:*:*:later", KEY),
            None,
            "a matching line with an empty password ends the search"
        );
    }

    #[test]
    fn fields_match_literally_or_with_a_single_star() {
        for (line, matches) in [
            ("*:*:*:*:p", true),
            ("*:5432:*:app:p", true),
            ("DB.svc:5432:shop:app:p", true),
            ("db.svc:5432:SHOP:app:p", false),
            ("db.*:5432:shop:app:p", false),
            ("db.sv:5432:shop:app:p", false),
            ("db.svc.:5432:shop:app:p", false),
            ("**:5432:shop:app:p", false),
            (" db.svc:5432:shop:app:p", false),
            (":5432:shop:app:p", false),
            ("db.svc:05432:shop:app:p", false),
            ("d\\b.svc:5432:shop:app:p", true),
            ("db.svc\\:5432:shop:app:p", false),
        ] {
            assert_eq!(password(line, KEY).is_some(), matches, "{line}");
        }
    }

    #[test]
    fn unescapes_fields_as_libpq_does() {
        let odd = Key { host: "::1", port: 1, dbname: "a:b", user: "c\\d" };
        assert_eq!(password("::1:1:a:b:c\\\\d:p", odd).as_deref(), Some("p"), "unescaped colons");
        assert_eq!(password("\\:\\:1:1:a\\:b:c\\\\d:p", odd).as_deref(), Some("p"), "escaped colons");
        for (escaped, expected) in [
            ("p\\:w", "p:w"),
            ("p\\\\w", "p\\w"),
            ("p:w", "p"),
            ("\\p\\w", "pw"),
            ("pw\\", "pw\\"),
            ("pw \r", "pw "),
            ("pw#", "pw#"),
        ] {
            assert_eq!(password(&format!("*:*:*:*:{escaped}\n"), KEY).as_deref(), Some(expected), "{escaped:?}");
        }
    }

    #[test]
    fn rejects_a_password_that_is_not_valid_utf8() {
        assert!(find(b"*:*:*:*:\xff", KEY).is_err());
    }

    proptest! {
        #[test]
        fn finds_the_password_in_any_escaped_line(
            host in "[^\0\r\n]{1,12}", dbname in "[^\0\r\n]{1,12}", user in "[^\0\r\n]{1,12}", port: u16,
            secret in "[^\0\r\n]{1,12}",
        ) {
            // A line that begins with `#` is a comment. A generated field `*` is a wildcard and also matches.
            prop_assume!(!host.starts_with('#'));
            let fields = [&host, &port.to_string(), &dbname, &user, &secret].map(|field| escape(field));
            let file = format!("x:1:x:x:wrong\n{}\n*:*:*:*:late\n", fields.join(":"));
            let found = find(file.as_bytes(), Key { host: &host, port, dbname: &dbname, user: &user }).unwrap();
            prop_assert_eq!(found.as_ref().map(Secret::expose), Some(&*secret));
        }

        #[test]
        fn never_panics(file in any::<Vec<u8>>(), lines in "[*:\\\\a1\n\r#]{0,60}") {
            let key = Key { host: "a", port: 1, dbname: "a", user: "a" };
            let _ = find(&file, key);
            let _ = find(lines.as_bytes(), key);
        }
    }
}
