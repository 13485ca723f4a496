//! libpq's password file (PostgreSQL manual, "The Password File"): lines of `host:port:database:user:password`, of which
//! the first that fits counts.
//!
//! Each of the first four is the text itself or `*` for any; `\:` and `\\` stand for a colon and a backslash. A line
//! that begins with `#` is a comment. The password ends at the line's end, or at a colon that stands for itself.

use super::Secret;

/// What a line is looked for by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key<'a> {
    /// The host as the configuration has it: the Service's name, and no Pod's.
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) dbname: &'a str,
    pub(crate) user: &'a str,
}

/// The password that was found is no UTF-8.
#[derive(Debug)]
pub(crate) struct NotUtf8;

/// The password of the first line that fits. An empty one is none, as in libpq.
pub(crate) fn find(file: &[u8], key: Key<'_>) -> Result<Option<Secret>, NotUtf8> {
    let port = key.port.to_string();
    let password = |line| {
        let rest = after(line, key.host.as_bytes(), u8::eq_ignore_ascii_case)?;
        [&port, key.dbname, key.user].iter().try_fold(rest, |rest, text| after(rest, text.as_bytes(), u8::eq))
    };
    let mut lines = file.split(|byte| *byte == b'\n').map(strip_cr).filter(|line| !line.starts_with(b"#"));
    let Some(password) = lines.find_map(password).filter(|password| !password.is_empty()) else { return Ok(None) };
    Secret::from_utf8(unescape(password)).map(Some).ok_or(NotUtf8)
}

fn strip_cr(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|byte| *byte != b'\r').map_or(0, |last| last + 1);
    &line[..end]
}

/// What comes after a field that fits, and its colon. A colon that the text has at that place fits without a backslash
/// too, as in libpq: `::1` may be written as it is.
fn after<'a>(line: &'a [u8], text: &[u8], same: fn(&u8, &u8) -> bool) -> Option<&'a [u8]> {
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

/// The password up to a colon that stands for itself. A backslash stands for what comes after it, and at the very end
/// for itself.
fn unescape(text: &[u8]) -> Vec<u8> {
    // Never longer than before, so this is the only copy there will be.
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

/// Writes a field as [`find`] reads it.
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
    fn the_first_line_that_fits_counts() {
        let file = "# db.svc:5432:shop:app:comment\n\ndb.svc:5433:shop:app:port\ndb.svc:5432:other:app:database\n\
                    db.svc:5432:shop:root:user\nother.svc:5432:shop:app:host\ndb.svc:5432:shop:app:right\n\
                    *:*:*:*:later\n";
        assert_eq!(password(file, KEY).as_deref(), Some("right"));
        assert_eq!(password(file, Key { user: "someone", ..KEY }).as_deref(), Some("later"));
        assert_eq!(password("", KEY), None);
        assert_eq!(password("db.svc:5432:shop:app", KEY), None, "a line without a password's place");
        assert_eq!(password("db.svc:5432:shop:app:", KEY), None, "an empty password");
        assert_eq!(password("db.svc:5432:shop:app:\n*:*:*:*:later", KEY), None, "an empty one fits all the same");
    }

    #[test]
    fn a_field_fits_as_a_whole_or_by_a_star_alone() {
        for (line, fits) in [
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
            assert_eq!(password(line, KEY).is_some(), fits, "{line}");
        }
    }

    #[test]
    fn backslashes_and_colons_are_libpqs() {
        let odd = Key { host: "::1", port: 1, dbname: "a:b", user: "c\\d" };
        assert_eq!(password("::1:1:a:b:c\\\\d:p", odd).as_deref(), Some("p"), "colons as they are");
        assert_eq!(password("\\:\\:1:1:a\\:b:c\\\\d:p", odd).as_deref(), Some("p"), "colons behind backslashes");
        for (written, read) in [
            ("p\\:w", "p:w"),
            ("p\\\\w", "p\\w"),
            ("p:w", "p"),
            ("\\p\\w", "pw"),
            ("pw\\", "pw\\"),
            ("pw \r", "pw "),
            ("pw#", "pw#"),
        ] {
            assert_eq!(password(&format!("*:*:*:*:{written}\n"), KEY).as_deref(), Some(read), "{written:?}");
        }
    }

    #[test]
    fn a_password_that_is_no_text_is_told_from_none() {
        assert!(find(b"*:*:*:*:\xff", KEY).is_err());
    }

    proptest! {
        #[test]
        fn any_line_that_is_written_is_found(
            host in "[^\0\r\n]{1,12}", dbname in "[^\0\r\n]{1,12}", user in "[^\0\r\n]{1,12}", port: u16,
            secret in "[^\0\r\n]{1,12}",
        ) {
            // A field of one star fits, too; one that begins with a hash is a comment.
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
