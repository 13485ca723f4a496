//! The operator of the servers: Patroni or CloudNativePG, and what the adversary makes it do.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use super::pods::{self, Managed, Pods};
use crate::{
    adversary::{OperatorKind, Plan},
    operator::{
        Lease, MemoryStore, Store as _, SynchronousState,
        cloudnativepg::{self, Controller, Instance},
        patroni::{self, Agent},
    },
    postgres::Server,
    spawn::Task,
    world::{Host, World},
};

/// The host of the store, and of CloudNativePG's controller.
pub(super) const HOST: &str = "operator";
/// Time within which each step of a switchover or a rolling update must succeed.
const STEP: Duration = Duration::from_secs(20);

/// The operator.
pub(super) struct Operator {
    kind: OperatorKind,
    pub(super) host: Host,
    pub(super) store: Arc<MemoryStore>,
    /// The names of all Pods that may exist.
    members: Vec<String>,
    pods: Weak<Pods>,
    patroni: patroni::Settings,
    cloudnativepg: cloudnativepg::Settings,
}

impl Operator {
    /// Creates the operator on its host. At most `most` Pods will exist.
    pub(super) fn new(world: &World, plan: &Plan, most: u32, pods: &Arc<Pods>) -> Arc<Self> {
        let host = world.host(HOST, &[[10, 0, 3, 1].into()]);
        pods.paths.set(HOST, host.node(), super::paths::Presence::Running);
        let topology = &plan.topology;
        let patroni = patroni::Settings {
            ttl: topology.lease,
            loop_wait: topology.lease / 3,
            stop_timeout: Duration::from_secs(10),
            synchronous: topology.synchronous > 0,
            ..patroni::Settings::default()
        };
        let cloudnativepg = cloudnativepg::Settings {
            interval: Duration::from_secs(1),
            stop_delay: Duration::from_secs(10),
            smart_shutdown: Duration::from_secs(2),
            isolation: topology.lease,
            synchronous: topology.synchronous as usize,
            ..cloudnativepg::Settings::default()
        };
        let count = if topology.operator == OperatorKind::Patroni { most } else { topology.pods };
        Arc::new(Self {
            kind: topology.operator,
            store: MemoryStore::new(HOST, Arc::new(pods.paths.clone()), topology.lease / 3),
            host,
            members: (0..count).map(pods::name).collect(),
            pods: Arc::downgrade(pods),
            patroni,
            cloudnativepg,
        })
    }

    /// Starts to operate servers, the first of which is the primary.
    pub(super) async fn start(self: &Arc<Self>, pods: &Arc<Pods>) {
        let first = pods::name(0);
        if let Ok(document) = self.store.read(HOST).await {
            let mut content = document.content;
            match self.kind {
                OperatorKind::Patroni => {
                    content.leader = Some(self.lease(&first));
                    content.synchronous = SynchronousState { leader: Some(first), standbys: Vec::new() };
                }
                OperatorKind::CloudNativePg => {
                    content.target_primary = Some(first.clone());
                    content.current_primary = Some(first);
                }
            }
            // No other client has used the store yet, so the write succeeds.
            let _ = self.store.write(HOST, document.version, content).await;
        }
        pods.manage_with(self.clone());
        if self.kind == OperatorKind::CloudNativePg {
            self.host.run(self.controller(pods).run());
        }
    }

    fn lease(&self, holder: &str) -> Lease {
        Lease { holder: holder.to_owned(), expires: tokio::time::Instant::now() + self.patroni.ttl }
    }

    fn controller(&self, pods: &Pods) -> Controller {
        Controller::new(HOST, pods.cluster.clone(), self.members.clone(), self.store.clone(), self.cloudnativepg)
    }

    fn agent(&self, server: &Arc<Server>) -> Agent {
        let pods = Arc::new(Managed(self.pods.clone()));
        Agent::new(server.clone(), self.members.clone(), self.store.clone(), pods, self.patroni)
    }

