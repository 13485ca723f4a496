//! One CoreDNS: the `kubernetes` plugin, the `cache` plugin if the Corefile has it, and `loadbalance`.

use std::{ops::RangeInclusive, time::Duration};

use hickory_proto::{
    op::ResponseCode,
    rr::{Record, RecordType},
};
use tokio::time::Instant;

use super::{
    Answers, NameServer, Transport,
    cache::{Cache, CacheSettings},
    message::Question,
    store::Store,
    view::View,
    zone,
};
use crate::{kubernetes::Change, random::uniform};

/// How long a CoreDNS that starts waits for its first list before it answers anyway.
const START_LIMIT: Duration = Duration::from_secs(5);

/// Settings of a CoreDNS.
#[derive(Clone, Debug)]
pub struct CoreDnsSettings {
    /// The cache of the cluster's own names: `None` for kubeadm's Corefile, which disables it for them.
    pub cache: Option<CacheSettings>,
    /// Time to process a question.
    pub latency: RangeInclusive<Duration>,
    /// TTL of all records, and of negative answers, in seconds.
    pub ttl: u32,
    /// The serial of the SOA record at `epoch`: it is the Unix time of the last change.
    pub serial: u32,
    /// The time at which the serial is `serial`.
    pub epoch: Instant,
}

impl CoreDnsSettings {
    /// Creates the settings of kubeadm's Corefile, in a world that begins at `epoch`.
    pub fn kubeadm(epoch: Instant) -> Self {
        let latency = Duration::from_micros(100)..=Duration::from_micros(1000);
        Self { cache: None, latency, ttl: zone::TTL, serial: 1_795_900_000, epoch }
    }

    /// Creates the settings of a Corefile with `cache 30`, in a world that begins at `epoch`.
    pub fn cache_30(epoch: Instant) -> Self {
        Self { cache: Some(CacheSettings::CACHE_30), ..Self::kubeadm(epoch) }
    }
}

/// A CoreDNS replica with a view and a cache of its own.
pub struct CoreDns {
    settings: CoreDnsSettings,
    view: View,
    cache: Option<Cache>,
    /// When it answers even if it has not reached the API server.
    answers_at: Instant,
    /// Whether the API server is reachable for it.
    available: bool,
    random: fastrand::Rng,
}

impl CoreDns {
    /// Starts a CoreDNS at `now` in a cluster whose API server has the Services and EndpointSlices of `changes` and
    /// is reachable if `available`.
    pub fn start(
        now: Instant,
        settings: CoreDnsSettings,
        changes: impl IntoIterator<Item = Change>,
        available: bool,
        random: fastrand::Rng,
    ) -> Self {
        let mut store = Store::default();
        for change in changes {
            store.apply(change);
        }
        Self::with_store(now, settings, store, available, random)
    }

    fn with_store(
        now: Instant,
        settings: CoreDnsSettings,
        store: Store,
        available: bool,
        mut random: fastrand::Rng,
    ) -> Self {
        let view = View::start(now, store, available, random.fork());
        let cache = settings.cache.map(Cache::new);
        Self { settings, view, cache, answers_at: now + START_LIMIT, available, random }
    }

    /// Takes a change that the API server makes at `now`.
    pub fn observe(&mut self, now: Instant, change: Change) {
        self.view.observe(now, change);
    }

    /// Takes that the API server goes away or comes back at `now`.
    pub fn set_available(&mut self, now: Instant, available: bool) {
        self.available = available;
        self.view.set_available(now, available);
    }

    /// Restarts the process at `now`: it loses its view and its cache.
    pub fn restart(&mut self, now: Instant) {
        let store = self.view.actual().clone();
        *self = Self::with_store(now, self.settings.clone(), store, self.available, self.random.fork());
    }

    /// Whether it answers at `now`: it has listed the Services, or has waited long enough for that.
    pub fn is_listening(&mut self, now: Instant) -> bool {
        self.view.advance(now);
        self.view.known().is_some() || now >= self.answers_at
    }

    /// Shuffles the addresses of a section, behind the other records.
    fn balance(&mut self, records: &mut Vec<Record>) {
        let is_address = |record: &Record| matches!(record.record_type(), RecordType::A | RecordType::AAAA);
        let (mut addresses, mut others): (Vec<_>, Vec<_>) = records.drain(..).partition(is_address);
        self.random.shuffle(&mut addresses);
        others.append(&mut addresses);
        *records = others;
    }
}

impl NameServer for CoreDns {
    fn answer(&mut self, now: Instant, question: &[u8], transport: Transport) -> Answers {
        if !self.is_listening(now) {
            return Vec::new();
        }
        let delay = uniform(&mut self.random, &self.settings.latency);
        let question = match Question::decode(question) {
            Ok(question) => question,
            Err(error) => return error.map(|error| (delay, error)).into_iter().collect(),
        };
        let cached = self.cache.as_ref().and_then(|cache| cache.get(now, &question));
        let mut reply = if let Some(reply) = cached {
            reply
        } else {
            let mut reply = question.reply(ResponseCode::NoError);
            match self.view.known() {
                None => zone::fail(&mut reply),
                Some((store, changed)) => {
                    let age = changed.saturating_duration_since(self.settings.epoch).as_secs();
                    let serial = self.settings.serial.wrapping_add(age as u32);
                    zone::resolve(store, &question.query, serial, &mut self.random, &mut reply);
                    let sections = [&mut reply.answers, &mut reply.authorities, &mut reply.additionals];
                    sections.into_iter().flatten().for_each(|record| record.ttl = self.settings.ttl);
                }
            }
            if let Some(cache) = &mut self.cache {
                cache.put(now, &question, &mut reply);
            }
            reply
        };
        self.balance(&mut reply.answers);
        self.balance(&mut reply.additionals);
        vec![(delay, question.encode(reply, transport))]
    }
}
