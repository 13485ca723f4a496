//! The kubelets: start, probe, restart and end of the container of a Pod.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    cluster::Cluster,
    event::PodEvent,
    pod::{Pod, State, Uid},
    runtime::{ContainerRuntime, Signal},
    timers::Timer,
};
use crate::random::uniform;

/// The grace period of a Pod that is deleted by force.
const SHORTEST_GRACE: Duration = Duration::from_secs(1);
/// The shortest time between the stop signal and SIGKILL.
const SHORTEST_STOP: Duration = Duration::from_secs(2);

impl<R: ContainerRuntime> Cluster<R> {
    /// Takes that the process of a Pod has ended at `now`, for whatever reason.
    pub fn exited(&mut self, now: Instant, pod: Uid) {
        let Some(pod) = self.pods.get_mut(&pod).filter(|pod| pod.container.state == State::Running) else { return };
        let uid = pod.info.uid;
        let delay = uniform(&mut self.random, &self.settings.exit_delay);
        pod.container.run += 1;
        pod.container.passes_probe = false;
        if pod.container.ending.is_some() || pod.is_gone {
            pod.container.state = State::Ended;
            self.released(now, uid);
            // The Pod stays as it was in the EndpointSlices until it leaves them.
            self.timers.set(now + delay, Timer::Remove(uid));
        } else {
            pod.container.state = State::Waiting;
            let at = now + delay + pod.container.back_off.next(now + delay);
            self.timers.set(at, Timer::Restart(uid, pod.container.run));
            self.report(now + delay, uid);
        }
        let info = self.pods.get(&uid).map(|pod| pod.info.clone());
        if let Some(info) = info {
            self.record(&info, PodEvent::Exited);
            self.forget(uid);
        }
    }

    /// Gives a Pod its addresses, and starts its process.
    pub(super) fn start(&mut self, now: Instant, pod: Uid) {
        let Some(pod) = self.pods.get_mut(&pod).filter(|pod| pod.container.state == State::Creating) else { return };
        if !self.nodes[&pod.info.node].is_running {
            return;
        }
        pod.info.addresses = self.addresses.take(&self.service.families);
        pod.container.network.clone_from(&pod.info.addresses);
        let uid = pod.info.uid;
        self.launch(now, uid);
        self.trigger(now);
    }

    /// Starts the process of a Pod again, after the back-off.
    pub(super) fn restart(&mut self, now: Instant, pod: Uid, run: u32) {
        let Some(pod) = self.pods.get_mut(&pod) else { return };
        if pod.container.state == State::Waiting && pod.container.run == run {
            pod.info.restarts += 1;
            let uid = pod.info.uid;
            self.launch(now, uid);
        }
    }

    fn launch(&mut self, now: Instant, pod: Uid) {
        let pod = self.pods.get_mut(&pod).expect("the caller has it");
        pod.container.state = State::Running;
        pod.container.contradictions = 0;
        let info = pod.info.clone();
        let timer = Timer::Probe(info.uid, pod.container.run);
        self.timers.set(now + self.set.probe.initial_delay, timer);
        self.runtime.start(now, &info);
        self.record(&info, PodEvent::Started(info.addresses.clone()));
        // Readiness that an operator has set outlives the process.
        self.report(now, info.uid);
    }

    /// Runs the readiness probe of a Pod.
    pub(super) fn probe(&mut self, now: Instant, pod: Uid, run: u32) {
        let is_current = |pod: &&mut Pod| pod.container.state == State::Running && pod.container.run == run;
        let Some(pod) = self.pods.get_mut(&pod).filter(is_current) else { return };
        let uid = pod.info.uid;
        let passes = self.runtime.is_ready(now, uid);
        let probe = &self.set.probe;
        let container = &mut pod.container;
        if passes == container.passes_probe {
            container.contradictions = 0;
        } else {
            container.contradictions += 1;
            let threshold = if passes { probe.success_threshold } else { probe.failure_threshold };
            if container.contradictions >= threshold {
                container.passes_probe = passes;
                container.contradictions = 0;
            }
        }
        self.timers.set(now + probe.period, Timer::Probe(uid, run));
        self.report(now, uid);
    }

    /// Sets the readiness of a Pod instead of its probe, as an operator does, or returns it to the probe.
    pub fn set_readiness(&mut self, now: Instant, pod: Uid, readiness: Option<bool>) {
        let Some(pod) = self.pods.get_mut(&pod) else { return };
        pod.container.held = readiness;
        let uid = pod.info.uid;
        self.report(now, uid);
    }

