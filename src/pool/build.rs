//! Builds a pool: validates the configuration, creates the shared state and starts the background tasks.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
};

#[cfg(feature = "otel")]
use super::pod::metrics::Observable;
use super::{
    Builder, Pool,
    directory::{Change, Joining},
    group::{self, GroupHandle},
    hook,
    inner::Inner,
    name::Name,
    opener,
    owner::{Owner, Tasks},
    pod::{
        alarms::{self, Alarms},
        clock::{self, Clock, TICK},
        connection_limit::ConnectionLimit,
        group::Group,
        metrics::PoolMetrics,
        shared::{Counters, DialerSlot, Shared},
        view::View,
        wait_queue::WaitQueue,
        waiting_spans::WaitingSpans,
    },
    resolvers::resolvers,
    supervise, upkeep,
    user_code::{GuardedPolicy, GuardedResolver},
};
use crate::{
    balance::Chooser,
    config::{Config, Reset},
    discovery::Resolve,
    error::{ConfigError, Error, Kind},
    event::{Emitter, GroupEvents},
    health::local::LocalHealth,
    observer,
    sync::Mutex,
    system::{spawn_on, thread},
    time::Instant,
    trace::TARGET,
    unwind::PanicSource,
    wire::{credentials::Source, dial::Dialer},
};

