//! Decides how many connections to open, and to which Pods. [`plan`] is a pure function: the current time and the
//! choice between equivalent Pods are arguments.
//!
//! Each waiter is covered by one opening (a connection being opened) to a Pod that can serve it. An opening needs a
//! permit of the Pod and of the pool, must stay within the handshake limits, and must not fall into the Pod's backoff.
//! An opening older than [`SLOW`] no longer covers a waiter. The waiter gets a second opening, to another Pod if
//! possible. A Pod also has a *deficit*: the number of connections that it needs to reach `min_idle`, or 1 if a
//! checkout chose the Pod and found no idle connection.
//!
//! With `N` = waiters + deficits, a plan adds at most `N` openings and never raises their total above `2 N`.

use crate::{
    pool::pod::wait_queue::CLASSES,
    time::{Duration, Instant},
};

/// Age after which an opening no longer covers a waiter.
pub(crate) const SLOW: Duration = Duration::from_millis(250);

/// The state of one Pod, as input to a plan.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodState {
    /// The targets for which the Pod is a candidate.
    pub(crate) targets: u32,
    /// Number of free permits of this Pod.
    pub(crate) permits: usize,
    /// Start times of the openings in progress.
    pub(crate) openings: Vec<Instant>,
    /// Number of connections to open in addition to those for waiters.
    pub(crate) deficit: usize,
    /// Earliest time of the next dial: the end of the backoff, or of the grace period for an overdue ping.
    pub(crate) not_before: Option<Instant>,
    /// True while a ping to the Pod is overdue. Openings to such a Pod cover no waiter, and other Pods are preferred.
    pub(crate) unresponsive: bool,
}

/// Limits that apply to all Pods together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Maximum number of concurrent openings to one Pod.
    pub(crate) per_pod: usize,
    /// Maximum number of concurrent openings to all Pods.
    pub(crate) total: usize,
    /// Number of free permits of the pool.
    pub(crate) permits: usize,
}

/// The connections to open now, and the conditions for the next plan.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Plan {
    /// The index of the Pod of each connection to open. A Pod can occur several times.
    pub(crate) open: Vec<usize>,
    /// Time of the next plan if no event requires one earlier.
    pub(crate) again_at: Option<Instant>,
    /// The classes for which one more waiter would cause one more opening now.
    pub(crate) openable: u32,
    /// The classes that have waiters but no candidate.
    pub(crate) starving: u32,
}

/// A plan under construction.
struct Planner<'a> {
    now: Instant,
    pods: &'a [PodState],
    limits: Limits,
    /// For each Pod: remaining permits, openings younger than [`SLOW`] that cover no waiter yet, and all openings.
    permits: Vec<usize>,
    young: Vec<usize>,
    total: Vec<usize>,
    /// Number of openings that may still be added, over all Pods.
    room: usize,
    plan: Plan,
}

/// Plans the openings for `waiters`, the number of waiters of each class. `choose` picks one of the given Pods and
/// returns its position in the slice.
pub(crate) fn plan(
    now: Instant,
    pods: &[PodState],
    waiters: &[usize; CLASSES],
    limits: Limits,
    choose: &mut dyn FnMut(&[usize]) -> usize,
) -> Plan {
    let is_young = |start: &&Instant| **start + SLOW > now;
    let total: Vec<_> = pods.iter().map(|pod| pod.openings.len()).collect();
    let under_way: usize = total.iter().sum();
    let wanted: usize = waiters.iter().sum::<usize>() + pods.iter().map(|pod| pod.deficit).sum::<usize>();
    let mut planner = Planner {
        now,
        pods,
        limits,
        permits: pods.iter().map(|pod| pod.permits).collect(),
        young: pods.iter().map(|pod| pod.openings.iter().filter(is_young).count()).collect(),
        total,
        room: limits.total.saturating_sub(under_way).min(limits.permits).min((2 * wanted).saturating_sub(under_way)),
        plan: Plan::default(),
    };
    planner.cover_waiters(waiters, choose);
    planner.cover_deficits();
    planner.finish(waiters);
    planner.plan
}

