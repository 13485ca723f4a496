//! From a message to what may be used of it.
//!
//! A record counts when it is of the class and type asked for and belongs to the name asked for, or to the end of that
//! name's CNAME chain; an address counts when a Pod can have it. What is left out is left out silently, but an answer
//! of which nothing is left is malformed, not empty: emptiness is only what the server says it is.

use std::net::IpAddr;

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType},
};

use super::error::ResolveErrorKind;
use crate::time::Duration;

/// How many addresses of one answer are used. A Service has at most a few thousand Pods.
pub(super) const MAX_ADDRESSES: usize = 4096;
/// How many CNAME records are followed, over all messages of one question.
pub(super) const MAX_ALIASES: usize = 8;
/// No TTL is taken for longer than a day.
const MAX_TTL: u32 = 86_400;

/// What may be used of one answer.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Answer {
    /// Of A and AAAA records: sorted, without duplicates.
    pub(super) addresses: Vec<IpAddr>,
    /// Of SRV records: sorted by target and port, without duplicates.
    pub(super) services: Vec<Service>,
    /// Addresses of SRV targets that came along: sorted, without duplicates.
    pub(super) glue: Vec<(Name, IpAddr)>,
    /// Of PTR records: the names that the address belongs to.
    pub(super) pointers: Vec<Name>,
    /// The names that the name asked for is an alias of, in order. The records are the last one's; where there are
    /// none, it has to be asked for.
    pub(super) aliases: Vec<Name>,
    /// The smallest TTL of all the records used.
    pub(super) ttl: Duration,
    /// How many addresses or targets were left out because there are too many.
    pub(super) left_out: usize,
}

/// One SRV record's target. Priority and weight are left aside: Kubernetes prescribes neither (DNS specification,
/// 2.4.2), and who gets how much is the balancer's business.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Service {
    pub(super) target: Name,
    pub(super) port: u16,
}

/// Why nothing of an answer may be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Refusal {
    pub(super) kind: ResolveErrorKind,
    pub(super) negative_ttl: Option<Duration>,
    pub(super) why: &'static str,
}

impl Refusal {
    pub(super) fn malformed(why: &'static str) -> Self {
        Self { kind: ResolveErrorKind::Malformed, negative_ttl: None, why }
    }

    fn negative(kind: ResolveErrorKind, message: &Message) -> Self {
        Self { kind, negative_ttl: negative_ttl(message), why: "" }
    }
}

impl Answer {
    /// Whether it tells no more than aliases.
    pub(super) fn has_nothing(&self) -> bool {
        self.addresses.is_empty() && self.services.is_empty() && self.pointers.is_empty()
    }
}

/// What may be used of `message` as the answer to `name` and `kind` (A, AAAA, PTR or SRV). `loopback`: whether Pods may be
/// on loopback.
pub(super) fn sanitise(name: &Name, kind: RecordType, message: &Message, loopback: bool) -> Result<Answer, Refusal> {
    if message.truncation {
        return Err(Refusal { kind: ResolveErrorKind::Truncated, negative_ttl: None, why: "" });
    }
    match message.response_code {
        ResponseCode::NoError => {}
        // With aliases it is their end that does not exist (RFC 2308 section 2.1), which comes to the same.
        ResponseCode::NXDomain => return Err(Refusal::negative(ResolveErrorKind::NoSuchName, message)),
        code => {
            return Err(Refusal { kind: ResolveErrorKind::ServerFailure(mnemonic(code)), negative_ttl: None, why: "" });
        }
    }
    let [question] = &message.queries[..] else {
        return Err(Refusal::malformed("the answer has not one question"));
    };
    if question.name() != name || question.query_type() != kind {
        return Err(Refusal::malformed("the answer is to another question"));
    }

    let mut answer = Answer { ttl: Duration::from_secs(u64::from(MAX_TTL)), ..Answer::default() };
    let owner = follow_aliases(name, message, &mut answer)?;
    let own = |record: &&Record| record.dns_class == DNSClass::IN && record.name == owner;
    let mut records = message.answers.iter().filter(own).filter(|record| record.record_type() == kind).peekable();
    if records.peek().is_none() {
        return if !answer.aliases.is_empty() {
            Ok(answer)
        } else if message.answers.is_empty() {
            Err(Refusal::negative(ResolveErrorKind::NoAddress, message))
        } else {
            Err(Refusal::malformed("no record of the answer belongs to the question"))
        };
    }
    let mut unavailable = false;
    for record in records {
        match &record.data {
            RData::A(address) => keep_address(&mut answer, record, address.0.into(), loopback),
            RData::AAAA(address) => keep_address(&mut answer, record, address.0.into(), loopback),
            // A target of "." says that the service is decidedly not available (RFC 2782).
            RData::SRV(service) if service.target.is_root() => unavailable = true,
            RData::PTR(pointer) => {
                answer.pointers.push(pointer.0.clone());
                shorten(&mut answer.ttl, record);
            }
            RData::SRV(service) if service.port != 0 => {
                answer.services.push(Service { target: service.target.clone(), port: service.port });
                shorten(&mut answer.ttl, record);
            }
            _ => {}
        }
    }
    if answer.has_nothing() {
        return Err(if unavailable {
            Refusal::negative(ResolveErrorKind::NoAddress, message)
        } else {
            Refusal::malformed("no address of the answer can be a Pod's")
        });
    }
    answer.services.sort_unstable();
    answer.services.dedup();
    for record in message.additionals.iter().filter(|record| record.dns_class == DNSClass::IN) {
        let address = match &record.data {
            RData::A(address) => IpAddr::V4(address.0),
            RData::AAAA(address) => IpAddr::V6(address.0),
            _ => continue,
        };
        let place = answer.services.partition_point(|service| service.target < record.name);
        if answer.services.get(place).is_some_and(|service| service.target == record.name)
            && let Some(address) = usable(address, loopback)
        {
            answer.glue.push((record.name.clone(), address));
            shorten(&mut answer.ttl, record);
        }
    }
    answer.glue.sort_unstable();
    answer.glue.dedup();
    answer.addresses.sort_unstable();
    answer.addresses.dedup();
    answer.left_out =
        answer.addresses.len().saturating_sub(MAX_ADDRESSES) + answer.services.len().saturating_sub(MAX_ADDRESSES);
    answer.addresses.truncate(MAX_ADDRESSES);
    answer.services.truncate(MAX_ADDRESSES);
    Ok(answer)
}

