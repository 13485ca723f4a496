//! The authoritative answers of CoreDNS's `kubernetes` plugin: which records a name has.

use std::{collections::BTreeSet, net::IpAddr};

use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, SOA, SRV},
    },
};

use super::store::Store;
use crate::kubernetes::{Endpoint, EndpointSlice, Port, Service, ServiceKind};

/// The cluster's domain.
const ZONE: &str = "cluster.local.";
/// Labels of the domain.
const ZONE_LABELS: usize = 2;
/// TTL of all records, and of negative answers, in seconds.
pub(super) const TTL: u32 = 30;
/// TTL of the SOA record with a SERVFAIL, in seconds.
const FAILURE_TTL: u32 = 5;

/// Returns the SOA record of the zone.
pub(super) fn soa(serial: u32, ttl: u32) -> Record {
    let name = |prefix: &str| Name::from_ascii(format!("{prefix}{ZONE}")).expect("a constant name");
    let soa = SOA::new(name("ns.dns."), name("hostmaster."), serial, 7200, 1800, 86400, TTL);
    Record::from_rdata(name(""), ttl, RData::SOA(soa))
}

/// Completes the answer of a name server that has never reached the API server.
pub(super) fn fail(reply: &mut Message) {
    reply.metadata.response_code = ResponseCode::ServFail;
    reply.authorities.push(soa(0, FAILURE_TTL));
}

/// Completes the answer from what the name server knows. `random` determines the order in which the EndpointSlices
/// are read: the name server keeps them in a hash map.
pub(super) fn resolve(store: &Store, query: &Query, serial: u32, random: &mut fastrand::Rng, reply: &mut Message) {
    let zone = Name::from_ascii(ZONE).expect("a constant name");
    if query.query_class != DNSClass::IN || !zone.zone_of(&query.name) {
        // No server block of the Corefile covers the name.
        reply.metadata.response_code = ResponseCode::Refused;
        reply.metadata.authoritative = false;
        return;
    }
    match targets(store, &query.name, random) {
        Some(targets) => records(query, &targets, reply),
        None => reply.metadata.response_code = ResponseCode::NXDomain,
    }
    if reply.answers.is_empty() {
        reply.authorities.push(soa(serial, TTL));
    }
}

/// An address and port that a name stands for, and the name of that address alone.
struct Target {
    address: IpAddr,
    port: u16,
    name: Name,
}

/// Finds what a name stands for: `None` if the name does not exist, empty if only names below it do.
fn targets(store: &Store, name: &Name, random: &mut fastrand::Rng) -> Option<Vec<Target>> {
    let lower = name.to_lowercase();
    let labels: Vec<String> = lower.iter().map(|label| String::from_utf8_lossy(label).into_owned()).collect();
    let labels = &labels[..labels.len() - ZONE_LABELS];
    let (prefix, service) = match labels {
        [] => return Some(Vec::new()),
        [.., last] if last != "svc" => return None,
        [_] => return Some(Vec::new()),
        [namespace, _] => return store.has_namespace(namespace).then(Vec::new),
        [prefix @ .., service, namespace, _] => (prefix, store.service(namespace, service)?),
    };
    let base = format!("{}.{}.svc.{ZONE}", service.name, service.namespace);
    let found = match (prefix, &service.kind) {
        ([], ServiceKind::Headless) => endpoints(store, service, &base, &Filter::default(), random),
        ([], ServiceKind::ClusterIp(addresses)) => cluster(service, addresses, &base, &Filter::default()),
        ([host], _) => {
            endpoints(store, service, &base, &Filter { host: Some(host.as_str()), ..Filter::default() }, random)
        }
        ([port, protocol], kind) => {
            let port = port.strip_prefix('_').unwrap_or(port);
            let protocol = protocol.strip_prefix('_').unwrap_or(protocol);
            let filter = Filter { port: Some((port, protocol)), ..Filter::default() };
            match kind {
                ServiceKind::Headless => endpoints(store, service, &base, &filter, random),
                ServiceKind::ClusterIp(addresses) => cluster(service, addresses, &base, &filter),
            }
        }
        _ => return None,
    };
    (!found.is_empty()).then_some(found)
}

/// The part of a Service that a name asks for.
#[derive(Default)]
struct Filter<'a> {
    host: Option<&'a str>,
    /// Port name and protocol.
    port: Option<(&'a str, &'a str)>,
}

impl Filter<'_> {
    fn includes(&self, port: &Port) -> bool {
        self.port.is_none_or(|(name, protocol)| port.name.eq_ignore_ascii_case(name) && protocol == "tcp")
    }
}

fn endpoints(
    store: &Store,
    service: &Service,
    base: &str,
    filter: &Filter<'_>,
    random: &mut fastrand::Rng,
) -> Vec<Target> {
    let mut slices: Vec<&EndpointSlice> = store.slices(service).collect();
    random.shuffle(&mut slices);
    let mut found = Vec::new();
    for slice in slices {
        for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.conditions.ready) {
            let host = host_name(endpoint);
            if filter.host.is_some_and(|wanted| wanted != host) {
                continue;
            }
            found.extend(slice.ports.iter().filter(|port| filter.includes(port)).map(|port| Target {
                address: endpoint.address,
                port: port.number,
                name: parse(&format!("{host}.{base}")),
            }));
        }
    }
    found
}

fn cluster(service: &Service, addresses: &[IpAddr], base: &str, filter: &Filter<'_>) -> Vec<Target> {
    let ports = service.ports.iter().filter(|port| filter.includes(port));
    ports
        .flat_map(|port| {
            addresses.iter().map(|address| Target { address: *address, port: port.number, name: parse(base) })
        })
        .collect()
}

/// Returns the host name of an endpoint: its Pod's, or its address with dashes.
fn host_name(endpoint: &Endpoint) -> String {
    endpoint.hostname.clone().unwrap_or_else(|| endpoint.address.to_string().replace(['.', ':'], "-"))
}

fn parse(name: &str) -> Name {
    Name::from_ascii(name).expect("names of objects are valid labels")
}

/// Adds the records of the asked type.
fn records(query: &Query, targets: &[Target], reply: &mut Message) {
    let mut seen = BTreeSet::new();
    match query.query_type {
        RecordType::A | RecordType::AAAA => {
            let addresses = targets.iter().map(|target| target.address);
            let wanted = addresses.filter(|address| address.is_ipv4() == (query.query_type == RecordType::A));
            for address in wanted {
                if seen.insert(address) {
                    reply.answers.push(address_record(&query.name, address));
                }
            }
        }
        RecordType::SRV => {
            // The weight counts every address, also those that share a record.
            let weight = u16::try_from(100 / targets.len().max(1)).unwrap_or(100).max(1);
            let mut named = BTreeSet::new();
            for target in targets {
                if named.insert((target.name.clone(), target.port)) {
                    let srv = SRV::new(0, weight, target.port, target.name.clone());
                    reply.answers.push(Record::from_rdata(query.name.clone(), TTL, RData::SRV(srv)));
                }
                if seen.insert(target.address) {
                    reply.additionals.push(address_record(&target.name, target.address));
                }
            }
        }
        _ => {}
    }
}

fn address_record(name: &Name, address: IpAddr) -> Record {
    let data = match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    };
    Record::from_rdata(name.clone(), TTL, data)
}
