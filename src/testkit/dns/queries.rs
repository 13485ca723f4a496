use std::ops::Sub;

/// How many questions a [`DnsServer`](super::DnsServer) received, also those it did not answer. The difference of two
/// readings is what came between them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Queries {
    /// For addresses of IPv4.
    pub a: u64,
    /// For addresses of IPv6.
    pub aaaa: u64,
    /// For services with their ports.
    pub srv: u64,
    /// For anything else.
    pub other: u64,
    /// Those of all of them that came over TCP.
    pub tcp: u64,
}

impl Queries {
    /// All of them, of whatever type.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.a + self.aaaa + self.srv + self.other
    }
}

impl Sub for Queries {
    type Output = Self;

    /// What came since `earlier`, a reading taken before `self`.
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
