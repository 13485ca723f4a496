use std::{error, fmt, io, net::Ipv4Addr, path::PathBuf, process::ExitStatus, time::Duration};

use crate::BoxError;

/// What went wrong with the local cluster, and what to do about it where something can be done.
///
/// The text never repeats the text of its source.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The machine does not answer to a Pod's address.
    Address {
        /// The address that is missing.
        address: Ipv4Addr,
    },
    /// A server ended while it was starting.
    Exited {
        /// The Pod.
        name: String,
        /// The end of its log.
        log: String,
    },
    /// The system refused something.
    Io {
        /// What was tried.
        what: String,
        /// Why it did not work.
        source: io::Error,
    },
    /// A name that DNS does not take.
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
        /// What the parser said, where it did.
        source: Option<BoxError>,
    },
    /// No Pod runs that others could be copied from.
    NoPrimary {
        /// The Pod that was the last primary.
        name: String,
    },
    /// There is no such Pod.
    NoSuchPod {
        /// The ordinal that was asked for.
        ordinal: usize,
        /// How many Pods there are.
        pods: usize,
    },
    /// One of PostgreSQL's programs failed.
    Program {
        /// Which one.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// What it printed.
        output: String,
    },
    /// PostgreSQL's server programs are not on this machine, or not all of them.
    ProgramsMissing {
        /// Every place that was looked at.
        searched: Vec<PathBuf>,
    },
    /// A setting that cannot be used.
    Setting {
        /// Which one.
        setting: &'static str,
        /// What it has to be.
        expected: &'static str,
    },
    /// A Pod answered a statement with an error, or not at all.
    Sql {
        /// What was tried.
        what: String,
        /// Why it did not work.
        source: tokio_postgres::Error,
    },
    /// A Pod is not in the state that the operation needs.
    State {
        /// The Pod.
        name: String,
        /// What it is.
        is: &'static str,
        /// What it would have to be.
        expected: &'static str,
    },
    /// Something did not come about in time.
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
        /// The end of the server's log, where there is one.
        log: String,
    },
    /// The programs are too old: the cluster needs PostgreSQL 13 or newer.
    Version {
        /// The program that was asked.
        program: PathBuf,
        /// What it said.
        version: String,
    },
}

impl Error {
    pub(super) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    pub(super) fn name(name: &str, reason: &'static str, source: Option<impl Into<BoxError>>) -> Self {
        Self::Name { name: name.to_owned(), reason, source: source.map(Into::into) }
    }

    pub(super) fn sql(what: impl Into<String>, source: tokio_postgres::Error) -> Self {
        Self::Sql { what: what.into(), source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { address } => write!(
                f,
                "this machine does not answer to {address}; where only 127.0.0.1 exists (macOS), add the Pods' \
                 addresses first: sudo ifconfig lo0 alias {address} up"
            ),
            Self::Exited { name, log } => write!(f, "{name} ended while it was starting; its log ends with:\n{log}"),
            Self::Io { what, .. } => write!(f, "could not {what}"),
            Self::Name { name, reason, .. } => write!(f, "`{name}` {reason}"),
            Self::NoPrimary { name } => {
                write!(f, "no primary is running (the last one was {name}): start or promote one")
            }
            Self::NoSuchPod { ordinal, pods } => write!(f, "there is no Pod {ordinal}: the cluster has {pods}"),
            Self::Program { program, status, output } => write!(f, "{program} failed ({status}): {}", output.trim()),
            Self::ProgramsMissing { searched } => {
                f.write_str(
                    "PostgreSQL's server programs (initdb, postgres, pg_basebackup) are not on this machine. Install \
                     them: `apt-get install postgresql` (Debian, Ubuntu), `dnf install postgresql-server` (Fedora), \
                     `apk add postgresql` (Alpine), `brew install postgresql@17` (macOS); or name their directory in \
                     PG_BIN. Looked in",
                )?;
                for (i, place) in searched.iter().enumerate() {
                    write!(f, "{} {}", if i == 0 { "" } else { "," }, place.display())?;
                }
                Ok(())
            }
            Self::Setting { setting, expected } => write!(f, "setting `{setting}`: expected {expected}"),
            Self::Sql { what, .. } => write!(f, "could not {what}"),
            Self::State { name, is, expected } => write!(f, "{name} is {is}; it has to be {expected}"),
            Self::Timeout { what, after, log } => {
                write!(f, "{what} did not happen within {after:?}")?;
                if log.is_empty() { Ok(()) } else { write!(f, "; the server's log ends with:\n{log}") }
            }
            Self::Version { program, version } => {
                write!(f, "{} is `{version}`; PostgreSQL 13 or newer is needed", program.display())
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
