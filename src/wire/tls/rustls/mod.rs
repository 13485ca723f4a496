//! Implements TLS with rustls. Reloads the certificates when their files change.
//!
//! # Synchronization
//!
//! `config` is the configuration for the next handshake. Its lock is held only while an `Arc` is cloned or replaced.
//! `reader` is locked while a thread reads the files, which blocks that thread. Another thread that finds `reader`
//! locked does not wait, but continues with the current configuration.

mod cert_request;
mod client;
mod error;
mod files;
#[cfg(feature = "keylog")]
mod key_log;
mod private_key;
mod provider;
mod session;
mod trust;

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, TryLockError},
};

use tokio_rustls::{
    TlsConnector,
    rustls::{KeyLog, pki_types::ServerName},
};

pub(super) use self::error::to_tls_error;
use self::{
    cert_request::CertRequest,
    client::{ALPN, Configured, Settings, configure},
    files::{FileError, Files, Fingerprint, Root},
    session::Session,
    trust::{Roots, is_for},
};
use super::{
    connector::{Connector, Handshake},
    io::Io,
};
use crate::{
    config::ssl::{Ssl, SslCertMode, SslMode, SslNegotiation},
    error::{BoxError, ConfigError, TlsError, TlsReason},
    event::{Emitter, Event},
    sync::{Mutex, lock},
    system::{TcpStream, platform::certificate_directory, spawn_blocking, thread},
    time::Duration,
};

/// Delay before invalid files are re-read. The files may be invalid only because another program is still writing them.
const REREAD_DELAY: Duration = Duration::from_millis(100);

/// A connector that uses rustls.
pub(super) struct Rustls(Arc<Inner>);

struct Inner {
    settings: Settings,
    ssl: Ssl,
    /// The directory in which files that are not configured are looked for.
    directory: Option<PathBuf>,
    config: Mutex<Arc<Configured>>,
    reader: Mutex<Reader>,
    events: Arc<Emitter>,
}

/// The fingerprints of the certificate files that were read last.
struct Reader {
    /// The files in use.
    files: Files,
    /// Fingerprint of the files in use.
    used: Fingerprint,
    /// Fingerprint of newer, invalid files that were rejected. It prevents a second report about these files.
    rejected: Option<Fingerprint>,
}

impl Rustls {
    /// Creates a connector. Reads the certificate files.
    pub(super) fn new(ssl: &Ssl, events: Arc<Emitter>) -> Result<Self, ConfigError> {
        Self::with_directory(ssl, certificate_directory(), events)
    }

    /// Creates a connector that looks for files that are not configured in this directory.
    fn with_directory(ssl: &Ssl, directory: Option<PathBuf>, events: Arc<Emitter>) -> Result<Self, ConfigError> {
        let files = Files::find(ssl, directory.as_deref(), None);
        let system = if files.root == Root::System { Some(system_authorities()?) } else { None };
        let settings = Settings {
            verify_name: ssl.mode() == SslMode::VerifyFull,
            sni: ssl.sni(),
            system,
            versions: (ssl.min_protocol_version(), ssl.max_protocol_version()),
            key_password: ssl.key_password().cloned(),
            key_log: key_log(ssl)?,
        };
        let (used, contents) = files.read();
        let config = configure(&settings, &files, contents?)?;
        let reader = Mutex::new(Reader { files, used, rejected: None });
        let config = Mutex::new(config);
        Ok(Self(Arc::new(Inner { settings, ssl: ssl.clone(), directory, config, reader, events })))
    }

    /// Returns true if there are files that can change, or that can appear in libpq's directory.
    pub(super) fn has_files(&self) -> bool {
        self.0.has_files()
    }

    /// Re-reads the certificate files and applies changes. Blocks.
    pub(super) fn refresh(&self) {
        self.0.refresh();
    }
}

impl Inner {
    fn has_files(&self) -> bool {
        self.directory.is_some() || !Files::find(&self.ssl, None, None).is_empty()
    }

    fn refresh(&self) {
        let mut reader = match self.reader.try_lock() {
            Ok(reader) => reader,
            Err(TryLockError::Poisoned(reader)) => reader.into_inner(),
            // Another thread is already reading the files.
            Err(TryLockError::WouldBlock) => return,
        };
        match self.read(&mut reader) {
            None => {}
            Some((files, print, Ok(config))) => {
                *lock(&self.config) = config;
                *reader = Reader { files, used: print, rejected: None };
                self.events.emit(Event::CertificatesReloaded);
            }
            Some((_, print, Err(error))) => {
                reader.rejected = Some(print);
                self.events.emit(Event::CertificatesRefused { cause: error.to_string().into() });
            }
        }
    }

