//! The builder of a pool: validates the configuration, creates the shared state and starts the background tasks.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64},
    },
};

use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore, mpsc},
};

use super::{
    Pool,
    directory::{Directory, Subset},
    hook::{self, Hooks},
    inner::Inner,
    opener,
    owner::{Owner, Tasks},
    pod::{
        alarms::{self, Alarms},
        clock::{self, Clock, TICK},
        connection_limit::ConnectionLimit,
        fleet::Fleet,
        lag_demand::LagDemand,
        metrics::PoolMetrics,
        prober::ProbeFactory,
        resolved::Resolved,
        shared::{Counters, DialerSlot, FrequentLookups, Shared},
        urgent_probing::UrgentProbing,
        view::View,
        wait_queue::WaitQueue,
    },
    resolvers::resolvers,
    supervise,
    upkeep::{self, refresher},
    user_code::{GuardedPolicy, GuardedResolver},
};
use crate::{
    balance::{Chooser, Policy},
    config::{Config, Reset},
    discovery::Resolve,
    error::{ConfigError, Error, Kind},
    event::Emitter,
    health::local::LocalHealth,
    observer::{self, Observer},
    sync::Mutex,
    system::{TcpStream, spawn_on, thread},
    time::Instant,
    unwind::PanicSource,
    wire::{
        ProvideCredentials,
        credentials::Source,
        dial::Dialer,
        tls::{Connector, MakeTlsConnect, TlsConnect, erase},
    },
};

/// A builder for a [`Pool`], from [`Pool::builder`].
#[must_use = "a builder does nothing until `build` is called"]
pub struct Builder {
    config: Config,
    chooser: Option<Chooser>,
    resolver: Option<Arc<dyn Resolve>>,
    credentials: Option<Arc<dyn ProvideCredentials>>,
    runtime: Option<Handle>,
    probe_factory: ProbeFactory,
    connector: Option<Arc<dyn Connector>>,
    observers: Vec<Box<dyn Observer>>,
    pub(super) hooks: Hooks,
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
            hooks: Hooks::default(),
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

