//! The builder of a pool: its settings beside the configuration.

use std::{fmt, sync::Arc};

use tokio::runtime::Handle;

use super::{
    Pool,
    group::GroupHandle,
    hook::Hooks,
    pod::{metrics, prober::ProbeFactory},
};
use crate::{
    balance::{Chooser, Policy},
    config::Config,
    discovery::Resolve,
    observer::Observer,
    system::TcpStream,
    wire::{
        ProvideCredentials,
        tls::{Connector, MakeTlsConnect, TlsConnect, erase},
    },
};

/// A builder for a [`Pool`], from [`Pool::builder`].
#[must_use = "a builder does nothing until `build` is called"]
pub struct Builder {
    pub(super) config: Config,
    pub(super) chooser: Option<Chooser>,
    pub(super) resolver: Option<Arc<dyn Resolve>>,
    pub(super) credentials: Option<Arc<dyn ProvideCredentials>>,
    pub(super) runtime: Option<Handle>,
    pub(super) probe_factory: ProbeFactory,
    pub(super) connector: Option<Arc<dyn Connector>>,
    pub(super) observers: Vec<Box<dyn Observer>>,
    pub(super) name: Option<String>,
    pub(super) shared_with: Option<Arc<GroupHandle>>,
    pub(super) hooks: Hooks,
    pub(super) metrics: metrics::Options,
}

