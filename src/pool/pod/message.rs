//! The messages to the directory, the task that maintains the set of Pods. Other tasks and connections only report
//! facts to it. Only the directory changes the state of the Pods.

use tokio::sync::oneshot;

use crate::{
    discovery::{Resolution, ResolveError},
    error::Attempt,
    time::{Duration, Instant},
    wire::{Class, connection_observer::Evidence, server_facts::ServerFacts},
};

/// A message to the directory. `pod` is the Pod's serial number, and `pool` the number of the pool of a group.
#[derive(Debug)]
pub(crate) enum Message {
    /// A lookup of a configured host has finished. If the next lookup must run before the TTL of the response has
    /// passed, the directory replies with the time of the next lookup.
    Resolved {
        /// The index of the host.
        host: usize,
        result: Result<Resolution, ResolveError>,
        next_lookup: oneshot::Sender<Option<Instant>>,
    },
    /// A probe has finished.
    Probed { pod: u64, outcome: Probed },
    /// A connection of this generation has received evidence of the Pod's role or health. The generation increases each
    /// time all open connections of the Pod are invalidated.
    Observed { pod: u64, pool: u64, generation: u64, evidence: Evidence },
    /// The Pod is an outlier: too many of its statements fail with an error that is the server's fault.
    Outlier { pod: u64, cause: String },
    /// Callers have requested the targets in this bit set.
    TargetsRequested { targets: u32 },
    /// Callers of a pool wait for the targets in this bit set, and no Pod can serve them.
    Starving { pool: u64, targets: u32 },
    /// Callers have begun to limit the age of a server's data.
    LagDemanded,
    /// The application has requested to forget the timelines that the pool has seen.
    ForgetHistory,
    /// A connection to this Pod could not be opened.
    DialFailed { pod: u64, pool: u64, class: Class },
    /// A session of a pool was opened, or refused.
    Session { pod: u64, pool: u64, session: Session },
    /// The server of a Pod that is absent from DNS has refused a test dial.
    TestRefused { pod: u64, attempt: Attempt },
}

/// A report about the sessions of one pool, whose user and database the server may treat in a particular way.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Session {
    /// A session was opened. `read_only` is true if it is on a primary, but read-only by default.
    Accepted { read_only: bool },
    /// The server has refused a login, for a permanent reason.
    Refused,
}

/// The outcome of a probe. `pool` is the number of the pool whose session was used. `None` is the first pool.
#[derive(Debug)]
pub(crate) enum Probed {
    /// The Pod responded. `sent` and `received` are the times of the query and of its response.
    Passed { facts: ServerFacts, read_only: bool, took: Duration, sent: Instant, received: Instant, pool: Option<u64> },
    /// The probe failed.
    Failed {
        /// True if this failure alone proves that the Pod does not serve, so that no second failed probe is needed.
        conclusive: bool,
        /// Start of the probe, if no byte has been received from the Pod since then, on any connection. `None`
        /// otherwise.
        unresponsive_since: Option<Instant>,
        class: Class,
        attempt: Attempt,
        pool: Option<u64>,
    },
}