    /// Adds an observer, which is called with every [`Event`](crate::Event) until the pool ends. An observer must not
    /// block. A pool can have several observers.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observers.push(Box::new(observer));
        self
    }

    /// Builds the pool and starts its tasks.
    ///
    /// Reads the configured certificate files, but does no network I/O and does not wait. Building a pool therefore
    /// succeeds even if all name servers and Pods are down. The pool finds the Pods in the background.
    ///
    /// # Errors
    ///
    /// [`Kind::Config`] in these cases:
    ///
    /// - A setting or a certificate file is invalid.
    /// - Both a password and a credentials provider are set.
    /// - `sslmode` requires TLS, and there is neither a connector nor the feature `rustls`.
    /// - No runtime is set, and `build` is called outside of a tokio runtime.
    pub fn build(self) -> Result<Pool, Error> {
        let Self { config, chooser, resolver, credentials, runtime, probe_factory, connector, observers, hooks } = self;
        config.validate()?;
        if credentials.is_some() {
            reject_passwords(&config)?;
        }
        let runtime = match runtime.map_or_else(Handle::try_current, Ok) {
            Ok(runtime) => runtime,
            Err(error) => {
                let message = "no tokio runtime: call `build` inside a runtime, or set one with `Builder::runtime`";
                return Err(Error::new(Kind::Config, message).with_source(error));
            }
        };
        let events = Arc::new(Emitter::new());
        let resolvers = match resolver {
            Some(resolver) => {
                let guarded: Arc<dyn Resolve> = Arc::new(GuardedResolver { resolver, events: events.clone() });
                Arc::from([guarded])
            }
            None => resolvers(&config)?,
        };
        let limits = *config.limits();
        let source = Source::new(&config, credentials, events.clone());
        let dialer = DialerSlot::new(Dialer::new(&config, source, connector, &events)?);
        let chooser = chooser.unwrap_or_else(|| Chooser::named(config.policy()));
        let chooser = chooser.wrap_custom(|policy| Arc::new(GuardedPolicy { policy, events: events.clone() }));
        let subset = Subset::new(&config);
        let (inbox, messages) = mpsc::unbounded_channel();
        let alarms = Alarms::new(runtime.clone());
        let ping_after = u64::try_from(limits.ping_after.as_millis()).unwrap_or(u64::MAX);
        let shared = Arc::new(Shared {
            limits,
            dialer,
            probe_factory,
            runtime: runtime.clone(),
            waiters: WaitQueue::default(),
            alarms: alarms.clone(),
            urgent_probing: UrgentProbing::new(Fleet::new(limits.clients)),
            fleet: Fleet::new(limits.clients),
            local_health: Mutex::new(LocalHealth::new(TICK, limits.probe_timeout / 4, Instant::now())),
            clock: Clock::new(),
            lag_demand: LagDemand::default(),
            writes_until: AtomicU64::new(0),
            ping_after,
            slow_from: if hooks.has(hook::Kind::BeforeCheckout) { 0 } else { ping_after.saturating_add(1) },
            acts_after_use: limits.reset == Reset::Discard || hooks.has(hook::Kind::AfterCheckin),
            events: events.clone(),
            hooks,
            counters: Counters::default(),
            probe_handshakes: Semaphore::new(limits.handshakes),
            owned_handshakes: Semaphore::new(limits.handshakes),
            metrics: PoolMetrics::new(&config),
            resolved: Mutex::new(Resolved::new(resolvers.len())),
            connection_limit: ConnectionLimit::new(limits.max_connections),
            requested_targets: AtomicU32::new(config.target().bit()),
            inbox,
            lookup_wanted: resolvers.iter().map(|_| Notify::new()).collect(),
            lookups: FrequentLookups::default(),
            connection_closed: Notify::new(),
        });
        if thread::AVAILABLE && runtime.metrics().num_workers() == 1 {
            clock::ticker::register(&shared);
        }
        for observer in observers {
            // The observer's task ends when the event channel is closed.
            drop(spawn_on(&runtime, observer::run(observer, events.subscribe(), events.clone())));
        }
        let inner = Arc::new(Inner::new(config, shared.clone(), chooser, resolvers.clone(), View::empty()));
        let (close, closing) = mpsc::unbounded_channel();
        let directory = Directory::new(inner.clone(), subset);
        let tasks = Tasks {
            alarms: spawn_on(&runtime, alarms::run(alarms)).abort_handle(),
            directory: spawn_on(&runtime, directory.run(messages, closing)).abort_handle(),
            opener: supervise::spawn(&shared, PanicSource::Opener, {
                let inner = inner.clone();
                move || opener::run(inner.clone())
            }),
            refreshers: (resolvers.iter().enumerate())
                .map(|(host, resolver)| {
                    let (resolver, pool) = (resolver.clone(), shared.clone());
                    let run = move || refresher::run(host, resolver.clone(), pool.clone());
                    supervise::spawn(&shared, PanicSource::Refresher, run)
                })
                .collect(),
            upkeep: supervise::spawn(&shared, PanicSource::Upkeep, {
                let inner = inner.clone();
                move || upkeep::run(inner.clone())
            }),
        };
        Ok(Pool::new(Owner::new(inner, tasks, close)))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { config, chooser, resolver, credentials, runtime, probe_factory: _, connector, observers, hooks } =
            self;
        let mut all = f.debug_struct("Builder");
        all.field("config", config).field("chooser", chooser).field("resolver", resolver);
        all.field("credentials", &credentials.is_some());
        all.field("runtime", runtime).field("tls_connector", &connector.is_some());
        all.field("observers", &observers.len()).field("hooks", hooks).finish()
    }
}

/// Rejects a configured password. Called if a credentials provider is set, because the choice between the password and
/// the provider would be ambiguous.
fn reject_passwords(config: &Config) -> Result<(), ConfigError> {
    let set = [("password", config.password().is_some()), ("password_file", config.password_file().is_some())];
    match set.into_iter().find(|(_, is_set)| *is_set) {
        Some((name, _)) => {
            Err(ConfigError::conflicting(name, "the builder has a credentials provider; remove one of them"))
        }
        None => Ok(()),
    }
}
