//! The upkeep of the pool, a periodic task: sets the clock, watches the traffic, updates the Pods' latencies, closes
//! expired and surplus idle connections, exports metrics, and reloads certificate files.
//!
//! [`refresher`] runs in a separate task and looks up the Pods.

mod latency;
pub(crate) mod refresher;
pub(crate) mod watch;

use std::{future::poll_fn, sync::Arc, task::Context};

use tokio::time::{MissedTickBehavior, interval};

use self::{latency::Latencies, watch::Watch};
use super::{
    inner::Inner,
    pod::{
        Pod,
        clock::{RefreshOnWake, TICK},
    },
};
use crate::{balance::Rng, sync::lock, system::spawn_blocking, time::Instant};

/// Every 10 ticks (1 s), idle connections are reaped and metrics are exported.
const ROUND: u32 = 10;
/// Every 100 ticks (10 s), certificate files are checked for changes.
const CERTIFICATES: u32 = 100;

/// Runs the upkeep until its task is aborted.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watch = Watch::default();
    let mut latencies = Latencies::default();
    let mut rng = Rng::from_os();
    for tick in 0u32.. {
        poll_fn(|cx| {
            let waker = RefreshOnWake::waker(&inner.shared, cx.waker());
            ticks.poll_tick(&mut Context::from_waker(&waker))
        })
        .await;
        inner.shared.clock.refresh();
        lock(&inner.shared.local_health).tick(Instant::now());
        watch.tick(&inner, Instant::now());
        let view = inner.published.load();
        latencies.tick(&view, &mut rng, Instant::now());
        if tick % ROUND == 0 {
            view.pods().for_each(|(pod, health)| reap(pod, health.warm));
            // Reaping may have left a Pod with fewer than `min_idle` open connections, so the opener is woken.
            inner.shared.waiters.wake_opener();
            inner.export();
        }
        if tick % CERTIFICATES == 0
            && let Some(dialer) = inner.shared.dialer.get()
            && let Some(refresh) = dialer.refresher()
        {
            // The task's result is dropped, because the refresh itself emits an event with its result.
            drop(spawn_blocking(refresh));
        }
    }
}

/// Closes idle connections that have ended, have reached `max_lifetime` or `idle_timeout`, or exceed the Pod's maximum
/// number of connections. If the Pod is used for callers (`warm`), `idle_timeout` never reduces the number of idle
/// connections below `min_idle`.
fn reap(pod: &Arc<Pod>, warm: bool) {
    let shared = pod.shared();
    let min_idle = if warm { shared.limits.min_idle } else { 0 };
    let limit = u64::try_from(shared.limits.idle_timeout.as_millis()).unwrap_or(u64::MAX);
    let now = shared.clock.now();
    // Inspecting the idle connections takes them out of their queue, and the Pod would briefly seem to have none. So
    // the inspection is skipped if no connection needs to be closed.
    if !pod.is_over_size() && !pod.connections.may_need_reaping(now, limit) {
        return;
    }
    let mut kept = 0;
    // The most recently used connections are inspected first and are therefore kept.
    pod.reap(|conn| {
        let timed_out = now.saturating_sub(conn.idle_since) > limit && kept >= min_idle;
        let keep = conn.is_reusable(now) && !timed_out;
        kept += usize::from(keep);
        keep
    });
}
