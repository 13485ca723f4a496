//! Brings what the wire and the probes tell of the Pods' speed into their slots, where the picks read it.

use std::collections::HashMap;

use crate::{
    endpoint::Role,
    health::{
        State,
        latency::{Latency, Work, classify},
    },
    pool::pod::{Totals, view::View},
    time::Instant,
};

/// What is remembered of each Pod from one look to the next.
#[derive(Debug, Default)]
pub(crate) struct Latencies(HashMap<u64, PodLatency>);

#[derive(Debug)]
struct PodLatency {
    speed: Latency,
    role: Role,
    /// It is out of traffic.
    out: bool,
    work: Work,
    any: Work,
    probes: u32,
    at: Instant,
}

impl Latencies {
    /// Looks at every Pod.
    pub(crate) fn tick(&mut self, view: &View, now: Instant) {
        for (pod, health) in view.pods() {
            if !self.0.contains_key(&pod.serial) {
                let speed = Latency::new(self.0.values().map(|known| &known.speed));
                let (role, work) = (health.role, Work::default());
                self.0.insert(pod.serial, PodLatency { speed, role, out: true, work, any: work, probes: 0, at: now });
            }
            let Some(known) = self.0.get_mut(&pod.serial) else { continue };
            known.role = health.role;
            let was_out = std::mem::replace(&mut known.out, health.state != State::Healthy);
            if known.out && !was_out {
                known.speed.forget();
            }
            let Totals { work, any, .. } = pod.totals();
            let passed = now.saturating_duration_since(known.at);
            let more = if known.out { Default::default() } else { (work.since(known.work), any.since(known.any)) };
            known.speed.answered(more.0, more.1, passed);
            (known.work, known.any, known.at) = (work, any, now);
            let (probes, took) = pod.probes_took();
            if probes != known.probes {
                known.probes = probes;
                known.speed.probed(took);
            }
        }
        if self.0.len() > view.health.len() {
            self.0.retain(|serial, _| view.pods().any(|(pod, _)| pod.serial == *serial));
        }
        classify(&mut self.0.values_mut().map(|known| (known.role, &mut known.speed)).collect::<Vec<_>>());
        for (pod, _) in view.pods() {
            let Some(PodLatency { speed, .. }) = self.0.get(&pod.serial) else { continue };
            pod.slot.set_class(speed.class());
            if let Some((latency, peak)) = speed.latency() {
                pod.slot.set_latency(latency, peak);
            }
        }
    }
}
