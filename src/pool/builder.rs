use std::{
    fmt,
    sync::{Arc, atomic::AtomicU8},
};

use tokio::{
    net::TcpStream,
    runtime::Handle,
    sync::{Notify, Semaphore, mpsc},
};

use super::{
    Pool,
    directory::{Directory, Subset},
    inner::Inner,
    owner::Owner,
    pod::{
        connection_limit::ConnectionLimit,
        metrics::PoolMetrics,
        prober::ProbeFactory,
        shared::{Clock, Counters, Shared},
        urgent_probing::UrgentProbing,
        view::View,
        wait_queue::Waiters,
    },
    upkeep::{self, refresher},
};
use crate::{
    balance::{Chooser, Policy},
    config::{Config, Discovery, Host, ssl::VerifiedName},
    discovery::{Dns, DnsOptions, Fixed, Resolve},
    endpoint::Endpoint,
    error::{ConfigError, Error, Kind},
    event::Emitter,
    observer::{self, Observer},
    sync::Mutex,
    time::Instant,
    wire::{
        ProvideCredentials,
        credentials::Source,
        dial::Dialer,
        tls::{Connector, MakeTlsConnect, TlsConnect, erase},
    },
};

/// Makes a [`Pool`]. Begin with [`Pool::builder`].
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
        }
    }

    /// Chooses Pods by this policy, whichever the configuration names. Default: that one, which is
    /// [`LeastCost`](crate::balance::LeastCost) if it names none.
    pub fn policy(mut self, policy: impl Policy) -> Self {
        self.chooser = Some(Chooser::new(policy));
        self
    }

    /// ProbeFactory this resolver for the Pods, instead of DNS for the configured name. The host of the configuration then
    /// names the Service to people, and to nobody else.
    pub fn resolver(mut self, resolver: impl Resolve) -> Self {
        self.resolver = Some(Arc::new(resolver));
        self
    }

    /// ProbeFactory this provider for the password of each connection, and for its user if it likes: an async closure, or a
    /// [`ProvideCredentials`]. The configuration's `passfile` is not read then.
    pub fn credentials(mut self, provider: impl ProvideCredentials) -> Self {
        self.credentials = Some(Arc::new(provider));
        self
    }

    /// Runs every socket and task of the pool on this runtime. Default: the one that [`build`](Builder::build) is
    /// called in. Callers may be on any other.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// ProbeFactory the Pods how they are in this way, instead of over the network.
    #[cfg(test)]
    pub(super) fn probe_factory(mut self, probe_factory: ProbeFactory) -> Self {
        self.probe_factory = probe_factory;
        self
    }

    /// Does TLS with this connector, such as `tokio_postgres_rustls::MakeRustlsConnect`,
    /// `postgres_openssl::MakeTlsConnector` or `postgres_native_tls::MakeTlsConnector`, instead of the feature `rustls`.
    ///
    /// `sslmode` says whether it is used: `disable` to `require`. How certificates are checked is the connector's, so
    /// `verify-ca`, `verify-full`, `sslrootcert`, `sslcert`, `sslkey` and `sslsni=0` are refused with it. It is told the
    /// [verified name](crate::config::ssl::VerifiedName), and given the socket to the Pod's address.
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

    /// Tells this observer what happens to the set of Pods, from the first Pod to the pool's end. It must not block. There
    /// may be several.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observers.push(Box::new(observer));
        self
    }

    /// Makes the pool. Reads the files of certificates that the configuration names. Touches no network and does not
    /// wait: it succeeds with the name servers and every Pod down, and
    /// what is missing is found in the background as it comes up.
    ///
    /// # Errors
    ///
    /// [`Kind::Config`] for a setting or a file that cannot be used, for a password beside a provider of credentials, for
    /// a `sslmode` that needs TLS where there is none, and where no runtime is given and this is not one.
    pub fn build(self) -> Result<Pool, Error> {
        let Self { config, chooser, resolver, credentials, runtime, probe_factory, connector, observers } = self;
        config.validate()?;
        if credentials.is_some() {
            refuse_passwords(&config)?;
        }
        let runtime = match runtime.map_or_else(Handle::try_current, Ok) {
            Ok(runtime) => runtime,
            Err(error) => {
                let message = "a pool needs a tokio runtime: build it inside one, or give the builder a handle";
                return Err(Error::new(Kind::Config, message).with_source(error));
            }
        };
        let resolver = match resolver {
            Some(resolver) => resolver,
            None => resolver_of(&config)?,
        };
        let limits = *config.limits();
        let events = Arc::new(Emitter::new());
        let source = Source::new(&config, credentials, events.clone());
        let dialer = Arc::new(Dialer::new(&config, source, connector, &events)?);
        let chooser = chooser.unwrap_or_else(|| Chooser::named(config.policy()));
        let start = Instant::now();
        let subset = Subset::new(&config);
        let wanted = if subset.is_some() { config.target().roles() } else { u8::MAX };
        let (inbox, messages) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            limits,
            dialer,
            probe_factory,
            runtime: runtime.clone(),
            waiters: Waiters::default(),
            urgent_probing: UrgentProbing::default(),
            clock: Clock::default(),
            ping_after: u64::try_from(limits.ping_after.as_millis()).unwrap_or(u64::MAX),
            events,
            counters: Counters::default(),
            handshakes: Semaphore::new(limits.handshakes),
            metrics: PoolMetrics::new(&config),
            resolved: Mutex::default(),
            connection_limit: ConnectionLimit::new(limits.max_connections),
            wanted: AtomicU8::new(wanted),
            inbox,
            last_failure: Notify::new(),
            gone: Notify::new(),
        });
        for observer in observers {
            // Ends with the events.
            drop(runtime.spawn(observer::run(observer, shared.events.subscribe())));
        }
        let inner = Arc::new(Inner::new(config, shared.clone(), chooser, resolver.clone(), View::empty()));
        let (close, closing) = mpsc::unbounded_channel();
        let directory = Directory::new(inner.clone(), subset);
        let tasks = vec![
            runtime.spawn(directory.run(messages, closing)).abort_handle(),
            runtime.spawn(refresher::run(resolver, shared)).abort_handle(),
            runtime.spawn(upkeep::run(inner.clone(), start)).abort_handle(),
        ];
        Ok(Pool::new(Owner::new(inner, tasks, close)))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { config, chooser, resolver, credentials, runtime, probe_factory: _, connector, observers } = self;
        let mut all = f.debug_struct("Builder");
        all.field("config", config).field("chooser", chooser).field("resolver", resolver);
        all.field("credentials", &credentials.is_some());
        all.field("runtime", runtime).field("tls_connector", &connector.is_some());
        all.field("observers", &observers.len()).finish()
    }
}

