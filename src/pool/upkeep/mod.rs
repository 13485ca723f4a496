//! The pool's upkeep: its clock, its idle connections, its Pods' latency, and those who wait.

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

/// Ticks between two rounds through the Pods: one round a second.
const ROUND: u32 = 10;
/// Ticks between two looks at the files of certificates: ten seconds.
const CERTIFICATES: u32 = 100;

/// Keeps the pool until cut short.
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
            round(&view);
            inner.export();
        }
        if tick % CERTIFICATES == 0
            && let Some(refresh) = inner.shared.dialer.refresher()
        {
            // Nobody waits for it: what it finds is an event.
            drop(spawn_blocking(refresh));
        }
    }
}

fn round(view: &View) {
    for (pod, health) in view.pods() {
        reap(pod);
        if health.state == State::Healthy {
            connect::warm(pod);
        }
    }
}

/// Closes idle connections that are over, have lived long enough, or have been idle for too long; of the last, as many
/// as `min_idle` stay.
fn reap(pod: &Arc<Pod>) {
    let shared = pod.shared();
    let idle = pod.idle();
    if idle == 0 {
        return;
    }
    let limit = u64::try_from(shared.limits.idle_timeout.as_millis()).unwrap_or(u64::MAX);
    let now = shared.clock.now();
    let mut kept = 0;
    // The most recently used come first.
    pod.reap(|conn| {
        let idle = now.saturating_sub(conn.parked) > limit && kept >= shared.limits.min_idle;
        let keep = conn.is_current() && !conn.is_old() && !idle && !pod.is_over();
        kept += usize::from(keep);
        keep
    });
}
