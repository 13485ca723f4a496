use std::{error, fmt, io, path::PathBuf};

use crate::error::BoxError;

/// Why there are no credentials for a connection: the cause of an [`Attempt`](crate::Attempt) that failed in
/// [`Phase::Credentials`](crate::Phase::Credentials), or, for [`Missing`](Self::Missing), in
/// [`Phase::Startup`](crate::Phase::Startup).
///
/// Holds no part of a password.
#[derive(Debug)]
#[non_exhaustive]
pub enum CredentialsError {
    /// The file named by `password_file` could not be read.
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file named by `password_file` holds no password.
    Content {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        expected: &'static str,
    },
    /// The password that libpq's password file has for this host, port, database and user is no UTF-8.
    Passfile {
        /// Which file.
        path: PathBuf,
    },
    /// The provider failed.
    Provider {
        /// Its error.
        source: BoxError,
    },
    /// The provider gave what cannot be sent to a server.
    Unusable {
        /// What was expected.
        expected: &'static str,
    },
    /// The provider panicked. Its message went where this program's panics go.
    Panicked,
    /// The server asks for a password, and there is none.
    Missing {
        /// Where it was looked for.
        looked: String,
    },
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, .. } => write!(f, "the password file `{}` could not be read", path.display()),
            Self::Content { path, expected } => {
                write!(f, "the password file `{}`: expected {expected}", path.display())
            }
            Self::Passfile { path } => write!(f, "the password in `{}` is no UTF-8", path.display()),
            Self::Provider { .. } => f.write_str("the credentials' provider failed"),
            Self::Unusable { expected } => write!(f, "the credentials' provider: expected {expected}"),
            Self::Panicked => f.write_str("the credentials' provider panicked"),
            Self::Missing { looked } => write!(f, "the server asks for a password, and there is none: {looked}"),
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
