//! Timers for callers that work on any executor.
//!
//! A caller may run on an executor other than tokio. Timers of the pool's tokio runtime do not fire while no thread
//! drives that runtime. An [`Alarm`] is therefore registered with the pool's [`Alarms`], and two parties fire alarms: a
//! task on the pool's runtime ([`run`]), and a process-wide thread, the [`watchdog`], for callers that cannot rely on
//! that task.
//!
//! The crate `futures-timer` also offers timers for any executor, with one thread per process. It has two drawbacks. It
//! reads only the system's clock, so a test that pauses tokio's clock would never reach a deadline. It also wakes its
//! thread for every wait, even in the usual case of a caller on the pool's own runtime.

mod watchdog;

use std::{
    collections::BTreeMap,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    select,
    sync::Notify,
    time::sleep_until,
};

use crate::{
    sync::{Mutex, lock},
    system::thread,
    time::Instant,
    unwind::catch,
};

/// The alarms of one pool.
#[derive(Debug)]
pub(crate) struct Alarms {
    state: Mutex<State>,
    /// Notifies [`run`] that an alarm was registered whose time is earlier than that of all other alarms.
    earlier: Notify,
    runtime: Handle,
}

#[derive(Debug, Default)]
struct State {
    /// Wakers of the registered alarms, by the alarm's time and number.
    pending: BTreeMap<(Instant, u64), Waker>,
    next_number: u64,
    /// True once the pool is registered with the watchdog.
    watched: bool,
}

/// A future that completes at the time `at`. Cancel-safe.
#[derive(Debug)]
pub(crate) struct Alarm {
    alarms: Arc<Alarms>,
    at: Instant,
    /// The alarm's number in the registry of alarms. `None` before the first poll.
    number: Option<u64>,
}

impl Alarms {
    pub(crate) fn new(runtime: Handle) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), earlier: Notify::new(), runtime })
    }

    /// Creates an alarm that completes at `at`. The first poll of the alarm registers it.
    pub(crate) fn at(self: &Arc<Self>, at: Instant) -> Alarm {
        Alarm { alarms: self.clone(), at, number: None }
    }

    /// Returns true if [`run`] is certain to fire an alarm of the calling task in time.
    ///
    /// This holds if the caller runs on the pool's runtime and that runtime is multi-threaded, because a multi-threaded
    /// runtime drives timers as long as it runs tasks. A current-thread runtime drives timers only inside of
    /// `block_on`, and this function cannot detect whether `block_on` is running.
    fn drives_itself(&self) -> bool {
        self.runtime.runtime_flavor() != RuntimeFlavor::CurrentThread
            && Handle::try_current().is_ok_and(|current| current.id() == self.runtime.id())
    }

    fn register(self: &Arc<Self>, at: Instant, waker: Waker) -> u64 {
        let needs_watchdog = thread::AVAILABLE && !self.drives_itself();
        let (number, is_first, watch) = {
            let mut state = lock(&self.state);
            state.next_number += 1;
            let number = state.next_number;
            state.pending.insert((at, number), waker);
            let is_first = state.pending.first_key_value().is_some_and(|(key, _)| *key == (at, number));
            let watch = needs_watchdog && !state.watched;
            state.watched |= needs_watchdog;
            (number, is_first, watch)
        };
        if is_first {
            self.earlier.notify_one();
        }
        if watch {
            watchdog::watch(self);
            // Another thread may have registered an earlier alarm before this pool was added to the watchdog.
            watchdog::wake_by(Instant::now().into_std());
        }
        if needs_watchdog {
            watchdog::wake_by(at.into_std());
        }
        number
    }

    /// Fires the alarms that are due. Returns the time of the next pending alarm.
    fn fire(&self, now: Instant) -> Option<Instant> {
        let (due, next) = {
            let mut state = lock(&self.state);
            let later = state.pending.split_off(&(now, u64::MAX));
            let due = mem::replace(&mut state.pending, later);
            (due, state.pending.first_key_value().map(|((at, _), _)| *at))
        };
        for waker in due.into_values() {
            // The waker of a foreign executor may panic, for example after that executor was shut down. The panic must
            // not prevent the other alarms. It is not reported, because only that executor's task is affected.
            let _ = catch(|| waker.wake());
        }
        next
    }
}

