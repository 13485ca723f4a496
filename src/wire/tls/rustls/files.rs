//! Locates and reads the certificate files.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{
    config::ssl::{RootCert, Ssl, SslCertMode, SslMode},
    error::ConfigError,
    system::fs::{self, File, Metadata},
};

/// Maximum size of a certificate or key file, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;
/// Maximum total size of the files in a directory of certificate revocation lists, in bytes.
const MAX_DIRECTORY_BYTES: usize = 16 * 1024 * 1024;

/// The paths of the certificate files.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) root: Root,
    /// The client's certificate and its key.
    pub(super) client: Option<(PathBuf, PathBuf)>,
    /// The sources of certificate revocation lists.
    pub(super) crls: Vec<CrlSource>,
}

/// The source of the trusted certificate authorities.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Root {
    /// Certificates are not verified.
    Unverified,
    File(PathBuf),
    System,
}

/// A file or directory of certificate revocation lists.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum CrlSource {
    File(PathBuf),
    Directory(PathBuf),
}

impl CrlSource {
    /// Returns the error for this source.
    pub(super) fn error(&self, reason: impl std::fmt::Display) -> FileError {
        match self {
            Self::File(path) => FileError::new("sslcrl", path, "PEM certificate revocation lists", reason),
            Self::Directory(path) => {
                let hint = "a directory of files with PEM certificate revocation lists";
                FileError::new("sslcrldir", path, hint, reason)
            }
        }
    }
}

/// The contents of the certificate files. Does not implement `Debug`, because the contents include a private key.
pub(super) struct Contents {
    pub(super) root: Option<Vec<u8>>,
    pub(super) client: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
    /// The contents of the files of each [`CrlSource`].
    pub(super) crls: Vec<Vec<Vec<u8>>>,
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
    /// Returns the configured files. For parameters that are not set, returns the files that currently exist in
    /// libpq's directory (PostgreSQL manual, "SSL Client File Usage"), and those that were found there before: a file
    /// that disappears is an error, because ignoring it could weaken the verification.
    pub(super) fn find(ssl: &Ssl, directory: Option<&Path>, previous: Option<&Self>) -> Self {
        let default = |name: &str| directory.map(|directory| directory.join(name));
        let existing = |name: &str| default(name).filter(|path| fs::exists(path));
        let root = match (ssl.root_cert(), previous.map(|previous| &previous.root)) {
            (Some(RootCert::System), _) => Root::System,
            (Some(RootCert::File(path)), _) => Root::File(path.clone()),
            (None, Some(previous @ Root::File(_))) => previous.clone(),
            (None, _) => match existing("root.crt") {
                Some(path) => Root::File(path),
                // The file does not exist. Its path is returned anyway, so that the error of reading the file names the
                // path.
                None if ssl.mode() >= SslMode::VerifyCa => Root::File(default("root.crt").unwrap_or_default()),
                None => Root::Unverified,
            },
        };
        let client = Self::find_client(ssl, &default).or_else(|| previous.and_then(|previous| previous.client.clone()));
        let mut crls: Vec<_> = ssl.crl().map(|path| CrlSource::File(path.into())).into_iter().collect();
        crls.extend(ssl.crl_dir().map(|path| CrlSource::Directory(path.into())));
        if crls.is_empty() && root != Root::Unverified {
            crls.extend(existing("root.crl").map(CrlSource::File));
            if let (true, Some(previous)) = (crls.is_empty(), previous) {
                crls.clone_from(&previous.crls);
            }
        }
        Self { root, client, crls }
    }

    /// Returns the configured client certificate and key, or those that exist in libpq's directory.
    fn find_client(ssl: &Ssl, default: &dyn Fn(&str) -> Option<PathBuf>) -> Option<(PathBuf, PathBuf)> {
        let named = ssl.cert().is_some() || ssl.key().is_some() || ssl.cert_mode() == SslCertMode::Require;
        let cert = match ssl.cert() {
            _ if ssl.cert_mode() == SslCertMode::Disable => None,
            Some(cert) => Some(cert.to_path_buf()),
            // The certificate is required. If the file does not exist, the error of reading it names its path.
            None if named => Some(default("postgresql.crt").unwrap_or_default()),
            None => default("postgresql.crt").filter(|path| fs::exists(path)),
        };
        cert.map(|cert| {
            let key = ssl.key().map(Path::to_path_buf).or_else(|| default("postgresql.key"));
            (cert, key.unwrap_or_default())
        })
    }

    /// Returns true if the configuration uses no certificate files.
    pub(super) fn is_empty(&self) -> bool {
        !matches!(self.root, Root::File(_)) && self.client.is_none() && self.crls.is_empty()
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
        let mut crls = Vec::new();
        for source in &self.crls {
            let files = crl_files(source).map_err(|reason| source.error(reason))?;
            for bytes in &files {
                add(bytes);
            }
            crls.push(files);
        }
        Ok(Contents { root, client, crls })
    }
}

