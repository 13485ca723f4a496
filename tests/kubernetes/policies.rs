//! Tests that the network policies allow the required traffic and nothing else.

use k8s_openapi::{
    api::{
        core::v1::PodTemplateSpec,
        networking::v1::{NetworkPolicyPeer, NetworkPolicyPort},
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use crate::{
    lookup::{JOB, MICROSERVICE, SET, port, selects, template},
    read::{Manifests, labels, spec},
};

/// The traffic that the network policies allow.
struct Traffic<'a> {
    manifests: &'a Manifests,
}

impl Traffic<'_> {
    /// Returns true if the egress rules of `from` allow a connection to a port of `to`.
    fn egress_allows(&self, from: &PodTemplateSpec, to: &PodTemplateSpec, number: i32) -> bool {
        self.rules(from, "Egress").any(|(peers, ports)| reaches(&peers, to) && opens(&ports, to, number))
    }

    /// Returns true if the ingress rules of `to` allow a connection from `from` to a port.
    fn ingress_allows(&self, from: &PodTemplateSpec, to: &PodTemplateSpec, number: i32) -> bool {
        self.rules(to, "Ingress").any(|(peers, ports)| reaches(&peers, from) && opens(&ports, to, number))
    }

    /// Returns the rules that apply to a Pod. Panics if no policy selects the Pod, because Kubernetes then allows all
    /// of its traffic.
    fn rules(
        &self,
        pod: &PodTemplateSpec,
        direction: &str,
    ) -> impl Iterator<Item = (Vec<NetworkPolicyPeer>, Vec<NetworkPolicyPort>)> {
        let policies = self.manifests.policies.values().filter_map(|policy| policy.spec.as_ref());
        let every_pod = LabelSelector::default();
        let applied: Vec<_> = policies
            .filter(|policy| policy.policy_types.as_ref().unwrap().iter().any(|it| it == direction))
            .filter(|policy| selects(policy.pod_selector.as_ref().unwrap_or(&every_pod), pod))
            .collect();
        assert!(!applied.is_empty(), "no {direction} policy applies to {:?}", labels(pod));
        let mut rules = Vec::new();
        for policy in applied {
            if direction == "Egress" {
                let egress = policy.egress.iter().flatten();
                rules.extend(egress.map(|r| (r.to.clone().unwrap_or_default(), r.ports.clone().unwrap_or_default())));
            } else {
                let ingress = policy.ingress.iter().flatten();
                rules
                    .extend(ingress.map(|r| (r.from.clone().unwrap_or_default(), r.ports.clone().unwrap_or_default())));
            }
        }
        rules.into_iter()
    }
}

fn reaches(peers: &[NetworkPolicyPeer], pod: &PodTemplateSpec) -> bool {
    // A rule without peers applies to all destinations or sources.
    peers.is_empty()
        || peers.iter().any(|peer| match (&peer.pod_selector, &peer.namespace_selector) {
            (Some(selector), None) => selects(selector, pod),
            // An empty namespace selector matches every namespace.
            (None, Some(namespaces)) => *namespaces == LabelSelector::default(),
            _ => false,
        })
}

fn opens(ports: &[NetworkPolicyPort], pod: &PodTemplateSpec, number: i32) -> bool {
    let port_of = |open: &NetworkPolicyPort| port(spec(pod), open.port.as_ref()?);
    ports.iter().any(|open| open.protocol.as_deref() == Some("TCP") && port_of(open) == Some(number))
}

#[test]
fn network_policies_allow_only_the_required_traffic() {
    let manifests = Manifests::read();
    let traffic = Traffic { manifests: &manifests };
    let (set, microservice) = (template(&manifests, SET), template(&manifests, MICROSERVICE));
    let both = |from, to, number| (traffic.egress_allows(from, to, number), traffic.ingress_allows(from, to, number));
    assert_eq!(both(microservice, set, 5432), (true, true));
    assert_eq!(both(set, set, 5432), (true, true));
    assert_eq!(both(microservice, set, 5433), (false, false));
    // The Job connects only to the API server, which is not a Pod of this namespace.
    let job = template(&manifests, JOB);
    assert_eq!(both(job, set, 5432), (false, false));
    assert_eq!(both(microservice, job, 443), (false, false));
    assert!(traffic.egress_allows(job, job, 443) && traffic.egress_allows(job, job, 6443));
    assert_eq!(
        both(set, microservice, 8080),
        (false, true),
        "expected that a database Pod cannot connect to the microservice"
    );
    for pod in [set, microservice] {
        let dns = traffic.rules(pod, "Egress").any(|(peers, ports)| {
            let open = |protocol: &str| {
                let fifty_three = Some(IntOrString::Int(53));
                ports.iter().any(|port| port.protocol.as_deref() == Some(protocol) && port.port == fifty_three)
            };
            let label = |selector: &Option<LabelSelector>, label: &str| {
                selector.as_ref().and_then(|it| it.match_labels.as_ref()?.get(label).cloned())
            };
            let server = |peer: &NetworkPolicyPeer| {
                label(&peer.pod_selector, "k8s-app").as_deref() == Some("kube-dns")
                    && label(&peer.namespace_selector, "kubernetes.io/metadata.name").as_deref() == Some("kube-system")
            };
            open("UDP") && open("TCP") && peers.iter().any(server)
        });
        assert!(dns, "{:?} cannot query DNS", labels(pod));
    }
}
