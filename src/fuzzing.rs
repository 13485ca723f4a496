//! Entry points for this crate's fuzz targets. Not part of the public API.
//!
//! Each function passes arbitrary bytes to one parser of external input, and panics if an invariant is violated.

use crate::{
    Config,
    config::{Host, pgpass},
};
pub use crate::{
    discovery::fuzz::{answer, records, resolv_conf},
    wire::fuzz::{dial, replies, requests, tap},
};

const SECRET: &str = "Zq7-hidden-Kx3";

/// Parses a URL. Asserts that neither the error nor the debug output of the configuration shows the password.
pub fn url(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for url in [text.to_owned(), format!("postgres://app:{SECRET}@{text}")] {
        let shown = match url.parse::<Config>() {
            Ok(config) => shown(&config),
            Err(error) => format!("{error} {error:?}"),
        };
        assert!(text.contains(SECRET) || !shown.contains(SECRET), "{shown}");
    }
}

/// Parses a string of keywords and values. Asserts that neither the error nor the debug output of the configuration
/// shows the password.
pub fn keyword_value(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let texts = [
        text.to_owned(),
        format!("host=db user=app password={SECRET} {text}"),
        format!("host=db user=app password='{SECRET}'{text}"),
        format!("host=db password={text} {SECRET}"),
        format!("{text} password={SECRET}"),
    ];
    for text_with_secret in texts {
        match text_with_secret.parse::<Config>() {
            Ok(config) => {
                let shown = shown(&config);
                // The fuzzed text may have turned the secret into the value of another parameter, which need not be
                // hidden.
                let is_password = config.password().is_some_and(|password| password.expose().contains(SECRET));
                assert!(!is_password || text.contains(SECRET) || !shown.contains(SECRET), "{shown}");
            }
            Err(error) => {
                let shown = format!("{error} {error:?}");
                assert!(text.contains(SECRET) || !shown.contains(SECRET), "{shown}");
            }
        }
    }
}

/// Appends a matching line to a password file in libpq's format. Asserts that a search finds this line unless an
/// earlier line matches.
pub fn pgpass(bytes: &[u8]) {
    let key = pgpass::Key { host: "db.svc", port: 5432, dbname: "shop", user: "app" };
    let before = pgpass::find(bytes, key);
    let longer = [bytes, b"\ndb.svc:5432:shop:app:", SECRET.as_bytes(), b"\n"].concat();
    match (before, pgpass::find(&longer, key)) {
        (Err(_), found) => assert!(found.is_err()),
        (Ok(Some(before)), found) => assert!(found.is_ok_and(|found| found.is_some_and(|found| found.is(&before)))),
        // The second search returns `None` if an earlier line matches and has an empty password.
        (Ok(None), found) => {
            assert!(found.is_ok_and(|found| found.is_none_or(|found| found.expose() == SECRET)));
        }
    }
}

/// Returns the debug output of a configuration. Asserts its basic invariants.
fn shown(config: &Config) -> String {
    if let Err(error) = config.validate() {
        // A parsed configuration may be invalid, because a setter can still correct it.
        assert!(!error.parameter().is_empty());
    }
    if let Host::Service(name) = config.host() {
        assert!(!name.as_str().is_empty());
    }
    assert!(config.port() != 0);
    format!("{config:?}")
}
