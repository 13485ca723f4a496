//! The files of certificates: where they are, and what is in them.

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

/// No file of this kind is larger; more than this is not read.
const MAX_BYTES: u64 = 1024 * 1024;

/// Where the files are.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) root: Root,
    /// The client's certificate and its key.
    pub(super) client: Option<(PathBuf, PathBuf)>,
}

/// Whose certificates are trusted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Root {
    /// Everybody's.
    Anybody,
    File(PathBuf),
    System,
}

/// What was in the files. Has no `Debug`, for it holds a key.
pub(super) struct Contents {
    pub(super) root: Option<Vec<u8>>,
    pub(super) client: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
}

/// What tells contents apart without holding them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Fingerprint(Vec<Result<[u8; 32], String>>);

/// A file that cannot be used.
#[derive(Debug)]
pub(super) struct FileError {
    parameter: &'static str,
    expected: String,
}

impl FileError {
    pub(super) fn new(parameter: &'static str, path: &Path, expected: &str, why: impl std::fmt::Display) -> Self {
        Self { parameter, expected: format!("{expected} at {}: {why}", path.display()) }
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
    /// Those that are named; else those of libpq's folder that are there now (PostgreSQL manual, "SSL Client File
    /// Usage").
    pub(super) fn find(ssl: &Ssl) -> Self {
        let folder = folder();
        let usual = |name: &str| folder.as_ref().map(|folder| folder.join(name));
        let there = |name: &str| usual(name).filter(|path| path.exists());
        let root = match ssl.root_cert() {
            Some(RootCert::System) => Root::System,
            Some(RootCert::File(path)) => Root::File(path.clone()),
            None => match there("root.crt") {
                Some(path) => Root::File(path),
                // Not there, which is told when it is read.
                None if ssl.mode() >= SslMode::VerifyCa => Root::File(usual("root.crt").unwrap_or_default()),
                None => Root::Anybody,
            },
        };
        let named = ssl.cert().is_some() || ssl.key().is_some();
        let cert = ssl
            .cert()
            .map(Path::to_path_buf)
            .or_else(|| if named { usual("postgresql.crt") } else { there("postgresql.crt") });
        let client = cert.map(|cert| {
            let key = ssl.key().map(Path::to_path_buf).or_else(|| usual("postgresql.key"));
            (cert, key.unwrap_or_default())
        });
        Self { root, client }
    }

    /// Whether there is anything that can change.
    pub(super) fn is_empty(&self) -> bool {
        !matches!(self.root, Root::File(_)) && self.client.is_none()
    }

    /// What is in the files now. Blocks.
    pub(super) fn read(&self) -> (Fingerprint, Result<Contents, FileError>) {
        let mut prints = Vec::new();
        let result = self.contents(&mut prints);
        if let Err(error) = &result {
            prints.push(Err(error.to_string()));
        }
        (Fingerprint(prints), result)
    }

    fn contents(&self, prints: &mut Vec<Result<[u8; 32], String>>) -> Result<Contents, FileError> {
        let mut taken = |bytes: &[u8]| prints.push(Ok(Sha256::digest(bytes).into()));
        let root = match &self.root {
            Root::File(path) => {
                let hint = "PEM certificates of trusted authorities (or `system`, for those of the operating system)";
                let bytes = read(path, false).map_err(|why| FileError::new("sslrootcert", path, hint, why))?;
                taken(&bytes);
                Some(bytes.to_vec())
            }
            Root::Anybody | Root::System => None,
        };
        let client = match &self.client {
            Some((cert, key)) => {
                let hint = "the client's PEM certificate";
                let chain = read(cert, false).map_err(|why| FileError::new("sslcert", cert, hint, why))?;
                taken(&chain);
                let bytes =
                    read(key, true).map_err(|why| FileError::new("sslkey", key, "the client's private key", why))?;
                taken(&bytes);
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
    // All of the room at once: what a growing buffer leaves behind is not wiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(metadata.len() as usize + 1));
    file.take(metadata.len()).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// libpq's rule for a private key: for its owner alone, or root's and readable by a group.
#[cfg(unix)]
fn check_access(metadata: &std::fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;

    let (mode, roots) = (metadata.mode() & 0o777, metadata.uid() == 0);
    let others = if roots { 0o037 } else { 0o077 };
    if mode & others == 0 {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "its mode is {mode:04o}; it may be 0600 or less, or, for a file of root's, 0640 or less"
    )))
}

#[cfg(not(unix))]
fn check_access(_: &std::fs::Metadata) -> io::Result<()> {
    Ok(())
}

/// Where libpq looks for files that nobody names.
fn folder() -> Option<PathBuf> {
    if cfg!(windows) {
        std::env::var_os("APPDATA").map(|folder| Path::new(&folder).join("postgresql"))
    } else {
        std::env::home_dir().map(|home| home.join(".postgresql"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_may_read_is_refused() {
        use std::{
            fs,
            os::unix::fs::{MetadataExt, PermissionsExt},
        };

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(&path, "secret").unwrap();
        let roots = fs::metadata(&path).unwrap().uid() == 0;
        for (mode, good) in [
            (0o600, true),
            (0o400, true),
            (0o640, roots),
            (0o440, roots),
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
    fn what_is_not_there_is_named_with_its_parameter_and_path() {
        let ssl = Ssl::new(SslMode::VerifyFull).with_root_cert("/nowhere/ca.crt");
        let (print, result) = Files::find(&ssl).read();
        let error = ConfigError::from(result.err().unwrap());
        assert_eq!(error.parameter(), "sslrootcert");
        assert!(error.expected().contains("/nowhere/ca.crt: No such file"), "{error}");
        assert_eq!(print, Files::find(&ssl).read().0, "the same trouble is the same");

        let folder = tempfile::tempdir().unwrap();
        let ssl = Ssl::new(SslMode::Require).with_client_cert(folder.path(), "/nowhere/tls.key");
        let error = ConfigError::from(Files::find(&ssl).read().1.err().unwrap());
        assert_eq!(error.parameter(), "sslcert");
        assert!(error.expected().contains("not a regular file"), "{error}");
    }
}
