//! The controller, which chooses the primary.

use std::sync::Arc;

use tokio::time::{Instant, sleep};

use super::Settings;
use crate::{
    operator::{
        group::observe,
        store::{Content, Document, Store},
    },
    postgres::{Cluster, Status},
};

/// The controller of one group.
pub struct Controller {
    /// The host of the controller.
    pub(super) host: String,
    pub(super) cluster: Arc<Cluster>,
    /// The names of the instances.
    pub(super) instances: Vec<String>,
    pub(super) store: Arc<dyn Store>,
    pub(super) settings: Settings,
}

impl Controller {
    /// Creates the controller of a group, which runs on the host `host`.
    pub fn new(
        host: impl Into<String>,
        cluster: Arc<Cluster>,
        instances: Vec<String>,
        store: Arc<dyn Store>,
        settings: Settings,
    ) -> Self {
        Self { host: host.into(), cluster, instances, store, settings }
    }

    /// Runs the controller until the task is dropped.
    pub async fn run(self) {
        let mut failing_since = None;
        loop {
            if let Ok(document) = self.store.read(&self.host).await {
                self.reconcile(&document, &mut failing_since).await;
            }
            sleep(self.settings.interval).await;
        }
    }

    fn event(&self, text: impl AsRef<str>) {
        self.cluster.event(&self.host, format!("cloudnativepg: {}", text.as_ref()));
    }

    async fn reconcile(&self, document: &Document, failing_since: &mut Option<Instant>) {
        let statuses = self.statuses().await;
        let Some(target) = &document.content.target_primary else {
            return self.choose(document, &statuses).await;
        };
        let status = statuses.iter().find(|(name, _)| name == target).map(|(_, status)| status);
        // A target that has not been promoted yet is still a standby.
        if status.is_some_and(|status| (status.is_primary() || status.is_standby()) && !status.hung) {
            *failing_since = None;
            return;
        }
        let since = *failing_since.get_or_insert_with(Instant::now);
        if since.elapsed() < self.settings.failover_delay || !self.has_quorum(target, &statuses) {
            return;
        }
        self.event(format!("{target} is failing; failover begins"));
        *failing_since = None;
        self.write(document, |content| content.target_primary = None).await;
    }

    /// Returns the instances whose hosts respond.
    pub(super) async fn statuses(&self) -> Vec<(String, Status)> {
        let mut found = Vec::new();
        for name in &self.instances {
            if let Some(status) = observe(&self.cluster, &self.host, name).await {
                found.push((name.clone(), status));
            }
        }
        found
    }

    /// Returns true if the standbys that run include one with every acknowledged commit.
    fn has_quorum(&self, primary: &str, statuses: &[(String, Status)]) -> bool {
        let standbys = statuses.iter().filter(|(name, status)| name != primary && status.is_standby()).count();
        let needed = match self.settings.synchronous {
            0 => 1,
            // Each commit is on `synchronous` of the standbys, so this many standbys include one of them.
            confirmed => self.instances.len().saturating_sub(confirmed).max(1),
        };
        standbys >= needed
    }

    /// Chooses the most advanced standby, once no standby receives from the old primary any more.
    async fn choose(&self, document: &Document, statuses: &[(String, Status)]) {
        let old = document.content.current_primary.as_deref().unwrap_or_default();
        let standbys: Vec<_> =
            statuses.iter().filter(|(name, status)| name != old && status.is_standby() && !status.hung).collect();
        if standbys.iter().any(|(_, status)| status.receiving) || !self.has_quorum(old, statuses) {
            // The old primary has every commit. If its host responds again, it may be started.
            let responds = statuses.iter().any(|(name, status)| name == old && !status.hung);
            if responds && !self.has_quorum(old, statuses) {
                let old = Some(old.to_owned());
                self.write(document, |content| content.target_primary = old).await;
            }
            return;
        }
        let best = standbys.into_iter().max_by_key(|(_, status)| (status.timeline, status.position));
        if let Some((name, _)) = best {
            self.event(format!("{name} becomes the primary"));
            let name = Some(name.clone());
            self.write(document, |content| content.target_primary = name).await;
        }
    }

    /// Replaces the content. A failure is repeated with the next observation.
    pub(super) async fn write(&self, document: &Document, change: impl FnOnce(&mut Content)) -> bool {
        let mut content = document.content.clone();
        change(&mut content);
        self.store.write(&self.host, document.version, content).await == Ok(true)
    }
}
