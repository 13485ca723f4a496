//! The records of the DNS server's zone, and the responses to queries for them.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use hickory_server::proto::{
    ProtoError,
    op::ResponseCode,
    rr::{
        Name, RData, Record, RecordType,
        rdata::{SOA, SRV},
    },
};

use crate::Endpoint;

/// The default TTL of records. CoreDNS has the same default.
pub(super) const DEFAULT_TTL: Duration = Duration::from_secs(5);

/// The Services of one zone. Answers queries as CoreDNS does, and uses neither a socket nor a clock.
pub(super) struct Zone {
    apex: Name,
    serial: u32,
    ttl: u32,
    port_name: String,
    services: BTreeMap<Name, Vec<Endpoint>>,
    /// The number of answers so far. Each answer rotates the records one position further.
    rotation: usize,
}

/// The content of the response to one query.
pub(super) struct Answer {
    pub(super) code: ResponseCode,
    pub(super) answers: Vec<Record>,
    /// The SOA record of a negative response, which contains the TTL for negative caching (RFC 2308).
    pub(super) authority: Option<Record>,
    pub(super) additionals: Vec<Record>,
}

impl Zone {
    pub(super) fn new(apex: &str, port_name: &str) -> Result<Self, ProtoError> {
        Ok(Self {
            apex: absolute(apex)?,
            serial: 1,
            ttl: whole_seconds(DEFAULT_TTL),
            port_name: port_name.to_ascii_lowercase(),
            services: BTreeMap::new(),
            rotation: 0,
        })
    }

    /// Parses a Service's name. Returns `None` if it is outside the zone.
    pub(super) fn service(&self, service: &str) -> Result<Option<Name>, ProtoError> {
        let service = absolute(service)?;
        Ok(self.apex.zone_of(&service).then_some(service))
    }

    pub(super) fn pods(&self, service: &Name) -> &[Endpoint] {
        self.services.get(service).map_or(&[], Vec::as_slice)
    }

    /// Changes the Pods of a Service and increments the zone's serial number.
    pub(super) fn change(&mut self, service: Name, change: impl FnOnce(&mut Vec<Endpoint>)) {
        let pods = self.services.entry(service.clone()).or_default();
        change(pods);
        if pods.is_empty() {
            self.services.remove(&service);
        }
        self.serial = self.serial.wrapping_add(1);
    }

    pub(super) fn set_ttl(&mut self, ttl: Duration) {
        self.ttl = whole_seconds(ttl);
    }

    pub(super) fn port_name(&self) -> &str {
        &self.port_name
    }

    pub(super) fn set_port_name(&mut self, port_name: &str) {
        self.port_name = port_name.to_ascii_lowercase();
    }

    /// Returns the response to a query for a name and type.
    pub(super) fn answer(&mut self, name: &Name, kind: RecordType) -> Answer {
        if !self.apex.zone_of(name) {
            return Answer {
                code: ResponseCode::Refused,
                answers: Vec::new(),
                authority: None,
                additionals: Vec::new(),
            };
        }
        let (mut answers, additionals) = self.records(name, kind);
        if !answers.is_empty() {
            // Rotate the records, so that tests reveal a resolver that depends on their order.
            self.rotation = self.rotation.wrapping_add(1);
            let by = self.rotation % answers.len();
            answers.rotate_left(by);
            return Answer { code: ResponseCode::NoError, answers, authority: None, additionals };
        }
        let code = if self.exists(name) { ResponseCode::NoError } else { ResponseCode::NXDomain };
        Answer { code, answers, authority: Some(self.soa()), additionals }
    }

