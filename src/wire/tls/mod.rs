//! Turns a TCP socket into the stream on which startup begins, in plain text or with TLS as `sslmode` requires.
//!
//! [`plan`] determines which TLS modes a dial attempts. [`connector`] erases the type of the TLS implementation, and
//! [`failure`] classifies the errors of a handshake. The feature `rustls` adds podpool's own TLS implementation.

mod connector;
mod failure;
mod io;
mod plan;
#[cfg(feature = "_tls")]
mod rustls;
mod session;

use std::{fmt, sync::Arc};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
pub(crate) use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};

pub(crate) use self::{
    connector::Connector,
    failure::{TlsFailure, find_tls_error},
    plan::{Encryption, Plan},
};
pub(super) use self::{
    io::{Established, Io},
    session::TlsSession,
};
use super::connect::Socket;
use crate::{
    address::Address,
    config::{
        Config, Host, Security, SslMode,
        ssl::{SslCertMode, SslNegotiation, TlsVersion, VerifiedName},
    },
    endpoint::Endpoint,
    error::{ConfigError, TlsError, TlsReason},
    event::Emitter,
    system::TcpStream,
    unwind::{PanicSource, catch_async},
};

/// SSLRequest (PostgreSQL manual, "Message Formats"): a length of 8, and 1234 and 5679 as 16-bit numbers.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// The TLS settings for the connections to all Pods of a Service.
pub(crate) struct Tls {
    plan: Plan,
    /// `sslnegotiation=direct`: the handshake starts without an SSLRequest.
    direct: bool,
    names: ServerNames,
    connector: Option<Arc<dyn Connector>>,
    events: Arc<Emitter>,
    #[cfg(feature = "_tls")]
    files: Option<Arc<rustls::Rustls>>,
}

/// The server names for certificate verification and SNI.
#[derive(Debug)]
enum ServerNames {
    /// The name of each Pod.
    OfPods,
    /// One name for all servers.
    Fixed(Box<str>),
    /// One name for each configured host.
    OfHosts(Box<[Box<str>]>),
}

impl ServerNames {
    fn new(config: &Config) -> Self {
        match config.ssl().verified_name() {
            VerifiedName::Pod => Self::OfPods,
            VerifiedName::Other(name) => Self::Fixed(name.as_str().into()),
            VerifiedName::Service => Self::OfHosts(config.hosts().iter().map(|entry| name_of(entry.host())).collect()),
        }
    }

    /// Returns the name for the server of this endpoint.
    fn of<'a>(&'a self, endpoint: &'a Endpoint) -> Option<&'a str> {
        match self {
            Self::OfPods => endpoint.host(),
            Self::Fixed(name) => Some(name),
            Self::OfHosts(names) => names.get(endpoint.host_index()).or(names.first()).map(|name| &**name),
        }
    }
}

/// Returns the name of a host in a certificate, which has no trailing dot and no brackets.
fn name_of(host: &Host) -> Box<str> {
    match host {
        Host::Address(address) => address.to_string().into(),
        // Never used, because connections to Unix sockets do not use TLS.
        Host::Directory(path) => path.display().to_string().into(),
        Host::Service(name) => name.as_str().into(),
    }
}

/// Erases the type of a connector that was passed to the builder.
pub(crate) fn erase<M>(make: M) -> Arc<dyn Connector>
where
    M: MakeTlsConnect<TcpStream> + Clone + Send + Sync + 'static,
    M::Stream: Send + 'static,
    M::TlsConnect: Send + 'static,
    <M::TlsConnect as TlsConnect<TcpStream>>::Future: Send + 'static,
{
    Arc::new(connector::Custom(make))
}

impl Tls {
    /// Creates the settings. Reads the certificate files that the configuration names.
    pub(crate) fn new(
        config: &Config,
        custom: Option<Arc<dyn Connector>>,
        events: &Arc<Emitter>,
    ) -> Result<Self, ConfigError> {
        let ssl = config.ssl();
        let mode = ssl.mode();
        let names = ServerNames::new(config);
        let direct = ssl.negotiation() == SslNegotiation::Direct;
        #[cfg(feature = "_tls")]
        {
            let uses_rustls = custom.is_none() && mode != SslMode::Disable;
            let files = if uses_rustls { Some(Arc::new(rustls::Rustls::new(ssl, events.clone())?)) } else { None };
            let connector = match custom {
                Some(custom) => {
                    reject_ignored_parameters(config)?;
                    Some(custom)
                }
                None => files.clone().map(|files| files as Arc<dyn Connector>),
            };
            Ok(Self {
                plan: Plan::new(mode, connector.is_some()),
                direct,
                names,
                connector,
                events: events.clone(),
                files,
            })
        }
        #[cfg(not(feature = "_tls"))]
        {
            match &custom {
                Some(_) => reject_ignored_parameters(config)?,
                None if config.security() == Security::Strict => {
                    let expected = "`default`, because TLS is not available (enable podpool's feature `rustls`)";
                    return Err(ConfigError::new("security", expected).got("strict"));
                }
                None if mode >= SslMode::Require => {
                    let expected = "`disable`, `allow` or `prefer`, because TLS is not available (enable podpool's \
                                    feature `rustls`, or pass a `tls_connector` to the builder)";
                    return Err(ConfigError::new("sslmode", expected).got(mode.as_str()));
                }
                None => {}
            }
            Ok(Self {
                plan: Plan::new(mode, custom.is_some()),
                direct,
                names,
                connector: custom,
                events: events.clone(),
            })
        }
    }

    /// Returns the TLS modes to attempt. As in libpq, `sslmode` does not apply to Unix sockets.
    pub(crate) fn plan(&self, endpoint: &Endpoint) -> Plan {
        match endpoint.address() {
            Address::Unix(_) => Plan::PLAIN,
            Address::Tcp(_) => self.plan,
        }
    }

