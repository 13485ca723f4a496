//! Tests the filter for DNS responses with handwritten messages and random bytes.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_resolver::proto::{
    op::{OpCode, Query},
    rr::rdata::{A, AAAA, CNAME, SRV},
};
use proptest::prelude::*;

use super::*;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn svc() -> Name {
    name("postgresql-svc.k8s-training.svc.cluster.local.")
}

fn message(kind: RecordType) -> Message {
    let mut message = Message::response(7, OpCode::Query);
    message.add_query(Query::query(svc(), kind));
    message
}

fn a(owner: &Name, ttl: u32, address: [u8; 4]) -> Record {
    Record::from_rdata(owner.clone(), ttl, RData::A(A(Ipv4Addr::from(address))))
}

fn aaaa(owner: &Name, ttl: u32, address: &str) -> Record {
    Record::from_rdata(owner.clone(), ttl, RData::AAAA(AAAA(address.parse::<Ipv6Addr>().unwrap())))
}

fn cname(owner: &str, target: &str) -> Record {
    Record::from_rdata(name(owner), 9, RData::CNAME(CNAME(name(target))))
}

fn addresses(message: &Message) -> Vec<String> {
    let kind = message.queries[0].query_type();
    sanitize(&svc(), kind, message, false).unwrap().addresses.iter().map(ToString::to_string).collect()
}

