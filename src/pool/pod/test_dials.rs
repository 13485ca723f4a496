//! Test dials of a Pod that is absent from DNS but passes its probes. A server that is shutting down refuses new
//! connections while it still serves open ones, so the Pod's probe connection does not show the shutdown. If the server
//! refuses a test dial, the directory, the task that maintains the set of Pods, drains the Pod.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::{select, sync::Notify, time::sleep};

use super::{
    Pod,
    jitter::{jittered, random},
    message::Message,
};
use crate::{error::Attempt, time::Duration};

/// Intervals between the first test dials, which are due 0, 2, 6 and 14 s after the absence was confirmed.
const FIRST: [Duration; 4] = [Duration::ZERO, Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8)];
/// Interval between further test dials, which are made only while the Pod is used.
const FURTHER: Duration = Duration::from_secs(10);
/// Jitter of an interval, as a fraction in either direction.
const JITTER: f64 = 0.2;
/// Minimum time between two test dials, if failed dials request further ones.
const PAUSE: Duration = Duration::from_secs(1);

/// The result of a test dial.
#[derive(Debug)]
pub(crate) enum TestDial {
    /// The server accepted the connection, or the dial failed for a reason that does not show a shutdown.
    Accepted,
    /// The server refused the connection, because it is shutting down or does not run.
    Refused(Attempt),
    /// The server did not respond in time. A probe must find out whether the Pod still serves.
    TimedOut,
}

/// The test dials of one absent Pod.
#[derive(Clone, Debug)]
pub(crate) struct TestDials(Arc<State>);

#[derive(Debug)]
struct State {
    /// True while the absent Pod is used. Relaxed: a stale value only delays a dial by [`FURTHER`].
    retained: AtomicBool,
    wanted: Notify,
}

impl TestDials {
    pub(crate) fn new() -> Self {
        Self(Arc::new(State { retained: AtomicBool::new(false), wanted: Notify::new() }))
    }

    pub(crate) fn set_retained(&self, retained: bool) {
        self.0.retained.store(retained, Ordering::Relaxed);
    }

    /// Makes the next dial immediately.
    pub(crate) fn dial_now(&self) {
        self.0.wanted.notify_one();
    }

    /// Makes the test dials until the task is aborted.
    pub(crate) async fn run(self, pod: Arc<Pod>) {
        let shared = pod.shared().clone();
        let mut prober = (shared.group.probe_factory.0)();
        let mut first = FIRST.into_iter();
        loop {
            let interval = first.next();
            let is_further = interval.is_none();
            let wanted = select! {
                () = sleep(jittered(interval.unwrap_or(FURTHER), JITTER, random())) => false,
                () = self.0.wanted.notified() => true,
            };
            if is_further && !wanted && !self.0.retained.load(Ordering::Relaxed) {
                continue;
            }
            match prober.test_dial(&pod).await {
                TestDial::Accepted => {}
                TestDial::Refused(attempt) => shared.send(Message::TestRefused { pod: pod.serial, attempt }),
                TestDial::TimedOut => pod.server.probe_wanted.notify_one(),
            }
            if wanted {
                sleep(PAUSE).await;
            }
        }
    }
}
