//! A simulated client: a pool, the callers that wait for a connection, and the state of its probes.

use std::collections::VecDeque;

use podpool::bench::SimulatedClient;

pub(crate) struct Client {
    pub(crate) pool: SimulatedClient,
    /// FIFO queue of callers that wait for a connection.
    pub(crate) waiting: VecDeque<Waiter>,
    pub(crate) probing: Vec<Probing>,
}

/// A caller that waits for a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiter {
    /// Time of the call, in nanoseconds.
    pub(crate) arrived: u64,
    /// Service time of the caller's statement, in nanoseconds, on a Pod that is not slow.
    pub(crate) work: f64,
}

/// A client's probe state for one Pod.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Probing {
    /// Sequence number of the most recently scheduled probe. Events of earlier probes are ignored.
    pub(crate) number: u64,
    /// True if the most recently scheduled probe is in flight.
    pub(crate) in_flight: bool,
    /// True if the last probe failed.
    pub(crate) failed: bool,
    /// Time of the Pod's last response, or of the last statement that was sent to the Pod while it was idle, whichever
    /// is later, in nanoseconds. 0 before the first of these events.
    pub(crate) last_response: u64,
    /// True if an extra probe has been scheduled since the last response, because the Pod was unresponsive.
    pub(crate) suspected: bool,
}
