//! The sorted set of members (the Pods in use), and the snapshots that checkouts read. For each pool of the group, each
//! member has a slot with the counters and flags of its Pod, and the slot's number is the Pod's place in the pool's
//! snapshot.
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
    health::candidates::{Eligibility, Lists, candidates},
};

/// An element of [`Members`]: the directory's state of one Pod. Pools are numbered in the order in which they joined.
pub(crate) trait MemberInfo {
    /// The representation of a member in a snapshot.
    type Pod: Clone;

    fn endpoint(&self) -> &Endpoint;
    fn slot(&self, pool: usize) -> &SlotHandle;
    fn eligibility(&self, pool: usize) -> Eligibility;
    fn pod(&self, pool: usize) -> Self::Pod;

    /// Adopts the weight, the priority and the hosts of the same endpoint in a later lookup.
    fn update(&mut self, endpoint: &Endpoint);
}

/// The members, sorted by endpoint.
#[derive(Debug)]
pub(crate) struct Members<M: MemberInfo> {
    members: Vec<M>,
    known: KnownSet,
    /// One for each pool.
    seats: Vec<Seats<M::Pod>>,
}

/// The slots of all members for one pool.
#[derive(Debug)]
struct Seats<P> {
    slab: Slab,
    /// The fields that are needed for every snapshot, in the order of the members. They are stored in a separate
    /// compact array, because reading them from the members would cause cache misses.
    rows: Vec<Row>,
    pods: Places<P>,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    slot: u32,
    weight: u32,
    /// Bit set of the targets for which the member is a candidate.
    targets: u32,
}

impl<P: Clone> Seats<P> {
    fn new() -> Self {
        Self { slab: Slab::default(), rows: Vec::new(), pods: Places::default() }
    }

    fn insert(&mut self, position: usize, slot: u32, weight: u32, pod: P) {
        self.pods.set(slot, Some(pod));
        self.rows.insert(position, Row { slot, weight, targets: 0 });
    }

    fn remove(&mut self, position: usize) {
        self.pods.set(self.rows.remove(position).slot, None);
    }

    fn snapshot(&mut self, lists: &Lists) -> Snapshot<P> {
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
        Snapshot::new(slots, self.pods.clone(), &made, lists.of)
    }
}

