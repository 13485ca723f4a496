//! Assigns Pods to latency classes. The class is the Pod's latency divided by the latency of the fastest Pods, rounded
//! down to one of a few fixed values. Two measurements determine it: the durations of callers' statements, and those of
//! the health probes.
//!
//! **Statements** show a change of the latency within a fraction of a second, but only on Pods that receive statements.
//! Their durations are comparable only between Pods that receive the same kind of statements, so a Pod is compared with
//! the other Pods of its role. A Pod that is the only one of its role is compared with all other Pods, by the
//! statements of checkouts with the target `any`. Primaries and standbys both receive these statements, because the
//! choice of their Pod does not depend on the role. The statements of a Pod count only if there are enough recent ones:
//! a new Pod, or a Pod without traffic, is in the fastest class.
//!
//! **Probes** are rare, but every Pod receives the same probes, with or without traffic. Three probes are enough to
//! show that a slow Pod has recovered.
//!
//! The share of the statements in the class grows with the number of recent statements. The probes have the remaining
//! share.
//!
//! An idle Pod responds to probes more slowly than a busy one, because its CPUs sleep and its caches are cold. If this
//! effect alone put a Pod in a slower class, the Pod would receive even less traffic and stay idle. Therefore, while
//! only probes count, all probe times below a millisecond are equal.
//!
//! The classes are coarse and have hysteresis. The fastest class contains Pods with up to about twice the latency of
//! the fastest Pods, and the threshold for entering a class is higher than the threshold for leaving it.
//!
//! From [`TRICKLE_FROM`] on, a Pod gets only a trickle of the traffic, so its older statements would outweigh the new
//! ones for a long time. Such a Pod is judged by the statements since the last judgment only, or by its probes if they
//! were slow too and have become fast again. A Pod that gets too few statements for a judgment is tried again after
//! some time, until the first statement that is slow.

mod mean;

use std::time::Duration;

use self::mean::Mean;
pub(crate) use self::mean::Work;
use crate::endpoint::{
    Role,
    slot::{CLASS_MAX, TRICKLE_FROM},
};

/// The latency of each class, as a multiple of the fastest Pods' latency.
const CLASSES: [f64; 12] = [1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, CLASS_MAX as f64];
/// Index in [`CLASSES`] of the fastest class whose Pods get only a trickle of the traffic.
const TRICKLE: usize = 3;
const _: () = assert!(CLASSES[TRICKLE] as u32 == TRICKLE_FROM);
/// A Pod enters a class when its latency exceeds the latency of the class by this fraction, and leaves the class when
/// its latency falls below that of the class by this fraction.
const HYSTERESIS: f64 = 0.15;
/// A Pod leaves the class [`TRICKLE`] when its latency falls below this multiple of the fastest Pods' latency.
const LEAVE_TRICKLE: f64 = 3.0;
/// A Pod whose latency exceeds that of the fastest Pods by less than this number of microseconds is farther away rather
/// than ill.
const DISTANCE: f64 = 2000.0;
/// Maximum latency of such a Pod for the classes, as a multiple of the fastest Pods' latency. Less than the class
/// [`TRICKLE`].
const FARTHEST: f64 = 3.9;
/// Number of recent statements that are enough to compare a Pod with others. The standard error of the mean of 20
/// statements is 22 % if the standard deviation of the durations equals their mean.
const ENOUGH: f64 = 20.0;
/// Minimum number of statements for a comparison. With fewer statements than [`ENOUGH`], the latency ratio is reduced
/// in proportion: ten statements count if they take at least twice the time that twenty would have to take.
const FEW: f64 = 10.0;
/// Number of statements that are enough for a Pod that has recently been tried again after it was slow. If many clients
/// try a slow Pod, each further statement adds to the tail of the latency.
const ENOUGH_AGAIN: f64 = 1.0;
/// Number of statements that are enough to judge a Pod that gets only a trickle.
const TRIAL: u64 = 10;
/// Mean duration of statements, in microseconds, below which all Pods count as equally fast, because smaller
/// differences are noise.
const FLOOR: f64 = 250.0;
/// Probe time in microseconds below which all Pods count as equally fast.
const PROBE_NOISE: f64 = 100.0;
/// Minimum latency in microseconds for comparisons by probes alone: faster probes count as equally fast.
const PROBE_FLOOR: f64 = 1000.0;
/// Time constant of the exponential decay of the peak latency, in seconds.
const PEAK_FADE: f64 = 10.0;
/// Number of recent probes that are kept. The probe time of a Pod is the median of these probes.
const PROBES: usize = 3;
/// Retry delay: the number of seconds without a judgment after which a Pod that gets only a trickle is tried again. The
/// delay doubles each time the Pod is found to be slow again.
const RETRY_AFTER: f64 = 5.0;
/// Maximum fraction by which the retry delay is extended, so that many clients do not try a slow Pod at the same time.
const JITTER: f64 = 0.5;
/// The retry delay doubles at most this many times, so it is at most four times [`RETRY_AFTER`].
const MAX_DOUBLINGS: i32 = 2;
/// Seconds for which a Pod must stay fast before its retry delay is reset to [`RETRY_AFTER`].
const PARDON_AFTER: f64 = 30.0;