impl Builder {
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            chooser: None,
            resolver: None,
            credentials: None,
            runtime: None,
            probe_factory: ProbeFactory::default(),
            connector: None,
            observers: Vec::new(),
            name: None,
            shared_with: None,
            hooks: Hooks::default(),
            metrics: metrics::Options::default(),
        }
    }

    /// Sets the balancing policy, which replaces the configured one. Without this call and without a configured policy,
    /// the pool uses [`LeastCost`](crate::balance::LeastCost).
    pub fn policy(mut self, policy: impl Policy) -> Self {
        self.chooser = Some(Chooser::new(policy));
        self
    }

    /// Sets a resolver that returns the Pods, so that the configured hosts are not looked up. The hosts are still the
    /// pool's name in metrics, and the first one is still used for TLS verification and as the key for the search in
    /// `passfile`.
    pub fn resolver(mut self, resolver: impl Resolve) -> Self {
        self.resolver = Some(Arc::new(resolver));
        self
    }

    /// Sets a provider that returns the password, and optionally the user, for each new connection: an async closure or
    /// a [`ProvideCredentials`]. If a provider is set, the configured `passfile` is not read.
    pub fn credentials(mut self, provider: impl ProvideCredentials) -> Self {
        self.credentials = Some(Arc::new(provider));
        self
    }

    /// Sets the runtime for the pool's sockets and tasks. The default is the runtime in which
    /// [`build`](Builder::build) is called. Callers can use the pool from any runtime or executor.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Replaces the probes over the network with simulated probes.
    #[cfg(all(test, not(podpool_loom)))]
    pub(super) fn probe_factory(mut self, probe_factory: ProbeFactory) -> Self {
        self.probe_factory = probe_factory;
        self
    }

    /// Sets a TLS connector that replaces the one from the feature `rustls`. Examples are
    /// `tokio_postgres_rustls::MakeRustlsConnect`, `postgres_openssl::MakeTlsConnector` and
    /// `postgres_native_tls::MakeTlsConnector`.
    ///
    /// The configured `sslmode` (`disable`, `allow`, `prefer` or `require`) determines whether TLS is used. The
    /// connector must verify certificates: its sessions always count as verified, so passwords are sent over them. The
    /// connector receives the [name to verify](crate::config::ssl::VerifiedName) and a socket that is connected to the
    /// Pod. [`build`](Builder::build) rejects `security=strict`, `verify-ca`, `verify-full`, and all parameters about
    /// certificates, keys, revocation lists, TLS versions, SNI (`sslsni=0`) and `sslkeylogfile`.
    pub fn tls_connector<M>(mut self, connector: M) -> Self
    where
        M: MakeTlsConnect<TcpStream> + Clone + Send + Sync + 'static,
        M::Stream: Send + 'static,
        M::TlsConnect: Send + 'static,
        <M::TlsConnect as TlsConnect<TcpStream>>::Future: Send + 'static,
    {
        self.connector = Some(erase(connector));
        self
    }

    /// Sets the provider of OpenTelemetry's instruments, which replaces the global one. Requires the crate feature
    /// `otel`. All pools with the same `Arc` share the instruments.
    ///
    /// The handles of the pool keep the provider. Keep another handle, and shut the provider down after the pool:
    /// dropping the last handle of a provider may block.
    ///
    /// Without this call, [`build`](Builder::build) uses the provider that is the global one at that time, so set it
    /// with `opentelemetry::global::set_meter_provider` before. See [`metrics`](crate::metrics#opentelemetry) for the
    /// instruments.
    ///
    /// ```
    /// # async fn example() -> Result<(), podpool::Error> {
    /// use std::sync::Arc;
    ///
    /// use opentelemetry_sdk::metrics::SdkMeterProvider;
    /// use podpool::{Config, Pool};
    ///
    /// let provider = SdkMeterProvider::builder().build(); // add a reader with an exporter
    /// let config: Config = "postgres://app@postgresql-svc.k8s-training.svc.cluster.local/shop".parse()?;
    /// let pool = Pool::builder(config).meter_provider(Arc::new(provider)).build()?;
    /// # drop(pool);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "otel")]
    pub fn meter_provider(mut self, provider: Arc<dyn opentelemetry::metrics::MeterProvider + Send + Sync>) -> Self {
        self.metrics.provider = Some(provider);
        self
    }

    /// Sets the pool's name, which is on each of its log lines, spans and metrics, in [`Status`](crate::Status) and in
    /// errors. It must have 1 to [`MAX_POOL_NAME`](crate::MAX_POOL_NAME) bytes, must not be blank, and must have no
    /// control characters.
    ///
    /// The default is `user@service:port/database`, with the configured user. Of several hosts, it contains the first,
    /// and the number of the others after a `+`: `app@a:5432+2/shop`. If another pool of the process has the name, `#`
    /// and a number from 2 are appended, the lowest one that is free. A name is free again when the last handle to its
    /// pool has been dropped.
    ///
    /// The name is the value of a metric label. Use a name that stays the same when the process restarts, so that the
    /// number of time series stays small.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Shares the Pods of another pool: its discovery, their health and roles, and their probes. Use it for pools with
    /// another user, database or target on the same servers, such as one pool for each tenant. They then have one
    /// lookup of the Service name together, and at most one probe connection to each Pod. Each pool has its own
    /// connections, limits, hooks, credentials, TLS settings and balancing policy.
    ///
    /// - All pools that share Pods are equal. Any of them can be dropped or closed, also the first one.
    /// - If a server refuses the login of one pool, because of its user, password, database or TLS settings, the Pod
    ///   stays healthy for the others. The pool logs in about once per second until the server accepts it. Probes use
    ///   the user and database of the first pool whose login is accepted.
    /// - A Pod that fails is ejected for all pools. If only the sessions of one pool end, for example because its
    ///   database is dropped, and another pool has a connection to the Pod, the Pod is probed first.
    /// - [Events](crate::Event) about the Pods reach the subscribers and observers of every pool. They are logged and
    ///   counted once, with the name of the first pool that still exists, which also exports the metrics about the
    ///   health of the Pods.
    /// - The pools use the runtime of the first one.
    ///
    /// [`build`](Builder::build) returns an error if one of these settings differs from that of the other pool: `host`,
    /// `hostaddr`, `port`, `discovery`, `port_name`, `nameservers`, `absent_pods`, `clients`, `connect_timeout`,
    /// `detach_linger`, `dns_hedge`, `dns_timeout`, `handshakes`, `lag_fallback`, `max_connections` (which applies to
    /// each pool), `max_lag`, `max_lag_bytes`, `probe_interval`, `probe_timeout`, `refresh_max`, `refresh_min`,
    /// `subset_size` or `tcp_user_timeout`. It also does if [`resolver`](Builder::resolver) or
    /// [`runtime`](Builder::runtime) is called on this builder.
    ///
    /// ```
    /// # async fn example() -> Result<(), podpool::Error> {
    /// use podpool::{Config, Pool};
    ///
    /// let host = "postgresql-svc.k8s-training.svc.cluster.local";
    /// let config = |tenant: &str| -> Result<Config, podpool::Error> {
    ///     Ok(Config::new(host)?.with_user(tenant).with_dbname(tenant))
    /// };
    /// let first = Pool::builder(config("tenant_1")?).build()?;
    /// let second = Pool::builder(config("tenant_2")?).share_with(&first).build()?;
    /// # drop((first, second));
    /// # Ok(())
    /// # }
    /// ```
    pub fn share_with(mut self, other: &Pool) -> Self {
        self.shared_with = Some(other.0.group.clone());
        self
    }

    /// Adds an observer, which is called with every [`Event`](crate::Event) until the pool ends. An observer must not
    /// block. A pool can have several observers.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observers.push(Box::new(observer));
        self
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            config,
            chooser,
            resolver,
            credentials,
            runtime,
            probe_factory: _,
            connector,
            observers,
            name,
            shared_with,
            hooks,
            metrics,
        } = self;
        let mut all = f.debug_struct("Builder");
        all.field("name", name).field("config", config).field("chooser", chooser).field("resolver", resolver);
        all.field("credentials", &credentials.is_some());
        all.field("runtime", runtime).field("tls_connector", &connector.is_some());
        all.field("observers", &observers.len())
            .field("share_with", &shared_with.is_some())
            .field("hooks", hooks)
            .field("metrics", metrics)
            .finish()
    }
}
