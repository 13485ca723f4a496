//! Decides how many connections to open, and to which Pods. [`plan`] is a pure function: even the current time, and the
//! function that chooses between equivalent Pods, are arguments.
//!
//! An *opening* is a connection that is being opened. Each waiter is covered by one opening to a Pod that can serve the
//! waiter. An opening needs a free permit of the Pod and of the pool, must stay within the limits on concurrent
//! handshakes, and must not start during the Pod's backoff. An opening older than [`SLOW`] no longer covers a waiter:
//! the waiter gets a second opening, to another Pod if possible. A Pod also has a *deficit*: the number of connections
//! that it lacks to have `min_idle` open connections, or 1 if a checkout chose the Pod and found no idle connection.
//!
//! With `N` = waiters + deficits, a plan adds at most `N` openings. It never raises the total above `2 N`, which counts
//! only openings to Pods that can serve a waiter or have a deficit: slow dials to other Pods delay no waiter.

use crate::{
    pool::pod::requirement::CLASSES,
    time::{Duration, Instant},
};

/// Age after which an opening no longer covers a waiter.
pub(crate) const SLOW: Duration = Duration::from_millis(250);

/// The state of one Pod, as input to a plan.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodState {
    /// Bit set of the classes of requirements that the Pod serves.
    pub(crate) targets: u32,
    /// Number of free permits of this Pod.
    pub(crate) permits: usize,
    /// Start times of the openings in progress.
    pub(crate) openings: Vec<Instant>,
    /// Time since which a probe uses an idle connection. Until the probe is slow, the connection covers a waiter like
    /// an opening, because it will be idle again.
    pub(crate) borrowed: Option<Instant>,
    /// Number of connections that the Pod lacks to have `min_idle` open ones. Connections that are opened for waiters
    /// count.
    pub(crate) lacking: usize,
    /// True if a checkout chose the Pod and found no idle connection. One connection is opened in addition to those
    /// that are opened for waiters.
    pub(crate) missed: bool,
    /// Earliest time of the next dial: the end of the backoff, or the end of the grace period that follows an overdue
    /// ping.
    pub(crate) not_before: Option<Instant>,
    /// True while a ping to the Pod is overdue. Openings to an unresponsive Pod cover no waiter, and other Pods are
    /// preferred.
    pub(crate) unresponsive: bool,
}

impl PodState {
    /// Returns true if a connection to the Pod is needed: the Pod can serve one of the `waiting` classes, or has a
    /// deficit.
    fn is_wanted(&self, waiting: u32) -> bool {
        self.targets & waiting != 0 || self.deficit() > 0
    }

    fn deficit(&self) -> usize {
        self.lacking.max(usize::from(self.missed))
    }

    /// Returns the start times of the openings, and of the probe that uses an idle connection.
    fn pending(&self) -> impl Iterator<Item = Instant> {
        self.openings.iter().copied().chain(self.borrowed)
    }
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

/// The connections to open now, and the conditions under which the next plan is made.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Plan {
    /// The index of the Pod for each connection to open. An index can occur several times.
    pub(crate) open: Vec<usize>,
    /// Time of the next plan if no event requires one earlier.
    pub(crate) again_at: Option<Instant>,
    /// Bit set of the classes (waiters with the same target) for which one more waiter would cause one more opening
    /// now.
    pub(crate) openable: u32,
    /// Bit set of the classes that have waiters but no candidate.
    pub(crate) starving: u32,
}

/// A plan under construction.
struct Planner<'a> {
    now: Instant,
    pods: &'a [PodState],
    limits: Limits,
    /// Bit set of the classes that have waiters.
    waiting: u32,
    /// Number of remaining permits of each Pod.
    permits: Vec<usize>,
    /// Number of openings to each Pod that are younger than [`SLOW`] and cover no waiter yet. Includes the connection
    /// that a probe uses.
    young: Vec<usize>,
    /// Number of all openings to each Pod.
    total: Vec<usize>,
    /// Number of openings that may still be added, over all Pods.
    room: usize,
    plan: Plan,
}

