//! How fast each Pod is, beside the others: from what its statements took, and its probes. Pure.
//!
//! Statements tell a lot and at once, but only of a Pod that gets some, and only beside Pods that get the same kind of
//! them. Pods of one role do; a primary and a standby only of those callers who would have taken any Pod. So each Pod is
//! compared with those of its role, and one that is alone in its role by the statements of those callers. Probes tell
//! little and rarely, but of every Pod, whatever it gets, and are the same everywhere. So the statements count as far as
//! there are enough of them lately, and the probes for the rest: a Pod that turns slow is known within a fraction of a
//! second, and one that has healed within three probes.
//!
//! A Pod that is left alone answers its probes later than one that is busy: its processors sleep and its caches are cold.
//! So probes alone make no Pod slow for a fraction of a millisecond, which would leave it alone for good; only together
//! with its statements, or by more than that. And a Pod that is slow and gets nothing is tried again after a while, sooner
//! if its probes had shown that it was slow and no longer do.
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
/// Probes below this are equal where there is nothing but probes.
const ALONE_FLOOR: f64 = 1000.0;
/// In how many seconds a statement's part of the mean fades to about a third.
const FADE: f64 = 3.0;
/// The mean is of so many statements at most, about: a busy Pod that turns slow is not to be taken for fast by what it
/// did before. Chance is a fifth of that mean, where statements differ as widely as their mean is long.
const LATELY: f64 = 100.0;
/// In how many seconds the weight of that mean fades to about a third, if no more statements come.
const FORGET: f64 = 2.0;
/// As many statements lately count about as much as the probes.
const ENOUGH: f64 = 5.0;
/// With so many the probes no longer count. More weigh no more: else a busy Pod that turned slow would be remembered for
/// longer than an idle one.
const PLENTY: f64 = 20.0;
/// Fewer statements lately say nothing, and are forgotten.
const SOME: f64 = 1.0;
/// A mean rises at most so many times from one look to the next: what stood still for seconds is slow, but as soon as
/// it goes on it is as fast as before, and that mean is not to be remembered for half a minute.
const JUMP: f64 = 16.0;
/// In how many seconds a peak decays to about a third.
const PEAK_FADE: f64 = 10.0;
/// Probes that are remembered; the one in the middle counts.
const PROBES: usize = 3;
/// For so many seconds without a statement nothing changes.
const QUIET: f64 = 1.0;
/// A slow Pod without statements is tried again after so many seconds, twice as many each time that it was still slow.
const HOLD: f64 = 5.0;
/// Twice as many that many times at most.
const STRIKES: i32 = 2;
/// After so many seconds of not being slow, it is the first time again.
const PARDON: f64 = 30.0;

/// Statements, and the time that they took together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Work {
    pub(crate) statements: u64,
    pub(crate) time: Duration,
}

impl Work {
    pub(crate) fn add(&mut self, (statements, time): (u64, Duration)) {
        self.statements += statements;
        self.time += time;
    }

    /// What has come to it since then.
    pub(crate) fn since(self, then: Self) -> Self {
        let statements = self.statements.saturating_sub(then.statements);
        Self { statements, time: self.time.saturating_sub(then.time) }
    }

    fn micros(self) -> f64 {
        self.time.as_secs_f64() * 1e6
    }
}

/// What a statement takes, in microseconds: a mean over the last seconds.
#[derive(Clone, Debug, Default)]
struct Mean {
    /// Statements lately and the time they took, both fading.
    statements: f64,
    time: f64,
    /// How much the mean weighs; fading too.
    weight: f64,
}

impl Mean {
    fn add(&mut self, work: Work, passed: f64) {
        let fade = (-passed / FADE).exp().min(LATELY / self.statements.max(1.0));
        let more = work.statements as f64;
        let most = self.get().map_or(f64::INFINITY, |mean| mean.max(FLOOR) * JUMP * more);
        self.statements = self.statements * fade + more;
        self.time = self.time * fade + work.micros().min(most);
        self.weight = (self.weight * (-passed / FORGET).exp() + more).min(PLENTY);
        if self.weight < SOME {
            (self.statements, self.time) = (0.0, 0.0);
        }
    }

