//! A connection that is idle: of the Pod that is drawn, or by looking around.

use std::{cell::Cell, sync::Arc};

use super::thread_cache::{CacheCell, ClearOnExit, ThreadCache};
use crate::{
    balance::{Rng, select, select_at_once},
    config::Target,
    endpoint::snapshot::Candidate,
    pool::{
        inner::Inner,
        pod::{Pod, client::Client, view::View},
    },
    time::Instant,
};

/// What a checkout does about Pods that are [mute](Pod::has_pending_ping).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum PingPending {
    /// Takes one where no other has anything idle.
    Last,
    /// Leaves them alone: a ping is on its way there already, and its answer comes to the queue. Where there is no other
    /// Pod, a new connection is opened after this moment: it may be the old one that is dead.
    Never(Instant),
}

thread_local! {
    static LOCAL: CacheCell<View> = const { ThreadCache::place() };
    static END: ClearOnExit<View> = const { ClearOnExit::of(&LOCAL) };
}

impl Inner {
    /// Lets this thread's copy go.
    pub(crate) fn forget(&self) {
        ThreadCache::forget(&LOCAL, &self.published);
    }

    /// A connection, if a fitting Pod has an idle one. It may have to be [made ready](Inner::ready). `missed` hears of
    /// the first choice, if that has none. Nothing is looked for where others wait for every Pod that fits: what comes back
    /// there is theirs.
    #[inline]
    pub(crate) fn try_checkout(&self, target: Target, missed: impl Fn(&Arc<Pod>)) -> Option<Client> {
        let mut told = false;
        let take = |pod: &Arc<Pod>| {
            let speaks = !pod.has_pending_ping();
            let taken = if speaks { pod.try_take() } else { None };
            if speaks && taken.is_none() {
                told = true;
                missed(pod);
            }
            taken
        };
        let at_once = self.chooser.quick().and_then(|policy| {
            ThreadCache::at_once(
                &LOCAL,
                &self.published,
                #[inline(always)]
                |View { snapshot, .. }, rng| select_at_once(snapshot, target.index(), policy, rng, take),
            )
        });
        at_once.or_else(|| self.look_around(target, told, missed))
    }

    /// The same where the one that is drawn does not do, or the thread's copy is not up to date.
    #[inline(never)]
    fn look_around(&self, target: Target, told: bool, missed: impl Fn(&Arc<Pod>)) -> Option<Client> {
        ThreadCache::with(&LOCAL, &END, &self.published, |view, rng, rest| {
            let candidates = view.snapshot.candidates(target.index());
            if candidates.iter().all(|candidate| view.snapshot.slots().slot(candidate.slot).is_waited()) {
                return None;
            }
            let missed = |pod: &Arc<Pod>| {
                if !told {
                    missed(pod);
                }
            };
            self.take_idle(view, target, PingPending::Last, rng, rest, missed)
        })
    }

    /// The idle connection of a Pod of this view, in the policy's order.
    pub(crate) fn take_idle(
        &self,
        View { snapshot, .. }: &View,
        target: Target,
        mute: PingPending,
        rng: &mut Rng,
        rest: &mut Vec<Candidate>,
        missed: impl FnOnce(&Arc<Pod>),
    ) -> Option<Client> {
        let passed_by = Cell::new(false);
        let speaking = |pod: &Arc<Pod>| {
            if pod.has_pending_ping() {
                passed_by.set(true);
                return None;
            }
            pod.try_take()
        };
        let missed = |pod: &Arc<Pod>| {
            if !pod.has_pending_ping() {
                missed(pod);
            }
        };
        let taken = select(snapshot, target.index(), &self.chooser, rng, rest, speaking, missed);
        if taken.is_some() || mute != PingPending::Last || !passed_by.get() {
            return taken;
        }
        select(snapshot, target.index(), &self.chooser, rng, rest, |pod: &Arc<Pod>| pod.try_take(), |_| {})
    }

    /// Runs `work` on this thread's copy of the view, with random numbers and scratch space.
    pub(crate) fn with_view<R>(&self, work: impl FnOnce(&View, &mut Rng, &mut Vec<Candidate>) -> R) -> R {
        ThreadCache::with(&LOCAL, &END, &self.published, work)
    }
}
