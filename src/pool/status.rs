//! The public snapshot of a pool's state: [`Status`].

use std::{sync::Arc, time::Duration};

use super::{
    inner::Inner,
    pod::{requirement, shared::read},
};
use crate::{
    endpoint::{Endpoint, Role},
    error::Phase,
    health::{State, absence::Standing},
    sync::lock,
};

/// The state of a pool at one moment, from [`Pool::status`](crate::Pool::status).
///
/// The values are read one after another while the pool is running, so related values may be inconsistent with each
/// other.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The pool's [name](crate::Pool::name).
    pub name: Arc<str>,
    /// The Pods that this client uses, sorted by name and address.
    pub endpoints: Vec<EndpointStatus>,
    /// Pods behind the Service name that this client does not use because of
    /// [`subset_size`](crate::config::Limits::subset_size) or
    /// [`max_connections`](crate::config::Limits::max_connections). They have no connections and are not probed.
    pub unused: Vec<Endpoint>,
    /// The state of name resolution.
    pub resolve: ResolveStatus,
    /// Counters since the pool was built.
    pub counters: CounterStatus,
    /// True once the pool is closing or closed.
    pub closed: bool,
}

/// The state of one Pod at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EndpointStatus {
    /// The Pod's address, its name where discovery provides one, and its current weight and priority.
    pub endpoint: Endpoint,
    /// The other addresses of a dual-stack Pod. They are probed, but not used while this address can be used.
    pub alternatives: Vec<Endpoint>,
    /// The Pod's health state.
    pub state: State,
    /// The role that the Pod's server reported last.
    pub role: Role,
    /// The timeline of the Pod's write-ahead log, which increases with each promotion. For a standby, the highest
    /// timeline that it is known to have. `None` if the server has not reported it since its role changed.
    pub timeline: Option<u32>,
    /// Reason why the Pod is fenced. A fenced Pod is never checked out, whatever the target. `None` for a Pod that
    /// fails its probes.
    pub fenced: Option<String>,
    /// True if the Pod is absent from DNS, but is still used because no other Pod serves a role that callers have
    /// requested.
    pub retained: bool,
    /// True if the Pod is absent from DNS and not used. Its connections stay open for
    /// [`detach_linger`](crate::config::Limits::detach_linger).
    pub detached: bool,
    /// Bytes of write-ahead log that a standby had not replayed at its last probe.
    pub lag_bytes: Option<u64>,
    /// Estimated age of a standby's data at its last probe, measured with the client's clock. Zero if the standby had
    /// replayed everything that the primary was known to have written. `None` until the primary has been observed.
    pub lag: Option<Duration>,
    /// True if the Pod is a standby that exceeds `max_lag` or `max_lag_bytes`, or follows a former primary. A late
    /// standby is not checked out.
    pub late: bool,
    /// True if a session of the Pod has ended unexpectedly and the Pod has not responded to a probe since then. Other
    /// Pods are preferred until it responds.
    pub suspect: bool,
    /// Open connections, excluding the probe connection.
    pub open: usize,
    /// Open connections that are idle.
    pub idle: usize,
    /// Connections that are checked out, being recycled after use, or pinged for a caller. A connection that does not
    /// respond to its ping is closed after `probe_timeout`, even if the caller has another connection by then.
    pub in_use: usize,
    /// Open connections that belong to the application, from [`Pool::connect_owned`](crate::Pool::connect_owned).
    pub owned: usize,
    /// Open connections that the callers of [`Pool::shared`](crate::Pool::shared) share.
    pub shared: usize,
    /// Statements that are in flight on the shared connections, or about to be sent.
    pub shared_in_flight: usize,
    /// Waiting callers that this Pod could serve.
    pub waiting: usize,
    /// Checkouts since the Pod was added.
    pub checkouts: u64,
    /// Moving average of the Pod's response time for a statement.
    pub latency: Option<Duration>,
    /// The Pod's latency class, which load balancing uses: the latency as a multiple of the fastest Pods' latency. The
    /// class is 1 for every Pod within twice the response time of the fastest one.
    pub latency_class: u32,
    /// Maximum number of connections for this user and database, from all clients together, as reported by the server:
    /// `max_connections` minus the reserved connections, or the limit of the role or the database if that is lower.
    pub server_connections: Option<u32>,
    /// The Pod's last failure. `None` if a dial or a probe has succeeded since then.
    pub last_failure: Option<String>,
}

impl EndpointStatus {
    /// Returns true if the Pod is healthy, not fenced and not detached, so that callers can get connections to it.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.state == State::Healthy && self.fenced.is_none() && !self.detached
    }
}