    /// If there are enough statements lately to compare others with.
    fn get(&self) -> Option<f64> {
        (self.weight >= SOME).then(|| self.time / self.statements)
    }

    /// How much it counts, of 1, beside the probes.
    fn share(&self) -> f64 {
        (1.0 + ENOUGH / PLENTY) * self.weight / (self.weight + ENOUGH)
    }
}

/// One Pod's speed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latency {
    /// Microseconds.
    probes: [f64; PROBES],
    probed: usize,
    /// Of every statement, and of those whose callers would have taken any Pod.
    all: Mean,
    any: Mean,
    latency: Option<f64>,
    peak: f64,
    class: usize,
    /// For how many seconds there has been no statement.
    quiet: f64,
    /// For how many seconds it has not been slow, if it is not.
    good: f64,
    /// How many times it has been slow, and then not, lately.
    strikes: i32,
    /// Its probes have shown that it is slow: they will show when it no longer is.
    shown: bool,
}

impl Latency {
    /// A new Pod's: unknown, and so as slow as its slowest peer until there is something to know.
    pub(crate) fn new<'a>(peers: impl Iterator<Item = &'a Self>) -> Self {
        let mut new = Self { shown: true, ..Self::default() };
        for peer in peers {
            new.latency = [new.latency, peer.latency].into_iter().flatten().reduce(f64::max);
            new.peak = new.peak.max(peer.peak);
            new.class = new.class.max(peer.class);
        }
        new
    }

    /// The Pod is out of traffic: what it did before, and what hung there, says nothing of how it comes back.
    pub(crate) fn forget(&mut self) {
        *self = Self { shown: true, ..Self::default() };
    }

    /// Time passes, in which statements were answered; `any` of them to callers who would have taken any Pod.
    pub(crate) fn answered(&mut self, all: Work, any: Work, passed: Duration) {
        let passed = passed.as_secs_f64();
        self.all.add(all, passed);
        self.any.add(any, passed);
        self.peak *= (-passed / PEAK_FADE).exp();
        if all.statements > 0 {
            self.latency = self.all.get();
            self.peak = self.peak.max(all.micros() / all.statements as f64);
        }
        self.peak = self.peak.max(self.latency.unwrap_or_default());
        self.quiet = if all.statements > 0 { 0.0 } else { self.quiet + passed };
        self.good += passed;
    }

    /// A probe was answered.
    pub(crate) fn probed(&mut self, took: Duration) {
        self.probes[self.probed % PROBES] = took.as_secs_f64() * 1e6;
        self.probed += 1;
        if self.all.get().is_none() {
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

    /// What a probe takes: the one in the middle, the faster one until there are three.
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

    fn classify(&mut self, role: Option<f64>, any: Option<f64>, probe: Option<f64>) {
        let times = |own: Option<f64>, fastest: Option<f64>, floor: f64| Some(own?.max(floor) / fastest?.max(floor));
        let by = |mean: &Mean, fastest| Some((times(mean.get(), fastest, FLOOR)?, mean.share()));
        let by_statements = by(&self.all, role).or_else(|| by(&self.any, any));
        let by_probes = times(self.probe(), probe, FLOOR);
        // It is slow from the first of these on, and no longer below the second.
        let (surely, hardly) = match (by_statements, by_probes) {
            // What was known does not change because it fades.
            (Some(_), _) if self.quiet > 0.0 && self.quiet < QUIET => return,
            (Some((statements, share)), probes) if self.quiet == 0.0 => {
                let slower = probes.map_or(statements, |probes| statements.powf(share) * probes.powf(1.0 - share));
                (slower, slower)
            }
            (_, Some(probes)) => {
                let surely = times(self.probe(), probe, ALONE_FLOOR).unwrap_or(1.0);
                let again = self.quiet >= HOLD * 2f64.powi(self.strikes);
                (
                    surely,
                    if again {
                        surely
                    } else if self.shown {
                        probes
                    } else {
                        f64::INFINITY
                    },
                )
            }
            // As it was: as slow as its slowest peer, or nobody is there to be compared with.
            (_, None) => return,
        };
        let before = self.class;
        while self.class + 1 < CLASSES.len() && surely >= CLASSES[self.class + 1] * (1.0 + HYSTERESIS) {
            self.class += 1;
        }
        while self.class > 0 && hardly < CLASSES[self.class] * (1.0 - HYSTERESIS) {
            self.class -= 1;
        }
        if self.class > 0 {
            self.shown |= by_probes.is_some_and(|probes| probes >= CLASSES[1]);
        } else if before > 0 {
            (self.good, self.strikes) = (0.0, (self.strikes + 1).min(STRIKES));
            if self.quiet > 0.0 {
                // What statements took before is no evidence against it any more.
                (self.all, self.any) = (Mean::default(), Mean::default());
            }
        } else if self.good >= PARDON {
            (self.shown, self.strikes) = (false, 0);
        }
    }
}

/// Puts every Pod in its class. The fastest is the lower quartile: one that happens to look faster than it is makes no
/// slow Pods of the others.
pub(crate) fn classify(latencies: &mut [(Role, &mut Latency)]) {
    let mut times = Vec::with_capacity(latencies.len());
    times.extend(latencies.iter().filter_map(|(_, speed)| speed.probe()));
    let probe = quartile(&mut times);
    times.clear();
    times.extend(latencies.iter().filter_map(|(_, speed)| speed.any.get()));
    let any = fastest(&mut times);
    for role in [Role::Primary, Role::Standby, Role::Unknown] {
        times.clear();
        times.extend(latencies.iter().filter(|(of, _)| *of == role).filter_map(|(_, speed)| speed.all.get()));
        let of_role = fastest(&mut times);
        for (_, speed) in latencies.iter_mut().filter(|(of, _)| *of == role) {
            speed.classify(of_role, any, probe);
        }
    }
}

/// One alone has nobody to be compared with.
fn fastest(times: &mut [f64]) -> Option<f64> {
    if times.len() > 1 { quartile(times) } else { None }
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
    fn run(latencies: &mut [Latency], statements: &[(u64, u64)], ticks: usize) -> Vec<u32> {
        for _ in 0..ticks {
            for (speed, &(statements, millis)) in latencies.iter_mut().zip(statements) {
                let work = Work { statements, time: Duration::from_millis(millis) * statements as u32 };
                speed.answered(work, Work::default(), TICK);
            }
            let mut all: Vec<_> = latencies.iter_mut().map(|speed| (Role::Standby, speed)).collect();
            classify(&mut all);
        }
        latencies.iter().map(Latency::class).collect()
    }

    fn probe(latencies: &mut [Latency], millis: &[u64], times: usize) {
        for _ in 0..times {
            latencies.iter_mut().zip(millis).for_each(|(speed, &millis)| speed.probed(Duration::from_millis(millis)));
        }
    }

    fn three() -> Vec<Latency> {
        let mut latencies = vec![Latency::default(); 3];
        probe(&mut latencies, &[1, 1, 1], 3);
        latencies
    }

    #[test]
    fn statements_show_a_slow_pod_at_once_and_are_forgotten_when_there_are_none() {
        let mut latencies = three();
        assert_eq!(run(&mut latencies, &[(10, 2), (10, 3), (10, 2)], 20), [1, 1, 1], "within twice is equal");
        assert!(run(&mut latencies, &[(10, 2), (10, 40), (10, 2)], 2)[1] > 1, "within 0.2 s");
        assert!(run(&mut latencies, &[(10, 2), (10, 40), (10, 2)], 20)[1] >= 6);
        let ticks = (1..200).find(|_| run(&mut latencies, &[(10, 2), (0, 0), (10, 2)], 1)[1] == 1).expect("forgotten");
        assert!((20..=65).contains(&ticks), "{ticks} ticks");
    }

    #[test]
    fn probes_keep_a_slow_pod_slow_while_it_gets_nothing_and_tell_when_it_has_healed() {
        let mut latencies = three();
        probe(&mut latencies, &[1, 5, 1], 2);
        assert_eq!(run(&mut latencies, &[(10, 2), (0, 0), (10, 2)], 100), [1, 4, 1]);
        probe(&mut latencies, &[1, 1, 1], 1);
        assert_eq!(run(&mut latencies, &[(10, 2), (0, 0), (10, 2)], 1), [1, 4, 1], "one is chance");
        probe(&mut latencies, &[1, 1, 1], 1);
        assert_eq!(run(&mut latencies, &[(10, 2), (0, 0), (10, 2)], 1), [1, 1, 1]);
    }

    /// Ticks of a primary and its standbys, in which each answers ten statements of so many milliseconds to those who
    /// want its role, and ten of so many to those who take any Pod.
    fn replicate(latencies: &mut [Latency], own_and_any: &[(u64, u64)]) -> Vec<u32> {
        let ten = |millis| Work { statements: 10, time: Duration::from_millis(millis * 10) };
        for _ in 0..100 {
            for (speed, &(own, any)) in latencies.iter_mut().zip(own_and_any) {
                let mut all = ten(own);
                all.add((10, ten(any).time));
                speed.answered(all, if any > 0 { ten(any) } else { Work::default() }, TICK);
            }
            let standbys = std::iter::repeat(Role::Standby);
            let mut all: Vec<_> = std::iter::once(Role::Primary).chain(standbys).zip(latencies.iter_mut()).collect();
            classify(&mut all);
        }
        latencies.iter().map(Latency::class).collect()
    }

    #[test]
    fn statements_are_compared_within_a_role_and_one_alone_by_those_for_any_pod() {
        assert_eq!(replicate(&mut three(), &[(50, 0), (2, 0), (2, 0)]), [1, 1, 1], "writes are no reads");
        assert_eq!(replicate(&mut three(), &[(50, 2), (2, 2), (2, 2)]), [1, 1, 1]);
        let slow = replicate(&mut three(), &[(50, 20), (2, 2), (2, 2)]);
        assert_eq!(slow, [8, 1, 1]);
        assert_eq!(replicate(&mut three()[..2], &[(50, 2), (2, 20)]), [1, 8], "each alone in its role");
        let mut latencies = three();
        probe(&mut latencies, &[9, 1, 1], 3);
        assert!(replicate(&mut latencies, &[(50, 0), (2, 0), (2, 0)])[0] >= 6, "else by its probes");
    }

    #[test]
    fn probes_alone_make_no_pod_slow_for_a_fraction_of_a_millisecond() {
        let mut latencies = vec![Latency::default(); 3];
        for _ in 0..3 {
            for (speed, micros) in latencies.iter_mut().zip([150, 900, 150]) {
                speed.probed(Duration::from_micros(micros));
            }
        }
        assert_eq!(run(&mut latencies, &[(0, 0); 3], 1), [1, 1, 1]);
        assert_eq!(run(&mut latencies, &[(10, 2); 3], 10), [1, 1, 1], "as fast as the others");
        run(&mut latencies, &[(0, 0); 3], 100);
        assert!(run(&mut latencies, &[(1, 2), (1, 4), (1, 2)], 1)[1] > 1, "together with a statement that is slower");
    }

    #[test]
    fn a_pod_whose_statements_alone_were_slow_is_tried_again_more_and_more_rarely() {
        let mut latencies = three();
        let mut after = || {
            assert!(run(&mut latencies, &[(10, 2), (10, 20), (10, 2)], 5)[1] > 4);
            (1..1000).find(|_| run(&mut latencies, &[(10, 2), (0, 0), (10, 2)], 1)[1] == 1).expect("tried again")
        };
        let ticks = [after(), after(), after(), after()];
        for (ticks, wanted) in ticks.into_iter().zip([60, 100, 200, 200]) {
            assert!((wanted - 10..=wanted + 10).contains(&ticks), "{ticks} ticks, not {wanted}");
        }
        run(&mut latencies, &[(10, 2); 3], 310);
        run(&mut latencies, &[(10, 2), (10, 20), (10, 2)], 5);
        assert_eq!(run(&mut latencies, &[(10, 2), (0, 0), (10, 2)], 70)[1], 1, "for the first time again");
    }

    #[test]
    fn a_pod_that_stood_still_is_as_fast_as_before_within_seconds() {
        let mut latencies = three();
        run(&mut latencies, &[(10, 2); 3], 100);
        run(&mut latencies, &[(10, 2), (8, 5_000), (10, 2)], 1);
        assert_eq!(latencies[1].latency().expect("known").1.as_secs(), 5, "a peak");
        let ticks = (1..300).find(|_| run(&mut latencies, &[(10, 2), (2, 2), (10, 2)], 1)[1] == 1).expect("fast again");
        assert!(ticks <= 20, "{ticks} ticks");
    }

    #[test]
    fn what_is_faster_than_chance_is_equal() {
        let mut latencies = vec![Latency::default(); 3];
        for (speed, micros) in latencies.iter_mut().zip([20, 95, 60]) {
            speed.probed(Duration::from_micros(micros));
        }
        assert_eq!(run(&mut latencies, &[(0, 0); 3], 1), [1, 1, 1]);
    }

    #[test]
    fn a_class_is_left_later_than_it_is_entered() {
        let mut latencies = three();
        let mut seen = Vec::new();
        for millis in [10, 21, 24, 21, 18, 16, 19, 21] {
            probe(&mut latencies, &[10, millis, 10], 3);
            seen.push(run(&mut latencies, &[(0, 0); 3], 1)[1]);
        }
        assert_eq!(seen, [1, 1, 2, 2, 2, 1, 1, 1]);
    }

    #[test]
    fn a_new_pod_is_as_slow_as_its_slowest_peer_until_it_has_been_asked() {
        let mut latencies = three();
        probe(&mut latencies, &[1, 30, 1], 3);
        run(&mut latencies, &[(10, 2), (10, 60), (10, 2)], 100);
        let mut new = Latency::new(latencies.iter());
        assert_eq!((new.class(), new.latency()), (latencies[1].class(), latencies[1].latency()));
        new.probed(Duration::from_millis(1));
        latencies.push(new);
        assert_eq!(run(&mut latencies, &[(10, 2), (10, 60), (10, 2), (0, 0)], 1)[3], 1);
    }

    #[test]
    fn a_pod_that_comes_back_is_taken_as_it_comes() {
        let mut latencies = three();
        probe(&mut latencies, &[1, 3_000, 1], 3);
        assert!(run(&mut latencies, &[(10, 2), (3, 3_000), (10, 2)], 10)[1] > 8);
        latencies[1].forget();
        probe(&mut latencies, &[1, 900, 1], 1);
        probe(&mut latencies, &[1, 1, 1], 1);
        assert_eq!(run(&mut latencies, &[(10, 2), (0, 0), (10, 2)], 1), [1, 1, 1]);
    }

    #[test]
    fn a_peak_jumps_and_decays() {
        let mut latencies = three();
        run(&mut latencies, &[(10, 2); 3], 10);
        run(&mut latencies, &[(10, 100), (10, 2), (10, 2)], 1);
        let peak = |speed: &Latency| speed.latency().expect("known").1.as_millis();
        assert_eq!(peak(&latencies[0]), 100);
        run(&mut latencies, &[(10, 2); 3], 100);
        assert!((30..45).contains(&peak(&latencies[0])), "{}", peak(&latencies[0]));
    }
}