impl Drop for Alarms {
    fn drop(&mut self) {
        if lock(&self.state).watched {
            watchdog::forget(self);
        }
    }
}

/// Fires due alarms on the pool's runtime, until the task is aborted.
pub(crate) async fn run(alarms: Arc<Alarms>) {
    loop {
        let next = alarms.fire(Instant::now());
        select! {
            () = alarms.earlier.notified() => {}
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
        }
    }
}

impl Future for Alarm {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(number) = self.number else {
            let number = self.alarms.register(self.at, cx.waker().clone());
            self.number = Some(number);
            return Poll::Pending;
        };
        let mut state = lock(&self.alarms.state);
        // A registered alarm that is not pending has fired.
        let Some(waker) = state.pending.get_mut(&(self.at, number)) else { return Poll::Ready(()) };
        let replaced = if waker.will_wake(cx.waker()) { None } else { Some(mem::replace(waker, cx.waker().clone())) };
        drop(state);
        // The old waker may hold the last reference to a task, so it is dropped outside of the lock.
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let waker = lock(&self.alarms.state).pending.remove(&(self.at, number));
            drop(waker); // outside of the lock, as in `poll`
        }
    }
}

#[cfg(all(test, not(podpool_loom)))]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        thread,
        time::Duration,
    };

    use futures_util::{FutureExt as _, future::join_all};
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn alarms_fire_on_time_with_a_paused_clock() {
        let alarms = Alarms::new(Handle::current());
        let task = tokio::spawn(run(alarms.clone()));
        let start = Instant::now();
        let times = [300, 100, 200].map(|millis| start + Duration::from_millis(millis));
        let mut first = alarms.at(times[1]);
        assert!((&mut first).now_or_never().is_none());
        advance(Duration::from_millis(99)).await;
        assert!((&mut first).now_or_never().is_none());
        first.await;
        assert_eq!(start.elapsed().as_millis(), 100);
        join_all(times.map(|at| alarms.at(at))).await;
        assert_eq!(start.elapsed().as_millis(), 300);
        assert!(lock(&alarms.state).pending.is_empty());
        task.abort();
    }

    #[tokio::test]
    async fn dropping_an_alarm_unregisters_it() {
        let alarms = Alarms::new(Handle::current());
        let mut alarm = alarms.at(Instant::now() + Duration::from_secs(60));
        assert!((&mut alarm).now_or_never().is_none());
        assert_eq!(lock(&alarms.state).pending.len(), 1);
        drop(alarm);
        assert!(lock(&alarms.state).pending.is_empty());
    }

    #[test]
    fn alarms_fire_while_no_thread_drives_the_pools_runtime() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let alarms = Alarms::new(runtime.handle().clone());
        drop(runtime.spawn(run(alarms.clone())));
        for millis in [20, 0, 50] {
            let at = Instant::now() + Duration::from_millis(millis);
            block_on(alarms.at(at));
            assert!(Instant::now() >= at);
            assert!(Instant::now() < at + Duration::from_secs(1), "{:?} late", Instant::now() - at);
        }
        drop(runtime);
        block_on(alarms.at(Instant::now() + Duration::from_millis(10)));
    }

    /// Runs a future on this thread, without a runtime.
    fn block_on(future: impl Future<Output = ()>) {
        struct Unpark(thread::Thread, AtomicBool);
        impl std::task::Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.1.store(true, Ordering::SeqCst);
                self.0.unpark();
            }
        }
        let unpark = Arc::new(Unpark(thread::current(), AtomicBool::new(false)));
        let waker = Waker::from(unpark.clone());
        let mut future = std::pin::pin!(future);
        while future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            while !unpark.1.swap(false, Ordering::SeqCst) {
                thread::park();
            }
        }
    }
}
