use std::{error, fmt, io, path::PathBuf};

use crate::error::BoxError;

/// An error that prevented podpool from getting the credentials for a connection. It is the cause of an
/// [`Attempt`](crate::Attempt) that failed in [`Phase::Credentials`](crate::Phase::Credentials), or, for
/// [`Missing`](Self::Missing), in [`Phase::Startup`](crate::Phase::Startup).
///
/// The error never contains any part of a password.
#[derive(Debug)]
#[non_exhaustive]
pub enum CredentialsError {
    /// The file named by `password_file` could not be read.
    File {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        source: io::Error,
    },
    /// The file named by `password_file` does not contain a valid password.
    Content {
        /// The file.
        path: PathBuf,
        /// The expected content.
        expected: &'static str,
    },
    /// The entry for this host, port, database and user in libpq's password file has a password that is not valid
    /// UTF-8.
    Passfile {
        /// The file.
        path: PathBuf,
    },
    /// The provider returned an error.
    Provider {
        /// The provider's error.
        source: BoxError,
    },
    /// The provider returned credentials that cannot be sent to a server.
    Unusable {
        /// The requirement that the credentials violate.
        expected: &'static str,
    },
    /// The provider panicked. The program's panic hook received the message of the panic.
    Panicked,
    /// The server requires a password, but none was found.
    Missing {
        /// A description of the places that were searched for a password.
        searched: String,
    },
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, .. } => write!(f, "cannot read the password file `{}`", path.display()),
            Self::Content { path, expected } => {
                write!(f, "invalid password file `{}`: expected {expected}", path.display())
            }
            Self::Passfile { path } => write!(f, "the password in `{}` is not valid UTF-8", path.display()),
            Self::Provider { .. } => f.write_str("the credentials provider failed"),
            Self::Unusable { expected } => {
                write!(f, "the credentials provider returned unusable credentials: expected {expected}")
            }
            Self::Panicked => f.write_str("the credentials provider panicked"),
            Self::Missing { searched } => write!(f, "the server requires a password, and none was found: {searched}"),
        }
    }
}

impl error::Error for CredentialsError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::File { source, .. } => Some(source),
            Self::Provider { source } => Some(&**source),
            _ => None,
        }
    }
}
