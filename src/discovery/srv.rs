//! Looks up SRV records. One query returns the name, port and address of every Pod.
//!
//! CoreDNS adds the addresses of the SRV targets to its response. If CoreDNS or a cache omits the address of a target,
//! that address is queried separately. A target whose query fails keeps its last good address.
//!
//! Priorities and weights (RFC 2782) are used only if the options say so. The RFC's weights range from 0 to 65535, and
//! an endpoint's from 1 to [`Endpoint::WEIGHT_MAX`], so they are scaled.

use std::{cmp::Reverse, collections::BTreeMap, net::IpAddr, sync::Arc};

use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::sync::Semaphore;

use super::{
    error::ServerError,
    query::{Found, QueryContext},
    records::Service,
};
use crate::{endpoint::Endpoint, system::JoinSet, time::Duration};

/// Maximum number of concurrent queries for the addresses of SRV targets.
const MAX_CONCURRENT: usize = 16;

/// The SRV targets of one name.
#[derive(Clone, Debug, Default)]
pub(super) struct Targets {
    /// True if weights and priorities are used.
    weighted: bool,
    /// The last good address of each target.
    addresses: BTreeMap<Name, IpAddr>,
}

/// The address of an SRV target and its TTL, or the errors of the queries for that address.
type TargetResult = Result<(IpAddr, Duration), Vec<ServerError>>;

impl Targets {
    pub(super) fn new(weighted: bool) -> Self {
        Self { weighted, addresses: BTreeMap::new() }
    }

    /// Queries the SRV records of `name`, and then the address of each target for which the response contains none.
    pub(super) async fn query(&mut self, name: &Name, cx: &QueryContext) -> Result<Found, Vec<ServerError>> {
        let response = cx.servers.query(name, RecordType::SRV, cx.throttled, cx.deadline).await?;
        let answer = response.answer;
        let mut found = Found::default();
        found.add_answer(response.server, answer.ttl, answer.left_out);
        let mut results: BTreeMap<Name, TargetResult> = BTreeMap::new();
        for (target, ip) in answer.glue {
            // The glue (the addresses in the additional section) is sorted by target and address, IPv4 first. Only the
            // first address of each target is used, because a dual-stack Pod must not receive a double share of the
            // load.
            results.entry(target).or_insert(Ok((ip, answer.ttl)));
        }
        let mut missing: Vec<&Name> = answer.services.iter().map(|service| &service.target).collect();
        missing.dedup();
        missing.retain(|target| !results.contains_key(*target));
        results.extend(query_addresses(missing, cx).await);
        let errors = self.merge(&answer.services, results, &mut found);
        if found.endpoints.is_empty() { Err(errors) } else { Ok(found) }
    }

    /// Adds the Pods with a known address to `found`, and returns the errors of the failed queries.
    fn merge(
        &mut self,
        services: &[Service],
        mut results: BTreeMap<Name, TargetResult>,
        found: &mut Found,
    ) -> Vec<ServerError> {
        let last_good = std::mem::take(&mut self.addresses);
        let largest = largest_weights(services);
        let mut all_errors = Vec::new();
        for Service { target, port, priority, weight: Reverse(weight) } in services {
            let ip = match results.get_mut(target) {
                Some(Ok((ip, ttl))) => {
                    found.ttl = found.ttl.min(*ttl);
                    Some(*ip)
                }
                Some(Err(errors)) if !errors.is_empty() && errors.iter().all(|error| error.kind().is_negative()) => {
                    all_errors.append(errors);
                    None
                }
                failed => {
                    found.partial = true;
                    if let Some(Err(errors)) = failed {
                        all_errors.append(errors);
                    }
                    last_good.get(target).copied()
                }
            };
            if let Some(ip) = ip {
                self.addresses.insert(target.clone(), ip);
                let mut endpoint = Endpoint::named(pod(target), (ip, *port).into()).with_host(host(target));
                if self.weighted {
                    endpoint = endpoint.with_priority(*priority).with_weight(scaled(*weight, largest[priority]));
                }
                found.endpoints.push(endpoint);
            }
        }
        all_errors
    }
}

/// Returns the largest weight of each priority.
fn largest_weights(services: &[Service]) -> BTreeMap<u16, u16> {
    let mut largest = BTreeMap::new();
    for Service { priority, weight: Reverse(weight), .. } in services {
        let entry = largest.entry(*priority).or_default();
        *entry = (*weight).max(*entry);
    }
    largest
}

/// Scales a weight so that the `largest` of its priority becomes [`Endpoint::WEIGHT_MAX`]. Weight 0 becomes 1, because
/// a target with this weight has "a very small chance of being selected" while others have larger ones (RFC 2782).
fn scaled(weight: u16, largest: u16) -> u16 {
    let max = u32::from(Endpoint::WEIGHT_MAX);
    match u32::from(largest) {
        0 => Endpoint::WEIGHT_MAX,
        largest => {
            u16::try_from((u32::from(weight) * max + largest / 2) / largest).unwrap_or(Endpoint::WEIGHT_MAX).max(1)
        }
    }
}

/// Returns the Pod's name: the first label of the target (Kubernetes DNS specification, 2.4.2), in lower case.
fn pod(target: &Name) -> String {
    let label = target.iter().next().unwrap_or_default();
    String::from_utf8_lossy(label).to_ascii_lowercase()
}

/// Returns the Pod's host name: the target without its final dot, in lower case.
fn host(target: &Name) -> String {
    target.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}

