//! Name servers: CoreDNS with and without its cache, several replicas behind one address, a NodeLocal cache, and
//! faults. No sockets: a name server maps the bytes of a question to the bytes of its answers.
//!
//! ```text
//! Change ─▶ View (one per replica, delayed) ─▶ zone ─▶ Cache ─▶ CoreDns ─▶ Replicas ─▶ NodeLocal ─▶ client
//!                                                               (Faulty wraps any of them)
//! ```

mod cache;
mod coredns;
mod faults;
mod message;
mod node_local;
mod replicas;
mod store;
mod view;
mod zone;

use std::time::Duration;

pub use cache::CacheSettings;
pub use coredns::{CoreDns, CoreDnsSettings};
pub use faults::{Fault, Faulty, Rule};
pub use node_local::NodeLocal;
pub use replicas::Replicas;
use tokio::time::Instant;

#[cfg(test)]
mod tests;

/// How a question arrives. The answer to a question over UDP is truncated to the size that the client accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In one datagram, which may be lost.
    Udp,
    /// On a connection, with any length.
    Tcp,
}

/// The messages that answer a question, each with the time after which the name server sends it. None if the server
/// is silent.
pub type Answers = Vec<(Duration, Vec<u8>)>;

/// Something that answers DNS messages.
pub trait NameServer {
    /// Answers a question that arrives at `now`. `now` never decreases.
    fn answer(&mut self, now: Instant, question: &[u8], transport: Transport) -> Answers;
}

impl<S: NameServer + ?Sized> NameServer for Box<S> {
    fn answer(&mut self, now: Instant, question: &[u8], transport: Transport) -> Answers {
        (**self).answer(now, question, transport)
    }
}
