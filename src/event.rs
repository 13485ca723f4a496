//! Events about the set of Pods, in a bounded stream. A slow subscriber loses events but does not slow down the pool.

use std::{
    fmt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::broadcast;

use crate::{
    endpoint::{Endpoint, Role},
    sync::{Mutex, lock},
    time::{Duration, Instant},
    trace::{SYSTEM, TARGET},
    unwind::{Panic, PanicSource},
};

/// Minimum time between two [`Event::Panicked`] events with the same source.
const PANIC_INTERVAL: Duration = Duration::from_secs(1);

/// The number of events that are kept for a slow subscriber. A subscriber that falls further behind gets [`Lagged`].
pub const EVENT_CAPACITY: usize = 256;

/// A change to the set of Pods, or to the pool's access to them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Certificate files changed but cannot be used. The previous certificates stay in use. Emitted once per change.
    CertificatesRefused {
        /// The file and the error.
        cause: Arc<str>,
    },
    /// Certificate files changed. New connections use the new certificates.
    CertificatesReloaded,
    /// Discovery found a new Pod. It receives traffic after its first passed probe.
    EndpointAdded {
        /// The Pod.
        endpoint: Endpoint,
    },
    /// A Pod is absent from DNS and not used, because other Pods serve all roles. Drained after `detach_linger`.
    EndpointDetached {
        /// The Pod.
        endpoint: Endpoint,
    },
    /// A Pod is absent from DNS, but still used, because no other Pod serves a role that callers have requested.
    EndpointRetained {
        /// The Pod.
        endpoint: Endpoint,
    },
    /// DNS returns a detached or retained Pod again. It is used like any other Pod.
    EndpointReturned {
        /// The Pod.
        endpoint: Endpoint,
    },
    /// A Pod that is absent from DNS is drained. Its idle connections are closed immediately. Checked-out connections
    /// are closed when they are returned, or at the latest after `drain_timeout`.
    EndpointDrained {
        /// The Pod.
        endpoint: Endpoint,
    },
    /// The last connection to a drained Pod was closed.
    EndpointRemoved {
        /// The Pod.
        endpoint: Endpoint,
    },
    /// A Pod's state changed.
    StateChanged {
        /// The Pod.
        endpoint: Endpoint,
        /// The previous state: `probing`, `healthy` or `ejected`.
        from: &'static str,
        /// The new state.
        to: &'static str,
        /// The error that caused the change, if there was one.
        cause: Option<Arc<str>>,
    },
    /// Code supplied by the application, or a task of the pool, panicked. The pool continues to work: the panicked call
    /// counts as failed, or the task resumes. Emitted at most once per second for each source; the metric
    /// `podpool_panics_total` counts every panic.
    Panicked {
        /// The code that panicked. `credentials_provider`, `metrics_recorder`, `observer`, `policy`, `resolver` and
        /// `tls_connector` are supplied by the application. The others are tasks of the pool: `directory` maintains the
        /// set of Pods, `opener` opens connections, `prober` probes one Pod, `refresher` resolves the Service name, and
        /// `upkeep` does periodic work. Observers receive no event about a panic of an observer.
        source: &'static str,
        /// The message of the panic.
        cause: Arc<str>,
    },
    /// A Pod's role changed.
    RoleChanged {
        /// The Pod.
        endpoint: Endpoint,
        /// The previous role.
        from: Role,
        /// The new role.
        to: Role,
    },
    /// A Pod must not be used, because its server is a former primary on an older timeline, is a second primary on the
    /// same timeline, or belongs to another cluster. The Pod receives no traffic, not even from checkouts that accept
    /// any role. Emitted again if the reason changes.
    EndpointFenced {
        /// The Pod.
        endpoint: Endpoint,
        /// The reason.
        cause: Arc<str>,
    },
    /// A fenced Pod may be used again, because the reason no longer applies.
    EndpointUnfenced {
        /// The Pod.
        endpoint: Endpoint,
    },
    /// A server has fewer connection slots than all clients together may use. Emitted when the server has reported its
    /// number of slots, and again if either number changes. The parameter `clients` sets the number of clients; the
    /// default is 1.
    ServerOversubscribed {
        /// The Pod.
        endpoint: Endpoint,
        /// The number of connections that all clients together may open, and the server's number of slots.
        cause: Arc<str>,
    },
    /// Logins to a Pod fail: the server rejects the user or the database, or no credentials are available. Open
    /// connections stay in use. Further failures of the same kind emit no event until a connection to the Pod has been
    /// opened successfully.
    LoginFailed {
        /// The Pod.
        endpoint: Endpoint,
        /// The phase, the error, and the SQLSTATE.
        cause: Arc<str>,
    },
    /// TLS handshakes with a Pod fail: the client rejects the server's certificate, the server rejects the client's, or
    /// the server does not support TLS although it is required. Open connections stay in use. Further failures of the
    /// same kind emit no event until a connection to the Pod has been opened successfully.
    TlsFailed {
        /// The Pod.
        endpoint: Endpoint,
        /// The phase and the error.
        cause: Arc<str>,
    },
    /// libpq's password file is ignored: other users can read it, it is not a regular file, or it cannot be read.
    /// Emitted once for each new reason.
    PassfileIgnored {
        /// The file.
        path: Arc<Path>,
        /// The reason.
        cause: Arc<str>,
    },
    /// The Service's name could not be resolved. The set of Pods does not change. Emitted only for the first of several
    /// consecutive failures.
    ResolveFailed {
        /// The reason.
        cause: Arc<str>,
    },
    /// A lookup of the Service's name succeeded after a failed one.
    ResolveRecovered,
    /// No Pod is healthy. Ejected Pods are used until a Pod becomes healthy.
    NoHealthyPods,
    /// At least one Pod is healthy again.
    HealthyPodsAgain,
}

