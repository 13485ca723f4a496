//! Implements TLS with rustls and ring. Reloads the certificates when their files change.
//!
//! # Synchronization
//!
//! `config` is the configuration for the next handshake. Its lock is held only while an `Arc` is cloned or replaced.
//! `reader` is locked while a thread reads the files, which blocks that thread. Another thread that finds `reader`
//! locked does not wait, but continues with the current configuration.

mod client;
mod error;
mod files;
mod session;
mod trust;

use std::{
    fmt,
    sync::{Arc, TryLockError},
    thread,
};

use tokio::{net::TcpStream, task::spawn_blocking};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

pub(super) use self::error::to_tls_error;
use self::{
    client::{ALPN, Configured, Settings, configure},
    files::{FileError, Files, Fingerprint, Root},
    session::Session,
    trust::Roots,
};
use super::{
    connector::{Connector, Handshake},
    io::Io,
};
use crate::{
    config::ssl::{Ssl, SslMode, SslNegotiation},
    error::{BoxError, ConfigError, TlsError, TlsReason},
    event::{Emitter, Event},
    sync::{Mutex, lock},
    time::Duration,
};

/// Delay before invalid files are re-read. The files may be invalid only because another program is still writing them.
const REREAD_DELAY: Duration = Duration::from_millis(100);

/// A connector that uses rustls.
pub(super) struct Rustls(Arc<Inner>);

struct Inner {
    settings: Settings,
    /// `sslnegotiation=direct`.
    direct: bool,
    files: Files,
    config: Mutex<Arc<Configured>>,
    reader: Mutex<Reader>,
    events: Arc<Emitter>,
}

/// The fingerprints of the certificate files that were read last.
struct Reader {
    /// Fingerprint of the files in use.
    used: Fingerprint,
    /// Fingerprint of newer, invalid files that were rejected. It prevents a second report about these files.
    rejected: Option<Fingerprint>,
}

impl Rustls {
    /// Creates a connector. Reads the certificate files.
    pub(super) fn new(ssl: &Ssl, events: Arc<Emitter>) -> Result<Self, ConfigError> {
        let files = Files::find(ssl);
        let system = if files.root == Root::System { Some(system_authorities()?) } else { None };
        let settings = Settings { verify_name: ssl.mode() == SslMode::VerifyFull, sni: ssl.sni(), system };
        let (used, contents) = files.read();
        let config = configure(&settings, &files, contents?)?;
        let direct = ssl.negotiation() == SslNegotiation::Direct;
        let reader = Mutex::new(Reader { used, rejected: None });
        Ok(Self(Arc::new(Inner { settings, direct, files, config: Mutex::new(config), reader, events })))
    }

    /// Returns true if the certificates come from files, which can change.
    pub(super) fn has_files(&self) -> bool {
        !self.0.files.is_empty()
    }

    /// Re-reads the certificate files and applies changes. Blocks.
    pub(super) fn refresh(&self) {
        self.0.refresh();
    }
}

impl Inner {
    fn refresh(&self) {
        let mut reader = match self.reader.try_lock() {
            Ok(reader) => reader,
            Err(TryLockError::Poisoned(reader)) => reader.into_inner(),
            // Another thread is already reading the files.
            Err(TryLockError::WouldBlock) => return,
        };
        match self.read(&mut reader) {
            None => {}
            Some((print, Ok(config))) => {
                *lock(&self.config) = config;
                *reader = Reader { used: print, rejected: None };
                self.events.emit(Event::CertificatesReloaded);
            }
            Some((print, Err(error))) => {
                reader.rejected = Some(print);
                self.events.emit(Event::CertificatesRefused { cause: error.to_string().into() });
            }
        }
    }

    /// Reads the certificate files, and re-reads them after a delay if they are invalid. Returns `None` if the files
    /// have not changed, or if their error was already reported.
    fn read(&self, reader: &mut Reader) -> Option<(Fingerprint, Result<Arc<Configured>, FileError>)> {
        let mut read = || {
            let (print, contents) = self.files.read();
            if print == reader.used {
                reader.rejected = None;
                return None;
            }
            (reader.rejected.as_ref() != Some(&print)).then(|| {
                let config = contents.and_then(|contents| configure(&self.settings, &self.files, contents));
                (print, config)
            })
        };
        match read()? {
            (_, Err(_)) => {
                thread::sleep(REREAD_DELAY);
                read()
            }
            good => Some(good),
        }
    }

    async fn handshake(&self, name: ServerName<'static>, socket: TcpStream) -> Result<Box<dyn Io>, BoxError> {
        let config = lock(&self.config).clone();
        let stream = TlsConnector::from(config.client.clone()).connect(name, socket).await?;
        if self.direct && stream.get_ref().1.alpn_protocol() != Some(ALPN) {
            // A session without ALPN is rejected, as in libpq, because the peer could be a server of another protocol
            // (a cross-protocol attack).
            let message = "the server did not negotiate the ALPN protocol `postgresql`, which `sslnegotiation=direct` \
                           requires";
            return Err(TlsError::new(TlsReason::Protocol, message).into());
        }
        Ok(Box::new(Session { stream, verified: config.verifies }))
    }
}

impl Connector for Rustls {
    fn handshake(&self, name: &str, socket: TcpStream) -> Handshake {
        let inner = self.0.clone();
        let name = ServerName::try_from(name.to_owned());
        Box::pin(async move {
            if !inner.files.is_empty() {
                let reader = inner.clone();
                spawn_blocking(move || reader.refresh()).await?;
            }
            inner.handshake(name?, socket).await
        })
    }
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
        f.debug_struct("Rustls").field("files", &self.0.files).finish_non_exhaustive()
    }
}
