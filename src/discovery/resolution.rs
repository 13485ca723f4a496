use std::{net::SocketAddr, sync::Arc};

use crate::{endpoint::Endpoint, time::Instant};

/// The answer to one lookup: every Pod that exists.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Resolution {
    /// The Pods, in the order of the answer, which says nothing, and with its duplicates: the pool compares answers as
    /// sets, and sorts none to find that it is the same as the one before. Those of [`Dns`](super::Dns) are sorted and
    /// named once each.
    pub endpoints: Vec<Endpoint>,
    /// Until when the answer holds by its own word (for DNS: the smallest TTL of the records used). The pool asks again
    /// about then, within its own bounds.
    pub valid_until: Instant,
    /// The name server that answered; `None` where no name server is asked.
    pub server: Option<SocketAddr>,
    /// The absolute name that was asked for, with its last dot; `None` where no name is asked for.
    pub name: Option<Arc<str>>,
    /// Whether a part of the answer is an earlier one, kept because this time nothing was heard about it: the addresses
    /// of one family, or the address of an SRV record's target.
    pub partial: bool,
}

impl Resolution {
    /// An answer of these Pods, in any order and with any duplicates.
    #[must_use]
    pub fn new(endpoints: Vec<Endpoint>, valid_until: Instant) -> Self {
        Self { endpoints, valid_until, server: None, name: None, partial: false }
    }
}
