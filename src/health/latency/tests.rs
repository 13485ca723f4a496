//! Tests when statements and probes make a Pod slow, and when a slow Pod counts as recovered.

use super::*;

const TICK: Duration = Duration::from_millis(100);

/// Simulates a number of ticks. `statements` holds, for each Pod, the number of statements per tick and the duration of
/// one statement in milliseconds. Returns the classes of the Pods after the last tick.
fn run(latencies: &mut [Latency], statements: &[(u64, u64)], ticks: usize) -> Vec<u32> {
    for _ in 0..ticks {
        for (latency, &(statements, millis)) in latencies.iter_mut().zip(statements) {
            let work = Work { statements, time: Duration::from_millis(millis) * statements as u32 };
            latency.answered(work, Work::default(), TICK);
        }
        let mut all: Vec<_> = latencies.iter_mut().map(|latency| (Role::Standby, latency)).collect();
        classify(&mut all);
    }
    latencies.iter().map(Latency::class).collect()
}

fn probe(latencies: &mut [Latency], millis: &[u64], times: usize) {
    for _ in 0..times {
        latencies.iter_mut().zip(millis).for_each(|(latency, &millis)| latency.probed(Duration::from_millis(millis)));
    }
}

fn three_equal() -> Vec<Latency> {
    let mut latencies = vec![Latency::default(); 3];
    probe(&mut latencies, &[1, 1, 1], 3);
    latencies
}

#[test]
fn slow_statements_make_a_pod_slow_until_they_have_decayed() {
    let mut latencies = three_equal();
    assert_eq!(
        run(&mut latencies, &[(10, 2), (10, 3), (10, 2)], 20),
        [1, 1, 1],
        "Pods within twice the fastest latency are equal"
    );
    assert!(run(&mut latencies, &[(10, 2), (10, 40), (10, 2)], 2)[1] > 1, "within 0.2 s");
    assert!(run(&mut latencies, &[(10, 2), (10, 40), (10, 2)], 20)[1] >= 6);
    let ticks = (1..200).find(|_| run(&mut latencies, &[(10, 2), (0, 0), (10, 2)], 1)[1] < 4).expect("tried again");
    assert!((20..=65).contains(&ticks), "{ticks} ticks");
}

#[test]
fn probes_detect_the_recovery_of_a_slow_pod_without_traffic() {
    let mut latencies = three_equal();
    probe(&mut latencies, &[1, 5, 1], 2);
    assert_eq!(run(&mut latencies, &[(10, 2), (0, 0), (10, 2)], 100), [1, 4, 1]);
    probe(&mut latencies, &[1, 1, 1], 1);
    assert_eq!(run(&mut latencies, &[(10, 2), (0, 0), (10, 2)], 1), [1, 4, 1], "a single fast probe is not enough");
    probe(&mut latencies, &[1, 1, 1], 1);
    assert!(run(&mut latencies, &[(10, 2), (0, 0), (10, 2)], 1)[1] < 4);
    assert_eq!(run(&mut latencies, &[(10, 2), (2, 2), (10, 2)], 2), [1, 1, 1]);
}

/// Simulates 100 ticks of a primary (the first Pod) and its standbys. In each tick, each Pod runs ten statements for
/// its own role, and ten statements for the target `any` unless their duration is 0. `own_and_any` holds the two
/// durations for each Pod, in milliseconds. Returns the classes of the Pods after the last tick.
fn replicate(latencies: &mut [Latency], own_and_any: &[(u64, u64)]) -> Vec<u32> {
    let ten = |millis| Work { statements: 10, time: Duration::from_millis(millis * 10) };
    for _ in 0..100 {
        for (latency, &(own, any)) in latencies.iter_mut().zip(own_and_any) {
            let mut all = ten(own);
            all.add((10, ten(any).time));
            latency.answered(all, if any > 0 { ten(any) } else { Work::default() }, TICK);
        }
        let standbys = std::iter::repeat(Role::Standby);
        let mut all: Vec<_> = std::iter::once(Role::Primary).chain(standbys).zip(latencies.iter_mut()).collect();
        classify(&mut all);
    }
    latencies.iter().map(Latency::class).collect()
}

