//! What changed between the set we have and the set that was named. Pure.

use std::hash::{BuildHasher as _, BuildHasherDefault, Hasher};

use super::Endpoint;

/// The difference between two sets of Pods, each part sorted.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Diff {
    /// Named now and not known before.
    pub(crate) added: Vec<Endpoint>,
    /// KnownSet before and not named any more.
    pub(crate) removed: Vec<Endpoint>,
    /// KnownSet before and named now, with another weight.
    pub(crate) reweighed: Vec<Endpoint>,
}

/// How many parts a set is compared in.
const PARTS: usize = 64;

/// The known set, made to be compared with answers, which come in any order. It is kept in parts, by the Pods' hashes:
/// that a part is the same is told by its fingerprint alone, and only in one that differs each Pod is looked up. So an
/// answer with one change costs little more than one without, which costs a hash a Pod; nothing is sorted but what
/// changed.
#[derive(Debug, Default)]
pub(crate) struct KnownSet {
    parts: Vec<Part>,
    len: usize,
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
    /// The last comparison that named it.
    comparison: u64,
    endpoint: Endpoint,
}

impl KnownSet {
    /// Whether the named Pods are the known ones, each once, in any order.
    pub(crate) fn is(&self, named: &[Endpoint]) -> bool {
        if named.len() != self.len {
            return false;
        }
        let fingerprints = fingerprints(named, |_| {});
        (0..PARTS).all(|part| self.is_same(part, &fingerprints))
    }

    /// Compares with the named Pods, in any order and with any duplicates, which are the known ones from now on.
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
                    // The last one counts, where a Pod is named with two.
                    if pod.endpoint.weight() != endpoint.weight() {
                        pod.endpoint = endpoint.clone();
                        diff.reweighed.push(endpoint.clone());
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
            part.pods.iter().for_each(|pod| part.fingerprint.add(pod.hash, pod.endpoint.weight()));
        }
        self.len = self.len + diff.added.len() - diff.removed.len();
        diff.added.sort_unstable();
        diff.removed.sort_unstable();
        diff
    }

    /// Nobody is known any more.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    fn is_same(&self, part: usize, fingerprints: &[Fingerprint; PARTS]) -> bool {
        self.parts.get(part).map_or(Fingerprint::default(), |part| part.fingerprint) == fingerprints[part]
    }
}

/// The fingerprint of each part of the named Pods. Tells each one's hash.
#[inline]
fn fingerprints(named: &[Endpoint], mut hashed: impl FnMut(u64)) -> [Fingerprint; PARTS] {
    let mut fingerprints = [Fingerprint::default(); PARTS];
    for endpoint in named {
        let hash = hash(endpoint);
        fingerprints[part_of(hash)].add(hash, endpoint.weight());
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

/// Two sums over the Pods' hashes: the same for the same Pods in any order. That two sets that differ have the same one
/// is possible and does not happen: the chance is that of guessing 64 bits at the least. Who could look for such a set
/// on purpose would have to choose the Pods' addresses, and needs no trick then.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Fingerprint(u64, u64);

impl Fingerprint {
    #[inline]
    fn add(&mut self, hash: u64, weight: u16) {
        let other = mix(hash, Mixer::OTHER + u64::from(weight) * 2);
        *self = Self(self.0.wrapping_add(hash), self.1.wrapping_add(other));
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
        let mut known = KnownSet::default();
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
                hashes.insert(hash(&Endpoint::new(address)));
                hashes.insert(hash(&Endpoint::named(format!("postgresql-sfs-{n}"), address)));
            }
        }
        assert_eq!(hashes.len(), 40_000);
    }

    #[test]
    fn another_weight_is_a_change_and_the_same_pod() {
        let pods = endpoints(&(1..200).collect());
        let mut known = KnownSet::default();
        known.replace(&pods);
        let mut named = pods.clone();
        named[7] = named[7].with_weight(3);
        assert!(!known.is(&named));
        let diff = known.replace(&named);
        assert_eq!((diff.added.len(), diff.removed.len(), diff.reweighed.as_slice()), (0, 0, &named[7..8]));
        assert_eq!(diff.reweighed[0].weight(), 3);
        assert!(known.is(&named) && !known.is(&pods));
    }

    proptest! {
        #[test]
        fn what_is_known_less_the_removed_plus_the_added_is_what_is_named(
            before: BTreeSet<u8>, after: BTreeSet<u8>, twice in 0..3usize, turn: usize
        ) {
            let (before, after) = (endpoints(&before), endpoints(&after));
            let mut known = KnownSet::default();
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
