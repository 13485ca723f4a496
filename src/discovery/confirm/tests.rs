use proptest::prelude::*;

use super::*;

fn pod(last: u8) -> Endpoint {
    Endpoint::new(([10, 0, 0, last], 5432).into())
}

fn pods(last: &[u8]) -> Vec<Endpoint> {
    last.iter().copied().map(pod).collect()
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn known(set: &[Endpoint], passes: bool) -> Vec<(Endpoint, bool)> {
    set.iter().map(|endpoint| (endpoint.clone(), passes)).collect()
}

#[test]
fn confirms_an_absence_after_the_ttl_or_5_s() {
    for (ttl, after) in [(0, 1), (1, 1), (3, 3), (30, 5)].map(|(ttl, after)| (secs(ttl), secs(after))) {
        let (mut confirm, start, all) = (Confirm::default(), Instant::now(), pods(&[1, 2, 3]));
        for early in [Duration::ZERO, after / 2, after - Duration::from_millis(1)] {
            let now = start + early;
            let decision = confirm.answer(now, &known(&all, true), &pods(&[1]), now + ttl);
            let unconfirmed =
                Decision { set: all.clone(), absent: vec![], gone: vec![], recheck_at: Some(start + after) };
            assert_eq!(decision, unconfirmed, "TTL {ttl:?}, {early:?} after the first answer");
        }
        for later in [after, secs(60)] {
            let now = start + later;
            let decision = confirm.answer(now, &known(&all, true), &pods(&[1]), now + ttl);
            assert_eq!(decision, Decision { set: all.clone(), absent: pods(&[2, 3]), gone: vec![], recheck_at: None });
        }
        let now = start + secs(61);
        let decision = confirm.answer(now, &known(&all, true), &pods(&[1, 2]), now + ttl);
        assert_eq!(decision.absent, pods(&[3]), "a Pod that is named again is not absent");
    }
}

#[test]
fn never_confirms_an_absence_if_absent_pods_are_kept() {
    let (mut confirm, start) = (Confirm::new(AbsentPods::Keep), Instant::now());
    for seconds in 0..20 {
        let now = start + secs(seconds);
        let decision = confirm.answer(now, &[(pod(1), true), (pod(2), true), (pod(3), false)], &pods(&[1]), now);
        assert_eq!(decision, Decision { set: pods(&[1, 2]), absent: vec![], gone: vec![], recheck_at: None });
    }
}

#[test]
fn a_negative_response_confirms_the_absence_of_passing_pods_and_removes_none() {
    let (mut confirm, start, all) = (Confirm::default(), Instant::now(), pods(&[1, 2]));
    let first = confirm.negative(start, &known(&all, true), Some(secs(30)));
    assert_eq!(first, Decision { set: all.clone(), absent: vec![], gone: vec![], recheck_at: Some(start + secs(5)) });
    let second = confirm.negative(start + secs(5), &known(&all, true), Some(secs(30)));
    assert_eq!(second, Decision { set: all.clone(), absent: all, gone: vec![], recheck_at: None });
}

#[test]
fn an_exact_answer_needs_no_confirmation() {
    let (mut confirm, now) = (Confirm::default(), Instant::now());
    let known = [(pod(1), true), (pod(2), true), (pod(3), true), (pod(4), false)];
    let decision = confirm.exact(&known, &pods(&[5, 1]), &pods(&[2, 4, 6]));
    let (set, absent) = (pods(&[1, 2, 3, 5]), pods(&[2, 3]));
    assert_eq!(decision, Decision { set, absent, gone: pods(&[3]), recheck_at: None });
    assert!(!confirm.is_missing(&pod(3)));
    let none = confirm.exact(&known, &[], &[]);
    let (set, absent) = (pods(&[1, 2, 3]), pods(&[1, 2, 3]));
    assert_eq!(none, Decision { set, gone: absent.clone(), absent, recheck_at: None });
    // Later, the absence from a DNS answer must be confirmed from the start.
    assert_eq!(confirm.answer(now, &known, &pods(&[1]), now).absent, []);
    let decision = Confirm::new(AbsentPods::Keep).exact(&known, &pods(&[1]), &[]);
    assert_eq!(decision, Decision { set: pods(&[1, 2, 3]), absent: vec![], gone: vec![], recheck_at: None });
}

#[test]
fn an_additive_answer_removes_only_failing_pods() {
    let (mut confirm, now) = (Confirm::default(), Instant::now());
    let known = [(pod(1), true), (pod(2), true), (pod(3), false)];
    let kept = |set: &[u8]| Decision { set: pods(set), absent: vec![], gone: vec![], recheck_at: None };
    confirm.answer(now, &known, &pods(&[1]), now);
    assert_eq!(confirm.additive(&known, &pods(&[1, 4])), kept(&[1, 2, 4]));
    assert_eq!(confirm.additive(&known, &[]), kept(&[1, 2, 3]));
    assert!(!confirm.is_missing(&pod(2)));
}

#[test]
fn removes_a_failing_pod_and_adds_a_new_pod_after_one_answer() {
    let (mut confirm, now) = (Confirm::default(), Instant::now());
    let decision = confirm.answer(now, &[(pod(1), true), (pod(2), false)], &pods(&[3, 1, 3]), now);
    assert_eq!(decision, Decision { set: pods(&[1, 3]), absent: vec![], gone: vec![], recheck_at: None });
}

#[test]
fn keeps_every_pod_while_two_name_servers_disagree() {
    let (mut confirm, mut now) = (Confirm::default(), Instant::now());
    let (mut set, mut absent);
    set = pods(&[1, 2, 3]);
    for round in 0..20 {
        let answer = if round % 2 == 0 { pods(&[1, 2]) } else { pods(&[1, 3]) };
        let decision = confirm.answer(now, &known(&set, true), &answer, now);
        (set, absent) = (decision.set, decision.absent);
        assert_eq!((&set, &absent), (&pods(&[1, 2, 3]), &vec![]));
        now += RECHECK;
    }
}

#[test]
fn error_neither_confirms_nor_resets_an_absence() {
    let (mut confirm, now) = (Confirm::default(), Instant::now());
    let first = confirm.answer(now, &known(&pods(&[1, 2]), true), &pods(&[1]), now);
    confirm.error();
    assert_eq!((&first.set, &first.absent), (&pods(&[1, 2]), &vec![]));
    let second = confirm.answer(now + RECHECK * 3, &known(&first.set, true), &pods(&[1]), now);
    assert_eq!(second.absent, pods(&[2]));
}

/// Applies negative responses at the requested recheck times until the set is empty. Returns the elapsed time and
/// the number of responses.
fn until_empty(ttl: Option<Duration>) -> (Duration, u32) {
    let (mut confirm, start) = (Confirm::default(), Instant::now());
    let (mut now, mut responses) = (start, 0);
    loop {
        let decision = confirm.negative(now, &known(&pods(&[1, 2]), false), ttl);
        responses += 1;
        match decision.recheck_at {
            Some(at) => {
                assert_eq!(decision.set, pods(&[1, 2]));
                now = at;
            }
            None => {
                assert_eq!(decision.set, []);
                return (now - start, responses);
            }
        }
    }
}

#[test]
fn removes_all_pods_after_three_negatives_over_10_s_or_their_ttl() {
    for (ttl, after) in [(None, 10), (Some(5), 10), (Some(30), 30)] {
        let (took, responses) = until_empty(ttl.map(Duration::from_secs));
        assert_eq!(took, Duration::from_secs(after), "negative TTL {ttl:?}");
        assert!((3..=4).contains(&responses), "{responses}");
    }
}

#[test]
fn answer_resets_the_count_of_negative_responses() {
    let (mut confirm, now) = (Confirm::default(), Instant::now());
    let failing = known(&pods(&[1]), false);
    for seconds in [0, 1] {
        confirm.negative(now + Duration::from_secs(seconds), &failing, None);
    }
    confirm.answer(now + Duration::from_secs(2), &failing, &pods(&[1]), now);
    assert_eq!(confirm.negative(now + Duration::from_secs(60), &failing, None).set, pods(&[1]));
}

#[derive(Clone, Debug)]
enum Outcome {
    Answer(Vec<u8>),
    Negative(Option<u64>),
    Error,
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        prop::collection::vec(0u8..6, 0..6).prop_map(Outcome::Answer),
        prop::option::of(0u64..60).prop_map(Outcome::Negative),
        Just(Outcome::Error),
    ]
}