impl Planner<'_> {
    /// Covers the waiters, starting with the class that has the fewest candidates: its waiters can use the fewest
    /// openings.
    fn cover_waiters(&mut self, waiters: &[usize; CLASSES], choose: &mut dyn FnMut(&[usize]) -> usize) {
        let candidates = |class: usize| self.pods.iter().filter(move |pod| pod.targets & (1 << class) != 0).count();
        let mut classes: Vec<_> =
            (0..CLASSES).filter(|class| waiters[*class] > 0).map(|class| (candidates(class), class)).collect();
        classes.sort_unstable();
        let waiting = classes.iter().fold(0, |mask, (_, class)| mask | 1 << class);
        // Openings to Pods that serve few of the waiting classes are used first. The more versatile ones are left for
        // the classes that follow.
        let mut order: Vec<_> = (0..self.pods.len()).filter(|pod| self.pods[*pod].targets & waiting != 0).collect();
        order.sort_by_key(|pod| (self.pods[*pod].targets & waiting).count_ones());
        for (candidates, class) in classes {
            if candidates == 0 {
                self.plan.starving |= 1 << class;
                continue;
            }
            let mut uncovered = waiters[class];
            for &pod in &order {
                if !self.serves(pod, class) || self.pods[pod].unresponsive {
                    continue;
                }
                let covered = uncovered.min(self.young[pod]);
                self.young[pod] -= covered;
                uncovered -= covered;
            }
            while uncovered > 0
                && let Some(pod) = self.choose_for(class, choose)
            {
                self.open(pod);
                uncovered -= 1;
            }
        }
    }

    /// Covers the deficits round-robin, one connection per Pod and round.
    fn cover_deficits(&mut self) {
        let mut deficits: Vec<_> = self.pods.iter().map(|pod| pod.deficit).collect();
        for (deficit, young) in deficits.iter_mut().zip(&self.young) {
            *deficit = deficit.saturating_sub(*young);
        }
        loop {
            let mut opened = false;
            for (pod, deficit) in deficits.iter_mut().enumerate() {
                if *deficit > 0 && self.can_open(pod) && self.not_before(pod).is_none() {
                    *deficit -= 1;
                    self.open(pod);
                    opened = true;
                }
            }
            if !opened {
                return;
            }
        }
    }

    /// Sets `again_at` and `openable`.
    fn finish(&mut self, waiters: &[usize; CLASSES]) {
        let waits = |pod: &PodState| (0..CLASSES).any(|class| waiters[class] > 0 && pod.targets & (1 << class) != 0);
        let mut at = |time: Instant| {
            if time > self.now {
                self.plan.again_at = Some(self.plan.again_at.map_or(time, |earlier| earlier.min(time)));
            }
        };
        for pod in self.pods.iter().filter(|pod| waits(pod) || pod.deficit > 0) {
            pod.not_before.into_iter().for_each(&mut at);
            pod.openings.iter().for_each(|start| at(*start + SLOW));
        }
        if !self.plan.open.is_empty() {
            at(self.now + SLOW);
        }
        for pod in 0..self.pods.len() {
            // A new waiter raises the maximum of `2 N` openings by two, so only the other limits can prevent an
            // opening.
            if self.has_capacity(pod) && self.not_before(pod).is_none() {
                self.plan.openable |= self.pods[pod].targets;
            }
        }
    }

    fn serves(&self, pod: usize, class: usize) -> bool {
        self.pods[pod].targets & (1 << class) != 0
    }

    /// Returns the time before which the Pod must not be dialed, if it is in the future.
    fn not_before(&self, pod: usize) -> Option<Instant> {
        self.pods[pod].not_before.filter(|at| *at > self.now)
    }

    fn has_capacity(&self, pod: usize) -> bool {
        self.permits[pod] > 0
            && self.total[pod] < self.limits.per_pod
            && self.limits.permits > self.plan.open.len()
            && self.total.iter().sum::<usize>() < self.limits.total
    }

    fn can_open(&self, pod: usize) -> bool {
        self.room > 0 && self.permits[pod] > 0 && self.total[pod] < self.limits.per_pod
    }

    /// Chooses a Pod for a waiter. Prefers responsive Pods, and among them Pods without a slow opening.
    fn choose_for(&self, class: usize, choose: &mut dyn FnMut(&[usize]) -> usize) -> Option<usize> {
        let eligible = |pod: &usize| self.serves(*pod, class) && self.can_open(*pod) && self.not_before(*pod).is_none();
        let mut pods: Vec<_> = (0..self.pods.len()).filter(eligible).collect();
        let is_slow = |pod: &usize| self.pods[*pod].openings.iter().any(|start| *start + SLOW <= self.now);
        prefer(&mut pods, |pod| !self.pods[*pod].unresponsive);
        prefer(&mut pods, |pod| !is_slow(pod));
        if pods.is_empty() {
            return None;
        }
        let position = choose(&pods).min(pods.len() - 1);
        Some(pods[position])
    }

    fn open(&mut self, pod: usize) {
        self.permits[pod] -= 1;
        self.total[pod] += 1;
        self.room -= 1;
        self.plan.open.push(pod);
    }
}

/// Keeps only the Pods for which `has` returns true, or all Pods if there are none.
fn prefer(pods: &mut Vec<usize>, has: impl Fn(&usize) -> bool) {
    if pods.iter().any(&has) {
        pods.retain(has);
    }
}

#[cfg(test)]
mod tests;