/// The latency of one Pod. Times are in microseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latency {
    /// The durations of the last probes, in a ring buffer.
    probes: [f64; PROBES],
    /// The number of probes so far.
    probed: usize,
    /// The mean duration of all recent statements.
    all: Mean,
    /// The mean duration of the recent statements of checkouts with the target `any`.
    any: Mean,
    /// The mean duration of all recent statements, or the probe time while there are no recent statements.
    latency: Option<f64>,
    /// The peak latency, which decays over time.
    peak: f64,
    /// The Pod's class, as an index of [`CLASSES`].
    class: usize,
    /// Statements since the last judgment, while the Pod gets only a trickle.
    trial: Work,
    /// The part of `trial` that belongs to checkouts with the target `any`.
    trial_any: Work,
    /// Seconds since the last judgment, while the Pod gets only a trickle.
    unproven: f64,
    /// Seconds since the Pod last began to get more than a trickle again.
    good: f64,
    /// The number of times that the retry delay has doubled, up to [`MAX_DOUBLINGS`].
    doublings: i32,
    /// A random number from 0.0 to 1.0, by which the retry delay is extended.
    jitter: f64,
    /// True if the Pod's probes were slow too, so that fast probes indicate a recovery.
    shown_by_probes: bool,
}

/// The latency of the fastest Pods, by three measures.
#[derive(Clone, Copy, Debug)]
struct Fastest {
    /// By all statements on Pods of the same role.
    role: Option<f64>,
    /// By the statements for the target `any`.
    any: Option<f64>,
    probe: Option<f64>,
}

impl Latency {
    /// Creates the latency of a Pod that is new or has returned. `jitter` is a random number from 0.0 to 1.0.
    pub(crate) fn new(jitter: f64) -> Self {
        Self { jitter, ..Self::default() }
    }

    /// Records the statements that ended during `interval`. `any` is the part of `all` that belongs to checkouts with
    /// the target `any`.
    pub(crate) fn answered(&mut self, all: Work, any: Work, interval: Duration) {
        let seconds = interval.as_secs_f64();
        self.all.add(all, seconds);
        self.any.add(any, seconds);
        self.peak *= (-seconds / PEAK_FADE).exp();
        if all.statements > 0 {
            self.latency = self.all.get();
            self.peak = self.peak.max(all.micros() / all.statements as f64);
        }
        self.peak = self.peak.max(self.latency.unwrap_or_default());
        self.trial.add((all.statements, all.time));
        self.trial_any.add((any.statements, any.time));
        self.unproven += seconds;
        self.good += seconds;
    }

    /// Records a passed probe.
    pub(crate) fn probed(&mut self, took: Duration) {
        self.probes[self.probed % PROBES] = took.as_secs_f64() * 1e6;
        self.probed += 1;
        if self.all.get().is_none() {
            self.latency = self.probe();
            self.peak = self.peak.max(self.latency.unwrap_or_default());
        }
    }

