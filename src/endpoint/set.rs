//! What changed between the set we have and the set that was named. Pure.

use super::Endpoint;

/// The difference between two sets of Pods.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Diff {
    /// Named now and not known before.
    pub(crate) added: Vec<Endpoint>,
    /// Positions in the known set that are not named any more, ascending.
    pub(crate) removed: Vec<usize>,
}

impl Diff {
    /// Whether the sets are the same.
    pub(crate) fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

/// Compares the known set, sorted, with a named one, sorted and without duplicates.
pub(crate) fn diff<'a>(known: impl ExactSizeIterator<Item = &'a Endpoint>, named: &[Endpoint]) -> Diff {
    let mut diff = Diff::default();
    let mut named = named.iter().peekable();
    for (position, endpoint) in known.enumerate() {
        while let Some(added) = named.next_if(|named| *named < endpoint) {
            diff.added.push(added.clone());
        }
        if named.next_if(|named| *named == endpoint).is_none() {
            diff.removed.push(position);
        }
    }
    diff.added.extend(named.cloned());
    diff
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
        let known = [Endpoint::named("postgresql-sfs-0", "10.0.0.1:5432".parse().unwrap())];
        let named = [Endpoint::named("postgresql-sfs-0", "10.0.0.9:5432".parse().unwrap())];
        let diff = diff(known.iter(), &named);
        assert_eq!((diff.added, diff.removed), (named.to_vec(), vec![0]));
    }

    proptest! {
        #[test]
        fn what_is_known_less_the_removed_plus_the_added_is_what_is_named(
            known: BTreeSet<u8>, named: BTreeSet<u8>
        ) {
            let (before, after) = (endpoints(&known), endpoints(&named));
            let diff = diff(before.iter(), &after);
            prop_assert_eq!(diff.is_empty(), known == named);
            let mut result: Vec<_> =
                before.iter().enumerate().filter(|(i, _)| !diff.removed.contains(i)).map(|(_, e)| e.clone()).collect();
            result.extend(diff.added);
            result.sort();
            prop_assert_eq!(result, after);
        }
    }
}
