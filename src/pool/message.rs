use tokio::sync::oneshot;

use crate::{
    discovery::{Resolution, ResolveError},
    endpoint::Role,
    error::Attempt,
    time::{Duration, Instant},
    wire::{Class, witness::Evidence},
};

/// What the directory is told. It is the only one who acts on any of this.
#[derive(Debug)]
pub(crate) enum Message {
    /// The name was asked. `again`: when to ask next, where that is sooner than the answer's own time.
    Resolved { result: Result<Resolution, ResolveError>, again: oneshot::Sender<Option<Instant>> },
    /// A Pod was probed.
    Probed { pod: u64, outcome: Probed },
    /// A connection of this Pod and generation saw something.
    Seen { pod: u64, generation: u64, evidence: Evidence },
    /// A connection to this Pod could not be opened.
    DialFailed { pod: u64, class: Class },
}

/// How a probe went.
#[derive(Debug)]
pub(crate) enum Probed {
    /// The Pod answered, after this long.
    Passed { role: Role, read_only: bool, took: Duration },
    /// It did not.
    Failed { proven: bool, class: Class, attempt: Attempt },
}
