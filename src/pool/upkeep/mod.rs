//! Periodic upkeep of the pool: sets the clock, reminds waiters of their deadlines, watches the traffic, updates the
//! Pods' latencies, closes surplus and adds missing idle connections, exports metrics, and reloads certificate files.
//!
//! [`refresher`] is a separate task that looks the name up.

mod latency;
pub(crate) mod refresher;
pub(crate) mod watch;

use std::sync::Arc;

use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use self::{latency::Latencies, watch::Watch};
use super::{
    inner::Inner,
    pod::{Pod, connect, shared::TICK, view::View},
};
use crate::{health::State, time::Instant};

/// Ticks between two rounds over the idle connections: one second.
const ROUND: u32 = 10;
/// Ticks between two checks of the certificate files: ten seconds.
const CERTIFICATES: u32 = 100;

/// Runs the upkeep until the task is aborted. `start` is the time at which the pool was built.
pub(crate) async fn run(inner: Arc<Inner>, start: Instant) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watch = Watch::default();
    let mut latencies = Latencies::default();
    let _reminding = inner.shared.waiters.begin_reminding();
    for tick in 0u32.. {
        ticks.tick().await;
        inner.shared.clock.set(start.elapsed());
        inner.shared.waiters.remind(Instant::now());
        watch.tick(&inner, Instant::now());
        let view = inner.published.load();
        latencies.tick(&view, Instant::now());
        if tick % ROUND == 0 {
            maintain_idle(&view);
            inner.export();
        }
        if tick % CERTIFICATES == 0
            && let Some(refresh) = inner.shared.dialer.refresher()
        {
            // The result is reported as an event.
            drop(spawn_blocking(refresh));
        }
    }
}

fn maintain_idle(view: &View) {
    for (pod, health) in view.pods() {
        reap(pod);
        if health.state == State::Healthy {
            connect::warm(pod);
        }
    }
}

/// Closes idle connections that have ended, have reached `max_lifetime` or `idle_timeout`, or exceed the Pod's size.
/// `idle_timeout` leaves `min_idle` connections.
fn reap(pod: &Arc<Pod>) {
    let shared = pod.shared();
    let idle = pod.idle();
    if idle == 0 {
        return;
    }
    let limit = u64::try_from(shared.limits.idle_timeout.as_millis()).unwrap_or(u64::MAX);
    let now = shared.clock.now();
    let mut kept = 0;
    // Called with the most recently used connections first, so those stay.
    pod.reap(|conn| {
        let timed_out = now.saturating_sub(conn.idle_since) > limit && kept >= shared.limits.min_idle;
        let keep = conn.is_current() && !conn.is_expired() && !timed_out && !pod.is_over_size();
        kept += usize::from(keep);
        keep
    });
}