    /// Returns the current latency and the decaying peak latency, or `None` if there are no measurements.
    pub(crate) fn latency(&self) -> Option<(Duration, Duration)> {
        let micros = |micros: f64| Duration::from_secs_f64(micros / 1e6);
        self.latency.map(|latency| (micros(latency), micros(self.peak)))
    }

    /// Returns the Pod's class: its latency as a multiple of the fastest Pods' latency. The smallest class is 1.
    pub(crate) fn class(&self) -> u32 {
        CLASSES[self.class] as u32
    }

    /// Returns the probe time of this Pod: the median of its last three probes, or the fastest probe while there are
    /// fewer than three.
    fn probe(&self) -> Option<f64> {
        match self.probed {
            0 => None,
            n @ (1 | 2) => self.probes[..n].iter().copied().reduce(f64::min),
            _ => {
                let mut sorted = self.probes;
                sorted.sort_unstable_by(f64::total_cmp);
                Some(sorted[PROBES / 2])
            }
        }
    }

    /// Returns true if the recent probes are as fast as those of the fastest Pods. Two of the last three probes must be
    /// fast. After the retry delay has reached its maximum, the last two must be, because fast probes may have been
    /// misleading before.
    fn has_fast_probes(&self, fastest: Option<f64>) -> bool {
        let last = |ago| self.probes[(self.probed - ago) % PROBES];
        let own = match self.doublings {
            _ if self.probed < PROBES => None,
            MAX_DOUBLINGS => Some(f64::max(last(1), last(2))),
            _ => self.probe(),
        };
        times(own, fastest, PROBE_NOISE).is_some_and(|times| times < CLASSES[1] * (1.0 - HYSTERESIS))
    }

    /// Updates the class.
    fn classify(&mut self, fastest: Fastest) {
        // The latency ratio by probes. Without enough probes, the Pod counts as fast.
        let probes = (self.probed >= PROBES).then(|| times(self.probe(), fastest.probe, PROBE_NOISE)).flatten();
        // The latency ratio by probes alone.
        let only_probes = probes.and_then(|_| times(self.probe(), fastest.probe, PROBE_FLOOR)).unwrap_or(1.0);
        if self.class >= TRICKLE {
            self.judge(fastest, only_probes);
        } else {
            let doubtful = self.doublings > 0 && self.all.of_at_least(ENOUGH).is_none();
            let (few, enough) = if doubtful { (ENOUGH_AGAIN, ENOUGH_AGAIN) } else { (FEW, ENOUGH) };
            let by = |mean: &Mean, fastest| {
                let certain = (mean.statements() / enough).min(1.0);
                Some(((times(mean.of_at_least(few), fastest, FLOOR)? * certain).max(1.0), mean.share()))
            };
            let slower = match by(&self.all, fastest.role).or_else(|| by(&self.any, fastest.any)) {
                Some((slower, share)) => {
                    let slower = probes.map_or(slower, |by| slower.powf(share) * by.powf(1.0 - share));
                    // A Pod that was slow before is slow again if its first statements are.
                    if doubtful && slower >= LEAVE_TRICKLE { slower.max(CLASSES[TRICKLE]) } else { slower }
                }
                // A Pod that is tried again keeps its class until it has enough statements.
                None if doubtful => only_probes.max(CLASSES[self.class]),
                None => only_probes,
            };
            self.set_class(slower);
        }
        if self.class >= TRICKLE {
            self.shown_by_probes |= probes.is_some_and(|probes| probes >= CLASSES[1]);
        } else if self.good >= PARDON_AFTER {
            (self.shown_by_probes, self.doublings) = (false, 0);
        }
    }

