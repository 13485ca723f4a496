//! When an absence counts.
//!
//! Two name servers behind one address may disagree, a watch may be stale, and a Service without a ready Pod looks as
//! if it did not exist (Kubernetes DNS specification, 2.4.1). So an addition is believed at once, because a new Pod
//! must pass a probe before it serves, and an absence only when it is repeated:
//!
//! - A Pod missing from an answer is gone after one answer if it fails its health check, after two in a row if it
//!   passes; the second is asked for a second after the first.
//! - An answer without any Pod counts after three in a row over 10 s, or over as long as the answer itself is to be
//!   believed if that is longer, and never while a Pod passes its health check.
//! - An error neither confirms nor denies: it interrupts no count.

use std::collections::HashMap;

use crate::{
    endpoint::Endpoint,
    time::{Duration, Instant},
};

/// How many answers in a row must lack a Pod that passes its health check.
const ABSENCES: u32 = 2;
/// How many negative answers in a row make a Service empty.
const NEGATIVES: u32 = 3;
/// The least time from the first of them to the last.
const EMPTY_AFTER: Duration = Duration::from_secs(10);
/// When an unconfirmed absence is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Counts absences until they are confirmed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Confirm {
    /// Known Pods that the last answers lacked, each with how many in a row.
    missing: HashMap<Endpoint, u32>,
    negative: Option<Negative>,
}

/// Negative answers in a row.
#[derive(Clone, Copy, Debug)]
struct Negative {
    count: u32,
    since: Instant,
    /// The longest time that one of them is to be believed.
    ttl: Duration,
}

/// Who exists now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Decision {
    /// Every Pod, sorted, without duplicates.
    pub(crate) set: Vec<Endpoint>,
    /// When to ask again at the latest, where an absence waits for its confirmation.
    pub(crate) again: Option<Instant>,
}

impl Confirm {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Takes an answer. `known` is every Pod known until now, with whether it passes its health check. An answer
    /// without any Pod is a negative one.
    pub(crate) fn answer(&mut self, now: Instant, known: &[(Endpoint, bool)], answer: &[Endpoint]) -> Decision {
        if answer.is_empty() {
            return self.negative(now, known, None);
        }
        self.negative = None;
        let mut set = answer.to_vec();
        set.sort_unstable();
        set.dedup();
        let listed = set.len();
        let before = std::mem::take(&mut self.missing);
        for (endpoint, passes) in known {
            if set[..listed].binary_search(endpoint).is_ok() {
                continue;
            }
            let count = before.get(endpoint).copied().unwrap_or(0) + 1;
            if *passes && count < ABSENCES {
                self.missing.insert(endpoint.clone(), count);
                set.push(endpoint.clone());
            }
        }
        set.sort_unstable();
        set.dedup();
        Decision { set, again: (!self.missing.is_empty()).then(|| now + ASK_AGAIN) }
    }

    /// Takes the answer that there are no Pods, with how long it is to be believed.
    pub(crate) fn negative(
        &mut self,
        now: Instant,
        known: &[(Endpoint, bool)],
        negative_ttl: Option<Duration>,
    ) -> Decision {
        let run = self.negative.get_or_insert(Negative { count: 0, since: now, ttl: Duration::ZERO });
        run.count = run.count.saturating_add(1);
        run.ttl = run.ttl.max(negative_ttl.unwrap_or(Duration::ZERO));
        let counts_at = run.since + EMPTY_AFTER.max(run.ttl);
        let counts = run.count >= NEGATIVES && now >= counts_at;
        let again = if run.count < NEGATIVES { now + ASK_AGAIN } else { counts_at.max(now + ASK_AGAIN) };
        if known.is_empty() {
            return Decision { set: Vec::new(), again: None };
        }
        if known.iter().any(|(_, passes)| *passes) {
            // Nothing that DNS says outweighs a Pod that serves; the ordinary schedule goes on asking.
            return Decision { set: all(known), again: None };
        }
        if counts {
            self.missing.clear();
            return Decision { set: Vec::new(), again: None };
        }
        Decision { set: all(known), again: Some(again) }
    }

    /// Takes an error, which says nothing about anybody.
    pub(crate) fn error(&mut self) {}

    /// An answer that names exactly who is known: nobody is missing, and the name stands for somebody.
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

    fn known(set: &[Endpoint], passes: bool) -> Vec<(Endpoint, bool)> {
        set.iter().map(|endpoint| (endpoint.clone(), passes)).collect()
    }

    #[test]
    fn a_pod_that_passes_is_gone_after_two_answers_a_second_apart() {
        let (mut confirm, now) = (Confirm::new(), Instant::now());
        let first = confirm.answer(now, &known(&pods(&[1, 2, 3]), true), &pods(&[1]));
        assert_eq!(first, Decision { set: pods(&[1, 2, 3]), again: Some(now + ASK_AGAIN) });
        let second = confirm.answer(now + ASK_AGAIN, &known(&first.set, true), &pods(&[1]));
        assert_eq!(second, Decision { set: pods(&[1]), again: None });
    }

    #[test]
    fn a_pod_that_fails_is_gone_after_one_answer_and_a_new_one_is_there_at_once() {
        let (mut confirm, now) = (Confirm::new(), Instant::now());
        let decision = confirm.answer(now, &[(pod(1), true), (pod(2), false)], &pods(&[3, 1, 3]));
        assert_eq!(decision, Decision { set: pods(&[1, 3]), again: None });
    }