/// The number of the next pool.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Builder {
    /// Builds the pool and starts its tasks.
    ///
    /// Reads the configured certificate files, but does no network I/O and does not wait. Building a pool therefore
    /// succeeds even if all name servers and Pods are down. The pool finds the Pods in the background.
    ///
    /// # Errors
    ///
    /// [`Kind::Config`] in these cases:
    ///
    /// - A setting, the [`name`](Builder::name) or a certificate file is invalid.
    /// - Both a password and a credentials provider are set.
    /// - `sslmode` requires TLS, and there is neither a connector nor the feature `rustls`.
    /// - No runtime is set, and `build` is called outside of a tokio runtime.
    /// - A setting differs from that of the pool to [share with](Builder::share_with).
    ///
    /// [`Kind::Shutdown`] if the pools to share with are closed.
    pub fn build(self) -> Result<Pool, Error> {
        let Self {
            config,
            chooser,
            resolver,
            credentials,
            runtime,
            probe_factory,
            connector,
            observers,
            name,
            shared_with,
            hooks,
            metrics,
        } = self;
        config.validate()?;
        if credentials.is_some() {
            reject_passwords(&config)?;
        }
        let runtime = match &shared_with {
            Some(handle) => {
                reject_own(&[("resolver", resolver.is_some()), ("runtime", runtime.is_some())])?;
                handle.check_alive()?;
                group::check(&handle.group.config, &config, &handle.group.name())?;
                handle.group.runtime.clone()
            }
            None => runtime_or_current(runtime)?,
        };
        let name = Name::take(name, &config)?;
        let events = Arc::new(Emitter::new(name.get().clone()));
        let (group, messages) = match &shared_with {
            Some(handle) => (handle.group.clone(), None),
            None => {
                let (inbox, messages) = mpsc::unbounded_channel();
                let events = Arc::new(GroupEvents::default());
                let resolvers = match resolver {
                    Some(resolver) => {
                        let guarded: Arc<dyn Resolve> = Arc::new(GuardedResolver { resolver, events: events.clone() });
                        Arc::from([guarded])
                    }
                    None => resolvers(&config)?,
                };
                (
                    Arc::new(Group::new(&config, runtime.clone(), resolvers, probe_factory, inbox, events)),
                    Some(messages),
                )
            }
        };
        let limits = *config.limits();
        if limits.callers_end_before_dials() {
            let (acquire, connect) = (limits.acquire_timeout, limits.connect_timeout);
            tracing::warn!(
                target: TARGET,
                { "db.client.connection.pool.name" = &events.name()[..] },
                "`acquire_timeout` ({acquire:?}) is shorter than `connect_timeout` ({connect:?}), so callers may time \
                 out while connections are still being opened"
            );
        }
        let source = Source::new(&config, credentials, events.clone());
        let dialer = DialerSlot::new(Dialer::new(&config, source, connector, &events)?);
        let chooser = chooser.unwrap_or_else(|| Chooser::named(config.policy()));
        let chooser = chooser.wrap_custom(|policy| Arc::new(GuardedPolicy { policy, events: events.clone() }));
        let alarms = Alarms::new(runtime.clone());
        let ping_after = u64::try_from(limits.ping_after.as_millis()).unwrap_or(u64::MAX);
        group.events.add(events.clone());
        let shared = Arc::new(Shared {
            // Relaxed: the number guards no other data.
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            group,
            limits,
            dialer,
            runtime: runtime.clone(),
            waiters: WaitQueue::default(),
            alarms: alarms.clone(),
            local_health: Mutex::new(LocalHealth::new(TICK, limits.probe_timeout / 4, Instant::now())),
            clock: Clock::new(),
            ping_after,
            slow_from: if hooks.has(hook::Kind::BeforeCheckout) { 0 } else { ping_after.saturating_add(1) },
            acts_after_use: limits.reset == Reset::Discard || hooks.has(hook::Kind::AfterCheckin),
            events: events.clone(),
            hooks,
            counters: Counters::default(),
            owned_handshakes: Arc::new(Semaphore::new(limits.handshakes)),
            waiting_spans: WaitingSpans::default(),
            metrics: PoolMetrics::new(metrics.clone(), events.clone()),
            #[cfg(feature = "otel")]
            database: config.dbname().into(),
            connection_limit: ConnectionLimit::new(limits.max_connections),
            requested_targets: AtomicU32::new(config.target().bit()),
        });
        if thread::AVAILABLE && runtime.metrics().num_workers() == 1 {
            clock::ticker::register(&shared);
        }
        for observer in observers {
            // The observer's task ends when the event channel is closed.
            drop(spawn_on(&runtime, observer::run(observer, events.subscribe(), events.clone())));
        }
        let inner = Arc::new(Inner::new(config, shared.clone(), chooser, View::empty()));
        #[cfg(feature = "otel")]
        {
            let source: Arc<dyn Observable> = inner.clone();
            shared.metrics.observe(Arc::downgrade(&source));
        }
        let alarms = spawn_on(&runtime, alarms::run(alarms)).abort_handle();
        let group = match (shared_with, messages) {
            (None, Some(messages)) => Arc::new(GroupHandle::start(&inner, messages)),
            (handle, _) => {
                let handle = handle.ok_or_else(|| Error::new(Kind::Shutdown, "the group has ended"))?;
                handle.change(Change::Joined(Joining::new(inner.clone())));
                handle
            }
        };
        let opener = supervise::spawn(&shared, PanicSource::Opener, {
            let inner = inner.clone();
            move || opener::run(inner.clone())
        });
        group.start_lookups();
        let upkeep = supervise::spawn(&shared, PanicSource::Upkeep, {
            let inner = inner.clone();
            move || upkeep::run(inner.clone())
        });
        Ok(Pool::new(Owner::new(inner, group, Tasks { alarms, opener, upkeep }, name, metrics)))
    }
}

/// Returns the runtime that the application has set, or else the one in which the pool is built.
fn runtime_or_current(runtime: Option<Handle>) -> Result<Handle, Error> {
    runtime.map_or_else(Handle::try_current, Ok).map_err(|error| {
        let message = "no tokio runtime: call `build` inside a runtime, or set one with `Builder::runtime`";
        Error::new(Kind::Config, message).with_source(error)
    })
}

/// Rejects settings of which a group has only one: each has a name, and is true if the builder has it.
fn reject_own(settings: &[(&'static str, bool)]) -> Result<(), ConfigError> {
    match settings.iter().find(|(_, is_set)| *is_set) {
        Some((name, _)) => {
            let reason = "the pool uses that of the pool whose Pods it shares; remove it or `share_with`";
            Err(ConfigError::conflicting(name, reason))
        }
        None => Ok(()),
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
