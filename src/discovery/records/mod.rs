//! Filters a DNS response down to the records that the pool may use.
//!
//! A record is used if it has the queried type and class and its owner is the queried name or the end of that name's
//! CNAME chain. An address is used if a Pod can have it. All other records are dropped silently. If a response has
//! records but none of them is usable, the response is malformed, not empty. Only NXDOMAIN or NODATA from the server
//! means that there are no Pods.
//!
//! hickory-proto parses the message, and hickory-net discards UDP responses with another id, source or question. This
//! module makes the other checks, because hickory-resolver's `Resolver` does not make them. `Resolver` is also
//! unsuitable for three other reasons: it returns records of other owners, treats the SRV records of a response as one
//! chain to a single target, and ends a lookup at the first name server that returns SERVFAIL or REFUSED.

mod answer;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType, rdata::SOA},
};

pub(super) use self::answer::{Answer, Rejection, Service};
use super::error::ResolveErrorKind;
use crate::time::Duration;

/// Maximum number of addresses to use from one response. A Service has at most a few thousand Pods.
pub(super) const MAX_ADDRESSES: usize = 4096;
/// Maximum length of a CNAME chain, which may span several responses.
pub(super) const MAX_ALIASES: usize = 8;
/// Maximum TTL, in seconds: one day.
const MAX_TTL: u32 = 86_400;

/// Error text for a CNAME chain that contains a name twice.
pub(super) const CNAME_LOOP: &str = "CNAME loop";
/// Error text for a CNAME chain with more than [`MAX_ALIASES`] aliases.
pub(super) const CNAME_CHAIN_TOO_LONG: &str = "the CNAME chain has more than 8 aliases";

/// Returns the usable part of `message` as the answer to the query `name` and `kind` (A, AAAA, PTR or SRV).
///
/// Loopback addresses are dropped unless `loopback` is set.
pub(super) fn sanitize(name: &Name, kind: RecordType, message: &Message, loopback: bool) -> Result<Answer, Rejection> {
    if message.truncation {
        return Err(Rejection::new(ResolveErrorKind::Truncated));
    }
    match message.response_code {
        ResponseCode::NoError => {}
        // If the response has aliases, NXDOMAIN refers to the last name of the CNAME chain (RFC 2308 section 2.1). The
        // queried name has no records in this case either.
        ResponseCode::NXDomain => return Err(negative(ResolveErrorKind::NoSuchName, message)),
        code => return Err(Rejection::new(ResolveErrorKind::ServerFailure(mnemonic(code)))),
    }
    let [question] = &message.queries[..] else {
        return Err(Rejection::malformed("expected exactly one question in the response"));
    };
    if question.name() != name || question.query_type() != kind {
        return Err(Rejection::malformed("the response is for a different question"));
    }

    let mut answer = Answer { ttl: Duration::from_secs(u64::from(MAX_TTL)), ..Answer::default() };
    let owner = follow_aliases(name, message, &mut answer)?;
    let own = |record: &&Record| record.dns_class == DNSClass::IN && record.name == owner;
    let mut records = message.answers.iter().filter(own).filter(|record| record.record_type() == kind).peekable();
    if records.peek().is_none() {
        return if !answer.aliases.is_empty() {
            Ok(answer)
        } else if message.answers.is_empty() {
            Err(negative(ResolveErrorKind::NoAddress, message))
        } else {
            Err(Rejection::malformed("no record in the response matches the question"))
        };
    }
    let mut unavailable = false;
    for record in records {
        match &record.data {
            RData::A(address) => add_address(&mut answer, record, address.0.into(), loopback),
            RData::AAAA(address) => add_address(&mut answer, record, address.0.into(), loopback),
            // A target of "." means that the service is not available (RFC 2782).
            RData::SRV(service) if service.target.is_root() => unavailable = true,
            RData::PTR(pointer) => {
                answer.pointers.push(pointer.0.clone());
                shorten(&mut answer.ttl, record);
            }
            RData::SRV(service) if service.port != 0 => {
                answer.services.push(Service::new(service));
                shorten(&mut answer.ttl, record);
            }
            _ => {}
        }
    }
    if !answer.has_records() {
        return Err(if unavailable {
            negative(ResolveErrorKind::NoAddress, message)
        } else {
            Rejection::malformed("no address or target in the response is usable")
        });
    }
    answer.services.sort_unstable();
    answer.services.dedup_by(|later, first| later.is_same_server(first));
    add_glue(&mut answer, message, loopback);
    answer.addresses.sort_unstable();
    answer.addresses.dedup();
    answer.left_out =
        answer.addresses.len().saturating_sub(MAX_ADDRESSES) + answer.services.len().saturating_sub(MAX_ADDRESSES);
    answer.addresses.truncate(MAX_ADDRESSES);
    answer.services.truncate(MAX_ADDRESSES);
    Ok(answer)
}

