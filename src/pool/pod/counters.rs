//! A counter that is split by the value of a label. The label has a fixed set of values.

pub(crate) mod ejections;

use std::{
    fmt,
    marker::PhantomData,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::error::Phase;

/// An enum whose variants are the values of a metric label.
pub(crate) trait Label: Copy + 'static {
    /// All values, each at its [index](Self::index).
    #[cfg(any(feature = "_metrics", test))]
    const ALL: &[Self];

    /// Returns the value's index in [`LabelledCounter`].
    fn index(self) -> usize;

    /// Returns the value as it appears in metrics.
    #[cfg(any(feature = "_metrics", test))]
    fn label(self) -> &'static str;
}

/// Maximum number of values of a label. A test checks that every label stays within it.
const VALUES: usize = 12;

/// One counter for each value of the label `L`.
pub(crate) struct LabelledCounter<L>([AtomicU64; VALUES], PhantomData<L>);

// Relaxed: the counters guard no other data.
impl<L: Label> LabelledCounter<L> {
    /// Increments the count for one value.
    pub(crate) fn increment(&self, value: L) {
        self.0[value.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the count for one value.
    pub(crate) fn get(&self, value: L) -> u64 {
        self.0[value.index()].load(Ordering::Relaxed)
    }

    /// Returns the sum over all values.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|counter| counter.load(Ordering::Relaxed)).sum()
    }

    /// Returns each value's name with its count.
    #[cfg(feature = "_metrics")]
    pub(crate) fn read(&self) -> impl Iterator<Item = (&'static str, u64)> {
        L::ALL.iter().map(|value| (value.label(), self.get(*value)))
    }
}

impl<L> Default for LabelledCounter<L> {
    fn default() -> Self {
        Self(Default::default(), PhantomData)
    }
}

impl<L> fmt::Debug for LabelledCounter<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LabelledCounter").field(&self.0).finish()
    }
}

impl Label for Phase {
    #[cfg(any(feature = "_metrics", test))]
    const ALL: &[Self] = &Phase::ALL;

    fn index(self) -> usize {
        self as usize
    }

    #[cfg(any(feature = "_metrics", test))]
    fn label(self) -> &'static str {
        self.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::conn::Reason, *};

    fn check<L: Label>() {
        assert!(L::ALL.len() <= VALUES);
        for (index, value) in L::ALL.iter().enumerate() {
            assert_eq!(value.index(), index, "{}", value.label());
        }
    }

    #[test]
    fn every_label_value_has_its_own_index_within_the_maximum() {
        check::<Phase>();
        check::<Reason>();
    }
}
