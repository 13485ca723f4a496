//! The container runtime: what runs inside a Pod.

use tokio::time::Instant;

use super::pod::{PodInfo, Uid};

/// A signal to the main process of a container, with PostgreSQL's reaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: smart shutdown, which waits for the clients.
    Terminate,
    /// SIGINT: fast shutdown, which ends the sessions. The stop signal of the image.
    Interrupt,
    /// SIGQUIT: immediate shutdown, with crash recovery at the next start.
    Quit,
    /// SIGKILL: the process ends without doing anything.
    Kill,
}

/// Runs the containers of all Pods. None of these calls may call the cluster: the end of a process is reported later,
/// with [`Cluster::exited`](super::Cluster::exited).
pub trait ContainerRuntime {
    /// Starts the main process of a Pod. A restart in place has the same Uid and addresses. A Pod that is created
    /// again has the name of its predecessor, whose volume it mounts, and another Uid.
    fn start(&mut self, now: Instant, pod: &PodInfo);

    /// Sends a signal to the running process of a Pod. After [`Signal::Kill`], the process has ended, and its end
    /// need not be reported.
    fn signal(&mut self, now: Instant, pod: Uid, signal: Signal);

    /// Runs the readiness probe of a Pod whose process runs.
    fn is_ready(&mut self, now: Instant, pod: Uid) -> bool;

    /// Removes the addresses of a Pod whose process has ended: from now on, nothing answers there.
    fn remove(&mut self, now: Instant, pod: Uid);
}
