//! An idle connection that the prober uses for one probe.

use std::ops::Deref;

use deadpool::unmanaged::Object;

use super::{Pod, conn::Conn, reset};

/// An idle connection that is in use by the prober. It is not counted as checked out. Dropping the guard closes the
/// connection, because a probe may be unanswered.
#[derive(Debug)]
pub(crate) struct Borrowed(Option<Object<Box<Conn>>>);

/// The reason why the guard has a connection until it ends.
const BORROWED: &str = "the connection is taken only by a method that ends the guard";

impl Borrowed {
    /// Returns the connection to the idle ones, or closes it if it cannot be reused. Its idle time continues.
    pub(crate) fn give_back(mut self) {
        let Some(mut object) = self.0.take() else { return };
        // The probe has changed no session state, so the requests that it has sent require no reset.
        object.sent_at_reset = object.record.sent();
        object.pod().clone().end_borrowing(object);
    }
}

impl Pod {
    /// Takes an idle connection for a probe, unless callers are waiting. Returns `None` if there is none.
    pub(crate) fn borrow_idle(&self) -> Option<Borrowed> {
        while !self.slot.serves(self.shared.waiters.waiting()) {
            let object = self.idle.try_get().ok()?;
            if object.is_current() && object.record.is_clean() && !reset::is_due(&object) {
                return Some(Borrowed(Some(object)));
            }
            self.discard(object);
        }
        None
    }

    /// Ends the use of an idle connection by a probe.
    fn end_borrowing(&self, object: Object<Box<Conn>>) {
        if object.is_reusable(self.shared.clock.now()) && object.record.is_clean() {
            drop(object); // adds it to the idle connections
        } else {
            self.discard(object);
        }
        self.on_check_in(self.slot.flags());
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
            pod.discard(object);
        }
    }
}
