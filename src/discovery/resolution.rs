use std::{net::SocketAddr, sync::Arc};

use crate::{endpoint::Endpoint, time::Instant};

/// The result of one lookup: all existing Pods.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Resolution {
    /// The Pods, in any order and possibly with duplicates. The pool compares resolutions as sets and does not sort
    /// them to find out that nothing has changed. [`Dns`](super::Dns) returns them sorted and without duplicates.
    pub endpoints: Vec<Endpoint>,
    /// End of the resolution's validity; for DNS, the smallest TTL of the records used. The pool looks up again at
    /// about this time, within its own bounds.
    pub valid_until: Instant,
    /// Name server that responded. `None` if the source is not a name server.
    pub server: Option<SocketAddr>,
    /// Absolute name that was queried, with its final dot. `None` if the source does not use names.
    pub name: Option<Arc<str>>,
    /// True if a part was kept from an earlier lookup because its query failed this time: the addresses of one family,
    /// or the address of an SRV record's target.
    pub partial: bool,
}

impl Resolution {
    /// Creates a resolution of these Pods, in any order and with any duplicates.
    #[must_use]
    pub fn new(endpoints: Vec<Endpoint>, valid_until: Instant) -> Self {
        Self { endpoints, valid_until, server: None, name: None, partial: false }
    }
}
