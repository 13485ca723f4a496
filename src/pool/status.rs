use std::time::Duration;

use super::{inner::Inner, pod::shared::read};
use crate::{
    config::Target,
    endpoint::{Endpoint, Role},
    health::State,
    sync::lock,
};

/// The pool at one moment. The counts are read one after the other while the pool goes on, so they need not add up.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// Every Pod, sorted by name and address.
    pub endpoints: Vec<EndpointStatus>,
    /// Pods behind the name that this client does not use: see [`subset_size`](crate::config::Limits::subset_size). They
    /// are neither connected nor probed.
    pub unused: Vec<Endpoint>,
    /// How the name's resolution goes.
    pub resolve: ResolveStatus,
    /// What has been counted since the pool was made.
    pub counters: CounterStatus,
    /// Whether the pool is closed, or closing.
    pub closed: bool,
}

/// One Pod at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EndpointStatus {
    /// Its address, and its name where discovery tells it.
    pub endpoint: Endpoint,
    /// What it is to the pool.
    pub state: State,
    /// What its server is.
    pub role: Role,
    /// Why it gets nothing whatever the target, if it is not what it says it is.
    pub fenced: Option<String>,
    /// How many bytes of write-ahead log a standby is behind, as of its last probe.
    pub lag_bytes: Option<u64>,
    /// Whether a standby is too far behind for `max_lag` or `max_lag_bytes`.
    pub late: bool,
    /// Connections that are open, the probe's not counted.
    pub open: usize,
    /// Of those, the ones that nobody has borrowed.
    pub idle: usize,
    /// Of those, the ones that are lent out, or are settling after that.
    pub in_use: usize,
    /// Callers in the queue for whom a connection to this Pod would do.
    pub waiting: usize,
    /// Checkouts since it was added.
    pub picks: u64,
    /// How long it takes to answer a statement, as seen lately.
    pub latency: Option<Duration>,
    /// How many times slower than the fastest Pods it counts as; 1 for those within twice the time of the fastest.
    pub slowness: u32,
    /// The most connections that its server has for the sessions of this role and database, all clients together, as it
    /// said: `max_connections` without those that are reserved, or a lower limit of the role or the database.
    pub slots: Option<u32>,
    /// What went wrong with it last, if nothing went right since.
    pub last_failure: Option<String>,
}

impl EndpointStatus {
    /// Whether it serves: healthy, and not fenced.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.state == State::Healthy && self.fenced.is_none()
    }
}

/// How the name's resolution goes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ResolveStatus {
    /// What is asked, and of whom.
    pub source: String,
    /// Since the last successful answer.
    pub age: Option<Duration>,
    /// Whether the last answer was a good one.
    pub ok: bool,
    /// Failures in a row since the last good answer.
    pub failures: u64,
    /// The last failure, if no good answer came after it.
    pub error: Option<String>,
}

/// Counts since the pool was made. They only grow.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CounterStatus {
    /// Checkouts that found nothing idle, or something that wanted a ping first.
    pub waits: u64,
    /// Of those, the ones that reached their deadline.
    pub timeouts: u64,
    /// Connections opened, the probes' not counted.
    pub opened: u64,
    /// Connections that could not be opened.
    pub open_failed: u64,
    /// Connections closed.
    pub closed: u64,
    /// Connections that came back in the middle of something.
    pub recycled: u64,
    /// Connections closed instead of being lent out again.
    pub discarded: u64,
    /// Connections whose session was reset, see [`Reset`](crate::config::Reset).
    pub reset: u64,
    /// Connections that were cache_cleared of the prepared statements they kept: of more than `statement_cache_size`, or of
    /// outdated ones.
    pub cache_cleared: u64,
    /// Repetitions made by [`Pool::retry`](crate::Pool::retry).
    pub retries: u64,
    /// Good answers to the name.
    pub resolve_ok: u64,
    /// Failures to resolve it.
    pub resolve_failed: u64,
}

impl Inner {
    pub(crate) fn status(&self) -> Status {
        let view = self.published.load();
        let shared = &self.shared;
        let mut endpoints: Vec<_> = view
            .pods()
            .map(|(pod, health)| EndpointStatus {
                endpoint: pod.endpoint.clone(),
                state: health.state,
                role: health.role,
                fenced: health.fence.map(|fence| fence.to_string()),
                lag_bytes: health.lag.and_then(|lag| lag.bytes),
                late: health.lag.is_some_and(|lag| lag.late),
                open: pod.open(),
                idle: pod.idle(),
                in_use: pod.slot.in_flight() as usize,
                waiting: shared.waiters.count(|target: Target| pod.slot.serves(target.bit())),
                picks: pod.slot.picks(),
                latency: pod.slot.latency(),
                slowness: pod.slot.load().class,
                slots: health.slots,
                last_failure: lock(&pod.last_failure).last().map(|(_, attempt)| attempt.to_string()),
            })
            .collect();
        endpoints.sort_unstable_by(|one, other| one.endpoint.cmp(&other.endpoint));
        let resolved = lock(&shared.resolved).clone();
        let resolve = ResolveStatus {
            source: self.resolver.source(),
            age: resolved.at.map(|at| at.elapsed()),
            ok: resolved.at.is_some() && resolved.failures == 0,
            failures: resolved.failures,
            error: resolved.error.as_deref().map(str::to_owned),
        };
        let counters = &shared.counters;
        let counters = CounterStatus {
            waits: read(&counters.waits),
            timeouts: read(&counters.timeouts),
            opened: read(&counters.opened),
            open_failed: read(&counters.open_failed),
            closed: read(&counters.closed),
            recycled: read(&counters.recycled),
            discarded: read(&counters.discarded),
            reset: read(&counters.reset),
            cache_cleared: read(&counters.cache_cleared),
            retries: read(&counters.retries),
            resolve_ok: read(&counters.resolve_ok),
            resolve_failed: read(&counters.resolve_failed),
        };
        Status { endpoints, unused: view.unused.to_vec(), resolve, counters, closed: view.closed }
    }
}