    /// Turns a socket into the stream for startup. The returned bool is true if the stream uses TLS. Calls
    /// `on_response` when the server has responded to SSLRequest.
    ///
    /// Cancel-safe: dropping the future closes the socket.
    pub(crate) async fn secure(
        &self,
        socket: Socket,
        endpoint: &Endpoint,
        encryption: Encryption,
        on_response: impl Fn(),
    ) -> Result<(Box<dyn Io>, bool), TlsFailure> {
        let mut socket = match socket {
            Socket::Tcp(socket) => socket,
            Socket::Unix(socket) => return Ok((Box::new(socket), false)),
        };
        if encryption == Encryption::Plain {
            return Ok((Box::new(socket), false));
        }
        let Some(connector) = &self.connector else {
            // This branch is unreachable, because the builder rejects a configuration that requires TLS but has no
            // connector.
            return Err(TlsFailure::permanent(TlsError::new(TlsReason::Other, "no TLS connector is available")));
        };
        let name = self.name(endpoint)?;
        if !self.direct {
            let offered = request_tls(&mut socket).await?;
            on_response();
            if !offered && encryption == Encryption::Offered {
                return Ok((Box::new(socket), false));
            } else if !offered {
                let message = "the server does not offer TLS, but `sslmode` requires it";
                return Err(TlsFailure::permanent(TlsError::new(TlsReason::NotOffered, message)));
            }
        }
        match catch_async(async { connector.handshake(name, socket).await }).await {
            Ok(Ok(stream)) => Ok((stream, true)),
            Ok(Err(error)) => Err(TlsFailure::handshake(error)),
            Err(panic) => {
                self.events.panicked(PanicSource::TlsConnector, &panic);
                Err(TlsFailure::panicked(panic))
            }
        }
    }

    /// Returns a function that re-reads the certificate files, or `None` if the configuration uses no files. The
    /// function blocks.
    pub(crate) fn refresher(&self) -> Option<impl FnOnce() + Send + 'static> {
        #[cfg(feature = "_tls")]
        return self.files.clone().filter(|files| files.has_files()).map(|files| move || files.refresh());
        #[cfg(not(feature = "_tls"))]
        None::<fn()>
    }

    /// Returns true if the servers of both endpoints have the same name, or if no connection uses TLS.
    pub(crate) fn is_same_name(&self, one: &Endpoint, other: &Endpoint) -> bool {
        self.connector.is_none() || self.names.of(one) == self.names.of(other)
    }

    /// Returns the server name for certificate verification and SNI.
    fn name<'a>(&'a self, endpoint: &'a Endpoint) -> Result<&'a str, TlsFailure> {
        self.names.of(endpoint).ok_or_else(|| {
            let message = "`ssl_verify_name=pod` requires the name of the Pod, but discovery does not provide one";
            TlsFailure::permanent(TlsError::new(TlsReason::WrongName, message))
        })
    }
}

/// Sends SSLRequest. Returns true if the server offers TLS.
async fn request_tls(socket: &mut TcpStream) -> Result<bool, TlsFailure> {
    socket.write_all(&SSL_REQUEST).await.map_err(TlsFailure::io)?;
    // Exactly one byte is read. An attacker could inject plain text after this byte, which must not be treated as a
    // message from the server. Injected bytes stay in the socket, where they make the handshake fail.
    match socket.read_u8().await.map_err(TlsFailure::io)? {
        b'S' => Ok(true),
        b'N' => Ok(false),
        // The text of the error is omitted, because the server is not authenticated yet.
        b'E' => {
            let error = std::io::Error::other("the server responded to SSLRequest with an error");
            Err(TlsFailure::io(error))
        }
        other => {
            let message = format!("expected `S` or `N` in response to SSLRequest, got {other:#04x}");
            Err(TlsFailure::permanent(TlsError::new(TlsReason::Protocol, message)))
        }
    }
}

/// Rejects parameters that have no effect with a custom connector.
fn reject_ignored_parameters(config: &Config) -> Result<(), ConfigError> {
    if config.security() == Security::Strict {
        let reason = "`strict` requires that podpool verifies certificates, but the builder's `tls_connector` replaces \
                      this verification; remove one of them";
        return Err(ConfigError::conflicting("security", reason));
    }
    let ssl = config.ssl();
    let mode = ssl.mode();
    let set = [
        ("sslmode", mode >= SslMode::VerifyCa),
        ("sslrootcert", ssl.root_cert().is_some()),
        ("sslcert", ssl.cert().is_some()),
        ("sslkey", ssl.key().is_some()),
        ("sslsni", !ssl.sni()),
        ("sslcrl", ssl.crl().is_some()),
        ("sslcrldir", ssl.crl_dir().is_some()),
        ("sslcertmode", ssl.cert_mode() != SslCertMode::default()),
        ("sslpassword", ssl.key_password().is_some()),
        ("sslkeylogfile", ssl.key_log_file().is_some()),
        ("ssl_min_protocol_version", ssl.min_protocol_version() != TlsVersion::default()),
        ("ssl_max_protocol_version", ssl.max_protocol_version().is_some()),
    ];
    let Some((name, _)) = set.into_iter().find(|(_, set)| *set) else { return Ok(()) };
    if name == "sslmode" {
        let expected = "`require` or a weaker mode, because the builder's `tls_connector` verifies certificates";
        return Err(ConfigError::new(name, expected).got(mode.as_str()));
    }
    let reason = "the builder's `tls_connector` controls certificates, TLS versions and SNI; remove the parameter";
    Err(ConfigError::conflicting(name, reason))
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("plan", &self.plan).field("names", &self.names).finish_non_exhaustive()
    }
}
