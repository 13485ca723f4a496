//! Pods on their way out: nothing new is lent, what is borrowed may finish until a deadline.
//!
//! Their probe's connection is closed with the idle ones, because a server that shuts down smart waits for it. What is
//! still borrowed is watched from outside: a Pod that owes an answer and sends nothing is dialled, and one that does not
//! react to that either is given up after the same time as any other silent Pod, long before the deadline.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    task::{AbortHandle, JoinHandle},
    time::{sleep, sleep_until},
};

use super::member::Member;
use crate::{
    config::Limits,
    endpoint::Endpoint,
    pool::{
        pod::{Pod, prober::SUSPECT_INTERVAL, shared::TICK},
        upkeep::watch::Unresponsive,
    },
    time::{Duration, Instant},
    wire::{CancelToken, connection_observer::ConnectionObserver},
};

/// The least time of silence after which a Pod's connections are cut, where the TCP user time-out is shorter or the
/// system's own.
const ABORT_MIN: Duration = Duration::from_secs(3);

/// How long a Pod may be silent before it is given up.
pub(crate) fn patience(limits: &Limits) -> Duration {
    limits.tcp_user_timeout.max(ABORT_MIN)
}

/// Twice: what was on its way when the connection was cut may begin after the first request.
async fn cancel(token: CancelToken) {
    for pause in [Duration::ZERO, Limits::RECYCLE_QUIET] {
        sleep(pause).await;
        if let Err(error) = token.cancel().await {
            tracing::debug!(%error, "could not cancel what ran on a connection that was cut");
        }
    }
}

/// The Pods that are being drained.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    pods: Vec<Draining>,
    cut: usize,
    /// Requests to the server to end what ran on the connections that were cut: it would not notice by itself.
    cancelling: Vec<JoinHandle<()>>,
}

/// One of them.
#[derive(Debug)]
struct Draining {
    pod: Arc<Pod>,
    deadline: Instant,
    /// It has been silent for too long. Relaxed: `gone` is notified after it is set.
    silent: Arc<AtomicBool>,
    watch: AbortHandle,
}

impl Drop for Draining {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Drain {
    /// A Pod begins: its idle connections are closed, and its probe with them.
    pub(crate) fn begin(&mut self, member: Member, deadline: Instant) {
        let pod = member.pod.clone();
        drop(member);
        pod.close();
        let silent = Arc::new(AtomicBool::new(false));
        let watch = pod.shared().runtime.spawn(watch(pod.clone(), silent.clone())).abort_handle();
        self.pods.push(Draining { pod, deadline, silent, watch });
    }

    /// No Pod may take longer than this.
    pub(crate) fn shorten(&mut self, deadline: Instant) {
        for draining in &mut self.pods {
            draining.deadline = deadline.min(draining.deadline);
        }
    }

    /// Takes out the Pods whose last connection has gone. Those whose time is up are cut first.
    pub(crate) fn finished(&mut self, now: Instant) -> Vec<Endpoint> {
        let mut finished = Vec::new();
        let Self { pods, cut, cancelling } = self;
        cancelling.retain(|task| !task.is_finished());
        pods.retain(|Draining { pod, deadline, silent, .. }| {
            let deserted = pod.is_deserted();
            let silent = silent.load(Ordering::Relaxed);
            if !deserted && (now >= *deadline || silent) {
                if !silent {
                    cancelling.extend(pod.at_work().into_iter().map(|token| tokio::spawn(cancel(token))));
                }
                let handles = pod.cut();
                if handles > 0 {
                    let why = if silent { "silent for too long" } else { "not given back in time" };
                    tracing::warn!(endpoint = %pod.endpoint, connections = handles, "cut while draining: {why}");
                }
                *cut += handles;
                finished.push(pod.endpoint.clone());
                return false;
            }
            if deserted {
                finished.push(pod.endpoint.clone());
            }
            !deserted
        });
        finished
    }

    /// When the first of them is to be cut, if any is left.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.pods.iter().map(|draining| draining.deadline).min()
    }

    /// Waits until the servers have been told to end what was cut. Each is told within `connect_timeout`, or not at all.
    pub(crate) async fn cancelled(&mut self) {
        for task in self.cancelling.drain(..) {
            drop(task.await); // it does not panic
        }
    }

    /// Connections that were cut so far.
    pub(crate) fn cut(&self) -> usize {
        self.cut
    }
}

/// Watches until the Pod has been silent for too long.
async fn watch(pod: Arc<Pod>, silent: Arc<AtomicBool>) {
    let shared = pod.shared().clone();
    let mut silence = Unresponsive::new(Instant::now());
    loop {
        sleep(TICK).await;
        let (outstanding, _) = pod.under_way();
        let reads = pod.totals().reads;
        if !silence.look(outstanding, reads, Instant::now()) {
            continue;
        }
        let asked = Instant::now();
        // Any reaction will do, a refusal too: then it is the statement that takes long.
        let dialled = shared.dialer.dial(&pod.endpoint, ConnectionObserver::new(|_| {})).await;
        if dialled.is_err_and(|error| error.silent) {
            sleep_until(asked + patience(&shared.limits)).await;
            if pod.totals().reads == reads {
                silent.store(true, Ordering::Relaxed);
                shared.gone.notify_waiters();
                return;
            }
        } else {
            sleep(SUSPECT_INTERVAL).await;
        }
    }
}
