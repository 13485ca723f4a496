use std::{
    fmt,
    path::{Path, PathBuf},
};

/// The trusted certificate authorities: libpq's `sslrootcert`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum RootCert {
    /// The authorities in a file of PEM certificates.
    File(PathBuf),
    /// The system trust store, or the authorities in `SSL_CERT_FILE` and `SSL_CERT_DIR` if these environment variables
    /// are set. Written as `system`. Requires `sslmode=verify-full`, which then becomes the default mode.
    System,
}

impl RootCert {
    /// Returns the path of the file. `None` for the system trust store.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::System => None,
        }
    }
}

/// Converts `system` to [`RootCert::System`], and any other text to the path of a file.
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