proptest! {
    #[test]
    fn never_removes_all_pods_while_one_passes(
        steps in prop::collection::vec((outcome(), 0u64..20_000, prop::collection::vec(any::<bool>(), 6)), 1..60),
    ) {
        let (mut confirm, mut now) = (Confirm::default(), Instant::now());
        let mut set = pods(&[0, 1, 2]);
        for (outcome, wait, passes) in steps {
            now += Duration::from_millis(wait);
            let known: Vec<_> = set
                .iter()
                .map(|pod| (pod.clone(), passes[usize::from(pod.address().to_string().as_bytes()[7] - b'0')]))
                .collect();
            let decision = match &outcome {
                Outcome::Answer(last) => {
                    confirm.answer(now, &known, &pods(last), now + Duration::from_millis(wait))
                }
                Outcome::Negative(ttl) => confirm.negative(now, &known, ttl.map(Duration::from_secs)),
                Outcome::Error => {
                    confirm.error();
                    continue;
                }
            };
            if known.iter().any(|(_, passes)| *passes) {
                prop_assert!(!decision.set.is_empty());
            }
            prop_assert!(decision.set.is_sorted());
            if let Outcome::Answer(last) = &outcome {
                for pod in pods(last) {
                    prop_assert!(decision.set.contains(&pod), "a new Pod is added immediately");
                }
            }
            for (pod, _) in known.iter().filter(|(_, passes)| *passes) {
                prop_assert!(decision.set.contains(pod), "a passing Pod is never removed");
            }
            for pod in &decision.absent {
                let answered = matches!(&outcome, Outcome::Answer(last) if pods(last).contains(pod));
                prop_assert!(!answered && decision.set.contains(pod));
            }
            for pod in &decision.set {
                let answered = matches!(&outcome, Outcome::Answer(last) if pods(last).contains(pod));
                prop_assert!(answered || set.contains(pod), "every Pod is known or in the answer");
            }
            if let Some(at) = decision.recheck_at {
                prop_assert!(at > now);
            }
            set = decision.set;
        }
    }

    #[test]
    fn single_answer_never_confirms_an_absence(answer in prop::collection::vec(0u8..6, 1..6)) {
        let set = pods(&[0, 1, 2, 3, 4, 5]);
        let now = Instant::now();
        let decision = Confirm::default().answer(now, &known(&set, true), &pods(&answer), now);
        prop_assert_eq!((decision.set, decision.absent), (set, vec![]));
    }
}
