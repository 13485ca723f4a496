use tokio::sync::oneshot;

use crate::{
    discovery::{Resolution, ResolveError},
    error::Attempt,
    time::{Duration, Instant},
    wire::{Class, connection_observer::Evidence, facts::ServerFacts},
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
    /// A Pod's statements fail through the server's own fault.
    Outlier { pod: u64, cause: String },
    /// These [roles](crate::Target::roles) are asked for.
    Wanted { roles: u8 },
    /// A connection to this Pod could not be opened.
    DialFailed { pod: u64, class: Class },
}

/// How a probe went.
#[derive(Debug)]
pub(crate) enum Probed {
    /// The Pod answered, after this long, and said where it stands: asked at this moment, answered at that.
    Passed { facts: ServerFacts, read_only: bool, took: Duration, asked: Instant, at: Instant },
    /// It did not. `proven`: that by itself shows that it does not serve. `silent`: since when nothing was reads, if nothing
    /// at all was.
    Failed { proven: bool, silent: Option<Instant>, class: Class, attempt: Attempt },
}