/// Reads the file, or every regular file of the directory except hidden ones, in the order of their names. OpenSSL
/// reads only the files whose names are hash values, such as `5ed36f99.r0`, and ignores the others in silence.
fn crl_files(source: &CrlSource) -> io::Result<Vec<Vec<u8>>> {
    let directory = match source {
        CrlSource::File(path) => return Ok(vec![read(path, false)?.to_vec()]),
        CrlSource::Directory(directory) => directory,
    };
    let mut paths = fs::entries(directory)?;
    paths.retain(|path| !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")));
    paths.sort();
    let mut files = Vec::new();
    let mut total = 0;
    for path in paths {
        if fs::metadata(&path).is_ok_and(|metadata| metadata.is_file) {
            let bytes = read(&path, false).map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
            total += bytes.len();
            if total > MAX_DIRECTORY_BYTES {
                return Err(io::Error::other(format!("larger than {MAX_DIRECTORY_BYTES} bytes")));
            }
            files.push(bytes.to_vec());
        }
    }
    Ok(files)
}

fn read(path: &Path, secret: bool) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file {
        return Err(io::Error::other("not a regular file"));
    }
    if secret {
        check_access(&metadata)?;
    }
    if metadata.length > MAX_BYTES {
        return Err(io::Error::other(format!("larger than {MAX_BYTES} bytes")));
    }
    // The buffer is allocated at full size. If it grew, a reallocation would leave a copy of its contents in memory
    // that is not overwritten.
    let mut bytes = Zeroizing::new(Vec::with_capacity(metadata.length as usize + 1));
    file.take(metadata.length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Applies libpq's rule for private keys: the file must be accessible only to its owner, or be owned by root and at
/// most readable by its group.
fn check_access(metadata: &Metadata) -> io::Result<()> {
    let forbidden = if metadata.owner == Some(0) { 0o037 } else { 0o077 };
    match metadata.mode {
        Some(mode) if mode & forbidden != 0 => Err(io::Error::other(format!(
            "its mode is {mode:04o}, but must be 0600 or stricter (0640 if owned by root)"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

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
    fn default_files_are_used_when_they_appear_and_required_from_then_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let find = |ssl: &Ssl, previous: Option<&Files>| Files::find(ssl, Some(directory.path()), previous);
        let ssl = Ssl::new(SslMode::Require);
        let empty = find(&ssl, None);
        assert!(empty.is_empty());
        fs::write(path("root.crl"), "list").unwrap();
        assert!(find(&ssl, Some(&empty)).is_empty(), "certificates are not verified, so the list is not used");
        for name in ["root.crt", "postgresql.crt"] {
            fs::write(path(name), name).unwrap();
        }
        let found = find(&ssl, Some(&empty));
        assert_eq!(found.root, Root::File(path("root.crt")));
        assert_eq!(found.client, Some((path("postgresql.crt"), path("postgresql.key"))));
        assert_eq!(found.crls, [CrlSource::File(path("root.crl"))]);
        for name in ["root.crt", "root.crl", "postgresql.crt"] {
            fs::remove_file(path(name)).unwrap();
        }
        let kept = find(&ssl, Some(&found));
        assert_eq!((&kept.root, &kept.client, &kept.crls), (&found.root, &found.client, &found.crls));
        assert!(kept.read().1.is_err());

        let disabled = find(&ssl.clone().with_cert_mode(SslCertMode::Disable).with_client_cert("/a", "/b"), None);
        assert_eq!(disabled.client, None);
        let required = find(&ssl.with_cert_mode(SslCertMode::Require), None);
        assert_eq!(required.client, Some((path("postgresql.crt"), path("postgresql.key"))));
    }

    #[test]
    fn reads_every_visible_file_of_a_directory_of_revocation_lists() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in [("b.crl", "2"), ("5ed36f99.r0", "1"), (".hidden", "3")] {
            fs::write(directory.path().join(name), text).unwrap();
        }
        fs::create_dir(directory.path().join("more")).unwrap();
        let ssl = Ssl::new(SslMode::VerifyCa).with_root_cert("/nowhere").with_crl_dir(directory.path());
        let source = &Files::find(&ssl, None, None).crls[0];
        assert_eq!(crl_files(source).unwrap(), [b"1".to_vec(), b"2".to_vec()]);
        let error = ConfigError::from(source.error("x"));
        assert_eq!(error.parameter(), "sslcrldir");
    }

    #[test]
    fn errors_name_the_parameter_and_the_path() {
        let ssl = Ssl::new(SslMode::VerifyFull).with_root_cert("/nowhere/ca.crt");
        let (print, result) = Files::find(&ssl, None, None).read();
        let error = ConfigError::from(result.err().unwrap());
        assert_eq!(error.parameter(), "sslrootcert");
        assert!(error.problem().contains("/nowhere/ca.crt: No such file"), "{error}");
        assert_eq!(print, Files::find(&ssl, None, None).read().0, "the same error has the same fingerprint");

        let directory = tempfile::tempdir().unwrap();
        let ssl = Ssl::new(SslMode::Require).with_client_cert(directory.path(), "/nowhere/tls.key");
        let error = ConfigError::from(Files::find(&ssl, None, None).read().1.err().unwrap());
        assert_eq!(error.parameter(), "sslcert");
        assert!(error.problem().contains("not a regular file"), "{error}");
    }
}
