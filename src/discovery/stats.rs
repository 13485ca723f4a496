use std::net::{IpAddr, SocketAddr};

use super::{Resolution, ResolveError, error::ServerError};
use crate::time::{Duration, Instant};

/// What a [`Dns`](super::Dns) has done since the beginning.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct DnsStats {
    /// Lookups that ended.
    pub lookups: u64,
    /// Of these, how many ended with NXDOMAIN or NODATA.
    pub negative: u64,
    /// Of these, how many ended with an error.
    pub failed: u64,
    /// Lookups in a row, up to the last one, that brought no answer.
    pub without_answer: u64,
    /// Packets sent by UDP, repeats included.
    pub packets: u64,
    /// When the last answer came; its age is the age of what is known.
    pub answered_at: Option<Instant>,
    /// The TTL of the last answer.
    pub ttl: Option<Duration>,
    /// How many Pods the last answer told of.
    pub pods: usize,
    /// The Service's own address (its ClusterIP), where the name turned out to have no other: such a Service is not
    /// headless, and its Pods cannot be told apart.
    pub cluster_ip: Option<IpAddr>,
    /// Each name server that was asked, in the order they were first asked.
    pub servers: Vec<ServerStats>,
}

/// What one name server answered. A question to it is counted when it ends; one that is given up because another
/// server was faster is not counted.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ServerStats {
    /// The name server.
    pub address: SocketAddr,
    /// Answers with records.
    pub answers: u64,
    /// Answers of NXDOMAIN or NODATA.
    pub negative: u64,
    /// Errors, silence and answers that could not be used.
    pub failed: u64,
}

impl DnsStats {
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
