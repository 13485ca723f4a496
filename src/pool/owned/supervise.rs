//! The task that supervises one connection that belongs to the application. It holds the connection's permit until the
//! socket is closed.

use std::sync::Arc;

use tokio::{select, task::JoinHandle};

use super::connection::Owned;
use crate::{
    pool::pod::conn::{Permit, Reason},
    wire::record::RecordOwner,
};

/// A supervised connection. If the task is dropped, because the runtime shuts down, the driver ends too.
pub(super) struct Supervised {
    pub(super) owned: Arc<Owned>,
    pub(super) record: RecordOwner,
    pub(super) driver: JoinHandle<()>,
    /// Dropped last: the permit is released after the connection has been closed.
    pub(super) permit: Permit,
}

/// Waits until the connection has ended. Closes it when it is clean, once the pool requires this.
pub(super) async fn supervise(supervised: Supervised) {
    let Supervised { owned, record, mut driver, permit } = supervised;
    loop {
        select! {
            biased;
            _ = &mut driver => break, // the driver does not panic, and may be aborted
            () = record.wait_until_clean(), if owned.closes_when_clean() => {
                driver.abort();
                drop(driver.await); // the driver may have ended before
                break;
            }
            () = owned.changed.notified() => {}
        }
    }
    let reason = owned.reason().unwrap_or(if record.is_released() { Reason::Released } else { Reason::Ended });
    permit.shared().counters.closed_for.increment(reason);
    drop(record);
    drop(permit);
}
