use std::{net::SocketAddr, sync::Arc};

use super::Authority;
use crate::{endpoint::Endpoint, time::Instant};

/// The result of one lookup: all existing Pods.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Resolution {
    /// The Pods, in any order. Duplicates are allowed. [`Dns`](super::Dns) returns the Pods sorted, without duplicates.
    pub endpoints: Vec<Endpoint>,
    /// Time at which the resolution expires. For DNS, this is when the smallest TTL of its records expires. The pool
    /// looks up the Pods again at about this time, within its own bounds.
    pub valid_until: Instant,
    /// Name server that returned the addresses. `None` if the source is not DNS.
    pub server: Option<SocketAddr>,
    /// Absolute name that was queried, with its final dot. `None` if the source does not use names.
    pub name: Option<Arc<str>>,
    /// True if some addresses are from an earlier lookup because a query of this lookup failed: the addresses of one
    /// address family, or the addresses of some SRV targets.
    pub partial: bool,
    /// The meaning of the absence of a known Pod from `endpoints`. The default is [`Authority::Tentative`].
    pub authority: Authority,
    /// Pods that still exist but must not get new work, because they are terminating or not ready, in any order. Used
    /// only with [`Authority::Exact`]. An unknown Pod in this list is ignored.
    pub leaving: Vec<Endpoint>,
}

impl Resolution {
    /// Creates a resolution that contains these Pods, in any order. Duplicates are allowed.
    #[must_use]
    pub fn new(endpoints: Vec<Endpoint>, valid_until: Instant) -> Self {
        Self {
            endpoints,
            valid_until,
            server: None,
            name: None,
            partial: false,
            authority: Authority::default(),
            leaving: Vec::new(),
        }
    }
}
