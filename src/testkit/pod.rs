use std::{fmt, net::SocketAddr};

use crate::Endpoint;

/// What a Pod's server is set up to be. A former primary stays one until it is re-attached: started again, it serves
/// as a second primary, on its old timeline, as in real life.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "PostgreSQL has no third role")]
pub enum Role {
    /// Takes writes.
    Primary,
    /// Follows the primary and takes reads.
    Standby,
}

/// What a Pod's processes are doing.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum State {
    /// There are none: stopped, killed, or ended by themselves.
    Down,
    /// Stopped by SIGSTOP: connections open and nothing comes back.
    Paused,
    /// Up.
    Running,
}

/// How a server is asked to stop: PostgreSQL's three ways.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "PostgreSQL has these three since it exists")]
pub enum Shutdown {
    /// Waits until every client has left by itself (SIGTERM).
    Smart,
    /// Ends the sessions (57P01) and shuts down in order (SIGINT); what a Pod's `preStop` hook mostly does.
    Fast,
    /// Ends everything at once, without a checkpoint (SIGQUIT).
    Immediate,
}

/// One Pod as it was when it was asked for.
#[derive(Clone, Debug)]
pub struct Pod {
    pub(super) endpoint: Endpoint,
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) state: State,
    pub(super) pid: Option<u32>,
    pub(super) published: bool,
}

impl Pod {
    /// The Pod's name, as the StatefulSet gives it: `postgresql-sfs-0`. The server's `cluster_name` is the same.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The Pod's address and port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.endpoint.address()
    }

    /// Name and address, as discovery by SRV records tells them.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// What the Pod's server is set up to be.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// What the Pod's processes are doing.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// The process id of the postmaster, while there is one.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Whether DNS knows the Pod.
    #[must_use]
    pub fn is_published(&self) -> bool {
        self.published
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Primary => "primary",
            Self::Standby => "standby",
        })
    }
}

impl State {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Paused => "paused",
            Self::Running => "running",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
