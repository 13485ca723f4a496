use std::{fmt, str::FromStr};

use super::words;
use crate::error::ConfigError;

/// Which of the policies in [`balance`](crate::balance) chooses the Pod of a checkout. In a URL: `policy=least-cost` and
/// so on. A policy of your own is given to [`Builder::policy`](crate::Builder::policy).
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

    /// The word of a URL.
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
        found.ok_or_else(|| words::unknown("policy", &Self::ALL.map(Self::as_str), text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_own_words_and_names_the_nearest_to_another() {
        for policy in PolicyName::ALL {
            assert_eq!(policy.as_str().parse(), Ok(policy));
        }
        let error = "least_cost".parse::<PolicyName>().unwrap_err();
        assert_eq!(error.parameter(), "policy");
        assert!(error.to_string().contains("the nearest is `least-cost`"), "{error}");
    }
}
