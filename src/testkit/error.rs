//! The error type of the testkit.

use std::{error, fmt, io, net::Ipv4Addr, path::PathBuf, process::ExitStatus, time::Duration};

use crate::BoxError;

/// An error of the local cluster. The error text includes a remedy if there is one.
///
/// The error text never includes the text of the source error.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The loopback address of a Pod is not configured on this machine.
    Address {
        /// The missing address.
        address: Ipv4Addr,
    },
    /// A server exited while it was starting.
    Exited {
        /// The name of the Pod.
        name: String,
        /// The end of the server's log.
        log: String,
    },
    /// An operating system call failed.
    Io {
        /// The action that failed, such as "create the directory /tmp/x".
        action: String,
        /// The cause.
        source: io::Error,
    },
    /// A name cannot be used in DNS.
    Name {
        /// The name.
        name: String,
        /// The rule that the name breaks.
        reason: &'static str,
        /// The parser's error, if the parser rejected the name.
        source: Option<BoxError>,
    },
    /// No primary is running, so there is no server to copy or to follow.
    NoPrimary {
        /// The Pod that was the last primary.
        name: String,
    },
    /// No Pod has this ordinal.
    NoSuchPod {
        /// The requested ordinal.
        ordinal: usize,
        /// The number of Pods.
        pods: usize,
    },
    /// One of PostgreSQL's programs failed.
    Program {
        /// The name of the program.
        program: String,
        /// The exit status of the program.
        status: ExitStatus,
        /// The standard output and standard error of the program.
        output: String,
    },
    /// Some or all of PostgreSQL's server programs are not installed.
    ProgramsMissing {
        /// The directories that were searched.
        searched: Vec<PathBuf>,
    },
    /// A setting has an invalid value.
    Setting {
        /// The name of the setting.
        setting: &'static str,
        /// A description of valid values.
        expected: &'static str,
    },
    /// A statement or a connection attempt of the testkit failed.
    Sql {
        /// The action that failed, such as "change the password".
        action: String,
        /// The cause.
        source: tokio_postgres::Error,
    },
    /// An operation did not complete in time.
    Timeout {
        /// The expected event, such as "postgresql-sfs-1 to start".
        waiting_for: String,
        /// The time limit.
        after: Duration,
        /// The end of the server's log. Empty if the operation has no server log.
        log: String,
    },
    /// The installed programs are older than PostgreSQL 13.
    Version {
        /// The path of the program.
        program: PathBuf,
        /// The output of the program with `--version`.
        version: String,
    },
    /// A Pod is not in the state or role that the operation requires.
    WrongState {
        /// The name of the Pod.
        name: String,
        /// The actual state or role.
        actual: &'static str,
        /// The required state or role.
        expected: &'static str,
    },
}

impl Error {
    pub(super) fn io(action: impl Into<String>, source: io::Error) -> Self {
        Self::Io { action: action.into(), source }
    }

    pub(super) fn name(name: &str, reason: &'static str, source: Option<impl Into<BoxError>>) -> Self {
        Self::Name { name: name.to_owned(), reason, source: source.map(Into::into) }
    }

    pub(super) fn sql(action: impl Into<String>, source: tokio_postgres::Error) -> Self {
        Self::Sql { action: action.into(), source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { address } => write!(
                f,
                "the Pod address {address} is not configured on this machine; macOS configures only 127.0.0.1, add the \
                 address with: sudo ifconfig lo0 alias {address} up"
            ),
            Self::Exited { name, log } => write!(f, "{name} exited while it was starting; its log ends with:\n{log}"),
            Self::Io { action, .. } | Self::Sql { action, .. } => write!(f, "cannot {action}"),
            Self::Name { name, reason, .. } => write!(f, "invalid name `{name}`: {reason}"),
            Self::NoPrimary { name } => {
                write!(f, "no primary is running (the last one was {name}): start it or promote another Pod")
            }
            Self::NoSuchPod { ordinal, pods } => write!(f, "no Pod has ordinal {ordinal}: the cluster has {pods} Pods"),
            Self::Program { program, status, output } => write!(f, "{program} failed ({status}): {}", output.trim()),
            Self::ProgramsMissing { searched } => {
                f.write_str(
                    "PostgreSQL's server programs (initdb and postgres; for Patroni, pg_basebackup) are not installed; \
                     install them with `apt-get install postgresql` (Debian, Ubuntu), `dnf install postgresql-server` \
                     (Fedora), `apk add postgresql` (Alpine) or `brew install postgresql@17` (macOS), or set PG_BIN to \
                     their directory; searched",
                )?;
                for (i, directory) in searched.iter().enumerate() {
                    write!(f, "{} {}", if i == 0 { "" } else { "," }, directory.display())?;
                }
                Ok(())
            }
            Self::Setting { setting, expected } => write!(f, "invalid setting `{setting}`: expected {expected}"),
            Self::Timeout { waiting_for, after, log } => {
                write!(f, "timed out after {after:?} waiting for {waiting_for}")?;
                if log.is_empty() { Ok(()) } else { write!(f, "; the server's log ends with:\n{log}") }
            }
            Self::Version { program, version } => write!(
                f,
                "unsupported version of {}: expected PostgreSQL 13 or newer, got `{version}`",
                program.display()
            ),
            Self::WrongState { name, actual, expected } => {
                write!(f, "expected {name} to be {expected}, but it is {actual}")
            }
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Name { source, .. } => source.as_deref().map(|source| source as _),
            Self::Sql { source, .. } => Some(source),
            _ => None,
        }
    }
}
