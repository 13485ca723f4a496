//! Opening one connection: TCP, TLS where there is any, start-up and authentication, under one deadline.

use std::{
    error::{self, Error as _},
    fmt,
    future::Future,
    net::SocketAddr,
    sync::Arc,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpSocket, TcpStream},
    task::AbortHandle,
    time::timeout_at,
};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage, error::SqlState};

use super::{
    classify::{Class, class, classify},
    credentials::{CredentialsError, Login, Source},
    driver::Driver,
    record::{Hold, Record},
    tap::{Io, Tap},
    witness::Witness,
};
use crate::{
    config::Config,
    endpoint::Role,
    error::{BoxError, Phase},
    time::{Duration, Instant},
};

/// How to dial: the same for every Pod of a Service.
pub(crate) struct Dialer {
    /// Everything but who connects.
    postgres: tokio_postgres::Config,
    source: Source,
    socket: SocketOptions,
    timeout: Duration,
}

/// What makes a dead peer known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SocketOptions {
    user_timeout: Duration,
    keepalive_idle: Duration,
    keepalive_interval: Duration,
    keepalive_count: u32,
}

/// A connection that is open, authenticated, and running.
#[derive(Debug)]
pub(crate) struct Dialled {
    /// Goes before the client does, so that the driver knows whose doing the end is.
    pub(crate) record: Hold,
    pub(crate) client: Client,
    /// Cuts the connection.
    pub(crate) driver: AbortHandle,
}

/// A dial that failed: where, and of what.
#[derive(Debug)]
pub(crate) struct DialError {
    pub(crate) phase: Phase,
    pub(crate) class: Class,
    /// Nothing was heard until the deadline.
    pub(crate) silent: bool,
    /// The server did not take the user, or the password (28P01; 28000 where it asks another system).
    unwelcome: bool,
    cause: BoxError,
}

impl Dialer {
    /// A dialer for this configuration, with credentials from there.
    pub(crate) fn new(config: &Config, source: Source) -> Self {
        let mut postgres = tokio_postgres::Config::new();
        postgres.dbname(config.dbname());
        if let Some(name) = config.application_name() {
            postgres.application_name(name);
        }
        if let Some(options) = config.options() {
            postgres.options(options);
        }
        postgres.ssl_mode(tokio_postgres::config::SslMode::Disable);
        let limits = config.limits();
        let socket = SocketOptions {
            user_timeout: limits.tcp_user_timeout,
            keepalive_idle: limits.keepalives_idle,
            keepalive_interval: limits.keepalives_interval,
            keepalive_count: limits.keepalives_count,
        };
        Self { postgres, source, socket, timeout: limits.connect_timeout }
    }

    /// Opens a connection and starts its driver on the current runtime. What is seen on it goes to `witness`.
    ///
    /// Cancel-safe: dropping the future closes the socket.
    pub(crate) async fn dial(&self, address: SocketAddr, witness: Witness) -> Result<Dialled, DialError> {
        let deadline = Instant::now() + self.timeout;
        let login = self.login(address, false, deadline).await?;
        let refused = match self.open(address, &login, deadline, witness.clone()).await {
            Err(refused) if refused.unwelcome && self.source.can_change() => refused,
            result => return result,
        };
        // Perhaps the password was changed a moment ago, here and there.
        let again = self.login(address, true, deadline).await?;
        if again.is(&login) {
            return Err(refused);
        }
        self.open(address, &again, deadline, witness).await
    }

    async fn login(&self, address: SocketAddr, refused: bool, deadline: Instant) -> Result<Login, DialError> {
        let cause: BoxError = match timeout_at(deadline, self.source.login(address, refused)).await {
            Ok(Ok(login)) => return Ok(login),
            Ok(Err(error)) => error.into(),
            Err(_) => format!("no credentials within {:?}", self.timeout).into(),
        };
        Err(DialError { phase: Phase::Credentials, class: Class::Credentials, silent: false, unwelcome: false, cause })
    }

    async fn open(
        &self,
        address: SocketAddr,
        login: &Login,
        deadline: Instant,
        witness: Witness,
    ) -> Result<Dialled, DialError> {
        let record = Arc::new(Record::default());
        let socket = self.stage(Phase::Tcp, deadline, &record, self.tcp(address)).await?;
        let start = self.start(Box::new(socket), login, record.clone(), witness);
        let result = self.stage(Phase::Startup, deadline, &record, start).await;
        result.map_err(|error| error.explained(&self.source, login, address.port()))
    }

    async fn stage<T>(
        &self,
        phase: Phase,
        deadline: Instant,
        record: &Record,
        work: impl Future<Output = Result<T, DialError>>,
    ) -> Result<T, DialError> {
        timeout_at(deadline, work).await.unwrap_or_else(|_| {
            let cause = format!("no answer within {:?}", self.timeout).into();
            Err(DialError { phase, class: Class::NotReady, silent: record.heard() == 0, unwelcome: false, cause })
        })
    }