#[test]
fn statements_are_compared_within_the_same_role() {
    assert_eq!(
        replicate(&mut three_equal(), &[(50, 0), (2, 0), (2, 0)]),
        [1, 1, 1],
        "writes are not compared with reads"
    );
    assert_eq!(replicate(&mut three_equal(), &[(50, 2), (2, 2), (2, 2)]), [1, 1, 1]);
    let slow = replicate(&mut three_equal(), &[(50, 20), (2, 2), (2, 2)]);
    assert_eq!(slow, [8, 1, 1]);
    assert_eq!(
        replicate(&mut three_equal()[..2], &[(50, 2), (2, 20)]),
        [1, 8],
        "each Pod is the only one of its role, so statements for the target `any` are compared"
    );
    let mut latencies = three_equal();
    probe(&mut latencies, &[9, 1, 1], 3);
    assert!(
        replicate(&mut latencies, &[(50, 0), (2, 0), (2, 0)])[0] >= 6,
        "without statements for the target `any`, probes are compared"
    );
}

#[test]
fn probe_times_below_a_millisecond_do_not_count_alone() {
    let mut latencies = vec![Latency::default(); 3];
    for _ in 0..3 {
        for (latency, micros) in latencies.iter_mut().zip([150, 900, 150]) {
            latency.probed(Duration::from_micros(micros));
        }
    }
    assert_eq!(run(&mut latencies, &[(0, 0); 3], 1), [1, 1, 1]);
    assert_eq!(run(&mut latencies, &[(10, 2); 3], 10), [1, 1, 1], "all Pods run their statements equally fast");
}

#[test]
fn a_class_needs_enough_statements() {
    let mut latencies = three_equal();
    assert_eq!(run(&mut latencies, &[(10, 2), (1, 5), (10, 2)], 19), [1, 1, 1], "19 slow statements");
    assert_eq!(run(&mut latencies, &[(10, 2), (1, 5), (10, 2)], 15), [1, 2, 1], "more than 20 recent statements");
    let mut latencies = three_equal();
    assert_eq!(run(&mut latencies, &[(10, 2), (1, 40), (10, 2)], 9), [1, 1, 1], "nine very slow statements");
    assert!(run(&mut latencies, &[(10, 2), (1, 40), (10, 2)], 5)[1] >= 4, "more than ten very slow statements");
    let mut latencies = three_equal();
    run(&mut latencies, &[(10, 2), (10, 6), (10, 2)], 10);
    assert_eq!(latencies[1].class(), 2);
    let ticks = (1..).find(|_| run(&mut latencies, &[(10, 2), (0, 0), (10, 2)], 1)[1] == 1).expect("an end");
    assert!(ticks < 100, "a class without statements ends after {ticks} ticks");
}

#[test]
fn a_difference_below_two_milliseconds_is_distance() {
    let micros = |micros| Work { statements: 10, time: Duration::from_micros(micros) * 10 };
    for (far, expected) in [(1_100, 3), (2_000, 3), (2_500, 8)] {
        let mut latencies = three_equal();
        for _ in 0..20 {
            for (latency, took) in latencies.iter_mut().zip([100, far, 100]) {
                latency.answered(micros(took), Work::default(), TICK);
            }
            classify(&mut latencies.iter_mut().map(|latency| (Role::Standby, latency)).collect::<Vec<_>>());
        }
        assert_eq!(latencies[1].class(), expected, "{far}");
    }
}

#[test]
fn a_trickle_shows_a_recovery_within_ten_statements() {
    let mut latencies = three_equal();
    assert!(run(&mut latencies, &[(10, 2), (10, 40), (10, 2)], 20)[1] >= 8);
    assert!(run(&mut latencies, &[(10, 2), (1, 40), (10, 2)], 100)[1] >= 8, "the trickle is still slow");
    let ticks = (1..).find(|_| run(&mut latencies, &[(10, 2), (1, 2), (10, 2)], 1)[1] == 1).expect("an end");
    assert!(ticks <= 21, "{ticks} ticks");
    // The Pod is judged earlier if it is slow again soon.
    assert!(run(&mut latencies, &[(10, 2), (10, 40), (10, 2)], 1)[1] >= 4);
}

