//! Changes the set of Pods and their roles: scaling, moving and failover.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;

use super::{Cluster, Error, PodRole, PodState, Shutdown, lock, replication, server::Server};

/// Timeout for a standby to start streaming, or to catch up.
const STREAMING_DEADLINE: Duration = Duration::from_secs(30);

/// Timeout for a standby to stream from a new primary. When it expires, the standby is rewound, or copied from the
/// primary.
const FOLLOW_DEADLINE: Duration = Duration::from_secs(5);

/// Scaling, moving and failover. Each method returns when its effect is complete.
impl Cluster {
    /// Changes the number of Pods, as a StatefulSet does.
    ///
    /// Scaling down removes Pods one by one, the highest ordinal first. Each Pod is removed from DNS and then shut
    /// down. Its data is kept.
    ///
    /// Scaling up copies new standbys from the primary concurrently, and publishes them when all of them stream.
    /// Running Pods that were unpublished are published too. If no primary runs, Pods start with their previous data,
    /// so a cluster can be scaled to zero and back. Every added Pod gets an address that no Pod has used before.
    ///
    /// # Errors
    ///
    /// [`Error::NoPrimary`] if no primary runs and a Pod has no data to start with. If adding one Pod fails, all Pods
    /// that this call has added are removed again.
    pub async fn scale(&self, pods: usize) -> Result<(), Error> {
        let _operation = self.operation.lock().await;
        while self.len() > pods {
            let server = self.server(self.len() - 1)?;
            self.unpublish_server(&server)?;
            server.stop(Shutdown::Fast).await?;
            self.retire(server);
        }
        let before = self.len();
        let grown = self.grow(pods).await;
        if grown.is_err() {
            // Remove the added Pods, so that a retry starts from the same state.
            while self.len() > before {
                let server = self.server(self.len() - 1)?;
                self.unpublish_server(&server)?;
                server.kill().await?;
                self.retire(server);
            }
        }
        grown
    }

    /// Moves a Pod to an address that no Pod has used before, as Kubernetes does when a node is drained.
    ///
    /// The Pod is removed from DNS, shut down (fast), started at the new address with the same name and data, and
    /// published again. If it is the primary, its standbys follow it to the new address.
    ///
    /// # Errors
    ///
    /// The same as for [`stop`](Self::stop) and [`start_pod`](Self::start_pod).
    pub async fn move_pod(&self, ordinal: usize) -> Result<(), Error> {
        let _operation = self.operation.lock().await;
        let server = self.server(ordinal)?;
        let address = self.fresh_address()?;
        self.unpublish_server(&server)?;
        server.stop(Shutdown::Fast).await?;
        server.set_address(address);
        server.start().await?;
        if Arc::ptr_eq(&server, &self.primary_server()) {
            for standby in self.standbys_of(&server) {
                standby.set_role(Some(address))?;
            }
        }
        self.publish_server(&server)
    }

    /// Promotes a standby to primary, and makes the other standbys follow it.
    ///
    /// The old primary is not changed. If it is running, it remains a second primary on the old timeline until it is
    /// [re-attached](Self::reattach).
    ///
    /// # Errors
    ///
    /// [`Error::WrongState`] if the Pod is not a running standby, [`Error::Sql`], [`Error::Timeout`].
    pub async fn promote(&self, ordinal: usize) -> Result<(), Error> {
        let _operation = self.operation.lock().await;
        let server = self.server(ordinal)?;
        server.expect_state(PodState::Running, "running")?;
        if server.role() == PodRole::Primary {
            return Err(Error::WrongState {
                name: server.name().to_owned(),
                actual: "a primary",
                expected: "a standby",
            });
        }
        replication::promote(&server).await?;
        server.set_role(None)?;
        lock(&self.pods).primary = Arc::clone(&server);
        let standbys = self.standbys_of(&server);
        for standby in &standbys {
            standby.set_role(Some(server.address()))?;
        }
        for standby in standbys.iter().filter(|standby| standby.state().0 == PodState::Running) {
            if replication::wait_streaming(&server, standby, FOLLOW_DEADLINE).await.is_err() {
                // The standby has received more WAL than the new primary had, so it has to be rewound.
                self.attach(standby, &server).await?;
            }
        }
        Ok(())
    }