#[test]
fn returns_sorted_unique_addresses_and_the_smallest_ttl() {
    let mut message = message(RecordType::A);
    let foreign = name("elsewhere.cluster.local.");
    let mut chaos = a(&svc(), 1, [10, 0, 0, 9]);
    chaos.dns_class = DNSClass::CH;
    message.add_answers([
        a(&svc(), 30, [10, 0, 0, 2]),
        a(&svc().to_lowercase(), 5, [10, 0, 0, 1]),
        a(&svc(), 30, [10, 0, 0, 2]),
        a(&foreign, 1, [10, 0, 0, 8]),
        chaos,
        aaaa(&svc(), 1, "2001:db8::1"),
    ]);
    assert_eq!(addresses(&message), ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(sanitize(&svc(), RecordType::A, &message, false).unwrap().ttl, Duration::from_secs(5));
}

#[test]
fn drops_unusable_addresses_and_converts_ipv4_mapped_ones() {
    let mut v4 = message(RecordType::A);
    for address in [[0, 0, 0, 0], [0, 1, 2, 3], [255; 4], [224, 0, 0, 1], [127, 0, 0, 1], [10, 0, 0, 1]] {
        v4.add_answer(a(&svc(), 5, address));
    }
    assert_eq!(addresses(&v4), ["10.0.0.1"]);
    let mut v6 = message(RecordType::AAAA);
    for address in ["::", "ff02::1", "::1", "fe80::1", "::ffff:10.0.0.2", "::ffff:127.0.0.1", "2001:db8::1"] {
        v6.add_answer(aaaa(&svc(), 5, address));
    }
    assert_eq!(addresses(&v6), ["10.0.0.2", "2001:db8::1"]);
    let on_loopback = sanitize(&svc(), RecordType::A, &v4, true).unwrap();
    assert_eq!(on_loopback.addresses.len(), 2);
}

#[test]
fn response_without_usable_records_is_malformed_not_negative() {
    for record in [a(&name("elsewhere."), 5, [10, 0, 0, 1]), a(&svc(), 5, [127, 0, 0, 1])] {
        let mut message = message(RecordType::A);
        message.add_answer(record);
        let rejection = sanitize(&svc(), RecordType::A, &message, false).unwrap_err();
        assert_eq!(rejection.kind, ResolveErrorKind::Malformed);
    }
}

#[test]
fn rejects_truncated_failed_and_mismatched_responses() {
    let mut message = message(RecordType::A);
    message.add_answer(a(&svc(), 5, [10, 0, 0, 1]));
    let kind = |message: &Message| sanitize(&svc(), RecordType::A, message, false).unwrap_err().kind;
    let mut truncated = message.clone();
    truncated.metadata.truncation = true;
    assert_eq!(kind(&truncated), ResolveErrorKind::Truncated);
    let mut failed = message.clone();
    failed.metadata.response_code = ResponseCode::ServFail;
    assert_eq!(kind(&failed), ResolveErrorKind::ServerFailure("SERVFAIL"));
    let mut odd = message.clone();
    odd.metadata.response_code = ResponseCode::Unknown(12);
    assert!(matches!(kind(&odd), ResolveErrorKind::ServerFailure(_)));
    let mut other = message.clone();
    other.queries = vec![Query::query(name("other."), RecordType::A)];
    assert_eq!(kind(&other), ResolveErrorKind::Malformed);
    message.queries.clear();
    assert_eq!(kind(&message), ResolveErrorKind::Malformed);
}

#[test]
fn negative_ttl_comes_from_the_soa_record() {
    let mut message = message(RecordType::A);
    let soa = SOA::new(name("ns.cluster.local."), name("host.cluster.local."), 1, 2, 3, 4, 5);
    message.add_authority(Record::from_rdata(name("cluster.local."), 30, RData::SOA(soa)));
    let empty = sanitize(&svc(), RecordType::A, &message, false).unwrap_err();
    assert_eq!((empty.kind, empty.negative_ttl), (ResolveErrorKind::NoAddress, Some(Duration::from_secs(5))));
    message.metadata.response_code = ResponseCode::NXDomain;
    message.authorities.clear();
    let none = sanitize(&svc(), RecordType::A, &message, false).unwrap_err();
    assert_eq!((none.kind, none.negative_ttl), (ResolveErrorKind::NoSuchName, None));
}

#[test]
fn follows_cname_records_in_any_order_and_rejects_a_loop() {
    let mut message = message(RecordType::A);
    message.add_answers([
        a(&name("c.example."), 30, [10, 0, 0, 1]),
        cname("b.example.", "c.example."),
        cname("postgresql-svc.k8s-training.svc.cluster.local.", "b.example."),
    ]);
    assert_eq!(addresses(&message), ["10.0.0.1"]);
    message.answers.remove(0);
    let open = sanitize(&svc(), RecordType::A, &message, false).unwrap();
    assert_eq!((open.aliases, open.addresses), (vec![name("b.example."), name("c.example.")], vec![]));
    message.add_answer(cname("c.example.", "b.example."));
    let rejected = sanitize(&svc(), RecordType::A, &message, false).unwrap_err();
    assert_eq!(rejected.kind, ResolveErrorKind::Malformed);
}

#[test]
fn srv_answer_has_targets_ports_and_only_their_addresses() {
    let mut message = message(RecordType::SRV);
    let (zero, one) = (svc().prepend_label("sfs-0").unwrap(), svc().prepend_label("sfs-1").unwrap());
    let srv = |target: &Name, port, priority, weight| {
        Record::from_rdata(svc(), 5, RData::SRV(SRV::new(priority, weight, port, target.clone())))
    };
    message.add_answers([srv(&one, 5433, 10, 1), srv(&zero, 5432, 7, 99), srv(&zero, 0, 0, 1), srv(&zero, 5432, 7, 5)]);
    message.add_answer(srv(&zero, 5432, 20, 100));
    message.add_additionals([
        a(&zero, 3, [10, 0, 0, 1]),
        aaaa(&zero, 5, "2001:db8::1"),
        a(&svc(), 5, [10, 0, 0, 7]),
        a(&one, 5, [0, 0, 0, 0]),
    ]);
    let answer = sanitize(&svc(), RecordType::SRV, &message, false).unwrap();
    let service = |target: &Name, port, priority, weight| {
        let target = target.clone();
        Service { target, port, priority, weight: std::cmp::Reverse(weight) }
    };
    // Of several records for a target and port, the preferred one is used.
    assert_eq!(answer.services, [service(&zero, 5432, 7, 99), service(&one, 5433, 10, 1)]);
    assert_eq!(answer.glue.len(), 2);
    assert_eq!(answer.ttl, Duration::from_secs(3));
    message.answers = vec![srv(&Name::root(), 5432, 0, 0)];
    let rejection = sanitize(&svc(), RecordType::SRV, &message, false).unwrap_err();
    assert_eq!(rejection.kind, ResolveErrorKind::NoAddress);
}

#[test]
fn limits_ttls_to_one_day_and_treats_a_set_top_bit_as_zero() {
    assert_eq!(seconds(1 << 31), Duration::ZERO);
    assert_eq!(seconds(i32::MAX as u32), Duration::from_secs(86_400));
    let soa = |minimum| SOA::new(Name::root(), Name::root(), 1, 2, 3, 4, minimum);
    for (ttl, minimum, limited) in [(30, 5, 5), (1 << 31, 5, 0), (5, 1 << 31, 0), (100_000, 100_000, 86_400)] {
        assert_eq!(negative_ttl(ttl, &soa(minimum)), Duration::from_secs(limited), "TTL {ttl}, minimum {minimum}");
    }
}

#[test]
fn drops_and_counts_addresses_above_the_limit() {
    let mut message = message(RecordType::A);
    for n in 0..5000u16 {
        let [high, low] = n.to_be_bytes();
        message.add_answer(a(&svc(), 5, [10, 0, high, low]));
    }
    let answer = sanitize(&svc(), RecordType::A, &message, false).unwrap();
    assert_eq!((answer.addresses.len(), answer.left_out), (MAX_ADDRESSES, 5000 - MAX_ADDRESSES));
}

proptest! {
    #[test]
    fn never_returns_an_unspecified_or_loopback_address(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(message) = Message::from_vec(&bytes) {
            for kind in [RecordType::A, RecordType::AAAA, RecordType::SRV] {
                if let Ok(answer) = sanitize(&svc(), kind, &message, false) {
                    prop_assert!(answer.addresses.iter().all(|ip| !ip.is_unspecified() && !ip.is_loopback()));
                }
            }
        }
    }
}
