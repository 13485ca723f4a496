//! The Pods of each configured host. Each host has its own lookups, and the absence of its Pods is confirmed by its own
//! lookups only. The Pods of all hosts together are the known Pods of the directory (the task that maintains the set of
//! Pods).
//!
//! Usually, there is one host, and nothing is stored about its Pods. Of several hosts, each one *names* the Pods that
//! its lookups have returned. A Pod that several hosts name is removed only after none of them names it, and is absent
//! only if its absence is confirmed for all of them.
//!
//! Two hosts that return the same address and port return the same Pod, even if they have different names for it. Each
//! host confirms the absence of a Pod under the identity that it has returned itself. The pool has one endpoint for the
//! address, with the identity that it already uses if a host still names it, and otherwise with that of the first host.
//! The endpoint lists all hosts that name the address, because a dial uses their names.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use crate::{
    address::Address,
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
    /// The Pods of this host, as it names them, if there are several hosts.
    pods: HashMap<Address, Vec<Endpoint>>,
    /// The Pods of `pods` whose absence is confirmed.
    absent: HashSet<Endpoint>,
    /// The Pods of `absent` that no longer exist.
    gone: HashSet<Endpoint>,
}

impl Host {
    /// Returns the Pods of this host that have this address.
    fn at(&self, address: &Address) -> &[Endpoint] {
        self.pods.get(address).map_or(&[], Vec::as_slice)
    }
}

/// The known Pods after a lookup of one host.
#[derive(Debug)]
pub(super) struct Named {
    /// All Pods, sorted.
    pub(super) set: Vec<Endpoint>,
    /// The Pods in the answer of the host.
    pub(super) named: Vec<Endpoint>,
    /// The Pods of `set` whose absence is confirmed.
    pub(super) absent: Vec<Endpoint>,
    /// The Pods of `absent` that no longer exist.
    pub(super) gone: Vec<Endpoint>,
}

impl Hosts {
    pub(super) fn new(count: usize, absent_pods: AbsentPods) -> Self {
        let (confirm, pods) = (Confirm::new(absent_pods), HashMap::new());
        Self(vec![Host { confirm, pods, absent: HashSet::new(), gone: HashSet::new() }; count].into())
    }

    /// Returns true if there is only one host.
    pub(super) fn is_single(&self) -> bool {
        self.0.len() == 1
    }

    pub(super) fn confirm(&mut self, host: usize) -> &mut Confirm {
        &mut self.0[host].confirm
    }

