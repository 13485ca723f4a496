//! How fast each Pod is, beside the others: from what its statements took, and its probes. Pure.
//!
//! Statements tell a lot and at once, but only of a Pod that gets some, and only beside Pods that get the same kind of
//! them: so each is compared with those of its role. Probes tell little and rarely, but of every Pod, whatever it gets,
//! and are the same everywhere. So the statements count as far as there are enough of them lately, and the probes for the
//! rest: a Pod that turns slow is known within a fraction of a second, one that has healed within three probes, and one
//! whose statements alone were slow is tried again when they are forgotten.
//!
//! What comes out is a coarse class with hysteresis: within twice the fastest is equal, and a class is entered later than
//! it is left.

use std::time::Duration;

use crate::endpoint::{Role, slot::CLASS_MAX};

/// How many times slower than the fastest the Pods of each class are, about.
const CLASSES: [f64; 12] = [1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, CLASS_MAX as f64];
/// How far beyond a class's limit it is entered, and below it is left.
const HYSTERESIS: f64 = 0.15;
/// Times below this are equal: as much is lost or won by chance.
const FLOOR: f64 = 100.0;
/// In how many seconds a statement's part of the mean fades to about a third.
const FADE: f64 = 3.0;
/// In how many seconds the weight of that mean fades to about a third, if no more statements come.
const FORGET: f64 = 2.0;
/// As many statements lately count as much as the probes.
const ENOUGH: f64 = 5.0;
/// More statements weigh no more: else a busy Pod that turned slow would be remembered for longer than an idle one.
const PLENTY: f64 = 20.0;
/// Fewer statements lately say nothing, and are forgotten.
const SOME: f64 = 1.0;
/// In how many seconds a peak decays to about a third.
const PEAK_FADE: f64 = 10.0;
/// Probes that are remembered; the one in the middle counts.
const PROBES: usize = 3;

/// One Pod's speed, in microseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Speed {
    probes: [f64; PROBES],
    probed: usize,
    /// Statements lately and the time they took, both fading.
    statements: f64,
    time: f64,
    /// How much their mean weighs beside the probes; fading too.
    weight: f64,
    latency: Option<f64>,
    peak: f64,
    class: usize,
}

impl Speed {
    /// A new Pod's: unknown, and so as slow as its slowest peer until there is something to know.
    pub(crate) fn new<'a>(peers: impl Iterator<Item = &'a Self>) -> Self {
        let mut new = Self::default();
        for peer in peers {
            new.latency = [new.latency, peer.latency].into_iter().flatten().reduce(f64::max);
            new.peak = new.peak.max(peer.peak);
            new.class = new.class.max(peer.class);
        }
        new
    }

    /// Time passes, in which statements were answered.
    pub(crate) fn answered(&mut self, statements: u64, took: Duration, passed: Duration) {
        let passed = passed.as_secs_f64();
        let fade = (-passed / FADE).exp();
        self.statements = self.statements * fade + statements as f64;
        self.time = self.time * fade + took.as_secs_f64() * 1e6;
        self.weight = (self.weight * (-passed / FORGET).exp() + statements as f64).min(PLENTY);
        if self.weight < SOME {
            (self.statements, self.time) = (0.0, 0.0);
        }
        self.peak *= (-passed / PEAK_FADE).exp();
        if statements > 0 {
            self.latency = Some(self.time / self.statements);
            self.peak = self.peak.max(took.as_secs_f64() * 1e6 / statements as f64);
        }
        self.peak = self.peak.max(self.latency.unwrap_or_default());
    }

    /// A probe was answered.
    pub(crate) fn probed(&mut self, took: Duration) {
        self.probes[self.probed % PROBES] = took.as_secs_f64() * 1e6;
        self.probed += 1;
        if self.statement().is_none() {
            self.latency = self.probe();
            self.peak = self.peak.max(self.latency.unwrap_or_default());
        }
    }

    /// How long a statement takes, as seen lately, and the same at its peak.
    pub(crate) fn latency(&self) -> Option<(Duration, Duration)> {
        let micros = |micros: f64| Duration::from_secs_f64(micros / 1e6);
        self.latency.map(|latency| (micros(latency), micros(self.peak)))
    }

    /// How many times slower than the fastest it counts as, from 1.
    pub(crate) fn class(&self) -> u32 {
        CLASSES[self.class] as u32
    }

    /// What a probe takes: the one in the middle, the first alone until there are three.
    fn probe(&self) -> Option<f64> {
        match self.probed {
            0 => None,
            1 | 2 => Some(self.probes[0]),
            _ => {
                let mut sorted = self.probes;
                sorted.sort_unstable_by(f64::total_cmp);
                Some(sorted[PROBES / 2])
            }
        }
    }

    /// What a statement takes, if there are enough lately to compare others with.
    fn statement(&self) -> Option<f64> {
        (self.weight >= SOME).then(|| self.time / self.statements)
    }

    fn classify(&mut self, fastest_statement: Option<f64>, fastest_probe: Option<f64>) {
        let times = |own: Option<f64>, fastest: Option<f64>| Some(own?.max(FLOOR) / fastest?.max(FLOOR));
        let by_statements = times(self.statement(), fastest_statement);
        let by_probes = times(self.probe(), fastest_probe);
        let slower = match (by_statements, by_probes) {
            (Some(statements), Some(probes)) => {
                let share = self.weight / (self.weight + ENOUGH);
                statements.powf(share) * probes.powf(1.0 - share)
            }
            (Some(one), None) | (None, Some(one)) => one,
            // As it was: as slow as its slowest peer, or nobody is there to be compared with.
            (None, None) => return,
        };
        while self.class + 1 < CLASSES.len() && slower >= CLASSES[self.class + 1] * (1.0 + HYSTERESIS) {
            self.class += 1;
        }
        while self.class > 0 && slower < CLASSES[self.class] * (1.0 - HYSTERESIS) {
            self.class -= 1;
        }
    }
}

