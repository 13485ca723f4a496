//! The shares of the Pods in many checkouts, by policy.

use serde::{Deserialize, Serialize};

use super::{Clock, Decision, check, is_default};
use crate::{
    balance::{Candidates, Chooser, Rng},
    config::PolicyName,
    endpoint::{
        slot::Slab,
        snapshot::{Candidate, LISTS, Places, Snapshot},
    },
    time::{Duration, Instant},
};

/// Number of checkouts from which the shares are computed.
const PICKS: u32 = 400_000;

struct Shares(PolicyName);

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    policy: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Facts {
    pods: Vec<Pod>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Pod {
    #[serde(default = "one", skip_serializing_if = "is_one")]
    weight: u32,
    /// Connections in use.
    #[serde(default, skip_serializing_if = "is_default")]
    in_use: u32,
    /// The latency as a multiple of that of the fastest Pods.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    slowness: u32,
    /// The peak latency, for `peak-ewma`.
    #[serde(default, skip_serializing_if = "is_default")]
    latency_us: Option<u64>,
}

fn one() -> u32 {
    1
}

fn is_one(number: &u32) -> bool {
    *number == 1
}

#[derive(Serialize)]
struct Outcome {
    /// The share of each Pod while the facts stay the same, in thousandths.
    per_mille: Vec<u32>,
}

impl Decision for Shares {
    const NAME: &str = "shares";
    type Settings = Settings;
    type Event = Facts;
    type Outcome = Outcome;

    fn new(settings: &Settings, _: Clock) -> Self {
        Self(settings.policy.parse().expect("the name of a policy"))
    }

    fn apply(&mut self, event: &Facts, _: Instant) -> Outcome {
        let mut slab = Slab::default();
        let handles: Vec<_> = event.pods.iter().map(|_| slab.take()).collect();
        for (handle, pod) in handles.iter().zip(&event.pods) {
            (0..pod.in_use).for_each(|_| handle.checkout());
            handle.set_class(pod.slowness);
            handle.set_uneven(event.pods.iter().any(|pod| pod.slowness > 1));
            handle.set_latency(pod.latency_us.map(Duration::from_micros).map(|latency| (latency, latency)));
        }
        let candidate = |(index, pod): (usize, &Pod)| Candidate { slot: handles[index].number(), weight: pod.weight };
        let list = event.pods.iter().enumerate().map(candidate).collect();
        let snapshot = Snapshot::<()>::new(slab.slots(), Places::default(), &[list], [0; LISTS]);
        let candidates = Candidates::new(&snapshot, snapshot.candidates(0));
        let (chooser, mut rng) = (Chooser::named(self.0), Rng::seeded(1));
        let mut picks = vec![0u32; event.pods.len()];
        for _ in 0..PICKS {
            if let Some(index) = chooser.pick(&candidates, &mut rng) {
                picks[index] += 1;
            }
        }
        let per_mille = |picks: u32| (f64::from(picks) * 1000.0 / f64::from(PICKS)).round() as u32;
        Outcome { per_mille: picks.into_iter().map(per_mille).collect() }
    }
}

#[test]
fn shares() {
    check::<Shares>();
}
