//! Classifies the errors of tokio-postgres: determines their cause, and whether the failed work may have been applied.

use std::{
    error::{self, Error as _},
    io,
};

pub(crate) use tokio_postgres::error::Error as DriverError;
use tokio_postgres::error::{DbError, Error, Severity, SqlState};

use crate::error::Applied;

/// The cause of an error.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Class {
    /// The server rejected the user (SQLSTATE class 28) or the database (3D000), or requested an authentication method
    /// that is not allowed. Retries fail with the same error on every Pod.
    Access,
    /// The connection is gone: closed, broken, or ended by the server with a FATAL error.
    Connection,
    /// No credentials were available: the password file could not be read, or the credentials provider failed. This is
    /// not a fault of the Pod, and a retry may succeed.
    Credentials,
    /// The server has no connection slot left (53300). The Pod is healthy but has reached a connection limit.
    Full,
    /// The Pod is temporarily unavailable: it is shutting down or starting up (57P01, 57P02, 57P03), or refuses
    /// connections.
    NotReady,
    /// A write was sent to a read-only Pod (25006).
    ReadOnly,
    /// A prepared statement is stale: its cached plan no longer matches the tables (0A000, "cached plan must not change
    /// result type"), or the server has no statement of this name (26000). The statement works after the client has
    /// prepared it again.
    StalePlan,
    /// The statement itself failed, for example because of a syntax error, a constraint, a deadlock, a cancellation, or
    /// a value that does not fit. The Pod is healthy.
    Statement,
    /// TLS could not be established, or the client or the server rejected the other's certificate. Retries fail with
    /// the same error.
    Tls,
}

impl Class {
    /// Returns true if every retry fails with the same error until the configuration of the client or the server
    /// changes.
    pub(crate) fn is_permanent(self) -> bool {
        matches!(self, Self::Access | Self::Tls)
    }
}

/// The result of [`classify`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Verdict {
    /// The cause of the error.
    pub class: Class,
    /// `Unknown` if the failed work may have been applied.
    pub applied: Applied,
}

impl Verdict {
    /// Returns true if the same work may succeed on another Pod.
    #[must_use]
    pub fn is_connection_class(self) -> bool {
        matches!(self.class, Class::Connection | Class::Full | Class::NotReady | Class::ReadOnly)
    }
}

/// Common prefix of the server functions that detect a stale cached plan: `RevalidateCachedQuery`, and
/// `RevalidateCachedPlan` in old PostgreSQL versions.
const REVALIDATE: &str = "RevalidateCached";

/// Returns the cause of an error from tokio-postgres, and whether the failed work may have been applied.
///
/// The result covers the failed statement only. Earlier statements outside of its transaction may have been committed.
/// [`Client::classify_work`](crate::Client::classify_work) covers everything that was sent on a connection.
///
/// If the server reported an `ERROR`, the failed statement was not applied, with these exceptions:
///
/// - The outcome is unknown after SQLSTATE 40003, and after errors of the classes 08, 57P and 58: a connection pooler
///   reports these if it loses its server.
/// - `CALL`, `DO`, `VACUUM` and `CREATE INDEX CONCURRENTLY` can commit before they fail. No client can detect this.
/// - Several statements in one simple query can contain a `COMMIT` before the failed one.
///
/// After a `FATAL` error, a broken connection, or an error of the driver itself, the outcome is unknown: a commit may
/// have succeeded before the error. A failed attempt to open a connection has applied nothing.
///
/// ```
/// # async fn example(client: podpool::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use podpool::{Applied, classify};
///
/// if let Err(error) = client.execute("INSERT INTO t VALUES (1)", &[]).await {
///     match classify(&error).applied {
///         Applied::No => println!("safe to retry: {error}"),
///         Applied::Unknown => println!("check the data before a retry: {error}"),
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
            Some(io::ErrorKind::ConnectionRefused) => {
                let applied = if is_dial_error(error) { Applied::No } else { Applied::Unknown };
                Verdict { class: Class::NotReady, applied }
            }
            _ if broken => Verdict { class: Class::Connection, applied: Applied::Unknown },
            _ => Verdict { class: Class::Statement, applied: Applied::Unknown },
        };
    };
    let fatal = is_fatal(db);
    let is_error = db.parsed_severity().map_or(db.severity() == "ERROR", |severity| severity == Severity::Error);
    let code = db.code();
    let unknown = !is_error || has_unknown_outcome(code.code().as_bytes());
    let plan_outdated = db.routine().is_some_and(|routine| routine.starts_with(REVALIDATE));
    let class = match class(code.code(), fatal) {
        Class::Statement if *code == SqlState::FEATURE_NOT_SUPPORTED && plan_outdated => Class::StalePlan,
        class => class,
    };
    Verdict { class, applied: if unknown { Applied::Unknown } else { Applied::No } }
}

/// Returns true if a SQLSTATE leaves open whether the statement was applied: the server reports that it does not know
/// (40003), or a connection pooler may have lost its server (08 is a connection exception, 57P an operator
/// intervention, and 58 a system error).
pub(super) fn has_unknown_outcome(sqlstate: &[u8]) -> bool {
    ["40003", "08", "57P", "58"].iter().any(|prefix| sqlstate.starts_with(prefix.as_bytes()))
}

/// Returns true if the error reports a conflict with another transaction: a serialization failure or a deadlock. The
/// server has then rolled the transaction back, and PostgreSQL requires that all of it is repeated (PostgreSQL manual,
/// "Serialization Failure Handling").
pub(crate) fn is_conflict(error: &Error) -> bool {
    error.code().is_some_and(|code| is_conflict_code(code.code()))
}

/// Returns true if the SQLSTATE reports a conflict with another transaction.
pub(crate) fn is_conflict_code(sqlstate: &str) -> bool {
    matches!(sqlstate, "40001" | "40P01")
}

/// Returns true if an error comes from the state of the server, not from the statement: insufficient resources, system
/// error, configuration file error, or internal error (PostgreSQL manual, "PostgreSQL Error Codes").
pub(super) fn is_server_fault(sqlstate: [u8; 5]) -> bool {
    [b"53", b"58", b"F0", b"XX"].into_iter().any(|class| sqlstate.starts_with(class))
}

/// Returns true if the error is a failed attempt to open a TCP connection.
pub(super) fn is_dial_error(error: &Error) -> bool {
    // The driver does not expose the kind of its errors. The text of each kind is constant.
    io_cause(error).is_some() && error.to_string() == "error connecting to server"
}

/// Returns the first error of tokio-postgres in a chain of causes.
pub(crate) fn driver_error<'a>(error: &'a (dyn error::Error + 'static)) -> Option<&'a Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(driver) = error.downcast_ref() {
            return Some(driver);
        }
        cause = error.source();
    }
    None
}

/// Returns true if the server ends the session after this error.
pub(crate) fn is_fatal(error: &DbError) -> bool {
    match error.parsed_severity() {
        Some(severity) => matches!(severity, Severity::Fatal | Severity::Panic),
        None => matches!(error.severity(), "FATAL" | "PANIC"),
    }
}

/// Returns the class of a SQLSTATE.
pub(crate) fn class(sqlstate: &str, fatal: bool) -> Class {
    match sqlstate {
        // With severity ERROR, these SQLSTATEs come from a function or a foreign table, and the session continues.
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

/// Returns the first I/O error among the causes of an error.
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
    fn maps_each_sqlstate_to_a_class() {
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
