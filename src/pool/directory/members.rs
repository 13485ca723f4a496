//! The Pods in order, each with its slot; from a named set to a snapshot. No task and no I/O, so that what the
//! directory does with an answer can be measured by itself.

use crate::{
    config::{LagFallback, Target},
    endpoint::{
        Endpoint,
        set::{Diff, Known},
        slot::{Slab, SlotHandle},
        snapshot::{Candidate, Places, Snapshot},
    },
    health::candidates::{Facts, candidates},
};

/// What stands in a roster.
pub(crate) trait Member {
    /// What a snapshot holds of it.
    type Pod: Clone;

    fn endpoint(&self) -> &Endpoint;
    fn slot(&self) -> &SlotHandle;
    fn facts(&self) -> Facts;
    fn pod(&self) -> Self::Pod;
}

/// The members, sorted by endpoint.
#[derive(Debug)]
pub(crate) struct Roster<M: Member> {
    slab: Slab,
    members: Vec<M>,
    /// What is read of each member for every snapshot, side by side: the members lie all over the memory.
    stands: Vec<Stand>,
    pods: Places<M::Pod>,
    known: Known,
}

#[derive(Clone, Copy, Debug)]
struct Stand {
    slot: u32,
    weight: u32,
    /// The targets that the slot was told it serves.
    targets: u32,
}

impl<M: Member> Roster<M> {
    /// Nobody.
    pub(crate) fn new() -> Self {
        Self {
            slab: Slab::default(),
            members: Vec::new(),
            stands: Vec::new(),
            pods: Places::default(),
            known: Known::default(),
        }
    }

    pub(crate) fn members(&self) -> &[M] {
        &self.members
    }

    /// The member of this endpoint.
    pub(crate) fn get(&self, endpoint: &Endpoint) -> Option<&M> {
        self.members.get(place(&self.members, endpoint)).filter(|member| member.endpoint() == endpoint)
    }

    pub(crate) fn members_mut(&mut self) -> &mut [M] {
        &mut self.members
    }

    /// Makes the set what it is named to be, in any order and with any duplicates. Members that stay are not touched;
    /// those that go are given back, and `make` makes the new ones. `None` where nothing changes.
    pub(crate) fn replace(
        &mut self,
        named: &[Endpoint],
        mut make: impl FnMut(&Endpoint, SlotHandle) -> M,
    ) -> Option<Vec<M>> {
        let Diff { added, removed, reweighed } = self.known.replace(named);
        if added.is_empty() && removed.is_empty() && reweighed.is_empty() {
            return None;
        }
        let mut gone = Vec::with_capacity(removed.len());
        for endpoint in &removed {
            let place = place(&self.members, endpoint);
            self.pods.set(self.stands.remove(place).slot, None);
            gone.push(self.members.remove(place));
        }
        for endpoint in &added {
            let place = place(&self.members, endpoint);
            let member = make(endpoint, self.slab.take());
            let slot = member.slot().number();
            self.pods.set(slot, Some(member.pod()));
            self.stands.insert(place, Stand { slot, weight: endpoint.weight().into(), targets: 0 });
            self.members.insert(place, member);
        }
        for endpoint in &reweighed {
            let place = place(&self.members, endpoint);
            self.stands[place].weight = endpoint.weight().into();
        }
        Some(gone)
    }

    /// Whether exactly these are the members.
    pub(crate) fn is(&self, named: &[Endpoint]) -> bool {
        self.known.is(named)
    }

    /// Everybody goes.
    pub(crate) fn clear(&mut self) -> Vec<M> {
        self.known.clear();
        self.pods = Places::default();
        self.stands.clear();
        std::mem::take(&mut self.members)
    }