/// Queries the address of each target: A records, or AAAA records if the target has no A records.
async fn query_addresses(targets: Vec<&Name>, cx: &QueryContext) -> Vec<(Name, TargetResult)> {
    let permits = Arc::new(Semaphore::new(MAX_CONCURRENT));
    let mut queries = JoinSet::new();
    for target in targets {
        let (target, cx, permits) = (target.clone(), cx.clone(), permits.clone());
        queries.spawn(async move {
            // The semaphore is never closed, so `acquire` cannot fail.
            let _permit = permits.acquire().await;
            let mut all_errors = Vec::new();
            for kind in [RecordType::A, RecordType::AAAA] {
                match cx.servers.query(&target, kind, false, cx.deadline).await {
                    Ok(response) => {
                        if let Some(ip) = response.answer.addresses.first() {
                            return (target, Ok((*ip, response.answer.ttl)));
                        }
                    }
                    Err(errors) => {
                        let negative = errors.iter().all(|error| error.kind().is_negative());
                        all_errors.extend(errors);
                        if !negative {
                            break;
                        }
                    }
                }
            }
            (target, Err(all_errors))
        });
    }
    let mut results = Vec::new();
    while let Some(done) = queries.join_next().await {
        match done {
            Ok(result) => results.push(result),
            Err(error) => tracing::warn!(%error, "DNS query task for an SRV target's address panicked or was aborted"),
        }
    }
    results
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::discovery::error::ResolveErrorKind;

    fn target(pod: &str) -> Name {
        Name::from_ascii(format!("{pod}.postgresql-svc.k8s-training.svc.cluster.local.")).unwrap()
    }

    fn service(pod: &str, priority: u16, weight: u16) -> Service {
        Service { target: target(pod), port: 5432, priority, weight: Reverse(weight) }
    }

    fn merged(targets: &mut Targets, results: [TargetResult; 2]) -> (Vec<String>, bool) {
        let services = ["sfs-0", "SFS-1"].map(|pod| service(pod, 0, 1));
        let results = services.iter().map(|service| service.target.clone()).zip(results).collect();
        let mut found = Found::default();
        targets.merge(&services, results, &mut found);
        (found.endpoints.iter().map(ToString::to_string).collect(), found.partial)
    }

    fn at(ip: &str) -> TargetResult {
        Ok((ip.parse().unwrap(), Duration::from_secs(5)))
    }

    fn failed(kind: ResolveErrorKind) -> TargetResult {
        Err(vec![ServerError::new(([10, 0, 0, 10], 53).into(), &target("sfs-0"), RecordType::A, kind)])
    }

    /// Returns the priority and the weight of each endpoint.
    fn details(weighted: bool, services: &[(u16, u16)]) -> Vec<(u16, u16)> {
        let services: Vec<_> = (0..)
            .zip(services)
            .map(|(n, (priority, weight))| service(&format!("sfs-{n}"), *priority, *weight))
            .collect();
        let results = services.iter().map(|service| (service.target.clone(), at("10.0.0.1"))).collect();
        let mut found = Found::default();
        Targets::new(weighted).merge(&services, results, &mut found);
        found.endpoints.iter().map(|pod| (pod.priority(), pod.weight())).collect()
    }

    #[test]
    fn weights_are_scaled_within_their_priority() {
        let records = [(0, 65535), (0, 32768), (0, 0), (10, 5), (10, 1), (20, 0), (20, 0)];
        let scaled = [(0, 100), (0, 50), (0, 1), (10, 100), (10, 20), (20, 100), (20, 100)];
        assert_eq!(details(true, &records), scaled);
        assert_eq!(details(false, &records), [(0, 1); 7], "weights are ignored unless they are asked for");
    }

    proptest! {
        #[test]
        fn the_largest_weight_is_100_and_the_order_is_kept(weights in prop::collection::vec(any::<u16>(), 1..8)) {
            let records: Vec<_> = weights.iter().map(|weight| (7, *weight)).collect();
            let scaled = details(true, &records);
            prop_assert!(scaled.iter().all(|(priority, weight)| *priority == 7 && (1..=100).contains(weight)));
            prop_assert_eq!(scaled.iter().map(|(_, weight)| *weight).max(), Some(100));
            let largest = f64::from(*weights.iter().max().unwrap()).max(1.0);
            for (weight, (_, scaled)) in weights.iter().zip(&scaled).filter(|_| largest > 1.0) {
                let exact = f64::from(*weight) * 100.0 / largest;
                prop_assert!((f64::from(*scaled) - exact.max(1.0)).abs() <= 0.5, "{weight} of {largest}: {scaled}");
            }
        }
    }

    #[test]
    fn keeps_a_target_after_an_error_and_drops_it_after_nxdomain() {
        let mut targets = Targets::default();
        let both = vec!["sfs-0 (10.0.0.1:5432)".to_owned(), "sfs-1 (10.0.0.2:5432)".to_owned()];
        assert_eq!(merged(&mut targets, [at("10.0.0.1"), at("10.0.0.2")]), (both.clone(), false));
        assert_eq!(merged(&mut targets, [at("10.0.0.1"), failed(ResolveErrorKind::Timeout)]), (both.clone(), true));
        let gone = merged(&mut targets, [at("10.0.0.1"), failed(ResolveErrorKind::NoSuchName)]);
        assert_eq!(gone, (both[..1].to_vec(), false));
        let unknown = merged(&mut targets, [at("10.0.0.1"), failed(ResolveErrorKind::Timeout)]);
        assert_eq!(unknown, (both[..1].to_vec(), true));
    }
}
