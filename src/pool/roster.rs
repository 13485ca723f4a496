//! The Pods in order, each with its slot; from a named set to a snapshot. No task and no I/O, so that what the
//! directory does with an answer can be measured by itself.

use crate::{
    config::{LagFallback, Target},
    endpoint::{
        Endpoint,
        set::{Diff, Known},
        slot::{Slab, SlotHandle},
        snapshot::Snapshot,
    },
    health::candidates::{Facts, candidates},
};

/// What stands in a roster.
pub(crate) trait Member {
    fn endpoint(&self) -> &Endpoint;
    fn slot(&self) -> &SlotHandle;
    fn facts(&self) -> Facts;
}

/// The members, sorted by endpoint.
#[derive(Debug)]
pub(crate) struct Roster<M> {
    slab: Slab,
    members: Vec<M>,
    known: Known,
}

impl<M: Member> Roster<M> {
    /// Nobody.
    pub(crate) fn new() -> Self {
        Self { slab: Slab::default(), members: Vec::new(), known: Known::default() }
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
        if self.known.is(named) {
            return None;
        }
        let Diff { added, removed } = self.known.replace(named);
        if added.is_empty() && removed.is_empty() {
            return None;
        }
        let gone = removed.iter().map(|endpoint| self.members.remove(place(&self.members, endpoint))).collect();
        for endpoint in &added {
            let member = make(endpoint, self.slab.take());
            self.members.insert(place(&self.members, endpoint), member);
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
        std::mem::take(&mut self.members)
    }

    /// The members as a checkout sees them, and whether this is panic. Tells each slot the targets that it serves.
    pub(crate) fn snapshot<P>(&self, fallback: LagFallback, payload: impl Fn(&M) -> P) -> (Snapshot<P>, bool) {
        let count = self.members.len();
        let (mut facts, mut pods, mut numbers) =
            (Vec::with_capacity(count), Vec::with_capacity(count), Vec::with_capacity(count));
        // Once over the members, which lie all over the memory.
        for member in &self.members {
            facts.push(member.facts());
            pods.push(payload(member));
            numbers.push(member.slot().number());
        }
        let lists = candidates(&facts, fallback);
        let mut served = vec![0; count];
        for (i, list) in lists.distinct.iter().enumerate() {
            let targets = Target::ALL.iter().filter(|target| lists.of[target.index()] == i);
            let bits = targets.fold(0, |bits, target| bits | target.bit());
            list.iter().for_each(|&place| served[place as usize] |= bits);
        }
        let slots = self.slab.slots();
        for (number, targets) in numbers.iter().zip(served) {
            slots.slot(*number).set_targets(targets);
        }
        let slot = |place: u32| numbers[place as usize];
        (Snapshot::new(slots, pods, &lists.distinct, lists.of, slot), lists.panic)
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
        fn endpoint(&self) -> &Endpoint {
            &self.endpoint
        }

        fn slot(&self) -> &SlotHandle {
            &self.slot
        }

        fn facts(&self) -> Facts {
            Facts { state: State::Healthy, role: Role::Standby, read_only: false, fenced: false, late: false }
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
        let (snapshot, panic) = roster.snapshot(LagFallback::Fail, |pod| pod.serial);
        assert!(!panic);
        let standby = snapshot.candidates(Target::Standby.index());
        assert_eq!(standby.iter().map(|&candidate| *snapshot.pod(candidate)).collect::<Vec<_>>(), [3, 4, 2]);
        assert_eq!(snapshot.slots().slot(standby[2].slot).in_flight(), 1);
        assert!(snapshot.candidates(Target::Primary.index()).is_empty());
        assert!(roster.members()[0].slot.serves(Target::Any.bit()));
        assert!(!roster.members()[0].slot.serves(Target::Primary.bit()));
    }
}