    /// Returns the answer records and the additional records.
    fn records(&self, name: &Name, kind: RecordType) -> (Vec<Record>, Vec<Record>) {
        let none = (Vec::new(), Vec::new());
        if *name == self.apex {
            return if kind == RecordType::SOA { (vec![self.soa()], Vec::new()) } else { none };
        }
        if let Some(pods) = self.services.get(name) {
            return (pods.iter().filter_map(|pod| self.address(name, pod, kind)).collect(), Vec::new());
        }
        let Some((service, pods)) = self.services.iter().find(|(service, _)| service.zone_of(name)) else {
            return none;
        };
        let below: Vec<_> = name.iter().take(usize::from(name.num_labels() - service.num_labels())).collect();
        match *below {
            [port, b"_tcp"] if kind == RecordType::SRV && self.is_port(port) => self.srv(name, service, pods),
            [label] => {
                let named = pods.iter().filter(|pod| hostname(pod).as_bytes().eq_ignore_ascii_case(label));
                (named.filter_map(|pod| self.address(name, pod, kind)).collect(), Vec::new())
            }
            _ => none,
        }
    }

    /// Returns true if the name exists, with or without records. A negative response for an existing name is NODATA,
    /// not NXDOMAIN.
    fn exists(&self, name: &Name) -> bool {
        if name.zone_of(&self.apex) || self.services.keys().any(|service| name.zone_of(service)) {
            return true;
        }
        self.services.iter().filter(|(service, _)| service.zone_of(name)).any(|(service, pods)| {
            let below: Vec<_> = name.iter().take(usize::from(name.num_labels() - service.num_labels())).collect();
            match *below {
                [b"_tcp"] => true,
                [port, b"_tcp"] => self.is_port(port),
                [label] => pods.iter().any(|pod| hostname(pod).as_bytes().eq_ignore_ascii_case(label)),
                _ => false,
            }
        })
    }

    fn is_port(&self, label: &[u8]) -> bool {
        label.strip_prefix(b"_").is_some_and(|label| label.eq_ignore_ascii_case(self.port_name.as_bytes()))
    }

    fn address(&self, owner: &Name, pod: &Endpoint, kind: RecordType) -> Option<Record> {
        let data = match pod.address().ip()? {
            IpAddr::V4(ip) if kind == RecordType::A => RData::A(ip.into()),
            IpAddr::V6(ip) if kind == RecordType::AAAA => RData::AAAA(ip.into()),
            _ => return None,
        };
        Some(Record::from_rdata(owner.clone(), self.ttl, data))
    }

    fn srv(&self, owner: &Name, service: &Name, pods: &[Endpoint]) -> (Vec<Record>, Vec<Record>) {
        let weight = u16::try_from(100 / pods.len().max(1)).unwrap_or(0).max(1);
        let mut answers = Vec::with_capacity(pods.len());
        let mut additionals = Vec::with_capacity(pods.len());
        for pod in pods {
            // Cannot fail: host names are checked when a Pod is published.
            let Ok(target) = Name::from_ascii(hostname(pod)).and_then(|host| host.append_domain(service)) else {
                continue;
            };
            additionals.extend([RecordType::A, RecordType::AAAA].iter().find_map(|k| self.address(&target, pod, *k)));
            let data = RData::SRV(SRV::new(0, weight, pod.address().port().unwrap_or_default(), target));
            answers.push(Record::from_rdata(owner.clone(), self.ttl, data));
        }
        (answers, additionals)
    }

    fn soa(&self) -> Record {
        let host = |label: &str| {
            Name::from_ascii(label).and_then(|label| label.append_domain(&self.apex)).unwrap_or_else(|_| Name::root())
        };
        let data = SOA::new(host("ns.dns"), host("hostmaster"), self.serial, 7200, 1800, 86400, self.ttl);
        Record::from_rdata(self.apex.clone(), self.ttl, RData::SOA(data))
    }
}

/// Returns the Pod's label below its Service, as in Kubernetes: the Pod's name or, without one, its address with
/// dashes.
pub(super) fn hostname(pod: &Endpoint) -> String {
    match pod.name() {
        Some(name) => name.to_owned(),
        None => pod.address().host_text().replace(['.', ':', '/'], "-"),
    }
}

fn absolute(name: &str) -> Result<Name, ProtoError> {
    let mut name = Name::from_ascii(name)?.to_lowercase();
    name.set_fqdn(true);
    Ok(name)
}

/// Rounds a TTL up to whole seconds.
fn whole_seconds(ttl: Duration) -> u32 {
    u32::try_from(ttl.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
}
