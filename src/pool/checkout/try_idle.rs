//! The fast path of a checkout: takes an idle connection without waiting.
//!
//! The first attempt uses this thread's copy of the view if the copy is current, and only the policy's first choice. If
//! that finds nothing, a second attempt refreshes the copy and tries all candidates in the policy's order.

use std::{cell::Cell, sync::Arc};

use super::thread_cache::{CacheCell, ClearOnExit, ThreadCache};
use crate::{
    balance::{Rng, select, select_fast},
    config::Target,
    endpoint::snapshot::Candidate,
    pool::{
        inner::Inner,
        pod::{Pod, client::Client, view::View},
    },
    time::Instant,
};

/// The treatment of Pods with a [pending ping](Pod::has_pending_ping).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum PendingPings {
    /// Uses such a Pod if no other Pod has an idle connection.
    LastResort,
    /// Does not use such a Pod: its ping may still be answered, and the connection then comes to the queue. Without
    /// another Pod, a new connection is opened after `open_after`, because only the pinged connection may be dead.
    Avoid { open_after: Instant },
}

thread_local! {
    static LOCAL: CacheCell<View> = const { ThreadCache::cell() };
    static END: ClearOnExit<View> = const { ClearOnExit::of(&LOCAL) };
}

impl Inner {
    /// Drops this thread's copy of the view.
    pub(crate) fn forget(&self) {
        ThreadCache::forget(&LOCAL, &self.published);
    }

    /// Takes an idle connection of a Pod that fits the target. The caller may have to [ping](Inner::ready) it.
    ///
    /// Calls `missed` with the policy's first choice if that Pod has no idle connection. Returns `None` without a
    /// search if callers already wait for every fitting Pod: returned connections are theirs.
    #[inline]
    pub(crate) fn try_checkout(&self, target: Target, missed: impl Fn(&Arc<Pod>)) -> Option<Client> {
        let mut has_missed = false;
        let take = |pod: &Arc<Pod>| {
            let responsive = !pod.has_pending_ping();
            let taken = if responsive { pod.try_take() } else { None };
            if responsive && taken.is_none() {
                has_missed = true;
                missed(pod);
            }
            taken
        };
        let first_choice = self.chooser.fast_path().and_then(|policy| {
            ThreadCache::with_current(
                &LOCAL,
                &self.published,
                #[inline(always)]
                |View { snapshot, .. }, rng| select_fast(snapshot, target.index(), policy, rng, take),
            )
        });
        first_choice.or_else(|| self.search(target, has_missed, missed))
    }

    /// Tries all candidates on a refreshed copy of the view.
    #[inline(never)]
    fn search(&self, target: Target, has_missed: bool, missed: impl Fn(&Arc<Pod>)) -> Option<Client> {
        ThreadCache::with(&LOCAL, &END, &self.published, |view, rng, scratch| {
            let candidates = view.snapshot.candidates(target.index());
            if candidates.iter().all(|candidate| view.snapshot.slots().slot(candidate.slot).has_waiters()) {
                return None;
            }
            let missed = |pod: &Arc<Pod>| {
                if !has_missed {
                    missed(pod);
                }
            };
            self.take_idle(view, target, PendingPings::LastResort, rng, scratch, missed)
        })
    }

    /// Takes an idle connection of a Pod of this view, in the policy's order.
    pub(crate) fn take_idle(
        &self,
        View { snapshot, .. }: &View,
        target: Target,
        pending_pings: PendingPings,
        rng: &mut Rng,
        scratch: &mut Vec<Candidate>,
        missed: impl FnOnce(&Arc<Pod>),
    ) -> Option<Client> {
        let skipped = Cell::new(false);
        let take_responsive = |pod: &Arc<Pod>| {
            if pod.has_pending_ping() {
                skipped.set(true);
                return None;
            }
            pod.try_take()
        };
        let missed = |pod: &Arc<Pod>| {
            if !pod.has_pending_ping() {
                missed(pod);
            }
        };
        let taken = select(snapshot, target.index(), &self.chooser, rng, scratch, take_responsive, missed);
        if taken.is_some() || pending_pings != PendingPings::LastResort || !skipped.get() {
            return taken;
        }
        select(snapshot, target.index(), &self.chooser, rng, scratch, |pod: &Arc<Pod>| pod.try_take(), |_| {})
    }

    /// Runs `work` on this thread's refreshed copy of the view, with random numbers and scratch space.
    pub(crate) fn with_view<R>(&self, work: impl FnOnce(&View, &mut Rng, &mut Vec<Candidate>) -> R) -> R {
        ThreadCache::with(&LOCAL, &END, &self.published, work)
    }
}
