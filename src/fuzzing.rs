//! For this crate's own fuzz targets: what takes in bytes from outside, with what must hold for any bytes. Not part of
//! the public API.
//!
//! Each function panics where something does not hold.

use crate::{
    Config,
    config::{Host, pgpass},
};
pub use crate::{
    discovery::fuzz::{answer, records, resolv_conf},
    wire::fuzz::{dial, replies, requests, tap},
};

const SECRET: &str = "Zq7-hidden-Kx3";

/// A URL: refused with an error that never shows the password, or accepted whole.
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

/// Keywords and values: refused with an error that never shows the password, or accepted whole.
pub fn keyword_value(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let around = [
        text.to_owned(),
        format!("host=db user=app password={SECRET} {text}"),
        format!("host=db user=app password='{SECRET}'{text}"),
        format!("host=db password={text} {SECRET}"),
        format!("{text} password={SECRET}"),
    ];
    for pairs in around {
        match pairs.parse::<Config>() {
            Ok(config) => {
                let shown = shown(&config);
                // The text before may have made it the value of something else, which may be shown.
                let kept = config.password().is_some_and(|password| password.expose().contains(SECRET));
                assert!(!kept || text.contains(SECRET) || !shown.contains(SECRET), "{shown}");
            }
            Err(error) => {
                let shown = format!("{error} {error:?}");
                assert!(text.contains(SECRET) || !shown.contains(SECRET), "{shown}");
            }
        }
    }
}

/// libpq's password file: a line that fits is found behind any others, unless one of those fits.
pub fn pgpass(bytes: &[u8]) {
    let key = pgpass::Key { host: "db.svc", port: 5432, dbname: "shop", user: "app" };
    let before = pgpass::find(bytes, key);
    let longer = [bytes, b"\ndb.svc:5432:shop:app:", SECRET.as_bytes(), b"\n"].concat();
    match (before, pgpass::find(&longer, key)) {
        (Err(_), found) => assert!(found.is_err()),
        (Ok(Some(before)), found) => assert!(found.is_ok_and(|found| found.is_some_and(|found| found.is(&before)))),
        // None where a line before fits and has no password.
        (Ok(None), found) => {
            assert!(found.is_ok_and(|found| found.is_none_or(|found| found.expose() == SECRET)));
        }
    }
}

fn shown(config: &Config) -> String {
    if let Err(error) = config.validate() {
        // What a setter can still mend.
        assert!(!error.parameter().is_empty());
    }
    if let Host::Service(name) = config.host() {
        assert!(!name.as_str().is_empty());
    }
    assert!(config.port() != 0);
    format!("{config:?}")
}
