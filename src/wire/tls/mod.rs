//! From a socket to what start-up is spoken on: plain text or TLS, as `sslmode` says.

mod connector;
mod failure;
mod io;
mod plan;
#[cfg(feature = "rustls")]
mod rustls;

use std::{fmt, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
pub(crate) use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};

pub(super) use self::io::{Io, Through};
pub(crate) use self::{
    connector::Connector,
    failure::{TlsFailure, told},
    plan::{Encryption, Plan},
};
use crate::{
    config::{
        Config, Host, SslMode,
        ssl::{SslNegotiation, VerifiedName},
    },
    endpoint::Endpoint,
    error::{ConfigError, TlsError, TlsReason},
    event::Emitter,
};

/// SSLRequest (PostgreSQL manual, "Message Formats"): a length of 8, and 1234 and 5679 as 16-bit numbers.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// How connections to every Pod of one Service get to TLS, or not.
pub(crate) struct Tls {
    plan: Plan,
    direct: bool,
    /// The name to verify and to send; `None` for each Pod's own.
    name: Option<Box<str>>,
    connector: Option<Arc<dyn Connector>>,
    #[cfg(feature = "rustls")]
    files: Option<Arc<rustls::Rustls>>,
}

/// Erases a user's connector.
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
    /// Reads the files of certificates that the configuration names.
    pub(crate) fn new(
        config: &Config,
        custom: Option<Arc<dyn Connector>>,
        events: &Arc<Emitter>,
    ) -> Result<Self, ConfigError> {
        let ssl = config.ssl();
        let mode = ssl.mode();
        let name = match (ssl.verified_name(), config.host()) {
            (VerifiedName::Pod, _) => None,
            (VerifiedName::Other(name), _) | (VerifiedName::Service, Host::Service(name)) => Some(name.as_str().into()),
            (VerifiedName::Service, Host::Address(address)) => Some(address.to_string().into()),
        };
        let direct = ssl.negotiation() == SslNegotiation::Direct;
        #[cfg(feature = "rustls")]
        {
            let ours = custom.is_none() && mode != SslMode::Disable;
            let files = if ours { Some(Arc::new(rustls::Rustls::new(ssl, events.clone())?)) } else { None };
            let connector = match custom {
                Some(custom) => {
                    leave_to_the_connector(config)?;
                    Some(custom)
                }
                None => files.clone().map(|files| files as Arc<dyn Connector>),
            };
            Ok(Self { plan: Plan::new(mode, connector.is_some()), direct, name, connector, files })
        }
        #[cfg(not(feature = "rustls"))]
        {
            let _ = events;
            match &custom {
                Some(_) => leave_to_the_connector(config)?,
                None if mode >= SslMode::Require => {
                    let expected = "`disable`, `allow` or `prefer`: podpool is built without its feature `rustls`, and \
                                    the builder was given no `tls_connector`";
                    return Err(ConfigError::new("sslmode", expected).got(mode.as_str()));
                }
                None => {}
            }
            Ok(Self { plan: Plan::new(mode, custom.is_some()), direct, name, connector: custom })
        }
    }

    /// What is tried, in order.
    pub(crate) fn plan(&self) -> Plan {
        self.plan
    }

    /// Brings a socket to where start-up begins. Says whether that is encrypted. `heard` is told of a first answer.
    ///
    /// Cancel-safe: dropping the future closes the socket.
    pub(crate) async fn secure(
        &self,
        mut socket: TcpStream,
        endpoint: &Endpoint,
        encryption: Encryption,
        on_answer: impl Fn(),
    ) -> Result<(Box<dyn Io>, bool), TlsFailure> {
        if encryption == Encryption::Plain {
            return Ok((Box::new(socket), false));
        }
        let Some(connector) = &self.connector else {
            // A pool that needs one is not built without.
            return Err(TlsFailure::permanent(TlsError::new(TlsReason::Other, "there is nothing that speaks TLS")));
        };
        let name = self.name(endpoint)?;
        if !self.direct {
            let offered = ask(&mut socket).await?;
            on_answer();
            if !offered && encryption == Encryption::Offered {
                return Ok((Box::new(socket), false));
            } else if !offered {
                let message = "the server does not offer TLS, and `sslmode` insists on it";
                return Err(TlsFailure::permanent(TlsError::new(TlsReason::NotOffered, message)));
            }
        }
        match connector.handshake(name, socket).await {
            Ok(stream) => Ok((stream, true)),
            Err(error) => Err(TlsFailure::handshake(error)),
        }
    }

    /// Reads the files of certificates again, if there are any. Blocks.
    pub(crate) fn refresher(&self) -> Option<impl FnOnce() + Send + 'static> {
        #[cfg(feature = "rustls")]
        return self.files.clone().filter(|files| files.is_watching()).map(|files| move || files.refresh());
        #[cfg(not(feature = "rustls"))]
        None::<fn()>
    }

    fn name<'a>(&'a self, endpoint: &'a Endpoint) -> Result<&'a str, TlsFailure> {
        self.name.as_deref().or_else(|| endpoint.host()).ok_or_else(|| {
            let message = "the Pod's own name is to be verified, and discovery does not tell it";
            TlsFailure::permanent(TlsError::new(TlsReason::WrongName, message))
        })
    }
}

/// Asks the server for TLS.
async fn ask(socket: &mut TcpStream) -> Result<bool, TlsFailure> {
    socket.write_all(&SSL_REQUEST).await.map_err(TlsFailure::broken)?;
    // One byte and no more: what came in plain text with it must not be taken for the server's, and fails the handshake.
    match socket.read_u8().await.map_err(TlsFailure::broken)? {
        b'S' => Ok(true),
        b'N' => Ok(false),
        // Its text is not repeated: nobody has shown who he is.
        b'E' => {
            let error = std::io::Error::other("the server answered the question for TLS with an error");
            Err(TlsFailure::broken(error))
        }
        other => {
            let message = format!("the server answered the question for TLS with {other:#04x}, not with `S` or `N`");
            Err(TlsFailure::permanent(TlsError::new(TlsReason::Protocol, message)))
        }
    }
}

/// Refuses parameters that would have no effect.
fn leave_to_the_connector(config: &Config) -> Result<(), ConfigError> {
    let ssl = config.ssl();
    let mode = ssl.mode();
    let set = [
        ("sslmode", mode >= SslMode::VerifyCa),
        ("sslrootcert", ssl.root_cert().is_some()),
        ("sslcert", ssl.cert().is_some()),
        ("sslkey", ssl.key().is_some()),
        ("sslsni", !ssl.sni()),
    ];
    let Some((name, _)) = set.into_iter().find(|(_, set)| *set) else { return Ok(()) };
    if name == "sslmode" {
        let expected = "`require` at most: the builder's own `tls_connector` decides how certificates are checked";
        return Err(ConfigError::new(name, expected).got(mode.as_str()));
    }
    Err(ConfigError::new(name, "to be left out: the builder's own `tls_connector` decides that"))
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("plan", &self.plan).field("name", &self.name).finish_non_exhaustive()
    }
}
