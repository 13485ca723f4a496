//! The Pods: hosts on which Kubernetes starts and stops a manager (Patroni's agent or CloudNativePG's instance manager)
//! with a PostgreSQL server.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
};

use tokio::{
    select,
    task::AbortHandle,
    time::{Instant, sleep},
};

use super::{
    operators::Operator,
    paths::{Paths, Presence},
    recorder::Recorder,
};
use crate::{
    kubernetes::{ContainerRuntime, PodInfo, SharedCluster, Signal, Uid},
    operator,
    postgres::{Cluster, Phase, Server, Settings},
    properties::Role,
    spawn::Task,
    world::{Host, World},
};

/// The port of the servers.
const PORT: u16 = 5432;
/// Time between two checks whether a Pod was created again.
const CHECK: std::time::Duration = std::time::Duration::from_millis(200);

/// One Pod, by its ordinal: its host, which outlives its containers, and the server on its volume.
#[derive(Clone)]
pub(super) struct Pod {
    pub(super) host: Host,
    pub(super) server: Arc<Server>,
    pub(super) addresses: Vec<IpAddr>,
    /// The Pod whose container runs or ran last.
    pub(super) uid: Option<Uid>,
    pub(super) node: String,
    is_running: bool,
    manager: Option<AbortHandle>,
}

/// All Pods.
pub(super) struct Pods {
    world: World,
    pub(super) recorder: Recorder,
    pub(super) paths: Paths,
    pub(super) cluster: Arc<Cluster>,
    settings: Settings,
    pods: Mutex<BTreeMap<u32, Pod>>,
    /// The Pods whose readiness probe fails because of a fault.
    unready: Mutex<BTreeSet<u32>>,
    operator: OnceLock<Arc<Operator>>,
    kubernetes: OnceLock<SharedCluster<Runtime>>,
}

/// Returns the name of a Pod and its server.
pub(super) fn name(ordinal: u32) -> String {
    format!("pod-{ordinal}")
}

/// Returns the ordinal in the name of a Pod.
pub(super) fn ordinal(name: &str) -> Option<u32> {
    name.strip_prefix("pod-")?.parse().ok()
}

