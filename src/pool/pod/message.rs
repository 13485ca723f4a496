//! The messages to the directory. Tasks and connections only report; the directory alone decides.

use tokio::sync::oneshot;

use crate::{
    discovery::{Resolution, ResolveError},
    error::Attempt,
    time::{Duration, Instant},
    wire::{Class, connection_observer::Evidence, server_facts::ServerFacts},
};

/// A message to the directory. `pod` is the Pod's serial number.
#[derive(Debug)]
pub(crate) enum Message {
    /// A lookup of the name has finished. The directory replies with the time of the next lookup if that must be
    /// earlier than the TTL of the response.
    Resolved { result: Result<Resolution, ResolveError>, next_lookup: oneshot::Sender<Option<Instant>> },
    /// A probe has finished.
    Probed { pod: u64, outcome: Probed },
    /// A connection of this generation reports evidence of the Pod's role or health.
    Observed { pod: u64, generation: u64, evidence: Evidence },
    /// The Pod's statements fail through the server's own fault.
    Outlier { pod: u64, cause: String },
    /// Callers request targets that need these [roles](crate::Target::roles).
    RolesRequested { roles: u8 },
    /// A connection to this Pod could not be opened.
    DialFailed { pod: u64, class: Class },
}

/// The outcome of a probe.
#[derive(Debug)]
pub(crate) enum Probed {
    /// The Pod responded. `sent` and `received` are the times of the query and its response.
    Passed { facts: ServerFacts, read_only: bool, took: Duration, sent: Instant, received: Instant },
    /// The probe failed.
    Failed {
        /// True if the failure alone shows that the Pod does not serve.
        conclusive: bool,
        /// Time at which the probe began, if no byte was received from the Pod since, on any connection.
        unresponsive_since: Option<Instant>,
        class: Class,
        attempt: Attempt,
    },
}
