//! The simulated Pods and connections. They use the real wait queue, slots and connection limit.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use crate::{
    endpoint::slot::SlotHandle,
    pool::pod::{connection_limit::ConnectionLimit, last_failure::LastFailure, wait_queue::WaitQueue},
    time::Instant,
};

/// The guard of a checked-out connection. Like `Client`, it returns the connection when it is dropped.
pub(super) struct Conn {
    pub(super) core: Rc<Core>,
    pub(super) pod: Rc<Pod>,
    /// True if the connection was taken out of the guard, so that dropping the guard no longer returns it.
    pub(super) taken: bool,
}

pub(super) struct Pod {
    pub(super) slot: SlotHandle,
    pub(super) idle: Cell<usize>,
    pub(super) open: Cell<usize>,
    /// Maximum of `open`: the Pod's share of the pool's connection limit, but not more than [`POD_SIZE`].
    pub(super) size: Cell<usize>,
    pub(super) closed: Cell<bool>,
    pub(super) failure: RefCell<LastFailure>,
    /// Start and end times of the dials in progress.
    pub(super) dials: RefCell<Vec<(Instant, Instant)>>,
    /// Duration of a dial in milliseconds, and a flag that is true if dials succeed.
    pub(super) dial: Cell<(u64, bool)>,
    /// True if a connection was handed to a caller after the Pod was closed.
    pub(super) violated: Cell<bool>,
}

pub(super) struct Core {
    pub(super) queue: WaitQueue<Conn>,
    pub(super) limit: ConnectionLimit,
}

impl Conn {
    pub(super) fn check_out(core: &Rc<Core>, pod: &Rc<Pod>) -> Option<Self> {
        let idle = pod.idle.get().checked_sub(1)?;
        pod.idle.set(idle);
        pod.slot.checkout();
        Some(Self { core: core.clone(), pod: pod.clone(), taken: false })
    }

    /// Returns the connection like a dropped `Client`: calls `Pod::check_in`, or `Pod::close_checked_out` if the Pod
    /// has more connections than its maximum.
    pub(super) fn check_in(self) {
        let (core, pod) = (self.core.clone(), self.pod.clone());
        let mut conn = Some(self);
        let is_over_size = pod.open.get() > pod.size.get();
        if !is_over_size && pod.slot.serves(core.queue.waiting()) {
            let Some(guard) = conn.take() else { return };
            match core.queue.hand_over(&pod.slot, guard) {
                None => return pod.violated.set(pod.violated.get() | pod.closed.get()),
                Some(guard) => conn = Some(guard),
            }
        }
        if let Some(guard) = &mut conn {
            guard.taken = true;
        }
        if is_over_size {
            pod.open.set(pod.open.get() - 1);
            core.limit.release();
        } else {
            pod.idle.set(pod.idle.get() + 1);
        }
        let flags = pod.slot.checkin();
        core.on_check_in(&pod, flags.closed(), flags.has_waiters());
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        if !std::mem::replace(&mut self.taken, true) {
            let again = Self { core: self.core.clone(), pod: self.pod.clone(), taken: false };
            again.check_in();
        }
    }
}

impl Core {
    pub(super) fn on_check_in(self: &Rc<Self>, pod: &Rc<Pod>, closed: bool, has_waiters: bool) {
        if closed {
            self.close_idle(pod);
        } else if has_waiters {
            self.queue.serve(&pod.slot, || Conn::check_out(self, pod));
        }
    }

    pub(super) fn close_idle(&self, pod: &Pod) {
        for _ in 0..pod.idle.replace(0) {
            pod.open.set(pod.open.get() - 1);
            self.limit.release();
        }
    }
}
