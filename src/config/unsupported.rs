//! Parameters of libpq's that this crate has not: each is refused by name and with what to do instead, but for the
//! values that say what is so anyway.

use super::words;
use crate::error::ConfigError;

/// A parameter that only libpq has.
pub(super) struct Unsupported {
    pub(super) name: &'static str,
    /// Its environment variable, where one that is set and not heeded would change who is connected to, or how safely.
    pub(super) variable: Option<&'static str>,
    /// The values that say what is so anyway.
    harmless: &'static [&'static str],
    /// What to do instead.
    expected: &'static str,
}

const fn unsupported(
    name: &'static str,
    variable: Option<&'static str>,
    harmless: &'static [&'static str],
    expected: &'static str,
) -> Unsupported {
    Unsupported { name, variable, harmless, expected }
}

/// All of them (PostgreSQL manual, "Parameter Key Words").
#[rustfmt::skip]
pub(super) const UNSUPPORTED: &[Unsupported] = &[
    unsupported("client_encoding", Some("PGCLIENTENCODING"), &["utf8", "UTF8", "utf-8", "UTF-8"], "`UTF8`: texts are UTF-8 in Rust, and no other encoding is spoken"),
    unsupported("fallback_application_name", None, &[], "to be left out: give `application_name`"),
    unsupported("gssdelegation", Some("PGGSSDELEGATION"), &["0"], "to be left out: GSSAPI is not spoken"),
    unsupported("gssencmode", Some("PGGSSENCMODE"), &["disable", "prefer"], "`disable`, or to be left out: GSSAPI is not spoken; encryption is `sslmode`"),
    unsupported("gsslib", None, &[], "to be left out: GSSAPI is not spoken"),
    unsupported("hostaddr", Some("PGHOSTADDR"), &[], "to be left out: the addresses are those behind the Service's name; a single one is given as `host`"),
    unsupported("keepalives", None, &["1"], "`1`, or to be left out: keepalives are always on; `keepalives_idle`, `keepalives_interval` and `keepalives_count` say how"),
    unsupported("krbsrvname", None, &[], "to be left out: GSSAPI is not spoken"),
    unsupported("load_balance_hosts", None, &["random"], "`random`, or to be left out: the pool always balances over the Pods"),
    unsupported("replication", None, &["false", "off", "no", "0"], "to be left out: a pool opens ordinary sessions"),
    unsupported("require_auth", Some("PGREQUIREAUTH"), &[], "to be left out: which methods the server may ask for cannot be limited"),
    unsupported("requirepeer", Some("PGREQUIREPEER"), &[], "to be left out: it is for Unix sockets, and Pods are reached over TCP"),
    unsupported("service", Some("PGSERVICE"), &[], "to be left out: connection service files are not read"),
    unsupported("servicefile", None, &[], "to be left out: connection service files are not read"),
];

impl Unsupported {
    /// Refuses every value but the harmless ones, and an empty one, which counts as left out.
    pub(super) fn refuse_unless_harmless(&self, value: &str) -> Result<(), ConfigError> {
        if value.is_empty() || self.harmless.contains(&value) {
            return Ok(());
        }
        Err(ConfigError::new(self.name, self.expected).got(words::clip(value)))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::parameter::known, *};

    #[test]
    fn are_by_name_and_none_of_ours() {
        assert!(UNSUPPORTED.is_sorted_by(|a, b| a.name < b.name));
        for unsupported in UNSUPPORTED {
            assert!(known(unsupported.name).is_none(), "{}", unsupported.name);
        }
    }

    #[test]
    fn say_what_to_do_instead() {
        let refused = |url: &str| url.parse::<crate::Config>().unwrap_err().to_string();
        assert_eq!(
            refused("postgres://app@db/?hostaddr=10.0.0.1"),
            "parameter `hostaddr`: expected to be left out: the addresses are those behind the Service's name; a single \
             one is given as `host`, got `10.0.0.1`"
        );
        assert!(refused("host=db user=app gssencmode=require").contains("`disable`"));
        for harmless in ["gssencmode=prefer", "keepalives=1", "client_encoding=utf8", "service=''"] {
            let config = format!("host=db user=app {harmless}").parse::<crate::Config>();
            assert!(config.is_ok(), "{config:?}");
        }
    }
}
