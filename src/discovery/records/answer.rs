use std::{cmp::Reverse, net::IpAddr};

use hickory_resolver::proto::rr::{Name, rdata::SRV};

use crate::{discovery::error::ResolveErrorKind, time::Duration};

/// The usable part of one DNS response.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Answer {
    /// Addresses from A or AAAA records, sorted and without duplicates.
    pub(crate) addresses: Vec<IpAddr>,
    /// SRV records, sorted, one for each target and port.
    pub(crate) services: Vec<Service>,
    /// Addresses of SRV targets from the additional section, sorted and without duplicates.
    pub(crate) glue: Vec<(Name, IpAddr)>,
    /// Names from PTR records.
    pub(crate) pointers: Vec<Name>,
    /// The CNAME chain that starts at the queried name, in order. The other records of the answer belong to the last
    /// alias. If the answer has no other records, the last alias must be queried next.
    pub(crate) aliases: Vec<Name>,
    /// The smallest TTL of all records used.
    pub(crate) ttl: Duration,
    /// Number of addresses or targets dropped because there are more than [`MAX_ADDRESSES`](super::MAX_ADDRESSES).
    pub(crate) left_out: usize,
}

impl Answer {
    /// Returns true if the answer contains records other than aliases.
    pub(crate) fn has_records(&self) -> bool {
        !(self.addresses.is_empty() && self.services.is_empty() && self.pointers.is_empty())
    }
}

/// One SRV record. The order is that of the target and the port, then of the preference: lowest priority number, then
/// largest weight.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Service {
    pub(crate) target: Name,
    pub(crate) port: u16,
    pub(crate) priority: u16,
    pub(crate) weight: Reverse<u16>,
}

impl Service {
    pub(super) fn new(record: &SRV) -> Self {
        let SRV { priority, weight, port, target, .. } = record;
        Self { target: target.clone(), port: *port, priority: *priority, weight: Reverse(*weight) }
    }

    /// Returns true if both records lead to the same server.
    pub(super) fn is_same_server(&self, other: &Self) -> bool {
        self.target == other.target && self.port == other.port
    }
}

/// The reason why a response has no usable answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Rejection {
    pub(crate) kind: ResolveErrorKind,
    /// Validity of a negative response, if an SOA record specifies it.
    pub(crate) negative_ttl: Option<Duration>,
    /// Details for the error text. Empty if the error kind is specific enough.
    pub(crate) reason: &'static str,
}

impl Rejection {
    pub(crate) fn new(kind: ResolveErrorKind) -> Self {
        Self { kind, negative_ttl: None, reason: "" }
    }

    pub(crate) fn malformed(reason: &'static str) -> Self {
        Self { reason, ..Self::new(ResolveErrorKind::Malformed) }
    }
}
