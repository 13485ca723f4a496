//! Decides which known Pods are absent from DNS, and which absent Pods are removed.
//!
//! A single DNS response does not prove that a Pod is gone. Two name servers behind one address may disagree, a name
//! server's view of the cluster may be stale, and a Service without a ready Pod does not exist in DNS (Kubernetes DNS
//! specification, 2.4.1). A new Pod is added immediately, because it must pass a probe before it serves. The absence of
//! a known Pod must be confirmed:
//!
//! - A Pod that fails its health check is removed after one answer that does not contain it.
//! - A Pod that passes its health check is never removed here. Its absence is confirmed by a second answer without it,
//!   obtained after the first answer's TTL has expired or 5 s after the first answer, whichever is sooner, but at least
//!   1 s later. [`health::absence`](crate::health::absence) decides about Pods whose absence is confirmed. With
//!   `absent_pods=keep`, no absence is ever confirmed.
//! - All Pods are removed after at least three negative responses (NXDOMAIN or NODATA) in a row. The run of negative
//!   responses must last at least 10 s and at least as long as their TTL. A negative response removes no Pod while any
//!   Pod passes its health check, but it confirms absences like an answer without Pods.
//! - A failed lookup, such as a timeout or SERVFAIL, neither confirms an absence nor resets these counts.

use std::collections::HashMap;

use crate::{
    config::AbsentPods,
    endpoint::Endpoint,
    time::{Duration, Instant},
};

/// Maximum time between the first answer without a Pod and the answer that confirms the absence.
const CONFIRM_WITHIN: Duration = Duration::from_secs(5);
/// Number of consecutive negative responses after which all Pods are removed.
const NEGATIVES: u32 = 3;
/// Minimum time between the first of several consecutive negative responses and the removal of all Pods.
const EMPTY_AFTER: Duration = Duration::from_secs(10);
/// Minimum delay until the next lookup while an absence is unconfirmed.
const RECHECK: Duration = Duration::from_secs(1);

/// The Pods that are missing from the latest answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Confirm {
    absent_pods: AbsentPods,
    /// Known Pods that are missing from the latest answers, each with the earliest time at which an answer confirms the
    /// absence.
    missing: HashMap<Endpoint, Instant>,
    negative: Option<Negative>,
}

/// A run of consecutive negative responses.
#[derive(Clone, Copy, Debug)]
struct Negative {
    count: u32,
    since: Instant,
    /// The longest TTL of the negative responses in this run.
    ttl: Duration,
}

/// The set of Pods after a lookup.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Decision {
    /// All Pods, sorted and without duplicates.
    pub(crate) set: Vec<Endpoint>,
    /// The Pods of `set` whose absence from DNS is confirmed, in the order of `set`.
    pub(crate) absent: Vec<Endpoint>,
    /// Latest time of the next lookup. `None` if the lookups continue on their regular schedule.
    pub(crate) recheck_at: Option<Instant>,
}

impl Confirm {
    pub(crate) fn new(absent_pods: AbsentPods) -> Self {
        Self { absent_pods, ..Self::default() }
    }

    /// Applies an answer that expires at `valid_until`. `known` contains every known Pod and whether the Pod passes its
    /// health check. An answer without Pods counts as a negative response.
    pub(crate) fn answer(
        &mut self,
        now: Instant,
        known: &[(Endpoint, bool)],
        answer: &[Endpoint],
        valid_until: Instant,
    ) -> Decision {
        if answer.is_empty() {
            return self.negative(now, known, None);
        }
        self.negative = None;
        let mut set = answer.to_vec();
        set.sort_unstable();
        set.dedup();
        let (absent, recheck_at) = self.absences(now, known, &set, valid_until);
        let listed = set.len();
        for (endpoint, passes) in known {
            if *passes && set[..listed].binary_search(endpoint).is_err() {
                set.push(endpoint.clone());
            }
        }
        set.sort_unstable();
        set.dedup();
        Decision { set, absent, recheck_at }
    }

