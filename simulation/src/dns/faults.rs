//! Faults of a name server, seen by those that ask it.

use std::{ops::RangeInclusive, time::Duration};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use tokio::time::Instant;

use super::{Answers, NameServer, Transport, message::Question, zone};
use crate::random::uniform;

/// The time that a name server needs for an answer that it makes up.
const PROMPT: Duration = Duration::from_micros(500);

/// What a faulty name server does with a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Sends each answer twice.
    Duplicated,
    /// Sends each answer later.
    Late(RangeInclusive<Duration>),
    /// Sends a message that is cut off at a random byte, or a random byte of which is wrong.
    Malformed,
    /// Answers that the name does not exist, although it does.
    NxDomain,
    /// Answers REFUSED.
    Refused,
    /// Answers SERVFAIL.
    ServFail,
    /// Sends nothing.
    Silent,
    /// Sends an answer with another id, and then the right one.
    Spoofed,
    /// Answers over UDP that the answer is too long, without any record.
    Truncated,
    /// Sends the answer with another id, and not the right one.
    WrongId,
}

/// A fault of some questions.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What happens to the questions that the rule hits.
    pub fault: Fault,
    /// How many of 1,000 questions it hits.
    pub per_mille: u32,
    /// The type that a question must ask for; `None` for any.
    pub record_type: Option<RecordType>,
}

impl Rule {
    /// Creates a rule that hits every question.
    pub fn every(fault: Fault) -> Self {
        Self { fault, per_mille: 1000, record_type: None }
    }
}

/// A name server with faults.
pub struct Faulty<S> {
    server: S,
    rules: Vec<Rule>,
    random: fastrand::Rng,
}

impl<S: NameServer> Faulty<S> {
    /// Wraps a name server. It has no faults until [`Self::set_rules`].
    pub fn new(server: S, random: fastrand::Rng) -> Self {
        Self { server, rules: Vec::new(), random }
    }

    /// Replaces the faults. The first rule that hits a question applies.
    pub fn set_rules(&mut self, rules: Vec<Rule>) {
        self.rules = rules;
    }

    /// Returns the name server without its faults.
    pub fn server(&mut self) -> &mut S {
        &mut self.server
    }

    /// Chooses the fault of a question.
    fn fault(&mut self, question: &Question) -> Option<Fault> {
        let asked = question.query.query_type;
        let random = &mut self.random;
        let mut rules = self.rules.iter().filter(|rule| rule.record_type.is_none_or(|wanted| wanted == asked));
        rules.find(|rule| random.u32(..1000) < rule.per_mille).map(|rule| rule.fault.clone())
    }

    /// Damages a message, which then cannot be decoded or differs from the right one.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        let at = self.random.usize(..bytes.len());
        if self.random.bool() {
            bytes.truncate(at);
        } else {
            bytes[at] ^= self.random.u8(1..);
        }
    }

    /// Alters an answer of the name server.
    fn alter(&mut self, fault: &Fault, (delay, mut bytes): (Duration, Vec<u8>)) -> Answers {
        match fault {
            Fault::Late(by) => vec![(delay + uniform(&mut self.random, by), bytes)],
            Fault::Duplicated => vec![(delay, bytes.clone()), (delay, bytes)],
            Fault::Malformed => {
                self.damage(&mut bytes);
                vec![(delay, bytes)]
            }
            Fault::WrongId | Fault::Spoofed => {
                let mut forged = bytes.clone();
                forged[0] ^= self.random.u8(1..);
                let mut answers = vec![(delay, forged)];
                if *fault == Fault::Spoofed {
                    answers.push((delay, bytes));
                }
                answers
            }
            _ => vec![(delay, bytes)],
        }
    }
}

impl<S: NameServer> NameServer for Faulty<S> {
    fn answer(&mut self, now: Instant, bytes: &[u8], transport: Transport) -> Answers {
        let Ok(question) = Question::decode(bytes) else {
            return self.server.answer(now, bytes, transport);
        };
        let code = match self.fault(&question) {
            None => return self.server.answer(now, bytes, transport),
            Some(Fault::Silent) => return Vec::new(),
            Some(Fault::NxDomain) => ResponseCode::NXDomain,
            Some(Fault::Refused) => ResponseCode::Refused,
            Some(Fault::ServFail) => ResponseCode::ServFail,
            Some(Fault::Truncated) => {
                if transport == Transport::Tcp {
                    return self.server.answer(now, bytes, transport);
                }
                let mut reply = question.reply(ResponseCode::NoError);
                reply.metadata.truncation = true;
                return vec![(PROMPT, question.encode(reply, transport))];
            }
            Some(fault) => {
                let answers = self.server.answer(now, bytes, transport);
                return answers.into_iter().flat_map(|answer| self.alter(&fault, answer)).collect();
            }
        };
        let mut reply = question.reply(code);
        if code == ResponseCode::NXDomain {
            reply.authorities.push(zone::soa(0, zone::TTL));
        } else {
            reply.metadata.authoritative = false;
        }
        vec![(PROMPT, question.encode(reply, transport))]
    }
}
