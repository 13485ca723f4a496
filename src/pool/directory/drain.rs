//! Drains Pods that are no longer used: they get no new checkouts, and connections in use may finish until a deadline.
//!
//! The probe connection is closed together with the idle connections, because a server in smart shutdown waits for all
//! sessions to end. A task watches the remaining connections. If a connection waits for a response but the Pod sends
//! nothing, the task dials the Pod. If the dial gets no response either, the connections are closed after the timeout
//! for unresponsive Pods, without waiting for the deadline.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    task::{AbortHandle, JoinHandle},
    time::{sleep, sleep_until},
};

use crate::{
    config::Limits,
    endpoint::Endpoint,
    pool::{
        pod::{Pod, clock::TICK, prober::SUSPECT_INTERVAL},
        upkeep::watch::UnresponsiveDetector,
    },
    system::{spawn, spawn_on},
    time::{Duration, Instant},
    trace::pod_line,
    wire::{CancelToken, connection_observer::ConnectionObserver},
};

/// Lower bound for [`unresponsive_timeout`]. Applies if `tcp_user_timeout` is shorter, or if it is 0, which selects the
/// operating system's default.
const UNRESPONSIVE_MIN: Duration = Duration::from_secs(3);

/// Returns the timeout for unresponsive Pods: if a Pod owes a response and sends nothing for this long, its connections
/// are closed.
pub(crate) fn unresponsive_timeout(limits: &Limits) -> Duration {
    limits.tcp_user_timeout.max(UNRESPONSIVE_MIN)
}

/// Sends two cancel requests for one connection. The first request has no effect if the statement was still on its way
/// to the server when the connection was closed. The second request cancels such a statement.
async fn cancel(token: CancelToken, pod: Arc<Pod>) {
    for pause in [Duration::ZERO, Limits::RECYCLE_GRACE] {
        sleep(pause).await;
        if let Err(error) = token.cancel().await {
            pod_line!(debug, pod, %error, "could not cancel the statement of a connection of a drained Pod");
        }
    }
}

/// The Pods that are being drained, and the number of connections closed forcibly so far.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    pods: Vec<Draining>,
    aborted: usize,
    /// Tasks that cancel the statements of forcibly closed connections. Without a cancel request, the server would
    /// notice that a connection is closed only after the statement has finished.
    cancelling: Vec<JoinHandle<()>>,
}

/// One Pod that is being drained.
#[derive(Debug)]
struct Draining {
    pod: Arc<Pod>,
    deadline: Instant,
    /// True if the Pod was unresponsive for too long. Relaxed, because `connection_closed` is notified after the store.
    unresponsive: Arc<AtomicBool>,
    watcher: AbortHandle,
}

impl Drop for Draining {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

impl Drain {
    /// Starts to drain the Pod of one pool: closes its idle connections. Its prober must have ended.
    pub(crate) fn begin(&mut self, pod: Arc<Pod>, deadline: Instant) {
        pod.close();
        let unresponsive = Arc::new(AtomicBool::new(false));
        let watcher = spawn_on(&pod.shared().runtime, watch(pod.clone(), unresponsive.clone())).abort_handle();
        self.pods.push(Draining { pod, deadline, unresponsive, watcher });
    }

    /// Moves all deadlines that are later than `deadline` to `deadline`.
    pub(crate) fn limit_deadlines(&mut self, deadline: Instant) {
        for draining in &mut self.pods {
            draining.deadline = deadline.min(draining.deadline);
        }
    }

    /// Removes the Pods of one pool, and returns them.
    pub(crate) fn split_off(&mut self, pool: u64) -> Self {
        let (pods, rest) = std::mem::take(&mut self.pods).into_iter().partition(|it| it.pod.shared().id == pool);
        self.pods = rest;
        Self { pods, ..Self::default() }
    }

