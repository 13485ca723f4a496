//! The names of the pools. Each pool of the process has a different one.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
};

use crate::{
    config::{Config, Host, HostEntry},
    error::ConfigError,
};

/// Maximum length of a pool's name that the application sets: 128 bytes.
pub const MAX_POOL_NAME: usize = 128;

/// Maximum length in bytes of a default name, without the number. A DNS name has at most 253 bytes, and names of roles
/// and databases have at most 63.
const MAX_DEFAULT: usize = 400;
/// Maximum length in bytes of a rejected name in an error.
const MAX_RECEIVED: usize = 64;

/// The names in use. Uses the standard library's lock even under loom, because no loom model covers it.
static NAMES: std::sync::Mutex<BTreeSet<Arc<str>>> = std::sync::Mutex::new(BTreeSet::new());

/// The name of one pool. Dropping it allows another pool to have the name.
#[derive(Debug)]
pub(super) struct Name(Arc<str>);

impl Name {
    /// Takes the name that the application has set, or the default name of this configuration. If another pool has
    /// the name, appends `#` and the lowest number from 2 that makes it unique.
    pub(super) fn take(set: Option<String>, config: &Config) -> Result<Self, ConfigError> {
        let wanted = match set {
            Some(name) => checked(name)?,
            None => default_name(config),
        };
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        let numbered = (2u64..).map(|number| format!("{wanted}#{number}"));
        let free = std::iter::once(wanted.clone()).chain(numbered).find(|name| !names.contains(&**name));
        let name: Arc<str> = free.unwrap_or(wanted).into(); // the process has fewer pools than there are numbers
        names.insert(name.clone());
        Ok(Self(name))
    }

    pub(super) fn get(&self) -> &Arc<str> {
        &self.0
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        NAMES.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

fn checked(name: String) -> Result<String, ConfigError> {
    if !name.trim().is_empty() && name.len() <= MAX_POOL_NAME && !name.contains(char::is_control) {
        return Ok(name);
    }
    let expected = format!("a text of 1 to {MAX_POOL_NAME} bytes that is not blank and has no control characters");
    let mut received = shortened(&name, MAX_RECEIVED).escape_debug().to_string();
    if name.len() > MAX_RECEIVED {
        received.push_str(&format!("… ({} bytes)", name.len()));
    }
    Err(ConfigError::new("name", expected).got(received))
}

/// Returns `user@service:port/database`. Of several hosts, the name contains the first, and the number of the others
/// after a `+`.
fn default_name(config: &Config) -> String {
    let others = match config.hosts().len() {
        0 | 1 => String::new(),
        hosts => format!("+{}", hosts - 1),
    };
    let host = config.hosts().first().map(host).unwrap_or_default();
    let name = format!("{}@{host}{others}/{}", config.user(), config.dbname());
    shortened(&name.replace(char::is_control, "\u{fffd}"), MAX_DEFAULT).to_owned()
}

fn host(entry: &HostEntry) -> String {
    let port = entry.port();
    match entry.host() {
        Host::Address(address) if address.is_ipv6() => format!("[{address}]:{port}"),
        Host::Address(address) => format!("{address}:{port}"),
        Host::Directory(path) => format!("{}:{port}", path.display()),
        Host::Service(name) => format!("{}:{port}", name.as_str()),
    }
}

/// Returns the beginning of a text that has at most `limit` bytes.
fn shortened(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> Config {
        url.parse().expect("the URL parses")
    }

    fn take(name: &str) -> Name {
        Name::take(Some(name.into()), &config("postgres://a@b.test/c")).expect("the name is valid")
    }

    #[test]
    fn the_default_name_has_the_user_the_first_host_and_the_database_but_no_password() {
        for (url, expected) in [
            ("postgres://app:secret@pg.names.test/shop", "app@pg.names.test:5432/shop"),
            ("postgres://app@pg.names.test:6432/shop?password_file=/secret", "app@pg.names.test:6432/shop"),
            ("postgres://app@a.test:1,b.test:2,c.test:3/shop", "app@a.test:1+2/shop"),
            ("postgres://app@10.0.0.1:5432/shop", "app@10.0.0.1:5432/shop"),
            ("postgres://app@[fd00::1]:5432/shop", "app@[fd00::1]:5432/shop"),
            ("host=/var/run/postgresql user=app dbname=shop", "app@/var/run/postgresql:5432/shop"),
            ("postgres://a%0Ab@c.test/d%09e", "a\u{fffd}b@c.test:5432/d\u{fffd}e"),
        ] {
            assert_eq!(default_name(&config(url)), expected, "{url}");
        }
        let long = format!("postgres://{}@c.test/d", "ü".repeat(300));
        assert_eq!(default_name(&config(&long)), "ü".repeat(MAX_DEFAULT / 2));
    }

    #[test]
    fn a_name_that_is_taken_gets_the_lowest_free_number_until_it_is_dropped() {
        let (first, second) = (take("numbered"), take("numbered"));
        let third = take("numbered");
        assert_eq!([&**first.get(), &**second.get(), &**third.get()], ["numbered", "numbered#2", "numbered#3"]);
        drop(second);
        let again = take("numbered");
        assert_eq!(&**again.get(), "numbered#2");
        drop(first);
        assert_eq!(&**take("numbered").get(), "numbered");
        let explicit = take("numbered#4");
        assert_eq!((&**explicit.get(), &**take("numbered#4").get()), ("numbered#4", "numbered#4#2"));
    }

    #[test]
    fn bad_names_are_rejected_with_the_expected_and_the_received_value() {
        let long = "x".repeat(MAX_POOL_NAME + 1);
        for (name, received) in [
            ("", String::new()),
            ("  ", "  ".into()),
            ("a\nb", "a\\nb".into()),
            ("\u{7f}", "\\u{7f}".into()),
            (&*long, format!("{}… (129 bytes)", "x".repeat(MAX_RECEIVED))),
        ] {
            let error = Name::take(Some(name.into()), &config("postgres://a@b.test/c")).expect_err("the name is bad");
            assert_eq!((error.parameter(), error.received()), ("name", Some(&*received)), "{name:?}");
            assert!(error.problem().starts_with("expected a text of 1 to 128 bytes"), "{error}");
        }
        assert_eq!(&**take(&"x".repeat(MAX_POOL_NAME)).get(), "x".repeat(MAX_POOL_NAME));
    }
}