/// Adds the CNAME chain of `name` to the answer and returns the last name of the chain. The records may be in any
/// order.
fn follow_aliases(name: &Name, message: &Message, answer: &mut Answer) -> Result<Name, Rejection> {
    let mut owner = name.clone();
    loop {
        let next = message.answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.dns_class == DNSClass::IN && record.name == owner => {
                Some((record, &target.0))
            }
            _ => None,
        });
        let Some((record, target)) = next else { return Ok(owner) };
        if target == name || answer.aliases.contains(target) {
            return Err(Rejection::malformed(CNAME_LOOP));
        }
        if answer.aliases.len() == MAX_ALIASES {
            return Err(Rejection::malformed(CNAME_CHAIN_TOO_LONG));
        }
        shorten(&mut answer.ttl, record);
        answer.aliases.push(target.clone());
        owner = target.clone();
    }
}

fn add_address(answer: &mut Answer, record: &Record, address: IpAddr, loopback: bool) {
    if let Some(address) = usable(address, loopback) {
        answer.addresses.push(address);
        shorten(&mut answer.ttl, record);
    }
}

/// Adds the usable addresses of the answer's SRV targets. `answer.services` must be sorted.
fn add_glue(answer: &mut Answer, message: &Message, loopback: bool) {
    for record in message.additionals.iter().filter(|record| record.dns_class == DNSClass::IN) {
        let address = match &record.data {
            RData::A(address) => IpAddr::V4(address.0),
            RData::AAAA(address) => IpAddr::V6(address.0),
            _ => continue,
        };
        let index = answer.services.partition_point(|service| service.target < record.name);
        if answer.services.get(index).is_some_and(|service| service.target == record.name)
            && let Some(address) = usable(address, loopback)
        {
            answer.glue.push((record.name.clone(), address));
            shorten(&mut answer.ttl, record);
        }
    }
    answer.glue.sort_unstable();
    answer.glue.dedup();
}

/// Returns the address in canonical form (`::ffff:10.0.0.1` becomes 10.0.0.1) if a Pod can have it.
pub(super) fn usable(address: IpAddr, loopback: bool) -> Option<IpAddr> {
    let address = address.to_canonical();
    let unusable = match address {
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.is_broadcast(),
        // A link-local address is ambiguous without its interface, and a DNS record does not contain the interface.
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_unicast_link_local(),
    };
    let allowed = loopback || !address.is_loopback();
    (!unusable && !address.is_multicast() && allowed).then_some(address)
}

fn shorten(ttl: &mut Duration, record: &Record) {
    *ttl = (*ttl).min(seconds(record.ttl));
}

/// Converts a TTL in seconds to a duration, limited to [`MAX_TTL`]. A TTL whose most significant bit is set counts as 0
/// (RFC 2181 section 8).
fn seconds(ttl: u32) -> Duration {
    Duration::from_secs(u64::from(if ttl > i32::MAX as u32 { 0 } else { ttl.min(MAX_TTL) }))
}

/// Returns the validity of a negative response (RFC 2308 section 5) from its SOA record and that record's TTL.
pub(super) fn negative_ttl(ttl: u32, soa: &SOA) -> Duration {
    seconds(ttl).min(seconds(soa.minimum))
}

/// Returns the rejection for a negative response, with the validity from its SOA record.
fn negative(kind: ResolveErrorKind, message: &Message) -> Rejection {
    let negative_ttl = message.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(negative_ttl(record.ttl, soa)),
        _ => None,
    });
    Rejection { negative_ttl, ..Rejection::new(kind) }
}

/// Returns the name of a response code as the RFCs spell it.
pub(super) fn mnemonic(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::NotAuth => "NOTAUTH",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::ServFail => "SERVFAIL",
        code => code.to_str(),
    }
}
