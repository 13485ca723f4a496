//! Several name servers behind one virtual address.

use tokio::time::Instant;

use super::{Answers, CoreDns, NameServer, Transport};
use crate::kubernetes::Change;

/// The Service of the name servers: each question goes to a random replica, as each has a port of its own and
/// kube-proxy chooses by connection.
pub struct Replicas {
    replicas: Vec<CoreDns>,
    random: fastrand::Rng,
}

impl Replicas {
    /// Creates the Service of these replicas, at least one.
    pub fn new(replicas: Vec<CoreDns>, random: fastrand::Rng) -> Self {
        assert!(!replicas.is_empty(), "a Service of name servers has at least one replica");
        Self { replicas, random }
    }

    /// Takes a change that the API server makes at `now`. Each replica sees it after a delay of its own.
    pub fn observe(&mut self, now: Instant, change: &Change) {
        for replica in &mut self.replicas {
            replica.observe(now, change.clone());
        }
    }

    /// Takes that the API server goes away or comes back at `now`, for all replicas.
    pub fn set_available(&mut self, now: Instant, available: bool) {
        for replica in &mut self.replicas {
            replica.set_available(now, available);
        }
    }

    /// Returns the number of replicas.
    #[expect(clippy::len_without_is_empty, reason = "there is at least one replica")]
    pub fn len(&self) -> usize {
        self.replicas.len()
    }

    /// Returns a replica, for faults that concern it alone.
    pub fn replica(&mut self, index: usize) -> &mut CoreDns {
        &mut self.replicas[index]
    }
}

impl NameServer for Replicas {
    fn answer(&mut self, now: Instant, question: &[u8], transport: Transport) -> Answers {
        let index = self.random.usize(..self.replicas.len());
        self.replicas[index].answer(now, question, transport)
    }
}
