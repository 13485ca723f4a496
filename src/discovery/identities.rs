//! The identities of Pods that several sources know.

use std::collections::HashMap;

use crate::{address::Address, endpoint::Endpoint};

/// Returns the Pods in `found`, each as `known` names the Pod with the same address, if it does. The name of a Pod is
/// part of its identity, so without this the Pod would be replaced whenever another source names it.
pub(super) fn adopt(known: &[Endpoint], found: Vec<Endpoint>) -> Vec<Endpoint> {
    let mut by_address = HashMap::new();
    for pod in known {
        by_address.entry(pod.address().clone()).or_insert(pod);
        for address in pod.alternatives() {
            by_address.entry(Address::from(*address)).or_insert(pod);
        }
    }
    let adopted = found.into_iter().map(|pod| by_address.get(pod.address()).map_or(pod, |&known| known.clone()));
    let mut pods: Vec<_> = adopted.collect();
    pods.sort_unstable();
    pods.dedup();
    pods
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_known_name_of_an_address() {
        let address = |last: u8| std::net::SocketAddr::from(([10, 0, 0, last], 5432));
        let known = [Endpoint::named("pg-0", address(1)).with_alternatives([address(2)])];
        let found = vec![Endpoint::new(address(1)), Endpoint::new(address(2)), Endpoint::new(address(3))];
        assert_eq!(adopt(&known, found), [Endpoint::new(address(3)), known[0].clone()]);
    }
}