/// Puts the chain of aliases into the answer and returns its end. CNAME records may stand in any order.
fn follow_aliases(name: &Name, message: &Message, answer: &mut Answer) -> Result<Name, Refusal> {
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
            return Err(Refusal::malformed("the CNAME records go in a circle"));
        }
        if answer.aliases.len() == MAX_ALIASES {
            return Err(Refusal::malformed("the chain of CNAME records is too long"));
        }
        shorten(&mut answer.ttl, record);
        answer.aliases.push(target.clone());
        owner = target.clone();
    }
}

fn keep_address(answer: &mut Answer, record: &Record, address: IpAddr, loopback: bool) {
    if let Some(address) = usable(address, loopback) {
        answer.addresses.push(address);
        shorten(&mut answer.ttl, record);
    }
}

/// The address in its one form (`::ffff:10.0.0.1` is 10.0.0.1), if a Pod can have it.
fn usable(address: IpAddr, loopback: bool) -> Option<IpAddr> {
    let address = address.to_canonical();
    let unusable = match address {
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.is_broadcast(),
        // A link-local address means nothing without the interface, which no record tells.
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_unicast_link_local(),
    };
    let elsewhere = loopback || !address.is_loopback();
    (!unusable && !address.is_multicast() && elsewhere).then_some(address)
}

fn shorten(ttl: &mut Duration, record: &Record) {
    *ttl = (*ttl).min(seconds(record.ttl));
}

/// A TTL with its highest bit set counts as 0 (RFC 2181 section 8).
fn seconds(ttl: u32) -> Duration {
    Duration::from_secs(u64::from(if ttl > i32::MAX as u32 { 0 } else { ttl.min(MAX_TTL) }))
}

/// How long a negative answer holds (RFC 2308 section 5).
fn negative_ttl(message: &Message) -> Option<Duration> {
    message.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(seconds(record.ttl).min(seconds(soa.minimum))),
        _ => None,
    })
}

