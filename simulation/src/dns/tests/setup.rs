//! Objects and questions of the tests.

use std::{net::IpAddr, time::Duration};

use hickory_proto::{
    op::{Edns, Message, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use tokio::time::Instant;

use super::super::{CoreDns, CoreDnsSettings, NameServer, Transport};
use crate::kubernetes::{Change, Conditions, Endpoint, EndpointSlice, Family, Port, Service, ServiceKind, SliceEvent};

pub(super) const NAMESPACE: &str = "k8s-training";
pub(super) const SERVICE: &str = "postgresql-svc.k8s-training.svc.cluster.local.";

pub(super) fn service() -> Change {
    Change::Service(Service::headless(NAMESPACE, "postgresql-svc", "postgresql-port", 5432))
}

pub(super) fn microservice() -> Change {
    Change::Service(Service {
        kind: ServiceKind::ClusterIp(vec!["10.96.190.111".parse().unwrap()]),
        ..Service::headless(NAMESPACE, "microservice", "http", 80)
    })
}

/// Creates a slice with these Pods: ordinal, address, and whether it is ready.
pub(super) fn slice(name: &str, pods: &[(u32, &str, bool)]) -> EndpointSlice {
    let endpoints: Vec<Endpoint> = pods
        .iter()
        .map(|(ordinal, address, ready)| Endpoint {
            address: address.parse().unwrap(),
            conditions: Conditions { ready: *ready, serving: true, terminating: !ready },
            hostname: Some(format!("postgresql-sfs-{ordinal}")),
            node: "node-a".to_owned(),
            pod: format!("postgresql-sfs-{ordinal}"),
        })
        .collect();
    EndpointSlice {
        namespace: NAMESPACE.to_owned(),
        service: "postgresql-svc".to_owned(),
        name: name.to_owned(),
        family: endpoints.first().map_or(Family::V4, |endpoint| Family::of(endpoint.address)),
        endpoints,
        ports: vec![Port { name: "postgresql-port".to_owned(), number: 5432 }],
        generation: 1,
    }
}

pub(super) fn added(slice: EndpointSlice) -> Change {
    Change::Slice(SliceEvent::Added(slice))
}

/// Starts a CoreDNS that knows the Service and these Pods at the returned time.
pub(super) fn running(settings: CoreDnsSettings, pods: &[(u32, &str, bool)]) -> (CoreDns, Instant) {
    let start = settings.epoch;
    let changes = [service(), added(slice("postgresql-svc-a", pods))];
    let server = CoreDns::start(start, settings, changes, true, fastrand::Rng::with_seed(7));
    (server, start + Duration::from_secs(1))
}

/// Encodes a question with EDNS.
pub(super) fn question(name: &str, record_type: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = 0x1234;
    message.metadata.recursion_desired = true;
    message.queries.push(Query::query(Name::from_ascii(name).unwrap(), record_type));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.edns = Some(edns);
    message.to_vec().unwrap()
}

/// Asks over UDP, and returns the only answer.
pub(super) fn ask(server: &mut impl NameServer, now: Instant, name: &str, record_type: RecordType) -> Message {
    let answers = server.answer(now, &question(name, record_type), Transport::Udp);
    assert_eq!(answers.len(), 1, "{name} {record_type}");
    Message::from_vec(&answers[0].1).unwrap()
}

/// Asks for the IPv4 addresses of the Service, and returns them sorted, with the response code and the smallest TTL.
pub(super) fn addresses(server: &mut impl NameServer, now: Instant) -> (ResponseCode, Vec<IpAddr>, u32) {
    let answer = ask(server, now, SERVICE, RecordType::A);
    let address = |data: &RData| data.ip_addr().expect("the answer has addresses only");
    let mut found: Vec<IpAddr> = answer.answers.iter().map(|record| address(&record.data)).collect();
    found.sort();
    let ttl = answer.answers.iter().chain(&answer.authorities).map(|record| record.ttl).min().unwrap();
    (answer.metadata.response_code, found, ttl)
}
