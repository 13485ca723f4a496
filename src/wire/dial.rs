//! Opening one connection: TCP, TLS where there is any, start-up and authentication, under one deadline.

use std::{fmt, future::Future, net::SocketAddr, sync::Arc};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpSocket, TcpStream},
    task::AbortHandle,
    time::timeout_at,
};
use tokio_postgres::{
    Client, SimpleQueryMessage,
    config::{self, SslMode, SslNegotiation},
};

pub(crate) use super::dial_error::DialError;
use super::{
    classify::Class,
    connection_observer::ConnectionObserver,
    credentials::{Login, Source},
    driver::Driver,
    record::{Record, RecordOwner},
    tap::Tap,
    tls::{Connector, Encryption, Io, Through, Tls},
};
use crate::{
    config::{Config, ssl::ChannelBinding},
    endpoint::{Endpoint, Role},
    error::{BoxError, ConfigError, Phase},
    event::Emitter,
    time::{Duration, Instant},
};

/// How to dial: the same for every Pod of a Service.
pub(crate) struct Dialer {
    /// Everything but who connects.
    postgres: tokio_postgres::Config,
    source: Source,
    pub(super) socket: SocketOptions,
    pub(super) tls: Tls,
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
    pub(crate) record: RecordOwner,
    pub(crate) client: Client,
    /// Cuts the connection.
    pub(crate) driver: AbortHandle,
    /// Over TLS.
    pub(crate) encrypted: bool,
}

impl Dialer {
    /// A dialer for this configuration, with credentials from there. Reads the files of certificates.
    pub(crate) fn new(
        config: &Config,
        source: Source,
        connector: Option<Arc<dyn Connector>>,
        events: &Arc<Emitter>,
    ) -> Result<Self, ConfigError> {
        let mut postgres = tokio_postgres::Config::new();
        postgres.dbname(config.dbname());
        if let Some(name) = config.application_name() {
            postgres.application_name(name);
        }
        if let Some(options) = config.options() {
            postgres.options(options);
        }
        postgres.channel_binding(match config.ssl().channel_binding() {
            ChannelBinding::Disable => config::ChannelBinding::Disable,
            ChannelBinding::Prefer => config::ChannelBinding::Prefer,
            ChannelBinding::Require => config::ChannelBinding::Require,
        });
        let tls = Tls::new(config, connector, events)?;
        let limits = config.limits();
        let socket = SocketOptions {
            user_timeout: limits.tcp_user_timeout,
            keepalive_idle: limits.keepalives_idle,
            keepalive_interval: limits.keepalives_interval,
            keepalive_count: limits.keepalives_count,
        };
        Ok(Self { postgres, source, socket, tls, timeout: limits.connect_timeout })
    }

    /// Opens a connection and starts its driver on the current runtime. What is seen on it goes to `observer`.
    ///
    /// Cancel-safe: dropping the future closes the socket.
    pub(crate) async fn dial(&self, endpoint: &Endpoint, observer: ConnectionObserver) -> Result<Dialled, DialError> {
        let deadline = Instant::now() + self.timeout;
        let login = self.login(endpoint.address(), false, deadline).await?;
        let refused = match self.open(endpoint, &login, &observer, deadline).await {
            Err(refused) if refused.unwelcome && self.source.can_change() => refused,
            result => return result,
        };
        // Perhaps the password was changed a moment ago, here and there.
        let again = self.login(endpoint.address(), true, deadline).await?;
        if again.is(&login) {
            return Err(refused);
        }
        self.open(endpoint, &again, &observer, deadline).await
    }

