//! Throttles processes with signals if no CPU quota is available: the processes are stopped for part of every cycle.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use rustix::process::Signal;
use tokio::{task::AbortHandle, time::sleep};
use tracing::warn;

use crate::{
    testkit::{
        lock,
        processes::{self, Processes},
    },
    time::{Duration, Instant},
};

/// Length of one cycle. The processes run for a share of it and are stopped for the rest.
const CYCLE: Duration = Duration::from_millis(10);

/// Interval between two scans for new processes.
const SCAN_INTERVAL: Duration = Duration::from_millis(100);

/// A throttle that stops and resumes processes in every [`CYCLE`] until it is dropped.
///
/// A thread sends the signals. A task on the caller's runtime scans for new processes.
pub(super) struct DutyCycle {
    shared: Arc<Shared>,
    scanner: AbortHandle,
    signaler: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    pids: Mutex<BTreeSet<i32>>,
}

impl DutyCycle {
    /// Starts throttling the processes. `pids` are the ids of the current processes.
    pub(super) fn start(processes: Processes, pids: BTreeSet<i32>, share: f64) -> Self {
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), pids: Mutex::new(pids) });
        let scanner = tokio::spawn({
            let shared = shared.clone();
            async move {
                loop {
                    sleep(SCAN_INTERVAL).await;
                    match processes.list().await {
                        // Extend the set instead of replacing it: a process that is missing from the list may be
                        // stopped and need SIGCONT.
                        Ok(found) => lock(&shared.pids).extend(found),
                        Err(error) => {
                            warn!(%error, "cannot list the processes of a throttled Pod; new ones run without a limit")
                        }
                    }
                }
            }
        });
        let signaler = std::thread::spawn({
            let shared = shared.clone();
            move || shared.run(share)
        });
        Self { shared, scanner: scanner.abort_handle(), signaler: Some(signaler) }
    }
}

impl Shared {
    /// Runs cycles until `stop` is set. `share` is the part of each cycle in which the processes run. If this thread
    /// wakes up late on a busy machine, the processes run for too long, so they are then stopped for longer.
    fn run(&self, share: f64) {
        let mut ran = CYCLE.mul_f64(share);
        // Relaxed: the flag orders no other memory access.
        while !self.stop.load(Ordering::Relaxed) {
            self.signal(Signal::STOP);
            std::thread::sleep(ran.mul_f64(1.0 / share - 1.0));
            self.signal(Signal::CONT);
            let resumed = Instant::now();
            std::thread::sleep(CYCLE.mul_f64(share));
            ran = resumed.elapsed();
        }
    }

    /// Sends a signal to all processes, and removes those that have exited from the set.
    fn signal(&self, signal: Signal) {
        lock(&self.pids).retain(|pid| match processes::send_if_exists(*pid, signal) {
            Ok(exists) => exists,
            Err(error) => {
                warn!(%error, "cannot signal a process of a throttled Pod; it runs without a limit");
                false
            }
        });
    }
}

impl Drop for DutyCycle {
    fn drop(&mut self) {
        self.scanner.abort();
        self.shared.stop.store(true, Ordering::Relaxed);
        // The thread ends within one cycle and leaves the processes running.
        if self.signaler.take().is_some_and(|signaler| signaler.join().is_err()) {
            warn!("the thread that throttles a Pod panicked; the Pod's processes may stay stopped");
        }
    }
}

impl fmt::Debug for DutyCycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DutyCycle").field("pids", &lock(&self.shared.pids)).finish_non_exhaustive()
    }
}
