//! The fast path of a checkout: takes an idle connection without waiting.
//!
//! The first attempt uses this thread's copy of the published view of the Pods if the copy is current and this thread
//! has verified the pool's clock, and tries only the policy's first choice. If that fails, a second attempt refreshes
//! the copy and the clock and tries all candidates in the policy's order.

use std::{cell::Cell, sync::Arc};

use super::thread_cache::{CacheCell, ClearOnExit, ThreadCache};
use crate::{
    balance::{Rng, select, select_fast},
    config::Target,
    endpoint::snapshot::Candidate,
    pool::{
        inner::Inner,
        pod::{Pod, client::Client, requirement, view::View},
    },
};

thread_local! {
    static LOCAL: CacheCell<View> = const { ThreadCache::cell() };
    static END: ClearOnExit<View> = const { ClearOnExit::of(&LOCAL) };
}

impl Inner {
    /// Drops this thread's copy of the view.
    pub(crate) fn forget(&self) {
        ThreadCache::forget(&LOCAL, &self.published);
    }

    /// Takes an idle connection to a Pod that can serve the target. The connection may need a [ping](Inner::ready).
    ///
    /// Skips a Pod if it can serve a caller that is already waiting, so that waiters are served first.
    #[inline]
    pub(crate) fn try_checkout(&self, target: Target) -> Option<Client> {
        let waiting = self.shared.waiters.waiting();
        let clock = self.shared.clock.now();
        let mut missed_slot = None;
        let take = |pod: &Arc<Pod>| {
            if pod.has_pending_ping() || waiting != 0 && requirement::serves(&pod.slot, waiting) {
                return None;
            }
            let taken = pod.try_take();
            if taken.is_none() {
                missed_slot = Some(pod.slot.number());
            }
            taken
        };
        let first_choice = self.chooser.fast_path().and_then(|policy| {
            ThreadCache::with_current(
                &LOCAL,
                &self.published,
                clock,
                #[inline(always)]
                |View { snapshot, .. }, rng| select_fast(snapshot, target.index(), policy, rng, take),
            )
        });
        first_choice.or_else(|| self.search(target, missed_slot))
    }

    /// Refreshes this thread's copy of the view and tries all candidates in the policy's order. Pods with an overdue
    /// ping come last.
    ///
    /// `missed_slot` is the slot number of a Pod that was chosen before but had no idle connection. If the first choice
    /// has no idle connection but another Pod has one, records a [miss](Pod::miss) for the first choice. If no Pod has
    /// an idle connection, the caller becomes a waiter, and the opener opens a connection for it.
    #[inline(never)]
    fn search(&self, target: Target, missed_slot: Option<u32>) -> Option<Client> {
        let mut missed: Option<Arc<Pod>> = None;
        self.verify_clock();
        let found = ThreadCache::with(&LOCAL, &END, &self.published, |View { snapshot, .. }, rng, scratch| {
            missed = missed_slot.and_then(|slot| snapshot.find(slot)).cloned();
            let waiting = self.shared.waiters.waiting();
            let skipped = Cell::new(false);
            let take_responsive = |pod: &Arc<Pod>| {
                if pod.has_pending_ping() {
                    skipped.set(true);
                    return None;
                }
                if requirement::serves(&pod.slot, waiting) { None } else { pod.try_take() }
            };
            let miss = |pod: &Arc<Pod>| {
                if missed.is_none() && !pod.has_pending_ping() && !requirement::serves(&pod.slot, waiting) {
                    missed = Some(pod.clone());
                }
            };
            let chooser = &self.chooser;
            let taken = select(snapshot, target.index(), chooser, rng, scratch, take_responsive, miss);
            if taken.is_some() || !skipped.get() {
                return taken;
            }
            let take = |pod: &Arc<Pod>| if requirement::serves(&pod.slot, waiting) { None } else { pod.try_take() };
            select(snapshot, target.index(), chooser, rng, scratch, take, |_| {})
        });
        if let (Some(_), Some(missed)) = (&found, missed) {
            missed.miss();
        }
        found
    }

    /// Sets the pool's coarse clock to the current time, unless this thread has already done so in this tick.
    pub(super) fn verify_clock(&self) {
        let clock = &self.shared.clock;
        if !ThreadCache::is_verified(&LOCAL, clock.now()) {
            ThreadCache::set_verified(&LOCAL, clock.verify());
        }
    }

    /// Refreshes this thread's copy of the view and runs `work` on it.
    pub(crate) fn with_view<R>(&self, work: impl FnOnce(&View, &mut Rng, &mut Vec<Candidate>) -> R) -> R {
        ThreadCache::with(&LOCAL, &END, &self.published, work)
    }
}
