use std::{fmt, str::FromStr};

use super::message;
use crate::error::ConfigError;

/// The name of one of the load-balancing policies in [`balance`](crate::balance), such as `policy=least-cost` in a URL.
/// A custom policy has no name: pass it to [`Builder::policy`](crate::Builder::policy).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum PolicyName {
    /// [`LeastCost`](crate::balance::LeastCost): `least-cost`. The default.
    #[default]
    LeastCost,
    /// [`LeastInFlight`](crate::balance::LeastInFlight): `least-in-flight`.
    LeastInFlight,
    /// [`PeakEwma`](crate::balance::PeakEwma): `peak-ewma`.
    PeakEwma,
    /// [`Random`](crate::balance::Random): `random`.
    Random,
    /// [`RoundRobin`](crate::balance::RoundRobin): `round-robin`.
    RoundRobin,
}

impl PolicyName {
    const ALL: [Self; 5] = [Self::LeastCost, Self::LeastInFlight, Self::PeakEwma, Self::Random, Self::RoundRobin];

    /// Returns the keyword used in a URL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LeastCost => "least-cost",
            Self::LeastInFlight => "least-in-flight",
            Self::PeakEwma => "peak-ewma",
            Self::Random => "random",
            Self::RoundRobin => "round-robin",
        }
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for PolicyName {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let found = Self::ALL.into_iter().find(|policy| policy.as_str() == text);
        found.ok_or_else(|| message::unknown_keyword("policy", &Self::ALL.map(Self::as_str), text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_its_keywords_and_suggests_the_closest() {
        for policy in PolicyName::ALL {
            assert_eq!(policy.as_str().parse(), Ok(policy));
        }
        let error = "least_cost".parse::<PolicyName>().unwrap_err();
        assert_eq!(error.parameter(), "policy");
        assert!(error.to_string().contains("closest match: `least-cost`"), "{error}");
    }
}
