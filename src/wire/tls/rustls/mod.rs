//! TLS by rustls and ring, with certificates that are read again when their files change.
//!
//! # Synchronization
//!
//! `config` is what the next handshake uses, locked for as long as it takes to clone an `Arc`. `reader` is locked
//! while files are read, by one thread that may block; who finds it locked goes on with what there is.

mod client;
mod files;
mod session;
mod told;
mod trust;

use std::{
    fmt,
    sync::{Arc, TryLockError},
    thread,
};

use tokio::{net::TcpStream, task::spawn_blocking};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, pki_types::ServerName},
};

pub(super) use self::told::told;
use self::{
    client::{ALPN, Settings, configure},
    files::{FileError, Files, Fingerprint, Root},
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

/// Files that do not fit together are read once more after this long: perhaps they are just being written.
const HALF_WRITTEN: Duration = Duration::from_millis(100);

/// Our own connector.
pub(super) struct Rustls(Arc<Inner>);

struct Inner {
    settings: Settings,
    direct: bool,
    files: Files,
    config: Mutex<Arc<ClientConfig>>,
    reader: Mutex<Reader>,
    events: Arc<Emitter>,
}

/// What was read last.
struct Reader {
    used: Fingerprint,
    refused: Option<Fingerprint>,
}

impl Rustls {
    /// Reads the files that the parameters name.
    pub(super) fn new(ssl: &Ssl, events: Arc<Emitter>) -> Result<Self, ConfigError> {
        let files = Files::find(ssl);
        let system = if files.root == Root::System { Some(systems_authorities()?) } else { None };
        let settings = Settings { name: ssl.mode() == SslMode::VerifyFull, sni: ssl.sni(), system };
        let (used, contents) = files.read();
        let config = configure(&settings, &files, contents?)?;
        let direct = ssl.negotiation() == SslNegotiation::Direct;
        let reader = Mutex::new(Reader { used, refused: None });
        Ok(Self(Arc::new(Inner { settings, direct, files, config: Mutex::new(config), reader, events })))
    }

    /// Whether there are files that can change.
    pub(super) fn is_watching(&self) -> bool {
        !self.0.files.is_empty()
    }

    /// Reads the files again, if they have changed. Blocks.
    pub(super) fn refresh(&self) {
        self.0.refresh();
    }
}

impl Inner {
    fn refresh(&self) {
        let mut reader = match self.reader.try_lock() {
            Ok(reader) => reader,
            Err(TryLockError::Poisoned(reader)) => reader.into_inner(),
            // They are being read just now.
            Err(TryLockError::WouldBlock) => return,
        };
        match self.read(&mut reader) {
            None => {}
            Some((print, Ok(config))) => {
                *lock(&self.config) = config;
                *reader = Reader { used: print, refused: None };
                self.events.emit(Event::CertificatesReloaded);
            }
            Some((print, Err(error))) => {
                reader.refused = Some(print);
                self.events.emit(Event::CertificatesRefused { cause: error.to_string().into() });
            }
        }
    }

    /// What is new in the files, if anything is.
    fn read(&self, reader: &mut Reader) -> Option<(Fingerprint, Result<Arc<ClientConfig>, FileError>)> {
        let mut read = || {
            let (print, contents) = self.files.read();
            if print == reader.used {
                reader.refused = None;
                return None;
            }
            (reader.refused.as_ref() != Some(&print)).then(|| {
                let config = contents.and_then(|contents| configure(&self.settings, &self.files, contents));
                (print, config)
            })
        };
        match read()? {
            (_, Err(_)) => {
                thread::sleep(HALF_WRITTEN);
                read()
            }
            good => Some(good),
        }
    }

    async fn handshake(&self, name: ServerName<'static>, socket: TcpStream) -> Result<Box<dyn Io>, BoxError> {
        let config = lock(&self.config).clone();
        let stream = TlsConnector::from(config).connect(name, socket).await?;
        if self.direct && stream.get_ref().1.alpn_protocol() != Some(ALPN) {
            // As libpq: else the server could be one of another protocol, fooled into answering.
            let message = "the server did not agree on ALPN's `postgresql`, which `sslnegotiation=direct` needs";
            return Err(TlsError::new(TlsReason::Protocol, message).into());
        }
        Ok(Box::new(stream))
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

fn systems_authorities() -> Result<Arc<Roots>, ConfigError> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "a certificate of the system's authorities was not read");
    }
    let roots = Roots::parsable(found.certs);
    if roots.is_empty() {
        let expected = "a file: the operating system has no certificates of authorities (in an image, they come with \
                        the package `ca-certificates`)";
        return Err(ConfigError::new("sslrootcert", expected).got("system"));
    }
    Ok(Arc::new(roots))
}

impl fmt::Debug for Rustls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rustls").field("files", &self.0.files).finish_non_exhaustive()
    }
}
