use std::{fmt, str::FromStr};

use super::words;
use crate::error::ConfigError;

/// Which Pods may serve: libpq's `target_session_attrs` with libpq's six words and meanings (PostgreSQL manual,
/// "Parameter Key Words"), and `prefer-primary`, which libpq lacks.
///
/// A Pod's role is `primary` while it is not in recovery and `standby` while it is. A Pod is read-only while it is a
/// standby, or while `default_transaction_read_only` is on.
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
    /// A standby; any Pod while no standby is healthy.
    PreferStandby,
    /// The primary; any Pod while no primary is healthy.
    PreferPrimary,
}

impl Target {
    /// Every target, in the order of its declaration.
    pub const ALL: [Self; 7] = [
        Self::Any,
        Self::ReadWrite,
        Self::ReadOnly,
        Self::Primary,
        Self::Standby,
        Self::PreferStandby,
        Self::PreferPrimary,
    ];

    const WORDS: [&str; 7] =
        ["any", "read-write", "read-only", "primary", "standby", "prefer-standby", "prefer-primary"];

    /// The target as it is written in a URL: `any`, `read-write`, `prefer-standby`, and so on.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        Self::WORDS[self.index()]
    }

    /// The place of this target in [`Target::ALL`], and in every table that has a row per target.
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// The roles that a Pod of this target has, or would best have, a bit each.
    pub(crate) const fn roles(self) -> u8 {
        match self {
            Self::Any => 0,
            Self::ReadWrite | Self::Primary | Self::PreferPrimary => Self::WRITES,
            Self::ReadOnly | Self::Standby | Self::PreferStandby => Self::READS,
        }
    }

    /// Of [`roles`](Self::roles): a primary.
    pub(crate) const WRITES: u8 = 1;
    /// Of [`roles`](Self::roles): a standby.
    pub(crate) const READS: u8 = 2;

    /// This target alone in a set of targets that is a bit each.
    pub(crate) const fn bit(self) -> u32 {
        1 << self.index()
    }
}

impl FromStr for Target {
    type Err = ConfigError;

    fn from_str(word: &str) -> Result<Self, ConfigError> {
        Self::ALL
            .into_iter()
            .find(|target| target.as_str() == word)
            .ok_or_else(|| words::unknown("target_session_attrs", &Self::WORDS, word))
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
    fn every_word_leads_back_to_its_target() {
        for (i, target) in Target::ALL.into_iter().enumerate() {
            assert_eq!(target.index(), i);
            assert_eq!(target.to_string().parse::<Target>().unwrap(), target);
        }
        assert_eq!(Target::default(), Target::Any);
    }

    #[test]
    fn every_bit_is_its_own() {
        assert_eq!(Target::ALL.into_iter().fold(0, |set, target| set | target.bit()), 0b111_1111);
    }

    #[test]
    fn an_unknown_word_is_told_the_nearest() {
        let error = "read_write".parse::<Target>().unwrap_err();
        assert_eq!(error.parameter(), "target_session_attrs");
        assert!(error.expected().ends_with("the nearest is `read-write`"), "{error}");
        assert_eq!(error.received(), Some("read_write"));
    }
}
