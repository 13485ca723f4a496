use std::net::{IpAddr, SocketAddr};

use super::{Resolution, ResolveError, error::ServerError};
use crate::time::{Duration, Instant};

/// Statistics of a [`Dns`](super::Dns) resolver since its creation.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct DnsStats {
    /// Completed lookups.
    pub lookups: u64,
    /// Completed lookups that ended with NXDOMAIN or NODATA.
    pub negative: u64,
    /// Completed lookups that ended with any other error.
    pub failed: u64,
    /// Negative and failed lookups since the last successful one.
    pub without_answer: u64,
    /// Packets sent over UDP, retransmissions included.
    pub packets: u64,
    /// Time of the last successful lookup.
    pub answered_at: Option<Instant>,
    /// Validity of the last successful lookup: the smallest TTL of its records.
    pub ttl: Option<Duration>,
    /// Number of Pods that the last successful lookup returned.
    pub pods: usize,
    /// The Service's ClusterIP, if the name of the Service resolves only to this address. Such a Service is not
    /// headless, so the pool cannot distinguish its Pods.
    pub cluster_ip: Option<IpAddr>,
    /// Every name server queried so far, in the order in which their first queries ended.
    pub servers: Vec<ServerStats>,
}

/// Statistics of one name server. A query is counted when it ends, but not if it is cancelled because another server
/// responded first.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ServerStats {
    /// Address of the name server.
    pub address: SocketAddr,
    /// Responses with records.
    pub answers: u64,
    /// NXDOMAIN and NODATA responses.
    pub negative: u64,
    /// Errors, timeouts and unusable responses.
    pub failed: u64,
}

impl DnsStats {
    /// Counts a completed lookup.
    pub(super) fn lookup(&mut self, now: Instant, result: &Result<Resolution, ResolveError>) {
        self.lookups += 1;
        match result {
            Ok(resolution) => {
                self.without_answer = 0;
                self.answered_at = Some(now);
                self.ttl = Some(resolution.valid_until.saturating_duration_since(now));
                self.pods = resolution.endpoints.len();
                return;
            }
            Err(error) if error.is_negative() => self.negative += 1,
            Err(_) => self.failed += 1,
        }
        self.without_answer += 1;
    }

    /// Counts a completed query to one name server.
    pub(super) fn server<T>(&mut self, address: SocketAddr, result: Result<T, &ServerError>) {
        let index = self.servers.iter().position(|server| server.address == address).unwrap_or_else(|| {
            self.servers.push(ServerStats { address, answers: 0, negative: 0, failed: 0 });
            self.servers.len() - 1
        });
        let server = &mut self.servers[index];
        match result {
            Ok(_) => server.answers += 1,
            Err(error) if error.kind().is_negative() => server.negative += 1,
            Err(_) => server.failed += 1,
        }
    }
}
