//! From a question to the bytes that answer it, rightly or wrongly.

use std::sync::{Mutex, PoisonError};

use hickory_resolver::proto::{
    op::{Edns, Message, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, rdata::SOA},
};

use super::{
    Fault, Record, RecordType, Shared, TTL,
    record::{address, parse},
};

/// The size of UDP questions that it says it takes.
const UDP_PAYLOAD: u16 = 1232;

impl Shared {
    /// The answer as the records have it.
    fn answer(&self, request: &Message, question: &Query) -> Message {
        let mut response = reply(request, question);
        let mut owner = question.name().clone();
        // The chain of aliases, as an authoritative server follows it; a circle ends it.
        for _ in 0..16 {
            let alias =
                self.records.iter().find(|record| record.name == owner && record.record_type() == RecordType::CNAME);
            let Some((record, RData::CNAME(target))) = alias.map(|record| (record, &record.data)) else { break };
            if response.answers.contains(record) {
                break;
            }
            response.add_answer(record.clone());
            owner = target.0.clone();
        }
        let own = |record: &&Record| record.name == owner && record.record_type() == question.query_type();
        response.add_answers(self.records.iter().filter(own).cloned());
        if response.answers.is_empty() && !self.records.iter().any(|record| owner.zone_of(&record.name)) {
            // A wildcard record answers to every name that is not there (RFC 4592).
            let fits = |record: &&Record| record.name.is_wildcard() && record.name.base_name().zone_of(&owner);
            let typed = self.records.iter().filter(fits).filter(|record| record.record_type() == question.query_type());
            response.add_answers(typed.cloned().map(|mut record| {
                record.name = owner.clone();
                record
            }));
        }
        let targets: Vec<_> = response.answers.iter().filter_map(target).collect();
        let glue = self.records.iter().filter(|record| {
            matches!(record.record_type(), RecordType::A | RecordType::AAAA) && targets.contains(&record.name)
        });
        response.add_additionals(glue.cloned());
        if response.answers.is_empty() {
            let exists = self.records.iter().any(|record| question.name().zone_of(&record.name));
            response.metadata.response_code = if exists { ResponseCode::NoError } else { ResponseCode::NXDomain };
            response.add_authority(soa(TTL));
        }
        response
    }
}

fn target(record: &Record) -> Option<Name> {
    match &record.data {
        RData::SRV(service) => Some(service.target.clone()),
        _ => None,
    }
}

fn reply(request: &Message, question: &Query) -> Message {
    let mut response = Message::response(request.id, OpCode::Query);
    response.metadata.authoritative = true;
    response.add_query(question.clone());
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_PAYLOAD);
        response.set_edns(edns);
    }
    response
}

fn soa(ttl: u32) -> Record {
    let data = SOA::new(parse("ns.dns.cluster.local."), parse("hostmaster.cluster.local."), 1, 7200, 1800, 86_400, ttl);
    Record::from_rdata(parse("cluster.local."), ttl, RData::SOA(data))
}

/// The message that answers, as bytes; `None` where nothing does.
pub(super) fn response(
    shared: &Mutex<Shared>,
    request: &Message,
    question: &Query,
    fault: &Fault,
    tcp: bool,
) -> Option<Vec<u8>> {
    let shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    let mut message = shared.answer(request, question);
    match fault {
        Fault::Drop => return None,
        Fault::None | Fault::Delay(_) | Fault::WrongSource => {}
        Fault::Code(code) => {
            message = reply(request, question);
            message.metadata.response_code = ResponseCode::from(0, *code as u8);
        }
        Fault::NoSuchName(ttl) | Fault::NoData(ttl) => {
            message = reply(request, question);
            message.add_authority(soa(*ttl));
            if matches!(fault, Fault::NoSuchName(_)) {
                message.metadata.response_code = ResponseCode::NXDomain;
            }
        }
        Fault::WrongId => message.metadata.id = request.id.wrapping_add(1),
        Fault::WrongQuestion => message.queries = vec![Query::query(parse("another.example."), question.query_type())],
        Fault::Garbage => {
            let mut bytes = request.id.to_be_bytes().to_vec();
            bytes.extend([0xff; 30]);
            return Some(bytes);
        }
        Fault::ForeignOwner(ip) => message.answers = vec![address("elsewhere.example.", TTL, &ip.to_string())],
        Fault::ForeignClass => {
            if let Some(mut record) = message.answers.first().cloned() {
                record.dns_class = DNSClass::CH;
                message.add_answer(record);
            }
        }
        Fault::Truncate(keep, _) if !tcp => {
            message.answers.truncate(*keep);
            message.additionals.clear();
            message.metadata.truncation = true;
        }
        Fault::Truncate(..) => {}
        Fault::Records(records) => message.answers = records.clone(),
        Fault::OneAlias => {
            if message.answers.first().is_some_and(|record| record.record_type() == RecordType::CNAME) {
                message.answers.truncate(1);
            }
        }
        Fault::NoGlue => message.additionals.clear(),
        Fault::LowerCase => {
            message.queries = vec![Query::query(question.name().to_lowercase(), question.query_type())];
        }
    }
    let mut bytes = encode(&message)?;
    // An answer larger than asked for is cut as CoreDNS cuts it: what fits, marked as truncated.
    let limit = request.edns.as_ref().map_or(512, |edns| usize::from(edns.max_payload()).max(512));
    while !tcp && bytes.len() > limit {
        message.metadata.truncation = true;
        message.additionals.clear();
        let keep = (message.answers.len() * limit / bytes.len()).min(message.answers.len().saturating_sub(1));
        message.answers.truncate(keep);
        bytes = encode(&message)?;
    }
    Some(bytes)
}

/// The message in bytes. Address records of the very name asked for point back to the question, as CoreDNS writes them
/// (16 bytes each for IPv4); hickory's encoder stops compressing after a while.
fn encode(message: &Message) -> Option<Vec<u8>> {
    let [question] = &message.queries[..] else { return message.to_vec().ok() };
    let plain = |record: &Record| {
        record.name == *question.name() && matches!(record.record_type(), RecordType::A | RecordType::AAAA)
    };
    if !message.authorities.is_empty() || !message.additionals.is_empty() || !message.answers.iter().all(plain) {
        return message.to_vec().ok();
    }
    let mut head = message.clone();
    head.answers.clear();
    head.edns = None;
    let mut bytes = head.to_vec().ok()?;
    // The number of answers stands in bytes 6 and 7, that of additional records in 10 and 11, and the question's name
    // begins at byte 12 (RFC 1035 section 4.1.1).
    bytes[6..8].copy_from_slice(&u16::try_from(message.answers.len()).ok()?.to_be_bytes());
    bytes[11] = u8::from(message.edns.is_some());
    for record in &message.answers {
        let address = match &record.data {
            RData::A(ip) => ip.octets().to_vec(),
            RData::AAAA(ip) => ip.octets().to_vec(),
            _ => return None,
        };
        bytes.extend([0xc0, 12]);
        bytes.extend(u16::from(record.record_type()).to_be_bytes());
        bytes.extend(u16::from(record.dns_class).to_be_bytes());
        bytes.extend(record.ttl.to_be_bytes());
        bytes.extend(u16::try_from(address.len()).ok()?.to_be_bytes());
        bytes.extend(address);
    }
    if message.edns.is_some() {
        // The root, type OPT, the payload size as class, no flags, no options (RFC 6891 section 6.1.2).
        bytes.extend([0, 0, 41]);
        bytes.extend(UDP_PAYLOAD.to_be_bytes());
        bytes.extend([0; 6]);
    }
    Some(bytes)
}
