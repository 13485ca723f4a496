//! Opening one connection: TCP, TLS where there is any, start-up and authentication, under one deadline.

use std::{error, fmt, future::Future, net::SocketAddr, sync::Arc};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpSocket, TcpStream},
    task::AbortHandle,
    time::timeout_at,
};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::{
    classify::{Class, class, classify},
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
    postgres: tokio_postgres::Config,
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
    cause: BoxError,
}

impl Dialer {
    /// A dialer for this configuration.
    pub(crate) fn new(config: &Config) -> Self {
        let mut postgres = tokio_postgres::Config::new();
        postgres.user(config.user()).dbname(config.dbname());
        if let Some(password) = config.password() {
            postgres.password(password.expose());
        }
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
        Self { postgres, socket, timeout: limits.connect_timeout }
    }

    /// Opens a connection and starts its driver on the current runtime. What is seen on it goes to `witness`.
    ///
    /// Cancel-safe: dropping the future closes the socket.
    pub(crate) async fn dial(&self, address: SocketAddr, witness: Witness) -> Result<Dialled, DialError> {
        let deadline = Instant::now() + self.timeout;
        let record = Arc::new(Record::default());
        let socket = self.stage(Phase::Tcp, deadline, &record, self.tcp(address)).await?;
        let start = self.start(Box::new(socket), record.clone(), witness);
        self.stage(Phase::Startup, deadline, &record, start).await
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
            Err(DialError { phase, class: Class::NotReady, silent: record.heard() == 0, cause })
        })
    }

    async fn tcp(&self, address: SocketAddr) -> Result<TcpStream, DialError> {
        self.socket.connect(address).await.map_err(|error| DialError {
            phase: Phase::Tcp,
            class: Class::NotReady,
            silent: false,
            cause: error.into(),
        })
    }

    pub(super) async fn start(
        &self,
        stream: Box<dyn Io>,
        record: Arc<Record>,
        witness: Witness,
    ) -> Result<Dialled, DialError> {
        let tap = Tap::new(stream, record.clone(), witness.clone());
        let (client, connection) = self.postgres.connect_raw(tap, NoTls).await.map_err(DialError::startup)?;
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
        Self { phase: Phase::Startup, class, silent: false, cause: error.into() }
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

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The driver's configuration holds the password; it redacts it, and is left out all the same.
        f.debug_struct("Dialer").field("socket", &self.socket).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}
