use std::{fmt, str::FromStr};

use super::message;
use crate::error::ConfigError;

/// Maximum length of a name without its trailing dot, in octets. The 255 octets of RFC 1035, section 2.3.4, include the
/// length octets and the root label.
const MAX_NAME: usize = 253;
/// Maximum length of a label, in octets (RFC 1035, section 2.3.4).
const MAX_LABEL: usize = 63;

/// The name of a headless Service, such as `postgresql-svc.k8s-training.svc.cluster.local`.
///
/// A name has at most 253 characters and consists of labels separated by dots. A label has 1 to 63 letters, digits,
/// hyphens and underscores, and neither begins nor ends with a hyphen. These are the rules of RFC 1035, with leading
/// digits as in RFC 1123 and Kubernetes. Underscores are an extension: Kubernetes does not allow them in Service names,
/// but the owner names of SRV records (`_postgresql._tcp.…`) and host names in other container networks contain them. A
/// name that consists only of digits and dots is rejected because it is most likely a mistyped IP address. Letters are
/// converted to lower case, because DNS names are case-insensitive.
///
/// A trailing dot makes the name absolute: the search domains of resolv.conf are not applied.
/// [`is_absolute`](ServiceName::is_absolute) returns true for such a name. [`as_str`](ServiceName::as_str) omits the
/// dot.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ServiceName {
    name: Box<str>,
    absolute: bool,
}

impl ServiceName {
    /// Returns the name in lower case, without a trailing dot.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Returns true if the name was written with a trailing dot.
    #[must_use]
    pub fn is_absolute(&self) -> bool {
        self.absolute
    }

    /// Returns the labels, from left to right.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.name.split('.')
    }
}

impl FromStr for ServiceName {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let reject = |expected: &'static str| Err(ConfigError::new("host", expected).got(message::excerpt(text)));
        let (name, absolute) = match text.strip_suffix('.') {
            Some(name) => (name, true),
            None => (text, false),
        };
        if name.len() > MAX_NAME {
            return Err(ConfigError::new("host", "a name of at most 253 characters")
                .got(format!("{} characters", name.chars().count())));
        }
        for label in name.split('.') {
            if label.is_empty() {
                return reject("a name whose labels (the parts between dots) are not empty");
            }
            if label.len() > MAX_LABEL {
                return reject("a name whose labels (the parts between dots) have at most 63 characters");
            }
            if !label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
                return reject("a Service name of letters a to z, digits, `-`, `_` and dots, or an IP address");
            }
            if label.starts_with('-') || label.ends_with('-') {
                return reject("a name whose labels (the parts between dots) neither begin nor end with `-`");
            }
        }
        if name.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            return reject("a Service name with a letter in it, or an IPv4 address of four numbers from 0 to 255");
        }
        Ok(Self { name: name.to_ascii_lowercase().into(), absolute })
    }
}

/// Formats the name in lower case, with a trailing dot if it is absolute.
impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        f.write_str(if self.absolute { "." } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn problem(text: &str) -> String {
        let error = text.parse::<ServiceName>().unwrap_err();
        assert_eq!(error.parameter(), "host");
        error.problem().to_owned()
    }

    #[test]
    fn converts_names_to_lower_case() {
        let name: ServiceName = "PostgreSQL-svc.K8s-Training.svc.cluster.local".parse().unwrap();
        assert_eq!(name.as_str(), "postgresql-svc.k8s-training.svc.cluster.local");
        assert_eq!(name.labels().collect::<Vec<_>>(), ["postgresql-svc", "k8s-training", "svc", "cluster", "local"]);
        assert!(!name.is_absolute());
    }

    #[test]
    fn preserves_a_trailing_dot() {
        let name: ServiceName = "db.example.".parse().unwrap();
        assert!(name.is_absolute());
        assert_eq!(name.as_str(), "db.example");
        assert_eq!(name.to_string(), "db.example.");
    }

    #[test]
    fn accepts_service_names_and_srv_owner_names() {
        for text in ["db", "0db", "db.123", "_postgresql._tcp.db", "xn--bcher-kva.example", &"a".repeat(63)] {
            assert!(text.parse::<ServiceName>().is_ok(), "{text}");
        }
        let longest = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "a".repeat(61));
        assert_eq!(longest.len(), 253);
        assert!(longest.parse::<ServiceName>().is_ok());
        assert!(format!("{longest}.").parse::<ServiceName>().is_ok());
    }

    #[test]
    fn explains_why_a_name_is_rejected() {
        for text in ["", ".", "..", ".db", "db..svc", "db.."] {
            assert!(problem(text).contains("not empty"), "{text:?}");
        }
        assert!(problem(&"a".repeat(64)).contains("at most 63"));
        assert!(problem(&format!("{0}.{0}.{0}.{1}", "a".repeat(63), "a".repeat(62))).contains("at most 253"));
        for text in ["-db", "db-", "db.-svc"] {
            assert!(problem(text).contains("begin nor end"), "{text}");
        }
        for text in ["d b", "bücher", "db/x", "db:5432", "a,b", "d\0b"] {
            assert!(problem(text).contains("letters a to z"), "{text:?}");
        }
        for text in ["10.0.0.256", "10.0.0", "5432"] {
            assert!(problem(text).contains("four numbers"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in any::<String>()) {
            let _ = text.parse::<ServiceName>();
        }

        #[test]
        fn parses_its_own_output(text in "[a-zA-Z_][a-z0-9_]{0,9}(\\.[a-z0-9]{1,9}){0,4}\\.?") {
            let name: ServiceName = text.parse().unwrap();
            prop_assert_eq!(name.to_string(), text.to_ascii_lowercase());
            prop_assert_eq!(name.to_string().parse::<ServiceName>().unwrap(), name);
        }
    }
}
