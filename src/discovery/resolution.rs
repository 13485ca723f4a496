use std::{net::SocketAddr, sync::Arc};

use crate::{endpoint::Endpoint, time::Instant};

/// The answer to one lookup: every Pod that exists.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Resolution {
    /// The Pods, sorted and without duplicates: answers come shuffled, so they are compared as sets.
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
    pub fn new(mut endpoints: Vec<Endpoint>, valid_until: Instant) -> Self {
        endpoints.sort_unstable();
        endpoints.dedup();
        Self { endpoints, valid_until, server: None, name: None, partial: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_set() {
        let [a, b] = ["10.0.0.1:5432", "10.0.0.2:5432"].map(|address| Endpoint::new(address.parse().unwrap()));
        let now = Instant::now();
        let one = Resolution::new(vec![b.clone(), a.clone(), b.clone()], now);
        assert_eq!(one.endpoints, [a.clone(), b.clone()]);
        assert_eq!(one, Resolution::new(vec![a, b], now));
    }
}