    /// Updates the absence of each passing Pod after an answer that contains the Pods in `listed`, which is sorted.
    /// Returns the Pods whose absence is confirmed, and the time of the next lookup if an absence is unconfirmed.
    fn absences(
        &mut self,
        now: Instant,
        known: &[(Endpoint, bool)],
        listed: &[Endpoint],
        valid_until: Instant,
    ) -> (Vec<Endpoint>, Option<Instant>) {
        let before = std::mem::take(&mut self.missing);
        if self.absent_pods == AbsentPods::Keep {
            return (Vec::new(), None);
        }
        let confirm_at = valid_until.min(now + CONFIRM_WITHIN).max(now + RECHECK);
        let (mut absent, mut recheck_at) = (Vec::new(), None);
        for (endpoint, passes) in known {
            if !passes || listed.binary_search(endpoint).is_ok() {
                continue;
            }
            let at = match before.get(endpoint) {
                Some(at) if *at <= now => {
                    absent.push(endpoint.clone());
                    *at
                }
                first => {
                    let at = first.copied().unwrap_or(confirm_at);
                    recheck_at = Some(recheck_at.map_or(at, |earlier: Instant| earlier.min(at)));
                    at
                }
            };
            self.missing.insert(endpoint.clone(), at);
        }
        absent.sort_unstable();
        absent.dedup();
        (absent, recheck_at)
    }

    /// Applies a negative response and its TTL.
    pub(crate) fn negative(
        &mut self,
        now: Instant,
        known: &[(Endpoint, bool)],
        negative_ttl: Option<Duration>,
    ) -> Decision {
        let run = self.negative.get_or_insert(Negative { count: 0, since: now, ttl: Duration::ZERO });
        run.count = run.count.saturating_add(1);
        run.ttl = run.ttl.max(negative_ttl.unwrap_or(Duration::ZERO));
        let confirmed_at = run.since + EMPTY_AFTER.max(run.ttl);
        let confirmed = run.count >= NEGATIVES && now >= confirmed_at;
        let recheck_at = if run.count < NEGATIVES { now + RECHECK } else { confirmed_at.max(now + RECHECK) };
        if known.is_empty() {
            return Decision { set: Vec::new(), absent: Vec::new(), recheck_at: None };
        }
        let (absent, absence_at) = self.absences(now, known, &[], now + negative_ttl.unwrap_or(CONFIRM_WITHIN));
        if known.iter().any(|(_, passes)| *passes) {
            // A Pod that passes its health check outweighs a negative response, so keep all Pods.
            return Decision { set: all(known), absent, recheck_at: absence_at };
        }
        if confirmed {
            return Decision { set: Vec::new(), absent, recheck_at: None };
        }
        Decision { set: all(known), absent, recheck_at: Some(recheck_at) }
    }

    /// Returns true if the Pod is missing from the latest answers.
    pub(crate) fn is_missing(&self, endpoint: &Endpoint) -> bool {
        self.missing.contains_key(endpoint)
    }

    /// Applies an error, which neither confirms an absence nor resets a count.
    pub(crate) fn error(&mut self) {}

    /// Applies an answer that equals the known set, which resets all counts.
    pub(crate) fn unchanged(&mut self) {
        self.missing.clear();
        self.negative = None;
    }
}

fn all(known: &[(Endpoint, bool)]) -> Vec<Endpoint> {
    let mut set: Vec<_> = known.iter().map(|(endpoint, _)| endpoint.clone()).collect();
    set.sort_unstable();
    set.dedup();
    set
}

#[cfg(test)]
mod tests {
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
                let unconfirmed = Decision { set: all.clone(), absent: vec![], recheck_at: Some(start + after) };
                assert_eq!(decision, unconfirmed, "TTL {ttl:?}, {early:?} after the first answer");
            }
            for later in [after, secs(60)] {
                let now = start + later;
                let decision = confirm.answer(now, &known(&all, true), &pods(&[1]), now + ttl);
                assert_eq!(decision, Decision { set: all.clone(), absent: pods(&[2, 3]), recheck_at: None });
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
            assert_eq!(decision, Decision { set: pods(&[1, 2]), absent: vec![], recheck_at: None });
        }
    }

    #[test]
    fn a_negative_response_confirms_the_absence_of_passing_pods_and_removes_none() {
        let (mut confirm, start, all) = (Confirm::default(), Instant::now(), pods(&[1, 2]));
        let first = confirm.negative(start, &known(&all, true), Some(secs(30)));
        assert_eq!(first, Decision { set: all.clone(), absent: vec![], recheck_at: Some(start + secs(5)) });
        let second = confirm.negative(start + secs(5), &known(&all, true), Some(secs(30)));
        assert_eq!(second, Decision { set: all.clone(), absent: all, recheck_at: None });
    }

    #[test]
    fn removes_a_failing_pod_and_adds_a_new_pod_after_one_answer() {
        let (mut confirm, now) = (Confirm::default(), Instant::now());
        let decision = confirm.answer(now, &[(pod(1), true), (pod(2), false)], &pods(&[3, 1, 3]), now);
        assert_eq!(decision, Decision { set: pods(&[1, 3]), absent: vec![], recheck_at: None });
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
}
