/// Certainty about whether a failed operation changed the database.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "callers must handle both cases, and no third case exists")]
pub enum Applied {
    /// Not applied: nothing was sent, or the server answered the statement itself with an `ERROR`. Safe to retry.
    No,
    /// Sent, with an unknown result: the connection was lost, or the server ended the session with a `FATAL`. A `57P01`
    /// can follow a commit that is already on the server's disk.
    Unknown,
}

impl Applied {
    /// Returns `no` or `unknown`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Unknown => "unknown",
        }
    }
}