/// Plans the openings for the waiters. `waiters` holds the number of waiters of each class. `choose` picks one of the
/// given Pods and returns its position in the slice.
pub(crate) fn plan(
    now: Instant,
    pods: &[PodState],
    waiters: &[usize; CLASSES],
    limits: Limits,
    choose: &mut dyn FnMut(&[usize]) -> usize,
) -> Plan {
    let total: Vec<_> = pods.iter().map(|pod| pod.openings.len()).collect();
    let under_way: usize = total.iter().sum();
    let waiting = (0..CLASSES).filter(|class| waiters[*class] > 0).fold(0, |mask, class| mask | 1 << class);
    let is_wanted = |pod: &&PodState| pod.is_wanted(waiting);
    let wanted_under_way: usize = pods.iter().filter(is_wanted).map(|pod| pod.openings.len()).sum();
    let wanted: usize = waiters.iter().sum::<usize>() + pods.iter().map(PodState::deficit).sum::<usize>();
    let mut planner = Planner {
        now,
        pods,
        limits,
        waiting,
        permits: pods.iter().map(|pod| pod.permits).collect(),
        young: pods.iter().map(|pod| pod.pending().filter(|start| !is_slow(*start, now)).count()).collect(),
        total,
        room: limits
            .total
            .saturating_sub(under_way)
            .min(limits.permits)
            .min((2 * wanted).saturating_sub(wanted_under_way)),
        plan: Plan::default(),
    };
    planner.cover_waiters(waiters, choose);
    planner.cover_deficits();
    planner.finish();
    planner.plan
}

impl Planner<'_> {
    /// Assigns an opening to each waiter. Starts with the class that has the fewest candidates, because its waiters can
    /// use the fewest openings.
    fn cover_waiters(&mut self, waiters: &[usize; CLASSES], choose: &mut dyn FnMut(&[usize]) -> usize) {
        let candidates = |class: usize| (0..self.pods.len()).filter(|pod| self.serves(*pod, class)).count();
        let mut classes: Vec<_> =
            (0..CLASSES).filter(|class| waiters[*class] > 0).map(|class| (candidates(class), class)).collect();
        classes.sort_unstable();
        let waiting = self.waiting;
        // Openings to Pods that serve few of the waiting classes are assigned first. Openings to more versatile Pods
        // are left for the classes that come later.
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

    /// Opens the connections that Pods lack, round-robin: one connection per Pod and round.
    fn cover_deficits(&mut self) {
        let deficit = |(pod, state): (usize, &PodState)| {
            let missed = usize::from(state.missed).saturating_sub(self.young[pod]);
            missed.max(state.lacking.saturating_sub(self.total[pod]))
        };
        let mut deficits: Vec<_> = self.pods.iter().enumerate().map(deficit).collect();
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

    /// Sets the time of the next plan (`again_at`) and the classes for which more connections could be opened
    /// (`openable`).
    fn finish(&mut self) {
        let mut at = |time: Instant| {
            if time > self.now {
                self.plan.again_at = Some(self.plan.again_at.map_or(time, |earlier| earlier.min(time)));
            }
        };
        for pod in self.pods.iter().filter(|pod| pod.is_wanted(self.waiting)) {
            pod.not_before.into_iter().for_each(&mut at);
            pod.pending().for_each(|start| at(start + SLOW));
        }
        if !self.plan.open.is_empty() {
            at(self.now + SLOW);
        }
        for pod in 0..self.pods.len() {
            // A new waiter raises the maximum of `2 N` openings by two, so only the Pod's and the pool's limits can
            // prevent an opening for it.
            if self.has_capacity(pod) && self.not_before(pod).is_none() {
                self.plan.openable |= self.pods[pod].targets;
            }
        }
    }

    fn serves(&self, pod: usize, class: usize) -> bool {
        self.pods[pod].targets & (1 << class) != 0
    }

    /// Returns the time before which the Pod must not be dialed, if that time is in the future.
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

    /// Chooses a Pod for a waiter. Prefers responsive Pods, and among those prefers Pods without an opening older than
    /// [`SLOW`].
    fn choose_for(&self, class: usize, choose: &mut dyn FnMut(&[usize]) -> usize) -> Option<usize> {
        let eligible = |pod: &usize| self.serves(*pod, class) && self.can_open(*pod) && self.not_before(*pod).is_none();
        let mut pods: Vec<_> = (0..self.pods.len()).filter(eligible).collect();
        let has_slow = |pod: &usize| self.pods[*pod].openings.iter().any(|start| is_slow(*start, self.now));
        prefer(&mut pods, |pod| !self.pods[*pod].unresponsive);
        prefer(&mut pods, |pod| !has_slow(pod));
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

/// Returns true if an opening that began at `start` no longer covers a waiter.
fn is_slow(start: Instant, now: Instant) -> bool {
    start + SLOW <= now
}

/// Keeps only the Pods for which `has` returns true. Keeps all Pods if `has` returns false for each of them.
fn prefer(pods: &mut Vec<usize>, has: impl Fn(&usize) -> bool) {
    if pods.iter().any(&has) {
        pods.retain(has);
    }
}

#[cfg(test)]
mod tests;
