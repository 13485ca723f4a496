//! Query counters.

use std::ops::Sub;

/// The number of queries that a [`DnsServer`](super::DnsServer) has received, answered or not.
///
/// Subtract two readings to get the queries between them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Queries {
    /// A queries (IPv4 addresses).
    pub a: u64,
    /// AAAA queries (IPv6 addresses).
    pub aaaa: u64,
    /// SRV queries (names and ports).
    pub srv: u64,
    /// Queries of all other types.
    pub other: u64,
    /// Queries of any type over TCP. They are also counted by type.
    pub tcp: u64,
}

impl Queries {
    /// Returns the number of queries of all types.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.a + self.aaaa + self.srv + self.other
    }
}

impl Sub for Queries {
    type Output = Self;

    /// Returns the queries since `earlier`, a reading taken before `self`.
    fn sub(self, earlier: Self) -> Self {
        Self {
            a: self.a.saturating_sub(earlier.a),
            aaaa: self.aaaa.saturating_sub(earlier.aaaa),
            srv: self.srv.saturating_sub(earlier.srv),
            other: self.other.saturating_sub(earlier.other),
            tcp: self.tcp.saturating_sub(earlier.tcp),
        }
    }
}