#[test]
fn retry_delay_of_a_slow_pod_with_fast_probes_doubles() {
    let mut latencies = three_equal();
    let mut ticks_until_retry = || {
        assert!(run(&mut latencies, &[(10, 2), (10, 20), (10, 2)], 5)[1] > 4);
        (1..1000).find(|_| run(&mut latencies, &[(10, 2), (0, 0), (10, 2)], 1)[1] < 4).expect("tried again")
    };
    let ticks = [ticks_until_retry(), ticks_until_retry(), ticks_until_retry(), ticks_until_retry()];
    for (ticks, expected) in ticks.into_iter().zip([50, 100, 200, 200]) {
        assert!((expected - 10..=expected + 10).contains(&ticks), "expected {expected} ticks, got {ticks}");
    }
    run(&mut latencies, &[(10, 2); 3], 310);
    assert!(run(&mut latencies, &[(10, 2), (10, 20), (10, 2)], 10)[1] >= 4);
    assert!(run(&mut latencies, &[(10, 2), (0, 0), (10, 2)], 70)[1] < 4, "the delay is at its minimum again");
    assert_eq!(run(&mut latencies, &[(10, 2), (2, 2), (10, 2)], 3)[1], 1, "a few fast statements are enough");
}

#[test]
fn fast_probes_must_be_consecutive_after_they_were_misleading() {
    let mut latencies = three_equal();
    let mut is_released = |probes: &[u64]| {
        probe(&mut latencies, &[1, 8, 1], 3);
        assert!(run(&mut latencies, &[(10, 2), (10, 20), (10, 2)], 10)[1] >= 4, "slow again");
        probes.iter().for_each(|&millis| probe(&mut latencies, &[1, millis, 1], 1));
        run(&mut latencies, &[(10, 2), (0, 0), (10, 2)], 1)[1] < 4
    };
    assert!(is_released(&[1, 8, 1]), "two of three probes are fast");
    assert!(is_released(&[1, 8, 1]), "misleading once");
    assert!(!is_released(&[1, 8, 1]), "misleading twice");
    assert!(is_released(&[1, 1]));
}

#[test]
fn a_pod_that_hung_once_counts_as_fast_within_seconds() {
    let mut latencies = three_equal();
    run(&mut latencies, &[(10, 2); 3], 100);
    run(&mut latencies, &[(10, 2), (8, 5_000), (10, 2)], 1);
    assert_eq!(latencies[1].latency().expect("known").1.as_secs(), 5, "the peak is the mean of the hung statements");
    let ticks = (1..300).find(|_| run(&mut latencies, &[(10, 2), (2, 2), (10, 2)], 1)[1] == 1).expect("fast again");
    assert!(ticks <= 20, "{ticks} ticks");
}

#[test]
fn latencies_below_the_floor_are_equal() {
    let mut latencies = vec![Latency::default(); 3];
    for (latency, micros) in latencies.iter_mut().zip([20, 95, 60]) {
        latency.probed(Duration::from_micros(micros));
    }
    assert_eq!(run(&mut latencies, &[(0, 0); 3], 1), [1, 1, 1]);
}

#[test]
fn classes_have_hysteresis() {
    let mut latencies = three_equal();
    let mut seen = Vec::new();
    for millis in [10, 21, 24, 21, 18, 16, 19, 21] {
        probe(&mut latencies, &[10, millis, 10], 3);
        seen.push(run(&mut latencies, &[(0, 0); 3], 1)[1]);
    }
    assert_eq!(seen, [1, 1, 2, 2, 2, 1, 1, 1]);
}

#[test]
fn a_pod_without_measurements_is_in_the_fastest_class() {
    let mut latencies = three_equal();
    probe(&mut latencies, &[1, 3_000, 1], 3);
    assert!(run(&mut latencies, &[(10, 2), (3, 3_000), (10, 2)], 10)[1] > 8);
    latencies[1] = Latency::default();
    assert_eq!(latencies[1].latency(), None);
    probe(&mut latencies, &[1, 900, 1], 2);
    assert_eq!(run(&mut latencies, &[(10, 2), (1, 900), (10, 2)], 10), [1, 1, 1], "two slow probes are not enough");
    probe(&mut latencies, &[1, 1, 1], 1);
    assert_eq!(run(&mut latencies, &[(10, 2); 3], 10), [1, 1, 1]);
}

#[test]
fn the_peak_rises_immediately_and_decays() {
    let mut latencies = three_equal();
    run(&mut latencies, &[(10, 2); 3], 10);
    run(&mut latencies, &[(10, 100), (10, 2), (10, 2)], 1);
    let peak = |latency: &Latency| latency.latency().expect("known").1.as_millis();
    assert_eq!(peak(&latencies[0]), 100);
    run(&mut latencies, &[(10, 2); 3], 100);
    assert!((30..45).contains(&peak(&latencies[0])), "{}", peak(&latencies[0]));
}
