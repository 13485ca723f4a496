//! CoreDNS's `cache` plugin: one entry per question, successes and denials apart.

use std::collections::BTreeMap;

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{RData, Record},
};
use tokio::time::Instant;

use super::message::Question;

/// The shortest time that an answer is kept, whatever its TTL, in seconds.
const MIN_TTL: u32 = 5;
/// How long a SERVFAIL is kept, in seconds.
const FAILURE_TTL: u32 = 5;

/// The longest times that answers are kept, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct CacheSettings {
    /// Limit of answers with records.
    pub success: u32,
    /// Limit of NXDOMAIN and of answers without records.
    pub denial: u32,
}

impl CacheSettings {
    /// `cache 30`, as in the Corefile of kube-up and of most managed clusters.
    pub const CACHE_30: Self = Self { success: 30, denial: 30 };
    /// The NodeLocal cache: `cache { success 9984 30; denial 9984 5 }`.
    pub const NODE_LOCAL: Self = Self { success: 30, denial: 5 };
}

/// Answers by question.
pub(super) struct Cache {
    settings: CacheSettings,
    successes: BTreeMap<Key, Entry>,
    denials: BTreeMap<Key, Entry>,
}

/// Name in lower case, type, and the two flags that change an answer.
type Key = (String, u16, bool, bool);

struct Entry {
    stored: Instant,
    ttl: u32,
    reply: Message,
}

impl Entry {
    /// Returns the remaining TTL in seconds, which is zero when the entry has expired, and while its answer is still on
    /// its way from upstream.
    fn remaining(&self, now: Instant) -> u32 {
        let age = now.checked_duration_since(self.stored).map(|age| u32::try_from(age.as_secs()).unwrap_or(u32::MAX));
        age.map_or(0, |age| self.ttl.saturating_sub(age))
    }
}

impl Cache {
    pub(super) fn new(settings: CacheSettings) -> Self {
        Self { settings, successes: BTreeMap::new(), denials: BTreeMap::new() }
    }

    /// Returns the answer of an entry that has not expired, with its remaining TTL. A denial comes first: the answer
    /// that it replaced may still be there.
    pub(super) fn get(&self, now: Instant, question: &Question) -> Option<Message> {
        let key = key(question);
        let (entry, ttl) = [&self.denials, &self.successes]
            .into_iter()
            .filter_map(|entries| entries.get(&key))
            .map(|entry| (entry, entry.remaining(now)))
            .find(|(_, ttl)| *ttl > 0)?;
        let mut reply = question.reply(entry.reply.metadata.response_code);
        reply.answers = with_ttl(&entry.reply.answers, ttl);
        reply.authorities = with_ttl(&entry.reply.authorities, ttl);
        reply.additionals = with_ttl(&entry.reply.additionals, ttl);
        Some(reply)
    }

    /// Stores an answer and limits its TTLs to the time that it is kept. Truncated answers and errors other than
    /// SERVFAIL are not stored.
    pub(super) fn put(&mut self, now: Instant, question: &Question, reply: &mut Message) {
        let no_data = reply.answers.is_empty();
        let (ttl, is_denial) = match reply.metadata.response_code {
            _ if reply.metadata.truncation => return,
            ResponseCode::NoError if !no_data => (kept(reply, self.settings.success), false),
            ResponseCode::NoError | ResponseCode::NXDomain => (kept(reply, self.settings.denial), true),
            ResponseCode::ServFail => (FAILURE_TTL, true),
            _ => return,
        };
        let sections = [&mut reply.answers, &mut reply.authorities, &mut reply.additionals];
        for record in sections.into_iter().flatten() {
            record.ttl = ttl;
        }
        let entries = if is_denial { &mut self.denials } else { &mut self.successes };
        entries.insert(key(question), Entry { stored: now, ttl, reply: reply.clone() });
    }
}

fn key(question: &Question) -> Key {
    let query = &question.query;
    (query.name.to_lowercase().to_ascii(), query.query_type.into(), question.dnssec_ok(), question.checking_disabled())
}

/// Returns how long an answer is kept: its smallest TTL, within the limits. An answer without records is kept for
/// the shortest time.
fn kept(reply: &Message, longest: u32) -> u32 {
    let records = reply.answers.iter().chain(&reply.authorities).chain(&reply.additionals);
    let ttls = records.map(|record| match &record.data {
        RData::SOA(soa) => record.ttl.min(soa.minimum),
        _ => record.ttl,
    });
    ttls.min().unwrap_or(MIN_TTL).min(longest).max(MIN_TTL)
}

fn with_ttl(records: &[Record], ttl: u32) -> Vec<Record> {
    let mut records = records.to_vec();
    for record in &mut records {
        record.ttl = ttl;
    }
    records
}
