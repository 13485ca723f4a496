//! The time limits that the properties require, with their sources.
//!
//! Most limits depend on the pool's settings. `docs/failure-modes.md` has the durations that were measured with the
//! default settings; the comments compare with them.

use std::time::Duration;

use crate::adversary::{Plan, Settings};

/// Tolerance of every limit: timers have a resolution of 1 ms, and several of them may follow each other.
pub const TOLERANCE: Duration = Duration::from_millis(50);

/// Time between the choice of a Pod and the checkout of its connection. `pool/checkout/ping.rs`: a caller waits 1 ms
/// for the response to a ping. Two timers may each be 1 ms late.
pub const HANDOVER: Duration = Duration::from_millis(5);

/// Time for which a returned connection may count as in use. `config::Limits`: `RECYCLE_GRACE` of 100 ms, and
/// `RECYCLE_TIMEOUT` of 1 s for each of three steps (end of the canceled statement, rollback, reset).
pub const RECYCLE: Duration = Duration::from_millis(3_100 + 50);

/// Time for which the age of missing log does not count. `config::Limits::max_lag`: "only while there is WAL at least
/// 1 s old that the standby has not replayed".
pub const LAG_GRACE: Duration = Duration::from_secs(1);

/// Time after which a second answer confirms an absence, whatever the lifetime of the records.
/// `discovery/confirm.rs`: "5 s after the first answer". `docs/failure-modes.md`: "no new checkouts once its absence is
/// confirmed".
pub const CONFIRM: Duration = Duration::from_secs(5);

/// Time for which a lookup may wait before its time limit begins, while lookups fail. `discovery/rate_limit.rs`: "four
/// in any one second".
pub const THROTTLED: Duration = Duration::from_secs(1);

/// Time for which a fault that keeps probes from being answered may have an effect after its end: a probe, and a
/// backoff of dials.
pub const HIDDEN: Duration = Duration::from_secs(5);

/// Interval between two probes of a Pod that has failed one. `pool/pod/prober.rs`.
const SUSPECT_INTERVAL: Duration = Duration::from_secs(1);
/// Jitter of all intervals. `pool/pod/prober.rs`.
const JITTER: f64 = 1.2;
/// Backoff of a Pod that is ejected again and again. `health/state.rs`.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Time after which a Pod that was slow is tried again, with jitter, and gets an equal share. `health/latency/mod.rs`.
const TRIED_AGAIN: Duration = Duration::from_millis(7_500 + 1_500);
/// Time after the failed probes after which the requests to a Pod are aborted. `config::Limits`.
const ABORTED_AFTER: Duration = Duration::from_secs(3);
/// Time within which the kernel detects a lost peer. `config::Limits::KEEPALIVES_IDLE`.
const KEEPALIVE: Duration = Duration::from_secs(8);
/// Time for which a closing connection may keep its socket. `config::Limits::TERMINATE_TIMEOUT`.
const TERMINATE: Duration = Duration::from_secs(2);

/// Returns the time within which each Pod has been probed: a probe interval, a probe that is lost, and its repetition.
/// `docs/failure-modes.md`: "ejected after 1.4 s" for a hanging Pod with traffic.
#[must_use]
pub fn probed(settings: &Settings) -> Duration {
    settings.probe_interval.mul_f64(JITTER)
        + SUSPECT_INTERVAL.mul_f64(JITTER)
        + 2 * settings.probe_timeout
        + settings.connect_timeout
        + TOLERANCE
}

/// Returns the time after which a request to a server that does not respond is aborted. `config::Limits`: "operations
/// that still wait for that Pod are aborted 3 s later" than the probes fail. `docs/failure-modes.md`: "stuck for 3.4 s"
/// with traffic.
#[must_use]
pub fn aborted(settings: &Settings) -> Duration {
    probed(settings) + ABORTED_AFTER
}

/// Returns the time after which a request to a peer that is not reachable is aborted. `config::Limits`: keepalives
/// detect a lost peer in 8 s. `docs/failure-modes.md`: "failed after 4.0 s" for a Pod that has left DNS.
#[must_use]
pub fn lost(settings: &Settings) -> Duration {
    probed(settings) + settings.tcp_user_timeout.max(ABORTED_AFTER) + KEEPALIVE
}

/// Returns the age of the data that a standby may have beyond `max_lag`. `config::Limits::max_lag`: "The error is at
/// most one probe interval". `docs/failure-modes.md`: "excluded 5.8 s after replay stopped (the limit and one probe)".
#[must_use]
pub fn lag_error(settings: &Settings) -> Duration {
    // The position of the primary and that of the standby are each as old as a probe.
    LAG_GRACE + 2 * probed(settings)
}

/// Returns the time within which a change of DNS is known: the longest refresh interval and a lost query.
#[must_use]
pub fn resolved(settings: &Settings) -> Duration {
    settings.refresh_max.mul_f64(JITTER) + 2 * settings.dns_timeout + TOLERANCE
}

/// Returns the time after which a Pod that has recovered is in use, if it was ejected so many times within the last
/// minutes: its backoff or its discovery, and two passed probes. `docs/failure-modes.md`: "back after 2.4 s" after the
/// first ejection.
#[must_use]
pub fn returned(settings: &Settings, ejections: u32) -> Duration {
    // The first ejection has no backoff; each further one doubles it.
    let doublings = ejections.saturating_sub(2).min(5);
    let backoff = if ejections < 2 { Duration::ZERO } else { (BACKOFF_MIN * (1 << doublings)).min(BACKOFF_MAX) };
    resolved(settings).max(backoff.mul_f64(JITTER) + probed(settings)) + probed(settings)
}

/// Returns true if every server has connection slots for all connections of all clients, of which each may also have a
/// probe connection at the other address of a dual-stack Pod, and three for the operator.
#[must_use]
pub fn has_slots(plan: &Plan) -> bool {
    let topology = &plan.topology;
    let per_client = plan.settings.pool_size + 1 + u32::from(topology.dual_stack);
    topology.clients * per_client + 3 <= topology.max_connections
}

/// Returns the time after which every caller is served: the primary and the standbys are found and probed.
/// `docs/failure-modes.md`: "first write 47 ms after the new primary accepts writes", if the pool has connections.
#[must_use]
pub fn served(settings: &Settings) -> Duration {
    returned(settings, 0)
}

/// Returns the time after which equal Pods have equal shares again, if a Pod was ejected so many times: three fast
/// probes, or some seconds after which a Pod that was slow is tried again. `docs/failure-modes.md`: "back 5.4 s after
/// the end of the throttling", with a probe every 5 s.
#[must_use]
pub fn shared(settings: &Settings, ejections: u32) -> Duration {
    let back = if ejections == 0 { Duration::ZERO } else { returned(settings, ejections) };
    back + settings.probe_interval.mul_f64(3.0 * JITTER) + TRIED_AGAIN
}

/// Returns the time for which a client may have sessions that its pool does not count, because it has closed their
/// connections, and the other way round.
#[must_use]
pub fn forgotten(settings: &Settings) -> Duration {
    TERMINATE + settings.tcp_user_timeout + probed(settings)
}
