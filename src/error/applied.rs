/// Whether the work behind an error can have reached the database.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "a third answer would not be an answer")]
pub enum Applied {
    /// Certainly not applied: nothing was sent, or the server answered the statement itself with an `ERROR`. Safe to
    /// send again.
    No,
    /// Sent, fate not known: the connection was lost, or the server ended the session with a `FATAL`. A `57P01` can
    /// follow a commit that is already on the server's disk.
    Unknown,
}

impl Applied {
    /// `no` or `unknown`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Unknown => "unknown",
        }
    }
}
