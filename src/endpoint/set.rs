//! Computes the changes between the known set of Pods and a new set from discovery. This module performs no I/O and
//! uses no clock.

use std::hash::{BuildHasher as _, BuildHasherDefault, Hasher};

use super::Endpoint;

/// The difference between two sets of Pods. `added` and `removed` are sorted.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Diff {
    /// Pods that only the new set contains.
    pub(crate) added: Vec<Endpoint>,
    /// Pods that only the old set contains.
    pub(crate) removed: Vec<Endpoint>,
    /// Pods that both sets contain with different weights, priorities or hosts. The entries have the new ones.
    pub(crate) changed: Vec<Endpoint>,
}

/// Number of parts into which a set is divided. The parts are compared separately.
const PARTS: usize = 64;

/// The known set of Pods, in a form that is cheap to compare with DNS responses, which list the Pods in any order.
///
/// The Pods are partitioned by their hashes, and each part has a [`Fingerprint`]. Parts with equal fingerprints are
/// considered equal; Pods are looked up only in the other parts. A response without changes costs one hash per Pod, and
/// a response with one change costs little more. Only the changes are sorted.
#[derive(Debug, Default)]
pub(crate) struct KnownSet {
    /// Empty until the first [`replace`](Self::replace).
    parts: Vec<Part>,
    /// The number of known Pods.
    len: usize,
    /// The number of comparisons that found a change.
    comparison: u64,
}

#[derive(Clone, Debug, Default)]
struct Part {
    fingerprint: Fingerprint,
    pods: Vec<Pod>,
}

#[derive(Clone, Debug)]
struct Pod {
    hash: u64,
    /// The number of the last comparison whose new set contained this Pod.
    comparison: u64,
    endpoint: Endpoint,
}

impl KnownSet {
    /// Returns true if `named` contains exactly the known Pods, in any order, each once and with its known weight,
    /// priority and hosts.
    pub(crate) fn matches(&self, named: &[Endpoint]) -> bool {
        if named.len() != self.len {
            return false;
        }
        let fingerprints = fingerprints(named, |_| {});
        (0..PARTS).all(|part| self.is_same(part, &fingerprints))
    }

    /// Replaces the known set with `named`, which may be in any order and contain duplicates. Returns the changes.
    pub(crate) fn replace(&mut self, named: &[Endpoint]) -> Diff {
        let mut diff = Diff::default();
        let mut hashes = Vec::with_capacity(named.len());
        let fingerprints = fingerprints(named, |hash| hashes.push(hash));
        let same: [bool; PARTS] = std::array::from_fn(|part| self.is_same(part, &fingerprints));
        if same == [true; PARTS] {
            return diff;
        }
        self.comparison += 1;
        self.parts.resize_with(PARTS, Part::default);
        for (endpoint, hash) in named.iter().zip(hashes).filter(|(_, hash)| !same[part_of(*hash)]) {
            let pods = &mut self.parts[part_of(hash)].pods;
            match pods.iter_mut().find(|pod| pod.hash == hash && pod.endpoint == *endpoint) {
                Some(pod) => {
                    // If the new set lists a Pod several times with different weights, the last weight takes effect.
                    if !pod.endpoint.has_same_details(endpoint) {
                        pod.endpoint = endpoint.clone();
                        diff.changed.push(endpoint.clone());
                    }
                    pod.comparison = self.comparison;
                }
                None => {
                    diff.added.push(endpoint.clone());
                    pods.push(Pod { hash, comparison: self.comparison, endpoint: endpoint.clone() });
                }
            }
        }
        let changed = self.parts.iter_mut().zip(same).filter(|(_, same)| !same);
        for (part, _) in changed {
            part.pods.retain(|pod| {
                let named = pod.comparison == self.comparison;
                if !named {
                    diff.removed.push(pod.endpoint.clone());
                }
                named
            });
            part.fingerprint = Fingerprint::default();
            part.pods.iter().for_each(|pod| part.fingerprint.add(pod.hash, &pod.endpoint));
        }
        self.len = self.len + diff.added.len() - diff.removed.len();
        diff.added.sort_unstable();
        diff.removed.sort_unstable();
        diff
    }

    fn is_same(&self, part: usize, fingerprints: &[Fingerprint; PARTS]) -> bool {
        self.parts.get(part).map_or(Fingerprint::default(), |part| part.fingerprint) == fingerprints[part]
    }
}

/// Returns the fingerprint of each part of `named`. Passes the hash of each Pod to `hashed`, in order.
#[inline]
fn fingerprints(named: &[Endpoint], mut hashed: impl FnMut(u64)) -> [Fingerprint; PARTS] {
    let mut fingerprints = [Fingerprint::default(); PARTS];
    for endpoint in named {
        let hash = hash(endpoint);
        fingerprints[part_of(hash)].add(hash, endpoint);
        hashed(hash);
    }
    fingerprints
}

#[inline]
fn hash(endpoint: &Endpoint) -> u64 {
    BuildHasherDefault::<Mixer>::default().hash_one(endpoint)
}

#[inline]
fn part_of(hash: u64) -> usize {
    hash as usize % PARTS
}

/// A fingerprint of one part of a set: two sums over the hashes of its Pods, which do not depend on the order of the
/// Pods.
///
/// Two different sets collide with a probability of at most 2^-64. To provoke a collision, an attacker would have to
/// choose the Pods' addresses, and could then redirect the traffic anyway.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Fingerprint(u64, u64);

