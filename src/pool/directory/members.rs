//! The sorted set of members (the Pods in use), and the snapshot that checkouts read. Each member has a slot with
//! the counters and flags of its Pod, and the slot's number is the Pod's place in the snapshot.
//!
//! [`Members`] starts no tasks and does no I/O, so that a benchmark can measure how long the processing of a lookup
//! result takes.

use crate::{
    config::{LagFallback, Target},
    endpoint::{
        Endpoint,
        set::{Diff, KnownSet},
        slot::{Slab, SlotHandle},
        snapshot::{Candidate, Places, Snapshot},
    },
    health::candidates::{Eligibility, candidates},
};

/// An element of [`Members`]: the directory's state of one Pod.
pub(crate) trait MemberInfo {
    /// The representation of a member in a snapshot.
    type Pod: Clone;

    fn endpoint(&self) -> &Endpoint;
    fn slot(&self) -> &SlotHandle;
    fn eligibility(&self) -> Eligibility;
    fn pod(&self) -> Self::Pod;
}

/// The members, sorted by endpoint.
#[derive(Debug)]
pub(crate) struct Members<M: MemberInfo> {
    slab: Slab,
    members: Vec<M>,
    /// The fields that are needed for every snapshot, in the order of `members`. They are stored in a separate compact
    /// array, because reading them from the members would cause cache misses.
    rows: Vec<Row>,
    pods: Places<M::Pod>,
    known: KnownSet,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    slot: u32,
    weight: u32,
    /// Bit set of the targets for which the member is a candidate.
    targets: u32,
}

impl<M: MemberInfo> Members<M> {
    pub(crate) fn new() -> Self {
        Self {
            slab: Slab::default(),
            members: Vec::new(),
            rows: Vec::new(),
            pods: Places::default(),
            known: KnownSet::default(),
        }
    }

    pub(crate) fn all(&self) -> &[M] {
        &self.members
    }

    /// Returns the member with this endpoint.
    pub(crate) fn get(&self, endpoint: &Endpoint) -> Option<&M> {
        self.members.get(position(&self.members, endpoint)).filter(|member| member.endpoint() == endpoint)
    }

    pub(crate) fn all_mut(&mut self) -> &mut [M] {
        &mut self.members
    }

    /// Replaces the set of members with `named`, which may be unsorted and may contain duplicates. Creates new members
    /// with `make`. Members that stay are not changed, except for their weights. Returns the removed members, or `None`
    /// if nothing has changed.
    pub(crate) fn replace(
        &mut self,
        named: &[Endpoint],
        mut make: impl FnMut(&Endpoint, SlotHandle) -> M,
    ) -> Option<Vec<M>> {
        let Diff { added, removed, reweighted } = self.known.replace(named);
        if added.is_empty() && removed.is_empty() && reweighted.is_empty() {
            return None;
        }
        let mut gone = Vec::with_capacity(removed.len());
        for endpoint in &removed {
            let position = position(&self.members, endpoint);
            self.pods.set(self.rows.remove(position).slot, None);
            gone.push(self.members.remove(position));
        }
        for endpoint in &added {
            let position = position(&self.members, endpoint);
            let member = make(endpoint, self.slab.take());
            let slot = member.slot().number();
            self.pods.set(slot, Some(member.pod()));
            self.rows.insert(position, Row { slot, weight: endpoint.weight().into(), targets: 0 });
            self.members.insert(position, member);
        }
        for endpoint in &reweighted {
            let position = position(&self.members, endpoint);
            self.rows[position].weight = endpoint.weight().into();
        }
        Some(gone)
    }

    /// Returns true if the members are exactly these endpoints.
    pub(crate) fn matches(&self, named: &[Endpoint]) -> bool {
        self.known.matches(named)
    }

    /// Removes and returns all members.
    pub(crate) fn clear(&mut self) -> Vec<M> {
        self.known.clear();
        self.pods = Places::default();
        self.rows.clear();
        std::mem::take(&mut self.members)
    }

