//! Injects faults into single Pods: kills, stops, pauses or throttles a Pod, or removes it from DNS.

use super::{Cluster, Error, Shutdown, server::Server, throttle::Throttle};

/// Faults in single Pods. Each method returns when its effect is complete.
impl Cluster {
    /// Kills all processes of a Pod with SIGKILL, as the out-of-memory killer does. The Pod's DNS record stays, unless
    /// [`follow_readiness`](crate::testkit::ClusterBuilder::follow_readiness) is set.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPod`]. Killing a Pod that is already down is not an error.
    pub async fn kill(&self, ordinal: usize) -> Result<(), Error> {
        let _operation = self.operation.lock().await;
        let server = self.server(ordinal)?;
        server.kill().await?;
        self.set_ready(&server, false)
    }

    /// Shuts a Pod's server down. A paused server is resumed first.
    ///
    /// In the smart and fast modes a primary waits until its standbys have received all WAL. It waits up to one minute
    /// for a paused standby.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPod`], and [`Error::Timeout`] after 90 s, for example if [`Shutdown::Smart`] waits for a client
    /// that stays connected.
    pub async fn stop(&self, ordinal: usize, shutdown: Shutdown) -> Result<(), Error> {
        let _operation = self.operation.lock().await;
        let server = self.server(ordinal)?;
        self.set_ready(&server, false)?;
        server.stop(shutdown).await
    }

    /// Starts a Pod that is down, with its previous data, address and role.
    ///
    /// A former primary starts as a second primary on its old timeline. Use [`reattach`](Self::reattach) to start it as
    /// a standby instead.
    ///
    /// # Errors
    ///
    /// [`Error::WrongState`] if the Pod is not down, [`Error::Exited`] or [`Error::Timeout`] (90 s) if the server does
    /// not start.
    pub async fn start_pod(&self, ordinal: usize) -> Result<(), Error> {
        let _operation = self.operation.lock().await;
        let server = self.server(ordinal)?;
        server.start().await?;
        self.set_ready(&server, true)
    }

    /// Shuts a Pod's server down (fast) and starts it again.
    ///
    /// # Errors
    ///
    /// The same as for [`stop`](Self::stop) and [`start_pod`](Self::start_pod).
    pub async fn restart(&self, ordinal: usize) -> Result<(), Error> {
        let _operation = self.operation.lock().await;
        let server = self.server(ordinal)?;
        self.set_ready(&server, false)?;
        server.stop(Shutdown::Fast).await?;
        server.start().await?;
        self.set_ready(&server, true)
    }

    /// Stops all processes of a Pod with SIGSTOP, as if its node hung: open connections stay open and receive no
    /// response. The kernel still accepts new TCP connections, but they receive no response either.
    ///
    /// # Errors
    ///
    /// [`Error::WrongState`] if the Pod is not running.
    pub async fn pause(&self, ordinal: usize) -> Result<(), Error> {
        let _operation = self.operation.lock().await;
        let server = self.server(ordinal)?;
        server.pause().await?;
        self.set_ready(&server, false)
    }

    /// Resumes all processes of a Pod that was [paused](Self::pause).
    ///
    /// # Errors
    ///
    /// [`Error::WrongState`] if the Pod is not paused.
    pub async fn resume(&self, ordinal: usize) -> Result<(), Error> {
        let _operation = self.operation.lock().await;
        let server = self.server(ordinal)?;
        server.resume().await?;
        self.set_ready(&server, true)
    }

    /// Limits the CPU time of a Pod until the returned guard is dropped. `share` is above 0 and at most 1.
    ///
    /// On Linux, the Pod gets a CPU quota, like `limits.cpu` in Kubernetes, if this process may create a control group
    /// with a quota. This requires root and, for cgroup v2, the `cpu` controller in the parent group. In the second
    /// after the call, the testkit measures the CPU time that the Pod's processes use. The quota is `share` of that
    /// time, but at least 1 ms per second. A Pod that is idle during the measurement thus gets almost no CPU time.
    /// Restarting the Pod removes the limit. If a Pod has two guards, dropping either one removes the limit.
    ///
    /// Without such a control group, the Pod's processes are stopped and resumed (SIGSTOP, SIGCONT) a hundred times per
    /// second, regardless of the CPU time that they use. A new process runs without a limit for up to 100 ms. The
    /// signals also slow down other processes on the machine.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if `share` is out of range, [`Error::WrongState`] if the Pod is not running.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub async fn throttle(&self, ordinal: usize, share: f64) -> Result<Throttle, Error> {
        if !(share > 0.0 && share <= 1.0) {
            return Err(Error::Setting { setting: "share", expected: "a number above 0 and up to 1" });
        }
        let _operation = self.operation.lock().await;
        self.server(ordinal)?.throttle(share).await
    }

    /// Adds a Pod to DNS, regardless of its state.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPod`].
    pub fn publish(&self, ordinal: usize) -> Result<(), Error> {
        self.publish_server(&*self.server(ordinal)?)
    }

    /// Removes a Pod from DNS, regardless of its state.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPod`].
    pub fn unpublish(&self, ordinal: usize) -> Result<(), Error> {
        self.unpublish_server(&*self.server(ordinal)?)
    }

    /// Publishes or unpublishes a server if DNS follows the Pods' readiness.
    pub(super) fn set_ready(&self, server: &Server, ready: bool) -> Result<(), Error> {
        match (self.follow_readiness, ready) {
            (false, _) => Ok(()),
            (true, true) => self.publish_server(server),
            (true, false) => self.unpublish_server(server),
        }
    }
}
