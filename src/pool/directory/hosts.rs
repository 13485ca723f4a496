//! The Pods of each configured host. Each host has its own lookups, and the absence of its Pods is confirmed by its own
//! lookups only. The Pods of all hosts together are the known Pods of the directory (the task that maintains the set of
//! Pods).
//!
//! Usually, there is one host, and nothing is stored about its Pods. Of several hosts, each one *names* the Pods that
//! its lookups have returned. A Pod that several hosts name is removed only after none of them names it, and is absent
//! only if its absence is confirmed for all of them. Two hosts that return the same address and port return the same
//! Pod, even if they have different names for it.

use std::{borrow::Cow, collections::HashSet};

use crate::{
    config::AbsentPods,
    discovery::{Confirm, confirm::Decision},
    endpoint::Endpoint,
};

/// All configured hosts.
#[derive(Debug)]
pub(super) struct Hosts(Box<[Host]>);

/// The state of one configured host.
#[derive(Clone, Debug)]
struct Host {
    confirm: Confirm,
    /// The Pods of this host, if there are several hosts.
    pods: HashSet<Endpoint>,
    /// The Pods of `pods` whose absence is confirmed.
    absent: HashSet<Endpoint>,
}

impl Hosts {
    pub(super) fn new(count: usize, absent_pods: AbsentPods) -> Self {
        let host = Host { confirm: Confirm::new(absent_pods), pods: HashSet::new(), absent: HashSet::new() };
        Self(vec![host; count].into())
    }

    /// Returns true if there is only one host.
    pub(super) fn is_single(&self) -> bool {
        self.0.len() == 1
    }

    pub(super) fn confirm(&mut self, host: usize) -> &mut Confirm {
        &mut self.0[host].confirm
    }

    /// Returns the Pods of `known` that are Pods of this host.
    pub(super) fn known<'a>(&self, host: usize, known: &'a [(Endpoint, bool)]) -> Cow<'a, [(Endpoint, bool)]> {
        if self.is_single() {
            return known.into();
        }
        known.iter().filter(|(pod, _)| self.0[host].pods.contains(pod)).cloned().collect()
    }

    /// Applies the decision about the Pods of one host. Returns the decision about the Pods of all hosts.
    pub(super) fn apply(&mut self, host: usize, known: &[(Endpoint, bool)], mut decision: Decision) -> Decision {
        if self.is_single() {
            return decision;
        }
        self.0[host].pods = decision.set.iter().cloned().collect();
        self.0[host].absent = decision.absent.iter().cloned().collect();
        let others =
            |pod: &Endpoint| (0..).zip(&self.0).any(|(other, state)| other != host && state.pods.contains(pod));
        let mut set: Vec<_> = known.iter().map(|(pod, _)| pod).filter(|pod| others(pod)).cloned().collect();
        let addresses: HashSet<_> = set.iter().map(|pod| pod.address().clone()).collect();
        set.extend(decision.set.drain(..).filter(|pod| !addresses.contains(pod.address())));
        set.sort_unstable();
        let is_absent =
            |pod: &Endpoint| self.0.iter().all(|state| !state.pods.contains(pod) || state.absent.contains(pod));
        decision.absent.retain(is_absent);
        Decision { set, ..decision }
    }

    /// Returns true if the Pod is missing from the latest answers of every host that has named it.
    pub(super) fn is_missing(&self, pod: &Endpoint) -> bool {
        if self.is_single() {
            return self.0[0].confirm.is_missing(pod);
        }
        let mut of_pod = self.0.iter().filter(|state| state.pods.contains(pod)).peekable();
        of_pod.peek().is_some() && of_pod.all(|state| state.confirm.is_missing(pod))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{Duration, Instant};

    fn pod(last: u8) -> Endpoint {
        Endpoint::new(([10, 0, 0, last], 5432).into())
    }

    /// The hosts and the Pods that the directory knows, all of which pass their health checks.
    struct Directory(Hosts, Vec<Endpoint>);

    impl Directory {
        /// Applies an answer of one host. Returns the known Pods and the absent ones.
        fn answer(&mut self, host: usize, now: Instant, pods: &[Endpoint]) -> (Vec<Endpoint>, Vec<Endpoint>) {
            let known: Vec<_> = self.1.iter().map(|pod| (pod.clone(), true)).collect();
            let own = self.0.known(host, &known);
            let decision = self.0.confirm(host).answer(now, &own, pods, now);
            let decision = self.0.apply(host, &known, decision);
            self.1.clone_from(&decision.set);
            (decision.set, decision.absent)
        }
    }

    fn hosts(count: usize) -> Directory {
        Directory(Hosts::new(count, AbsentPods::Drain), Vec::new())
    }

    #[test]
    fn a_host_neither_removes_nor_misses_the_pods_of_another_host() {
        let (mut hosts, mut now) = (hosts(2), Instant::now());
        assert_eq!(hosts.answer(0, now, &[pod(1), pod(2)]).0, [pod(1), pod(2)]);
        for _ in 0..5 {
            now += Duration::from_secs(6);
            assert_eq!(hosts.answer(1, now, &[pod(3)]), (vec![pod(1), pod(2), pod(3)], vec![]));
            assert!(!hosts.0.is_missing(&pod(1)));
        }
        assert_eq!(hosts.answer(0, now, &[pod(1)]), (vec![pod(1), pod(2), pod(3)], vec![]));
        assert!(hosts.0.is_missing(&pod(2)));
        now += Duration::from_secs(6);
        assert_eq!(hosts.answer(0, now, &[pod(1)]), (vec![pod(1), pod(2), pod(3)], vec![pod(2)]));
        // A drained Pod does not return with the answer of another host.
        hosts.1.retain(|known| *known != pod(2));
        assert_eq!(hosts.answer(1, now, &[pod(3)]).0, [pod(1), pod(3)]);
    }

    #[test]
    fn a_pod_of_two_hosts_is_absent_only_if_it_is_absent_from_both() {
        let (mut hosts, start) = (hosts(2), Instant::now());
        hosts.answer(0, start, &[pod(1)]);
        assert_eq!(hosts.answer(1, start, &[pod(1)]).0, [pod(1)]);
        for seconds in [6, 12] {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(hosts.answer(0, now, &[pod(2)]), (vec![pod(1), pod(2)], vec![]));
        }
        assert!(!hosts.0.is_missing(&pod(1)));
        hosts.answer(1, start + Duration::from_secs(12), &[pod(3)]);
        let later = start + Duration::from_secs(18);
        assert_eq!(hosts.answer(1, later, &[pod(3)]), (vec![pod(1), pod(2), pod(3)], vec![pod(1)]));
    }

    #[test]
    fn equal_addresses_of_two_hosts_are_one_pod() {
        let (mut hosts, now) = (hosts(2), Instant::now());
        let named = Endpoint::named("pg-0", ([10, 0, 0, 1], 5432).into());
        hosts.answer(0, now, std::slice::from_ref(&named));
        assert_eq!(hosts.answer(1, now, &[pod(1)]).0, [named]);
    }
}
