//! Assigns Pods to latency classes. The class is the Pod's latency divided by the latency of the fastest Pods, rounded
//! down to one of a few fixed values. Two measurements determine it: the durations of callers' statements, and those of
//! the health probes.
//!
//! **Statements** show a change of the latency within a fraction of a second, but only on Pods that receive statements.
//! Their durations are comparable only between Pods that receive the same kind of statements, so a Pod is compared with
//! the other Pods of its role. A Pod that is the only one of its role is compared with all other Pods, by the
//! statements of checkouts with the target `any`. Primaries and standbys both receive these statements, because the
//! choice of their Pod does not depend on the role.
//!
//! **Probes** are rare, but every Pod receives the same probes, with or without traffic. Three probes are enough to
//! show that a slow Pod has recovered.
//!
//! The share of the statements in the class grows with the number of recent statements. The probes have the remaining
//! share.
//!
//! An idle Pod responds to probes more slowly than a busy one, because its CPUs sleep and its caches are cold. If this
//! effect alone put a Pod in a slower class, the Pod would receive even less traffic and stay idle. Therefore, while
//! only probes count, all probe times below a millisecond are equal. A slow Pod without traffic is tried again after
//! some time. It is tried earlier if its probes were slow too and have become fast again.
//!
//! The classes are coarse and have hysteresis. The fastest class contains Pods with up to about twice the latency of
//! the fastest Pods, and the threshold for entering a class is higher than the threshold for leaving it.

mod mean;

use std::time::Duration;

use self::mean::Mean;
pub(crate) use self::mean::Work;
use crate::endpoint::{Role, slot::CLASS_MAX};

/// The latency of each class, as a multiple of the fastest Pods' latency.
const CLASSES: [f64; 12] = [1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, CLASS_MAX as f64];
/// A Pod enters a class when its latency exceeds the latency of the class by this fraction, and leaves the class when
/// its latency falls below that of the class by this fraction.
const HYSTERESIS: f64 = 0.15;
/// Latency in microseconds below which all Pods count as equally fast, because smaller differences are noise.
const FLOOR: f64 = 100.0;
/// Minimum latency in microseconds for comparisons by probes alone: faster probes count as equally fast.
const PROBE_FLOOR: f64 = 1000.0;
/// Time constant of the exponential decay of the peak latency, in seconds.
const PEAK_FADE: f64 = 10.0;
/// Number of recent probes that are kept. The probe time of a Pod is the median of these probes.
const PROBES: usize = 3;
/// Seconds after a Pod's last statement during which its class does not change.
const QUIET: f64 = 1.0;
/// Retry delay: the number of seconds after which a slow Pod without statements is tried again. The delay doubles each
/// time the Pod is found to be slow again.
const RETRY_AFTER: f64 = 5.0;
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
    /// Seconds since the last statement.
    quiet: f64,
    /// Seconds since the Pod last returned from a slower class to the fastest one.
    good: f64,
    /// The number of times that the retry delay has doubled, up to [`MAX_DOUBLINGS`].
    doublings: i32,
    /// True if the Pod's probes were slow too, so that fast probes indicate a recovery.
    shown_by_probes: bool,
}

