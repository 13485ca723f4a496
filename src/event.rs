//! What happened to the set of Pods, as a bounded stream that slows nobody down.

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
    error::BoxError,
    sync::{Mutex, lock},
    trace::{SYSTEM, TARGET},
};

/// Events that are kept for a reader who is behind. Who is further behind is told how many were lost.
pub const EVENT_CAPACITY: usize = 256;

/// Something that happened to the set of Pods.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Files of certificates have changed and cannot be used: the last good ones stay in use. Said once for each change.
    CertificatesRefused {
        /// Which file, and what is wrong with it.
        cause: Arc<str>,
    },
    /// Files of certificates have changed: new connections use the new ones.
    CertificatesReloaded,
    /// A Pod is behind the name that was not before. It serves once a probe has passed.
    EndpointAdded {
        /// The Pod.
        endpoint: Endpoint,
    },
    /// A Pod is not behind the name any more. Idle connections are closed, borrowed ones when they come back.
    EndpointDrained {
        /// The Pod.
        endpoint: Endpoint,
    },
    /// The last connection to a drained Pod is closed.
    EndpointRemoved {
        /// The Pod.
        endpoint: Endpoint,
    },
    /// A Pod's state changed.
    StateChanged {
        /// The Pod.
        endpoint: Endpoint,
        /// The state before: `probing`, `healthy`, `ejected`.
        from: &'static str,
        /// The state now.
        to: &'static str,
        /// Why, where something failed.
        cause: Option<Arc<str>>,
    },
    /// A Pod's role changed.
    RoleChanged {
        /// The Pod.
        endpoint: Endpoint,
        /// The role before.
        from: Role,
        /// The role now.
        to: Role,
    },
    /// A Pod is not what it says it is: a former primary, or of another cluster. It gets nothing, whatever the target.
    EndpointFenced {
        /// The Pod.
        endpoint: Endpoint,
        /// Why.
        cause: Arc<str>,
    },
    /// A fenced Pod has mended its ways.
    EndpointUnfenced {
        /// The Pod.
        endpoint: Endpoint,
    },
    /// The connections that clients like this one may open are more than a Pod has. Said once a Pod, as soon as its
    /// server has told how many it has. How many clients there are is known only from `clients`; without that, one is
    /// compared.
    BudgetExceeded {
        /// The Pod.
        endpoint: Endpoint,
        /// The arithmetic.
        cause: Arc<str>,
    },
    /// A Pod lets nobody in: the server refuses who we are, or the database that is asked for, or there are no credentials
    /// to come with. What is open goes on to serve. Said once, until the Pod lets somebody in.
    LoginFailed {
        /// The Pod.
        endpoint: Endpoint,
        /// In which phase, why, and with which SQLSTATE.
        cause: Arc<str>,
    },
    /// A Pod cannot be spoken to over TLS: its certificate was refused, it refused ours, or it does not offer TLS and has
    /// to. What is open goes on to serve. Said once, until the Pod lets somebody in.
    TlsFailed {
        /// The Pod.
        endpoint: Endpoint,
        /// In which phase, and why.
        cause: Arc<str>,
    },
    /// libpq's password file is ignored: others may read it, it is no plain file, or it cannot be read. Said once.
    PassfileIgnored {
        /// Which file.
        path: Arc<Path>,
        /// Why.
        cause: Arc<str>,
    },
    /// The name could not be resolved. The set stays as it was. Said once, at the first failure in a row.
    ResolveFailed {
        /// Why.
        cause: Arc<str>,
    },
    /// The name resolves again.
    ResolveRecovered,
    /// No Pod is healthy: the ejected ones are used until one is.
    PanicBegan,
    /// A Pod is healthy again.
    PanicEnded,
}

/// The names of all events.
pub(crate) const NAMES: [&str; 17] = [
    "budget_exceeded",
    "certificates_refused",
    "certificates_reloaded",
    "endpoint_added",
    "endpoint_drained",
    "endpoint_fenced",
    "endpoint_removed",
    "endpoint_unfenced",
    "login_failed",
    "panic_began",
    "panic_ended",
    "passfile_ignored",
    "resolve_failed",
    "resolve_recovered",
    "role_changed",
    "state_changed",
    "tls_failed",
];

impl Event {
    /// The names of all events.
    pub const NAMES: &[&str] = &NAMES;

