//! Computes each Pod's latency and latency class from its statements and probes. Stores both in the Pod's slot, from
//! which load balancing reads them.

use std::collections::HashMap;

use crate::{
    balance::Rng,
    endpoint::Role,
    health::{
        State,
        latency::{Latency, Work, classify},
    },
    pool::pod::{open_connections::Totals, view::View},
    time::Instant,
};

/// The latency of each Pod, by serial number.
#[derive(Debug, Default)]
pub(crate) struct Latencies(HashMap<u64, PodLatency>);

#[derive(Debug)]
struct PodLatency {
    speed: Latency,
    role: Role,
    /// True if the Pod is not healthy and therefore gets no traffic.
    out: bool,
    /// All requests of the Pod up to the last tick.
    work: Work,
    /// The part of `work` that was sent by callers whose target (requested role) is `any`.
    any: Work,
    /// Number of passed probes up to the last tick.
    probes: u32,
    /// Time of the last tick.
    at: Instant,
}

impl Latencies {
    /// Updates the latency of every Pod from the requests and probes since the last tick.
    pub(crate) fn tick(&mut self, view: &View, rng: &mut Rng, now: Instant) {
        for (pod, health) in view.pods() {
            let known = self.0.entry(pod.serial).or_insert_with(|| {
                let (speed, role, work) = (Latency::new(rng.unit()), health.role, Work::default());
                PodLatency { speed, role, out: true, work, any: work, probes: 0, at: now }
            });
            known.role = health.role;
            let was_out = std::mem::replace(&mut known.out, health.state != State::Healthy);
            if known.out != was_out {
                // The measurements of an ejected Pod are stale when the Pod returns, so it starts like a new one.
                known.speed = Latency::new(rng.unit());
            }
            let Totals { work, any, .. } = pod.connections.totals();
            let elapsed = now.saturating_duration_since(known.at);
            let (new_work, new_any) =
                if known.out { Default::default() } else { (work.since(known.work), any.since(known.any)) };
            known.speed.answered(new_work, new_any, elapsed);
            (known.work, known.any, known.at) = (work, any, now);
            let (probes, took) = pod.server.last_probe();
            if probes != known.probes {
                known.probes = probes;
                known.speed.probed(took);
            }
        }
        if self.0.len() > view.health.len() {
            self.0.retain(|serial, _| view.pods().any(|(pod, _)| pod.serial == *serial));
        }
        classify(&mut self.0.values_mut().map(|known| (known.role, &mut known.speed)).collect::<Vec<_>>());
        let uneven = self.0.values().any(|known| !known.out && known.speed.class() > 1);
        for (pod, _) in view.pods() {
            let Some(PodLatency { speed, .. }) = self.0.get(&pod.serial) else { continue };
            pod.slot.set_class(speed.class());
            pod.slot.set_uneven(uneven);
            pod.slot.set_latency(speed.latency());
        }
    }
}