    async fn tcp(&self, address: SocketAddr) -> Result<TcpStream, DialError> {
        self.socket.connect(address).await.map_err(|error| DialError {
            phase: Phase::Tcp,
            class: Class::NotReady,
            silent: false,
            unwelcome: false,
            cause: error.into(),
        })
    }

    async fn start(
        &self,
        stream: Box<dyn Io>,
        login: &Login,
        record: Arc<Record>,
        witness: Witness,
    ) -> Result<Dialled, DialError> {
        let tap = Tap::new(stream, record.clone(), witness.clone());
        let mut postgres = self.postgres.clone();
        postgres.user(&login.user);
        if let Some(password) = &login.password {
            postgres.password(password.expose());
        }
        let (client, connection) = postgres.connect_raw(tap, NoTls).await.map_err(DialError::startup)?;
        let driver = tokio::spawn(Driver::new(connection, record.clone(), witness)).abort_handle();
        let dialled = Dialled { record: Hold::new(record), client, driver };
        if dialled.record.role() == Role::Unknown {
            dialled.ask_role().await.map_err(DialError::startup)?;
        }
        Ok(dialled)
    }
}

impl Dialled {
    /// Asks what the server is, where it did not say so by itself: before PostgreSQL 14, and behind poolers.
    async fn ask_role(&self) -> Result<(), tokio_postgres::Error> {
        let messages = self.client.simple_query("SELECT pg_catalog.pg_is_in_recovery()").await?;
        for message in messages {
            if let SimpleQueryMessage::Row(row) = message {
                self.record.set_standby(row.get(0) == Some("t"));
            }
        }
        Ok(())
    }
}

impl Dialer {
    /// A bare socket to the Pod, for a CancelRequest.
    pub(super) async fn socket(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        self.socket.connect(address).await
    }

    /// How long a dial may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }
}

impl SocketOptions {
    async fn connect(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_nodelay(true)?;
        // Zero means the system's own, as in libpq (PostgreSQL manual, "Parameter Key Words").
        let mut keepalive = TcpKeepalive::new();
        if !self.keepalive_idle.is_zero() {
            keepalive = keepalive.with_time(self.keepalive_idle);
        }
        #[cfg(not(target_os = "openbsd"))]
        {
            if !self.keepalive_interval.is_zero() {
                keepalive = keepalive.with_interval(self.keepalive_interval);
            }
            if self.keepalive_count > 0 {
                keepalive = keepalive.with_retries(self.keepalive_count);
            }
        }
        let options = SockRef::from(&socket);
        options.set_keepalive(true)?;
        options.set_tcp_keepalive(&keepalive)?;
        #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
        if !self.user_timeout.is_zero() {
            options.set_tcp_user_timeout(Some(self.user_timeout))?;
        }
        socket.connect(address).await
    }
}

impl DialError {
    fn startup(error: tokio_postgres::Error) -> Self {
        // What the server refuses during start-up was never open, hence never "lost".
        let class = match error.code() {
            Some(code) => match class(code.code(), true) {
                Class::Connection => Class::NotReady,
                class => class,
            },
            None => match classify(&error).class {
                Class::Connection => Class::NotReady,
                class => class,
            },
        };
        let unwelcome = matches!(error.code().map(SqlState::code), Some("28P01" | "28000"));
        Self { phase: Phase::Startup, class, silent: false, unwelcome, cause: error.into() }
    }

    /// The same, with what the driver's error does not say: the SQLSTATE, where a refused password came from, and where
    /// one that is missing was looked for.
    fn explained(mut self, source: &Source, login: &Login, port: u16) -> Self {
        let Some(error) = self.cause.downcast_ref::<tokio_postgres::Error>() else { return self };
        if let Some(code) = error.code() {
            let origin = source.origin().filter(|_| self.unwelcome);
            let with = origin.map(|origin| format!(", with {origin}")).unwrap_or_default();
            self.cause = Box::new(Refused { text: format!("SQLSTATE {}{with}", code.code()), source: self.cause });
        } else if login.password.is_none() && error.source().is_some_and(|cause| cause.to_string() == MISSING) {
            let missing: CredentialsError = source.missing(port);
            self.class = Class::Access;
            self.cause = missing.into();
        }
        self
    }

    /// The cause by itself.
    pub(crate) fn into_cause(self) -> BoxError {
        self.cause
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed in {}", self.phase)
    }
}

impl error::Error for DialError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&*self.cause)
    }
}

/// What the driver says where the server asks for a password and it was given none.
const MISSING: &str = "password missing";

/// The server ended the start of a session.
#[derive(Debug)]
struct Refused {
    text: String,
    source: BoxError,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl error::Error for Refused {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&*self.source)
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("socket", &self.socket).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}
