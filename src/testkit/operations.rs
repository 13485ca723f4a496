use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;

use super::{
    Cluster, Error, Role, Shutdown, State,
    certificate::Certificate,
    lock, replication,
    server::Server,
    site::{identifier, quoted},
    throttle::Throttle,
};

/// How long a standby may take to begin to stream, or to catch up.
const STREAMING_DEADLINE: Duration = Duration::from_secs(30);

/// How long the other standbys may take to follow a new primary before they are taken for unable to.
const FOLLOW_DEADLINE: Duration = Duration::from_secs(5);

/// What can happen to the Pods. Everything here returns when it has come about.
impl Cluster {
    /// SIGKILL to the whole Pod, as the kernel does for want of memory: postmaster and every child at once. Its DNS
    /// record stays, unless [`follow_readiness`](crate::testkit::ClusterBuilder::follow_readiness) is set.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPod`]; a Pod that is down already is no error.
    pub async fn kill(&self, ordinal: usize) -> Result<(), Error> {
        let _operation = self.operation.lock().await;
        let server = self.server(ordinal)?;
        server.kill().await?;
        self.readiness(&server, false)
    }

    /// Stops the Pod's server in one of PostgreSQL's three ways. A paused one is resumed first. A primary that stops,
    /// smart or fast, waits until its standbys have received everything: for one that is paused, up to a minute.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] after 90 s, which [`Shutdown::Smart`] reaches when a client stays; [`Error::NoSuchPod`].
    pub async fn stop(&self, ordinal: usize, shutdown: Shutdown) -> Result<(), Error> {
        let _operation = self.operation.lock().await;
        let server = self.server(ordinal)?;
        self.readiness(&server, false)?;
        server.stop(shutdown).await
    }

    /// Starts a Pod that is down, with the data, the address and the role it had. A former primary starts as a second
    /// primary, on its old timeline; [`reattach`](Self::reattach) makes it a standby instead.
    ///
    /// # Errors
    ///
    /// [`Error::State`] where it is not down, [`Error::Exited`] and [`Error::Timeout`] (90 s) where it does not come up.
    pub async fn start_pod(&self, ordinal: usize) -> Result<(), Error> {
        let _operation = self.operation.lock().await;
        let server = self.server(ordinal)?;
        server.start().await?;
        self.readiness(&server, true)
    }

    /// Stops a Pod's server (fast) and starts it again.
    ///
    /// # Errors
    ///
    /// As [`stop`](Self::stop) and [`start_pod`](Self::start_pod).
    pub async fn restart(&self, ordinal: usize) -> Result<(), Error> {
        let _operation = self.operation.lock().await;
        let server = self.server(ordinal)?;
        self.readiness(&server, false)?;
        server.stop(Shutdown::Fast).await?;
        server.start().await?;
        self.readiness(&server, true)
    }

    /// SIGSTOP to the postmaster and every child: connections stay open and nothing comes back, as with a node that
    /// hangs. New connections are still taken by the kernel, and then hang too.
    ///
    /// # Errors
    ///
    /// [`Error::State`] where it does not run.
    pub async fn pause(&self, ordinal: usize) -> Result<(), Error> {
        let _operation = self.operation.lock().await;
        let server = self.server(ordinal)?;
        server.pause().await?;
        self.readiness(&server, false)
    }

    /// Ends a [`pause`](Self::pause).
    ///
    /// # Errors
    ///
    /// [`Error::State`] where it is not paused.
    pub async fn resume(&self, ordinal: usize) -> Result<(), Error> {
        let _operation = self.operation.lock().await;
        let server = self.server(ordinal)?;
        server.resume().await?;
        self.readiness(&server, true)
    }