impl Pods {
    /// Creates the Pods of a database cluster. Their servers have these settings.
    pub(super) fn new(
        world: &World,
        recorder: &Recorder,
        paths: &Paths,
        cluster: &Arc<Cluster>,
        settings: Settings,
    ) -> Arc<Self> {
        Arc::new(Self {
            world: world.clone(),
            recorder: recorder.clone(),
            paths: paths.clone(),
            cluster: cluster.clone(),
            settings,
            pods: Mutex::default(),
            unready: Mutex::default(),
            operator: OnceLock::new(),
            kubernetes: OnceLock::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Pod>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the Kubernetes that reports the ends of containers.
    pub(super) fn set_kubernetes(&self, kubernetes: SharedCluster<Runtime>) {
        // Called once, when the world is set up.
        let _ = self.kubernetes.set(kubernetes);
    }

    /// Returns Kubernetes.
    pub(super) fn kubernetes(&self) -> &SharedCluster<Runtime> {
        self.kubernetes.get().expect("set when the world is set up")
    }

    /// Starts the managers of all Pods, and of each Pod that starts later.
    pub(super) fn manage_with(self: &Arc<Self>, operator: Arc<Operator>) {
        // Called once, when the world is set up.
        let _ = self.operator.set(operator);
        let ordinals: Vec<_> = self.lock().keys().copied().collect();
        ordinals.into_iter().for_each(|ordinal| self.manage(ordinal));
    }

    /// Returns all Pods, by ordinal.
    pub(super) fn all(&self) -> BTreeMap<u32, Pod> {
        self.lock().clone()
    }

    /// Returns a Pod.
    pub(super) fn get(&self, ordinal: u32) -> Option<Pod> {
        self.lock().get(&ordinal).cloned()
    }

    /// Returns the servers, by ordinal.
    pub(super) fn servers(&self) -> Vec<Arc<Server>> {
        self.lock().values().map(|pod| pod.server.clone()).collect()
    }

    /// Returns the number of sessions of a user on all servers.
    pub(super) fn sessions_of(&self, user: &str) -> u32 {
        self.servers().iter().map(|server| server.sessions_of(user)).sum::<usize>() as u32
    }

    /// Returns the ordinal and the Pod if its server is the only primary.
    pub(super) fn primary(&self) -> Option<(u32, Pod)> {
        let pods = self.all();
        let mut primaries = pods.into_iter().filter(|(_, pod)| pod.server.status().is_primary());
        let first = primaries.next();
        first.filter(|_| primaries.next().is_none())
    }

    /// Makes the readiness probe of a Pod fail, or not any more.
    pub(super) fn set_unready(&self, ordinal: u32, unready: bool) {
        let mut all = self.unready.lock().unwrap_or_else(PoisonError::into_inner);
        if unready {
            all.insert(ordinal)
        } else {
            all.remove(&ordinal)
        };
    }

    /// Records the role of a Pod's server if it has changed.
    pub(super) fn record_role(&self, ordinal: u32) {
        let Some(pod) = self.get(ordinal) else { return };
        let status = pod.server.status();
        let is_running = matches!(status.phase, Phase::Running | Phase::Stopping);
        let role = is_running.then_some(Role { standby: status.in_recovery, read_only: status.read_only });
        self.recorder.role(ordinal, role);
    }

    fn create(self: &Arc<Self>, info: &PodInfo) -> Pod {
        let ordinal = info.ordinal;
        let host = self.world.host(&info.name, &[]);
        let seed = self.world.rng(&info.name).u64(..);
        let server = Server::new(&info.name, &self.cluster, host.clone(), self.settings.clone(), seed);
        let (pods, watched) = (Arc::downgrade(self), server.clone());
        tokio::spawn(async move {
            loop {
                let seen = watched.changes();
                let Some(pods) = pods.upgrade() else { return };
                pods.record_role(ordinal);
                drop(pods);
                watched.changed(seen).await;
            }
        });
        let (addresses, node) = (Vec::new(), info.node.clone());
        Pod { host, server, addresses, uid: None, node, is_running: false, manager: None }
    }

    /// Starts the container of a Pod.
    fn start(self: &Arc<Self>, info: &PodInfo) {
        let ordinal = info.ordinal;
        let known = self.get(ordinal);
        let mut pod = known.unwrap_or_else(|| self.create(info));
        if pod.is_running {
            // The new Pod mounts the volume, so the former container has ended.
            pod.host.kill();
            pod.server.crash();
        }
        if pod.addresses != info.addresses {
            pod.host.set_addresses(&info.addresses);
            pod.addresses.clone_from(&info.addresses);
            let address = info.addresses.first().map(ToString::to_string).unwrap_or_default();
            pod.server.set(|settings| settings.host = address);
        }
        if pod.uid != Some(info.uid) {
            self.recorder.moved(ordinal, &info.addresses);
        }
        (pod.uid, pod.is_running) = (Some(info.uid), true);
        pod.node.clone_from(&info.node);
        self.lock().insert(ordinal, pod);
        self.launch(ordinal);
    }

    /// Starts the processes of a container.
    fn launch(self: &Arc<Self>, ordinal: u32) {
        let Some(pod) = self.get(ordinal) else { return };
        self.paths.set(&name(ordinal), pod.host.node(), Presence::Running);
        pod.host.run(listen(pod.server.clone(), pod.host.clone(), pod.addresses.clone()));
        self.manage(ordinal);
        self.record_role(ordinal);
    }

    /// Starts the manager of a Pod that runs.
    fn manage(self: &Arc<Self>, ordinal: u32) {
        let (Some(operator), Some(pod)) = (self.operator.get(), self.get(ordinal)) else { return };
        let manager = operator.manager(&pod.server);
        let handle = pod.host.run(manager).abort_handle();
        if let Some(pod) = self.lock().get_mut(&ordinal) {
            pod.manager = Some(handle);
        }
    }

    /// Kills the processes of a Pod's container. Its sockets are closed.
    pub(super) fn kill(&self, ordinal: u32) {
        let Some(pod) = self.get(ordinal) else { return };
        pod.host.kill();
        pod.server.crash();
        self.paths.set(&name(ordinal), pod.host.node(), Presence::Stopped);
        if let Some(pod) = self.lock().get_mut(&ordinal) {
            pod.is_running = false;
        }
    }

    /// Cuts the power of a Pod's machine. Its sockets disappear without a trace.
    pub(super) fn cut_power(&self, ordinal: u32) {
        let Some(pod) = self.get(ordinal) else { return };
        pod.host.crash();
        self.kill(ordinal);
        self.paths.set(&name(ordinal), pod.host.node(), Presence::Off);
    }

    /// Starts the processes of a Pod's container again after they were killed, or the power was cut.
    pub(super) fn revive(self: &Arc<Self>, ordinal: u32, uid: Option<Uid>) {
        let Some(pod) = self.get(ordinal) else { return };
        pod.host.boot();
        // Kubernetes may have replaced or ended the Pod since then.
        if pod.uid == uid && !pod.is_running && !pod.addresses.is_empty() {
            if let Some(pod) = self.lock().get_mut(&ordinal) {
                pod.is_running = true;
            }
            self.launch(ordinal);
        }
    }

    fn of(&self, uid: Uid) -> Option<(u32, Pod)> {
        self.all().into_iter().find(|(_, pod)| pod.uid == Some(uid))
    }

    /// Stops the server of a Pod that is being deleted, as its manager does, and reports the end to Kubernetes.
    fn terminate(self: &Arc<Self>, uid: Uid) {
        let (Some(operator), Some((ordinal, pod))) = (self.operator.get(), self.of(uid)) else { return };
        if let Some(manager) = &pod.manager {
            manager.abort();
        }
        let stopping = operator.terminate(&pod.server);
        let stopped = pod.host.run(stopping);
        let pods = Arc::downgrade(self);
        tokio::spawn(async move {
            // Fails if the container was killed, which Kubernetes knows.
            if stopped.await.is_ok()
                && let Some(pods) = pods.upgrade()
            {
                pods.kill(ordinal);
                pods.kubernetes().with(|cluster, now| cluster.exited(now, uid));
            }
        });
    }
}

/// Accepts connections at all addresses of a host whenever its server runs.
async fn listen(server: Arc<Server>, host: Host, addresses: Vec<IpAddr>) {
    loop {
        let seen = server.changes();
        if server.status().phase == Phase::Stopped {
            server.changed(seen).await;
            continue;
        }
        let mut tasks = Vec::new();
        for address in &addresses {
            // Fails if the Pod has lost the address.
            let Ok(listener) = host.listen((*address, PORT).into()) else { continue };
            let (server, host) = (server.clone(), host.clone());
            tasks.push(host.clone().run(async move {
                while let Ok((stream, peer)) = listener.accept().await {
                    let server = server.clone();
                    host.run(async move { server.serve(stream, peer).await });
                }
            }));
        }
        let stopped = async {
            let mut seen = server.changes();
            while server.status().phase != Phase::Stopped {
                seen = server.changed(seen).await;
            }
        };
        select! {
            biased;
            () = stopped => {}
        }
        for task in tasks {
            task.abort();
            // The listener is closed when the task has been dropped.
            let _ = task.await;
        }
    }
}

/// The container runtime of the Pods. Weak, because the Pods own the cluster that owns the runtime.
pub(super) struct Runtime(pub(super) Weak<Pods>);

impl ContainerRuntime for Runtime {
    fn start(&mut self, _: Instant, pod: &PodInfo) {
        if let Some(pods) = self.0.upgrade() {
            pods.start(pod);
        }
    }

    fn signal(&mut self, _: Instant, uid: Uid, signal: Signal) {
        let Some(pods) = self.0.upgrade() else { return };
        match signal {
            Signal::Kill => {
                if let Some((ordinal, _)) = pods.of(uid) {
                    pods.kill(ordinal);
                }
            }
            Signal::Interrupt | Signal::Quit | Signal::Terminate => pods.terminate(uid),
        }
    }

    fn is_ready(&mut self, _: Instant, uid: Uid) -> bool {
        let Some(pods) = self.0.upgrade() else { return false };
        let unready = pods.unready.lock().unwrap_or_else(PoisonError::into_inner);
        pods.of(uid)
            .is_some_and(|(ordinal, pod)| pod.is_running && pod.server.is_ready() && !unready.contains(&ordinal))
    }

    fn remove(&mut self, _: Instant, uid: Uid) {
        let Some(pods) = self.0.upgrade() else { return };
        let Some((ordinal, pod)) = pods.of(uid) else { return };
        pods.kill(ordinal);
        pod.host.set_addresses(&[]);
        pods.paths.set(&name(ordinal), pod.host.node(), Presence::Off);
        if let Some(pod) = pods.lock().get_mut(&ordinal) {
            pod.addresses.clear();
        }
    }
}

/// The Pods, as an operator sees them. Weak, because the Pods own their managers.
pub(super) struct Managed(pub(super) Weak<Pods>);

impl operator::Pods for Managed {
    /// Does nothing: the kubelet probes the servers itself.
    fn report(&self, _: &str, _: bool, _: operator::Role) {}

    fn recreate<'a>(&'a self, pod: &'a str) -> Task<'a> {
        Box::pin(async move {
            let (Some(pods), Some(ordinal)) = (self.0.upgrade(), ordinal(pod)) else { return };
            let Some(uid) = pods.get(ordinal).and_then(|pod| pod.uid) else { return };
            if pods.kubernetes().with(|cluster, now| cluster.delete(now, uid)).is_err() {
                return;
            }
            while pods.get(ordinal).is_some_and(|pod| pod.uid == Some(uid) || !pod.is_running) {
                sleep(CHECK).await;
            }
        })
    }
}
