use std::{fmt, str::FromStr};

use super::message;
use crate::error::ConfigError;

/// The roles of the Pods that may serve a checkout: libpq's `target_session_attrs`. libpq's six values have the same
/// meaning here (PostgreSQL manual, "Parameter Key Words"). `prefer-primary` is specific to this crate.
///
/// A Pod in recovery is a standby; any other Pod is a primary. A Pod is read-only if it is a standby or if
/// `default_transaction_read_only` is on.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Target {
    /// Any healthy Pod. The default.
    #[default]
    Any,
    /// A Pod that accepts writes by default.
    ReadWrite,
    /// A Pod that does not accept writes by default.
    ReadOnly,
    /// The primary.
    Primary,
    /// A standby.
    Standby,
    /// A standby, or any Pod while no standby is healthy.
    PreferStandby,
    /// The primary, or any Pod while no primary is healthy.
    PreferPrimary,
}

// The module `health::target` defines which roles each target accepts and prefers. This is not defined here, because
// `config` must not depend on `Role`.
impl Target {
    /// Every target, in declaration order.
    pub const ALL: &'static [Self] = &Self::ARRAY;

    /// [`ALL`](Self::ALL) as an array, for tables with one row per target.
    pub(crate) const ARRAY: [Self; 7] = [
        Self::Any,
        Self::ReadWrite,
        Self::ReadOnly,
        Self::Primary,
        Self::Standby,
        Self::PreferStandby,
        Self::PreferPrimary,
    ];

    const KEYWORDS: [&str; Self::ARRAY.len()] =
        ["any", "read-write", "read-only", "primary", "standby", "prefer-standby", "prefer-primary"];

    /// Returns the keyword used in a URL, such as `any`, `read-write` or `prefer-standby`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        Self::KEYWORDS[self.index()]
    }

    /// The bits of all targets.
    pub(crate) const ALL_BITS: u32 = (1 << Self::ALL.len()) - 1;

    /// Returns the index of this target in [`Target::ALL`] and in tables with one row per target.
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// Returns the bit of this target in a bit set of targets.
    pub(crate) const fn bit(self) -> u32 {
        1 << self.index()
    }
}

impl FromStr for Target {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        Self::ARRAY
            .into_iter()
            .find(|target| target.as_str() == text)
            .ok_or_else(|| message::unknown_keyword("target_session_attrs", &Self::KEYWORDS, text))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_parses_its_own_keyword() {
        for (i, target) in Target::ARRAY.into_iter().enumerate() {
            assert_eq!(target.index(), i);
            assert_eq!(target.to_string().parse::<Target>().unwrap(), target);
        }
        assert_eq!(Target::default(), Target::Any);
    }

    #[test]
    fn every_target_has_its_own_bit() {
        let every_bit = (1 << Target::ALL.len()) - 1;
        assert_eq!(Target::ALL.iter().fold(0, |set, target| set | target.bit()), every_bit);
    }

    #[test]
    fn suggests_the_closest_keyword() {
        let error = "read_write".parse::<Target>().unwrap_err();
        assert_eq!(error.parameter(), "target_session_attrs");
        assert!(error.problem().ends_with("(closest match: `read-write`)"), "{error}");
        assert_eq!(error.received(), Some("read_write"));
    }
}