impl<M: MemberInfo> Members<M> {
    /// Creates an empty set for one pool.
    pub(crate) fn new() -> Self {
        Self { members: Vec::new(), known: KnownSet::default(), seats: vec![Seats::new()] }
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
    /// with `make`, which gets a slot for each pool. Members that stay are not changed, except for their weights.
    /// Returns the removed members, or `None` if nothing has changed.
    pub(crate) fn replace(
        &mut self,
        named: &[Endpoint],
        mut make: impl FnMut(&Endpoint, &mut dyn Iterator<Item = SlotHandle>) -> M,
    ) -> Option<Vec<M>> {
        let Diff { added, removed, changed } = self.known.replace(named);
        if added.is_empty() && removed.is_empty() && changed.is_empty() {
            return None;
        }
        let mut gone = Vec::with_capacity(removed.len());
        for endpoint in &removed {
            let position = position(&self.members, endpoint);
            self.seats.iter_mut().for_each(|seats| seats.remove(position));
            gone.push(self.members.remove(position));
        }
        for endpoint in &added {
            let position = position(&self.members, endpoint);
            let member = make(endpoint, &mut self.seats.iter_mut().map(|seats| seats.slab.take()));
            for (pool, seats) in self.seats.iter_mut().enumerate() {
                seats.insert(position, member.slot(pool).number(), endpoint.weight().into(), member.pod(pool));
            }
            self.members.insert(position, member);
        }
        for endpoint in &changed {
            let position = position(&self.members, endpoint);
            self.seats.iter_mut().for_each(|seats| seats.rows[position].weight = endpoint.weight().into());
            self.members[position].update(endpoint);
        }
        Some(gone)
    }

    /// Adds a pool. `join` gets each member and a slot, and must make it the member's last one.
    pub(crate) fn add_pool(&mut self, mut join: impl FnMut(&mut M, SlotHandle)) {
        let (pool, mut seats) = (self.seats.len(), Seats::new());
        for (position, member) in self.members.iter_mut().enumerate() {
            join(member, seats.slab.take());
            let weight = member.endpoint().weight().into();
            seats.insert(position, member.slot(pool).number(), weight, member.pod(pool));
        }
        self.seats.push(seats);
    }

    /// Removes a pool. `leave` must remove its slot from each member.
    pub(crate) fn remove_pool(&mut self, pool: usize, leave: impl FnMut(&mut M)) {
        self.seats.remove(pool);
        self.members.iter_mut().for_each(leave);
    }

    /// Returns true if the members are exactly these endpoints.
    pub(crate) fn matches(&self, named: &[Endpoint]) -> bool {
        self.known.matches(named)
    }

    /// Builds the snapshot that the checkouts of a pool read, and updates the targets in each slot. The returned `bool`
    /// is true if no Pod is healthy. Ejected Pods are then used as candidates.
    #[cfg(any(feature = "bench", test))]
    pub(crate) fn snapshot(&mut self, fallback: LagFallback) -> (Snapshot<M::Pod>, bool) {
        let eligibility: Vec<_> = self.members.iter().map(|member| member.eligibility(0)).collect();
        let lists = candidates(&eligibility, fallback);
        (self.seats[0].snapshot(&lists), lists.panic)
    }

    /// Builds the snapshot of each pool, and updates the targets in each slot.
    pub(crate) fn snapshots(&mut self, fallback: LagFallback) -> Vec<Snapshot<M::Pod>> {
        // Usually, the candidates of all pools are the same.
        let mut last: Option<(Vec<Eligibility>, Lists)> = None;
        let snapshot = |(pool, seats): (usize, &mut Seats<M::Pod>)| {
            let eligibility: Vec<_> = self.members.iter().map(|member| member.eligibility(pool)).collect();
            let (_, lists) = match last.take().filter(|(before, _)| *before == eligibility) {
                Some(known) => last.insert(known),
                None => {
                    let lists = candidates(&eligibility, fallback);
                    last.insert((eligibility, lists))
                }
            };
            seats.snapshot(lists)
        };
        self.seats.iter_mut().enumerate().map(snapshot).collect()
    }

    /// Applies `of` to each member, and returns the results in the order of the slots of a pool, which is the order of
    /// the Pods in its snapshot.
    pub(crate) fn in_order_of_slots<T>(&self, pool: usize, of: impl Fn(&M) -> T) -> Vec<T> {
        let rows = self.seats[pool].rows.iter();
        let mut found: Vec<_> = rows.zip(&self.members).map(|(row, m)| (row.slot, of(m))).collect();
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
        slots: Vec<SlotHandle>,
        serial: usize,
    }

    impl MemberInfo for Pod {
        type Pod = usize;

        fn endpoint(&self) -> &Endpoint {
            &self.endpoint
        }

        fn slot(&self, pool: usize) -> &SlotHandle {
            &self.slots[pool]
        }

        fn eligibility(&self, _pool: usize) -> Eligibility {
            Eligibility::unrestricted(State::Healthy, Role::Standby)
        }

        fn pod(&self, _pool: usize) -> usize {
            self.serial
        }

        fn update(&mut self, endpoint: &Endpoint) {
            self.endpoint = endpoint.clone();
        }
    }

    fn named(numbers: &[u8]) -> Vec<Endpoint> {
        numbers.iter().map(|n| Endpoint::new(([10, 0, 0, *n], 5432).into())).collect()
    }

    #[test]
    fn replace_keeps_the_slots_of_remaining_members() {
        let made = Cell::new(0);
        let mut members = Members::new();
        let make = |endpoint: &Endpoint, slots: &mut dyn Iterator<Item = SlotHandle>| {
            made.set(made.get() + 1);
            Pod { endpoint: endpoint.clone(), slots: slots.collect(), serial: made.get() }
        };
        assert!(members.replace(&named(&[2, 4]), make).unwrap().is_empty());
        members.all()[1].slots[0].checkout();
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
        assert_eq!(members.in_order_of_slots(0, |pod| pod.serial), in_order);
        assert!(snapshot.pods().all(|(slot, serial)| {
            members.all().iter().any(|pod| (pod.slots[0].number(), pod.serial) == (slot, *serial))
        }));
        assert!(snapshot.candidates(Target::Primary.index()).is_empty());
        assert!(members.all()[0].slots[0].serves(Target::Any.bit()));
        assert!(!members.all()[0].slots[0].serves(Target::Primary.bit()));
    }

    #[test]
    fn each_pool_has_slots_and_a_snapshot_of_its_own() {
        let mut members = Members::new();
        let make = |endpoint: &Endpoint, slots: &mut dyn Iterator<Item = SlotHandle>| Pod {
            endpoint: endpoint.clone(),
            slots: slots.collect(),
            serial: 0,
        };
        members.replace(&named(&[1, 2]), make);
        members.add_pool(|pod, slot| pod.slots.push(slot));
        members.replace(&named(&[2, 3]), make);
        members.all()[1].slots[1].checkout();
        let in_flight = |members: &mut Members<Pod>| {
            let of = |snapshot: Snapshot<usize>| {
                let standbys = snapshot.candidates(Target::Standby.index()).iter();
                standbys.map(|candidate| snapshot.slots().slot(candidate.slot).in_flight()).collect::<Vec<_>>()
            };
            members.snapshots(LagFallback::Fail).into_iter().map(of).collect::<Vec<_>>()
        };
        assert_eq!(in_flight(&mut members), [[0, 0], [0, 1]]);
        // The first pool leaves.
        members.remove_pool(0, |pod| drop(pod.slots.remove(0)));
        assert_eq!(in_flight(&mut members), [[0, 1]]);
        members.replace(&named(&[3, 4]), make);
        assert_eq!(in_flight(&mut members), [[1, 0]]);
        assert_eq!(members.in_order_of_slots(0, |pod| pod.endpoint.clone()).len(), 2);
    }
}
