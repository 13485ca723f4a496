//! Events about the set of Pods, in a bounded stream. A slow subscriber loses events but does not slow down the pool.

mod emitter;
mod group;
mod log_limit;
mod stream;
mod text;

use std::{path::Path, sync::Arc, time::Duration};

pub use self::stream::{Events, Lagged};
pub(crate) use self::{emitter::Emitter, group::GroupEvents};
use crate::endpoint::{Endpoint, Role};

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
    /// An address leads to the same server as another address, of the other IP family, of the same dual-stack Pod. It
    /// is probed, but not used while the other one can be used.
    EndpointAlternative {
        /// The address that is not used.
        endpoint: Endpoint,
        /// The address that is used.
        used: Endpoint,
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
        /// The error that caused the change, if there was one, without the Pod's name and address.
        cause: Option<Arc<str>>,
    },
    /// Code supplied by the application, or a task of the pool, panicked. The pool continues to work: the panicked call
    /// counts as failed, or the task resumes. Emitted at most once per second for each source; the metric
    /// `podpool_panics_total` counts every panic.
    Panicked {
        /// The code that panicked. `after_checkin`, `after_connect`, `before_checkout`, `credentials_provider`,
        /// `metrics_recorder`, `observer`, `policy`, `resolver` and `tls_connector` are supplied by the application.
        /// The others are tasks of the pool: `directory` maintains the set of Pods, `opener` opens connections,
        /// `prober` probes one Pod, `refresher` resolves the Service name, and `upkeep` does periodic work. Observers
        /// receive no event about a panic of an observer.
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
        /// The timeline of the Pod's write-ahead log, if a probe has already read it in the new role.
        timeline: Option<u32>,
    },
    /// A Pod that passes its probes must not be used, because its server is a former primary on an older timeline, is a
    /// second primary on the same timeline, or belongs to another cluster. The Pod receives no traffic, not even from
    /// checkouts that accept any role. Emitted again if the reason changes. Not emitted for a primary that has failed:
    /// the Pod is ejected, and its role is unknown until it passes a probe.
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
    /// New connections to a Pod are protected differently than before: by another certificate, cipher suite, TLS
    /// version or authentication method. No aspect is weaker than before. Not emitted for the first connection to a
    /// Pod. Not repeated for the same protection until 8 others were reported, because one address may lead to several
    /// servers.
    SecurityChanged {
        /// The Pod.
        endpoint: Endpoint,
        /// The authentication method, channel binding, TLS version, cipher suite, and the verification and SHA-256
        /// fingerprint of the server's certificate until now.
        from: Arc<str>,
        /// The same properties of the new connection.
        to: Arc<str>,
    },
    /// New connections to a Pod are protected less than before: without TLS, without verification of the certificate,
    /// with an older TLS version, with a weaker authentication method, or without channel binding. The configuration
    /// permits this. If it is not intended, the server's configuration may be wrong, or an attacker may control the
    /// network. Not repeated, like [`SecurityChanged`](Self::SecurityChanged).
    ///
    /// `security=strict` prevents the loss of TLS, of verification and of SCRAM, `channel_binding=require` that of
    /// channel binding, and `ssl_min_protocol_version=TLSv1.3` an older TLS version.
    SecurityDowngraded {
        /// The Pod.
        endpoint: Endpoint,
        /// The protection until now, as in [`SecurityChanged`](Self::SecurityChanged).
        from: Arc<str>,
        /// The protection of the new connection.
        to: Arc<str>,
    },
    /// A standby exceeds `max_lag` or `max_lag_bytes`, or follows a former primary. It is not checked out.
    StandbyLate {
        /// The Pod.
        endpoint: Endpoint,
        /// The reason.
        cause: Arc<str>,
    },
    /// A standby is no longer late, and serves again.
    StandbyCaughtUp {
        /// The Pod.
        endpoint: Endpoint,
    },
    /// The pool has forgotten the highest timeline of the cluster, or the cluster's system identifier, so that former
    /// primaries are no longer fenced. The reason is a restore of an older backup, the removal of a Pod that was
    /// promoted by mistake, a new cluster, or a call of [`Pool::forget_history`](crate::Pool::forget_history).
    FencingHistoryForgotten {
        /// The highest timeline that was forgotten, if one was known.
        timeline: Option<u32>,
        /// The reason.
        cause: Arc<str>,
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
    /// Logins to a Pod fail: the server rejects the user or the database, the pool refuses the server's authentication
    /// request, or no credentials are available. Open connections stay in use. Further failures of the same kind emit
    /// no event until a connection to the Pod has been opened successfully.
    LoginFailed {
        /// The Pod.
        endpoint: Endpoint,
        /// The phase, the error, and the SQLSTATE.
        cause: Arc<str>,
    },
    /// The hook [`after_connect`](crate::Builder::after_connect) fails on new connections to a Pod, or after a reset of
    /// a session. The connection is closed. Further failures emit no event until a connection to the Pod has been
    /// opened successfully.
    SetupFailed {
        /// The Pod.
        endpoint: Endpoint,
        /// The phase and the error.
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
    /// A caller has executed `LISTEN` on a pooled connection. Its notifications are dropped, and the subscription ends
    /// when the connection is returned. [`Pool::listen`](crate::Pool::listen) delivers notifications. Emitted once for
    /// each Pod.
    ListenIgnored {
        /// The Pod.
        endpoint: Endpoint,
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
    /// consecutive failures. With several hosts, emitted for each one.
    ResolveFailed {
        /// The records that are looked up, or the description of another [`Resolve`](crate::discovery::Resolve).
        source: Arc<str>,
        /// The reason.
        cause: Arc<str>,
        /// The number of Pods that are known from earlier lookups and stay in use. If it is zero, checkouts wait.
        known: usize,
    },
    /// A lookup of the Service's name succeeded after a failed one. With several hosts, emitted for each one, so that
    /// each [`ResolveFailed`](Self::ResolveFailed) is followed by one `ResolveRecovered` with the same source.
    ResolveRecovered {
        /// The same as in [`ResolveFailed`](Self::ResolveFailed).
        source: Arc<str>,
    },
    /// No Pod is healthy, and checkouts use ejected Pods until one is. Also emitted once every Pod of a new pool has
    /// failed. Not emitted while the name has no Pods.
    NoHealthyPods {
        /// The number of Pods.
        pods: usize,
        /// Each Pod, with the reason why it is not used.
        cause: Arc<str>,
    },
    /// At least one Pod is healthy again, after [`NoHealthyPods`](Self::NoHealthyPods).
    HealthyPodsAgain {
        /// The time without a healthy Pod.
        after: Duration,
    },
    /// No Pod serves as the primary any more, and writes wait for one. Also emitted by a new pool whose Pods have all
    /// responded or failed, if callers have requested the primary. Not emitted if another Pod takes over immediately,
    /// or while the name has no Pods.
    PrimaryLost {
        /// The last primary, if there was one.
        endpoint: Option<Endpoint>,
        /// The reason why it no longer serves, without its name and address; or the role or failure of each Pod.
        cause: Arc<str>,
    },
    /// A Pod serves as the primary: the first one of the pool, another one than before, or the same one after
    /// [`PrimaryLost`](Self::PrimaryLost).
    PrimaryFound {
        /// The Pod.
        endpoint: Endpoint,
        /// The time without a primary, if that was reported.
        after: Option<Duration>,
    },
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
    EndpointAlternative "endpoint_alternative",
    EndpointDetached "endpoint_detached",
    EndpointDrained "endpoint_drained",
    EndpointFenced "endpoint_fenced",
    EndpointRemoved "endpoint_removed",
    EndpointRetained "endpoint_retained",
    EndpointReturned "endpoint_returned",
    EndpointUnfenced "endpoint_unfenced",
    FencingHistoryForgotten "fencing_history_forgotten",
    HealthyPodsAgain "healthy_pods_again",
    ListenIgnored "listen_ignored",
    LoginFailed "login_failed",
    NoHealthyPods "no_healthy_pods",
    Panicked "panicked",
    PassfileIgnored "passfile_ignored",
    PrimaryFound "primary_found",
    PrimaryLost "primary_lost",
    ResolveFailed "resolve_failed",
    ResolveRecovered "resolve_recovered",
    RoleChanged "role_changed",
    SecurityChanged "security_changed",
    SecurityDowngraded "security_downgraded",
    ServerOversubscribed "server_oversubscribed",
    SetupFailed "setup_failed",
    StandbyCaughtUp "standby_caught_up",
    StandbyLate "standby_late",
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
            | Self::EndpointAlternative { endpoint, .. }
            | Self::EndpointDetached { endpoint }
            | Self::EndpointRetained { endpoint }
            | Self::EndpointReturned { endpoint }
            | Self::EndpointDrained { endpoint }
            | Self::EndpointRemoved { endpoint }
            | Self::SecurityChanged { endpoint, .. }
            | Self::SecurityDowngraded { endpoint, .. }
            | Self::ServerOversubscribed { endpoint, .. }
            | Self::EndpointFenced { endpoint, .. }
            | Self::EndpointUnfenced { endpoint }
            | Self::StandbyLate { endpoint, .. }
            | Self::StandbyCaughtUp { endpoint }
            | Self::ListenIgnored { endpoint }
            | Self::LoginFailed { endpoint, .. }
            | Self::SetupFailed { endpoint, .. }
            | Self::TlsFailed { endpoint, .. }
            | Self::PrimaryFound { endpoint, .. }
            | Self::StateChanged { endpoint, .. }
            | Self::RoleChanged { endpoint, .. } => Some(endpoint),
            Self::PrimaryLost { endpoint, .. } => endpoint.as_ref(),
            _ => None,
        }
    }
}