    /// The event's name in lower case with underscores, as in the logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::CertificatesRefused { .. } => "certificates_refused",
            Self::CertificatesReloaded => "certificates_reloaded",
            Self::EndpointAdded { .. } => "endpoint_added",
            Self::EndpointDrained { .. } => "endpoint_drained",
            Self::EndpointRemoved { .. } => "endpoint_removed",
            Self::EndpointFenced { .. } => "endpoint_fenced",
            Self::EndpointUnfenced { .. } => "endpoint_unfenced",
            Self::BudgetExceeded { .. } => "budget_exceeded",
            Self::LoginFailed { .. } => "login_failed",
            Self::TlsFailed { .. } => "tls_failed",
            Self::PassfileIgnored { .. } => "passfile_ignored",
            Self::StateChanged { .. } => "state_changed",
            Self::RoleChanged { .. } => "role_changed",
            Self::ResolveFailed { .. } => "resolve_failed",
            Self::ResolveRecovered => "resolve_recovered",
            Self::PanicBegan => "panic_began",
            Self::PanicEnded => "panic_ended",
        }
    }

    /// The Pod that it is about, if it is about one.
    #[must_use]
    pub fn endpoint(&self) -> Option<&Endpoint> {
        match self {
            Self::EndpointAdded { endpoint }
            | Self::EndpointDrained { endpoint }
            | Self::EndpointRemoved { endpoint }
            | Self::BudgetExceeded { endpoint, .. }
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
            Self::BudgetExceeded { cause, .. }
            | Self::CertificatesRefused { cause }
            | Self::EndpointFenced { cause, .. }
            | Self::LoginFailed { cause, .. }
            | Self::TlsFailed { cause, .. }
            | Self::ResolveFailed { cause } => write!(f, ": {cause}"),
            Self::PassfileIgnored { path, cause } => write!(f, " {}: {cause}", path.display()),
            _ => Ok(()),
        }
    }
}

/// A reader of the pool's events, from the moment it was made.
#[derive(Debug)]
pub struct Events(broadcast::Receiver<Event>);

/// The reader was more than [`EVENT_CAPACITY`] events behind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "a count is all there is to say")]
pub struct Lagged {
    /// How many events were lost.
    pub lost: u64,
}

impl fmt::Display for Lagged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} events were lost: the reader was too slow", self.lost)
    }
}

impl std::error::Error for Lagged {}

impl Events {
    /// The next event; `None` when the pool is gone. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`Lagged`] when events were lost; reading goes on with the oldest one that is kept.
    pub async fn next(&mut self) -> Option<Result<Event, Lagged>> {
        match self.0.recv().await {
            Ok(event) => Some(Ok(event)),
            Err(broadcast::error::RecvError::Lagged(lost)) => Some(Err(Lagged { lost })),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// The sending end.
#[derive(Debug)]
pub(crate) struct Emitter {
    sender: Mutex<Option<broadcast::Sender<Event>>>,
    /// How often each event has happened, in the order of [`NAMES`].
    counts: [AtomicU64; NAMES.len()],
}

impl Emitter {
    pub(crate) fn new() -> Self {
        Self { sender: Mutex::new(Some(broadcast::Sender::new(EVENT_CAPACITY))), counts: Default::default() }
    }

    /// Sends an event to whoever reads, and to the log.
    pub(crate) fn emit(&self, event: Event) {
        if let Some(place) = NAMES.iter().position(|name| *name == event.name()) {
            // Relaxed: a plain counter.
            self.counts[place].fetch_add(1, Ordering::Relaxed);
        }
        log(&event);
        if let Some(sender) = &*lock(&self.sender) {
            // An error only says that nobody reads at the moment.
            drop(sender.send(event));
        }
    }

    /// How often each event has happened, by its name.
    #[cfg(feature = "metrics")]
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        NAMES.into_iter().zip(&self.counts).map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }

    /// Nothing more will happen: readers come to the end.
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
        Event::BudgetExceeded { .. }
        | Event::CertificatesRefused { .. }
        | Event::EndpointFenced { .. }
        | Event::LoginFailed { .. }
        | Event::PanicBegan
        | Event::PassfileIgnored { .. }
        | Event::ResolveFailed { .. }
        | Event::TlsFailed { .. } => line!(warn),
        Event::StateChanged { to, .. } if *to == "ejected" => line!(warn),
        _ => line!(info),
    }
}

/// The text of an error with all its causes.
pub(crate) fn chain(error: &BoxError) -> Arc<str> {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text.into()
}
