//! Opens one connection. One deadline applies to all phases together: credentials, TCP, TLS if configured, startup and
//! authentication.
//!
//! With `sslmode=allow` and `prefer`, a failed attempt may be retried in the other TLS mode, with TLS instead of plain
//! text or vice versa. If the server rejects credentials that can change, the dial re-reads the credentials and retries
//! once if they differ. [`order`] tries the names and the addresses of a server that has several.

mod order;

use std::{fmt, future::Future, sync::Arc};

use tokio::{task::JoinHandle, time::timeout_at};
use tokio_postgres::{
    Client, SimpleQueryMessage,
    config::{self, SslMode, SslNegotiation},
};

pub(crate) use super::dial_error::DialError;
use super::{
    auth::Gate,
    classify::Class,
    connect::{Socket, connect_any},
    connection_observer::ConnectionObserver,
    credentials::{Login, Source},
    driver::Driver,
    login_security::LoginSecurity,
    record::{Record, RecordOwner},
    socket_options::socket_options,
    tap::Tap,
    tls::{Connector, Encryption, Established, Io, Tls},
};
use crate::{
    address::Address,
    config::{Config, RequireAuth, Reset, Security, ssl::ChannelBinding},
    endpoint::{Endpoint, Role},
    error::{BoxError, ConfigError, Phase},
    event::Emitter,
    system::{SocketOptions, spawn},
    time::{Duration, Instant},
};

/// The settings for opening connections, shared by all Pods of a Service.
pub(crate) struct Dialer {
    /// The driver's settings, without user and password.
    postgres: tokio_postgres::Config,
    source: Source,
    pub(super) socket: SocketOptions,
    pub(super) tls: Tls,
    /// The authentication methods that a server may request, if the configuration restricts them.
    allowed_auth: Option<RequireAuth>,
    security: Security,
    timeout: Duration,
    /// The `application_name` of connections that only probes use.
    probe_name: String,
    /// True if the changes of session state on each connection are recorded.
    tracks_sessions: bool,
    /// Opens the streams of connections to simulated servers.
    #[cfg(test)]
    simulated: std::sync::OnceLock<Box<OpenStream>>,
}

/// Opens a stream to a simulated server.
#[cfg(test)]
type OpenStream = dyn Fn(&Endpoint) -> tokio::io::DuplexStream + Send + Sync;

/// One dial.
#[derive(Clone)]
struct Request<'a> {
    endpoint: &'a Endpoint,
    observer: ConnectionObserver,
    /// Time limit of all phases together.
    limit: Duration,
    deadline: Instant,
    /// True if only probes use the connection.
    for_probe: bool,
}

/// An open, authenticated connection, whose driver is running.
#[derive(Debug)]
pub(crate) struct Dialled {
    /// The Pod, with only the address that is connected.
    pub(crate) endpoint: Endpoint,
    /// The record of the connection, declared before `client` so that it is dropped first: the connection must be
    /// marked as released before the driver detects that the client is gone.
    pub(crate) record: RecordOwner,
    pub(crate) client: Client,
    /// The driver task. Aborting it closes the connection immediately.
    pub(crate) driver: JoinHandle<()>,
    pub(crate) security: LoginSecurity,
}

