//! The role, state and shutdown modes of a Pod.

use std::{fmt, net::SocketAddr};

use crate::Endpoint;

/// The role that a Pod's server is configured for.
///
/// A former primary keeps its role until it is [re-attached](crate::testkit::Cluster::reattach). If it is started
/// before that, it runs as a second primary on its old timeline, as a real server would.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "PostgreSQL has no third role")]
pub enum PodRole {
    /// Accepts writes.
    Primary,
    /// Replicates from the primary and accepts reads.
    Standby,
}

/// The state of a Pod's processes.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum PodState {
    /// No process is running: the server was stopped or killed, or has exited.
    Down,
    /// The processes are suspended by SIGSTOP: their connections stay open, and they send nothing.
    Paused,
    /// The server is running.
    Running,
}

/// PostgreSQL's three shutdown modes.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "PostgreSQL has always had exactly these three")]
pub enum Shutdown {
    /// Waits until every client has disconnected (SIGTERM).
    Smart,
    /// Terminates the sessions (57P01) and shuts down cleanly (SIGINT). Most `preStop` hooks do this.
    Fast,
    /// Ends all processes without a checkpoint (SIGQUIT).
    Immediate,
}

/// A snapshot of one Pod.
#[derive(Clone, Debug)]
pub struct Pod {
    pub(super) endpoint: Endpoint,
    pub(super) name: String,
    pub(super) role: PodRole,
    pub(super) state: PodState,
    pub(super) pid: Option<u32>,
    pub(super) published: bool,
}

impl Pod {
    /// Returns the Pod's name in the StatefulSet, such as `postgresql-sfs-0`. It is also the server's `cluster_name`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the Pod's address and port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.endpoint.address().tcp().expect("a Pod of the testkit has an IP address")
    }

    /// Returns the Pod's name and address, as the pool discovers them from SRV records.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns the role that the Pod's server is configured for.
    #[must_use]
    pub fn role(&self) -> PodRole {
        self.role
    }

    /// Returns the state of the Pod's processes.
    #[must_use]
    pub fn state(&self) -> PodState {
        self.state
    }

    /// Returns the process id of the postmaster, or `None` if the Pod is down.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Returns true if the Pod is published in DNS.
    #[must_use]
    pub fn is_published(&self) -> bool {
        self.published
    }
}

impl fmt::Display for PodRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Primary => "primary",
            Self::Standby => "standby",
        })
    }
}

impl PodState {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Paused => "paused",
            Self::Running => "running",
        }
    }
}

impl fmt::Display for PodState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
