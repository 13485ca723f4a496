use std::{fmt, str::FromStr};

use super::message;
use crate::error::ConfigError;

/// The treatment of Pods that are absent from DNS but pass their probes. In a URL: `absent_pods=drain` or
/// `absent_pods=keep`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum AbsentPods {
    /// An absent Pod is checked out only while no other Pod has a role that callers have requested. Its connections are
    /// closed if its server refuses a new connection, or after `detach_linger`.
    #[default]
    Drain,
    /// DNS only adds Pods. An absent Pod serves until it fails its probes. For names whose answers rotate or contain
    /// only some of the Pods, such as those of Consul and of Aurora's reader endpoints.
    Keep,
}

impl AbsentPods {
    /// Returns the keyword used in a URL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Keep => "keep",
        }
    }
}

impl fmt::Display for AbsentPods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for AbsentPods {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        [Self::Drain, Self::Keep]
            .into_iter()
            .find(|treatment| treatment.as_str() == text)
            .ok_or_else(|| ConfigError::new("absent_pods", "`drain` or `keep`").got(message::excerpt(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_only_its_keywords() {
        for treatment in [AbsentPods::Drain, AbsentPods::Keep] {
            assert_eq!(treatment.as_str().parse(), Ok(treatment));
        }
        assert_eq!("remove".parse::<AbsentPods>().unwrap_err().parameter(), "absent_pods");
    }
}
