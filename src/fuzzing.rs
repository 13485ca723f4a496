//! For this crate's own fuzz targets: what takes in bytes from outside, with what must hold for any bytes. Not part of
//! the public API.
//!
//! Each function panics where something does not hold.

use crate::{Config, config::Host};
pub use crate::{
    discovery::fuzz::{answer, records, resolv_conf},
    wire::fuzz::{dial, replies, requests, tap},
};

/// A URL: refused with an error that never shows the password, or accepted whole.
pub fn url(bytes: &[u8]) {
    const SECRET: &str = "Zq7-hidden-Kx3";
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for url in [text.to_owned(), format!("postgres://app:{SECRET}@{text}")] {
        let shown = match url.parse::<Config>() {
            Ok(config) => {
                config.validate().expect("what was read is valid");
                if let Host::Service(name) = config.host() {
                    assert!(!name.as_str().is_empty());
                }
                assert!(config.port() != 0);
                format!("{config:?}")
            }
            Err(error) => format!("{error} {error:?}"),
        };
        assert!(text.contains(SECRET) || !shown.contains(SECRET), "{shown}");
    }
}
