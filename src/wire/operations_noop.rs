//! Replaces the module `operations` in builds without the feature `otel`. The types have the same interface and do
//! nothing.

/// Replacement for `operations::OperationObserver` that receives nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct OperationObserver {}

/// Replacement for `operations::Operations` that measures nothing.
#[derive(Debug, Default)]
pub(super) struct Operations {}

impl Operations {
    #[inline]
    pub(super) fn observe(&mut self, _observer: OperationObserver) {}

    #[inline]
    pub(super) fn set_counts(&mut self, _counts: impl FnOnce() -> bool) {}

    #[inline]
    pub(super) fn written(&mut self, _number: u64, _executed: u32) {}

    #[inline]
    pub(super) fn copies(&mut self, _number: u64) {}

    #[inline]
    pub(super) fn failed(&mut self, _sqlstate: [u8; 5]) {}

    #[inline]
    pub(super) fn completed(&mut self, _number: u64) {}
}
