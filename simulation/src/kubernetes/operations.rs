//! What people and operators do to a cluster.

use std::{error, fmt, time::Duration};

use tokio::time::Instant;

use super::{
    cluster::Cluster,
    event::Event,
    pod::{Deletion, Pod, Uid},
    runtime::ContainerRuntime,
    timers::Timer,
};
use crate::random::uniform;

/// The API server is away, so the operation has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable;

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the API server is away")
    }
}

impl error::Error for Unavailable {}

impl<R: ContainerRuntime> Cluster<R> {
    /// Deletes a Pod with its grace period at `now`.
    pub fn delete(&mut self, now: Instant, pod: Uid) -> Result<(), Unavailable> {
        self.available()?;
        self.begin_deletion(now, pod, Deletion { grace: self.set.grace });
        Ok(())
    }

    /// Deletes a Pod by force at `now`: the API server does not wait for its kubelet, which ends it within seconds if
    /// it reaches the API server. A Pod that is terminating already can be deleted by force too.
    pub fn delete_by_force(&mut self, now: Instant, pod: Uid) -> Result<(), Unavailable> {
        self.available()?;
        let Some(object) = self.pods.get_mut(&pod).filter(|pod| !pod.is_gone) else { return Ok(()) };
        if let Some(deletion) = &mut object.deletion {
            deletion.grace = Duration::ZERO;
            self.hasten(now, pod);
        }
        self.begin_deletion(now, pod, Deletion { grace: Duration::ZERO });
        // Late enough for the EndpointSlice controller to see the Pod as terminating, as recorded.
        let at = now + *self.settings.slice_delay.end() + uniform(&mut self.random, &self.settings.slice_delay);
        self.timers.set(at, Timer::Remove(pod));
        Ok(())
    }

    /// Changes the number of replicas at `now`.
    pub fn scale(&mut self, now: Instant, replicas: u32) -> Result<(), Unavailable> {
        self.available()?;
        self.set.replicas = replicas;
        self.trigger(now);
        Ok(())
    }

    /// Changes the template at `now`: Pods from the ordinal `partition` on are deleted and created again, one by one.
    pub fn update(&mut self, now: Instant, partition: u32) -> Result<(), Unavailable> {
        self.available()?;
        self.set.revision += 1;
        self.set_partition(now, partition)
    }

    /// Continues a rolling update at `now` with the Pods from the ordinal `partition` on.
    pub fn set_partition(&mut self, now: Instant, partition: u32) -> Result<(), Unavailable> {
        self.available()?;
        self.set.partition = partition;
        self.trigger(now);
        Ok(())
    }

    /// Changes `publishNotReadyAddresses` of the Service at `now`.
    pub fn set_publish_not_ready(&mut self, now: Instant, publish: bool) -> Result<(), Unavailable> {
        self.available()?;
        self.service.publish_not_ready = publish;
        self.events.push(Event::Service(self.service.clone()));
        self.trigger(now);
        Ok(())
    }

    /// Changes at `now` whether the labels of a Pod match the selector of the Service, as operators do that have a
    /// Service for the primary alone.
    pub fn set_selected(&mut self, now: Instant, pod: Uid, is_selected: bool) -> Result<(), Unavailable> {
        self.available()?;
        if let Some(pod) = self.pods.get_mut(&pod) {
            pod.is_selected = is_selected;
        }
        self.trigger(now);
        Ok(())
    }

    /// Takes that the API server goes away or comes back at `now`. While it is away, containers go on, and are
    /// probed and restarted, but nothing else changes.
    pub fn set_available(&mut self, now: Instant, is_available: bool) {
        let was_available = std::mem::replace(&mut self.is_available, is_available);
        if was_available || !is_available {
            return;
        }
        let forced = |pod: &&Pod| pod.deletion.is_some_and(|deletion| deletion.grace.is_zero());
        for pod in self.pods.values().filter(forced) {
            self.timers.set(now, Timer::Remove(pod.info.uid));
        }
        for (name, node) in self.nodes.clone() {
            if node.is_reporting {
                self.reconnect(now, &name);
            } else {
                // The node controller starts to wait again.
                self.wait_for_node(now, &name);
            }
        }
        self.trigger(now);
    }

    fn available(&self) -> Result<(), Unavailable> {
        if self.is_available { Ok(()) } else { Err(Unavailable) }
    }
}