/// The name of a response code as the RFCs write it.
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

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use hickory_resolver::proto::{
        op::{OpCode, Query},
        rr::rdata::{A, AAAA, CNAME, SOA, SRV},
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
        sanitise(&svc(), kind, message, false).unwrap().addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn keeps_what_belongs_to_the_question_sorted_once_each_with_the_smallest_ttl() {
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
        assert_eq!(sanitise(&svc(), RecordType::A, &message, false).unwrap().ttl, Duration::from_secs(5));
    }

    #[test]
    fn drops_addresses_no_pod_can_have_and_takes_mapped_ones_for_what_they_are() {
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
        let on_loopback = sanitise(&svc(), RecordType::A, &v4, true).unwrap();
        assert_eq!(on_loopback.addresses.len(), 2);
    }

    #[test]
    fn an_answer_of_which_nothing_is_left_is_malformed_and_not_empty() {
        for record in [a(&name("elsewhere."), 5, [10, 0, 0, 1]), a(&svc(), 5, [127, 0, 0, 1])] {
            let mut message = message(RecordType::A);
            message.add_answer(record);
            let refusal = sanitise(&svc(), RecordType::A, &message, false).unwrap_err();
            assert_eq!(refusal.kind, ResolveErrorKind::Malformed);
        }
    }

    #[test]
    fn only_the_whole_answer_to_the_very_question_counts() {
        let mut message = message(RecordType::A);
        message.add_answer(a(&svc(), 5, [10, 0, 0, 1]));
        let kind = |message: &Message| sanitise(&svc(), RecordType::A, message, false).unwrap_err().kind;
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
    fn a_negative_answer_tells_for_how_long() {
        let mut message = message(RecordType::A);
        let soa = SOA::new(name("ns.cluster.local."), name("host.cluster.local."), 1, 2, 3, 4, 5);
        message.add_authority(Record::from_rdata(name("cluster.local."), 30, RData::SOA(soa)));
        let empty = sanitise(&svc(), RecordType::A, &message, false).unwrap_err();
        assert_eq!((empty.kind, empty.negative_ttl), (ResolveErrorKind::NoAddress, Some(Duration::from_secs(5))));
        message.metadata.response_code = ResponseCode::NXDomain;
        message.authorities.clear();
        let none = sanitise(&svc(), RecordType::A, &message, false).unwrap_err();
        assert_eq!((none.kind, none.negative_ttl), (ResolveErrorKind::NoSuchName, None));
    }

    #[test]
    fn follows_aliases_in_any_order_and_never_in_a_circle() {
        let mut message = message(RecordType::A);
        message.add_answers([
            a(&name("c.example."), 30, [10, 0, 0, 1]),
            cname("b.example.", "c.example."),
            cname("postgresql-svc.k8s-training.svc.cluster.local.", "b.example."),
        ]);
        assert_eq!(addresses(&message), ["10.0.0.1"]);
        message.answers.remove(0);
        let open = sanitise(&svc(), RecordType::A, &message, false).unwrap();
        assert_eq!((open.aliases, open.addresses), (vec![name("b.example."), name("c.example.")], vec![]));
        message.add_answer(cname("c.example.", "b.example."));
        let circle = sanitise(&svc(), RecordType::A, &message, false).unwrap_err();
        assert_eq!(circle.kind, ResolveErrorKind::Malformed);
    }

    #[test]
    fn an_srv_record_brings_target_and_port_and_the_glue_of_its_target_only() {
        let mut message = message(RecordType::SRV);
        let (zero, one) = (svc().prepend_label("sfs-0").unwrap(), svc().prepend_label("sfs-1").unwrap());
        let srv = |target: &Name, port, weight| {
            Record::from_rdata(svc(), 5, RData::SRV(SRV::new(0, weight, port, target.clone())))
        };
        message.add_answers([srv(&one, 5433, 1), srv(&zero, 5432, 99), srv(&zero, 0, 1), srv(&zero, 5432, 7)]);
        message.add_additionals([
            a(&zero, 3, [10, 0, 0, 1]),
            aaaa(&zero, 5, "2001:db8::1"),
            a(&svc(), 5, [10, 0, 0, 7]),
            a(&one, 5, [0, 0, 0, 0]),
        ]);
        let answer = sanitise(&svc(), RecordType::SRV, &message, false).unwrap();
        let service = |target: &Name, port| Service { target: target.clone(), port };
        assert_eq!(answer.services, [service(&zero, 5432), service(&one, 5433)]);
        assert_eq!(answer.glue.len(), 2);
        assert_eq!(answer.ttl, Duration::from_secs(3));
        message.answers = vec![srv(&Name::root(), 5432, 0)];
        let refusal = sanitise(&svc(), RecordType::SRV, &message, false).unwrap_err();
        assert_eq!(refusal.kind, ResolveErrorKind::NoAddress);
    }

    #[test]
    fn a_ttl_with_its_highest_bit_set_is_zero_and_none_is_longer_than_a_day() {
        assert_eq!(seconds(1 << 31), Duration::ZERO);
        assert_eq!(seconds(i32::MAX as u32), Duration::from_secs(86_400));
    }

    #[test]
    fn more_addresses_than_the_limit_are_left_out_and_counted() {
        let mut message = message(RecordType::A);
        for n in 0..5000u16 {
            let [high, low] = n.to_be_bytes();
            message.add_answer(a(&svc(), 5, [10, 0, high, low]));
        }
        let answer = sanitise(&svc(), RecordType::A, &message, false).unwrap();
        assert_eq!((answer.addresses.len(), answer.left_out), (MAX_ADDRESSES, 5000 - MAX_ADDRESSES));
    }

    proptest! {
        #[test]
        fn whatever_bytes_come_nothing_unusable_comes_out(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(message) = Message::from_vec(&bytes) {
                for kind in [RecordType::A, RecordType::AAAA, RecordType::SRV] {
                    if let Ok(answer) = sanitise(&svc(), kind, &message, false) {
                        prop_assert!(answer.addresses.iter().all(|ip| !ip.is_unspecified() && !ip.is_loopback()));
                    }
                }
            }
        }
    }
}