    /// The members as a checkout sees them, and whether this is panic. Tells each slot the targets that it serves.
    pub(crate) fn snapshot(&mut self, fallback: LagFallback) -> (Snapshot<M::Pod>, bool) {
        let facts: Vec<_> = self.members.iter().map(Member::facts).collect();
        let lists = candidates(&facts, fallback);
        let mut served = vec![0; self.stands.len()];
        let mut made = Vec::with_capacity(lists.distinct.len());
        let even = self.stands.windows(2).all(|pair| pair[0].weight == pair[1].weight);
        for (i, list) in lists.distinct.iter().enumerate() {
            let targets = Target::ALL.iter().filter(|target| lists.of[target.index()] == i);
            let bits = targets.fold(0, |bits, target| bits | target.bit());
            let candidate = |&place: &u32| {
                served[place as usize] |= bits;
                let stand = self.stands[place as usize];
                Candidate { slot: stand.slot, weight: if even { 1 } else { stand.weight } }
            };
            made.push(list.iter().map(candidate).collect());
        }
        let slots = self.slab.slots();
        for (stand, targets) in self.stands.iter_mut().zip(served) {
            if stand.targets != targets {
                stand.targets = targets;
                slots.slot(stand.slot).set_targets(targets);
            }
        }
        (Snapshot::new(slots, self.pods.clone(), &made, lists.of), lists.panic)
    }

    /// Something of each member, in the order of the snapshot's Pods.
    pub(crate) fn in_order_of_slots<T>(&self, of: impl Fn(&M) -> T) -> Vec<T> {
        let mut found: Vec<_> = self.stands.iter().zip(&self.members).map(|(stand, m)| (stand.slot, of(m))).collect();
        found.sort_unstable_by_key(|(slot, _)| *slot);
        found.into_iter().map(|(_, found)| found).collect()
    }
}

/// Where the endpoint's member stands, or would stand.
fn place<M: Member>(members: &[M], endpoint: &Endpoint) -> usize {
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

    impl Member for Pod {
        type Pod = usize;

        fn endpoint(&self) -> &Endpoint {
            &self.endpoint
        }

        fn slot(&self) -> &SlotHandle {
            &self.slot
        }

        fn facts(&self) -> Facts {
            Facts { state: State::Healthy, role: Role::Standby, read_only: false, fenced: false, late: false }
        }

        fn pod(&self) -> usize {
            self.serial
        }
    }

    fn named(numbers: &[u8]) -> Vec<Endpoint> {
        numbers.iter().map(|n| Endpoint::new(([10, 0, 0, *n], 5432).into())).collect()
    }

    #[test]
    fn who_stays_keeps_slot_and_state_and_the_rest_is_made_or_given_back() {
        let made = Cell::new(0);
        let mut roster = Roster::new();
        let make = |endpoint: &Endpoint, slot| {
            made.set(made.get() + 1);
            Pod { endpoint: endpoint.clone(), slot, serial: made.get() }
        };
        assert!(roster.replace(&named(&[2, 4]), make).unwrap().is_empty());
        roster.members()[1].slot.checkout();
        assert!(roster.replace(&named(&[2, 4]), make).is_none());
        let gone = roster.replace(&named(&[1, 3, 4]), make).unwrap();
        assert_eq!(gone.iter().map(|pod| pod.serial).collect::<Vec<_>>(), [1]);
        assert_eq!(roster.members().iter().map(|pod| pod.serial).collect::<Vec<_>>(), [3, 4, 2]);
        let (snapshot, panic) = roster.snapshot(LagFallback::Fail);
        assert!(!panic);
        let standby = snapshot.candidates(Target::Standby.index());
        assert_eq!(standby.iter().map(|&candidate| *snapshot.pod(candidate)).collect::<Vec<_>>(), [3, 4, 2]);
        assert_eq!(snapshot.slots().slot(standby[2].slot).in_flight(), 1);
        let in_order: Vec<_> = snapshot.pods().map(|(_, serial)| *serial).collect();
        assert_eq!(roster.in_order_of_slots(|pod| pod.serial), in_order);
        assert!(snapshot.pods().all(|(slot, serial)| {
            roster.members().iter().any(|pod| (pod.slot.number(), pod.serial) == (slot, *serial))
        }));
        assert!(snapshot.candidates(Target::Primary.index()).is_empty());
        assert!(roster.members()[0].slot.serves(Target::Any.bit()));
        assert!(!roster.members()[0].slot.serves(Target::Primary.bit()));
    }
}