impl Latency {
    /// Creates the latency of a new Pod. Until the new Pod has been measured, its latency and class equal those of its
    /// slowest peer.
    pub(crate) fn new<'a>(peers: impl Iterator<Item = &'a Self>) -> Self {
        let mut new = Self { shown_by_probes: true, ..Self::default() };
        for peer in peers {
            new.latency = [new.latency, peer.latency].into_iter().flatten().reduce(f64::max);
            new.peak = new.peak.max(peer.peak);
            new.class = new.class.max(peer.class);
        }
        new
    }

    /// Discards all measurements of an ejected Pod, because they are stale when the Pod returns.
    pub(crate) fn forget(&mut self) {
        *self = Self { shown_by_probes: true, ..Self::default() };
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
        self.quiet = if all.statements > 0 { 0.0 } else { self.quiet + seconds };
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

    /// Updates the class. Each parameter is the latency of the fastest Pods by one measure: `role` by all statements on
    /// Pods of this Pod's role, `any` by the statements for the target `any`, and `probe` by probes.
    fn classify(&mut self, role: Option<f64>, any: Option<f64>, probe: Option<f64>) {
        let times = |own: Option<f64>, fastest: Option<f64>, floor: f64| Some(own?.max(floor) / fastest?.max(floor));
        let by = |mean: &Mean, fastest| Some((times(mean.get(), fastest, FLOOR)?, mean.share()));
        let by_statements = by(&self.all, role).or_else(|| by(&self.any, any));
        let by_probes = times(self.probe(), probe, FLOOR);
        // The class rises at most to the latency ratio `rise_to`, and falls at most to the latency ratio `fall_to`.
        let (rise_to, fall_to) = match (by_statements, by_probes) {
            // The Pod has received no statements for less than `QUIET`. Its mean has no new data, so the class stays.
            (Some(_), _) if self.quiet > 0.0 && self.quiet < QUIET => return,
            (Some((statements, share)), probes) if self.quiet == 0.0 => {
                let slower = probes.map_or(statements, |probes| statements.powf(share) * probes.powf(1.0 - share));
                (slower, slower)
            }
            (_, Some(probes)) => {
                let rise_to = times(self.probe(), probe, PROBE_FLOOR).unwrap_or(1.0);
                let fall_to = if self.quiet >= RETRY_AFTER * 2f64.powi(self.doublings) {
                    rise_to
                } else if self.shown_by_probes {
                    probes
                } else {
                    f64::INFINITY
                };
                (rise_to, fall_to)
            }
            // A Pod that has not been probed yet keeps the class of its slowest peer.
            (_, None) => return,
        };
        let before = self.class;
        while self.class + 1 < CLASSES.len() && rise_to >= CLASSES[self.class + 1] * (1.0 + HYSTERESIS) {
            self.class += 1;
        }
        while self.class > 0 && fall_to < CLASSES[self.class] * (1.0 - HYSTERESIS) {
            self.class -= 1;
        }
        if self.class > 0 {
            self.shown_by_probes |= by_probes.is_some_and(|probes| probes >= CLASSES[1]);
        } else if before > 0 {
            (self.good, self.doublings) = (0.0, (self.doublings + 1).min(MAX_DOUBLINGS));
            if self.quiet > 0.0 {
                // The Pod is tried again without recent statements, so its old statements are discarded.
                (self.all, self.any) = (Mean::default(), Mean::default());
            }
        } else if self.good >= PARDON_AFTER {
            (self.shown_by_probes, self.doublings) = (false, 0);
        }
    }
}

/// Updates the class of every Pod. The latency of the fastest Pods is the lower quartile of all latencies, so that a
/// single implausibly low measurement does not make all other Pods slow.
pub(crate) fn classify(latencies: &mut [(Role, &mut Latency)]) {
    let mut times = Vec::with_capacity(latencies.len());
    times.extend(latencies.iter().filter_map(|(_, latency)| latency.probe()));
    let probe = quartile(&mut times);
    times.clear();
    times.extend(latencies.iter().filter_map(|(_, latency)| latency.any.get()));
    let any = fastest(&mut times);
    for &role in Role::ALL {
        times.clear();
        times.extend(latencies.iter().filter(|(of, _)| *of == role).filter_map(|(_, latency)| latency.all.get()));
        let of_role = fastest(&mut times);
        for (_, latency) in latencies.iter_mut().filter(|(of, _)| *of == role) {
            latency.classify(of_role, any, probe);
        }
    }
}

/// Returns the lower quartile, or `None` if there are fewer than two Pods to compare.
fn fastest(times: &mut [f64]) -> Option<f64> {
    if times.len() > 1 { quartile(times) } else { None }
}

fn quartile(times: &mut [f64]) -> Option<f64> {
    let place = times.len().checked_sub(1)? / 4;
    Some(*times.select_nth_unstable_by(place, f64::total_cmp).1)
}

#[cfg(test)]
mod tests;
