//! Locates and reads the certificate files.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{
    config::ssl::{RootCert, Ssl, SslMode},
    error::ConfigError,
};

/// Maximum size of a certificate or key file, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;

/// The paths of the certificate files.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) root: Root,
    /// The client's certificate and its key.
    pub(super) client: Option<(PathBuf, PathBuf)>,
}

/// The source of the trusted certificate authorities.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Root {
    /// Certificates are not verified.
    Unverified,
    File(PathBuf),
    System,
}

/// The contents of the certificate files. Does not implement `Debug`, because the contents include a private key.
pub(super) struct Contents {
    pub(super) root: Option<Vec<u8>>,
    pub(super) client: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
}

/// The digests of the certificate files, or the error of reading them. Used to detect changes without a copy of the
/// contents.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Fingerprint(Vec<Result<[u8; 32], String>>);

/// A file that cannot be used.
#[derive(Debug)]
pub(super) struct FileError {
    parameter: &'static str,
    expected: String,
}

impl FileError {
    pub(super) fn new(parameter: &'static str, path: &Path, expected: &str, reason: impl std::fmt::Display) -> Self {
        Self { parameter, expected: format!("{expected} at {}: {reason}", path.display()) }
    }
}

impl std::fmt::Display for FileError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: expected {}", self.parameter, self.expected)
    }
}

impl From<FileError> for ConfigError {
    fn from(error: FileError) -> Self {
        Self::new(error.parameter, error.expected)
    }
}

impl Files {
    /// Returns the configured files. For parameters that are not set, returns the files that currently exist in libpq's
    /// directory (PostgreSQL manual, "SSL Client File Usage").
    pub(super) fn find(ssl: &Ssl) -> Self {
        let directory = directory();
        let default = |name: &str| directory.as_ref().map(|directory| directory.join(name));
        let existing = |name: &str| default(name).filter(|path| path.exists());
        let root = match ssl.root_cert() {
            Some(RootCert::System) => Root::System,
            Some(RootCert::File(path)) => Root::File(path.clone()),
            None => match existing("root.crt") {
                Some(path) => Root::File(path),
                // The file does not exist. Its path is returned anyway, so that the error of reading the file names the
                // path.
                None if ssl.mode() >= SslMode::VerifyCa => Root::File(default("root.crt").unwrap_or_default()),
                None => Root::Unverified,
            },
        };
        let named = ssl.cert().is_some() || ssl.key().is_some();
        let cert = ssl
            .cert()
            .map(Path::to_path_buf)
            .or_else(|| if named { default("postgresql.crt") } else { existing("postgresql.crt") });
        let client = cert.map(|cert| {
            let key = ssl.key().map(Path::to_path_buf).or_else(|| default("postgresql.key"));
            (cert, key.unwrap_or_default())
        });
        Self { root, client }
    }

    /// Returns true if the configuration uses no certificate files, so there is nothing to reload.
    pub(super) fn is_empty(&self) -> bool {
        !matches!(self.root, Root::File(_)) && self.client.is_none()
    }

    /// Reads the files. Blocks.
    pub(super) fn read(&self) -> (Fingerprint, Result<Contents, FileError>) {
        let mut prints = Vec::new();
        let result = self.contents(&mut prints);
        if let Err(error) = &result {
            prints.push(Err(error.to_string()));
        }
        (Fingerprint(prints), result)
    }

    fn contents(&self, prints: &mut Vec<Result<[u8; 32], String>>) -> Result<Contents, FileError> {
        let mut add = |bytes: &[u8]| prints.push(Ok(Sha256::digest(bytes).into()));
        let root = match &self.root {
            Root::File(path) => {
                let hint = "PEM certificates of trusted authorities (or `system`, for the system trust store)";
                let bytes = read(path, false).map_err(|reason| FileError::new("sslrootcert", path, hint, reason))?;
                add(&bytes);
                Some(bytes.to_vec())
            }
            Root::Unverified | Root::System => None,
        };
        let client = match &self.client {
            Some((cert, key)) => {
                let hint = "the client's PEM certificate";
                let chain = read(cert, false).map_err(|reason| FileError::new("sslcert", cert, hint, reason))?;
                add(&chain);
                let bytes = read(key, true)
                    .map_err(|reason| FileError::new("sslkey", key, "the client's private key", reason))?;
                add(&bytes);
                Some((chain.to_vec(), bytes))
            }
            None => None,
        };
        Ok(Contents { root, client })
    }
}

fn read(path: &Path, secret: bool) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if secret {
        check_access(&metadata)?;
    }
    if metadata.len() > MAX_BYTES {
        return Err(io::Error::other(format!("larger than {MAX_BYTES} bytes")));
    }
    // The buffer is allocated at full size. If it grew, a reallocation would leave a copy of its contents in memory
    // that is not overwritten.
    let mut bytes = Zeroizing::new(Vec::with_capacity(metadata.len() as usize + 1));
    file.take(metadata.len()).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Applies libpq's rule for private keys: the file must be accessible only to its owner, or be owned by root and at
/// most readable by its group.
#[cfg(unix)]
fn check_access(metadata: &std::fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;

    let (mode, owned_by_root) = (metadata.mode() & 0o777, metadata.uid() == 0);
    let forbidden = if owned_by_root { 0o037 } else { 0o077 };
    if mode & forbidden == 0 {
        return Ok(());
    }
    Err(io::Error::other(format!("its mode is {mode:04o}, but must be 0600 or stricter (0640 if owned by root)")))
}

#[cfg(not(unix))]
fn check_access(_: &std::fs::Metadata) -> io::Result<()> {
    Ok(())
}

/// Returns the directory in which libpq looks for files that are not configured.
fn directory() -> Option<PathBuf> {
    if cfg!(windows) {
        std::env::var_os("APPDATA").map(|parent| Path::new(&parent).join("postgresql"))
    } else {
        std::env::home_dir().map(|home| home.join(".postgresql"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn rejects_a_key_that_other_users_may_read() {
        use std::{
            fs,
            os::unix::fs::{MetadataExt, PermissionsExt},
        };

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(&path, "secret").unwrap();
        let owned_by_root = fs::metadata(&path).unwrap().uid() == 0;
        for (mode, good) in [
            (0o600, true),
            (0o400, true),
            (0o640, owned_by_root),
            (0o440, owned_by_root),
            (0o660, false),
            (0o604, false),
            (0o644, false),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let result = File::open(&path).and_then(|file| check_access(&file.metadata()?));
            assert_eq!(result.is_ok(), good, "{mode:o}");
            if let Err(error) = result {
                assert!(error.to_string().contains(&format!("{mode:04o}")), "{error}");
            }
        }
    }

    #[test]
    fn errors_name_the_parameter_and_the_path() {
        let ssl = Ssl::new(SslMode::VerifyFull).with_root_cert("/nowhere/ca.crt");
        let (print, result) = Files::find(&ssl).read();
        let error = ConfigError::from(result.err().unwrap());
        assert_eq!(error.parameter(), "sslrootcert");
        assert!(error.problem().contains("/nowhere/ca.crt: No such file"), "{error}");
        assert_eq!(print, Files::find(&ssl).read().0, "the same error has the same fingerprint");

        let directory = tempfile::tempdir().unwrap();
        let ssl = Ssl::new(SslMode::Require).with_client_cert(directory.path(), "/nowhere/tls.key");
        let error = ConfigError::from(Files::find(&ssl).read().1.err().unwrap());
        assert_eq!(error.parameter(), "sslcert");
        assert!(error.problem().contains("not a regular file"), "{error}");
    }
}
