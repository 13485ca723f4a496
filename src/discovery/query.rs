//! Parameters and results of the queries for one absolute name, for both A/AAAA and SRV lookups.

use std::{net::SocketAddr, sync::Arc};

use super::nameservers::NameServers;
use crate::{
    endpoint::Endpoint,
    time::{Duration, Instant},
};

/// The parameters that the queries of one lookup share.
#[derive(Clone)]
pub(super) struct QueryContext {
    pub(super) servers: Arc<NameServers>,
    /// True while lookups fail. The first packet of each query then waits for the rate limit.
    pub(super) throttled: bool,
    pub(super) deadline: Instant,
    pub(super) port: u16,
}

/// The endpoints found for one absolute name.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) ttl: Duration,
    /// The name server that returned the first answer.
    pub(super) server: Option<SocketAddr>,
    /// True if some endpoints are from an earlier lookup, because a query of this lookup failed.
    pub(super) partial: bool,
    /// Number of addresses or SRV targets that were dropped because a response contains too many of them.
    pub(super) left_out: usize,
}

impl Default for Found {
    fn default() -> Self {
        Self { endpoints: Vec::new(), ttl: Duration::MAX, server: None, partial: false, left_out: 0 }
    }
}

impl Found {
    /// Adds the server and the TTL of one answer.
    pub(super) fn add_answer(&mut self, server: SocketAddr, ttl: Duration, left_out: usize) {
        self.server.get_or_insert(server);
        self.ttl = self.ttl.min(ttl);
        self.left_out += left_out;
    }
}
