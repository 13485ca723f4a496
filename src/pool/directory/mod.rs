//! The only writer: it is told what was resolved, probed and seen, and publishes what follows from it.

mod close;
mod drain;
mod health;
pub(crate) mod member;
pub(crate) mod members;
mod membership;
mod roles;
mod subset;

use std::sync::Arc;

use tokio::{
    select,
    sync::{mpsc, oneshot},
    time::sleep_until,
};

pub(crate) use self::subset::Subset;
use self::{drain::Drain, member::Member, members::Members, roles::READINGS};
use super::{
    inner::Inner,
    pod::{Pod, connect, message::Message, view::View},
};
use crate::{
    discovery::Confirm,
    endpoint::Endpoint,
    event::Event,
    health::{State, fencing::Timelines, lag::Reading},
    time::Instant,
    wire::Class,
};

/// Asked to close; answered with how many connections had to be cut.
pub(crate) type CloseRequest = oneshot::Sender<usize>;

/// The directory.
pub(crate) struct Directory {
    inner: Arc<Inner>,
    members: Members<Member>,
    /// Everybody, where the members may hold some of them only.
    subset: Option<Subset>,
    /// Whom to use is to be decided anew.
    reconsider: bool,
    unused: Arc<[Endpoint]>,
    /// To be warmed, if they are still used when everything is decided.
    healed: Vec<Arc<Pod>>,
    drain: Drain,
    confirm: Confirm,
    next_serial: u64,
    timelines: Timelines,
    /// The primary whose positions these are, newest last.
    primary: Option<u64>,
    readings: Vec<Reading>,
    /// Since when no Pod has passed a probe, while none does.
    silent_since: Option<Instant>,
    panic: bool,
    /// Something is to be published.
    changed: bool,
}

impl Directory {
    pub(crate) fn new(inner: Arc<Inner>, subset: Option<Subset>) -> Self {
        Self {
            inner,
            members: Members::new(),
            subset,
            reconsider: false,
            unused: Arc::from([]),
            healed: Vec::new(),
            drain: Drain::default(),
            confirm: Confirm::new(),
            next_serial: 0,
            timelines: Timelines::default(),
            primary: None,
            readings: Vec::with_capacity(READINGS),
            silent_since: None,
            panic: false,
            changed: false,
        }
    }

    /// Serves until it is asked to close, and is done closing.
    pub(crate) async fn run(
        mut self,
        mut inbox: mpsc::UnboundedReceiver<Message>,
        mut close: mpsc::UnboundedReceiver<CloseRequest>,
    ) {
        let shared = self.inner.shared.clone();
        let requests = loop {
            let gone = shared.gone.notified();
            let mut gone = std::pin::pin!(gone);
            gone.as_mut().enable();
            for endpoint in self.drain.finished(Instant::now()) {
                shared.events.emit(Event::EndpointRemoved { endpoint });
            }
            let drained_by = self.drain.next_deadline();
            let abort_at = self.next_abort();
            let chosen_at = self.subset.as_ref().and_then(Subset::again);
            select! {
                Some(message) = inbox.recv() => {
                    self.take(message, Instant::now());
                    // What has come meanwhile is published with it.
                    while let Ok(message) = inbox.try_recv() {
                        self.take(message, Instant::now());
                    }
                    self.publish(Instant::now());
                }
                Some(request) = close.recv() => break request,
                () = gone, if drained_by.is_some() => {}
                () = sleep_until(drained_by.unwrap_or_else(Instant::now)), if drained_by.is_some() => {}
                () = sleep_until(chosen_at.unwrap_or_else(Instant::now)), if chosen_at.is_some() => {
                    self.reconsider = true;
                    self.publish(Instant::now());
                }
                () = sleep_until(abort_at.unwrap_or_else(Instant::now)), if abort_at.is_some() => {
                    self.abort_unresponsive(Instant::now());
                }
            }
        };
        self.close(requests, close).await;
    }

    fn take(&mut self, message: Message, now: Instant) {
        match message {
            Message::Resolved { result, again } => {
                let next = self.resolved(result, now);
                let _ = again.send(next); // a refresher that is gone probe_factory no more
            }
            Message::Probed { pod, outcome } => self.probed(pod, outcome, now),
            Message::Seen { pod, generation, evidence } => self.seen(pod, generation, evidence, now),
            Message::Outlier { pod, cause } => self.outlier(pod, cause, now),
            // The probe finds out; a dial that failed for want of a slot, or of a password, is no evidence.
            Message::DialFailed { pod, class: Class::NotReady } => self.probe_now(pod),
            Message::DialFailed { pod, class: Class::Full } => self.full(pod, now),
            Message::DialFailed { .. } => {}
            Message::Wanted { roles } => self.wanted(roles),
        }
    }

    // === what follows ===

    fn publish(&mut self, now: Instant) {
        self.choose(now);
        for pod in self.healed.drain(..).filter(|pod| !pod.slot.is_closed()) {
            connect::warm(&pod);
        }
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let view = self.view(false);
        self.inner.publish(view);
    }

    fn view(&mut self, closed: bool) -> View {
        let (snapshot, panic) = self.members.snapshot(self.inner.shared.limits.lag_fallback);
        if panic != self.panic {
            self.panic = panic;
            self.inner.shared.events.emit(if panic { Event::PanicBegan } else { Event::PanicEnded });
        }
        let health = self.members.in_order_of_slots(Member::pod_health);
        let healthy = health.iter().any(|pod| pod.state == State::Healthy && pod.fence.is_none());
        self.silent_since = match self.silent_since {
            // Nobody to be silent.
            _ if healthy || health.is_empty() => None,
            since => since.or_else(|| Some(Instant::now())),
        };
        View { snapshot, health, unused: self.unused.clone(), silent_since: self.silent_since, closed }
    }
}

impl Drop for Directory {
    /// However it ends, also with its runtime: nobody waits for what nobody will do.
    fn drop(&mut self) {
        self.inner.end(View { closed: true, ..View::empty() });
        self.inner.shared.events.close();
    }
}
