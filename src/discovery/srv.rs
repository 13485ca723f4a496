//! SRV records: name, port and address of each Pod in one question.
//!
//! CoreDNS sends the targets' addresses along. Where it, or a cache on the way, does not, they are asked for one by
//! one, and a target of which nothing is heard keeps its last good address.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    error::ServerError,
    query::{Found, QueryContext},
    records::Service,
};
use crate::{endpoint::Endpoint, time::Duration};

/// How many targets are asked for at once.
const AT_ONCE: usize = 16;

/// What is remembered of the targets: each one's last good address.
#[derive(Clone, Debug, Default)]
pub(super) struct Targets(BTreeMap<Name, IpAddr>);

type Heard = Result<(IpAddr, Duration), Vec<ServerError>>;

impl Targets {
    /// Asks for the SRV records of `name`, and for the addresses of targets that came without.
    pub(super) async fn ask(&mut self, name: &Name, cx: &QueryContext) -> Result<Found, Vec<ServerError>> {
        let answered = cx.servers.ask(name, RecordType::SRV, cx.hold, cx.deadline).await?;
        let answer = answered.answer;
        let mut found = Found::default();
        found.add_answer(answered.server, answer.ttl, answer.left_out);
        let mut heard: BTreeMap<Name, Heard> = BTreeMap::new();
        for (target, ip) in answer.glue {
            // Sorted by target and address, IPv4 before IPv6: the first one is the Pod's. One address a Pod, or a Pod
            // with addresses of both families would get a double share.
            heard.entry(target).or_insert(Ok((ip, answer.ttl)));
        }
        let mut missing: Vec<&Name> = answer.services.iter().map(|service| &service.target).collect();
        missing.dedup();
        missing.retain(|target| !heard.contains_key(*target));
        heard.extend(follow_up(missing, cx).await);
        let errors = self.settle(&answer.services, heard, &mut found);
        if found.endpoints.is_empty() { Err(errors) } else { Ok(found) }
    }

    /// Puts the Pods together and returns what went wrong with those left out.
    fn settle(
        &mut self,
        services: &[Service],
        mut heard: BTreeMap<Name, Heard>,
        found: &mut Found,
    ) -> Vec<ServerError> {
        let before = std::mem::take(&mut self.0);
        let mut errors = Vec::new();
        for Service { target, port } in services {
            let ip = match heard.get_mut(target) {
                Some(Ok((ip, ttl))) => {
                    found.ttl = found.ttl.min(*ttl);
                    Some(*ip)
                }
                Some(Err(why)) if !why.is_empty() && why.iter().all(|error| error.kind().is_negative()) => {
                    errors.append(why);
                    None
                }
                unheard => {
                    found.partial = true;
                    if let Some(Err(why)) = unheard {
                        errors.append(why);
                    }
                    before.get(target).copied()
                }
            };
            if let Some(ip) = ip {
                self.0.insert(target.clone(), ip);
                found.endpoints.push(Endpoint::named(pod(target), (ip, *port).into()).with_host(host(target)));
            }
        }
        errors
    }
}

/// The Pod's name: the first label of the target (Kubernetes DNS specification, 2.4.2), in lower case.
fn pod(target: &Name) -> String {
    let label = target.iter().next().unwrap_or_default();
    String::from_utf8_lossy(label).to_ascii_lowercase()
}

/// The Pod's own name in DNS: the target without its last dot, in lower case.
fn host(target: &Name) -> String {
    target.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}

/// Asks for the address of each target, A first and AAAA where there is none.
async fn follow_up(targets: Vec<&Name>, cx: &QueryContext) -> Vec<(Name, Heard)> {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut asking = JoinSet::new();
    for target in targets {
        let (target, cx, permits) = (target.clone(), cx.clone(), permits.clone());
        asking.spawn(async move {
            // The semaphore is never closed; without a permit the only loss would be the limit.
            let _permit = permits.acquire().await;
            let mut errors = Vec::new();
            for kind in [RecordType::A, RecordType::AAAA] {
                match cx.servers.ask(&target, kind, false, cx.deadline).await {
                    Ok(answered) => {
                        if let Some(ip) = answered.answer.addresses.first() {
                            return (target, Ok((*ip, answered.answer.ttl)));
                        }
                    }
                    Err(why) => {
                        let negative = why.iter().all(|error| error.kind().is_negative());
                        errors.extend(why);
                        if !negative {
                            break;
                        }
                    }
                }
            }
            (target, Err(errors))
        });
    }
    let mut heard = Vec::new();
    while let Some(done) = asking.join_next().await {
        match done {
            Ok(one) => heard.push(one),
            Err(stopped) => tracing::warn!(error = %stopped, "a question for a Pod's address ended without an answer"),
        }
    }
    heard
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::error::ResolveErrorKind;

    fn target(pod: &str) -> Name {
        Name::from_ascii(format!("{pod}.postgresql-svc.k8s-training.svc.cluster.local.")).unwrap()
    }

    fn settled(targets: &mut Targets, heard: [Heard; 2]) -> (Vec<String>, bool) {
        let services = ["sfs-0", "SFS-1"].map(|pod| Service { target: target(pod), port: 5432 });
        let heard = services.iter().map(|service| service.target.clone()).zip(heard).collect();
        let mut found = Found::default();
        targets.settle(&services, heard, &mut found);
        (found.endpoints.iter().map(ToString::to_string).collect(), found.partial)
    }

    fn at(ip: &str) -> Heard {
        Ok((ip.parse().unwrap(), Duration::from_secs(5)))
    }

    fn failed(kind: ResolveErrorKind) -> Heard {
        Err(vec![ServerError::new(([10, 0, 0, 10], 53).into(), &target("sfs-0"), RecordType::A, kind)])
    }

    #[test]
    fn a_target_that_is_not_heard_of_keeps_its_last_good_address_and_one_without_any_is_left_out() {
        let mut targets = Targets::default();
        let both = vec!["sfs-0 (10.0.0.1:5432)".to_owned(), "sfs-1 (10.0.0.2:5432)".to_owned()];
        assert_eq!(settled(&mut targets, [at("10.0.0.1"), at("10.0.0.2")]), (both.clone(), false));
        assert_eq!(settled(&mut targets, [at("10.0.0.1"), failed(ResolveErrorKind::Timeout)]), (both.clone(), true));
        let gone = settled(&mut targets, [at("10.0.0.1"), failed(ResolveErrorKind::NoSuchName)]);
        assert_eq!(gone, (both[..1].to_vec(), false));
        let unknown = settled(&mut targets, [at("10.0.0.1"), failed(ResolveErrorKind::Timeout)]);
        assert_eq!(unknown, (both[..1].to_vec(), true));
    }
}
