//! What an error of the driver means for the connection, for its Pod and for the work that failed.

use std::{
    error::{self, Error as _},
    io,
};

use tokio_postgres::error::{Error, Severity, SqlState};

use crate::error::Applied;

/// Whose trouble an error is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Class {
    /// The server refuses who we are (SQLSTATE class 28) or the database we ask for (3D000). It will be the same at
    /// the next try, and on every Pod.
    Access,
    /// The connection is gone: closed, broken, or ended by the server with a FATAL.
    Connection,
    /// There were no credentials to come with: the file could not be read, or the provider failed. No Pod is to blame, and
    /// the next try may fare better.
    Credentials,
    /// The Pod has no connection slot left (53300). It is full, not sick.
    Full,
    /// The Pod does not serve now: it is shutting down or starting up (57P01, 57P02, 57P03), or refuses connections.
    NotReady,
    /// A write was sent to a Pod that does not take any (25006).
    ReadOnly,
    /// A prepared statement is of no use any more: its plan no longer fits the tables (0A000, "cached plan must not
    /// change result type"), or the server does not know it (26000). Prepared again, it does what it did.
    StalePlan,
    /// The statement itself: bad SQL, a constraint, a deadlock, a cancelled query, a value that does not fit. The Pod
    /// is well.
    Statement,
    /// TLS could not be agreed on, or a certificate was refused, by us or by the server. It will be the same at the next
    /// try.
    Tls,
}

impl Class {
    /// Whether it will be the same at the next try, until somebody changes something.
    pub(crate) fn is_permanent(self) -> bool {
        matches!(self, Self::Access | Self::Tls)
    }
}

/// What [`classify`] found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Verdict {
    /// Whose trouble it is.
    pub class: Class,
    /// Whether the work can have been applied.
    pub applied: Applied,
}

impl Verdict {
    /// Whether the same work may fare better on another Pod.
    #[must_use]
    pub fn is_connection_class(self) -> bool {
        matches!(self.class, Class::Connection | Class::Full | Class::NotReady | Class::ReadOnly)
    }
}

/// The server's functions that find a plan outdated: `RevalidateCachedQuery`, and `RevalidateCachedPlan` of old.
const REPLANS: &str = "RevalidateCached";

/// Says whose trouble an error is, and whether the work behind it can have been applied.
///
/// An `ERROR` that the server gave for the statement means that nothing of that statement was applied; of what came
/// before it outside of its transaction, it says nothing. After a `FATAL`, a broken
/// connection, or an error that the driver made itself, nobody knows: the commit may have gone through before.
///
/// ```
/// # async fn example(client: podpool::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use podpool::{Applied, classify};
///
/// if let Err(error) = client.execute("INSERT INTO t VALUES (1)", &[]).await {
///     match classify(&error).applied {
///         Applied::No => println!("safe to send again: {error}"),
///         Applied::Unknown => println!("look before you send again: {error}"),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn classify(error: &Error) -> Verdict {
    let Some(db) = error.as_db_error() else {
        let broken = error.is_closed() || io_cause(error).is_some();
        return match io_cause(error).map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionRefused) => Verdict { class: Class::NotReady, applied: Applied::No },
            _ if broken => Verdict { class: Class::Connection, applied: Applied::Unknown },
            _ => Verdict { class: Class::Statement, applied: Applied::Unknown },
        };
    };
    let fatal = match db.parsed_severity() {
        Some(severity) => matches!(severity, Severity::Fatal | Severity::Panic),
        None => matches!(db.severity(), "FATAL" | "PANIC"),
    };
    let code = db.code();
    // 40003: the server itself says that it does not know.
    let unknown = fatal || *code == SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN;
    let replanned = db.routine().is_some_and(|routine| routine.starts_with(REPLANS));
    let class = match class(code.code(), fatal) {
        Class::Statement if *code == SqlState::FEATURE_NOT_SUPPORTED && replanned => Class::StalePlan,
        class => class,
    };
    Verdict { class, applied: if unknown { Applied::Unknown } else { Applied::No } }
}

/// [`classify`], of the driver's error in a chain of causes, if there is one.
pub(crate) fn classify_chain(error: &(dyn error::Error + 'static)) -> Option<Verdict> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(driver) = error.downcast_ref() {
            return Some(classify(driver));
        }
        cause = error.source();
    }
    None
}

/// The class of a SQLSTATE.
pub(crate) fn class(sqlstate: &str, fatal: bool) -> Class {
    match sqlstate {
        // Of a lower severity, these come from a function or a foreign table, and the session goes on.
        "57P01" | "57P02" | "57P03" if fatal => Class::NotReady,
        "53300" if fatal => Class::Full,
        "25006" => Class::ReadOnly,
        "26000" if !fatal => Class::StalePlan,
        "3D000" => Class::Access,
        code if code.starts_with("28") => Class::Access,
        _ if fatal => Class::Connection,
        _ => Class::Statement,
    }
}

/// The I/O error under an error, if there is one.
pub(crate) fn io_cause(error: &Error) -> Option<&io::Error> {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return Some(io);
        }
        source = cause.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sqlstate_has_one_class() {
        for (sqlstate, fatal, expected) in [
            ("57P01", true, Class::NotReady),
            ("57P03", true, Class::NotReady),
            ("57P05", true, Class::Connection),
            ("53300", true, Class::Full),
            ("28P01", true, Class::Access),
            ("28000", true, Class::Access),
            ("3D000", true, Class::Access),
            ("08006", true, Class::Connection),
            ("08006", false, Class::Statement),
            ("53300", false, Class::Statement),
            ("57P01", false, Class::Statement),
            ("25006", false, Class::ReadOnly),
            ("40001", true, Class::Connection),
            ("40001", false, Class::Statement),
            ("40P01", false, Class::Statement),
            ("26000", false, Class::StalePlan),
            ("0A000", false, Class::Statement),
            ("57014", false, Class::Statement),
            ("23505", false, Class::Statement),
        ] {
            assert_eq!(class(sqlstate, fatal), expected, "{sqlstate}");
        }
    }
}
