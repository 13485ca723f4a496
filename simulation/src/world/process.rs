//! The tasks of a host.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::Future,
    mem,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use podpool::simulation::Task;
use tokio::task::AbortHandle;

use super::{clock, host::Machine};

thread_local! {
    /// The process whose task is being polled or dropped.
    static CURRENT: RefCell<Option<Arc<Process>>> = const { RefCell::new(None) };
}

/// The tasks of a host, from its start until it is killed.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) machine: Arc<Machine>,
    /// True while the tasks are not polled: the process is stopped, or it was killed.
    ///
    /// Relaxed accesses: all of them happen on the thread of the simulation.
    is_stopped: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    is_killed: bool,
    next: u64,
    /// The tasks that have not ended, by their number.
    tasks: BTreeMap<u64, Option<AbortHandle>>,
    /// The tasks that were woken while the process was stopped.
    woken: BTreeMap<u64, Waker>,
}

impl Process {
    pub(super) fn new(machine: Arc<Machine>) -> Arc<Self> {
        Arc::new(Self { machine, is_stopped: AtomicBool::new(false), state: Mutex::default() })
    }

    /// Returns the process whose task is being polled or dropped.
    pub(super) fn current() -> Option<Arc<Self>> {
        CURRENT.with_borrow(Clone::clone)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops or continues the process. When it continues, the tasks that were woken meanwhile run in a random order.
    pub(super) fn set_paused(&self, paused: bool) {
        let woken = {
            let mut state = self.lock();
            self.is_stopped.store(paused || state.is_killed, Ordering::Relaxed);
            if paused || state.is_killed { BTreeMap::new() } else { mem::take(&mut state.woken) }
        };
        let mut woken: Vec<Waker> = woken.into_values().collect();
        fastrand::Rng::with_seed(self.machine.random()).shuffle(&mut woken);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Drops all tasks. The runtime drops them when it gets to them; none is polled again.
    pub(super) fn kill(&self) {
        let (tasks, woken) = {
            let mut state = self.lock();
            state.is_killed = true;
            self.is_stopped.store(true, Ordering::Relaxed);
            (state.tasks.values().flatten().cloned().collect::<Vec<_>>(), mem::take(&mut state.woken))
        };
        tasks.iter().for_each(AbortHandle::abort);
        drop(woken);
    }

    /// Returns the number of tasks that have not ended.
    pub(super) fn tasks(&self) -> usize {
        self.lock().tasks.len()
    }

    /// Creates the record of a task that is about to be spawned.
    pub(super) fn task(self: &Arc<Self>) -> HostTask {
        let mut state = self.lock();
        state.next += 1;
        let id = state.next;
        state.tasks.insert(id, None);
        HostTask { process: self.clone(), id }
    }

    /// Stores the handle of a task that has been spawned.
    pub(super) fn spawned(&self, id: u64, handle: AbortHandle) {
        let mut state = self.lock();
        if state.is_killed {
            // Aborting outside of the lock is not necessary: the runtime drops the task later.
            handle.abort();
        } else if let Some(task) = state.tasks.get_mut(&id) {
            *task = Some(handle);
        }
    }

    /// Spawns a task of the process on the current runtime.
    pub(super) fn spawn<F>(self: &Arc<Self>, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let task = self.task();
        let id = task.id;
        let handle = tokio::spawn(OnHost { task, future: Some(Box::pin(future)) });
        self.spawned(id, handle.abort_handle());
        handle
    }

    /// Spawns a task of the process that stays on this thread.
    pub(super) fn spawn_local<F>(self: &Arc<Self>, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let task = self.task();
        let id = task.id;
        let handle = tokio::task::spawn_local(OnHost { task, future: Some(Box::pin(future)) });
        self.spawned(id, handle.abort_handle());
        handle
    }

    /// Calls a function with this process as the current one.
    pub(super) fn enter<T>(self: &Arc<Self>, f: impl FnOnce() -> T) -> T {
        struct Restore(Option<Arc<Process>>, i64);
        impl Drop for Restore {
            fn drop(&mut self) {
                clock::set_skew(self.1);
                CURRENT.set(self.0.take());
            }
        }
        let _restore = Restore(CURRENT.replace(Some(self.clone())), clock::set_skew(self.machine.skew()));
        f()
    }
}

/// The record of a task, which is dropped after the task's future.
#[derive(Debug)]
pub(super) struct HostTask {
    process: Arc<Process>,
    id: u64,
}

impl Task for HostTask {
    fn id(&self) -> u64 {
        self.id
    }

    fn poll(&mut self, cx: &mut Context<'_>, poll: &mut dyn FnMut(&mut Context<'_>)) {
        if self.process.is_stopped.load(Ordering::Relaxed) {
            let replaced = {
                let mut state = self.process.lock();
                if state.is_killed { None } else { state.woken.insert(self.id, cx.waker().clone()) }
            };
            drop(replaced);
            return;
        }
        self.process.enter(|| poll(cx));
    }

    fn release(&mut self, drop: &mut dyn FnMut()) {
        self.process.enter(drop);
    }
}

impl Drop for HostTask {
    fn drop(&mut self) {
        let removed = {
            let mut state = self.process.lock();
            (state.tasks.remove(&self.id), state.woken.remove(&self.id))
        };
        drop(removed);
    }
}

/// A future that belongs to a host.
struct OnHost<F> {
    task: HostTask,
    /// `None` only while the future is being dropped.
    future: Option<Pin<Box<F>>>,
}

impl<F: Future> Future for OnHost<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Self { task, future } = &mut *self;
        let mut result = Poll::Pending;
        task.poll(cx, &mut |cx| {
            if let Some(future) = future {
                result = future.as_mut().poll(cx);
            }
        });
        result
    }
}

impl<F> Drop for OnHost<F> {
    fn drop(&mut self) {
        let Self { task, future } = self;
        task.release(&mut || *future = None);
    }
}
