/// The possible effect of a failed operation on the database.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "callers must handle both cases, and no third case exists")]
pub enum Applied {
    /// The operation was not applied: nothing was sent, or the server responded to the statement itself with an
    /// `ERROR`. A retry is safe.
    No,
    /// The operation may have been applied: after it was sent, the connection was lost or the server ended the session
    /// with a `FATAL`. A `57P01` (`admin_shutdown`) can arrive even after the server has written the commit to disk.
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
