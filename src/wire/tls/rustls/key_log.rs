//! Writes the secrets of each TLS session to the file `sslkeylogfile`, in the NSS key log format.

use std::{io::Write, path::Path};

use tokio_rustls::rustls::KeyLog;

use super::files::FileError;
use crate::{
    sync::{Mutex, lock},
    system::fs::File,
};

/// A file that receives the secrets of TLS sessions.
#[derive(Debug)]
pub(super) struct KeyLogFile(Mutex<File>);

impl KeyLogFile {
    /// Opens the file for appending. A new file is accessible only to its owner.
    pub(super) fn open(path: &Path) -> Result<Self, FileError> {
        let opened = File::append_to(path);
        let file = opened.map_err(|reason| FileError::new("sslkeylogfile", path, "a writable file", reason))?;
        tracing::warn!(path = %path.display(), "the secrets of all TLS sessions are written to a file");
        Ok(Self(Mutex::new(file)))
    }
}

impl KeyLog for KeyLogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let line = format!("{label} {} {}\n", hex(client_random), hex(secret));
        // One call per line, because several processes may append to the same file.
        if let Err(error) = lock(&self.0).write_all(line.as_bytes()) {
            tracing::debug!(%error, "cannot write to the file `sslkeylogfile`");
        }
    }
}
