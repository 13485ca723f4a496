//! The sending side of the event stream.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::broadcast;

use super::{EVENT_CAPACITY, Event, Events, NAMES};
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
    sender: Mutex<Option<broadcast::Sender<Event>>>,
    /// The number of emissions of each event, in the order of [`NAMES`].
    counts: [AtomicU64; NAMES.len()],
    /// The number of panics of each source, and the time of the last [`Event::Panicked`] about that source, in the
    /// order of [`PanicSource::ALL`].
    panics: [(AtomicU64, Mutex<Option<Instant>>); PanicSource::ALL.len()],
}

impl Emitter {
    pub(crate) fn new() -> Self {
        Self {
            sender: Mutex::new(Some(broadcast::Sender::new(EVENT_CAPACITY))),
            counts: Default::default(),
            panics: Default::default(),
        }
    }

    /// Sends an event to all subscribers and to the log.
    pub(crate) fn emit(&self, event: Event) {
        if let Some(index) = NAMES.iter().position(|name| *name == event.name()) {
            // Relaxed: the counter guards no other data. `counts` reads it.
            self.counts[index].fetch_add(1, Ordering::Relaxed);
        }
        log(&event);
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
    #[cfg(feature = "metrics")]
    pub(crate) fn panics(&self) -> impl Iterator<Item = (&'static str, u64)> {
        // Relaxed: the counters guard no other data. `panicked` increments them.
        let count = |source: PanicSource| self.panics[source as usize].0.load(Ordering::Relaxed);
        PanicSource::ALL.into_iter().map(move |source| (source.as_str(), count(source)))
    }

    /// Returns the number of emissions of each event, by name.
    #[cfg(feature = "metrics")]
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        // Relaxed: the counters guard no other data. `emit` increments them.
        NAMES.into_iter().zip(&self.counts).map(|(name, count)| (name, count.load(Ordering::Relaxed)))
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

fn log(event: &Event) {
    let (name, address) = (event.name(), event.endpoint().map(|endpoint| endpoint.address()));
    let (address, port) = (address.map(Address::host_text), address.and_then(Address::port));
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                target: TARGET,
                event = name,
                "db.system.name" = SYSTEM,
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
        | Event::NoHealthyPods
        | Event::Panicked { .. }
        | Event::PassfileIgnored { .. }
        | Event::ResolveFailed { .. }
        | Event::SecurityDowngraded { .. }
        | Event::SetupFailed { .. }
        | Event::StandbyLate { .. }
        | Event::TlsFailed { .. } => line!(warn),
        Event::StateChanged { to, .. } if *to == "ejected" => line!(warn),
        _ => line!(info),
    }
}
