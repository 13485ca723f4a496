//! The demand for reads with a limit on the age of a server's data. While such reads are requested, the Pods are probed
//! often enough that a standby that keeps up fulfills the limit.

use super::requirement::STEPS;
use crate::{
    sync::{AtomicU64, Ordering},
    time::Duration,
};

/// Time in milliseconds for which a request keeps the probes frequent.
const LASTS: u64 = 5_000;
/// Number of probes in the time of a limit. Two of them, of the primary and then of the standby, bound the age of the
/// standby's data. The rest is for jitter and for slow responses.
const PROBES_PER_LIMIT: u32 = 4;

/// For each limit in [`STEPS`], the time of the pool's clock, in milliseconds, until which its demand lasts. Relaxed: a
/// stale value only delays or repeats a probe.
#[derive(Debug, Default)]
pub(crate) struct LagDemand([AtomicU64; STEPS.len()]);

impl LagDemand {
    /// Records a request for data that fulfills a limit. Returns true if the limit was not in demand before, so that
    /// the Pods must be probed now.
    pub(crate) fn request(&self, step: usize, now: u64) -> bool {
        // Zero is fulfilled only by a primary, whose data need not be measured.
        step > 0 && self.0[step].swap(now + LASTS, Ordering::Relaxed) < now
    }

    /// Returns the maximum interval between two probes of a Pod, if a limit is in demand.
    pub(crate) fn interval(&self, now: u64) -> Option<Duration> {
        let step = self.0.iter().position(|until| until.load(Ordering::Relaxed) >= now.max(1))?;
        Some(STEPS[step] / PROBES_PER_LIMIT)
    }
}

#[cfg(all(test, not(podpool_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_in_demand_determines_the_interval() {
        let demand = LagDemand::default();
        assert_eq!(demand.interval(0), None);
        assert!(!demand.request(0, 1_000), "the primary fulfills it");
        assert!(demand.request(3, 1_000) && !demand.request(3, 2_000));
        assert_eq!(demand.interval(2_000), Some(STEPS[3] / 4));
        assert!(demand.request(2, 3_000));
        assert_eq!(demand.interval(8_000), Some(STEPS[2] / 4));
        assert_eq!(demand.interval(8_001), None, "the demand has ended");
        assert!(demand.request(2, 8_001));
    }
}
