use std::{fmt, str::FromStr};

use super::words;
use crate::error::ConfigError;

/// The most octets of a name without its last dot: RFC 1035, section 2.3.4, counts 255 with length octets and root.
const NAME: usize = 253;
/// The most octets of a label: RFC 1035, section 2.3.4.
const LABEL: usize = 63;

/// The name of a headless Service, such as `postgresql-svc.k8s-training.svc.cluster.local`.
///
/// Labels of 1 to 63 letters, digits, hyphens and underscores, at most 253 characters together, none of them beginning
/// or ending with a hyphen: RFC 1035 with RFC 1123's leading digits, as Kubernetes names its objects. The underscore
/// goes beyond that: Kubernetes has none in a Service's name, but SRV owners (`_postgresql._tcp.…`) and other
/// container networks do, and name servers answer for them. A name of digits alone is refused, for it is a mistyped
/// address. Letters are kept in lower case, since DNS does not tell them apart.
///
/// A dot at the end says that the name is complete: no search domain of resolv.conf is tried with it. It is remembered
/// as [`is_absolute`](ServiceName::is_absolute) and no part of [`as_str`](ServiceName::as_str).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ServiceName {
    name: Box<str>,
    absolute: bool,
}

impl ServiceName {
    /// The name in lower case, without a dot at the end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Whether the name was written with a dot at its end.
    #[must_use]
    pub fn is_absolute(&self) -> bool {
        self.absolute
    }

    /// The labels, from the left.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.name.split('.')
    }
}

impl FromStr for ServiceName {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let refuse = |expected: &'static str| Err(ConfigError::new("host", expected).got(words::clip(text)));
        let (name, absolute) = match text.strip_suffix('.') {
            Some(name) => (name, true),
            None => (text, false),
        };
        if name.len() > NAME {
            return Err(ConfigError::new("host", "a name of at most 253 characters")
                .got(format!("a name of {} characters", name.chars().count())));
        }
        for label in name.split('.') {
            if label.is_empty() {
                return refuse("a name whose labels, the parts between its dots, are not empty");
            }
            if label.len() > LABEL {
                return refuse("a name whose labels, the parts between its dots, have at most 63 characters");
            }
            if !label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
                return refuse("the name of a Service, of letters a to z, digits, `-`, `_` and dots, or an IP address");
            }
            if label.starts_with('-') || label.ends_with('-') {
                return refuse("a name whose labels, the parts between its dots, neither begin nor end with `-`");
            }
        }
        if name.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            return refuse("the name of a Service, or an IP address of four numbers from 0 to 255");
        }
        Ok(Self { name: name.to_ascii_lowercase().into(), absolute })
    }
}

/// The name as it was written but for its case: with the dot at the end where it is absolute.
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

    fn expected(text: &str) -> String {
        let error = text.parse::<ServiceName>().unwrap_err();
        assert_eq!(error.parameter(), "host");
        error.expected().to_owned()
    }

    #[test]
    fn keeps_a_name_in_lower_case() {
        let name: ServiceName = "PostgreSQL-svc.K8s-Training.svc.cluster.local".parse().unwrap();
        assert_eq!(name.as_str(), "postgresql-svc.k8s-training.svc.cluster.local");
        assert_eq!(name.labels().collect::<Vec<_>>(), ["postgresql-svc", "k8s-training", "svc", "cluster", "local"]);
        assert!(!name.is_absolute());
    }

    #[test]
    fn remembers_the_dot_at_the_end() {
        let name: ServiceName = "db.example.".parse().unwrap();
        assert!(name.is_absolute());
        assert_eq!(name.as_str(), "db.example");
        assert_eq!(name.to_string(), "db.example.");
    }

    #[test]
    fn takes_what_kubernetes_and_srv_owners_use() {
        for text in ["db", "0db", "db.123", "_postgresql._tcp.db", "xn--bcher-kva.example", &"a".repeat(63)] {
            assert!(text.parse::<ServiceName>().is_ok(), "{text}");
        }
        let longest = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "a".repeat(61));
        assert_eq!(longest.len(), 253);
        assert!(longest.parse::<ServiceName>().is_ok());
        assert!(format!("{longest}.").parse::<ServiceName>().is_ok());
    }

    #[test]
    fn says_what_is_wrong() {
        for text in ["", ".", "..", ".db", "db..svc", "db.."] {
            assert!(expected(text).contains("not empty"), "{text:?}");
        }
        assert!(expected(&"a".repeat(64)).contains("at most 63"));
        assert!(expected(&format!("{0}.{0}.{0}.{1}", "a".repeat(63), "a".repeat(62))).contains("at most 253"));
        for text in ["-db", "db-", "db.-svc"] {
            assert!(expected(text).contains("begin nor end"), "{text}");
        }
        for text in ["d b", "bücher", "db/x", "db:5432", "a,b", "d\0b"] {
            assert!(expected(text).contains("letters a to z"), "{text:?}");
        }
        for text in ["10.0.0.256", "10.0.0", "5432"] {
            assert!(expected(text).contains("four numbers"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in any::<String>()) {
            let _ = text.parse::<ServiceName>();
        }

        #[test]
        fn what_is_written_is_read_back(text in "[a-zA-Z_][a-z0-9_]{0,9}(\\.[a-z0-9]{1,9}){0,4}\\.?") {
            let name: ServiceName = text.parse().unwrap();
            prop_assert_eq!(name.to_string(), text.to_ascii_lowercase());
            prop_assert_eq!(name.to_string().parse::<ServiceName>().unwrap(), name);
        }
    }
}