    /// Returns the manager of a server.
    pub(super) fn manager(&self, server: &Arc<Server>) -> Task<'static> {
        match self.kind {
            OperatorKind::Patroni => Box::pin(self.agent(server).run()),
            OperatorKind::CloudNativePg => {
                let pods = Arc::new(Managed(self.pods.clone()));
                let (members, store) = (self.members.clone(), self.store.clone());
                Box::pin(Instance::new(server.clone(), members, store, pods, self.cloudnativepg).run())
            }
        }
    }

    /// Returns the task of a manager that stops a server whose Pod is being deleted.
    pub(super) fn terminate(&self, server: &Arc<Server>) -> Task<'static> {
        match self.kind {
            OperatorKind::Patroni => Box::pin(self.agent(server).terminate()),
            OperatorKind::CloudNativePg => {
                let (server, settings) = (server.clone(), self.cloudnativepg);
                Box::pin(async move { Instance::terminate(&server, &settings).await })
            }
        }
    }

    /// Promotes another server although the primary runs: a synchronous standby if there is one.
    pub(super) async fn fail_over(&self) {
        let Ok(document) = self.store.read(HOST).await else { return };
        let mut content = document.content;
        match self.kind {
            OperatorKind::Patroni => {
                let Some(candidate) = self.candidate(&content.synchronous) else { return };
                content.leader = Some(self.lease(&candidate));
                content.synchronous = SynchronousState { leader: Some(candidate), standbys: Vec::new() };
            }
            // The controller chooses the standby with the most log, once the old primary is disconnected.
            OperatorKind::CloudNativePg => content.target_primary = None,
        }
        // A failure means that the operator was not reachable, so that nothing happens.
        let _ = self.store.write(HOST, document.version, content).await;
    }

    fn candidate(&self, synchronous: &SynchronousState) -> Option<String> {
        let pods = self.pods.upgrade()?;
        let is_standby = |name: &String| pods.cluster.server(name).is_some_and(|server| server.status().is_standby());
        match self.patroni.synchronous {
            true => synchronous.standbys.iter().find(|name| is_standby(name)).cloned(),
            false => self.members.iter().find(|name| is_standby(name)).cloned(),
        }
    }

    /// Hands over from the primary to another server.
    pub(super) async fn switch_over(&self) {
        let Some(pods) = self.pods.upgrade() else { return };
        match self.kind {
            // A failure means that the store was not reachable, so that nothing happens.
            OperatorKind::Patroni => {
                let _ = patroni::switch_over(&*self.store, HOST, None).await;
            }
            OperatorKind::CloudNativePg => {
                if let Some((primary, _)) = pods.primary() {
                    self.controller(&pods).switch_over(&pods::name(primary), STEP).await;
                }
            }
        }
    }

    /// Creates all Pods again, one after another.
    pub(super) async fn update(&self) {
        let Some(pods) = self.pods.upgrade() else { return };
        match self.kind {
            // The operation has no effect while the API server is away.
            OperatorKind::Patroni => {
                let _ = pods.kubernetes().with(|cluster, now| cluster.update(now, 0));
            }
            OperatorKind::CloudNativePg => {
                cloudnativepg::roll_out(&self.controller(&pods), &Managed(self.pods.clone()), STEP).await;
            }
        }
    }

    /// Makes the operator do nothing, or continues it.
    pub(super) async fn set_paused(&self, paused: bool) {
        match self.kind {
            // A failure means that the store was not reachable; it is repeated until it succeeds.
            OperatorKind::Patroni => while patroni::pause(&*self.store, HOST, paused).await.is_err() {},
            OperatorKind::CloudNativePg => self.host.set_paused(paused),
        }
    }

    /// Returns true if the API server is the store.
    pub(super) fn needs_api_server(&self) -> bool {
        self.kind == OperatorKind::CloudNativePg
    }
}
