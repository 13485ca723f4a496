use std::{
    fmt,
    sync::{Arc, atomic::AtomicU8},
};

use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc},
};

use super::{
    Pool,
    budget::Budget,
    common::{Clock, Common, Counters},
    directory::{Directory, Subset},
    inner::Inner,
    maintenance,
    meter::Meter,
    owner::Owner,
    refresher,
    urgency::Urgency,
    view::View,
    waiters::Waiters,
};
use crate::{
    balance::{Chooser, Policy},
    config::{Config, Discovery, Host},
    discovery::{Dns, DnsOptions, Fixed, Resolve},
    endpoint::{Endpoint, snapshot::Snapshot},
    error::{ConfigError, Error, Kind},
    event::Emitter,
    observer::{self, Observer},
    sync::Mutex,
    time::Instant,
    wire::{ProvideCredentials, credentials::Source, dial::Dialer},
};

/// Makes a [`Pool`]. Begin with [`Pool::builder`].
#[must_use = "a builder does nothing until `build` is called"]
pub struct Builder {
    config: Config,
    chooser: Chooser,
    resolver: Option<Arc<dyn Resolve>>,
    credentials: Option<Arc<dyn ProvideCredentials>>,
    runtime: Option<Handle>,
    observers: Vec<Box<dyn Observer>>,
}

impl Builder {
    pub(super) fn new(config: Config) -> Self {
        let chooser = Chooser::default();
        Self { config, chooser, resolver: None, credentials: None, runtime: None, observers: Vec::new() }
    }

    /// Chooses Pods by this policy. Default: [`LeastInFlight`](crate::balance::LeastInFlight).
    pub fn policy(mut self, policy: impl Policy) -> Self {
        self.chooser = Chooser::Custom(Arc::new(policy));
        self
    }

    /// Asks this resolver for the Pods, instead of DNS for the configured name. The host of the configuration then
    /// names the Service to people, and to nobody else.
    pub fn resolver(mut self, resolver: impl Resolve) -> Self {
        self.resolver = Some(Arc::new(resolver));
        self
    }

    /// Asks this provider for the password of each connection, and for its user if it likes: an async closure, or a
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

    /// Tells this observer what happens to the set of Pods, from the first Pod to the pool's end. It must not block. There
    /// may be several.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observers.push(Box::new(observer));
        self
    }

    /// Makes the pool. Touches no network and does not wait: it succeeds with the name servers and every Pod down, and
    /// what is missing is found in the background as it comes up.
    ///
    /// # Errors
    ///
    /// [`Kind::Config`] for a setting that cannot be used, for a password beside a provider of credentials, and where no
    /// runtime is given and this is not one.
    pub fn build(self) -> Result<Pool, Error> {
        let Self { config, chooser, resolver, credentials, runtime, observers } = self;
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
        let start = Instant::now();
        let events = Arc::new(Emitter::new());
        let subset = Subset::new(&config);
        let wanted = if subset.is_some() { config.target().roles() } else { u8::MAX };
        let (inbox, messages) = mpsc::unbounded_channel();
        let common = Arc::new(Common {
            limits,
            dialer: Arc::new(Dialer::new(&config, Source::new(&config, credentials, events.clone()))),
            runtime: runtime.clone(),
            waiters: Waiters::default(),
            urgency: Urgency::default(),
            clock: Clock::default(),
            ping_after: u64::try_from(limits.ping_after.as_millis()).unwrap_or(u64::MAX),
            events,
            counters: Counters::default(),
            meter: Meter::new(&config),
            resolved: Mutex::default(),
            budget: Budget::new(limits.max_connections),
            wanted: AtomicU8::new(wanted),
            inbox,
            trouble: Notify::new(),
            gone: Notify::new(),
        });
        for observer in observers {
            // Ends with the events.
            drop(runtime.spawn(observer::run(observer, common.events.subscribe())));
        }
        let inner = Arc::new(Inner::new(config, common.clone(), chooser, resolver.clone(), nobody()));
        let (close, closing) = mpsc::unbounded_channel();
        let directory = Directory::new(inner.clone(), subset);
        let tasks = vec![
            runtime.spawn(directory.run(messages, closing)).abort_handle(),
            runtime.spawn(refresher::run(resolver, common)).abort_handle(),
            runtime.spawn(maintenance::run(inner.clone(), start)).abort_handle(),
        ];
        Ok(Pool::new(Owner::new(inner, tasks, close)))
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
            if let Discovery::Srv { port_name } = config.discovery() {
                options.srv_port_name = Some(port_name.clone());
            }
            Arc::new(Dns::new(options)?)
        }
    })
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { config, chooser, resolver, credentials, runtime, observers } = self;
        f.debug_struct("Builder")
            .field("config", config)
            .field("chooser", chooser)
            .field("resolver", resolver)
            .field("credentials", &credentials.is_some())
            .field("runtime", runtime)
            .field("observers", &observers.len())
            .finish()
    }
}

/// The view before anything is known, and after everything is over.
pub(super) fn nobody() -> View {
    View { snapshot: Snapshot::empty(), health: Vec::new(), spare: Arc::from([]), silent_since: None, closed: false }
}