impl Dialer {
    /// Creates a dialer. Reads the certificate files.
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
        let socket = socket_options(limits);
        let probe_name = probe_name(config.application_name());
        let tracks_sessions = limits.reset == Reset::Auto;
        let (allowed_auth, timeout) = (config.allowed_auth(), limits.connect_timeout);
        Ok(Self {
            postgres,
            source,
            socket,
            tls,
            allowed_auth,
            security: config.security(),
            timeout,
            probe_name,
            tracks_sessions,
            #[cfg(test)]
            simulated: std::sync::OnceLock::new(),
        })
    }

    /// Replaces TCP connections with streams to simulated servers.
    #[cfg(all(test, not(podpool_loom)))]
    pub(crate) fn simulate(&self, open: impl Fn(&Endpoint) -> tokio::io::DuplexStream + Send + Sync + 'static) {
        assert!(self.simulated.set(Box::new(open)).is_ok(), "the servers are already simulated");
    }

    /// Opens a connection and starts its driver on the current runtime. Evidence about the Pod's health and role goes
    /// to `observer`.
    ///
    /// Cancel-safe: dropping the future closes the socket.
    pub(crate) async fn dial(&self, endpoint: &Endpoint, observer: ConnectionObserver) -> Result<Dialled, DialError> {
        self.run(endpoint, observer, self.timeout, false).await
    }

    /// Opens a connection for probes only, within `limit` and within the timeout for dials. Its `application_name` ends
    /// in `/probe`. Apart from that, works like [`dial`](Self::dial).
    pub(crate) async fn dial_for_probe(
        &self,
        endpoint: &Endpoint,
        observer: ConnectionObserver,
        limit: Duration,
    ) -> Result<Dialled, DialError> {
        self.run(endpoint, observer, limit.min(self.timeout), true).await
    }

    async fn run(
        &self,
        endpoint: &Endpoint,
        observer: ConnectionObserver,
        limit: Duration,
        for_probe: bool,
    ) -> Result<Dialled, DialError> {
        let deadline = Instant::now() + limit;
        self.with_each_name(Request { endpoint, observer, limit, deadline, for_probe }).await
    }

    /// Opens a connection with the name of the first host that names the Pod.
    async fn with_name(&self, request: &Request<'_>) -> Result<Dialled, DialError> {
        let login = self.login(request, false).await?;
        let rejected = match self.at_each_address(request, &login).await {
            Err(rejected) if rejected.login_rejected && self.source.can_change() => rejected,
            result => return result,
        };
        // The password may have been rotated after it was read.
        let newer = self.login(request, true).await?;
        if newer.is_same_as(&login) {
            return Err(rejected);
        }
        self.at_each_address(request, &newer).await
    }

    /// Returns the maximum time that a dial may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Returns a function that re-reads the certificate files, or `None` if the configuration uses no files. The
    /// function blocks.
    pub(crate) fn refresher(&self) -> Option<impl FnOnce() + Send + 'static> {
        self.tls.refresher()
    }

    /// Gets the credentials, and fails at the deadline. `rejected` is true if the server has just rejected the
    /// credentials from the previous call.
    async fn login(&self, request: &Request<'_>, rejected: bool) -> Result<Login, DialError> {
        let login = self.source.login(request.endpoint, rejected);
        let cause: BoxError = match timeout_at(request.deadline, login).await {
            Ok(Ok(login)) => return Ok(login),
            Ok(Err(error)) => error.into(),
            Err(_) => format!("no credentials within {:?}", request.limit).into(),
        };
        Err(DialError::new(Phase::Credentials, Class::Credentials, cause))
    }

    /// Opens a connection in the first TLS mode of the plan. If this attempt fails and the fallback mode may succeed,
    /// retries in the fallback mode.
    async fn open(&self, request: &Request<'_>, login: &Login) -> Result<Dialled, DialError> {
        let plan = self.tls.plan(request.endpoint);
        match (self.attempt(request, login, plan.first).await, plan.fallback) {
            (Err(first), Some(fallback)) if first.try_other_tls_mode => {
                let endpoint = request.endpoint;
                tracing::debug!(%endpoint, error = %first.chain(), "retrying the dial with the other TLS mode");
                let second = self.attempt(request, login, fallback).await;
                second.map_err(|second| second.with_first_attempt(first))
            }
            (result, _) => result,
        }
    }

    /// Opens a connection with the given TLS mode.
    async fn attempt(
        &self,
        request: &Request<'_>,
        login: &Login,
        encryption: Encryption,
    ) -> Result<Dialled, DialError> {
        let endpoint = request.endpoint;
        let record = Arc::new(Record::default());
        if self.tracks_sessions {
            record.track_session_changes();
        }
        #[cfg(test)]
        if let Some(open) = self.simulated.get() {
            let name = request.for_probe.then_some(self.probe_name.as_str());
            let stream = Box::new(open(endpoint));
            let start = self.start(endpoint, stream, login, name, record.clone(), request.observer.clone());
            return self.stage(Phase::Startup, request, &record, start).await;
        }
        let (socket, connected) = self.stage(Phase::Tcp, request, &record, self.connect(endpoint)).await?;
        let request = &request.limited_to(&connected);
        let located = |error: DialError| DialError { address: connected.address().tcp(), ..error };
        let secure = async {
            let secured = self.tls.secure(socket, endpoint, encryption, || record.count_read()).await;
            secured.map_err(DialError::from)
        };
        let (stream, encrypted) = self.stage(Phase::Tls, request, &record, secure).await.map_err(located)?;
        let name = request.for_probe.then_some(self.probe_name.as_str());
        let start = self.start(&connected, stream, login, name, record.clone(), request.observer.clone());
        let dialled = self.stage(Phase::Startup, request, &record, start).await.map_err(|mut error| {
            // `pg_hba.conf` may have an entry that matches this connection only in the other TLS mode. `open` retries
            // only if `sslmode` permits that mode.
            error.try_other_tls_mode |= error.has_no_hba_entry() && (encrypted || encryption == Encryption::Plain);
            // With TLS, the server may be verified.
            error.try_other_tls_mode |= error.has_refused_request() && encryption == Encryption::Plain;
            located(error.with_login_details(&self.source, login, endpoint))
        })?;
        tracing::debug!(%endpoint, security = %dialled.security, "logged in");
        Ok(dialled)
    }

    /// Runs one phase of a dial, and fails at the deadline.
    async fn stage<T>(
        &self,
        phase: Phase,
        request: &Request<'_>,
        record: &Record,
        work: impl Future<Output = Result<T, DialError>>,
    ) -> Result<T, DialError> {
        timeout_at(request.deadline, work).await.unwrap_or_else(|_| {
            let cause = format!("no response within {:?}", request.limit).into();
            let unresponsive = record.reads() == 0;
            Err(DialError { timed_out: true, unresponsive, ..DialError::new(phase, Class::NotReady, cause) })
        })
    }

    /// Connects to the Pod. Returns the socket, and the Pod with only the address that is connected.
    async fn connect(&self, endpoint: &Endpoint) -> Result<(Socket, Endpoint), DialError> {
        let connected = connect_any(endpoint, &self.socket).await;
        connected.map_err(|error| DialError::new(Phase::Tcp, Class::NotReady, error.into()))
    }

    /// Performs startup and authentication on a stream, and starts the driver task. `name` replaces the configured
    /// `application_name`.
    pub(super) async fn start(
        &self,
        endpoint: &Endpoint,
        stream: Box<dyn Io>,
        login: &Login,
        name: Option<&str>,
        record: Arc<Record>,
        observer: ConnectionObserver,
    ) -> Result<Dialled, DialError> {
        let mut postgres = self.postgres.clone();
        if let Some(name) = name {
            postgres.application_name(name);
        }
        postgres.user(&login.user);
        if let Some(password) = &login.password {
            postgres.password(password.expose());
        }
        let session = stream.tls();
        if session.is_some() {
            // The TLS handshake is already done. `Direct` makes the driver skip SSLRequest, and `Established` returns
            // the stream unchanged.
            postgres.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
        } else {
            postgres.ssl_mode(SslMode::Disable);
        }
        let gate = Gate::new(self.allowed_auth, self.security, session.as_ref());
        let gate = match endpoint.address() {
            Address::Tcp(_) => gate,
            Address::Unix(_) => gate.on_unix_socket(),
        };
        let accepted = gate.accepted();
        let tap = Tap::new(stream, record.clone(), observer.clone(), gate);
        let (client, connection) = postgres.connect_raw(tap, Established).await.map_err(DialError::startup)?;
        let Some(authentication) = accepted.get() else {
            // This branch is unreachable, because the driver waits for AuthenticationOk.
            return Err(DialError::new(Phase::Startup, Class::NotReady, "the server did not accept the login".into()));
        };
        let security = LoginSecurity::new(*authentication, session);
        let driver = spawn(Driver::new(connection, record.clone(), observer));
        let endpoint = endpoint.clone();
        let dialled = Dialled { endpoint, record: RecordOwner::new(record), client, driver, security };
        if dialled.record.role() == Role::Unknown {
            dialled.query_role().await.map_err(DialError::startup)?;
        }
        // The record of the connection is up to date only after the driver task has been polled once.
        dialled.record.wait_until_idle().await;
        Ok(dialled)
    }
}

