/// The possible effect of a failed operation on the database.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "callers must handle both cases, and no third case exists")]
pub enum Applied {
    /// The operation was not applied: no statement was sent, or the server responded with an `ERROR` and had committed
    /// nothing before. A retry is safe.
    ///
    /// Statements that commit before they fail (`CALL`, `DO`, `VACUUM`, `CREATE INDEX CONCURRENTLY`) are an exception
    /// that no client can detect; see [`Client::declare_commits_inside`](crate::Client::declare_commits_inside).
    No,
    /// The operation may have been applied. For example, the connection was lost after a statement was sent, the server
    /// ended the session with a `FATAL`, or an earlier statement of the same work was committed. A `57P01`
    /// (`admin_shutdown`) can arrive even after the server has written the commit to disk.
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
