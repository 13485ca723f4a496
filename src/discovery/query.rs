//! The input and the result of the queries for one absolute name, shared by A/AAAA and SRV lookups.

use std::{net::SocketAddr, sync::Arc};

use super::nameservers::NameServers;
use crate::{
    endpoint::Endpoint,
    time::{Duration, Instant},
};

/// The name servers, deadline and port of the queries of one lookup.
#[derive(Clone)]
pub(super) struct QueryContext {
    pub(super) servers: Arc<NameServers>,
    /// True while lookups fail. First packets then wait for the rate limit.
    pub(super) throttled: bool,
    pub(super) deadline: Instant,
    pub(super) port: u16,
}

/// The endpoints found for one absolute name.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) ttl: Duration,
    /// The server of the first answer.
    pub(super) server: Option<SocketAddr>,
    /// True if a part is kept from an earlier lookup.
    pub(super) partial: bool,
    /// Number of addresses or targets dropped because there are too many.
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
