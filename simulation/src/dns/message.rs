//! Messages: decoding of questions, and encoding of answers as the name server's library (miekg/dns) does it.

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    serialize::binary::{BinEncodable, BinEncoder, NameEncoding},
};

use super::Transport;

/// The size that every client accepts over UDP.
const MIN_UDP_SIZE: usize = 512;
/// The largest size that the name server sends over UDP, whatever the client accepts.
const MAX_UDP_SIZE: usize = 4096;
/// Length of a header, in bytes.
const HEADER: usize = 12;

/// A question with one entry.
pub(super) struct Question {
    message: Message,
    pub(super) query: Query,
}

impl Question {
    /// Decodes a message. The error is the answer to a message that is not a question: none if it has no header or
    /// is itself a response.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Option<Vec<u8>>> {
        let Ok(mut message) = Message::from_vec(bytes) else {
            let is_question = bytes.len() >= HEADER && bytes[2] & 0x80 == 0;
            return Err(is_question.then(|| error(u16::from_be_bytes([bytes[0], bytes[1]]), ResponseCode::FormErr)));
        };
        if message.metadata.message_type == MessageType::Response {
            return Err(None);
        }
        if message.metadata.op_code != OpCode::Query {
            return Err(Some(error(message.metadata.id, ResponseCode::NotImp)));
        }
        if message.queries.len() != 1 {
            return Err(Some(error(message.metadata.id, ResponseCode::FormErr)));
        }
        let query = message.queries.remove(0);
        Ok(Self { message, query })
    }

    /// Whether the client asks for DNSSEC records.
    pub(super) fn dnssec_ok(&self) -> bool {
        self.message.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok)
    }

    /// Whether the client does not want DNSSEC validation.
    pub(super) fn checking_disabled(&self) -> bool {
        self.message.metadata.checking_disabled
    }

    /// Creates an empty authoritative answer.
    pub(super) fn reply(&self, response_code: ResponseCode) -> Message {
        let mut reply = Message::response(self.message.metadata.id, OpCode::Query);
        reply.metadata.recursion_desired = self.message.metadata.recursion_desired;
        reply.metadata.checking_disabled = self.message.metadata.checking_disabled;
        reply.metadata.authoritative = true;
        reply.metadata.response_code = response_code;
        reply.queries.push(self.query.clone());
        reply
    }

    /// Encodes the answer: with EDNS if the question has it, compressed and then truncated only if it is too long.
    pub(super) fn encode(&self, mut reply: Message, transport: Transport) -> Vec<u8> {
        reply.edns = self.message.edns.as_ref().map(|edns| {
            let mut copy = Edns::new();
            copy.set_max_payload(edns.max_payload()).set_dnssec_ok(edns.flags().dnssec_ok);
            copy
        });
        let limit = match (transport, &self.message.edns) {
            (Transport::Tcp, _) => usize::from(u16::MAX),
            (Transport::Udp, None) => MIN_UDP_SIZE,
            (Transport::Udp, Some(edns)) => usize::from(edns.max_payload()).clamp(MIN_UDP_SIZE, MAX_UDP_SIZE),
        };
        let uncompressed = to_bytes(&reply, NameEncoding::Uncompressed);
        if uncompressed.len() <= limit {
            return uncompressed;
        }
        loop {
            let compressed = to_bytes(&reply, NameEncoding::Compressed);
            if compressed.len() <= limit {
                return compressed;
            }
            let dropped = reply.additionals.pop().or_else(|| reply.authorities.pop()).or_else(|| reply.answers.pop());
            if dropped.is_none() {
                return compressed;
            }
            reply.metadata.truncation = true;
        }
    }
}

/// Encodes a response without a question.
fn error(id: u16, response_code: ResponseCode) -> Vec<u8> {
    to_bytes(&Message::error_msg(id, OpCode::Query, response_code), NameEncoding::Uncompressed)
}

fn to_bytes(message: &Message, encoding: NameEncoding) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_name_encoding(encoding);
    message.emit(&mut encoder).expect("an answer from the API's objects can be encoded");
    bytes
}
