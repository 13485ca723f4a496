//! The network between servers, as far as replication and operators use it.

use std::time::Duration;

use tokio::time::sleep;

use crate::spawn::Task;

/// The network between hosts.
pub trait Links: Send + Sync {
    /// Delivers one message. Completes with true when the message has arrived, and with false if the network reports
    /// that the hosts are not connected. A partition that holds data stays pending until it heals, so every caller has
    /// a timeout.
    fn deliver<'a>(&'a self, from: &'a str, to: &'a str) -> Task<'a, bool>;
}

/// A network without faults, whose messages all take the same time.
#[derive(Clone, Copy, Debug)]
pub struct Perfect(pub Duration);

impl Links for Perfect {
    fn deliver<'a>(&'a self, _: &'a str, _: &'a str) -> Task<'a, bool> {
        Box::pin(async {
            sleep(self.0).await;
            true
        })
    }
}
