//! Fuzz entry points for the external input that discovery parses: DNS messages and resolv.conf.
//!
//! Each function panics if an invariant is violated.

use std::net::IpAddr;

use hickory_resolver::proto::{
    op::{Message, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, PTR, SOA, SRV},
    },
};

use super::{
    records::{Answer, MAX_ADDRESSES, MAX_ALIASES, sanitize},
    resolv_conf::ResolvConf,
    search::candidates,
};
use crate::time::Duration;

const KINDS: [RecordType; 4] = [RecordType::A, RecordType::AAAA, RecordType::SRV, RecordType::PTR];
const NAMES: [&str; 8] = [
    "postgresql-svc.k8s-training.svc.cluster.local.",
    "POSTGRESQL-svc.k8s-training.svc.CLUSTER.local.",
    "postgresql-sfs-0.postgresql-svc.k8s-training.svc.cluster.local.",
    "postgresql-sfs-1.postgresql-svc.k8s-training.svc.cluster.local.",
    "alias.cluster.local.",
    "elsewhere.example.",
    "local.",
    ".",
];

fn name(byte: u8) -> Name {
    Name::from_ascii(NAMES[usize::from(byte) % NAMES.len()]).expect("the name is valid")
}

/// Parses bytes as resolv.conf. Checks that the result has at most 3 name servers and an `ndots` of at most 15, and
/// that every candidate name is absolute.
pub fn resolv_conf(bytes: &[u8]) {
    let conf = ResolvConf::parse(bytes);
    assert!(conf.servers.len() <= 3 && conf.ndots <= 15, "{conf:?}");
    assert!(conf.search.iter().all(|domain| domain.is_fqdn() && !domain.is_root()), "{conf:?}");
    let service = Name::from_ascii("postgresql-svc").expect("the name is valid");
    let prefix = Name::from_ascii("_postgresql-port._tcp").expect("the name is valid");
    for (prefix, absolute) in [(None, false), (None, true), (Some(&prefix), false)] {
        let found = candidates(&service, absolute, prefix, &conf);
        assert!(!found.is_empty() && found.len() <= conf.search.len() + 1, "{found:?}");
        assert!(found.iter().all(|candidate| candidate.name.is_fqdn()), "{found:?}");
        assert!(!absolute || found.len() == 1, "{found:?}");
    }
}

/// Parses bytes as a DNS message from a socket, and checks the invariants of the filtered answer.
pub fn answer(bytes: &[u8]) {
    let Ok(message) = Message::from_vec(bytes) else { return };
    for kind in KINDS {
        check(&name(0), kind, &message);
        if let [question] = &message.queries[..] {
            check(question.name(), kind, &message);
        }
    }
}

/// Builds a DNS message from the bytes, and checks the invariants of the filtered answer. The records have all types,
/// and most of them are related to the question. The first three bytes describe the message, and every further ten
/// bytes describe one record.
pub fn records(bytes: &[u8]) {
    let &[kind, flags, code, ref rest @ ..] = bytes else { return };
    let kind = KINDS[usize::from(kind) % KINDS.len()];
    let mut message = Message::response(7, OpCode::Query);
    message.add_query(Query::query(name(flags >> 7), kind));
    message.metadata.truncation = flags & 0x0f == 0x0f;
    message.metadata.response_code =
        if code < 200 { ResponseCode::NoError } else { ResponseCode::from(0, code & 0x0f) };
    for bytes in rest.chunks_exact(10) {
        let record = record(bytes);
        match bytes[0] >> 6 {
            0 | 1 => message.add_answer(record),
            2 => message.add_additional(record),
            _ => message.add_authority(record),
        };
    }
    check(&name(0), kind, &message);
}

fn record(bytes: &[u8]) -> Record {
    let &[kind, owner, ttl, ref data @ ..] = bytes else { unreachable!("chunks have ten bytes") };
    let u16_at = |at: usize| u16::from_be_bytes([data[at], data[at + 1]]);
    let v4 = [data[0], data[1], data[2], data[3]];
    let data = match kind & 7 {
        0 | 1 => RData::A(A(v4.into())),
        2 => {
            let mapped = if data[6] > 99 { 0xffff } else { 0 };
            RData::AAAA(AAAA([u16_at(0), 0, 0, 0, 0, mapped, u16_at(2), u16_at(4)].into()))
        }
        3 | 4 => RData::SRV(SRV::new(u16_at(0), u16_at(2), u16_at(4), name(data[6]))),
        5 => RData::CNAME(CNAME(name(data[0]))),
        6 => RData::PTR(PTR(name(data[0]))),
        _ => {
            let minimum = u32::from_be_bytes(v4);
            RData::SOA(SOA::new(name(5), name(5), 1, 2, 3, 4, minimum))
        }
    };
    // If `ttl` is 128 or more, the most significant bit of the TTL is set, so the filter must treat the TTL as 0.
    let mut record = Record::from_rdata(name(owner), u32::from(ttl) << 24 | u32::from(ttl), data);
    if kind & 8 != 0 && owner > 200 {
        record.dns_class = DNSClass::CH;
    }
    record
}

/// Checks the invariants of the filtered answer.
fn check(name: &Name, kind: RecordType, message: &Message) {
    for loopback in [false, true] {
        let Ok(answer) = sanitize(name, kind, message, loopback) else { continue };
        assert!(!message.truncation && message.response_code == ResponseCode::NoError, "{message:?}");
        assert!(answer.has_records() || !answer.aliases.is_empty(), "{answer:?}");
        check_parts(&answer, loopback);
        let aliased = message.answers.iter().any(|record| record.record_type() == RecordType::CNAME);
        if !aliased {
            // Name servers shuffle their records, so the filtered answer must not depend on the order of the records.
            let mut reversed = message.clone();
            reversed.answers.reverse();
            reversed.additionals.reverse();
            let mut same = sanitize(name, kind, &reversed, loopback).expect("the same records are usable");
            same.pointers.reverse();
            assert_eq!(same, answer);
        }
    }
}

fn check_parts(answer: &Answer, loopback: bool) {
    assert!(answer.addresses.is_sorted_by(|a, b| a < b), "{answer:?}");
    assert!(answer.services.is_sorted_by(|a, b| a < b), "{answer:?}");
    assert!(answer.glue.is_sorted_by(|a, b| a < b), "{answer:?}");
    assert!(answer.addresses.len() <= MAX_ADDRESSES && answer.services.len() <= MAX_ADDRESSES);
    assert!(answer.aliases.len() <= MAX_ALIASES, "{answer:?}");
    assert!(answer.ttl <= Duration::from_secs(86_400), "{answer:?}");
    for address in answer.addresses.iter().chain(answer.glue.iter().map(|(_, address)| address)) {
        assert!(!address.is_unspecified() && !address.is_multicast(), "{answer:?}");
        assert!(loopback || !address.is_loopback(), "{answer:?}");
        assert!(*address == address.to_canonical() && *address != IpAddr::from([255; 4]), "{answer:?}");
    }
    assert!(answer.services.iter().all(|service| service.port != 0 && !service.target.is_root()), "{answer:?}");
    let known = |target: &Name| answer.services.iter().any(|service| service.target == *target);
    assert!(answer.glue.iter().all(|(target, _)| known(target)), "{answer:?}");
}
