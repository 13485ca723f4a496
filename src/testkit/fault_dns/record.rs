//! Creates DNS records. Names are fully qualified, with or without the final dot.

use std::net::IpAddr;

use hickory_resolver::proto::rr::{
    Name, RData,
    rdata::{A, AAAA, CNAME, PTR, SRV},
};

use super::{Record, TTL};

/// Returns an A or AAAA record.
///
/// # Panics
///
/// If `name` is not a domain name or `ip` is not an IP address.
#[must_use]
pub fn address(name: &str, ttl: u32, ip: &str) -> Record {
    let data = match ip.parse().unwrap_or_else(|_| panic!("`{ip}` is not an IP address")) {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    };
    Record::from_rdata(parse(name), ttl, data)
}

/// Returns a CNAME record.
///
/// # Panics
///
/// If `name` or `target` is not a domain name.
#[must_use]
pub fn alias(name: &str, target: &str) -> Record {
    Record::from_rdata(parse(name), TTL, RData::CNAME(CNAME(parse(target))))
}

/// Returns a PTR record that maps an address to a name.
///
/// # Panics
///
/// If `name` is not a domain name or `ip` is not an IP address.
#[must_use]
pub fn pointer(ip: &str, name: &str) -> Record {
    let ip: IpAddr = ip.parse().unwrap_or_else(|_| panic!("`{ip}` is not an IP address"));
    Record::from_rdata(Name::from(ip), TTL, RData::PTR(PTR(parse(name))))
}

/// Returns an SRV record with priority 0 and weight 1.
///
/// # Panics
///
/// If `name` or `target` is not a domain name.
#[must_use]
pub fn service(name: &str, port: u16, target: &str) -> Record {
    weighted_service(name, 0, 1, port, target)
}

/// Returns an SRV record with this priority and weight.
///
/// # Panics
///
/// If `name` or `target` is not a domain name.
#[must_use]
pub fn weighted_service(name: &str, priority: u16, weight: u16, port: u16, target: &str) -> Record {
    Record::from_rdata(parse(name), TTL, RData::SRV(SRV::new(priority, weight, port, parse(target))))
}

/// Parses a fully qualified name, with or without the final dot.
pub(super) fn parse(name: &str) -> Name {
    let mut parsed = Name::from_ascii(name).unwrap_or_else(|error| panic!("`{name}` is not a domain name: {error}"));
    parsed.set_fqdn(true);
    parsed
}
