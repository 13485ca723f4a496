//! Runs one container of a Pod: starts its process, probes it, and stops it.

use std::{process::ExitStatus, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Container, Probe};
use rustix::process::Signal;
use tokio::{
    select,
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};

use super::{
    Wanted,
    probe::{self, Thresholds},
    process::Process,
    worker::Worker,
};

/// The kubelet looks for containers that have exited once per second.
const RELIST: Duration = Duration::from_secs(1);
/// Delays before a container is started again. The first restart is immediate.
const BACK_OFF: [u64; 7] = [0, 10, 20, 40, 80, 160, 300];
/// Grace period of a Pod whose object no longer exists.
const FORCED: Duration = Duration::from_secs(1);
/// Minimum time between the stop signal and SIGKILL.
const MINIMUM: Duration = Duration::from_secs(2);

/// Runs an init container until it succeeds. Returns false if the Pod has to stop first.
pub(super) async fn initialize(
    worker: &Arc<Worker>,
    container: &Container,
    wanted: &mut watch::Receiver<Wanted>,
) -> bool {
    for restarts in 0.. {
        match run(worker, container, wanted).await {
            None => return false,
            Some(status) if status.success() => return true,
            Some(_) => {}
        }
        if !back_off(restarts, wanted).await {
            return false;
        }
    }
    unreachable!("the loop has no end")
}

/// Runs a container until the Pod has to stop. Starts it again whenever it exits.
pub(super) async fn supervise(worker: Arc<Worker>, container: Container, mut wanted: watch::Receiver<Wanted>) {
    for restarts in 0.. {
        let exited = run(&worker, &container, &mut wanted).await;
        if exited.is_none() || !back_off(restarts, &mut wanted).await {
            return;
        }
        worker.change(&container.name, |state| state.restarts += 1);
    }
}

/// Waits before the next start. Returns false if the Pod has to stop instead.
async fn back_off(restarts: usize, wanted: &mut watch::Receiver<Wanted>) -> bool {
    let delay = RELIST + Duration::from_secs(BACK_OFF[restarts.min(BACK_OFF.len() - 1)]);
    select! {
        () = sleep(delay) => true,
        _ = stop_requested(wanted) => false,
    }
}

/// Waits until the Pod has to stop. Returns the grace period.
async fn stop_requested(wanted: &mut watch::Receiver<Wanted>) -> Duration {
    let wanted = wanted.wait_for(|wanted| !matches!(wanted, Wanted::Running)).await.expect("the worker exists");
    match *wanted {
        Wanted::Terminated(grace) => grace,
        Wanted::Gone | Wanted::Running => FORCED,
    }
}

/// Runs a container's process once. Returns its status, or `None` if it ended because the Pod has to stop.
async fn run(worker: &Arc<Worker>, container: &Container, wanted: &mut watch::Receiver<Wanted>) -> Option<ExitStatus> {
    let mut process = worker.start(container).await;
    let unhealthy = Notify::new();
    let (status, stopped) = {
        let probes = probes(worker, container, &unhealthy);
        let running = async {
            select! {
                status = process.wait() => return (status, false),
                () = unhealthy.notified() => {}
                grace = stop_requested(wanted) => return (stop(container, &mut process, grace).await, true),
            }
            let grace = worker.grace_period();
            (stop(container, &mut process, grace).await, false)
        };
        select! {
            ended = running => ended,
            () = async { probes.await; std::future::pending().await } => unreachable!("pending"),
        }
    };
    worker.exited(container, status);
    (!stopped).then_some(status)
}

/// Runs the probes of a container. Notifies `unhealthy` if the startup or the liveness probe fails.
async fn probes(worker: &Arc<Worker>, container: &Container, unhealthy: &Notify) {
    let started = |ready: bool| {
        worker.change(&container.name, |state| {
            state.started = true;
            state.ready = ready;
        });
    };
    if let Some(startup) = &container.startup_probe {
        let mut succeeded = false;
        repeat(worker, container, startup, |verdict| {
            succeeded = verdict;
            false
        })
        .await;
        if !succeeded {
            unhealthy.notify_one();
            return;
        }
    }
    started(container.readiness_probe.is_none());
    let readiness = async {
        let Some(probe) = &container.readiness_probe else { return };
        repeat(worker, container, probe, |ready| {
            worker.change(&container.name, |state| state.ready = ready);
            true
        })
        .await;
    };
    let liveness = async {
        let Some(probe) = &container.liveness_probe else { return };
        repeat(worker, container, probe, |alive| {
            if !alive && !worker.is_stopping() {
                unhealthy.notify_one();
            }
            alive
        })
        .await;
    };
    tokio::join!(readiness, liveness);
}

/// Repeats a probe while `verdict`, which gets each result beyond the threshold, returns true.
async fn repeat(worker: &Worker, container: &Container, probe: &Probe, mut verdict: impl FnMut(bool) -> bool) {
    let check = probe::check(probe, container, worker.address);
    let mut thresholds = Thresholds::new(probe);
    loop {
        let next = Instant::now() + probe::period(probe);
        let succeeded = probe::run(probe, &check, |words| worker.command(&container.name, words)).await;
        if thresholds.add(succeeded).is_some_and(|result| !verdict(result)) {
            return;
        }
        tokio::time::sleep_until(next).await;
    }
}

/// Stops a process: runs the `preStop` hook, sends the image's stop signal, and kills the process after the grace
/// period.
async fn stop(container: &Container, process: &mut Process, grace: Duration) -> ExitStatus {
    let end = Instant::now() + grace;
    let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    if let Some(hook) = hook {
        let pause = hook.sleep.as_ref().unwrap_or_else(|| panic!("unsupported hook: {hook:?}")).seconds;
        let pause = Duration::from_secs(pause.try_into().expect("a positive number"));
        if let Ok(status) = timeout(pause.min(grace), process.wait()).await {
            return status;
        }
    }
    process.entry.signal(stop_signal(container));
    let remaining = end.saturating_duration_since(Instant::now()).max(MINIMUM);
    if let Ok(status) = timeout(remaining, process.wait()).await {
        return status;
    }
    process.entry.signal(Signal::KILL);
    process.wait().await
}

/// Returns the stop signal of a container's image.
fn stop_signal(container: &Container) -> Signal {
    match container.image.as_deref() {
        // STOPSIGNAL in the official image's Dockerfile.
        Some(image) if image.starts_with("postgres:") => Signal::INT,
        _ => Signal::TERM,
    }
}
