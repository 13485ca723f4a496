//! A Pod that passes its probes stays in use until its absence is confirmed.
//!
//! `docs/architecture.md`: "its absence must be confirmed by a response that is obtained after the first response's TTL
//! has expired, or after 5 s, whichever is sooner".

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use super::{
    bounds,
    history::{Event, History, Standing},
    violation::{Violation, Violations},
};
use crate::adversary::{DnsCache, Topology};

/// Shortest time after which a second answer is obtained. `discovery/confirm.rs`.
const RECHECK: Duration = Duration::from_secs(1);
/// Time for which a Pod must have passed its probes before it was missing, so that its absence is certainly measured
/// from the same answer.
const SETTLED: Duration = Duration::from_secs(1);

/// An address that passes its probes.
struct Passing {
    since: Duration,
    /// The first and the last of the answers without it.
    absent: Option<(Duration, Duration)>,
}

pub(super) fn check(name: &'static str, history: &History) -> Vec<Violation> {
    let mut violations = Violations::of(name);
    let least = least(&history.plan.topology);
    let mut passing: BTreeMap<(u32, SocketAddr), Passing> = BTreeMap::new();
    for record in &history.records {
        match &record.event {
            Event::Health { client, address, healthy: true } => {
                let fresh = Passing { since: record.at, absent: None };
                passing.entry((*client, *address)).or_insert(fresh);
            }
            Event::Health { client, address, healthy: false } => drop(passing.remove(&(*client, *address))),
            Event::Resolved { client, addresses, .. } => {
                for ((_, address), pod) in passing.iter_mut().filter(|((other, _), _)| other == client) {
                    pod.absent = match pod.absent {
                        _ if addresses.contains(address) => None,
                        Some((first, _)) => Some((first, record.at)),
                        None => Some((record.at, record.at)),
                    };
                }
            }
            Event::Standing { client, address, standing: Standing::Detached } => {
                let Some(Passing { since, absent: Some((first, last)) }) = passing.get(&(*client, *address)) else {
                    continue;
                };
                let took = last.saturating_sub(*first);
                if *since + SETTLED < *first && took + bounds::TOLERANCE < least {
                    let (took, least) = (took.as_millis(), least.as_millis());
                    let text =
                        format!("client {client} detached {address}, whose absence was confirmed after {took} ms");
                    violations.add(record.at, format!("{text}, expected at least {least} ms"));
                }
            }
            _ => {}
        }
    }
    violations.found()
}

/// Returns the shortest time in which an absence can be confirmed. The answer of a cache may be about to expire.
fn least(topology: &Topology) -> Duration {
    let lifetime = if topology.dns_cache == DnsCache::None { u64::from(topology.ttl) } else { 0 };
    Duration::from_secs(lifetime).clamp(RECHECK, bounds::CONFIRM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties::testing::{OTHER, POD, address, health, history, resolved, standing, texts};

    fn found(dns_cache: DnsCache, confirmed: u64) -> Vec<String> {
        let events = [
            (0, health(POD, true)),
            (9_000, resolved(&[POD, OTHER])),
            (10_000, resolved(&[OTHER])),
            (confirmed, resolved(&[OTHER])),
            (confirmed, standing(POD, Standing::Detached)),
        ];
        let mut history = history(events);
        (history.plan.topology.dns_cache, history.plan.topology.ttl) = (dns_cache, 30);
        texts(check("confirmed", &history))
    }

    #[test]
    fn an_absence_is_confirmed_by_a_fresh_answer() {
        let address = address(POD);
        let expected = |took, least| {
            format!(
                "client 0 detached {address}, whose absence was confirmed after {took} ms, expected at least {least} ms"
            )
        };
        assert_eq!(found(DnsCache::None, 15_000), [""; 0]);
        assert_eq!(found(DnsCache::None, 14_900), [expected(4_900, 5_000)]);
        assert_eq!(found(DnsCache::CoreDns, 11_000), [""; 0]);
        assert_eq!(found(DnsCache::CoreDns, 10_900), [expected(900, 1_000)]);
    }
}
