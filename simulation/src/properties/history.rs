//! The history of a simulation: what clients, servers and name servers did, and when.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    time::Duration,
};

use crate::adversary::{Plan, Target, Work};

/// The history of one simulation.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The plan that was executed.
    pub plan: Plan,
    /// Time at which the world was whole again after the last fault: every server runs and replicates, one primary
    /// serves, every Pod is ready, and every name server gives the right answers. None if it never was, so that nothing
    /// can be required afterwards.
    pub healed: Option<Duration>,
    /// Time of the last record.
    pub end: Duration,
    /// The ids in the table of the last primary, with the number of rows of each. None if no primary was left.
    pub rows: Option<BTreeMap<i64, u32>>,
    /// The records, sorted by time.
    pub records: Vec<Record>,
}

impl History {
    /// Returns the Pods that each client may fence for good. `docs/operators.md`: without `pg_read_all_stats`, the pool
    /// cannot verify that no standby has a newer timeline that it has seen, "and waits for the standbys' next
    /// restartpoints or for a call of `Pool::forget_history`". Nor can a client "that does not use every Pod". Such a
    /// client removes fenced Pods, which ends the fence.
    pub(super) fn fenced_for_good(&self) -> BTreeSet<(u32, Instance)> {
        let mut fenced = BTreeSet::new();
        let uses_all = self.plan.settings.uses_every_pod();
        if self.plan.topology.read_all_stats && uses_all {
            return fenced;
        }
        for record in &self.records {
            match record.event {
                Event::Fenced { client, on, fenced: true } => drop(fenced.insert((client, on))),
                Event::Fenced { client, on, fenced: false } if uses_all => drop(fenced.remove(&(client, on))),
                _ => {}
            }
        }
        fenced
    }
}

/// An event with its time.
#[derive(Clone, Debug)]
pub struct Record {
    /// Time since the start of the simulation.
    pub at: Duration,
    /// The event.
    pub event: Event,
}

/// The number of a call of a client's pool, unique in a history.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct CallId(pub u64);

/// A Pod at one set of addresses: a Pod that is created again elsewhere is another instance.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Instance {
    /// The ordinal of the Pod.
    pub pod: u32,
    /// The number of the Pod's set of addresses, from 0.
    pub incarnation: u32,
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { pod, incarnation: 0 } => write!(f, "pod-{pod}"),
            Self { pod, incarnation } => write!(f, "pod-{pod}#{incarnation}"),
        }
    }
}

/// The role of a server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Role {
    /// True if the server is in recovery.
    pub standby: bool,
    /// True if transactions are read-only by default.
    pub read_only: bool,
}

impl Role {
    /// A server that accepts writes.
    pub const PRIMARY: Self = Self { standby: false, read_only: false };
    /// A server in recovery.
    pub const STANDBY: Self = Self { standby: true, read_only: false };

    /// Returns true if a target accepts the role, as `docs/parameters.md` defines `target_session_attrs`.
    #[must_use]
    pub fn fits(self, target: Target) -> bool {
        match target {
            Target::Any | Target::PreferStandby | Target::PreferPrimary => true,
            Target::ReadWrite => !self.standby && !self.read_only,
            Target::ReadOnly => self.standby || self.read_only,
            Target::Primary => !self.standby,
            Target::Standby => self.standby,
        }
    }
}

/// The confirmation for which the server waited before it acknowledged a commit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Confirmation {
    /// The commit was never acknowledged.
    None,
    /// Only the server's own disk.
    Local,
    /// The synchronous standbys.
    Synchronous,
}

/// The effect of a failed call, as the error states it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Applied {
    /// Nothing was applied.
    No,
    /// It may have been applied.
    Unknown,
}

/// The result of a call.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The call succeeded.
    Done,
    /// The call failed with an error.
    Failed {
        /// The error's kind, such as `pool_timeout`.
        kind: String,
        /// The effect that the error states.
        applied: Applied,
    },
    /// The caller dropped the future.
    Cancelled,
}

/// The state of a session on its server at the moment of a checkout.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Session {
    /// True if a transaction is open, or has failed and is not rolled back.
    pub in_transaction: bool,
    /// True if a statement of an earlier caller is running.
    pub is_running: bool,
    /// True if a `COPY` has not ended.
    pub in_copy: bool,
    /// The call that left its marker in the session, if the marker is still there.
    pub marker: Option<CallId>,
}

/// The use of an address of a Pod by a client, as the client's pool reports it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// A member: added, or named by DNS again.
    Member,
    /// Absent from DNS, but still used.
    Retained,
    /// Absent from DNS and not used.
    Detached,
    /// Removed: its connections are being closed.
    Drained,
}

/// A limited operation of a pool.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// A dial, until the end of the login.
    Dial,
    /// A resolution of the Service name.
    Lookup,
}

