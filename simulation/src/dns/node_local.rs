//! The NodeLocal cache: a CoreDNS on each node that caches what it asks the cluster's name servers over TCP.

use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use tokio::time::Instant;

use super::{
    Answers, NameServer, Transport,
    cache::{Cache, CacheSettings},
    message::Question,
};

/// Time until an upstream that is silent is asked again.
const ATTEMPT: Duration = Duration::from_secs(2);
/// Time after which the cache gives up and answers SERVFAIL.
const GIVES_UP: Duration = Duration::from_secs(5);

/// A cache in front of another name server.
pub struct NodeLocal<S> {
    upstream: S,
    cache: Cache,
    random: fastrand::Rng,
}

impl<S: NameServer> NodeLocal<S> {
    /// Creates an empty cache in front of `upstream`.
    pub fn new(upstream: S, settings: CacheSettings, random: fastrand::Rng) -> Self {
        Self { upstream, cache: Cache::new(settings), random }
    }

    /// Returns the name server behind the cache.
    pub fn upstream(&mut self) -> &mut S {
        &mut self.upstream
    }

    /// Asks upstream until an answer comes, and returns it with the time that it took. Every attempt gets the answer of
    /// `now`: the upstream's time must not run ahead of the world's.
    fn forward(&mut self, now: Instant, question: &[u8]) -> (Duration, Option<Message>) {
        let mut waited = Duration::ZERO;
        while waited < GIVES_UP {
            let mut forwarded = question.to_vec();
            let id = self.random.u16(..);
            forwarded[..2].copy_from_slice(&id.to_be_bytes());
            let answers = self.upstream.answer(now, &forwarded, Transport::Tcp);
            let answer = answers
                .into_iter()
                .filter(|(delay, _)| *delay < ATTEMPT)
                .filter_map(|(delay, bytes)| Some((delay, Message::from_vec(&bytes).ok()?)))
                .filter(|(_, message)| message.metadata.id == id)
                .min_by_key(|(delay, _)| *delay);
            if let Some((delay, message)) = answer {
                return (waited + delay, Some(message));
            }
            waited += ATTEMPT;
        }
        (GIVES_UP, None)
    }
}

impl<S: NameServer> NameServer for NodeLocal<S> {
    fn answer(&mut self, now: Instant, bytes: &[u8], transport: Transport) -> Answers {
        let question = match Question::decode(bytes) {
            Ok(question) => question,
            Err(error) => return error.map(|error| (Duration::ZERO, error)).into_iter().collect(),
        };
        if let Some(reply) = self.cache.get(now, &question) {
            return vec![(Duration::ZERO, question.encode(reply, transport))];
        }
        let (delay, message) = self.forward(now, bytes);
        let mut reply = match message {
            None => {
                let mut reply = question.reply(ResponseCode::ServFail);
                reply.metadata.authoritative = false;
                reply
            }
            Some(message) => {
                let mut reply = question.reply(message.metadata.response_code);
                reply.metadata.authoritative = message.metadata.authoritative;
                reply.metadata.truncation = message.metadata.truncation;
                (reply.answers, reply.authorities) = (message.answers, message.authorities);
                reply.additionals = message.additionals;
                reply
            }
        };
        self.cache.put(now + delay, &question, &mut reply);
        vec![(delay, question.encode(reply, transport))]
    }
}