/// The state of name resolution at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ResolveStatus {
    /// The names that are looked up, and the name servers that are queried.
    pub source: String,
    /// Time since the last successful lookup. With several hosts, the longest of their times; that of a host that has
    /// not been resolved yet begins when the pool is built. `None` if no host has been resolved yet.
    pub age: Option<Duration>,
    /// True if the last lookup of each host succeeded.
    pub ok: bool,
    /// Failed lookups since the last success. With several hosts, the maximum.
    pub failures: u64,
    /// Errors of the hosts whose last lookup failed.
    pub error: Option<String>,
}

/// Counters since the pool was built. They never decrease.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CounterStatus {
    /// Checkouts that had to wait, because no connection was idle, because the idle connection needed a ping, or
    /// because of the hook [`before_checkout`](crate::Builder::before_checkout).
    pub waits: u64,
    /// Checkouts that reached their deadline.
    pub timeouts: u64,
    /// Connections opened, excluding probe connections.
    pub opened: u64,
    /// Failed attempts to open a connection.
    pub open_failed: u64,
    /// Connections closed.
    pub closed: u64,
    /// Connections that were returned with an open transaction or an in-flight statement and had to be recycled.
    pub recycled: u64,
    /// Connections that were closed when they were returned or about to be checked out, for example because a ping
    /// failed.
    pub discarded: u64,
    /// Connections whose session was reset after use; see [`Reset`](crate::config::Reset).
    pub reset: u64,
    /// Connections whose cache of prepared statements was cleared, because it held more than `statement_cache_size`
    /// statements or a stale one.
    pub statement_caches_cleared: u64,
    /// Retries by [`Pool::retry`](crate::Pool::retry) and
    /// [`Pool::retry_unapplied`](crate::Pool::retry_unapplied).
    pub retries: u64,
    /// Successful lookups of the Service name.
    pub resolve_ok: u64,
    /// Failed lookups of the Service name.
    pub resolve_failed: u64,
}

impl Inner {
    /// Returns the state of the pool now.
    pub(crate) fn status(&self) -> Status {
        let view = self.published.load();
        let shared = &self.shared;
        let alternatives = |used: &Endpoint| {
            let others = view.pods().filter(|(_, health)| health.alternative_of.as_ref() == Some(used));
            others.map(|(pod, _)| pod.endpoint.clone()).collect()
        };
        let mut endpoints: Vec<_> = view
            .servers()
            .map(|(pod, health)| (pod, health, pod.shared_connections.counts()))
            .map(|(pod, health, (shared_open, shared_in_flight))| EndpointStatus {
                endpoint: pod.current_endpoint(),
                alternatives: alternatives(&pod.endpoint),
                state: health.state,
                role: health.role,
                timeline: health.timeline,
                fenced: health.fence.filter(|_| health.reports_fence()).map(|fence| fence.to_string()),
                retained: health.absent == Some(Standing::Retained),
                detached: health.is_detached(),
                lag_bytes: pod.server.lag.bytes(),
                lag: pod.server.lag.time(),
                late: health.late,
                suspect: health.suspect,
                open: pod.open(),
                idle: pod.idle(),
                in_use: pod.slot.in_use() as usize,
                owned: pod.connections.owned(),
                shared: shared_open,
                shared_in_flight,
                waiting: shared.waiters.count(requirement::served(&pod.slot)),
                checkouts: pod.slot.checkouts(),
                latency: pod.slot.latency(),
                latency_class: pod.slot.load().class,
                server_connections: health.slots,
                last_failure: lock(&pod.last_failure).last().map(|(_, attempt)| attempt.to_string()),
            })
            .collect();
        endpoints.sort_unstable_by(|one, other| one.endpoint.cmp(&other.endpoint));
        let resolved = lock(&shared.group.resolved).clone();
        let resolve = ResolveStatus {
            source: shared.group.source(),
            age: resolved.at().map(|at| at.elapsed()),
            ok: resolved.is_ok(),
            failures: resolved.failures(),
            error: resolved.error(),
        };
        let counters = &shared.counters;
        let counters = CounterStatus {
            waits: read(&counters.waits),
            timeouts: counters.timed_out.get(Phase::Wait),
            opened: read(&counters.opened),
            open_failed: counters.failed_in.total(),
            closed: counters.closed_for.total(),
            recycled: read(&counters.recycled),
            discarded: read(&counters.discarded),
            reset: read(&counters.reset),
            statement_caches_cleared: read(&counters.cache_cleared),
            retries: read(&counters.retries),
            resolve_ok: read(&shared.group.counters.resolve_ok),
            resolve_failed: read(&shared.group.counters.resolve_failed),
        };
        let name = shared.name().clone();
        Status { name, endpoints, unused: view.unused.to_vec(), resolve, counters, closed: view.closed }
    }
}
