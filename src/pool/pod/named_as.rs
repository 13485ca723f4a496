//! The configured hosts that name a Pod now. They can change while the Pod is in use, unlike its address.

use super::{Pod, server::Server};
use crate::{
    endpoint::Endpoint,
    sync::{Mutex, lock},
};

/// The Pod's endpoint as the latest lookup returned it.
#[derive(Debug)]
pub(super) struct NamedAs(Mutex<Endpoint>);

impl NamedAs {
    pub(super) fn new(endpoint: &Endpoint) -> Self {
        Self(Mutex::new(endpoint.clone()))
    }
}

impl Pod {
    /// Returns the endpoint to dial: the Pod's address, with the hosts that name it now.
    pub(crate) fn current_endpoint(&self) -> Endpoint {
        lock(&self.server.named_as.0).clone()
    }
}

impl Server {
    /// Adopts the hosts of the same endpoint in a later lookup, for dials from now on. If they have changed, the Pod is
    /// dialed now, because a login that failed with the names of the previous hosts may succeed.
    pub(crate) fn set_named_as(&self, endpoint: &Endpoint) {
        let before = std::mem::replace(&mut *lock(&self.named_as.0), endpoint.clone());
        if before.host_indexes().eq(endpoint.host_indexes()) {
            return;
        }
        for pod in self.pods() {
            lock(&pod.last_failure).clear();
            pod.shared().waiters.wake_opener();
        }
        self.probe_wanted.notify_one();
    }
}