    /// Decides whether a Pod that gets only a trickle is still slow.
    fn judge(&mut self, fastest: Fastest, only_probes: f64) {
        let mean = |work: Work| (work.statements >= TRIAL).then(|| work.micros() / work.statements as f64);
        let by_role = times(mean(self.trial), fastest.role, FLOOR);
        if let Some(slower) = by_role.or_else(|| times(mean(self.trial_any), fastest.any, FLOOR)) {
            if slower < LEAVE_TRICKLE {
                return self.release(slower);
            }
            self.set_class(slower);
            self.begin_trial();
        }
        if only_probes >= LEAVE_TRICKLE {
            self.unproven = 0.0;
        } else if self.shown_by_probes && self.has_fast_probes(fastest.probe) {
            // Fast probes alone are weaker evidence than fast statements, so the Pod gets a reduced share at first.
            self.release(CLASSES[1] * (1.0 + HYSTERESIS));
        } else if self.unproven >= RETRY_AFTER * 2f64.powi(self.doublings) * (1.0 + JITTER * self.jitter) {
            // Without evidence of a recovery, the Pod gets a reduced share.
            self.release(CLASSES[TRICKLE - 1] * (1.0 + HYSTERESIS));
        }
    }

    /// Lets the Pod get more than a trickle again. `slower` is its latency ratio. Discards its earlier statements.
    fn release(&mut self, slower: f64) {
        (self.class, self.all, self.any) = (0, Mean::default(), Mean::default());
        (self.good, self.doublings) = (0.0, (self.doublings + 1).min(MAX_DOUBLINGS));
        self.set_class(slower);
    }

    fn begin_trial(&mut self) {
        (self.trial, self.trial_any, self.unproven) = (Work::default(), Work::default(), 0.0);
    }

    /// Changes the class if the latency ratio `slower` differs enough from that of the current class.
    fn set_class(&mut self, slower: f64) {
        let before = self.class;
        let enter = |class: usize| CLASSES[class] * if class == TRICKLE { 1.0 } else { 1.0 + HYSTERESIS };
        while self.class + 1 < CLASSES.len() && slower >= enter(self.class + 1) {
            self.class += 1;
        }
        let leave = |class: usize| if class == TRICKLE { LEAVE_TRICKLE } else { CLASSES[class] * (1.0 - HYSTERESIS) };
        while self.class > 0 && slower < leave(self.class) {
            self.class -= 1;
        }
        if self.class >= TRICKLE && before < TRICKLE {
            self.begin_trial();
        }
    }
}

/// Returns the latency ratio of a Pod: its own latency divided by that of the fastest Pods. Latencies below `floor`
/// count as equal.
fn times(own: Option<f64>, fastest: Option<f64>, floor: f64) -> Option<f64> {
    let (own, fastest) = (own?.max(floor), fastest?.max(floor));
    let times = own / fastest;
    Some(if own - fastest < DISTANCE { times.min(FARTHEST) } else { times })
}

/// Updates the class of every Pod. The latency of the fastest Pods is the lower quartile of all latencies, so that a
/// single implausibly low measurement does not make all other Pods slow.
pub(crate) fn classify(latencies: &mut [(Role, &mut Latency)]) {
    let mut times = Vec::with_capacity(latencies.len());
    times.extend(latencies.iter().filter_map(|(_, latency)| latency.probe()));
    let probe = quartile(&mut times);
    times.clear();
    times.extend(latencies.iter().filter_map(|(_, latency)| latency.any.of_at_least(FEW)));
    let any = quartile(&mut times);
    for &role in Role::ALL {
        let mut of_role: Vec<_> = latencies.iter_mut().filter(|(of, _)| *of == role).collect();
        times.clear();
        times.extend(of_role.iter().filter_map(|(_, latency)| latency.all.of_at_least(FEW)));
        // A Pod that is the only one of its role cannot be compared with others of its role.
        let fastest = if of_role.len() > 1 { quartile(&mut times) } else { None };
        for (_, latency) in &mut of_role {
            latency.classify(Fastest { role: fastest, any, probe });
        }
    }
}

/// Returns the lower quartile, or `None` if there are no values.
fn quartile(times: &mut [f64]) -> Option<f64> {
    let place = times.len().checked_sub(1)? / 4;
    Some(*times.select_nth_unstable_by(place, f64::total_cmp).1)
}

#[cfg(test)]
mod tests;
