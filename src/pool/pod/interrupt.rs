//! Interrupts work whose deadline has passed: cancels its statement on the server without waiting for it to end.
//!
//! The work has been dropped, so it sends nothing more. The connection is recycled in the background, as after every
//! unfinished use, but the cancel request is sent immediately. The outcome is known as soon as the server has ended the
//! statement, before the connection is cleaned up and used again.

use tokio::select;

use super::{client::Client, recycle};
use crate::{
    error::Applied,
    time::{Duration, Instant},
};

/// Time for which a call waits for the end of the statement that it has cancelled.
const SETTLE_WITHIN: Duration = Duration::from_millis(40);

impl Client {
    /// Cancels the statement in flight and returns the connection to the pool. Returns `Unknown` if the work since the
    /// checkout may have been applied, or if the server does not end the statement in time.
    pub(crate) async fn interrupt(self) -> Applied {
        let shared = self.pod().shared().clone();
        let outcome = recycle::interrupt(self.into_object());
        select! {
            biased;
            applied = outcome => applied.unwrap_or(Applied::Unknown),
            () = shared.alarms.at(Instant::now() + SETTLE_WITHIN) => Applied::Unknown,
        }
    }
}