/// Defines the name of each event, and [`NAMES`]. Every variant must have a name.
macro_rules! names {
    ($($variant:ident $name:literal,)*) => {
        /// The names of all events.
        pub(crate) const NAMES: [&str; [$($name),*].len()] = [$($name),*];

        impl Event {
            /// Returns the event's name in snake case, as in the log.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => $name,)*
                }
            }
        }
    };
}

names! {
    CertificatesRefused "certificates_refused",
    CertificatesReloaded "certificates_reloaded",
    EndpointAdded "endpoint_added",
    EndpointDetached "endpoint_detached",
    EndpointDrained "endpoint_drained",
    EndpointFenced "endpoint_fenced",
    EndpointRemoved "endpoint_removed",
    EndpointRetained "endpoint_retained",
    EndpointReturned "endpoint_returned",
    EndpointUnfenced "endpoint_unfenced",
    HealthyPodsAgain "healthy_pods_again",
    LoginFailed "login_failed",
    NoHealthyPods "no_healthy_pods",
    Panicked "panicked",
    PassfileIgnored "passfile_ignored",
    ResolveFailed "resolve_failed",
    ResolveRecovered "resolve_recovered",
    RoleChanged "role_changed",
    ServerOversubscribed "server_oversubscribed",
    StateChanged "state_changed",
    TlsFailed "tls_failed",
}

impl Event {
    /// The names of all events.
    pub const NAMES: &[&str] = &NAMES;

    /// Returns the Pod that the event is about, if any.
    #[must_use]
    pub fn endpoint(&self) -> Option<&Endpoint> {
        match self {
            Self::EndpointAdded { endpoint }
            | Self::EndpointDetached { endpoint }
            | Self::EndpointRetained { endpoint }
            | Self::EndpointReturned { endpoint }
            | Self::EndpointDrained { endpoint }
            | Self::EndpointRemoved { endpoint }
            | Self::ServerOversubscribed { endpoint, .. }
            | Self::EndpointFenced { endpoint, .. }
            | Self::EndpointUnfenced { endpoint }
            | Self::LoginFailed { endpoint, .. }
            | Self::TlsFailed { endpoint, .. }
            | Self::StateChanged { endpoint, .. }
            | Self::RoleChanged { endpoint, .. } => Some(endpoint),
            _ => None,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        if let Some(endpoint) = self.endpoint() {
            write!(f, " {endpoint}")?;
        }
        match self {
            Self::StateChanged { from, to, cause, .. } => {
                write!(f, " {from} -> {to}")?;
                cause.as_ref().map_or(Ok(()), |cause| write!(f, ": {cause}"))
            }
            Self::RoleChanged { from, to, .. } => write!(f, " {from} -> {to}"),
            Self::ServerOversubscribed { cause, .. }
            | Self::CertificatesRefused { cause }
            | Self::EndpointFenced { cause, .. }
            | Self::LoginFailed { cause, .. }
            | Self::TlsFailed { cause, .. }
            | Self::ResolveFailed { cause } => write!(f, ": {cause}"),
            Self::Panicked { source, cause } => write!(f, " {source}: {cause}"),
            Self::PassfileIgnored { path, cause } => write!(f, " {}: {cause}", path.display()),
            _ => Ok(()),
        }
    }
}

/// A subscription to the pool's events. Receives all events that are emitted after its creation.
#[derive(Debug)]
pub struct Events(broadcast::Receiver<Event>);

/// The error that a subscriber gets after falling more than [`EVENT_CAPACITY`] events behind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "the count is the only information")]
pub struct Lagged {
    /// Number of events that were lost.
    pub lost: u64,
}

impl fmt::Display for Lagged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} events lost: the subscriber was too slow", self.lost)
    }
}