    /// Leaves a Pod this share of its processor time, above 0 and up to 1, until what is returned is dropped.
    ///
    /// Where this process may make a control group with a quota (Linux's; it takes root, and with version 2 the `cpu`
    /// controller where it is made), the Pod gets one, as Kubernetes' `limits.cpu` gives it: the share of what its
    /// processes use, all together, in the second after the call, and at least 1 ms a second. A Pod that does nothing is
    /// left next to nothing; one that is started anew meanwhile is free of it; of two at a time, the end of one ends both.
    /// Elsewhere its processes are stopped (SIGSTOP) and go on (SIGCONT) a hundred times a second, whatever they use; one
    /// that is new runs freely for up to a tenth of a second. That also costs whatever shares the machine with them.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for any other share; [`Error::State`] where it does not run.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub async fn throttle(&self, ordinal: usize, share: f64) -> Result<Throttle, Error> {
        if !(share > 0.0 && share <= 1.0) {
            return Err(Error::Setting { setting: "share", expected: "more than 0, and at most 1" });
        }
        let _operation = self.operation.lock().await;
        self.server(ordinal)?.throttle(share).await
    }

    /// Gives a Pod another certificate and key, both PEM. New connections get it, also of a Pod that offered no TLS
    /// before; those that are open stay.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPod`], and [`Error::Timeout`] (90 s) where the server does not read its files. What the server
    /// thinks of the certificate is in its log: one that it cannot use is not used.
    pub async fn set_certificate(
        &self,
        ordinal: usize,
        certificate: impl Into<String>,
        key: impl Into<String>,
    ) -> Result<(), Error> {
        let _operation = self.operation.lock().await;
        let certificate = Certificate { certificate: certificate.into(), key: key.into() };
        self.server(ordinal)?.set_certificate(certificate).await
    }

    /// Puts a Pod into DNS, whatever it is doing.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPod`].
    pub fn publish(&self, ordinal: usize) -> Result<(), Error> {
        self.publish_server(&*self.server(ordinal)?)
    }

    /// Takes a Pod out of DNS, whatever it is doing.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPod`].
    pub fn unpublish(&self, ordinal: usize) -> Result<(), Error> {
        self.unpublish_server(&*self.server(ordinal)?)
    }

    /// Changes the number of Pods, as a StatefulSet does.
    ///
    /// Down: one by one, the highest ordinal first, each leaves DNS and is then stopped; its data stays. Up: new
    /// standbys are copied from the primary, all at once, and published in order once they stream. Where no primary
    /// runs, a Pod comes back with the data it had; so the whole set can be scaled to nothing and back. Every Pod
    /// that is added has an address that no Pod had before.
    ///
    /// # Errors
    ///
    /// [`Error::NoPrimary`] where there is neither a primary to copy nor data to come back with.
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
            // What did not come up is not there: the next attempt begins where this one did.
            while self.len() > before {
                let server = self.server(self.len() - 1)?;
                self.unpublish_server(&server)?;
                server.kill().await?;
                self.retire(server);
            }
        }
        grown
    }

    /// Moves a Pod to an address that no Pod had before, as happens when its node goes: it leaves DNS, is stopped
    /// (fast), starts at the new address with the same name and data, and is published. The standbys of a primary
    /// that moves follow it.
    ///
    /// # Errors
    ///
    /// As [`stop`](Self::stop) and [`start_pod`](Self::start_pod).
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

    /// Makes a standby the primary, and the other standbys follow it. The old primary is left as it is: one that
    /// still runs is a second primary, on the old timeline, until it is [re-attached](Self::reattach).
    ///
    /// # Errors
    ///
    /// [`Error::State`] where the Pod does not run or is no standby, [`Error::Sql`], [`Error::Timeout`].
    pub async fn promote(&self, ordinal: usize) -> Result<(), Error> {
        let _operation = self.operation.lock().await;
        let server = self.server(ordinal)?;
        server.expect(State::Running, "running")?;
        if server.role() == Role::Primary {
            return Err(Error::State { name: server.name().to_owned(), is: "a primary", expected: "a standby" });
        }
        replication::promote(&server).await?;
        server.set_role(None)?;
        lock(&self.pods).primary = Arc::clone(&server);
        let standbys = self.standbys_of(&server);
        for standby in &standbys {
            standby.set_role(Some(server.address()))?;
        }
        for standby in standbys.iter().filter(|standby| standby.state().0 == State::Running) {
            if replication::wait_streaming(&server, standby, FOLLOW_DEADLINE).await.is_err() {
                // It had received more than the new primary: nothing but a rewind helps.
                self.attach(standby, &server).await?;
            }
        }
        Ok(())
    }

    /// Makes any Pod but the primary a standby of the current primary, with what the primary has: what only this Pod
    /// had is lost. With `pg_rewind` where that can be done, as a fresh copy otherwise. Returns when it streams.
    ///
    /// # Errors
    ///
    /// [`Error::NoPrimary`] where the primary does not run; [`Error::State`] where the Pod is the primary itself.
    pub async fn reattach(&self, ordinal: usize) -> Result<(), Error> {
        let _operation = self.operation.lock().await;
        let server = self.server(ordinal)?;
        let primary = self.running_primary()?;
        if Arc::ptr_eq(&server, &primary) {
            let expected = "another Pod than the primary";
            return Err(Error::State { name: server.name().to_owned(), is: "the primary", expected });
        }
        self.attach(&server, &primary).await?;
        self.readiness(&server, true)
    }

    /// Waits until every standby that runs has replayed all that the primary has written so far.
    ///
    /// # Errors
    ///
    /// [`Error::NoPrimary`], and [`Error::Timeout`] after 30 s.
    pub async fn wait_replicated(&self) -> Result<(), Error> {
        let primary = self.running_primary()?;
        let mut standbys = self.standbys_of(&primary);
        standbys.retain(|standby| standby.state().0 == State::Running);
        replication::wait_replayed(&primary, &standbys, STREAMING_DEADLINE).await
    }

    /// Changes the application's password on the primary, and returns when every running standby has it too. Sessions
    /// that are open stay open; [`password`](Cluster::password) and the URLs are the new one's from then on.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for an empty password or one with a zero byte, [`Error::NoPrimary`], [`Error::Sql`] and
    /// [`Error::Timeout`].
    pub async fn set_password(&self, password: &str) -> Result<(), Error> {
        if password.is_empty() || password.contains('\0') {
            return Err(Error::Setting { setting: "password", expected: "something, without a zero byte" });
        }
        let primary = self.running_primary()?;
        let client = primary.connect("postgres").await?;
        let statement = format!("ALTER ROLE {} PASSWORD {}", identifier(&self.site.user), quoted(password));
        client.batch_execute(&statement).await.map_err(|source| Error::sql("change the password", source))?;
        self.wait_replicated().await?;
        *lock(&self.site.password) = password.to_owned();
        Ok(())
    }

    /// Takes the Pod with the highest ordinal, which this is, out of the set; its data stays.
    fn retire(&self, last: Arc<Server>) {
        let mut pods = lock(&self.pods);
        pods.present.pop();
        pods.volumes.push(last);
    }

    async fn attach(&self, server: &Arc<Server>, primary: &Arc<Server>) -> Result<(), Error> {
        server.stop(Shutdown::Fast).await?;
        replication::rewind_or_copy(&self.site, server, primary).await?;
        server.set_role(Some(primary.address()))?;
        server.start().await?;
        replication::wait_streaming(primary, server, STREAMING_DEADLINE).await
    }

    /// Adds Pods until there are so many.
    async fn grow(&self, pods: usize) -> Result<(), Error> {
        let mut starting = JoinSet::new();
        for ordinal in self.len()..pods {
            let address = self.fresh_address()?;
            let volume = lock(&self.pods).volumes.pop();
            let known = volume.as_ref().is_some_and(|server| server.data().exists());
            let server = match volume {
                Some(server) => server,
                None => {
                    let name = format!("{}-{ordinal}", self.name);
                    Arc::new(Server::new(Arc::clone(&self.site), name, address, Role::Standby)?)
                }
            };
            server.set_address(address);
            lock(&self.pods).present.push(Arc::clone(&server));
            let primary = self.primary_server();
            if Arc::ptr_eq(&server, &primary) || (known && primary.state().0 == State::Down) {
                // Nobody to copy from: back with the data it had, one after the other.
                server.start().await?;
                if Arc::ptr_eq(&server, &primary) {
                    for standby in self.standbys_of(&server) {
                        standby.set_role(Some(address))?;
                    }
                }
                continue;
            }
            let primary = self.running_primary()?;
            let site = Arc::clone(&self.site);
            starting.spawn(async move {
                replication::copy(&site, &server, &primary).await?;
                server.set_role(Some(primary.address()))?;
                server.start().await?;
                replication::wait_streaming(&primary, &server, STREAMING_DEADLINE).await
            });
        }
        while let Some(started) = starting.join_next().await {
            started.map_err(|source| Error::io("start a Pod", std::io::Error::other(source)))??;
        }
        let servers = lock(&self.pods).present.clone();
        servers.iter().filter(|server| server.state().0 == State::Running).try_for_each(|s| self.publish_server(s))
    }

    fn readiness(&self, server: &Server, ready: bool) -> Result<(), Error> {
        match (self.follow_readiness, ready) {
            (false, _) => Ok(()),
            (true, true) => self.publish_server(server),
            (true, false) => self.unpublish_server(server),
        }
    }

    fn primary_server(&self) -> Arc<Server> {
        Arc::clone(&lock(&self.pods).primary)
    }

    fn running_primary(&self) -> Result<Arc<Server>, Error> {
        let primary = self.primary_server();
        match primary.state().0 {
            State::Running => Ok(primary),
            _ => Err(Error::NoPrimary { name: primary.name().to_owned() }),
        }
    }

    fn standbys_of(&self, primary: &Arc<Server>) -> Vec<Arc<Server>> {
        let others = lock(&self.pods).present.clone();
        let standby = |server: &Arc<Server>| server.role() == Role::Standby && !Arc::ptr_eq(server, primary);
        others.into_iter().filter(standby).collect()
    }
}
