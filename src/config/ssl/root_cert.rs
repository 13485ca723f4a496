use std::{
    fmt,
    path::{Path, PathBuf},
};

/// Whose certificates are trusted: libpq's `sslrootcert`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum RootCert {
    /// Those of the authorities in a file of PEM certificates.
    File(PathBuf),
    /// Those of the operating system's authorities, written `system`; or of `SSL_CERT_FILE` and `SSL_CERT_DIR`, where
    /// the environment has them. Goes with `sslmode=verify-full` alone, and makes it the default.
    System,
}

impl RootCert {
    /// The file, where it is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::System => None,
        }
    }
}

/// `system`, or a file's path.
impl From<&str> for RootCert {
    fn from(text: &str) -> Self {
        match text {
            "system" => Self::System,
            path => Self::File(path.into()),
        }
    }
}

impl From<PathBuf> for RootCert {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl From<&Path> for RootCert {
    fn from(path: &Path) -> Self {
        Self::File(path.into())
    }
}

impl fmt::Display for RootCert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::System => f.write_str("system"),
        }
    }
}
