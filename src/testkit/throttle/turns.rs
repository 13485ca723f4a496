//! Throttling by signals, where the kernel grants no quota.

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
    time::Duration,
};

/// One turn: a part of it the processes run, the rest they stand still.
const TURN: Duration = Duration::from_millis(10);

/// How often new processes are looked for.
const LOOK: Duration = Duration::from_millis(100);

/// Stops processes and lets them go on, a hundred times a second, until it is dropped.
pub(super) struct Turns {
    shared: Arc<Shared>,
    looking: AbortHandle,
    turning: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    pids: Mutex<BTreeSet<i32>>,
}

impl Turns {
    /// Throttles these processes, of which `pids` are known.
    pub(super) fn start(processes: Processes, pids: BTreeSet<i32>, share: f64) -> Self {
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), pids: Mutex::new(pids) });
        let looking = tokio::spawn({
            let shared = shared.clone();
            async move {
                loop {
                    sleep(LOOK).await;
                    match processes.list().await {
                        // Those that were known are kept: one that has just been stopped has to be told to go on.
                        Ok(found) => lock(&shared.pids).extend(found),
                        Err(error) => warn!(%error, "cannot look for new processes to throttle"),
                    }
                }
            }
        });
        let turning = std::thread::spawn({
            let shared = shared.clone();
            move || shared.turn(TURN.mul_f64(share))
        });
        Self { shared, looking: looking.abort_handle(), turning: Some(turning) }
    }
}

impl Shared {
    fn turn(&self, runs: Duration) {
        // Relaxed: the flag guards nothing.
        while !self.stop.load(Ordering::Relaxed) {
            self.send(Signal::STOP);
            std::thread::sleep(TURN - runs);
            self.send(Signal::CONT);
            std::thread::sleep(runs);
        }
    }

    fn send(&self, signal: Signal) {
        lock(&self.pids).retain(|pid| match processes::reach(*pid, signal) {
            Ok(there) => there,
            Err(error) => {
                warn!(%error, "cannot throttle a process");
                false
            }
        });
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        self.looking.abort();
        self.shared.stop.store(true, Ordering::Relaxed);
        // Ends within a turn, with the processes running.
        if self.turning.take().is_some_and(|turning| turning.join().is_err()) {
            warn!("the throttle broke");
        }
    }
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns").field("pids", &lock(&self.shared.pids)).finish_non_exhaustive()
    }
}