/// Returns the `application_name` of connections that only probes use. The server cuts names off at 63 bytes, so the
/// configured name is shortened instead.
fn probe_name(configured: Option<&str>) -> String {
    const SUFFIX: &str = "/probe";
    let name = configured.unwrap_or("podpool");
    let mut end = name.len().min(63 - SUFFIX.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{SUFFIX}", &name[..end])
}

impl Dialled {
    /// Queries whether the server is a primary or a standby. Needed for servers that do not report `in_hot_standby`
    /// during startup: versions before PostgreSQL 14, and servers behind a connection pooler.
    async fn query_role(&self) -> Result<(), tokio_postgres::Error> {
        let messages = self.client.simple_query("SELECT pg_catalog.pg_is_in_recovery()").await?;
        for message in messages {
            if let SimpleQueryMessage::Row(row) = message {
                self.record.set_standby(row.get(0) == Some("t"));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `postgres` and `source` may hold passwords, and are omitted although they redact passwords.
        let Self { socket, tls, allowed_auth, timeout, probe_name, tracks_sessions, .. } = self;
        let mut out = f.debug_struct("Dialer");
        out.field("socket", socket).field("tls", tls).field("allowed_auth", allowed_auth).field("timeout", timeout);
        out.field("probe_name", probe_name).field("tracks_sessions", tracks_sessions);
        out.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probe_names_keep_their_suffix_within_the_servers_limit() {
        assert_eq!(probe_name(None), "podpool/probe");
        assert_eq!(probe_name(Some("web")), "web/probe");
        let long = probe_name(Some(&"é".repeat(40)));
        assert_eq!((long.len(), long.ends_with("é/probe")), (62, true));
    }
}
