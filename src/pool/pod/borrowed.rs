//! An idle connection that the prober uses for one probe.

use std::ops::Deref;

use deadpool::unmanaged::Object;
use tokio::time::timeout;

use super::{Pod, conn::Conn, requirement, reset};
use crate::{
    config::Limits,
    sync::{Mutex, lock},
    time::Instant,
};

/// The time since which a Pod's prober uses an idle connection. `None` if it uses none. The lock is held while the
/// connection is taken and returned, so that no count of the idle connections misses it.
#[derive(Debug, Default)]
pub(crate) struct BorrowedSince(Mutex<Option<Instant>>);

/// An idle connection that is in use by the prober. It counts as idle, not as checked out. Dropping the guard closes
/// the connection, because a probe may be unanswered.
#[derive(Debug)]
pub(crate) struct Borrowed(Option<Object<Box<Conn>>>);

/// The reason why the guard has a connection until it ends.
const BORROWED: &str = "the connection is taken only by a method that ends the guard";

impl Borrowed {
    /// Returns the connection to the idle ones, or closes it if it cannot be reused. Its idle time continues. All
    /// responses must have arrived.
    pub(crate) async fn give_back(self) {
        // The driver may not have finished the poll in which it has delivered the last response.
        drop(timeout(Limits::RECYCLE_GRACE, self.record.wait_until_idle()).await);
        self.end();
    }

    fn end(mut self) {
        let Some(mut object) = self.0.take() else { return };
        // The probe has changed no session state, so the requests that it has sent require no reset.
        object.sent_at_reset = object.record.sent();
        object.record.set_probing(false);
        object.pod().clone().end_borrowing(object);
    }
}

impl Pod {
    /// Takes an idle connection for a probe, unless callers are waiting. Returns `None` if there is none. Only the
    /// Pod's prober calls this, and it borrows one connection at a time.
    pub(crate) fn borrow_idle(&self) -> Option<Borrowed> {
        while !requirement::serves(&self.slot, self.shared.waiters.waiting()) {
            let mut since = lock(&self.borrowed.0);
            let object = self.idle.try_get().ok()?;
            if object.is_current() && object.record.is_clean() && !reset::is_due(&object) {
                *since = Some(Instant::now());
                object.record.set_probing(true);
                return Some(Borrowed(Some(object)));
            }
            drop(since); // closing a connection wakes the opener
            self.discard(object);
        }
        None
    }

    /// Closes idle connections that have ended, until one is found that has not.
    pub(crate) fn discard_ended(&self) {
        if let Some(idle) = self.borrow_idle() {
            idle.end();
        }
    }

    /// Ends the use of an idle connection by a probe.
    fn end_borrowing(&self, object: Object<Box<Conn>>) {
        if object.is_reusable(self.shared.clock.now()) && object.record.is_clean() {
            let mut since = lock(&self.borrowed.0);
            drop(object); // adds it to the idle connections
            *since = None;
        } else {
            self.close_borrowed(object);
        }
        self.on_check_in(self.slot.flags());
    }

    fn close_borrowed(&self, object: Object<Box<Conn>>) {
        *lock(&self.borrowed.0) = None;
        self.discard(object);
    }

    /// Returns the time since which a probe uses an idle connection.
    pub(crate) fn borrowed_since(&self) -> Option<Instant> {
        *lock(&self.borrowed.0)
    }

    /// Returns the number of idle connections, including the one that a probe uses.
    pub(crate) fn idle(&self) -> usize {
        let since = lock(&self.borrowed.0);
        self.idle.status().available + usize::from(since.is_some())
    }
}

impl Deref for Borrowed {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        self.0.as_ref().expect(BORROWED)
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            let pod = object.pod().clone();
            pod.close_borrowed(object);
        }
    }
}
