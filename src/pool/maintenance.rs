//! The pool's upkeep: its clock, its idle connections, its Pods' latency.

use std::{collections::HashMap, sync::Arc};

use tokio::time::{MissedTickBehavior, interval};

use super::{
    common::TICK,
    inner::Inner,
    meter::Exporter,
    opener,
    pod::{Pod, Totals},
    watch::Watch,
};
use crate::{
    health::State,
    time::{Duration, Instant},
};

/// Ticks between two rounds through the Pods: one round a second.
const ROUND: u32 = 10;
/// How much of a new reading goes into a Pod's latency.
const WEIGHT: f64 = 0.3;

/// Keeps the pool until cut short.
pub(crate) async fn run(inner: Arc<Inner>, start: Instant) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watch = Watch::default();
    let mut readings = HashMap::new();
    let mut exporter = Exporter::new(inner.clone());
    for tick in 0u32.. {
        ticks.tick().await;
        inner.common.clock.set(start.elapsed());
        watch.tick(&inner, Instant::now());
        if tick % ROUND == 0 {
            round(&inner, &mut readings);
            exporter.export();
        }
    }
}

/// Requests answered so far and the time they took.
type Reading = (u64, Duration);

fn round(inner: &Inner, readings: &mut HashMap<u64, Reading>) {
    let view = inner.published.load();
    let mut kept = HashMap::with_capacity(readings.len());
    for (pod, health) in view.pods() {
        let Totals { answered, time, .. } = pod.totals();
        let (before, time_before) = readings.get(&pod.serial).copied().unwrap_or_default();
        let (more, took) = (answered.saturating_sub(before), time.saturating_sub(time_before));
        if let (1.., Ok(more)) = (more, u32::try_from(more)) {
            sample(pod, took / more);
        }
        kept.insert(pod.serial, (answered, time));
        reap(pod);
        if health.state == State::Healthy {
            opener::warm(pod);
        }
    }
    *readings = kept;
}

/// Takes a reading into a Pod's latency.
pub(crate) fn sample(pod: &Pod, latency: Duration) {
    let latency = match pod.slot.latency() {
        Some(before) => before.mul_f64(1.0 - WEIGHT) + latency.mul_f64(WEIGHT),
        None => latency,
    };
    pod.slot.set_latency(latency);
}

/// Closes idle connections that are over, have lived long enough, or have been idle for too long; of the last, as many
/// as `min_idle` stay.
fn reap(pod: &Arc<Pod>) {
    let common = pod.common();
    let idle = pod.idle();
    if idle == 0 {
        return;
    }
    let limit = u64::try_from(common.limits.idle_timeout.as_millis()).unwrap_or(u64::MAX);
    let now = common.clock.now();
    let mut kept = 0;
    // The most recently used come first.
    pod.reap(|conn| {
        let idle = now.saturating_sub(conn.parked) > limit && kept >= common.limits.min_idle;
        let keep = conn.is_current() && !conn.is_old() && !idle && !pod.is_over();
        kept += usize::from(keep);
        keep
    });
}
