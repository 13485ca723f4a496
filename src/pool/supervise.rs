//! Supervises the pool's background tasks: reports a panic of a task, and restarts the task after a backoff.

use std::{future::Future, sync::Arc};

use tokio::{task::AbortHandle, time::sleep};

use super::pod::{group::Group, shared::Shared};
use crate::{
    system::{random, spawn_on},
    time::{Duration, Instant},
    unwind::{Panic, PanicSource, catch_async},
};

/// Maximum delay before a task is restarted after its first panic. Doubles with each further panic. The actual delay is
/// a random 50 to 100 % of it, so that many clients do not restart their tasks at the same moment.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// The highest maximum.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// If a task runs for this long without a panic, its next restart is delayed by [`BACKOFF_MIN`] again.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// Spawns the task that `start` creates on the pool's runtime. Calls `start` again after each panic of the task.
pub(crate) fn spawn<F>(
    shared: &Arc<Shared>,
    source: PanicSource,
    start: impl FnMut() -> F + Send + 'static,
) -> AbortHandle
where
    F: Future<Output = ()> + Send + 'static,
{
    let reporting = shared.clone();
    let report = move |panic: &Panic| reporting.events.panicked(source, panic);
    spawn_on(&shared.runtime, supervise(report, start)).abort_handle()
}

/// Spawns a task that the pools of a group share.
pub(crate) fn spawn_shared<F>(
    group: &Arc<Group>,
    source: PanicSource,
    start: impl FnMut() -> F + Send + 'static,
) -> AbortHandle
where
    F: Future<Output = ()> + Send + 'static,
{
    let reporting = group.clone();
    let report = move |panic: &Panic| reporting.events.panicked(source, panic);
    spawn_on(&group.runtime, supervise(report, start)).abort_handle()
}

async fn supervise<F>(report: impl Fn(&Panic) + Send, mut start: impl FnMut() -> F + Send)
where
    F: Future<Output = ()> + Send,
{
    let mut backoff = BACKOFF_MIN;
    loop {
        let started = Instant::now();
        let Err(panic) = catch_async(start()).await else { return };
        report(&panic);
        if started.elapsed() > STABLE_AFTER {
            backoff = BACKOFF_MIN;
        }
        sleep(backoff.mul_f64(random::range(0.5..1.0))).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}