    #[test]
    fn a_pod_that_comes_back_is_counted_afresh_so_two_servers_that_disagree_cost_nobody() {
        let (mut confirm, mut now) = (Confirm::new(), Instant::now());
        let mut set = pods(&[1, 2, 3]);
        for round in 0..20 {
            let answer = if round % 2 == 0 { pods(&[1, 2]) } else { pods(&[1, 3]) };
            set = confirm.answer(now, &known(&set, true), &answer).set;
            assert_eq!(set, pods(&[1, 2, 3]));
            now += ASK_AGAIN;
        }
    }

    #[test]
    fn an_error_between_two_answers_neither_confirms_nor_denies() {
        let (mut confirm, now) = (Confirm::new(), Instant::now());
        let first = confirm.answer(now, &known(&pods(&[1, 2]), true), &pods(&[1]));
        confirm.error();
        assert_eq!(first.set, pods(&[1, 2]));
        let second = confirm.answer(now + ASK_AGAIN * 3, &known(&first.set, true), &pods(&[1]));
        assert_eq!(second.set, pods(&[1]));
    }

    /// How long and how often "there is nothing" must be heard, asked as the decisions say.
    fn until_empty(ttl: Option<Duration>) -> (Duration, u32) {
        let (mut confirm, start) = (Confirm::new(), Instant::now());
        let (mut now, mut asked) = (start, 0);
        loop {
            let decision = confirm.negative(now, &known(&pods(&[1, 2]), false), ttl);
            asked += 1;
            match decision.again {
                Some(again) => {
                    assert_eq!(decision.set, pods(&[1, 2]));
                    now = again;
                }
                None => {
                    assert_eq!(decision.set, []);
                    return (now - start, asked);
                }
            }
        }
    }

    #[test]
    fn emptiness_needs_three_negatives_over_ten_seconds_or_the_negative_ttl() {
        for (ttl, after) in [(None, 10), (Some(5), 10), (Some(30), 30)] {
            let (took, asked) = until_empty(ttl.map(Duration::from_secs));
            assert_eq!(took, Duration::from_secs(after), "negative TTL {ttl:?}");
            assert!((3..=4).contains(&asked), "{asked}");
        }
    }

    #[test]
    fn an_answer_between_negatives_starts_the_count_again() {
        let (mut confirm, now) = (Confirm::new(), Instant::now());
        let failing = known(&pods(&[1]), false);
        for seconds in [0, 1] {
            confirm.negative(now + Duration::from_secs(seconds), &failing, None);
        }
        confirm.answer(now + Duration::from_secs(2), &failing, &pods(&[1]));
        assert_eq!(confirm.negative(now + Duration::from_secs(60), &failing, None).set, pods(&[1]));
    }

    #[derive(Clone, Debug)]
    enum Heard {
        Answer(Vec<u8>),
        Negative(Option<u64>),
        Error,
    }

    fn heard() -> impl Strategy<Value = Heard> {
        prop_oneof![
            prop::collection::vec(0u8..6, 0..6).prop_map(Heard::Answer),
            prop::option::of(0u64..60).prop_map(Heard::Negative),
            Just(Heard::Error),
        ]
    }

    proptest! {
        #[test]
        fn never_empties_while_a_pod_passes(
            steps in prop::collection::vec((heard(), 0u64..20_000, prop::collection::vec(any::<bool>(), 6)), 1..60),
        ) {
            let (mut confirm, mut now) = (Confirm::new(), Instant::now());
            let mut set = pods(&[0, 1, 2]);
            for (heard, wait, passes) in steps {
                now += Duration::from_millis(wait);
                let known: Vec<_> = set
                    .iter()
                    .map(|pod| (pod.clone(), passes[usize::from(pod.address().to_string().as_bytes()[7] - b'0')]))
                    .collect();
                let decision = match &heard {
                    Heard::Answer(last) => confirm.answer(now, &known, &pods(last)),
                    Heard::Negative(ttl) => confirm.negative(now, &known, ttl.map(Duration::from_secs)),
                    Heard::Error => {
                        confirm.error();
                        continue;
                    }
                };
                if known.iter().any(|(_, passes)| *passes) {
                    prop_assert!(!decision.set.is_empty());
                }
                prop_assert!(decision.set.is_sorted());
                if let Heard::Answer(last) = &heard {
                    for pod in pods(last) {
                        prop_assert!(decision.set.contains(&pod), "an addition waits");
                    }
                }
                for pod in &decision.set {
                    let told = matches!(&heard, Heard::Answer(last) if pods(last).contains(pod));
                    prop_assert!(told || set.contains(pod), "a Pod nobody told of");
                }
                if let Some(again) = decision.again {
                    prop_assert!(again >= now + ASK_AGAIN);
                }
                set = decision.set;
            }
        }

        #[test]
        fn one_answer_removes_nobody_who_passes(answer in prop::collection::vec(0u8..6, 1..6)) {
            let set = pods(&[0, 1, 2, 3, 4, 5]);
            let decision = Confirm::new().answer(Instant::now(), &known(&set, true), &pods(&answer));
            prop_assert_eq!(decision.set, set);
        }
    }
}