    /// Reads the certificate files, and re-reads them after a delay if they are invalid. Returns `None` if the files
    /// have not changed, or if their error was already reported.
    fn read(&self, reader: &mut Reader) -> Option<(Files, Fingerprint, Result<Arc<Configured>, FileError>)> {
        let mut read = || {
            let files = Files::find(&self.ssl, self.directory.as_deref(), Some(&reader.files));
            let (print, contents) = files.read();
            if print == reader.used {
                reader.rejected = None;
                return None;
            }
            (reader.rejected.as_ref() != Some(&print)).then(|| {
                let config = contents.and_then(|contents| configure(&self.settings, &files, contents));
                (files, print, config)
            })
        };
        match read()? {
            (_, _, Err(_)) => {
                thread::sleep(REREAD_DELAY);
                read()
            }
            good => Some(good),
        }
    }

    async fn handshake(&self, name: ServerName<'static>, socket: TcpStream) -> Result<Box<dyn Io>, BoxError> {
        let config = lock(&self.config).clone();
        let stream = if self.ssl.cert_mode() == SslCertMode::Require {
            let (config, request) = CertRequest::watch(&config.client);
            let stream = TlsConnector::from(config).connect(name.clone(), socket).await?;
            if !request.received() {
                let message = "the server did not request a client certificate, which `sslcertmode=require` demands";
                return Err(TlsError::new(TlsReason::NotRequested, message).into());
            }
            stream
        } else {
            TlsConnector::from(config.client.clone()).connect(name.clone(), socket).await?
        };
        let direct = self.ssl.negotiation() == SslNegotiation::Direct;
        if direct && stream.get_ref().1.alpn_protocol() != Some(ALPN) {
            // A session without ALPN is rejected, as in libpq, because the peer could be a server of another protocol
            // (a cross-protocol attack).
            let message = "the server did not negotiate the ALPN protocol `postgresql`, which `sslnegotiation=direct` \
                           requires";
            return Err(TlsError::new(TlsReason::Protocol, message).into());
        }
        let mut session = Session { stream, verified: config.verifies };
        if self.ssl.mode() < SslMode::VerifyCa {
            // The handshake has not verified the name. The user has not chosen to trust every certificate of the
            // authority, so a session with another server's certificate does not count as verified.
            session.verified &= session.certificate().is_some_and(|certificate| is_for(certificate, &name));
        }
        Ok(Box::new(session))
    }
}

impl Connector for Rustls {
    fn handshake(&self, name: &str, socket: TcpStream) -> Handshake {
        let inner = self.0.clone();
        let name = ServerName::try_from(name.to_owned());
        Box::pin(async move {
            if inner.has_files() {
                let reader = inner.clone();
                spawn_blocking(move || reader.refresh()).await?;
            }
            inner.handshake(name?, socket).await
        })
    }
}

/// Opens the file `sslkeylogfile`, if it is set.
#[cfg(feature = "keylog")]
fn key_log(ssl: &Ssl) -> Result<Option<Arc<dyn KeyLog>>, ConfigError> {
    let Some(path) = ssl.key_log_file() else { return Ok(None) };
    Ok(Some(Arc::new(key_log::KeyLogFile::open(path)?)))
}

/// Returns `None`: without the feature `keylog`, the parameter `sslkeylogfile` is an error.
#[cfg(not(feature = "keylog"))]
#[expect(clippy::unnecessary_wraps, reason = "the function with the feature can fail")]
fn key_log(_: &Ssl) -> Result<Option<Arc<dyn KeyLog>>, ConfigError> {
    Ok(None)
}

/// Loads the CA certificates from the system trust store.
fn system_authorities() -> Result<Arc<Roots>, ConfigError> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "skipped an unreadable CA certificate in the system trust store");
    }
    let roots = Roots::parsable(found.certs);
    if roots.is_empty() {
        let expected = "a file, because the system trust store contains no CA certificates (in a container image, \
                        install the package `ca-certificates`)";
        return Err(ConfigError::new("sslrootcert", expected).got("system"));
    }
    Ok(Arc::new(roots))
}

impl fmt::Debug for Rustls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rustls").field("ssl", &self.0.ssl).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