    /// Returns the Pods of `left`, the Pods of a pool that has left, that are not being drained for any other pool.
    pub(crate) fn finished_by(&self, left: &Self) -> Vec<Endpoint> {
        let is_last = |it: &&Draining| !self.pods.iter().any(|rest| rest.pod.serial == it.pod.serial);
        left.pods.iter().filter(is_last).map(|it| it.pod.endpoint.clone()).collect()
    }

    /// Forgets the Pods of a pool that was dropped. Connections in use are closed when they are returned.
    pub(crate) fn clear(&self) {
        self.pods.iter().for_each(|it| it.pod.connections.clear());
    }

    /// Removes the Pods that have finished draining. Forcibly closes the connections of Pods that have reached their
    /// deadline or are unresponsive. Returns the Pods that have finished draining in all pools.
    pub(crate) fn take_finished(&mut self, now: Instant) -> Vec<Endpoint> {
        let mut finished = Vec::new();
        let Self { pods, aborted, cancelling } = self;
        cancelling.retain(|task| !task.is_finished());
        pods.retain(|Draining { pod, deadline, unresponsive, .. }| {
            let drained = pod.has_no_connections();
            let unresponsive = unresponsive.load(Ordering::Relaxed);
            if !drained && (now >= *deadline || unresponsive) {
                if !unresponsive {
                    let tokens = pod.connections.cancel_tokens();
                    cancelling.extend(tokens.into_iter().map(|token| spawn(cancel(token, pod.clone()))));
                }
                let connections = pod.connections.abort_all();
                if connections > 0 {
                    let reason = if unresponsive { "the Pod is unresponsive" } else { "the drain deadline has passed" };
                    pod_line!(warn, pod, connections, "closed connections in use: {reason}");
                }
                *aborted += connections;
                pod.connections.clear();
                finished.push((pod.serial, pod.endpoint.clone()));
                return false;
            }
            if drained {
                pod.connections.clear();
                finished.push((pod.serial, pod.endpoint.clone()));
            }
            !drained
        });
        finished.retain(|(serial, _)| !pods.iter().any(|rest| rest.pod.serial == *serial));
        finished.sort_unstable_by_key(|(serial, _)| *serial);
        finished.dedup_by_key(|(serial, _)| *serial);
        finished.into_iter().map(|(_, endpoint)| endpoint).collect()
    }

    /// Returns the earliest drain deadline, or `None` if no Pod is being drained.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.pods.iter().map(|draining| draining.deadline).min()
    }

    /// Waits for the pending cancel requests. Each request succeeds or fails within `connect_timeout`.
    pub(crate) async fn finish_cancelling(&mut self) {
        for task in self.cancelling.drain(..) {
            drop(task.await); // the task does not panic
        }
    }

    /// Returns the number of connections in use that were closed forcibly.
    pub(crate) fn aborted(&self) -> usize {
        self.aborted
    }
}

/// Watches a draining Pod, and sets `unresponsive` once the Pod has been unresponsive for too long.
async fn watch(pod: Arc<Pod>, unresponsive: Arc<AtomicBool>) {
    let shared = pod.shared().clone();
    let mut detector = UnresponsiveDetector::new(Instant::now());
    loop {
        sleep(TICK).await;
        let outstanding = pod.connections.activity().outstanding;
        let reads = pod.connections.totals().reads;
        if !detector.observe(outstanding, reads, Instant::now()) {
            continue;
        }
        let began = Instant::now();
        // Any reaction to the dial, even a refusal, proves that the Pod is alive. In that case, only the statement is
        // slow.
        let Some(dialer) = shared.dialer.get() else { return };
        let dialed = dialer
            .dial_for_probe(&pod.current_endpoint(), ConnectionObserver::new(|_| {}), shared.limits.connect_timeout)
            .await;
        if dialed.is_err_and(|error| error.unresponsive) {
            sleep_until(began + unresponsive_timeout(&shared.limits)).await;
            if pod.connections.totals().reads == reads {
                unresponsive.store(true, Ordering::Relaxed);
                shared.group.connection_closed.notify_waiters();
                return;
            }
        } else {
            sleep(SUSPECT_INTERVAL).await;
        }
    }
}