impl std::error::Error for Lagged {}

impl Events {
    /// Waits for the next event. Returns `None` once the pool has been closed. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`Lagged`] if events were lost. The next call returns the oldest event that is still buffered.
    pub async fn next(&mut self) -> Option<Result<Event, Lagged>> {
        match self.0.recv().await {
            Ok(event) => Some(Ok(event)),
            Err(broadcast::error::RecvError::Lagged(lost)) => Some(Err(Lagged { lost })),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// The sending side of the stream.
#[derive(Debug)]
pub(crate) struct Emitter {
    sender: Mutex<Option<broadcast::Sender<Event>>>,
    /// The number of emissions of each event, in the order of [`NAMES`].
    counts: [AtomicU64; NAMES.len()],
    /// The number of panics of each source, and the time of the last [`Event::Panicked`] about that source, in the
    /// order of [`PanicSource::ALL`].
    panics: [(AtomicU64, Mutex<Option<Instant>>); PanicSource::ALL.len()],
}

impl Emitter {
    pub(crate) fn new() -> Self {
        Self {
            sender: Mutex::new(Some(broadcast::Sender::new(EVENT_CAPACITY))),
            counts: Default::default(),
            panics: Default::default(),
        }
    }

    /// Sends an event to all subscribers and to the log.
    pub(crate) fn emit(&self, event: Event) {
        if let Some(index) = NAMES.iter().position(|name| *name == event.name()) {
            // Relaxed: the counter guards no other data. `counts` reads it.
            self.counts[index].fetch_add(1, Ordering::Relaxed);
        }
        log(&event);
        // Sent outside of the lock, because `send` wakes the subscribers.
        let sender = lock(&self.sender).clone();
        if let Some(sender) = sender {
            // `send` fails only if there are no subscribers.
            drop(sender.send(event));
        }
    }

    /// Counts a panic, and emits an event about it unless one was emitted for this source within the last
    /// [`PANIC_INTERVAL`].
    pub(crate) fn panicked(&self, source: PanicSource, panic: &Panic) {
        let (count, last) = &self.panics[source as usize];
        // Relaxed: the counter guards no other data. `panics` reads it.
        count.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let mut last = lock(last);
        if last.is_some_and(|last| now < last + PANIC_INTERVAL) {
            return;
        }
        *last = Some(now);
        drop(last);
        self.emit(Event::Panicked { source: source.as_str(), cause: panic.to_string().into() });
    }

    /// Returns the number of panics of each source.
    #[cfg(feature = "metrics")]
    pub(crate) fn panics(&self) -> impl Iterator<Item = (&'static str, u64)> {
        // Relaxed: the counters guard no other data. `panicked` increments them.
        let count = |source: PanicSource| self.panics[source as usize].0.load(Ordering::Relaxed);
        PanicSource::ALL.into_iter().map(move |source| (source.as_str(), count(source)))
    }

    /// Returns the number of emissions of each event, by name.
    #[cfg(feature = "metrics")]
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        // Relaxed: the counters guard no other data. `emit` increments them.
        NAMES.into_iter().zip(&self.counts).map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }

    /// Ends the event streams of all subscribers.
    pub(crate) fn close(&self) {
        drop(lock(&self.sender).take());
    }

    pub(crate) fn subscribe(&self) -> Events {
        match &*lock(&self.sender) {
            Some(sender) => Events(sender.subscribe()),
            None => Events(broadcast::channel(1).1),
        }
    }
}

fn log(event: &Event) {
    let (name, address) = (event.name(), event.endpoint().map(Endpoint::address));
    let (address, port) = (address.map(|it| tracing::field::display(it.ip())), address.map(|it| it.port()));
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                target: TARGET,
                event = name,
                "db.system.name" = SYSTEM,
                "server.address" = address,
                "server.port" = port,
                "{event}"
            )
        };
    }
    match event {
        Event::ServerOversubscribed { .. }
        | Event::CertificatesRefused { .. }
        | Event::EndpointFenced { .. }
        | Event::LoginFailed { .. }
        | Event::NoHealthyPods
        | Event::Panicked { .. }
        | Event::PassfileIgnored { .. }
        | Event::ResolveFailed { .. }
        | Event::TlsFailed { .. } => line!(warn),
        Event::StateChanged { to, .. } if *to == "ejected" => line!(warn),
        _ => line!(info),
    }
}