    /// Writes the readiness of a Pod to the API server, if its kubelet reaches it.
    pub(super) fn report(&mut self, now: Instant, pod: Uid) {
        let Some(pod) = self.pods.get_mut(&pod).filter(|pod| !pod.is_gone) else { return };
        let ready = pod.container.is_ready();
        if self.is_available && self.nodes[&pod.info.node].is_reporting && pod.ready != ready {
            pod.ready = ready;
            let info = pod.info.clone();
            self.record(&info, PodEvent::Ready(ready));
            self.trigger(now);
        }
    }

    /// Ends the container of a Pod that the API server deletes or has removed.
    pub(super) fn end(&mut self, now: Instant, pod: Uid) {
        let Some(pod) = self.pods.get_mut(&pod).filter(|pod| pod.deletion.is_some() || pod.is_gone) else { return };
        let uid = pod.info.uid;
        let node = &self.nodes[&pod.info.node];
        let is_connected = self.is_available && node.is_reporting;
        if !is_connected || (pod.container.ending.is_some() && pod.container.state == State::Running) {
            return;
        }
        if pod.container.state == State::Running {
            pod.container.ending = Some(now);
            let hook = self.set.pre_stop.min(grace(pod));
            self.timers.set(now + hook, Timer::Stop(uid, pod.container.run));
            return;
        }
        pod.container.ending.get_or_insert(now);
        pod.container.state = State::Ended;
        self.released(now, uid);
        let at = now + uniform(&mut self.random, &self.settings.exit_delay);
        self.timers.set(at, Timer::Remove(uid));
        self.forget(uid);
    }

    /// Shortens the end of a container whose Pod is deleted by force while it terminates.
    pub(super) fn hasten(&mut self, now: Instant, pod: Uid) {
        let can_hasten = |pod: &&Pod| pod.container.ending.is_some() && self.nodes[&pod.info.node].is_reporting;
        let Some(pod) = self.pods.get(&pod).filter(can_hasten) else { return };
        let (uid, run) = (pod.info.uid, pod.container.run);
        match pod.container.is_stopping {
            true => self.timers.set(now + SHORTEST_STOP, Timer::Kill(uid, run)),
            false => self.timers.set(now + SHORTEST_GRACE, Timer::Stop(uid, run)),
        }
    }

    /// Sends the stop signal, after the preStop hook.
    pub(super) fn stop(&mut self, now: Instant, pod: Uid, run: u32) {
        let is_current = |pod: &&mut Pod| pod.container.run == run && !pod.container.is_stopping;
        let Some(pod) = self.pods.get_mut(&pod).filter(is_current) else { return };
        let Some(began) = pod.container.ending else { return };
        pod.container.is_stopping = true;
        let rest = (began + grace(pod)).saturating_duration_since(now).max(SHORTEST_STOP);
        let info = pod.info.clone();
        self.timers.set(now + rest, Timer::Kill(info.uid, run));
        self.record(&info, PodEvent::Signalled(self.set.stop));
        self.runtime.signal(now, info.uid, self.set.stop);
    }

    /// Ends the process, after the grace period.
    pub(super) fn kill(&mut self, now: Instant, pod: Uid, run: u32) {
        let is_current = |pod: &&Pod| pod.container.state == State::Running && pod.container.run == run;
        let Some(pod) = self.pods.get(&pod).filter(is_current) else { return };
        let info = pod.info.clone();
        self.record(&info, PodEvent::Signalled(Signal::Kill));
        self.runtime.signal(now, info.uid, Signal::Kill);
        self.exited(now, info.uid);
    }

    /// Removes the addresses of a Pod from its node.
    pub(super) fn released(&mut self, now: Instant, pod: Uid) {
        let network = self.pods.get_mut(&pod).map(|pod| std::mem::take(&mut pod.container.network));
        if let Some(network) = network.filter(|network| !network.is_empty()) {
            self.addresses.release(&network);
            self.runtime.remove(now, pod);
        }
    }
}

/// Returns the grace period of a Pod. The kubelet of a Pod that is deleted by force knows only the shortest.
fn grace(pod: &Pod) -> Duration {
    pod.deletion.map_or(SHORTEST_GRACE, |deletion| deletion.grace.max(SHORTEST_GRACE))
}
