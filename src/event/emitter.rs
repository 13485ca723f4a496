//! The sending side of the event stream.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::broadcast;

use super::{EVENT_CAPACITY, Event, Events, NAMES, log_limit::LogLimit};
use crate::{
    address::Address,
    sync::{Mutex, lock},
    time::{Duration, Instant},
    trace::{SYSTEM, TARGET},
    unwind::{Panic, PanicSource},
};

/// Minimum time between two [`Event::Panicked`] events with the same source.
const PANIC_INTERVAL: Duration = Duration::from_secs(1);

/// The sending side of the stream.
#[derive(Debug)]
pub(crate) struct Emitter {
    /// The name of the pool.
    name: Arc<str>,
    sender: Mutex<Option<broadcast::Sender<Event>>>,
    log_limit: Mutex<LogLimit>,
    /// The number of emissions of each event, in the order of [`NAMES`].
    counts: [AtomicU64; NAMES.len()],
    /// The number of panics of each source, and the time of the last [`Event::Panicked`] about that source, in the
    /// order of [`PanicSource::ALL`].
    panics: [(AtomicU64, Mutex<Option<Instant>>); PanicSource::ALL.len()],
}

impl Emitter {
    /// Creates the sending side for the pool with this name.
    pub(crate) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            sender: Mutex::new(Some(broadcast::Sender::new(EVENT_CAPACITY))),
            log_limit: Mutex::default(),
            counts: Default::default(),
            panics: Default::default(),
        }
    }

    /// Returns the name of the pool.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Sends an event to all subscribers and to the log.
    pub(crate) fn emit(&self, event: Event) {
        if let Some(index) = NAMES.iter().position(|name| *name == event.name()) {
            // Relaxed: the counter guards no other data. `counts` reads it.
            self.counts[index].fetch_add(1, Ordering::Relaxed);
        }
        let address = event.endpoint().map(|endpoint| endpoint.address());
        let omitted = lock(&self.log_limit).admit(event.name(), address, Instant::now());
        if let Some(omitted) = omitted {
            log(&self.name, &event, omitted);
        }
        self.forward(event);
    }

    /// Sends an event to all subscribers. Used for an event that another pool logs and counts.
    pub(crate) fn forward(&self, event: Event) {
        // Sent outside of the lock, because `send` wakes the subscribers.
        let sender = lock(&self.sender).clone();
        if let Some(sender) = sender {
            // `send` fails only if there are no subscribers.
            drop(sender.send(event));
        }
    }

    /// Counts a panic, and emits an event about it unless one was emitted for this source within the last
    /// [`PANIC_INTERVAL`].
    pub(crate) fn panicked(&self, source: PanicSource, panic: &Panic) {
        let (count, last) = &self.panics[source as usize];
        // Relaxed: the counter guards no other data. `panics` reads it.
        count.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let mut last = lock(last);
        if last.is_some_and(|last| now < last + PANIC_INTERVAL) {
            return;
        }
        *last = Some(now);
        drop(last);
        self.emit(Event::Panicked { source: source.as_str(), cause: panic.to_string().into() });
    }

    /// Returns the number of panics of each source.
    #[cfg(feature = "_metrics")]
    pub(crate) fn panics(&self) -> impl Iterator<Item = (&'static str, u64)> {
        // Relaxed: the counters guard no other data. `panicked` increments them.
        let count = |source: PanicSource| self.panics[source as usize].0.load(Ordering::Relaxed);
        PanicSource::ALL.into_iter().map(move |source| (source.as_str(), count(source)))
    }

    /// Returns the number of emissions of each event, by name.
    #[cfg(feature = "_metrics")]
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        // Relaxed: the counters guard no other data. `emit` increments them.
        NAMES.into_iter().zip(&self.counts).map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }

    /// Returns the number of emissions of the event with this name.
    #[cfg(all(test, not(podpool_loom)))]
    pub(super) fn count_of(&self, name: &str) -> u64 {
        NAMES
            .into_iter()
            .zip(&self.counts)
            .filter(|(other, _)| *other == name)
            .map(|(_, n)| n.load(Ordering::Relaxed))
            .sum()
    }

    /// Ends the event streams of all subscribers.
    pub(crate) fn close(&self) {
        drop(lock(&self.sender).take());
    }

    pub(crate) fn subscribe(&self) -> Events {
        match &*lock(&self.sender) {
            Some(sender) => Events::new(sender.subscribe()),
            None => Events::new(broadcast::channel(1).1),
        }
    }
}

/// Logs an event. `omitted` is the number of lines about the same event and Pod that were not logged before it.
fn log(pool: &str, event: &Event, omitted: u64) {
    let (name, address) = (event.name(), event.endpoint().map(|endpoint| endpoint.address()));
    let omitted = (omitted > 0).then_some(omitted);
    let (address, port) = (address.map(Address::host_text), address.and_then(Address::port));
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                target: TARGET,
                event = name,
                omitted,
                "db.system.name" = SYSTEM,
                "db.client.connection.pool.name" = pool,
                "server.address" = address,
                "server.port" = port,
                "{event}"
            )
        };
    }
    match event {
        Event::ServerOversubscribed { .. }
        | Event::CertificatesRefused { .. }
        | Event::EndpointFenced { .. }
        | Event::FencingHistoryForgotten { .. }
        | Event::ListenIgnored { .. }
        | Event::LoginFailed { .. }
        | Event::NoHealthyPods { .. }
        | Event::Panicked { .. }
        | Event::PassfileIgnored { .. }
        | Event::PrimaryLost { .. }
        | Event::ResolveFailed { .. }
        | Event::SecurityDowngraded { .. }
        | Event::SetupFailed { .. }
        | Event::StandbyLate { .. }
        | Event::TlsFailed { .. } => line!(warn),
        Event::StateChanged { to, .. } if *to == "ejected" => line!(warn),
        _ => line!(info),
    }
}
