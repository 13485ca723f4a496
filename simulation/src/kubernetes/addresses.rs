//! Addresses of Pods.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::service::Family;

/// Whether an address of a Pod that is gone can belong to a new Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// The next address is one that no Pod has had.
    Never,
    /// The next address is the lowest that no Pod has.
    Lowest,
}

/// The addresses of the cluster.
#[derive(Clone, Debug)]
pub(super) struct Addresses {
    reuse: Reuse,
    /// Host parts that are in use.
    used: BTreeSet<u16>,
    /// The host part after the highest one that was ever in use.
    next: u16,
}

impl Addresses {
    /// The first host part. Lower ones belong to nodes and Services.
    const FIRST: u16 = 10;

    pub(super) fn new(reuse: Reuse) -> Self {
        Self { reuse, used: BTreeSet::new(), next: Self::FIRST }
    }

    /// Takes an address of each family, with the same host part.
    pub(super) fn take(&mut self, families: &[Family]) -> Vec<IpAddr> {
        let free = (Self::FIRST..self.next).find(|part| self.reuse == Reuse::Lowest && !self.used.contains(part));
        let part = free.unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        self.used.insert(part);
        let [high, low] = part.to_be_bytes();
        families
            .iter()
            .map(|family| match family {
                Family::V4 => IpAddr::V4(Ipv4Addr::new(10, 78, high + 1, low)),
                Family::V6 => IpAddr::V6(Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 1, part)),
            })
            .collect()
    }

    /// Releases the addresses of a Pod that is gone.
    pub(super) fn release(&mut self, addresses: &[IpAddr]) {
        for address in addresses {
            let part = match address {
                IpAddr::V4(address) => {
                    let [.., high, low] = address.octets();
                    u16::from_be_bytes([high - 1, low])
                }
                IpAddr::V6(address) => address.segments()[7],
            };
            self.used.remove(&part);
        }
    }
}