/// The state of one Pod in a client's pool.
#[derive(Clone, Copy, Debug)]
pub struct PodSample {
    /// The Pod.
    pub on: Instance,
    /// The address in use. All counts are those of this address.
    pub address: SocketAddr,
    /// Number of other addresses of the Pod, which are only probed.
    pub alternatives: u32,
    /// True if the Pod passes its health check.
    pub healthy: bool,
    /// True if the Pod's connections can be checked out: healthy, not fenced, not detached.
    pub usable: bool,
    /// True if the Pod is usable, but callers do not get its connections while other Pods serve: it is a standby that
    /// is too far behind, or one of its sessions has ended unexpectedly.
    pub avoided: bool,
    /// True if the Pod was seen as a standby. None while its role is unknown.
    pub standby: Option<bool>,
    /// The Pod's timeline, if it is known.
    pub timeline: Option<u32>,
    /// The timeline that the server really has. None while the server is down.
    pub server_timeline: Option<u32>,
    /// Open connections.
    pub open: u32,
    /// Open connections that are idle.
    pub idle: u32,
    /// Connections that are checked out, pinged for a call, or being recycled.
    pub in_use: u32,
    /// Waiting callers that this Pod could serve.
    pub waiting: u32,
    /// Sessions of this client on the server, as the server counts them. None while the server is down.
    pub sessions: Option<u32>,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A caller calls its pool.
    Began {
        /// The call.
        call: CallId,
        /// The client.
        client: u32,
        /// The index of the caller in the plan.
        caller: usize,
        /// The work.
        work: Work,
        /// The requested kind of server.
        target: Target,
        /// The ids that the work inserts. No other call inserts them.
        ids: Vec<i64>,
    },
    /// The work of a call receives a connection.
    CheckedOut {
        /// The call.
        call: CallId,
        /// The Pod.
        on: Instance,
        /// The address of the Pod.
        address: SocketAddr,
        /// The role that the client reports for the connection. None if it is unknown.
        role: Option<Role>,
        /// The state of the session on the server.
        session: Session,
    },
    /// The connection of a call returns to the pool.
    Returned {
        /// The call.
        call: CallId,
    },
    /// A call ends.
    Ended {
        /// The call.
        call: CallId,
        /// The result.
        outcome: Outcome,
    },
    /// A server has a commit on its disk.
    Committed {
        /// The inserted id.
        id: i64,
        /// The server.
        on: Instance,
        /// The confirmation for which the commit waited.
        confirmed: Confirmation,
    },
    /// A server executes a statement that reads.
    Read {
        /// The call.
        call: CallId,
        /// The server.
        on: Instance,
        /// Time at which the oldest commit was acknowledged that the snapshot lacks, on any timeline that survives.
        /// None if it lacks none.
        lacks_since: Option<Duration>,
    },
    /// A server has a role from now on. None if it does not run.
    Role {
        /// The server.
        on: Instance,
        /// The role.
        role: Option<Role>,
    },
    /// A client reports another standing of an address of a Pod.
    Standing {
        /// The client.
        client: u32,
        /// The address.
        address: SocketAddr,
        /// The standing.
        standing: Standing,
    },
    /// An address of a Pod passes the probes of a client from now on, or not any more.
    Health {
        /// The client.
        client: u32,
        /// The address.
        address: SocketAddr,
        /// True if it passes them.
        healthy: bool,
    },
    /// A client fences a Pod, or does not fence it any more.
    Fenced {
        /// The client.
        client: u32,
        /// The Pod.
        on: Instance,
        /// True if it is fenced.
        fenced: bool,
    },
    /// A client ejects a Pod.
    Ejected {
        /// The client.
        client: u32,
        /// The Pod.
        on: Instance,
    },
    /// A fault ends sessions of a client.
    Terminated {
        /// The client.
        client: u32,
        /// The Pod.
        on: Instance,
        /// Number of sessions.
        sessions: u32,
    },
    /// A client forgets the timelines that it has seen.
    Forgot {
        /// The client.
        client: u32,
    },
    /// A client's resolution of the Service name succeeds. Empty if the name has no Pods.
    Resolved {
        /// The client.
        client: u32,
        /// The Pods in the answer.
        pods: BTreeSet<Instance>,
        /// Their addresses in the answer.
        addresses: BTreeSet<SocketAddr>,
    },
    /// The state of a client's pool.
    Sampled {
        /// The client.
        client: u32,
        /// The Pods in use.
        pods: Vec<PodSample>,
    },
    /// A client's process is stopped (SIGSTOP) or continues.
    Paused {
        /// The client.
        client: u32,
        /// True if it is stopped.
        paused: bool,
    },
    /// A limited operation of a client's pool ends.
    Finished {
        /// The client.
        client: u32,
        /// The operation.
        stage: Stage,
        /// Its duration.
        took: Duration,
    },
    /// A client's pool has been closed, and its last handle was dropped some time before.
    Closed {
        /// The client.
        client: u32,
        /// Tasks of the pool that have not ended.
        tasks: u32,
        /// Timers of the pool that are still registered.
        timers: u32,
        /// Sockets of the client that are still open.
        sockets: u32,
        /// Sessions of the client on all servers.
        sessions: u32,
    },
}
