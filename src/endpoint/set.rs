//! What changed between the set we have and the set that was named. Pure.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, BuildHasherDefault, Hasher},
};

use super::Endpoint;

/// The difference between two sets of Pods, each part sorted.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Diff {
    /// Named now and not known before.
    pub(crate) added: Vec<Endpoint>,
    /// Known before and not named any more.
    pub(crate) removed: Vec<Endpoint>,
}

/// The known set, made to be compared with answers, which come in any order: one of the same Pods is told by its
/// fingerprint alone, and in any other each Pod is looked up, so that nothing is sorted but what changed.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Each Pod, with the number of the last comparison that named it.
    pods: HashMap<Endpoint, u64, BuildHasherDefault<Mixer>>,
    fingerprint: Fingerprint,
    comparison: u64,
}

impl Known {
    /// Whether the named Pods are the known ones, each once, in any order.
    pub(crate) fn is(&self, named: &[Endpoint]) -> bool {
        let mut fingerprint = Fingerprint::default();
        if named.len() == self.pods.len() {
            named.iter().for_each(|endpoint| fingerprint.add(endpoint));
        }
        named.len() == self.pods.len() && fingerprint == self.fingerprint
    }

    /// Compares with the named Pods, in any order and with any duplicates, which are the known ones from now on.
    pub(crate) fn replace(&mut self, named: &[Endpoint]) -> Diff {
        let mut diff = Diff::default();
        self.comparison += 1;
        for endpoint in named {
            match self.pods.get_mut(endpoint) {
                Some(comparison) => *comparison = self.comparison,
                None => diff.added.push(endpoint.clone()),
            }
        }
        let unnamed = self.pods.iter().filter(|(_, comparison)| **comparison != self.comparison);
        diff.removed.extend(unnamed.map(|(endpoint, _)| endpoint.clone()));
        diff.added.sort_unstable();
        diff.added.dedup();
        diff.removed.sort_unstable();
        for endpoint in &diff.removed {
            self.pods.remove(endpoint);
            self.fingerprint.remove(endpoint);
        }
        for endpoint in &diff.added {
            self.pods.insert(endpoint.clone(), self.comparison);
            self.fingerprint.add(endpoint);
        }
        diff
    }

    /// Nobody is known any more.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Two sums over the Pods' hashes: the same for the same Pods in any order. That two sets that differ have the same one
/// is possible and does not happen: the chance is that of guessing 64 bits at the least. Who could look for such a set
/// on purpose would have to choose the Pods' addresses, and needs no trick then.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Fingerprint(u64, u64);

impl Fingerprint {
    fn of(endpoint: &Endpoint) -> (u64, u64) {
        let hash = BuildHasherDefault::<Mixer>::default().hash_one(endpoint);
        (hash, mix(hash, Mixer::OTHER))
    }

    fn add(&mut self, endpoint: &Endpoint) {
        let (one, other) = Self::of(endpoint);
        *self = Self(self.0.wrapping_add(one), self.1.wrapping_add(other));
    }

    fn remove(&mut self, endpoint: &Endpoint) {
        let (one, other) = Self::of(endpoint);
        *self = Self(self.0.wrapping_sub(one), self.1.wrapping_sub(other));
    }
}

/// A hash of few short pieces: each is mixed in by one multiplication to twice the width. It is for what has been
/// accepted as a Pod already, of which there are a few thousand.
#[derive(Clone, Copy, Debug)]
struct Mixer(u64);

impl Mixer {
    // The first digits of pi, as good as any that have no pattern.
    const START: u64 = 0x243f_6a88_85a3_08d3;
    const EACH: u64 = 0x1319_8a2e_0370_7345;
    const LAST: u64 = 0xa409_3822_299f_31d1;
    const OTHER: u64 = 0x082e_fa98_ec4e_6c89;

    #[inline]
    fn take(&mut self, piece: u64) {
        self.0 = mix(self.0 ^ piece, Self::EACH);
    }
}

impl Default for Mixer {
    fn default() -> Self {
        Self(Self::START)
    }
}

#[inline]
fn mix(one: u64, other: u64) -> u64 {
    let wide = u128::from(one) * u128::from(other);
    wide as u64 ^ (wide >> 64) as u64
}

impl Hasher for Mixer {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let mut pieces = bytes.chunks_exact(8);
        for piece in pieces.by_ref() {
            self.take(u64::from_le_bytes(piece.try_into().expect("eight bytes")));
        }
        let rest = pieces.remainder().iter().fold(0, |rest, byte| rest << 8 | u64::from(*byte));
        self.take(rest << 8 | pieces.remainder().len() as u64);
    }

    #[inline]
    fn write_u8(&mut self, number: u8) {
        self.take(number.into());
    }

    #[inline]
    fn write_u64(&mut self, number: u64) {
        self.take(number);
    }

    #[inline]
    fn write_u128(&mut self, number: u128) {
        self.take(number as u64);
        self.take((number >> 64) as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        mix(self.0, Self::LAST)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn endpoints(numbers: &BTreeSet<u8>) -> Vec<Endpoint> {
        numbers.iter().map(|n| Endpoint::new(([10, 0, 0, *n], 5432).into())).collect()
    }

    #[test]
    fn a_pod_that_moved_is_one_removed_and_one_added() {
        let before = [Endpoint::named("postgresql-sfs-0", "10.0.0.1:5432".parse().unwrap())];
        let after = [Endpoint::named("postgresql-sfs-0", "10.0.0.9:5432".parse().unwrap())];
        let mut known = Known::default();
        known.replace(&before);
        assert!(known.is(&before) && !known.is(&after));
        let diff = known.replace(&after);
        assert_eq!((diff.added, diff.removed), (after.to_vec(), before.to_vec()));
    }

    #[test]
    fn pods_near_each_other_have_hashes_far_from_each_other() {
        let mut hashes = BTreeSet::new();
        for n in 0..10_000u32 {
            for port in [5432, 5433] {
                let address = ((0x0a00_0000 + n).to_be_bytes(), port).into();
                hashes.insert(Fingerprint::of(&Endpoint::new(address)));
                hashes.insert(Fingerprint::of(&Endpoint::named(format!("postgresql-sfs-{n}"), address)));
            }
        }
        assert_eq!(hashes.len(), 40_000);
    }

    proptest! {
        #[test]
        fn what_is_known_less_the_removed_plus_the_added_is_what_is_named(
            before: BTreeSet<u8>, after: BTreeSet<u8>, twice in 0..3usize, turn: usize
        ) {
            let (before, after) = (endpoints(&before), endpoints(&after));
            let mut known = Known::default();
            known.replace(&before);
            // In any order, with some named twice.
            let mut named: Vec<_> = after.iter().chain(after.iter().take(twice)).cloned().collect();
            let length = named.len().max(1);
            named.rotate_left(turn % length);
            prop_assert_eq!(known.is(&named), before == after && named.len() == after.len());
            let diff = known.replace(&named);
            prop_assert_eq!(diff == Diff::default(), before == after);
            let mut result: Vec<_> = before.into_iter().filter(|pod| !diff.removed.contains(pod)).collect();
            result.extend(diff.added);
            result.sort();
            prop_assert_eq!(&result, &after);
            prop_assert!(known.is(&after));
        }
    }
}