    /// How long a dial may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Reads the files of certificates again, if there are any that can change. Blocks.
    pub(crate) fn refresher(&self) -> Option<impl FnOnce() + Send + 'static> {
        self.tls.refresher()
    }

    async fn login(&self, address: SocketAddr, refused: bool, deadline: Instant) -> Result<Login, DialError> {
        let cause: BoxError = match timeout_at(deadline, self.source.login(address, refused)).await {
            Ok(Ok(login)) => return Ok(login),
            Ok(Err(error)) => error.into(),
            Err(_) => format!("no credentials within {:?}", self.timeout).into(),
        };
        Err(DialError::new(Phase::Credentials, Class::Credentials, cause))
    }

    /// A connection, with TLS or without, as the mode has it.
    async fn open(
        &self,
        endpoint: &Endpoint,
        login: &Login,
        observer: &ConnectionObserver,
        deadline: Instant,
    ) -> Result<Dialled, DialError> {
        let plan = self.tls.plan();
        match (self.once(endpoint, login, observer, plan.first, deadline).await, plan.then) {
            (Err(first), Some(other)) if first.encryption => {
                tracing::debug!(%endpoint, error = %first.chain(), "not this way: with or without TLS, it is tried the other");
                let second = self.once(endpoint, login, observer, other, deadline).await;
                second.map_err(|second| second.after(first))
            }
            (done, _) => done,
        }
    }

    /// One connection, encrypted or not.
    async fn once(
        &self,
        endpoint: &Endpoint,
        login: &Login,
        observer: &ConnectionObserver,
        encryption: Encryption,
        deadline: Instant,
    ) -> Result<Dialled, DialError> {
        let record = Arc::new(Record::default());
        let socket = self.stage(Phase::Tcp, deadline, &record, self.tcp(endpoint.address())).await?;
        let secure = async {
            let secured = self.tls.secure(socket, endpoint, encryption, || record.count_read()).await;
            secured.map_err(DialError::from)
        };
        let (stream, encrypted) = self.stage(Phase::Tls, deadline, &record, secure).await?;
        let start = self.start(stream, encrypted, login, record.clone(), observer.clone());
        self.stage(Phase::Startup, deadline, &record, start).await.map_err(|mut error| {
            // `allow` and `prefer` try the other way where `pg_hba.conf` has nothing for this one.
            error.encryption |= error.refused() && (encrypted || encryption == Encryption::Plain);
            error.explained(&self.source, login, endpoint.address().port())
        })
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
            Err(DialError { silent: record.reads() == 0, ..DialError::new(phase, Class::NotReady, cause) })
        })
    }

    async fn tcp(&self, address: SocketAddr) -> Result<TcpStream, DialError> {
        let connected = self.socket.connect(address).await;
        connected.map_err(|error| DialError::new(Phase::Tcp, Class::NotReady, error.into()))
    }

    pub(super) async fn start(
        &self,
        stream: Box<dyn Io>,
        encrypted: bool,
        login: &Login,
        record: Arc<Record>,
        observer: ConnectionObserver,
    ) -> Result<Dialled, DialError> {
        let mut postgres = self.postgres.clone();
        postgres.user(&login.user);
        if let Some(password) = &login.password {
            postgres.password(password.expose());
        }
        if encrypted {
            // The handshake is done: the driver is to begin "at once", and gets what there is.
            postgres.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
        } else {
            postgres.ssl_mode(SslMode::Disable);
        }
        let tap = Tap::new(stream, record.clone(), observer.clone());
        let (client, connection) = postgres.connect_raw(tap, Through).await.map_err(DialError::startup)?;
        let driver = tokio::spawn(Driver::new(connection, record.clone(), observer)).abort_handle();
        let dialled = Dialled { record: RecordOwner::new(record), client, driver, encrypted };
        if dialled.record.role() == Role::Unknown {
            dialled.ask_role().await.map_err(DialError::startup)?;
        }
        // Lent out before the driver's first poll, it would look as if nothing were under way, whatever was sent on it.
        dialled.record.rest().await;
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

impl SocketOptions {
    pub(super) async fn connect(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
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

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The driver's configuration and the source hold the password; they redact it, and are left out all the same.
        let Self { postgres: _, source: _, socket, tls, timeout } = self;
        let mut out = f.debug_struct("Dialer");
        out.field("socket", socket).field("tls", tls).field("timeout", timeout).finish_non_exhaustive()
    }
}
