//! Detects a Service that is not headless. The name of such a Service resolves to a single address that never changes:
//! the ClusterIP.

use std::net::IpAddr;

use crate::endpoint::Endpoint;

/// A counter of consecutive lookups that returned the same single address. A Service whose lookups always return one
/// address either has one Pod or is not headless.
#[derive(Clone, Debug, Default)]
pub(super) struct SoleAddress {
    address: Option<IpAddr>,
    lookups: u32,
}

impl SoleAddress {
    /// Records the result of a lookup. When `after` lookups in a row have returned the same single address, returns
    /// that address once.
    pub(super) fn observe(&mut self, endpoints: &[Endpoint], after: u32) -> Option<IpAddr> {
        let address = match endpoints {
            [only] => only.address().ip(),
            _ => None,
        };
        if address.is_none() || address != self.address {
            *self = Self { address, lookups: 0 };
        }
        self.lookups = self.lookups.saturating_add(1);
        address.filter(|_| self.lookups == after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_a_single_address_once_after_five_lookups() {
        let pod = |last: u8| Endpoint::new(([10, 0, 0, last], 5432).into());
        let mut sole = SoleAddress::default();
        let mut seen = Vec::new();
        for set in [vec![pod(1)], vec![pod(1), pod(2)], vec![pod(1)], vec![pod(2)]] {
            for _ in 0..20 {
                seen.extend(sole.observe(&set, 5));
            }
        }
        let ip = |last| pod(last).address().ip().unwrap();
        assert_eq!(seen, [ip(1), ip(1), ip(2)]);
    }
}