impl Fingerprint {
    #[inline]
    fn add(&mut self, hash: u64, endpoint: &Endpoint) {
        let other = mix(hash, Mixer::OTHER.wrapping_add(endpoint.details_number() << 1));
        *self = Self(self.0.wrapping_add(hash), self.1.wrapping_add(other));
    }
}

/// A hasher for a few short values. As in wyhash, the hash is multiplied for each value, and the two halves of the
/// product are combined.
///
/// The hash is not keyed, because the number of Pods in a set is limited: collisions cannot make a comparison
/// expensive.
#[derive(Clone, Copy, Debug)]
struct Mixer(u64);

impl Mixer {
    // Digits of pi, because they have no pattern.
    const START: u64 = 0x243f_6a88_85a3_08d3;
    const EACH: u64 = 0x1319_8a2e_0370_7345;
    const LAST: u64 = 0xa409_3822_299f_31d1;
    const OTHER: u64 = 0x082e_fa98_ec4e_6c89;

    #[inline]
    fn add(&mut self, value: u64) {
        self.0 = mix(self.0 ^ value, Self::EACH);
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
        let mut words = bytes.chunks_exact(8);
        for word in words.by_ref() {
            self.add(u64::from_le_bytes(word.try_into().expect("eight bytes")));
        }
        let rest = words.remainder().iter().fold(0, |rest, byte| rest << 8 | u64::from(*byte));
        self.add(rest << 8 | words.remainder().len() as u64);
    }

    #[inline]
    fn write_u8(&mut self, number: u8) {
        self.add(number.into());
    }

    #[inline]
    fn write_u64(&mut self, number: u64) {
        self.add(number);
    }

    #[inline]
    fn write_u128(&mut self, number: u128) {
        self.add(number as u64);
        self.add((number >> 64) as u64);
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
    fn a_pod_with_a_new_address_is_removed_and_added() {
        let before = [Endpoint::named("postgresql-sfs-0", "10.0.0.1:5432".parse().unwrap())];
        let after = [Endpoint::named("postgresql-sfs-0", "10.0.0.9:5432".parse().unwrap())];
        let mut known = KnownSet::default();
        known.replace(&before);
        assert!(known.matches(&before) && !known.matches(&after));
        let diff = known.replace(&after);
        assert_eq!((diff.added, diff.removed), (after.to_vec(), before.to_vec()));
    }

    #[test]
    fn other_alternative_addresses_replace_the_pod() {
        let server =
            |last: u8| Endpoint::new(([10, 0, 0, 1], 5432).into()).with_alternatives([([10, 0, 0, last], 5432).into()]);
        let mut known = KnownSet::default();
        known.replace(&[server(7)]);
        assert!(known.matches(&[server(7)]) && !known.matches(&[server(8)]));
        let diff = known.replace(&[server(8)]);
        assert_eq!((diff.added, diff.removed), (vec![server(8)], vec![server(7)]));
    }

    #[test]
    fn similar_pods_have_different_hashes() {
        let mut hashes = BTreeSet::new();
        for n in 0..10_000u32 {
            for port in [5432, 5433] {
                let address = ((0x0a00_0000 + n).to_be_bytes(), port).into();
                hashes.insert(hash(&Endpoint::new(address)));
                hashes.insert(hash(&Endpoint::named(format!("postgresql-sfs-{n}"), address)));
            }
        }
        assert_eq!(hashes.len(), 40_000);
    }

    #[test]
    fn a_changed_weight_priority_or_host_does_not_replace_the_pod() {
        let pods = endpoints(&(1..200).collect());
        let changes: [fn(&Endpoint) -> Endpoint; 4] = [
            |pod| pod.with_weight(3),
            |pod| pod.with_priority(3),
            |pod| pod.with_hosts([1]),
            |pod| pod.with_hosts([0, 99]),
        ];
        for change in changes {
            let mut known = KnownSet::default();
            known.replace(&pods);
            let mut named = pods.clone();
            named[7] = change(&named[7]);
            assert!(!known.matches(&named));
            let diff = known.replace(&named);
            assert_eq!((diff.added.len(), diff.removed.len(), diff.changed.as_slice()), (0, 0, &named[7..8]));
            assert!(diff.changed[0].has_same_details(&named[7]) && !diff.changed[0].has_same_details(&pods[7]));
            assert!(known.matches(&named) && !known.matches(&pods));
        }
    }

    proptest! {
        #[test]
        fn applying_the_diff_to_the_old_set_results_in_the_new_set(
            before: BTreeSet<u8>, after: BTreeSet<u8>, twice in 0..3usize, turn: usize
        ) {
            let (before, after) = (endpoints(&before), endpoints(&after));
            let mut known = KnownSet::default();
            known.replace(&before);
            // List the Pods of the new set in another order and with duplicates.
            let mut named: Vec<_> = after.iter().chain(after.iter().take(twice)).cloned().collect();
            let length = named.len().max(1);
            named.rotate_left(turn % length);
            prop_assert_eq!(known.matches(&named), before == after && named.len() == after.len());
            let diff = known.replace(&named);
            prop_assert_eq!(diff == Diff::default(), before == after);
            let mut result: Vec<_> = before.into_iter().filter(|pod| !diff.removed.contains(pod)).collect();
            result.extend(diff.added);
            result.sort();
            prop_assert_eq!(&result, &after);
            prop_assert!(known.matches(&after));
        }
    }
}
