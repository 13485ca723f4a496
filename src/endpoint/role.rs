use std::fmt;

/// The replication role of a Pod's server.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Role {
    /// The server is not in recovery and accepts writes.
    Primary,
    /// The server is in recovery: it replays WAL from a primary.
    Standby,
    /// The role is not known: no probe has reported it yet, or it may have changed since the last probe.
    #[default]
    Unknown,
}

impl Role {
    /// Every role.
    pub const ALL: &'static [Self] = &[Self::Primary, Self::Standby, Self::Unknown];

    /// Returns the name of the role in lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Standby => "standby",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
