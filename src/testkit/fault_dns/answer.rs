//! Builds the bytes of a response and applies the fault to them.

use std::sync::{Mutex, PoisonError};

use hickory_resolver::proto::{
    op::{Edns, Message, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, rdata::SOA},
};

use super::{
    Fault, Record, RecordType, Shared, TTL,
    record::{address, parse},
};

/// The EDNS UDP payload size that the server advertises.
const UDP_PAYLOAD: u16 = 1232;

impl Shared {
    /// Returns the correct response from the configured records.
    fn answer(&self, request: &Message, question: &Query) -> Message {
        let mut response = reply(request, question);
        let mut owner = question.name().clone();
        // Follow the chain of CNAME records as an authoritative server does, and stop at a loop.
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
            // A wildcard record matches every name that does not exist (RFC 4592).
            let matches = |record: &&Record| record.name.is_wildcard() && record.name.base_name().zone_of(&owner);
            let typed =
                self.records.iter().filter(matches).filter(|record| record.record_type() == question.query_type());
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

/// Returns the target of an SRV record.
fn target(record: &Record) -> Option<Name> {
    match &record.data {
        RData::SRV(service) => Some(service.target.clone()),
        _ => None,
    }
}

/// Returns a response without records.
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

/// Returns the response as bytes, or `None` if the fault is to send no response.
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
    // Truncate a response that exceeds the client's payload size, and mark it as truncated, as CoreDNS does.
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

/// Encodes a message. If all records are address records of the name in the question, each record contains a pointer to
/// that name, as in CoreDNS's responses (16 bytes for each IPv4 record). hickory's encoder is not used for these
/// records, because it stops compressing names in large messages.
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
    // Bytes 6 and 7 are the number of answers. Bytes 10 and 11 are the number of additional records. The name in the
    // question begins at byte 12 (RFC 1035 section 4.1.1).
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
        // The OPT record: root name, type 41, payload size as class, no flags, no options (RFC 6891 section 6.1.2).
        bytes.extend([0, 0, 41]);
        bytes.extend(UDP_PAYLOAD.to_be_bytes());
        bytes.extend([0; 6]);
    }
    Some(bytes)
}
