use std::{
    fmt,
    marker::PhantomData,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::error::Phase;

/// What a count can be divided by: a few labels.
pub(crate) trait Label: Copy + 'static {
    /// Every word, at its place.
    #[cfg(any(feature = "metrics", test))]
    const ALL: &[Self];

    /// The word's place.
    fn place(self) -> usize;

    /// The word itself.
    #[cfg(any(feature = "metrics", test))]
    fn label(self) -> &'static str;
}

/// The most labels that there are of one sort.
const LABELS: usize = 8;

/// A count for each word.
pub(crate) struct LabelledCounter<W>([AtomicU64; LABELS], PhantomData<W>);

// Relaxed: plain counters.
impl<W: Label> LabelledCounter<W> {
    /// Counts one more.
    pub(crate) fn count(&self, word: W) {
        self.0[word.place()].fetch_add(1, Ordering::Relaxed);
    }

    /// Every word with its count.
    #[cfg(feature = "metrics")]
    pub(crate) fn read(&self) -> impl Iterator<Item = (&'static str, u64)> {
        W::ALL.iter().map(|word| (word.label(), self.0[word.place()].load(Ordering::Relaxed)))
    }
}

impl<W> Default for LabelledCounter<W> {
    fn default() -> Self {
        Self(Default::default(), PhantomData)
    }
}

impl<W> fmt::Debug for LabelledCounter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LabelledCounter").field(&self.0).finish()
    }
}

impl Label for Phase {
    #[cfg(any(feature = "metrics", test))]
    const ALL: &[Self] = &Phase::ALL;

    fn place(self) -> usize {
        self as usize
    }

    #[cfg(any(feature = "metrics", test))]
    fn label(self) -> &'static str {
        self.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::super::conn::Reason;
    use super::*;

    fn check<W: Label>() {
        assert!(W::ALL.len() <= LABELS);
        for (place, word) in W::ALL.iter().enumerate() {
            assert_eq!(word.place(), place, "{}", word.label());
        }
    }

    #[test]
    fn every_word_has_a_place_of_its_own() {
        check::<Phase>();
        check::<Reason>();
    }
}
