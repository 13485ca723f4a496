use std::net::IpAddr;

use crate::endpoint::Endpoint;

/// At which lookup in a row with one and the same address the name is looked into.
const TIMES: u32 = 5;

/// Notices a name that has a single address which does not change: a Service of one Pod, or one that is not headless.
#[derive(Clone, Debug, Default)]
pub(super) struct SoleAddress {
    address: Option<IpAddr>,
    times: u32,
}

impl SoleAddress {
    /// Takes an answer. The address to look into, once for each that stays.
    pub(super) fn observe(&mut self, endpoints: &[Endpoint]) -> Option<IpAddr> {
        let address = match endpoints {
            [only] => Some(only.address().ip()),
            _ => None,
        };
        if address.is_none() || address != self.address {
            *self = Self { address, times: 0 };
        }
        self.times = self.times.saturating_add(1);
        address.filter(|_| self.times == TIMES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_stays_alone_is_looked_into_once() {
        let pod = |last: u8| Endpoint::new(([10, 0, 0, last], 5432).into());
        let mut sole = SoleAddress::default();
        let mut seen = Vec::new();
        for set in [vec![pod(1)], vec![pod(1), pod(2)], vec![pod(1)], vec![pod(2)]] {
            for _ in 0..20 {
                seen.extend(sole.observe(&set));
            }
        }
        let ip = |last| pod(last).address().ip();
        assert_eq!(seen, [ip(1), ip(1), ip(2)]);
    }
}