/// Nobody could say whether a password or the provider is meant.
fn refuse_passwords(config: &Config) -> Result<(), ConfigError> {
    let given = [("password", config.password().is_some()), ("password_file", config.password_file().is_some())];
    match given.into_iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(ConfigError::new(name, "to be left out: the builder has a provider of credentials")),
        None => Ok(()),
    }
}

fn resolver_of(config: &Config) -> Result<Arc<dyn Resolve>, ConfigError> {
    Ok(match config.host() {
        Host::Address(address) => Arc::new(Fixed::new([Endpoint::new((*address, config.port()).into())])),
        Host::Service(name) => {
            let mut options = DnsOptions::new(name.as_str(), config.port());
            options.absolute = name.is_absolute();
            options.nameservers = config.nameservers().to_vec();
            options.timeout = config.limits().dns_timeout;
            options.hedge = config.limits().dns_hedge;
            match config.discovery() {
                Discovery::Srv { port_name } => options.srv_port_name = Some(port_name.clone()),
                _ if *config.ssl().verified_name() == VerifiedName::Pod => {
                    let expected = "`service` or a name, for `discovery=srv` alone tells the Pods' own names";
                    return Err(ConfigError::new("ssl_verify_name", expected).got("pod"));
                }
                _ => {}
            }
            Arc::new(Dns::new(options)?)
        }
    })
}
