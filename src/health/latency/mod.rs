//! Sorts Pods into latency classes: how many times slower than the fastest a Pod is, by its statements and its probes.
//! Pure.
//!
//! **Statements** show a change within a fraction of a second, but only for Pods that receive some, and only in
//! comparison with Pods that receive the same kind of statements. Pods of one role do. A primary and a standby have in
//! common only the statements of callers that accept any Pod. So a Pod is compared with the other Pods of its role, and
//! a Pod that is the only one of its role by the statements of callers that accept any Pod.
//!
//! **Probes** are rare, but every Pod receives the same ones, with or without traffic. Three probes are enough to show
//! that a slow Pod has recovered.
//!
//! Recent statements count as much as their number allows, and the probes count for the rest.
//!
//! An idle Pod responds to its probes later than a busy one, because its CPUs sleep and its caches are cold. Therefore
//! probes alone do not make a Pod slow for a fraction of a millisecond: it would receive no more traffic and stay idle.
//! Slower probes count only together with statements, or if they differ by more. A slow Pod without traffic is tried
//! again after some time, or earlier if its probes have shown that it was slow and no longer do.
//!
//! The classes are coarse and have hysteresis. Pods within twice the latency of the fastest are equal, and the limit
//! for entering a class is higher than the limit for leaving it.

mod mean;

use std::time::Duration;

use self::mean::Mean;
pub(crate) use self::mean::Work;
use crate::endpoint::{Role, slot::CLASS_MAX};

/// The latency of the Pods in each class, as a multiple of the fastest Pods' latency.
const CLASSES: [f64; 12] = [1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, CLASS_MAX as f64];
/// Relative distance from a class's limit: above it to enter the class, below it to leave the class.
const HYSTERESIS: f64 = 0.15;
/// The latency in microseconds below which Pods are equal, because chance makes as much of a difference.
const FLOOR: f64 = 100.0;
/// The same for Pods that are compared by their probes alone.
const PROBE_FLOOR: f64 = 1000.0;
/// Time constant in seconds with which a peak decays (to about a third).
const PEAK_FADE: f64 = 10.0;
/// The number of probes that are remembered. Their median counts.
const PROBES: usize = 3;
/// Seconds without a statement during which the class does not change.
const QUIET: f64 = 1.0;
/// Seconds after which a slow Pod without statements is tried again. Doubles each time that the Pod was still slow.
const RETRY_AFTER: f64 = 5.0;
/// The maximum number of doublings.
const MAX_DOUBLINGS: i32 = 2;
/// Seconds without being slow after which the doublings start again from zero.
const PARDON_AFTER: f64 = 30.0;

/// The latency of one Pod. Times are in microseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latency {
    /// The last probes, a ring buffer.
    probes: [f64; PROBES],
    /// The number of probes so far.
    probed: usize,
    /// The mean of all statements.
    all: Mean,
    /// The mean of statements whose callers accept any Pod.
    any: Mean,
    /// The mean of all statements, or the probes before there are statements.
    latency: Option<f64>,
    /// The highest latency, decaying.
    peak: f64,
    /// An index of [`CLASSES`].
    class: usize,
    /// Seconds since the last statement.
    quiet: f64,
    /// Seconds since the Pod was last slow.
    good: f64,
    /// The number of times that the Pod became fast again, up to [`MAX_DOUBLINGS`].
    doublings: i32,
    /// The probes have shown that the Pod is slow, so they also show when it has recovered.
    shown_by_probes: bool,
}

impl Latency {
    /// Returns the latency of a new Pod: that of its slowest peer, until there are measurements.
    pub(crate) fn new<'a>(peers: impl Iterator<Item = &'a Self>) -> Self {
        let mut new = Self { shown_by_probes: true, ..Self::default() };
        for peer in peers {
            new.latency = [new.latency, peer.latency].into_iter().flatten().reduce(f64::max);
            new.peak = new.peak.max(peer.peak);
            new.class = new.class.max(peer.class);
        }
        new
    }

    /// Discards all measurements of a Pod that was ejected. They do not apply to the Pod when it returns.
    pub(crate) fn forget(&mut self) {
        *self = Self { shown_by_probes: true, ..Self::default() };
    }

    /// Records the statements of an interval. `any` are those among `all` whose callers accept any Pod.
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

    /// Returns the mean time of a statement and its decaying peak, if there are measurements.
    pub(crate) fn latency(&self) -> Option<(Duration, Duration)> {
        let micros = |micros: f64| Duration::from_secs_f64(micros / 1e6);
        self.latency.map(|latency| (micros(latency), micros(self.peak)))
    }

    /// Returns the Pod's class: how many times slower than the fastest it counts as, from 1.
    pub(crate) fn class(&self) -> u32 {
        CLASSES[self.class] as u32
    }

    /// Returns the median of the last probes, or the fastest one while there are less than three.
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

    /// Updates the class. The parameters are the latencies of the fastest Pods: by all statements in this role, by
    /// statements for any Pod, and by probes.
    fn classify(&mut self, role: Option<f64>, any: Option<f64>, probe: Option<f64>) {
        let times = |own: Option<f64>, fastest: Option<f64>, floor: f64| Some(own?.max(floor) / fastest?.max(floor));
        let by = |mean: &Mean, fastest| Some((times(mean.get(), fastest, FLOOR)?, mean.share()));
        let by_statements = by(&self.all, role).or_else(|| by(&self.any, any));
        let by_probes = times(self.probe(), probe, FLOOR);
        // The class rises to `rise_to` and falls to `fall_to`.
        let (rise_to, fall_to) = match (by_statements, by_probes) {
            // The mean only fades.
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
            // A new Pod keeps the class of its slowest peer, and a Pod without peers keeps its class.
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
                // The Pod gets a new chance: its old statements no longer count.
                (self.all, self.any) = (Mean::default(), Mean::default());
            }
        } else if self.good >= PARDON_AFTER {
            (self.shown_by_probes, self.doublings) = (false, 0);
        }
    }
}

/// Updates the class of every Pod. The lower quartile counts as the fastest: a single Pod that is measured as faster
/// than it is does not make the others slow.
pub(crate) fn classify(latencies: &mut [(Role, &mut Latency)]) {
    let mut times = Vec::with_capacity(latencies.len());
    times.extend(latencies.iter().filter_map(|(_, latency)| latency.probe()));
    let probe = quartile(&mut times);
    times.clear();
    times.extend(latencies.iter().filter_map(|(_, latency)| latency.any.get()));
    let any = fastest(&mut times);
    for role in Role::ALL {
        times.clear();
        times.extend(latencies.iter().filter(|(of, _)| *of == role).filter_map(|(_, latency)| latency.all.get()));
        let of_role = fastest(&mut times);
        for (_, latency) in latencies.iter_mut().filter(|(of, _)| *of == role) {
            latency.classify(of_role, any, probe);
        }
    }
}

/// Returns the lower quartile. A single Pod has no other to be compared with.
fn fastest(times: &mut [f64]) -> Option<f64> {
    if times.len() > 1 { quartile(times) } else { None }
}

fn quartile(times: &mut [f64]) -> Option<f64> {
    let place = times.len().checked_sub(1)? / 4;
    Some(*times.select_nth_unstable_by(place, f64::total_cmp).1)
}

#[cfg(test)]
mod tests;
