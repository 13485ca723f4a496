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
//!
//! A source other than DNS may have another [`Authority`](super::Authority). With an exact result, the absence of a
//! passing Pod needs no confirmation, and a failing Pod is removed even if the result contains no Pods. An additive
//! result removes only Pods that fail their health check, and none if it contains no Pods.

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
    /// The Pods of `absent` that no longer exist, in the order of `set`.
    pub(crate) gone: Vec<Endpoint>,
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
        let named = sorted(answer.iter());
        let (absent, recheck_at) = self.absences(now, known, &named, valid_until);
        Decision { set: with_passing(known, &named), absent, gone: Vec::new(), recheck_at }
    }

    /// Applies an exact answer. `leaving` contains Pods that are not in the answer but still exist.
    pub(crate) fn exact(&mut self, known: &[(Endpoint, bool)], answer: &[Endpoint], leaving: &[Endpoint]) -> Decision {
        self.unchanged();
        let named = sorted(answer.iter());
        let is_absent = |pod: &&(Endpoint, bool)| pod.1 && named.binary_search(&pod.0).is_err();
        let absent = match self.absent_pods {
            AbsentPods::Drain => sorted(known.iter().filter(is_absent).map(|(endpoint, _)| endpoint)),
            AbsentPods::Keep => Vec::new(),
        };
        let gone = absent.iter().filter(|endpoint| !leaving.contains(endpoint)).cloned().collect();
        Decision { set: with_passing(known, &named), absent, gone, recheck_at: None }
    }

    /// Applies an additive answer.
    pub(crate) fn additive(&mut self, known: &[(Endpoint, bool)], answer: &[Endpoint]) -> Decision {
        self.unchanged();
        let set = if answer.is_empty() { all(known) } else { with_passing(known, &sorted(answer.iter())) };
        Decision { set, absent: Vec::new(), gone: Vec::new(), recheck_at: None }
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
            return Decision { set: Vec::new(), absent: Vec::new(), gone: Vec::new(), recheck_at: None };
        }
        let (absent, absence_at) = self.absences(now, known, &[], now + negative_ttl.unwrap_or(CONFIRM_WITHIN));
        if known.iter().any(|(_, passes)| *passes) {
            // A Pod that passes its health check outweighs a negative response, so keep all Pods.
            return Decision { set: all(known), absent, gone: Vec::new(), recheck_at: absence_at };
        }
        if confirmed {
            return Decision { set: Vec::new(), absent, gone: Vec::new(), recheck_at: None };
        }
        Decision { set: all(known), absent, gone: Vec::new(), recheck_at: Some(recheck_at) }
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
    sorted(known.iter().map(|(endpoint, _)| endpoint))
}

/// Returns the Pods in `named`, which is sorted, and the known Pods that pass their health check.
fn with_passing(known: &[(Endpoint, bool)], named: &[Endpoint]) -> Vec<Endpoint> {
    let is_added = |(endpoint, passes): &&(Endpoint, bool)| *passes && named.binary_search(endpoint).is_err();
    sorted(named.iter().chain(known.iter().filter(is_added).map(|(endpoint, _)| endpoint)))
}

/// Returns the Pods sorted, without duplicates.
fn sorted<'a>(pods: impl Iterator<Item = &'a Endpoint>) -> Vec<Endpoint> {
    let mut set: Vec<_> = pods.cloned().collect();
    set.sort_unstable();
    set.dedup();
    set
}

#[cfg(test)]
mod tests;