    /// Builds the snapshot that checkouts read, and updates the targets in each slot. The returned `bool` is true if no
    /// Pod is healthy. Ejected Pods are then used as candidates.
    pub(crate) fn snapshot(&mut self, fallback: LagFallback) -> (Snapshot<M::Pod>, bool) {
        let eligibility: Vec<_> = self.members.iter().map(MemberInfo::eligibility).collect();
        let lists = candidates(&eligibility, fallback);
        let mut served = vec![0; self.rows.len()];
        let mut made = Vec::with_capacity(lists.distinct.len());
        let even = self.rows.windows(2).all(|pair| pair[0].weight == pair[1].weight);
        for (i, list) in lists.distinct.iter().enumerate() {
            let targets = Target::ALL.iter().filter(|target| lists.of[target.index()] == i);
            let bits = targets.fold(0, |bits, target| bits | target.bit());
            let candidate = |&position: &u32| {
                served[position as usize] |= bits;
                let row = self.rows[position as usize];
                Candidate { slot: row.slot, weight: if even { 1 } else { row.weight } }
            };
            made.push(list.iter().map(candidate).collect());
        }
        let slots = self.slab.slots();
        for (row, targets) in self.rows.iter_mut().zip(served) {
            if row.targets != targets {
                row.targets = targets;
                slots.slot(row.slot).set_targets(targets);
            }
        }
        (Snapshot::new(slots, self.pods.clone(), &made, lists.of), lists.panic)
    }

    /// Applies `of` to each member, and returns the results in the order of the slots, which is the order of the Pods
    /// in a snapshot.
    pub(crate) fn in_order_of_slots<T>(&self, of: impl Fn(&M) -> T) -> Vec<T> {
        let mut found: Vec<_> = self.rows.iter().zip(&self.members).map(|(row, m)| (row.slot, of(m))).collect();
        found.sort_unstable_by_key(|(slot, _)| *slot);
        found.into_iter().map(|(_, found)| found).collect()
    }
}

/// Returns the position of the member with this endpoint, or the position at which to insert it.
fn position<M: MemberInfo>(members: &[M], endpoint: &Endpoint) -> usize {
    members.partition_point(|member| member.endpoint() < endpoint)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::{endpoint::Role, health::State};

    struct Pod {
        endpoint: Endpoint,
        slot: SlotHandle,
        serial: usize,
    }

    impl MemberInfo for Pod {
        type Pod = usize;

        fn endpoint(&self) -> &Endpoint {
            &self.endpoint
        }

        fn slot(&self) -> &SlotHandle {
            &self.slot
        }

        fn eligibility(&self) -> Eligibility {
            Eligibility::unrestricted(State::Healthy, Role::Standby)
        }

        fn pod(&self) -> usize {
            self.serial
        }
    }

    fn named(numbers: &[u8]) -> Vec<Endpoint> {
        numbers.iter().map(|n| Endpoint::new(([10, 0, 0, *n], 5432).into())).collect()
    }

    #[test]
    fn replace_keeps_the_slots_of_remaining_members() {
        let made = Cell::new(0);
        let mut members = Members::new();
        let make = |endpoint: &Endpoint, slot| {
            made.set(made.get() + 1);
            Pod { endpoint: endpoint.clone(), slot, serial: made.get() }
        };
        assert!(members.replace(&named(&[2, 4]), make).unwrap().is_empty());
        members.all()[1].slot.checkout();
        assert!(members.replace(&named(&[2, 4]), make).is_none());
        let gone = members.replace(&named(&[1, 3, 4]), make).unwrap();
        assert_eq!(gone.iter().map(|pod| pod.serial).collect::<Vec<_>>(), [1]);
        assert_eq!(members.all().iter().map(|pod| pod.serial).collect::<Vec<_>>(), [3, 4, 2]);
        let (snapshot, no_healthy_pod) = members.snapshot(LagFallback::Fail);
        assert!(!no_healthy_pod);
        let standby = snapshot.candidates(Target::Standby.index());
        assert_eq!(standby.iter().map(|&candidate| *snapshot.pod(candidate)).collect::<Vec<_>>(), [3, 4, 2]);
        assert_eq!(snapshot.slots().slot(standby[2].slot).in_flight(), 1);
        let in_order: Vec<_> = snapshot.pods().map(|(_, serial)| *serial).collect();
        assert_eq!(members.in_order_of_slots(|pod| pod.serial), in_order);
        assert!(snapshot.pods().all(|(slot, serial)| {
            members.all().iter().any(|pod| (pod.slot.number(), pod.serial) == (slot, *serial))
        }));
        assert!(snapshot.candidates(Target::Primary.index()).is_empty());
        assert!(members.all()[0].slot.serves(Target::Any.bit()));
        assert!(!members.all()[0].slot.serves(Target::Primary.bit()));
    }
}
