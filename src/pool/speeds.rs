//! Brings what the wire and the probes tell of the Pods' speed into their slots, where the picks read it.

use std::collections::HashMap;

use super::{pod::Totals, view::View};
use crate::{
    endpoint::Role,
    health::speed::{Speed, classify},
    time::{Duration, Instant},
};

/// What is remembered of each Pod from one look to the next.
#[derive(Debug, Default)]
pub(crate) struct Speeds(HashMap<u64, Known>);

#[derive(Debug)]
struct Known {
    speed: Speed,
    role: Role,
    answered: u64,
    time: Duration,
    probes: u32,
    at: Instant,
}

impl Speeds {
    /// Looks at every Pod.
    pub(crate) fn tick(&mut self, view: &View, now: Instant) {
        for (pod, health) in view.pods() {
            if !self.0.contains_key(&pod.serial) {
                let speed = Speed::new(self.0.values().map(|known| &known.speed));
                let (role, time) = (health.role, Duration::ZERO);
                self.0.insert(pod.serial, Known { speed, role, answered: 0, time, probes: 0, at: now });
            }
            let Some(known) = self.0.get_mut(&pod.serial) else { continue };
            known.role = health.role;
            let Totals { answered, time, .. } = pod.totals();
            let (more, took) = (answered.saturating_sub(known.answered), time.saturating_sub(known.time));
            known.speed.answered(more, took, now.saturating_duration_since(known.at));
            (known.answered, known.time, known.at) = (answered, time, now);
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
            let Some(Known { speed, .. }) = self.0.get(&pod.serial) else { continue };
            pod.slot.set_class(speed.class());
            if let Some((latency, peak)) = speed.latency() {
                pod.slot.set_latency(latency, peak);
            }
        }
    }
}