    /// Makes a Pod a standby of the current primary and returns when the Pod streams from it. Changes that only this
    /// Pod had are lost.
    ///
    /// Uses `pg_rewind` if possible, otherwise a new copy of the primary.
    ///
    /// # Errors
    ///
    /// [`Error::NoPrimary`] if the primary is not running, [`Error::WrongState`] if the Pod is the primary.
    pub async fn reattach(&self, ordinal: usize) -> Result<(), Error> {
        let _operation = self.operation.lock().await;
        let server = self.server(ordinal)?;
        let primary = self.running_primary()?;
        if Arc::ptr_eq(&server, &primary) {
            let expected = "a Pod other than the primary";
            return Err(Error::WrongState { name: server.name().to_owned(), actual: "the primary", expected });
        }
        self.attach(&server, &primary).await?;
        self.set_ready(&server, true)
    }

    /// Waits until every running standby has replayed all WAL that the primary has written so far.
    ///
    /// # Errors
    ///
    /// [`Error::NoPrimary`], and [`Error::Timeout`] after 30 s.
    pub async fn wait_replicated(&self) -> Result<(), Error> {
        let primary = self.running_primary()?;
        let mut standbys = self.standbys_of(&primary);
        standbys.retain(|standby| standby.state().0 == PodState::Running);
        replication::wait_replayed(&primary, &standbys, STREAMING_DEADLINE).await
    }

    /// Removes `last`, which must have the highest ordinal, from the StatefulSet and keeps its data.
    fn retire(&self, last: Arc<Server>) {
        let mut pods = lock(&self.pods);
        pods.present.pop();
        pods.retired.push(last);
    }

    /// Makes `server` a standby of `primary` and waits until it streams.
    async fn attach(&self, server: &Arc<Server>, primary: &Arc<Server>) -> Result<(), Error> {
        server.stop(Shutdown::Fast).await?;
        replication::rewind_or_copy(&self.config, server, primary).await?;
        server.set_role(Some(primary.address()))?;
        server.start().await?;
        replication::wait_streaming(primary, server, STREAMING_DEADLINE).await
    }

    /// Adds Pods until there are `pods`.
    async fn grow(&self, pods: usize) -> Result<(), Error> {
        let mut starting = JoinSet::new();
        for ordinal in self.len()..pods {
            let address = self.fresh_address()?;
            let retired = lock(&self.pods).retired.pop();
            let has_data = retired.as_ref().is_some_and(|server| server.data().exists());
            let server = match retired {
                Some(server) => server,
                None => {
                    let name = format!("{}-{ordinal}", self.name);
                    Arc::new(Server::new(Arc::clone(&self.config), name, address, PodRole::Standby)?)
                }
            };
            server.set_address(address);
            lock(&self.pods).present.push(Arc::clone(&server));
            let primary = self.primary_server();
            if Arc::ptr_eq(&server, &primary) || (has_data && primary.state().0 == PodState::Down) {
                // There is no running primary to copy from, so the Pod starts with its previous data.
                server.start().await?;
                if Arc::ptr_eq(&server, &primary) {
                    for standby in self.standbys_of(&server) {
                        standby.set_role(Some(address))?;
                    }
                }
                continue;
            }
            let primary = self.running_primary()?;
            let config = Arc::clone(&self.config);
            starting.spawn(async move {
                replication::copy(&config, &server, &primary).await?;
                server.set_role(Some(primary.address()))?;
                server.start().await?;
                replication::wait_streaming(&primary, &server, STREAMING_DEADLINE).await
            });
        }
        while let Some(started) = starting.join_next().await {
            started.map_err(|source| Error::io("start a Pod", std::io::Error::other(source)))??;
        }
        let servers = lock(&self.pods).present.clone();
        servers.iter().filter(|server| server.state().0 == PodState::Running).try_for_each(|s| self.publish_server(s))
    }

    fn primary_server(&self) -> Arc<Server> {
        Arc::clone(&lock(&self.pods).primary)
    }

    pub(super) fn running_primary(&self) -> Result<Arc<Server>, Error> {
        let primary = self.primary_server();
        match primary.state().0 {
            PodState::Running => Ok(primary),
            _ => Err(Error::NoPrimary { name: primary.name().to_owned() }),
        }
    }

    fn standbys_of(&self, primary: &Arc<Server>) -> Vec<Arc<Server>> {
        let others = lock(&self.pods).present.clone();
        let standby = |server: &Arc<Server>| server.role() == PodRole::Standby && !Arc::ptr_eq(server, primary);
        others.into_iter().filter(standby).collect()
    }
}
