//! Recognizes the addresses of dual-stack Pods.
//!
//! A dual-stack Pod has an IPv4 and an IPv6 address (Kubernetes, "IPv4/IPv6 dual-stack"). DNS returns the addresses of
//! each family in a separate answer, so the answers do not show which of them belong to the same Pod. Two addresses
//! lead to the same server if the server reports the same [`Identity`] on both. Of the two families, only one is used
//! for each server, so that a Pod gets one share of the traffic and of the connections. The addresses of the other
//! family are alternatives: they are probed, and one of them is used as soon as no address of the used family can be.
//!
//! Several addresses of one family that lead to the same server are not merged. They belong to different connection
//! poolers in front of the server, each of which has connections of its own.

use std::collections::BTreeMap;

/// The identity of a running server: the system identifier of its cluster, and its start time. Standbys have the system
/// identifier of their primary, and a restarted server has another start time.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Identity {
    pub(crate) system: u64,
    pub(crate) started: u64,
}

/// The degree to which an address can be used. A greater value is preferred.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Usability {
    /// The address has not passed its last probes.
    Failing,
    /// The address is healthy, but absent from DNS.
    Absent,
    /// The address is healthy, and DNS names it.
    Named,
}

/// The properties of one address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    /// The server that answered the last passed probe. `None` if the server has not reported its identity.
    pub(crate) identity: Option<Identity>,
    pub(crate) is_ipv6: bool,
    pub(crate) usability: Usability,
    /// True if the last decision was to use another address instead.
    pub(crate) is_alternative: bool,
    /// True if callers are served over this address at present.
    pub(crate) in_use: bool,
}

/// Returns, for each alternative address, the index of the address that is used instead. Returns `None` for each
/// address that is not an alternative. Of two families that are equally usable, the one that was chosen before stays
/// chosen. At the first decision, the family in use is chosen, and IPv4 if both or none are.
pub(crate) fn alternatives(addresses: &[Address]) -> Vec<Option<usize>> {
    let mut result = vec![None; addresses.len()];
    let mut servers: BTreeMap<Identity, [Vec<usize>; 2]> = BTreeMap::new();
    for (index, address) in addresses.iter().enumerate() {
        if let Some(identity) = address.identity {
            servers.entry(identity).or_default()[usize::from(address.is_ipv6)].push(index);
        }
    }
    for families in servers.values().filter(|families| families.iter().all(|family| !family.is_empty())) {
        let rank = |family: &[usize]| {
            let best = family.iter().map(|&index| addresses[index].usability).max();
            let any = |is: fn(&Address) -> bool| family.iter().any(|&index| is(&addresses[index]));
            (best, any(|address| !address.is_alternative), any(|address| address.in_use))
        };
        let [ipv4, ipv6] = families;
        let (used, other) = if rank(ipv6) > rank(ipv4) { (ipv6, ipv4) } else { (ipv4, ipv6) };
        let first = used.iter().copied().rev().max_by_key(|&index| addresses[index].usability);
        other.iter().for_each(|&index| result[index] = first);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSING: Address = address(1, false);

    const fn address(started: u64, is_ipv6: bool) -> Address {
        let identity = Some(Identity { system: 7, started });
        Address { identity, is_ipv6, usability: Usability::Named, is_alternative: false, in_use: false }
    }

    #[test]
    fn uses_one_family_of_each_server() {
        let addresses = [address(1, false), address(2, false), address(2, true), address(1, true)];
        assert_eq!(alternatives(&addresses), [None, None, Some(1), Some(0)]);
        assert_eq!(alternatives(&addresses[..2]), [None, None], "one family");
        let unknown = Address { identity: None, ..PASSING };
        assert_eq!(alternatives(&[unknown, Address { is_ipv6: true, ..unknown }]), [None, None], "no identity");
    }

    #[test]
    fn keeps_the_family_in_use_while_it_is_usable() {
        let (ipv4, ipv6) = (address(1, false), Address { in_use: true, ..address(1, true) });
        assert_eq!(alternatives(&[ipv4, ipv6]), [Some(1), None]);
        assert_eq!(alternatives(&[Address { in_use: true, ..ipv4 }, ipv6]), [None, Some(0)]);
        let failing = |address| Address { usability: Usability::Failing, ..address };
        let absent = |address| Address { usability: Usability::Absent, ..address };
        assert_eq!(alternatives(&[ipv4, failing(ipv6)]), [None, Some(0)]);
        assert_eq!(alternatives(&[ipv4, absent(ipv6)]), [None, Some(0)]);
        assert_eq!(alternatives(&[absent(ipv4), failing(ipv6)]), [None, Some(0)]);
        assert_eq!(alternatives(&[failing(ipv4), failing(ipv6)]), [Some(1), None]);
        // A Pod that is suspect or late serves no callers.
        let ipv4 = Address { is_alternative: true, ..ipv4 };
        assert_eq!(alternatives(&[ipv4, Address { in_use: false, ..ipv6 }]), [Some(1), None]);
    }

    #[test]
    fn does_not_merge_poolers_of_one_server() {
        assert_eq!(alternatives(&[PASSING, PASSING, PASSING]), [None, None, None]);
        let failing = Address { usability: Usability::Failing, ..PASSING };
        assert_eq!(alternatives(&[failing, PASSING, address(1, true)]), [None, None, Some(1)]);
    }
}
