//! The controllers of the control plane: they write what they decide.

use tokio::time::Instant;

use super::{
    cluster::Cluster,
    event::{Event, PodEvent},
    pod::{Container, Deletion, Pod, PodInfo, Uid},
    runtime::ContainerRuntime,
    service::Family,
    slice_controller,
    statefulset::Action,
    timers::Timer,
};
use crate::random::uniform;

impl<R: ContainerRuntime> Cluster<R> {
    /// Runs the StatefulSet controller.
    pub(super) fn sync_set(&mut self, now: Instant) {
        self.pending.set = false;
        if !self.is_available {
            return;
        }
        for action in self.set.decide(self.pods.values().filter(|pod| !pod.is_gone)) {
            match action {
                Action::Create(ordinal, revision) => self.create(now, ordinal, revision),
                Action::Delete(pod) => self.begin_deletion(now, pod, Deletion { grace: self.set.grace }),
            }
        }
        let mut pods = self.pods.values().filter(|pod| !pod.is_gone);
        if self.set.partition == 0 && pods.all(|pod| pod.ready && pod.info.revision == self.set.revision) {
            self.set.current = self.set.revision;
        }
    }

    /// Runs the EndpointSlice controller for a family.
    pub(super) fn sync_slices(&mut self, now: Instant, family: Family) {
        self.pending.slices.remove(&family);
        if !self.is_available {
            return;
        }
        let desired = slice_controller::endpoints(&self.service, family, self.pods.values());
        let slices = self.slices.entry(family).or_default();
        let limit = self.settings.endpoints_per_slice;
        let writes = slice_controller::reconcile(&self.service, family, desired, limit, slices, &mut self.random);
        let mut at = now;
        for write in writes {
            self.timers.set(at, Timer::Write(Event::Slice(write)));
            self.pending.written.insert(family, at);
            at += uniform(&mut self.random, &self.settings.slice_delay);
        }
    }

    fn create(&mut self, now: Instant, ordinal: u32, revision: u32) {
        self.last_uid += 1;
        let reporting: Vec<_> = self.nodes.iter().filter(|(_, node)| node.is_reporting).map(|(name, _)| name).collect();
        // The scheduler prefers the nodes with the fewest Pods of the StatefulSet.
        let load = |name: &str| self.pods.values().filter(|pod| !pod.is_gone && pod.info.node == name).count();
        let Some(least) = reporting.iter().map(|name| load(name)).min() else {
            // Without a node, the scheduler leaves the Pod pending. Another attempt follows when a node reports.
            return;
        };
        let candidates: Vec<_> = reporting.into_iter().filter(|name| load(name) == least).cloned().collect();
        let node = candidates[self.random.usize(..candidates.len())].clone();
        let uid = Uid(self.last_uid);
        let name = format!("{}-{ordinal}", self.set.name);
        let info = PodInfo { uid, name, ordinal, node, addresses: Vec::new(), revision, restarts: 0 };
        self.record(&info, PodEvent::Created);
        let pod =
            Pod { info, ready: false, deletion: None, is_gone: false, is_selected: true, container: Container::new() };
        self.pods.insert(uid, pod);
        let at = now + uniform(&mut self.random, &self.settings.sandbox_delay);
        self.timers.set(at, Timer::Start(uid));
    }

    /// Marks a Pod as terminating. Its kubelet acts on it when it can.
    pub(super) fn begin_deletion(&mut self, now: Instant, pod: Uid, deletion: Deletion) {
        let Some(pod) = self.pods.get_mut(&pod).filter(|pod| pod.deletion.is_none() && !pod.is_gone) else { return };
        pod.deletion = Some(deletion);
        let info = pod.info.clone();
        self.record(&info, PodEvent::Deleted);
        self.timers.set(now, Timer::End(info.uid));
        self.trigger(now);
    }

    /// Removes a Pod from the API server. Its process may run on.
    pub(super) fn remove(&mut self, now: Instant, pod: Uid) {
        if !self.is_available {
            // The kubelet, or the client that deletes by force, repeats the request when the API server is back.
            return;
        }
        let Some(pod) = self.pods.get_mut(&pod).filter(|pod| !pod.is_gone) else { return };
        pod.is_gone = true;
        let info = pod.info.clone();
        self.record(&info, PodEvent::Removed);
        self.forget(info.uid);
        self.trigger(now);
    }

    /// Drops a Pod that neither the API server nor a node has.
    pub(super) fn forget(&mut self, pod: Uid) {
        use super::pod::State;
        let is_over = |pod: &Pod| pod.is_gone && pod.container.state == State::Ended;
        if self.pods.get(&pod).is_some_and(is_over) {
            self.pods.remove(&pod);
        }
    }
}