    /// Returns the Pods of `known` that are Pods of this host, as the host names them.
    pub(super) fn known<'a>(&self, host: usize, known: &'a [(Endpoint, bool)]) -> Cow<'a, [(Endpoint, bool)]> {
        if self.is_single() {
            return known.into();
        }
        let own = |pod: &Endpoint| self.0[host].at(pod.address());
        known.iter().flat_map(|(pod, passes)| own(pod).iter().map(|own| (own.clone(), *passes))).collect()
    }

    /// Applies the decision about the Pods of one host, whose answer was `named`. Returns the Pods of all hosts.
    pub(super) fn apply(
        &mut self,
        host: usize,
        known: &[(Endpoint, bool)],
        named: Vec<Endpoint>,
        decision: Decision,
    ) -> Named {
        let Decision { set, absent, gone, .. } = decision;
        if self.is_single() {
            return Named { set, named, absent, gone };
        }
        self.0[host].pods.clear();
        self.0[host].absent = absent.into_iter().collect();
        self.0[host].gone = gone.into_iter().collect();
        for pod in &set {
            self.0[host].pods.entry(pod.address().clone()).or_default().push(pod.clone());
        }
        // Known Pods that no host names any more are left out. A Pod that is no longer known, because it was drained,
        // returns only with an answer that names it.
        let mut identities: HashMap<&Address, Vec<&Endpoint>> = HashMap::new();
        for (pod, _) in known.iter().filter(|(pod, _)| self.0.iter().any(|host| !host.at(pod.address()).is_empty())) {
            identities.entry(pod.address()).or_default().push(pod);
        }
        for pod in &set {
            identities.entry(pod.address()).or_default();
        }
        let answered: HashSet<_> = named.iter().map(Endpoint::address).collect();
        let mut result = Named { set: Vec::new(), named: Vec::new(), absent: Vec::new(), gone: Vec::new() };
        for (address, known) in identities {
            for pod in self.merged(address, &known) {
                if answered.contains(address) {
                    result.named.push(pod.clone());
                } else if self.all_at(address, |host, pod| host.absent.contains(pod)) {
                    result.absent.push(pod.clone());
                    if self.all_at(address, |host, pod| host.gone.contains(pod)) {
                        result.gone.push(pod.clone());
                    }
                }
                result.set.push(pod);
            }
        }
        result.set.sort_unstable();
        result
    }

    /// Returns the Pods at an address: one, unless only one host names the address and has several names for it.
    /// `known` are the Pods that the pool uses there.
    fn merged(&self, address: &Address, known: &[&Endpoint]) -> Vec<Endpoint> {
        let all = (0..).zip(&self.0).flat_map(|(index, host)| host.at(address).iter().map(move |pod| (index, pod)));
        let all: Vec<(usize, &Endpoint)> = all.collect();
        if all.iter().all(|(index, _)| *index == all[0].0) {
            return all.into_iter().map(|(index, pod)| pod.with_hosts([index])).collect();
        }
        let is_named = |(index, pod): &&(usize, &Endpoint)| !self.0[*index].absent.contains(*pod);
        let named: Vec<_> = all.iter().filter(is_named).collect();
        let named = if named.is_empty() { all.iter().collect() } else { named };
        // Weight and priority are those of the first host.
        let Some((_, first)) = named.first() else { return Vec::new() };
        // Another identity would replace the Pod, so one with another name is adopted only if no host has the old one.
        let is_current =
            |known: &&&Endpoint| known.name() == first.name() || named.iter().any(|(_, pod)| *pod == **known);
        let in_use = known.iter().find(is_current);
        let identity = in_use.copied().unwrap_or(first).with_weight(first.weight()).with_priority(first.priority());
        vec![identity.with_hosts(named.iter().map(|(index, _)| *index))]
    }

    /// Returns true if the address has Pods and `is` returns true for all of them, whichever host names them.
    fn all_at(&self, address: &Address, is: impl Fn(&Host, &Endpoint) -> bool) -> bool {
        let mut pods = self.0.iter().flat_map(|host| host.at(address).iter().map(move |pod| (host, pod))).peekable();
        pods.peek().is_some() && pods.all(|(host, pod)| is(host, pod))
    }

    /// Returns true if the Pod is missing from the latest answers of every host that has named it.
    pub(super) fn is_missing(&self, pod: &Endpoint) -> bool {
        match self.is_single() {
            true => self.0[0].confirm.is_missing(pod),
            false => self.all_at(pod.address(), |host, pod| host.confirm.is_missing(pod)),
        }
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
            let Named { set, absent, .. } = self.0.apply(host, &known, pods.to_vec(), decision);
            self.1.clone_from(&set);
            (set, absent)
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
        let (mut hosts, mut now) = (hosts(3), Instant::now());
        let named = Endpoint::named("pg-0", pod(1).address().tcp().unwrap());
        let other = pod(1).with_alternatives([([10, 0, 9, 1], 5432).into()]);
        hosts.answer(0, now, std::slice::from_ref(&named));
        hosts.answer(1, now, &[pod(1)]);
        let indexes = |set: &[Endpoint]| set[0].host_indexes().collect::<Vec<_>>();
        // Other hosts neither replace the Pod nor remove it, whatever identity they have for it.
        for _ in 0..4 {
            let (set, absent) = hosts.answer(2, now, std::slice::from_ref(&other));
            assert_eq!((&set, absent, indexes(&set)), (&vec![named.clone()], vec![], vec![0, 1, 2]));
            now += Duration::from_secs(6);
        }
        // After the first host names another server, the Pod stays, because it still has the names of the others.
        for _ in 0..4 {
            assert_eq!(hosts.answer(0, now, &[pod(7)]).1, []);
            now += Duration::from_secs(6);
        }
        let set = hosts.1.clone();
        assert_eq!((set.len(), indexes(&set), set[0].name()), (2, vec![1, 2], None));
        assert!(!hosts.0.is_missing(&set[0]));
        // None of them names it.
        for host in [1, 2, 1, 2] {
            hosts.answer(host, now, &[pod(7)]);
            now += Duration::from_secs(6);
        }
        assert_eq!(hosts.answer(1, now, &[pod(7)]).1, [set[0].clone()]);
        assert!(hosts.0.is_missing(&set[0]));
    }

    #[test]
    fn weight_and_priority_of_a_shared_pod_are_those_of_the_first_host() {
        let (mut hosts, now) = (hosts(2), Instant::now());
        hosts.answer(1, now, &[pod(1).with_weight(7).with_priority(3)]);
        let set = hosts.answer(0, now, &[pod(1).with_weight(5)]).0;
        assert_eq!((set[0].weight(), set[0].priority(), set[0].host_index()), (5, 0, 0));
        let set = hosts.answer(0, now, &[pod(1).with_weight(9)]).0;
        assert_eq!((set.len(), set[0].weight()), (1, 9), "a change takes effect immediately");
    }
}