/// Puts every Pod in its class. The fastest is the lower quartile: one that happens to look faster than it is makes no
/// slow Pods of the others.
pub(crate) fn classify(speeds: &mut [(Role, &mut Speed)]) {
    let mut times = Vec::with_capacity(speeds.len());
    times.extend(speeds.iter().filter_map(|(_, speed)| speed.probe()));
    let fastest_probe = quartile(&mut times);
    for role in [Role::Primary, Role::Standby, Role::Unknown] {
        times.clear();
        times.extend(speeds.iter().filter(|(of, _)| *of == role).filter_map(|(_, speed)| speed.statement()));
        // One alone has nobody to be compared with.
        let fastest = if times.len() > 1 { quartile(&mut times) } else { None };
        for (_, speed) in speeds.iter_mut().filter(|(of, _)| *of == role) {
            speed.classify(fastest, fastest_probe);
        }
    }
}

fn quartile(times: &mut [f64]) -> Option<f64> {
    let place = times.len().checked_sub(1)? / 4;
    Some(*times.select_nth_unstable_by(place, f64::total_cmp).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    /// Ticks of so many statements, each of which takes so many milliseconds.
    fn run(speeds: &mut [Speed], statements: &[(u64, u64)], ticks: usize) -> Vec<u32> {
        for _ in 0..ticks {
            for (speed, &(statements, millis)) in speeds.iter_mut().zip(statements) {
                speed.answered(statements, Duration::from_millis(millis) * statements as u32, TICK);
            }
            let mut all: Vec<_> = speeds.iter_mut().map(|speed| (Role::Standby, speed)).collect();
            classify(&mut all);
        }
        speeds.iter().map(Speed::class).collect()
    }

    fn probe(speeds: &mut [Speed], millis: &[u64], times: usize) {
        for _ in 0..times {
            speeds.iter_mut().zip(millis).for_each(|(speed, &millis)| speed.probed(Duration::from_millis(millis)));
        }
    }

    fn three() -> Vec<Speed> {
        let mut speeds = vec![Speed::default(); 3];
        probe(&mut speeds, &[1, 1, 1], 3);
        speeds
    }

    #[test]
    fn statements_show_a_slow_pod_at_once_and_are_forgotten_when_there_are_none() {
        let mut speeds = three();
        assert_eq!(run(&mut speeds, &[(10, 2), (10, 3), (10, 2)], 20), [1, 1, 1], "within twice is equal");
        assert!(run(&mut speeds, &[(10, 2), (10, 40), (10, 2)], 2)[1] > 1, "within 0.2 s");
        assert!(run(&mut speeds, &[(10, 2), (10, 40), (10, 2)], 20)[1] >= 6);
        let ticks = (1..200).find(|_| run(&mut speeds, &[(10, 2), (0, 0), (10, 2)], 1)[1] == 1).expect("forgotten");
        assert!((20..=65).contains(&ticks), "{ticks} ticks");
    }

    #[test]
    fn probes_keep_a_slow_pod_slow_while_it_gets_nothing_and_tell_when_it_has_healed() {
        let mut speeds = three();
        probe(&mut speeds, &[1, 5, 1], 2);
        assert_eq!(run(&mut speeds, &[(10, 2), (0, 0), (10, 2)], 100), [1, 4, 1]);
        probe(&mut speeds, &[1, 1, 1], 1);
        assert_eq!(run(&mut speeds, &[(10, 2), (0, 0), (10, 2)], 1), [1, 4, 1], "one is chance");
        probe(&mut speeds, &[1, 1, 1], 1);
        assert_eq!(run(&mut speeds, &[(10, 2), (0, 0), (10, 2)], 1), [1, 1, 1]);
    }

    #[test]
    fn statements_are_compared_within_a_role_and_one_alone_by_its_probes() {
        let mut speeds = three();
        for _ in 0..100 {
            for (speed, millis) in speeds.iter_mut().zip([50, 2, 2]) {
                speed.answered(10, Duration::from_millis(millis * 10), TICK);
            }
            let roles = [Role::Primary, Role::Standby, Role::Standby];
            let mut all: Vec<_> = roles.into_iter().zip(speeds.iter_mut()).collect();
            classify(&mut all);
        }
        assert_eq!(speeds.iter().map(Speed::class).collect::<Vec<_>>(), [1, 1, 1]);
    }

    #[test]
    fn what_is_faster_than_chance_is_equal() {
        let mut speeds = vec![Speed::default(); 3];
        for (speed, micros) in speeds.iter_mut().zip([20, 95, 60]) {
            speed.probed(Duration::from_micros(micros));
        }
        assert_eq!(run(&mut speeds, &[(0, 0); 3], 1), [1, 1, 1]);
    }

    #[test]
    fn a_class_is_left_later_than_it_is_entered() {
        let mut speeds = three();
        let mut seen = Vec::new();
        for millis in [10, 21, 24, 21, 18, 16, 19, 21] {
            probe(&mut speeds, &[10, millis, 10], 3);
            seen.push(run(&mut speeds, &[(0, 0); 3], 1)[1]);
        }
        assert_eq!(seen, [1, 1, 2, 2, 2, 1, 1, 1]);
    }

    #[test]
    fn a_new_pod_is_as_slow_as_its_slowest_peer_until_it_has_been_asked() {
        let mut speeds = three();
        probe(&mut speeds, &[1, 30, 1], 3);
        run(&mut speeds, &[(10, 2), (10, 60), (10, 2)], 100);
        let mut new = Speed::new(speeds.iter());
        assert_eq!((new.class(), new.latency()), (speeds[1].class(), speeds[1].latency()));
        new.probed(Duration::from_millis(1));
        speeds.push(new);
        assert_eq!(run(&mut speeds, &[(10, 2), (10, 60), (10, 2), (0, 0)], 1)[3], 1);
    }

    #[test]
    fn a_peak_jumps_and_decays() {
        let mut speeds = three();
        run(&mut speeds, &[(10, 2); 3], 10);
        run(&mut speeds, &[(10, 100), (10, 2), (10, 2)], 1);
        let peak = |speed: &Speed| speed.latency().expect("known").1.as_millis();
        assert_eq!(peak(&speeds[0]), 100);
        run(&mut speeds, &[(10, 2); 3], 100);
        assert!((30..45).contains(&peak(&speeds[0])), "{}", peak(&speeds[0]));
    }
}
